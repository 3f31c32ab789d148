"""Failures of a run as its status file grows, digested.

It must not know how they are shown.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from disbatch.errors import StatusFileError
from disbatch.report.causes import Digest
from disbatch.report.failures import failure_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from disbatch.web.tail import Tail

PATIENCE = 0.2
"""Seconds for which is read in one go: a large file of an earlier run takes several."""

_FAILED = re.compile(rb"^R[^\n]*$", re.MULTILINE)


class Failures:
    """Reads what is new in a status file; `clock` tells seconds that never jump."""

    def __init__(self, tail: Tail, clock: Callable[[], float]) -> None:
        self._tail = tail
        self._clock = clock
        self.digest = Digest()
        """Of all that was read so far."""
        self.is_behind = False
        """Whether there is more to be read at once."""

    def read(self) -> bool:
        """Read on; whether there is anything new to tell."""
        before = self.digest.failed, self.is_behind
        deadline = self._clock() + PATIENCE
        self.is_behind = True
        while self.is_behind and self._clock() < deadline:
            piece = self._tail.read()
            self.is_behind = bool(piece)
            for match in _FAILED.finditer(piece):
                with suppress(StatusFileError):  # a damaged line is for those to complain about who resume from it
                    failure = failure_in(match[0])
                    if failure is not None:
                        self.digest.add(failure)
        return (self.digest.failed, self.is_behind) != before
