"""Signals that drain: what runs is let end, nothing more is given out, and everybody leaves in order."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import PATIENCE, eventually, finish, read_status

if TYPE_CHECKING:
    import subprocess

    from tests.e2e.support import Workplace

WAIT = (
    "echo $DISBATCH_TASKID $DISBATCH_ENGINE_RANK >> ran; touch begun.$DISBATCH_TASKID;"
    " until [ -e go.$DISBATCH_ENGINE_RANK ]; do sleep 0.02; done"
)
STOP = "#DISBATCH PERENGINE STOP echo $DISBATCH_ENGINE_RANK >> stopped"


def add(work: Workplace) -> subprocess.Popen[bytes]:
    """Add a context with one place to the run."""
    return work.start("-s", "localhost:1", program=[work.directory / "run_dbUtil.sh"])


def log_of_engine(work: Workplace, rank: int) -> str:
    (log,) = work.directory.glob(f"run_*_engine_{rank}.log")
    return log.read_text(encoding="utf-8")


def log_of_driver(work: Workplace) -> str:
    return work.text("run_driver.log")


def completed(work: Workplace) -> list[tuple[int, int]]:
    """Id and return code of each task that has a line, in the order of the ids."""
    lines = read_status(work.directory / "run_status.txt")
    return sorted((line.task_id, line.return_code) for line in lines if "P" not in line.flags)


@pytest.mark.parametrize("parts", [["engine"], ["keeper"], ["keeper", "engine"], ["context"]])
def test_what_is_drained_by_a_signal_finishes_what_it_runs_and_leaves_the_rest_to_others(
    work: Workplace, parts: list[str]
) -> None:
    run = work.start("-s", "localhost:1", "-p", "run", work.write("tasks", STOP, *[WAIT] * 4).name)
    work.await_file("begun.0")
    pids = [getattr(work, part)().pid for part in parts]
    added = add(work)
    work.await_file("begun.1")
    for pid in pids:
        os.kill(pid, signal.SIGUSR1)
    eventually(lambda: "told to finish" in log_of_engine(work, 0), "the engine to be told")
    assert not (work.directory / "stopped").exists()
    work.write("go.0")
    eventually(lambda: "leaving" in log_of_engine(work, 0), "the engine to leave")
    assert work.text("stopped") == "0\n"
    assert not (work.directory / "begun.2").exists()
    work.write("go.1")
    done = finish(run, timeout=PATIENCE)
    assert (done.returncode, len(done.complaints)) == (0, 1), done.stderr
    assert finish(added, timeout=PATIENCE).returncode == 0
    assert work.text("ran").split("\n") == ["0 0", "1 1", "2 1", "3 1", ""]
    assert completed(work) == [(number, 0) for number in range(4)]
    assert log_of_engine(work, 0).count("told to finish") == 1


def test_a_run_whose_only_engine_is_drained_waits_for_another(work: Workplace) -> None:
    run = work.start("-s", "localhost:1", "-p", "run", work.write("tasks", *[WAIT] * 2).name)
    work.await_file("begun.0")
    os.kill(work.engine().pid, signal.SIGUSR1)
    eventually(lambda: "told to finish" in log_of_engine(work, 0), "the engine to be told")
    work.write("go.0")
    work.write("go.1")
    assert run.stderr is not None
    assert b"the run waits for resources" in run.stderr.readline()
    added = add(work)
    assert finish(run, timeout=PATIENCE).returncode == 0
    assert finish(added, timeout=PATIENCE).returncode == 0
    assert work.text("ran").split("\n") == ["0 0", "1 1", ""]


def test_a_run_that_is_drained_records_what_runs_and_says_how_to_go_on(work: Workplace) -> None:
    run = work.start("-s", "localhost:2", "-p", "run", work.write("tasks", STOP, *[WAIT] * 4).name)
    work.await_file("begun.0")
    work.await_file("begun.1")
    run.send_signal(signal.SIGUSR1)
    eventually(lambda: "told to finish" in log_of_engine(work, 0), "the engine to be told")
    run.send_signal(signal.SIGUSR1)
    work.write("go.0")
    done = finish(run, timeout=PATIENCE)
    assert done.returncode == 1
    what, summary, go_on = done.complaints
    assert what == "disbatch: got SIGUSR1; waiting for the tasks that run, and giving out no more"
    assert summary == "disbatch: 2 tasks finished; status file: run_status.txt"
    assert completed(work) == [(0, 0), (1, 0)]
    assert work.text("stopped") == "0\n"
    command = go_on.partition("to go on where this run left off: ")[2]
    assert work.run(program=["bash", "-c", command]).returncode == 0
    assert completed(work) == [(number, 0) for number in range(4)]
    assert sorted(work.text("ran").splitlines()) == [f"{number} 0" for number in range(4)]


def test_a_run_that_is_drained_when_its_last_tasks_run_is_complete(work: Workplace) -> None:
    run = work.start("-s", "localhost:2", "-p", "run", work.write("tasks", WAIT, WAIT).name)
    work.await_file("begun.0")
    work.await_file("begun.1")
    run.send_signal(signal.SIGUSR1)
    eventually(lambda: "told to finish" in log_of_engine(work, 0), "the engine to be told")
    work.write("go.0")
    done = finish(run, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "to go on where this run left off" not in done.stderr


def test_a_run_that_drains_can_be_ended(work: Workplace) -> None:
    run = work.start("-s", "localhost:1", "-p", "run", work.write("tasks", STOP, WAIT, WAIT).name)
    work.await_file("begun.0")
    run.send_signal(signal.SIGUSR1)
    eventually(lambda: "got SIGUSR1" in log_of_driver(work), "the driver to hear of it")
    run.terminate()
    done = finish(run, timeout=PATIENCE)
    assert done.returncode == 143
    assert "got SIGTERM; ending the running tasks" in done.stderr
    assert completed(work) == [(0, -signal.SIGTERM)]
    assert work.text("stopped") == "0\n"
