"""What it takes to find out what failed, of a status file alone.

Usage: python -m benchmarks.digest [--failed 10000] [--lines 1000000] [--rounds 3]

Two status files are made: one of tasks that all failed, for three reasons, on sixteen hosts; and one of many tasks of
which a thousandth failed so. In each round a Python that only reads the lines of the file, and `disbatch --failures`.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.measuring import (
    CHECKOUT,
    ENVIRONMENT,
    PYTHON,
    parser_of,
    print_table,
    ratios,
    seconds_of,
    seconds_of_python,
    spread,
    workplace,
)
from disbatch.snippet import OutputMeter
from disbatch.statusfile import task_line
from disbatch.tasks import NO_REPEAT, Outcome, Task

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = b"./simulate --seed %d"
READ = "for line in open({!r}, 'rb'):\n    line"
FAILURES = (sys.executable, str(CHECKOUT / "disbatch" / "__main__.py"), "--failures")
REASONS = 3


def outcome(number: int, *, failed: bool) -> Outcome:
    """How a task ended: well, or for one of three reasons, each of which says something else for each task."""
    return_code, said = 0, ""
    if failed:
        return_code, said = (
            (1, f"Traceback (most recent call last):\n  ...\nValueError: no float in 'x{number}', row {number**3}\n"),
            (2, f"cat: /scratch/{number}/in_{number}.txt: No such file or directory\n"),
            (-11, ""),
        )[number % REASONS]
    err = OutputMeter()
    err.feed(said.encode())
    return Outcome(4711, return_code, 1.7e9, 0.2, 0, b"", err.count, err.snippet, 0.01, 1 << 20, interrupted=False)


def write_status(path: Path, lines: int, failed: int) -> None:
    """Write the status file of a run of so many tasks, of which so many failed."""
    every = lines // failed
    with path.open("wb") as records:
        for number in range(lines):
            task = Task(number, number + 1, NO_REPEAT, COMMAND % number)
            ended = outcome(number // every, failed=number % every == 0)
            records.write(task_line(task, f"h{number % 16}", ended))


def main() -> None:
    """Measure, and print a table."""
    parser = parser_of(__doc__, rounds=3)
    parser.add_argument("--failed", type=int, default=10_000)
    parser.add_argument("--lines", type=int, default=1_000_000)
    asked = parser.parse_args()
    rows = [["status file", "reading alone, s", "what failed, s", "to that"]]
    with workplace() as directory:
        for lines, failed in ((asked.failed, asked.failed), (asked.lines, max(1, asked.lines // 1000))):
            path = directory / "status"
            write_status(path, lines, failed)
            told = subprocess.run([*FAILURES, path], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True)
            assert told.stdout.startswith(f"{failed:,} failed, for {min(failed, REASONS)} reason")  # noqa: S101 - or it measures something else
            reading, telling = [], []
            for _ in range(asked.rounds):
                reading.append(seconds_of_python(READ.format(str(path))))
                telling.append(seconds_of("sh", "-c", '"$@" > /dev/null', "sh", *FAILURES, str(path)))
            name = f"{lines:,} lines, {failed:,} failed"
            rows.append([name, spread(reading, ".2f"), spread(telling, ".2f"), spread(ratios(telling, reading), ".1f")])
    print_table(f"{asked.rounds} rounds, {PYTHON}", rows)


if __name__ == "__main__":
    main()
