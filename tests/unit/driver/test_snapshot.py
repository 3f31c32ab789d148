from __future__ import annotations

import json
from typing import Any

import pytest

from disbatch import messages
from disbatch.driver import events
from disbatch.driver.fleet import EngineStage
from disbatch.driver.snapshot import MOST_RUNNING, Run, running, state
from disbatch.tasks import Task
from tests.unit.driver.examples import context_came, outcome
from tests.unit.driver.play import TOKEN, Play, barrier, play, skipped, task, tasks

RUN = Run("Tasks_1", "1.0", "here", 5.0)


def state_of(run: Play, unread: float | None = None) -> dict[str, Any]:
    """What a program reads that gets the state as JSON."""
    made: dict[str, Any] = json.loads(json.dumps(state(RUN, run.controller, unread, run.now)))
    return made


def test_a_run_that_has_just_begun() -> None:
    made = state_of(Play())
    assert made == {
        "job": "Tasks_1",
        "version": "1.0",
        "host": "here",
        "started": 5.0,
        "more": "More tasks.",
        "barriers": 0,
        "currentReturnCode": 0,
        "activeCylinders": 0,
        "contexts": {},
        "engines": {},
        "time": 0.0,
        "phase": "working",
        "cylinders": 0,
        "finished": 0,
        "failed": 0,
        "skipped": 0,
        "interrupted": 0,
        "failed_earlier": 0,
        "lost": 0,
        "rerun": 0,
        "waiting": 0,
        "total": None,
        "total_is_exact": False,
        "seconds_offered": 0.0,
        "seconds_taken": 0.0,
    }


def test_more_until_the_list_has_been_read_to_its_end() -> None:
    run = Play()
    run.reads(task(0), ended=False)
    assert state_of(run)["more"] == "More tasks."
    run.reads()
    assert state_of(run)["more"] == "No more tasks."


def test_contexts_by_rank() -> None:
    run = Play()
    run.reads(task(0))
    run.happens(context_came(TOKEN, 2, 3))
    run.happens(context_came("u", 1))
    run.happens(messages.ContextLeft(1))
    contexts = state_of(run)["contexts"]
    assert list(contexts) == ["0", "1"]
    assert contexts["0"] == {
        "label": "SSH0",
        "rank": 0,
        "sysid": "SSH",
        "nodes": [f"{TOKEN}0", f"{TOKEN}1"],
        "cylinders": [2, 3],
        "cores_per_cylinder": [1, 1],
        "engines": [0, 1],
        "host": "host",
        "pid": 99,
        "active": True,
        "assigned": 0,
        "task_limit": 0,
    }
    assert contexts["1"]["active"] is False


def test_engines_by_rank_with_what_they_did() -> None:
    run = Play()
    run.now = 10.0
    run.reads(*tasks(*range(5)))
    run.engines(2)
    run.now = 20.0
    run.ends(0, 0)
    run.ends(0, 1, return_code=3)
    made = state_of(run)
    assert made["engines"] == {
        "0": {
            "rank": 0,
            "cRank": 0,
            "node": f"{TOKEN}0",
            "hostname": "host",
            "pid": 1,
            "active": 2,
            "assigned": 4,
            "cylinders": 2,
            "failed": 1,
            "finished": 2,
            "start": 10.0,
            "status": "running",
            "cut": False,
            "last": 20.0,
        }
    }
    assert (made["activeCylinders"], made["cylinders"], made["finished"], made["failed"]) == (2, 2, 2, 1)


def test_an_engine_whose_tasks_take_long_is_heard_as_often_as_it_says_that_it_is_there() -> None:
    run = play(task(0), cylinders=[1])
    run.now = 70.0
    run.happens(events.MemberHeard(messages.engine_name(0)))
    assert state_of(run)["engines"]["0"]["last"] == 70.0


def test_an_engine_that_has_not_come_is_expected() -> None:
    run = Play()
    run.reads(task(0))
    run.happens(context_came(TOKEN, 1))
    engine = state_of(run)["engines"]["0"]
    assert (engine["status"], engine["hostname"], engine["start"], engine["last"]) == ("expected", "", None, None)


def test_what_somebody_says_for_an_engine_that_has_not_come_does_not_make_it_come() -> None:
    run = Play()
    run.reads(task(0))
    run.happens(context_came(TOKEN, 1))
    run.happens(messages.CylindersFreed(0, (1,)))
    assert state_of(run)["engines"]["0"]["start"] is None


def test_an_engine_that_is_cut_off_and_comes_back_has_come_once() -> None:
    run = Play()
    run.reads(task(0))
    run.now = 10.0
    run.engines(1)
    run.now = 20.0
    run.is_cut(0)
    assert state_of(run)["engines"]["0"]["cut"] is True
    run.happens(events.MemberRejoined(messages.engine_name(0)))
    engine = state_of(run)["engines"]["0"]
    assert (engine["start"], engine["cut"], engine["status"]) == (10.0, False, "running")


@pytest.mark.parametrize("has_come", [False, True])
def test_of_an_engine_that_has_stopped_it_is_known_whether_it_ever_came(*, has_come: bool) -> None:
    run = Play()
    run.now = 10.0
    run.reads(task(0))
    run.happens(context_came(TOKEN, 1))
    if has_come:
        run.comes(0)
        run.is_lost(0)
    else:
        run.happens(messages.EngineProcessEnded(0, 255, "Connection refused", certain=False))
    engine = state_of(run)["engines"]["0"]
    assert (engine["status"], engine["start"]) == ("stopped", 10.0 if has_come else None)


@pytest.mark.parametrize("stage", EngineStage)
def test_every_stage_of_an_engine_has_its_word(stage: EngineStage) -> None:
    run = play(task(0), cylinders=[1])
    run.controller.fleet.engines[0].stage = stage
    assert state_of(run)["engines"]["0"]["status"] in ("expected", "running", "stopping", "stopped")


def test_an_engine_stops_when_it_is_told_to_and_has_stopped_when_it_left() -> None:
    run = play(*tasks(0, 1), cylinders=[1, 1])
    run.happens(messages.StopEngine(0, now=False))
    statuses = [engine["status"] for engine in state_of(run)["engines"].values()]
    assert statuses == ["stopping", "running"]
    run.ends(0, 0)
    run.happens(messages.EngineLeft(0))
    statuses = [engine["status"] for engine in state_of(run)["engines"].values()]
    assert statuses == ["stopped", "running"]


def test_no_more_tasks_are_active_than_there_are_cylinders() -> None:
    run = play(*tasks(*range(40)), cylinders=[1])
    run.ends(0, 0, elapsed=0.001)
    engine = state_of(run)["engines"]["0"]
    assert engine["assigned"] > 2, "some wait there"
    assert engine["active"] == 1


def test_a_task_that_was_returned_and_given_again_is_assigned_once() -> None:
    run = play(*tasks(*range(40)), cylinders=[1])
    run.ends(0, 0, elapsed=0.001)
    run.happens(messages.TasksReturned(0, (run.given[0][-1],)))
    assert run.given[0][-1] == run.given[0][-2]
    assert state_of(run)["engines"]["0"]["assigned"] == len(run.given[0]) - 1


def test_barriers_that_were_met_and_tasks_that_were_skipped() -> None:
    run = Play(exit_code=True)
    run.reads(skipped(0), skipped(1, failed=True), barrier(2), task(3))
    made = state_of(run)
    assert (made["barriers"], made["skipped"], made["failed"], made["currentReturnCode"]) == (1, 2, 1, 1)


def test_a_run_that_is_cut_short() -> None:
    run = play(task(0), cylinders=[1])
    run.happens(events.SignalCame("SIGTERM", 143))
    made = state_of(run)
    assert (made["phase"], made["currentReturnCode"]) == ("stopping", 143)


CUT_SHORT = pytest.mark.parametrize(
    "event", [events.SignalCame("SIGINT", 130), events.DrainAsked("SIGUSR1"), events.ReadingFailed("it is gone")]
)


@CUT_SHORT
def test_in_a_run_that_is_cut_short_there_are_as_many_tasks_as_before_and_none_waits(event: events.Event) -> None:
    run = Play()
    run.reads(*tasks(*range(40)), skipped(40), ended=False)
    run.engines(2)
    run.ends(0, 0, elapsed=0.001)
    before = state_of(run, unread=100.0)
    assert before["waiting"] > 0
    run.happens(event)
    made = state_of(run, unread=100.0)
    assert made["total"] == before["total"] == 141
    assert (made["waiting"], made["activeCylinders"], made["cylinders"]) == (0, 2, 2)


def test_what_was_interrupted_when_a_failure_ended_the_run_is_one_of_all() -> None:
    run = play(*tasks(0, 1), cylinders=[2], fail_fast=True)
    run.happens(messages.StopEngine(0, now=True))
    before = state_of(run)["total"]
    reports = [messages.TaskReport(0, outcome(-15, interrupted=True)), messages.TaskReport(1, outcome(1))]
    run.happens(messages.TasksEnded(0, tuple(reports)))
    made = state_of(run)
    assert (made["phase"], made["total"], made["finished"]) == ("stopping", before, 1)


def test_an_engine_that_was_given_up_is_not_taken_for_one_that_left() -> None:
    run = play(*tasks(0, 1), cylinders=[1, 1])
    run.is_lost(0)
    run.happens(messages.EngineLeft(1))
    engines = state_of(run)["engines"]
    assert [(engines[rank]["status"], engines[rank]["cut"]) for rank in "01"] == [("stopped", True), ("stopped", False)]


@CUT_SHORT
def test_tasks_that_were_read_when_the_run_was_cut_short_are_some_of_all(event: events.Event) -> None:
    run = Play()
    run.reads(task(0), ended=False)
    run.engines(1)
    assert state_of(run, unread=2.0)["total"] == 3
    run.happens(event)
    run.reads(*tasks(1, 2))
    made = state_of(run, unread=0.0)
    assert (made["total"], made["total_is_exact"], made["waiting"]) == (3, True, 0)


@CUT_SHORT
def test_places_are_there_as_long_as_a_task_runs_in_one_of_them(event: events.Event) -> None:
    run = play(*tasks(0, 1, 2), cylinders=[2, 1])
    run.happens(event)
    run.ends(0, 0, interrupted=True)
    made = state_of(run)
    assert (made["activeCylinders"], made["cylinders"]) == (2, 3)
    run.ends(1, 2)
    made = state_of(run)
    assert (made["activeCylinders"], made["cylinders"]) == (1, 2)


def test_of_a_run_that_ends_without_all_of_its_tasks_the_total_stays() -> None:
    run = play(*tasks(0, 1, 2), cylinders=[2], requeue=False)
    run.happens(events.SignalCame("SIGINT", 130))
    run.happens(events.PatienceEnded())
    made = state_of(run)
    assert (made["phase"], made["finished"], made["total"], made["activeCylinders"]) == ("ended", 2, 3, 0)


# How far it is


def test_how_many_tasks_there_are_is_estimated_until_the_list_has_been_read() -> None:
    run = Play()
    run.reads(*tasks(*range(10)), skipped(10), barrier(11), ended=False)
    run.engines(2)
    run.ends(0, 0)
    made = state_of(run, unread=100.4)
    assert (made["waiting"], made["activeCylinders"], made["finished"], made["skipped"]) == (7, 2, 1, 0)
    assert (made["total"], made["total_is_exact"]) == (111, False)
    assert state_of(run)["total"] is None
    run.reads()
    made = state_of(run, unread=100.4)
    assert (made["total"], made["total_is_exact"]) == (11, True)


def test_a_task_whose_report_is_still_to_come_is_one_of_all() -> None:
    run = play(task(0), task(1), cylinders=[2])
    run.happens(messages.CylindersFreed(0, (1,)))
    made = state_of(run)
    assert (made["activeCylinders"], made["waiting"], made["total"]) == (1, 0, 2)


def test_what_waits_at_an_engine_waits() -> None:
    run = play(*tasks(*range(40)), cylinders=[1])
    run.ends(0, 0, elapsed=0.001)
    assert len(run.given[0]) > 2
    assert state_of(run)["waiting"] == 38
    assert state_of(run)["total"] == 40


def test_lost_and_interrupted_attempts_are_counted() -> None:
    run = play(*tasks(0, 1, 2), cylinders=[1, 2])
    run.is_lost(1)
    run.ends(0, 0, interrupted=True)
    made = state_of(run)
    assert (made["lost"], made["rerun"]) == (2, 3)


def test_attempts_that_fail_for_good_with_their_engine_are_lost_and_not_rerun() -> None:
    run = play(*tasks(0, 1), cylinders=[1, 1], requeue=False)
    run.is_lost(1)
    made = state_of(run)
    assert (made["lost"], made["rerun"], made["failed"]) == (1, 0, 1)


def test_places_are_there_from_an_engine_s_coming_to_its_end_and_taken_while_tasks_run() -> None:
    run = Play()
    run.reads(*tasks(0, 1, 2))
    run.clock = 100.0
    run.engines(2)
    run.clock = 110.0
    run.ends(0, 0, elapsed=9.0)
    run.clock = 115.0
    run.ends(0, 1, elapsed=14.0, return_code=1)
    run.clock = 120.0
    run.is_lost(0)
    run.clock = 1000.0
    run.happens(events.SilenceToBeJudged())
    made = state_of(run)
    assert (made["seconds_offered"], made["seconds_taken"]) == (40.0, 23.0)


# What runs


def running_of(run: Play, rank: int | None = None) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(running(run.controller, rank, run.now)))
    return made


def test_what_runs_is_told_since_when_and_where() -> None:
    run = Play()
    run.now = 10.0
    run.reads(*tasks(0, 1, 2, 3))
    run.engines(1, 2)
    run.now = 20.0
    run.ends(0, 0)
    made = running_of(run)
    assert (made["time"], made["more"]) == (20.0, 0)
    assert [(one["task"], one["engine"], one["since"]) for one in made["tasks"]] == [
        (1, 1, 10.0),
        (2, 1, 10.0),
        (3, 0, 20.0),
    ]
    assert made["tasks"][0] == {
        "task": 1,
        "line": 2,
        "repeat": -1,
        "attempt": 1,
        "engine": 1,
        "since": 10.0,
        "command": "command 1",
    }
    assert [one["task"] for one in running_of(run, 0)["tasks"]] == [3]
    assert running_of(run, 17)["tasks"] == []


def test_what_waits_at_an_engine_or_has_left_its_place_does_not_run() -> None:
    run = play(*tasks(*range(40)), cylinders=[1])
    run.ends(0, 0, elapsed=0.001)
    run.happens(messages.CylindersFreed(0, (run.given[0][1],)))
    assert [one["task"] for one in running_of(run)["tasks"]] == [run.given[0][2]]


def test_of_many_those_are_told_that_run_for_longest() -> None:
    run = Play()
    run.reads(*tasks(*range(MOST_RUNNING + 7)))
    run.now = 50.0
    run.engines(MOST_RUNNING + 2)
    run.now = 40.0
    run.engines(5, token="u")
    made = running_of(run)
    assert (len(made["tasks"]), made["more"]) == (MOST_RUNNING, 7)
    assert [one["engine"] for one in made["tasks"][:6]] == [1, 1, 1, 1, 1, 0]


def test_of_a_long_command_the_beginning_is_told_whatever_its_bytes_are() -> None:
    run = Play()
    run.reads(Task(0, 1, -1, b"\xff" + "\u00e9".encode() * 5000))
    run.engines(1)
    assert running_of(run)["tasks"][0]["command"] == "\ufffd" + "\u00e9" * 199
