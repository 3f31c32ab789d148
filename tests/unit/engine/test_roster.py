from __future__ import annotations

import copy
from collections import deque

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from disbatch.engine.roster import (
    CancelAsked,
    Command,
    CylinderCame,
    CylinderFreed,
    CylinderLost,
    CylindersSettled,
    EndRunning,
    Event,
    FinishAsked,
    Leave,
    PerEngineTaskDone,
    ReturnAsked,
    ReturnTasks,
    Roster,
    RosterError,
    StartPerEngineTask,
    StartTask,
    TasksCame,
    TellCylinders,
    TellReady,
)
from disbatch.tasks import PerEngineTask, Phase, Task


def task(number: int) -> Task:
    return Task(number, number + 1, -1, b"true")


def tasks(*numbers: int) -> TasksCame:
    return TasksCame(tuple(map(task, numbers)))


def start_commands(count: int) -> list[PerEngineTask]:
    return [PerEngineTask(Phase.START, number, number + 1, b"true") for number in range(count)]


def stop_commands(count: int) -> list[PerEngineTask]:
    return [PerEngineTask(Phase.STOP, number, number + 1, b"true") for number in range(count)]


def serving(cylinders: int, *, stops: int = 0) -> Roster:
    roster = Roster(range(cylinders), stop_commands(stops))
    assert roster.begin() == [TellReady()]
    return roster


def test_start_commands_run_in_order_before_the_engine_is_ready() -> None:
    roster = Roster(range(2), [*stop_commands(1), *start_commands(2)])
    first, second = start_commands(2)
    assert roster.begin() == [StartPerEngineTask(first)]
    assert roster.handle(PerEngineTaskDone()) == [StartPerEngineTask(second)]
    assert roster.handle(PerEngineTaskDone()) == [TellReady()]


def test_tasks_start_in_order_in_the_lowest_free_cylinder() -> None:
    roster = serving(2)
    assert roster.handle(tasks(0, 1, 2, 3)) == [StartTask(0, task(0)), StartTask(1, task(1))]
    assert roster.has_waiting
    assert roster.handle(CylinderFreed(1)) == [StartTask(1, task(2))]
    assert roster.handle(CylinderFreed(0)) == [StartTask(0, task(3))]
    assert roster.handle(CylinderFreed(1)) == []
    assert roster.handle(CylinderFreed(0)) == []
    assert roster.handle(tasks(4)) == [StartTask(0, task(4))]


def test_finishing_runs_what_waits_and_then_the_stop_commands() -> None:
    roster = serving(1, stops=2)
    first, second = stop_commands(2)
    roster.handle(tasks(0, 1))
    assert roster.handle(FinishAsked()) == []
    assert roster.handle(CylinderFreed(0)) == [StartTask(0, task(1))]
    assert roster.handle(CylinderFreed(0)) == [StartPerEngineTask(first)]
    assert roster.handle(PerEngineTaskDone()) == [StartPerEngineTask(second)]
    assert roster.handle(PerEngineTaskDone()) == [Leave()]


def test_an_idle_engine_without_stop_commands_leaves_at_once() -> None:
    assert serving(3).handle(FinishAsked()) == [Leave()]


def test_the_roster_knows_whether_tasks_wait() -> None:
    roster = serving(1)
    seen = []
    for event in (tasks(0), tasks(1), CylinderFreed(0), CylinderFreed(0)):
        roster.handle(event)
        seen.append(roster.has_waiting)
    assert seen == [False, True, False, False]


def test_waiting_tasks_are_given_back_and_running_ones_are_not() -> None:
    roster = serving(1)
    roster.handle(tasks(0, 1, 2))
    assert roster.handle(ReturnAsked()) == [ReturnTasks((1, 2))]
    assert not roster.has_waiting
    assert roster.handle(ReturnAsked()) == [ReturnTasks(())]
    assert roster.handle(CylinderFreed(0)) == []


def test_giving_back_the_last_tasks_of_a_finishing_engine_does_not_keep_it_from_leaving() -> None:
    roster = serving(1)
    roster.handle(tasks(0, 1))
    roster.handle(FinishAsked())
    assert roster.handle(ReturnAsked()) == [ReturnTasks((1,))]
    assert roster.handle(CylinderFreed(0)) == [Leave()]


def test_tasks_that_cross_with_the_finish_are_not_started() -> None:
    roster = serving(1)
    roster.handle(tasks(0))
    roster.handle(FinishAsked())
    assert roster.handle(tasks(1)) == []
    assert not roster.has_waiting


def test_cancelling_ends_what_runs_forgets_what_waits_and_runs_the_stop_commands() -> None:
    roster = serving(1, stops=1)
    roster.handle(tasks(0, 1))
    assert roster.handle(CancelAsked(stop_commands=True)) == [EndRunning()]
    assert not roster.has_waiting
    assert roster.handle(CylinderFreed(0)) == [StartPerEngineTask(stop_commands(1)[0])]
    assert roster.handle(PerEngineTaskDone()) == [Leave()]


def test_cancelling_without_stop_commands_starts_nothing_more() -> None:
    roster = serving(1, stops=1)
    roster.handle(tasks(0, 1))
    assert roster.handle(CancelAsked(stop_commands=False)) == [EndRunning()]
    assert roster.handle(CylinderFreed(0)) == [Leave()]


def test_cancelling_spares_a_stop_command_that_runs_unless_told_otherwise() -> None:
    roster = serving(1, stops=2)
    first, second = stop_commands(2)
    assert roster.handle(FinishAsked()) == [StartPerEngineTask(first)]
    assert roster.handle(CancelAsked(stop_commands=True)) == []
    assert roster.handle(PerEngineTaskDone()) == [StartPerEngineTask(second)]
    assert roster.handle(CancelAsked(stop_commands=False)) == [EndRunning()]
    assert roster.handle(PerEngineTaskDone()) == [Leave()]


def test_an_engine_is_ready_when_its_start_commands_have_ended_and_no_cylinder_is_waited_for() -> None:
    events: list[Event] = [PerEngineTaskDone(), CylindersSettled()]
    for first, second in (events, reversed(events)):
        roster = Roster(range(1), start_commands(1), settled=False)
        roster.begin()
        assert roster.handle(first) == []
        assert roster.handle(CylinderCame(2)) == []
        assert roster.handle(second) == [TellReady()]
        assert roster.cylinders == 2
        assert roster.handle(tasks(0, 1)) == [StartTask(0, task(0)), StartTask(2, task(1))]


def test_a_cylinder_that_comes_late_is_told_of_and_gets_what_waits() -> None:
    roster = serving(1)
    roster.handle(tasks(0, 1, 2))
    assert roster.handle(CylinderCame(5)) == [TellCylinders(), StartTask(5, task(1))]
    assert roster.cylinders == 2


def test_a_cylinder_that_is_lost_is_told_of_and_never_used_again() -> None:
    roster = serving(3)
    roster.handle(tasks(0, 1))
    assert roster.handle(CylinderLost(1)) == [TellCylinders()]
    assert roster.handle(CylinderLost(2)) == [TellCylinders()]
    assert roster.cylinders == 1
    assert roster.handle(tasks(2, 3)) == []
    assert roster.handle(CylinderFreed(0)) == [StartTask(0, task(2))]
    assert roster.handle(CylinderFreed(0)) == [StartTask(0, task(3))]


def test_a_cylinder_that_is_lost_before_the_engine_is_ready_is_no_news() -> None:
    roster = Roster(range(2), start_commands(1))
    roster.begin()
    assert roster.handle(CylinderLost(1)) == []
    assert roster.handle(PerEngineTaskDone()) == [TellReady()]


def test_a_finishing_engine_that_loses_the_cylinder_of_its_last_task_leaves() -> None:
    roster = serving(2)
    roster.handle(tasks(0, 1))
    roster.handle(FinishAsked())
    roster.handle(CylinderFreed(0))
    assert roster.handle(CylinderLost(1)) == [Leave()]


@pytest.mark.parametrize("ask", [FinishAsked(), CancelAsked(stop_commands=True)])
def test_an_engine_that_waits_for_cylinders_leaves_when_it_is_asked_to(ask: Event) -> None:
    roster = Roster(range(1), (), settled=False)
    assert roster.begin() == []
    assert roster.handle(ask)[-1] == Leave()
    assert roster.handle(CylinderCame(1)) == []
    assert roster.handle(CylindersSettled()) == []


@pytest.mark.parametrize("ask", [FinishAsked(), CancelAsked(stop_commands=True)])
def test_an_engine_ended_during_its_start_starts_no_further_start_command_but_stops_in_order(ask: Event) -> None:
    roster = Roster(range(1), [*start_commands(2), *stop_commands(1)])
    roster.begin()
    assert StartPerEngineTask(start_commands(2)[1]) not in roster.handle(ask)
    assert roster.handle(PerEngineTaskDone()) == [StartPerEngineTask(stop_commands(1)[0])]
    assert roster.handle(PerEngineTaskDone()) == [Leave()]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (CylinderFreed(1), "cylinder 1 was freed while no task ran in it"),
        (CylinderFreed(2), "cylinder 2 was freed while no task ran in it"),
        (CylinderFreed(-1), "cylinder -1 was freed while no task ran in it"),
        (PerEngineTaskDone(), "a per-engine command ended while none ran"),
        (CylinderCame(0), "cylinder 0 came twice"),
        (CylinderCame(1), "cylinder 1 came twice"),
        (CylinderLost(7), "cylinder 7 was lost, which there is not"),
    ],
)
def test_an_event_that_cannot_happen_raises_and_changes_nothing(event: Event, message: str) -> None:
    roster = serving(2)
    roster.handle(tasks(0))
    before = copy.deepcopy(vars(roster))
    with pytest.raises(RosterError, match=message):
        roster.handle(event)
    assert vars(roster) == before


def test_the_last_cylinder_is_never_lost() -> None:
    with pytest.raises(RosterError, match="the last cylinder"):
        serving(1).handle(CylinderLost(0))


def test_tasks_before_the_engine_is_ready_raise() -> None:
    roster = Roster(range(1), start_commands(1))
    roster.begin()
    with pytest.raises(RosterError, match="before the engine was ready"):
        roster.handle(tasks(0))


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Throws events in any order at a roster, and holds every command against what was seen before it."""

    @initialize(cylinders=st.integers(1, 3), starts=st.integers(0, 2), stops=st.integers(0, 2), settled=st.booleans())
    def begin(self, cylinders: int, starts: int, stops: int, *, settled: bool) -> None:
        self.cylinders = set(range(cylinders))
        self.settled = settled
        self.starts = deque(start_commands(starts))
        self.stops = deque(stop_commands(stops))
        self.roster = Roster(range(cylinders), [*self.stops, *self.starts], settled=settled)
        self.task_count = 0
        self.waiting: deque[Task] = deque()
        self.running: dict[int, Task] = {}
        self.per_engine: PerEngineTask | None = None
        self.ready = self.asked_to_end = self.cancelled = self.left = False
        self.stop_wanted = True
        self.perform(self.roster.begin())

    def perform(self, commands: list[Command]) -> None:
        for command in commands:
            assert not self.left or isinstance(command, EndRunning | ReturnTasks), "it has left already"
            if isinstance(command, StartTask):
                assert self.ready
                assert command.cylinder in self.cylinders
                assert command.cylinder not in self.running, "two tasks in a cylinder"
                assert command.task == self.waiting.popleft()
                self.running[command.cylinder] = command.task
            elif isinstance(command, StartPerEngineTask):
                self.start_per_engine(command.task)
            elif isinstance(command, TellReady):
                assert not self.ready
                assert not self.starts
                assert self.settled
                self.ready = True
            elif isinstance(command, TellCylinders):
                assert self.ready
                assert self.roster.cylinders == len(self.cylinders)
            elif isinstance(command, ReturnTasks):
                assert command.task_ids == tuple(task.task_id for task in self.waiting)
                self.waiting.clear()
            elif isinstance(command, EndRunning):
                assert self.cancelled
            else:
                assert isinstance(command, Leave)
                assert self.asked_to_end
                assert not self.stops or not self.stop_wanted
                self.left = True
            assert self.per_engine is None or not self.running, "a per-engine command beside tasks"
        assert not self.left or not (self.running or self.waiting or self.per_engine)

    def start_per_engine(self, command: PerEngineTask) -> None:
        assert self.per_engine is None
        assert not self.waiting
        if command.phase is Phase.START:
            assert not self.ready
            assert not self.asked_to_end
            assert command == self.starts.popleft()
        else:
            assert self.asked_to_end
            assert self.stop_wanted
            assert command == self.stops.popleft()
        self.per_engine = command

    def impossible(self, event: Event) -> None:
        before = copy.deepcopy(vars(self.roster))
        with pytest.raises(RosterError):
            self.roster.handle(event)
        assert vars(self.roster) == before

    @rule(count=st.integers(0, 4))
    def tasks_come(self, count: int) -> None:
        came = tasks(*range(self.task_count, self.task_count + count))
        if not self.ready and not self.asked_to_end:
            self.impossible(came)
            return
        self.task_count += count
        if not self.asked_to_end:
            self.waiting.extend(came.tasks)
        self.perform(self.roster.handle(came))

    @rule(cylinder=st.integers(0, 3))
    def cylinder_is_freed(self, cylinder: int) -> None:
        if self.running.pop(cylinder, None) is None:
            self.impossible(CylinderFreed(cylinder))
        else:
            self.perform(self.roster.handle(CylinderFreed(cylinder)))

    @rule(cylinder=st.integers(0, 4))
    def a_cylinder_comes(self, cylinder: int) -> None:
        if cylinder in self.cylinders:
            self.impossible(CylinderCame(cylinder))
        else:
            self.cylinders.add(cylinder)
            self.perform(self.roster.handle(CylinderCame(cylinder)))

    @rule(cylinder=st.integers(0, 4))
    def a_cylinder_is_lost(self, cylinder: int) -> None:
        if cylinder not in self.cylinders or len(self.cylinders) == 1:
            self.impossible(CylinderLost(cylinder))
        else:
            self.cylinders.remove(cylinder)
            self.running.pop(cylinder, None)
            self.perform(self.roster.handle(CylinderLost(cylinder)))

    @rule()
    def no_cylinder_is_waited_for(self) -> None:
        self.settled = True
        self.perform(self.roster.handle(CylindersSettled()))

    @rule()
    def per_engine_command_ends(self) -> None:
        if self.per_engine is None:
            self.impossible(PerEngineTaskDone())
        else:
            self.per_engine = None
            self.perform(self.roster.handle(PerEngineTaskDone()))

    @rule()
    def tasks_are_asked_back(self) -> None:
        self.perform(self.roster.handle(ReturnAsked()))

    @rule()
    def finish_is_asked(self) -> None:
        self.asked_to_end = True
        self.perform(self.roster.handle(FinishAsked()))

    @rule(stop_commands=st.booleans())
    def cancel_is_asked(self, stop_commands: bool) -> None:
        stop_runs = self.per_engine is not None and self.per_engine.phase is Phase.STOP
        something_to_end = bool(self.running) or (self.per_engine is not None and not (stop_runs and stop_commands))
        self.asked_to_end = self.cancelled = True
        self.stop_wanted &= stop_commands
        self.waiting.clear()
        commands = self.roster.handle(CancelAsked(stop_commands))
        if something_to_end:
            assert commands == [EndRunning()]
        elif stop_runs:
            assert commands == []
        self.perform(commands)

    @invariant()
    def nothing_is_held_up(self) -> None:
        assert self.roster.has_waiting == bool(self.waiting)
        if self.waiting:
            assert set(self.running) == self.cylinders, "a task waits beside a free cylinder"
        if not (self.running or self.per_engine):
            assert self.left if self.asked_to_end else self.ready or not self.settled, "nothing runs, and nothing will"


AnyOrderOfEvents.TestCase.settings = settings(stateful_step_count=30)
TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
