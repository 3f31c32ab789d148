"""Every message there and back, and anything else that may arrive: refused with one kind of error."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import typing
from enum import Enum
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import msgpack
import pytest
from hypothesis import given

from disbatch import __version__, messages
from disbatch.errors import MessageError
from disbatch.messages import (
    ContextCame,
    EngineCame,
    Message,
    TaskReport,
    TasksEnded,
    context_name,
    decode,
    decode_all,
    driver_key,
    encode,
    engine_name,
    member_key,
    newcomer,
    orders_key,
)
from disbatch.records import astuple, fields, is_record
from disbatch.tasks import Outcome, Task

OUTCOME = Outcome(4711, -9, 1.7e9, 0.25, 10, b"out\xff", 0, b"", 0.125, 1 << 20, interrupted=False)


def kinds_of(union: Any) -> list[type]:  # noqa: ANN401 - a union is no type
    return [kind for member in typing.get_args(union) for kind in (kinds_of(member) or [member])]


MESSAGES = kinds_of(Message)


# Values of every type, made from what the fields declare.

PRIMITIVES: dict[object, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(-9, 9) | st.integers(-(2**63), 2**64 - 1),
    float: st.floats(allow_nan=False),
    bytes: st.binary(max_size=9),
    # Any bytes can be a file name, and so the text that Python makes of them.
    str: st.text("ab \n\0é🐟", max_size=9) | st.binary(max_size=9).map(os.fsdecode),
}


def values_of(declared: object) -> st.SearchStrategy[Any]:
    """Values of a type that a field can be declared with; TypeError for one that this test does not know."""
    if declared in PRIMITIVES:
        return PRIMITIVES[declared]
    if isinstance(declared, type) and issubclass(declared, Enum):
        return st.sampled_from(declared)
    if isinstance(declared, type) and is_record(declared):
        return st.builds(declared, *map(values_of, typing.get_type_hints(declared).values()))
    if typing.get_origin(declared) is tuple and typing.get_args(declared)[1:] == (...,):
        return st.lists(values_of(typing.get_args(declared)[0]), max_size=4).map(tuple)
    raise TypeError(f"this test cannot make values of {declared}: add them to it")


def fits(value: object, declared: object) -> bool:
    """Whether a value that was decoded is what its field declares; a float may come as a whole number."""
    if declared is float:
        return type(value) in (int, float)
    if typing.get_origin(declared) is tuple:
        return type(value) is tuple and all(fits(element, typing.get_args(declared)[0]) for element in value)
    if isinstance(declared, type) and is_record(declared):
        hints = typing.get_type_hints(declared)
        return type(value) is declared and all(fits(getattr(value, name), hints[name]) for name in hints)
    return type(value) is declared


any_message = st.sampled_from(MESSAGES).flatmap(values_of)


def is_refused_or_fits(data: bytes) -> None:
    """Assert that bytes raise the documented error, or that what they give can be relied upon."""
    with contextlib.suppress(MessageError):
        message = decode(data)
        assert type(message) in MESSAGES
        assert fits(message, type(message)), message
        encode(message)


def packed(*parts: object) -> bytes:
    """Bytes as a peer could send them, whatever is in them."""
    data: bytes = msgpack.packb(parts)
    return data


# There and back.


def test_these_tests_know_every_message() -> None:
    coded = {kind for kind, (name, _) in messages._encoders.items() if name}
    assert coded == set(MESSAGES), "what is coded as a message and what the type Message names differ"


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_message_comes_back_as_it_went(kind: type) -> None:
    try:
        values = values_of(kind)
    except TypeError as error:
        pytest.fail(f"{kind.__name__}: {error}")

    @given(values)
    def check(message: Message) -> None:
        back = decode(encode(message))
        assert back == message
        assert type(back) is kind
        assert fits(back, kind)

    check()


@given(st.lists(any_message, min_size=1, max_size=4))
def test_messages_one_behind_another_come_back_in_their_order(sent: list[Message]) -> None:
    data = b"".join(map(encode, sent))
    assert decode_all(data) == sent
    if len(sent) > 1:
        with pytest.raises(MessageError):
            decode(data)


@given(any_message, st.binary(max_size=20))
def test_what_is_no_message_behind_one_is_refused(first: Message, rest: bytes) -> None:
    with contextlib.suppress(MessageError):
        found = decode_all(encode(first) + rest)
        assert found[0] == first
        assert b"".join(map(encode, found)) != b""


@pytest.mark.parametrize("data", [b"", b"\xc1", packed("no such message")])
def test_one_message_at_least_is_wanted(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode_all(data)
    with pytest.raises(MessageError, match="tag"):
        decode_all(encode(messages.FinishEngine()), b"AUTF")


@pytest.mark.parametrize("count", [0, 1, 15, 16, 3000])
def test_many_travel_as_one_message_in_their_order(count: int) -> None:
    ended = TasksEnded(3, tuple(TaskReport(number, OUTCOME) for number in reversed(range(count))))
    assert decode(encode(ended)) == ended
    tasks = messages.RunTasks(tuple(Task(number, number + 1, -1, b"echo \xff\n" * 20) for number in range(count)))
    assert decode(encode(tasks)) == tasks


def test_a_report_is_small() -> None:
    empty, one = (len(encode(TasksEnded(3, (TaskReport(7, OUTCOME),) * count))) for count in (0, 1))
    assert one - empty < 60


@pytest.fixture
def _without_compiled_msgpack(monkeypatch: pytest.MonkeyPatch) -> None:
    fallback = importlib.import_module("msgpack.fallback")

    def packb(value: object, **options: Any) -> bytes:  # noqa: ANN401 - msgpack's
        data: bytes = fallback.Packer(**options).pack(value)
        return data

    monkeypatch.setattr(messages, "msgpack", SimpleNamespace(packb=packb, unpackb=fallback.unpackb))


@pytest.mark.usefixtures("_without_compiled_msgpack")
def test_processes_with_and_without_compiled_msgpack_understand_each_other(request: pytest.FixtureRequest) -> None:
    message = TasksEnded(3, (TaskReport(7, OUTCOME),))
    data = encode(message)
    assert decode(data) == message
    request.getfixturevalue("monkeypatch").undo()
    assert encode(message) == data


# What is no message.


@given(st.binary(max_size=40))
def test_random_bytes_are_refused(data: bytes) -> None:
    is_refused_or_fits(data)


@given(message=any_message, data=st.data())
def test_bytes_changed_on_the_way_are_refused_or_a_message(message: Message, data: st.DataObject) -> None:
    changed = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    is_refused_or_fits(bytes(changed))


@given(any_message)
def test_what_is_cut_short_or_goes_on_is_refused(message: Message) -> None:
    data = encode(message)
    for end in range(len(data)):
        with pytest.raises(MessageError):
            decode(data[:end])
    for more in (b"\0", b"\xc1", data):
        with pytest.raises(MessageError):
            decode(data + more)


ODD_PARTS: list[object] = [
    *(None, True, -1, 2**64 - 1, 1.5, float("nan"), "", "START", b"", b"\xff", [], [[]], {}, {"a": 1}),
    *(msgpack.ExtType(5, b"x"), msgpack.Timestamp(1)),
]


def parts_within(parts: list[Any]) -> list[tuple[list[Any], int]]:
    """All places of nested lists: each as the list and the index in it."""
    places = [(parts, index) for index in range(len(parts))]
    return places + [place for part in parts if isinstance(part, list) for place in parts_within(part)]


@given(message=any_message, odd=st.sampled_from(ODD_PARTS))
def test_a_part_of_another_type_is_refused_wherever_it_is(message: Message, odd: object) -> None:
    parts = msgpack.unpackb(encode(message), unicode_errors="surrogateescape")
    for place, index in parts_within(parts):
        was, place[index] = place[index], odd
        changed = msgpack.packb(parts, unicode_errors="surrogateescape")
        if type(odd) is type(was) or {type(odd), type(was)} == {int, float}:
            is_refused_or_fits(changed)
        else:
            with pytest.raises(MessageError):
                decode(changed)
        place[index] = was


@given(message=any_message, data=st.data())
def test_a_field_too_many_or_too_few_is_refused_wherever_it_is(message: Message, data: st.DataObject) -> None:
    name, *values = msgpack.unpackb(encode(message), unicode_errors="surrogateescape")
    for changed in ([*values, 1], [*values, None], values[:-1], values[1:]):
        if changed != values:
            with pytest.raises(MessageError):
                decode(msgpack.packb([name, *changed], unicode_errors="surrogateescape"))
    places = [place for place, _ in parts_within(values) if place is not values]
    if places:
        data.draw(st.sampled_from(places)).pop()
        is_refused_or_fits(msgpack.packb([name, *values], unicode_errors="surrogateescape"))


@pytest.mark.parametrize(
    "data",
    [
        packed(),
        packed("NoSuchMessage"),
        packed("returntasks"),
        packed(b"ReturnTasks"),
        packed(["ReturnTasks"]),
        packed({}),
        packed(None),
        packed(7),
        packed("Task", 1, 2, -1, b"true"),
        packed("TaskReport", 1),
        msgpack.packb("ReturnTasks"),
        msgpack.packb({"ReturnTasks": 1}),
        msgpack.packb({"EngineRefused": 1, "reason": 2}),
        msgpack.packb(msgpack.ExtType(1, packed("ReturnTasks"))),
        packed("EngineLeft", True),
        packed("EngineLeft", "1"),
        packed("EngineLeft", 1.0),
        packed("CancelEngine", False, True),
        packed("CancelEngine", 1.0, 1),
        packed("EndContext", 1),
        packed("EndContext", {1: 2}),
        packed("EndContext", [True]),
        packed("EngineRefused", b"reason"),
        packed("RunTasks", [None]),
        packed("RunTasks", [[0, 1, -1, "text"]]),
        packed("TasksEnded", 1, [[7, None]]),
        packed("TasksEnded", 1, [[7, True]]),
        packed("PerEngineTaskEnded", 1, ["start", 0, 1, b""], list(astuple(OUTCOME))),
        b"\xdd\xff\xff\xff\xff",
        b"\x92\xaaEngineLeft\xdb\xff\xff\xff\xff",
    ],
)
def test_what_only_looks_like_a_message_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError) as error:
        decode(data)
    assert str(error.value).isprintable()


DEPTHS = [1, 10, 500, *range(900, 1040, 5), 2000, 100_000]
"""Python gives up on nested lists at about 1000, msgpack at 1024."""


def nested_everywhere(depth: int) -> list[bytes]:
    deep = b"\x91" * depth + b"\x90"
    outcome = packed(*astuple(OUTCOME))
    return [
        deep,
        b"\x81\xa1a" * depth + b"\x90",
        b"\x92" + deep + b"\x01",
        b"\x92\xaaEngineLeft" + deep,
        b"\x92\xa8RunTasks" + deep,
        b"\x94\xb2PerEngineTaskEnded\x01\x94" + deep + b"\x00\x01\xc4\x00" + outcome,
        b"\x94\xb2PerEngineTaskEnded\x01\x94\xa5START\x00\x01\xc4\x00" + deep,
    ]


def test_what_is_nested_deeply_is_refused() -> None:
    for depth in DEPTHS:
        for data in nested_everywhere(depth):
            with pytest.raises(MessageError):
                decode(data)


@pytest.mark.usefixtures("_without_compiled_msgpack")
def test_what_is_nested_deeply_is_refused_without_compiled_msgpack() -> None:
    for depth in (1, 10, 500, 2000):
        for data in nested_everywhere(depth):
            with pytest.raises(MessageError):
                decode(data)


# Tags.


@pytest.mark.parametrize("tag", [b"ASTR", b"PYPK", b"JSON", b"dbmp", b"\0\0\0\0", b""])
def test_a_message_under_another_tag_is_none(tag: bytes) -> None:
    with pytest.raises(MessageError, match="tag"):
        decode(encode(messages.ReturnTasks()), tag)


class _Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize("tag", [messages.TAG, b"PYPK"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_is_ever_loaded(tag: bytes, protocol: int) -> None:
    data = pickle.dumps(_Dangerous(), protocol)
    with pytest.raises(MessageError):
        decode(data, tag)
    with pytest.raises(MessageError):
        decode(packed("EngineLeft", msgpack.ExtType(1, data)), tag)


# Newcomers of another version.


def test_a_newcomer_of_another_version_is_known_by_what_it_begins_with() -> None:
    token = "f00d"
    assert newcomer(packed("EngineCame", 3, "0.0.7", "h1", "more")) == EngineCame(3, "0.0.7", "h1", 0)
    came = newcomer(packed("ContextCame", token, "0.0.7", "h1"))
    assert isinstance(came, ContextCame)
    assert (came.token, came.version, came.host, came.nodes) == (token, "0.0.7", "h1", ())


@pytest.mark.parametrize(
    "data",
    [
        packed("EngineCame", 3, __version__, "h1"),
        packed("EngineCame", "3", "0.0.7", "h1"),
        packed("EngineCame", 3, 7, "h1"),
        packed("EngineCame", 3, "0.0.7", 7),
        packed("EngineCame", 3, "0.0.7"),
        packed("ContextCame", 3, "0.0.7", "h1"),
        packed("EngineLeft", 3, "0.0.7", "h1"),
        b"\xc1",
        b"",
    ],
)
def test_nobody_else_is_a_newcomer_of_another_version(data: bytes) -> None:
    assert newcomer(data) is None


def test_what_this_version_says_first_begins_so_too() -> None:
    for kind in (EngineCame, ContextCame):
        assert fields(kind)[1:4] == ("version", "host", "pid")


# Keys.


def test_every_connection_of_every_process_of_every_run_has_a_key_of_its_own() -> None:
    names = [*map(context_name, ("0", "1", "f00d")), *map(engine_name, (0, 1, 11))]
    keys = [
        key
        for run in ("tasks", "tasks_1", "my run", os.fsdecode(b"r\xff"), "é")
        for key in (
            driver_key(run),
            orders_key(run),
            *(member_key(run, name, connection) for name in names for connection in (0, 1, 11)),
        )
    ]
    assert len(set(keys)) == len(keys)
    assert all(key.startswith(b"disbatch ") for key in keys)


@pytest.mark.parametrize("run", ["tasks", "my run", os.fsdecode(b"r\xff")])
def test_keys_of_a_run_begin_as_it_says(run: str) -> None:
    contexts = [member_key(run, context_name("f00d"), connection) for connection in (0, 1)]
    engines = [member_key(run, engine_name(11), connection) for connection in (0, 1)]
    keys = [driver_key(run), orders_key(run), *contexts, *engines]
    assert all(key.startswith(messages.own_keys(run)) for key in keys)
    assert [key for key in keys if key.startswith(messages.context_keys(run))] == contexts
    assert [key for key in keys if key.startswith(messages.engine_keys(run))] == engines
