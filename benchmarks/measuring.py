"""What benchmarks share: how disbatch is started, what a status file and processes tell, medians with their range.

Whatever is compared takes turns, round by round, so that a noisy machine is noisy for all of it: ratios are made within
a round. It must not know what is measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from fcntl import ioctl
from functools import partial
from pathlib import Path
from termios import TIOCSCTTY
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHECKOUT = Path(__file__).resolve().parent.parent

DISBATCH = (sys.executable, str(CHECKOUT / "disbatch" / "__main__.py"), "-p", "run")
"""Begins a run with the files `run_*`."""

PYTHON = f"Python {sys.version.split()[0]}"

UNUSUAL = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
"""Variables that make a Python start or write more slowly than it does for users."""

ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in UNUSUAL}
ENVIRONMENT |= {"LC_ALL": "C", "TERM": "xterm-256color"}
"""What everything is started with; in that language numbers have a point, and a terminal is one that can do things."""

POLL = 0.005
"""Seconds between two looks at something that is waited for."""


def parser_of(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """Parser for the benchmark of that documentation, with so many rounds unless it is told otherwise."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    return parser


@contextmanager
def workplace() -> Iterator[Path]:
    """A directory for the time being; after a run, which has left all of disbatch compiled."""
    with tempfile.TemporaryDirectory(prefix="disbatch-benchmark-") as name:
        directory = Path(name)
        write_tasks(directory / "tasks", ["true"])
        seconds_of(*DISBATCH, "-s", "localhost:1", "tasks", directory=directory)
        clear(directory)
        yield directory


def write_tasks(path: Path, lines: Sequence[str]) -> None:
    """Write a task file of these lines."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def clear(directory: Path) -> None:
    """Remove the files of a run."""
    for file in directory.glob("run_*"):
        file.unlink()


def seconds_of(*command: str, directory: Path = CHECKOUT) -> float:
    """How long a command takes, which must not fail."""
    began = time.perf_counter()
    subprocess.run(command, cwd=directory, env=ENVIRONMENT, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def seconds_of_python(program: str = "pass") -> float:
    """How long a Python takes for that program."""
    return seconds_of(sys.executable, "-c", program)


def start(
    command: Sequence[str | Path], directory: Path, terminal: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a program there, in the foreground of that terminal if it is one."""
    take = None if terminal == subprocess.DEVNULL else partial(ioctl, terminal, TIOCSCTTY, 0)
    return subprocess.Popen(
        command,
        cwd=directory,
        env=ENVIRONMENT,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=take is not None,
        preexec_fn=take,  # noqa: PLW1509 - a single call, which takes no lock
    )


@contextmanager
def running(*arguments: str, directory: Path, terminal: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    """A run of disbatch there, on a terminal or on none, which ends with the block at the latest."""
    with start([*DISBATCH, *arguments], directory, terminal) as run:
        try:
            yield run
        finally:
            run.terminate()


def await_success(run: subprocess.Popen[bytes]) -> None:
    """Wait for a process to end, which must not fail."""
    if run.wait():
        raise subprocess.CalledProcessError(run.returncode, run.args)


class Ended(NamedTuple):
    """A task of a status file: when it ran (s since the epoch), and the first of what it printed."""

    start: float
    end: float
    output: str


def read_status(directory: Path) -> list[Ended]:
    """All tasks of the run there, in the order in which they started."""
    lines = (directory / "run_status.txt").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t", 14) for line in lines)
    return sorted(Ended(float(row[8]), float(row[9]), row[11].strip("'").removesuffix(r"\n")) for row in rows)


class Process(NamedTuple):
    """A process, and the beginning of its program's name."""

    pid: int
    parent: int
    name: str


def descendants(pid: int) -> list[Process]:
    """All that lives below a process, parents before their children."""
    children: dict[int, list[Process]] = {}
    for entry in os.listdir("/proc"):
        try:
            stat = Path(f"/proc/{int(entry)}/stat").read_text(encoding="utf-8", errors="replace")
        except (ValueError, OSError):
            continue  # it is no process, or has ended
        name, _, rest = stat.partition("(")[2].rpartition(")")
        process = Process(int(entry), int(rest.split()[1]), name)
        children.setdefault(process.parent, []).append(process)
    found = list(children.get(pid, ()))
    for process in found:
        found += children.get(process.pid, ())
    return found


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used, all of its threads and none of its children."""
    return time.clock_gettime(~pid << 3 | 2)  # the clock that clock_getcpuclockid(3) names, to the nanosecond


def of_status(pid: int, field: str) -> int:
    """Number in that line of a process's /proc/PID/status; sizes are in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def ratios(values: Sequence[float], to: Sequence[float]) -> list[float]:
    """Values as multiples of others, round by round."""
    return [a / b for a, b in zip(values, to, strict=True)]


def spread(values: Sequence[float], form: str) -> str:
    """Median of the values, with their range."""
    return f"{statistics.median(values):{form}}  ({min(values):{form}} to {max(values):{form}})"


def print_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the first one the heading; columns are as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(title)
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(flush=True)
