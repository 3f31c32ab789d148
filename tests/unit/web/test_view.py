from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.records import replace
from disbatch.report.causes import Digest, Failure
from disbatch.watch.pace import Pace
from disbatch.web import view
from disbatch.web.history import Moment
from disbatch.web.search import search
from tests.unit.watch.examples import BEGAN, states, tasks
from tests.unit.web.examples import END, ENGINE, RUNNING, STATE, line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disbatch.watch.state import RunningTask, RunState

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e\x00\ud800" + "x" * 5000


def steady_pace(rate: float) -> Pace:
    pace = Pace()
    for second in range(100):
        pace.note(float(second), round(rate * second))
    return pace


def test_the_head_of_the_page_tells_how_far_the_run_is() -> None:
    told = view.run(STATE, steady_pace(2.0))
    assert told["job"] == STATE.job
    assert (told["done"], told["total"], told["exact"]) == (40, 200, True)
    assert (told["failed"], told["running"], told["waiting"], told["skipped"]) == (4, 7, 3, 10)
    assert (told["places"], told["busy"]) == (8, 75)
    assert (told["words"], told["rate"], told["elapsed"]) == ("running", "2.0/s", "1 min 40 s")
    assert told["left"] == "72 to 88 s"


def test_what_nobody_knows_is_not_made_up() -> None:
    told = view.run(replace(STATE, total=None, seconds_offered=0.0), Pace())
    assert (told["total"], told["waiting"], told["left"], told["busy"], told["rate"]) == (None, 3, None, None, "-")


def test_how_long_the_driver_is_silent_is_told_in_words() -> None:
    assert view.silence(75.0) == {"time": "1 min 15 s"}
    assert view.silence(None) == {"time": None}


def test_when_all_is_done_that_is_to_run_no_time_is_left() -> None:
    assert view.run(replace(STATE, total=40), steady_pace(1.0))["left"] is None
    for phase in ("draining", "ended"):
        assert view.run(replace(STATE, phase=phase), steady_pace(1.0))["left"] is None


@pytest.mark.parametrize("phase", ["working", "finishing", "draining", "stopping", "ended", "of another version"])
def test_each_phase_has_its_words(phase: str) -> None:
    assert view.run(replace(STATE, phase=phase), Pace())["words"]


def test_hosts_are_told_with_their_contexts() -> None:
    told = view.hosts(replace(STATE, engines=(*STATE.engines, replace(ENGINE, rank=2, cut=True, heard=None))))
    [context] = told["contexts"]
    assert (context["label"], context["system"], context["gone"], context["engines"]) == ("SSH0", "SSH", False, 2)
    first, second, third = told["engines"]
    assert first == {
        "rank": 0, "node": "h1", "context": "SSH0", "state": "running", "gone": False, "active": 3, "places": 4,
        "assigned": 20, "finished": 17, "failed": 2, "heard": BEGAN + 100,
    }  # fmt: skip
    assert (second["state"], second["gone"]) == ("gone", True)
    assert (third["state"], third["heard"]) == ("cut off", None)


def test_what_runs_is_told_with_its_host_and_bounded() -> None:
    many = tuple(replace(RUNNING, task_id=number, repeat=number) for number in range(view.MOST_RUNNING + 5))
    told = view.running(many, 7, STATE)
    assert len(told["tasks"]) == view.MOST_RUNNING
    assert told["more"] == 12
    assert told["tasks"][3] == {
        "task": 3, "line": "32, repeat 3", "attempt": 1, "node": "h1", "since": BEGAN + 90, "command": "sleep 31",
    }  # fmt: skip


def test_history_is_told_from_the_beginning_of_the_look() -> None:
    assert view.history([Moment(105.0, 12.3456, 3, 4)], 100.0) == {"points": [[5.0, 12.3, 3, 4]]}


def failure(task_id: int, node: str, err: str = "no such file\n", return_code: int = 2) -> Failure:
    return Failure(task_id, task_id + 1, -1, node, 17, return_code, len(err), err, f"cat {task_id}")


def test_failures_are_told_by_cause_with_an_example_and_the_command() -> None:
    digest = Digest()
    for number in range(5):
        digest.add(failure(number, f"h{number % 2}"))
    digest.add(failure(9, "h1", "", -11))
    told = view.failures(digest, "disbatch -R", behind=False)
    assert (told["count"], told["others"], told["rerun"], told["behind"]) == (6, 0, "disbatch -R", False)
    first, second = told["groups"]
    assert first == {
        "count": 5, "how": "exit status 2", "text": "no such file", "hosts": "h0 (3), h1 (2)",
        "example": "task 0 (line 1)", "command": "cat 0",
    }  # fmt: skip
    assert (second["how"], second["text"], second["hosts"]) == ("killed by SIGSEGV", "nothing on stderr", "h1 (1)")


def test_causes_and_hosts_without_end_are_bounded() -> None:
    digest = Digest()
    for number in range(70):
        for times in range(1 + number // 69 * 10):
            digest.add(failure(number, f"h{times}", return_code=number + 1))
    told = view.failures(digest, "", behind=True)
    assert len(told["groups"]) == view.MOST_GROUPS
    assert sum(group["count"] for group in told["groups"]) + told["others"] == digest.failed
    assert told["groups"][0]["hosts"].endswith(" and 6 more")


def test_how_the_run_has_ended_is_told_in_words() -> None:
    assert view.ended(END) == {
        "well": False, "words": "The run has ended: 200 tasks finished, 4 failed; exit status 0.",
    }  # fmt: skip
    assert view.ended(replace(END, counts={**END.counts, "failed": 0}))["well"]
    cut_short = view.ended(replace(END, complete=False, exit_status=130))
    assert cut_short["words"].startswith("The run has been cut short")
    assert not view.ended(None)["well"]


def test_what_was_found_is_told_those_that_run_first() -> None:
    result = search([line(1, b"false", 1, b"oops"), line(2), line(3, b"x", -9)], "h1", lambda: True)
    told = view.found(result, view.running_tasks((RUNNING,), STATE), 5)
    assert [(task["task"], task["how"], task["well"]) for task in told["tasks"]] == [
        (31, "running", True), (3, "killed by SIGKILL", False), (2, "done", True), (1, "exit status 1", False),
    ]  # fmt: skip
    assert (told["count"], told["complete"], told["unlisted"]) == (4, True, 5)
    assert told["tasks"][3]["err"] == "oops"
    assert told["tasks"][3]["took"] == "1.5 s"


def test_the_task_of_an_id_is_told_before_those_that_run_with_the_number_in_their_text() -> None:
    result = search([line(7), line(1, b"sleep 7")], "7", lambda: True)
    others = [replace(RUNNING, task_id=number, command="sleep 7") for number in range(1000, 1000 + view.MOST_RUNNING)]
    told = view.found(result, view.running_tasks(others, STATE), 0)["tasks"]
    assert [task["task"] for task in told] == [7, *range(1000, 1000 + view.MOST_RUNNING), 1]
    told = view.found(result, view.running_tasks([*others, replace(RUNNING, task_id=7, attempt=2)], STATE), 0)["tasks"]
    assert [(task["task"], task["how"]) for task in told[:3]] == [(7, "running"), (7, "done"), (1000, "running")]


def test_a_line_of_an_earlier_version_is_told_as_it_stands() -> None:
    old = line(1).replace(b"\t4711\t", b"\tsome\t").replace(b"1.500", b"fast")
    [told] = view.found(search([old], "1", lambda: True), (), 0)["tasks"]
    assert (told["task"], told["took"]) == (1, "fast")


@pytest.mark.parametrize(("code", "how"), [(-9, "lost with its engine"), (13, "could not be started")])
def test_what_never_ran_is_told_so(code: int, how: str) -> None:
    never = line(1, return_code=code).replace(b"\t4711\t", b"\t-1\t")
    [told] = view.found(search([never], "1", lambda: True), (), 0)["tasks"]
    assert told["how"] == how


def test_a_text_is_shown_as_it_is_or_made_harmless_and_short() -> None:
    assert view.shown("naïve ☃ <b>") == "naïve ☃ <b>"
    shown = view.shown(HOSTILE)
    assert shown.isprintable()
    assert len(shown) <= len("\\u202e") * view.MOST_TEXT + 1
    assert view.shown("a\nb") == "a\\nb"
    assert view.shown("x" * 400) == "x" * 300 + "…"


def texts_in(told: object) -> Iterator[str]:
    if isinstance(told, dict):
        told = list(told.values())
    if isinstance(told, list):
        for one in told:
            yield from texts_in(one)
    elif isinstance(told, str):
        yield told


def test_nothing_hostile_gets_through_whole() -> None:
    state = replace(
        STATE,
        job=HOSTILE,
        phase=HOSTILE,
        contexts=(replace(STATE.contexts[0], label=HOSTILE, system=HOSTILE),),
        engines=(replace(ENGINE, node=HOSTILE, status=HOSTILE),),
    )
    digest = Digest()
    digest.add(replace(failure(1, HOSTILE, HOSTILE), command=HOSTILE))
    result = search([line(1, HOSTILE.encode(errors="replace"), node=HOSTILE)], "1", lambda: True)
    for name, told in {
        "run": view.run(state, Pace()),
        "hosts": view.hosts(state),
        "running": view.running((replace(RUNNING, command=HOSTILE),), 0, state),
        "failures": view.failures(digest, "", behind=False),
        "found": view.found(result, (), 0),
    }.items():
        text = view.event(name, told)
        assert text.isascii()
        assert text.count(b"\n") == 3
        assert len(text) < 20_000
        assert all(map(str.isprintable, texts_in(told))), name


@given(states, st.lists(tasks, max_size=3))
def test_whatever_a_driver_posts_can_be_told(state: RunState, running: list[RunningTask]) -> None:
    for told in (view.run(state, steady_pace(1.0)), view.hosts(state), view.running(tuple(running), 0, state)):
        text = view.event("name", told)
        json.loads(text.partition(b"data: ")[2])
        assert text.isascii()
