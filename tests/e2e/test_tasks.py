"""What a task file says is done, and a task finds what it was promised."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.e2e.support import PATIENCE, eventually, finish, read_status

if TYPE_CHECKING:
    from tests.e2e.support import Workplace

HERE = ("-s", "localhost:2")


def ran(work: Workplace, name: str = "tasks") -> list[tuple[int, int, int, str]]:
    """Id, line, repeat index and command of every task of a run, in the order of ids."""
    return sorted((line.task_id, line.line, line.repeat_index, line.command) for line in work.status(name))


# The task file.


def test_lines_comments_and_blank_lines(work: Workplace) -> None:
    work.run_tasks(
        "# a comment", "echo a", "", "   ", "\t# indented", "echo b", "#disbatch nothing", " #DISBATCH no", " echo c"
    )
    assert ran(work) == [(0, 2, -1, "echo a"), (1, 6, -1, "echo b"), (2, 9, -1, " echo c")]


def test_prefix_and_suffix(work: Workplace) -> None:
    work.run_tasks(
        "#DISBATCH PREFIX echo [",
        "#DISBATCH SUFFIX  x]",
        "a",
        "#DISBATCH prefix echo {",
        "#DISBATCH REPEAT 1 b",
        "#DISBATCH PREFIX ",
        "#DISBATCH Suffix",
        "echo c",
    )
    assert ran(work) == [(0, 3, -1, "echo [a x]"), (1, 5, 0, "echo {b x]"), (2, 8, -1, "echo c")]


def test_trailing_blanks_of_a_prefix_belong_to_it(work: Workplace) -> None:
    work.run_tasks("#DISBATCH PREFIX echo  two  ", "x")
    assert ran(work) == [(0, 2, -1, "echo  two  x")]


def test_repeat(work: Workplace) -> None:
    work.run_tasks(
        "#DISBATCH REPEAT 3 echo $DISBATCH_REPEAT_INDEX",
        "#DISBATCH REPEAT 2 start 5 step 10 echo $DISBATCH_REPEAT_INDEX",
        "#DISBATCH PREFIX true",
        "#DISBATCH repeat 2 START 1",
        "#DISBATCH REPEAT 0 false",
    )
    echo = "echo $DISBATCH_REPEAT_INDEX"
    expected = [(0, 1, 0, echo), (1, 1, 1, echo), (2, 1, 2, echo), (3, 2, 5, echo), (4, 2, 15, echo)]
    assert ran(work) == [*expected, (5, 4, 1, "true"), (6, 4, 2, "true")]
    assert {line.task_id: line.out for line in work.status()}[4] == r"'15\n'"


def test_a_barrier_waits_for_all_before_it(work: Workplace) -> None:
    work.run_tasks(
        "sleep 0.3; echo a >> out",
        "sleep 0.1; echo b >> out",
        "#DISBATCH BARRIER",
        "ls out; echo c >> out",
        "#DISBATCH BARRIER CHECK",
        "echo d >> out",
    )
    assert work.text("out") == "b\na\nc\nd\n"
    assert [(line.task_id, line.flags) for line in work.status()] == [
        (1, "    "),
        (0, "    "),
        (2, "B    "),
        (3, " O  "),
        (4, "C    "),
        (5, "    "),
    ]


def test_per_engine_commands(work: Workplace) -> None:
    work.run_tasks(
        "#DISBATCH PERENGINE STOP echo stop0 $DISBATCH_TASKID $DISBATCH_CYLINDER_RANK >> out",
        "#DISBATCH PERENGINE START sleep 0.2; echo start0 $DISBATCH_TASKID $DISBATCH_CYLINDER_RANK >> out",
        "#DISBATCH perengine start echo start1 $DISBATCH_TASKID >> out",
        "#DISBATCH PERENGINE STOP echo stop1 $DISBATCH_TASKID >> out",
        "echo task $DISBATCH_TASKID >> out",
    )
    assert work.text("out") == "start0 0 -1\nstart1 1\ntask 0\nstop0 0 -1\nstop1 1\n"
    assert [(line.flags, line.task_id, line.line) for line in work.status()] == [
        ("   P", 0, 2),
        ("   P", 1, 3),
        ("    ", 0, 5),
        ("   P", 0, 1),
        ("   P", 1, 4),
    ]


def test_a_last_line_without_its_end_counts(work: Workplace) -> None:
    (work.directory / "tasks").write_bytes(b"echo a\necho b")
    work.run(*HERE, "tasks")
    assert ran(work) == [(0, 1, -1, "echo a"), (1, 2, -1, "echo b")]


def test_lines_that_end_as_on_windows(work: Workplace) -> None:
    (work.directory / "tasks").write_bytes(b"#DISBATCH PREFIX echo x\r\na\r\n\r\n#DISBATCH BARRIER CHECK\r\nb\r\n")
    work.run(*HERE, "tasks")
    assert ran(work) == [(0, 2, -1, "echo xa"), (1, 4, -1, "#DISBATCH BARRIER CHECK"), (2, 5, -1, "echo xb")]
    assert [line.out for line in work.status()] == [r"'xa\n'", "''", r"'xb\n'"]


def test_a_byte_order_mark_does_not_hide_a_directive(work: Workplace) -> None:
    (work.directory / "tasks").write_text("#DISBATCH PREFIX echo x\na\n", encoding="utf-8-sig")
    work.run(*HERE, "tasks")
    assert ran(work) == [(0, 2, -1, "echo xa")]


def test_bytes_that_are_no_utf_8(work: Workplace) -> None:
    (work.directory / "tasks").write_bytes(b"printf '\xff\xe9' > 'caf\xe9'\nprintf %s gr\xc3\xbc\xc3\x9fe\n")
    assert work.run(*HERE, "tasks").returncode == 0
    with open(os.fsencode(work.directory) + b"/caf\xe9", "rb") as file:
        assert file.read() == b"\xff\xe9"
    first, second = sorted(work.status(), key=lambda line: line.task_id)
    assert first.command == repr(b"printf '\xff\xe9' > 'caf\xe9'")
    assert (second.command, second.out, second.out_bytes) == ("printf %s grüße", "'grüße'", 7)


def test_tabs_in_a_command(work: Workplace) -> None:
    work.run_tasks("echo\ta\tb")
    assert ran(work) == [(0, 1, -1, "echo\ta\tb")]


def test_nothing_to_run(work: Workplace) -> None:
    done = work.run_tasks("# nothing", "#DISBATCH PERENGINE START touch started", "#DISBATCH PREFIX x", "")
    assert (done.returncode, done.stdout, done.complaints) == (0, "", ["disbatch: No tasks to run."])
    assert not (work.directory / "started").exists()
    assert not list(work.directory.glob("*engine*"))
    assert work.status() == []


# Standard input.


def test_tasks_from_standard_input(work: Workplace) -> None:
    done = work.run(*HERE, "-", given=b"echo $DISBATCH_NAMETASKS\n\necho b")
    assert done.returncode == 0
    assert ran(work, "stdin") == [(0, 1, -1, "echo $DISBATCH_NAMETASKS"), (1, 3, -1, "echo b")]
    assert {line.task_id: line.out for line in work.status("stdin")}[0] == r"'stdin\n'"


def test_a_line_of_a_slow_pipe_starts_at_once(work: Workplace) -> None:
    run = work.start(*HERE, "-", stdin=subprocess.PIPE)
    assert run.stdin is not None
    for step in range(3):
        run.stdin.write(f"touch came.{step}\n".encode())
        run.stdin.flush()
        work.await_file(f"came.{step}")
    eventually(lambda: len(work.status("stdin")) == 3, "the line of the last task")
    run.stdin.write(b"touch came.")
    run.stdin.flush()
    assert finish(run, given=b"late", timeout=PATIENCE).returncode == 0
    assert (work.directory / "came.late").exists()


def test_a_slow_pipe_in_front_of_a_barrier(work: Workplace) -> None:
    run = work.start(*HERE, "-", stdin=subprocess.PIPE)
    assert run.stdin is not None
    run.stdin.write(b"echo a >> out\n#DISBATCH BARRIER\n")
    run.stdin.flush()
    eventually(lambda: [line.flags for line in work.status("stdin")] == ["    ", "B    "], "the barrier's line")
    assert finish(run, given=b"echo b >> out\n", timeout=PATIENCE).returncode == 0
    assert work.text("out") == "a\nb\n"


def test_a_named_pipe(work: Workplace) -> None:
    os.mkfifo(work.directory / "pipe")
    run = work.start(*HERE, "pipe")
    with (work.directory / "pipe").open("wb", buffering=0) as pipe:
        pipe.write(b"touch first\n")
        work.await_file("first")
        pipe.write(b"touch second\n")
    assert finish(run, timeout=PATIENCE).returncode == 0
    assert len(work.status("pipe")) == 2


def test_per_engine_commands_from_a_slow_pipe(work: Workplace) -> None:
    run = work.start(*HERE, "-", stdin=subprocess.PIPE)
    assert run.stdin is not None
    run.stdin.write(b"#DISBATCH PERENGINE START echo start >> out\n")
    run.stdin.flush()
    run.stdin.write(b"echo task >> out\n")
    run.stdin.flush()
    eventually(lambda: work.text("out") == "start\ntask\n")
    assert finish(run, given=b"", timeout=PATIENCE).returncode == 0


# What a task sees.


def test_the_environment(work: Workplace) -> None:
    work.write("tasks", "", "#DISBATCH REPEAT 2 start 7 env -0 > env.$DISBATCH_TASKID", "env -0 > env.2")
    assert work.run(*HERE, "tasks", env={"OF_THE_USER": "a\tb", "KVSSTCP_SECRET": "theirs"}).returncode == 0
    seen = [dict(entry.split("=", 1) for entry in work.text(f"env.{n}").split("\0") if entry) for n in range(3)]
    ours = [{name: value for name, value in one.items() if name.startswith("DISBATCH_")} for one in seen]
    for one in ours:
        assert one.pop("DISBATCH_CYLINDER_RANK") in {"0", "1"}
    job = work.status_file().name.removesuffix("_status.txt")
    common = {
        "DISBATCH_JOBID": job,
        "DISBATCH_NAMETASKS": "tasks",
        "DISBATCH_CORES_PER_TASK": "1",
        "DISBATCH_ENGINE_RANK": "0",
        "DISBATCH_ATTEMPT": "1",
    }
    numbers = [
        {"STREAM_INDEX": "2", "REPEAT_INDEX": "7", "TASKID": "0"},
        {"STREAM_INDEX": "2", "REPEAT_INDEX": "8", "TASKID": "1"},
        {"STREAM_INDEX": "3", "REPEAT_INDEX": "-1", "TASKID": "2"},
    ]
    padded = {"7": "000007", "8": "000008", "-1": "-00001", "0": "000000", "1": "000001", "2": "000002", "3": "000003"}
    for one, its in zip(ours, numbers, strict=True):
        plain = {f"DISBATCH_{name}": value for name, value in its.items()}
        assert one == {**common, **plain, **{f"{name}_ZP": padded[value] for name, value in plain.items()}}
    assert all(one["OF_THE_USER"] == "a\tb" for one in seen)
    assert not any("KVSSTCP_SECRET" in one for one in seen)


def test_cylinders_are_numbered_and_used_by_one_task_at_a_time(work: Workplace) -> None:
    own = "$DISBATCH_CYLINDER_RANK"
    task = f"mkdir {own}.busy && sleep 0.05 && rmdir {own}.busy && touch {own}.used"
    work.run_tasks(*[task] * 12, slots=3)
    assert [line.return_code for line in work.status()] == [0] * 12
    assert sorted(path.name for path in work.directory.glob("?.used")) == ["0.used", "1.used", "2.used"]


def test_directory_session_and_input(work: Workplace) -> None:
    place = work.directory / "a  place with 'quotes'"
    place.mkdir()
    (place / "my tasks").write_text("pwd; cat | wc -c; echo $(($(ps -o sid= -p $$) - $$)); echo $0\n", encoding="ascii")
    run = work.start(*HERE, "my tasks", cwd=place, stdin=subprocess.PIPE)
    assert finish(run, given=b"of the driver", timeout=PATIENCE).returncode == 0
    (path,) = place.glob("my tasks_disBatch_*_status.txt")
    (line,) = read_status(path)
    assert line.out_bytes == len(f"{place}\n0\n0\n/bin/bash\n")
    assert r"\n0\n0\n/bin/bash\n" in line.out


def test_signals_and_limits_are_as_usual(work: Workplace) -> None:
    descriptors = "ls -l /proc/self/fd | grep -c -v 'total\\|proc'"
    work.run_tasks(
        f"grep ^Sig[BI] /proc/self/status > signals; {{ ulimit -n; {descriptors}; }} > limits; yes | head -n 1"
    )
    usual = subprocess.run(["bash", "-c", "ulimit -n"], capture_output=True, check=True).stdout.decode()
    assert work.text("limits") == f"{usual}3\n"
    masks = {name: int(mask, 16) for name, mask in (line.split(":\t") for line in work.text("signals").splitlines())}
    of_the_c_library = 1 << 31 | 1 << 32  # its posix_spawn ignores the two that no program can use anyway
    assert (masks["SigBlk"], masks["SigIgn"] & ~of_the_c_library) == (0, 0)


def test_bash_is_what_runs_a_task(work: Workplace) -> None:
    work.run_tasks("a=(x y z); [[ ${#a[@]} == 3 ]] && echo <(true) | grep -c fd")
    assert [line.out for line in work.status()] == [r"'1\n'"]


def test_paths_with_blanks_everywhere(work: Workplace) -> None:
    (work.directory / "the results").mkdir()
    work.write("my tasks", "echo $DISBATCH_NAMETASKS")
    done = work.run(*HERE, "-p", "the results/my run", "--logfile", "the results/my log", "my tasks")
    assert done.returncode == 0
    (line,) = read_status(work.directory / "the results" / "my run_status.txt")
    assert line.out == r"'my tasks\n'"
    assert work.text("the results/my log")


# Commands at the edge.


def test_a_command_of_130_kib_is_a_failed_task_of_its_own(work: Workplace) -> None:
    work.run_tasks("echo before", f"echo {'x' * 130 * 1024}", "echo after")
    lines = sorted(work.status(), key=lambda line: line.task_id)
    assert [line.return_code for line in lines] == [0, 7, 0]
    too_long = lines[1]
    assert (too_long.pid, too_long.flags, len(too_long.command)) == (-1, "R E ", 130 * 1024 + 5)
    assert "disbatch could not start this task: Argu" in too_long.err
    assert too_long.err.endswith("too long\\n'")


def test_a_command_just_short_enough(work: Workplace) -> None:
    work.run_tasks(f"echo {'x' * (127 * 1024)} | wc -c")
    assert [line.out for line in work.status()] == [repr(f"{127 * 1024 + 1}\n")]


def test_a_nul_byte(work: Workplace) -> None:
    (work.directory / "tasks").write_bytes(b"echo before\necho \0 x\necho after\n")
    assert work.run(*HERE, "tasks").returncode == 0
    lines = sorted(work.status(), key=lambda line: line.task_id)
    assert [(line.return_code, line.pid == -1) for line in lines] == [(0, False), (200, True), (0, False)]
    assert lines[1].err_bytes > 0


def test_a_very_long_line_that_is_a_comment(work: Workplace) -> None:
    work.run_tasks("#" + "x" * 3_000_000, "echo here")
    assert ran(work) == [(0, 2, -1, "echo here")]


def test_many_more_tasks_than_places(work: Workplace) -> None:
    done = work.run_tasks("#DISBATCH REPEAT 500 echo $DISBATCH_REPEAT_INDEX >> out")
    assert done.returncode == 0
    assert sorted(map(int, work.text("out").split())) == list(range(500))
    assert sorted(line.task_id for line in work.status()) == list(range(500))


def test_idle_places_take_waiting_tasks(work: Workplace) -> None:
    """Tasks that were given ahead of time to an engine whose places are busy for long run where there is room."""
    quick = ["true"] * 300
    done = work.run_tasks(*quick, *["until [ -e last ]; do sleep 0.02; done"] * 3, "touch last", slots=4)
    assert done.returncode == 0
    assert len(work.status()) == 304


def test_logs_do_not_hold_the_environment(work: Workplace) -> None:
    work.write("tasks", "true", "exit 3")
    assert work.run(*HERE, "--loglevel", "DEBUG", "tasks", env={"PRIVATE": "word-of-the-user"}).returncode == 0
    written = [path.read_bytes() for path in work.directory.iterdir()]
    assert len(written) >= 5
    assert not any(b"word-of-the-user" in content for content in written)
