"""What a web page that many look at takes from a run.

Usage: python -m benchmarks.web [--tasks 3000] [--slots 2] [--pages 50] [--rounds 6]

Each round runs the same list of `true` once without a page, once with one that nobody looks at, and once while so many
visitors have it open, who read all that they are told. It is measured from the first of them to the last, by the status
file. The visitors are one process, which costs as much as it has to read.
"""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple
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
    workplace,
    write_tasks,
)

GATE = ("until [ -e go ]; do sleep 0.02; done", "#DISBATCH BARRIER")
"""What all others wait for, until everybody is there who is to look."""


class Measured(NamedTuple):
    """One run: its pace, and seconds of CPU of the driver and of the page for each second of it."""

    pace: float
    driver: float
    page: float


def measure(directory: Path, slots: int, pages: int | None) -> Measured:
    """Run the list, with so many visitors of its page, or without a page."""
    (directory / "go").unlink(missing_ok=True)
    page_option = [] if pages is None else ["-w"]
    with running("-s", f"localhost:{slots}", *page_option, "tasks", directory=directory) as driver:
        visitors = None
        if pages is None:
            while not descendants(driver.pid)[-1:] or descendants(driver.pid)[-1].name not in ("sleep", "bash"):
                time.sleep(POLL)
            pids = [driver.pid]
        else:
            while not (directory / "run_url").exists():
                time.sleep(POLL)
            url = (directory / "run_url").read_text(encoding="ascii").strip()
            visitors = start_visitors(url, pages)
            pids = [driver.pid, page_of(driver.pid)]
        before = [cpu_of(pid) for pid in pids]
        began = time.perf_counter()
        (directory / "go").touch()
        while len(read_bytes(directory)) < 1:
            time.sleep(POLL)
        used = before
        while driver.poll() is None:
            try:
                used = [cpu_of(pid) for pid in pids]
            except OSError:  # one of them has ended
                break
            time.sleep(POLL)
        took = time.perf_counter() - began
        await_success(driver)
        if visitors is not None:
            visitors.wait()
    tasks = read_status(directory)[1:]
    clear(directory)
    shares = [(now - then) / took for now, then in zip(used, before, strict=True)]
    return Measured(len(tasks) / (max(task.end for task in tasks) - tasks[0].start), shares[0], sum(shares[1:]))


def read_bytes(directory: Path) -> bytes:
    """What the status file begins with."""
    with open(directory / "run_status.txt", "rb") as file:
        return file.read(1)


def page_of(driver: int) -> int:
    """Process that serves the page."""
    for process in descendants(driver):
        if b"--web-page" in Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0"):
            return process.pid
    raise ProcessLookupError("there is no page")


def start_visitors(url: str, pages: int) -> subprocess.Popen[bytes]:
    """Start the process of the visitors, all of whom are there then."""
    command = [sys.executable, "-m", "benchmarks.web", "--visit", url, "--pages", str(pages)]
    visitors = subprocess.Popen(command, cwd=CHECKOUT, env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert visitors.stdout is not None  # noqa: S101 - it was asked for
    if pages:
        visitors.stdout.readline()
    return visitors


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
    parser = parser_of(__doc__, rounds=6)
    parser.add_argument("--tasks", type=int, default=3000)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--visit", default="")
    asked = parser.parse_args()
    if asked.visit:
        visit(asked.visit, asked.pages)
        return
    kinds = {"no page": None, "a page, nobody looks": 0, f"{asked.pages} look at it": asked.pages}
    measured: dict[str, list[Measured]] = {kind: [] for kind in kinds}
    with workplace() as directory:
        write_tasks(directory / "tasks", [*GATE, *["true"] * asked.tasks])
        for number in range(asked.rounds):
            # Forwards and backwards in turn: none always comes last.
            for kind, pages in list(kinds.items())[:: -1 if number % 2 else 1]:
                measured[kind].append(measure(directory, asked.slots, pages))
    plain = [one.pace for one in measured["no page"]]
    rows = [["", "tasks/s", "to no page", "driver, % of a core", "page, % of a core"]]
    for kind, found in measured.items():
        paces = [one.pace for one in found]
        shares = [[100 * one.driver for one in found], [100 * one.page for one in found]]
        rows.append(
            [
                kind,
                spread(paces, ".0f"),
                spread(ratios(paces, plain), ".2f"),
                *(spread(share, ".1f") for share in shares),
            ]
        )
    print_table(f"{asked.tasks} times `true` in {asked.slots} places, {asked.rounds} rounds, {PYTHON}", rows)


if __name__ == "__main__":
    main()
