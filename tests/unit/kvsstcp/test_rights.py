"""`rights`, alone: each operation within and beyond what is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.kvsstcp.rights import EVERY_KEY, EVERYTHING, NO_KEY, Keys, Rights
from disbatch.kvsstcp.wire import ASTR, Close, Down, Dump, Get, Monitor, Put, Request, View

REQUESTS: list[Request] = [
    Put(b"k", ASTR, b"value"),
    Get(b"k"),
    View(b"k"),
    Monitor(b"records", b"k", b"p"),
    Monitor(b"records", b"", b"p"),
    Dump(),
    Close(),
    Down(),
]


@pytest.mark.parametrize(
    ("keys", "within", "beyond"),
    [
        (NO_KEY, [], [b"", b"a"]),
        (EVERY_KEY, [b"", b"a", b"\xff"], []),
        (Keys(b"a", b"b"), [b"a", b"b"], [b"", b"ab", b"A", b"c"]),
        (Keys(begin=(b"a ", b"b ")), [b"a ", b"a x", b"b y"], [b"a", b"ax", b" a x"]),
        (Keys(begin=(b"",), but=(b"a ", b"state")), [b"", b"a", b"stat"], [b"a ", b"a x", b"state"]),
        (Keys(b"a x", begin=(b"a",), but=(b"a ",)), [b"a x", b"ab"], [b"a y"]),
    ],
)
def test_keys_by_name_and_by_beginning(keys: Keys, within: list[bytes], beyond: list[bytes]) -> None:
    assert [key in keys for key in within] == [True] * len(within)
    assert [key in keys for key in beyond] == [False] * len(beyond)


@given(st.binary())
def test_there_is_a_set_of_every_key_and_one_of_none(key: bytes) -> None:
    assert key in EVERY_KEY
    assert key not in NO_KEY


@pytest.mark.parametrize("request_", REQUESTS)
def test_every_right_allows_everything_and_none_allows_to_leave(request_: Request) -> None:
    assert EVERYTHING.allow(request_)
    assert Rights().allow(request_) == (request_ == Close())


@pytest.mark.parametrize("operation", [Get, View])
def test_a_key_may_be_asked_for_in_the_ways_that_are_named(operation: type[Get | View]) -> None:
    rights = Rights(get=Keys(b"k")) if operation is Get else Rights(view=Keys(b"k"))
    for other in REQUESTS:
        assert rights.allow(other) == (isinstance(other, (operation, Close)))
    assert not rights.allow(operation(b"other"))


def test_a_key_may_be_put_to_without_being_read() -> None:
    rights = Rights(put=Keys(b"k"))
    for other in REQUESTS:
        assert rights.allow(other) == (isinstance(other, (Put, Close)))
    assert not rights.allow(Put(b"other", ASTR, b"value"))


@pytest.mark.parametrize("kind", [Dump, Down])
def test_what_has_no_key_is_allowed_or_not(kind: type[Dump | Down]) -> None:
    rights = Rights(dump=kind is Dump, down=kind is Down)
    for other in REQUESTS:
        assert rights.allow(other) == (isinstance(other, (kind, Close)))


@pytest.mark.parametrize(
    ("rights", "allowed"),
    [
        (Rights(put=Keys(b"records"), view=Keys(b"k"), monitor=True), True),
        (Rights(put=Keys(b"records"), view=Keys(b"k")), False),
        (Rights(put=Keys(b"other"), view=Keys(b"k"), monitor=True), False),
        (Rights(put=Keys(b"records"), get=Keys(b"k"), view=Keys(b"other"), monitor=True), False),
    ],
)
def test_what_may_be_viewed_may_be_monitored_under_a_key_that_may_be_put_to(rights: Rights, *, allowed: bool) -> None:
    assert rights.allow(Monitor(b"records", b"k", b"gp")) is allowed


@pytest.mark.parametrize(
    ("view", "allowed"), [(EVERY_KEY, True), (Keys(b""), False), (Keys(begin=(b"",), but=(b"private ",)), False)]
)
def test_every_key_is_monitored_by_those_alone_who_may_view_every_key(view: Keys, *, allowed: bool) -> None:
    assert Rights(put=EVERY_KEY, view=view, monitor=True).allow(Monitor(b"records", b"", b"p")) is allowed
