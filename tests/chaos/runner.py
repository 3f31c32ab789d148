"""Has a schedule happen: real drivers, contexts, engines and tasks on hosts made of this machine.

A program, run by `harness` as `python -m tests.chaos.runner SEED DIRECTORY FEATURE...`, the first process of a pid
namespace of its own and in a mount namespace of its own: when it ends, however, all that it had started is gone. What
there is to know goes into DIRECTORY.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from disbatch.options import DriverOptions
from tests.chaos import attempt, check
from tests.chaos.evidence import Deed, Evidence, Run, attempts_in
from tests.chaos.schedule import HEARTBEAT, HOSTS, LOGIN, PATIENCE, Event, make_schedule, task_list
from tests.e2e.support import CHECKOUT, DISBATCH, FOREIGN, look_at
from tests.hosts import Hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.hosts.cell import Process
    from tests.hosts.network import Host

HAS_LEASE = hasattr(DriverOptions, "heartbeat")
"""Whether this disbatch knows leases."""

RUNS = 8
"""Drivers that may follow one another."""

END_PATIENCE = 25.0
"""Seconds that a run may be without any progress, after the last event, before that counts as not ending."""

SILENCE_PATIENCE = 12.0
"""Seconds after the end of a driver in which all else of its run has to end."""

DISK = "4m"
"""Size of the file system with the run's files."""

TURN = 0.01


class Undo(NamedTuple):
    """What is to be undone, and when."""

    due: float
    deed: Deed
    action: Callable[[], None]


class Stage:
    """A schedule while it happens."""

    def __init__(self, seed: int, directory: Path, features: Sequence[str]) -> None:
        self._schedule = make_schedule(seed, features)
        self._directory = directory
        self._work = directory / "work"
        self._files = self._work / "files"
        self._evidence = Evidence(seed, list(features), HAS_LEASE, [], [], [], [], [])
        self._hosts: Hosts
        self._driver: subprocess.Popen[str] | None = None
        self._others: list[subprocess.Popen[str]] = []
        self._contexts: list[int] = []
        """Pids of contexts of this run that were added."""
        self._undo: list[Undo] = []
        self._events = list(self._schedule.events)
        self._without_power: set[str] = set()
        self._zero = 0.0
        self._may_end_by = 0.0
        self._progress = 0
        self._rescues = 0

    def perform(self) -> Evidence:
        """Have it happen."""
        self._files.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", self._files], check=True)
        (self._work / "tasks").write_text(task_list(self._schedule).text, encoding="ascii")
        (self._work / "journal").touch()
        program = self._work / "attempt"
        source = Path(attempt.__file__).read_text(encoding="utf-8")
        program.write_text(f"#!{sys.executable} -IS\n{source}", encoding="utf-8")
        program.chmod(stat.S_IRWXU)
        try:
            with Hosts(self._directory / "hosts", [LOGIN, *HOSTS]) as self._hosts:
                self._go_through()
                for undo in self._undo:
                    self._undo_now(undo)
                self._await_silence()
                self._evidence.left = [f"{name}: {seen}" for name, seen in self._left]
        finally:
            shutil.copytree(self._files, self._directory / "files", ignore=shutil.ignore_patterns("filler"))
            self._evidence.attempts = attempts_in((self._work / "journal").read_text(encoding="ascii"))
        return self._evidence

    @property
    def _alive(self) -> list[Host]:
        return [host for host in self._hosts if host.alive]

    # Drivers, one after the other.

    def _go_through(self) -> None:
        self._start_driver()
        self._await_first_command()
        while True:
            self._do_what_is_due()
            run = self._evidence.runs[-1]
            if self._driver is not None and self._driver.poll() is not None:
                self._note_end(run, self._driver.returncode)
                if check.is_complete(run):
                    return
                if len(self._evidence.runs) == RUNS:
                    self._evidence.problems.append(f"{RUNS} runs were not enough")
                    return
                self._await_silence()
                self._start_driver()
            elif self._driver is not None and self._has_come_to_nothing():
                self._evidence.problems.append(f"{run.name} does not end")
                self._driver.kill()
                self._driver.wait()
                self._note_end(run, None)
                return
            else:
                self._rescue()
            time.sleep(TURN)

    def _await_first_command(self) -> None:
        """Wait for what the times of the schedule are relative to."""
        deadline = time.monotonic() + END_PATIENCE
        while not (self._work / "journal").stat().st_size and time.monotonic() < deadline:
            time.sleep(TURN)
        self._zero = time.monotonic()
        last = max((event.at + event.lasts for event in self._events), default=0.0)
        self._may_end_by = self._zero + last + END_PATIENCE

    def _has_come_to_nothing(self) -> bool:
        """Whether nothing has been written by tasks or driver for so long that nothing will be."""
        run = self._evidence.runs[-1]
        files = [self._work / "journal", self._status_file(run), self._files / f"{run.name}_driver.log"]
        progress = sum(file.stat().st_size for file in files if file.exists())
        if progress != self._progress:
            self._progress = progress
            self._may_end_by = max(self._may_end_by, time.monotonic() + END_PATIENCE)
        return time.monotonic() > self._may_end_by

    def _start_driver(self) -> None:
        runs = self._evidence.runs
        cores = [(name, count) for name, count in self._schedule.cores if name not in self._without_power]
        cores = cores or [(next(host for host in HOSTS if host not in self._without_power), 2)]
        options = ["-p", f"files/r{len(runs)}", "-s", ",".join(f"{name}:{count}" for name, count in cores)]
        if HAS_LEASE:
            options += ["--heartbeat", str(HEARTBEAT), "--heartbeat-patience", str(PATIENCE)]
        options += ["-e"] * self._schedule.exit_code
        retries = False
        earlier = [run for run in runs if self._status_file(run).exists()]
        if earlier:
            retries = any(check.CHECK_FAILED in line for line in earlier[-1].said)
            options += ["-r", f"files/{self._status_file(earlier[-1]).name}", *["-R"] * retries]
        run = Run(f"r{len(runs)}", time.monotonic(), retries)
        mine = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        with self._said_by(run).open("w") as said:
            self._driver = self._hosts[LOGIN].popen(
                [*DISBATCH, *options, "tasks"],
                env={**mine, "PYTHONPATH": str(CHECKOUT)},
                cwd=self._work,
                stdout=said,
                stderr=said,
            )
        self._contexts.clear()
        self._rescues = 0
        runs.append(run)

    def _said_by(self, run: Run) -> Path:
        return self._directory / f"{run.name}.said"

    def _status_file(self, run: Run) -> Path:
        return self._files / f"{run.name}_status.txt"

    def _note_end(self, run: Run, return_code: int | None) -> None:
        run.ended = time.monotonic()
        run.return_code = return_code
        run.said = self._said_by(run).read_text(encoding="utf-8", errors="replace").splitlines()
        status = self._status_file(run)
        if status.exists():
            # A driver that was killed, or had no room, may leave the last line torn.
            run.lines = status.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        self._driver = None

    def _await_silence(self) -> None:
        """Wait until nothing of a run is left that has ended, on any host that can be reached."""
        begun = time.monotonic()
        while left := self._left:
            self._do_what_is_due()
            since = max([begun, *(deed.ended for deed in self._evidence.deeds if deed.ended is not None)])
            if not self._undo and time.monotonic() > since + SILENCE_PATIENCE:
                name = self._evidence.runs[-1].name
                self._evidence.problems.append(f"{SILENCE_PATIENCE} s after the end of {name} there is still {left}")
                for host in self._alive:
                    host.reset()
            time.sleep(TURN)
        while self._undo:  # nobody resumes a run over hosts that he cannot reach
            self._do_what_is_due()
            time.sleep(TURN)
        for other in self._others:
            other.wait()
        self._others.clear()

    @property
    def _left(self) -> list[tuple[str, Process]]:
        """What runs anywhere, with the host; but an ssh to one without power takes a minute to find that out."""
        found = [(host.name, seen) for host in self._alive for seen in host.processes()]
        return [
            (name, seen)
            for name, seen in found
            if seen.command[:1] != ("ssh",) or self._without_power.isdisjoint(seen.command)
        ]

    def _rescue(self) -> None:
        """Add a host to a run that waits for one, each time that it says so, as its user would."""
        said = self._said_by(self._evidence.runs[-1]).read_text(encoding="utf-8", errors="replace")
        if said.count(check.WAITS) > self._rescues and not self._undo:
            self._rescues += 1
            host = next(host for host in HOSTS if host not in self._without_power)
            self._deed(Event(round(time.monotonic() - self._zero, 2), "add", host, "from login"))

    # Events.

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        for undo in [undo for undo in self._undo if undo.due <= now]:
            self._undo_now(undo)
        while self._events and self._zero + self._events[0].at <= now:
            self._deed(self._events.pop(0))

    def _undo_now(self, undo: Undo) -> None:
        undo.action()
        undo.deed.ended = time.monotonic()
        if undo in self._undo:
            self._undo.remove(undo)

    def _deed(self, event: Event) -> None:
        """Perform an event."""
        target = event.target.rpartition(" ")[2]
        deed = Deed(
            str(event), event.action, event.target, event.how, target, time.monotonic(), None, done=False, note=""
        )
        self._evidence.deeds.append(deed)
        if target in self._without_power:
            deed.note = "no power"
            return
        doers: dict[str, Callable[[Event, Deed], Callable[[], None] | None]] = {
            "kill": self._kill,
            "power-off": self._power_off,
            "stop": self._stop,
            "add": self._add,
            "cut": self._cut,
            "reset": self._reset,
            "freeze": self._freeze,
            "delay": self._delay,
            "fill": self._fill,
        }
        undo = doers[event.action](event, deed)
        if undo is not None:
            self._undo.append(Undo(time.monotonic() + event.lasts, deed, undo))

    def _kill(self, event: Event, deed: Deed) -> None:
        pids = self._pids(event.target)
        deed.done, deed.note = bool(pids), str(pids)
        if event.target.startswith("node"):
            # So that none of them lives to see another's end.
            self._signal(pids, signal.SIGSTOP)
        self._signal(pids, signal.Signals[f"SIG{event.how}"])

    def _power_off(self, event: Event, deed: Deed) -> None:
        self._without_power.add(event.target)
        self._hosts[event.target].power_off()
        deed.done = True

    def _stop(self, event: Event, deed: Deed) -> None:
        kind, _, name = event.target.partition(" ")
        self._use_script(deed, LOGIN, ["--stop", kind, name, *["--now"] * (event.how == "now")])

    def _add(self, event: Event, deed: Deed) -> None:
        place = event.target if event.how == "from there" else LOGIN
        process = self._use_script(deed, place, ["-s", f"{event.target}:2"])
        if process is not None:
            self._contexts.append(process.pid)

    def _use_script(self, deed: Deed, place: str, arguments: Sequence[str]) -> subprocess.Popen[str] | None:
        run = self._evidence.runs[-1]
        script = self._files / f"{run.name}_dbUtil.sh"
        if self._driver is None or not script.exists():
            deed.note = "no run"
            return None
        deed.done = True
        with (self._directory / "scripts.said").open("a") as said:
            process = self._hosts[place].popen([script, *arguments], cwd=self._work, stdout=said, stderr=said)
        self._others.append(process)
        return process

    def _cut(self, event: Event, deed: Deed) -> Callable[[], None]:
        deed.done = True
        host = self._hosts[event.target]
        others = [other for other in self._alive if other is not host]
        if event.how == "both ways":
            host.cut()
            return lambda: self._with_power(host, host.heal)
        deaf, mute = (others, [host]) if event.how == "in" else ([host], others)
        for one in deaf:
            one.misdirect(mute)

        def heal() -> None:
            for one in deaf:
                self._with_power(one, lambda one=one: one.find_again(mute))  # type: ignore[misc] # called at once

        return heal

    @staticmethod
    def _with_power(host: Host, action: Callable[[], None]) -> None:
        if host.alive:
            action()

    def _reset(self, event: Event, deed: Deed) -> None:
        kind, _, name = event.target.partition(" ")
        host, login = self._hosts[name], self._hosts[LOGIN]
        port = "22" if kind == "ssh" else self._port()
        if not port:
            deed.note = "no run"
            return
        server_is_there = kind == "ssh"
        place, peer = (host, login) if event.how == "seen there" else (login, host)
        own = "sport" if server_is_there == (place is host) else "dport"
        filters = ["dst", peer.address, "and", own, "=", f":{port}"]
        done = place.run(["ss", "-t", "-n", "-H", "-K", "state", "established", *filters])
        deed.done = bool(done.stdout.strip())
        deed.note = f"{done.stdout.split()} {done.stderr.strip()}"

    def _port(self) -> str:
        with suppress(FileNotFoundError):
            text = (self._files / f"{self._evidence.runs[-1].name}_kvsinfo.txt").read_text(encoding="ascii")
            return text.strip().rpartition(":")[2]
        return ""

    def _freeze(self, event: Event, deed: Deed) -> Callable[[], None]:
        pids = self._pids(event.target)
        deed.done, deed.note = bool(pids), str(pids)
        self._signal(pids, signal.SIGSTOP)
        return lambda: self._signal(pids, signal.SIGCONT)

    def _delay(self, event: Event, deed: Deed) -> Callable[[], None]:
        deed.done = True
        host = self._hosts[event.target]
        host.lengthen(float(event.how))
        return lambda: self._with_power(host, lambda: host.lengthen(0.0))

    def _fill(self, _event: Event, deed: Deed) -> Callable[[], None]:
        deed.done = True
        filler = self._files / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        return filler.unlink

    # Processes.

    def _signal(self, pids: Sequence[int], number: signal.Signals) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _pids(self, target: str) -> list[int]:
        """Processes that a target stands for now."""
        kind, _, name = target.partition(" ")
        if kind == "driver":
            return [self._driver.pid] if self._driver is not None else []
        if kind == "context":
            return self._context(int(name))
        processes = self._hosts[name].processes()
        if kind == "node":
            return [seen.pid for seen in processes]
        if kind == "launcher":
            return [
                seen.pid
                for seen in self._hosts[LOGIN].processes()
                if seen.command[:1] == ("ssh",) and name in seen.command
            ][:1]
        of_engines = {seen.pid for seen in processes if "--engine" in seen.command and "ssh" not in seen.command[0]}
        parents = {pid: found.parent for pid in of_engines if (found := look_at(pid))}
        # A child of the engine that is about to become a task's bash looks like it, and is not meant.
        top = {pid for pid, parent in parents.items() if parent not in of_engines}
        engines = [pid for pid, parent in parents.items() if parent in top]
        if kind == "engine":
            return engines[:1]
        return [parents[pid] for pid in engines[:1]]

    def _context(self, number: int) -> list[int]:
        if number:
            return [pid for pid in self._contexts[number - 1 : number] if look_at(pid)]
        driver = self._driver.pid if self._driver is not None else -1
        processes = self._hosts[LOGIN].processes()
        return [
            seen.pid
            for seen in processes
            if "--context" in seen.command and (found := look_at(seen.pid)) and found.parent == driver
        ]


def main() -> None:
    """Perform one schedule, and write down what came of it."""
    seed, directory, features = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    stage = Stage(seed, directory, features)
    evidence = stage.perform()
    evidence.save(directory / "evidence.json")


if __name__ == "__main__":
    main()
