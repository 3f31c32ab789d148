"""Between an engine and the processes of its cylinders: a socket of this machine's on which each message is a packet.

The name of the socket is an abstract one (unix(7)): no file system knows it, which the nodes of a cluster may share,
and it is gone with the engine. It must not know what a message means.
"""

from __future__ import annotations

import hmac
import os
import socket
import struct
from collections import deque

from disbatch import messages
from disbatch.errors import MessageError
from disbatch.eventloop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from disbatch.eventloop import EventLoop
    from disbatch.messages import FromRank, Message, ToRank

LIMIT = 1 << 19
"""Bytes that no packet exceeds. Where the system grants smaller buffers (net.core.wmem_max) less fits into one."""

BACKLOG = 4096
"""Connections that may wait for an engine that is not admitted yet."""

_CREDENTIALS = struct.Struct("3i")  # pid, uid and gid, as SO_PEERCRED gives them
_PACKET_OVERHEAD = 32  # what Linux keeps back of a send buffer
_buffer = memoryview(bytearray(LIMIT))


def address(run: str, rank: int, secret: str) -> bytes:
    """Name of an engine's socket: one for each engine of each run, and known to nobody without the run's secret."""
    engine = f"engine {rank} of {run}".encode(errors="surrogateescape")
    return b"\0disbatch " + hmac.digest(secret.encode(), engine, "sha256").hex().encode()


def listen(name: bytes) -> socket.socket:
    """Socket to which others on this machine can connect; raises OSError when the name is taken."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(name)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def accept(listener: socket.socket) -> socket.socket | None:
    """Next connection, None where that has gone already or is another user's."""
    try:
        connected = listener.accept()[0]
    except OSError:
        return None
    return _ours(connected)


def connect(name: bytes) -> socket.socket | None:
    """Connection to the one who listens, None where nobody of this user's does yet."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connected.setblocking(False)
    try:
        connected.connect(name)
    except OSError:
        connected.close()
        return None
    return _ours(connected)


def _ours(connected: socket.socket) -> socket.socket | None:
    if _peer(connected)[1] == os.geteuid():
        return connected
    connected.close()
    return None


def _peer(connected: socket.socket) -> tuple[int, int, int]:
    """Pid, effective user and group of the process at the other end when it connected, or began to listen."""
    pid, user, group = _CREDENTIALS.unpack(
        connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return pid, user, group


class Link:
    """Calls `on_message` for each message that comes over a connection, in their order.

    `on_lost(reason)` is called once, when the connection has ended or something came over it that is no message;
    nothing is sent or handed over afterwards.
    """

    def __init__(
        self,
        loop: EventLoop,
        connected: socket.socket,
        on_message: Callable[[Message], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._connected = connected
        self._on_message = on_message
        self._on_lost = on_lost
        self._waiting: deque[bytes] = deque()
        self.open = True
        self.peer = _peer(connected)[0]
        """Pid of the process at the other end."""
        connected.setblocking(False)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LIMIT // 2)  # Linux doubles it
        granted = connected.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._limit = min(LIMIT, granted - _PACKET_OVERHEAD)
        loop.watch(connected.fileno(), READ, self._ready)

    @property
    def unsent(self) -> int:
        """Packets that still wait to be sent."""
        return len(self._waiting)

    def send(self, message: FromRank | ToRank) -> bool:
        """Send a message, at once or as soon as there is room; whether it fits into a packet at all."""
        data = messages.encode(message)
        if len(data) > self._limit:
            return False
        if self.open and (self._waiting or not self._sent(data)):
            if not self._waiting:
                self._loop.rewatch(self._connected.fileno(), READ | WRITE, self._ready)
            self._waiting.append(data)
        return True

    def _sent(self, data: bytes) -> bool:
        """Whether a packet needs no further care; one to somebody who has gone does not."""
        try:
            self._connected.send(data)
        except BlockingIOError:
            return False
        except OSError:
            # The connection has ended, which makes it readable: that turn of the loop tells the owner, not this call.
            return True
        return True

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            while self._waiting and self._sent(self._waiting[0]):
                self._waiting.popleft()
            if not self._waiting:
                self._loop.rewatch(self._connected.fileno(), READ, self._ready)
        if mask & READ:
            self._receive()

    def _receive(self) -> None:
        try:
            length = self._connected.recv_into(_buffer)
        except (BlockingIOError, ConnectionResetError):
            # The other end has left without having read all; what it had said before that is still to come.
            return
        if not length:
            self.close()
            self._on_lost("the connection was closed")
            return
        try:
            message = messages.decode(bytes(_buffer[:length]))
        except MessageError as error:
            self.close()
            self._on_lost(str(error))
            return
        self._on_message(message)

    def close(self) -> None:
        """End the connection; harmless when it has ended."""
        if self.open:
            self.open = False
            self._waiting.clear()
            self._loop.unwatch(self._connected.fileno())
            self._connected.close()
