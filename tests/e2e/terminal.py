"""A terminal on which a test types, and reads what comes."""

from __future__ import annotations

import os
import pty
import struct
from contextlib import suppress
from fcntl import ioctl
from select import select
from termios import TIOCSWINSZ
from typing import TYPE_CHECKING

from tests.e2e.support import DISBATCH, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.support import Workplace

SIZE = (24, 100)
"""Rows and columns."""


class Terminal:
    """disbatch, or another program, on a terminal of its own: its session has it as its controlling one."""

    def __init__(self, work: Workplace, *arguments: str, program: Sequence[str] = DISBATCH, kind: str = "dumb") -> None:
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:  # pragma: no cover - the child
            os.chdir(work.directory)
            environment = {**work.environment, "TERM": kind}
            os.execvpe(program[0], [*program, *arguments], environment)  # noqa: S606 - no shell is wanted
        ioctl(self._descriptor, TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
        self.output = b""

    def type(self, key: bytes) -> None:
        """Press a key."""
        os.write(self._descriptor, key)

    def read_until(self, text: bytes) -> None:
        """Read what it says up to and with some text."""
        while text not in self.output:
            assert select([self._descriptor], [], [], PATIENCE)[0], f"{text!r} has not come, but {self.output[-500:]!r}"
            self.output += os.read(self._descriptor, 4096)

    def end(self) -> int:
        """Read the rest; the exit status."""
        with suppress(OSError):  # Linux's way of saying that the other end is closed
            while data := os.read(self._descriptor, 4096):
                self.output += data
        os.close(self._descriptor)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)
