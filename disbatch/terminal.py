"""The lines that a process of a run prints for its user; whether anybody reads them must not matter to the run.

What somebody has asked for is another matter: that goes to standard output, or is an error.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from disbatch.errors import DisbatchError

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


def answer(text: str) -> None:
    """Print what was asked for to standard output, as lines; raises `DisbatchError` when that takes nothing.

    Characters that its encoding does not have are escaped. That who reads it has read enough is no error.
    """
    if sys.stdout is None:
        raise DisbatchError("cannot write to standard output: it is closed")
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:
        pass
    except OSError as error:
        raise DisbatchError(f"cannot write to standard output: {error.strerror}") from error


def hand_over(taker: Callable[[str], None]) -> None:
    """Have `taker(text)` called for each line from now on, instead of printing it."""
    global _taker  # noqa: PLW0603 - there is one terminal
    _taker = taker


def take_back() -> None:
    """Print lines again."""
    global _taker  # noqa: PLW0603 - as above
    _taker = None
