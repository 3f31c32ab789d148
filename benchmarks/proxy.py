"""A way between two processes of this machine that takes longer: for benchmarks of what distance costs.

It is for a few connections. (A delay of the network device itself, by `tc qdisc … netem`, needs root and a kernel that
has it, and would delay all others on loopback too.)
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Self

CHUNK = 1 << 16

AT_MOST = 0.2
"""Seconds between two looks at whether the end has come."""


class OnItsWay(NamedTuple):
    """What is to go on to a connection, and when; nothing is the end."""

    due: float
    to: socket.socket
    data: bytes


class DelayingProxy:
    """Listens on loopback, connects whoever comes with `target`, passes everything on `delay` / 2 seconds later.

    So a request and its reply take `delay` longer together. `port` is where it listens.
    """

    def __init__(self, target: tuple[str, int], delay: float) -> None:
        self._target = target
        self._delay = delay / 2
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        # epoll and poll wait whole milliseconds.
        self._selector = selectors.SelectSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._on_its_way: deque[OnItsWay] = deque()
        self._connections: list[socket.socket] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for connection in (self._listening, *self._connections):
            connection.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            due = self._on_its_way[0].due - time.perf_counter() if self._on_its_way else AT_MOST
            for key, _ in self._selector.select(max(0.0, due)):
                if key.data:
                    self._take(*key.data)
                else:
                    self._accept()
            while self._on_its_way and self._on_its_way[0].due <= time.perf_counter():
                self._pass_on(self._on_its_way.popleft())

    def _accept(self) -> None:
        pair = (self._listening.accept()[0], socket.create_connection(self._target))
        for connection, other in (pair, pair[::-1]):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(connection, selectors.EVENT_READ, (connection, other))
        self._connections += pair

    def _take(self, connection: socket.socket, other: socket.socket) -> None:
        try:
            data = connection.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(connection)
        self._on_its_way.append(OnItsWay(time.perf_counter() + self._delay, other, data))

    @staticmethod
    def _pass_on(item: OnItsWay) -> None:
        try:
            if item.data:
                item.to.sendall(item.data)
            else:
                item.to.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other side has gone: what was for it is lost
