"""Starting another process of the run: in a session of its own, with a file that takes what it prints.

What it prints is for the case that it fails before it can say so itself: its last words tell why.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

from disbatch import descriptors
from disbatch.errors import DisbatchError
from disbatch.log import open_to_append

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from disbatch.descriptors import Limit

LAST_WORDS = 400
"""Bytes at the end of what a process printed that are looked at for its last words."""


def disbatch_command() -> tuple[str, ...]:
    """Command that starts disbatch with this Python from any directory, installed or from a checkout, PATH or none."""
    return sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")


class Launched:
    """A process that was started; it leads its own session, so that no Ctrl-C on the user's terminal reaches it.

    Raises `DisbatchError` when it cannot be started. `environment` is this process's own where it is None; `limit` is
    what the child is to have, see `descriptors`; `given` is the open file that it has as its standard input, without
    one it reads nothing; `niceness` is added to this process's.
    """

    def __init__(
        self,
        command: Sequence[str],
        output: str,
        *,
        environment: Mapping[str, str] | None = None,
        limit: Limit | None = None,
        given: int | None = None,
        niceness: int = 0,
    ) -> None:
        self._output = output
        self._return_code: int | None = None
        descriptors.keep_from_children()
        try:
            with open_to_append(output) as file:
                self._output_start = file.tell()
                self._pid = _start(command, os.environ if environment is None else environment, file.fileno(), given)
        except OSError as error:
            raise DisbatchError(f"cannot start {error.filename or command[0]}: {error.strerror}") from error
        descriptors.restore_limit(self._pid, limit)
        if niceness:
            _make_nice(self._pid, niceness)

    def return_code(self) -> int | None:
        """Exit status (-n for signal n), None while it runs."""
        if self._return_code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._return_code = os.waitstatus_to_exitcode(status)
        return self._return_code

    def last_words(self) -> str:
        """Last line that it printed, shortened."""
        try:
            with open(self._output, "rb") as file:
                file.seek(max(self._output_start, file.seek(0, os.SEEK_END) - LAST_WORDS))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1].strip() if lines else ""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its process group; harmless when that has ended."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def clear_away(self) -> None:
        """Remove the file that takes what it prints if nothing is in it."""
        with suppress(OSError):
            if os.path.getsize(self._output) == 0:
                os.unlink(self._output)


def _make_nice(pid: int, niceness: int) -> None:
    with suppress(OSError):  # it has ended
        os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0) + niceness)
    # Linux may share cores among sessions first, and only then among the processes of each.
    with suppress(OSError), open(f"/proc/{pid}/autogroup", "wb", buffering=0) as file:
        file.write(b"%d" % niceness)


def _start(command: Sequence[str], environment: Mapping[str, str], output: int, given: int | None) -> int:
    """Pid of a new process that leads its own session, reads from `given`, if anything, and prints to `output`."""
    try:
        return os.posix_spawnp(
            command[0],
            tuple(command),
            environment,
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
                if given is None
                else (os.POSIX_SPAWN_DUP2, given, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ),
            setsid=True,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
        )
    except NotImplementedError:
        # Not every Python can start a session so, see `engine.launchers`.
        return _start_by_subprocess(command, environment, output, given)


def _start_by_subprocess(command: Sequence[str], environment: Mapping[str, str], output: int, given: int | None) -> int:
    import subprocess  # noqa: PLC0415 - 5 ms, which most machines need not wait for

    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL if given is None else given,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    process.returncode = 0  # it is reaped here: the object would warn, and try to, when it goes
    return process.pid
