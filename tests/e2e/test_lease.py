"""Ways to lose one another: cut connections, killed and stopped processes, and what becomes of the tasks meanwhile.

Each attempt at a task holds a lock as long as any process of it lives. One that finds the lock taken says so: then two
attempts at the task ran at once.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import PATIENCE, eventually, finish, look_at, read_status
from tests.e2e.test_pool import add
from tests.e2e.way import Way

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.e2e.support import Finished, StatusLine, Workplace

SOON = ("--heartbeat", "0.3", "--heartbeat-patience", "3")
"""The driver gives up after 3 s whom it does not hear; its engines have ended what runs before."""

LOCKED = "exec 9> lock.$DISBATCH_TASKID; flock -n 9 || echo $DISBATCH_TASKID >> overlaps; "
NOTE = "echo $DISBATCH_TASKID $DISBATCH_ATTEMPT $DISBATCH_ENGINE_RANK >> ran; "
WAIT = "touch begun.$DISBATCH_TASKID.$DISBATCH_ATTEMPT; until [ -e go ]; do sleep 0.02; done"
TASK = LOCKED + NOTE + WAIT


def run_of(work: Workplace) -> list[StatusLine]:
    return read_status(work.directory / "run_status.txt")


def ran(work: Workplace) -> list[tuple[int, ...]]:
    """Task, attempt and engine of all that has run, in that order."""
    return sorted(tuple(map(int, line.split())) for line in work.text("ran").splitlines())


def log_of_engine(work: Workplace, rank: int) -> str:
    (log,) = work.directory.glob(f"run_*_engine_{rank}.log")
    return log.read_text()


def engine_of(work: Workplace, rank: int) -> int:
    """Pid of the engine itself, not of its keeper."""
    words = log_of_engine(work, rank).split("pid ", 1)[1]
    return int(words.split(",")[0])


def well_ended(work: Workplace, done: Finished, tasks: int) -> None:
    """Every task has one line, that of a success, and no attempt ran beside another."""
    assert done.returncode == 0, done.stderr
    ended = [(line.task_id, line.return_code) for line in run_of(work) if "P" not in line.flags]
    assert sorted(ended) == [(number, 0) for number in range(tasks)]
    assert not work.text("overlaps")


@pytest.fixture
def begun(work: Workplace) -> subprocess.Popen[bytes]:
    """A run without resources, of four tasks."""
    run = work.start(*SOON, "-S", "-p", "run", work.write("tasks", *[TASK] * 4).name)
    work.await_file("run_kvsinfo.txt")
    return run


@pytest.fixture
def way(work: Workplace, begun: subprocess.Popen[bytes]) -> Iterator[Way]:
    """The way by which the context 0 and its engine 0, of two places, are connected to that run."""
    assert begun.poll() is None
    host, port = work.text("run_kvsinfo.txt").strip().split(":")
    with Way((host, int(port))) as found:
        add(work, work.directory / "run_dbUtil.sh", f"--kvs=127.0.0.1:{found.port}", "-s", "localhost:2")
        work.await_file("begun.0.1")
        work.await_file("begun.1.1")
        yield found


def test_a_short_cut_loses_nothing_and_restarts_nothing(
    work: Workplace, begun: subprocess.Popen[bytes], way: Way
) -> None:
    for times in (1, 2):
        way.reset()
        eventually(lambda: log_of_engine(work, 0).count("connected to the driver again") == times, "the engine")  # noqa: B023 - called at once
    work.write("go")
    done = finish(begun, timeout=PATIENCE)
    well_ended(work, done, 4)
    assert ran(work) == [(number, 1, 0) for number in range(4)]
    assert "lost" not in done.stderr


def test_a_short_cut_does_no_harm_to_a_run_that_drains(
    work: Workplace, begun: subprocess.Popen[bytes], way: Way
) -> None:
    begun.send_signal(signal.SIGUSR1)
    eventually(lambda: "told to finish" in log_of_engine(work, 0), "the engine to hear of it")
    way.reset()
    eventually(lambda: "connected to the driver again" in log_of_engine(work, 0), "the engine")
    work.write("go")
    assert finish(begun, timeout=PATIENCE).returncode == 1
    assert ran(work) == [(0, 1, 0), (1, 1, 0)]
    assert sorted((line.task_id, line.return_code) for line in run_of(work)) == [(0, 0), (1, 0)]


def test_what_ends_during_a_cut_is_reported_after_it(work: Workplace, begun: subprocess.Popen[bytes], way: Way) -> None:
    way.block()
    way.reset()
    work.write("go")
    eventually(lambda: "the connection to the driver broke" in log_of_engine(work, 0), "the engine to notice")
    way.unblock()
    well_ended(work, finish(begun, timeout=PATIENCE), 4)
    assert ran(work) == [(number, 1, 0) for number in range(4)]


def test_an_engine_that_is_cut_off_ends_its_tasks_before_others_get_them(
    work: Workplace, begun: subprocess.Popen[bytes], way: Way
) -> None:
    way.block()
    add(work, work.directory / "run_dbUtil.sh", "-s", "localhost:2")
    work.await_file("begun.2.1")
    work.await_file("begun.3.1")
    eventually(lambda: "the driver does not answer" in log_of_engine(work, 0), "the lease to end")
    work.write("go")
    done = finish(begun, timeout=PATIENCE)
    well_ended(work, done, 4)
    assert ran(work) == [(0, 1, 0), (0, 2, 1), (1, 1, 0), (1, 2, 1), (2, 1, 1), (3, 1, 1)]
    assert "lost the engine on localhost; 2 of its tasks to run again" in done.stderr


def test_an_engine_that_is_stopped_for_too_long_is_killed_by_its_keeper(
    work: Workplace, begun: subprocess.Popen[bytes]
) -> None:
    for _ in range(2):
        add(work, work.directory / "run_dbUtil.sh", "-s", "localhost:1")
    work.await_file("begun.0.1")
    work.await_file("begun.1.1")
    os.kill(engine_of(work, 0), signal.SIGSTOP)
    eventually(lambda: look_at(engine_of(work, 0)) is None, "the keeper to kill it")
    work.write("go")
    done = finish(begun, timeout=PATIENCE)
    well_ended(work, done, 4)
    lost = next(task for task, attempt, engine in ran(work) if engine == 0)
    assert (lost, 2, 1) in ran(work)


def test_a_driver_that_is_stopped_for_long_finds_its_engines_where_they_were(work: Workplace) -> None:
    run = work.start(*SOON, "-s", "localhost:2", "-p", "run", work.write("tasks", *[TASK] * 3).name)
    work.await_file("begun.0.1")
    work.await_file("begun.1.1")
    os.kill(run.pid, signal.SIGSTOP)
    eventually(lambda: "the driver does not answer" in log_of_engine(work, 0), "the lease to end")
    work.write("go")
    os.kill(run.pid, signal.SIGCONT)
    well_ended(work, finish(run, timeout=PATIENCE), 3)
    assert ran(work) == [(0, 1, 0), (0, 2, 0), (1, 1, 0), (1, 2, 0), (2, 1, 0)]
    assert "the driver answers again" in log_of_engine(work, 0)


def test_a_driver_that_is_stopped_for_a_moment_costs_nothing(work: Workplace) -> None:
    run = work.start("-s", "localhost:2", "-p", "run", work.write("tasks", *[TASK] * 3).name)
    work.await_file("begun.0.1")
    work.await_file("begun.1.1")
    os.kill(run.pid, signal.SIGSTOP)
    work.write("go")
    eventually(lambda: len([p for p in work.processes() if "sleep" in p.command]) == 0, "the tasks to end")
    os.kill(run.pid, signal.SIGCONT)
    well_ended(work, finish(run, timeout=PATIENCE), 3)
    assert ran(work) == [(number, 1, 0) for number in range(3)]


def test_engines_outlive_a_killed_driver_only_for_their_lease(work: Workplace) -> None:
    stop = "#DISBATCH PERENGINE STOP touch stopped; flock -n lock.0 touch nothing-ran"
    deaf = f"{LOCKED}trap '' TERM; setsid --fork bash -c \"trap '' TERM; sleep 300\"; {WAIT}"
    run = work.start(*SOON, "-s", "localhost:1", "-p", "run", work.write("tasks", stop, deaf).name)
    work.await_file("begun.0.1")
    run.kill()
    work.await_file("nothing-ran")
    work.await_silence()
    assert (work.directory / "stopped").exists()
    work.write("go")
    well_ended(work, work.run("-s", "localhost:1", "-p", "run", "-r", "run_status.txt", "tasks"), 1)


# What was lost with its engine

KILLER = "echo $DISBATCH_ATTEMPT >> tries; sleep 0.5; kill -9 $PPID"
"""What ran before it has been reported by then: as long as it might only wait behind that, its loss does not count."""


def with_engines(work: Workplace, number: int, *options: str, tasks: tuple[str, ...]) -> Finished:
    """Run the tasks on so many engines, a context each."""
    run = work.start(*SOON, *options, "-S", "-p", "run", work.write("tasks", *tasks).name)
    work.await_file("run_kvsinfo.txt")
    for _ in range(number):
        add(work, work.directory / "run_dbUtil.sh", "-s", "localhost:1")
    return finish(run, timeout=2 * PATIENCE)


@pytest.mark.parametrize(("options", "tries"), [((), 3), (("--crash-limit", "2"), 2), (("--crash-limit=1",), 1)])
def test_a_command_that_kills_its_engine_is_given_up(work: Workplace, options: tuple[str, ...], tries: int) -> None:
    done = with_engines(work, tries + 1, *options, tasks=(KILLER, *["true"] * 3))
    assert done.returncode == 0, done.stderr
    first, *others = sorted(run_of(work), key=lambda line: line.task_id)
    assert (first.task_id, first.return_code, first.pid) == (0, -9, -1)
    times = "once" if tries == 1 else f"{tries} times"
    assert first.err == rf"'disbatch: lost with its engine {times}\n'"
    assert f"task 0 (line 1) was lost with its engine {times}, and is given up" in done.stderr
    assert [(line.task_id, line.return_code) for line in others] == [(1, 0), (2, 0), (3, 0)]
    assert work.text("tries").split() == [str(number) for number in range(1, tries + 1)]


def test_such_a_command_may_go_on_for_ever(work: Workplace) -> None:
    """Until all engines are gone, that is; then the run says how to go on, with that task still to do."""
    done = work.run("--crash-limit=0", "-s", "localhost:1", "-p", "run", work.write("tasks", KILLER).name)
    assert done.returncode == 1
    assert "no engine is left to run the remaining tasks" in done.stderr
    assert "to go on where this run left off: " in done.stderr
    assert run_of(work) == []


def test_a_command_that_must_not_run_twice_has_failed_when_it_is_lost(work: Workplace) -> None:
    done = with_engines(work, 2, "--no-requeue", "-e", tasks=(KILLER, "true"))
    assert done.returncode == 1
    lines = sorted(run_of(work), key=lambda line: line.task_id)
    assert [(line.task_id, line.return_code) for line in lines] == [(0, -9), (1, 0)]
    assert lines[0].err == r"'disbatch: lost with its engine, not run ...again (--no-requeue)\n'"
    assert "lost the engine on localhost; 1 of its tasks have failed, as they must not run twice" in done.stderr
    assert work.text("tries").split() == ["1"]


def test_nor_is_it_run_again_when_its_engine_is_stopped_on_purpose(work: Workplace) -> None:
    tasks = work.write("tasks", f"{NOTE}{WAIT}", "true").name
    run = work.start("--no-requeue", "-e", "-s", "localhost:1", "-p", "run", tasks)
    work.await_file("begun.0.1")
    add(work, work.directory / "run_dbUtil.sh", "-s", "localhost:1")
    stopped = work.run("--stop", "engine", "0", "--now", program=[work.directory / "run_dbUtil.sh"])
    assert stopped.returncode == 0, stopped.stderr
    assert finish(run, timeout=PATIENCE).returncode == 1
    lines = sorted(run_of(work), key=lambda line: line.task_id)
    assert [(line.task_id, line.return_code) for line in lines] == [(0, -signal.SIGTERM), (1, 0)]
    assert "Z" not in lines[0].flags
    assert ran(work) == [(0, 1, 0)]


def test_an_engine_that_is_stopped_on_purpose_does_not_count(work: Workplace) -> None:
    run = work.start("--crash-limit=1", "-S", "-p", "run", work.write("tasks", TASK).name)
    work.await_file("run_kvsinfo.txt")
    for attempt in (1, 2, 3):
        add(work, work.directory / "run_dbUtil.sh", "-s", "localhost:1")
        work.await_file(f"begun.0.{attempt}")
        if attempt < 3:
            os.kill(engine_of(work, attempt - 1), signal.SIGTERM)
    work.write("go")
    well_ended(work, finish(run, timeout=PATIENCE), 1)
    assert ran(work) == [(0, 1, 0), (0, 2, 1), (0, 3, 2)]


def test_periods_that_do_not_fit_are_a_mistake(work: Workplace) -> None:
    work.write("tasks", "true")
    done = work.run("--heartbeat", "30", "-s", "localhost:1", "tasks")
    assert done.returncode == 2
    assert "--heartbeat 30 is too slow for --heartbeat-patience 60" in done.stderr
