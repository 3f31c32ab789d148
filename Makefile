# Everything one does with this checkout. `make` alone lists it; longer steps are scripts in tools/.
#
# The first target that needs Python packages makes a virtual environment for them, from python3 or from what you name:
#     make test PYTHON=python3.13 VENV=.venv-3.13
#     make chaos SEEDS=20 FIRST=1000

PYTHON ?=
VENV ?= .venv
SEEDS ?= 200
FIRST ?= 0
MINUTES ?= 10
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# What Python has compiled is kept: every process of a test would compile anew what it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup system-packages test lint unit chaos attack reference pictures demo build clean compared-programs \
    bench bench-throughput bench-latency bench-startup bench-resume bench-idle bench-growth bench-loss bench-launches \
    bench-scale bench-slurm bench-store bench-attack bench-digest bench-watched

help:  ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## make the virtual environment with disbatch in it

$(READY): pyproject.toml tools/make-venv.sh
	tools/make-venv.sh "$(VENV)" $(PYTHON)
	touch $@

system-packages:  ## install the Debian packages that tests with real ssh, Slurm, shells and a browser need (root, with apt-get)
	tools/install-system-packages.sh

test: $(READY) system-packages lint  ## lint, then all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY)  ## style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

unit: $(READY)  ## the tests of single files alone, in seconds: with fewer examples of each property than `make test`
	$(BIN)/python -m pytest --hypothesis-profile=quick -n auto --maxprocesses=4 tests/unit

chaos: $(READY)  ## have SEEDS runs, from seed FIRST on, go through random failures (root, with ssh)
	$(BIN)/python -m tests.chaos --seeds $(SEEDS) --first $(FIRST)

attack: $(READY)  ## attack the key-value store for MINUTES
	DISBATCH_ATTACK_MINUTES=$(MINUTES) $(BIN)/python -m pytest tests/e2e/test_attack.py

reference: $(READY)  ## write docs/reference/options.md anew, from the declaration of the options
	$(BIN)/python tools/make-reference.py

pictures: $(READY)  ## write docs/pictures anew (with Chromium)
	$(BIN)/python tools/make-picture.py
	$(BIN)/python tools/make-picture-of-page.py

demo: $(READY)  ## run an example on all cores of this machine and show what comes of it
	tools/demo.sh "$(BIN)/disbatch"

bench: bench-throughput  ## the same as bench-throughput

compared-programs: $(READY)
	tools/install-compared.sh $(BIN)/python

bench-throughput: compared-programs  ## measure how many tasks a second go through, beside other programs
	$(BIN)/python -m benchmarks.throughput

bench-latency: $(READY)  ## measure how long a place is empty between tasks, and what distance does to that
	$(BIN)/python -m benchmarks.latency

bench-startup: $(READY)  ## measure what a short run takes
	$(BIN)/python -m benchmarks.startup

bench-resume: $(READY)  ## measure what it takes to skip a million completed tasks
	$(BIN)/python -m benchmarks.resume

bench-idle: $(READY)  ## measure what a run costs while its tasks sleep
	$(BIN)/python -m benchmarks.idle

bench-growth: $(READY)  ## measure what it takes to add a context to a run that goes on
	$(BIN)/python -m benchmarks.growth

bench-scale: $(READY)  ## measure what a driver gets through that has many engines and many tasks
	$(BIN)/python -m benchmarks.scale

bench-slurm: $(READY)  ## measure what is added to a job of Slurm (root, with its packages)
	$(BIN)/python -m benchmarks.slurm

bench-loss: $(READY)  ## measure what the loss of an engine costs
	$(BIN)/python -m benchmarks.loss

bench-launches: $(READY)  ## measure what it takes to start engines on up to a thousand nodes
	$(BIN)/python -m benchmarks.launches

bench-attack: $(READY)  ## measure what strangers who attack the driver take from a run
	$(BIN)/python -m benchmarks.attack

bench-watched: $(READY)  ## measure what those who watch a run take from it: terminal, monitor, web page
	$(BIN)/python -m benchmarks.watched

bench-store: $(READY)  ## measure what connections to the key-value store cost
	$(BIN)/python -m benchmarks.store

bench-digest: $(READY)  ## measure what it takes to find out what failed
	$(BIN)/python -m benchmarks.digest

build: $(READY)  ## wheel and source distribution, in dist/
	$(BIN)/python -m build --no-isolation

clean:  ## remove everything that was made here
	rm -rf .venv .venv-* build dist demo-run .gridengine .compared .hypothesis .pytest_cache .mypy_cache .ruff_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
