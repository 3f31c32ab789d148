"""The tab key does what it should, in every shell that the README says how to set up."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import CHECKOUT, DISBATCH
from tests.e2e.window import Window
from tests.hosts import not_here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.support import Workplace

REGISTER = 'eval "$(register-python-argcomplete disbatch disBatch)"'
REGISTER_FISH = "register-python-argcomplete --shell fish disbatch | source"

SHELLS = {
    "bash": (["bash", "--norc", "-i"], REGISTER),
    "zsh": (["zsh", "-f", "-i"], f"autoload -Uz compinit; compinit -D -u; {REGISTER}"),
    "fish": (["fish", "--no-config", "-i"], REGISTER_FISH),
}

READY = b"it-is-ready"
SAY_READY = "echo it-is-'ready'"
"""Printed it reads otherwise than typed."""


@pytest.fixture(params=SHELLS)
def terminal(request: pytest.FixtureRequest, work: Workplace) -> Iterator[Window]:
    """A shell set up as the README says, in a directory with `my tasks`, `Tasks` and a directory `out`.

    What is run there as `disbatch` is disbatch for as long as it is asked what could follow, and notes its arguments
    when it is called.
    """
    shell = request.param
    register = Path(sys.executable).parent / "register-python-argcomplete"
    if shutil.which(shell) is None:
        not_here(f"not installed: {shell}")
    if importlib.util.find_spec("argcomplete") is None or not register.exists():
        not_here("not installed: argcomplete")
    tools = work.directory / "tools"
    tools.mkdir()
    (tools / register.name).symlink_to(register)
    disbatch = tools / "disbatch"
    disbatch.write_text(
        f'#!/bin/bash\n[ -n "$_ARGCOMPLETE" ] && exec {" ".join(DISBATCH)} "$@"\n'
        f"printf '%s\\n' \"$@\" > noted && mv noted called\n",
        encoding="utf-8",
    )
    disbatch.chmod(0o755)
    (work.directory / "out").mkdir()
    (work.directory / "my tasks").touch()
    (work.directory / "Tasks").touch()
    command, setup = SHELLS[shell]
    with Window(work, command, env={"PATH": f"{tools}:{os.environ['PATH']}"}) as window:
        window.press(f"{setup}; {SAY_READY}\n")
        window.says(READY)
        yield window


def test_the_tab_key_completes(work: Workplace, terminal: Window) -> None:
    called = work.directory / "called"
    for typed, arguments in (
        ("--logle\tDEB\t --status\t Tas\t", ["--loglevel", "DEBUG", "--status-header", "Tasks"]),
        ("--loglevel=WAR\t -r my\t -p ou\tx", ["--loglevel=WARNING", "-r", "my tasks", "-p", "out/x"]),
        ("--logfile=Ta\t --force\t -- my\t", ["--logfile=Tasks", "--force-resume", "--", "my tasks"]),
    ):
        terminal.press(f"disbatch {typed}\n")
        terminal.until(called.exists, f"call with {arguments}")
        assert called.read_text(encoding="utf-8").splitlines() == arguments
        called.unlink()


def test_the_readme_says_how_to_switch_it_on() -> None:
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert REGISTER in readme
    assert REGISTER_FISH in readme


def test_nobody_pays_for_it_who_does_not_ask(work: Workplace) -> None:
    done = work.run("--help", program=[sys.executable, "-X", "importtime", "-m", "disbatch"])
    imported = {line.rpartition("|")[2].strip() for line in done.complaints}
    assert "disbatch.options" in imported
    assert not imported & {"argcomplete", "disbatch.completion"}
