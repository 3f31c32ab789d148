"""What a driver gets through that has many engines and many tasks: tasks/s, CPU for each task, memory.

Usage: python -m benchmarks.scale [--engines 1,100,1000] [--cylinders 64] [--tasks 1000000 [--only]] [--seconds 0,0.1]
           [--spread 0.5] [--profile DIRECTORY]

With `--only` there are no runs of fewer tasks; what the tasks themselves would take more than a minute for is left out.

The driver is a real one, with a real task file and a real status file. Its engines are simulated by this process: each
has its own connection to the driver's key-value store, proves that it knows the secret, and says what a real engine
says, but starts nothing. A task of 0 s is reported as soon as it has come, with all that came along with it; one of
0.1 s that much later, give or take a share of `--spread`, as real engines do: with what else ends at that moment.

A row is a run of its own, one for each power of ten from 1,000 tasks on; where those are fewer than 10,000 it is the
mean of several. It is measured from when all engines have joined to when the driver, which has recorded all tasks then,
tells them to finish. CPU is in µs for each task, the driver's as the kernel counts it, in steps of 10 ms. "busy" is for
how much of the time the driver, or all engines together, used a processor, "kept" for how much other processes kept the
driver from one. Where these two of the driver's make up 100 % it is what limits the run, and it would do a million/CPU
tasks/s on a core of its own. "memory" (MB) is the driver's at its highest, "joining" its CPU for each engine (µs) until
all had joined; "batch" and "report" are how many tasks one message to an engine, and one to the driver, is about.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from itertools import count
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

import msgpack

from benchmarks.measuring import CHECKOUT, of_status
from disbatch import __version__, messages
from disbatch.kvsstcp import KVSClient, wire
from disbatch.line import ACKNOWLEDGE_AFTER
from disbatch.runfiles import RunFiles
from disbatch.tasks import Outcome

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

RUN = "run"
ENOUGH = 10_000
"""Tasks that a row is about at least: of fewer, the driver's CPU would be but a few steps of its clock."""

PATIENCE = 60.0
"""Seconds that tasks may take even if the driver costs nothing; what would be longer is left out."""

SHORT_TASK = 0.001
"""Seconds that a task of 0 s says it took, as `true` does."""

HEARTBEAT = 10.0
"""Seconds between two beats of an engine, as disbatch has it unless told otherwise."""

ASK_DELAY = 0.002
"""Seconds, as in an engine, until it asks for more without having had anything to say."""

_CHUNK = 1 << 18
_HEADING = """\
                                  driver:                                   engines:    tasks in a
engines   tasks     s  tasks/s    CPU  user kernel  busy kept memory joining   CPU busy  batch report"""
_ID = Struct(">2sI")
_REPORT_AND_ID = b"\x92\xce"  # msgpack's list of two, and number of 32 bits


class Used(NamedTuple):
    """What a process has used so far: CPU (s) in user and in kernel mode; seconds for which it waited for a CPU."""

    user: float
    system: float
    kept: float

    @property
    def cpu(self) -> float:
        """CPU (s) in all."""
        return self.user + self.system


class Row(NamedTuple):
    """What was measured of one run, or of several together."""

    tasks: int
    seconds: float
    user: float
    system: float
    kept: float
    engines_cpu: float
    memory: float
    """MB at its highest."""
    joining: float
    """CPU (s) of the driver until all engines had joined."""
    orders: int
    reports: int
    """Messages that brought tasks to engines, and reports to the driver."""


def used(pid: int) -> Used:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    kept = int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1])
    return Used(int(fields[11]) / ticks, int(fields[12]) / ticks, kept / 1e9)


def peak_memory(pid: int) -> float:
    """Memory (MB) that a process had when it had most."""
    return of_status(pid, "VmHWM") * 1024 / 1e6


class Reports:
    """Makes messages about tasks that have ended, without coding the outcome anew for each."""

    def __init__(self, elapsed: float) -> None:
        outcome = Outcome(
            pid=os.getpid(), return_code=0, start=time.time(), elapsed=elapsed, out_bytes=0, out_snippet=b"",
            err_bytes=0, err_snippet=b"", cpu_seconds=0.0009, peak_memory=3_600_384, interrupted=False,
        )  # fmt: skip
        empty = messages.encode(messages.TasksEnded(0, ()))
        one = messages.encode(messages.TasksEnded(0, (messages.TaskReport(0, outcome),)))
        self._outcome = one[len(empty) + 2 :]
        self._name = empty[:-2]
        expected = messages.TasksEnded(7, tuple(messages.TaskReport(task_id, outcome) for task_id in (3, 70_000)))
        if messages.decode(self.of(7, [3, 70_000])) != expected:
            raise AssertionError("messages are not coded any more as this benchmark does it")

    def of(self, rank: int, task_ids: list[int]) -> bytes:
        """Message of the engine with that rank that these tasks have ended."""
        length = msgpack.Packer().pack_array_header(len(task_ids))
        reports = self._outcome.join([_ID.pack(_REPORT_AND_ID, task_id) for task_id in task_ids])
        return b"".join([self._name, msgpack.packb(rank), length, reports, self._outcome])


class Peer:
    """A connection to the driver with one request open on its own key."""

    def __init__(self, simulation: Simulation, name: str) -> None:
        self.simulation = simulation
        self._connected: socket.socket = KVSClient(*simulation.where, secret=simulation.secret).detach()
        self._replies = wire.ReplyParser()
        self._ask = wire.encode_get(messages.member_key(RUN, name))
        self._asked = True
        self._received = self._told = 0
        self._closed = False
        self._connected.sendall(self._ask)
        simulation.watch(self._connected.fileno(), self)
        simulation.after(HEARTBEAT, self._beat_on)

    def send(self, message: bytes) -> None:
        """Send a coded message to the driver, and ask for the next one if that was not done yet."""
        data = wire.encode_put(self.simulation.driver_key, messages.TAG, message)
        if not self._asked:
            self._asked = True
            data += self._ask
        self._connected.sendall(data)

    def say(self, message: messages.ToDriver) -> None:
        """Send a message to the driver."""
        self.send(messages.encode(message))

    def receive(self) -> None:
        """Take what has come."""
        for _, value in self._replies.feed(self._connected.recv(_CHUNK)):
            self._asked = False
            self.take(value)
            if not self._asked:
                self.simulation.after(ASK_DELAY, self._ask_again)

    def took(self, count: int) -> None:
        """Count messages that have come, and tell the driver from time to time that they have."""
        self._received += count
        if self._received - self._told >= ACKNOWLEDGE_AFTER:
            self._beat()

    def _beat(self) -> None:
        if not self._closed:
            self._told = self._received
            self.say(messages.Beat(self._received, time.monotonic()))

    def _beat_on(self) -> None:
        if not self._closed:
            self._beat()
            self.simulation.after(HEARTBEAT, self._beat_on)

    def _ask_again(self) -> None:
        if not self._asked:
            self._asked = True
            self._connected.sendall(self._ask)

    def take(self, value: bytes) -> None:
        """Do what a message asks for."""
        raise NotImplementedError

    def close(self) -> None:
        """End the connection."""
        self._asked = self._closed = True
        self.simulation.forget(self._connected.fileno())
        self._connected.close()


class Engine(Peer):
    """An engine whose tasks do nothing but take their time."""

    def __init__(self, simulation: Simulation, rank: int) -> None:
        self.rank = rank
        self._free = simulation.cylinders
        self._waiting: deque[int] = deque()
        self._ended: list[int] = []
        self._report_is_due = False
        self._finishing = False
        super().__init__(simulation, messages.engine_name(rank))
        self.say(messages.EngineCame(rank, __version__, f"node{rank}", os.getpid()))

    def take(self, value: bytes) -> None:
        """Do what the driver says, in one message or several."""
        unpacker = msgpack.Unpacker(unicode_errors="surrogateescape")
        unpacker.feed(value)
        task_ids: list[int] = []
        came = 0
        for name, *values in unpacker:
            if name == "Beat":
                continue
            came += 1
            if name == "RunTasks":
                task_ids += [task[0] for task in values[0]]
            else:
                self._be_told(name)
        self.took(came)
        if task_ids:
            self.simulation.orders += 1
            if self.simulation.seconds:
                self._waiting.extend(task_ids)
                self._start()
            else:
                self._report(task_ids)

    def _be_told(self, name: str) -> None:
        simulation = self.simulation
        if name == "EngineAdmitted":
            simulation.joined(self)
        elif name == "ReturnTasks":
            self.say(messages.TasksReturned(self.rank, tuple(self._waiting)))
            self._waiting.clear()
        elif name == "FinishEngine":
            simulation.finish()
            self._finishing = True
            self._leave_if_done()
        else:
            raise TypeError(f"an engine is told {name}")

    def ready(self) -> None:
        """Tell the driver that tasks can come."""
        self.say(messages.EngineReady(self.rank, self._free))

    def _start(self) -> None:
        simulation = self.simulation
        starting = min(self._free, len(self._waiting))
        self._free -= starting
        for _ in range(starting):
            simulation.run_task(self, self._waiting.popleft())

    def task_ended(self, task_id: int) -> None:
        """A task has had its time."""
        self._free += 1
        if not self._ended:
            self.simulation.ended(self)
        self._ended.append(task_id)

    def end_turn(self) -> None:
        """Start what waits in the place of what has ended; report, unless nobody loses by waiting a moment."""
        self._start()
        if not self._waiting:
            self._report_ended()
        elif not self._report_is_due:
            self._report_is_due = True
            self.simulation.after(messages.REPORT_DELAY, self._report_ended)

    def _report_ended(self) -> None:
        self._report_is_due = False
        if self._ended:
            ended, self._ended = self._ended, []
            self._report(ended)
            self._leave_if_done()

    def _report(self, task_ids: list[int]) -> None:
        self.simulation.reports += 1
        self.send(self.simulation.coded.of(self.rank, task_ids))

    def _leave_if_done(self) -> None:
        if self._finishing and self._free == self.simulation.cylinders:
            self.say(messages.EngineLeft(self.rank))
            self.close()
            self.simulation.left(self)


class Context(Peer):
    """The context to which all engines belong."""

    def __init__(self, simulation: Simulation, engines: int) -> None:
        super().__init__(simulation, messages.context_name("simulated"))
        offers = [messages.NodeOffer(f"node{number:04}", simulation.cylinders, 1) for number in range(engines)]
        self.rank = 0
        self.say(
            messages.ContextCame(
                token="simulated",  # noqa: S106 - it names the context, and lets nobody in
                version=__version__,
                label="simulated",
                system="Simulated",
                host=os.uname().nodename,
                pid=os.getpid(),
                nodes=tuple(offers),
                environment_resources=(),
                task_limit=0,
            )
        )

    def take(self, value: bytes) -> None:
        """Start engines; otherwise wait for their end."""
        for message in messages.decode_all(value):
            if isinstance(message, messages.Beat):
                continue
            self.took(1)
            if isinstance(message, messages.ContextAdmitted):
                self.rank = message.context_rank
                self.simulation.start(message.engine_ranks)
            elif not isinstance(message, messages.EndContext | messages.EngineHasCome):
                raise TypeError(f"the context is told {message}")


class Simulation:
    """All that is simulated, in one loop: from the context's offer until it leaves."""

    def __init__(
        self,
        where: tuple[str, int],
        secret: str,
        driver: int,
        engines: int,
        cylinders: int,
        seconds: float,
        spread: float,
    ) -> None:
        self.where = where
        self.secret = secret
        self.cylinders = cylinders
        self.seconds = seconds
        self._spread = spread
        self._driver = driver
        self.driver_key = messages.driver_key(RUN)
        self.coded = Reports(seconds or SHORT_TASK)
        self.orders = self.reports = 0
        self._random = random.Random(1).random  # noqa: S311 - no secret
        self._poller = select.epoll()
        self._peers: dict[int, Peer] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._running: list[tuple[float, int, Engine]] = []
        self._turn_of: list[Engine] = []
        self._numbers = count()
        self._engines: set[Engine] = set()
        self._ready: list[Engine] = []
        self._before: tuple[float, Used, float] | None = None
        self._after: tuple[float, Used, float] | None = None
        self._memory = 0.0
        self._start_cpu = used(driver).cpu
        self._context = Context(self, engines)

    def watch(self, descriptor: int, peer: Peer) -> None:
        """Let a peer receive what comes for it."""
        self._peers[descriptor] = peer
        self._poller.register(descriptor, select.EPOLLIN)

    def forget(self, descriptor: int) -> None:
        """Watch no longer."""
        del self._peers[descriptor]
        self._poller.unregister(descriptor)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), action))

    def run_task(self, engine: Engine, task_id: int) -> None:
        """Tell the engine when the task has had its time."""
        seconds = self.seconds * (1 + self._spread * (2 * self._random() - 1))
        heapq.heappush(self._running, (time.monotonic() + seconds, task_id, engine))

    def ended(self, engine: Engine) -> None:
        """A task of the engine has ended in this turn."""
        self._turn_of.append(engine)

    def run(self) -> None:
        """Go on until the context has left."""
        while self._peers:
            self._turn()

    def _turn(self) -> None:
        now = time.monotonic()
        due = min((heap[0][0] for heap in (self._timers, self._running) if heap), default=now + 1.0)
        for descriptor, _ in self._poller.poll(max(0.0, due - now)):
            peer = self._peers.get(descriptor)
            if peer is not None:  # it may have ended in this turn
                peer.receive()
        now = time.monotonic()
        while self._running and self._running[0][0] <= now:
            _, task_id, engine = heapq.heappop(self._running)
            engine.task_ended(task_id)
        turn_of, self._turn_of = self._turn_of, []
        for engine in turn_of:
            engine.end_turn()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def start(self, ranks: tuple[int, ...]) -> None:
        """Let all engines come."""
        self._engines = {Engine(self, rank) for rank in ranks}

    def joined(self, engine: Engine) -> None:
        """The driver has admitted an engine; when it has all of them, the measurement begins."""
        self._ready.append(engine)
        if len(self._ready) == len(self._engines):
            self._before = time.perf_counter(), used(self._driver), time.process_time()
            for ready in self._ready:
                ready.ready()

    def finish(self) -> None:
        """The driver has recorded everything, as it tells an engine to finish: here the measurement ends."""
        if self._after is None:
            self._after = time.perf_counter(), used(self._driver), time.process_time()
            self._memory = peak_memory(self._driver)

    def left(self, engine: Engine) -> None:
        """An engine has left."""
        self._context.say(messages.EngineProcessEnded(engine.rank, 0, ""))
        self._engines.remove(engine)
        if not self._engines:
            self._context.say(messages.ContextLeft(self._context.rank))
            self._context.close()

    def row(self, tasks: int) -> Row:
        """What was measured."""
        if self._before is None or self._after is None:
            raise AssertionError("the run did not get that far")
        (began, before, own_before), (ended, after, own_after) = self._before, self._after
        return Row(
            tasks=tasks,
            seconds=ended - began,
            user=after.user - before.user,
            system=after.system - before.system,
            kept=after.kept - before.kept,
            engines_cpu=own_after - own_before,
            memory=self._memory,
            joining=before.cpu - self._start_cpu,
            orders=self.orders,
            reports=self.reports,
        )


def check(status: Path, tasks: int) -> None:
    """See to it that each task has its line, and only one."""
    seen = bytearray(tasks)
    with status.open("rb") as lines:
        for line in lines:
            seen[int(line.split(b"\t", 2)[1])] += 1
    if seen.count(1) != tasks:
        raise AssertionError(f"{tasks - seen.count(1)} of {tasks} tasks do not have just one line")


def measure(asked: argparse.Namespace, engines: int, tasks: int, seconds: float) -> Row:
    """One run."""
    profile = []
    if asked.profile:
        name = f"{engines}-engines-{tasks}-tasks-{seconds:g}-s.prof"
        profile = ["-m", "cProfile", "-o", str(Path(asked.profile).absolute() / name)]
    command = [sys.executable, *profile, str(CHECKOUT / "disbatch" / "__main__.py"), "-S", "-p", RUN, "tasks"]
    directory = Path(tempfile.mkdtemp(prefix="disbatch-benchmark-"))
    try:
        (directory / "tasks").write_bytes(b"true\n" * tasks)
        with subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as driver:
            try:
                assert driver.stdout is not None  # noqa: S101 - asked for above
                script = driver.stdout.readline().decode().strip()
                printed = subprocess.run([script, "--kvs-env"], check=True, stdout=subprocess.PIPE, text=True).stdout
                found = dict(line.split("=", 1) for line in printed.splitlines())
                where = found["KVSSTCP_HOST"], int(found["KVSSTCP_PORT"])
                secret = Path(script).read_text(encoding="utf-8").partition("export KVSSTCP_SECRET=")[2].split()[0]
                simulation = Simulation(where, secret, driver.pid, engines, asked.cylinders, seconds, asked.spread)
                simulation.run()
                if driver.wait(60):
                    raise AssertionError(f"the driver ended with {driver.returncode}")
            finally:
                driver.kill()
        check(Path(RunFiles(str(directory / RUN)).status), tasks)
        return simulation.row(tasks)
    finally:
        shutil.rmtree(directory)


def together(rows: list[Row]) -> Row:
    """One row of several."""
    sums = Row(*map(sum, zip(*rows, strict=True)))
    return sums._replace(memory=max(row.memory for row in rows), joining=sums.joining / len(rows))


def sizes(asked: argparse.Namespace, cylinders: int, seconds: float) -> Iterator[int]:
    """How many tasks the rows are about."""
    tasks = asked.tasks if asked.only else 1000
    while tasks <= asked.tasks and tasks * seconds / cylinders <= PATIENCE:
        yield tasks
        tasks *= 10


def print_row(row: Row, engines: int, tasks: int, seconds: float) -> None:
    """Print a line of the table."""
    each = 1e6 / row.tasks
    driver = row.user + row.system
    print(
        f"{engines:7} {tasks:7} {seconds:5g} {row.tasks / row.seconds:8.0f}"
        f" {driver * each:6.1f} {row.user * each:5.1f} {row.system * each:6.1f}"
        f" {driver / row.seconds:5.0%} {row.kept / row.seconds:4.0%}"
        f" {row.memory:6.1f} {row.joining / engines * 1e6:7.0f}"
        f" {row.engines_cpu * each:5.1f} {row.engines_cpu / row.seconds:4.0%}"
        f" {row.tasks / row.orders:6.1f} {row.tasks / row.reports:6.1f}",
        flush=True,
    )


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--engines", default="1,100,1000")
    parser.add_argument("--cylinders", type=int, default=64)
    parser.add_argument("--tasks", type=int, default=1_000_000, help="the most; runs begin with 1,000")
    parser.add_argument("--only", action="store_true", help="that number of tasks alone")
    parser.add_argument("--seconds", default="0,0.1", help="what tasks take")
    parser.add_argument("--spread", type=float, default=0.5, help="share of it by which that differs")
    parser.add_argument("--profile", metavar="DIRECTORY", help="profile the driver, which slows it down, into files")
    asked = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"{asked.cylinders} cylinders an engine, Python {sys.version.split()[0]}; CPU in µs a task; memory in MB")
    print(_HEADING)
    for seconds in map(float, asked.seconds.split(",")):
        for engines in map(int, asked.engines.split(",")):
            for tasks in sizes(asked, engines * asked.cylinders, seconds):
                runs = max(1, ENOUGH // tasks)
                row = together([measure(asked, engines, tasks, seconds) for _ in range(runs)])
                print_row(row, engines, tasks, seconds)


if __name__ == "__main__":
    main()
