"""The script of a run adds to it while it goes on, from anywhere and with nothing but itself."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from disbatch.kvsstcp import KVSClient
from disbatch.options import GPU_HAS_NO_EFFECT
from tests.e2e.support import PATIENCE, Workplace, eventually, finish, read_status

if TYPE_CHECKING:
    from pathlib import Path

WAIT = "touch begun.$DISBATCH_TASKID; until [ -e go ]; do sleep 0.02; done"


@pytest.fixture
def work(work: Workplace) -> Workplace:
    """A place whose path is as bad as paths get."""
    place = work.directory / 'it\'s "my" $HOME & place'
    place.mkdir()
    work.directory = place
    return work


def begin(work: Workplace, *options: str, tasks: int = 4) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a run with one place and tasks that wait for the file `go`; the run, and its script."""
    run = work.start("-s", "localhost:1", "-p", "my run", *options, work.write("tasks", *[WAIT] * tasks).name)
    work.await_file("begun.0")
    return run, work.directory / "my run_dbUtil.sh"


def add(work: Workplace, script: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Call the script from the root directory with an empty environment but for the mark."""
    return work.start(*arguments, program=["env", "-i", f"MARK_OF_A_TEST={work.mark}", script], cwd=script.parents[1])


def let_end(work: Workplace, run: subprocess.Popen[bytes]) -> None:
    """Let the tasks of a run end, and see that it ends well."""
    work.write("go")
    done = finish(run, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def test_a_context_is_added(work: Workplace) -> None:
    run, script = begin(work)
    added = add(work, script, "-s", "localhost:3")
    for task in range(4):
        work.await_file(f"begun.{task}")
    let_end(work, run)
    done = finish(added, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(line.task_id for line in read_status(work.directory / "my run_status.txt")) == [0, 1, 2, 3]
    assert (work.directory / "my run_SSH1.context.log").exists()
    assert (work.directory / "my run_SSH1_localhost_engine_1.log").exists()


def test_its_tasks_run_where_those_of_the_driver_do(work: Workplace) -> None:
    run = work.start("-s", "localhost:1", "-p", "my run", work.write("tasks", WAIT, f"{WAIT}; pwd > place").name)
    work.await_file("begun.0")
    add(work, work.directory / "my run_dbUtil.sh", "-s", "localhost:1")
    work.await_file("begun.1")
    let_end(work, run)
    assert work.text("place") == f"{work.directory}\n"


def test_options_are_inherited_unless_given(work: Workplace) -> None:
    run, script = begin(work, "-c", "1", "-t", "2", tasks=1)
    added = [
        add(work, script, *arguments)
        for arguments in (("-s", "localhost:5"), ("-s", "localhost:5", "-c", "2.5", "-t", "7"))
    ]
    added.append(add(work, script, "-s", "localhost:5", "-l", "named", "-t", "1"))

    def cylinders() -> list[str]:
        logs = [path for path in work.directory.glob("my run_*_engine_*.log") if path.name.split("_")[-1] != "0.log"]
        return sorted(word for path in logs for word in path.read_text(encoding="utf-8").split("admitted; ")[1:])

    eventually(lambda: len(cylinders()) == 3, "three more engines")
    assert [text.split()[0] for text in cylinders()] == ["1", "2", "2"]
    assert list(work.directory.glob("my run_named_localhost_engine_?.log"))
    let_end(work, run)
    assert [finish(process, timeout=PATIENCE).returncode for process in added] == [0, 0, 0]


def test_an_added_context_shares_out_what_it_was_told_to(work: Workplace) -> None:
    shared = WAIT.replace("touch begun", "echo $DEVICES > begun")
    run = work.start("-s", "localhost:1", "-p", "my run", work.write("tasks", shared, shared, shared).name)
    work.await_file("begun.0")
    script = work.directory / "my run_dbUtil.sh"
    added = work.start(
        *("-s", "localhost:2", "-E", "DEVICES"),
        program=["env", "-i", f"MARK_OF_A_TEST={work.mark}", "DEVICES=a,b", script],
    )
    work.await_file("begun.1")
    work.await_file("begun.2")
    assert work.text("begun.0") == "\n"
    eventually(lambda: {work.text("begun.1"), work.text("begun.2")} == {"a\n", "b\n"}, "a device for each")
    let_end(work, run)
    assert finish(added, timeout=PATIENCE).returncode == 0


def test_an_option_of_the_past_is_accepted_and_said_to_do_nothing(work: Workplace) -> None:
    run, script = begin(work, tasks=2)
    added = add(work, script, "-s", "localhost:1", "-g")
    work.await_file("begun.1")
    let_end(work, run)
    assert finish(added, timeout=PATIENCE) == (0, "", f"disbatch: {GPU_HAS_NO_EFFECT}\n")


def test_per_engine_commands_run_in_what_is_added(work: Workplace) -> None:
    tasks = work.write(
        "tasks",
        "#DISBATCH PERENGINE START touch start.$DISBATCH_ENGINE_RANK",
        "#DISBATCH PERENGINE STOP touch stop.$DISBATCH_ENGINE_RANK",
        WAIT,
    )
    run = work.start("-s", "localhost:1", "-p", "my run", tasks.name)
    work.await_file("begun.0")
    add(work, work.directory / "my run_dbUtil.sh", "-s", "localhost:1")
    work.await_file("start.1")
    let_end(work, run)
    assert (work.directory / "stop.0").exists()
    assert (work.directory / "stop.1").exists()


@pytest.mark.parametrize("signal_name", ["TERM", "INT"])
def test_an_added_context_can_be_ended_alone(work: Workplace, signal_name: str) -> None:
    run, script = begin(work, tasks=2)
    added = add(work, script, "-s", "localhost:1")
    work.await_file("begun.1")
    (work.directory / "begun.1").unlink()
    subprocess.run(["kill", f"-{signal_name}", str(added.pid)], check=True)
    assert finish(added, timeout=PATIENCE).returncode == 0
    assert run.poll() is None
    let_end(work, run)
    # Its task has run again where there was still a place.
    assert (work.directory / "begun.1").exists()
    lines = read_status(work.directory / "my run_status.txt")
    assert sorted((line.task_id, line.return_code) for line in lines) == [(0, 0), (1, 0)]


def test_an_added_host_that_cannot_be_reached_does_no_harm(work: Workplace) -> None:
    run, script = begin(work, tasks=2)
    added = finish(add(work, script, "-s", "no-such-host.invalid:4"), timeout=PATIENCE)
    assert (added.returncode, len(added.complaints)) == (1, 1)
    assert added.stderr.startswith("disbatch: no-such-host.invalid runs no tasks: ")
    assert run.stderr is not None
    line = run.stderr.readline().decode()
    assert line.startswith("disbatch: no-such-host.invalid runs no tasks: its engine did not start: ")
    let_end(work, run)


def test_an_added_context_that_has_no_place_for_a_task_does_no_harm(work: Workplace) -> None:
    run, script = begin(work, tasks=2)
    added = finish(add(work, script, "-s", "localhost:1", "-c", "8"), timeout=PATIENCE)
    assert (added.returncode, len(added.complaints)) == (1, 1)
    assert run.stderr is not None
    assert run.stderr.readline().startswith(b"disbatch: a context could not join the run: no node has the 8 cores")
    let_end(work, run)


def test_a_context_added_on_a_terminal_says_that_it_waits(work: Workplace) -> None:
    run, script = begin(work, tasks=2)
    terminal, inside = pty.openpty()
    added = subprocess.Popen([script, "-s", "localhost:1"], env=work.environment, stderr=inside)
    os.close(inside)
    with open(terminal, encoding="utf-8") as screen:
        said = screen.readline()
        assert said == "disbatch: added localhost to the run; Ctrl-C takes them away again\n"
        let_end(work, run)
        assert added.wait(PATIENCE) == 0


def test_nohup_keeps_an_added_context_alive_when_the_terminal_goes(work: Workplace) -> None:
    run, script = begin(work, tasks=2)
    added = work.start("-s", "localhost:1", program=["nohup", script])
    work.await_file("begun.1")
    added.send_signal(signal.SIGHUP)
    let_end(work, run)
    assert finish(added, timeout=PATIENCE).returncode == 0
    assert "got SIGHUP" not in work.text("my run_SSH1.context.log")


def test_a_secret_left_in_the_environment_does_not_keep_a_context_from_a_run_without_one(work: Workplace) -> None:
    run, script = begin(work, "--insecure-kvs", tasks=2)
    added = work.start("-s", "localhost:1", program=[script], env={"KVSSTCP_SECRET": "that of another store"})
    work.await_file("begun.1")
    let_end(work, run)
    assert finish(added, timeout=PATIENCE).returncode == 0


def test_the_run_is_over(work: Workplace) -> None:
    run, script = begin(work, tasks=1)
    let_end(work, run)
    done = finish(add(work, script, "-s", "localhost:1"), timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Run done\n", "")
    asked = finish(add(work, script, "--kvs-env"), timeout=PATIENCE)
    assert (asked.returncode, asked.stdout) == (1, ""), "nothing that a shell could take for a variable"
    assert asked.complaints == ["disbatch: error: the run is over, and its key-value store has gone with it"]


def test_the_driver_was_killed(work: Workplace) -> None:
    run, script = begin(work, tasks=1)
    run.kill()
    finish(run)
    done = finish(add(work, script, "-s", "localhost:1"), timeout=PATIENCE)
    assert done.returncode == 1
    assert "cannot reach the driver" in done.stderr
    assert len(done.complaints) == 1


def test_files_of_the_run_and_their_rights(work: Workplace) -> None:
    run, script = begin(work, tasks=1)
    assert script.stat().st_mode & 0o777 == 0o700
    info = work.directory / "my run_kvsinfo.txt"
    assert info.read_text(encoding="ascii").count("\n") == 1
    let_end(work, run)
    assert not info.exists()
    assert script.stat().st_mode & 0o777 == 0o700


def test_rights_of_an_earlier_script_do_not_pass_on(work: Workplace) -> None:
    script = work.write("my run_dbUtil.sh", "old")
    script.chmod(0o666)
    assert work.run("-s", "localhost:1", "-p", "my run", work.write("tasks", "true").name).returncode == 0
    assert script.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("insecure", [False, True])
def test_programs_find_the_store_of_the_run(work: Workplace, *, insecure: bool) -> None:
    run, script = begin(work, *["--insecure-kvs"] * insecure)
    done = finish(add(work, script, "--kvs-env"), timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert set(found) == {"KVSSTCP_HOST", "KVSSTCP_PORT", *["KVSSTCP_SECRET"] * (not insecure)}
    with KVSClient(found["KVSSTCP_HOST"], found["KVSSTCP_PORT"], secret=found.get("KVSSTCP_SECRET", "")) as client:
        client.put("a key", "a value", False)
        assert client.get("a key", False) == b"a value"
    let_end(work, run)


def test_help(work: Workplace) -> None:
    run, script = begin(work, tasks=1)
    done = finish(add(work, script, "--help"), timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--cpusPerTask", "--label", "--ssh-node", "--tasksPerNode"):
        assert option in done.stdout
    let_end(work, run)
