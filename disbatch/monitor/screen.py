"""The terminal of the monitor: a picture onto it, keys from it, and its state before given back to it.

The only file that knows curses. It must not know what the picture shows.
"""

from __future__ import annotations

import curses
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from disbatch.errors import DisbatchError
from disbatch.monitor import model, render
from disbatch.monitor.cells import width

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from disbatch.monitor.render import Line

OTHERWISE = "--status prints the same once"
"""Advice to whoever cannot have this."""

NEEDED = ("cup", "clear")
"""What a terminal must be able to do: put the cursor anywhere, and clear itself."""

_ESCAPE_WAIT = 50
"""Milliseconds in which what follows the byte of the Esc key makes another key of it."""

_KEYS = {
    curses.KEY_UP: model.UP,
    curses.KEY_DOWN: model.DOWN,
    curses.KEY_PPAGE: model.PAGE_UP,
    curses.KEY_NPAGE: model.PAGE_DOWN,
    curses.KEY_HOME: model.HOME,
    curses.KEY_END: model.END,
    curses.KEY_ENTER: model.ENTER,
    curses.KEY_BACKSPACE: model.BACKSPACE,
}
_CHARACTERS = {
    "\n": model.ENTER,
    "\r": model.ENTER,
    "\x1b": model.ESCAPE,
    "\x7f": model.BACKSPACE,
    "\b": model.BACKSPACE,
}
REDRAW = "\f"
"""The key that asks for the whole picture again, Ctrl-L."""

_COLOURS = {
    render.GOOD: curses.COLOR_GREEN,
    render.BAD: curses.COLOR_RED,
    render.WARNING: curses.COLOR_YELLOW,
    render.HEADING: curses.COLOR_CYAN,
}
_WITHOUT_COLOURS = {
    render.STRONG: curses.A_BOLD,
    render.BAD: curses.A_BOLD,
    render.WARNING: curses.A_BOLD,
    render.HEADING: curses.A_UNDERLINE,
    render.CURSOR: curses.A_REVERSE,
}


def check_terminal(environment: Mapping[str, str]) -> None:
    """Raise `DisbatchError` if the monitor cannot be shown here."""
    for stream in (sys.__stdin__, sys.__stdout__):
        if stream is None or not _is_terminal(stream.fileno()):
            raise DisbatchError("--mon needs a terminal, for its keys and its picture", OTHERWISE)
    kind = environment.get("TERM", "")
    try:
        curses.setupterm()
        lacks = [capability for capability in NEEDED if not curses.tigetstr(capability)]
    except curses.error:
        raise DisbatchError(f"--mon does not know this kind of terminal, TERM={kind!r}", OTHERWISE) from None
    if lacks:
        raise DisbatchError(f"--mon needs more than this kind of terminal can do, TERM={kind!r}", OTHERWISE)


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


class Screen:
    """The terminal as long as the monitor has it; left in whatever way, it is as it was before."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._with_colours = not environment.get("NO_COLOR")
        self._styles: dict[str, int] = {}
        self._window: curses.window

    def __enter__(self) -> Self:
        self._window = curses.initscr()
        try:
            curses.noecho()
            curses.cbreak()
            self._window.keypad(True)
            self._window.nodelay(True)
            with suppress(curses.error):  # not every terminal can hide its cursor
                curses.curs_set(0)
            curses.set_escdelay(_ESCAPE_WAIT)
            self._styles = dict(_WITHOUT_COLOURS)
            if self._with_colours:
                with suppress(curses.error):
                    self._add_colours()
            self.fit()
        except BaseException:
            curses.endwin()
            raise
        return self

    def _add_colours(self) -> None:
        curses.start_color()
        if not curses.has_colors():
            return
        curses.use_default_colors()
        for number, (style, colour) in enumerate(_COLOURS.items(), 1):
            curses.init_pair(number, colour, -1)
            self._styles[style] = curses.color_pair(number) | (curses.A_BOLD if style == render.HEADING else 0)
        self._styles[render.FAINT] = curses.A_DIM

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(curses.error):
            curses.endwin()

    def fit(self) -> None:
        """Take the size that the terminal has now."""
        with suppress(OSError):
            columns, lines = os.get_terminal_size(sys.__stdin__.fileno() if sys.__stdin__ else 0)
            if columns > 0 and lines > 0:
                curses.resizeterm(lines, columns)
        self._window.clearok(True)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        lines, columns = self._window.getmaxyx()
        return columns, lines

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines, from the top of the window on."""
        self._window.erase()
        for row, line in enumerate(lines):
            column = 0
            for text, style in line:
                # Behind the last cell of the window the cursor has no place, and that is an error to curses.
                with suppress(curses.error):
                    self._window.addstr(row, column, text, self._styles.get(style, curses.A_NORMAL))
                column += width(text)
        self._window.refresh()

    def keys(self) -> Iterator[str]:
        """Keys that were pressed since the last time."""
        while True:
            try:
                key = self._window.get_wch()
            except curses.error:
                return
            if key == REDRAW:
                self._window.clearok(True)
            elif isinstance(key, str):
                yield _CHARACTERS.get(key, key)
            elif key in _KEYS:
                yield _KEYS[key]

    @staticmethod
    def is_there() -> bool:
        """Whether there is a terminal still: one that was closed has always something to be read, which is nothing."""
        return sys.__stdin__ is not None and _is_terminal(sys.__stdin__.fileno())
