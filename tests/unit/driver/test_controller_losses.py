"""`controller`, and what is lost with an engine: which attempt at a task it was, and whether there is another."""

from __future__ import annotations

import pytest

from disbatch import messages
from disbatch.driver import events
from disbatch.tasks import LOST, NO_PROCESS, lost_outcome
from tests.unit.driver.play import CANCEL, Play, barrier, play, task, tasks


def attempts_of(run: Play, task_id: int) -> list[int]:
    """Numbers of the attempts at a task, in their order."""
    given = [task for rank in run.given for task in run.tasks_given(rank) if task.task_id == task_id]
    return sorted(task.attempt for task in given)


def reason(text: str) -> bytes:
    """What the status file has room for of a reason."""
    return lost_outcome(text, 0.0).err_snippet


def lost_reports(run: Play) -> dict[int, bytes]:
    """What the status file says of those tasks that were recorded as lost."""
    records = run.all(events.RecordTask)
    return {
        record.task.task_id: record.outcome.err_snippet
        for record in records
        if (record.outcome.return_code, record.outcome.pid) == (LOST, NO_PROCESS)
    }


def test_an_attempt_has_a_new_number_when_the_one_before_was_lost_or_interrupted() -> None:
    run = play(*tasks(0, 1), cylinders=[1, 1, 1])
    run.is_lost(0)
    run.happens(messages.StopEngine(2, now=True))
    run.ends(2, 0, return_code=-15, interrupted=True)
    run.ends(1, 1)
    assert attempts_of(run, 0) == [1, 2, 3]
    assert attempts_of(run, 1) == [1]
    run.ends(1, 0)
    (record,) = [record for record in run.all(events.RecordTask) if record.task.task_id == 0]
    assert record.task.attempt == 3


def test_an_attempt_that_did_not_begin_is_none() -> None:
    run = play(*tasks(*range(9)), cylinders=[1])
    run.ends(0, 0, elapsed=0.001)
    run.engines(2, token="u")
    run.happens(messages.TasksReturned(0, (2, 3, 4, 5, 6, 7)))
    assert attempts_of(run, 2) == [1, 1]


def lose_one_after_another(run: Play, engines: int, first: int = 0) -> None:
    for rank in range(first, first + engines):
        run.is_lost(rank)


@pytest.mark.parametrize(("limit", "engines"), [(1, 1), (2, 2), (3, 3)])
def test_a_task_that_was_lost_so_often_has_failed(limit: int, engines: int) -> None:
    run = play(*tasks(0), cylinders=[1] * (engines + 1), crash_limit=limit, exit_code=True)
    lose_one_after_another(run, engines - 1)
    assert run.recorded == []
    run.is_lost(engines - 1)
    times = "once" if limit == 1 else f"{limit} times"
    why = f"lost with its engine {times}"
    assert lost_reports(run) == {0: reason(f"disbatch: {why}")}
    assert f"task 0 (line 1) was lost with its engine {times}, and is given up" in run.told
    assert run.everybody_leaves() == events.EndRun(1, complete=True)
    assert (run.controller.counts.finished, run.controller.counts.failed) == (1, 1)


def test_without_a_limit_a_task_may_be_lost_any_number_of_times() -> None:
    run = play(*tasks(0), cylinders=[1] * 20, crash_limit=0)
    lose_one_after_another(run, 19)
    assert run.recorded == []
    assert attempts_of(run, 0) == list(range(1, 21))


def test_a_loss_counts_only_for_tasks_that_had_begun() -> None:
    run = play(*tasks(*range(9)), cylinders=[1], crash_limit=1)
    run.ends(0, 0, elapsed=0.001)
    run.engines(1, token="u", ready=False)
    assert run.given == {0: [0, 1, 2, 3, 4, 5, 6, 7]}
    run.is_lost(0)
    assert list(lost_reports(run)) == [1], "the others waited for its cylinder"
    run.is_ready(1)
    for task_id in range(2, 9):
        run.ends(1, task_id)
    assert run.recorded == list(range(9))


def test_a_task_whose_report_is_late_had_begun() -> None:
    run = play(*tasks(0, 1), cylinders=[1, 1], crash_limit=1)
    run.happens(messages.CylindersFreed(0, (0,)))
    run.is_lost(0)
    assert list(lost_reports(run)) == [0]


@pytest.mark.parametrize(
    "purpose",
    [
        messages.StopEngine(0, now=True),
        messages.StopEngine(0, now=False),
        messages.StopContext(0, now=True),
        messages.ContextToldToEnd(0),
        messages.EngineToldToEnd(0),
    ],
)
def test_a_loss_of_an_engine_that_somebody_wanted_to_end_does_not_count(purpose: events.Event) -> None:
    run = play(*tasks(0), cylinders=[1], crash_limit=1)
    run.engines(1, token="u")
    run.happens(purpose)
    run.is_lost(0)
    assert lost_reports(run) == {}
    assert run.given[1] == [0]
    run.is_lost(1)
    assert list(lost_reports(run)) == [0]


def test_an_interruption_is_no_loss() -> None:
    run = play(*tasks(0), cylinders=[1], crash_limit=1)
    run.engines(1, token="u")
    run.happens(messages.StopEngine(0, now=True))
    run.ends(0, 0, return_code=-15, interrupted=True)
    assert run.given[1] == [0]
    assert run.recorded == []


def test_an_engine_that_leaves_in_order_has_lost_nothing() -> None:
    run = play(*tasks(0), cylinders=[1, 1], crash_limit=1, requeue=False)
    run.happens(messages.EngineLeft(0))
    assert run.given[1] == [0], "it was not begun, or there would be a report"
    assert attempts_of(run, 0) == [1, 1]


def test_a_command_that_is_not_to_run_twice_fails_when_it_is_lost() -> None:
    run = play(*tasks(0, 1, 2), cylinders=[2, 1], requeue=False)
    run.is_lost(0)
    why = reason("disbatch: lost with its engine, not run again (--no-requeue)")
    assert lost_reports(run) == {0: why, 1: why}
    assert run.told == "lost the engine on own0; 2 of its tasks have failed, as they must not run twice"
    run.ends(1, 2)
    assert run.given == {0: [0, 1], 1: [2]}
    assert run.everybody_leaves() == events.EndRun(0, complete=True)
    assert run.controller.counts.failed == 2


def test_a_command_that_is_not_to_run_twice_fails_when_its_engine_is_silent_for_too_long() -> None:
    run = play(*tasks(0, 1), cylinders=[1, 1], requeue=False)
    run.passes(63.0, "engine 1", "context own")
    assert list(lost_reports(run)) == [0]


@pytest.mark.parametrize("return_code", [-15, 1, 0])
@pytest.mark.parametrize(
    "purpose",
    [
        messages.StopEngine(0, now=True),
        messages.ContextToldToEnd(0),
        messages.EngineToldToEnd(0),
        events.SignalCame("SIGTERM", 143),
    ],
)
def test_a_command_that_is_not_to_run_twice_fails_when_it_is_interrupted(
    purpose: events.Event, return_code: int
) -> None:
    run = play(*tasks(0), cylinders=[1], requeue=False)
    run.engines(1, token="u")
    run.happens(purpose)
    run.ends(0, 0, return_code=return_code, interrupted=True)
    (record,) = run.all(events.RecordTask)
    assert not record.abandoned, "a resume would run it again"
    assert record.outcome.failed
    assert 1 not in run.given
    assert run.controller.counts.failed == 1


def test_a_command_that_is_not_to_run_twice_fails_when_it_is_lost_while_the_run_stops() -> None:
    run = play(*tasks(0), cylinders=[1], requeue=False)
    run.happens(events.SignalCame("SIGTERM", 143))
    run.is_lost(0)
    assert list(lost_reports(run)) == [0]


def test_a_task_that_is_lost_while_the_run_stops_has_no_line() -> None:
    run = play(*tasks(0), cylinders=[1], crash_limit=1)
    run.happens(events.SignalCame("SIGTERM", 143))
    run.is_lost(0)
    assert run.all(events.RecordTask) == []


def test_a_lost_task_that_has_failed_ends_a_run_that_fails_fast() -> None:
    run = play(*tasks(0, 1, 2, 3), cylinders=[2, 1], requeue=False, fail_fast=True)
    run.is_lost(0)
    assert run.said_to(1)[-1] == CANCEL
    assert sorted(lost_reports(run)) == [0, 1]
    run.ends(1, 2, return_code=-15, interrupted=True)
    assert run.everybody_leaves() == events.EndRun(1, complete=False)


def test_a_lost_task_that_has_failed_fails_a_check() -> None:
    run = play(task(0), barrier(1, check=True), task(2), cylinders=[1, 1], crash_limit=1)
    run.is_lost(0)
    assert run.controller.check_failed


def test_losses_of_a_task_that_has_ended_are_forgotten() -> None:
    run = play(*tasks(0), cylinders=[1, 1])
    run.is_lost(0)
    run.ends(1, 0)
    assert run.controller._losses == {}
