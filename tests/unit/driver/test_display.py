from __future__ import annotations

import sys
from typing import Any, cast

import pytest

from disbatch.driver.display import BEGIN_AFTER, Display
from disbatch.progress import screen as progress


class Timer:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    def __init__(self) -> None:
        self.later: list[tuple[float, Any]] = []
        self.timer = Timer()

    def after(self, seconds: float, action: object) -> Timer:
        self.later.append((seconds, action))
        return self.timer


class Screen:
    def __init__(self) -> None:
        self.done: list[object] = []

    def show(self, state: object) -> None:
        self.done.append(state)

    def begin(self) -> None:
        self.done.append("begin")

    def hide(self) -> None:
        self.done.append("hide")

    def end(self) -> None:
        self.done.append("end")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    made = Screen()
    monkeypatch.setattr(progress, "screen_for", lambda wish: {"auto": made}[wish])
    return made


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_something_is_shown_when_the_run_has_gone_on_for_a_while(screen: Screen, loop: Loop) -> None:
    display = Display(cast("Any", loop), "auto", "a hint")
    display.show({"n": 1})
    display.show({"n": 2})
    display.hide()
    assert screen.done == []
    ((seconds, begin),) = loop.later
    assert seconds == BEGIN_AFTER
    begin()
    display.show({"n": 3})
    display.hide()
    display.close()
    assert screen.done == [{"n": 2}, "begin", {"n": 3}, "hide", "end"]


def test_a_run_that_is_over_before_shows_nothing(screen: Screen, loop: Loop) -> None:
    Display(cast("Any", loop), "auto", "a hint").close()
    assert loop.timer.cancelled
    assert screen.done == []


def test_a_run_of_which_nothing_was_posted_shows_that_later(screen: Screen, loop: Loop) -> None:
    Display(cast("Any", loop), "auto", "a hint")
    loop.later[0][1]()
    assert screen.done == ["begin"]


def test_who_wants_to_see_nothing_sees_nothing(screen: Screen, loop: Loop) -> None:
    display = Display(cast("Any", loop), "off", "a hint")
    display.show({})
    display.close()
    assert (loop.later, screen.done) == ([], [])


@pytest.mark.parametrize(("is_terminal", "told"), [(True, "disbatch: a hint\n"), (False, "")])
@pytest.mark.usefixtures("screen")
def test_a_terminal_gets_a_hint(
    loop: Loop,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_terminal: bool,
    told: str,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    Display(cast("Any", loop), "auto", "a hint")
    loop.later[0][1]()
    assert capsys.readouterr().err == told
