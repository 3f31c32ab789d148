"""What strangers who attack the driver's key-value store take from a run: its pace, the driver's CPU and memory.

Usage: python -m benchmarks.attack [--rounds 5] [--seconds 5] [--task "sleep 0.01"] [--slots 2] [--only KIND ...]

A run works off short tasks all the time. In each round each kind of attack (tests/attack/strangers.py) takes a turn,
and so do all together: for so many seconds the run goes on alone, then while another server on this machine is
attacked, and then while its own driver is. Attackers take CPU from the run that they would not take elsewhere; so the
pace is compared with both. "Let in" is how long it took a client that has the secret to connect and get an answer,
three times at the end of each attack.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.measuring import (
    CHECKOUT,
    ENVIRONMENT,
    PYTHON,
    cpu_of,
    of_status,
    parser_of,
    print_table,
    ratios,
    read_status,
    running,
    spread,
    workplace,
    write_tasks,
)
from disbatch.kvsstcp import KVSClient
from tests.attack.strangers import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ATTACKS = {**{kind: [kind] for kind in KINDS}, "all": list(KINDS)}

HEADING = (
    *("attack", "connections/s", "pace to that alone", "to that beside", "driver's CPU, %", "memory, KiB"),
    "let in after, s",
)

RESPONSE = "0" * 64 + " " + "0" * 64
"""Has the form of a proof."""

Address = tuple[str, int]
Window = tuple[float, float]
"""From when to when, s since the epoch."""

LET_IN = 3
"""How many clients come during each attack."""


class Turn(NamedTuple):
    """What was measured of one attack on the driver: its time, connections/s, CPU, KiB, s to be let in."""

    window: Window
    connections: float
    cpu: float
    memory: int
    let_in: list[float]


@contextmanager
def other_server() -> Iterator[Address]:
    """A server that is not the driver's."""
    command = [sys.executable, "-m", "disbatch.kvsstcp", "serve"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=CHECKOUT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=quiet, text=True
    ) as server:
        assert server.stdout is not None  # noqa: S101 - asked for above
        lines = (server.stdout.readline() for _ in range(3))
        found = dict(line.strip().removeprefix("export ").split("=", 1) for line in lines)
        try:
            yield "127.0.0.1", int(found["KVSSTCP_PORT"])
        finally:
            server.terminate()


@contextmanager
def attackers(kinds: list[str], where: Address) -> Iterator[list[subprocess.Popen[str]]]:
    """Attack in all of these ways; it is under way when the block begins, and over when it ends."""
    processes = []
    try:
        for kind in kinds:
            command = [sys.executable, "-m", "tests.attack.strangers", kind, where[0], str(where[1]), RESPONSE]
            process = subprocess.Popen(command, cwd=CHECKOUT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
            processes.append(process)
            assert process.stdout is not None  # noqa: S101 - asked for above
            process.stdout.readline()
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def pass_time(seconds: float) -> Window:
    """Wait; from when to when that was."""
    began = time.time()
    time.sleep(seconds)
    return began, time.time()


def client_comes(where: tuple[str, int], secret: str) -> float:
    """How long a client takes to connect, prove itself and get an answer."""
    began = time.perf_counter()
    with KVSClient(where, secret=secret, retry=10) as client:
        client.confirm()
    return time.perf_counter() - began


def turn(driver: int, kinds: list[str], where: Address, secret: str, seconds: float) -> Turn:
    """Attack the driver for a while."""
    memory, began = of_status(driver, "VmRSS"), time.perf_counter()
    with attackers(kinds, where) as processes:
        cpu = cpu_of(driver)
        window = pass_time(seconds)
        cpu = (cpu_of(driver) - cpu) / (window[1] - window[0])
        let_in = [client_comes(where, secret) for _ in range(LET_IN)]
        memory = of_status(driver, "VmRSS") - memory
    took = time.perf_counter() - began
    made = sum(int(process.stdout.read()) for process in processes if process.stdout is not None)
    return Turn(window, made / took, cpu, memory, let_in)


def main() -> None:
    """Measure, and print a table."""
    parser = parser_of(__doc__, rounds=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--task", default="sleep 0.01")
    parser.add_argument("--slots", type=int, default=2)
    asked = parser.parse_args()
    turns: dict[str, list[Turn]] = {name: [] for name in asked.only}
    alone: dict[str, list[Window]] = {name: [] for name in asked.only}
    beside: dict[str, list[Window]] = {name: [] for name in asked.only}
    with workplace() as directory, other_server() as other:
        write_tasks(directory / "tasks", [f"#DISBATCH REPEAT 10000000 {asked.task}"])
        status = directory / "run_status.txt"
        with running("-s", f"localhost:{asked.slots}", "tasks", directory=directory) as driver:
            while not (status.exists() and status.stat().st_size):
                time.sleep(0.05)
            joining = subprocess.run(
                [directory / "run_dbUtil.sh", "--kvs-env"],
                env=ENVIRONMENT,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
            found = dict(word.split("=", 1) for word in joining.split())
            where = ("127.0.0.1", int(found["KVSSTCP_PORT"]))
            for _ in range(asked.rounds):
                for name in asked.only:
                    kinds = ATTACKS[name]
                    alone[name].append(pass_time(asked.seconds))
                    with attackers(kinds, other):
                        beside[name].append(pass_time(asked.seconds))
                    turns[name].append(turn(driver.pid, kinds, where, found["KVSSTCP_SECRET"], asked.seconds))
        ends = [task.end for task in read_status(directory)]

    def paces(windows: Iterable[Window]) -> list[float]:
        return [sum(began <= end < until for end in ends) / (until - began) for began, until in windows]

    rows = [HEADING]
    for name, those in turns.items():
        attacked = paces(one.window for one in those)
        rows.append(
            (
                name,
                spread([one.connections for one in those], ".0f"),
                spread(ratios(attacked, paces(alone[name])), ".2f"),
                spread(ratios(attacked, paces(beside[name])), ".2f"),
                spread([100 * one.cpu for one in those], ".0f"),
                spread([one.memory for one in those], ".0f"),
                spread([seconds for one in those for seconds in one.let_in], ".3f"),
            )
        )
    print_table(f"{asked.task}, {asked.slots} slots, {asked.rounds} rounds of {asked.seconds:g} s, {PYTHON}", rows)


if __name__ == "__main__":
    main()
