"""Runs of disbatch as a user starts them: real processes, found again by a mark in their environment.

Every process of a run, its tasks and what these leave behind included, inherits the mark that its `Workplace` gives;
so a test can say what is alive of a run, and end that and nothing else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_type_hints
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO

CHECKOUT = Path(__file__).parents[2]

DISBATCH = (sys.executable, "-m", "disbatch")

MARK = "MARK_OF_A_TEST"

FOREIGN = ("DISBATCH_", "SLURM_", "KVSSTCP_", "PYTHONPATH")
"""Beginnings of variables that the user of the tests may have and that a run would listen to."""

PATIENCE = 20.0
"""Seconds that something may take which takes a moment; only a failure ever waits that long."""

AFTER_RUN = 5.0
"""Seconds for which processes of a run may be seen after it, whatever ended it."""

AFTER_KILL = 15.0
"""The same where `kill -9` hit a part of it: tasks get TERM first and have a few seconds to follow it."""


def eventually(condition: Callable[[], bool], what: str = "it", seconds: float = PATIENCE) -> None:
    """Wait until `condition` holds; fail, naming `what` should have become true, when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} has not come true within {seconds} s"
        time.sleep(0.02)


class StatusLine(NamedTuple):
    """A line of a status file, field by field."""

    flags: str
    task_id: int
    line: int
    repeat_index: int
    node: str
    pid: int
    return_code: int
    elapsed: float
    start: float
    end: float
    out_bytes: int
    out: str
    err_bytes: int
    err: str
    command: str


def status_line(line: str) -> StatusLine:
    """Parse a line of a status file; fails where it is not what section 6 of the behaviour says."""
    fields = line.split("\t", 14)
    assert len(fields) == 15, line
    types = get_type_hints(StatusLine).values()
    return StatusLine(*(of_type(field) for of_type, field in zip(types, fields, strict=True)))


def read_status(path: Path) -> list[StatusLine]:
    """All lines of a status file that has no header, in their order."""
    text = path.read_bytes().decode()
    assert not text or text.endswith("\n"), "a torn last line"
    return [status_line(line) for line in text.split("\n")[:-1]]


class Process(NamedTuple):
    """A live process of a run."""

    pid: int
    parent: int
    command: tuple[str, ...]

    @property
    def role(self) -> str:
        """What it is in the run: `--context`, `--engine` (the keeper too), or empty for anything else."""
        return next((word for word in self.command if word in ("--context", "--engine")), "")


def look_at(pid: int) -> Process | None:
    """A process, None when it has ended (a zombie has)."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        state, parent = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:2]
    except OSError:
        return None
    if state in (b"Z", b"X"):
        return None
    return Process(pid, int(parent), tuple(os.fsdecode(word) for word in command.split(b"\0")[:-1]))


def marked_processes(mark: str) -> list[Process]:
    """Live processes with the mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0") and (process := look_at(int(entry))):
            found.append(process)
    return found


class Finished(NamedTuple):
    """A program that has ended, and what it has said."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def complaints(self) -> list[str]:
        """Lines of its standard error, but for the one that says how long a run took."""
        return [line for line in self.stderr.splitlines() if not line.startswith("disbatch: took ")]


class Workplace:
    """A directory in which a test runs disbatch, and the mark of the processes that come of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mark = uuid4().hex
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the tests, with the mark and this checkout's disbatch, and without a foreign run's."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        return {**mine, MARK: self.mark, "PYTHONPATH": str(CHECKOUT)}

    def write(self, name: str, *lines: str) -> Path:
        """Make a file of these lines in the directory."""
        path = self.directory / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
        return path

    def start(
        self,
        *arguments: str | Path,
        program: Sequence[str | Path] = DISBATCH,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        start_new_session: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start disbatch, or another `program`; `env` is what is added to the environment."""
        process = subprocess.Popen(
            [*program, *arguments],
            cwd=cwd or self.directory,
            env={**self.environment, **(env or {})},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=start_new_session,
        )
        self._started.append(process)
        return process

    def run(
        self,
        *arguments: str | Path,
        program: Sequence[str | Path] = DISBATCH,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        given: bytes | None = None,
        timeout: float = 60.0,
    ) -> Finished:
        """Run disbatch, or another `program`, to its end, with `given` as its standard input."""
        stdin = subprocess.DEVNULL if given is None else subprocess.PIPE
        process = self.start(*arguments, program=program, env=env, cwd=cwd, stdin=stdin)
        return finish(process, given=given, timeout=timeout)

    def run_tasks(self, *lines: str, options: Sequence[str] = (), slots: int = 2) -> Finished:
        """Run these lines as the file `tasks` on this machine."""
        return self.run("-s", f"localhost:{slots}", *options, self.write("tasks", *lines).name)

    def status_file(self, name: str = "tasks") -> Path:
        """The status file of the only run of a task file of that name."""
        (path,) = self.directory.glob(f"{name}_disBatch_*_status.txt")
        return path

    def status(self, name: str = "tasks") -> list[StatusLine]:
        """Lines of that file, none before it is there."""
        return read_status(self.status_file(name)) if any(self.directory.glob(f"{name}_*_status.txt")) else []

    def text(self, name: str) -> str:
        """Content of a file in the directory, of nothing when there is none."""
        path = self.directory / name
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def processes(self) -> list[Process]:
        """What is alive of all that was started here."""
        return marked_processes(self.mark)

    def context(self) -> Process:
        """The only context."""
        (process,) = (process for process in self.processes() if process.role == "--context")
        return process

    def keeper(self) -> Process:
        """The keeper of the only engine."""
        context = self.context().pid
        (process,) = (process for process in self.processes() if process.parent == context)
        return process

    def engine(self) -> Process:
        """The only engine."""
        keeper = self.keeper().pid
        (process,) = (process for process in self.processes() if process.parent == keeper)
        return process

    def await_file(self, name: str) -> None:
        """Wait until a file of that name is in the directory."""
        eventually((self.directory / name).exists, f"a file {name}")

    def await_silence(self, seconds: float = AFTER_RUN) -> None:
        """Wait until nothing that was started here is alive."""
        deadline = time.monotonic() + seconds
        while left := self.processes():
            assert time.monotonic() < deadline, f"still alive after {seconds} s: {left}"
            time.sleep(0.05)

    def close(self) -> list[Process]:
        """End whatever is alive still; what that was."""
        left = self.processes()
        while strays := self.processes():
            for stray in strays:
                with suppress(ProcessLookupError):
                    os.kill(stray.pid, signal.SIGKILL)
            time.sleep(0.005)
        for process in self._started:
            process.communicate()
        return left


def finish(process: subprocess.Popen[bytes], *, given: bytes | None = None, timeout: float = 60.0) -> Finished:
    """Wait for a process to end; one that takes too long is killed, and what it said goes into the failure."""
    try:
        stdout, stderr = process.communicate(given, timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        raise AssertionError(f"still running after {timeout} s; it said {stdout!r} {stderr!r}") from None
    return Finished(process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
