"""What is kept of a task's output: its length, its beginning and its end.

Pure, and of constant size: a task that prints for hours costs an engine no more memory than one that prints a word.
"""

from __future__ import annotations

KEPT = 40
"""Bytes kept of the beginning, and of the end of what came after it; the status file documents this figure."""

_GAP = b"..."


class OutputMeter:
    """Counts the bytes of one stream of output and keeps its head and tail."""

    __slots__ = ("_head", "_tail", "count")

    def __init__(self) -> None:
        self.count = 0
        self._head = b""
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self.count += len(data)
        missing = KEPT - len(self._head)
        if missing > 0:
            self._head += data[:missing]
            data = data[missing:]
        if data:
            self._tail = data[-KEPT:] if len(data) >= KEPT else (self._tail + data)[-KEPT:]

    @property
    def snippet(self) -> bytes:
        """The first bytes, and where there were more: three dots and the last ones."""
        return self._head + _GAP + self._tail if self._tail else self._head
