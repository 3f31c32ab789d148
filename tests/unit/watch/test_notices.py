from __future__ import annotations

import pytest

from disbatch.watch.notices import notices
from disbatch.watch.state import DRAINING, EXPECTED, GONE, LEAVING
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


def test_an_engine_whose_connection_breaks_is_named_until_it_is_back() -> None:
    there, cut = run(engine(3, active=2)), run(engine(3, active=2, cut=True))
    assert notices(there, cut) == ["lost the connection to the engine on h3, where 2 tasks run; waiting for it"]
    assert notices(cut, cut) == []
    assert notices(cut, there) == ["the engine on h3 is connected again"]


def test_of_several_engines_whose_connections_break_one_line_tells() -> None:
    there, cut = run(engine(0), engine(1)), run(engine(0, cut=True, active=0), engine(1, cut=True, active=1))
    assert notices(there, cut) == [
        "lost the connection to the engines on h0 and h1, where 1 task runs; waiting for them"
    ]
    assert notices(cut, there) == ["the engines on h0 and h1 are connected again"]


def test_an_engine_that_leaves_and_is_cut_off_is_waited_for_as_well() -> None:
    before, after = run(engine(0, status=LEAVING)), run(engine(0, status=LEAVING, cut=True))
    assert notices(before, after) == ["lost the connection to the engine on h0, where 3 tasks run; waiting for it"]


def test_what_the_driver_tells_itself_of_an_engine_that_is_cut_off_is_not_told_twice() -> None:
    there, cut = engine(0), engine(0, cut=True)
    assert notices(run(there), run(cut, phase=DRAINING)) == [], "it waits for that to end"
    assert notices(run(cut), run(engine(0, status=GONE, cut=True))) == [], "it is lost"


@pytest.mark.parametrize("cut", [False, True])
def test_an_engine_that_comes_is_told_of_as_it_is(*, cut: bool) -> None:
    said = notices(run(engine(0, status=EXPECTED)), run(engine(0, cut=cut)))
    assert said[0] == "the engine on h0 came, with 4 places"
    assert len(said) == 1 + cut


def test_an_engine_that_never_came_does_not_leave() -> None:
    before, after = run(engine(0, status=EXPECTED)), run(engine(0, status=GONE))
    assert notices(before, after) == []


def test_a_context_that_has_ended_is_named() -> None:
    before = run(contexts=(context(0), context(1, gone=True)))
    after = run(contexts=(context(0, gone=True), context(1, gone=True)))
    assert notices(before, after) == ["context SSH0 has ended"]
