from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch import messages
from disbatch.monitor import model
from disbatch.monitor.model import (
    KEYS,
    SILENCE,
    Answered,
    Failed,
    Listed,
    Monitor,
    Over,
    Quit,
    Row,
    Seen,
    Stop,
    layout,
    rows_of,
)
from disbatch.records import replace
from disbatch.watch.state import ENDED, EXPECTED, GONE, LEAVING, RUNNING
from tests.unit.monitor.examples import shown
from tests.unit.watch.examples import BEGAN, context, engine, large, run, states, task, tasks

TWO = run(engine(0, "alpha"), engine(1, "beta", failed=2), engine(2, "gamma", 1, finished=9))
"""Two contexts: SSH0 with alpha and beta, SSH1 with gamma."""


def names(monitor: Monitor) -> list[str]:
    return [row.name for row in monitor.rows]


def press(monitor: Monitor, *keys: str) -> Quit | Stop | None:
    """Press these keys; what the last of them asks for, the others asking for nothing."""
    for key in keys[:-1]:
        assert monitor.pressed(key) is None
    return monitor.pressed(keys[-1])


def cursor(monitor: Monitor) -> str:
    row = monitor.under_cursor
    assert row is not None
    return row.name


# What is heard.


def test_before_anything_is_known_there_is_nothing_to_see() -> None:
    monitor = shown(None)
    assert (monitor.rows, monitor.under_cursor, monitor.rate, monitor.left) == ([], None, None, None)


def test_each_context_stands_before_its_engines() -> None:
    assert names(shown(TWO)) == ["SSH0", "alpha", "beta", "SSH1", "gamma"]


def test_a_context_has_the_sums_of_its_engines() -> None:
    monitor = Monitor()
    for clock, done in ((10.0, 7), (12.0, 17)):
        monitor.passed(BEGAN + 100, clock)
        monitor.heard(Seen(run(engine(0, finished=done), engine(1, finished=done, failed=2), engine(2, status=GONE))))
    row = monitor.rows[0]
    assert (row.active, row.cylinders, row.assigned, row.finished, row.failed) == (6, 8, 30, 41, 2)
    assert row.rate == 10.0
    assert row.heard == BEGAN + 100


@pytest.mark.parametrize(
    ("status", "cut", "word"),
    [
        (EXPECTED, False, "expected"),
        (RUNNING, False, "running"),
        (RUNNING, True, "cut off"),
        (LEAVING, False, "leaving"),
        (LEAVING, True, "cut off"),
        (GONE, True, "gone"),
        ("of a later version", False, "of a later version"),
    ],
)
def test_what_the_state_of_an_engine_is_called(status: str, *, cut: bool, word: str) -> None:
    assert rows_of(run(engine(0, status=status, cut=cut)))[1].state == word


def test_an_engine_that_never_came_is_absent_and_offers_no_places() -> None:
    rows = rows_of(run(engine(0), engine(1, status=GONE, came=None)))
    assert (rows[0].cylinders, rows[2].state) == (4, "absent")
    monitor = shown(run(engine(0), engine(1, "h9", status=GONE, came=None)))
    press(monitor, "x")
    assert names(monitor) == ["SSH0", "h0"]


@pytest.mark.parametrize(
    ("engines", "word"),
    [
        ([], "expected"),
        ([EXPECTED, EXPECTED], "expected"),
        ([GONE, EXPECTED, RUNNING], "running"),
        ([GONE, LEAVING], "leaving"),
        ([GONE], "leaving"),
    ],
)
def test_what_the_state_of_a_context_is_called(engines: list[str], word: str) -> None:
    state = run(*(engine(rank, status=status) for rank, status in enumerate(engines)), contexts=(context(0),))
    assert rows_of(state)[0].state == word
    assert rows_of(replace(state, contexts=(context(0, gone=True),)))[0].state == "gone"


def test_an_engine_whose_context_nobody_knows_is_shown_nevertheless() -> None:
    assert [row.name for row in rows_of(run(engine(0, "stray", 7), contexts=(context(0),)))] == ["SSH0", "stray"]


def test_the_rate_of_an_engine_is_that_of_the_last_seconds() -> None:
    monitor = Monitor()
    for second in range(100):
        monitor.passed(BEGAN + second, float(second))
        monitor.heard(Seen(run(engine(0, finished=0 if second < 50 else (second - 49) * 4))))
        rate = monitor.rows[1].rate
        if second in (0, 40, 99):
            assert rate == {0: None, 40: 0.0, 99: 4.0}[second]


def test_an_engine_that_has_gone_has_no_rate() -> None:
    monitor = shown(run(engine(0)))
    monitor.passed(BEGAN, 52.0)
    monitor.heard(Seen(run(engine(0, status=GONE, finished=9))))
    assert monitor.rows[1].rate is None


def test_the_time_that_is_left_follows_from_the_rate() -> None:
    monitor = shown(run(engine(0), total=None))
    before = monitor.left
    monitor.passed(BEGAN, 60.0)
    monitor.heard(Seen(run(engine(0), finished=45, total=145)))
    assert (before, monitor.rate) == (None, 2.0)
    assert monitor.left is not None
    assert monitor.left[0] <= 50 <= monitor.left[1]


def test_a_driver_that_does_not_answer_is_noticed() -> None:
    monitor = shown(TWO)
    found: list[tuple[float | None, str]] = []
    for clock, event in ((50.0 + SILENCE / 2, Failed("nobody listens there")), (62.0, Seen(TWO))):
        monitor.passed(BEGAN, clock)
        found.append((monitor.silent_for, monitor.why_silent))
        monitor.heard(event)
        found.append((monitor.silent_for, monitor.why_silent))
    assert found == [(None, ""), (None, "nobody listens there"), (12.0, "nobody listens there"), (None, "")]


def test_while_the_driver_does_not_answer_nobody_knows_how_fast_it_goes_nor_how_long() -> None:
    monitor = shown(run(engine(0), total=200))
    monitor.passed(BEGAN, 52.0)
    monitor.heard(Seen(run(engine(0), total=200, finished=50)))
    assert None not in (monitor.rate, monitor.left)
    monitor.passed(BEGAN, 52.0 + SILENCE)
    assert (monitor.rate, monitor.left) == (None, None)


def test_a_driver_that_has_never_answered_is_noticed_too() -> None:
    monitor = Monitor()
    monitor.passed(BEGAN, 10.0)
    monitor.passed(BEGAN, 20.0)
    assert monitor.silent_for == 10.0


@pytest.mark.parametrize("event", [Over(), Seen(replace(TWO, phase=ENDED))])
def test_the_end_of_the_run(event: Over | Seen) -> None:
    monitor = shown(TWO)
    press(monitor, "E")
    monitor.heard(event)
    monitor.passed(BEGAN, 1000.0)
    assert monitor.is_over
    assert (monitor.question, monitor.silent_for, monitor.rate, monitor.left) == (None, None, None, None)


def test_when_the_run_has_ended_keys_that_look_around_do_so_still_and_others_quit() -> None:
    monitor = shown(TWO)
    monitor.heard(Over())
    for key in ("d", "s", "h", "x", "h", model.ENTER, "x", "C", model.ESCAPE):
        assert monitor.pressed(key) is None
    assert monitor.message == ""
    for key in ("q", " ", "z", model.ESCAPE):
        assert isinstance(monitor.pressed(key), Quit)


def test_nothing_is_stopped_of_a_run_that_has_ended() -> None:
    monitor = shown(TWO)
    monitor.heard(Over())
    assert press(monitor, "E") is None
    assert (monitor.question, monitor.message) == (None, "the run has ended")


# Moving.


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ("d", 1),
        ("jjj", 3),
        ("ddu", 1),
        ("ddk", 1),
        ("u", 0),
        ("G", 100),
        ("Gdd", 100),
        ("Ggd", 1),
        ("Gg", 0),
    ],
)
def test_characters_that_move_the_cursor(keys: str, place: int) -> None:
    monitor = shown(run(*(engine(rank) for rank in range(100))))
    press(monitor, *keys)
    assert monitor.cursor == place


@pytest.mark.parametrize(
    ("keys", "place", "top"),
    [
        ((model.DOWN,), 1, 0),
        ((model.PAGE_DOWN,), 16, 0),
        ((model.PAGE_DOWN, model.DOWN), 17, 1),
        ((model.PAGE_DOWN, model.PAGE_DOWN), 32, 16),
        ((model.END,), 100, 84),
        ((model.END, model.PAGE_UP), 84, 84),
        ((model.END, model.PAGE_UP, model.UP), 83, 83),
        ((model.END, model.HOME), 0, 0),
    ],
)
def test_the_window_follows_the_cursor(keys: tuple[str, ...], place: int, top: int) -> None:
    monitor = shown(run(*(engine(rank) for rank in range(100))))
    assert monitor.layout.rows == 17
    press(monitor, *keys)
    assert (monitor.cursor, monitor.top) == (place, top)


def test_the_cursor_stays_in_a_window_that_becomes_smaller() -> None:
    monitor = shown(large(100))
    press(monitor, model.PAGE_DOWN)
    monitor.resized(80, 10)
    assert monitor.top <= monitor.cursor < monitor.top + monitor.layout.rows


def test_the_cursor_stays_on_its_engine_whatever_comes_and_goes() -> None:
    monitor = shown(TWO)
    press(monitor, *"ddd")
    assert cursor(monitor) == "SSH1"
    monitor.heard(Seen(run(*TWO.engines, engine(3, "delta"), engine(4, "epsilon"))))
    assert cursor(monitor) == "SSH1"
    monitor.heard(Seen(run(engine(0, "alpha"))))
    assert cursor(monitor) == "alpha", "the last that there is"


def test_an_engine_and_a_context_of_the_same_rank_are_not_confused() -> None:
    monitor = shown(TWO)
    press(monitor, "d")
    assert cursor(monitor) == "alpha"
    monitor.heard(Seen(TWO))
    assert cursor(monitor) == "alpha"


# Looking in another way.


@pytest.mark.parametrize(
    ("times", "order"),
    [
        (0, ["SSH0", "b", "a", "c"]),
        (1, ["SSH0", "a", "b", "c"]),
        (2, ["SSH0", "c", "b", "a"]),
        (3, ["SSH0", "a", "b", "c"]),
        (5, ["SSH0", "b", "c", "a"]),
        (6, ["SSH0", "c", "b", "a"]),
        (8, ["SSH0", "a", "c", "b"]),
        (9, ["SSH0", "b", "a", "c"]),
    ],
)
def test_sorting(times: int, order: list[str]) -> None:
    engines = (
        engine(0, "b", active=1, finished=9, failed=1, heard=BEGAN + 90),
        engine(1, "a", active=4, finished=5, failed=0, heard=BEGAN + 10),
        engine(2, "c", active=0, finished=7, failed=5, heard=BEGAN + 50, cut=True),
    )
    monitor = shown(run(*engines))
    press(monitor, model.END, *"s" * times) if times else None
    assert names(monitor) == order
    if times:
        assert monitor.cursor == 0
        press(monitor, "r")
        assert names(monitor) == ["SSH0", *reversed(order[1:])]
        assert "the other way round" in monitor.message


def test_contexts_are_sorted_too_and_keep_their_engines() -> None:
    monitor = shown(TWO)
    press(monitor, *"ssss")
    assert monitor.sort == "assigned"
    press(monitor, *"ss")
    assert monitor.sort == "failed"
    assert names(monitor) == ["SSH0", "beta", "alpha", "SSH1", "gamma"]
    press(monitor, "r")
    assert names(monitor) == ["SSH1", "gamma", "SSH0", "alpha", "beta"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bet", ["SSH0", "beta"]),
        ("A", ["SSH0", "alpha", "beta", "SSH1", "gamma"]),
        ("ssh1", ["SSH1", "gamma"]),
        ("cut off", ["SSH0", "beta"]),
        ("nowhere", []),
    ],
)
def test_a_filter_leaves_what_has_the_text_in_it(text: str, found: list[str]) -> None:
    monitor = shown(run(engine(0, "alpha"), engine(1, "beta", cut=True), engine(2, "gamma", 1)))
    press(monitor, "/", *text)
    assert names(monitor) == found
    press(monitor, model.ENTER)
    assert (monitor.is_typing, names(monitor)) == (False, found)
    press(monitor, model.ESCAPE)
    assert len(names(monitor)) == 5


def test_a_filter_is_typed_with_any_letters_and_mended() -> None:
    monitor = shown(TWO)
    press(monitor, "/", *"qEh", "\x01", model.BACKSPACE, model.DOWN)
    assert (monitor.filter, monitor.is_typing) == ("qE", True)
    press(monitor, model.ESCAPE)
    assert (monitor.filter, monitor.is_typing) == ("", False)


def test_a_filter_goes_on_for_what_comes_later() -> None:
    monitor = shown(TWO)
    press(monitor, "/", *"delta", model.ENTER)
    assert names(monitor) == []
    monitor.heard(Seen(run(*TWO.engines, engine(3, "delta"))))
    assert names(monitor) == ["SSH0", "delta"]


def test_what_has_gone_can_be_hidden() -> None:
    state = run(
        engine(0, "alpha"), engine(1, "beta", status=GONE), engine(2, "gamma", 1, status=GONE),
        contexts=(context(0), context(1, gone=True)),
    )  # fmt: skip
    monitor = shown(state)
    press(monitor, "x")
    assert names(monitor) == ["SSH0", "alpha"]
    press(monitor, "x")
    assert names(monitor) == ["SSH0", "alpha", "beta", "SSH1", "gamma"]


# Details and help.


def test_details_of_an_engine_tell_what_runs_there() -> None:
    monitor = shown(TWO)
    press(monitor, *"dd", model.ENTER)
    assert monitor.page == model.DETAILS
    assert cursor(monitor) == "beta"
    tasks = []
    for engine_rank in (0, 1):
        monitor.heard(Listed(engine_rank, (task(6),), 3))
        tasks.append((monitor.tasks, monitor.more_tasks))
    assert tasks == [(None, 0), ((task(6),), 3)], "first come those of another engine"
    monitor.heard(Seen(run(engine(0, "alpha"), engine(1, "beta", finished=50))))
    row = monitor.under_cursor
    assert row is not None
    assert row.finished == 50
    press(monitor, model.ESCAPE)
    assert (monitor.page, monitor.looking_at) == (model.TABLE, None)


def test_only_of_an_engine_and_only_by_who_may_know_it_is_asked_what_runs() -> None:
    asked: list[int | None] = []
    for may_stop in (True, False):
        monitor = shown(TWO, may_stop=may_stop)
        for keys in ((model.ENTER,), (model.ESCAPE, "d", "d", model.ENTER), (model.ESCAPE,)):
            press(monitor, *keys)
            asked.append(monitor.engine_asked_about)
    assert asked == [None, 1, None, None, None, None]


def test_details_and_help_scroll_as_far_as_they_go() -> None:
    monitor = shown(TWO)
    press(monitor, "d", model.ENTER)
    monitor.heard(Listed(0, tuple(task(number) for number in range(100)), 1))
    press(monitor, model.END)
    assert monitor.scroll + monitor.layout.rows + 1 == len(model.FACTS) + 101
    press(monitor, "u")
    assert monitor.scroll + monitor.layout.rows + 2 == len(model.FACTS) + 101
    monitor.heard(Listed(0, (), 0))
    assert monitor.scroll == 0
    press(monitor, "h")
    monitor.resized(80, 10)
    press(monitor, model.PAGE_DOWN, model.PAGE_DOWN, model.PAGE_DOWN, model.PAGE_DOWN, model.PAGE_DOWN)
    assert monitor.scroll + monitor.layout.rows + 1 == len(KEYS)


def test_help_is_left_by_the_keys_that_open_it_and_by_escape() -> None:
    for opens in "h?":
        for leaves in ("h", "?", model.ESCAPE):
            monitor = shown(TWO)
            press(monitor, opens)
            assert monitor.page == model.HELP
            press(monitor, leaves)
            assert monitor.page == model.TABLE


def test_help_tells_of_every_key() -> None:
    text = " ".join(f"{keys} {meaning}" for keys, meaning in KEYS)
    for key in ("u", "d", "j", "k", "g", "G", "Enter", "E", "C", "y", "!", "n", "s", "r", "/", "x", "h", "?", "q"):
        assert key in text.replace(",", " ").split(), key


# Stopping.


@pytest.mark.parametrize(
    ("moves", "key", "title", "order"),
    [
        ("d", "E", "engine 0 on alpha", messages.StopEngine),
        ("d", "C", "context SSH0", messages.StopContext),
        ("", "C", "context SSH0", messages.StopContext),
        ("dddd", "E", "engine 2 on gamma", messages.StopEngine),
        ("dddd", "C", "context SSH1", messages.StopContext),
    ],
)
@pytest.mark.parametrize(("answer", "now"), [("y", False), ("!", True)])
def test_what_is_under_the_cursor_is_stopped_after_a_question(
    moves: str, key: str, title: str, order: type[messages.StopEngine | messages.StopContext], answer: str, *, now: bool
) -> None:
    monitor = shown(TWO)
    assert press(monitor, *moves, key) is None
    assert monitor.question == next(row for row in monitor.rows if row.title == title)
    assert press(monitor, "z", model.DOWN, "d", answer) == Stop(order(int(title.split()[1][-1]), now), title)
    monitor.heard(Answered("told it"))
    assert monitor.message == "told it"


def test_who_would_stop_an_engine_stops_no_context() -> None:
    monitor = shown(TWO)
    assert press(monitor, "E") is None
    assert (monitor.question, monitor.message) == (None, "E stops engines; C stops the context under the cursor")
    assert press(monitor, "y") is None


@pytest.mark.parametrize("answer", ["n", "q", model.ESCAPE])
def test_nothing_is_stopped_without_a_yes(answer: str) -> None:
    monitor = shown(TWO)
    assert press(monitor, "d", "E", answer) is None
    assert (monitor.question, monitor.message) == (None, "engine 0 on alpha goes on")


def test_the_question_is_about_the_same_engine_when_the_table_has_changed() -> None:
    monitor = shown(TWO)
    press(monitor, "d", "E")
    monitor.heard(Seen(run(engine(5, "other"), engine(6, "beta"))))
    assert press(monitor, "y") == Stop(messages.StopEngine(0, now=False), "engine 0 on alpha")


def test_the_engine_whose_details_are_shown_can_be_stopped() -> None:
    monitor = shown(TWO)
    assert press(monitor, "d", model.ENTER, "E", "y") == Stop(messages.StopEngine(0, now=False), "engine 0 on alpha")


def test_who_has_gone_is_not_stopped_again() -> None:
    monitor = shown(run(engine(0, "alpha", status=GONE)))
    assert press(monitor, "d", "E") is None
    assert (monitor.question, monitor.message) == (None, "engine 0 on alpha has gone already")


def test_one_who_only_looks_is_told_so() -> None:
    monitor = shown(TWO, may_stop=False)
    for key in "EC":
        assert press(monitor, key) is None
        assert monitor.question is None
        assert "gives no right to stop" in monitor.message


def test_there_may_be_nothing_to_stop() -> None:
    monitor = shown(None)
    press(monitor, "E")
    assert monitor.message == "there is nothing to stop"
    monitor = shown(run(engine(0, "stray", 7), contexts=()))
    press(monitor, "C")
    assert monitor.message == "its context is not known"


# Whatever happens.


def test_the_lines_of_a_window_are_all_used() -> None:
    for height in range(1, 60):
        parts = layout(height)
        assert parts.header + parts.heading + parts.rows + parts.footer == height
        assert min(parts.header, 1) == 1
        assert parts.rows or height < 3


KEYS_AT_RANDOM = st.sampled_from(
    [
        *string.printable, "é", "日", "\udcff",
        *(model.UP, model.DOWN, model.PAGE_UP, model.PAGE_DOWN, model.HOME, model.END),
        *(model.ENTER, model.ESCAPE, model.BACKSPACE),
        *"ECEC!yndsrx/",
    ]
)  # fmt: skip

HAPPENINGS = st.lists(
    KEYS_AT_RANDOM
    | st.builds(Seen, st.none() | states)
    | st.builds(Listed, st.integers(0, 12), st.lists(tasks, max_size=40).map(tuple), st.integers(0, 5))
    | st.builds(Failed, st.text(max_size=20))
    | st.builds(Answered, st.text(max_size=20))
    | st.tuples(st.integers(1, 300), st.integers(1, 100))
    | st.floats(0.001, 1e5),
    max_size=40,
)


@given(HAPPENINGS)
def test_the_cursor_is_always_on_something_that_is_there(happenings: list[object]) -> None:
    monitor, clock = Monitor(), 0.0
    monitor.passed(BEGAN, clock)
    for happening in happenings:
        if isinstance(happening, str):
            monitor.pressed(happening)
        elif isinstance(happening, tuple):
            monitor.resized(*happening)
        elif isinstance(happening, float):
            clock += happening
            monitor.passed(BEGAN + clock, clock)
        else:
            assert isinstance(happening, Seen | Listed | Failed | Answered)
            monitor.heard(happening)
        there = len(monitor.rows)
        assert monitor.cursor == 0 if not there else 0 <= monitor.cursor < there
        assert 0 <= monitor.top <= max(0, there - 1)
        assert not there or not monitor.layout.rows or monitor.top <= monitor.cursor < monitor.top + monitor.layout.rows
        assert monitor.scroll >= 0
        assert isinstance(monitor.under_cursor, Row | None)
