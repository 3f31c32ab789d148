"""What a user gets wrong is answered with one clear line and the right exit status, and leaves nothing behind."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.e2e.support import DISBATCH, PATIENCE, finish

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.support import Finished, Workplace

HERE = ("-s", "localhost:2")


def assert_one_clear_line(done: Finished, status: int, *words: str) -> None:
    """It ended with that status, having said one line with these words in it and nothing else."""
    assert done.stdout == ""
    assert len(done.complaints) == 1, done.stderr
    (line,) = done.complaints
    assert line.startswith("disbatch: error: ")
    for word in words:
        assert word in line
    assert done.returncode == status


class Mistake(NamedTuple):
    """Arguments beside which there is a good task file `tasks`, and what is said to them."""

    name: str
    arguments: tuple[str, ...]
    status: int
    words: tuple[str, ...]


MISTAKES = [
    Mistake("no arguments", (), 2, ("taskfile",)),
    Mistake("no task file", HERE, 2, ("taskfile",)),
    Mistake("two task files", (*HERE, "tasks", "more"), 2, ("more",)),
    Mistake("a task file and --taskcommand", (*HERE, "tasks", "--taskcommand", "true"), 2, ("exclude one another",)),
    Mistake("a task file and --taskserver", (*HERE, "tasks", "--taskserver", "h:1"), 2, ("exclude one another",)),
    Mistake("missing task file", (*HERE, "nothing"), 1, ("nothing", "No such file or directory")),
    Mistake("empty name of a task file", (*HERE, ""), 1, ("task file",)),
    Mistake("directory as task file", (*HERE, "directory"), 1, ("directory is a directory",)),
    Mistake("task file below a file", (*HERE, "tasks/x"), 1, ("tasks/x", "Not a directory")),
    Mistake("no resources", ("tasks",), 2, ("no resources", "-s localhost:4")),
    Mistake("-c above all cores", (*HERE, "-c", "3", "tasks"), 1, ("no node has the 3 cores", "the largest has 2")),
    Mistake("-s without a count", ("-s", "localhost", "tasks"), 2, ("-s", "'localhost' has no core count")),
    Mistake("-s with an empty count", ("-s", "localhost:", "tasks"), 2, ("-s", "core count", "localhost")),
    Mistake("-s with zero", ("-s", "localhost:0", "tasks"), 2, ("-s", "at least 1", "'0'")),
    Mistake("-s with a negative count", ("-s", "localhost:-1", "tasks"), 2, ("-s", "at least 1", "'-1'")),
    Mistake("-s with a fraction", ("-s", "localhost:1.5", "tasks"), 2, ("-s", "whole number", "'1.5'")),
    Mistake("-s with letters", ("-s", "localhost:two", "tasks"), 2, ("-s", "whole number", "'two'")),
    Mistake("-s without a host", ("-s", ":3", "tasks"), 2, ("-s", ":3")),
    Mistake("-s with nothing", ("-s", "", "tasks"), 2, ("-s", "names no host")),
    Mistake("-s with a blank", ("-s", "local host:3", "tasks"), 2, ("-s", "no host name")),
    Mistake("-s with a bare IPv6 address", ("-s", "fd00::1:4", "tasks"), 2, ("-s", "'fd00::1:4'", "[ADDRESS]:N")),
    Mistake("-s with an option of ssh", ("-s", "-oProxyCommand=x:3", "tasks"), 2, ("-s",)),
    Mistake("-s, second entry bad", ("-s", "localhost:1,h", "tasks"), 2, ("-s", "'h'")),
    Mistake("-s, large", ("-s", "localhost:1000000", "tasks"), 2, ("-s", "100000 at most")),
    Mistake("-s, huge", ("-s", f"localhost:{'9' * 400}", "tasks"), 2, ("-s", "100000 at most")),
    Mistake("-s, beyond all", ("-s", f"localhost:{'9' * 5000}", "tasks"), 2, ("-s",)),
    Mistake("-S with hosts", (*HERE, "-S", "tasks"), 2, ("-S begins without hosts, and -s names some",)),
    Mistake("-c zero", (*HERE, "-c", "0", "tasks"), 2, ("-c", "'0'")),
    Mistake("-c negative", (*HERE, "-c", "-1", "tasks"), 2, ("-c",)),
    Mistake("-c with letters", (*HERE, "-c", "one", "tasks"), 2, ("-c", "'one'")),
    Mistake("-c not a number", (*HERE, "-c", "nan", "tasks"), 2, ("-c", "'nan'")),
    Mistake("-c infinite", (*HERE, "-c", "inf", "tasks"), 2, ("-c", "'inf'")),
    Mistake("-c next to nothing", (*HERE, "-c", "1e-300", "tasks"), 2, ("-c", "1e-300")),
    Mistake("-t zero", (*HERE, "-t", "0", "tasks"), 2, ("-t", "'0'")),
    Mistake("-t negative", (*HERE, "-t", "-2", "tasks"), 2, ("-t",)),
    Mistake("-t with letters", (*HERE, "-t", "two", "tasks"), 2, ("-t", "'two'")),
    Mistake("missing parent of -p", (*HERE, "-p", "nowhere/run", "tasks"), 1, ("there is no directory", "nowhere")),
    Mistake("-p, missing directory", (*HERE, "-p", "nowhere/", "tasks"), 1, ("there is no directory", "nowhere/")),
    Mistake("-p below a file", (*HERE, "-p", "tasks/run", "tasks"), 1, ("there is no directory", "tasks")),
    Mistake("-p too long", (*HERE, "-p", "x" * 300, "tasks"), 1, ("File name too long",)),
    Mistake("-p with nothing", (*HERE, "-p", "", "tasks"), 2, ("-p", "must not be empty")),
    Mistake(
        "--logfile nowhere",
        (*HERE, "--logfile", "nowhere/log", "tasks"),
        1,
        ("nowhere/log: No such file or directory (it must be a file, in a directory that exists",),
    ),
    Mistake("--logfile a directory", (*HERE, "--logfile", "directory", "tasks"), 1, ("Is a directory",)),
    Mistake("--loglevel unknown", (*HERE, "--loglevel", "LOUD", "tasks"), 2, ("--loglevel", "'LOUD'", "WARNING")),
    Mistake("missing status file", (*HERE, "-r", "nothing", "tasks"), 1, ("status file nothing", "No such file")),
    Mistake("directory as status file", (*HERE, "-r", "directory", "tasks"), 1, ("directory", "Is a directory")),
    Mistake("a status file that is none", (*HERE, "-r", "tasks", "tasks"), 1, ("tasks is no status file",)),
    Mistake("binary as status file", (*HERE, "-r", "binary", "tasks"), 1, ("binary is no status file",)),
    Mistake("-R alone", (*HERE, "-R", "tasks"), 2, ("-R needs -r",)),
    Mistake("--mailFreq alone", (*HERE, "--mailFreq", "1", "tasks"), 2, ("--mailFreq needs --mailTo",)),
    Mistake("--mailFreq zero", (*HERE, "--mailTo", "me", "--mailFreq", "0", "tasks"), 2, ("--mailFreq", "'0'")),
    Mistake("--mailTo with two", (*HERE, "--mailTo", "a, b", "tasks"), 2, ("--mailTo", "'a, b'")),
    Mistake("--force-resume alone", (*HERE, "--force-resume", "tasks"), 2, ("--force-resume needs -r",)),
    Mistake("unknown option", (*HERE, "--colour", "tasks"), 2, ("--colour",)),
    Mistake("unknown option alone", ("--bogus",), 2, ("unrecognized arguments: --bogus",)),
    Mistake("option without its value", (*HERE, "tasks", "-c"), 2, ("-c", "expected one argument")),
    Mistake("--use-address without a port", (*HERE, "--use-address", "h", "tasks"), 2, ("--use-address", "HOST:PORT")),
    Mistake("--use-address, bad port", (*HERE, "--use-address", "h:99999", "tasks"), 2, ("--use-address", "h:99999")),
    Mistake(
        "--use-address of somebody else",
        (*HERE, "--use-address", "198.51.100.1:0", "tasks"),
        1,
        ("cannot listen at 198.51.100.1:0: Cannot assign requested address (--use-address",),
    ),
    Mistake("-C negative", (*HERE, "-C", "-1", "tasks"), 2, ("-C", "at least 0", "'-1'")),
    Mistake("--kvsserver, port 0", (*HERE, "--kvsserver", "h:0", "tasks"), 2, ("'h:0' is no address of a server",)),
    Mistake(
        "--kvsserver alone before the task file",
        (*HERE, "--kvsserver", "tasks"),
        2,
        ("'tasks' is no address of a server", "the option alone has to be the last word"),
    ),
    Mistake("a context without a run", ("--context",), 2, ("--context is told its run by the run's script",)),
    Mistake("an empty label", (*HERE, "-l", "", "tasks"), 2, ("-l",)),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_gets_one_clear_line(work: Workplace, mistake: Mistake) -> None:
    work.write("tasks", "touch ran")
    (work.directory / "directory").mkdir()
    (work.directory / "binary").write_bytes(bytes(range(256)) * 10)
    before = sorted(os.listdir(work.directory))
    assert_one_clear_line(work.run(*mistake.arguments), mistake.status, *mistake.words)
    assert sorted(os.listdir(work.directory)) == before
    assert work.processes() == []


@pytest.mark.parametrize(
    ("nodes", "word"), [("localhost", "core count"), (" , ", "names no host"), ("localhost:x", "whole number")]
)
def test_a_bad_node_list_in_the_environment(work: Workplace, nodes: str, word: str) -> None:
    done = work.run(work.write("tasks", "true").name, env={"DISBATCH_SSH_NODELIST": nodes})
    assert_one_clear_line(done, 2, "DISBATCH_SSH_NODELIST", word)


def test_a_mistake_in_the_resources_does_not_wait_for_a_task(work: Workplace) -> None:
    run = work.start(*HERE, "-c", "3", "-", stdin=subprocess.PIPE)
    assert run.wait(PATIENCE) == 1


def test_an_address_that_is_taken(work: Workplace) -> None:
    first = work.start(*HERE, "--use-address", "127.0.0.1:0", "-", stdin=subprocess.PIPE)
    try:
        while not (files := list(work.directory.glob("*_kvsinfo.txt"))) or not files[0].read_text(encoding="ascii"):
            pass
        address = files[0].read_text(encoding="ascii").strip()
        done = work.run(*HERE, "--use-address", address, "-p", "second", work.write("tasks", "true").name)
        assert_one_clear_line(done, 1, f"cannot listen at {address}", "Address already in use")
    finally:
        assert finish(first, given=b"", timeout=PATIENCE).returncode == 0


def test_a_working_directory_that_is_gone(work: Workplace) -> None:
    tasks = work.write("tasks", "touch ran")
    gone = work.directory / "gone"
    for arguments in ((*HERE, "tasks"), (*HERE, "-p", str(work.directory), str(tasks))):
        gone.mkdir()
        removing = ["bash", "-c", 'rmdir "$PWD"; exec "$@"', "removing", *DISBATCH]
        done = work.run(*arguments, program=removing, cwd=gone)
        assert_one_clear_line(done, 1, "the working directory is gone")


def test_an_empty_status_file(work: Workplace) -> None:
    work.write("old_status.txt")
    done = work.run_tasks("touch ran", options=["-r", "old_status.txt"])
    assert done.returncode == 0
    assert done.complaints[0] == "disbatch: old_status.txt is empty: nothing is skipped because of it"
    assert (work.directory / "ran").exists()


# Rights.


def as_nobody(work: Workplace, *arguments: str) -> Finished:
    """Run disbatch as one who may do less than root, who may do everything."""
    if os.geteuid() != 0:
        return work.run(*arguments)
    for folder in (work.directory, *list(work.directory.parents)[:-1]):
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001 and "pytest" in str(folder):
            folder.chmod(0o755)
    nobody = pwd.getpwnam("nobody").pw_uid
    return work.run(*DISBATCH, *arguments, program=["setpriv", f"--reuid={nobody}", "--clear-groups"])


def test_an_unreadable_task_file(work: Workplace) -> None:
    work.write("tasks", "touch ran").chmod(0)
    assert_one_clear_line(as_nobody(work, *HERE, "tasks"), 1, "task file tasks", "Permission denied")


def test_an_unreadable_status_file(work: Workplace) -> None:
    work.write("tasks", "touch ran").chmod(0o644)
    work.write("old_status.txt").chmod(0)
    done = as_nobody(work, *HERE, "-r", "old_status.txt", "tasks")
    assert_one_clear_line(done, 1, "old_status.txt", "Permission denied")


@pytest.mark.parametrize("prefix", [(), ("-p", "locked"), ("-p", "locked/run")], ids=" ".join)
def test_a_directory_that_cannot_be_written(work: Workplace, prefix: tuple[str, ...]) -> None:
    work.write("tasks", "touch ran").chmod(0o644)
    (work.directory / "locked").mkdir(mode=0o555)
    work.directory.chmod(0o555)
    try:
        assert_one_clear_line(as_nobody(work, *HERE, *prefix, "tasks"), 1, "cannot write into", str(work.directory))
    finally:
        work.directory.chmod(0o755)


# Mistakes in the task file.


@pytest.mark.parametrize(
    "line",
    [
        "#DISBATCH NONSENSE",
        "#DISBATCH",
        "#DISBATCHPREFIX x",
        "#DISBATCH  PREFIX x",
        "#DISBATCH\tPREFIX x",
        "#DISBATCH REPEAT",
        "#DISBATCH REPEAT many echo",
        "#DISBATCH REPEAT -3 echo",
        "#DISBATCH PERENGINE LATER x",
        "#DISBATCH PERENGINE START",
        "#DISBATCH BARRIERS",
        "#DISBATCH barrier",
        "#DISBATCH REPEAT 2 step 5 start 3 touch ran",
    ],
)
def test_an_unknown_directive_is_told_with_its_line_number_and_skipped(work: Workplace, line: str) -> None:
    done = work.run_tasks("# a comment", "", "echo before >> out", line, "#DISBATCH BARRIER", "echo after >> out")
    assert done.returncode == 0
    told = f"line 4: {line!r} is "
    assert told in done.complaints[0]
    assert done.complaints[0].endswith("; line skipped")
    assert len(done.complaints) == 2
    (log,) = work.directory.glob("*_driver.log")
    assert told in log.read_text(encoding="utf-8")
    assert work.text("out") == "before\nafter\n"


def test_many_mistakes_in_one_file(work: Workplace) -> None:
    done = work.run_tasks(*["#DISBATCH WHAT"] * 3, "true")
    assert [re.sub(r": '.*", "", line) for line in done.complaints[:-1]] == [
        "disbatch: line 1",
        "disbatch: line 2",
        "disbatch: line 3",
    ]


def test_a_directive_cannot_move_the_cursor(work: Workplace) -> None:
    done = work.run_tasks("#DISBATCH \x1b[2Jgone", "true")
    assert "\x1b" not in done.stderr
    assert r"\x1b[2Jgone" in done.complaints[0]


def test_a_late_per_engine_command_ends_the_reading(work: Workplace) -> None:
    done = work.run_tasks("echo first >> out", "#DISBATCH PERENGINE START true", "echo second >> out")
    assert done.returncode == 1
    assert "line 2: '#DISBATCH PERENGINE START true' comes too late" in done.complaints[0]
    assert done.complaints[0].endswith("; nothing from here on is run")
    assert "Traceback" not in done.stderr
    assert work.text("out") == "first\n"
    assert [line.task_id for line in work.status()] == [0]


def test_a_task_file_in_utf_16(work: Workplace) -> None:
    (work.directory / "tasks").write_text("touch ran\n", encoding="utf-16")
    done = work.run(*HERE, "tasks")
    assert done.returncode == 1
    assert "the task list is in UTF-16" in done.complaints[0]
    assert work.status() == []


def test_a_task_file_that_is_not_text(work: Workplace) -> None:
    (work.directory / "tasks").write_bytes(bytes(range(256)) * 4)
    done = work.run(*HERE, "tasks")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert all(line.return_code != 0 for line in work.status())


# Standard streams.


def with_redirection(work: Workplace, redirection: str, *arguments: str) -> Finished:
    """Run disbatch by a shell that redirects one of its standard streams."""
    return work.run(*DISBATCH, *arguments, program=["bash", "-c", f'exec "$@" {redirection}', "redirecting"])


def test_closed_standard_input(work: Workplace) -> None:
    assert_one_clear_line(with_redirection(work, "<&-", *HERE, "-"), 1, "standard input")


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "> /dev/full 2>&1"])
def test_missing_standard_streams_do_not_disturb_a_run(work: Workplace, redirection: str) -> None:
    work.write("tasks", "cat; echo hello; echo problem >&2")
    done = with_redirection(work, redirection, *HERE, "tasks")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    (line,) = work.status()
    assert (line.out, line.err) == (r"'hello\n'", r"'problem\n'")


def test_a_terminal_that_has_gone_does_not_disturb_a_run(work: Workplace) -> None:
    run = work.start(*HERE, work.write("tasks", "until [ -e go ]; do sleep 0.02; done", "#DISBATCH WHAT", "true").name)
    assert run.stderr is not None
    run.stderr.close()
    work.write("go")
    assert run.wait(PATIENCE) == 0
    assert len(work.status()) == 2


# The script.


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("-s", "localhost"), 2, ("-s", "core count")),
        (("-s", "localhost:1", "-c", "0"), 2, ("-c", "above 0")),
        (("-s", "localhost:1", "-c", "2"), 1, ("no node has the 2 cores",)),
        ((), 2, ("no resources", "-s localhost:4")),
        (("--nonsense",), 2, ("--nonsense",)),
        (("tasks",), 2, ("tasks",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes_at_the_script(
    work: Workplace, arguments: tuple[str, ...], status: int, words: tuple[str, ...]
) -> None:
    run = work.start(*HERE, work.write("tasks", "touch begun; until [ -e go ]; do sleep 0.02; done").name)
    work.await_file("begun")
    script: Path
    (script,) = work.directory.glob("*_dbUtil.sh")
    assert_one_clear_line(work.run(*arguments, program=[script]), status, *words)
    work.write("go")
    assert finish(run, timeout=PATIENCE).returncode == 0
