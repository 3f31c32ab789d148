"""What it takes to add a context to a run that goes on: until its first task starts, and from the engines that work.

Usage: python -m benchmarks.growth [--rounds 10]

A run with one place works off short tasks. In each round two Pythons are started one after the other that do nothing,
then two that only import what a context and an engine do, and then a context with another place is added, which goes
again after one task. "First task" is from the start of the
run's script to the start of the first task there. The rate is that of the engine that was there before: while a context
comes and goes, against half a second before and after.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.measuring import (
    PYTHON,
    Ended,
    parser_of,
    ratios,
    read_status,
    running,
    seconds_of,
    seconds_of_python,
    spread,
    workplace,
    write_tasks,
)

if TYPE_CHECKING:
    from pathlib import Path

TASK = "echo $DISBATCH_ENGINE_RANK; sleep 0.01"
PAUSE = 0.5
"""Seconds between a context that has gone and the next."""


class Grown(NamedTuple):
    """What was measured, round by round: seconds of two Pythons, when a context was added and had gone, all tasks."""

    bare: list[float]
    importing: list[float]
    added: list[tuple[float, float]]
    tasks: list[Ended]


def grow(directory: Path, rounds: int) -> Grown:
    """Let a run grow so often."""
    write_tasks(directory / "tasks", [f"#DISBATCH REPEAT 1000000 {TASK}"])
    status = directory / "run_status.txt"
    bare, importing, added = [], [], []
    with running("-s", "localhost:1", "tasks", directory=directory):
        while not (status.exists() and status.stat().st_size):
            time.sleep(0.05)
        for _ in range(rounds):
            time.sleep(PAUSE)
            bare.append(seconds_of_python() + seconds_of_python())
            importing.append(
                sum(seconds_of_python(f"import disbatch.{role}.process") for role in ("contexts", "engine"))
            )
            came = time.time()
            seconds_of(str(directory / "run_dbUtil.sh"), "-s", "localhost:1", "-C", "1")
            added.append((came, time.time()))
        time.sleep(PAUSE)
    return Grown(bare, importing, added, read_status(directory))


def rates(tasks: list[Ended], added: list[tuple[float, float]]) -> list[float]:
    """Tasks/s of the first engine while each context came and went, as a share of those in the pauses around it."""
    ends = [task.end for task in tasks if task.output == "0"]
    shares = []
    for came, gone in added:
        there = sum(came <= end < gone for end in ends) / (gone - came)
        around = sum(came - PAUSE <= end < came or gone <= end < gone + PAUSE for end in ends) / (2 * PAUSE)
        shares.append(there / around)
    return shares


def main() -> None:
    """Measure, and print a table."""
    asked = parser_of(__doc__, rounds=10).parse_args()
    with workplace() as directory:
        grown = grow(directory, asked.rounds)
    tasks = [task for task in grown.tasks if task.output != "0"]
    first = [min(task.start for task in tasks if task.start >= came) - came for came, _ in grown.added]
    print(f"{asked.rounds} contexts added to a run with one place, {PYTHON}")
    print(f"two bare Pythons, s                             {spread(grown.bare, '.3f')}")
    print(f"two that import what context and engine do, s   {spread(grown.importing, '.3f')}")
    print(f"first task of an added context, s               {spread(first, '.3f')}")
    print(f"ratio of that to two bare Pythons               {spread(ratios(first, grown.bare), '.1f')}")
    print(f"ratio of that to two that import                {spread(ratios(first, grown.importing), '.2f')}")
    print(f"tasks/s of the engine before, meanwhile, ratio  {spread(rates(grown.tasks, grown.added), '.2f')}")


if __name__ == "__main__":
    main()
