"""A client's connection, over a pair of sockets of which the test has the other end; `test_mailbox` has more of it."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from disbatch.connection import Connection
from disbatch.eventloop import EventLoop
from disbatch.kvsstcp.wire import encode_reply

if TYPE_CHECKING:
    from collections.abc import Iterator

MUCH = 3_000_000


class Bench:
    def __init__(self) -> None:
        self.loop = EventLoop()
        ours, self.server = socket.socketpair()
        self.got: list[tuple[bytes, bytes]] = []
        self.lost: list[str] = []
        self.connection = Connection(
            self.loop, ours, lambda tag, value: self.got.append((tag, value)), self.lost.append
        )

    def turn(self) -> None:
        self.loop.turn(0)

    def read_from(self, size: int) -> bytes:
        """Read so much at the server's end, the connection sending meanwhile."""
        data = b""
        while len(data) < size:
            self.turn()
            data += self.server.recv(size - len(data))
        return data


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.connection.close()
    made.loop.close()
    made.server.close()


def test_requests_arrive_in_their_order_without_holding_anybody_up(bench: Bench) -> None:
    bench.connection.send(b"first ")
    bench.connection.send(b"x" * MUCH)
    bench.connection.send(b" last")
    assert bench.connection.unsent > 0
    assert bench.read_from(MUCH + 11) == b"first " + b"x" * MUCH + b" last"
    assert bench.connection.unsent == 0


def test_nothing_waits_to_be_sent_over_a_connection_that_has_ended(bench: Bench) -> None:
    bench.connection.send(b"x" * MUCH)
    bench.server.close()
    while bench.connection.open:
        bench.turn()
    assert bench.connection.unsent == 0


def test_replies_are_handed_over_in_their_order_however_they_are_cut(bench: Bench) -> None:
    data = b"".join(encode_reply(b"ASTR", b"%d" % number) for number in range(5))
    for part in (data[:7], data[7:8], data[8:]):
        bench.server.sendall(part)
        bench.turn()
    assert bench.got == [(b"ASTR", b"%d" % number) for number in range(5)]


def test_an_end_is_told_once_behind_what_came_before_it(bench: Bench) -> None:
    bench.server.sendall(encode_reply(b"ASTR", b"value"))
    bench.server.close()
    bench.turn()
    bench.turn()
    assert bench.got == [(b"ASTR", b"value")]
    assert bench.lost == ["the connection was closed"]
    bench.connection.send(b"nobody hears it")
    bench.connection.close()
    assert bench.lost == ["the connection was closed"]


def test_what_is_no_reply_ends_it(bench: Bench) -> None:
    bench.server.sendall(b"ASTR" + b"x" * 10)
    bench.turn()
    assert len(bench.lost) == 1
    assert not bench.connection.open


def test_the_reason_of_a_loss_is_one_for_people(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def __init__(self, connected: socket.socket) -> None:
            self.fileno, self.close = connected.fileno, connected.close

        def recv(self, _size: int) -> bytes:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    monkeypatch.setattr(bench.connection, "_connected", Silent(bench.connection._connected))
    bench.server.sendall(b"x")
    bench.turn()
    assert bench.lost == ["Connection timed out"]


def test_after_a_close_nothing_is_handed_over_or_told(bench: Bench) -> None:
    bench.server.sendall(encode_reply(b"ASTR", b"value"))
    bench.connection.close()
    bench.turn()
    assert (bench.got, bench.lost) == ([], [])
