from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING, cast

import pytest

from disbatch.driver.store import OtherStore, OwnStore
from disbatch.eventloop import EventLoop
from disbatch.kvsstcp.wire import ASTR, Get, Limits, Put, Request, RequestParser, encode_reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disbatch.kvsstcp.server import Handler, Server

MANY = 5000
"""More than calls may be nested."""


class Served:
    """Stands for the server of the run: hands what is put to who listens, otherwise keeps it."""

    def __init__(self) -> None:
        self.kept: dict[bytes, deque[tuple[bytes, bytes]]] = {}
        self.listeners: dict[bytes, Handler] = {}

    def replace(self, key: bytes, tag: bytes, value: bytes) -> None:
        self.kept[key] = deque([(tag, value)])

    def put(self, key: bytes, tag: bytes, value: bytes, peer: int | None = None) -> None:
        if key in self.listeners:
            self.listeners[key](tag, value, peer)
        else:
            self.kept.setdefault(key, deque()).append((tag, value))

    def listen(self, key: bytes, handler: Handler) -> None:
        assert key not in self.listeners, "two listeners would share the values"
        self.listeners[key] = handler
        for tag, value in self.kept.pop(key, ()):
            handler(tag, value, None)


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture
def own(served: Served) -> OwnStore:
    return OwnStore(cast("Server", served))


# The run's own


def test_what_is_put_is_in_the_runs_own_store(served: Served, own: OwnStore) -> None:
    own.put(b"key", b"JSON", b"{}")
    assert served.kept == {b"key": deque([(b"JSON", b"{}")])}
    assert not own.unsettled


def test_a_value_replaces_another_in_the_runs_own_store(served: Served, own: OwnStore) -> None:
    own.put(b"key", ASTR, b"old")
    own.replace(b"key", b"JSON", b"{}")
    assert served.kept == {b"key": deque([(b"JSON", b"{}")])}


@pytest.mark.parametrize("comes_first", ["value", "request"])
def test_a_value_and_a_request_meet_whichever_comes_first(served: Served, own: OwnStore, comes_first: str) -> None:
    got: list[bytes] = []
    if comes_first == "value":
        served.put(b"key", ASTR, b"value")
        own.get(b"key", got.append)
    else:
        own.get(b"key", got.append)
        assert not got
        served.put(b"key", ASTR, b"value")
    assert got == [b"value"]


def test_one_request_gets_one_value_and_the_others_wait_in_their_order(served: Served, own: OwnStore) -> None:
    got: list[bytes] = []
    for number in range(3):
        served.put(b"key", ASTR, b"%d" % number)
    own.get(b"key", got.append)
    served.put(b"key", ASTR, b"3")
    assert got == [b"0"]
    for _ in range(3):
        own.get(b"key", got.append)
    assert got == [b"0", b"1", b"2", b"3"]


def test_a_value_of_another_key_is_no_answer(served: Served, own: OwnStore) -> None:
    got: list[bytes] = []
    own.get(b"first", got.append)
    served.put(b"first", ASTR, b"of the first")
    own.get(b"second", got.append)
    served.put(b"first", ASTR, b"another")
    assert got == [b"of the first"]
    served.put(b"second", ASTR, b"of the second")
    own.get(b"first", got.append)
    assert got == [b"of the first", b"of the second", b"another"]


@pytest.mark.parametrize("asked_before", [True, False])
def test_any_number_of_values_can_be_got_each_when_the_one_before_has_come(
    served: Served, own: OwnStore, *, asked_before: bool
) -> None:
    got: list[bytes] = []

    def take(value: bytes) -> None:
        got.append(value)
        own.get(b"key", take)

    if asked_before:
        own.get(b"key", got.append)
        served.put(b"key", ASTR, b"the first")
    for number in range(MANY):
        served.put(b"key", ASTR, b"%d" % number)
    own.get(b"key", take)
    assert got[-MANY:] == [b"%d" % number for number in range(MANY)]


def test_a_handler_that_fails_does_not_stop_the_next(served: Served, own: OwnStore) -> None:
    def fail(_value: bytes) -> None:
        raise RuntimeError

    got: list[bytes] = []
    served.put(b"key", ASTR, b"bad")
    with pytest.raises(RuntimeError):
        own.get(b"key", fail)
    own.get(b"key", got.append)
    served.put(b"key", ASTR, b"good")
    assert got == [b"good"]


def test_after_the_end_nobody_is_told_of_values(served: Served, own: OwnStore) -> None:
    got: list[bytes] = []
    own.get(b"key", got.append)
    own.close()
    served.put(b"key", ASTR, b"late")
    assert not got


# Somebody else's


class Bench:
    """A store that somebody else serves, over a pair of sockets of which the test has the other end."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        ours, self.server = socket.socketpair()
        self.server.setblocking(False)
        self.parser = RequestParser(Limits())
        self.lost: list[str] = []
        self.got: list[bytes] = []
        replacing, self.second = socket.socketpair()
        self.second.setblocking(False)
        self.second_parser = RequestParser(Limits())
        self.store = OtherStore(self.loop, ours, replacing, self.lost.append)

    def requests(self) -> list[Request]:
        return self._requests(self.server, self.parser)

    def replacing_requests(self) -> list[Request]:
        return self._requests(self.second, self.second_parser)

    def _requests(self, server: socket.socket, parser: RequestParser) -> list[Request]:
        try:
            data = server.recv(1 << 16)
        except BlockingIOError:
            return []
        return list(parser.feed(data))

    def reply(self, value: bytes) -> None:
        self.server.sendall(encode_reply(ASTR, value))
        self.loop.turn(0)

    def gives_back(self, value: bytes) -> None:
        self.second.sendall(encode_reply(ASTR, value))
        self.loop.turn(0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.store.close()
    made.server.close()
    made.second.close()
    made.loop.close()


def test_another_store_is_sent_what_is_put_and_asked_for(bench: Bench) -> None:
    bench.store.put(b"key", b"JSON", b"{}")
    bench.store.get(b"other", bench.got.append)
    put, get = bench.requests()
    assert isinstance(put, Put)
    assert (put.key, put.tag, bytes(put.value)) == (b"key", b"JSON", b"{}")
    assert get == Get(b"other")
    assert not bench.got


def test_another_store_is_asked_for_one_value_at_a_time(bench: Bench) -> None:
    bench.store.get(b"key", bench.got.append)
    bench.reply(b"first")
    assert bench.got == [b"first"]
    assert bench.requests() == [Get(b"key")]
    bench.store.get(b"key", bench.got.append)
    bench.reply(b"second")
    assert bench.got == [b"first", b"second"]
    assert bench.requests() == [Get(b"key")]


def test_a_handler_may_ask_for_the_next_value(bench: Bench) -> None:
    def take(value: bytes) -> None:
        bench.got.append(value)
        bench.store.get(b"key", take)

    bench.store.get(b"key", take)
    bench.reply(b"first")
    bench.reply(b"second")
    assert bench.got == [b"first", b"second"]
    assert len(bench.requests()) == 3


def test_a_reply_that_nobody_has_asked_for_does_no_harm(bench: Bench) -> None:
    bench.reply(b"unasked")
    bench.store.get(b"key", bench.got.append)
    bench.reply(b"asked")
    assert bench.got == [b"asked"]
    assert not bench.lost


def put_of(value: bytes) -> Put:
    return Put(b"key", ASTR, value)


def test_a_value_replaces_the_one_that_was_there(bench: Bench) -> None:
    bench.store.replace(b"key", ASTR, b"new")
    assert bench.replacing_requests() == [put_of(b"new"), Get(b"key")]
    bench.gives_back(b"old")
    assert bench.replacing_requests() == []
    bench.store.replace(b"key", ASTR, b"newer")
    assert bench.replacing_requests() == [put_of(b"newer"), Get(b"key")]


def test_a_value_that_replaces_none_is_put_again(bench: Bench) -> None:
    bench.store.replace(b"key", ASTR, b"new")
    bench.replacing_requests()
    bench.gives_back(b"new")
    assert bench.replacing_requests() == [put_of(b"new")]


def test_a_slow_store_is_left_with_the_newest_value_alone(bench: Bench) -> None:
    for number in range(3):
        bench.store.replace(b"key", ASTR, b"%d" % number)
    assert bench.replacing_requests() == [put_of(b"0"), Get(b"key"), put_of(b"1"), put_of(b"2")]
    bench.gives_back(b"old")
    assert bench.replacing_requests() == [Get(b"key")]
    bench.gives_back(b"0")
    assert bench.replacing_requests() == [Get(b"key")]
    bench.gives_back(b"1")
    assert bench.replacing_requests() == []


def test_a_store_that_takes_nothing_is_sent_no_more(bench: Bench) -> None:
    for _ in range(3):
        bench.store.replace(b"key", ASTR, b"x" * 3_000_000)
    received = b""
    while bench.store.unsettled and len(received) < 10_000_000:
        bench.loop.turn(0)
        try:
            received += bench.second.recv(1 << 20)
        except BlockingIOError:
            break
    assert received.count(b"put_") == 1


def test_a_value_that_another_client_takes_away_does_not_stop_the_next_ones(bench: Bench) -> None:
    bench.store.replace(b"key", ASTR, b"new")
    bench.gives_back(b"old")
    bench.replacing_requests()
    bench.store.replace(b"key", ASTR, b"newer")
    assert bench.replacing_requests() == [put_of(b"newer"), Get(b"key")]
    # Another client has got both of them; the request stays open.
    bench.store.replace(b"key", ASTR, b"newest")
    assert bench.replacing_requests() == [put_of(b"newest")]
    bench.gives_back(b"newest")
    assert bench.replacing_requests() == [put_of(b"newest")]


def test_a_store_that_is_lost_has_nothing_unsettled(bench: Bench) -> None:
    bench.store.replace(b"key", ASTR, b"new")
    bench.second.close()
    bench.loop.turn(0)
    bench.store.replace(b"key", ASTR, b"newer")
    assert not bench.store.unsettled


def test_replacing_does_not_disturb_a_request_that_waits(bench: Bench) -> None:
    bench.store.get(b"tasks", bench.got.append)
    bench.store.replace(b"key", ASTR, b"new")
    assert bench.requests() == [Get(b"tasks")]
    bench.gives_back(b"old")
    assert not bench.got
    bench.reply(b"task")
    assert bench.got == [b"task"]


def test_another_store_is_lost_once_whichever_connection_tells(bench: Bench) -> None:
    bench.second.close()
    bench.loop.turn(0)
    bench.server.close()
    bench.loop.turn(0)
    assert len(bench.lost) == 1


@pytest.mark.parametrize("mishap", ["end", "nonsense"])
def test_another_store_that_is_lost_is_told_of_once(bench: Bench, mishap: str) -> None:
    bench.store.get(b"key", bench.got.append)
    if mishap == "end":
        bench.server.close()
    else:
        bench.server.sendall(b"ASTR" + b"x" * 10)
    bench.loop.turn(0)
    bench.store.put(b"key", ASTR, b"nobody gets it")
    bench.store.get(b"key", bench.got.append)
    bench.loop.turn(0)
    assert len(bench.lost) == 1
    assert not bench.got


def test_what_another_store_has_not_read_is_unsettled_until_it_is_given_up(bench: Bench) -> None:
    seen = [bench.store.unsettled]
    bench.store.put(b"key", ASTR, b"x" * 3_000_000)
    seen.append(bench.store.unsettled)
    bench.store.close()
    assert [*seen, bench.store.unsettled] == [False, True, False]


def test_a_replacement_is_unsettled_until_the_old_value_is_gone(bench: Bench) -> None:
    bench.store.replace(b"key", ASTR, b"new")
    seen = [bench.store.unsettled]
    bench.gives_back(b"old")
    assert [*seen, bench.store.unsettled] == [True, False]


def test_after_the_end_another_store_tells_nothing(bench: Bench) -> None:
    bench.store.get(b"key", bench.got.append)
    bench.store.close()
    bench.server.close()
    bench.loop.turn(0)
    assert not bench.lost
    assert not bench.got
