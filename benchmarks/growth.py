"""What it takes to add a context to a run that goes on: until its first task starts, and from the engines that work.

Usage: python benchmarks/growth.py [--rounds 10]

A run with one place works off short tasks. In each round two Pythons that do nothing are started one after the other,
and then a context with another place is added, which goes again after one task. "First task" is from the start of the
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


def add_contexts(directory: Path, rounds: int) -> tuple[list[float], list[tuple[float, float]], list[Ran]]:
    """Let a run grow so often; what two bare Pythons took (s), when each context was added and gone, all tasks."""
    (directory / "tasks").write_text(f"#DISBATCH REPEAT 1000000 {TASK}\n", encoding="utf-8")
    command = [sys.executable, str(CHECKOUT / "disbatch" / "__main__.py"), "-p", "run", "-s", "localhost:1", "tasks"]
    bare, added = [], []
    with subprocess.Popen(command, cwd=directory, stderr=subprocess.DEVNULL) as run:
        script = directory / "run_dbUtil.sh"
        while not (directory / "run_status.txt").exists():
            time.sleep(0.05)
        for _ in range(rounds):
            time.sleep(PAUSE)
            began = time.perf_counter()
            for _ in range(2):
                subprocess.run([sys.executable, "-c", "pass"], check=True)
            bare.append(time.perf_counter() - began)
            came = time.time()
            subprocess.run([script, "-s", "localhost:1", "-C", "1"], check=True)
            added.append((came, time.time()))
        time.sleep(PAUSE)
        run.terminate()
    return bare, added, tasks_of(directory / "run_status.txt")


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
        bare, added, tasks = add_contexts(Path(directory), asked.rounds)
    first = [min(task.start for task in tasks if task.engine and task.start >= came) - came for came, _ in added]
    ratios = [a / b for a, b in zip(first, bare, strict=True)]
    print(f"{asked.rounds} contexts added to a run with one place, Python {sys.version.split()[0]}")
    print(f"two bare Pythons, one after the other, s        {spread(bare, '.3f')}")
    print(f"first task of an added context, s               {spread(first, '.3f')}")
    print(f"ratio of the two                                {spread(ratios, '.1f')}")
    print(f"tasks/s of the engine before, meanwhile, ratio  {spread(rates(tasks, added), '.2f')}")


if __name__ == "__main__":
    main()
