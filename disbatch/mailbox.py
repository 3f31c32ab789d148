"""The one connection of a context or an engine to the key-value store of its run.

A thin shell: it keeps one `get` open on its owner's key, hands over the messages that arrive, and sends messages to
the driver without ever blocking. It must not know what a message means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from disbatch import messages
from disbatch.errors import MessageError
from disbatch.eventloop import READ, WRITE
from disbatch.kvsstcp import wire

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from disbatch.eventloop import EventLoop, Timer
    from disbatch.messages import Message, ToDriver

ASK_DELAY = 0.002
"""Seconds that asking for the next message may wait for a message that it can travel with."""

_CHUNK = 1 << 16


class Mailbox:
    """Sends to the driver, and calls `on_message` for each message put under `key`.

    `connection` is connected and has given its proof. `on_lost(reason)` is called once, when the connection has ended
    or something came over it that is no message; nothing is sent or handed over afterwards.
    """

    def __init__(
        self,
        loop: EventLoop,
        connection: socket.socket,
        key: bytes,
        driver_key: bytes,
        on_message: Callable[[Message], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._driver_key = driver_key
        self._on_message = on_message
        self._on_lost = on_lost
        self._ask = wire.encode_get(key)
        self._replies = wire.ReplyParser()
        self._unsent = bytearray()
        self._ask_later: Timer | None = None
        self.open = True
        connection.setblocking(False)
        loop.watch(connection.fileno(), READ, self._ready)
        self._send(self._ask)

    def send(self, message: ToDriver) -> None:
        """Send a message; what the connection does not take at once goes out as it can."""
        data = wire.encode_put(self._driver_key, messages.TAG, messages.encode(message))
        if self._ask_later is not None:
            self._ask_later.cancel()
            self._ask_later = None
            data += self._ask
        self._send(data)

    @property
    def unsent(self) -> int:
        """Bytes that still wait to be sent."""
        return len(self._unsent)

    def _send(self, data: bytes) -> None:
        if not self.open:
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The connection has ended, which makes it readable: that turn of the loop tells the owner, not this call.
            return
        if sent < len(data):
            self._unsent += data[sent:]
            self._loop.rewatch(self._connection.fileno(), READ | WRITE, self._ready)

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            self._send_rest()
        if mask & READ and self.open:
            self._receive()

    def _send_rest(self) -> None:
        try:
            sent = self._connection.send(self._unsent)
        except OSError:
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.rewatch(self._connection.fileno(), READ, self._ready)

    def _receive(self) -> None:
        try:
            data = self._connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(str(error))
            return
        if not data:
            self._lose("the connection was closed")
            return
        try:
            for tag, value in self._replies.feed(data):
                self._on_message(messages.decode(value, tag))
                if not self.open:
                    return
                # Soon, and with the next message if there is one: the driver wakes up once instead of twice.
                if self._ask_later is None:
                    self._ask_later = self._loop.after(ASK_DELAY, self._ask_again)
        except (MessageError, wire.ProtocolError) as error:
            self._lose(str(error))

    def _ask_again(self) -> None:
        self._ask_later = None
        self._send(self._ask)

    def _lose(self, reason: str) -> None:
        self.close()
        self._on_lost(reason)

    def close(self) -> None:
        """End the connection; harmless when it has ended."""
        if self.open:
            self.open = False
            self._loop.unwatch(self._connection.fileno())
            self._connection.close()
