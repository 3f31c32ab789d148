"""What those who watch a run take from it: the line on its terminal, a monitor, a web page that many have open.

Usage: python -m benchmarks.watched [--tasks 5000] [--slots 2] [--pages 50] [--rounds 8] [--only WAY ...]

Each round runs the same list of `true` unwatched, watched in each way, and in all ways at once. It is measured from the
first of them to the last, by the status file, when everybody is there. Terminals are pseudo-terminals that this process
reads; the visitors of the page are one process, which reads all that they are told. CPU is that of the driver, and of
the processes of monitor and page, by the second of the run.
"""

from __future__ import annotations

import os
import pty
import selectors
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from benchmarks.measuring import (
    CHECKOUT,
    ENVIRONMENT,
    POLL,
    PYTHON,
    await_success,
    clear,
    cpu_of,
    descendants,
    parser_of,
    print_table,
    ratios,
    read_status,
    running,
    spread,
    start,
    workplace,
    write_tasks,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GATE = ("until [ -e go ]; do sleep 0.02; done", "#DISBATCH BARRIER")
"""What all others wait for, until everybody is there who is to look."""

PATIENCE = 60
"""Seconds that anything takes at most which is waited for before the tasks begin."""


class Way(NamedTuple):
    """How a run is watched: by the line on its terminal, a monitor, and so many visitors of its page if it has one."""

    progress: bool = False
    monitor: bool = False
    pages: int | None = None


WAYS: dict[str, Callable[[int], Way]] = {
    "line": lambda _: Way(progress=True),
    "monitor": lambda _: Way(monitor=True),
    "page": lambda _: Way(pages=0),
    "visitors": lambda pages: Way(pages=pages),
    "all": lambda pages: Way(progress=True, monitor=True, pages=pages),
}
"""Ways to watch a run, for so many visitors: a page that is there for nobody, and one that has them."""


class Measured(NamedTuple):
    """One run: its pace, and seconds of CPU of the driver and of those who watch for each second of it."""

    pace: float
    driver: float
    watching: float


class Terminal:
    """A pseudo-terminal that takes all that is written to it; `mine` is this end of it, `its` the other."""

    def __init__(self) -> None:
        self.mine, self.its = pty.openpty()
        ioctl(self.its, TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.seen = 0
        """Bytes that have come."""
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # Linux's way of saying that the other end is closed
            while data := os.read(self.mine, 1 << 16):
                self.seen += len(data)

    def close(self) -> None:
        """Nobody writes to it any more."""
        os.close(self.its)
        self._reader.join()
        os.close(self.mine)


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal for the time being."""
    made = Terminal()
    try:
        yield made
    finally:
        made.close()


def measure(directory: Path, slots: int, way: Way) -> Measured:
    """Run the list, watched in that way."""
    (directory / "go").unlink(missing_ok=True)
    options = ["-s", f"localhost:{slots}", *(["-w"] if way.pages is not None else [])]
    with terminal() as screen, terminal() as other:
        its = screen.its if way.progress else subprocess.DEVNULL
        with running(*options, "tasks", directory=directory, terminal=its) as driver, ExitStack() as stack:
            until(lambda: any(process.name == "sleep" for process in descendants(driver.pid)), "first task")
            watching = []
            if way.monitor:
                watching.append(stack.enter_context(monitor(directory, other)))
            if way.pages is not None:
                url = url_of(directory)
                watching.append(page_of(driver.pid))
                if way.pages:
                    stack.enter_context(visitors(url, way.pages))
            if way.progress:
                until(lambda: screen.seen > 0, "line on the terminal")
            took, used = let_go(directory, driver, watching)
    tasks = read_status(directory)[len(GATE) :]
    clear(directory)
    return Measured(
        len(tasks) / (max(task.end for task in tasks) - tasks[0].start), used[0] / took, sum(used[1:]) / took
    )


def let_go(directory: Path, driver: subprocess.Popen[bytes], watching: list[int]) -> tuple[float, list[float]]:
    """Let the tasks begin, and wait for the end: seconds until then, and of CPU, the driver's first."""
    pids = [driver.pid, *watching]
    before = [cpu_of(pid) for pid in pids]
    began = time.perf_counter()
    (directory / "go").touch()
    now = before
    while driver.poll() is None:
        with suppress(OSError):  # one of them has ended
            now = [cpu_of(pid) for pid in pids]
        time.sleep(POLL)
    await_success(driver)
    return time.perf_counter() - began, [then - first for first, then in zip(before, now, strict=True)]


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that comes before the tasks begin."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {PATIENCE} s")
        time.sleep(POLL)


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """See that a process ends with the block."""
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def monitor(directory: Path, screen: Terminal) -> Iterator[int]:
    """A monitor there, which has drawn its first picture; its process."""
    with ended(start([directory / "run_dbUtil.sh", "--mon"], directory, screen.its)) as process:
        until(lambda: screen.seen > 0, "picture of the monitor")
        yield process.pid


def url_of(directory: Path) -> str:
    """Where the page of the run is, as soon as it is there."""
    until((directory / "run_url").exists, "page")
    return (directory / "run_url").read_text(encoding="ascii").strip()


def page_of(driver: int) -> int:
    """Process that serves the page."""
    for process in descendants(driver):
        if b"--web-page" in Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0"):
            return process.pid
    raise ProcessLookupError("there is no page")


@contextmanager
def visitors(url: str, pages: int) -> Iterator[None]:
    """The process of the visitors, all of whom are there."""
    command = [sys.executable, "-m", "benchmarks.watched", "--visit", url, "--pages", str(pages)]
    with ended(subprocess.Popen(command, cwd=CHECKOUT, env=ENVIRONMENT, stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        process.stdout.readline()
        yield


def visit(url: str, pages: int) -> None:
    """Open the page so many times, say so when each was told something, and read until it ends."""
    parts = urlsplit(url)
    where = (parts.hostname or "", parts.port or 0)
    head = f" HTTP/1.1\r\nhost: {where[0]}:{where[1]}\r\n"
    with socket.create_connection(where) as connection:
        connection.sendall(f"GET {parts.path}?{parts.query}{head}\r\n".encode())
        answer = connection.recv(65536).decode()
    fields = dict(line.split(": ", 1) for line in answer.splitlines() if ": " in line)
    room, cookie = fields["location"], fields["set-cookie"].partition(";")[0]
    selector = selectors.DefaultSelector()
    silent = set()
    for _ in range(pages):
        connection = socket.create_connection(where)
        connection.sendall(f"GET {room}events{head}cookie: {cookie}\r\n\r\n".encode())
        selector.register(connection, selectors.EVENT_READ)
        silent.add(connection)
    while selector.get_map():
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)  # noqa: S101 - there is nothing else
            text = key.fileobj.recv(1 << 20)
            if not text:
                selector.unregister(key.fileobj)
                key.fileobj.close()
            elif key.fileobj in silent and b"event: hosts" in text:
                silent.discard(key.fileobj)
                if not silent:
                    print("all are there", flush=True)


def main() -> None:
    """Measure, and print a table."""
    parser = parser_of(__doc__, rounds=8)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--visit", default="")
    asked = parser.parse_args()
    if asked.visit:
        visit(asked.visit, asked.pages)
        return
    ways = {"nobody": Way(), **{name: WAYS[name](asked.pages) for name in asked.only}}
    measured: dict[str, list[Measured]] = {name: [] for name in ways}
    with workplace() as directory:
        write_tasks(directory / "tasks", [*GATE, *["true"] * asked.tasks])
        for number in range(asked.rounds):
            # Forwards and backwards in turn: none always comes last.
            for name, way in list(ways.items())[:: -1 if number % 2 else 1]:
                measured[name].append(measure(directory, asked.slots, way))
    unwatched = [one.pace for one in measured["nobody"]]
    rows = [["watched by", "tasks/s", "to nobody", "driver, % of a core", "watching, % of a core"]]
    for name, found in measured.items():
        paces = [one.pace for one in found]
        shares = [[100 * one.driver for one in found], [100 * one.watching for one in found]]
        rows.append(
            [
                name,
                spread(paces, ".0f"),
                spread(ratios(paces, unwatched), ".2f"),
                *(spread(share, ".1f") for share in shares),
            ]
        )
    what = f"{asked.tasks} times `true` in {asked.slots} places, {asked.pages} visitors of the page"
    print_table(f"{what}, {asked.rounds} rounds, {PYTHON}", rows)


if __name__ == "__main__":
    main()
