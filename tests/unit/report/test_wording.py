from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch.report.causes import EXIT, LOST_WITH_ENGINE, NOT_STARTED, SIGNAL, Digest, Failure
from disbatch.report.wording import WIDTH, ended, facts, lines, place_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def failure(err: str = "", return_code: int = 1, **more: object) -> Failure:
    about = {"task_id": 17, "line": 18, "repeat": -1, "node": "h1", "pid": 4711, "command": "work 17"} | more
    return Failure(return_code=return_code, err=err, err_bytes=len(err.encode(errors="replace")), **about)  # type: ignore[arg-type] # each test names its fields


def digest_of(*failures: Failure, nodes: Sequence[str] = ()) -> Digest:
    digest = Digest()
    for each in failures:
        digest.add(each)
    for node in nodes:
        digest.ran_on(node)
    return digest


@pytest.mark.parametrize(
    ("kind", "return_code", "words"),
    [
        (EXIT, 1, "exit status 1"),
        (EXIT, 128, "exit status 128"),
        (EXIT, 137, "exit status 137 (128 + SIGKILL)"),
        (EXIT, 139, "exit status 139 (128 + SIGSEGV)"),
        (EXIT, 255, "exit status 255"),
        (SIGNAL, -11, "killed by SIGSEGV"),
        (SIGNAL, -34, "killed by signal 34"),
        (NOT_STARTED, 7, "could not be started"),
        (LOST_WITH_ENGINE, -9, "lost with its engine"),
    ],
)
def test_how_a_task_ended_is_told_in_words(kind: str, return_code: int, words: str) -> None:
    assert ended(kind, return_code) == words


def test_signals_have_the_names_of_this_machine() -> None:
    for number in range(1, 32):
        assert ended(SIGNAL, -number) == f"killed by {signal.Signals(number).name}"


def test_where_nothing_failed_that_is_said() -> None:
    assert lines(Digest()) == ["nothing has failed"]


def test_groups_are_told_with_their_hosts_and_an_example() -> None:
    failures = [failure("no such thing\n", node=node) for node in ("h1", "h2", "h1")]
    others = [failure(return_code=-11, task_id=number, line=number + 1) for number in (4, 5)]
    assert lines(digest_of(*failures, *others, failure(return_code=2))) == [
        "6 failed, for 3 reasons:",
        "  3  exit status 1: no such thing",
        "     on h1 (2), h2 (1)",
        "     such as task 17 (line 18): work 17",
        "  2  killed by SIGSEGV: nothing on stderr",
        "     all on h1",
        "     such as task 4 (line 5): work 17",
        "  1  exit status 2: nothing on stderr",
        "     such as task 17 (line 18): work 17",
    ]


def test_in_a_run_of_one_host_none_is_named() -> None:
    assert lines(digest_of(failure("no\n", earlier=True))) == [
        "1 failed in an earlier run, for 1 reason:",
        "  1  exit status 1: no",
        "     such as task 17 (line 18): work 17",
    ]
    told = lines(digest_of(failure("no\n", earlier=True), failure("no\n")))
    assert told[0] == "2 failed (1 of them in an earlier run), for 1 reason:"


def test_many_hosts_are_named_as_far_as_there_is_room() -> None:
    named = lines(digest_of(*(failure("no", node=f"node{number:03}") for number in range(100))))[2]
    assert named.startswith("       on node000 (1), node001 (1), ")
    assert named.endswith(" more")
    assert len(named) <= WIDTH
    assert (
        lines(digest_of(*(failure("no", node=f"{number}" + "x" * 80) for number in range(2))))[2] == "     on 2 hosts"
    )


def test_a_line_that_is_too_long_beside_its_status_has_a_line_of_its_own() -> None:
    told = lines(digest_of(failure("a b " * 19)))
    assert told[1:3] == ["  1  exit status 1:", f"     {'a b ' * 18}a b"]


def test_a_torn_line_begins_with_dots() -> None:
    err = "x" * 40 + "..." + "rror: 17 is no number of anything at all"
    torn = failure(err)
    torn = Failure(**{**vars(torn), "err_bytes": 999})
    assert lines(digest_of(torn))[1] == "  1  exit status 1: ...is no number of anything at all"


@pytest.mark.parametrize(
    ("failed", "words"),
    [
        (failure(), "task 17 (line 18)"),
        (failure(repeat=0), "task 17 (line 18, repeat index 0)"),
        (failure(per_engine=True), "the per-engine command (line 18)"),
    ],
)
def test_a_task_is_named_by_its_number_and_its_line(failed: Failure, words: str) -> None:
    assert place_of(failed) == words


def of_kinds(number: int) -> Digest:
    return digest_of(*(failure(return_code=code) for code in range(1, number + 1) for _ in range(code)))


def test_of_many_kinds_the_most_frequent_are_told_and_how_to_see_all() -> None:
    told = lines(of_kinds(13), most=10, all_by="./run_dbUtil.sh --failures")
    assert told[0] == "91 failed, for 13 reasons:"
    assert told[1] == "  13  exit status 13: nothing on stderr"
    assert told[-2:] == [
        "      such as task 17 (line 18): work 17",
        "  and for 3 reasons more, which ./run_dbUtil.sh --failures tells",
    ]
    assert len(told) == 1 + 2 * 10 + 1
    assert len(lines(of_kinds(13))) == 1 + 2 * 13
    assert len(lines(of_kinds(10), most=10)) == 1 + 2 * 10


def test_what_was_left_out_is_counted() -> None:
    digest = digest_of(failure())
    digest.others = 1234
    assert lines(digest)[0] == "1 failed, for 1 reason or more:"
    assert lines(digest)[-1] == "  and 1,234 more, hardly two of which failed alike"


HOSTILE = "\x1b[2J\r\x07\u202e\ud800é" * 30


def test_nothing_that_a_task_says_gets_to_a_terminal_as_it_is() -> None:
    digest = digest_of(failure(HOSTILE, node=HOSTILE, command=HOSTILE), nodes=["h1"])
    for line in lines(digest):
        assert line.isprintable()
        assert len(line) <= WIDTH


texts = st.text(max_size=200)


@given(failures=st.lists(st.builds(failure, texts, st.integers(-64, 255), node=texts, command=texts), max_size=5))
def test_every_digest_has_printable_lines_of_one_width_and_facts(failures: list[Failure]) -> None:
    digest = digest_of(*failures)
    for line in lines(digest):
        assert line.isprintable()
        assert len(line) <= WIDTH
    json.dumps(facts(digest))


def test_programs_are_told_the_same() -> None:
    digest = digest_of(failure("no 'x' in 17\n", repeat=3), failure("no 'x' in 4\n", node="h2", task_id=99))
    assert facts(digest) == {
        "failed": 2,
        "earlier": 0,
        "others": 0,
        "groups": [
            {
                "count": 2,
                "earlier": 0,
                "kind": "exit",
                "return_code": 1,
                "ended": "exit status 1",
                "error": "no 'x' in *",
                "torn": False,
                "nodes": {"h1": 1, "h2": 1},
                "alone": False,
                "example": {
                    "task": 17,
                    "line": 18,
                    "repeat": 3,
                    "per_engine": False,
                    "node": "h1",
                    "error": "no 'x' in 17",
                    "command": "work 17",
                },
            }
        ],
    }
    assert facts(Digest()) == {"failed": 0, "earlier": 0, "others": 0, "groups": []}
