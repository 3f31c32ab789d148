from __future__ import annotations

import subprocess
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from disbatch.credentials import Credentials
from disbatch.runfiles import RunFiles, script_command, script_text, set_aside_name, task_source_name, unique_id

if TYPE_CHECKING:
    from pathlib import Path

NASTY = [
    "plain",
    "two words",
    "it's",
    '"quoted"',
    "line\nend",
    "$HOME",
    "`date`",
    "a\\b",
    "*",
    "~",
    "",
    "-x",
    "ü\udcff",
]
"""Words that a shell changes unless they are quoted."""


def test_files_are_named_as_documented() -> None:
    files = RunFiles("/data/my run/Tasks_disBatch_260102030405_007")
    assert files.job == "Tasks_disBatch_260102030405_007"
    assert files.directory == "/data/my run"
    endings = {
        files.status: "_status.txt",
        files.driver_log: "_driver.log",
        files.script: "_dbUtil.sh",
        files.kvs_address: "_kvsinfo.txt",
        files.observer: "_observer.txt",
        files.context_launch_log(4711): "_4711_context_launch.log",
        files.context_log("SSH0"): "_SSH0.context.log",
        files.engine_log("SSH0", "node1", 3): "_SSH0_node1_engine_3.log",
        files.engine_output("SSH0", "node1"): "_SSH0_node1_engine_wrap.log",
    }
    assert endings == {f"{files.unique_id}{ending}": ending for ending in endings.values()}


def test_a_run_in_the_root_directory_has_a_directory() -> None:
    assert (RunFiles("/run").directory, RunFiles("/run").job) == ("/", "run")


def test_labels_and_nodes_make_no_directories_of_names() -> None:
    files = RunFiles("/data/run")
    assert files.context_log("../a/b") == "/data/run_.._a_b.context.log"
    assert files.engine_log("a/b", "c/d", 0) == "/data/run_a_b_c_d_engine_0.log"
    assert files.engine_output("a\0b", "c d") == "/data/run_a_b_c d_engine_wrap.log"


@pytest.mark.parametrize(
    ("task_file", "name"), [("-", "stdin"), ("Tasks", "Tasks"), ("/data/my tasks.txt", "my tasks.txt"), ("../-", "-")]
)
def test_a_task_file_is_called_by_its_base_name(task_file: str, name: str) -> None:
    assert task_source_name(task_file) == name


NOW = datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - as on a user's clock


@pytest.mark.parametrize(
    ("directory", "digits", "expected"),
    [
        ("/data", 7, "/data/Tasks_disBatch_260102030405_007"),
        ("/data/my run", 999, "/data/my run/Tasks_disBatch_260102030405_999"),
    ],
)
def test_a_unique_id_is_made_of_the_task_files_name_the_time_and_digits(
    directory: str, digits: int, expected: str
) -> None:
    assert unique_id(directory, source_name="Tasks", now=NOW, digits=digits) == expected


def test_files_set_aside_are_numbered() -> None:
    assert [set_aside_name("/data/run_status.txt", number) for number in (1, 12)] == [
        "/data/run_status.txt.1",
        "/data/run_status.txt.12",
    ]


CREDENTIALS = Credentials(b"of-engines", b"of-operators", b"of-programs", b"of-observers")
SECRET = "of-engines"


class Script:
    """A script that joins a run, whose disbatch shows its arguments and its secret."""

    def __init__(
        self, folder: Path, run: list[str], inherited: list[str], credentials: Credentials | None = CREDENTIALS
    ) -> None:
        folder.mkdir()
        show = folder / "show it.sh"
        show.write_text('printf "%s\\0" "${KVSSTCP_SECRET-none}" "$@"\n')
        self.path = folder / "run_dbUtil.sh"
        self.elsewhere = folder
        text = script_text(["/bin/bash", str(show)], run, inherited, credentials)
        self.path.write_bytes(text.encode(errors="surrogateescape"))
        self.path.chmod(0o700)

    def arguments(self, *given: str, env: dict[str, str] | None = None) -> list[str]:
        """Secret and arguments that disbatch gets when the script is called in another directory without a PATH."""
        shown = subprocess.run(
            [self.path, *given], env=env or {}, cwd=self.elsewhere, stdout=subprocess.PIPE, check=True
        ).stdout.decode(errors="surrogateescape")
        return shown.split("\0")[:-1]


@pytest.fixture(params=["plain", "two words", "it's", '"quoted"', "line\nend", "$HOME", "`date`"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def test_the_script_starts_a_context_with_exactly_these_arguments(folder: Path) -> None:
    script = Script(folder, run=["--run=/a b", *NASTY], inherited=["--cpusPerTask=2", *NASTY])
    assert script.arguments(*NASTY) == [
        *(SECRET, "--context"),
        *("--run=/a b", *NASTY),
        *("--cpusPerTask=2", *NASTY),
        *NASTY,
    ]


def test_the_script_starts_an_engine_with_exactly_these_arguments(folder: Path) -> None:
    script = Script(folder, run=["--run=/a b", *NASTY], inherited=["--cpusPerTask=2"])
    assert script.arguments("--engine", *NASTY) == [SECRET, "--engine", "--run=/a b", *NASTY, *NASTY]


def test_only_a_first_argument_asks_for_an_engine(tmp_path: Path) -> None:
    script = Script(tmp_path / "x", run=["R"], inherited=[])
    assert script.arguments() == [SECRET, "--context", "R"]
    assert script.arguments("-l", "--engine") == [SECRET, "--context", "R", "-l", "--engine"]


@pytest.mark.parametrize(
    ("given", "secret"),
    [
        (["A"], "of-engines"),
        (["--engine", "--stop", "--kvs-env"], "of-engines"),
        (["--label=--stop", "-l=--kvs-env", "--stopping"], "of-engines"),
        (["--stop", "engine", "h1", "--now"], "of-operators"),
        (["--now", "--stop", "context", "*"], "of-operators"),
        (["--mon"], "of-operators"),
        (["--status", "--json"], "of-operators"),
        (["--kvs-env"], "of-programs"),
    ],
)
def test_whatever_the_script_starts_has_the_secret_that_it_needs_in_its_environment_and_no_other(
    tmp_path: Path, given: list[str], secret: str
) -> None:
    got, *arguments = Script(tmp_path / "x", run=["R"], inherited=["I"]).arguments(*given)
    assert got == secret
    assert not any("of-" in argument for argument in arguments)
    assert arguments[-len(given) + (given[0] == "--engine") :] == given[given[0] == "--engine" :]


def test_the_script_does_not_hold_what_observers_know() -> None:
    assert "of-observers" not in script_text(["python"], ["R"], [], CREDENTIALS)


@pytest.mark.parametrize("env", [{}, {"KVSSTCP_SECRET": "that of another store"}])
def test_without_a_secret_the_script_hands_on_none(tmp_path: Path, env: dict[str, str]) -> None:
    assert Script(tmp_path / "x", run=["R"], inherited=[], credentials=None).arguments(env=env)[0] == "none"


def test_the_script_says_what_it_is_for_and_that_it_is_to_be_kept() -> None:
    text = script_text(["python"], ["R"], [], CREDENTIALS)
    assert text.startswith("#!/bin/bash\n# Adds resources to a run of disbatch")
    assert "whoever can read it can run commands as you" in text


@pytest.mark.parametrize(
    ("path", "command"), [("r_dbUtil.sh", "./r_dbUtil.sh"), ("a b/r", "'a b/r'"), ("../r", "../r"), ("/a/r", "/a/r")]
)
def test_the_script_is_called_with_its_directory(path: str, command: str) -> None:
    assert script_command(path) == command
