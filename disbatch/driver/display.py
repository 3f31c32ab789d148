"""What the user sees of a run that goes on; the shortest end before there is anything, and do not wait for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from disbatch.terminal import tell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from disbatch.eventloop import EventLoop
    from disbatch.progress.screen import Screen

BEGIN_AFTER = 1.0
"""Seconds from the beginning of a run until something is shown."""


class Display:
    """Shows progress as the user wishes: `auto`, `on` or `off`; see `progress.screen`.

    On a terminal a `hint` comes first: whoever has asked for nothing else does not know what the run is called.
    """

    def __init__(self, loop: EventLoop, wish: str, hint: str) -> None:
        self._wish = wish
        self._hint = hint
        self._screen: Screen | None = None
        self._state: Mapping[str, Any] | None = None
        self._beginning = None if wish == "off" else loop.after(BEGIN_AFTER, self._begin)

    def _begin(self) -> None:
        from disbatch.progress.screen import screen_for  # noqa: PLC0415 - no task is to wait for it

        self._screen = screen_for(self._wish)
        if self._state is not None:
            self._screen.show(self._state)
        self._screen.begin()
        if sys.stderr.isatty():
            tell(self._hint)

    def show(self, state: Mapping[str, Any]) -> None:
        """Show this state of the run, as `snapshot.state` makes it."""
        self._state = state
        if self._screen is not None:
            self._screen.show(state)

    def hide(self) -> None:
        """Leave the terminal to others, until the next state is shown."""
        if self._screen is not None:
            self._screen.hide()

    def close(self) -> None:
        """Show nothing more."""
        if self._beginning is not None:
            self._beginning.cancel()
        if self._screen is not None:
            self._screen.end()
