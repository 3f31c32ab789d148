"""The lines that a process of a run prints for its user; whether anybody reads them must not matter to the run."""

from __future__ import annotations

import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_taker: Callable[[str], None] | None = None
"""Who prints them, if somebody has asked for that: who draws something on the same terminal."""


def tell(text: str) -> None:
    """Print a line to the user's terminal, which may have gone."""
    if _taker is not None:
        _taker(text)
    else:
        print_line(text)


def print_line(text: str) -> None:
    """Print it at once, whoever else prints."""
    with suppress(OSError, ValueError):
        print(f"disbatch: {text}", file=sys.stderr, flush=True)


def hand_over(taker: Callable[[str], None]) -> None:
    """Have `taker(text)` called for each line from now on, instead of printing it."""
    global _taker  # noqa: PLW0603 - there is one terminal
    _taker = taker


def take_back() -> None:
    """Print lines again."""
    global _taker  # noqa: PLW0603 - as above
    _taker = None
