"""One end of the conversation between the driver and a member of the run, which may go over several connections.

Pure. What was sent is kept until the other end has said that it has come, and counted on both sides: a new connection
goes on where the one before it broke, with nothing lost and nothing said twice. It must not know what is said.
"""

from __future__ import annotations

from collections import deque

from disbatch.errors import MessageError

ACKNOWLEDGE_AFTER = 8
"""Messages that may have come before the other end is told so; it keeps that many in memory, and those under way."""


class Line:
    """Counts what was sent over it and what has come, and keeps what may have to be sent again."""

    def __init__(self) -> None:
        self._kept: deque[bytes] = deque()
        self._sent = 0
        self.received = 0
        """How many messages have come."""
        self._acknowledged = 0

    def sends(self, message: bytes) -> None:
        """Keep a message that is being sent, or will be when there is a connection again."""
        self._kept.append(message)
        self._sent += 1

    def took(self) -> bool:
        """Count a message that has come; whether it is time to tell the other end how many have."""
        self.received += 1
        return self.received - self._acknowledged >= ACKNOWLEDGE_AFTER

    def tell_received(self) -> int:
        """How many messages have come, for the other end to be told."""
        self._acknowledged = self.received
        return self.received

    def settle(self, received: int) -> None:
        """Keep no longer what has come at the other end; raises `MessageError` for a number that cannot be."""
        unsettled = self._sent - received
        if not 0 <= unsettled <= len(self._kept):
            raise MessageError(f"{received} messages are said to have come, of {self._sent} that were sent")
        for _ in range(len(self._kept) - unsettled):
            self._kept.popleft()

    @property
    def unsettled(self) -> tuple[bytes, ...]:
        """What may not have come at the other end, in the order in which it was sent."""
        return tuple(self._kept)
