from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.progress.line import GAP, fitting, parts, sentence, share
from disbatch.records import replace
from disbatch.watch.pace import Pace
from tests.unit.watch.examples import BEGAN, engine, run

RUN = run(engine(0), failed=1)


def paced() -> Pace:
    pace = Pace()
    pace.note(0.0, 0)
    pace.note(10.0, 10)
    return pace


def test_all_figures_stand_in_a_line() -> None:
    texts = [text for text, _ in parts(RUN, paced()).values()]
    assert texts == ["25/100 done", "1 failed", "3 running", "70 waiting", "3/4 places", "1.0/s", "68 to 82 s left"]


def test_what_there_is_nothing_to_say_of_is_left_out() -> None:
    made = parts(run(active=2, total=None), Pace())
    assert [text for text, _ in made.values()] == [
        "25 done",
        "2 running",
        "more to come",
        "2/0 places",
        "no hosts yet",
    ]


def test_an_estimate_is_said_to_be_one() -> None:
    assert parts(replace(RUN, total_is_exact=False), Pace())["done"][0] == "25/~100 done"


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ("finishing", "all tasks have ended, hosts leave"),
        ("draining", "finishing what runs"),
        ("stopping", "ending what runs"),
        ("ended", "ended"),
    ],
)
def test_a_run_that_ends_says_how_and_not_when(phase: str, words: str) -> None:
    made = parts(replace(RUN, phase=phase), paced())
    assert next(iter(made.values()))[0] == words
    assert "left" not in made


def test_nothing_more_comes_once_the_run_is_cut_short() -> None:
    assert parts(run(total=None, phase="stopping", waiting=0), Pace())["waiting"][0] == "0 waiting"


def test_failures_of_earlier_runs_are_not_counted_again() -> None:
    assert "failed" not in parts(replace(RUN, failed=3, failed_earlier=3), Pace())


def test_the_share_is_known_when_the_total_is() -> None:
    assert share(RUN) == 0.25
    assert share(replace(RUN, total=5)) == 1.0
    assert share(replace(RUN, total=None)) is None
    assert share(replace(RUN, total=0)) is None


def test_how_long_it_takes_is_unknown_with_the_total() -> None:
    assert "left" not in parts(replace(RUN, total=None), paced())
    assert "left" not in parts(RUN, Pace())


@given(st.integers(0, 200))
def test_as_much_is_shown_as_there_is_room_for(width: int) -> None:
    made = parts(RUN, paced())
    shown = [text for text, _ in fitting(made, width)]
    assert len(GAP.join(shown)) <= width
    assert shown == [text for text, _ in made.values() if text in shown], "in their order"
    assert not shown or "25/100 done" in shown
    if width >= 100:
        assert len(shown) == len(made)


def test_a_log_gets_a_sentence() -> None:
    assert sentence(RUN, Pace(), BEGAN + 200) == (
        "25/100 done, 1 failed, 3 running, 70 waiting, 3/4 places; 3 min 20 s since the run began"
    )
