"""A client's connection to a key-value store, in a loop: it sends without ever blocking, and hands over what comes.

It must not know what is asked for or what it means.
"""

from __future__ import annotations

from disbatch.eventloop import READ, WRITE
from disbatch.kvsstcp import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from disbatch.eventloop import EventLoop

_CHUNK = 1 << 16


class Connection:
    """Calls `on_reply(tag, value)` for each reply, in the order in which the store gives them.

    `connected` has given its proof. `on_lost(reason)` is called once, when the connection has ended or something came
    over it that is no reply; nothing is sent or handed over afterwards.
    """

    def __init__(
        self,
        loop: EventLoop,
        connected: socket.socket,
        on_reply: Callable[[bytes, bytes], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._connected = connected
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._replies = wire.ReplyParser()
        self._unsent = bytearray()
        self.open = True
        connected.setblocking(False)
        loop.watch(connected.fileno(), READ, self._ready)

    @property
    def unsent(self) -> int:
        """Bytes that still wait to be sent."""
        return len(self._unsent)

    def send(self, data: bytes) -> None:
        """Send requests; what the connection does not take at once goes out as it can."""
        if not self.open:
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._connected.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The connection has ended, which makes it readable: that turn of the loop tells the owner, not this call.
            return
        if sent < len(data):
            self._unsent += data[sent:]
            self._loop.rewatch(self._connected.fileno(), READ | WRITE, self._ready)

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            self._send_rest()
        if mask & READ and self.open:
            self._receive()

    def _send_rest(self) -> None:
        try:
            sent = self._connected.send(self._unsent)
        except OSError:
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.rewatch(self._connected.fileno(), READ, self._ready)

    def _receive(self) -> None:
        try:
            data = self._connected.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self.lose(error.strerror or str(error))
            return
        if not data:
            self.lose("the connection was closed")
            return
        try:
            for tag, value in self._replies.feed(data):
                self._on_reply(tag, value)
                if not self.open:
                    return
        except wire.ProtocolError as error:
            self.lose(str(error))

    def lose(self, reason: str) -> None:
        """End the connection, because of something that came over it or did not."""
        self.close()
        self._on_lost(reason)

    def close(self) -> None:
        """End the connection; harmless when it has ended."""
        if self.open:
            self.open = False
            self._unsent.clear()
            self._loop.unwatch(self._connected.fileno())
            self._connected.close()
