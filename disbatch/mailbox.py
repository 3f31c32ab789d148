"""The mailbox of a context or an engine in the key-value store of its run.

A thin shell: it keeps one `get` open on its owner's key, hands over the messages that arrive, and sends messages to
the driver without ever blocking. It must not know what a message means.
"""

from __future__ import annotations

from disbatch import messages
from disbatch.connection import Connection
from disbatch.errors import MessageError
from disbatch.kvsstcp import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from disbatch.eventloop import EventLoop, Timer
    from disbatch.messages import Message, ToDriver

ASK_DELAY = 0.002
"""Seconds that asking for the next message may wait for a message that it can travel with."""


class Mailbox:
    """Sends to the driver, and calls `on_message` for each message put under `key`.

    `connected` has given its proof. `on_lost(reason)` is called once, when the connection has ended or something came
    over it that is no message; nothing is sent or handed over afterwards. A value may be several messages.
    """

    def __init__(
        self,
        loop: EventLoop,
        connected: socket.socket,
        key: bytes,
        driver_key: bytes,
        on_message: Callable[[Message], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._driver_key = driver_key
        self._on_message = on_message
        self._ask = wire.encode_get(key)
        self._ask_later: Timer | None = None
        self._connection = Connection(loop, connected, self._reply_came, on_lost)
        self._connection.send(self._ask)

    def send(self, message: ToDriver) -> None:
        """Send a message; what the connection does not take at once goes out as it can."""
        data = wire.encode_put(self._driver_key, messages.TAG, messages.encode(message))
        if self._ask_later is not None:
            self._ask_later.cancel()
            self._ask_later = None
            data += self._ask
        self._connection.send(data)

    @property
    def open(self) -> bool:
        """Whether the connection has not ended."""
        return self._connection.open

    @property
    def unsent(self) -> int:
        """Bytes that still wait to be sent."""
        return self._connection.unsent

    def _reply_came(self, tag: bytes, value: bytes) -> None:
        try:
            arrived = messages.decode_all(value, tag)
        except MessageError as error:
            self._connection.lose(str(error))
            return
        # Soon, and with the next message if there is one, be it the answer: the driver wakes up once instead of twice.
        if self._ask_later is None:
            self._ask_later = self._loop.after(ASK_DELAY, self._ask_again)
        for message in arrived:
            if self._connection.open:
                self._on_message(message)

    def _ask_again(self) -> None:
        self._ask_later = None
        self._connection.send(self._ask)

    def close(self) -> None:
        """End the connection; harmless when it has ended."""
        self._connection.close()
