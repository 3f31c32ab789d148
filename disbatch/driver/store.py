"""The key-value store that programs outside of the run share with it: the run's own, or one that runs already.

Both are spoken to in the same way. It must not know what is put or got.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

from disbatch.connection import Connection
from disbatch.kvsstcp import wire

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from disbatch.eventloop import EventLoop
    from disbatch.kvsstcp.server import Server

    Handler = Callable[[bytes], None]


class PublicStore(Protocol):
    """What the driver asks of either."""

    def put(self, key: bytes, tag: bytes, value: bytes) -> None:
        """Put a value."""

    def replace(self, key: bytes, tag: bytes, value: bytes) -> None:
        """Put a value in the place of the one that was there."""

    def get(self, key: bytes, handler: Handler) -> None:
        """Hand over the next value of `key` to `handler(value)`, once, whenever it is there; one request at a time."""

    @property
    def unsettled(self) -> bool:
        """Whether something that was put has not been sent, or its place not been made."""

    def close(self) -> None:
        """Ask and put nothing more."""


class OwnStore:
    """The store that this driver serves."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._came: dict[bytes, deque[bytes]] = {}
        self._waiting: tuple[bytes, Handler] | None = None
        self._handing_over = False

    def put(self, key: bytes, tag: bytes, value: bytes) -> None:
        """See `PublicStore`."""
        self._server.put(key, tag, value)

    def replace(self, key: bytes, tag: bytes, value: bytes) -> None:
        """See `PublicStore`."""
        self._server.replace(key, tag, value)

    def get(self, key: bytes, handler: Handler) -> None:
        """See `PublicStore`."""
        self._waiting = (key, handler)
        if key not in self._came:
            self._came[key] = deque()
            self._server.listen(key, partial(self._value_came, key))
        self._hand_over()

    @property
    def unsettled(self) -> bool:
        """See `PublicStore`."""
        return False

    def close(self) -> None:
        """See `PublicStore`."""
        self._waiting = None

    def _value_came(self, key: bytes, _tag: bytes, value: bytes, _peer: int | None) -> None:
        self._came[key].append(value)
        self._hand_over()

    def _hand_over(self) -> None:
        if self._handing_over:
            return  # a handler that asks for the next value is answered when it has returned: nothing recurses
        self._handing_over = True
        try:
            while self._waiting is not None and self._came[self._waiting[0]]:
                key, handler = self._waiting
                self._waiting = None
                handler(self._came[key].popleft())
        finally:
            self._handing_over = False


class OtherStore:
    """A store that somebody else serves; `on_lost(reason)` is called when it has ended, or cannot be understood.

    `replacing` is a second connection to it: on the first one a request is open nearly always, and a server keeps only
    one for each.
    """

    def __init__(
        self, loop: EventLoop, connected: socket.socket, replacing: socket.socket, on_lost: Callable[[str], None]
    ) -> None:
        self._waiting: Handler | None = None
        self._on_lost = on_lost
        self._connection = Connection(loop, connected, self._value_came, self._lost)
        self._replacing = Connection(loop, replacing, self._value_taken, self._lost)
        self._newest = (b"", b"", b"")
        """Key, tag and value that were put in another's place last."""
        self._there = 1
        """How many values there are under that key as far as is known here; another run may have left one."""
        self._taking = False

    def put(self, key: bytes, tag: bytes, value: bytes) -> None:
        """See `PublicStore`."""
        self._connection.send(wire.encode_put(key, tag, value))

    def replace(self, key: bytes, tag: bytes, value: bytes) -> None:
        """See `PublicStore`; always of the same key. A store that is slow does not get every value."""
        if self._replacing.unsent or not self._replacing.open:
            return
        self._newest = (key, tag, value)
        self._put_newest()
        self._take_old_away()

    def _put_newest(self) -> None:
        self._replacing.send(wire.encode_put(*self._newest))
        self._there += 1

    def _take_old_away(self) -> None:
        # What another client has taken meanwhile is not there to be had: the next value ends that wait.
        if self._there > 1 and not self._taking:
            self._taking = True
            self._replacing.send(wire.encode_get(self._newest[0]))

    def _value_taken(self, tag: bytes, value: bytes) -> None:
        self._taking = False
        self._there -= 1
        if (tag, value) == self._newest[1:]:
            self._there = 0  # nothing was before it
            self._put_newest()
        self._take_old_away()

    def get(self, key: bytes, handler: Handler) -> None:
        """See `PublicStore`."""
        self._waiting = handler
        self._connection.send(wire.encode_get(key))

    @property
    def unsettled(self) -> bool:
        """See `PublicStore`."""
        return bool(self._connection.unsent or self._replacing.unsent) or self._taking

    def close(self) -> None:
        """See `PublicStore`."""
        self._connection.close()
        self._replacing.close()
        self._taking = False

    def _lost(self, reason: str) -> None:
        self.close()
        self._on_lost(reason)

    def _value_came(self, _tag: bytes, value: bytes) -> None:
        handler, self._waiting = self._waiting, None
        if handler is not None:
            handler(value)
