"""How long a cylinder is empty between two tasks, and what distance between engine and driver does to that.

Usage: python -m benchmarks.latency [--tasks 300] [--delays 0 1 10] [--rounds 5]

Between engine and driver is a proxy that makes each way there and back so many ms longer. Tasks note when they begin
and end by their own clocks, so that the gap holds the end of one bash and the start of the next: the same is measured
of `xargs -P`. An engine holds a few tasks ahead while they take less than 20 ms; so there are tasks of 5 and of 50 ms.
Then more tasks of 5 ms run at 8 slots, all of which the machine may have no cores for.
"""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from benchmarks.measuring import (
    POLL,
    PYTHON,
    await_success,
    clear,
    parser_of,
    print_table,
    ratios,
    read_status,
    running,
    seconds_of,
    spread,
    workplace,
    write_tasks,
)
from benchmarks.proxy import DelayingProxy

if TYPE_CHECKING:
    from pathlib import Path

SLOTS = 2
MANY_SLOTS = 8
MORE = 15
"""So many times as many tasks run there: what the beginning and the end of a run take is to be little of it."""
MILLISECONDS = (5, 50)
PINGS = 50
TASK = "begun=$EPOCHREALTIME; sleep {}; echo $DISBATCH_CYLINDER_RANK $begun $EPOCHREALTIME >> clocks"


def run_disbatch(directory: Path, slots: int, delay: float) -> None:
    """Run the tasks there, with so many seconds on the way between engine and driver and back."""
    with running("--use-address", "127.0.0.1:0", "-S", "tasks", directory=directory) as driver:
        address = directory / "run_kvsinfo.txt"
        while not address.exists() or not address.read_text(encoding="ascii").endswith("\n"):
            time.sleep(POLL)
        host, _, port = address.read_text(encoding="ascii").strip().rpartition(":")
        with DelayingProxy((host, int(port)), delay) as proxy:
            script = str(directory / "run_dbUtil.sh")
            seconds_of(script, "-s", f"localhost:{slots}", "--kvs", f"127.0.0.1:{proxy.port}", directory=directory)
            await_success(driver)


def gaps_in(clocks: Path) -> list[float]:
    """Seconds from the end of a task to the start of the next in its cylinder, in ascending order."""
    cylinders: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in clocks.read_text(encoding="ascii").splitlines():
        cylinder, begun, ended = line.split()
        cylinders[cylinder].append((float(begun), float(ended)))
    clocks.unlink()
    gaps = []
    for times in cylinders.values():
        times.sort()
        gaps += [begun - ended for (_, ended), (begun, _) in pairwise(times)]
    return sorted(gaps)


def percentile(ascending: list[float], share: float) -> float:
    """Value that so large a share of them does not exceed."""
    return ascending[min(len(ascending) - 1, int(len(ascending) * share))]


def echo(listening: socket.socket) -> None:
    """Send back what comes from one connection."""
    with listening.accept()[0] as connection:
        while data := connection.recv(64):
            connection.sendall(data)


def round_trip(delay: float) -> float:
    """Seconds that a byte takes through the proxy and back, at the median."""
    seconds = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=echo, args=[listening], daemon=True).start()
        with (
            DelayingProxy(listening.getsockname(), delay) as proxy,
            socket.create_connection(("127.0.0.1", proxy.port)) as connection,
        ):
            for _ in range(PINGS):
                began = time.perf_counter()
                connection.sendall(b"x")
                connection.recv(1)
                seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def main() -> None:
    """Measure, and print tables."""
    parser = parser_of(__doc__, rounds=5)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 1.0, 10.0])
    asked = parser.parse_args()
    half: dict[tuple[int, str], list[float]] = defaultdict(list)
    most: dict[tuple[int, str], list[float]] = defaultdict(list)
    rates: dict[str, list[float]] = defaultdict(list)
    trips: dict[str, list[float]] = defaultdict(list)
    sides: dict[str, float] = {f"disbatch, {delay:g} ms": delay / 1000 for delay in asked.delays}
    xargs = ["xargs", "--process-slot-var=DISBATCH_CYLINDER_RANK", "-a", "tasks", "-d", "\\n", "-n1"]
    with workplace() as directory:
        for _ in range(asked.rounds):
            for milliseconds in MILLISECONDS:
                write_tasks(directory / "tasks", [TASK.format(milliseconds / 1000)] * asked.tasks)
                for name in ("xargs", *sides):
                    if name in sides:
                        run_disbatch(directory, SLOTS, sides[name])
                        clear(directory)
                    else:
                        seconds_of(*xargs, f"-P{SLOTS}", "bash", "-c", directory=directory)
                    gaps = gaps_in(directory / "clocks")
                    half[milliseconds, name].append(percentile(gaps, 0.5) * 1000)
                    most[milliseconds, name].append(percentile(gaps, 0.99) * 1000)
            write_tasks(directory / "tasks", [f"sleep {MILLISECONDS[0] / 1000}"] * asked.tasks * MORE)
            for name, delay in sides.items():
                run_disbatch(directory, MANY_SLOTS, delay)
                tasks = read_status(directory)
                clear(directory)
                rates[name].append(len(tasks) / (max(task.end for task in tasks) - tasks[0].start))
                trips[name].append(round_trip(delay) * 1000)
    print(f"{asked.rounds} rounds, {PYTHON}, median and range\n")
    for milliseconds in MILLISECONDS:
        rows = [["empty between tasks, ms", "p50", "to xargs", "p99", "to xargs"]]
        for name in ("xargs", *sides):
            row = [name]
            for found in (half, most):
                row += [spread(found[milliseconds, name], ".2f")]
                row += [spread(ratios(found[milliseconds, name], found[milliseconds, "xargs"]), ".2f")]
            rows.append(row)
        print_table(f"{asked.tasks} tasks of {milliseconds} ms, {SLOTS} slots", rows)
    none = next(iter(sides))
    rows = [["", "there and back, ms", "run, tasks/s", f"to {none.partition(', ')[2]}"]]
    for name in sides:
        row = [spread(trips[name], ".2f"), spread(rates[name], ".0f"), spread(ratios(rates[name], rates[none]), ".2f")]
        rows.append([name, *row])
    print_table(f"{asked.tasks * MORE} tasks of {MILLISECONDS[0]} ms, {MANY_SLOTS} slots", rows)


if __name__ == "__main__":
    main()
