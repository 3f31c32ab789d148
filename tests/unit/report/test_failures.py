from __future__ import annotations

import json
import os
import shlex
from contextlib import suppress
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch.errors import StatusFileError
from disbatch.options import ContextRoleOptions
from disbatch.report import failures
from disbatch.report.causes import Failure, Group
from disbatch.report.failures import failure_in, read
from disbatch.snippet import OutputMeter
from disbatch.statusfile import HEADER, barrier_line, per_engine_line, skipped_line, task_line
from disbatch.tasks import NO_REPEAT, Barrier, Outcome, PerEngineTask, Phase, Task

if TYPE_CHECKING:
    from pathlib import Path

OLD_LINE = b"R E  \t13\t14\t-1\tworker1\t5513\t7\t1.5000\t1.0\t2.5\t0\t\t3\tno!\tcd /work ; my -a 3\n"
"""As an earlier version has written it: another number of flags, other decimals, and snippets without quotes."""


def outcome(return_code: int = 0, err: str = "") -> Outcome:
    meter = OutputMeter()
    meter.feed(err.encode())
    return Outcome(4711, return_code, 1.7e9, 0.5, 0, b"", meter.count, meter.snippet, 0.01, 1 << 20, interrupted=False)


def line(
    task_id: int, return_code: int = 0, err: str = "", *, node: str = "h1", repeat: int = NO_REPEAT, z: bool = False
) -> bytes:
    task = Task(task_id, task_id + 1, repeat, b"work %d" % task_id)
    return task_line(task, node, outcome(return_code, err), abandoned=z)


def of_engine(return_code: int, node: str = "h1") -> bytes:
    return per_engine_line(PerEngineTask(Phase.START, 0, 1, b"prepare"), node, outcome(return_code))


BARRIER = barrier_line(Barrier(9, 10, check=True, key=None, text=b"#DISBATCH BARRIER"), "driver", 1, 1.0, 2.0)


def written(path: Path, *lines: bytes) -> str:
    path.write_bytes(b"".join(lines))
    return str(path)


def groups_in(path: Path, *lines: bytes) -> list[Group]:
    return list(read([written(path, *lines)]).groups())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "status"


# Lines


def test_a_line_tells_all_of_a_failure() -> None:
    err = 'Traceback (most recent call last):\n\tValueError: it isn\'t "so"\n'
    assert failure_in(line(7, 3, err, repeat=5)) == Failure(
        task_id=7, line=8, repeat=5, node="h1", pid=4711, return_code=3, err_bytes=len(err),
        err=f"{err[:40]}...{err[40:]}", command="work 7",
    )  # fmt: skip
    assert failure_in(line(7, 3)[:-1]) == failure_in(line(7, 3))


def test_a_line_of_an_earlier_version_tells_it_too() -> None:
    old = failure_in(OLD_LINE)
    assert old is not None
    assert (old.task_id, old.node, old.return_code, old.err, old.command) == (
        13,
        "worker1",
        7,
        "no!",
        "cd /work ; my -a 3",
    )


@pytest.mark.parametrize(
    "text",
    [line(0), line(0, 0, "warning"), line(0, -15, z=True), of_engine(0), BARRIER, HEADER, b"ROE[ PS]\tTaskID\n", b""],
)
def test_other_lines_tell_of_no_failure(text: bytes) -> None:
    assert failure_in(text) is None


def test_what_a_failure_is_of_is_told() -> None:
    skipped, of_host = failure_in(skipped_line(line(0, 1))), failure_in(of_engine(2))
    assert skipped is not None
    assert (skipped.earlier, skipped.per_engine) == (True, False)
    assert of_host is not None
    assert (of_host.earlier, of_host.per_engine) == (False, True)


@pytest.mark.parametrize("number", [5, 12])
def test_a_field_of_another_form_does_no_harm(number: int) -> None:
    fields = line(0, 1, "no").split(b"\t")
    fields[number] = b"?"
    found = failure_in(b"\t".join(fields))
    assert found is not None
    assert (found.return_code, found.err) == (1, "no")


def test_a_damaged_line_is_an_error() -> None:
    with pytest.raises(StatusFileError):
        failure_in(b"R   \t1\t2\n")


@given(
    parts=st.lists(
        st.sampled_from(
            [b"R   ", b"R  P", b"R  S", b"\t", b"1", b"-9", b"'", b'"\\n"', b"\\", b"\xff", b"\0", line(0, 1)]
        )
        | st.binary(max_size=5),
        max_size=40,
    )
)
def test_no_line_raises_anything_else(parts: list[bytes]) -> None:
    with suppress(StatusFileError):
        failure_in(b"".join(parts))
    with suppress(StatusFileError):
        failure_in(b"R   \t1\t2\t-1\tn\t1\t1\t" + b"\t".join(part.replace(b"\n", b"") for part in parts))


# Files


def test_tasks_and_commands_that_failed_count(path: Path) -> None:
    lines = [HEADER, line(0), line(1, 2), line(2, -9, z=True), of_engine(2), of_engine(2, "h2"), BARRIER, line(3, 2)]
    [group] = groups_in(path, *lines)
    assert (group.return_code, group.count, group.nodes) == (2, 4, (("h1", 3), ("h2", 1)))
    assert not group.alone


def test_a_file_in_which_nothing_failed_has_no_groups(path: Path) -> None:
    assert groups_in(path, line(0), line(1)) == []
    assert groups_in(path) == []
    assert groups_in(path, HEADER) == []


def test_a_task_that_has_succeeded_has_not_failed(path: Path) -> None:
    [group] = groups_in(path, line(0, 1), line(1, 1), line(0))
    assert (group.count, group.example.task_id) == (1, 1)
    [group] = groups_in(path, line(0), line(1, 1), line(0, 1))
    assert (group.count, group.example.task_id) == (1, 1)


def test_a_task_that_has_failed_twice_counts_as_it_failed_last(path: Path) -> None:
    [group] = groups_in(path, line(0, 1, "first"), line(0, 2, "second"))
    assert (group.count, group.return_code, group.text) == (1, 2, "second")


def test_files_that_resume_one_another_count_together(path: Path, tmp_path: Path) -> None:
    first = written(path, line(0, 1, "no"), line(1, 1, "no"), line(2, 1, "no"), of_engine(3))
    second = written(tmp_path / "second", skipped_line(line(2, 1, "no")), line(0), line(1, 1, "still no"))
    digest = read([first, second])
    assert (digest.failed, digest.earlier, digest.per_engine) == (3, 1, 1)
    assert {group.example.task_id: group.text for group in digest.groups() if not group.example.per_engine} == {
        1: "still no",
        2: "no",
    }
    assert read([second, first]).failed == 3


def test_a_torn_last_line_is_left_out(path: Path) -> None:
    [group] = groups_in(path, line(0, 1), line(1, 1)[:-10])
    assert group.count == 1
    assert groups_in(path, line(0, 1)[:-1]) == []


def test_hosts_that_ran_without_failing_are_known(path: Path) -> None:
    assert groups_in(path, line(0, 1), line(2, 1), line(1, node="h2"))[0].alone
    assert not groups_in(path, line(0, 1), line(2, 1), line(1, node="h1"), BARRIER)[0].alone
    assert groups_in(path, of_engine(1), of_engine(1), of_engine(0, "h2"))[0].alone


@pytest.mark.parametrize("damaged", [b"  half a line\n", b"    \tx\t2\t3\t4\t5\t6\n", b"    \t0\t2\t3\t4\t5\n"])
def test_a_damaged_line_that_tells_of_no_failure_does_no_harm(path: Path, damaged: bytes) -> None:
    assert groups_in(path, line(0, 1), damaged)[0].count == 1


def test_a_damaged_line_that_tells_of_one_is_named(path: Path) -> None:
    with pytest.raises(StatusFileError, match=r"status: line 2 is no line of a status file: 2 instead of 15 fields"):
        groups_in(path, line(0, 1), b"R   \t7\n")


@pytest.mark.parametrize("content", [b"echo a\n", b"Read me\n", b"echo a"])
def test_another_file_is_no_status_file(path: Path, content: bytes) -> None:
    with pytest.raises(StatusFileError, match="status is no status file of disbatch"):
        groups_in(path, content)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for name, reason in ((tmp_path / "nowhere", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(StatusFileError, match=f"cannot read the status file {name}: {reason}"):
            read([str(name)])


def test_a_pipe_is_refused() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    try:
        with pytest.raises(StatusFileError, match=r"can be read only once \(give a file, not a pipe\)"):
            read([f"/dev/fd/{reading}"])
    finally:
        os.close(reading)


def test_ten_thousand_failures_of_three_causes_are_three_groups(path: Path) -> None:
    def lines() -> list[bytes]:
        made = []
        for number in range(10_000):
            node = f"h{number % 16}"
            if number % 3 == 0:
                err = (
                    f"Traceback (most recent call last):\n  File '/home/{number}.py', line {number % 77}, in <module>\n"
                )
                made.append(
                    line(number, 1, f"{err}ValueError: no float in 'sample {number}', row {number**3}\n", node=node)
                )
            elif number % 3 == 1:
                made.append(line(number, -11, node=node))
            else:
                place = "/".join(["scratch"] * (number % 5))
                made.append(line(number, 2, f"cat: /{place}/in_{number}.txt: No such file or directory\n", node=node))
        return made

    groups = groups_in(path, *lines())
    assert [group.count for group in groups] == [3334, 3333, 3333]


# Commands


def test_what_failed_is_printed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(path, line(0, 1, "no 17"), line(1))
    assert failures.main([file]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 failed, for 1 reason:",
        "  1  exit status 1: no 17",
        "     such as task 0 (line 1): work 0",
        f"to run again what failed: disbatch <what you gave it before> -r {shlex.quote(file)} -R",
    ]


def test_where_nothing_failed_nothing_is_to_be_run_again(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert failures.main([written(path, line(0))]) == 0
    assert capsys.readouterr() == ("nothing has failed\n", "")


def test_of_an_empty_file_no_more_is_told_than_that(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(path)
    assert failures.main([file]) == 0
    assert capsys.readouterr() == (f"no task has ended yet: nothing is in {shlex.quote(file)}\n", "")
    assert failures.main([file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == 0


def test_programs_get_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert failures.main([written(path, line(0, 1, "é")), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["failed"], told["groups"][0]["error"]) == (1, "é")


def test_a_run_is_told_of_while_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ContextRoleOptions(run=str(tmp_path / "my run"), failures=True)
    with pytest.raises(StatusFileError, match=r"there is no status file .*my run_status\.txt"):
        failures.main_of_run(asked)
    written(tmp_path / "my run_status.txt", line(0, 1), line(1, 1)[:20])
    assert failures.main_of_run(asked) == 0
    told = capsys.readouterr().out.splitlines()
    again = f"disbatch <what you gave it before> -r '{tmp_path}/my run_status.txt' -R"
    assert (told[0], told[-1]) == ("1 failed, for 1 reason:", f"to run again what failed: {again}")
    (tmp_path / "my run_observer.txt").touch()  # as long as it goes on
    assert failures.main_of_run(asked) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"to run again what failed, after the run: {again}"
