from __future__ import annotations

import io
import os
import re

import pytest

from disbatch.progress.drawing import Drawing
from disbatch.watch import locales
from disbatch.watch.pace import Pace
from tests.unit.watch.examples import engine, run


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)


def drawn(monkeypatch: pytest.MonkeyPatch, width: int, *, unicode: bool = True) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setattr(locales, "is_utf8", lambda: unicode)
    return Drawing(Terminal()).of(run(engine(0), failed=1), Pace())


def plain(text: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", text)


def test_a_line_has_a_bar_figures_and_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    line = drawn(monkeypatch, 100)
    assert plain(line).endswith("25/100 done  1 failed  3 running  70 waiting  3/4 places")
    assert plain(line).startswith(f"{'█' * 5}{'░' * 15}  25/100")
    assert "\x1b[1;31m1 failed" in line


@pytest.mark.parametrize("width", [1, 2, 10, 40, 60, 80, 200])
def test_it_leaves_the_last_column_free_and_moves_no_cursor(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    line = drawn(monkeypatch, width)
    assert len(plain(line)) < max(2, width)
    assert plain(line).isprintable()


def test_who_wants_no_colours_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    line = drawn(monkeypatch, 100)
    assert "\x1b[32m" not in line
    assert plain(line).startswith(f"{'█' * 5}{'░' * 15}  25/100")


def test_a_terminal_that_takes_ascii_alone_gets_that(monkeypatch: pytest.MonkeyPatch) -> None:
    line = plain(drawn(monkeypatch, 100, unicode=False))
    assert line.startswith("[####--------------]  25/100")
    assert line.isascii()


def test_a_terminal_that_does_not_know_its_width_has_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((0, 0)))
    monkeypatch.setattr(Terminal, "fileno", lambda _: 2)
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    assert len(plain(Drawing(Terminal()).of(run(engine(0), failed=1), Pace()))) in range(60, 80)
