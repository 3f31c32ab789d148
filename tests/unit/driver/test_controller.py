"""`controller`, alone: each of its decisions. What is lost, and any order of all there is, have files of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
from disbatch.tasks import PerEngineTask
from disbatch.tasks import Phase as When
from tests.unit.driver.examples import context_came, outcome
from tests.unit.driver.play import CANCEL, TOKEN, Play, barrier, play, skipped, task, tasks

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
