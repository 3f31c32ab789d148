"""What the controller is told and asks for. That each command is performed is in the twin of `loop`."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from disbatch import messages
from disbatch.driver import events
from disbatch.driver.controller import Controller
from disbatch.records import is_record, replace
from disbatch.tasks import Task
from tests.unit.driver.examples import context_came, example, settings

EVENTS: tuple[type, ...] = get_args(events.Event)
COMMANDS: tuple[type, ...] = get_args(events.Command)
ITEMS: tuple[type, ...] = get_args(events.Item)


def declared_here() -> list[type]:
    return [
        value
        for value in vars(events).values()
        if is_record(value) and value.__module__ == events.__name__
        if value is not events.Settings
    ]


def test_whatever_is_declared_is_of_use() -> None:
    for kind in declared_here():
        assert sum(kind in of_use for of_use in (EVENTS, COMMANDS, ITEMS)) == 1, (
            f"{kind.__name__} has to be an event, a command or an item, and only one of them"
        )


def test_what_others_say_to_the_driver_is_an_event() -> None:
    assert {*get_args(messages.ToDriver), *get_args(messages.Order)} <= set(EVENTS)


def test_nothing_that_is_held_can_be_changed() -> None:
    for kind in (*EVENTS, *COMMANDS, *ITEMS):
        assert is_record(kind), f"{kind.__name__}: type checkers see to it that no field of a record is set"
        hash(example(kind))


def test_two_that_say_the_same_are_equal() -> None:
    for kind in (*EVENTS, *COMMANDS, *ITEMS):
        assert example(kind) == example(kind)


@pytest.mark.parametrize("kind", [kind for kind in EVENTS if kind not in (messages.Beat, messages.Rejoined)])
def test_the_controller_takes_every_event_but_those_about_a_conversation_itself(kind: type) -> None:
    controller = controller_with_an_engine()
    controller.handle(example(kind), 1.0, 1.0)


def controller_with_an_engine() -> Controller:
    """One that works, has one engine, and waits for that to come."""
    controller = Controller(settings())
    controller.begin()
    controller.handle(context_came("t", 1), 1.0, 1.0)
    controller.handle(events.ItemsRead((example(Task),), ended=False), 1.0, 1.0)
    return controller


@pytest.mark.parametrize("patience", [0.3, 60.0, 3600.0])
def test_nothing_of_a_member_runs_any_more_when_it_is_given_up(patience: float) -> None:
    lease = replace(settings(), heartbeat_patience=patience).lease
    # What is not ended by itself a grace after the end of a lease is killed by its keeper half a grace later.
    assert 0 < lease.limit < lease.limit + 1.5 * lease.grace < patience


def test_members_beat_as_often_as_the_user_wants() -> None:
    assert replace(settings(), heartbeat=2.5).lease.period == 2.5


def test_what_is_no_event_is_not_taken() -> None:
    no_event: Any = events.ReadItems(1)
    with pytest.raises(KeyError):
        controller_with_an_engine().handle(no_event, 1.0, 1.0)
