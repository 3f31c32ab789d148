"""What it takes to start engines on many nodes: until the last of them has its first task, and at what cost.

Usage: python -m benchmarks.launches [--nodes 1,100,1000]

disbatch runs as many tasks as there are nodes, of one core each, over an `ssh` that starts no engine: it asks this
process for one, and ends with it. What stands for an engine is forked from here, so that a thousand of them fit on one
machine; it says what an engine says over a connection like an engine's, and takes all its time for its first task,
until every other one has got one too. A launch goes on from the start of `ssh` until its engine has joined the run.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import selectors
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

from benchmarks.measuring import DISBATCH, ENVIRONMENT, cpu_of, of_status
from disbatch import __version__, messages, options
from disbatch.eventloop import READ, EventLoop
from disbatch.joining import connect
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.mailbox import Mailbox
from disbatch.runfiles import RunFiles
from disbatch.tasks import Outcome

SSH = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
echo "$2 $3" > '{folder}/requests'
read status < "{folder}/done.$2"
exit "$status"
"""

CAME, BEGAN = b"c", b"b"


class StandIn:
    """What stands for an engine: it notes that it has come, and that it has a task, which ends when `go` does."""

    def __init__(self, asked: options.EngineRoleOptions, notes: int, go: int) -> None:
        self._rank = asked.rank
        self._notes = notes
        self._loop = EventLoop()
        self._given: list[messages.TaskReport] = []
        self._left = False
        self._loop.watch(go, READ, partial(self._end_tasks, go))
        self._mailbox = Mailbox(
            self._loop,
            connect(asked.kvs),
            partial(connect, asked.kvs),
            RunFiles(asked.run).job,
            messages.engine_name(asked.rank),
            self._take,
            sys.exit,
        )
        self._mailbox.send(messages.EngineCame(asked.rank, __version__, asked.node, os.getpid()))
        os.write(notes, CAME)

    def run(self) -> None:
        """Serve to the end."""
        while not self._left or self._mailbox.unsent:
            self._loop.turn()

    def _take(self, message: messages.Message) -> None:
        if isinstance(message, messages.EngineAdmitted):
            self._mailbox.keep(message.lease)
            self._mailbox.send(messages.EngineReady(self._rank, message.cylinders))
        elif isinstance(message, messages.RunTasks):
            outcome = Outcome(os.getpid(), 0, time.time(), 0.0, 0, b"", 0, b"", 0.0, 0, interrupted=False)
            self._given += [messages.TaskReport(task.task_id, outcome) for task in message.tasks]
            os.write(self._notes, BEGAN)
        elif isinstance(message, messages.FinishEngine):
            self._mailbox.send(messages.EngineLeft(self._rank))
            self._left = True

    def _end_tasks(self, go: int, _mask: int) -> None:
        self._loop.unwatch(go)
        self._mailbox.send(messages.TasksEnded(self._rank, tuple(self._given)))


class Figures(NamedTuple):
    """Of a run: seconds until the last first task, and from then to its end; launches at once; what two processes took.

    Memory is the highest that it was, in MiB; CPU is in seconds, as both were when all tasks had begun.
    """

    begun: float
    ended: float
    at_once: int
    driver: tuple[float, float]
    context: tuple[float, float]


class Nodes:
    """The nodes of one run: what is asked for by `ssh`, and what has become of it."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.names = [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(count)]
        (folder / "tools").mkdir()
        ssh = folder / "tools" / "ssh"
        ssh.write_text(SSH.format(folder=folder), encoding="utf-8")
        ssh.chmod(0o755)
        for name in ("requests", *(f"done.{name}" for name in self.names)):
            os.mkfifo(folder / name)
        self._requests = os.open(folder / "requests", os.O_RDWR | os.O_NONBLOCK)
        self._notes = os.pipe()
        self._go = os.pipe()
        self._rest = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._requests, selectors.EVENT_READ, self._asked_for)
        self._selector.register(self._notes[0], selectors.EVENT_READ, self._noted)
        self.started = self.came = self.began = self.at_once = 0

    def turn(self) -> None:
        """Do what is to be done, for 0.1 s at most."""
        for key, _ in self._selector.select(0.1):
            key.data()

    def go_on(self) -> None:
        """Let all tasks end."""
        os.close(self._go[1])

    def _asked_for(self) -> None:
        *lines, self._rest = (self._rest + os.read(self._requests, 1 << 16)).split(b"\n")
        for line in lines:
            self.started += 1
            self.at_once = max(self.at_once, self.started - self.came)
            if not os.fork():
                self._serve(*line.decode().split(" ", 1))

    def _noted(self) -> None:
        notes = os.read(self._notes[0], 1 << 16)
        self.came += notes.count(CAME)
        self.began += notes.count(BEGAN)

    def _serve(self, node: str, command: str) -> NoReturn:
        """Be an engine, as the `command` for a shell says, and let the `ssh` of that node end then."""
        status = 1
        try:
            os.close(self._go[1])
            _, script, _, *arguments = shlex.split(command)
            secret = re.search(r"KVSSTCP_SECRET=(\S+)", Path(script).read_text(encoding="utf-8"))
            os.environ[SECRET_VARIABLE] = secret[1] if secret else ""
            run = self.folder / "run"
            kvs = Path(RunFiles(str(run)).kvs_address).read_text(encoding="utf-8").strip()
            asked = options.parse_engine([f"--run={run}", f"--kvs={kvs}", *arguments], "launches.py")
            StandIn(asked, self._notes[1], self._go[0]).run()
            status = 0
        finally:
            with suppress(OSError):  # an `ssh` that was killed reads no more
                os.write(os.open(self.folder / f"done.{node}", os.O_WRONLY | os.O_NONBLOCK), b"%d\n" % status)
            os._exit(status)


def taken_by(pid: int) -> tuple[float, float]:
    """Memory (MiB) that a process has had at most, and its CPU (s)."""
    return of_status(pid, "VmHWM") / 1024, cpu_of(pid)


def run_on(folder: Path, count: int) -> Figures:
    """Let a run have so many nodes."""
    nodes = Nodes(folder, count)
    (folder / "tasks").write_text("true\n" * count, encoding="ascii")
    listed = ",".join(f"{name}:1" for name in nodes.names)
    command = [*DISBATCH, "-s", listed, "tasks"]
    environment = {**ENVIRONMENT, "PATH": f"{folder / 'tools'}:{os.environ['PATH']}"}
    before = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL) as run:
        while nodes.began < count and run.poll() is None:
            nodes.turn()
        begun = time.perf_counter()
        (context,) = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text(encoding="ascii").split()
        taken = taken_by(run.pid), taken_by(int(context))
        nodes.go_on()
        run.wait()
    ended = time.perf_counter()
    lines = (folder / "run_status.txt").read_text(encoding="utf-8").splitlines()
    if run.returncode or len(lines) != count:
        sys.exit(f"the run has failed with {run.returncode}, after {len(lines)} of {count} tasks")
    return Figures(begun - before, ended - begun, nodes.at_once, *taken)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", default="1,100,1000")
    asked = parser.parse_args()
    gc.freeze()  # what is forked from here writes to little of its memory
    print(f"Python {sys.version.split()[0]}")
    print("nodes   last first task, s   then to the end, s   launches at once   driver: MiB, CPU s   context: same")
    for count in map(int, asked.nodes.split(",")):
        with tempfile.TemporaryDirectory(prefix="disbatch-benchmark-") as folder:
            got = run_on(Path(folder), count)
        driver, context = (f"{memory:8.1f} {cpu:6.2f}" for memory, cpu in (got.driver, got.context))
        print(f"{count:5} {got.begun:20.2f} {got.ended:20.2f} {got.at_once:18} {driver:>21} {context}", flush=True)


if __name__ == "__main__":
    main()
