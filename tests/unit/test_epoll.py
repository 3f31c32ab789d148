"""The selector keeps what `selectors` promises: each test runs with Python's own beside it."""

from __future__ import annotations

import os
import selectors
import socket
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING

import pytest

from disbatch.epoll import Epoll

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=[Epoll, selectors.DefaultSelector])
def selector(request: pytest.FixtureRequest) -> Iterator[selectors.BaseSelector]:
    with request.param() as made:
        yield made


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def happened(selector: selectors.BaseSelector) -> list[tuple[object, int]]:
    return [(key.data, mask) for key, mask in selector.select(0)]


def test_what_is_ready_is_told_with_what_was_registered(
    selector: selectors.BaseSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    key = selector.register(one, EVENT_READ, "one")
    assert (key.fileobj, key.fd, key.events, key.data) == (one, one.fileno(), EVENT_READ, "one")
    assert selector.select(0) == []
    other.send(b"x")
    assert selector.select() == [(key, EVENT_READ)]
    selector.register(other.fileno(), EVENT_READ | EVENT_WRITE, "other")
    assert sorted(happened(selector)) == [("one", EVENT_READ), ("other", EVENT_WRITE)]


def test_only_what_was_asked_for_is_told(
    selector: selectors.BaseSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    other.send(b"x")
    selector.register(one, EVENT_WRITE, "writes")
    assert happened(selector) == [("writes", EVENT_WRITE)]
    selector.modify(one, EVENT_READ, "reads")
    assert happened(selector) == [("reads", EVENT_READ)]
    key = selector.modify(one, EVENT_READ, "another reader")
    assert happened(selector) == [("another reader", EVENT_READ)]
    assert selector.get_map()[one.fileno()] is key


def test_an_end_is_something_to_read(
    selector: selectors.BaseSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    selector.register(one, EVENT_READ, "one")
    other.close()
    assert happened(selector) == [("one", EVENT_READ)]
    reading, writing = os.pipe()
    selector.register(reading, EVENT_READ, "pipe")
    os.close(writing)
    assert ("pipe", EVENT_READ) in happened(selector)
    selector.unregister(reading)
    os.close(reading)


def test_what_is_unregistered_is_told_of_no_more(
    selector: selectors.BaseSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    one, other = pair
    key = selector.register(one, EVENT_READ, "one")
    other.send(b"x")
    assert selector.unregister(one) == key
    assert selector.select(0) == []
    assert not selector.get_map()
    with pytest.raises(KeyError):
        selector.unregister(one)
    with pytest.raises(KeyError):
        selector.modify(one, EVENT_READ)


def test_what_has_been_closed_can_still_be_unregistered(selector: selectors.BaseSelector) -> None:
    reading, writing = os.pipe()
    selector.register(reading, EVENT_READ)
    os.close(reading)
    os.close(writing)
    selector.unregister(reading)
    assert not selector.get_map()


def test_nothing_is_registered_twice(
    selector: selectors.BaseSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    selector.register(pair[0], EVENT_READ)
    with pytest.raises(KeyError, match="registered"):
        selector.register(pair[0], EVENT_WRITE)


def test_a_time_that_is_over_is_no_time_to_wait(selector: selectors.BaseSelector) -> None:
    assert selector.select(-1.0) == []


def test_more_can_be_ready_than_are_told_at_once(selector: selectors.BaseSelector) -> None:
    pairs = [socket.socketpair() for _ in range(300)]
    for number, (one, other) in enumerate(pairs):
        selector.register(one, EVENT_READ, number)
        other.send(b"x")
    told: set[int] = set()
    while len(told) < len(pairs):
        for key, _ in selector.select(0):
            key.fileobj.recv(1)  # type: ignore[union-attr] # it is a socket
            told.add(key.data)
    assert selector.select(0) == []
    for one, other in pairs:
        one.close()
        other.close()
