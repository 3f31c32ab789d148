"""What the loss of an engine costs: until its task runs elsewhere, and to the engine that is left.

Usage: python -m benchmarks.loss [--rounds 10]

A run with one place works off short tasks. In each round a context with another place is added, and when it has run
tasks for a second its engine is killed. "Elsewhere" is from the kill to the next attempt at a task that it held. The
rate is that of the engine that is left: for half a second from the kill, against half a second before it, and after.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.measuring import PYTHON, Ended, parser_of, read_status, running, spread, workplace, write_tasks

if TYPE_CHECKING:
    from pathlib import Path

TASK = "echo $DISBATCH_ENGINE_RANK $DISBATCH_ATTEMPT; sleep 0.01"
PAUSE = 0.5
"""Seconds in which tasks are counted."""


class Lost(NamedTuple):
    """What was measured: when engines were killed (s since the epoch), and all tasks."""

    kills: list[float]
    tasks: list[Ended]


def engine_of(directory: Path, rank: int) -> int:
    """Pid of the engine of that rank, once it has run tasks for a while."""
    while True:
        for log in directory.glob(f"run_*_engine_{rank}.log"):
            said = log.read_text(encoding="utf-8")
            if "admitted" in said:
                time.sleep(2 * PAUSE)
                return int(said.split("pid ", 1)[1].split(",")[0])
        time.sleep(0.02)


def lose(directory: Path, rounds: int) -> Lost:
    """Let a run lose so many engines."""
    write_tasks(directory / "tasks", [f"#DISBATCH REPEAT 1000000 {TASK}"])
    status = directory / "run_status.txt"
    kills = []
    with running("-s", "localhost:1", "tasks", directory=directory):
        while not (status.exists() and status.stat().st_size):
            time.sleep(0.05)
        for rank in range(1, rounds + 1):
            script = [str(directory / "run_dbUtil.sh"), "-s", "localhost:1"]
            with subprocess.Popen(script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
                engine = engine_of(directory, rank)
                kills.append(time.time())
                os.kill(engine, signal.SIGKILL)
            time.sleep(2 * PAUSE)
    return Lost(kills, read_status(directory))


def elsewhere(lost: Lost) -> list[float]:
    """Seconds from each kill to the start of a second attempt, where the engine held a task."""
    seconds = []
    for kill in lost.kills:
        again = [task.start for task in lost.tasks if task.start >= kill and task.output.endswith((" 2", " 3"))]
        if again and min(again) - kill < PAUSE * 4:
            seconds.append(min(again) - kill)
    return seconds


def rates(lost: Lost) -> list[float]:
    """Tasks/s of the engine that stays just after each kill, as a share of those before, with two, and later, alone."""
    ends = [task.end for task in lost.tasks if task.output.startswith("0 ")]

    def count(since: float) -> int:
        return sum(since <= end < since + PAUSE for end in ends)

    return [2 * count(kill) / (count(kill - PAUSE) + count(kill + PAUSE)) for kill in lost.kills]


def main() -> None:
    """Measure, and print a table."""
    asked = parser_of(__doc__, rounds=10).parse_args()
    with workplace() as directory:
        lost = lose(directory, asked.rounds)
    print(f"{asked.rounds} engines of a place each killed, beside one that stays, {PYTHON}")
    print(f"a task that was lost starts elsewhere, s        {spread(elsewhere(lost), '.3f')}")
    print(f"tasks/s of the engine that is left, ratio       {spread(rates(lost), '.2f')}")


if __name__ == "__main__":
    main()
