"""Going on where an earlier run left off: nothing that it completed runs again, and nothing else is skipped."""

from __future__ import annotations

import shlex
import signal
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import PATIENCE, eventually, finish, read_status

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.support import Finished, Workplace

HERE = ("-s", "localhost:2")


def log(name: str, status: str = "0") -> str:
    """A task that notes its name in the file `out`, and ends with a status that it may read from a variable."""
    return f"echo {name} >> out; exit {status}"


def run(work: Workplace, name: str, *options: str, tasks: str = "tasks", env: dict[str, str] | None = None) -> Finished:
    """Run the tasks under a prefix of that name."""
    return work.run(*HERE, "-p", name, *options, tasks, env=env)


def ran(work: Workplace) -> list[str]:
    """What has run since the last time this was asked, sorted."""
    names = sorted(work.text("out").split())
    (work.directory / "out").unlink(missing_ok=True)
    return names


def flags(work: Workplace, name: str) -> list[tuple[int, str]]:
    """Task ids and flags of a run's status file, by id."""
    return sorted((line.task_id, line.flags) for line in read_status(work.directory / f"{name}_status.txt"))


@pytest.fixture
def first(work: Workplace) -> Path:
    """Status file of a run in which one of three tasks failed."""
    work.write("tasks", log("a"), log("b", "${B:-5}"), log("c"))
    assert run(work, "first").returncode == 0
    assert ran(work) == ["a", "b", "c"]
    return work.directory / "first_status.txt"


def cut_to(path: Path, *task_ids: int) -> None:
    """Leave only the lines of these tasks in a status file, as if the run had been ended early."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if int(line.split("\t")[1]) in task_ids), encoding="utf-8")


def test_nothing_left_to_do(work: Workplace, first: Path) -> None:
    done = run(work, "second", "-r", first.name)
    assert done.returncode == 0
    assert done.complaints[:2] == [
        "disbatch: 0 tasks finished, 3 skipped (1 of them had failed); status file: second_status.txt",
        "disbatch: 1 failed in an earlier run, for 1 reason:",
    ]
    assert ran(work) == []
    assert flags(work, "second") == [(0, "   S"), (1, "R  S"), (2, "   S")]
    old, new = (
        {line.task_id: line for line in read_status(path)} for path in (first, work.directory / "second_status.txt")
    )
    assert [new[n][1:] for n in range(3)] == [old[n][1:] for n in range(3)]
    assert not list(work.directory.glob("second*engine*"))


def test_a_skipped_failed_task_counts_for_the_exit_code(work: Workplace, first: Path) -> None:
    assert run(work, "second", "-e", "-r", first.name).returncode == 1


def test_what_is_missing_runs(work: Workplace, first: Path) -> None:
    cut_to(first, 0)
    assert run(work, "second", "-r", first.name).returncode == 0
    assert ran(work) == ["b", "c"]
    assert flags(work, "second") == [(0, "   S"), (1, "R   "), (2, "    ")]


def test_retry_runs_what_failed(work: Workplace, first: Path) -> None:
    assert run(work, "second", "-e", "-R", "-r", first.name, env={"B": "0"}).returncode == 0
    assert ran(work) == ["b"]
    assert flags(work, "second") == [(0, "   S"), (1, "    "), (2, "   S")]


def test_the_last_of_a_chain_is_enough(work: Workplace, first: Path) -> None:
    cut_to(first, 1)
    run(work, "second", "-r", first.name)
    assert ran(work) == ["a", "c"]
    run(work, "third", "-R", "-r", "second_status.txt", env={"B": "0"})
    assert ran(work) == ["b"]
    run(work, "fourth", "-R", "-r", "third_status.txt")
    assert ran(work) == []
    assert flags(work, "fourth") == [(0, "   S"), (1, "   S"), (2, "   S")]


def test_several_files_and_success_wins(work: Workplace, first: Path) -> None:
    cut_to(first, 0, 1)
    work.write("later", log("a"), log("b", "${B:-5}"), log("c"))
    assert run(work, "second", "-R", "-r", first.name, env={"B": "0"}).returncode == 0
    cut_to(work.directory / "second_status.txt", 1)
    ran(work)
    for order in ((first.name, "second_status.txt"), ("second_status.txt", first.name)):
        name = f"third_{order[0]}"
        run(work, name, "-R", "-r", order[0], "-r", order[1])
        assert ran(work) == ["c"]
        assert flags(work, name) == [(0, "   S"), (1, "   S"), (2, "    ")]


def test_a_torn_last_line_is_ignored_with_a_warning(work: Workplace, first: Path) -> None:
    cut_to(first, 0, 2)
    whole = first.read_bytes()
    first.write_bytes(whole[:-20])
    torn_task = int(whole.splitlines()[-1].split(b"\t")[1])
    done = run(work, "second", "-r", first.name)
    assert done.returncode == 0
    assert "first_status.txt: line 2 is cut off and ignored" in done.complaints[0]
    assert ran(work) == sorted(["b", "abc"[torn_task]])


def test_a_header_does_not_matter(work: Workplace) -> None:
    work.write("tasks", log("a"))
    run(work, "first", "--status-header")
    run(work, "second", "--status-header", "-r", "first_status.txt")
    assert ran(work) == ["a"]
    lines = (work.directory / "second_status.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[0] for line in lines] == ["ROE[ PSZ]", "   S"]


def test_a_status_file_of_an_earlier_version_is_good_enough(work: Workplace) -> None:
    work.write("tasks", log("a"), log("b"))
    old = '\t0\t1\t-1\tworker\t8016\t0\t10.0486528873\t1458660919.78\t1458660929.83\t0\t""\t0\t""\t' + log("a")
    work.write("old_status.txt", old)
    assert run(work, "second", "-r", "old_status.txt").returncode == 0
    assert ran(work) == ["b"]
    assert flags(work, "second") == [(0, "   S"), (1, "    ")]


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ([log("a"), log("other"), log("c")], "command 'echo other >> out; exit 0', recorded as 'echo b"),
        (
            ["", log("a"), log("b", "${B:-5}"), log("c")],
            "task 0 is not the one in the status file: line 2, recorded as line 1",
        ),
        ([log("a"), "#DISBATCH REPEAT 1 " + log("b", "${B:-5}"), log("c")], "repeat index 0, recorded as -1"),
    ],
    ids=["text", "line", "repeat index"],
)
def test_a_task_that_differs(work: Workplace, first: Path, tasks: list[str], told: str) -> None:
    work.write("changed", *tasks)
    done = run(work, "second", "-r", first.name, tasks="changed")
    assert done.returncode == 1
    assert told in done.complaints[0]
    assert "--force-resume" in done.complaints[0]
    assert "Traceback" not in done.stderr
    assert ran(work) == []

    forced = run(work, "third", "--force-resume", "-r", first.name, tasks="changed")
    assert forced.returncode == 0
    assert told in forced.complaints[0]
    assert any("3 skipped" in line for line in forced.complaints)
    assert ran(work) == []


def test_a_refused_resume_is_refused_as_often_as_it_is_asked_for(work: Workplace, first: Path) -> None:
    good = work.text("tasks")
    arguments = ("-R", "-r", first.name)
    for number in (1, 2, 3):
        work.write("tasks", log("a"), "echo changed >> out", log("c"))
        done = run(work, "first", *arguments)
        assert done.returncode == 1
        assert any("task 1 is not the one in the status file" in complaint for complaint in done.complaints)
        assert "to go on where" not in done.stderr
        assert flags(work, "first") == [(0, "   S"), (1, "R  S"), (2, "   S")]
        assert len(list(work.directory.glob("first_status.txt.*"))) == number
    assert ran(work) == []
    (work.directory / "tasks").write_text(good, encoding="ascii")
    assert run(work, "first", *arguments, env={"B": "0"}).returncode == 0
    assert ran(work) == ["b"]
    assert flags(work, "first") == [(0, "   S"), (1, "    "), (2, "   S")]


def test_what_a_refused_resume_has_done_is_not_lost(work: Workplace) -> None:
    # More than is read at once: the first has ended before the one that differs is read.
    many = ["#DISBATCH BARRIER", *["true"] * 600]
    work.write("tasks", "exit ${B:-5}", *many, log("last", "5"))
    assert run(work, "first").returncode == 0
    assert ran(work) == ["last"]
    cut_to(work.directory / "first_status.txt", 0, 602)
    work.write("changed", "exit ${B:-5}", *many, "echo changed >> out")
    for _ in range(2):
        done = run(work, "first", "-R", "-r", "first_status.txt", tasks="changed", env={"B": "0"})
        assert done.returncode == 1
        assert "task 602 is not the one in the status file" in done.stderr
    assert ran(work) == []
    assert flags(work, "first")[0] == (0, "   S")
    assert flags(work, "first")[-1] == (602, "R  S")


@pytest.mark.parametrize("force", [False, True])
def test_a_run_that_is_cut_short_before_it_retries_a_task_remembers_how_that_failed(
    work: Workplace,
    force: bool,
) -> None:
    work.write("tasks", "touch begun; sleep $LONG", "#DISBATCH BARRIER", log("b", "5"))
    run(work, "first", env={"LONG": "0"})
    cut_to(work.directory / "first_status.txt", 2)
    (work.directory / "begun").unlink()
    ran(work)
    arguments = (*HERE, "-p", "second", "-R", "-r", "first_status.txt", *["--force-resume"] * force, "tasks")
    again = work.start(*arguments, env={"LONG": "300"})
    work.await_file("begun")
    again.terminate()
    assert finish(again, timeout=PATIENCE).returncode == 143
    assert flags(work, "second") == [(0, "R  Z"), (2, "R  S")]
    done = run(work, "third", "-r", "second_status.txt", env={"LONG": "0"})
    assert "2 tasks finished" not in done.stderr
    assert ran(work) == []


def test_more_tasks_than_before(work: Workplace, first: Path) -> None:
    work.write("tasks", log("a"), log("b", "${B:-5}"), log("c"), log("d"))
    assert run(work, "second", "-r", first.name).returncode == 0
    assert ran(work) == ["d"]


def test_commands_that_are_no_utf_8(work: Workplace) -> None:
    (work.directory / "tasks").write_bytes(b"echo '\xff\t' > /dev/null\necho gr\xc3\xbc\xc3\x9fe >> out\n")
    run(work, "first")
    assert ran(work) == ["grüße"]
    done = run(work, "second", "-r", "first_status.txt")
    assert (done.returncode, ran(work)) == (0, [])
    assert "2 skipped" in done.stderr


def test_repeats_barriers_and_per_engine_commands(work: Workplace) -> None:
    work.write(
        "tasks",
        "#DISBATCH PERENGINE START echo start >> out",
        "#DISBATCH REPEAT 3 start 1 echo $DISBATCH_REPEAT_INDEX >> out",
        "#DISBATCH BARRIER CHECK",
        log("b", "${B:-5}"),
    )
    run(work, "first")
    assert ran(work) == ["1", "2", "3", "b", "start"]
    run(work, "second", "-R", "-r", "first_status.txt", env={"B": "0"})
    assert ran(work) == ["b", "start"]
    assert flags(work, "second") == [(0, "   P"), (0, "   S"), (1, "   S"), (2, "   S"), (3, "C    "), (4, "    ")]


def test_a_check_counts_skipped_failures(work: Workplace) -> None:
    work.write("tasks", log("a", "5"), "#DISBATCH BARRIER CHECK", log("b"))
    assert run(work, "first").returncode == 1
    assert run(work, "second", "-r", "first_status.txt").returncode == 1
    assert ran(work) == ["a"]


def test_an_interrupted_task_runs_again(work: Workplace) -> None:
    work.write("tasks", f"touch begun; sleep $LONG; {log('a')}", log("b"))
    process = work.start(*HERE, "-p", "first", "tasks", env={"LONG": "300"})
    eventually(lambda: (work.directory / "begun").exists() and work.text("out") == "b\n")
    process.terminate()
    assert finish(process, timeout=PATIENCE).returncode == 143
    ran(work)
    assert flags(work, "first") == [(0, "R  Z"), (1, "    ")]
    assert run(work, "second", "-r", "first_status.txt", env={"LONG": "0"}).returncode == 0
    assert ran(work) == ["a"]


def test_after_a_killed_driver(work: Workplace) -> None:
    work.write("tasks", log("a"), f"touch begun; sleep $LONG; {log('b')}")
    process = work.start(*HERE, "-p", "first", "tasks", env={"LONG": "300"})
    eventually(lambda: (work.directory / "begun").exists() and bool(work.text("first_status.txt")))
    process.kill()
    finish(process)
    work.await_silence()
    ran(work)
    assert run(work, "second", "-r", "first_status.txt", env={"LONG": "0"}).returncode == 0
    assert ran(work) == ["b"]


# The same name again.


def test_an_earlier_status_file_of_the_name_is_set_aside(work: Workplace, first: Path) -> None:
    old = first.read_bytes()
    for number in (1, 2):
        done = run(work, "first")
        assert done.returncode == 0
        assert f"an earlier status file of this name is now {first.name}.{number}" in done.complaints[0]
    assert (work.directory / "first_status.txt.1").read_bytes() == old
    assert len(read_status(first)) == len(read_status(work.directory / "first_status.txt.2")) == 3
    assert ran(work) == ["a", "a", "b", "b", "c", "c"]


def test_it_is_read_before_when_it_is_resumed_from(work: Workplace, first: Path) -> None:
    cut_to(first, 0, 1)
    assert run(work, "first", "-r", "first_status.txt").returncode == 0
    assert ran(work) == ["c"]
    assert flags(work, "first") == [(0, "   S"), (1, "R  S"), (2, "    ")]


def test_a_mistake_does_not_set_it_aside(work: Workplace, first: Path) -> None:
    old = first.read_bytes()
    for mistake in (["--logfile", "nowhere/log"], ["--use-address", "198.51.100.1:0"], ["-r", "nothing"], ["-c", "x"]):
        assert run(work, "first", *mistake).returncode != 0
        assert first.read_bytes() == old


def test_the_printed_line_forgets_nothing_under_the_same_name(work: Workplace) -> None:
    """The second run ends before it has come to lines of the first, from which the third has to know of them."""
    work.write("tasks", f"touch begun; sleep $LONG; {log('slow', '$STATUS')}", "#DISBATCH BARRIER", log("last"))
    assert run(work, "run", env={"LONG": "0", "STATUS": "5"}).returncode == 0
    assert ran(work) == ["last", "slow"]
    (work.directory / "begun").unlink()
    again = work.start(*HERE, "-p", "run", "-R", "-r", "run_status.txt", "tasks", env={"LONG": "300", "STATUS": "0"})
    work.await_file("begun")
    again.send_signal(signal.SIGINT)
    done = finish(again, timeout=PATIENCE)
    assert done.returncode == 130
    (line,) = (line for line in done.complaints if "to go on where this run left off: " in line)
    pasted = line.partition("left off: ")[2]
    assert shlex.split(pasted)[-3:] == ["tasks", "-r", "run_status.txt"]
    third = work.run(program=["bash", "-c", pasted], env={"LONG": "0", "STATUS": "0"})
    assert third.returncode == 0, third.stderr
    assert ran(work) == ["slow"]


@pytest.mark.parametrize("mistake", [["-s", "nosuchhost.invalid:2"], ["changed"], ["-c", "9999"]])
def test_after_a_mistake_the_same_command_put_right_runs_nothing_again(
    work: Workplace, first: Path, mistake: list[str]
) -> None:
    work.write("changed", "true", "true", "true")
    cut_to(first, 0, 1)
    tasks = [] if "changed" in mistake else ["tasks"]
    hosts = [] if "-s" in mistake else HERE
    done = work.run(*hosts, "-p", "first", "-r", "first_status.txt", *mistake, *tasks)
    assert done.returncode == 1
    assert run(work, "first", "-r", "first_status.txt").returncode == 0
    assert ran(work) == ["c"]
    assert [task_id for task_id, _ in flags(work, "first")] == [0, 1, 2]


def test_when_the_driver_was_killed_the_same_command_runs_nothing_again(work: Workplace, first: Path) -> None:
    cut_to(first, 1, 2)
    work.write("tasks", f"touch begun; sleep $LONG; {log('a')}", *work.text("tasks").splitlines()[1:])
    arguments = (*HERE, "-p", "first", "-r", "first_status.txt", "tasks")
    again = work.start(*arguments, env={"LONG": "300"})
    work.await_file("begun")
    again.kill()
    finish(again, timeout=PATIENCE)
    work.await_silence()
    assert work.run(*arguments, env={"LONG": "0"}).returncode == 0
    assert ran(work) == ["a"]


def test_a_run_that_goes_on_keeps_its_name(work: Workplace) -> None:
    work.write("tasks", "touch begun; until [ -e go ]; do sleep 0.02; done")
    first = work.start(*HERE, "-p", "run", "tasks")
    work.await_file("begun")
    second = run(work, "run")
    assert second.returncode == 1
    (complaint,) = second.complaints
    assert complaint.startswith(f"disbatch: error: the run that writes {work.directory}/run_status.txt goes on")
    work.write("go")
    assert finish(first, timeout=PATIENCE).returncode == 0
    assert len(read_status(work.directory / "run_status.txt")) == 1
    assert run(work, "run").returncode == 0


def test_the_printed_line_works_behind_a_double_dash(work: Workplace) -> None:
    work.write("-tasks", f"touch begun; sleep $LONG; {log('slow')}")
    process = work.start(*HERE, "--", "-tasks", env={"LONG": "300"})
    work.await_file("begun")
    process.terminate()
    (line,) = (line for line in finish(process).complaints if "to go on where this run left off: " in line)
    done = work.run(program=["bash", "-c", line.partition("left off: ")[2]], env={"LONG": "0"})
    assert done.returncode == 0, done.stderr
    assert ran(work) == ["slow"]


def test_a_large_file_where_little_is_left(work: Workplace) -> None:
    work.write("tasks", "#DISBATCH REPEAT 5000 true", log("a", "${B:-5}"))
    lines = "".join(
        f"    \t{n}\t1\t{n}\tlocalhost\t{n + 100}\t0\t0.001\t1.000\t1.001\t0\t''\t0\t''\ttrue\n" for n in range(5000)
    )
    (work.directory / "old").write_text(lines, encoding="ascii")
    done = run(work, "second", "-r", "old")
    assert "1 task finished, 1 failed, 5000 skipped" in done.stderr
    assert ran(work) == ["a"]
    assert len(read_status(work.directory / "second_status.txt")) == 5001
