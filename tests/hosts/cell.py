"""A cell: some Linux namespaces, the keeper process that holds them, and every process started in them.

Knows namespaces and processes. It must not know ssh, bridges or what a cell is good for.

What makes a cell go away for certain: its keeper reads a pipe that only the owner holds open. However the owner ends,
the kernel closes the pipe, the keeper ends, and with the last process the kernel removes mounts, interfaces and
bridges of the namespaces. Nothing has a name outside of them that could be left over or clash with another test run.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

    Stream = int | IO[str] | IO[bytes]

KEEPER = Path(__file__).with_name("keeper.py")

CLONE_FS = 0x00000200

ENDING_SECONDS = 10.0
"""How long processes that were sent SIGKILL may take to be gone before that is an error."""


@dataclass(frozen=True)
class Process:
    """One live process: its pid for this machine, its pid inside its own pid namespace, and its argument list."""

    pid: int
    inner_pid: int
    command: tuple[str, ...]


def processes_in(pid_namespace: str) -> list[Process]:
    """List the live processes of a pid namespace (as `Cell.pid_namespace` names it), zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if str((entry / "ns/pid").readlink()) != pid_namespace:
                continue
            status = dict(line.split(":\t", 1) for line in (entry / "status").read_text(encoding="utf-8").splitlines())
            command = (entry / "cmdline").read_bytes()
        except OSError:  # ended meanwhile
            continue
        if status["State"][0] in "ZX":
            continue
        # Empty in the middle of an exec.
        arguments = tuple(os.fsdecode(argument) for argument in command.split(b"\0")[:-1])
        found.append(Process(int(entry.name), int(status["NSpid"].split()[-1]), arguments))
    return sorted(found, key=lambda process: process.pid)


class CellError(Exception):
    """A cell that could not be made, or that is gone."""


class Cell:
    """Namespaces with a keeper in them, and the means to start processes there. Ready when the constructor returns.

    `directory` receives the keeper's log. `unshare` holds the options of unshare(1) that say which namespaces are new;
    `("--pid", "--fork", "--kill-child")` among them put a whole pid namespace into the owner's hand, otherwise the
    keeper ends what descends from it. `setup`, `service` and `hostname` are the keeper's plan.
    """

    def __init__(
        self,
        directory: Path,
        *,
        unshare: Sequence[str] = (),
        hostname: str = "",
        setup: Sequence[Sequence[str]] = (),
        service: Sequence[str] = (),
    ) -> None:
        plan = json.dumps({"hostname": hostname, "setup": setup, "service": service})
        prefix = ["unshare", *unshare] if unshare else []
        self._log = directory / "keeper.log"
        self._started: list[subprocess.Popen[str]] = []
        self._has_pid_namespace = "--pid" in unshare
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C at the terminal of a test run reaches the run, which then ends the cell.
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-I", "-S", str(KEEPER), plan],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.pid = self._read_pid()
            self.pid_namespace = str(Path(f"/proc/{self.pid}/ns/pid").readlink())
        except BaseException:
            self._process.kill()
            self._process.communicate()
            raise

    def _read_pid(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CellError(f"the keeper did not come up: {self._log.read_text(encoding='utf-8')}")
        return int(line)

    @property
    def alive(self) -> bool:
        """Whether the keeper, and with it the cell, still exists."""
        return self._process.poll() is None

    def popen(
        self,
        arguments: Sequence[str | Path],
        *,
        namespaces: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream | None = None,
        stderr: Stream | None = None,
    ) -> subprocess.Popen[str]:
        """Start a program in the cell's `namespaces` (names as in /proc/PID/ns), leader of a session of its own.

        The result is that very process: signals to it and its exit status pass through nobody. `nsenter` would stand
        in between, and would neither hand on signals nor take the program along when killed. `env` and `cwd` are the
        caller's own when None. Raises CellError when the cell is gone.
        """
        if not self.alive:
            raise CellError("the cell is gone")

        def enter_and_start() -> subprocess.Popen[str]:
            _enter(self.pid, namespaces)
            return subprocess.Popen(
                list(arguments),
                env=env,
                cwd=working_directory,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )

        # Entering a mount namespace puts a thread back to the root directory.
        working_directory = cwd or Path.cwd()
        # Namespaces belong to a thread and are inherited by what it starts; a thread made for this leaves the caller's
        # alone and takes them with it when it ends.
        with ThreadPoolExecutor(max_workers=1) as executor:
            process = executor.submit(enter_and_start).result()
        self._started = [earlier for earlier in self._started if earlier.poll() is None]
        self._started.append(process)
        return process

    def close(self) -> None:
        """End every process of the cell, and return when they are gone. Closing twice does nothing more."""
        if self._has_pid_namespace and self.alive:
            os.kill(self.pid, signal.SIGKILL)  # the namespace's first process: the kernel kills all others with it
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        # The kernel holds the first process back until these, whose parent lives outside, have been waited for.
        for process in self._started:
            if not self._has_pid_namespace:
                process.kill()
            process.wait(ENDING_SECONDS)
        self._started.clear()
        self._process.wait(ENDING_SECONDS)


def _enter(pid: int, namespaces: Sequence[str]) -> None:
    """Move the calling thread into `namespaces` of process `pid`; of a pid namespace, only its future children."""
    libc = ctypes.CDLL(None, use_errno=True)
    with ExitStack() as stack:
        # All are opened before the first is entered: another mount namespace has another /proc.
        descriptors = []
        for name in namespaces:
            descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            descriptors.append(descriptor)
        if "mnt" in namespaces:
            _check(libc.unshare(CLONE_FS))  # threads share their working directory, which forbids changing mounts
        for descriptor in descriptors:
            _check(libc.setns(descriptor, 0))


def _check(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
