from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from disbatch import joining, messages
from disbatch.errors import DriverUnreachableError
from disbatch.kvsstcp.client import KVSError
from disbatch.kvsstcp.wire import ASTR, JSON
from disbatch.records import replace
from disbatch.values import Address
from disbatch.watch.observer import ANSWER_PATIENCE, LastWord, Observer
from disbatch.watch.state import ENDED
from tests.unit.watch.examples import engine, posted, run

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE = 20.0
RUN = run(engine(0))


class Client:
    """Stands for the client of a store."""

    def __init__(self) -> None:
        self.values = {messages.STATE_KEY: (JSON, json.dumps(posted(RUN)).encode())}
        self.done: list[object] = []
        self.failure: Exception | None = None

    def view(self, key: bytes, encoding: object, timeout: float | None = None) -> tuple[bytes, bytes]:
        assert (encoding, timeout) == (None, None if key == messages.END_KEY else ANSWER_PATIENCE)
        self.done.append(key)
        if self.failure is not None:
            raise self.failure
        return self.values[key]

    def put(self, *what: object) -> None:
        if self.failure is not None:
            raise self.failure
        self.done.append(what)

    def close(self) -> None:
        self.done.append("close")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client()
    monkeypatch.setattr(joining, "client", lambda _kvs, _patience, _secret: made)
    return made


@pytest.fixture
def observer(client: Client) -> Observer:  # noqa: ARG001 - it is what it connects with
    return Observer(Address("h", 1))


def test_the_state_is_what_was_posted_last(observer: Observer, client: Client) -> None:
    state = observer.state()
    assert state is not None
    assert state.job == RUN.job
    client.values[messages.STATE_KEY] = (ASTR, b"<Starting...>")
    assert observer.state() is None


def test_what_runs_is_asked_of_all_or_of_one(observer: Observer, client: Client) -> None:
    nothing = (JSON, b'{"tasks": [], "more": 7}')
    client.values |= {messages.RUNNING_KEYS: nothing, messages.RUNNING_KEYS + b" 3": nothing}
    assert observer.running() == ((), 7)
    assert observer.running(3) == ((), 7)


def test_an_order_has_arrived_when_the_driver_answers_what_is_asked_after_it(
    observer: Observer, client: Client
) -> None:
    order = messages.StopEngine(3, now=True)
    observer.order("Tasks_1", order)
    assert client.done == [
        (messages.orders_key("Tasks_1"), messages.encode(order), messages.TAG),
        messages.STATE_KEY,
    ]


@pytest.mark.parametrize("failure", [KVSError("gone"), TimeoutError("no answer"), BrokenPipeError("gone")])
@pytest.mark.parametrize(
    "call",
    [Observer.state, Observer.running, lambda observer: observer.order("j", messages.StopContext(0, now=False))],
)
def test_a_driver_that_has_gone_is_told_of_as_such(
    observer: Observer, client: Client, failure: Exception, call: Callable[[Observer], object]
) -> None:
    client.failure = failure
    with pytest.raises(DriverUnreachableError, match="lost the driver"):
        call(observer)


def test_the_last_word_is_the_state_in_which_the_run_ends(client: Client) -> None:
    client.values[messages.END_KEY] = (JSON, json.dumps(posted(replace(RUN, phase=ENDED))).encode())
    state = LastWord(lambda: Observer(Address("h", 1))).get(DEADLINE)
    assert state is not None
    assert state.phase == ENDED
    assert client.done[-1] == "close"


def test_a_driver_that_goes_without_a_word_leaves_none(client: Client) -> None:
    client.failure = KVSError("gone")
    assert LastWord(lambda: Observer(Address("h", 1))).get(DEADLINE) is None


def test_it_is_closed_behind_its_block(observer: Observer, client: Client) -> None:
    with observer as same:
        assert same is observer
    assert client.done == ["close"]
