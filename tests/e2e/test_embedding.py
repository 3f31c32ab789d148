"""A Python program that runs tasks with a driver of its own."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from ast import literal_eval
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from disbatch.disBatch import DisBatcher, DriverEndedError, _Driver
from disbatch.kvsstcp.endpoint import KVSError
from disbatch.kvsstcp.thread import KVSServerThread
from disbatch.options import RESUME_ADVICE
from tests.e2e.support import PATIENCE, finish, read_status

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

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
        mapped = {report["TaskId"]: report["OutData"] for report in batch.map(f"echo {number}" for number in range(50))}
        assert mapped == {number + 3: f"{number}\n" for number in range(50)}
    assert len(list(Path().glob("STREAM_disBatch_*_status.txt"))) == 1


@pytest.mark.usefixtures("work")
def test_a_list_without_an_end_gives_results() -> None:
    with DisBatcher(args=["-s", "localhost:2"]) as batch:
        outputs = (report["OutData"] for report in batch.map((f"echo {number}" for number in count()), window=4))
        assert "20\n" in outputs


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
def test_a_driver_that_ends_early_raises(
    capsys: pytest.CaptureFixture[str], arguments: list[str], line: str, said: str
) -> None:
    batch = DisBatcher(args=arguments)
    batch.submit(f"{line}\nsleep 300")
    with pytest.raises(DriverEndedError, match=said) as error:
        batch.syncTasks([1])
    batch.kill()
    assert RESUME_ADVICE not in f"{error.value}{capsys.readouterr().err}"


def test_a_killed_driver_raises_and_leaves_nothing_behind(work: Workplace) -> None:
    batch = DisBatcher(args=["-s", "localhost:1"])
    batch.submit("touch begun; sleep 300")
    work.await_file("begun")
    assert isinstance(batch._driver, _Driver)
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


def fails_at_the_end() -> None:
    with DisBatcher(args=["-e", "-s", "localhost:1"]) as batch:
        batch.submit("false")


def raises() -> None:
    with DisBatcher(args=["-s", "localhost:1"]) as batch:
        batch.submit("true")
        raise KeyError


def kills_the_driver() -> None:
    with DisBatcher(args=["-s", "localhost:1"]) as batch:
        assert isinstance(batch._driver, _Driver)
        batch._driver._process.kill()
        list(batch.map(["true"]))


def is_not_made() -> None:
    DisBatcher(args=cast("list[str]", [3]))


def finds_no_store() -> None:
    DisBatcher(kvsserver="127.0.0.1:1")


@pytest.mark.parametrize(
    ("program", "error"),
    [
        (fails_at_the_end, DriverEndedError),
        (raises, KeyError),
        (kills_the_driver, DriverEndedError),
        (is_not_made, TypeError),
        (finds_no_store, KVSError),
    ],
)
@pytest.mark.usefixtures("work")
def test_what_fails_leaves_no_thread_and_no_descriptor(program: Callable[[], None], error: type[Exception]) -> None:
    before = threading.active_count(), set(os.listdir("/proc/self/fd"))
    for _ in range(2):
        with pytest.raises(error):
            program()
    assert (threading.active_count(), set(os.listdir("/proc/self/fd"))) == before


INTERRUPTED = """
from disbatch.disBatch import DisBatcher

batch = DisBatcher(args=["-s", "localhost:1"])
batch.submit("#DISBATCH PERENGINE STOP touch stopped")
batch.submit({task!r})
{rest}
"""
"""A program that Ctrl-C ends while it waits."""


def interrupt(program: subprocess.Popen[bytes]) -> None:
    """Press Ctrl-C: the terminal tells the whole process group."""
    os.killpg(program.pid, signal.SIGINT)


@pytest.mark.parametrize(
    "rest",
    ["with batch: batch.wait_one_task()", "with batch: pass", "batch.done()", "batch.wait_one_task()"],
    ids=["in the block", "behind the block", "in done", "without a block"],
)
def test_an_interrupted_program_ends_its_tasks_in_order(work: Workplace, rest: str) -> None:
    task = "trap 'touch saved; exit' TERM; touch begun; sleep 300 & wait"
    program = work.write("program.py", INTERRUPTED.format(task=task, rest=rest))
    run = work.start(program, program=[sys.executable], start_new_session=True)
    work.await_file("begun")
    interrupt(run)
    assert "KeyboardInterrupt" in finish(run).stderr
    work.await_file("stopped")
    work.await_file("saved")


def test_a_second_interrupt_kills_at_once(work: Workplace) -> None:
    task = "trap '' TERM; touch begun; sleep 300; sleep 300"
    program = work.write("program.py", INTERRUPTED.format(task=task, rest="with batch: pass"))
    run = work.start(program, program=[sys.executable], start_new_session=True)
    work.await_file("begun")
    interrupt(run)
    assert run.stderr is not None
    assert any(line.startswith(b"disbatch: got SIGTERM") for line in run.stderr)
    interrupt(run)
    finish(run)
    work.await_silence()
    assert not (work.directory / "stopped").exists()


def test_a_run_that_was_cut_short_is_gone_on_with_by_the_same_program(work: Workplace) -> None:
    def results(*options: str) -> dict[int, str]:
        with DisBatcher(args=["-s", "localhost:1", *options]) as batch:
            return {report["TaskId"]: report["OutData"] for report in batch.map(["echo $(date +%N)", "test -e go"])}

    with pytest.raises(DriverEndedError):
        results("-f", "-p", "first")
    work.write("go")
    earlier = read_status(work.directory / "first_status.txt")
    assert results("-r", "first_status.txt", "-R", "-p", "again")[0] == literal_eval(earlier[0].out)


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


def test_a_driver_that_runs_already_is_missed_when_it_has_ended(
    monkeypatch: pytest.MonkeyPatch, work: Workplace
) -> None:
    with KVSServerThread() as server:
        for name, value in server.env({}).items():
            monkeypatch.setenv(name, value)
        where = f"{server.cinfo[0]}:{server.cinfo[1]}"
        for name in ("first", "second"):  # the second finds what the first has left in the store
            batch = DisBatcher(kvsserver=where)
            batch.submit(f"touch {name}; sleep 300")
            run = work.start("-s", "localhost:1", "--taskserver", where, "-p", name, env=server.env())
            work.await_file(name)
            run.terminate()
            with pytest.raises(DriverEndedError, match="the run behind the key-value store has ended with 143"):
                batch.done()
            advice = finish(run).complaints[-1]
            assert RESUME_ADVICE in advice
            assert f"--taskserver {where}" in advice


def test_the_example(work: Workplace) -> None:
    done = work.run(ROOT / "exampleTaskFiles" / "embedded.py", program=[sys.executable])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "10 tasks, of which 2 failed"
