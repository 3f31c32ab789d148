from __future__ import annotations

import errno
import os
import shlex
import sys
from typing import TYPE_CHECKING

import pytest

from disbatch import __version__, cli
from disbatch.contexts import process as context
from disbatch.driver import process as driver
from disbatch.engine import process as engine
from disbatch.errors import DisbatchError, TaskFileError, UsageError
from disbatch.monitor import process as monitor
from disbatch.report import failures
from disbatch.web import process as page

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from disbatch.options import DriverOptions


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], object]]:
    """Note which role is played with which arguments; none is."""
    seen: list[tuple[str, list[str], object]] = []

    def play_driver(asked: DriverOptions, resume_command: Callable[..., str]) -> int:
        seen.append(("driver", shlex.split(resume_command("status")), asked.task_file))
        return 5

    def play_context(arguments: Sequence[str]) -> int:
        seen.append(("context", list(arguments), None))
        return 6

    def play_engine(arguments: Sequence[str]) -> int:
        seen.append(("engine", list(arguments), None))
        return 7

    def play_monitor(arguments: Sequence[str]) -> int:
        seen.append(("monitor", list(arguments), None))
        return 8

    def play_status(arguments: Sequence[str]) -> int:
        seen.append(("status", list(arguments), None))
        return 11

    def play_failures(arguments: Sequence[str]) -> int:
        seen.append(("failures", list(arguments), None))
        return 9

    monkeypatch.setattr(monitor, "show_live", play_monitor)
    monkeypatch.setattr(monitor, "show_once", play_status)
    monkeypatch.setattr(failures, "main", play_failures)

    def play_page(arguments: Sequence[str]) -> int:
        seen.append(("page", list(arguments), None))
        return 10

    monkeypatch.setattr(page, "main", play_page)
    monkeypatch.setattr(driver, "main", play_driver)
    monkeypatch.setattr(context, "main", play_context)
    monkeypatch.setattr(engine, "main", play_engine)
    monkeypatch.setattr(cli, "_program", lambda: ("disbatch",))
    return seen


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        (["--engine", "--rank=3"], ("engine", ["--rank=3"], None)),
        (["--web-page", "--run=a"], ("page", ["--run=a"], None)),
        (["--context", "-s", "a:1"], ("context", ["-s", "a:1"], None)),
        (["--mon", "file"], ("monitor", ["file"], None)),
        (["--status", "file", "--json"], ("status", ["file", "--json"], None)),
        (["-s", "a:1", "Tasks"], ("driver", ["disbatch", "-s", "a:1", "Tasks", "-r", "status"], "Tasks")),
        (["--failures", "a", "--json", "b"], ("failures", ["a", "--json", "b"], None)),
        (["Tasks", "-e"], ("driver", ["disbatch", "Tasks", "-e", "-r", "status"], "Tasks")),
    ],
)
def test_the_first_argument_names_the_role(
    played: list[tuple[str, list[str], object]], arguments: list[str], role: tuple[str, list[str], object]
) -> None:
    exit_status = {"driver": 5, "context": 6, "engine": 7, "monitor": 8, "failures": 9, "page": 10, "status": 11}[
        role[0]
    ]
    assert cli.main(arguments) == exit_status
    assert played == [role]


@pytest.mark.parametrize(
    "arguments", [[], ["Tasks", "--engine"], ["Tasks", "--mon"], ["--no-such-option"], ["-R", "Tasks"]]
)
def test_a_mistake_in_the_options_needs_no_driver(
    played: list[tuple[str, list[str], object]], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert played == []
    assert capsys.readouterr().err.startswith("disbatch: error: ")


def test_the_version_needs_no_driver(
    played: list[tuple[str, list[str], object]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--version"]) == 0
    with pytest.raises(SystemExit) as end:
        cli.main(["-e", "--version"])
    assert end.value.code == 0
    assert capsys.readouterr() == (f"{__version__}\n" * 2, "")
    assert played == []


def test_a_driver_needs_a_directory(
    played: list[tuple[str, list[str], object]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone() -> str:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(os, "getcwd", gone)
    assert cli.main(["Tasks"]) == 1
    assert capsys.readouterr().err == "disbatch: error: the working directory is gone (change to one that is there)\n"
    assert played == []


def test_arguments_come_from_the_command_line(
    played: list[tuple[str, list[str], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["disbatch", "-e", "Tasks"])
    cli.main()
    assert played == [("driver", ["disbatch", "-e", "Tasks", "-r", "status"], "Tasks")]


@pytest.mark.parametrize(
    ("error", "exit_status", "printed"),
    [
        (TaskFileError("cannot read T"), 1, "disbatch: error: cannot read T\n"),
        (UsageError("-R needs -r", "see --help"), 2, "disbatch: error: -R needs -r (see --help)\n"),
        (DisbatchError("it broke", "mend it"), 1, "disbatch: error: it broke (mend it)\n"),
    ],
)
def test_an_error_for_people_is_one_line_and_a_status(
    error: DisbatchError,
    exit_status: int,
    printed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(driver, "main", fail)
    assert cli.main(["Tasks"]) == exit_status
    assert capsys.readouterr() == ("", printed)


def test_an_interrupt_at_the_start_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "main", interrupt)
    assert cli.main(["Tasks"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_mistake_in_the_options_of_any_role_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    for role, program in ([], None), (["--context"], "dbUtil.sh"), (["--engine"], "disbatch --engine"):
        assert cli.main([*role, "--no-such-option", "Tasks"]) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("disbatch: error: unrecognized arguments: --no-such-option")
        assert printed.count("\n") == 1
        assert program is None or f"(see {program} --help)" in printed


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directory on the PATH with a `disbatch` in it."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "disbatch").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/no{os.pathsep}{folder}")
    return folder


def test_a_program_found_on_the_path_is_called_by_its_name(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(tools / "disbatch"), "Tasks"])
    assert cli._program() == ("disbatch",)


def test_one_that_is_elsewhere_is_called_by_its_path(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tools.parent / "other" / "disbatch"
    monkeypatch.setattr(sys, "argv", [str(other), "Tasks"])
    assert cli._program() == (str(other),)


def test_the_copy_that_a_batch_job_of_slurm_runs_is_called_as_what_it_is_a_copy_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["/var/spool/slurmd/job00005/slurm_script", "Tasks"])
    assert cli._program() == ("disbatch",)


@pytest.mark.parametrize("how", [["python3", "-m", "disbatch"], ["python3", "-X", "dev", "/data/disbatch/__main__.py"]])
def test_a_module_is_called_as_it_was(how: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/data/disbatch/__main__.py", "-e", "Tasks"])
    monkeypatch.setattr(sys, "orig_argv", [*how, "-e", "Tasks"])
    assert cli._program() == tuple(how)
