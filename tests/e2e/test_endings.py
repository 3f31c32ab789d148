"""However a run ends, its status file is complete, its exit status is right, and nothing of it stays alive."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import AFTER_KILL, CHECKOUT, DISBATCH, PATIENCE, eventually, finish, read_status
from tests.e2e.window import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.support import Workplace

SIGNALS = pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)

LONG = "touch begun.$DISBATCH_TASKID; sleep 300; true"
"""A task that is there to be ended. The `true` keeps bash from becoming the sleep."""

DEAF = "trap '' TERM; touch begun.$DISBATCH_TASKID; sleep 300; sleep 300"

LEAVES_MUCH_BEHIND = (
    "sleep 300 & setsid sleep 300 & (setsid bash -c 'trap \"\" TERM HUP INT; sleep 300; true' &);"
    " setsid nohup sleep 300 > /dev/null 2>&1 < /dev/null & touch begun.$DISBATCH_TASKID; sleep 300; true"
)
"""A task with a process in its own group, two in sessions of their own, one of them deaf, and a daemon."""

ALL_KINDS = [LEAVES_MUCH_BEHIND, DEAF, LONG]


def begin_all_kinds(work: Workplace) -> subprocess.Popen[bytes]:
    """Start a run with a task of each kind, and return when all have begun."""
    run = begin(work, *ALL_KINDS, slots=3)
    for task in range(3):
        work.await_file(f"begun.{task}")
    return run


def begin(work: Workplace, *lines: str, options: tuple[str, ...] = (), slots: int = 2) -> subprocess.Popen[bytes]:
    """Start a run, and return when its first task has begun."""
    process = work.start("-s", f"localhost:{slots}", *options, work.write("tasks", *lines).name)
    work.await_file("begun.0")
    return process


# Of its own accord.


def test_a_failed_task_alone_does_not_fail_the_run(work: Workplace) -> None:
    assert work.run_tasks("exit 3", "true").returncode == 0


def test_exit_code_option_tells_of_failed_tasks(work: Workplace) -> None:
    done = work.run_tasks("exit 3", "true", options=["-e"])
    assert done.returncode == 1
    assert "2 tasks finished, 1 failed" in done.stderr
    assert len(work.status()) == 2


def test_exit_code_option_is_silent_when_all_went_well(work: Workplace) -> None:
    assert work.run_tasks("true", "true", options=["-e"]).returncode == 0


@pytest.mark.parametrize("phase", ["START", "STOP"])
def test_a_failed_per_engine_command_counts_for_exit_code(work: Workplace, phase: str) -> None:
    done = work.run_tasks(f"#DISBATCH PERENGINE {phase} exit 4", "true", options=["-e"])
    assert done.returncode == 1
    assert sorted((line.flags, line.return_code) for line in work.status()) == [("    ", 0), ("R  P", 4)]


def test_fail_fast_interrupts_what_runs_and_starts_no_more(work: Workplace) -> None:
    done = work.run_tasks(
        "#DISBATCH PERENGINE STOP touch stopped",
        LONG,
        "until [ -e begun.0 ]; do sleep 0.01; done; exit 5",
        *["touch too_much"] * 50,
        options=["-f"],
    )
    assert done.returncode == 1
    assert "task 1 (line 3) failed with return code 5" in done.stderr
    lines = sorted((line.task_id, line.flags[0], line.flags[3]) for line in work.status())
    assert lines == [(0, " ", "P"), (0, "R", "Z"), (1, "R", " ")]
    assert not (work.directory / "too_much").exists()
    assert (work.directory / "stopped").exists()


def test_fail_fast_heeds_per_engine_commands(work: Workplace) -> None:
    done = work.run_tasks("#DISBATCH PERENGINE START exit 6", "touch too_much; sleep 300", options=["-f"])
    assert done.returncode == 1
    assert "PERENGINE START command in line 1 on localhost failed with return code 6" in done.stderr
    assert work.status()[0].flags == "R  P"


def test_a_failed_check_ends_the_run_at_its_barrier(work: Workplace) -> None:
    done = work.run_tasks(
        "#DISBATCH PERENGINE STOP touch stopped",
        "false",
        "sleep 0.2; touch beside",
        "#DISBATCH BARRIER CHECK",
        "touch too_much",
    )
    assert done.returncode == 1
    assert "BARRIER CHECK in line 4: 1 of the tasks before it failed" in done.stderr
    assert sorted(
        path.name for path in work.directory.glob("[a-z]*") if path.suffix == "" and "_" not in path.name
    ) == [
        "beside",
        "stopped",
        "tasks",
    ]


def test_a_failed_per_engine_command_fails_a_check(work: Workplace) -> None:
    done = work.run_tasks(
        "#DISBATCH PERENGINE START exit 4", "true", "#DISBATCH BARRIER CHECK", "touch too_much", slots=1
    )
    assert done.returncode == 1
    assert "BARRIER CHECK in line 3: 1 of the tasks before it failed" in done.stderr
    assert not (work.directory / "too_much").exists()


def test_a_check_forgets_what_lies_before_the_last_barrier(work: Workplace) -> None:
    done = work.run_tasks("false", "#DISBATCH BARRIER", "true", "#DISBATCH BARRIER CHECK", "touch reached")
    assert done.returncode == 0
    assert (work.directory / "reached").exists()


def test_processes_left_in_the_background_end_with_the_run(work: Workplace) -> None:
    assert work.run_tasks("sleep 300 > /dev/null 2>&1 & setsid sleep 300 > /dev/null 2>&1 &").returncode == 0
    work.await_silence()


# By a signal to the driver.


@SIGNALS
def test_a_signal_ends_the_tasks_and_leaves_a_complete_status_file(
    work: Workplace, number: signal.Signals, status: int
) -> None:
    run = begin(work, LONG, "echo done", "#DISBATCH BARRIER", "touch too_much")
    eventually(lambda: len(work.status()) == 1, "the line of the second task")
    run.send_signal(number)
    done = finish(run, timeout=PATIENCE)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert "1 task finished, 1 interrupted" in done.stderr
    finished, interrupted = work.status()
    assert (finished.flags, finished.task_id) == (" O  ", 1)
    assert (interrupted.flags, interrupted.task_id, interrupted.return_code) == ("R  Z", 0, -signal.SIGTERM)
    assert not (work.directory / "too_much").exists()
    work.await_silence()


def test_what_a_task_does_on_term_is_waited_for_and_recorded(work: Workplace) -> None:
    run = begin(work, "trap 'sleep 1; echo saved; exit 9' TERM; touch begun.0; sleep 300 & wait")
    run.terminate()
    assert finish(run).returncode == 143
    (line,) = work.status()
    assert (line.flags, line.return_code, line.out) == ("RO Z", 9, r"'saved\n'")


def test_tasks_deaf_to_term_are_killed_and_stop_commands_run_then(work: Workplace) -> None:
    run = begin(work, "#DISBATCH PERENGINE STOP sleep 0.3; ls begun.* > stopped", DEAF, LONG)
    work.await_file("begun.1")
    run.terminate()
    assert finish(run, timeout=PATIENCE).returncode == 143
    assert work.text("stopped") == "begun.0\nbegun.1\n"
    assert sorted((line.flags, line.task_id, line.return_code) for line in work.status()) == [
        ("   P", 0, 0),
        ("R  Z", 0, -signal.SIGKILL),
        ("R  Z", 1, -signal.SIGTERM),
    ]
    work.await_silence()


def test_a_second_signal_hurries(work: Workplace) -> None:
    run = begin(work, "#DISBATCH PERENGINE STOP sleep 300", DEAF)
    run.send_signal(signal.SIGINT)
    assert run.stderr is not None
    assert b"got SIGINT" in run.stderr.readline()
    run.send_signal(signal.SIGINT)
    # Of the 300 s of the STOP command nothing is left, and of the 5 s of grace little.
    assert finish(run, timeout=PATIENCE).returncode == 130
    assert [(line.task_id, line.flags, line.return_code) for line in work.status()] == [(0, "R  Z", -signal.SIGKILL)]
    work.await_silence()


def test_a_second_signal_cuts_a_stop_command_short(work: Workplace) -> None:
    run = begin(work, "#DISBATCH PERENGINE STOP touch stopping; sleep 300; touch too_late", LONG)
    run.terminate()
    work.await_file("stopping")
    run.terminate()
    assert finish(run, timeout=PATIENCE).returncode == 143
    assert not (work.directory / "too_late").exists()
    work.await_silence()


def test_a_signal_while_stop_commands_run_lets_them_end_and_leaves_nothing_to_resume(work: Workplace) -> None:
    run = work.start(
        "-s", "localhost:1", work.write("tasks", "#DISBATCH PERENGINE STOP touch stopping; sleep 1", "true").name
    )
    work.await_file("stopping")
    run.send_signal(signal.SIGINT)
    done = finish(run, timeout=PATIENCE)
    assert done.returncode == 130
    what, summary = done.complaints
    assert what.startswith("disbatch: got SIGINT; all tasks have ended; STOP commands ")
    assert summary.startswith("disbatch: 1 task finished; status file: ")
    assert sorted((line.flags, line.return_code) for line in work.status()) == [("    ", 0), ("   P", 0)]
    work.await_silence()


def test_a_signal_before_anything_has_started(work: Workplace) -> None:
    run = work.start("-s", "localhost:2", "-p", "run", "-", stdin=subprocess.PIPE)
    eventually(lambda: bool(work.text("run_driver.log")), "the run")
    run.terminate()
    assert run.wait(PATIENCE) == 143
    done = finish(run)
    what, summary, go_on = done.complaints
    assert what == "disbatch: got SIGTERM before any task had started"
    assert summary == "disbatch: 0 tasks finished; status file: run_status.txt"
    assert go_on.endswith(" -s localhost:2 -p run - -r run_status.txt")
    assert not any(work.directory.glob("*_kvsinfo.txt"))


@pytest.mark.parametrize("part", ["engine", "keeper"])
def test_a_run_whose_only_engine_was_killed_in_its_first_task_tells_how_to_go_on(work: Workplace, part: str) -> None:
    run = begin(work, "touch begun.0; sleep ${LONG:-300}", options=("-p", "run"))
    os.kill(getattr(work, part)().pid, signal.SIGKILL)
    done = finish(run, timeout=2 * PATIENCE)
    assert done.returncode == 1
    assert "disbatch: 0 tasks finished; status file: run_status.txt" in done.complaints[-2:]
    assert not any(line.endswith(" ") for line in done.complaints)
    command = done.complaints[-1].partition("to go on where this run left off: ")[2]
    assert work.run(program=["bash", "-c", command], env={"LONG": "0"}).returncode == 0
    assert [line.task_id for line in read_status(work.directory / "run_status.txt")] == [0]


@pytest.mark.parametrize("reader", ["> /dev/full", "| true"])
def test_a_path_that_nobody_takes_is_one_clear_line_and_leaves_nothing(work: Workplace, reader: str) -> None:
    work.write("tasks", "touch ran")
    before = sorted(os.listdir(work.directory))
    command = f"set -o pipefail; {shlex.join(DISBATCH)} -S tasks {reader}"
    done = work.run(program=["bash", "-c", command])
    assert done.returncode == 1
    [complaint] = done.complaints
    assert complaint.startswith("disbatch: error: cannot print the path of ")
    assert complaint.endswith(("to standard output: No space left on device", "to standard output: Broken pipe"))
    assert sorted(os.listdir(work.directory)) == before


INTERRUPTED_WHILE_IMPORTING = """
import runpy, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "disbatch.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
sys.argv[:] = sys.argv[1:]
if sys.argv[0] == "disbatch":
    runpy.run_module("disbatch", run_name="__main__")
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("how", ["disbatch", str(CHECKOUT / "disbatch" / "__main__.py")], ids=["-m", "by path"])
def test_ctrl_c_while_python_still_imports_gives_no_traceback(work: Workplace, how: str) -> None:
    done = work.run(program=[DISBATCH[0], "-c", INTERRUPTED_WHILE_IMPORTING, how])
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("delay", range(0, 400, 25))
def test_a_signal_at_any_moment_of_the_start(work: Workplace, delay: int) -> None:
    run = work.start("-s", "localhost:2", work.write("tasks", *["sleep 0.05"] * 40).name)
    with suppress(subprocess.TimeoutExpired):
        run.wait(delay / 1000)
    run.terminate()
    # Until it handles signals itself, the driver dies of one as any program does.
    assert run.wait(PATIENCE) in (143, -signal.SIGTERM)
    assert "Traceback" not in finish(run).stderr
    work.await_silence(AFTER_KILL)


@pytest.mark.parametrize("stopped", ["$$", "0"], ids=["bash", "its group"])
def test_a_stopped_task_ends_too(work: Workplace, stopped: str) -> None:
    run = begin(work, f"touch begun.0; kill -STOP {stopped}; sleep 300")
    run.terminate()
    assert finish(run, timeout=PATIENCE).returncode == 143
    assert [(line.flags, line.return_code) for line in work.status()] == [("R  Z", -signal.SIGTERM)]


def test_sessions_and_daemons_of_tasks_end_with_the_run(work: Workplace) -> None:
    run = begin(work, LEAVES_MUCH_BEHIND)
    run.terminate()
    assert finish(run, timeout=PATIENCE).returncode == 143
    work.await_silence()


def test_nohup_keeps_a_run_alive_when_the_terminal_goes(work: Workplace) -> None:
    run = work.start(
        *DISBATCH, "-s", "localhost:1", work.write("tasks", "touch begun.0; sleep 1; touch end").name, program=["nohup"]
    )
    work.await_file("begun.0")
    run.send_signal(signal.SIGHUP)
    assert finish(run, timeout=PATIENCE).returncode == 0
    assert (work.directory / "end").exists()


def test_a_lost_terminal_ends_a_run(work: Workplace) -> None:
    run = begin(work, LONG)
    run.send_signal(signal.SIGHUP)
    assert finish(run, timeout=PATIENCE).returncode == 143
    assert [line.flags for line in work.status()] == ["R  Z"]


# By a key on a terminal.


CTRL_C = "\x03"


def on_terminal(work: Workplace, program: Sequence[str]) -> Window:
    return Window(work, program, size=(100, 24), env={"TERM": "dumb"})


def test_ctrl_c_typed(work: Workplace) -> None:
    with on_terminal(work, [*DISBATCH, "-s", "localhost:2", work.write("tasks", LONG, LONG).name]) as terminal:
        work.await_file("begun.0")
        work.await_file("begun.1")
        terminal.press(CTRL_C)
        assert terminal.ends() == 130
        assert b"Traceback" not in terminal.written
    assert [line.flags for line in work.status()] == ["R  Z"] * 2
    assert [line.return_code for line in work.status()] == [-signal.SIGTERM] * 2


def test_ctrl_c_typed_twice(work: Workplace) -> None:
    with on_terminal(work, [*DISBATCH, "-s", "localhost:2", work.write("tasks", DEAF, DEAF).name]) as terminal:
        work.await_file("begun.0")
        work.await_file("begun.1")
        terminal.press(CTRL_C)
        terminal.says(b"got SIGINT")
        terminal.press(CTRL_C)
        assert terminal.ends() == 130
        assert b"Traceback" not in terminal.written
    assert [line.return_code for line in work.status()] == [-signal.SIGKILL] * 2


CTRL_Z = "\x1a"

SHELL = ("env", "LC_ALL=C", "HISTFILE=", "bash", "--norc", "--noprofile", "-i")
"""A shell that controls its jobs, as that of a user does."""


@pytest.mark.parametrize("goes_on", ["bg; wait %1", "fg"])
def test_ctrl_z_typed_stops_the_driver_alone_and_every_task_runs_once_when_it_goes_on(
    work: Workplace, goes_on: str
) -> None:
    begins = "echo $DISBATCH_TASKID >> ran; touch begun.$DISBATCH_TASKID"
    # The first two outlive the lease of their engine: it does not end while the driver is stopped so.
    waits = "until [ -e go ]; do sleep 0.02; done; [ $DISBATCH_TASKID -gt 1 ] || sleep 4"
    tasks = work.write("tasks", *[f"{begins}; {waits}; touch end.$DISBATCH_TASKID"] * 6)
    with on_terminal(work, SHELL) as terminal:
        periods = ("--heartbeat", "0.3", "--heartbeat-patience", "3")
        command = shlex.join([*DISBATCH, *periods, "-s", "localhost:2", "-p", "run", tasks.name])
        terminal.press(f"{command}\n")
        for task in ("0", "1"):
            work.await_file(f"begun.{task}")
        terminal.press(CTRL_Z)
        terminal.says(b"Stopped")
        for log in ("run_SSH0_localhost_engine_0.log", "run_SSH0.context.log"):
            eventually(lambda log=log: "the driver has been stopped" in work.text(log), f"word of it in {log}")  # type: ignore[misc] # called at once
        work.write("go")
        for task in ("0", "1"):
            work.await_file(f"end.{task}")  # engines go on
        assert not read_status(work.directory / "run_status.txt")
        terminal.press(f"{goes_on}; echo the status was $?\n")
        terminal.says(b"the status was 0")
        terminal.press("exit\n")
        terminal.ends()
    assert "the driver goes on" in work.text("run_SSH0_localhost_engine_0.log")
    assert sorted(work.text("ran").split()) == [str(number) for number in range(6)]
    lines = read_status(work.directory / "run_status.txt")
    assert sorted((line.task_id, line.return_code) for line in lines) == [(number, 0) for number in range(6)]


def test_a_run_that_is_stopped_a_second_time_can_still_be_ended(work: Workplace) -> None:
    with on_terminal(work, SHELL) as terminal:
        tasks = work.write("tasks", LONG)
        terminal.press(f"{shlex.join([*DISBATCH, '-s', 'localhost:1', '-p', 'run', tasks.name])}\n")
        work.await_file("begun.0")
        log = "run_SSH0_localhost_engine_0.log"
        for times in (1, 2):
            terminal.written = b""
            terminal.press(CTRL_Z)
            terminal.says(b"Stopped")
            terminal.press("fg\n")
            # A key that comes before the shell has handed over the terminal would go to the shell.
            eventually(lambda times=times: work.text(log).count("the driver goes on") == times, "it goes on")  # type: ignore[misc] # called at once
        terminal.press(CTRL_C)
        terminal.says(b"1 interrupted")
        terminal.press("exit\n")
        terminal.ends()
    assert [line.flags for line in read_status(work.directory / "run_status.txt")] == ["R  Z"]


# By `kill -9` of a part of it.


def test_nothing_outlives_a_killed_driver(work: Workplace) -> None:
    run = begin_all_kinds(work)
    run.kill()
    assert finish(run).returncode == -signal.SIGKILL
    work.await_silence(AFTER_KILL)


def test_nothing_outlives_a_run_whose_context_was_killed(work: Workplace) -> None:
    run = begin_all_kinds(work)
    os.kill(work.context().pid, signal.SIGKILL)
    run.terminate()  # its engine goes on until then
    assert finish(run, timeout=PATIENCE).returncode == 143
    work.await_silence()


def test_nothing_outlives_a_run_whose_keeper_was_killed(work: Workplace) -> None:
    run = begin_all_kinds(work)
    os.kill(work.keeper().pid, signal.SIGKILL)
    assert finish(run, timeout=2 * PATIENCE).returncode == 1
    work.await_silence()


def test_nothing_of_a_killed_engine_outlives_it(work: Workplace) -> None:
    run = begin_all_kinds(work)
    os.kill(work.engine().pid, signal.SIGKILL)
    assert finish(run, timeout=PATIENCE).returncode == 1
    work.await_silence()


def test_a_run_whose_only_engine_was_killed_says_so(work: Workplace) -> None:
    run = begin(work, LONG, "true")
    eventually(lambda: len(work.status()) == 1, "the line of the second task")
    os.kill(work.engine().pid, signal.SIGKILL)
    done = finish(run, timeout=PATIENCE)
    assert done.returncode == 1
    assert "lost the engine on localhost; 1 of its tasks to run again" in done.stderr
    assert "no engine is left" in done.stderr
    assert "to go on where this run left off" in done.stderr
    assert [line.task_id for line in work.status()] == [1]


@pytest.mark.parametrize("with_keeper", [False, True])
def test_the_task_of_a_killed_engine_runs_on_another_when_it_cannot_run_any_more(
    work: Workplace,
    with_keeper: bool,
) -> None:
    name = os.uname().nodename
    tasks = work.write("tasks", *["touch begun.$DISBATCH_TASKID; until [ -e go ]; do sleep 0.02; done"] * 2)
    run = work.start("--heartbeat", "1", "--heartbeat-patience", "10", "-s", f"localhost:1,{name}:1", tasks.name)
    work.await_file("begun.0")
    work.await_file("begun.1")
    there = [process for process in work.processes() if f"--node={name}" in process.command]
    (keeper,) = (process for process in there if process.parent == work.context().pid)
    (engine,) = (process for process in there if process.parent == keeper.pid)
    os.kill(keeper.pid, signal.SIGSTOP)
    os.kill(engine.pid, signal.SIGKILL)
    lost = time.time()
    os.kill(keeper.pid, signal.SIGKILL if with_keeper else signal.SIGCONT)
    work.write("go")
    done = finish(run, timeout=2 * PATIENCE)
    assert done.returncode == 0
    assert f"lost the engine on {name}" in done.stderr
    lines = work.status()
    assert sorted(line.task_id for line in lines) == [0, 1]
    assert {line.node for line in lines} == {"localhost"}
    assert {line.return_code for line in lines} == {0}
    # Without the keeper nobody knows whether the task has ended, until the lease of its engine has.
    assert (max(line.start for line in lines) - lost > 7) is with_keeper


def test_a_run_goes_on_without_its_context(work: Workplace) -> None:
    run = begin(work, "touch begun.0; until [ -e go ]; do sleep 0.02; done", "true", "true", slots=1)
    os.kill(work.context().pid, signal.SIGKILL)
    assert run.stderr is not None
    assert b"lost the context SSH0" in run.stderr.readline()
    work.write("go")
    assert finish(run, timeout=PATIENCE).returncode == 0
    assert [line.task_id for line in work.status()] == [0, 1, 2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=["SIGTERM", "SIGINT", "SIGHUP"])
@pytest.mark.parametrize("part", ["context", "keeper", "engine"])
def test_a_signal_to_a_part_ends_it_in_order(work: Workplace, part: str, number: signal.Signals) -> None:
    run = begin(work, "#DISBATCH PERENGINE STOP touch stopped", LONG)
    os.kill(getattr(work, part)().pid, number)
    done = finish(run, timeout=2 * PATIENCE)
    assert done.returncode == 1
    assert "no engine is left" in done.stderr
    assert (work.directory / "stopped").exists()
    work.await_silence()


# What is needed to go on.


def test_the_line_that_resumes_works_when_pasted(work: Workplace) -> None:
    home = work.directory / "it's a place"
    home.mkdir()
    (home / "my tasks").write_text(
        "touch begun.0; sleep $LONG; echo slow >> out\necho quick >> out\n", encoding="ascii"
    )
    run = work.start("-s", "localhost:2", "-p", "my run", "my tasks", cwd=home, env={"LONG": "300"})
    eventually(lambda: (home / "begun.0").exists() and (home / "out").exists())
    run.send_signal(signal.SIGINT)
    done = finish(run, timeout=PATIENCE)
    (line,) = (line for line in done.complaints if "to go on where this run left off: " in line)
    pasted = line.partition("left off: ")[2]
    shell = ["bash", "-c", pasted]
    again = work.run(program=shell, cwd=home, env={"LONG": "0"})
    assert again.returncode == 0, again.stderr
    assert (home / "out").read_text(encoding="ascii") == "quick\nslow\n"
    assert [path.name for path in home.glob("*_status.txt*")]


@pytest.mark.parametrize("called", ["by path", "by name"])
def test_that_line_calls_disbatch_as_the_user_did(work: Workplace, called: str) -> None:
    """The program is a stand-in for the console script that pip makes, which runs the same two lines."""
    folder = work.directory / "some where" / "bin"
    folder.mkdir(parents=True)
    script = folder / "disBatch"
    script.write_text(
        f"#!{DISBATCH[0]}\nimport sys\nfrom disbatch.cli import main\nsys.exit(main())\n", encoding="ascii"
    )
    script.chmod(0o755)
    path = {"PATH": f"{folder}:{os.environ['PATH']}"} if called == "by name" else {}
    program = "disBatch" if called == "by name" else str(script)
    tasks = work.write("tasks", "touch begun.0; sleep ${LONG:-0}; echo slow >> out", "echo quick >> out")
    command = shlex.join([program, "-s", "localhost:2", tasks.name])
    run = work.start(program=["bash", "-c", f"exec {command}"], env={"LONG": "300", **path})
    eventually(lambda: (work.directory / "out").exists() and (work.directory / "begun.0").exists())
    run.terminate()
    (line,) = (line for line in finish(run).complaints if "to go on where this run left off: " in line)
    pasted = line.partition("left off: ")[2]
    assert pasted.startswith(shlex.quote(program) + " -s")
    assert work.run(program=["bash", "-c", pasted], env=path).returncode == 0
    assert work.text("out") == "quick\nslow\n"
