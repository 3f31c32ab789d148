from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from disbatch import joining, messages, steering
from disbatch.errors import DisbatchError, DriverUnreachableError
from disbatch.kvsstcp.client import DisconnectedError
from disbatch.kvsstcp.wire import ASTR, JSON
from disbatch.options import ContextRoleOptions
from disbatch.values import Address
from disbatch.watch.state import GONE, LEAVING
from tests.unit.watch.examples import context, engine, posted, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disbatch.watch.state import RunState

ASKED = ContextRoleOptions(run="/data/run", kvs=Address("driver", 4711))


STATE = run(
    engine(0, "localhost", host="here"),
    engine(1),
    engine(2, status=GONE),
    engine(3, "h1", status=LEAVING),
    engine(4, "1"),
    contexts=(context(0), context(1, "big ones"), context(2, "over", gone=True)),
)


class Client:
    """Stands for a client of the run's store: shows these states, one after another, and notes what is put."""

    def __init__(self, *states: RunState | None) -> None:
        self.states = list(states)
        self.put_so_far: list[tuple[bytes, messages.Message]] = []
        self.answered = 0
        self.closed = False
        self.failure: Exception | None = None

    def close(self) -> None:
        assert self.answered == len(self.put_so_far), "what was put may not have arrived"
        self.closed = True

    def view(self, key: bytes, encoding: object, _timeout: float) -> tuple[bytes, bytes]:
        if self.failure is not None:
            raise self.failure
        assert (key, encoding) == (messages.STATE_KEY, None)
        self.answered = len(self.put_so_far)
        shown = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return (ASTR, b"<Starting...>") if shown is None else (JSON, json.dumps(posted(shown)).encode())

    def put(self, key: bytes, value: bytes, tag: bytes) -> None:
        self.put_so_far.append((key, messages.decode(value, tag)))


class Time:
    """Stands for the clock; a client that pauses lets it go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    made = Time()
    monkeypatch.setattr(steering, "time", made)
    yield made
    assert made.now <= steering.STATE_PATIENCE + 0.5


def stop(client: Client, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, *, now: bool = False) -> int:
    monkeypatch.setattr(joining, "client", lambda *_: client)
    asked = ContextRoleOptions(run=ASKED.run, kvs=ASKED.kvs, stop=(kind, name), now=now)
    return steering.stop(asked, kind, name)


@pytest.mark.parametrize(
    ("kind", "name", "found"),
    [
        ("context", "SSH0", [(0, "context SSH0")]),
        ("context", "big ones", [(1, "context big ones")]),
        ("context", "1", [(1, "context big ones")]),
        ("context", "over", []),
        ("context", "h1", []),
        ("engine", "localhost", [(0, "engine 0 on localhost")]),
        ("engine", "here", [(0, "engine 0 on localhost")]),
        ("engine", "h1", [(1, "engine 1 on h1"), (3, "engine 3 on h1")]),
        ("engine", "3", [(3, "engine 3 on h1")]),
        ("engine", "1", [(4, "engine 4 on 1")]),
        ("engine", "h2", []),
        ("engine", "2", []),
    ],
)
def test_who_goes_by_a_name_and_has_not_gone(kind: str, name: str, found: list[tuple[int, str]]) -> None:
    assert steering.matching(STATE, kind, name) == found


def test_names_that_there_are() -> None:
    assert steering.names(STATE, "context") == ["SSH0", "big ones"]
    assert steering.names(STATE, "engine") == ["localhost", "h1", "1"]
    assert steering.names(None, "engine") == []


@pytest.mark.parametrize(
    ("kind", "name", "now", "message", "told"),
    [
        ("engine", "localhost", False, messages.StopEngine(0, now=False),
         "told engine 0 on localhost to finish what runs there\n"),
        ("context", "big ones", True, messages.StopContext(1, now=True),
         "told context big ones to end what runs there, which others run again\n"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("time")
def test_the_driver_is_told_to_stop_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    kind: str, name: str, message: messages.Message, told: str, *, now: bool,
) -> None:  # fmt: skip
    client = Client(STATE)
    assert stop(client, monkeypatch, kind, name, now=now) == 0
    assert client.closed
    assert client.put_so_far == [(messages.orders_key("run"), message)]
    assert capsys.readouterr() == (told, "")


@pytest.mark.usefixtures("time")
def test_who_has_just_come_is_found_when_the_driver_has_posted_it(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(None, run(), STATE)
    assert stop(client, monkeypatch, "context", "SSH0") == 0


@pytest.mark.usefixtures("time")
@pytest.mark.parametrize(
    ("kind", "name", "complaint"),
    [
        ("context", "SSH9", "no context of this run goes by 'SSH9' (there is: SSH0, big ones)"),
        ("engine", "h\x1b2", r"no engine of this run goes by 'h\x1b2' (there is: localhost, h1, 1)"),
        ("engine", "h1", "'h1' may be any of these: engine 1 on h1, engine 3 on h1 (name one by its number)"),
    ],
)
def test_nothing_is_stopped_by_a_name_that_is_not_clear(
    monkeypatch: pytest.MonkeyPatch, kind: str, name: str, complaint: str
) -> None:
    client = Client(STATE)
    with pytest.raises(DisbatchError) as error:
        stop(client, monkeypatch, kind, name)
    assert str(error.value) == complaint
    assert client.put_so_far == []


@pytest.mark.usefixtures("time")
def test_a_run_that_never_gets_going_has_nothing_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DisbatchError, match=r"no engine of this run goes by 'h1' \(there is: none\)"):
        stop(Client(None), monkeypatch, "engine", "h1")


@pytest.mark.usefixtures("time")
def test_a_driver_that_goes_meanwhile_is_an_error_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(STATE)
    client.failure = DisconnectedError("the server has ended the connection")
    with pytest.raises(DriverUnreachableError, match="lost the driver: the server has ended the connection"):
        stop(client, monkeypatch, "engine", "h1")


@pytest.mark.parametrize("secret", ["s3cret", None])
def test_programs_are_told_where_the_store_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], secret: str | None
) -> None:
    if secret is None:
        monkeypatch.delenv("KVSSTCP_SECRET", raising=False)
    else:
        monkeypatch.setenv("KVSSTCP_SECRET", secret)
    client = Client()
    monkeypatch.setattr(joining, "client", lambda _: client)
    assert steering.print_store(ASKED) == 0
    assert client.closed
    printed: dict[str, str] = dict(line.split("=") for line in capsys.readouterr().out.splitlines())
    assert printed.pop("KVSSTCP_SECRET", None) == secret
    assert printed == {"KVSSTCP_HOST": "driver", "KVSSTCP_PORT": "4711"}
