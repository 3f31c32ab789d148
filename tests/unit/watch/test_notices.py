from __future__ import annotations

from disbatch.watch.notices import notices
from tests.unit.watch.examples import context, engine, state, with_engines


def test_nothing_has_happened() -> None:
    assert notices(state(), state()) == []


def test_engines_that_come_are_named_with_their_places() -> None:
    before = with_engines(engine(0), engine(1, status="expected"))
    assert notices(before, with_engines(engine(0), engine(1, cylinders=1))) == ["the engine on h1 came, with 1 place"]
    after = with_engines(engine(0), engine(1), engine(2))
    assert notices(before, after) == ["the engines on h1 and h2 came, with 8 places"]


def test_of_many_some_are_named() -> None:
    after = with_engines(*map(engine, range(100)))
    assert notices(with_engines(), after) == ["100 engines (h0, h1, ...) came, with 400 places"]


def test_engines_that_leave_are_named_once() -> None:
    before, after = with_engines(engine(0), engine(1)), with_engines(engine(0), engine(1, status="stopped"))
    assert notices(before, after) == ["the engine on h1 left"]
    assert notices(after, after) == []


def test_an_engine_that_never_came_does_not_leave() -> None:
    before, after = with_engines(engine(0, status="expected")), with_engines(engine(0, status="stopped"))
    assert notices(before, after) == []


def test_a_context_that_has_ended_is_named() -> None:
    before = state(contexts={"0": context(0), "1": context(1, active=False)})
    after = state(contexts={"0": context(0, active=False), "1": context(1, active=False)})
    assert notices(before, after) == ["context SSH0 has ended"]
