from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.web.history import FIRST_STEP, History, Moment


def test_between_two_points_tasks_have_ended_at_a_rate() -> None:
    history = History()
    history.note(100.0, 10, 4, 8)
    assert history.moments == []
    history.note(102.0, 30, 6, 8)
    history.note(106.0, 30, 0, 4)
    assert history.moments == [Moment(102.0, 10.0, 6, 8), Moment(106.0, 0.0, 0, 4)]


def test_what_follows_at_once_is_no_point_of_its_own() -> None:
    history = History()
    assert history.note(0.0, 0, 0, 1)
    assert not history.note(FIRST_STEP / 2, 5, 1, 1)
    assert history.note(FIRST_STEP, 10, 1, 1)
    assert [moment.rate for moment in history.moments] == [10.0 / FIRST_STEP]


def test_when_it_is_full_it_goes_on_with_half_of_the_points() -> None:
    history = History(most=8)
    for second in range(9):
        history.note(float(second), 3 * second, second, 8)
    assert [moment.time for moment in history.moments] == [2.0, 4.0, 6.0, 8.0]
    assert {moment.rate for moment in history.moments} == {3.0}
    assert not history.note(9.0, 27, 9, 8)
    assert history.note(10.0, 30, 10, 8)


@given(st.lists(st.tuples(st.floats(0.01, 1000), st.integers(0, 50)), max_size=300))
def test_it_never_grows_beyond_its_size_and_loses_no_task(steps: list[tuple[float, int]]) -> None:
    history = History(most=10)
    time, ended = 0.0, 0
    noted = [(time, ended)]
    history.note(time, ended, 0, 0)
    for passed, tasks in steps:
        time, ended = time + passed, ended + tasks
        if history.note(time, ended, 0, 0):
            noted.append((time, ended))
        assert len(history.moments) < 10
    moments = history.moments
    if moments:
        times = [noted[0][0], *(moment.time for moment in moments)]
        total = sum(moment.rate * (moment.time - before) for before, moment in zip(times, moments, strict=False))
        assert total == pytest.approx(dict(noted)[times[-1]])
