"""Following a file to which lines are appended.

It must not know what the lines say. A line counts when it has ended; one that is longer than any line has to be is
left out, so that no file takes more memory than a few of its pieces.
"""

from __future__ import annotations

import os

PIECE = 1 << 20
"""Bytes that are read at once, and those that a line may have."""


class Tail:
    """Reads the file at `path` from its beginning, as far as it is there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._at = 0
        self._is_within = False
        """Whether the line that goes on at this place is one that is left out."""

    def read(self) -> bytes:
        """Next whole lines, at most a piece of them; nothing when there are no more yet, or the file cannot be read."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return self._next_of(descriptor)
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    def _next_of(self, descriptor: int) -> bytes:
        while piece := os.pread(descriptor, PIECE, self._at):
            end = piece.rfind(b"\n") + 1
            begin = 0
            if self._is_within:
                begin = piece.find(b"\n") + 1
                self._at += begin or len(piece)
                self._is_within = not begin
            elif not end:
                if len(piece) < PIECE:
                    break
                self._at += len(piece)
                self._is_within = True
            if end > begin:
                self._at += end - begin
                return piece[begin:end]
        return b""
