"""Starting bash for one command: in a session of its own, with its output going to two pipes.

Two ways to the same end. `posix_spawn` is the faster one; where this Python or its libc cannot start a session with
it (glibc before 2.26, and every Python built against one), `subprocess` does. It must not know what the command is for.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from disbatch import descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    class Launcher(Protocol):
        """Starts `/bin/bash -c command`."""

        def __call__(self, command: bytes, environment: Mapping[bytes, bytes], stdout: int, stderr: int) -> int:
            """Pid of a bash that leads its own session and writes to these descriptors; its input is empty.

            Raises OSError when the system refuses (a command too long, no more processes) and ValueError for a command
            that holds a NUL byte.
            """


BASH = b"/bin/bash"

IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that the interpreter ignores, which a child would inherit; a command expects their defaults."""


class PosixSpawnLauncher:
    """Starts bash with posix_spawn(3), which never copies this process."""

    def __init__(self) -> None:
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def __call__(self, command: bytes, environment: Mapping[bytes, bytes], stdout: int, stderr: int) -> int:
        """See `Launcher`."""
        return os.posix_spawn(
            BASH,
            (BASH, b"-c", command),
            environment,
            file_actions=(
                (os.POSIX_SPAWN_DUP2, self._null, 0),
                (os.POSIX_SPAWN_DUP2, stdout, 1),
                (os.POSIX_SPAWN_DUP2, stderr, 2),
            ),
            setsid=True,
            setsigmask=(),
            setsigdef=IGNORED_BY_PYTHON,
        )


class SubprocessLauncher:
    """Starts bash with `subprocess`, at about 50 microseconds more a task."""

    def __init__(self) -> None:
        import subprocess  # noqa: PLC0415 - costs 9 ms, and few machines need it

        self._popen = subprocess.Popen
        self._null = subprocess.DEVNULL

    def __call__(self, command: bytes, environment: Mapping[bytes, bytes], stdout: int, stderr: int) -> int:
        """See `Launcher`."""
        mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())  # `subprocess` hands on the one that it finds
        try:
            process = self._popen(
                (BASH, b"-c", command),
                env=environment,
                stdin=self._null,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                restore_signals=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # The engine reaps its children itself: without a return code the object would warn and try to when it goes.
        process.returncode = 0
        return process.pid


def session_by_posix_spawn() -> bool:
    """Whether posix_spawn can start a session here: decided when Python was compiled, so trying is the only way."""
    try:
        with suppress(OSError):  # it has looked for the program, so it had accepted the session
            os.posix_spawn("/nonexistent/disbatch", ("true",), {}, setsid=True)
    except NotImplementedError:
        return False
    return True


def launcher() -> Launcher:
    """Give the fastest launcher that works on this machine."""
    return PosixSpawnLauncher() if session_by_posix_spawn() else SubprocessLauncher()


def limiting(launch: Launcher, limit: descriptors.Limit) -> Launcher:
    """Wrap a launcher so that what it starts has this limit of open files, whatever this process has."""

    def launch_limited(command: bytes, environment: Mapping[bytes, bytes], stdout: int, stderr: int) -> int:
        pid = launch(command, environment, stdout, stderr)
        # posix_spawn cannot set limits; bash has hardly begun to read its command when it gets the one it should have.
        descriptors.restore_limit(pid, limit)
        return pid

    return launch_limited
