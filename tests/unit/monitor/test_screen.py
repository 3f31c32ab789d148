"""The terminal's side, each time in a process of its own: curses has one terminal in the life of one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import Workplace
from tests.e2e.window import ALTERNATE, DOWN, NORMAL, PAGE_DOWN, UP, Window

if TYPE_CHECKING:
    from pathlib import Path

SHOWING = """
import os, sys, time
from disbatch.monitor import render
from disbatch.monitor.screen import Screen, check_terminal
PICTURE = [[("first", render.STRONG), (" line", render.BAD)], [], [("third", render.CURSOR)]]
PICTURE.append([("日本 end", render.GOOD)])
check_terminal(os.environ)
with Screen(os.environ) as screen:
"""
"""Beginning of a program; what it does with the screen follows."""

ECHO = """
    seen = []
    while "q" not in seen:
        screen.draw([*PICTURE, [(repr(seen), render.PLAIN)]])
        seen += screen.keys()
        time.sleep(0.01)
"""


def showing(tmp_path: Path, body: str, *, size: tuple[int, int] = (40, 10), **env: str) -> Window:
    return Window(Workplace(tmp_path), [sys.executable, "-c", SHOWING + body], size=size, env=env)


def test_what_is_drawn_is_on_the_screen_and_what_was_there_before_comes_back(tmp_path: Path) -> None:
    with showing(tmp_path, ECHO) as terminal:
        terminal.shows("日本 end")
        assert terminal.lines[:3] == ["first line", "", "third"]
        terminal.press("q")
        assert terminal.ends() == 0
        assert terminal.attributes == terminal.attributes_before
        assert terminal.written.index(ALTERNATE) < terminal.written.index(b"first") < terminal.written.index(NORMAL)


def test_keys_have_the_names_that_the_model_knows(tmp_path: Path) -> None:
    with showing(tmp_path, ECHO, size=(100, 10)) as terminal:
        terminal.shows("[]")
        terminal.press(f"aé\r{UP}{DOWN}{PAGE_DOWN}\x7f")
        terminal.shows("['a', 'é', 'enter', 'up', 'down', 'page down', 'backspace']")
        terminal.press("\x1b")
        terminal.shows("'backspace', 'escape']")
        terminal.press("q")
        assert terminal.ends() == 0


def test_a_mistake_in_the_program_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    with showing(tmp_path, "\n    screen.draw(PICTURE)\n    raise ZeroDivisionError\n") as terminal:
        assert terminal.ends() == 1
        assert terminal.attributes == terminal.attributes_before
        assert terminal.written.index(NORMAL) < terminal.written.index(b"ZeroDivisionError")


def test_no_picture_is_too_large_for_any_window(tmp_path: Path) -> None:
    body = """
    large = [[("x" * 300, render.BAD)]] * 100
    screen.draw(large)
    print(screen.size, file=sys.stderr)
"""
    for size in ((1, 1), (3, 2), (2, 3)):
        with showing(tmp_path, body, size=size) as terminal:
            assert terminal.ends() == 0
            assert str(size).encode() in terminal.written


@pytest.mark.parametrize(("kind", "no_color", "coloured"), [
    ("xterm-256color", "", True),
    ("xterm-256color", "1", False),
    ("vt100", "", False),
    ("linux", "", True),
])  # fmt: skip
def test_colours_are_for_terminals_that_have_them_and_users_that_want_them(
    tmp_path: Path, kind: str, no_color: str, *, coloured: bool
) -> None:
    with showing(tmp_path, "\n    screen.draw(PICTURE)\n", TERM=kind, NO_COLOR=no_color) as terminal:
        assert terminal.ends() == 0
        assert (b"\x1b[31m" in terminal.written) is coloured
        assert b"first" in terminal.written


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("dumb", "--mon needs more than this kind of terminal can do, TERM='dumb' (--status prints the same once)"),
        ("no-such", "--mon does not know this kind of terminal, TERM='no-such' (--status prints the same once)"),
        ("", "--mon does not know this kind of terminal, TERM='' (--status prints the same once)"),
    ],
)
def test_a_terminal_that_cannot_do_it_is_refused_in_words(tmp_path: Path, kind: str, complaint: str) -> None:
    with showing(tmp_path, ECHO, size=(200, 20), TERM=kind) as terminal:
        assert terminal.ends() == 1
        assert complaint in terminal.text
        assert b"\x1b" not in terminal.written


def test_what_is_no_terminal_is_refused_in_words(tmp_path: Path) -> None:
    work = Workplace(tmp_path)
    done = work.run("-c", SHOWING + ECHO, program=[sys.executable])
    assert done.complaints[-1].endswith(
        "--mon needs a terminal, for its keys and its picture (--status prints the same once)"
    )


def test_ctrl_l_draws_all_again(tmp_path: Path) -> None:
    with showing(tmp_path, ECHO) as terminal:
        terminal.shows("third")
        before = terminal.written.count(b"third")
        terminal.press("\f")
        terminal.until(lambda: terminal.written.count(b"third") > before, "new picture")
        terminal.press("q")
        assert terminal.ends() == 0
