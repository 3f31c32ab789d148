"""A pool that changes while the run goes on: resources come, are used up, and are sent away."""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import pytest

from disbatch import messages
from disbatch.kvsstcp import KVSClient
from tests.e2e.support import PATIENCE, eventually, finish, read_status

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.e2e.support import Workplace

NOTE = "echo $DISBATCH_TASKID $DISBATCH_ENGINE_RANK >> ran"
WAIT = f"{NOTE}; touch begun.$DISBATCH_TASKID; until [ -e go.$DISBATCH_ENGINE_RANK ]; do sleep 0.02; done"


def add(work: Workplace, script: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Call the script of a run from elsewhere, with an empty environment but for the mark."""
    return work.start(*arguments, program=["env", "-i", f"MARK_OF_A_TEST={work.mark}", script], cwd=script.parents[1])


def ran(work: Workplace) -> list[tuple[int, int]]:
    """Task and engine of each task that has run, in the order of the tasks."""
    lines = (line.split() for line in work.text("ran").splitlines())
    return sorted((int(task), int(engine)) for task, engine in lines)


def client_of(work: Workplace) -> KVSClient:
    """A client of the run's store, as one is who may look and stop what runs."""
    secret = re.search(r"--stop\) KVSSTCP_SECRET=(\S+)", work.text("run_dbUtil.sh"))
    assert secret is not None
    return KVSClient(work.text("run_kvsinfo.txt").strip(), secret=secret[1])


def tell(work: Workplace, message: messages.Message) -> None:
    """Say something to the driver."""
    with client_of(work) as client:
        client.put(messages.orders_key("run"), messages.encode(message), messages.TAG)
        state_of(client)  # the answer comes when the order has been taken


# Without resources at first


def test_a_run_may_begin_without_resources(work: Workplace) -> None:
    run = work.start("-S", "-p", "run", "-c", "1", "-t", "2", work.write("tasks", *[NOTE] * 4).name)
    assert run.stdout is not None
    script = work.directory / "run_dbUtil.sh"
    assert run.stdout.readline().decode() == f"{script}\n"
    assert not (work.directory / "ran").exists()
    added = add(work, script, "-s", "localhost:1")
    done = finish(run, timeout=PATIENCE)
    assert done.returncode == 0
    assert done.complaints[0] == f"disbatch: the run waits for resources; {script} -s HOST:N adds some"
    assert finish(added, timeout=PATIENCE).returncode == 0
    assert ran(work) == [(task, 0) for task in range(4)]


def test_such_a_run_waits_again_when_its_resources_have_gone(work: Workplace) -> None:
    run = work.start("-S", "-p", "run", work.write("tasks", *[NOTE] * 5).name)
    script = work.directory / "run_dbUtil.sh"
    eventually((work.directory / "run_kvsinfo.txt").exists, "the address of the run")
    for _ in range(2):
        assert finish(add(work, script, "-s", "localhost:1", "-C", "2"), timeout=PATIENCE).returncode == 0
        assert run.poll() is None
    assert finish(add(work, script, "-s", "localhost:1"), timeout=PATIENCE).returncode == 0
    assert finish(run, timeout=PATIENCE).returncode == 0
    assert ran(work) == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)]


def test_nothing_to_do_needs_no_resources(work: Workplace) -> None:
    done = work.run("-S", work.write("tasks", "# nothing").name)
    assert done.returncode == 0
    assert done.complaints == ["disbatch: No tasks to run."]


# Resources for so many tasks


def test_a_context_goes_when_it_was_given_its_tasks_and_its_stop_commands_run(work: Workplace) -> None:
    tasks = work.write("tasks", "#DISBATCH PERENGINE STOP echo stop >> stopped.$DISBATCH_ENGINE_RANK", *[NOTE] * 7)
    run = work.start("-C", "3", "-s", "localhost:2", "-p", "run", tasks.name)
    eventually((work.directory / "stopped.0").exists, "the STOP command")
    assert run.poll() is None
    assert finish(add(work, work.directory / "run_dbUtil.sh", "-s", "localhost:1"), timeout=PATIENCE).returncode == 0
    done = finish(run, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert [engine for _, engine in ran(work)].count(0) == 3
    assert [task for task, _ in ran(work)] == list(range(7))
    assert work.text("stopped.1") == "stop\n"


def test_a_limit_of_0_is_none(work: Workplace) -> None:
    done = work.run("-C", "0", "-s", "localhost:2", work.write("tasks", *[NOTE] * 20).name)
    assert (done.returncode, len(done.complaints)) == (0, 1)
    assert ran(work) == [(task, 0) for task in range(20)]


@pytest.mark.parametrize("seed", range(50))
def test_every_context_is_given_exactly_its_limit_and_every_task_done_once(work: Workplace, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - what matters is that it is the same again
    limits = {label: chance.randrange(1, 12) for label in ("first", "second", "third")}
    number = sum(limits.values()) + chance.randrange(1, 20)
    pause = chance.choice(["true", "sleep 0.01"])
    tasks = work.write("tasks", *[f"{pause}; {NOTE}"] * number)
    own = ["-l", "first", "-C", f"{limits['first']}", "-s", f"localhost:{chance.randrange(1, 4)}"]
    run = work.start(*own, "-p", "run", tasks.name)
    eventually((work.directory / "run_kvsinfo.txt").exists, "the address of the run")
    script = work.directory / "run_dbUtil.sh"
    added = [
        add(work, script, "-s", f"localhost:{chance.randrange(1, 4)}", "-l", label, "-C", f"{limits[label]}")
        for label in ("second", "third")
    ]
    assert [finish(context, timeout=PATIENCE).returncode for context in added] == [0, 0]
    last = add(work, script, "-s", "localhost:1", "-l", "last")
    assert [finish(process, timeout=PATIENCE).returncode for process in (run, last)] == [0, 0]
    assert [task for task, _ in ran(work)] == list(range(number))
    given = Counter(engine for _, engine in ran(work))
    for label, limit in limits.items():
        (log,) = work.directory.glob(f"run_{label}_localhost_engine_*.log")
        assert given[int(log.stem.rpartition("_")[2])] == limit


# Sent away


@pytest.fixture
def two(work: Workplace) -> subprocess.Popen[bytes]:
    """A run with an engine of one place in each of two contexts, which both run a task that waits for a file."""
    run = work.start("-s", "localhost:1", "-p", "run", work.write("tasks", *[WAIT] * 4).name)
    work.await_file("begun.0")
    add(work, work.directory / "run_dbUtil.sh", "-s", "localhost:1")
    work.await_file("begun.1")
    return run


@pytest.mark.parametrize("message", [messages.StopEngine(0, now=False), messages.StopContext(0, now=False)])
def test_what_is_stopped_finishes_what_it_runs(
    work: Workplace, two: subprocess.Popen[bytes], message: messages.Message
) -> None:
    tell(work, message)
    eventually(lambda: "told to finish" in log_of_engine(work, 0), "the engine to hear of it")
    work.write("go.0")
    eventually(lambda: "leaving" in log_of_engine(work, 0), "the engine to leave")
    assert not (work.directory / "begun.2").exists()
    work.write("go.1")
    assert finish(two, timeout=PATIENCE).returncode == 0
    assert ran(work) == [(0, 0), (1, 1), (2, 1), (3, 1)]


@pytest.mark.parametrize("message", [messages.StopEngine(0, now=True), messages.StopContext(0, now=True)])
def test_what_is_stopped_now_ends_what_it_runs_which_runs_again_elsewhere(
    work: Workplace, two: subprocess.Popen[bytes], message: messages.Message
) -> None:
    tell(work, message)
    eventually(lambda: "leaving" in log_of_engine(work, 0), "the engine to leave")
    work.write("go.1")
    assert finish(two, timeout=PATIENCE).returncode == 0
    assert ran(work) == [(0, 0), (0, 1), (1, 1), (2, 1), (3, 1)]
    assert sorted(line.task_id for line in read_status(work.directory / "run_status.txt")) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "clings",
    [
        "kill -STOP 0; sleep 300",
        "trap '' TERM HUP INT; sleep 300; sleep 300",
        "(setsid bash -c 'trap \"\" TERM HUP INT; sleep 300; true' > /dev/null 2>&1 &); sleep 300; true",
    ],
    ids=["stopped", "deaf", "forks away"],
)
def test_a_task_that_clings_to_an_engine_that_is_stopped_now_runs_again_elsewhere(work: Workplace, clings: str) -> None:
    task = f"{NOTE}; [ $DISBATCH_ENGINE_RANK != 0 ] || {{ touch begun.0; {clings}; }}"
    run = work.start("-s", "localhost:1", "-p", "run", work.write("tasks", task).name)
    work.await_file("begun.0")
    tell(work, messages.StopEngine(0, now=True))
    eventually(lambda: "leaving" in log_of_engine(work, 0), "the engine to leave")
    added = add(work, work.directory / "run_dbUtil.sh", "-s", "localhost:1")
    assert finish(run, timeout=PATIENCE).returncode == 0
    assert finish(added, timeout=PATIENCE).returncode == 0
    assert ran(work) == [(0, 0), (0, 1)]
    (line,) = read_status(work.directory / "run_status.txt")
    assert (line.flags, line.return_code) == ("    ", 0)
    work.await_silence()


SLOW = "trap 'sleep 0.4; echo ended >> order; exit' TERM; touch begun.0; while :; do sleep 0.01; done"


@pytest.mark.parametrize(
    "leaves", ['eval "$SLOW" & wait', 'setsid -f bash -c "$SLOW"; sleep 300'], ids=["its-group", "an-orphan"]
)
def test_a_task_runs_again_when_nothing_of_it_runs_any_more(work: Workplace, leaves: str) -> None:
    again = "echo again >> order"
    task = f'export SLOW="{SLOW}"; if [ $DISBATCH_ATTEMPT = 1 ]; then {leaves}; else {again}; fi'
    run = work.start("-s", "localhost:1", "-p", "run", work.write("tasks", task).name)
    work.await_file("begun.0")
    added = add(work, work.directory / "run_dbUtil.sh", "-s", "localhost:1")
    logs = work.directory.glob
    eventually(lambda: any("admitted" in log.read_text() for log in logs("run_*_engine_1.log")), "the other engine")
    tell(work, messages.StopEngine(0, now=True))
    assert finish(run, timeout=PATIENCE).returncode == 0
    assert finish(added, timeout=PATIENCE).returncode == 0
    assert work.text("order") == "ended\nagain\n"


def test_what_start_commands_leave_running_is_there_for_stop_commands(work: Workplace) -> None:
    start = "#DISBATCH PERENGINE START setsid -f sleep 300 >&- 2>&-; (sleep 300 >&- 2>&- & echo $! > left)"
    stop = "#DISBATCH PERENGINE STOP kill $(cat left) && echo there > found"
    run = work.start("-s", "localhost:1", "-p", "run", work.write("tasks", start, stop, WAIT).name)
    work.await_file("begun.0")
    tell(work, messages.StopEngine(0, now=True))
    eventually((work.directory / "found").exists, "the STOP command to end")
    work.write("go.1")
    added = add(work, work.directory / "run_dbUtil.sh", "-s", "localhost:1")
    assert finish(run, timeout=PATIENCE).returncode == 0
    assert finish(added, timeout=PATIENCE).returncode == 0
    work.await_silence()


@pytest.mark.parametrize("message", [messages.StopEngine(0, now=False), messages.StopContext(0, now=False)])
def test_what_is_stopped_runs_its_stop_commands_then(work: Workplace, message: messages.Message) -> None:
    stop = "#DISBATCH PERENGINE STOP echo $DISBATCH_ENGINE_RANK >> stopped; ls begun.* >> stopped"
    run = work.start("-s", "localhost:1", "-p", "run", work.write("tasks", stop, WAIT, WAIT).name)
    work.await_file("begun.0")
    tell(work, message)
    eventually(lambda: "told to finish" in log_of_engine(work, 0), "the engine to hear of it")
    assert not (work.directory / "stopped").exists()
    work.write("go.0")
    eventually(lambda: "leaving" in log_of_engine(work, 0), "the engine to leave")
    assert work.text("stopped") == "0\nbegun.0\n"
    work.write("go.1")
    added = add(work, work.directory / "run_dbUtil.sh", "-s", "localhost:1")
    assert finish(run, timeout=PATIENCE).returncode == 0
    assert finish(added, timeout=PATIENCE).returncode == 0
    assert ran(work) == [(0, 0), (1, 1)]


@pytest.mark.parametrize(("kind", "name"), [("engine", "0"), ("context", "SSH0")])
def test_the_script_of_the_run_stops_by_name(
    work: Workplace, two: subprocess.Popen[bytes], kind: str, name: str
) -> None:
    done = finish(add(work, work.directory / "run_dbUtil.sh", "--stop", kind, name), timeout=PATIENCE)
    what = "engine 0 on localhost" if kind == "engine" else "context SSH0"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"told {what} to finish what runs there\n", "")
    work.write("go.0")
    eventually(lambda: "leaving" in log_of_engine(work, 0), "the engine to leave")
    work.write("go.1")
    assert finish(two, timeout=PATIENCE).returncode == 0
    assert ran(work) == [(0, 0), (1, 1), (2, 1), (3, 1)]


def test_the_script_of_the_run_stops_at_once(work: Workplace, two: subprocess.Popen[bytes]) -> None:
    script = work.directory / "run_dbUtil.sh"
    done = finish(add(work, script, "--stop", "context", "SSH1", "--now"), timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (
        0,
        "told context SSH1 to end what runs there, which others run again\n",
    )
    eventually(lambda: "leaving" in log_of_engine(work, 1), "the engine to leave")
    work.write("go.0")
    assert finish(two, timeout=PATIENCE).returncode == 0
    assert ran(work) == [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0)]


def test_the_script_of_the_run_stops_nothing_that_is_not_clear(work: Workplace, two: subprocess.Popen[bytes]) -> None:
    script = work.directory / "run_dbUtil.sh"
    both = "engine 0 on localhost, engine 1 on localhost"
    for arguments, status, complaint in (
        (("engine", "nowhere"), 1, "no engine of this run goes by 'nowhere' (there is: localhost)"),
        (("engine", "localhost"), 1, f"'localhost' may be any of these: {both} (name one by its number)"),
        (("run", "x"), 2, "argument --stop: 'run' cannot be stopped (write --stop context NAME or --stop engine NAME)"),
    ):  # fmt: skip
        done = finish(add(work, script, "--stop", *arguments), timeout=PATIENCE)
        assert (done.returncode, done.stdout, done.complaints) == (status, "", [f"disbatch: error: {complaint}"])
    work.write("go.0")
    work.write("go.1")
    assert finish(two, timeout=PATIENCE).returncode == 0
    done = finish(add(work, script, "--stop", "engine", "0"), timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Run done\n", "")


# The posted state


def state_of(client: KVSClient) -> dict[str, Any]:
    """State of a run as it is posted; nothing of it as long as it says that it starts."""
    tag, text = cast("tuple[bytes, bytes]", client.view("DisBatch status", None, PATIENCE))
    if tag == b"ASTR":
        assert text == b"<Starting...>"
        return {}
    assert tag == b"JSON"
    return cast("dict[str, Any]", json.loads(text))


def test_the_state_of_the_run_is_there_for_programs(work: Workplace, two: subprocess.Popen[bytes]) -> None:
    with client_of(work) as client:
        eventually(lambda: state_of(client).get("activeCylinders") == 2, "both engines to be posted")
        state = state_of(client)
        work.write("go.0")
        work.write("go.1")
    done = finish(two, timeout=PATIENCE)
    assert done.returncode == 0
    assert (state["more"], state["barriers"], state["currentReturnCode"]) == ("No more tasks.", 0, 0)
    first, second = state["contexts"].values()
    assert [(context["label"], context["rank"], context["sysid"]) for context in (first, second)] == [
        ("SSH0", 0, "SSH"),
        ("SSH1", 1, "SSH"),
    ]
    assert (first["nodes"], first["cylinders"], first["cores_per_cylinder"]) == (["localhost"], [1], [1])
    engines = list(state["engines"].values())
    assert [(engine["rank"], engine["cRank"], engine["status"]) for engine in engines] == [
        (0, 0, "running"),
        (1, 1, "running"),
    ]
    for engine in engines:
        figures = [engine[name] for name in ("cylinders", "active", "assigned", "finished", "failed")]
        assert figures == [1, 1, 1, 0, 0]
        assert engine["hostname"] == os.uname().nodename
        assert engine["start"] <= engine["last"] <= state["time"]


def log_of_engine(work: Workplace, rank: int) -> str:
    (log,) = work.directory.glob(f"run_*_engine_{rank}.log")
    return log.read_text(encoding="utf-8")
