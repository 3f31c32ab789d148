"""Tasks that programs submit: a command that the run starts, programs in Python and in C, stores that run already."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from disbatch.kvsstcp import KVSClient
from tests.e2e.support import PATIENCE, eventually, finish
from tests.hosts import not_here
from tests.programs.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.support import Finished, StatusLine, Workplace

PROGRAMS = Path(__file__).parents[1] / "programs"

KEYS = [
    *("Flags", "TaskId", "TaskStreamIndex", "TaskRepIndex", "Host", "PID", "ReturnCode", "Elapsed", "Start", "End"),
    *("OutBytes", "OutData", "ErrBytes", "ErrData", "TaskCmd"),
]

PRINT = "print(json.dumps(source.results({})), flush=True)"

SUM_UP = "disbatch: {}; status file: {}"


def command(work: Workplace, *lines: str) -> str:
    """A command for --taskcommand: a program in Python of these lines, with a `source` that has signed in."""
    work.write("program.py", "import json, os, sys, time", "from tests.programs.source import Source", *lines)
    return f"{shlex.quote(sys.executable)} program.py"


def signed_in(work: Workplace, *lines: str) -> str:
    return command(work, "source = Source()", *lines)


def run_command(work: Workplace, text: str, *options: str) -> Finished:
    return work.run("-s", "localhost:2", *options, "--taskcommand", text, timeout=PATIENCE)


def as_reported(line: StatusLine) -> tuple[object, ...]:
    """What a result says of a task, in the order of its keys, going by the line of the status file."""
    return tuple(line)


def values(result: dict[str, object]) -> tuple[object, ...]:
    """Values of a result in the order of the status file; the snippets as that quotes them."""
    assert list(result) == KEYS
    return tuple(repr(value) if key in ("OutData", "ErrData") else value for key, value in result.items())


def ended_with_complaint(done: Finished, complaint: str) -> bool:
    """Whether a run has failed, and with that one line."""
    return (
        done.returncode == 1 and done.complaints.count(f"disbatch: {complaint}") == 1 and "Traceback" not in str(done)
    )


# A command that the run starts


def test_a_program_signs_in_submits_and_reads_all_of_each_result(work: Workplace) -> None:
    tasks = ["echo hello; echo no >&2; exit 3", "true"]
    done = run_command(
        work, signed_in(work, f"for line in {tasks}: source.submit(line)", PRINT.format(2), "source.finish()")
    )
    status = sorted(work.status("STREAM"), key=lambda line: line.task_id)
    assert done.returncode == 0
    assert done.complaints[0] == SUM_UP.format("2 tasks finished, 1 failed", work.status_file("STREAM").name)
    results = json.loads(done.stdout)
    assert [values(result) for result in results] == [as_reported(line) for line in status]
    first = results[0]
    assert (first["Flags"], first["TaskId"], first["TaskStreamIndex"], first["TaskRepIndex"]) == ("ROE ", 0, 1, -1)
    assert (first["ReturnCode"], first["TaskCmd"]) == (3, tasks[0])
    assert (first["OutBytes"], first["OutData"], first["ErrBytes"], first["ErrData"]) == (6, "hello\n", 3, "no\n")
    assert first["Start"] <= first["End"]


def test_several_lines_of_one_submission_have_its_number(work: Workplace) -> None:
    text = signed_in(
        work,
        "source.submit('echo a', '# nothing', 'echo b')",
        "source.submit('echo c', '')",
        "source.submit('')",
        "source.submit('echo d')",
        "source.finish()",
    )
    assert run_command(work, text).returncode == 0
    status = sorted(work.status("STREAM"), key=lambda line: line.task_id)
    assert [(line.task_id, line.line, line.command) for line in status] == [
        (0, 1, "echo a"),
        (1, 1, "echo b"),
        (2, 2, "echo c"),
        (3, 4, "echo d"),
    ]


def test_directives_are_submitted_in_the_same_way(work: Workplace) -> None:
    text = signed_in(
        work,
        "source.submit('#DISBATCH PERENGINE START echo began >> ran')",
        "source.submit('#DISBATCH SUFFIX  >> ran', '#DISBATCH REPEAT 2 start 5 step 2 echo $DISBATCH_REPEAT_INDEX')",
        "source.submit('#DISBATCH BARRIER so far')",
        "passed = source.get('so far')",
        "ids = sorted(source.next_done() for _ in range(2))",
        "source.submit('echo after')",
        "result = source.result(3)",
        "print(passed, ids, result['TaskStreamIndex'], source.next_done())",
        "source.finish()",
    )
    done = run_command(work, text)
    assert (done.returncode, done.stdout) == (0, "2 [0, 1] 4 3\n")
    began, *middle, after = work.text("ran").splitlines()
    assert (began, sorted(middle), after) == ("began", ["5", "7"], "after")


def test_a_directive_that_is_none_is_told_of(work: Workplace) -> None:
    done = run_command(work, signed_in(work, "source.submit('#DISBATCH LATER', 'true')", "source.finish()"))
    assert done.returncode == 0
    assert done.complaints[0].startswith("disbatch: submission 1: '#DISBATCH LATER' is no directive")


def test_tasks_see_the_source_and_not_the_secret(work: Workplace) -> None:
    task = "echo $DISBATCH_NAMETASKS $DISBATCH_STREAM_INDEX $(env | grep -c KVSSTCP_SECRET)"
    done = run_command(work, signed_in(work, f"source.submit('true', {task!r})", "source.finish()", PRINT.format(2)))
    assert json.loads(done.stdout)[1]["OutData"] == "STREAM 1 0\n"


def test_the_command_uses_the_users_terminal_without_its_input(work: Workplace) -> None:
    done = run_command(work, "echo out; echo err >&2; cat")
    assert (done.returncode, done.stdout, done.complaints) == (0, "out\n", ["err", "disbatch: No tasks to run."])


@pytest.mark.parametrize(("options", "exit_status"), [((), 0), (("-e",), 1)])
def test_a_failed_task_matters_where_the_user_says_so(
    work: Workplace, options: tuple[str, ...], exit_status: int
) -> None:
    done = run_command(work, signed_in(work, "source.submit('false', 'true')", "source.finish()"), *options)
    assert done.returncode == exit_status
    assert len(work.status("STREAM")) == 2


def test_fail_fast_ends_the_command_too(work: Workplace) -> None:
    done = run_command(work, signed_in(work, "source.submit('false')", "source.get('never')"), "-f")
    assert ended_with_complaint(done, "task 0 (line 1) failed with return code 1; --fail-fast ends the run")


def test_what_a_command_submits_that_says_no_end_is_run(work: Workplace) -> None:
    done = run_command(work, signed_in(work, "for n in range(300): source.submit(f'echo {n}')"))
    assert done.returncode == 0
    assert sorted(line.task_id for line in work.status("STREAM")) == list(range(300))


@pytest.mark.parametrize(
    "lines",
    [
        ["sys.exit(3)"],
        ["Source().client.confirm(); sys.exit(3)"],
        ["source = Source(sign_in=False)", "source.put('task source name', 'half')", "sys.exit(3)"],
        ["source = Source()", "source.submit('true', 'sleep 60')", "source.next_done()", "sys.exit(3)"],
    ],
    ids=["at once", "before the first task", "half signed in", "with a task running"],
)
def test_a_command_that_fails_early_fails_the_run(work: Workplace, lines: list[str]) -> None:
    done = run_command(work, command(work, *lines))
    assert ended_with_complaint(done, "the task command ended with 3"), done


def test_a_command_that_is_killed_fails_the_run(work: Workplace) -> None:
    assert ended_with_complaint(run_command(work, "kill -9 $$"), "the task command ended with -9")


def test_a_command_that_is_not_there_fails_the_run(work: Workplace) -> None:
    assert ended_with_complaint(run_command(work, "./nowhere 2> /dev/null"), "the task command ended with 127")


def test_a_command_may_fail_when_it_has_said_that_nothing_more_comes(work: Workplace) -> None:
    done = run_command(
        work, signed_in(work, "source.submit('true')", "source.finish()", "source.result(0)", "sys.exit(3)")
    )
    assert (done.returncode, done.complaints) == (
        0,
        [SUM_UP.format("1 task finished", work.status_file("STREAM").name)],
    )


def test_a_command_that_never_signs_in_ends_the_run_with_its_own_end(work: Workplace) -> None:
    done = run_command(work, "true")
    assert (done.returncode, done.complaints) == (0, ["disbatch: No tasks to run."])


def test_results_can_be_read_when_all_else_of_the_run_has_ended(work: Workplace) -> None:
    text = signed_in(
        work,
        "source.submit('echo late')",
        "source.finish()",
        "while not os.path.exists('go'): time.sleep(0.02)",
        PRINT.format(1),
    )
    run = work.start("-s", "localhost:1", "--taskcommand", text)
    eventually(lambda: bool(work.status("STREAM")), "the line of the task")
    eventually(lambda: not any(process.role for process in work.processes()), "the end of engine and context")
    work.write("go")
    done = finish(run, timeout=PATIENCE)
    assert done.returncode == 0
    assert json.loads(done.stdout)[0]["OutData"] == "late\n"


STUBBORN = "trap '' TERM; while [ ! -e stop ]; do sleep 0.05; done"


@pytest.mark.parametrize("signs_in", [False, True])
def test_a_command_does_not_outlive_the_run(work: Workplace, *, signs_in: bool) -> None:
    program = (
        signed_in(work, "source.submit('touch up; sleep 60')", "source.client.confirm()") if signs_in else "touch up"
    )
    run = work.start("-s", "localhost:1", "--taskcommand", f"{program}; {STUBBORN}")
    work.await_file("up")
    run.send_signal(signal.SIGTERM)
    done = finish(run, timeout=PATIENCE)
    assert done.returncode == 128 + signal.SIGTERM
    what = "; ending the running tasks (again: at once)" if signs_in else " before any task had started"
    assert done.complaints[0] == f"disbatch: got SIGTERM{what}"
    work.await_silence()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_that_ends_a_command_after_the_last_task_is_in_the_exit_status_for_the_command_was_cut_short(
    work: Workplace, number: signal.Signals
) -> None:
    program = signed_in(work, "source.submit('true')", "source.finish()")
    run = work.start("-s", "localhost:1", "--taskcommand", f"{program}; {STUBBORN}")
    assert run.stderr is not None
    assert run.stderr.readline().startswith(b"disbatch: all tasks have ended; waiting for the task command to end")
    run.send_signal(number)
    done = finish(run, timeout=PATIENCE)
    assert done.returncode == 128 + number
    what, summary = done.complaints
    assert what == f"disbatch: got {number.name}; ending the task command, whose tasks have all ended"
    assert summary.startswith("disbatch: 1 task finished; status file: ")
    work.await_silence()


def test_what_the_command_leaves_behind_ends_with_the_run(work: Workplace) -> None:
    assert run_command(work, "sleep 600 > /dev/null 2>&1 &").returncode == 0
    work.await_silence()


# A program in C


@pytest.fixture(scope="session")
def submit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        not_here("no C compiler")
    program = tmp_path_factory.mktemp("c") / "submit"
    arguments: list[str | Path] = [
        compiler,
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-o",
        program,
        PROGRAMS / "submit.c",
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def test_a_program_in_c_submits_and_reads_each_result(work: Workplace, submit: Path) -> None:
    tasks = ["echo one", "printf %1000s x; exit 7", "echo three >&2"]
    done = run_command(work, shlex.join([str(submit), *tasks]), "--insecure-kvs")
    assert done.returncode == 0, done.stderr
    lines = sorted(line.split(" ", 2) for line in done.stdout.splitlines())
    assert [(task, tag) for task, tag, _ in lines] == [("0", "JSON"), ("1", "JSON"), ("2", "JSON")]
    status = sorted(work.status("STREAM"), key=lambda line: line.task_id)
    assert [values(json.loads(result)) for _, _, result in lines] == [as_reported(line) for line in status]
    assert [line.command for line in status] == tasks


def test_a_program_that_cannot_prove_the_secret_is_turned_away(work: Workplace, submit: Path) -> None:
    done = run_command(work, f"{shlex.quote(str(submit))} true")
    assert ended_with_complaint(done, "the task command ended with 1"), done
    assert any(line in done.complaints for line in ("submit: the store has gone", "submit: cannot send"))


def test_that_program_may_submit_nothing(work: Workplace, submit: Path) -> None:
    done = run_command(work, shlex.quote(str(submit)), "--insecure-kvs")
    assert (done.returncode, done.complaints[-1]) == (0, "disbatch: No tasks to run.")


# A store that runs already


class Server:
    """A store that somebody else serves."""

    def __init__(self, work: Workplace) -> None:
        self.work = work
        serve = (sys.executable, "-m", "disbatch.kvsstcp", "serve", "-k", "kvs")
        self.process = work.start(program=serve)
        eventually(lambda: work.text("kvs").count("\n") == 3, "the address of the store")
        lines = [line.removeprefix("export ") for line in work.text("kvs").splitlines()]
        self.env = dict(line.split("=", 1) for line in lines)
        self.where = f"{self.env['KVSSTCP_HOST']}:{self.env['KVSSTCP_PORT']}"
        self.secret = {"KVSSTCP_SECRET": self.env["KVSSTCP_SECRET"]}

    def client(self) -> KVSClient:
        return KVSClient(self.where, secret=self.env["KVSSTCP_SECRET"])

    def held(self) -> set[bytes]:
        """Keys that hold a value."""
        with self.client() as client:
            return {key for key, count, _ in client.dump()[2] if count}

    def start(self, *options: str, named: bool = True) -> subprocess.Popen[bytes]:
        """Start a run that finds the secret in its environment, and the address there too unless options name it."""
        return self.work.start("-s", "localhost:2", *options, env=self.secret if named else self.env)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        finish(self.process, timeout=PATIENCE)


@pytest.fixture
def server(work: Workplace) -> Iterator[Server]:
    server = Server(work)
    yield server
    server.end()


WAYS: dict[str, Callable[[str], list[str]]] = {
    "named": lambda where: ["--taskserver", where],
    "named twice": lambda where: ["--taskserver", where, "--kvsserver", where],
    "named for the store": lambda where: ["--kvsserver", where, "--taskserver"],
}


@pytest.mark.parametrize("way", [*WAYS, "environment", "environment twice", "environment and named"])
def test_tasks_come_through_a_store_that_runs_already(work: Workplace, server: Server, way: str) -> None:
    if way in WAYS:
        run = server.start(*WAYS[way](server.where))
    else:
        more = {"environment": [], "environment twice": ["--kvsserver"]}.get(way, ["--kvsserver", server.where])
        run = server.start(*more, "--taskserver", named=False)
    with server.client() as client:
        source = Source(client)
        source.submit("echo $(env | grep -c KVSSTCP_SECRET)", "#DISBATCH BARRIER passed")
        assert source.get("passed") == "1"
        assert not list(work.directory.glob("*_kvsinfo.txt"))
        assert [result["OutData"] for result in source.results(1)] == ["0\n"]
        source.finish()
    done = finish(run, timeout=PATIENCE)
    assert (done.returncode, len(done.complaints)) == (0, 1)
    assert server.process.poll() is None


def test_several_runs_in_turn_use_one_store(server: Server) -> None:
    for turn in range(2):
        run = server.start("-p", f"run{turn}", "--taskserver", server.where)
        with server.client() as client:
            source = Source(client)
            source.submit(f"echo {turn}")
            source.finish()
            assert source.result(0)["OutData"] == f"{turn}\n"
            assert source.next_done() == 0
        assert finish(run, timeout=PATIENCE).returncode == 0
        assert not any(key.startswith((b"work", b"task source", b"outcome")) for key in server.held())
    assert server.process.poll() is None


def test_results_that_nobody_has_read_stay_in_the_store(server: Server) -> None:
    run = server.start("--taskserver", server.where)
    with server.client() as client:
        source = Source(client)
        source.submit(*["true"] * 500)
        source.finish()
        assert finish(run, timeout=PATIENCE).returncode == 0
        assert [result["TaskId"] for result in source.results(500)] == list(range(500))


def test_a_command_may_use_a_store_that_runs_already(work: Workplace, server: Server) -> None:
    text = signed_in(work, "source.submit('echo here')", "source.finish()", PRINT.format(1))
    run = server.start("--kvsserver", server.where, "--taskcommand", text)
    done = finish(run, timeout=PATIENCE)
    assert (done.returncode, json.loads(done.stdout)[0]["OutData"]) == (0, "here\n")
    assert not list(work.directory.glob("*_kvsinfo.txt"))


@pytest.mark.parametrize("says_the_end", [False, True])
def test_a_command_that_has_long_ended_leaves_nothing_for_the_next_run(
    work: Workplace, server: Server, *, says_the_end: bool
) -> None:
    task = "touch up.$DISBATCH_TASKID; until [ -e go ]; do sleep 0.02; done"
    text = signed_in(
        work,
        f"for _ in range(400): source.submit({task!r})",
        "while not (os.path.exists('up.0') and os.path.exists('up.1')): time.sleep(0.02)",
        "source.finish()" if says_the_end else "source.client.confirm()",
    )
    run = server.start("--kvsserver", server.where, "--taskcommand", f"{text}; touch ended")
    work.await_file("ended")
    fewest = sys.maxsize

    def more_wait() -> bool:
        nonlocal fewest
        now = held(client, b"work")
        fewest = min(fewest, now)
        return now > fewest

    with server.client() as client:
        eventually(more_wait, "what the run puts behind the tasks of a command that has ended")
    work.write("go")
    assert finish(run, timeout=PATIENCE).returncode == 0
    assert len(work.status("STREAM")) == 400
    assert b"work" not in server.held()


def held(client: KVSClient, wanted: bytes) -> int:
    """Number of values under a key."""
    return next((count for key, count, _ in client.dump()[2] if key == wanted), 0)


def test_a_resumed_run_tells_of_skipped_tasks_too(server: Server) -> None:
    first = server.start("-p", "first", "--taskserver", server.where)
    with server.client() as client:
        source = Source(client)
        source.submit("echo 0; exit 4")
        source.finish()
        (before,) = source.results(1)
    assert finish(first, timeout=PATIENCE).returncode == 0
    again = server.start("-p", "again", "-e", "-r", "first_status.txt", "--taskserver", server.where)
    with server.client() as client:
        source = Source(client)
        source.submit("echo 0; exit 4", "echo 1")
        source.finish()
        skipped, new = source.results(2)
    assert finish(again, timeout=PATIENCE).returncode == 1
    assert skipped == {**before, "Flags": "RO S"}
    assert (new["Flags"], new["OutData"]) == (" O  ", "1\n")


def test_a_task_file_may_share_a_store(work: Workplace, server: Server) -> None:
    tasks = work.write("tasks", "true", "#DISBATCH BARRIER passed", "until [ -e go ]; do sleep 0.02; done")
    run = server.start("--kvsserver", server.where, tasks.name)
    with server.client() as client:
        assert client.get("passed", False, PATIENCE) == b"1"
    assert not list(work.directory.glob("*_kvsinfo.txt"))
    work.write("go")
    assert finish(run, timeout=PATIENCE).returncode == 0
    assert server.process.poll() is None


def test_runs_that_share_a_store_leave_one_state_of_the_last_of_them(work: Workplace, server: Server) -> None:
    tasks = work.write("tasks", "false", "true")
    for _ in range(2):
        assert finish(server.start("--kvsserver", server.where, tasks.name), timeout=PATIENCE).returncode == 0
        with server.client() as client:
            tag, text = cast("tuple[bytes, bytes]", client.view("DisBatch status", None, PATIENCE))
            assert (tag, held(client, b"DisBatch status")) == (b"JSON", 1)
            state = json.loads(text)
            assert (state["phase"], state["finished"], state["failed"]) == ("ended", 2, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("option", ["--taskserver", "--kvsserver"])
def test_a_store_that_goes_away_fails_the_run(
    work: Workplace, server: Server, option: str, number: signal.Signals
) -> None:
    task = "touch up; sleep 60"
    tasks = [work.write("tasks", task).name] if option == "--kvsserver" else []
    run = server.start(option, server.where, *tasks)
    if not tasks:
        with server.client() as client:
            Source(client).submit(task)
    work.await_file("up")
    server.process.send_signal(number)
    done = finish(run, timeout=PATIENCE)
    (line,) = (line for line in done.complaints if "lost" in line)
    assert line.startswith(f"disbatch: lost the key-value store at {server.where}: ")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_stores_that_differ_are_a_mistake(work: Workplace, server: Server) -> None:
    for arguments in (
        ["--kvsserver", "127.0.0.1:1", "--taskserver", server.where],
        ["--kvsserver", server.where, "--taskserver", "127.0.0.1:1"],
    ):
        done = work.run("-s", "localhost:1", *arguments, env=server.env)
        assert done.returncode == 2
        assert "--kvsserver and --taskserver name different stores" in done.stderr
    assert not list(work.directory.glob("*_status.txt"))


@pytest.mark.parametrize(
    "arguments", [["--taskserver"], ["--kvsserver", "--taskserver"], ["--kvsserver", "--", "tasks"]]
)
def test_a_store_that_nobody_names_is_a_mistake(work: Workplace, arguments: list[str]) -> None:
    work.write("tasks", "true")
    done = work.run("-s", "localhost:1", *arguments)
    assert done.returncode == 2
    assert "KVSSTCP_HOST and KVSSTCP_PORT" in done.stderr
    assert not list(work.directory.glob("*_status.txt"))


@pytest.mark.parametrize("secret", ["", "0" * 64], ids=["none", "wrong"])
def test_without_the_secret_of_a_store_nothing_begins(work: Workplace, server: Server, secret: str) -> None:
    done = work.run("-s", "localhost:1", "--taskserver", server.where, env={"KVSSTCP_SECRET": secret}, timeout=PATIENCE)
    assert done.returncode == 1
    assert server.where in done.complaints[0]
    assert "secret" in done.complaints[0]
    assert len(done.complaints) <= 2
    assert "Traceback" not in done.stderr


def test_a_store_that_is_not_there_is_told_at_once(work: Workplace) -> None:
    done = work.run("-s", "localhost:1", "--taskserver", "127.0.0.1:1", timeout=PATIENCE)
    assert done.returncode == 1
    assert "cannot connect to 127.0.0.1:1: Connection refused" in done.complaints[0]
    assert os.listdir(work.directory) == []
