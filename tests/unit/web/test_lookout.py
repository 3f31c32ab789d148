from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from disbatch.errors import DriverUnreachableError
from disbatch.records import replace
from disbatch.watch.state import StateError
from disbatch.web.failures import Failures
from disbatch.web.lookout import SILENCE, Lookout
from disbatch.web.tail import Tail
from tests.unit.web.examples import END, RUNNING, STATE, line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from disbatch.watch.observer import Observer
    from disbatch.watch.state import RunningTask, RunState


class Driver:
    """Stands for a run and for the connection to it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.posted: RunState | None = STATE
        self.runs: tuple[RunningTask, ...] = (RUNNING,)
        self.failure: Exception | None = None
        self.takes = 0.0
        self.wait: Callable[[], None] = lambda: None
        self.asked_what_runs = 0
        self.connections = 0
        self.closed = 0

    def connect(self) -> Observer:
        if self.failure:
            raise self.failure
        self.connections += 1
        return cast("Observer", self)

    def state(self) -> RunState | None:
        self.now += self.takes
        self.wait()
        if self.failure:
            raise self.failure
        return self.posted

    def running(self) -> tuple[tuple[RunningTask, ...], int]:
        self.asked_what_runs += 1
        return self.runs, 5

    def close(self) -> None:
        self.closed += 1


class Bench:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.driver = Driver()
        failures = Failures(Tail(str(file)), lambda: self.driver.now)
        self.lookout = Lookout(self.driver.connect, failures, "disbatch -R", lambda: self.driver.now)

    def look(self, *, closely: bool = True) -> dict[str, Any]:
        return told(self.lookout.look(closely=closely))


def told(parts: Mapping[str, bytes]) -> dict[str, Any]:
    for name, text in parts.items():
        assert text.startswith(b"event: %b\ndata: " % name.encode())
    return {name: json.loads(text.partition(b"data: ")[2]) for name, text in parts.items()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "status")


def test_a_look_tells_of_the_run_its_hosts_and_what_runs(bench: Bench) -> None:
    parts = bench.look()
    assert parts["run"]["done"] == STATE.ended
    assert [engine["node"] for engine in parts["hosts"]["engines"]] == ["h1", "h2"]
    assert [task["task"] for task in parts["running"]["tasks"]] == [31]
    assert parts["running"]["more"] == 5
    assert bench.lookout.running == (RUNNING,)


def test_what_runs_is_asked_for_only_by_those_who_look_closely(bench: Bench) -> None:
    assert "running" not in bench.look(closely=False)
    assert not bench.driver.asked_what_runs


def test_history_grows_with_the_looks(bench: Bench) -> None:
    bench.look()
    bench.driver.now += 2.0
    bench.driver.posted = replace(STATE, finished=STATE.finished + 8)
    parts = bench.look()
    assert parts["history"]["points"] == [[2.0, 4.0, 7, 8]]
    assert parts["run"]["rate"] == "4.0/s"
    bench.driver.now += 0.1
    assert "history" not in bench.look()


def test_failures_are_told_when_there_are_new_ones(bench: Bench) -> None:
    assert "failures" not in bench.look()
    bench.file.write_bytes(line(1, b"false", 1, b"oops\n") + line(2, b"false", 1, b"oops\n"))
    parts = bench.look()
    assert parts["failures"]["count"] == 2
    assert parts["failures"]["rerun"] == "disbatch -R"
    assert parts["failures"]["groups"][0]["hosts"] == "all on h1", "h2 has run tasks too"
    assert "failures" not in bench.look()


def test_a_run_that_has_just_begun_has_no_state_yet(bench: Bench) -> None:
    bench.driver.posted = None
    bench.driver.runs = ()
    assert "run" not in bench.look()
    bench.driver.now += 60
    assert bench.look() == {"silence": {"time": None}}


@pytest.mark.parametrize("failure", [DriverUnreachableError("gone"), StateError("of another version")])
def test_a_driver_that_does_not_answer_is_said_to_be_silent_and_asked_anew(bench: Bench, failure: Exception) -> None:
    bench.look()
    bench.driver.failure = failure
    bench.driver.now += 60
    assert bench.look() == {"silence": {"time": None}}, "nobody had asked"
    assert bench.driver.closed == 1
    bench.driver.now += SILENCE
    assert bench.look() == {"silence": {"time": None}}
    bench.driver.now += 69
    assert bench.look() == {"silence": {"time": "1 min 12 s"}}
    bench.driver.failure = None
    assert bench.look()["silence"] == {"time": None}
    assert bench.driver.connections == 2


def test_a_driver_that_has_never_answered_is_said_to_be_silent_too(bench: Bench) -> None:
    bench.driver.failure = DriverUnreachableError("no answer")
    bench.look()
    bench.driver.now += 15
    assert bench.look() == {"silence": {"time": "15 s"}}


def test_how_long_the_driver_is_silent_is_known_while_a_look_waits_for_its_answer(bench: Bench) -> None:
    known = []

    def wait() -> None:
        for seconds in (SILENCE, 1.0, 8.0):
            bench.driver.now += seconds
            known.append(told(bench.lookout.silence())["silence"]["time"])

    bench.look()
    bench.driver.now += 10
    bench.driver.wait = wait
    assert bench.look()["silence"] == {"time": None}
    assert known == [None, "4.0 s", "12 s"]


def test_how_long_the_driver_takes_is_known(bench: Bench) -> None:
    bench.driver.takes = 0.25
    bench.look()
    assert bench.lookout.answered_in == 0.25


def test_at_the_end_all_that_is_known_is_told_once_more(bench: Bench) -> None:
    bench.look()
    bench.file.write_bytes(line(1, b"false", 1) * 3)
    parts = told(bench.lookout.last(END))
    assert (parts["run"]["words"], parts["run"]["done"], parts["run"]["running"]) == ("ended", 200, 0)
    assert all(engine["gone"] and not engine["active"] for engine in parts["hosts"]["engines"])
    assert all(context["gone"] for context in parts["hosts"]["contexts"])
    assert parts["running"] == {"time": STATE.time, "tasks": [], "more": 0}
    assert parts["failures"]["count"] == 3
    assert "The run has ended" in parts["ended"]["words"]
    assert list(parts)[-1] == "ended"
    assert bench.driver.closed == 1
    assert bench.lookout.running == ()


def test_of_a_driver_that_is_gone_the_last_is_told(bench: Bench) -> None:
    bench.look()
    parts = told(bench.lookout.last(None))
    assert (parts["run"]["words"], parts["run"]["done"]) == ("its driver is gone", STATE.ended)
    assert parts["run"]["left"] is None
    assert not parts["ended"]["well"]


def test_of_a_run_that_was_never_seen_the_end_is_told(bench: Bench) -> None:
    assert set(told(bench.lookout.last(END))) == {"failures", "ended"}
