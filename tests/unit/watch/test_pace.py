from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.watch.pace import _STEPS, SHORT, Pace


def paced(*points: tuple[float, int]) -> Pace:
    pace = Pace()
    for time, ended in points:
        pace.note(time, ended)
    return pace


def test_nothing_is_known_before_time_has_passed() -> None:
    assert (Pace().rate, Pace().left(10)) == (None, None)
    assert (paced((5.0, 3)).rate, paced((5.0, 3)).left(10)) == (None, None)


def test_a_steady_pace_says_when_it_will_be_over_within_a_margin() -> None:
    pace = paced(*((time, 10 * time) for time in range(100)))
    assert pace.rate == pytest.approx(10)
    assert pace.left(1000) == pytest.approx((90, 110))


def test_the_pace_of_the_moment_forgets_what_is_long_ago() -> None:
    pace = paced(*((time, 100 * min(time, 200)) for time in range(200 + 2 * int(SHORT))))
    assert pace.rate == 0


def test_a_pace_that_changes_makes_the_future_less_sure() -> None:
    pace = paced(*((time, time * 10 if time < 80 else 800 + (time - 80)) for time in range(100)))
    left = pace.left(1000)
    assert left is not None
    assert left[1] > 3 * left[0]


def test_what_nobody_can_count_or_what_there_is_nothing_of_takes_no_time() -> None:
    pace = paced((0.0, 5), (100.0, 50))
    assert (pace.left(None), pace.left(0)) == (None, None)


def test_when_nothing_ends_nobody_knows() -> None:
    assert paced((0.0, 5), (100.0, 5)).left(10) is None
    assert paced((0.0, 5), (100.0, 5)).rate == 0


@given(st.lists(st.tuples(st.floats(0.01, 100.0), st.integers(0, 10**6)), max_size=200))
def test_it_looks_back_a_limited_time_and_never_fails(steps: list[tuple[float, int]]) -> None:
    pace, time, ended = Pace(), 0.0, 0
    for pause, more in steps:
        time, ended = time + pause, ended + more
        pace.note(time, ended)
        assert pace.rate is None or pace.rate >= 0
        left = pace.left(1000)
        assert left is None or 0 <= left[0] <= left[1]
    assert len(pace._points) <= _STEPS + 3
