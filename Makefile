# Everything one does with this checkout. `make` alone lists it; longer steps are scripts in tools/.
#
# The first target that needs Python packages makes a virtual environment for them, from python3 or from what you name:
#     make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?=
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup system-packages test lint unit reference demo bench bench-growth bench-slurm bench-store build clean

help:  ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## make the virtual environment with disbatch in it

$(READY): pyproject.toml tools/make-venv.sh
	tools/make-venv.sh "$(VENV)" $(PYTHON)
	touch $@

system-packages:  ## install the Debian packages that tests with real ssh, Slurm and shells need (root, with apt-get)
	tools/install-system-packages.sh

test: $(READY) system-packages lint  ## lint, then all tests
	$(BIN)/python -m pytest

lint: $(READY)  ## style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

unit: $(READY)  ## the tests of single files alone, in seconds: with fewer examples of each property than `make test`
	$(BIN)/python -m pytest --hypothesis-profile=quick -n auto --maxprocesses=4 tests/unit

reference: $(READY)  ## write docs/reference/options.md anew, from the declaration of the options
	$(BIN)/python tools/make-reference.py

demo: $(READY)  ## run an example on all cores of this machine and show what comes of it
	tools/demo.sh "$(BIN)/disbatch"

bench: $(READY)  ## measure how many tasks a second go through
	$(BIN)/python benchmarks/throughput.py

bench-growth: $(READY)  ## measure what it takes to add a context to a run that goes on
	$(BIN)/python benchmarks/growth.py

bench-slurm: $(READY)  ## measure what is added to a job of Slurm (root, with its packages)
	$(BIN)/python benchmarks/slurm.py

bench-store: $(READY)  ## measure what connections to the key-value store cost
	$(BIN)/python benchmarks/store.py

build: $(READY)  ## wheel and source distribution, in dist/
	$(BIN)/python -m build --no-isolation

clean:  ## remove everything that was made here
	rm -rf .venv .venv-* build dist demo-run .gridengine .hypothesis .pytest_cache .mypy_cache .ruff_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
