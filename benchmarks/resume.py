"""What it takes to skip the tasks of a long run that was completed.

Usage: python -m benchmarks.resume [--tasks 1000000] [--rounds 3]

The status file is made, in the form in which disbatch writes it. In each round a Python that only reads the lines of
the two files, a run of one task, and one that skips all.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from benchmarks.measuring import (
    DISBATCH,
    ENVIRONMENT,
    PYTHON,
    await_success,
    clear,
    parser_of,
    print_table,
    ratios,
    seconds_of_python,
    spread,
    workplace,
)
from disbatch.statusfile import task_line
from disbatch.tasks import NO_REPEAT, Outcome, Task

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = b"./simulate --seed %d"
READ = "for name in ({!r}, {!r}):\n    for line in open(name, 'rb'):\n        line"


def write_files(tasks: Path, status: Path, count: int) -> None:
    """Write a task file, and the status file of a run in which all of them succeeded."""
    outcome = Outcome(4711, 0, 1.7e9, 0.25, 0, b"", 0, b"", 0.01, 1 << 20, interrupted=False)
    with tasks.open("wb") as lines, status.open("wb") as records:
        for number in range(count):
            command = COMMAND % number
            lines.write(command + b"\n")
            records.write(task_line(Task(number, number + 1, NO_REPEAT, command), "localhost", outcome))


def run(directory: Path, *arguments: str) -> tuple[float, float, float]:
    """Seconds that a run takes, those of CPU of all its processes, MiB of its largest at most, which is the driver."""
    command = [*DISBATCH, "-s", "localhost:1", *arguments]
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=directory, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    await_success(process)
    return time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    """Measure, and print a table."""
    parser = parser_of(__doc__, rounds=3)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    asked = parser.parse_args()
    reading, one, skipping = [], [], []
    with workplace() as directory:
        tasks, status = directory / "many", directory / "status"
        write_files(tasks, status, asked.tasks)
        for _ in range(asked.rounds):
            reading.append(seconds_of_python(READ.format(str(tasks), str(status))))
            one.append(run(directory, "tasks"))
            clear(directory)
            skipping.append(run(directory, "-r", status.name, tasks.name))
            clear(directory)
    rows = [["", "s", "to reading alone", "CPU, s", "peak memory, MiB"]]
    rows.append(["reading both files alone", spread(reading, ".2f"), "", "", ""])
    for name, runs in (("a run of one task", one), ("skipping all", skipping)):
        seconds, cpu, peaks = (list(column) for column in zip(*runs, strict=True))
        times = spread(seconds, ".2f"), spread(ratios(seconds, reading), ".1f"), spread(cpu, ".2f")
        rows.append([name, *times, spread(peaks, ".1f")])
    print_table(f"a status file of {asked.tasks} lines, {asked.rounds} rounds, {PYTHON}", rows)
    print(f"lines/s  {spread([asked.tasks / took for took, _, _ in skipping], '.0f')}")


if __name__ == "__main__":
    main()
