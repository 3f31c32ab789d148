"""The line of a run with its colours and its bar, as a terminal wants it; rich knows what each of them can show."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from disbatch.progress import line
from disbatch.watch import locales, words

if TYPE_CHECKING:
    from typing import TextIO

    from disbatch.watch.pace import Pace
    from disbatch.watch.state import RunState

_BAR = 20
_LEAST_FOR_BAR = 60
"""Columns of the bar, and those that a terminal has to have for it."""

_STYLES = {line.PLAIN: "", line.GOOD: "green", line.BAD: "bold red", line.FAINT: "dim"}


class Drawing:
    """Draws for one terminal, of whatever size it has just then."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, emoji=False, markup=False)
        self._unicode = locales.is_utf8()

    def of(self, state: RunState, pace: Pace) -> str:
        """The line, with the codes of its colours; the last column stays free, where a terminal might wrap."""
        console = self._console
        with suppress(OSError, ValueError):  # no terminal
            # $COLUMNS may not know it, nor the terminal itself: then it says 0.
            console.width = os.get_terminal_size(console.file.fileno()).columns or console.width
        width = console.width - 1
        share = line.share(state)
        bar = Text()
        if share is not None and width >= _LEAST_FOR_BAR:
            full, rest = words.bar(share, _BAR, unicode=self._unicode)
            bar = Text.assemble((full, _STYLES[line.GOOD]), (rest, _STYLES[line.FAINT]), line.GAP)
        parts = line.fitting(line.parts(state, pace), width - len(bar))
        figures = Text(line.GAP).join(Text(text, _STYLES[meaning]) for text, meaning in parts)
        whole = bar + figures
        whole.truncate(max(0, width))
        with console.capture() as drawn:
            console.print(whole, end="", soft_wrap=True)
        return drawn.get().replace("\n", "")
