"""What it takes to add a context to a run that goes on: until its first task starts, and from the engines that work.

Usage: python benchmarks/growth.py [--rounds 10]

A run with one place works off short tasks. In each round two Pythons are started one after the other that do nothing,
then two that only import what a context and an engine do, and then a context with another place is added, which goes
again after one task. "First task" is from the start of the
run's script to the start of the first task there. The rate is that of the engine that was there before: while a context
comes and goes, against half a second before and after.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parent.parent
TASK = "echo $DISBATCH_ENGINE_RANK; sleep 0.01"
PAUSE = 0.5
"""Seconds between a context that has gone and the next."""


class Ran(NamedTuple):
    """A task: where and when it ran (s since the epoch)."""

    engine: int
    start: float
    end: float


def tasks_of(status: Path) -> list[Ran]:
    """All tasks of a run, in the order in which they started."""
    lines = (line.split("\t") for line in status.read_text(encoding="utf-8").splitlines())
    ran = (Ran(int(fields[11].strip("'").removesuffix(r"\n")), float(fields[8]), float(fields[9])) for fields in lines)
    return sorted(ran, key=lambda task: task.start)


class Grown(NamedTuple):
    """What was measured, round by round: seconds of two Pythons, when a context was added and had gone, all tasks."""

    bare: list[float]
    importing: list[float]
    added: list[tuple[float, float]]
    tasks: list[Ran]


def seconds_of(*programs: str) -> float:
    """How long it takes to start a Python for each program, one after the other."""
    began = time.perf_counter()
    for program in programs:
        subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, check=True)
    return time.perf_counter() - began


def grow(directory: Path, rounds: int) -> Grown:
    """Let a run grow so often."""
    (directory / "tasks").write_text(f"#DISBATCH REPEAT 1000000 {TASK}\n", encoding="utf-8")
    command = [sys.executable, str(CHECKOUT / "disbatch" / "__main__.py"), "-p", "run", "-s", "localhost:1", "tasks"]
    bare, importing, added = [], [], []
    with subprocess.Popen(command, cwd=directory, stderr=subprocess.DEVNULL) as run:
        script = directory / "run_dbUtil.sh"
        while not (directory / "run_status.txt").exists():
            time.sleep(0.05)
        for _ in range(rounds):
            time.sleep(PAUSE)
            bare.append(seconds_of("pass", "pass"))
            importing.append(seconds_of("import disbatch.contexts.process", "import disbatch.engine.process"))
            came = time.time()
            subprocess.run([script, "-s", "localhost:1", "-C", "1"], check=True)
            added.append((came, time.time()))
        time.sleep(PAUSE)
        run.terminate()
    return Grown(bare, importing, added, tasks_of(directory / "run_status.txt"))


def rates(tasks: list[Ran], added: list[tuple[float, float]]) -> list[float]:
    """Tasks/s of the first engine while each context came and went, as a share of those in the pauses around it."""
    ends = [task.end for task in tasks if task.engine == 0]
    shares = []
    for came, gone in added:
        there = sum(came <= end < gone for end in ends) / (gone - came)
        around = sum(came - PAUSE <= end < came or gone <= end < gone + PAUSE for end in ends) / (2 * PAUSE)
        shares.append(there / around)
    return shares


def spread(values: list[float], form: str) -> str:
    """Median of the values, with their range."""
    return f"{statistics.median(values):{form}}  ({min(values):{form}} to {max(values):{form}})"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="disbatch-benchmark-") as directory:
        grown = grow(Path(directory), asked.rounds)
    tasks = [task for task in grown.tasks if task.engine]
    first = [min(task.start for task in tasks if task.start >= came) - came for came, _ in grown.added]
    to_bare = [a / b for a, b in zip(first, grown.bare, strict=True)]
    to_importing = [a / b for a, b in zip(first, grown.importing, strict=True)]
    print(f"{asked.rounds} contexts added to a run with one place, Python {sys.version.split()[0]}")
    print(f"two bare Pythons, s                             {spread(grown.bare, '.3f')}")
    print(f"two that import what context and engine do, s   {spread(grown.importing, '.3f')}")
    print(f"first task of an added context, s               {spread(first, '.3f')}")
    print(f"ratio of that to two bare Pythons               {spread(to_bare, '.1f')}")
    print(f"ratio of that to two that import                {spread(to_importing, '.2f')}")
    print(f"tasks/s of the engine before, meanwhile, ratio  {spread(rates(grown.tasks, grown.added), '.2f')}")


if __name__ == "__main__":
    main()
