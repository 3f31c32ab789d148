"""How fast short tasks go through disbatch, and what it costs itself, beside other programs that run lists of commands.

Usage: python -m benchmarks.throughput [--tasks 1000] [--slots 2 8 64] [--kinds true sleep print] [--only NAME ...]
    [--rounds 3]

All take turns on the same list, each line of it run by `bash -c`; what they print goes through a pipe to /dev/null.
"xargs" is `xargs -P`, "floor" benchmarks/floor.py. What tools/install-compared.sh could not install is left out.

Where others use the machine too, compare with the floor: Linux shares cores among sessions (sched_autogroup_enabled).
Each task of disbatch and of the floor is one, all of xargs together are one.

"Run" is from the start of the first task to the end of the last, by the times of files that they touch; "whole" is the
whole command. "Own CPU" is what all processes have used that are not tasks, per task, from the start of the first to
the end of the last: the CPU clock of each process, children not counted, is read at these two moments. So that there
is a moment to read it, one more task waits then until that is done; its waiting counts nowhere.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from benchmarks.measuring import (
    CHECKOUT,
    DISBATCH,
    ENVIRONMENT,
    POLL,
    PYTHON,
    await_success,
    cpu_of,
    descendants,
    parser_of,
    print_table,
    ratios,
    spread,
    workplace,
    write_tasks,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

KINDS = {"true": ("true", 1.0), "sleep": ("sleep 0.01", 1.0), "print": ("head -c 1000000 /dev/zero", 0.2)}
"""Tasks, and what share of the asked number there is of them."""

COMPARED = CHECKOUT / ".compared"
"""Where tools/install-compared.sh puts programs."""

HYPERQUEUE = """
import sys
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
with LocalCluster(worker_config=WorkerConfig(cores=int(sys.argv[1]))) as cluster:
    job = Job()
    for line in open("tasks"):
        job.program(["bash", "-c", line.rstrip()], priority=-line.startswith("read"))  # what waits comes last
    client = cluster.client()
    client.wait_for_jobs([client.submit(job)])
"""
"""Server and worker in one process. What tasks print goes to files, as it does unless one asks for something else."""

LAST = 64
"""How many tasks at the end note their end: not every program starts them in their order."""

SETTLING = 0.1
"""Seconds after the end of the last task in which programs may do what is left to do of it."""

TASKS_THEMSELVES = {"bash", "sh", "sleep", "head"}


def commands(slots: int) -> dict[str, list[str]]:
    """What runs the file `tasks` with so many at once, by name."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    parallel = shutil.which("parallel") or str(COMPARED / "parallel" / "usr" / "bin" / "parallel")
    python, hypershell = (str(COMPARED / "venv" / "bin" / name) for name in ("python", "hs"))
    return {
        "disbatch": [*DISBATCH, "-s", f"localhost:{slots}", "tasks"],
        "xargs": ["xargs", "-a", "tasks", f"-P{slots}", "-d", "\\n", "-n1", "bash", "-c"],
        "floor": [sys.executable, str(CHECKOUT / "benchmarks" / "floor.py"), str(slots), "tasks"],
        "parallel": [parallel, "--will-cite", f"-j{slots}", "-a", "tasks"],
        "hyperqueue": [python, "-c", HYPERQUEUE, str(slots)],
        # Without its database, and through the shell that it starts everything with.
        "hypershell": [hypershell, "cluster", "tasks", f"-N{slots}", "--no-db", f"-p{port}", "-t", "exec bash -c '{}'"],
    }


def missing() -> set[str]:
    """Names of the programs that are not installed."""
    absent = {name for name, command in commands(1).items() if shutil.which(command[0]) is None}
    if not any(COMPARED.glob("venv/lib/*/site-packages/hyperqueue")):
        absent.add("hyperqueue")
    return absent


class Measured(NamedTuple):
    """One run of a list: seconds from its first task to its last, of the whole command, of CPU besides tasks."""

    run: float
    whole: float
    own: float


def own_cpu(pid: int) -> dict[int, float]:
    """Seconds of CPU of a process and each below it that is not a task."""
    pids = [pid, *(process.pid for process in descendants(pid) if process.name not in TASKS_THEMSELVES)]
    used = {}
    for each in pids:
        with suppress(OSError):  # it has ended
            used[each] = cpu_of(each)
    return used


def list_of(task: str, count: int) -> list[str]:
    """The list of so many tasks, with the one that waits at its end."""
    lines = [task] * count
    lines[-LAST:] = [f"{line}; echo >> ended" for line in lines[-LAST:]]
    lines[0] = f": > begun; {lines[0]}"
    return [*lines, "read x < gate"]


def measure(command: Sequence[str], task: str, count: int) -> Measured:
    """Run a list of so many tasks in a directory of its own."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="disbatch-benchmark-")))
        begun, ended, gate = directory / "begun", directory / "ended", directory / "gate"
        write_tasks(directory / "tasks", list_of(task, count))
        os.mkfifo(gate)
        environment = {**ENVIRONMENT, "HOME": str(directory), "SHELL": "/bin/bash"}
        sink = stack.enter_context(subprocess.Popen("cat", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))
        began = time.time()
        process = stack.enter_context(
            subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink.stdin,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        stack.callback(end, process)
        until(process, begun.exists)
        before = own_cpu(process.pid)
        until(process, lambda: ended.exists() and ended.stat().st_size == min(LAST, count))
        waiting = until(process, partial(writer_of, gate))
        reached = time.time()
        time.sleep(SETTLING)
        after = own_cpu(process.pid)
        first, last = begun.stat().st_mtime, ended.stat().st_mtime
        released = time.time()
        os.write(waiting, b"\n")
        os.close(waiting)
        await_success(process)
        whole = time.time() - began - (released - reached)
    return Measured(last - first, whole, sum(used - before.get(pid, 0.0) for pid, used in after.items()))


def until(process: subprocess.Popen[bytes], look: Callable[[], T | None]) -> T:
    """Wait until there is something that comes of a process, while that runs."""
    while not (found := look()):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended early with {process.returncode}")
        time.sleep(POLL)
    return found


def writer_of(gate: Path) -> int | None:
    """Descriptor that writes to the pipe of that name, as soon as somebody waits to read from it."""
    try:
        return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a run that was cut short."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)


def table(measured: dict[str, list[Measured]], count: int) -> list[list[str]]:
    """Medians over the rounds, and ratios to xargs and to the floor within each, by name."""
    against = ("to xargs", "to floor")
    rows = [["", "run, tasks/s", *against, "whole, tasks/s", *against, "own CPU, µs a task"]]
    run = {name: [count / one.run for one in rounds] for name, rounds in measured.items()}
    whole = {name: [count / one.whole for one in rounds] for name, rounds in measured.items()}
    for name, rounds in measured.items():
        row = [name]
        for rates in (run, whole):
            row.append(spread(rates[name], ".0f"))
            others = (rates.get(heading.removeprefix("to ")) for heading in against)
            row += [spread(ratios(rates[name], other), ".2f") if other else "" for other in others]
        rows.append([*row, spread([one.own / count * 1e6 for one in rounds], ".0f")])
    return rows


def main() -> None:
    """Measure, and print tables."""
    parser = parser_of(__doc__, rounds=3)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--slots", type=int, nargs="+", default=[2, 8, 64])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--only", nargs="+", choices=commands(1), default=list(commands(1)))
    asked = parser.parse_args()
    absent = missing()
    for name in asked.only:
        if name in absent:
            print(f"{name} is left out: it is not installed; tools/install-compared.sh tells why")
    names = [name for name in asked.only if name not in absent]
    print(f"{asked.rounds} rounds, {PYTHON}, median and range\n")
    with workplace():
        for kind in asked.kinds:
            task, share = KINDS[kind]
            count = max(1, round(asked.tasks * share))
            for slots in asked.slots:
                measured: dict[str, list[Measured]] = {name: [] for name in names}
                for _ in range(asked.rounds):
                    for name in names:
                        measured[name].append(measure(commands(slots)[name], task, count))
                print_table(f"{count} times {task}, {slots} slots", table(measured, count))


if __name__ == "__main__":
    main()
