from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.monitor import model, render
from disbatch.monitor.cells import width
from disbatch.monitor.model import Answered, Failed, Listed, Monitor, Over, Seen
from disbatch.monitor.render import COLUMNS, Line, ago, columns_for, elapsed, frame, plain
from disbatch.records import replace
from disbatch.watch.state import DRAINING, ENDED, FINISHING, GONE, STOPPING, WORKING
from tests.unit.monitor.examples import shown
from tests.unit.watch.examples import BEGAN, context, engine, large, run, states, task, tasks

if TYPE_CHECKING:
    from disbatch.watch.state import RunningTask, RunState

TWO = run(engine(0, "alpha"), engine(1, "beta", failed=2, cut=True), engine(2, "gamma", 1, status=GONE))


def picture(monitor: Monitor, *, unicode: bool = True) -> list[str]:
    return [plain(line) for line in frame(monitor, unicode=unicode)]


def text(monitor: Monitor) -> str:
    return "\n".join(picture(monitor))


def press(monitor: Monitor, *keys: str) -> None:
    for key in keys:
        monitor.pressed(key)


def test_a_window_of_the_usual_size() -> None:
    monitor = shown(TWO)
    monitor.passed(BEGAN + 102, 52.0)
    monitor.heard(Seen(replace(TWO, finished=35, waiting=60, failed=2, time=BEGAN + 102)))
    press(monitor, "d")
    assert picture(monitor) == [
        "Tasks_disBatch_261121103000_123                                          running",
        "██████████████░░░░░░░░░░░░░░░░░░░░░░░░░░  35 %   35 of 100 tasks",
        "done 35   failed 2   running 9   waiting 60",
        "9 of 12 places in use   5.0/s   1 min 42 s so far   12 to 14 s left",
        "",
        "  context, host   state       places  assigned  finished  failed     rate  heard",
        "  SSH0            running        6/8        20        14       2    0.0/s    2 s",
        ">   alpha         running        3/4        10         7       0    0.0/s    2 s",
        "    beta          cut off        3/4        10         7       2    0.0/s    2 s",
        "  SSH1            leaving        0/0        10         7       0        -    2 s",
        "    gamma         gone           3/4        10         7       0        -    2 s",
        *[""] * 12,
        "h help   q quit   Enter details   s sort   / filter   E stop engine     1-5 of 5",
    ]


def test_a_run_that_has_just_begun() -> None:
    lines = picture(shown(None))
    assert lines[0] == "disbatch   the run has just begun"
    assert lines[6] == "  no hosts yet"


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (WORKING, "running"),
        (FINISHING, "all tasks have ended, hosts are finishing"),
        (DRAINING, "draining: what runs is to end, nothing more starts"),
        (STOPPING, "being cut short"),
        (ENDED, "ended"),
        ("of\x1blater", "of?later"),
    ],
)
def test_the_phase_in_words(phase: str, words: str) -> None:
    assert picture(shown(replace(TWO, phase=phase)))[0].endswith(f"   {words}")


def test_a_run_without_places_waits_for_hosts() -> None:
    assert picture(shown(run(contexts=(context(0),))))[0].endswith("   waiting for hosts")


@pytest.mark.parametrize(
    ("different", "line"),
    [
        ({"total": 100}, "██████████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  25 %   25 of 100 tasks"),
        ({"total": 1000, "total_is_exact": False}, "█" + "░" * 39 + "   2 %   25 of ~1,000 tasks"),
        ({"total": None}, "25 tasks done, and nobody knows how many there will be"),
        ({"total": 0, "finished": 0}, "█" * 40 + " 100 %   0 of 0 tasks"),
        ({"total": 20}, "█" * 40 + " 100 %   25 of 20 tasks"),
        ({"total": 100, "skipped": 75}, "█" * 40 + " 100 %   100 of 100 tasks"),
    ],
)
def test_how_far_the_run_is(different: dict[str, Any], line: str) -> None:
    assert picture(shown(run(engine(0), **different)))[1] == line


def test_what_is_no_everyday_matter_is_counted_only_where_there_is_some() -> None:
    assert picture(shown(TWO))[2] == "done 25   failed 0   running 9   waiting 70"
    line = picture(shown(replace(TWO, skipped=1000, interrupted=1, lost=2), width=200))[2]
    assert line.endswith("waiting 70   earlier 1,000   interrupted 1   lost 2")


def test_time_goes_on_between_two_states_and_stands_still_after_the_run() -> None:
    assert elapsed(TWO, BEGAN + 150) == 150
    assert elapsed(TWO, BEGAN + 40) == 100, "the clock of this host is slow"
    assert elapsed(TWO, BEGAN + 150, is_over=True) == 100
    assert elapsed(replace(TWO, phase=ENDED), BEGAN + 150) == 100


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "now"), (1, "now"), (2, "2 s"), (59.9, "59 s"), (60, "1 min"), (7199, "1 h"), (200_000, "2 d")],
)
def test_how_long_ago_something_was(seconds: float, words: str) -> None:
    assert ago(BEGAN, BEGAN + seconds) == words
    assert ago(None, BEGAN) == "-"


# Notices.


def test_a_silent_driver_is_said_so() -> None:
    monitor = shown(TWO)
    monitor.passed(BEGAN, 60.0)
    assert picture(monitor)[4] == "The driver has not answered for 10 s"
    monitor.heard(Failed("nobody listens there\x07"))
    assert picture(monitor)[4] == "The driver has not answered for 10 s: nobody listens there?"


@pytest.mark.parametrize("height", [24, 10, 3, 2, 1])
def test_the_end_is_said_in_every_window(height: int) -> None:
    monitor = shown(TWO, height=height)
    monitor.heard(Over())
    assert "The run has ended; this is what was seen of it last.   q quits" in text(monitor)
    monitor.heard(Seen(replace(TWO, phase=ENDED)))
    assert "The run has ended.   q quits" in text(monitor)


# The table.


@pytest.mark.parametrize(
    ("cells", "there"),
    [
        (200, 7),
        (80, 7),
        (73, 7),
        (72, 6),
        (60, 5),
        (40, 3),
        (28, 1),
        (12, 0),
        (1, 0),
    ],
)
def test_columns_give_way_in_a_narrow_window(cells: int, there: int) -> None:
    name, columns = columns_for(cells)
    assert len(columns) == there
    assert name + sum(column.cells + 1 for column in columns) <= cells
    assert name >= min(cells, 10)
    if columns:
        assert columns[0].title == "state"


def test_an_arrow_stands_at_the_column_that_is_sorted_by() -> None:
    for title, times in (("context, host", 1), ("state", 2), ("places", 3), ("failed", 6), ("heard", 8)):
        monitor = shown(TWO)
        press(monitor, *"s" * times)
        assert f"{title}▼" in picture(monitor)[5]
        press(monitor, "r")
        assert f"{title}▲" in picture(monitor)[5]
        assert f"{title}^" in picture(monitor, unicode=False)[5]


def test_figures_are_shortened_where_they_have_no_room() -> None:
    found = [render._short(count, 4) for count in (0, 999, 1000, 9999, 12_345, 9_999_999, 10**10, 10**30)]
    assert found == ["0", "999", "1000", "9999", "12k", "9M", "10G", "999+"]


def test_the_line_under_the_cursor_is_marked_in_its_whole_width() -> None:
    monitor = shown(TWO)
    (line,) = (line for line in frame(monitor) if any(style == render.CURSOR for _, style in line))
    assert len(line) == 1
    assert width(line[0][0]) == 80
    assert line[0][0].startswith("> SSH0")


def test_what_is_wrong_can_be_seen_without_colours() -> None:
    for word in ("cut off", "gone", "leaving"):
        assert word in text(shown(TWO))


def test_of_a_thousand_engines_only_those_are_drawn_that_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = shown(large(1000))
    press(monitor, model.END)
    drawn: list[model.Row] = []
    original = render.row_line

    def counted(row: model.Row, cells: int, now: float, *, is_under_cursor: bool = False, unicode: bool = True) -> Line:
        drawn.append(row)
        return original(row, cells, now, is_under_cursor=is_under_cursor, unicode=unicode)

    monkeypatch.setattr(render, "row_line", counted)
    assert "node0999" in text(monitor)
    assert len(drawn) == monitor.layout.rows
    assert picture(monitor)[-1].endswith("986-1002 of 1,002")


def test_a_filter_that_finds_nothing_is_shown_with_that() -> None:
    monitor = shown(TWO)
    press(monitor, "/", *"zeta")
    assert picture(monitor)[-1] == "/zeta_"
    press(monitor, model.ENTER)
    assert "nothing has that text in it" in text(monitor)
    press(monitor, model.BACKSPACE, "/", model.BACKSPACE, model.BACKSPACE, model.BACKSPACE, model.ENTER)
    assert picture(monitor)[-1].endswith('"z" ') or '"z"' in picture(monitor)[-1]


# Questions, details, help.


@pytest.mark.parametrize(
    ("cells", "question"),
    [
        (120, "Stop engine 0 on alpha? y when its tasks have ended, ! now (they run again elsewhere), n no"),
        (80, "Stop engine 0 on alpha? y when its tasks have ended, ! now, n no"),
        (50, "Stop engine 0 on alpha? y soft, ! now, n no"),
        (40, "Stop engine 0 on alpha? y ! n"),
        (28, "y ! n ?"),
        (3, "y !"),
    ],
)
def test_the_question_fits_into_the_window(cells: int, question: str) -> None:
    monitor = shown(TWO, width=cells)
    press(monitor, "d", "E")
    assert picture(monitor)[-1] == question


def test_the_last_line_names_the_key_that_stops_what_is_under_the_cursor() -> None:
    monitor = shown(TWO)
    assert "C stop context" in picture(monitor)[-1]
    press(monitor, "d")
    assert "E stop engine" in picture(monitor)[-1]


def test_a_question_shows_even_in_a_window_of_one_line() -> None:
    monitor = shown(TWO, height=1)
    press(monitor, "C")
    assert picture(monitor) == ["Stop context SSH0? y when its tasks have ended, ! now, n no"]


def test_a_long_name_is_cut_in_a_question() -> None:
    monitor = shown(run(engine(0, "x" * 300)))
    press(monitor, "d", "E")
    assert picture(monitor)[-1] == f"Stop engine 0 on {'x' * 41}…? y soft, ! now, n no"


def test_what_an_engine_runs() -> None:
    monitor = shown(run(engine(0, "alpha", host="alpha.example.org"), contexts=(context(0, "big"),)))
    press(monitor, "d", model.ENTER)
    assert "runs     asking the driver" in text(monitor)
    again = replace(task(12, "echo \x1b[31m; sleep 9", since=BEGAN - 20), attempt=2)
    monitor.heard(Listed(0, (task(7), again), 1200))
    assert picture(monitor)[5:18] == [
        "  state    engine 0 on alpha: running",
        "  host     alpha, which is alpha.example.org",
        "  context  big (SSH)",
        "  process  4000",
        "  places   3 of 4 in use",
        "  tasks    10 assigned, 7 finished",
        "  failed   0",
        "  rate     -",
        "  heard    0.0 s ago",
        "  runs     task, since when, command",
        "          7          10 s  ./simulate",
        "         12         2 min (attempt 2)  echo ?[31m; sleep 9",
        "    and 1,200 more",
    ]
    monitor.heard(Listed(0, (), 0))
    assert "runs     nothing" in text(monitor)


def test_one_who_only_looks_sees_no_commands() -> None:
    monitor = shown(TWO, may_stop=False)
    press(monitor, "d", model.ENTER)
    assert "runs     the file for observers gives no right to see commands" in text(monitor)


def test_details_of_a_context() -> None:
    monitor = shown(run(engine(0), contexts=(context(0, engines=(0,), task_limit=50),)))
    press(monitor, model.ENTER)
    for line in (
        "state    context SSH0: running",
        "context  SSH, 1 engine",
        "tasks    10 assigned, 7 finished, 50 at most",
        "runs     3 tasks; Enter on an engine shows those",
    ):
        assert line in text(monitor)


def test_there_are_as_many_facts_as_the_model_counts() -> None:
    monitor = shown(run(engine(0, "stray", 7), contexts=()))
    press(monitor, model.ENTER)
    assert monitor.looking_at is not None
    assert len(render._facts(monitor, monitor.looking_at)) == len(model.FACTS)
    monitor.heard(Seen(run()))
    assert len(render._facts(monitor, monitor.looking_at)) == len(model.FACTS), "of one that is known no more"


def test_help_fits_into_a_window_of_the_usual_size() -> None:
    monitor = shown(TWO)
    press(monitor, "h")
    for keys, meaning in model.KEYS:
        assert f"  {keys:<18}{meaning}".rstrip() in text(monitor)


def test_a_message_takes_the_place_of_the_hints() -> None:
    monitor = shown(TWO)
    monitor.heard(Answered("told engine 0 on alpha\n"))
    assert picture(monitor)[-1] == "told engine 0 on alpha?"
    press(monitor, "u")
    assert picture(monitor)[-1].startswith("h help")


# Whatever there is to show, and in whatever window.


@given(
    st.none() | states,
    st.integers(1, 300),
    st.integers(1, 100),
    st.lists(
        st.sampled_from(["d", "E", "C", "h", "/", "a", "日", "s", "r", "x", model.ENTER, model.ESCAPE]), max_size=8
    ),
    st.lists(tasks, max_size=30).map(tuple),
    st.booleans(),
)
def test_a_picture_is_never_larger_than_its_window_nor_does_it_harm(
    state: RunState | None,
    cells: int,
    height: int,
    keys: list[str],
    running: tuple[RunningTask, ...],
    unicode: bool,
) -> None:
    monitor = shown(state, width=cells, height=height)
    for key in keys:
        monitor.pressed(key)
        if monitor.looking_at is not None:
            monitor.heard(Listed(monitor.looking_at.rank, running, 3))
    lines = frame(monitor, unicode=unicode)
    assert len(lines) == height
    for line in lines:
        assert sum(width(text) for text, _ in line) <= cells
        for text, style in line:
            assert text.isprintable()
            assert unicode or text.isascii()
            assert style in vars(render).values()


@pytest.mark.parametrize("height", [1, 2, 3, 5, 10, 24, 100])
def test_every_size_has_a_picture(height: int) -> None:
    for cells in range(1, 301):
        lines = frame(shown(TWO, width=cells, height=height))
        assert len(lines) == height
        assert all(sum(width(text) for text, _ in line) <= cells for line in lines)


def test_columns_have_ranks_of_their_own() -> None:
    assert len({column.rank for column in COLUMNS}) == len(COLUMNS)
