from __future__ import annotations

import json
from typing import Any

import pytest

from disbatch import messages
from disbatch.driver import events
from disbatch.driver.fleet import EngineStage
from disbatch.driver.snapshot import state
from tests.unit.driver.examples import context_came
from tests.unit.driver.play import TOKEN, Play, barrier, play, skipped, task, tasks


def state_of(run: Play) -> dict[str, Any]:
    """What a program reads that gets the state as JSON."""
    made: dict[str, Any] = json.loads(json.dumps(state(run.controller, run.now)))
    return made


def test_a_run_that_has_just_begun() -> None:
    made = state_of(Play())
    assert made == {
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
            "last": 20.0,
        }
    }
    assert (made["activeCylinders"], made["cylinders"], made["finished"], made["failed"]) == (2, 2, 2, 1)


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
