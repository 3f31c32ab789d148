"""The line of a run with its colours and its bar, as a terminal wants it; rich knows what each of them can show."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.text import Text

from disbatch.progress import line

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

    def of(self, state: RunState, pace: Pace) -> str:
        """The line, with the codes of its colours; the last column stays free, where a terminal might wrap."""
        console = self._console
        with suppress(OSError, ValueError):  # no terminal
            console.width = os.get_terminal_size(console.file.fileno()).columns  # which $COLUMNS may not know
        width = console.width - 1
        share = line.share(state)
        with console.capture() as drawn:
            if share is not None and width >= _LEAST_FOR_BAR:
                bar = ProgressBar(1.0, share, _BAR, complete_style="green", finished_style="green")
                console.print(bar, end="", soft_wrap=True)
                console.print(line.GAP, end="")
                width -= _BAR + len(line.GAP)
            parts = [(text, _STYLES[meaning]) for text, meaning in line.fitting(line.parts(state, pace), width)]
            text = Text(line.GAP).join(Text(*part) for part in parts)
            text.truncate(max(0, width))
            console.print(text, end="", soft_wrap=True)
        return drawn.get().replace("\n", "")
