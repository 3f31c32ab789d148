from __future__ import annotations

import io
import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from disbatch import terminal
from disbatch.progress import screen as module
from disbatch.progress.screen import Bar, Lines, Screen, screen_for
from disbatch.terminal import tell
from disbatch.watch.pace import Pace
from tests.unit.watch.examples import engine, posted, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from disbatch.watch.state import RunState

DEADLINE = 20.0
RUN = run(engine(0))


@pytest.fixture(autouse=True)
def nobody_draws() -> Iterator[None]:
    yield
    terminal.take_back()


class Writer:
    """Notes what it is to write, and stops at a gate that a test may close."""

    pause = 0.001

    def __init__(self) -> None:
        self.told: list[str] = []
        self.news: list[str] = []
        self.cleared = 0
        self.shown = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def tell(self, text: str) -> None:
        if self.failure:
            raise self.failure
        self.told.append(text)

    def show(self, state: RunState, pace: Pace, news: Sequence[str]) -> None:
        assert (state.job, pace.left(1)) == (RUN.job, pace.left(1))
        self.news += news
        self.shown.set()
        self.gate.wait(DEADLINE)

    def clear(self) -> None:
        self.cleared += 1


@pytest.fixture
def writer() -> Writer:
    return Writer()


def shown(writer: Writer) -> Screen:
    screen = Screen(lambda: writer)
    screen.show(posted(RUN))
    screen.begin()
    assert writer.shown.wait(DEADLINE)
    return screen


def test_what_is_told_meanwhile_is_written_by_it(writer: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    screen = shown(writer)
    tell("a word")
    screen.end()
    tell("after it")
    assert writer.told == ["a word"]
    assert writer.cleared == 1
    assert capsys.readouterr().err == "disbatch: after it\n"


def test_what_has_happened_between_two_states_is_news(writer: Writer) -> None:
    screen = shown(writer)
    writer.shown.clear()
    screen.show(posted(run(engine(0), engine(1))))
    while not writer.news:
        assert writer.shown.wait(DEADLINE)
        writer.shown.clear()
    screen.end()
    assert writer.news == ["the engine on h1 came, with 4 places"]


def test_who_hides_it_returns_when_it_has_gone(writer: Writer) -> None:
    screen = shown(writer)
    screen.hide()
    assert writer.cleared == 1
    screen.end()


def test_a_terminal_that_takes_nothing_stops_nobody(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST_PATIENCE", 0.01)
    writer.gate.clear()
    screen = shown(writer)
    for number in range(1000):
        tell(f"{number}")
        screen.show(posted(RUN))
    screen.hide()
    screen.end()
    assert writer.told == []
    writer.gate.set()
    screen._thread.join(DEADLINE)
    assert not screen._thread.is_alive()


def test_what_waits_for_a_terminal_that_takes_nothing_is_bounded(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_TOLD", 3)
    writer.gate.clear()
    screen = shown(writer)
    for number in range(10):
        tell(f"{number}")
    writer.gate.set()
    screen.end()
    assert writer.told == ["0", "1", "2"]


def test_whatever_is_wrong_with_the_drawing_what_is_told_is_read(
    writer: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    writer.failure = RuntimeError("a bug")
    screen = shown(writer)
    tell("a word")
    tell("and another")
    screen.end()
    assert capsys.readouterr().err.splitlines() == [
        "disbatch: how far the run is cannot be drawn here: a bug",
        "disbatch: a word",
        "disbatch: and another",
    ]
    assert writer.cleared == 1, "no line of it is left"
    assert not screen._thread.is_alive()


def test_who_hides_it_does_not_wait_for_a_terminal_that_has_gone(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise BrokenPipeError

    monkeypatch.setattr(module, "LAST_PATIENCE", 3600.0)
    screen = shown(writer)
    monkeypatch.setattr(writer, "clear", fail)
    screen.hide()
    screen.end()


def test_where_no_thread_can_be_started_the_run_does_without(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    screen = Screen(lambda: writer)
    screen.begin()
    tell("a word")
    screen.hide()
    screen.end()
    assert capsys.readouterr().err == "disbatch: a word\n"


def test_where_nothing_can_be_drawn_at_all_what_is_told_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Writer:
        raise RuntimeError("a bug")

    screen = Screen(fail)
    screen.show({"a state": "that cannot be read"})
    screen.begin()
    tell("a word")
    screen.end()
    assert capsys.readouterr().err.splitlines()[-1] == "disbatch: a word"


def test_a_terminal_that_has_gone_disturbs_nobody(writer: Writer) -> None:
    writer.failure = BrokenPipeError()
    screen = shown(writer)
    tell("a word")
    screen.end()
    assert not screen._thread.is_alive()


# Writers


def test_a_log_gets_a_line_now_and_then_ever_more_rarely(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    pauses = []
    for _ in range(6):
        pauses.append(lines.pause)
        lines.show(RUN, Pace(), ["an engine came"])
    assert pauses == [60.0, 120.0, 240.0, 480.0, 900.0, 900.0]
    lines.tell("a word")
    lines.clear()
    said = capsys.readouterr().err
    assert said.isascii()
    assert all(line.isprintable() for line in said.splitlines())
    assert said.count("disbatch: 25/100 done, ") == 6
    assert said.endswith("disbatch: a word\n")
    assert "came" not in said


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


@pytest.fixture
def foreground(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether this program is in the foreground of its terminal."""
    is_it = [True]
    monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp() if is_it[0] else -1)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return is_it


@pytest.mark.usefixtures("foreground")
def test_a_line_is_drawn_in_its_place_below_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    bar = Bar(stream)
    bar.show(RUN, Pace(), [])
    bar.tell("a word")
    bar.show(RUN, Pace(), ["an engine came"])
    bar.clear()
    bar.clear()
    line, word, came, last = (
        stream.getvalue().replace("\x1b[K", "<K>").split("\n")[0].partition("<K>")[0],
        *(stream.getvalue().replace("\x1b[K", "<K>").split("\n")),
    )
    assert line.startswith("\r")
    assert word.endswith("\r<K>disbatch: a word")
    assert came == "disbatch: an engine came"
    assert last.endswith("<K>\r<K>")
    assert last.count("<K>") == 2


def test_in_the_background_nothing_is_drawn(foreground: list[bool]) -> None:
    stream = Terminal()
    bar = Bar(stream)
    foreground[0] = False
    bar.show(RUN, Pace(), [])
    bar.clear()
    assert stream.getvalue() == ""


def test_a_stream_that_is_no_terminal_any_more_is_not_drawn_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> int:
        raise OSError

    monkeypatch.setattr(os, "tcgetpgrp", fail)
    stream = Terminal()
    Bar(stream).show(RUN, Pace(), [])
    assert stream.getvalue() == ""


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_that_cannot_draw_gets_lines(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", term)
    assert isinstance(screen_for("auto")._make_writer(), Lines)


def test_what_is_shown_depends_on_where_and_on_the_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert screen_for("on")._make_writer().pause == module.LINES_ASKED_FOR
    assert screen_for("auto")._make_writer().pause == module.FIRST_LINE
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(screen_for("auto")._make_writer(), Bar)
    monkeypatch.setitem(sys.modules, "disbatch.progress.drawing", None)
    assert isinstance(module._made(screen_for("on")._make_writer), Lines), "where rich is not installed"
