from __future__ import annotations

import itertools
import os
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from disbatch.driver import taskcommand
from disbatch.driver.taskcommand import TaskCommand
from disbatch.errors import DisbatchError
from disbatch.eventloop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LIMIT = 60
"""Seconds after which something hangs."""


class Bench:
    """A loop, and the commands that were started in it."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        self.ends: list[int] = []
        self.started: list[TaskCommand] = []

    def start(self, text: str, environment: Mapping[str, str] | None = None) -> TaskCommand:
        command = TaskCommand(text, os.environ if environment is None else environment, self.loop, self.ends.append)
        self.started.append(command)
        return command

    def wait(self, command: TaskCommand) -> None:
        while not command.has_ended:
            self.loop.turn(LIMIT)

    def run(self, text: str, environment: Mapping[str, str] | None = None) -> int:
        command = self.start(text, environment)
        self.wait(command)
        [return_code] = self.ends
        return return_code

    def close(self) -> None:
        for command in self.started:
            command.close()
        self.loop.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def fifo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pipe with a name, by which a command tells that it has come so far."""
    path = str(tmp_path_factory.mktemp("fifo") / "fifo")
    os.mkfifo(path)
    return path


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which nobody has to wait: where orphans are reaped late, their group lives on for a while."""
    ticks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: next(ticks) / 10, sleep=lambda _: None)
    monkeypatch.setattr(taskcommand, "time", clock)


def told_through(fifo: str) -> str:
    with open(fifo) as file:
        return file.read().strip()


def exists(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has reaped does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("text", "return_code"), [("true", 0), ("exit 3", 3), ("kill -TERM $$", -signal.SIGTERM), ("no-such-command", 127)]
)
def test_the_end_of_a_command_is_told_with_its_return_code(
    bench: Bench, text: str, return_code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert bench.run(text) == return_code
    capfd.readouterr()


def test_an_end_is_told_once_in_a_turn_of_the_loop(bench: Bench) -> None:
    command = bench.start("true")
    assert not command.has_ended
    bench.wait(command)
    signal.raise_signal(signal.SIGCHLD)
    bench.loop.turn(0)
    assert bench.ends == [0]


def test_a_child_that_ends_before_is_not_the_command(bench: Bench, fifo: str) -> None:
    command = bench.start(f"read < {fifo}")
    signal.raise_signal(signal.SIGCHLD)
    bench.loop.turn(0)
    assert not bench.ends
    with open(fifo, "w") as file:
        file.write("\n")
    bench.wait(command)
    assert bench.ends == [0]


def test_a_command_is_bashs_with_this_environment_and_no_input(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    environment = {"PATH": os.environ["PATH"], "KVSSTCP_HOST": "here"}
    assert (
        bench.run('[[ $KVSSTCP_HOST == here && -z $HOME ]] && cat && echo "said" && echo "wrong" >&2', environment) == 0
    )
    assert capfd.readouterr() == ("said\n", "wrong\n")


def test_a_command_has_a_session_of_its_own(bench: Bench, fifo: str) -> None:
    command = bench.start(f"echo $$ > {fifo}; read < {fifo}")
    pid = int(told_through(fifo))
    assert os.getsid(pid) == pid != os.getsid(0)
    command.close()
    assert not exists(pid)


@pytest.mark.parametrize("text", ["x" * 200_000, "a\0b"])
def test_a_command_that_cannot_be_started_is_an_error_for_people(bench: Bench, text: str) -> None:
    with pytest.raises(DisbatchError, match=r"^cannot start the task command: ") as error:
        bench.start(text)
    assert error.value.hint == "see --taskcommand"
    assert not bench.ends


@pytest.mark.usefixtures("hasty")
def test_a_command_that_outlives_its_run_is_ended_with_its_children(bench: Bench, fifo: str) -> None:
    command = bench.start(f"exec 9> {fifo}; sleep 1000 & echo >&9; wait")
    with open(fifo) as file:
        file.readline()
        command.close()
        assert file.read() == "", "this comes when nobody has the pipe open any more"
    signal.raise_signal(signal.SIGCHLD)
    bench.loop.turn(0)
    assert not bench.ends, "nothing is told after the end"
    command.close()


@pytest.mark.usefixtures("hasty")
def test_children_that_a_command_has_left_are_ended(bench: Bench, fifo: str) -> None:
    command = bench.start(f"exec 9> {fifo}; sleep 1000 & echo >&9")
    with open(fifo) as file:
        file.readline()
        bench.wait(command)
        command.close()
        assert file.read() == ""


def test_the_number_of_a_command_that_has_ended_is_nobody_elses_until_the_run_has(bench: Bench) -> None:
    command = bench.start("exit 0")
    bench.wait(command)
    os.kill(command._process.pid, 0)
    command.close()
    with pytest.raises(ProcessLookupError):
        os.kill(command._process.pid, 0)


def test_a_command_may_end_in_its_own_way(bench: Bench, fifo: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    note = tmp_path_factory.mktemp("note") / "note"
    command = bench.start(f"trap 'echo ended >> {note}; exit' TERM; echo > {fifo}; while true; do read < {fifo}; done")
    told_through(fifo)
    command.close()
    assert note.read_text() == "ended\n", "it is asked once"


@pytest.mark.usefixtures("hasty")
def test_a_command_that_does_not_want_to_end_has_to(bench: Bench, fifo: str) -> None:
    command = bench.start(f"trap '' TERM; echo $$ > {fifo}; while true; do read < {fifo}; done")
    pid = int(told_through(fifo))
    command.close()
    assert not exists(pid)


@pytest.mark.usefixtures("hasty")
def test_a_group_that_never_ends_does_not_hold_the_run_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    command = bench.start("exit 0")
    bench.wait(command)
    sent: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda _, number: sent.append(number))
    command.close()
    assert (sent[0], sent[-1]) == (signal.SIGTERM, signal.SIGKILL)
    assert not any(sent[1:-1])
