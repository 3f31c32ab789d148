"""`membership`, as the controller has it: who is let in, told what, and taken back from."""

from __future__ import annotations

import pytest

from disbatch import messages
from disbatch.driver import events
from disbatch.driver.membership import GOODBYE_PATIENCE
from disbatch.tasks import PerEngineTask
from disbatch.tasks import Phase as When
from tests.unit.driver.examples import VERSION, context_came
from tests.unit.driver.play import CANCEL, TOKEN, Play, barrier, play, task, tasks

# Per-engine commands


def test_engines_are_not_admitted_before_the_per_engine_commands_are_known() -> None:
    start, stop = PerEngineTask(When.START, 0, 1, b"p"), PerEngineTask(When.STOP, 0, 2, b"q")
    run = Play()
    run.happens(context_came(TOKEN, 2))
    run.comes(0)
    run.reads(start, ended=False)
    run.reads(stop, ended=False)
    assert run.said_to(0) == []
    run.reads(task(0), ended=False)
    (admission,) = run.said_to(0)
    assert admission == messages.EngineAdmitted(b"/data", "job", "tasks", 2, 1, (), (start, stop), run.settings.lease)


def test_an_engine_that_comes_later_is_admitted_at_once() -> None:
    run = play(*tasks(0, 1, 2), cylinders=[1])
    run.engines(1, token="u", ready=False)
    assert isinstance(run.said_to(1)[0], messages.EngineAdmitted)


def test_an_engine_gets_tasks_only_when_it_is_ready_and_as_many_as_it_then_says() -> None:
    run = Play()
    run.reads(*tasks(0, 1, 2))
    run.engines(3, ready=False)
    assert run.given == {}
    run.happens(messages.EngineReady(0, 1))
    assert run.given == {0: [0]}


def test_an_engine_that_has_lost_cylinders_gets_fewer_tasks_and_the_user_is_told() -> None:
    run = play(*tasks(0, 1, 2, 3), cylinders=[3])
    run.happens(messages.CylindersChanged(0, 2))
    assert run.told == "own0 takes 2 tasks at once from now on, not 3: processes of its engine have gone"
    run.ends(0, 0, return_code=-9)
    assert run.given == {0: [0, 1, 2]}
    run.ends(0, 1)
    assert run.given == {0: [0, 1, 2, 3]}


def test_an_engine_that_gains_cylinders_gets_more_tasks() -> None:
    run = play(*tasks(0, 1, 2, 3), cylinders=[1])
    run.happens(messages.CylindersChanged(0, 3))
    assert run.told == ""
    assert run.given == {0: [0, 1, 2]}


def test_how_many_cylinders_an_engine_has_that_takes_no_tasks_is_no_news() -> None:
    run = play(*tasks(0, 1), cylinders=[2])
    run.happens(messages.StopEngine(0, now=False))
    assert run.happens(messages.CylindersChanged(0, 1)) == []
    assert run.happens(messages.CylindersChanged(7, 1)) == []
    assert run.controller.fleet.cylinders == 0


# Contexts


def test_a_context_gets_a_rank_a_label_and_ranks_for_its_engines() -> None:
    run = Play()
    run.happens(context_came(TOKEN, 1, 1))
    run.happens(context_came("u", 4, label="SSH0"))
    lease = run.settings.lease
    assert run.said_to_context() == [messages.ContextAdmitted(0, "SSH0", (0, 1), lease)]
    assert run.said_to_context("u") == [messages.ContextAdmitted(1, "SSH0_1", (2,), lease)]


def test_a_context_of_another_version_is_refused_and_the_user_told() -> None:
    run = Play()
    run.happens(context_came(TOKEN, 1, version="0.9"))
    reason = "it is of version 0.9, the driver of 1.0"
    assert run.said_to_context() == [messages.ContextRefused(run_done=False, reason=reason)]
    assert run.told == f"refused the context on host: {reason}"


def test_a_context_that_comes_when_the_run_is_over_hears_so() -> None:
    run = play(task(0))
    run.ends(0, 0)
    run.happens(context_came("u", 1))
    assert run.said_to_context("u") == [messages.ContextRefused(run_done=True, reason="the run is over")]


def test_the_reason_of_a_context_that_failed_is_told_and_the_run_ends() -> None:
    run = Play()
    run.reads(task(0))
    run.happens(messages.ContextFailed(TOKEN, "no core on localhost", "give it one"))
    assert run.told == "no core on localhost; give it one; no engine is left to run the remaining tasks"
    assert run.end == events.EndRun(1, complete=False)


def test_the_failure_of_a_context_that_somebody_adds_is_told_as_that_and_ends_nothing() -> None:
    run = Play()
    run.reads(task(0))
    run.happens(messages.ContextFailed("u", "no core on localhost", "give it one"))
    assert run.told == "a context could not join the run: no core on localhost; give it one"
    run.engines(1)
    assert run.given == {0: [0]}


def test_a_context_that_somebody_adds_and_that_goes_soon_does_not_end_the_run_before_its_own_has_come() -> None:
    run = Play()
    run.reads(task(0))
    run.happens(context_came("u", 1))
    run.happens(messages.EngineProcessEnded(0, 255, "ssh: connection refused"))
    run.happens(messages.ContextLeft(0))
    assert "no engine is left" not in run.told
    run.happens(events.OwnContextEnded(127, "python: not found"))
    assert run.end == events.EndRun(1, complete=False)


def test_a_context_that_fails_after_it_was_let_in_is_gone() -> None:
    run = Play()
    run.reads(task(0))
    run.engines(1, ready=False)
    run.happens(messages.ContextFailed("own", "cannot write the log", ""))
    assert run.told == "cannot write the log"
    assert run.happens(events.MemberCut("context own")) == [events.ForgetMember("context own")]


def test_the_end_of_its_own_context_before_that_has_joined_ends_the_run() -> None:
    run = Play()
    run.reads(task(0))
    run.happens(events.OwnContextEnded(127, "python: not found"))
    assert run.told.startswith("the context ended with 127 before it had joined the run: python: not found")
    assert run.end == events.EndRun(1, complete=False)


def test_the_end_of_its_own_context_later_is_nothing_special() -> None:
    run = play(task(0))
    assert run.happens(events.OwnContextEnded(0, "")) == []


def test_a_run_waits_for_tasks_of_other_contexts_when_one_has_gone() -> None:
    run = play(*tasks(0, 1), cylinders=[1])
    run.happens(messages.ContextLeft(0))
    run.happens(events.MemberCut("context own"))
    assert run.told == ""
    run.ends(0, 0)
    run.ends(0, 1)
    assert run.happens(messages.EngineLeft(0))[-1:] == [events.EndRun(0, complete=True)]


def test_engines_that_run_survive_their_context_and_others_are_expected_no_longer() -> None:
    run = Play()
    run.reads(*tasks(0, 1))
    run.happens(context_came(TOKEN, 1, 1))
    run.comes(0)
    run.is_ready(0)
    run.happens(events.MemberCut("context own"))
    assert run.told == ""
    run.happens(events.OwnContextEnded(-9, ""))
    assert run.told == "lost the context SSH0; its engines that run go on"
    assert run.given == {0: [0]}
    assert isinstance(run.comes(1)[0], events.SendToEngine)
    assert isinstance(run.said_to(1)[0], messages.EngineRefused)


def test_a_context_told_to_end_has_its_engines_cancelled_and_its_tasks_run_elsewhere() -> None:
    run = Play()
    run.reads(*tasks(0, 1, 2))
    run.happens(context_came(TOKEN, 1, 1))
    run.comes(0)
    run.is_ready(0)
    run.engines(1, token="u")
    run.happens(messages.ContextToldToEnd(0))
    assert run.said_to(0)[-1] == CANCEL
    assert run.said_to_context()[-1] == messages.EndContext((1,))
    run.ends(0, 0, return_code=-15, interrupted=True)
    run.happens(messages.EngineLeft(0))
    assert run.recorded == []
    run.ends(2, 1)
    assert run.given[2] == [1, 0]


# Engines that fail


def test_an_engine_of_another_version_is_refused_and_the_user_told() -> None:
    run = Play()
    run.reads(task(0))
    run.happens(context_came(TOKEN, 1, 1))
    run.comes(0, version="0.9")
    reason = "it is of version 0.9, the driver of 1.0"
    assert run.said_to(0) == [messages.EngineRefused(reason)]
    assert run.told == f"refused the engine on own0: {reason}"


@pytest.mark.parametrize("rank", [-1, 1, 7])
def test_an_engine_that_nobody_expects_is_refused(rank: int) -> None:
    run = play(*tasks(0, 1), cylinders=[1])
    run.comes(rank)
    assert isinstance(run.said_to(rank)[-1], messages.EngineRefused)


def test_a_second_engine_of_a_rank_gets_no_answer_because_the_first_would_hear_it() -> None:
    run = play(*tasks(0), cylinders=[1])
    assert run.comes(0) == []
    run.ends(0, 0)
    assert run.everybody_leaves() == events.EndRun(0, complete=True)


def test_an_engine_that_cannot_serve_is_named_and_the_others_go_on() -> None:
    run = Play()
    run.reads(task(0))
    run.happens(context_came(TOKEN, 1, 1))
    run.comes(0)
    run.happens(messages.EngineUnfit(0, "no such directory"))
    assert run.told == "own0 runs no tasks: no such directory"
    run.comes(1)
    run.is_ready(1)
    assert run.given == {1: [0]}


def test_an_engine_that_does_not_start_is_named_with_the_last_words() -> None:
    run = Play()
    run.reads(task(0))
    run.happens(context_came(TOKEN, 1, 1))
    run.happens(messages.EngineProcessEnded(0, 255, "ssh: connection refused"))
    run.happens(messages.EngineProcessEnded(1, -9, ""))
    assert run.told.splitlines() == [
        "own0 runs no tasks: its engine did not start: ssh: connection refused",
        (
            "own1 runs no tasks: its engine did not start: what was to start it ended with -9; "
            "no engine is left to run the remaining tasks"
        ),
    ]


@pytest.mark.parametrize(("words", "shown"), [("", "255"), ("the host is down", "255: the host is down")])
def test_the_end_of_what_started_an_engine_is_told_and_its_loss_then_only_for_the_tasks_that_it_has(
    words: str, shown: str
) -> None:
    run = play(task(0), cylinders=[1, 1, 1])
    for rank in (1, 0):
        run.happens(messages.EngineProcessEnded(rank, 255, words))
        run.is_lost(rank)
    assert run.all(events.TellUser) == [
        events.TellUser(f"own1: what had started its engine ended with {shown}"),
        events.TellUser(f"own0: what had started its engine ended with {shown}"),
        events.TellUser("lost the engine on own0; 1 of its tasks to run again"),
    ]


@pytest.mark.parametrize("rank", [-1, 0, 7])
def test_the_end_of_the_process_of_an_engine_that_was_not_awaited_is_no_news(rank: int) -> None:
    run = play(*tasks(0))
    run.happens(messages.EngineProcessEnded(rank, 0, ""))
    assert run.told == ""


def test_tasks_of_a_lost_engine_run_again_as_soon_as_they_have_surely_ended() -> None:
    run = play(*tasks(0, 1, 2), cylinders=[2, 1])
    assert run.is_cut(0) == [], "it may come back"
    run.ends(1, 2)
    assert run.given == {0: [0, 1], 1: [2]}
    run.happens(messages.EngineCleared(0))
    assert run.told == "lost the engine on own0; 2 of its tasks to run again"
    assert run.given[1] == [2, 0]
    run.ends(1, 0)
    run.ends(1, 1)
    assert run.everybody_leaves() == events.EndRun(0, complete=True)


@pytest.mark.parametrize("certainty", [messages.EngineProcessEnded(0, 128 + 9, ""), messages.EngineCleared(0)])
@pytest.mark.parametrize("is_cut_first", [False, True])
def test_a_lost_engine_that_has_ended_for_sure_is_not_waited_for(
    certainty: events.Event,
    is_cut_first: bool,
) -> None:
    run = play(*tasks(0, 1), cylinders=[1, 1])
    run.ends(1, 1)
    news = [events.MemberCut("engine 0"), certainty]
    for event in news if is_cut_first else reversed(news):
        run.happens(event)
    assert run.given[1] == [1, 0]
    assert events.ForgetMember("engine 0") in run.commands
    assert run.happens(events.EngineOverdue(0)) == []


def test_what_an_engine_that_has_ended_has_said_is_heard_before_its_tasks_are_given_back() -> None:
    run = play(*tasks(0, 1, 2, 3), cylinders=[2, 1])
    run.happens(messages.EngineProcessEnded(0, 128 + 9, ""))
    run.ends(1, 2)
    assert run.given == {0: [0, 1], 1: [2, 3]}
    run.ends(0, 0)
    run.is_cut(0)
    run.ends(1, 3)
    assert run.given[1] == [2, 3, 1]
    assert run.recorded == [2, 0, 3]


@pytest.mark.parametrize(
    "news",
    [
        messages.EngineProcessEnded(0, 255, ""),
        messages.EngineProcessEnded(0, -9, ""),
        messages.EngineProcessEnded(0, 0, "", certain=False),
        messages.EngineProcessEnded(0, 128 + 9, "", certain=False),
    ],
)
@pytest.mark.parametrize("is_cut_first", [False, True])
def test_an_engine_of_which_something_may_still_run_is_waited_for_as_long_as_it_may(
    news: events.Event,
    is_cut_first: bool,
) -> None:
    run = play(*tasks(0, 1), cylinders=[1, 1])
    run.ends(1, 1)
    events_of_it = [events.MemberCut("engine 0"), news]
    for event in events_of_it if is_cut_first else reversed(events_of_it):
        run.happens(event)
    run.passes(60.0, "engine 1", "context own")
    assert run.given == {0: [0], 1: [1]}
    run.passes(3.0, "engine 1", "context own")
    assert run.given[1] == [1, 0]


def test_an_engine_that_said_goodbye_is_not_lost() -> None:
    run = play(*tasks(0), cylinders=[1, 1])
    run.happens(messages.EngineLeft(1))
    assert run.is_lost(1) == [events.ForgetMember("engine 1")]
    assert run.told == ""


def test_what_an_engine_that_leaves_has_not_reported_goes_back() -> None:
    run = play(*tasks(0, 1, 2), cylinders=[2, 1])
    run.happens(messages.EngineLeft(0))
    run.ends(1, 2)
    assert run.given == {0: [0, 1], 1: [2, 0]}


@pytest.mark.parametrize("reports", [[[0, 1, 2]], [[2, 0, 1]], [[2], [0, 1]], [[0], [2], [1]]])
def test_interrupted_tasks_go_back_to_the_head_of_the_list_in_order(reports: list[list[int]]) -> None:
    run = play(*tasks(*range(6)), cylinders=[3])
    run.happens(messages.ContextToldToEnd(0))
    run.engines(1, token="u", ready=False)
    for ids in reports:
        run.ends(0, *ids, return_code=-15, interrupted=True)
    run.happens(messages.EngineLeft(0))
    run.is_ready(1)
    for task_id in range(6):
        assert run.given[1][-1] == task_id
        run.ends(1, task_id)
    assert run.recorded == list(range(6))


def test_a_run_whose_last_engine_has_left_ends_and_says_so() -> None:
    run = play(*tasks(0, 1), cylinders=[1])
    run.ends(0, 0)
    run.happens(messages.EngineLeft(0))
    assert run.told == "no engine is left to run the remaining tasks"
    run.happens(messages.ContextLeft(0))
    assert run.end == events.EndRun(1, complete=False)
    assert run.recorded == [0]


def test_a_run_whose_last_engine_was_lost_waits_before_it_gives_up() -> None:
    run = play(*tasks(0), cylinders=[1])
    run.is_cut(0)
    assert "no engine is left" not in run.told
    run.happens(messages.EngineCleared(0))
    assert "no engine is left" in run.told


def test_engines_share_out_what_their_own_context_says() -> None:
    run = Play()
    run.reads(task(0))
    run.happens(context_came(TOKEN, 1, environment_resources=("GPUS",)))
    run.happens(context_came("u", 1))
    run.comes(0)
    run.comes(1)
    shared = [
        message.environment_resources
        for rank in (0, 1)
        for message in run.said_to(rank)
        if isinstance(message, messages.EngineAdmitted)
    ]
    assert shared == [("GPUS",), ()]


# Resources that are sent away, and a run without any

DRAINED = [messages.ReturnTasks(), messages.FinishEngine()]


def test_an_engine_that_is_stopped_finishes_what_it_runs_and_the_others_go_on() -> None:
    run = play(*tasks(0, 1, 2, 3), cylinders=[1, 1])
    run.happens(messages.StopEngine(0, now=False))
    assert run.said_to(0)[-2:] == DRAINED
    run.ends(0, 0)
    run.ends(1, 1)
    assert run.given == {0: [0], 1: [1, 2]}
    assert run.recorded == [0, 1]
    run.happens(messages.EngineLeft(0))
    assert run.told == ""


@pytest.mark.parametrize("signalled", [messages.EngineToldToDrain(0), messages.ContextToldToDrain(0)])
def test_who_is_told_to_drain_by_a_signal_is_stopped_as_by_the_script(signalled: events.Event) -> None:
    run = play(*tasks(0, 1), cylinders=[1])
    run.happens(signalled)
    assert run.said_to(0)[-2:] == DRAINED
    assert run.happens(messages.EngineToldToDrain(0)) == []
    run.ends(0, 0)
    run.happens(messages.EngineLeft(0))
    assert run.recorded == [0]
    assert "the run waits for resources" in run.told


def test_an_engine_that_is_stopped_now_ends_its_tasks_which_run_again_elsewhere() -> None:
    run = play(*tasks(0, 1, 2), cylinders=[1, 1])
    run.happens(messages.StopEngine(0, now=True))
    assert run.said_to(0)[-1] == CANCEL
    run.ends(0, 0, return_code=-15, interrupted=True)
    run.ends(1, 1)
    assert run.given == {0: [0], 1: [1, 0]}


def test_an_engine_that_leaves_can_be_hurried() -> None:
    run = play(task(0), cylinders=[1])
    run.happens(messages.StopEngine(0, now=False))
    assert run.happens(messages.StopEngine(0, now=False)) == []
    run.happens(messages.StopEngine(0, now=True))
    assert run.said_to(0)[-1] == CANCEL


def test_an_engine_that_is_stopped_before_it_came_is_refused() -> None:
    run = Play()
    run.reads(*tasks(0, 1))
    run.engines(1, 1, ready=False)
    run.happens(context_came("u", 1))
    run.happens(messages.StopEngine(2, now=False))
    run.comes(2)
    (refusal,) = run.said_to(2)
    assert isinstance(refusal, messages.EngineRefused)


def test_an_engine_that_waits_for_its_settings_is_refused_when_it_is_stopped() -> None:
    run = Play()
    run.happens(context_came("own", 1))
    run.comes(0)
    run.happens(messages.StopEngine(0, now=False))
    assert run.said_to(0) == [messages.EngineRefused("it was told to stop")]


@pytest.mark.parametrize("rank", [-1, 7])
def test_nobody_is_stopped_that_there_is_not(rank: int) -> None:
    run = play(task(0), cylinders=[1])
    assert run.happens(messages.EngineToldToDrain(rank)) == []
    assert run.happens(messages.ContextToldToDrain(rank)) == []
    assert run.happens(messages.StopEngine(rank, now=True)) == []
    assert run.happens(messages.StopContext(rank, now=True)) == []


@pytest.mark.parametrize(("now", "orders"), [(False, DRAINED), (True, [CANCEL])])
def test_a_context_that_is_stopped_leaves_with_all_its_engines(
    now: bool,
    orders: list[messages.ToEngine],
) -> None:
    run = play(*tasks(0, 1, 2), cylinders=[1, 1])
    run.engines(1, token="u")
    run.happens(messages.StopContext(0, now=now))
    assert [run.said_to(rank)[-len(orders) :] for rank in (0, 1)] == [orders, orders]
    assert run.said_to_context()[-1] == messages.EndContext(())
    assert orders[-1] not in run.said_to(2)


def test_a_context_is_given_no_more_than_its_limit_and_finishes_that() -> None:
    run = Play()
    run.reads(*tasks(*range(9)))
    run.happens(context_came("own", 2, 2, task_limit=3))
    for rank in (0, 1):
        run.comes(rank)
        run.is_ready(rank)
    assert sum(map(len, run.given.values())) == 3
    assert [run.said_to(rank)[-1] for rank in (0, 1)] == [messages.FinishEngine()] * 2
    assert run.said_to_context()[-1] == messages.EndContext(())
    run.ends(0, *run.given[0])
    assert sum(map(len, run.given.values())) == 3


def test_the_last_task_is_on_its_way_before_the_engine_is_told_to_finish() -> None:
    run = Play()
    run.reads(*tasks(0, 1))
    run.happens(context_came("own", 1, task_limit=1))
    run.comes(0)
    run.is_ready(0)
    assert run.said_to(0)[-2:] == [messages.RunTasks((task(0),)), messages.FinishEngine()]


@pytest.mark.parametrize("limited", [False, True])
def test_a_run_whose_resources_were_sent_away_waits_for_others(*, limited: bool) -> None:
    run = Play()
    run.reads(*tasks(0, 1))
    run.happens(context_came("own", 1, task_limit=int(limited)))
    run.comes(0)
    run.is_ready(0)
    if not limited:
        run.happens(messages.StopContext(0, now=False))
    run.ends(0, 0)
    run.happens(messages.EngineLeft(0))
    run.happens(messages.ContextLeft(0))
    assert run.told == "the run waits for resources; run.sh -s HOST:N adds some"
    run.engines(1, token="u")
    run.ends(1, 1)
    assert run.everybody_leaves() == events.EndRun(0, complete=True)


def test_a_run_that_begins_without_resources_starts_none() -> None:
    run = Play(startup_only=True)
    run.reads(task(0))
    assert run.all(events.StartContext) == []
    assert run.told == "the run waits for resources; run.sh -s HOST:N adds some"
    run.engines(1)
    run.ends(0, 0)
    assert run.everybody_leaves() == events.EndRun(0, complete=True)


def test_the_log_tells_who_comes_and_goes() -> None:
    run = Play()
    run.reads(*tasks(0, 1, 2))
    run.engines(1, 1)
    run.happens(messages.StopEngine(1, now=True))
    run.happens(messages.EngineLeft(1))
    run.happens(messages.StopContext(0, now=False))
    run.ends(0, 0)
    run.happens(messages.EngineLeft(0))
    run.happens(messages.ContextLeft(0))
    run.happens(context_came("u", 1, task_limit=1))
    run.comes(2)
    run.is_ready(2)
    assert run.noted == [
        "context SSH0 of host, pid 99, has come: engine 0 on own0, engine 1 on own1",
        "engine 0 on own0, pid 1, takes 1 tasks at once",
        "engine 1 on own1, pid 1, takes 1 tasks at once",
        "engine 1 on own1 is to stop now",
        "engine 1 on own1 has gone; it finished 0 tasks",
        "context SSH0 is to stop",
        "engine 0 on own0 has gone; it finished 1 tasks",
        "context SSH0 has gone",
        "context SSH1 of host, pid 99, has come: engine 2 on u0",
        "engine 2 on u0, pid 1, takes 1 tasks at once",
        "context SSH1 was given its 1 tasks and is let go",
    ]


def overdue(run: Play) -> list[events.Event]:
    """Engines of which the driver will see whether they have said goodbye."""
    return [wake.event for wake in run.all(events.WakeAfter) if isinstance(wake.event, events.EngineOverdue)]


def test_an_engine_whose_process_has_ended_and_that_says_no_goodbye_is_lost() -> None:
    run = play(*tasks(0, 1), cylinders=[1, 1])
    run.happens(messages.EngineProcessEnded(0, 0, ""))
    (event,) = overdue(run)
    run.happens(event)
    assert run.told == "lost the engine on own0; 1 of its tasks to run again"
    run.ends(1, 1)
    assert run.given[1] == [1, 0]


def test_a_goodbye_may_come_later_than_the_end_of_the_process() -> None:
    run = play(*tasks(0), cylinders=[1])
    run.ends(0, 0)
    run.happens(messages.EngineProcessEnded(0, 0, ""))
    run.happens(messages.EngineLeft(0))
    (event,) = overdue(run)
    run.happens(event)
    assert run.told == ""


def test_a_connection_of_ssh_that_has_ended_says_nothing_of_its_engine() -> None:
    run = play(*tasks(0), cylinders=[1])
    run.happens(messages.EngineProcessEnded(0, 255, "Connection closed"))
    assert overdue(run) == []


def test_a_context_hears_which_of_its_engines_have_come() -> None:
    run = Play()
    run.happens(context_came(TOKEN, 1, 1))
    run.happens(context_came("u", 1))
    for rank in (2, 1):
        run.comes(rank)
    assert run.said_to_context()[1:] == [messages.EngineHasCome(1)]
    assert run.said_to_context("u")[1:] == [messages.EngineHasCome(2)]


# Engines that nothing is left for


def retiring(*items: events.Item, engines: int = 2, ended: bool = True, host: str = "elsewhere") -> Play:
    """Return a run with these items and engines on a host of that name, whose context gives nodes back."""
    run = Play()
    run.reads(*items, ended=ended)
    run.happens(context_came(TOKEN, *[1] * engines, retires=True))
    for rank in range(engines):
        run.happens(messages.EngineCame(rank, VERSION, host, 1))
        run.is_ready(rank)
    return run


def test_an_engine_that_nothing_is_left_for_retires_while_others_work() -> None:
    run = retiring(*tasks(0, 1, 2), engines=3)
    run.ends(2, 2)
    run.ends(1, 1)
    assert run.said_to(1)[-1] == messages.FinishEngine()
    assert messages.FinishEngine() not in [*run.said_to(0), *run.said_to(2)], "one is busy, one stays for its loss"
    run.happens(messages.EngineLeft(1))
    run.ends(0, 0)
    assert run.everybody_leaves().complete
    assert run.told == ""


def test_an_engine_that_comes_when_nothing_is_left_to_start_retires_at_once() -> None:
    run = retiring(*tasks(0), engines=3)
    assert messages.FinishEngine() not in run.said_to(1)
    assert run.said_to(2)[-1] == messages.FinishEngine()


def test_no_engine_retires_while_tasks_may_come_or_wait_behind_a_barrier() -> None:
    run = retiring(*tasks(0), engines=3, ended=False)
    assert messages.FinishEngine() not in run.said_to(1)
    run.reads(barrier(1), task(2))
    assert messages.FinishEngine() not in run.said_to(1)
    run.ends(0, 0)
    said = [message for rank in range(3) for message in run.said_to(rank)]
    assert said.count(messages.FinishEngine()) == 1


def test_an_engine_on_the_node_of_the_driver_stays_for_what_others_may_lose() -> None:
    run = retiring(*tasks(0), host="driver")
    assert messages.FinishEngine() not in run.said_to(1)
    run.is_lost(0)
    assert run.given[1] == [0]


def test_engines_of_a_context_that_keeps_its_nodes_stay() -> None:
    run = play(*tasks(0), cylinders=[1, 1])
    assert messages.FinishEngine() not in run.said_to(1)


@pytest.mark.parametrize(
    "leaving", [events.MemberCut("engine 0"), messages.StopEngine(0, now=True), messages.StopEngine(0, now=False)]
)
def test_no_engine_retires_while_what_another_has_may_come_to_it(leaving: events.Event) -> None:
    run = retiring(*tasks(0, 1))
    run.happens(leaving)
    run.ends(1, 1)
    assert messages.FinishEngine() not in run.said_to(1)
    run.happens(messages.EngineCleared(0) if isinstance(leaving, events.MemberCut) else messages.EngineLeft(0))
    assert run.given[1] == [1, 0]


def test_no_engine_retires_that_could_start_what_waits_at_another() -> None:
    run = retiring(*tasks(0, 1), ended=False)
    for task_id in range(2, 50):
        run.reads(task(task_id), ended=False)
        run.ends(0, max(run.given[0]), elapsed=0.0001)
    run.reads(*tasks(*range(50, 60)))
    assert len(run.controller.fleet.engines[0].tasks) > 1
    run.ends(1, 1)
    assert messages.FinishEngine() not in run.said_to(1)


def test_what_is_lost_by_surprise_runs_where_one_has_stayed() -> None:
    run = retiring(*tasks(0), engines=3)
    run.happens(messages.EngineLeft(2))
    run.is_lost(0)
    assert run.given[1] == [0]


# Who is cut off, and who is silent


def other_members(run: Play, *ranks: int) -> list[str]:
    return [
        *map(messages.engine_name, ranks),
        *(f"context {context.token}" for context in run.controller.fleet.contexts),
    ]


def test_an_engine_that_is_cut_off_and_back_in_time_has_lost_nothing() -> None:
    run = play(*tasks(0, 1, 2), cylinders=[1, 1])
    run.is_cut(0)
    run.passes(50.0, *other_members(run, 1))
    assert run.happens(events.MemberRejoined("engine 0")) == []
    run.passes(50.0, *other_members(run, 0, 1))
    assert run.told == ""
    assert run.given == {0: [0], 1: [1]}
    run.ends(0, 0)
    assert run.given == {0: [0, 2], 1: [1]}
    assert run.noted[-2:] == ["the connection to engine 0 on own0 broke", "engine 0 on own0 is connected again"]


def test_an_engine_that_is_cut_off_is_given_nothing_until_it_is_back() -> None:
    run = play(*tasks(*range(5)), cylinders=[2, 1])
    run.is_cut(0)
    run.ends(0, 0)  # it had said so before
    run.ends(1, 2)
    assert run.given == {0: [0, 1], 1: [2, 3]}
    run.happens(events.MemberRejoined("engine 0"))
    assert run.given == {0: [0, 1, 4], 1: [2, 3]}


def test_an_engine_that_has_not_been_heard_for_the_patience_is_lost() -> None:
    run = play(*tasks(0, 1), cylinders=[1, 1])
    run.ends(1, 1)
    run.is_cut(0)
    run.passes(60.0, *other_members(run, 1))
    assert run.told == ""
    assert run.given == {0: [0], 1: [1]}
    run.passes(3.0, *other_members(run, 1))
    assert run.told == "lost the engine on own0; 1 of its tasks to run again"
    assert run.given[1] == [1, 0]
    assert run.commands.count(events.ForgetMember("engine 0")) == 1


def test_an_engine_that_is_silent_over_a_connection_that_holds_is_lost_all_the_same() -> None:
    run = play(*tasks(0, 1), cylinders=[1, 1])
    run.ends(1, 1)
    run.passes(63.0, *other_members(run, 1))
    assert run.given[1] == [1, 0]


def test_whatever_an_engine_says_shows_that_it_is_there() -> None:
    run = play(*tasks(0, 1, 2, 3), cylinders=[1, 1])
    for task_id in (0, 2, 3):
        run.passes(50.0, *other_members(run, 1))
        run.ends(0, task_id)
    assert run.told == ""


def test_one_that_comes_back_when_it_has_been_given_up_is_refused() -> None:
    run = play(*tasks(0), cylinders=[1, 1])
    run.is_lost(0)
    assert run.happens(events.MemberRejoined("engine 0")) == [events.ForgetMember("engine 0")]
    assert run.happens(events.MemberHeard("engine 0")) == []
    assert run.happens(events.MemberCut("engine 0")) == [events.ForgetMember("engine 0")]


@pytest.mark.parametrize("name", ["engine 7", "engine -1", "context nobody", "context "])
def test_members_that_there_are_not_are_no_news(name: str) -> None:
    run = play(*tasks(0), cylinders=[1])
    assert run.happens(events.MemberHeard(name)) == []
    for event in (events.MemberCut(name), events.MemberRejoined(name)):
        assert run.happens(event) == [events.ForgetMember(name)]
    assert run.told == ""


def test_what_a_lost_engine_says_afterwards_does_not_count() -> None:
    run = play(*tasks(0), cylinders=[1, 1])
    run.is_lost(0)
    run.ends(0, 0)
    assert run.recorded == []
    run.ends(1, 0)
    assert run.recorded == [0]


def test_who_looks_late_gives_others_time_to_be_heard() -> None:
    run = play(*tasks(0, 1), cylinders=[1, 1])
    run.passes(9.0, *other_members(run, 0, 1))
    run.clock += 1000.0  # the driver was stopped
    run.happens(events.SilenceToBeJudged())
    assert run.told == ""
    run.passes(30.0, *other_members(run, 1))
    assert run.told == ""
    run.ends(1, 1)
    run.passes(3.0, *other_members(run, 1))
    assert run.told == "lost the engine on own0; 1 of its tasks to run again"
    assert run.given[1] == [1, 0]


def test_it_is_looked_for_silence_as_long_as_the_run_goes_on_and_not_before_anybody_has_come() -> None:
    run = Play()
    run.reads(*tasks(0))
    assert run.look not in run.commands
    run.happens(context_came(TOKEN, 1))
    assert run.commands.count(run.look) == 1
    run.comes(0)
    assert run.commands.count(run.look) == 1
    run.passes(30.0, "engine 0", "context own")
    assert run.commands.count(run.look) == 11


def test_an_engine_that_waits_for_the_first_task_has_no_lease_and_is_not_taken_for_lost() -> None:
    run = Play()
    run.happens(context_came(TOKEN, 1))
    run.comes(0)
    run.passes(200.0, "context own")
    assert run.told == ""
    run.reads(task(0))
    assert isinstance(run.said_to(0)[0], messages.EngineAdmitted)
    run.passes(50.0, "context own")
    run.is_ready(0)
    assert run.given == {0: [0]}


def test_an_engine_that_is_cut_off_before_the_first_task_does_not_come_back_and_is_lost() -> None:
    run = Play()
    run.happens(context_came(TOKEN, 1))
    run.comes(0)
    run.is_cut(0)
    run.passes(63.0, "context own")
    assert run.told == "lost the engine on own0"


def test_a_context_that_is_cut_off_and_back_in_time_has_lost_nothing() -> None:
    run = play(*tasks(0), cylinders=[1])
    run.happens(events.MemberCut("context own"))
    run.passes(50.0, "engine 0")
    assert run.happens(events.MemberRejoined("context own")) == []
    run.passes(50.0, "engine 0", "context own")
    assert run.told == ""
    assert not run.controller.fleet.contexts[0].gone


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_context_that_has_not_been_heard_for_the_patience_is_lost_and_its_engines_go_on(
    is_cut: bool,
) -> None:
    run = play(*tasks(0), cylinders=[1])
    if is_cut:
        run.happens(events.MemberCut("context own"))
    run.passes(60.0, "engine 0")
    assert run.told == ""
    run.passes(3.0, "engine 0")
    assert run.told == "lost the context SSH0; its engines that run go on"
    assert events.ForgetMember("context own") in run.commands
    run.passes(100.0, "engine 0")
    run.ends(0, 0)
    assert run.recorded == [0]


@pytest.mark.parametrize("is_cut_first", [False, True])
def test_the_own_context_is_lost_when_its_process_has_ended_and_its_connection_too(
    is_cut_first: bool,
) -> None:
    run = play(*tasks(0), cylinders=[1])
    news: list[events.Event] = [events.MemberCut("context own"), events.OwnContextEnded(-9, "")]
    first, second = news if is_cut_first else reversed(news)
    run.happens(first)
    assert run.told == ""
    run.happens(second)
    assert run.told == "lost the context SSH0; its engines that run go on"


def test_a_context_that_is_cut_off_when_the_run_is_over_is_not_waited_for() -> None:
    run = play(*tasks(0), cylinders=[1])
    run.ends(0, 0)
    run.happens(messages.EngineLeft(0))
    assert run.happens(events.MemberCut("context own"))[-1] == events.EndRun(0, complete=True)


def test_a_context_that_is_cut_off_while_its_engines_finish_may_come_back() -> None:
    run = play(*tasks(0), cylinders=[1])
    run.ends(0, 0)
    run.happens(events.MemberCut("context own"))
    assert run.told == ""
    run.happens(events.MemberRejoined("context own"))
    assert run.everybody_leaves() == events.EndRun(0, complete=True)


@pytest.mark.parametrize("is_cut_first", [False, True])
def test_an_engine_that_is_cut_off_when_the_run_is_over_is_not_waited_for_long(
    is_cut_first: bool,
) -> None:
    run = play(*tasks(0, 1), cylinders=[2])
    run.ends(0, 0)
    if is_cut_first:
        run.is_cut(0)
    run.ends(0, 1)
    if not is_cut_first:
        run.is_cut(0)
    overdue = events.EngineOverdue(0)
    assert events.WakeAfter(GOODBYE_PATIENCE, overdue) in run.commands
    run.happens(overdue)
    run.happens(messages.ContextLeft(0))
    assert run.end == events.EndRun(0, complete=True)


def test_an_engine_that_is_back_by_then_is_waited_for() -> None:
    run = play(*tasks(0), cylinders=[1])
    run.ends(0, 0)
    run.is_cut(0)
    run.happens(events.MemberRejoined("engine 0"))
    assert run.happens(events.EngineOverdue(0)) == []
    assert not run.all(events.EndRun)


def test_an_engine_that_is_told_to_end_is_given_nothing_more() -> None:
    run = play(*tasks(0, 1, 2), cylinders=[1, 1])
    assert run.happens(messages.EngineToldToEnd(0)) == []
    run.ends(0, 0, return_code=-15, interrupted=True)
    assert run.given == {0: [0], 1: [1]}
    run.ends(1, 1)
    assert run.given == {0: [0], 1: [1, 0]}
    assert "engine 0 on own0 was told to end" in run.noted


def test_tasks_of_another_engine_are_not_given_back_by_the_end_of_one() -> None:
    run = play(*tasks(0, 1), cylinders=[1, 1])
    for event in (messages.EngineCleared(7), messages.EngineCleared(-1), messages.EngineCleared(1)):
        assert [command for command in run.happens(event) if not isinstance(command, events.WakeAfter)] == []


# A driver that is stopped for a while


def test_everybody_who_can_hear_is_told_that_the_driver_pauses_and_goes_on() -> None:
    run = play(*tasks(0, 1, 2), cylinders=[1, 1])
    run.engines(1, token="u")
    run.engines(1, token="expected", ready=False)
    run.happens(messages.EngineLeft(1))
    run.happens(messages.ContextLeft(1))
    told = [
        command
        for event in (events.PauseBegan(), events.PauseEnded())
        for command in run.happens(event)
        if isinstance(command, events.SendToContext | events.SendToEngine)
    ]
    pauses, goes_on = messages.DriverPauses(), messages.DriverGoesOn()
    assert told == [
        *(events.SendToContext(token, pauses) for token in (TOKEN, "expected")),
        *(events.SendToEngine(rank, pauses) for rank in (0, 2, 3)),
        *(events.SendToContext(token, goes_on) for token in (TOKEN, "expected")),
        *(events.SendToEngine(rank, goes_on) for rank in (0, 2, 3)),
    ]
    assert run.told == ""
