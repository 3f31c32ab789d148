"""`controller`, alone: first each of its decisions, then an adversary who lets things happen in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from disbatch import messages
from disbatch.driver import events
from disbatch.driver.controller import (
    CONTEXT_PATIENCE,
    HURRY_PATIENCE,
    READ_AHEAD,
    Counts,
    RunPhase,
)
from disbatch.taskfile import Complaint
from disbatch.tasks import LOST, NO_PROCESS, NO_REPEAT, Barrier, PerEngineTask, Task, lost_outcome
from disbatch.tasks import Phase as When
from tests.unit.driver.examples import context_came, outcome
from tests.unit.driver.play import CANCEL, TOKEN, Play, barrier, play, skipped, task, tasks
from tests.unit.driver.simulation import World

if TYPE_CHECKING:
    from collections.abc import Sequence

# Counts


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (Counts(), "0 tasks finished"),
        (Counts(finished=1), "1 task finished"),
        (Counts(2, 1, 3, 4), "2 tasks finished, 1 failed, 3 skipped, 4 interrupted"),
        (Counts(2, 3, 5, 0, 2), "2 tasks finished, 1 failed, 5 skipped (2 of them had failed)"),
        (Counts(0, 2, 5, 1, 2), "0 tasks finished, 5 skipped (2 of them had failed), 1 interrupted"),
    ],
)
def test_counts_are_told_in_words(counts: Counts, words: str) -> None:
    assert counts.in_words == words


# The task list


def test_a_run_begins_with_reading_and_nothing_else() -> None:
    assert Play().commands == [events.ReadItems(READ_AHEAD)]


def test_resources_are_wanted_once_and_not_before_there_is_a_task_for_them() -> None:
    run = Play()
    run.reads(skipped(0), barrier(1), Complaint(3, "what is this"), PerEngineTask(When.START, 0, 4, b"p"), ended=False)
    assert not run.all(events.StartContext)
    run.reads(*tasks(2, 3), ended=False)
    run.reads(task(4))
    assert len(run.all(events.StartContext)) == 1


@pytest.mark.parametrize("items", [[], [barrier(0)], [PerEngineTask(When.STOP, 0, 1, b"p")]])
def test_a_list_without_a_task_ends_at_once(items: list[events.Item]) -> None:
    run = Play()
    run.reads(*items)
    assert run.end == events.EndRun(0, complete=True)
    assert not run.all(events.StartContext)


def test_the_list_is_read_as_it_is_needed_one_request_at_a_time() -> None:
    run = Play()
    run.reads(*tasks(*range(READ_AHEAD)), ended=False)
    run.engines(1)
    assert len(run.all(events.ReadItems)) == 1
    waiting = READ_AHEAD - 1
    for task_id in range(READ_AHEAD):
        run.ends(0, task_id)
        waiting -= 1
        assert len(run.all(events.ReadItems)) == (1 if waiting >= READ_AHEAD // 2 else 2)
        if waiting == 0:
            break


def test_more_is_read_ahead_where_there_are_more_cylinders() -> None:
    run = Play()
    run.reads(task(0), ended=False)
    run.engines(READ_AHEAD * 2)
    run.reads(task(1), ended=False)
    assert run.all(events.ReadItems)[-1].limit == READ_AHEAD * 4


def test_items_that_come_after_the_decision_to_stop_are_not_wanted() -> None:
    run = Play()
    run.reads(*tasks(0), ended=False)
    run.engines(2)
    run.happens(events.SignalCame("SIGTERM", 143))
    assert run.reads(*tasks(1), ended=False) == []


def test_a_complaint_is_told_and_the_run_goes_on() -> None:
    run = play(task(0), Complaint(2, "line 2: what is this"), task(1))
    assert run.given == {0: [0, 1]}
    assert run.told == "line 2: what is this"
    run.ends(0, 0, 1)
    assert run.everybody_leaves() == events.EndRun(0, complete=True)


def test_what_comes_before_a_fatal_complaint_runs_and_then_the_run_has_failed() -> None:
    run = Play()
    run.reads(task(0), Complaint(2, "line 2: too late", fatal=True), ended=True)
    run.engines(1)
    assert run.given == {0: [0]}
    assert run.told == "line 2: too late"
    run.ends(0, 0)
    assert run.everybody_leaves().exit_status == 1


@pytest.mark.parametrize("is_another", [False, True])
def test_a_list_that_cannot_be_read_on_ends_the_run(*, is_another: bool) -> None:
    run = play(*tasks(0, 1, 2), cylinders=[1])
    run.happens(events.ReadingFailed("it is gone", is_another=is_another))
    assert run.told == "it is gone"
    assert run.said_to(0)[-1] == CANCEL
    assert run.controller.can_be_resumed is not is_another
    assert run.everybody_leaves() == events.EndRun(1, complete=False)


# Skipped tasks


def test_skipped_tasks_are_counted_and_need_no_engine() -> None:
    run = Play()
    run.reads(skipped(0), skipped(1))
    assert run.end == events.EndRun(0, complete=True)
    assert run.controller.counts.skipped == 2


@pytest.mark.parametrize(("exit_code", "status"), [(False, 0), (True, 1)])
def test_a_skipped_task_that_had_failed_counts_for_the_exit_status(*, exit_code: bool, status: int) -> None:
    run = Play(exit_code=exit_code)
    run.reads(skipped(0, failed=True))
    assert run.end == events.EndRun(status, complete=True)
    assert run.controller.counts.in_words == "0 tasks finished, 1 skipped (1 of them had failed)"


def test_a_skipped_task_that_had_failed_fails_a_check() -> None:
    run = Play()
    run.reads(skipped(0, failed=True), barrier(1, check=True), task(2))
    assert run.end == events.EndRun(1, complete=False)
    assert run.controller.check_failed


def test_a_skipped_task_that_had_failed_does_not_count_as_a_first_failure() -> None:
    assert play(skipped(0, failed=True), task(1), fail_fast=True).given == {0: [1]}


# Tasks and cylinders


def test_few_tasks_spread_over_many_engines() -> None:
    run = Play()
    run.reads(task(0), ended=False)
    run.engines(2, 3, 1)
    run.reads(*tasks(1, 2, 3, 4))
    assert run.given == {0: [0, 1], 1: [2, 4], 2: [3]}


def test_no_engine_gets_more_than_it_has_cylinders_for_until_it_is_known_to_be_quick() -> None:
    run = play(*tasks(*range(100)), cylinders=[2])
    assert run.given == {0: [0, 1]}
    run.ends(0, 0, elapsed=10.0)
    assert run.given == {0: [0, 1, 2]}


def test_an_engine_whose_tasks_are_short_holds_more_than_it_can_run() -> None:
    run = play(*tasks(*range(100)), cylinders=[2])
    run.ends(0, 0, elapsed=0.001)
    assert len(run.given[0]) > 3


def test_everything_that_can_start_goes_to_an_engine_in_one_message() -> None:
    run = play(*tasks(*range(10)), cylinders=[4])
    run.ends(0, 0, 1, 2)
    orders = [message for message in run.said_to(0) if isinstance(message, messages.RunTasks)]
    assert [len(order.tasks) for order in orders] == [4, 3]


def test_a_freed_cylinder_takes_a_task_before_the_report_of_the_last_one() -> None:
    run = play(*tasks(0, 1), cylinders=[1])
    run.happens(messages.CylindersFreed(0, (0,)))
    assert run.given == {0: [0, 1]}
    assert run.recorded == []
    run.ends(0, 1)
    assert run.controller.phase is RunPhase.WORKING
    run.ends(0, 0)
    assert run.recorded == [1, 0]
    assert run.everybody_leaves() == events.EndRun(0, complete=True)


def test_a_report_names_the_node_and_is_recorded_once() -> None:
    run = play(*tasks(0, 1), cylinders=[1])
    run.ends(0, 0, return_code=3)
    run.ends(0, 0)
    (record,) = run.all(events.RecordTask)
    assert record == events.RecordTask(task(0), "own0", outcome(3), abandoned=False)


def test_a_report_of_a_task_that_belongs_to_another_engine_does_not_count() -> None:
    run = play(*tasks(0, 1), cylinders=[1, 1])
    run.ends(1, 0)
    assert run.recorded == []


@pytest.fixture
def holding() -> Play:
    """Engine 0 runs task 1 and holds 2 to 7; task 8 waits in the driver."""
    run = play(*tasks(*range(9)), cylinders=[1])
    run.ends(0, 0, elapsed=0.001)
    assert run.given == {0: [0, 1, 2, 3, 4, 5, 6, 7]}
    return run


def test_held_tasks_are_asked_back_once_when_another_engine_could_start_them(holding: Play) -> None:
    holding.engines(1, token="u")
    assert messages.ReturnTasks() not in holding.said_to(0)
    holding.engines(1, token="v")
    holding.engines(1, token="w")
    assert holding.said_to(0).count(messages.ReturnTasks()) == 1


def test_returned_tasks_go_where_there_is_room(holding: Play) -> None:
    holding.engines(2, token="u")
    holding.happens(messages.TasksReturned(0, (2, 3, 4, 5, 6, 7)))
    assert holding.given[1] == [8, 2]


def test_an_engine_that_had_nothing_to_return_is_asked_again_when_it_holds_again(holding: Play) -> None:
    holding.engines(2, token="u")
    holding.happens(messages.TasksReturned(0, ()))
    assert holding.said_to(0).count(messages.ReturnTasks()) == 2


def test_a_task_that_ended_while_it_was_asked_back_stays_recorded(holding: Play) -> None:
    holding.engines(2, token="u")
    holding.ends(0, 1, 2, 3, 4, 5, 6, 7)
    holding.happens(messages.TasksReturned(0, (7,)))
    holding.ends(1, 8)
    assert holding.recorded == list(range(9))
    assert holding.everybody_leaves() == events.EndRun(0, complete=True)


def test_no_engine_holds_tasks_while_a_barrier_is_in_sight() -> None:
    run = play(*tasks(*range(20)), barrier(20), cylinders=[1])
    run.ends(0, 0, elapsed=0.001)
    assert run.given == {0: [0, 1]}


# Limits of contexts


def near_its_limit() -> Play:
    """Let a context lack eight of its twenty tasks, and one of its engines be asked for what waits there."""
    run = Play()
    run.reads(*tasks(*range(12)), ended=False)
    run.happens(context_came(TOKEN, 1, 1, task_limit=20))
    run.comes(0)
    run.comes(1)
    run.is_ready(0)
    run.ends(0, 0, elapsed=0.001)
    run.is_ready(1)
    run.ends(1, 11, elapsed=0.001)
    assert run.said_to(0)[-1] == messages.ReturnTasks()
    return run


def test_a_limit_counts_no_task_that_comes_back() -> None:
    run = near_its_limit()
    (context,) = run.controller.fleet.contexts
    returned = sorted(run.controller.fleet.engines[0].tasks)[1:]
    run.reads(*tasks(*range(12, 40)), ended=False)
    assert context.given == 20
    assert run.said_to_context()[-1] != messages.EndContext(()), "what comes back is to be made up for first"
    run.happens(messages.TasksReturned(0, tuple(returned)))
    assert context.given == 20
    assert run.said_to_context()[-1] == messages.EndContext(())
    assert sum(map(len, run.given.values())) - len(returned) == 20


@pytest.mark.parametrize("event", [events.MemberCut("engine 0"), messages.EngineLeft(0)])
def test_an_engine_that_goes_unasked_does_not_keep_a_context_with_its_number(event: events.Event) -> None:
    run = near_its_limit()
    run.reads(*tasks(*range(12, 40)), ended=False)
    run.happens(event)
    run.happens(messages.EngineProcessEnded(0, 0, ""))
    assert run.said_to_context()[-1] == messages.EndContext(())
    assert run.said_to_context().count(messages.EndContext(())) == 1


# Barriers


def test_nothing_behind_a_barrier_starts_before_all_that_is_before_it_has_ended() -> None:
    run = play(*tasks(0, 1), barrier(2), task(3), cylinders=[1, 3])
    assert run.given == {0: [0], 1: [1]}
    run.ends(1, 1)
    assert run.given == {0: [0], 1: [1]}
    assert not run.all(events.RecordBarrier)
    run.ends(0, 0)
    assert [command.barrier.task_id for command in run.all(events.RecordBarrier)] == [2]
    assert run.given == {0: [0], 1: [1, 3]}


def test_a_lost_task_holds_the_barrier_up() -> None:
    run = play(task(0), barrier(1), task(2), cylinders=[1, 1])
    run.is_cut(0)
    assert not run.all(events.RecordBarrier)
    run.happens(messages.EngineCleared(0))
    assert not run.all(events.RecordBarrier)
    assert run.given == {0: [0], 1: [0]}
    run.ends(1, 0)
    assert run.given[1] == [0, 2]


def test_a_task_whose_report_is_late_holds_the_barrier_up() -> None:
    run = play(task(0), barrier(1), task(2), cylinders=[1])
    run.happens(messages.CylindersFreed(0, (0,)))
    assert run.given == {0: [0]}


def test_a_barrier_record_says_when_it_was_met_and_when_passed() -> None:
    run = play(task(0), barrier(1, key=b"go"), task(2), cylinders=[2])
    run.now = -3600.0  # somebody has set it back meanwhile
    run.clock = 5.0
    run.ends(0, 0)
    (record,) = run.all(events.RecordBarrier)
    assert (record.start, record.end) == (0.0, 5.0)


def test_a_barrier_with_a_key_is_announced_after_its_record() -> None:
    run = play(task(0), barrier(1, key=b"go"), barrier(2), cylinders=[2])
    commands = run.ends(0, 0)
    record, announcement = commands[1:3]
    assert isinstance(record, events.RecordBarrier)
    assert announcement == events.AnnounceBarrier(b"go", 1)
    assert len(run.all(events.AnnounceBarrier)) == 1


def test_a_failed_check_ends_the_run() -> None:
    run = play(*tasks(0, 1), barrier(2, check=True), task(3))
    run.ends(0, 0, return_code=1)
    run.ends(0, 1)
    assert run.told == "BARRIER CHECK in line 3: 1 of the tasks before it failed"
    assert run.said_to(0)[-1] == CANCEL
    assert not run.all(events.RecordBarrier)
    assert run.everybody_leaves() == events.EndRun(1, complete=False)
    assert run.given == {0: [0, 1]}


def test_a_check_looks_back_to_the_last_barrier_only() -> None:
    run = play(task(0), barrier(1), task(2), barrier(3, check=True), task(4))
    run.ends(0, 0, return_code=1)
    run.ends(0, 2)
    assert run.given == {0: [0, 2, 4]}


def test_a_failed_per_engine_command_fails_a_check() -> None:
    run = play(PerEngineTask(When.START, 0, 1, b"p"), task(0), barrier(1, check=True), task(2))
    run.per_engine_ends(0, When.START, return_code=1)
    run.ends(0, 0)
    assert "BARRIER CHECK" in run.told


# Exit status


@pytest.mark.parametrize(("exit_code", "status"), [(False, 0), (True, 1)])
def test_a_failed_task_counts_only_with_exit_code(*, exit_code: bool, status: int) -> None:
    run = play(*tasks(0, 1), exit_code=exit_code)
    run.ends(0, 0, return_code=1)
    run.ends(0, 1)
    assert run.everybody_leaves() == events.EndRun(status, complete=True)
    assert (run.controller.counts.finished, run.controller.counts.failed) == (2, 1)


@pytest.mark.parametrize("when", list(When))
def test_a_failed_per_engine_command_counts_like_a_task(when: When) -> None:
    run = play(PerEngineTask(when, 0, 1, b"p"), task(0), exit_code=True)
    if when is When.START:
        run.per_engine_ends(0, when, return_code=1)
    run.ends(0, 0)
    if when is When.STOP:
        run.per_engine_ends(0, when, return_code=1)
    assert run.all(events.RecordPerEngineTask)[0].node == "own0"
    assert run.everybody_leaves() == events.EndRun(1, complete=True)
    assert run.controller.counts.finished == 1


def test_fail_fast_ends_the_run_at_the_first_failure() -> None:
    run = play(*tasks(0, 1, 2), cylinders=[1, 1], fail_fast=True)
    run.ends(0, 0)
    run.ends(1, 1, return_code=7)
    assert run.told == "task 1 (line 2) failed with return code 7; --fail-fast ends the run"
    assert run.said_to(0)[-1] == run.said_to(1)[-1] == CANCEL
    run.ends(0, 2, return_code=-15, interrupted=True)
    assert run.everybody_leaves() == events.EndRun(1, complete=False)
    assert run.recorded == [0, 1]


@pytest.mark.parametrize("when", list(When))
def test_fail_fast_goes_for_per_engine_commands_too(when: When) -> None:
    run = play(PerEngineTask(when, 0, 1, b"p"), task(0), fail_fast=True)
    if when is When.STOP:
        run.ends(0, 0)
    run.per_engine_ends(0, when, return_code=1)
    assert run.told.startswith(f"PERENGINE {when.value} command in line 1 on own0 failed with return code 1")
    assert run.everybody_leaves().exit_status == 1


# Signals


def test_the_first_signal_ends_the_tasks_and_lets_stop_commands_run() -> None:
    run = play(*tasks(0, 1, 2), cylinders=[1, 1])
    run.happens(events.SignalCame("SIGINT", 130))
    assert run.told == "got SIGINT; ending the running tasks (again: at once)"
    assert run.said_to(0)[-1] == run.said_to(1)[-1] == CANCEL
    assert run.said_to_context()[-1] == messages.EndContext((), run_over=True)
    assert run.everybody_leaves() == events.EndRun(130, complete=False)


def test_the_second_signal_hurries_and_sets_a_limit() -> None:
    run = play(*tasks(0), cylinders=[1])
    run.happens(events.SignalCame("SIGTERM", 143))
    assert run.happens(events.SignalCame("SIGINT", 130)) == [
        events.SendToEngine(0, messages.CancelEngine(0.0, stop_commands=False)),
        events.WakeAfter(HURRY_PATIENCE, events.PatienceEnded()),
    ]
    assert run.happens(events.PatienceEnded()) == [events.EndRun(143, complete=False)]


def test_a_signal_before_there_is_anything_ends_the_run_at_once() -> None:
    run = Play()
    run.happens(events.SignalCame("SIGINT", 130))
    assert run.told == "got SIGINT before any task had started"
    assert run.end == events.EndRun(130, complete=False)


def test_a_signal_while_no_task_runs_speaks_of_none() -> None:
    run = Play()
    run.reads(task(0), ended=False)
    run.engines(1)
    run.ends(0, 0)
    run.happens(events.SignalCame("SIGTERM", 143))
    assert run.told == "got SIGTERM while no task ran"
    assert run.everybody_leaves() == events.EndRun(143, complete=False)


def test_a_signal_when_every_task_has_its_line_leaves_nothing_to_resume() -> None:
    run = play(task(0), cylinders=[1])
    run.ends(0, 0)
    run.happens(events.SignalCame("SIGINT", 130))
    assert run.told.startswith("got SIGINT; all tasks have ended; STOP commands ")
    assert not run.controller.can_be_resumed
    (told,) = run.said_to(0)[-1:]
    assert isinstance(told, messages.CancelEngine)
    assert told.stop_commands
    run.happens(events.SignalCame("SIGINT", 130))
    assert run.said_to(0)[-1] == messages.CancelEngine(0.0, stop_commands=False)
    assert run.everybody_leaves() == events.EndRun(130, complete=False)


def test_tasks_that_a_stopping_run_interrupts_are_recorded_as_abandoned() -> None:
    run = play(*tasks(0, 1, 2), cylinders=[2])
    run.happens(events.SignalCame("SIGINT", 130))
    run.ends(0, 0, return_code=-15, interrupted=True)
    run.ends(0, 1)
    records = run.all(events.RecordTask)
    assert [(record.task.task_id, record.abandoned) for record in records] == [(0, True), (1, False)]
    assert run.everybody_leaves() == events.EndRun(130, complete=False)
    assert (run.controller.counts.interrupted, run.controller.counts.finished) == (1, 1)


DRAIN_SIGNAL = events.DrainAsked("SIGUSR1")


def test_a_run_that_is_drained_gives_out_no_more_records_what_runs_and_can_be_resumed() -> None:
    run = play(*tasks(0, 1, 2, 3), cylinders=[1, 1])
    run.happens(DRAIN_SIGNAL)
    assert run.told == "got SIGUSR1; waiting for the tasks that run, and giving out no more"
    assert run.said_to(0)[-2:] == run.said_to(1)[-2:] == [messages.ReturnTasks(), messages.FinishEngine()]
    assert run.said_to_context()[-1] == messages.EndContext((), run_over=True)
    run.ends(0, 0)
    run.ends(1, 1, return_code=1)
    assert run.given == {0: [0], 1: [1]}
    assert run.recorded == [0, 1]
    assert run.happens(DRAIN_SIGNAL) == []
    assert run.everybody_leaves() == events.EndRun(1, complete=False)
    assert run.controller.can_be_resumed
    assert run.controller.told_to_end


@pytest.mark.parametrize("waits", [False, True])
def test_a_run_that_is_drained_when_all_is_given_out_may_be_complete(*, waits: bool) -> None:
    run = play(*tasks(0, 1), cylinders=[2])
    run.happens(DRAIN_SIGNAL)
    run.ends(0, 0)
    run.happens(messages.TasksReturned(0, (1,))) if waits else run.ends(0, 1)
    assert run.everybody_leaves() == (events.EndRun(1, complete=False) if waits else events.EndRun(0, complete=True))


@pytest.mark.parametrize("event", [messages.EngineLeft(0), messages.EngineCleared(0)])
def test_what_a_drained_run_loses_is_left_to_the_next(event: events.Event) -> None:
    run = play(task(0), cylinders=[1])
    run.happens(DRAIN_SIGNAL)
    run.is_cut(0)
    run.happens(event)
    assert run.everybody_leaves() == events.EndRun(1, complete=False)
    assert not run.all(events.RecordTask)


def test_what_is_interrupted_while_a_run_drains_has_its_line_and_is_left_to_the_next() -> None:
    run = play(task(0), cylinders=[1])
    run.happens(DRAIN_SIGNAL)
    run.ends(0, 0, return_code=-15, interrupted=True)
    (record,) = run.all(events.RecordTask)
    assert record.abandoned
    assert run.everybody_leaves() == events.EndRun(1, complete=False)


def test_a_signal_to_end_hurries_a_run_that_drains_as_any_other() -> None:
    run = play(*tasks(0, 1), cylinders=[1])
    run.happens(DRAIN_SIGNAL)
    run.happens(events.SignalCame("SIGTERM", 143))
    assert run.told.endswith("got SIGTERM; ending the running tasks (again: at once)")
    assert run.said_to(0)[-1] == CANCEL
    assert run.everybody_leaves() == events.EndRun(143, complete=False)


def test_a_run_that_is_drained_before_there_is_anything_ends_at_once() -> None:
    run = Play()
    run.happens(DRAIN_SIGNAL)
    assert run.told == "got SIGUSR1; no task runs"
    assert run.end == events.EndRun(1, complete=False)


def test_a_run_whose_tasks_have_all_ended_is_not_drained() -> None:
    run = play(task(0), cylinders=[1])
    run.ends(0, 0)
    assert run.happens(DRAIN_SIGNAL) == []
    assert run.everybody_leaves() == events.EndRun(0, complete=True)


# Records that cannot be written


def held_back(*items: events.Item, cylinders: Sequence[int] = (1,)) -> Play:
    """Return a run whose status file cannot be written any more."""
    run = play(*items, cylinders=cylinders)
    run.happens(events.RecordsHeldBack())
    return run


def test_nothing_is_given_out_while_records_are_held_back() -> None:
    run = held_back(*tasks(0, 1))
    assert run.ends(0, 0) == [events.RecordTask(task(0), "own0", outcome(), abandoned=False)]
    assert run.given == {0: [0]}
    run.happens(events.RecordsWritten())
    assert run.given == {0: [0, 1]}


def test_nobody_who_comes_meanwhile_is_given_anything() -> None:
    run = held_back(*tasks(0, 1))
    run.engines(1, token="other")
    assert run.given == {0: [0]}
    run.happens(events.RecordsWritten())
    assert run.given == {0: [0], 1: [1]}


def test_no_barrier_is_passed_while_records_are_held_back() -> None:
    run = held_back(task(0), barrier(1, key=b"key"), task(2))
    run.ends(0, 0)
    assert not run.all(events.RecordBarrier)
    run.happens(events.RecordsWritten())
    assert run.all(events.AnnounceBarrier) == [events.AnnounceBarrier(b"key", 1)]
    assert run.given == {0: [0, 2]}


def test_tasks_that_only_wait_at_an_engine_are_asked_back_when_records_are_held_back() -> None:
    run = play(*tasks(*range(60)), cylinders=[1])
    run.ends(0, 0, elapsed=0.001)
    waiting = run.given[0][2:]
    assert waiting
    assert run.happens(events.RecordsHeldBack()) == [events.SendToEngine(0, messages.ReturnTasks())]
    run.happens(messages.TasksReturned(0, tuple(waiting)))
    assert run.given[0] == [0, 1, *waiting]
    run.ends(0, 1)
    run.happens(events.RecordsWritten())
    assert run.given[0][len(waiting) + 2] == waiting[0]


def test_a_run_whose_tasks_have_all_ended_goes_on_until_their_records_are_written() -> None:
    run = held_back(*tasks(0))
    run.ends(0, 0)
    assert run.said_to(0)[-1] == messages.RunTasks((task(0),))
    run.happens(events.RecordsWritten())
    assert run.said_to(0)[-1] == messages.FinishEngine()


def test_a_run_whose_last_engine_has_gone_goes_on_until_records_are_written() -> None:
    run = held_back(*tasks(0, 1))
    run.happens(messages.EngineLeft(0))
    run.happens(messages.ContextLeft(0))
    assert not run.told
    run.happens(events.RecordsWritten())
    assert "no engine is left" in run.told


def test_a_signal_ends_a_run_whose_records_are_held_back() -> None:
    run = held_back(*tasks(0, 1))
    run.happens(events.SignalCame("SIGINT", 130))
    run.ends(0, 0, return_code=-15, interrupted=True)
    assert run.everybody_leaves() == events.EndRun(130, complete=False)


@pytest.mark.parametrize("written", [False, True])
def test_a_run_whose_last_records_are_held_back_can_be_resumed(*, written: bool) -> None:
    run = play(*tasks(0), cylinders=[1])
    run.ends(0, 0)
    run.happens(events.RecordsHeldBack())
    if written:
        run.happens(events.RecordsWritten())
    run.happens(events.SignalCame("SIGINT", 130))
    assert run.controller.can_be_resumed is not written


# The end


def test_engines_are_told_to_finish_when_every_task_has_its_line() -> None:
    run = play(*tasks(0), cylinders=[1, 1])
    run.ends(0, 0)
    assert run.said_to(0)[-1] == run.said_to(1)[-1] == messages.FinishEngine()
    assert not run.all(events.EndRun)
    assert run.everybody_leaves() == events.EndRun(0, complete=True)


def test_engines_that_have_not_come_by_then_are_refused_and_their_launchers_ended() -> None:
    run = Play()
    run.reads(task(0))
    run.happens(context_came(TOKEN, 1, 1))
    run.comes(0)
    run.is_ready(0)
    run.ends(0, 0)
    assert run.said_to_context()[-1] == messages.EndContext((1,), run_over=True)
    run.comes(1)
    assert isinstance(run.said_to(1)[0], messages.EngineRefused)


def test_an_engine_that_waits_for_its_settings_is_refused_when_the_run_stops() -> None:
    run = Play()
    run.happens(context_came(TOKEN, 1))
    run.comes(0)
    run.happens(events.SignalCame("SIGINT", 130))
    assert run.said_to(0) == [messages.EngineRefused("the run is over")]


def test_contexts_have_some_time_to_leave_when_the_engines_have() -> None:
    run = play(*tasks(0), cylinders=[1])
    run.ends(0, 0)
    assert run.happens(messages.EngineLeft(0))[-1:] == [events.WakeAfter(CONTEXT_PATIENCE, events.PatienceEnded())]
    assert run.happens(events.PatienceEnded()) == [events.EndRun(0, complete=True)]


def test_an_engine_that_is_lost_when_all_is_done_holds_nothing_up() -> None:
    run = play(*tasks(0), cylinders=[1])
    run.ends(0, 0)
    run.is_lost(0)
    run.happens(messages.ContextLeft(0))
    assert run.end == events.EndRun(0, complete=True)


def test_nothing_is_asked_for_after_the_end() -> None:
    run = play(*tasks(0))
    run.ends(0, 0)
    run.everybody_leaves()
    late: list[events.Event] = [
        events.SignalCame("SIGINT", 130),
        messages.EngineLeft(0),
        context_came("u", 1),
        events.PatienceEnded(),
        events.ItemsRead((task(1),), ended=True),
    ]
    assert [run.happens(event) for event in late] == [[]] * len(late)


# What is lost with an engine


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


# Any order


which = st.integers(0, 7)
few = st.integers(1, 4)
codes = st.sampled_from([0, 0, 0, 1])
cylinders = st.lists(st.integers(1, 3), min_size=1, max_size=2)
limits = st.sampled_from([0, 0, 1, 3, 10])
kinds = st.sampled_from(["task", "task", "task", "task", "skipped", "skipped failed", "barrier", "check", "complaint"])


def items_of(per_engine: Sequence[When], kinds: Sequence[str], *, too_late: bool) -> list[events.Item]:
    items: list[events.Item] = [PerEngineTask(when, number, 1, b"p") for number, when in enumerate(per_engine)]
    for task_id, kind in enumerate(kinds):
        task = Task(task_id, task_id + 1, NO_REPEAT, b"true")
        if kind == "task":
            items.append(task)
        elif kind.startswith("skipped"):
            items.append(events.SkippedTask(task, b"", failed=kind != "skipped"))
        elif kind == "complaint":
            items.append(Complaint(1, "what is this"))
        else:
            items.append(Barrier(task_id, task_id + 1, check=kind == "check", key=b"key", text=b""))
    if too_late:
        items.append(Complaint(1, "too late", fatal=True))
    return items


class Lives(RuleBasedStateMachine):
    """What happens in every run, and what an adversary can do to its engines and their connections.

    `World` asserts what must hold at every step.
    """

    world: World

    @precondition(lambda self: any(engine.connected for engine in self.world.engines.values()))
    @rule(which=which, kept=few, fate=st.sampled_from(["cut", "cut", "mute", "freeze", "kill"]))
    def an_engine_is_disturbed(self, which: int, kept: int, fate: str) -> None:
        connected = [engine for engine in self.world.engines.values() if engine.connected]
        engine = connected[which % len(connected)]
        if fate == "cut":
            engine.break_connection(kept - 1)
        elif fate == "kill":
            engine.be_killed(kept - 1)
        elif engine.roster is not None:
            engine.muted |= fate == "mute"
            engine.frozen |= fate == "freeze"

    @precondition(lambda self: self.world.contexts)
    @rule(which=which, fate=which, kept=few)
    def a_context_may_be_disturbed(self, which: int, fate: int, kept: int) -> None:
        context = self.world.contexts[which % len(self.world.contexts)]
        if fate > 6:
            context.break_connection(kept - 1)
        elif fate > 5:
            context.muted = True

    @precondition(lambda self: any(peer.is_disturbed for peer in self.world.peers))
    @rule(which=which)
    def somebody_is_disturbed_no_longer(self, which: int) -> None:
        disturbed = [peer for peer in self.world.peers if peer.is_disturbed]
        peer = disturbed[which % len(disturbed)]
        peer.muted = peer.frozen = False
        if peer.can_rejoin:
            peer.rejoin()

    @precondition(lambda self: any(engine.return_code for engine in self.world.engines.values()))
    @rule(which=which)
    def a_keeper_tells_of_the_end_of_its_engine(self, which: int) -> None:
        killed = [engine.rank for engine in self.world.engines.values() if engine.return_code]
        self.world.handle(messages.EngineCleared(killed[which % len(killed)]))

    @rule(seconds=st.sampled_from([1.0, 10.0, 30.0, 48.0, 63.0, 100.0]), fate=which)
    def time_may_pass(self, seconds: float, fate: int) -> None:
        if fate > 3:
            self.world.time_passes(seconds, driver_is_stopped=fate > 6)

    @rule()
    def contexts_see_which_engines_have_ended(self) -> None:
        for context in self.world.contexts:
            context.reap()

    @precondition(lambda self: self.world.senders)
    @rule(which=which, count=few)
    def the_driver_hears(self, which: int, count: int) -> None:
        for _ in range(count):
            if senders := self.world.senders:
                self.world.deliver_from(senders[which % len(senders)])

    @precondition(lambda self: self.world.receivers)
    @rule(which=which, count=few)
    def others_hear(self, which: int, count: int) -> None:
        for _ in range(count):
            if receivers := self.world.receivers:
                self.world.deliver_to(receivers[which % len(receivers)])

    @rule()
    def everybody_hears(self) -> None:
        self.world.deliver_everything()

    @precondition(lambda self: self.world.busy)
    @rule(which=which, count=few, return_code=codes, short=st.booleans(), lingers=st.sampled_from([False, False, True]))
    def tasks_end(self, which: int, count: int, return_code: int, *, short: bool, lingers: bool) -> None:
        for _ in range(count):
            if busy := [engine for engine in self.world.busy if engine.running]:
                busy[which % len(busy)].end_task(which, return_code, 1e-4 if short else 2.0, lingers=lingers)

    @precondition(lambda self: any(engine.reports or engine.freed for engine in self.world.busy))
    @rule(which=which, with_lingering=st.booleans())
    def an_engine_reports(self, which: int, *, with_lingering: bool) -> None:
        due = [engine for engine in self.world.busy if engine.reports or engine.freed]
        due[which % len(due)].report(with_lingering=with_lingering)

    @precondition(lambda self: self.world.wakes)
    @rule(which=which)
    def a_timer_runs_out(self, which: int) -> None:
        self.world.wake(which)

    @invariant()
    def all_is_well(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()
            assert self.world.controller.phase is RunPhase.ENDED


class Leases(Lives):
    """A run that has begun, and to whose engines this happens alone."""

    @initialize(
        count=st.integers(1, 30),
        barrier=st.integers(0, 60),
        own=cylinders,
        requeue=st.sampled_from([True, True, True, False]),
        crash_limit=st.sampled_from([0, 1, 2, 3]),
    )
    def begin(self, count: int, barrier: int, own: list[int], *, requeue: bool, crash_limit: int) -> None:
        kinds = ["barrier" if number == barrier else "task" for number in range(count)]
        items = items_of([], kinds, too_late=False)
        self.world = World(items, own_context=tuple(own), requeue=requeue, crash_limit=crash_limit)
        self.world.new_context(1, 2)
        self.world.start_up()

    @precondition(lambda self: len(self.world.contexts) < 5)
    @rule(fate=which)
    def another_context_may_come(self, fate: int) -> None:
        if fate > 3:
            self.world.new_context(2)
            self.world.start_up()


class AnyOrder(Lives):
    """An adversary decides what happens next."""

    @initialize(
        per_engine=st.lists(st.sampled_from(When), max_size=2),
        kinds=st.lists(kinds, max_size=40),
        too_late=st.sampled_from([False, False, False, True]),
        exit_code=st.booleans(),
        fail_fast=st.sampled_from([False, False, True]),
        own=cylinders,
        head_start=st.booleans(),
        startup_only=st.sampled_from([False, False, False, True]),
        task_limit=limits,
        retires=st.booleans(),
        requeue=st.sampled_from([True, True, True, False]),
        crash_limit=st.sampled_from([0, 1, 3]),
    )
    def begin(
        self,
        per_engine: list[When],
        kinds: list[str],
        own: list[int],
        *,
        too_late: bool,
        exit_code: bool,
        fail_fast: bool,
        head_start: bool,
        startup_only: bool,
        task_limit: int,
        retires: bool,
        requeue: bool,
        crash_limit: int,
    ) -> None:
        items = items_of(per_engine, kinds, too_late=too_late)
        self.world = World(
            items,
            exit_code=exit_code,
            fail_fast=fail_fast,
            own_context=tuple(own),
            startup_only=startup_only,
            task_limit=task_limit,
            retires=retires,
            requeue=requeue,
            crash_limit=crash_limit,
        )
        if head_start:
            self.world.start_up()

    @precondition(lambda self: self.world.asked_to_read is not None)
    @rule(count=st.integers(0, 30))
    def items_are_read(self, count: int) -> None:
        self.world.read(count)

    @precondition(lambda self: self.world.own_context_is_coming)
    @rule()
    def the_own_context_comes(self) -> None:
        self.world.own_context_comes()

    @precondition(lambda self: self.world.own_context_is_coming)
    @rule(fate=which)
    def the_own_context_may_end(self, fate: int) -> None:
        if fate > 5:
            self.world.own_context_ends(says_why=fate == 6)

    @precondition(lambda self: len(self.world.contexts) < 3)
    @rule(cylinders=cylinders, task_limit=limits)
    def another_context_comes(self, cylinders: list[int], task_limit: int) -> None:
        self.world.new_context(*cylinders, task_limit=task_limit)

    @rule()
    def another_context_cannot_come(self) -> None:
        self.world.handle(messages.ContextFailed("other", "no core", "give it one"))

    @precondition(lambda self: self.world.contexts)
    @rule(which=which, fate=which)
    def a_context_is_lost_or_told_to_end(self, which: int, fate: int) -> None:
        context = self.world.contexts[which % len(self.world.contexts)]
        if fate in (4, 5) and not context.ended:
            context.be_killed()
        elif fate > 5 and context.rank is not None and not context.ended:
            context.outbox.append(messages.ContextToldToEnd(context.rank))

    @precondition(lambda self: any(not engine.came for engine in self.world.engines.values()))
    @rule(which=which, fate=which)
    def an_engine_comes_or_does_not(self, which: int, fate: int) -> None:
        expected = [engine for engine in self.world.engines.values() if not engine.came]
        engine = expected[which % len(expected)]
        if fate < 6:
            engine.come()
            return
        engine.never_come()

    @precondition(lambda self: self.world.own_context_has_ended)
    @rule()
    def the_driver_sees_that_the_own_context_has_ended(self) -> None:
        self.world.own_context_end_is_seen()

    @precondition(lambda self: any(engine.connected for engine in self.world.engines.values()))
    @rule(which=which, fate=which, return_code=st.sampled_from([-9, 255]))
    def what_started_an_engine_is_killed_and_it_may_be_lost(self, which: int, fate: int, return_code: int) -> None:
        connected = [engine for engine in self.world.engines.values() if engine.connected]
        engine = connected[which % len(connected)]
        if fate > 4:
            engine.process_killed = return_code
        if fate > 5:
            engine.break_connection(0)

    @precondition(lambda self: any(engine.per_engine_task for engine in self.world.busy))
    @rule(which=which, return_code=codes)
    def a_per_engine_command_ends(self, which: int, return_code: int) -> None:
        busy = [engine for engine in self.world.busy if engine.per_engine_task]
        busy[which % len(busy)].end_per_engine_task(return_code)

    @precondition(lambda self: any(engine.can_lose_cylinder for engine in self.world.engines.values()))
    @rule(which=which, fate=which)
    def a_cylinder_is_lost(self, which: int, fate: int) -> None:
        engines = [engine for engine in self.world.engines.values() if engine.can_lose_cylinder]
        if fate > 3:
            engines[which % len(engines)].lose_cylinder(which)

    @precondition(lambda self: any(engine.connected and engine.lost for engine in self.world.engines.values()))
    @rule(which=which)
    def a_cylinder_comes_back(self, which: int) -> None:
        engines = [engine for engine in self.world.engines.values() if engine.connected and engine.lost]
        engines[which % len(engines)].frozen = False
        engines[which % len(engines)].gain_cylinder()

    @precondition(lambda self: any(engine.connected for engine in self.world.engines.values()))
    @rule(which=which, fate=which, kept=few)
    def an_engine_is_lost_or_told_to_end(self, which: int, fate: int, kept: int) -> None:
        connected = [engine for engine in self.world.engines.values() if engine.connected]
        engine = connected[which % len(connected)]
        if fate in (4, 5):
            engine.break_connection(kept - 1)
        elif fate > 5 and not engine.frozen:
            engine.told_to_end()

    @rule(which=which, fate=which, now=st.booleans())
    def somebody_stops_an_engine_or_a_context(self, which: int, fate: int, *, now: bool) -> None:
        if fate == 6:
            self.world.handle(messages.StopContext(which - 1, now))
        elif fate == 7:
            self.world.handle(messages.StopEngine(which - 1, now))

    @rule(fate=which)
    def the_disk_fills_up_or_has_room_again(self, fate: int) -> None:
        if fate > 5:
            self.world.fill_disk()
        else:
            self.world.make_room()

    @rule(fate=st.integers(0, 30))
    def a_signal_may_come(self, fate: int) -> None:
        if fate > 28:
            self.world.handle(events.SignalCame("SIGTERM", 143))
        elif fate == 5:
            self.world.handle(DRAIN_SIGNAL)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = hypothesis_settings(stateful_step_count=40)
TestLeases = Leases.TestCase
TestLeases.settings = hypothesis_settings(stateful_step_count=40)
