"""A Python program that runs tasks with a driver of its own."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from disbatch.disBatch import DisBatcher, DriverEndedError
from disbatch.kvsstcp.thread import KVSServerThread
from tests.e2e.support import PATIENCE

if TYPE_CHECKING:
    from tests.e2e.support import Workplace

ROOT = Path(__file__).parents[2]


@pytest.fixture
def work(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A place that this process is in itself, and whose processes are found again."""
    monkeypatch.chdir(work.directory)
    monkeypatch.setenv("MARK_OF_A_TEST", work.mark)
    return work


@pytest.mark.usefixtures("work")
def test_tasks_are_submitted_and_reported() -> None:
    with DisBatcher("mine", args=["-s", "localhost:2"]) as batch:
        assert batch.submit("echo hello; exit 3") == [0]
        assert batch.submit("#DISBATCH REPEAT 2 echo $DISBATCH_REPEAT_INDEX $DISBATCH_NAMETASKS") == [1, 2]
        reports = batch.syncTasks([0, 1, 2])
        assert (reports[0]["ReturnCode"], reports[0]["OutData"], reports[0]["TaskCmd"]) == (
            *(3, "hello\n"),
            "echo hello; exit 3",
        )
        assert [reports[number]["OutData"] for number in (1, 2)] == ["0 STREAM\n", "1 STREAM\n"]
        assert sorted(report["TaskId"] for report in batch.map(f"echo {number}" for number in range(50))) == [
            *range(53),
        ]
    assert len(list(Path().glob("STREAM_disBatch_*_status.txt"))) == 1


@pytest.mark.usefixtures("work")
def test_several_at_once() -> None:
    with (
        DisBatcher(args=["-s", "localhost:1", "-p", "one"]) as one,
        DisBatcher(args=["-s", "localhost:1", "-p", "two"]) as two,
    ):
        one.submit("echo one")
        two.submit("echo two")
        assert (one.wait_one_task()["OutData"], two.wait_one_task()["OutData"]) == ("one\n", "two\n")


@pytest.mark.usefixtures("work")
def test_the_program_keeps_its_arguments_signals_and_logging() -> None:
    def world() -> tuple[object, ...]:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
        return list(sys.argv), handlers, list(logging.getLogger().handlers), logging.getLogger("disbatch").handlers[:]

    before = world()
    with DisBatcher(args=["-s", "localhost:1"]) as batch:
        batch.submit("true")
        batch.wait_one_task()
        assert world() == before
    assert world() == before


@pytest.mark.parametrize(
    ("arguments", "line", "said"),
    [
        (["-s", "localhost:1", "-f"], "false", "--fail-fast ends the run"),
        (["-s", "localhost"], "true", "has no core count"),
        (["-s", "localhost:1", "-c", "99"], "true", "no node has the 99 cores"),
    ],
)
@pytest.mark.usefixtures("work")
def test_a_driver_that_ends_early_raises(arguments: list[str], line: str, said: str) -> None:
    batch = DisBatcher(args=arguments)
    batch.submit(f"{line}\nsleep 300")
    with pytest.raises(DriverEndedError, match=said):
        batch.syncTasks([1])
    batch.kill()


def test_a_killed_driver_raises_and_leaves_nothing_behind(work: Workplace) -> None:
    batch = DisBatcher(args=["-s", "localhost:1"])
    batch.submit("touch begun; sleep 300")
    work.await_file("begun")
    assert batch._driver is not None
    batch._driver._process.kill()
    with pytest.raises(DriverEndedError, match="ended with -9"):
        batch.wait_one_task()
    batch.kill()


def test_a_program_that_raises_leaves_nothing_behind(work: Workplace) -> None:
    def program() -> None:
        with DisBatcher(args=["-s", "localhost:1"]) as batch:
            batch.submit("touch begun; sleep 300")
            work.await_file("begun")
            raise KeyError

    with pytest.raises(KeyError):
        program()


@pytest.mark.usefixtures("work")
def test_a_driver_that_runs_already(monkeypatch: pytest.MonkeyPatch, work: Workplace) -> None:
    with KVSServerThread() as server:
        for name, value in server.env({}).items():
            monkeypatch.setenv(name, value)
        run = work.start("-s", "localhost:1", "--taskserver", env=server.env())
        with DisBatcher(kvsserver=f"{server.cinfo[0]}:{server.cinfo[1]}") as batch:
            batch.submit("echo there")
            assert batch.wait_one_task()["OutData"] == "there\n"
        assert run.wait(PATIENCE) == 0


def test_the_example(work: Workplace) -> None:
    done = work.run(ROOT / "exampleTaskFiles" / "embedded.py", program=[sys.executable])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "10 tasks, of which 2 failed"
