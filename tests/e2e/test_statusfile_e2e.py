"""The status file of a real run, field by field."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import PATIENCE, eventually, finish, status_line

if TYPE_CHECKING:
    from tests.e2e.support import StatusLine, Workplace

HEADER = [
    "ROE[ PSZ]", "TaskID", "LineNumber", "RepeatIndex", "Node", "PID", "ReturnCode", "Elapsed", "Start", "End",
    "OutBytes", "OutSnippet", "ErrBytes", "ErrSnippet", "Command",
]  # fmt: skip


def only(work: Workplace, command: str) -> StatusLine:
    """The line of a run of one task."""
    assert work.run_tasks(command).returncode == 0
    (line,) = work.status()
    return line


def test_fifteen_fields(work: Workplace) -> None:
    before = time.time()
    line = only(work, "echo $$ > pid; echo out; echo err >&2; sleep 0.2; exit 3")
    after = time.time()
    assert line[:5] == ("ROE ", 0, 1, -1, "localhost")
    assert line.pid == int(work.text("pid"))
    assert line.return_code == 3
    assert 0.2 <= line.elapsed < 5.0
    assert before - 0.01 <= line.start <= line.end <= after + 0.01
    assert line.end - line.start == pytest.approx(line.elapsed, abs=0.0021)
    assert line[10:] == (4, r"'out\n'", 4, r"'err\n'", "echo $$ > pid; echo out; echo err >&2; sleep 0.2; exit 3")
    text = work.status_file().read_text(encoding="utf-8")
    assert re.fullmatch(r"\d+\.\d{3}\t\d+\.\d{3}\t\d+\.\d{3}", "\t".join(text.split("\t")[7:10]))


@pytest.mark.parametrize(
    ("command", "flags"),
    [("true", "    "), ("false", "R   "), ("echo x", " O  "), ("echo x >&2", "  E "), ("echo x; exit 1", "RO  ")],
)
def test_flags(work: Workplace, command: str, flags: str) -> None:
    assert only(work, command).flags == flags


@pytest.mark.parametrize(
    ("command", "return_code"), [("exit 255", 255), ("kill -KILL $$", -9), ("kill -TERM $$", -15), ("nonesuch", 127)]
)
def test_return_codes(work: Workplace, command: str, return_code: int) -> None:
    assert only(work, command).return_code == return_code


@pytest.mark.parametrize(
    ("length", "snippet"),
    [
        (39, "'" + "a" * 39 + "'"),
        (40, "'" + "a" * 40 + "'"),
        (41, "'" + "a" * 40 + "...z'"),
        (80, "'" + "a" * 40 + "..." + "z" * 40 + "'"),
        (81, "'" + "a" * 40 + "..." + "z" * 40 + "'"),
        (1000, "'" + "a" * 40 + "..." + "z" * 40 + "'"),
    ],
)
def test_snippets(work: Workplace, length: int, snippet: str) -> None:
    """The first forty bytes are `a`; of what comes after, all are `b` but the last forty, which are `z`."""
    rest = max(0, length - 40)
    text = ("a" * min(length, 40) + "b" * max(0, rest - 40) + "z" * min(rest, 40)).encode()
    (work.directory / "text").write_bytes(text)
    line = only(work, "cat text; cat text >&2")
    assert (line.out_bytes, line.out, line.err_bytes, line.err) == (length, snippet, length, snippet)


def test_output_that_is_no_utf_8_or_would_break_a_line(work: Workplace) -> None:
    line = only(work, r"printf 'a\xffb\tc\nd\r\0\u2028'")
    assert (line.out_bytes, line.out) == (12, repr("a\ufffdb\tc\nd\r\0\u2028"))


def test_the_header(work: Workplace) -> None:
    assert work.run_tasks("true", options=["--status-header"]).returncode == 0
    header, line = work.status_file().read_text(encoding="utf-8").splitlines()
    assert header.split("\t") == HEADER
    assert status_line(line).task_id == 0


def test_barriers(work: Workplace) -> None:
    work.run_tasks("sleep 0.1", "#DISBATCH BARRIER", "#DISBATCH BARRIER CHECK", "true")
    _, barrier, check, _ = work.status()
    assert (barrier.flags, barrier.task_id, barrier.line, barrier.return_code) == ("B    ", 1, 2, 0)
    assert (check.flags, check.task_id, check.line, check.command) == ("C    ", 2, 3, "#DISBATCH BARRIER CHECK")


def test_lines_are_there_as_soon_as_tasks_end(work: Workplace) -> None:
    run = work.start(
        "-s", "localhost:2", work.write("tasks", "echo quick", "until [ -e go ]; do sleep 0.02; done").name
    )
    eventually(lambda: any(work.directory.glob("*_status.txt")) and len(work.status()) == 1, "the first line")
    assert run.poll() is None
    work.write("go")
    assert finish(run, timeout=PATIENCE).returncode == 0
    assert [line.task_id for line in work.status()] == [0, 1]


def test_a_background_process_holds_the_report_but_not_the_place(work: Workplace) -> None:
    """One place: the second task starts when the first one's bash has ended, long before its pipes close."""
    done = work.run_tasks("(sleep 1; echo late) & echo early", "touch second; echo $?", slots=1)
    assert done.returncode == 0
    lines = {line.task_id: line for line in work.status()}
    assert lines[1].end < lines[0].start + 0.9
    assert lines[0].out == r"'early\nlate\n'"
    assert lines[0].elapsed < 0.9
    assert [line.task_id for line in work.status()] == [1, 0]


def test_a_background_process_is_waited_for_a_limited_time(work: Workplace) -> None:
    begun = time.monotonic()
    done = work.run_tasks("sleep 300 & echo early", "#DISBATCH BARRIER", "echo after", slots=1)
    assert done.returncode == 0
    assert 4.0 < time.monotonic() - begun < 30.0
    assert [(line.task_id, line.out) for line in work.status()] == [
        (0, r"'early\n'"),
        (1, "''"),
        (2, r"'after\n'"),
    ]
    work.await_silence()


def test_a_background_process_without_the_pipes_holds_nothing(work: Workplace) -> None:
    begun = time.monotonic()
    assert work.run_tasks("sleep 300 > /dev/null 2>&1 & echo early").returncode == 0
    assert time.monotonic() - begun < 4.0


def test_a_task_that_closes_its_pipes_goes_on(work: Workplace) -> None:
    line = only(work, "echo a; exec >&- 2>&-; sleep 0.3; exit 4")
    assert (line.return_code, line.out) == (4, r"'a\n'")
    assert line.elapsed >= 0.3
