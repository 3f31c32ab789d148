"""`loop`, and what others say to the driver: members, operators and strangers, and which of them has gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import msgpack
import pytest

from disbatch import messages
from disbatch.driver import events
from disbatch.kvsstcp.wire import ASTR
from tests.unit.driver.examples import context_came, engine_came, example
from tests.unit.driver.house import JOB, SECRETS

if TYPE_CHECKING:
    from tests.unit.driver.house import House


def test_the_store_is_opened_with_the_secrets_on_the_socket_that_listens(house: House) -> None:
    assert house.store.made_with == ("the selector", "the listening socket", SECRETS)
    assert list(house.store.listeners) == [messages.driver_key(JOB), messages.orders_key(JOB)]


CONVERSATION = (messages.Beat, messages.Rejoined)
"""What is about the conversation itself."""


@pytest.mark.parametrize("kind", [kind for kind in get_args(messages.ToDriver) if kind not in CONVERSATION])
def test_every_message_for_the_driver_is_an_event(house: House, kind: type) -> None:
    house.arrives(example(kind))
    house.run()
    assert house.heard == [example(kind)]


@pytest.mark.parametrize("kind", CONVERSATION)
@pytest.mark.parametrize("peer", [1, None])
def test_what_is_about_a_conversation_that_there_is_not_is_no_event(house: House, kind: type, peer: int | None) -> None:
    house.arrives(example(kind), peer)
    house.run()
    assert house.heard == []


@pytest.mark.parametrize("kind", get_args(messages.Order))
def test_every_order_is_an_event_where_orders_are_taken_from(house: House, kind: type) -> None:
    house.arrives(example(kind), key=messages.orders_key(JOB))
    house.run()
    assert house.heard == [example(kind)]


@pytest.mark.parametrize("kind", [kind for kind in get_args(messages.Message) if kind not in get_args(messages.Order)])
def test_what_is_no_order_is_ignored_there_with_a_warning(house: House, kind: type) -> None:
    house.arrives(example(kind), peer=7, key=messages.orders_key(JOB))
    house.run()
    assert house.heard == []
    assert house.all("warn") == [(f"ignored what peer 7 sent: {kind.__name__} is no order",)]


def test_what_is_no_message_is_ignored_there_with_a_warning(house: House) -> None:
    house.arrives_as(b"nonsense", messages.TAG, peer=7, key=messages.orders_key(JOB))
    house.run()
    assert house.heard == []
    [(warning,)] = house.all("warn")
    assert str(warning).startswith("ignored what peer 7 sent: ")


OF_OTHERS = [*get_args(messages.ToEngine), *get_args(messages.ToContext), *get_args(messages.Order)]


@pytest.mark.parametrize("kind", OF_OTHERS)
def test_a_message_for_others_is_ignored_with_a_warning(house: House, kind: type) -> None:
    house.arrives(example(kind), peer=7)
    house.run()
    assert house.heard == []
    assert house.all("warn") == [(f"ignored what peer 7 sent: {kind.__name__} is not for the driver",)]


@pytest.mark.parametrize(
    ("value", "tag"), [(b"nonsense", messages.TAG), (messages.encode(messages.EngineLeft(1)), ASTR)]
)
def test_what_is_no_message_is_ignored_with_a_warning(house: House, value: bytes, tag: bytes) -> None:
    house.arrives_as(value, tag, peer=7)
    house.arrives(messages.EngineLeft(0))
    house.run()
    assert house.heard == [messages.EngineLeft(0)]
    [(warning,)] = house.all("warn")
    assert str(warning).startswith("ignored what peer 7 sent: ")


def test_a_newcomer_of_another_version_is_told_of_whatever_else_it_says(house: House) -> None:
    came = msgpack.packb(["EngineCame", 3, "0.0.7", "there", {"and": "more"}])
    house.arrives_as(came, messages.TAG)
    house.run()
    assert house.heard == [messages.EngineCame(3, "0.0.7", "there", 0)]


def test_what_clients_get_wrong_by_the_thousand_is_a_few_lines_in_the_log(house: House) -> None:
    for _ in range(1000):
        house.arrives_as(b"nonsense", messages.TAG, peer=7)
        house.arrives(example(messages.RunTasks), peer=7)
        house.happens(house.store.ask_to_end)
    house.arrives(messages.EngineLeft(0))
    house.run()
    assert house.heard == [messages.EngineLeft(0)]
    assert 0 < len(house.all("warn")) <= 10


def test_a_client_cannot_shut_the_store_down(house: House) -> None:
    house.happens(house.store.ask_to_end)
    house.arrives(messages.EngineLeft(0))
    house.run()
    assert house.heard == [messages.EngineLeft(0)]
    assert len(house.all("warn")) == 1


def test_what_the_store_complains_of_goes_into_the_log(house: House) -> None:
    house.store.log("cannot serve")
    assert house.all("warn") == [("cannot serve",)]


def test_a_member_that_beats_is_answered_and_heard(house: House) -> None:
    house.arrives(engine_came(4), peer=11)
    house.arrives(messages.Beat(0, 7.5), peer=11)
    house.run()
    assert house.all("put") == [(messages.member_key(JOB, "engine 4"), messages.Beat(1, 7.5))]
    assert house.heard == [engine_came(4), events.MemberHeard("engine 4")]


def test_one_who_says_that_more_has_come_than_was_sent_is_cut_off_with_a_warning(house: House) -> None:
    house.arrives(engine_came(4), peer=11)
    house.arrives(messages.Beat(1, 7.5), peer=11)
    house.run()
    assert house.all("disconnect") == [(11,)]
    assert house.heard == [engine_came(4), events.MemberCut("engine 4")]
    [(warning,)] = house.all("warn")
    assert str(warning).startswith("ended the connection of peer 11: ")


def test_one_who_is_forgotten_is_hung_up_on_and_refused_when_he_comes_back(house: House) -> None:
    house.script.answers[messages.EngineLeft] = [events.ForgetMember("engine 4")]
    house.arrives(engine_came(4), peer=11)
    house.arrives(messages.EngineLeft(4), peer=11)
    house.arrives(messages.Rejoined("engine 4", 1, 0), peer=12)
    house.run()
    assert house.all("disconnect") == [(11,)]
    [(key, refusal)] = house.all("put")
    assert key == messages.member_key(JOB, "engine 4", 1)
    assert isinstance(refusal, messages.EngineRefused)
    assert house.heard == [engine_came(4), messages.EngineLeft(4)]


def test_one_who_comes_back_goes_on_where_he_was(house: House) -> None:
    house.arrives(engine_came(4), peer=11)
    house.hangs_up(11)
    house.arrives(messages.Rejoined("engine 4", 1, 0), peer=12)
    house.run()
    assert house.all("put") == [(messages.member_key(JOB, "engine 4", 1), messages.Resumed(1))]
    assert house.heard == [engine_came(4), events.MemberCut("engine 4"), events.MemberRejoined("engine 4")]


# Who has gone


WHO_COMES = pytest.mark.parametrize(
    ("message", "cut"),
    [(engine_came(4), events.MemberCut("engine 4")), (context_came("t", 1), events.MemberCut("context t"))],
)


@WHO_COMES
def test_one_who_goes_is_known_by_the_connection_and_told_of_once(
    house: House, message: messages.Message, cut: events.Event
) -> None:
    house.arrives(message, peer=11)
    house.arrives(engine_came(5), peer=12)
    house.hangs_up(11)
    house.hangs_up(11)
    house.hangs_up(12)
    house.run()
    assert house.heard == [message, engine_came(5), cut, events.MemberCut("engine 5")]


def test_the_end_of_a_connection_of_nobody_is_no_event(house: House) -> None:
    house.arrives(messages.EngineLeft(0), peer=11)
    house.hangs_up(11)
    house.hangs_up(12)
    house.run()
    assert house.heard == [messages.EngineLeft(0)]


@WHO_COMES
def test_the_end_of_one_who_says_to_be_another_is_not_the_others(
    house: House, message: messages.Message, cut: events.Event
) -> None:
    house.arrives(message, peer=11)
    house.arrives(message, peer=12)
    house.hangs_up(12)
    house.happens(lambda: house.did("the second one has gone", len(house.heard)))
    house.hangs_up(11)
    house.run()
    assert house.heard == [message, message, cut]
    assert ("the second one has gone", 2) in house.done


def test_what_was_said_before_the_end_of_a_connection_comes_before_it(house: House) -> None:
    house.arrives(engine_came(4), peer=11)

    def say_and_go() -> None:
        listener = house.store.listeners[messages.driver_key(JOB)]
        listener(messages.TAG, messages.encode(messages.EngineLeft(4)), 11)
        house.store.hang_up(11)

    house.happens(say_and_go)
    house.run()
    assert house.heard == [engine_came(4), messages.EngineLeft(4), events.MemberCut("engine 4")]
