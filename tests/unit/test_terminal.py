from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING

import pytest

from disbatch import terminal
from disbatch.terminal import print_line, tell

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_line_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    tell("all is well")
    assert capsys.readouterr() == ("", "disbatch: all is well\n")


class Gone(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def closed() -> io.StringIO:
    file = io.StringIO()
    file.close()
    return file


@pytest.mark.parametrize("terminal", [Gone, closed])
def test_a_terminal_that_has_gone_disturbs_nothing(
    monkeypatch: pytest.MonkeyPatch, terminal: Callable[[], io.StringIO]
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal())
    tell("still there?")


def test_who_draws_on_the_same_terminal_may_print_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    taken: list[str] = []
    terminal.hand_over(taken.append)
    tell("first")
    print_line("at once")
    terminal.take_back()
    tell("last")
    assert taken == ["first"]
    assert capsys.readouterr().err == "disbatch: at once\ndisbatch: last\n"
