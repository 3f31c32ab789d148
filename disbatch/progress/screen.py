"""The line at the bottom of the terminal that tells how far a run is, and what is told to its user above it.

A thread of its own writes both: a terminal that takes nothing - Ctrl-S, a window that hangs - stops that, and not the
run. Where there is no terminal it writes a plain line now and then. It must not know what the figures mean.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from disbatch import terminal
from disbatch.progress import line
from disbatch.watch.notices import notices
from disbatch.watch.pace import Pace
from disbatch.watch.state import read_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TextIO

    from disbatch.watch.state import RunState

    class Writer(Protocol):
        """Gets the figures of a run onto something."""

        pause: float
        """Seconds until it wants to `show` them again."""

        def tell(self, text: str) -> None:
            """Write what the user is told."""

        def show(self, state: RunState, pace: Pace, news: Sequence[str]) -> None:
            """Write the figures, and what has happened since the last time."""

        def clear(self) -> None:
            """Leave nothing of them that is not to stay."""


PERIOD = 0.5
"""Seconds between two drawings of the line on a terminal."""

FIRST_LINE, LAST_LINE = 60.0, 900.0
"""Seconds until the first plain line, and between two of a run that goes on for long: each pause is twice the last."""

LINES_ASKED_FOR = 10.0
"""Seconds between two plain lines of a user who wants to see progress anywhere."""

MOST_TOLD = 10_000
"""Lines that may wait for a terminal which takes nothing; what comes then is not told."""

LAST_PATIENCE = 2.0
"""Seconds that the terminal may take to take the last of it."""


class Screen:
    """Shows how far a run is, from `begin` to `end`; meanwhile it also takes what is told to the user.

    `make_writer` is called in the thread that writes, and may take its time.
    """

    def __init__(self, make_writer: Callable[[], Writer]) -> None:
        self._make_writer = make_writer
        self._state: Mapping[str, Any] | None = None
        self._shown: RunState | None = None
        self._pace = Pace()
        self._told: queue.SimpleQueue[Callable[[Writer], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def begin(self) -> None:
        """Show something from now on."""
        with suppress(RuntimeError):  # there is a limit to threads, and the run can do without this one
            self._thread.start()
            terminal.hand_over(self._tell)

    def show(self, state: Mapping[str, Any]) -> None:
        """Show this, as `driver.snapshot` makes it, the next time."""
        self._state = state

    def hide(self) -> None:
        """Take the line away, until the next time; when this returns it has gone, or the terminal is stuck."""
        gone = threading.Event()

        def clear(writer: Writer) -> None:
            try:
                writer.clear()
            finally:
                gone.set()

        if self._thread.is_alive():
            self._told.put(clear)
            gone.wait(LAST_PATIENCE)

    def end(self) -> None:
        """Show nothing more, when all that was told has been written or the terminal does not take it."""
        self._told.put(lambda writer: writer.clear())
        self._told.put(None)
        if self._thread.is_alive():
            self._thread.join(LAST_PATIENCE)
        terminal.take_back()

    def _tell(self, text: str) -> None:
        if self._told.qsize() < MOST_TOLD:
            self._told.put(lambda writer: writer.tell(text))

    # In the thread.

    def _run(self) -> None:
        writer = _done(self._note, _made(self._make_writer))
        due = time.monotonic() + writer.pause
        while True:
            try:
                todo = self._told.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                writer = _done(self._show, writer)
                due = time.monotonic() + writer.pause
                continue
            if todo is None:
                return
            writer = _done(todo, writer)

    def _note(self, _writer: Writer) -> RunState | None:
        if self._state is None:
            return None
        state = read_state(self._state)
        self._pace.note(time.monotonic(), state.finished)
        return state

    def _show(self, writer: Writer) -> None:
        state = self._note(writer)
        if state is not None:
            before = state if self._shown is None else self._shown
            self._shown = state
            writer.show(state, self._pace, notices(before, state))


def _made(make_writer: Callable[[], Writer]) -> Writer:
    try:
        return make_writer()
    except Exception:  # noqa: BLE001 - as in `_done`
        return Lines()


def _done(todo: Callable[[Writer], object], writer: Writer) -> Writer:
    """Have something done by a writer, or by a plain one if that fails; the writer that goes on.

    Whatever is wrong with the drawing, what is told has to be read.
    """
    try:
        todo(writer)
    except (OSError, ValueError):  # a terminal that has gone
        pass
    except Exception as error:  # noqa: BLE001 - see above
        with suppress(Exception):
            writer.clear()
        writer = Lines()
        writer.tell(f"how far the run is cannot be drawn here: {str(error) or type(error).__name__}")
        with suppress(Exception):
            todo(writer)
    return writer


class Lines:
    """A line of plain words now and then, for a log."""

    def __init__(self, first: float = FIRST_LINE, last: float = LAST_LINE) -> None:
        self.pause = first
        self._last = last

    @staticmethod
    def tell(text: str) -> None:
        """See `Writer`."""
        terminal.print_line(text)

    def show(self, state: RunState, pace: Pace, _news: Sequence[str]) -> None:
        """See `Writer`; the figures tell all that a log needs."""
        terminal.print_line(line.sentence(state, pace, time.time()))
        self.pause = min(2 * self.pause, self._last)

    def clear(self) -> None:
        """See `Writer`: a line of a log stays."""


class Bar:
    """One line on a terminal, drawn anew in its place; what is told stands above it.

    Only while this program is in the foreground there: in the background it would write into what its user types.
    """

    pause = PERIOD

    def __init__(self, stream: TextIO) -> None:
        from disbatch.progress.drawing import Drawing  # noqa: PLC0415 - rich takes long to import

        self._stream = stream
        self._drawing = Drawing(stream)
        self._is_drawn = False

    def tell(self, text: str) -> None:
        """See `Writer`; the next drawing brings the line back."""
        self.clear()
        terminal.print_line(text)

    def show(self, state: RunState, pace: Pace, news: Sequence[str]) -> None:
        """See `Writer`."""
        for text in news:
            self.tell(text)
        if self._is_in_foreground():
            self._stream.write(f"\r{self._drawing.of(state, pace)}\x1b[K")
            self._stream.flush()
            self._is_drawn = True

    def clear(self) -> None:
        """See `Writer`."""
        if self._is_drawn and self._is_in_foreground():
            self._stream.write("\r\x1b[K")
            self._stream.flush()
        self._is_drawn = False

    def _is_in_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self._stream.fileno()) == os.getpgrp()
        except OSError:
            return False


def screen_for(wish: str) -> Screen:
    """What a user sees who wants progress shown `auto`matically, or `on` wherever he looks."""
    if _can_draw():
        return Screen(lambda: Bar(sys.stderr))
    return Screen(partial(Lines, LINES_ASKED_FOR, LINES_ASKED_FOR) if wish == "on" else Lines)


def _can_draw() -> bool:
    """Whether standard error is a terminal on which a line can be drawn in the place of another."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown", "")
