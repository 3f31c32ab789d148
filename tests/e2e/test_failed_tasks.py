"""What failed in a run, and of what: told at its end, by its script, and from its status file alone."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import PATIENCE, finish

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.support import Finished, Workplace

LONG = "echo a long story that nobody has to know who wants to understand what has happened here"
TASKS = (
    "true",
    f"#DISBATCH REPEAT 60 {{ {LONG}; echo \"ValueError: no 'x$DISBATCH_TASKID' in $$\"; }} >&2; exit 3",
    "#DISBATCH REPEAT 40 kill -SEGV $$",
    "#DISBATCH REPEAT 20 cat nowhere/$DISBATCH_REPEAT_INDEX.txt",
)
REASONS = [
    "  60  exit status 3: ValueError: no '*' in *",
    "  40  killed by SIGSEGV: nothing on stderr",
    "  20  exit status 1: cat: *: No such file or directory",
]
RETRY = "disbatch: to run again what failed: "


def reasons(lines: list[str]) -> list[str]:
    """Lines that tell of a reason."""
    return [line for line in lines if re.match(r" +\d+  ", line)]


@pytest.fixture
def done(work: Workplace) -> Finished:
    """A run on what it takes for two hosts, in which tasks failed for three reasons."""
    places = f"localhost:2,{os.uname().nodename}:2"
    return work.run("-s", places, "-p", "run", "--status-header", work.write("tasks", *TASKS).name)


def ask(work: Workplace, *arguments: str | Path) -> Finished:
    told = work.run("--failures", *arguments)
    assert (told.returncode, told.stderr) == (0, "")
    return told


def test_a_run_ends_with_what_failed(done: Finished) -> None:
    assert done.returncode == 0
    assert done.complaints[0] == "disbatch: 121 tasks finished, 120 failed; status file: run_status.txt"
    assert done.complaints[1] == "disbatch: 120 failed, for 3 reasons:"
    assert reasons(done.complaints) == REASONS
    assert all(len(line) <= 80 for line in done.complaints[1:-1])
    course = r"disbatch: took [\d.]+ s, places busy \d+ % of the time; logs: run_\*\.log"
    assert re.fullmatch(course, done.stderr.splitlines()[1])


def test_the_command_that_it_tells_runs_that_again(work: Workplace, done: Finished) -> None:
    (work.directory / "nowhere").mkdir()
    for number in range(20):
        work.write(f"nowhere/{number}.txt")
    command = done.complaints[-1].removeprefix(RETRY)
    again = work.run("-c", command, program=["bash"])
    assert "disbatch: 120 tasks finished, 100 failed, 1 skipped; status file: run_status.txt" in again.complaints
    assert reasons(again.complaints) == REASONS[:2]


@pytest.mark.usefixtures("done")
def test_a_status_file_tells_it_as_well(work: Workplace) -> None:
    told = ask(work, "run_status.txt").stdout.splitlines()
    assert reasons(told) == REASONS
    assert told[-1] == "to run again what failed: disbatch <what you gave it before> -r run_status.txt -R"
    groups = json.loads(ask(work, "run_status.txt", "--json").stdout)["groups"]
    assert [(group["count"], group["return_code"]) for group in groups] == [(60, 3), (40, -11), (20, 1)]
    for group in groups:
        assert sum(group["nodes"].values()) == group["count"]
        assert group["example"]["line"] > 1


@pytest.mark.usefixtures("done")
def test_the_script_of_the_run_tells_it_after_the_run(work: Workplace) -> None:
    told = work.run("--failures", program=[work.directory / "run_dbUtil.sh"], cwd=work.directory.parent)
    assert (told.returncode, told.stderr) == (0, "")
    assert reasons(told.stdout.splitlines()) == REASONS
    assert told.stdout.splitlines()[-1].startswith("to run again what failed: disbatch")


def test_the_script_of_the_run_tells_it_while_that_goes_on(work: Workplace) -> None:
    wait = "touch begun; until [ -e go ]; do sleep 0.02; done"
    run = work.start("-s", "localhost:1", "-p", "run", work.write("tasks", "exit 4", wait, "exit 5").name)
    work.await_file("begun")
    told = work.run("--failures", "--json", program=[work.directory / "run_dbUtil.sh"])
    assert [group["return_code"] for group in json.loads(told.stdout)["groups"]] == [4]
    work.write("go")
    assert finish(run, timeout=PATIENCE).returncode == 0


@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize("what", ["--failures", "--status"])
def test_an_answer_that_cannot_be_written_is_an_error(work: Workplace, what: str, as_json: list[str]) -> None:
    work.run_tasks("exit 2", options=("-p", "run"))
    asking = f"./run_dbUtil.sh {what} {' '.join(as_json)} > /dev/full"
    asked = work.run("-c", asking, program=["bash"])
    assert asked.returncode == 1
    assert asked.stderr == "disbatch: error: cannot write to standard output: No space left on device\n"


def test_where_nothing_failed_a_run_says_two_lines(work: Workplace) -> None:
    done = work.run_tasks("true", "true", options=("-p", "run"))
    assert len(done.stderr.splitlines()) == 2
    assert ask(work, "run_status.txt").stdout == "nothing has failed\n"


def test_what_has_succeeded_since_has_not_failed(work: Workplace) -> None:
    tasks = work.write("tasks", "test -e there", "exit 2").name
    work.run("-s", "localhost:1", "-p", "first", tasks)
    work.write("there")
    work.run("-s", "localhost:1", "-p", "second", "-r", "first_status.txt", "-R", tasks)
    told = ask(work, "first_status.txt", "second_status.txt").stdout.splitlines()
    assert reasons(told) == ["  1  exit status 2: nothing on stderr"]


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        ((), 2, "the following arguments are required: STATUSFILE"),
        (("nowhere",), 1, "cannot read the status file nowhere: No such file or directory"),
        (("tasks",), 1, "tasks is no status file of disbatch"),
        (("tasks", "--no-such"), 2, "unrecognized arguments: --no-such"),
    ],
)
def test_a_mistake_gets_one_clear_line(
    work: Workplace, arguments: tuple[str, ...], status: int, complaint: str
) -> None:
    work.write("tasks", "true")
    done = work.run("--failures", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    [line] = done.complaints
    assert line.startswith(f"disbatch: error: {complaint}")


def test_the_help_tells_of_it(work: Workplace) -> None:
    assert "--failures STATUSFILE" in " ".join(work.run("--help").stdout.split())
    assert "--json" in work.run("--failures", "--help").stdout


def test_what_a_task_says_moves_no_cursor(work: Workplace) -> None:
    done = work.run_tasks(
        r"printf 'a\033[2J\302\233\r\033]0;x\007 b\n' >&2; exit 1 # " + "\x1b[2J", options=("-p", "run")
    )
    for text in (done.stderr, ask(work, "run_status.txt").stdout):
        assert text.replace("\n", "").isprintable()
