from __future__ import annotations

import io
import re

import pytest

from disbatch.progress.drawing import Drawing
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


def drawn(monkeypatch: pytest.MonkeyPatch, width: int) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "24")
    return Drawing(Terminal()).of(run(engine(0), failed=1), Pace())


def plain(text: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", text)


def test_a_line_has_a_bar_figures_and_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    line = drawn(monkeypatch, 100)
    assert plain(line).endswith("25/100 done  1 failed  3 running  70 waiting  3/4 places")
    assert plain(line).startswith("\u2501" * 5)
    assert "\x1b[1;31m1 failed" in line


@pytest.mark.parametrize("width", [1, 2, 10, 40, 60, 80, 200])
def test_it_leaves_the_last_column_free_and_moves_no_cursor(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    line = drawn(monkeypatch, width)
    assert len(plain(line)) < max(2, width)
    assert plain(line).isprintable()


def test_who_wants_no_colours_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in drawn(monkeypatch, 100)
