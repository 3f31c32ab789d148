"""Engines whose cylinders are processes of their own: a stand-in for what a resource manager starts on a node.

The stand-in is an `ssh`, first in PATH, that starts the engine's command once for each place, as srun does: in one
process group, each with an environment of its own, and ends when all of them have.
"""

from __future__ import annotations

import os
import signal
from ast import literal_eval
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import AFTER_KILL, eventually, finish, look_at

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.e2e.support import Process, Workplace

LAUNCHER = """#!/bin/bash
command="${!#} --place-variable PLACE"
for ((place = 0; place < ${PLACES:-3}; place++)); do
    PLACE=$place DEVICE=device$place bash -c "$command" &
    processes+=($!)
done
for process in ${processes[@]}; do
    wait $process || status=$?
done
exit ${status:-0}
"""

LONG = "touch begun.$PLACE; sleep 300; true"
"""A task that is there to be ended. The `true` keeps bash from becoming the sleep."""


@pytest.fixture
def path(work: Workplace) -> str:
    """A PATH that begins with the stand-in."""
    folder = work.directory / "launcher"
    folder.mkdir()
    program = folder / "ssh"
    program.write_text(LAUNCHER, encoding="ascii")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def begin(work: Workplace, path: str, *lines: str, places: int = 3) -> subprocess.Popen[bytes]:
    """Start a run on the three places of a node, and return when there are three tasks that run."""
    run = work.start("-s", f"node:{places}", work.write("tasks", *lines).name, env={"PATH": path})
    for place in range(places):
        work.await_file(f"begun.{place}")
    return run


def process_of(work: Workplace, place: int) -> Process:
    """The process of that place, not its keeper."""
    engines = [process for process in work.processes() if process.role == "--engine"]
    keepers = {process.pid for process in engines}
    (found,) = (
        process for process in engines if process.parent in keepers and variables_of(process.pid)["PLACE"] == str(place)
    )
    return found


def variables_of(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/environ", "rb") as environ:
        pairs = (entry.partition(b"=") for entry in environ.read().split(b"\0")[:-1])
        return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def log_of_engine(directory: Path) -> str:
    (log,) = directory.glob("*_engine_0.log")
    return log.read_text(encoding="utf-8")


def test_each_task_runs_below_the_process_of_its_cylinder_and_in_its_environment(work: Workplace, path: str) -> None:
    everybody = "touch here.$PLACE; until [ -e here.0 -a -e here.1 -a -e here.2 ]; do sleep 0.01; done; "
    shown = "echo $PLACE $DISBATCH_CYLINDER_RANK $DEVICE $DISBATCH_TASKID $PPID"
    lines = ["#DISBATCH PERENGINE START echo $PLACE > started", *[everybody + shown] * 3, *[shown] * 60]
    run = work.start("-s", "node:3", work.write("tasks", *lines).name, env={"PATH": path})
    done = finish(run)
    assert done.returncode == 0, done.stderr
    assert work.text("started") == "0\n"
    ended = [line for line in work.status() if "P" not in line.flags]
    assert sorted(line.task_id for line in ended) == list(range(63))
    parents = set()
    for line in ended:
        place, cylinder, device, task_id, parent = literal_eval(line.out).split()
        assert (cylinder, device, int(task_id)) == (place, f"device{place}", line.task_id)
        parents.add((place, parent))
    assert len(parents) == 3, "each place has one process, and each had a task"
    work.await_silence()


def test_the_task_of_a_process_that_is_killed_has_failed_and_the_others_go_on(work: Workplace, path: str) -> None:
    lines = [
        f"[ $PLACE = 2 ] || {{ touch begun.$PLACE; exec sleep 0.1; }}; {LONG}",
        *["until [ -e killed ]; do sleep 0.01; done; echo $PLACE"] * 20,
    ]
    run = begin(work, path, *[lines[0]] * 3, *lines[1:])
    os.kill(process_of(work, 2).pid, signal.SIGKILL)
    eventually(lambda: any(line.return_code == -signal.SIGKILL for line in work.status()), "the task has its line")
    work.write("killed")
    done = finish(run)
    assert done.returncode == 0, done.stderr
    assert (
        "disbatch: node takes 2 tasks at once from now on, not 3: processes of its engine have gone" in done.complaints
    )
    (lost,) = (line for line in work.status() if line.return_code)
    assert (lost.flags, lost.return_code, lost.pid) == ("R E ", -signal.SIGKILL, -1)
    assert literal_eval(lost.err).startswith("disbatch: the process of place 2 on node")
    assert {line.out for line in work.status()} == {"''", r"'0\n'", r"'1\n'"}
    work.await_silence()


def test_a_process_whose_keeper_is_killed_gives_its_task_back(work: Workplace, path: str) -> None:
    once = "mkdir once.$DISBATCH_TASKID || exit 0; touch begun.$PLACE; until [ -e over ]; do sleep 0.01; done"
    run = begin(work, path, *[once] * 3, "true")
    rank = process_of(work, 2)
    os.kill(rank.parent, signal.SIGKILL)
    eventually(lambda: look_at(rank.pid) is None, "the process has ended")
    work.write("over")
    done = finish(run)
    assert done.returncode == 0, done.stderr
    assert "node takes 2 tasks at once from now on" in done.stderr
    assert sorted((line.task_id, line.return_code) for line in work.status()) == [(0, 0), (1, 0), (2, 0), (3, 0)]
    work.await_silence()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_leaves_nothing_behind(work: Workplace, path: str, number: signal.Signals) -> None:
    run = begin(work, path, "#DISBATCH PERENGINE STOP echo $PLACE >> stopped", *[LONG] * 5)
    run.send_signal(number)
    assert finish(run).returncode == 128 + number
    assert [(line.flags, line.return_code) for line in work.status() if "P" not in line.flags] == [("R  Z", -15)] * 3
    assert work.text("stopped") == "0\n"
    work.await_silence()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_processes_of_a_node_ends_them_in_order(
    work: Workplace, path: str, number: signal.Signals
) -> None:
    run = begin(work, path, *[LONG] * 5)
    engine = process_of(work, 0)
    os.killpg(os.getpgid(engine.parent), number)
    done = finish(run)
    assert done.returncode == 1
    assert "no engine is left" in done.stderr
    assert "lost the process" not in log_of_engine(work.directory)
    work.await_silence()


def test_tasks_that_die_of_a_signal_that_drains_their_node_run_again_and_those_that_live_through_it_finish(
    work: Workplace, path: str
) -> None:
    """As a resource manager sends it: to all processes of the node, its tasks too."""
    waits = "echo $DISBATCH_TASKID >> ran; touch begun.$PLACE; until [ -e go ]; do sleep 0.01; done"
    lives = f"trap '' USR1; {waits}; sleep 1"  # for longer than the engine doubts what ends
    run = begin(work, path, lives, *[f"{waits}; exit $PLACE"] * 2, "true")
    drained = [process.pid for process in work.processes() if process.role == "--engine"]
    tasks = [process.pid for process in work.processes() if process.parent in drained and process.pid not in drained]
    engine = process_of(work, 0).pid
    os.kill(engine, signal.SIGSTOP)  # so that what the signal does is there when it looks, however busy this machine is
    mortal = [pid for pid in tasks if variables_of(pid)["DISBATCH_TASKID"] != "0"]
    for pid in drained + tasks:
        os.kill(pid, signal.SIGUSR1)
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in mortal), "tasks to die of it")
    os.kill(engine, signal.SIGCONT)
    eventually(lambda: "told to finish" in log_of_engine(work.directory), "the engine to be told")
    work.write("go")
    assert run.stderr is not None
    assert b"the run waits for resources" in run.stderr.readline()
    (script,) = work.directory.glob("*_dbUtil.sh")
    added = work.start("-s", "localhost:1", program=[script], env={"PLACE": "0"})
    done = finish(run)
    assert (done.returncode, finish(added).returncode) == (0, 0)
    assert sorted(work.text("ran").split()) == ["0", "1", "1", "2", "2"]
    assert sorted((line.task_id, line.return_code) for line in work.status()) == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert "lost the process" not in log_of_engine(work.directory)
    work.await_silence()


def test_nothing_outlives_an_engine_that_is_killed(work: Workplace, path: str) -> None:
    deaf = "trap '' TERM; setsid sleep 300 & " + LONG
    run = begin(work, path, deaf, LONG, LONG)
    os.kill(process_of(work, 0).pid, signal.SIGKILL)
    done = finish(run)
    assert done.returncode == 1
    assert "lost the engine on node; 3 of its tasks to run again" in done.stderr
    work.await_silence(AFTER_KILL)


def test_a_driver_that_is_killed_leaves_nothing_behind(work: Workplace, path: str) -> None:
    run = begin(work, path, *[LONG] * 3)
    run.kill()
    finish(run)
    work.await_silence(AFTER_KILL)


def test_what_tasks_left_behind_ends_with_the_run(work: Workplace, path: str) -> None:
    lines = ["touch begun.$PLACE; until [ -e begun.2 ]; do sleep 0.01; done; setsid sleep 300 > /dev/null 2>&1 &"] * 6
    run = begin(work, path, *lines)
    assert finish(run).returncode == 0
    work.await_silence()


def test_a_command_of_the_longest_kind_fits_and_a_longer_one_fails_as_ever(work: Workplace, path: str) -> None:
    together = "touch begun.$PLACE; until [ -e begun.0 -a -e begun.1 ]; do sleep 0.01; done; "
    longest = 2**17 - 1  # Linux takes no longer argument, with the byte that ends it
    lines = [f"{together * (number < 2)}echo $PLACE #".ljust(longest, "x") for number in range(20)]
    run = begin(work, path, *lines, *[lines[-1] + "x"] * 10, *["#" + "x" * 2**19] * 10, places=2)
    assert finish(run).returncode == 0
    ended = sorted(work.status(), key=lambda line: line.task_id)
    assert {line.out for line in ended[:20]} == {r"'0\n'", r"'1\n'"}
    assert {(line.return_code, literal_eval(line.err)) for line in ended[20:]} == {
        (7, "disbatch could not start this task: Argu...ment list too long\n")
    }
    work.await_silence()
