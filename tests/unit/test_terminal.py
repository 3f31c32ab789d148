from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING

import pytest

from disbatch import terminal
from disbatch.errors import DisbatchError
from disbatch.terminal import answer, print_line, tell

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


def test_what_was_asked_for_is_printed_in_the_characters_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer("caf\u00e9\ttab")
    assert capsys.readouterr() == ("caf\u00e9\ttab\n", "")
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    answer("caf\u00e9")
    assert out.buffer.getvalue() == b"caf\\xe9\n"


def test_who_has_read_enough_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Gone())
    answer("a line")


def test_a_closed_standard_output_is_an_error_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(DisbatchError, match="cannot write to standard output: it is closed"):
        answer("a line")


def test_what_was_asked_for_and_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(DisbatchError, match="cannot write to standard output: No space left on device"):
            answer("a line")
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
