"""The command of `--taskcommand`: started by a shell, it submits tasks through the key-value store, and ends.

It must not know what is submitted.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from disbatch.errors import DisbatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from disbatch.eventloop import EventLoop

GRACE = 2.0
"""Seconds between TERM and KILL for a command that outlives its run."""

_PAUSE = 0.02


class TaskCommand:
    """Runs the command in a session of its own, on the user's terminal but without input.

    `on_end(return_code)` is called once, in a turn of the loop. Raises `DisbatchError` when it cannot be started.
    """

    def __init__(
        self, command: str, environment: Mapping[str, str], loop: EventLoop, on_end: Callable[[int], None]
    ) -> None:
        import subprocess  # noqa: PLC0415 - 5 ms, which runs without a task command need not wait for

        self._on_end = on_end
        self._told = False
        self._closed = False
        loop.on_signal(signal.SIGCHLD, self._check)
        try:
            self._process = subprocess.Popen(
                ("/bin/bash", "-c", command), env=environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise DisbatchError(f"cannot start the task command: {error}", "see --taskcommand") from error

    def _check(self) -> None:
        if self._told or self._closed:
            return
        # It is not reaped before `close`: until then its number is that of no other process, and of no other group.
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            self._told = True
            self._on_end(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status)

    @property
    def has_ended(self) -> bool:
        """Whether its end was told."""
        return self._told

    def close(self) -> None:
        """End what runs of it still: TERM first, KILL after `GRACE`. Nothing is told of it any more."""
        from subprocess import TimeoutExpired  # noqa: PLC0415 - see above

        self._closed = True
        if self._process.returncode is not None:
            return
        deadline = time.monotonic() + GRACE
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGTERM)
            while time.monotonic() < deadline:
                self._process.poll()  # a group whose leader is not reaped does not end
                os.killpg(self._process.pid, 0)
                time.sleep(_PAUSE)
            # Once, and without waiting for the rest of the group: where nobody reaps orphans it never ends.
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(TimeoutExpired):
            self._process.wait(GRACE)
