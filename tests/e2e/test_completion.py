"""The tab key does what it should, in every shell that the README says how to set up."""

from __future__ import annotations

import importlib.util
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import CHECKOUT, DISBATCH, PATIENCE, Workplace
from tests.hosts import not_here

if TYPE_CHECKING:
    from collections.abc import Iterator

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


class Terminal:
    """A shell at whose keyboard a test sits."""

    def __init__(self, work: Workplace, command: list[str]) -> None:
        self._work = work
        self._keyboard, inside = pty.openpty()
        self._seen = b""
        self.shell = subprocess.Popen(
            ["setsid", "--ctty", *command],
            cwd=work.directory,
            env={**work.environment, "PATH": f"{work.directory / 'tools'}:{os.environ['PATH']}", "TERM": "xterm"},
            stdin=inside,
            stdout=inside,
            stderr=inside,
        )
        os.close(inside)

    def type(self, text: str) -> None:
        os.write(self._keyboard, text.encode())

    def watch_until(self, what: str, *, said: bytes = b"", there: Path | None = None) -> None:
        """Read the screen until it has shown that, or until that file is there."""
        deadline = time.monotonic() + PATIENCE
        while not ((said and said in self._seen) or (there is not None and there.exists())):
            assert time.monotonic() < deadline, f"{what}; on the screen: {self._seen!r}"
            if select.select([self._keyboard], [], [], 0.02)[0]:
                self._seen += os.read(self._keyboard, 1 << 16)

    def close(self) -> None:
        self.shell.kill()
        self.shell.wait()
        os.close(self._keyboard)


@pytest.fixture(params=SHELLS)
def terminal(request: pytest.FixtureRequest, work: Workplace) -> Iterator[Terminal]:
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
    screen = Terminal(work, command)
    try:
        screen.type(f"{setup}; {SAY_READY}\n")
        screen.watch_until("the shell is set up", said=READY)
        yield screen
    finally:
        screen.close()


def test_the_tab_key_completes(work: Workplace, terminal: Terminal) -> None:
    called = work.directory / "called"
    for typed, arguments in (
        ("--logle\tDEB\t --status\t Tas\t", ["--loglevel", "DEBUG", "--status-header", "Tasks"]),
        ("--loglevel=WAR\t -r my\t -p ou\tx", ["--loglevel=WARNING", "-r", "my tasks", "-p", "out/x"]),
        ("--logfile=Ta\t --force\t -- my\t", ["--logfile=Tasks", "--force-resume", "--", "my tasks"]),
    ):
        terminal.type(f"disbatch {typed}\n")
        terminal.watch_until(f"called with {arguments}", there=called)
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
