from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from disbatch import messages
from disbatch.errors import DisbatchError, DriverUnreachableError
from disbatch.records import replace
from disbatch.web.desk import MOST_TEXT, Desk, UnclearError
from disbatch.web.failures import Failures
from disbatch.web.lookout import Lookout
from disbatch.web.tail import Tail
from disbatch.web.view import MOST_RUNNING
from tests.unit.web.examples import CONTEXT, RUNNING, STATE, line

if TYPE_CHECKING:
    from pathlib import Path

    from disbatch.watch.observer import Observer


def nobody() -> Observer:
    raise DriverUnreachableError("nobody is there")


class Bench:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.lookout = Lookout(nobody, Failures(Tail(str(file)), lambda: 0.0), "", lambda: 0.0)
        self.lookout.state = STATE
        self.lookout.running = (RUNNING,)
        self.ordered: list[messages.StopEngine | messages.StopContext] = []
        self.desk = Desk(self.lookout, str(file), self.ordered.append, lambda: 0.0)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "status")


def test_tasks_are_found_in_the_status_file_and_among_those_that_run(bench: Bench) -> None:
    bench.file.write_bytes(line(1, b"sleep 1") + line(2))
    assert [(task["task"], task["how"]) for task in bench.desk.find(" SLEEP ")["tasks"]] == [
        (31, "running"),
        (1, "done"),
    ]
    assert [task["task"] for task in bench.desk.find("31")["tasks"]] == [31]
    assert [task["task"] for task in bench.desk.find("0031")["tasks"]] == [31], "as the status file is searched"


def test_the_task_of_an_id_comes_before_all_that_have_the_number_in_their_text(bench: Bench) -> None:
    bench.lookout.running = tuple(replace(RUNNING, task_id=number, command="sleep 89") for number in (30, 31, 8))
    bench.file.write_bytes(line(1, b"sleep 89") + line(9))
    assert [task["task"] for task in bench.desk.find("9")["tasks"]] == [9, 30, 31, 8, 1]
    assert [task["task"] for task in bench.desk.find("8")["tasks"]] == [8, 30, 31, 1]


def test_a_search_for_nothing_is_refused_and_a_long_one_cut(bench: Bench) -> None:
    with pytest.raises(UnclearError):
        bench.desk.find("  ")
    bench.file.write_bytes(line(1, b"x" * MOST_TEXT))
    assert bench.desk.find("x" * MOST_TEXT + "y")["count"] == 1


def test_before_anything_is_known_nothing_runs(bench: Bench) -> None:
    bench.lookout.state = None
    assert bench.desk.find("sleep") == {"tasks": [], "count": 0, "complete": True, "unlisted": 0}


def test_all_that_is_known_to_run_is_looked_at_more_than_is_shown(bench: Bench) -> None:
    bench.lookout.running = tuple(replace(RUNNING, task_id=number) for number in range(1000))
    bench.lookout.unlisted = 7
    assert [task["task"] for task in bench.desk.find("999")["tasks"]] == [999]
    found = bench.desk.find("H1")
    assert (found["count"], len(found["tasks"]), found["unlisted"]) == (1000, MOST_RUNNING, 7)


def test_a_search_takes_no_longer_than_it_may(bench: Bench) -> None:
    clock = count(0, 100)
    bench.file.write_bytes(line(1))
    desk = Desk(bench.lookout, str(bench.file), bench.ordered.append, lambda: next(clock))
    assert not desk.find("true")["complete"]


@pytest.mark.parametrize(
    ("asked", "order", "words"),
    [
        (("engine", 0, False), messages.StopEngine(0, now=False), "told the engine on h1 to finish what runs there"),
        (
            ("engine", 0, True),
            messages.StopEngine(0, now=True),
            "told the engine on h1 to end what runs there, which others run again",
        ),
        (("context", 0, False), messages.StopContext(0, now=False), "told context SSH0 to finish what runs there"),
        (
            ("context", 0, True),
            messages.StopContext(0, now=True),
            "told context SSH0 to end what runs there, which others run again",
        ),
    ],
)
def test_the_driver_is_told_what_to_stop(
    bench: Bench, asked: tuple[str, int, bool], order: messages.StopEngine | messages.StopContext, words: str
) -> None:
    assert bench.desk.stop(dict(zip(("kind", "rank", "now"), asked, strict=True))) == words
    assert bench.ordered == [order]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"kind": "engine", "rank": 0},
        {"kind": "run", "rank": 0, "now": False},
        {"kind": "engine", "rank": "0", "now": False},
        {"kind": "engine", "rank": True, "now": False},
        {"kind": "engine", "rank": 0, "now": 1},
        {"kind": ["engine"], "rank": 0, "now": False},
    ],
)
def test_a_wish_that_is_none_is_refused(bench: Bench, asked: dict[str, Any]) -> None:
    with pytest.raises(UnclearError):
        bench.desk.stop(asked)
    assert not bench.ordered


def test_of_a_driver_that_does_not_answer_nobody_knows_whether_it_was_told(bench: Bench) -> None:
    def order(_order: object) -> None:
        raise DriverUnreachableError("lost the driver: timed out")

    desk = Desk(bench.lookout, str(bench.file), order, lambda: 0.0)
    with pytest.raises(DisbatchError, match=r"^the driver does not answer, and whether it was told is not known$"):
        desk.stop({"kind": "engine", "rank": 0, "now": False})


@pytest.mark.parametrize(("kind", "rank"), [("engine", 1), ("engine", 7), ("engine", -1), ("context", 0)])
def test_what_is_gone_or_was_never_there_cannot_be_stopped(bench: Bench, kind: str, rank: int) -> None:
    bench.lookout.state = replace(STATE, contexts=(replace(CONTEXT, gone=True),))
    with pytest.raises(DisbatchError, match=f"this {kind} is gone already"):
        bench.desk.stop({"kind": kind, "rank": rank, "now": False})
    assert not bench.ordered
