from __future__ import annotations

from disbatch.watch.notices import notices
from disbatch.watch.state import EXPECTED, GONE
from tests.unit.watch.examples import context, engine, run


def test_nothing_has_happened() -> None:
    assert notices(run(engine(0)), run(engine(0))) == []


def test_engines_that_come_are_named_with_their_places() -> None:
    before = run(engine(0), engine(1, status=EXPECTED))
    assert notices(before, run(engine(0), engine(1, cylinders=1))) == ["the engine on h1 came, with 1 place"]
    after = run(engine(0), engine(1), engine(2))
    assert notices(before, after) == ["the engines on h1 and h2 came, with 8 places"]


def test_of_many_some_are_named() -> None:
    after = run(*map(engine, range(100)))
    assert notices(run(), after) == ["100 engines (h0, h1, ...) came, with 400 places"]


def test_engines_that_leave_are_named_once() -> None:
    before, after = run(engine(0), engine(1)), run(engine(0), engine(1, status=GONE))
    assert notices(before, after) == ["the engine on h1 left"]
    assert notices(after, after) == []


def test_an_engine_that_never_came_does_not_leave() -> None:
    before, after = run(engine(0, status=EXPECTED)), run(engine(0, status=GONE))
    assert notices(before, after) == []


def test_a_context_that_has_ended_is_named() -> None:
    before = run(contexts=(context(0), context(1, gone=True)))
    after = run(contexts=(context(0, gone=True), context(1, gone=True)))
    assert notices(before, after) == ["context SSH0 has ended"]
