"""What mails say, and when one is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.driver.controller import Counts
from disbatch.driver.letter import LONGEST_LINE, MOST_LINES, Digest, Letter, harmless
from disbatch.statusfile import parse_line, task_line
from disbatch.tasks import NO_REPEAT, Task
from tests.unit.driver.examples import outcome


def digest_of(*, frequency: int = 1) -> Digest:
    return Digest("run", "host:/data/run_status.txt", frequency)


def letter_of(*lines: bytes, run: str = "run", left_out: int = 0) -> Letter:
    return Letter(run, "host:/data/run_status.txt", Counts(4, 1), "", lines, left_out)


def numbered(*numbers: int) -> list[bytes]:
    return [b"line %d\n" % number for number in numbers]


def test_nothing_is_due_before_a_task_has_finished() -> None:
    digest = digest_of()
    assert not digest.is_due
    digest.add([b"a START command\n"], Counts())
    assert not digest.is_due


def test_a_letter_is_due_with_every_so_many_finished_tasks() -> None:
    digest = digest_of(frequency=3)
    due = []
    for finished in range(1, 11):
        digest.add(numbered(finished), Counts(finished=finished))
        if digest.is_due:
            due.append((finished, digest.take().lines))
            assert not digest.is_due
    assert due == [
        (3, (b"line 1", b"line 2", b"line 3")),
        (6, (b"line 4", b"line 5", b"line 6")),
        (9, (b"line 7", b"line 8", b"line 9")),
    ]


def test_tasks_that_finish_together_get_one_letter_and_put_no_other_off() -> None:
    digest = digest_of(frequency=3)
    digest.add(numbered(*range(8)), Counts(finished=8))
    assert len(digest.take().lines) == 8
    assert not digest.is_due
    digest.add(numbered(8), Counts(finished=9))
    assert digest.take().lines == (b"line 8",)


def test_the_counts_of_a_letter_are_those_of_its_lines() -> None:
    counts = Counts(finished=1)
    digest = digest_of()
    digest.add(numbered(0), counts)
    counts.finished = 7
    assert digest.take().counts.finished == 1


def test_the_last_letter_is_due_whatever_is_left_to_tell() -> None:
    digest = digest_of(frequency=100)
    digest.add(numbered(1), Counts(finished=1))
    before = (digest.ended, digest.is_due)
    digest.end(Counts(2, 1), complete=True)
    assert (before, (digest.ended, digest.is_due)) == ((False, False), (True, True))
    letter = digest.take()
    assert letter.subject == "run has ended: 2 finished, 1 failed"
    assert letter.lines == (b"line 1",)


def test_a_run_that_was_cut_short_says_so() -> None:
    digest = digest_of()
    digest.end(Counts(2, 0, 3, 4), complete=False)
    letter = digest.take()
    assert letter.subject == "run was cut short: 2 finished, 0 failed"
    assert letter.body.startswith(
        "2 tasks finished, 3 skipped, 4 interrupted; status file: host:/data/run_status.txt\n"
    )


def test_the_subject_has_the_run_and_what_has_finished_and_failed() -> None:
    assert letter_of(run="Tasks_disBatch_1").subject == "Tasks_disBatch_1: 4 finished, 1 failed"


def test_the_body_has_the_counts_and_the_lines() -> None:
    assert letter_of(b"line 1", b"line\t2").body == (
        "4 tasks finished, 1 failed; status file: host:/data/run_status.txt\n\nline 1\nline\t2\n"
    )


def test_of_many_lines_the_last_ones_are_kept() -> None:
    digest = digest_of(frequency=10**6)
    for begin in range(0, 3 * MOST_LINES, 100):
        digest.add(numbered(*range(begin, begin + 100)), Counts(finished=begin + 100))
    digest.end(Counts(3 * MOST_LINES), complete=True)
    letter = digest.take()
    assert letter.lines == tuple(b"line %d" % number for number in range(2 * MOST_LINES, 3 * MOST_LINES))
    assert letter.body.splitlines()[2:4] == [f"({2 * MOST_LINES} earlier lines left out here)", "line 2000"]


def test_what_was_left_out_once_is_not_told_again() -> None:
    digest = digest_of()
    digest.add(numbered(*range(MOST_LINES + 1)), Counts(finished=MOST_LINES + 1))
    assert "(1 earlier line left out here)" in digest.take().body
    digest.add(numbered(1), Counts(finished=MOST_LINES + 2))
    assert "left out" not in digest.take().body


def test_a_huge_line_is_not_kept_whole() -> None:
    digest = digest_of()
    digest.add([b"x" * 100_000 + b"\n"], Counts(finished=1))
    letter = digest.take()
    assert len(letter.lines[0]) < 5 * LONGEST_LINE
    assert letter.body.splitlines()[-1] == "x" * (LONGEST_LINE - 3) + "..."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("as it is", "as it is"),
        ("ä 日本\t!", "ä 日本\t!"),
        ("a\r\nBcc: b", "a\\r\\nBcc: b"),
        ("\x1b[2J\0", "\\x1b[2J\\x00"),
        ("\udcff\u2028", "\\udcff\\u2028"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert harmless(text) == shown


@given(st.binary(max_size=40), st.text(max_size=20), st.integers(1, 400))
def test_nothing_in_a_run_or_a_task_breaks_a_letter(command: bytes, name: str, repeated: int) -> None:
    line = task_line(Task(3, 4, NO_REPEAT, command.replace(b"\n", b"") * repeated), "node", outcome())
    digest = Digest(name, f"host:/data/{name}", 1)
    digest.add([line], Counts(finished=1))
    letter = digest.take()
    assert letter.subject.replace("\t", "").isprintable()
    first, empty, last = letter.body[:-1].split("\n")
    assert empty == ""
    for text in (first, last):
        assert text.replace("\t", "").isprintable()
        assert len(text) <= LONGEST_LINE
        text.encode()
    assert last.startswith("    \t3\t4\t-1\tnode\t")


def test_a_line_that_is_short_enough_is_still_one_of_a_status_file() -> None:
    line = task_line(Task(3, 4, NO_REPEAT, "echo 'ä\t日本'".encode()), "node", outcome(1))
    assert parse_line(letter_of(line.removesuffix(b"\n")).body.splitlines()[-1].encode()) == parse_line(line)
