"""A terminal that a test looks at: a program in a real pseudo-terminal, and pyte that makes a picture of its output."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

import pyte

from tests.e2e.support import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from typing_extensions import Self

    from tests.e2e.support import Workplace

UP, DOWN, PAGE_DOWN, ESCAPE, ENTER = "\x1bOA", "\x1bOB", "\x1b[6~", "\x1b", "\r"

ALTERNATE, NORMAL = b"\x1b[?1049h", b"\x1b[?1049l"
"""What switches an xterm to its second screen, and back."""


class Window:
    """A program in a terminal of its own; what it writes and shows, and how it leaves the terminal behind."""

    def __init__(
        self,
        work: Workplace,
        program: Sequence[str | Path],
        *,
        size: tuple[int, int] = (80, 24),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._terminal, its = pty.openpty()
        self._screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self._screen)
        self._unseen = b""
        self._is_left = False
        self.written = b""
        """All that the program has written."""
        self.resize(*size)
        self.attributes_before = self.attributes
        variables = {**work.environment, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **(env or {})}
        for name in ("LINES", "COLUMNS", "NO_COLOR"):
            if name not in (env or {}):
                variables.pop(name, None)
        self.process = subprocess.Popen(
            program,
            cwd=work.directory,
            env=variables,
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
            preexec_fn=self._take_terminal,  # noqa: PLW1509 - one thread
        )
        os.close(its)

    @staticmethod
    def _take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self.hang_up()

    def resize(self, columns: int, lines: int) -> None:
        """Give the window another size, as the user does with his mouse."""
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def press(self, keys: str) -> None:
        """Type these keys."""
        os.write(self._terminal, keys.encode())

    def hang_up(self) -> None:
        """Close the window."""
        if self._terminal >= 0:
            os.close(self._terminal)
        self._terminal = -1

    @property
    def screen(self) -> pyte.Screen:
        """What it shows. Who looks at `written` alone need not fear what pyte does not know."""
        self._stream.feed(self._unseen)
        self._unseen = b""
        return self._screen

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        """What is on the screen, as one text."""
        return "\n".join(self.lines)

    @property
    def has_colours(self) -> bool:
        """Whether anything on the screen has a colour of its own."""
        return any(cell.fg != "default" for row in self.screen.buffer.values() for cell in row.values())

    @property
    def attributes(self) -> list[object]:
        """How the terminal is set now."""
        return termios.tcgetattr(self._terminal)

    def read(self, seconds: float) -> None:
        """Take in what the program writes within that time."""
        if not select.select([self._terminal], [], [], seconds)[0]:
            return
        try:
            data = os.read(self._terminal, 1 << 16)
        except OSError:  # Linux's way of saying that nobody has the other end any more
            self._is_left = True
            return
        self.written += data
        self._unseen += data

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Read on until `condition` holds; fail with a picture of the screen if it does not."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"no {what} within {PATIENCE} s, but\n{self.text}"
            self.read(0.05)

    def shows(self, text: str) -> None:
        """Wait until that text is on the screen."""
        self.until(lambda: text in self.text, f"{text!r}")

    def says(self, text: bytes) -> None:
        """Wait until the program has written that."""
        self.until(lambda: text in self.written, f"{text!r}")

    def ends(self) -> int:
        """Wait until the program has ended, and whatever else has the terminal; its exit status."""
        self.until(lambda: self._is_left, "end of the program")
        return self.process.wait(PATIENCE)
