"""What a shell is told; that shells make of it what a user wants is for the end-to-end tests."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from disbatch import cli, completion
from disbatch.values import LOG_LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Complete = Callable[..., list[str]]


@pytest.fixture
def complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """Ask for completions of a line, typed in a directory with a file `Tasks` and a directory `out`."""
    argcomplete = pytest.importorskip("argcomplete", reason="not installed: argcomplete")
    # It takes descriptor 9 for its own, which is one of pytest's.
    monkeypatch.setattr(argcomplete.CompletionFinder, "_init_debug_stream", lambda _: None)
    place = tmp_path / "place"
    (place / "out").mkdir(parents=True)
    (place / "Tasks").touch()
    monkeypatch.chdir(place)

    def ask(line: str, *arguments: str, of: str = "bash") -> list[str]:
        answer = tmp_path / "answer"
        for name, value in {
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_IFS": "\n",
            "_ARGCOMPLETE_SHELL": of,
            "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
            "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
        }.items():
            monkeypatch.setenv(name, value)
        left: list[int] = []
        completion.answer(arguments, leave=left.append)
        assert left == [0]
        return sorted(answer.read_text(encoding="utf-8").splitlines())

    return ask


def test_names_of_options_are_completed(complete: Complete) -> None:
    assert complete("disbatch --log") == ["--logfile", "--loglevel"]
    assert complete("disbatch Tasks -e --res") == ["--resume-from"]
    assert {"-s", "--ssh-node", "--help", "--version"} <= set(complete("disbatch -"))


def test_what_one_can_do_with_a_run_is_offered_as_the_first_word(complete: Complete) -> None:
    assert complete("disbatch --m") == ["--mailFreq", "--mailTo", "--mon"]
    assert complete("disbatch --fai") == ["--fail-fast", "--failures"]
    assert complete("disbatch -e --m") == ["--mailFreq", "--mailTo"]
    assert complete("disbatch --mon --mail") == []


@pytest.mark.parametrize("role", ["--mon", "--status", "--failures"])
def test_who_does_that_is_offered_files_and_what_goes_with_it(complete: Complete, role: str) -> None:
    assert complete(f"disbatch {role} ") == ["Tasks", "out/"]
    assert "--json" in complete(f"disbatch {role} --j")


def test_options_that_are_not_in_the_help_are_not_offered(complete: Complete) -> None:
    assert complete("disbatch --env") == []


def test_log_levels_are_completed(complete: Complete) -> None:
    assert complete("disbatch --loglevel ") == sorted(LOG_LEVELS)
    assert complete("disbatch --loglevel DE") == ["DEBUG"]
    assert complete("disbatch --loglevel=DE") == ["--loglevel=DEBUG"]


@pytest.mark.parametrize("before", ["", "-p ", "--logfile ", "-r ", "-e -r Tasks -r "])
def test_where_a_path_goes_files_are_offered(complete: Complete, before: str) -> None:
    assert complete(f"disbatch {before}") == ["Tasks", "out/"]


@pytest.mark.parametrize("before", ["-c ", "-s ", "-l ", "--use-address "])
def test_where_no_path_goes_none_is_offered(complete: Complete, before: str) -> None:
    assert complete(f"disbatch {before}") == []


def test_a_script_that_adds_hosts_is_completed_with_its_own_options(complete: Complete) -> None:
    assert complete("./run_dbUtil.sh --l", "--context", "--run=r") == ["--label", "--loglevel"]
    assert complete("./run_dbUtil.sh --r", "--context", "--run=r") == ["--retire-cmd"]


def test_zsh_is_not_given_what_it_would_spoil(
    complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "place"))
    assert complete("disbatch ~/T") == ["~/Tasks"]
    assert complete("disbatch ~/T", of="zsh") == []
    assert [line.split(":")[0] for line in complete("disbatch ./T", of="zsh")] == ["./Tasks"]


def test_without_the_library_nothing_is_run_in_its_stead(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert cli.main(["-s", "localhost:1", os.devnull]) == 1
    assert capfd.readouterr() == ("", "")
