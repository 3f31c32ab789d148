"""The way between two processes of this machine, which a test can break: connections that are reset, or go silent."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

CHUNK = 1 << 16
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close() send RST."""


class Way:
    """Listens on loopback, at `port`, and passes everything on between who comes there and `target`."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._blocked = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._awake, self._wake = socket.socketpair()
        self._selector.register(self._awake, selectors.EVENT_READ)
        self.connections = 0
        """How many there have been."""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._wake.send(b"x")
        self._thread.join()
        self.reset()
        for one in (self._listening, self._awake, self._wake):
            one.close()
        self._selector.close()

    def reset(self) -> None:
        """End all connections, as a firewall does that has forgotten them: both sides are told."""
        with self._lock:
            while self._pairs:
                self._drop(self._pairs[0])

    def block(self) -> None:
        """Pass nothing on any more; nobody is told."""
        self._blocked.set()

    def unblock(self) -> None:
        """Pass on again, also what has come meanwhile."""
        self._blocked.clear()
        self._wake.send(b"x")

    def _run(self) -> None:
        while not self._ended.is_set():
            ready = self._selector.select()
            if self._blocked.is_set():
                self._blocked_turn()
                continue
            with self._lock:
                for key, _ in ready:
                    if key.fileobj is self._listening:
                        self._accept()
                    elif key.fileobj is self._awake:
                        self._awake.recv(CHUNK)
                    elif key.data in self._pairs:
                        self._pass_on(key.fileobj, key.data)

    def _blocked_turn(self) -> None:
        """Wait for the end of the block: what comes meanwhile stays where it is."""
        self._awake.recv(CHUNK)

    def _accept(self) -> None:
        came = self._listening.accept()[0]
        try:
            pair = (came, socket.create_connection(self._target))
        except OSError:  # whoever was there has gone
            came.close()
            return
        self.connections += 1
        self._pairs.append(pair)
        for one in pair:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(one, selectors.EVENT_READ, pair)

    def _pass_on(self, one: object, pair: tuple[socket.socket, socket.socket]) -> None:
        assert isinstance(one, socket.socket)
        other = pair[1] if one is pair[0] else pair[0]
        try:
            data = one.recv(CHUNK)
            other.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(pair)

    def _drop(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pairs.remove(pair)
        for one in pair:
            self._selector.unregister(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            one.close()
