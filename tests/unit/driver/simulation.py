"""A world for the controller to run in: contexts and engines that behave as the real ones do, at any pace.

What is said lies in a queue of the one who says it until somebody delivers it, so every order in which a network and
a scheduler could let things happen is a sequence of calls here. The world holds the promises of a run true as it goes
along: whatever breaks one fails an assertion at the very step.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from disbatch import messages
from disbatch.driver import events
from disbatch.driver.controller import Controller, RunPhase
from disbatch.driver.fleet import HELD_TASKS, EngineStage
from disbatch.driver.membership import OWN_TOKEN
from disbatch.engine import roster
from disbatch.tasks import Barrier, PerEngineTask, Task
from tests.unit.driver.examples import VERSION, context_came, outcome, settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Broken:
    """At the end of what somebody has said: the connection ended behind it."""


class SimulatedEngine:
    """What an engine process does with messages and with commands that end, around a real roster."""

    def __init__(self, world: World, rank: int, cylinders: int) -> None:
        self.world = world
        self.rank = rank
        self.cylinders = cylinders
        self.inbox: deque[messages.ToEngine] = deque()
        self.outbox: deque[messages.ToDriver | Broken] = deque()
        self.roster: roster.Roster | None = None
        self.running: dict[int, Task] = {}
        self.lingering: list[messages.TaskReport] = []
        self.per_engine_task: PerEngineTask | None = None
        self.interrupted: set[int | str] = set()
        self.lost: set[int] = set()
        self.reports: list[messages.TaskReport] = []
        self.freed: list[int] = []
        self.came = self.connected = self.ended = False
        self.process_killed: int | None = None
        # What the driver may know of it:
        self.ready_heard = self.farewell_sent = self.gone_heard = False

    def come(self) -> None:
        self.came = self.connected = True
        self.outbox.append(messages.EngineCame(self.rank, VERSION, "host", 100 + self.rank))

    def never_come(self) -> None:
        self.came = self.ended = True

    def take(self, message: messages.ToEngine) -> None:
        if isinstance(message, messages.EngineAdmitted):
            self.roster = roster.Roster(range(message.cylinders), message.per_engine_tasks)
            self.perform(self.roster.begin())
        elif self.roster is None:
            self.leave()
        elif isinstance(message, messages.RunTasks):
            self.perform(self.roster.handle(roster.TasksCame(message.tasks)))
        elif isinstance(message, messages.ReturnTasks):
            self.perform(self.roster.handle(roster.ReturnAsked()))
        elif isinstance(message, messages.FinishEngine):
            self.perform(self.roster.handle(roster.FinishAsked()))
        elif isinstance(message, messages.CancelEngine):
            self.cancel(stop_commands=message.stop_commands)

    def cancel(self, *, stop_commands: bool) -> None:
        if self.roster is None:
            self.leave()
        else:
            self.perform(self.roster.handle(roster.CancelAsked(stop_commands)))

    def perform(self, commands: Sequence[roster.Command]) -> None:
        for command in commands:
            if isinstance(command, roster.StartTask):
                assert command.cylinder not in self.running, "a cylinder was given two tasks"
                assert command.cylinder not in self.lost, "a cylinder that is lost was given a task"
                self.running[command.cylinder] = command.task
                self.world.started(self, command.task)
            elif isinstance(command, roster.StartPerEngineTask):
                self.per_engine_task = command.task
            elif isinstance(command, roster.TellReady):
                assert self.roster is not None
                self.outbox.append(messages.EngineReady(self.rank, self.roster.cylinders))
            elif isinstance(command, roster.TellCylinders):
                assert self.roster is not None
                self.outbox.append(messages.CylindersChanged(self.rank, self.roster.cylinders))
            elif isinstance(command, roster.ReturnTasks):
                self.outbox.append(messages.TasksReturned(self.rank, command.task_ids))
            elif isinstance(command, roster.EndRunning):
                self.interrupted |= {task.task_id for task in self.running.values()}
                if self.per_engine_task is not None:
                    self.interrupted.add("per engine")
            else:
                self.leave()

    def end_task(self, which: int, return_code: int, elapsed: float, *, lingers: bool) -> None:
        """End one of the tasks that run; with `lingers` its report has to wait for its pipes."""
        assert self.roster is not None
        cylinder = sorted(self.running)[which % len(self.running)]
        task = self.running.pop(cylinder)
        interrupted = task.task_id in self.interrupted
        self.interrupted.discard(task.task_id)
        report = messages.TaskReport(task.task_id, outcome(return_code, elapsed, interrupted=interrupted))
        if lingers:
            self.lingering.append(report)
            self.freed.append(task.task_id)
        else:
            self.reports.append(report)
        self.perform(self.roster.handle(roster.CylinderFreed(cylinder)))

    def lose_cylinder(self, which: int) -> None:
        """Let the process of a cylinder die, and with it the task that it runs."""
        assert self.roster is not None
        here = sorted(set(range(self.cylinders)) - self.lost)
        cylinder = here[1 + which % (len(here) - 1)]  # the first one is the engine's own
        self.lost.add(cylinder)
        task = self.running.pop(cylinder, None)
        if task is not None:
            self.interrupted.discard(task.task_id)
            self.reports.append(messages.TaskReport(task.task_id, outcome(-9)))
        self.perform(self.roster.handle(roster.CylinderLost(cylinder)))

    def gain_cylinder(self) -> None:
        """Let a process come again for a cylinder that was lost."""
        assert self.roster is not None
        self.perform(self.roster.handle(roster.CylinderCame(self.lost.pop())))

    @property
    def can_lose_cylinder(self) -> bool:
        return self.connected and self.roster is not None and self.roster.cylinders > 1

    def end_per_engine_task(self, return_code: int) -> None:
        assert self.roster is not None
        assert self.per_engine_task is not None
        task, self.per_engine_task = self.per_engine_task, None
        interrupted = "per engine" in self.interrupted
        self.interrupted.discard("per engine")
        self.outbox.append(messages.PerEngineTaskEnded(self.rank, task, outcome(return_code, interrupted=interrupted)))
        self.perform(self.roster.handle(roster.PerEngineTaskDone()))

    def report(self, *, with_lingering: bool = False) -> None:
        """Say what is known; several reports travel as one message."""
        if with_lingering:
            self.reports += self.lingering
            self.lingering.clear()
        if self.freed:
            self.outbox.append(messages.CylindersFreed(self.rank, tuple(self.freed)))
            self.freed.clear()
        if self.reports:
            self.outbox.append(messages.TasksEnded(self.rank, tuple(self.reports)))
            self.reports.clear()

    def leave(self) -> None:
        if not self.ended:
            self.report(with_lingering=True)
            self.outbox.append(messages.EngineLeft(self.rank))
            self.outbox.append(Broken())
            self.die()

    def break_connection(self, kept: int) -> None:
        """Lose all that was said except the first `kept` messages; what runs goes on for a while."""
        while len(self.outbox) > kept:
            self.outbox.pop()
        self.outbox.append(Broken())
        self.inbox.clear()
        self.connected = False

    def die(self) -> None:
        self.ended = True
        self.connected = False
        self.running.clear()
        self.lingering.clear()
        self.per_engine_task = None

    @property
    def has_something_to_do(self) -> bool:
        return bool(self.running or self.lingering or self.reports or self.freed or self.per_engine_task)

    @property
    def is_silent(self) -> bool:
        """Whether nothing is under way from it or to it."""
        return not (self.inbox or self.outbox or self.reports or self.freed)

    @property
    def has_free_cylinder(self) -> bool:
        return (
            self.connected
            and self.roster is not None
            and self.roster.stage is roster.Stage.SERVING
            and len(self.running) < self.roster.cylinders
        )


@dataclass
class SimulatedContext:
    """A context process: its engines are launched when it is admitted."""

    token: str
    cylinders: tuple[int, ...]
    inbox: deque[messages.ToContext] = field(default_factory=deque)
    outbox: deque[messages.ToDriver | Broken] = field(default_factory=deque)
    rank: int | None = None
    engines: list[SimulatedEngine] = field(default_factory=list)
    reaped: list[SimulatedEngine] = field(default_factory=list)
    ended: bool = False

    def take(self, message: messages.ToContext, world: World) -> None:
        if isinstance(message, messages.ContextAdmitted):
            self.rank = message.context_rank
            for rank, cylinders in zip(message.engine_ranks, self.cylinders, strict=True):
                world.engines[rank] = SimulatedEngine(world, rank, cylinders)
                self.engines.append(world.engines[rank])
        elif isinstance(message, messages.EndContext):
            for engine in self.engines:
                if engine.rank in message.abandoned and not engine.ended:
                    if engine.came:
                        engine.cancel(stop_commands=True)
                    else:
                        engine.never_come()
        elif isinstance(message, messages.EngineHasCome):
            assert self.rank is not None, "a context hears of engines before it is admitted"
        else:
            self.ended = True

    def die(self) -> None:
        """End without a goodbye; engines that run do not notice."""
        self.ended = True
        self.outbox.append(Broken())

    def reap(self) -> None:
        """Say which processes that were started for engines have ended, and leave when all have."""
        for engine in [] if self.ended else self.engines:
            return_code = 0 if engine.ended else engine.process_killed
            if return_code is not None and engine not in self.reaped:
                self.reaped.append(engine)
                self.outbox.append(messages.EngineProcessEnded(engine.rank, return_code, "last words"))
        if self.rank is not None and not self.ended and len(self.reaped) == len(self.engines):
            self.ended = True
            self.outbox += [messages.ContextLeft(self.rank), Broken()]


class World:
    """A run of a controller over a list of items."""

    def __init__(
        self,
        items: Sequence[events.Item],
        *,
        exit_code: bool = False,
        fail_fast: bool = False,
        own_context: tuple[int, ...] = (2,),
        startup_only: bool = False,
        task_limit: int = 0,
        retires: bool = False,
    ) -> None:
        self.unread = deque(items)
        self.barriers = [item for item in items if isinstance(item, Barrier)]
        self.tasks = {item.task_id: item for item in items if isinstance(item, Task)}
        self.skipped = {item.task.task_id: item for item in items if isinstance(item, events.SkippedTask)}
        self.wishes = settings(exit_code=exit_code, fail_fast=fail_fast, startup_only=startup_only)
        self.own_cylinders = own_context
        self.own_task_limit = task_limit
        self.retires = retires
        self.controller = Controller(self.wishes)
        self.asked_to_read: int | None = None
        self.own_context_is_coming = False
        self.contexts: list[SimulatedContext] = []
        self.engines: dict[int, SimulatedEngine] = {}
        self.wakes: list[events.WakeAfter] = []
        self.recorded: Counter[int] = Counter()
        self.abandoned: Counter[int] = Counter()
        self.passed: list[int] = []
        self.failures = 0
        self.given: Counter[str] = Counter()
        self.told: list[str] = []
        self.end: events.EndRun | None = None
        self.perform(self.controller.begin())

    def handle(self, event: events.Event) -> None:
        ended = self.end is not None
        commands = self.controller.handle(event, 1.0, 1.0)
        assert not (ended and commands), "commands came after the end"
        self.perform(commands)

    # What the controller asks for.

    def perform(self, commands: Iterable[events.Command]) -> None:
        for command in commands:
            assert self.end is None, "EndRun was not the last command"
            if isinstance(command, events.ReadItems):
                assert self.asked_to_read is None, "two requests to read at once"
                self.asked_to_read = command.limit
            elif isinstance(command, events.StartContext):
                assert not self.own_context_is_coming
                self.own_context_is_coming = True
            elif isinstance(command, events.SendToContext):
                context = self.context_with(command.token)
                context.inbox.append(command.message)
                known = self.controller.fleet.context_with(command.token)
                if isinstance(command.message, messages.EndContext) and known is not None and known.dismissed:
                    assert self.given[command.token] == known.task_limit, "a context was dismissed too early"
            elif isinstance(command, events.SendToEngine):
                self.send_to_engine(command)
            elif isinstance(command, events.WakeAfter):
                assert command.seconds > 0
                self.wakes.append(command)
            elif isinstance(command, events.TellUser):
                self.told.append(command.text)
                given_up = "no engine is left" in command.text
                assert not (given_up and self.own_context_is_expected), "given up before the own context was there"
            elif isinstance(command, events.EndRun):
                self.end = command
            else:
                self.record(command)

    def send_to_engine(self, command: events.SendToEngine) -> None:
        engine = self.engines[command.engine_rank]
        if isinstance(command.message, messages.RunTasks):
            assert command.message.tasks, "an empty order"
            assert engine.ready_heard, "tasks went to an engine that was not ready"
            assert not engine.farewell_sent, "tasks went to an engine after its farewell"
            assert not engine.gone_heard, "tasks went to an engine that has gone"
            wanting = self.controller.fleet.engines[engine.rank].wanting_cylinders
            assert wanting <= engine.cylinders * (1 + HELD_TASKS), "an engine was given more than it may hold"
            context = self.controller.fleet.contexts[self.controller.fleet.engines[engine.rank].context_rank]
            self.given[context.token] += len(command.message.tasks)
            assert self.given[context.token] <= (context.task_limit or 1000), "a context was given more than its limit"
        elif isinstance(command.message, messages.FinishEngine | messages.CancelEngine | messages.EngineRefused):
            engine.farewell_sent = True
            if isinstance(command.message, messages.FinishEngine) and self.controller.phase is not RunPhase.WORKING:
                assert all(self.recorded[task_id] for task_id in self.tasks), "an engine is to finish too early"
        if engine.connected:
            engine.inbox.append(command.message)

    def record(self, command: events.Command) -> None:
        if isinstance(command, events.RecordTask):
            task_id = command.task.task_id
            assert command.task == self.tasks[task_id]
            if command.abandoned:
                assert self.controller.phase is not RunPhase.FINISHING
                self.abandoned[task_id] += 1
            else:
                self.recorded[task_id] += 1
                self.failures += command.outcome.failed
            assert self.recorded[task_id] + self.abandoned[task_id] == 1, "a task was recorded twice"
        elif isinstance(command, events.RecordBarrier):
            barrier = command.barrier
            assert barrier is self.barriers[len(self.passed)], "barriers were passed out of order"
            self.passed.append(barrier.task_id)
            earlier = [task_id for task_id in self.tasks if task_id < barrier.task_id]
            assert all(self.recorded[task_id] == 1 for task_id in earlier), "a barrier was passed too early"
        elif isinstance(command, events.RecordPerEngineTask):
            self.failures += command.outcome.failed and not command.outcome.interrupted

    def started(self, engine: SimulatedEngine, task: Task) -> None:
        """Note that bash runs a task: where nothing forbids it."""
        assert task == self.tasks[task.task_id]
        assert not self.recorded[task.task_id], "a task ran again although it has its line"
        assert all(barrier.task_id in self.passed for barrier in self.barriers if barrier.task_id < task.task_id)
        for other in self.engines.values():
            if other is not engine:
                assert task not in other.running.values(), "a task runs twice at once"

    def context_with(self, token: str) -> SimulatedContext:
        return next(context for context in self.contexts if context.token == token)

    # What may happen.

    def start_up(self) -> None:
        """Read what there is to read, and let the context and its engines come."""
        while self.asked_to_read is not None:
            self.read(self.asked_to_read)
        if self.own_context_is_coming:
            self.own_context_comes()
        self.deliver_everything()
        for engine in self.engines.values():
            engine.come()
        self.deliver_everything()

    def read(self, count: int) -> None:
        """Give the next items, up to as many as were asked for."""
        assert self.asked_to_read is not None
        count = min(count, self.asked_to_read, len(self.unread))
        self.asked_to_read = None
        items = tuple(self.unread.popleft() for _ in range(count))
        self.handle(events.ItemsRead(items, ended=not self.unread))

    def new_context(self, *cylinders: int, token: str = "", task_limit: int = 0) -> SimulatedContext:
        context = SimulatedContext(token or f"c{len(self.contexts)}", cylinders)
        context.outbox.append(context_came(context.token, *cylinders, task_limit=task_limit, retires=self.retires))
        self.contexts.append(context)
        return context

    @property
    def own_context_is_expected(self) -> bool:
        own = (context for context in self.contexts if context.token == OWN_TOKEN)
        news = (message for context in own for message in context.outbox)
        return self.own_context_is_coming or any(isinstance(message, messages.ContextCame) for message in news)

    def own_context_comes(self) -> None:
        self.own_context_is_coming = False
        self.new_context(*self.own_cylinders, token=OWN_TOKEN, task_limit=self.own_task_limit)

    def own_context_ends(self, *, says_why: bool = False) -> None:
        self.own_context_is_coming = False
        if says_why:
            self.handle(messages.ContextFailed(OWN_TOKEN, "no core", "give it one"))
        self.handle(events.OwnContextEnded(1, "no such host"))

    def deliver_from(self, sender: SimulatedEngine | SimulatedContext) -> None:
        """Let the driver have the next thing that an engine or a context has said."""
        message = sender.outbox.popleft()
        if isinstance(sender, SimulatedEngine):
            if isinstance(message, Broken):
                sender.gone_heard = True
                self.handle(events.EngineLost(sender.rank))
                return
            sender.ready_heard |= isinstance(message, messages.EngineReady)
            sender.gone_heard |= isinstance(message, messages.EngineLeft)
        elif isinstance(message, Broken):
            self.handle(events.ContextLost(sender.token))
            return
        assert not isinstance(message, Broken)
        if isinstance(message, messages.TasksReturned):
            engine = self.controller.fleet.engines[message.engine_rank]
            token = self.controller.fleet.contexts[engine.context_rank].token
            self.given[token] -= len(engine.tasks.intersection(message.task_ids))
        self.handle(message)

    def deliver_to(self, receiver: SimulatedEngine | SimulatedContext) -> None:
        """Let an engine or a context have the next thing that the driver has said to it."""
        if isinstance(receiver, SimulatedContext):
            message = receiver.inbox.popleft()
            if not receiver.ended:
                receiver.take(message, self)
        else:
            order = receiver.inbox.popleft()
            if receiver.connected and not receiver.ended:
                receiver.take(order)

    def wake(self, which: int) -> None:
        """Let the time of a timer come."""
        event = self.wakes.pop(which % len(self.wakes)).event
        if isinstance(event, events.TasksCouldBeGivenBack):
            self.engines[event.engine_rank].die()  # an engine's own limit is below the driver's patience
        self.handle(event)

    @property
    def peers(self) -> list[SimulatedEngine | SimulatedContext]:
        return [*self.engines.values(), *self.contexts]

    @property
    def senders(self) -> list[SimulatedEngine | SimulatedContext]:
        return [peer for peer in self.peers if peer.outbox]

    @property
    def receivers(self) -> list[SimulatedEngine | SimulatedContext]:
        return [peer for peer in self.peers if peer.inbox]

    def deliver_everything(self) -> None:
        """Let all that was said arrive, and all that follows from it be said and arrive."""
        while self.senders or self.receivers:
            for sender in self.senders:
                self.deliver_from(sender)
            for receiver in self.receivers:
                self.deliver_to(receiver)
            for engine in self.engines.values():
                if engine.connected:
                    engine.report()
            for context in self.contexts:
                context.reap()

    def check(self) -> None:
        """Assert what holds whenever nothing is under way."""
        fleet = self.controller.fleet
        held = [task_id for engine in fleet.engines for task_id in engine.tasks]
        assert len(held) == len(set(held)), "two engines hold one task"
        waiting_here = [item.task_id for item in self.controller._backlog if isinstance(item, Task)]
        assert waiting_here == sorted(waiting_here), "tasks are out of order"
        serving = [engine for engine in fleet.engines if engine.stage is EngineStage.SERVING]
        assert fleet.cylinders == sum(engine.cylinders for engine in serving)
        assert fleet._staying == sum(not engine.retires for engine in serving)
        if self.controller.phase is not RunPhase.WORKING:
            return
        may_come = any(engine.may_lose_tasks for engine in fleet.engines)
        if self.controller.list_ended and not self.controller._backlog and held and not may_come:
            idle = [engine for engine in serving if engine.retires and not engine.tasks]
            assert len(idle) <= 1, "an engine does not retire"
        if not all(peer.is_silent for peer in self.engines.values()):
            return
        if any(engine.has_free_cylinder for engine in self.engines.values()):
            held_back = [rank for rank, engine in self.engines.items() if engine.roster and engine.roster.has_waiting]
            assert not held_back, f"tasks wait at engines {held_back} while a cylinder is free elsewhere"
            assert not waiting_here or self._barrier_is_first, "a task waits while a cylinder is free"

    @property
    def _barrier_is_first(self) -> bool:
        return isinstance(self.controller._backlog[0], Barrier)

    def settle(self) -> events.EndRun:
        """Let everything go its way from here, until the run ends."""
        for _ in range(1000):
            if self.end is not None:
                break
            if not self._move_on() and self.end is None:
                membership = self.controller._membership
                if self.controller.phase is RunPhase.WORKING and membership.is_forsaken and membership.may_wait:
                    self.new_context(2)  # what the run waits for
                    continue
                assert self.wakes, "the run is stuck: nothing is under way, and it has not ended"
                self.wake(0)
        assert self.end is not None, "the run does not end"
        self._check_end(self.end)
        return self.end

    def _move_on(self) -> bool:
        moved = bool(self.senders or self.receivers)
        self.deliver_everything()
        if self.end is None and self.asked_to_read is not None:
            self.read(self.asked_to_read)
            moved = True
        if self.own_context_is_coming:
            self.own_context_comes()
            moved = True
        for engine in list(self.engines.values()):
            if not engine.came:
                engine.come()
                moved = True
            elif not engine.connected and not engine.ended:
                engine.die()
                moved = True
            elif engine.connected and engine.has_something_to_do:
                self._engine_moves_on(engine)
                moved = True
        for context in self.contexts:
            context.reap()
        return moved or bool(self.senders)

    @staticmethod
    def _engine_moves_on(engine: SimulatedEngine) -> None:
        while engine.running:
            engine.end_task(0, 0, 1.0, lingers=False)
        if engine.per_engine_task is not None:
            engine.end_per_engine_task(0)
        if not engine.ended:
            engine.report(with_lingering=True)

    def _check_end(self, end: events.EndRun) -> None:
        if end.complete:
            assert not self.unread
            assert all(self.recorded[task_id] == 1 for task_id in self.tasks), "a complete run has a task without line"
            assert not self.abandoned
            assert self.controller.counts.skipped == len(self.skipped)
            assert self.passed == [barrier.task_id for barrier in self.barriers]
            if not any("too late" in text for text in self.told):
                failures = self.failures + sum(item.failed for item in self.skipped.values())
                assert end.exit_status == (1 if self.wishes.exit_code and failures else 0)
        else:
            assert end.exit_status != 0, "a run cut short is no success"
        counts = self.controller.counts
        assert counts.finished == sum(self.recorded.values())
        # Tasks are skipped in their order, so the first ones were.
        skipped = islice(self.skipped.values(), counts.skipped)
        failures = self.failures + sum(item.failed for item in skipped)
        assert counts.failed == failures
        assert counts.interrupted == sum(self.abandoned.values())
        self.handle(events.SignalCame("SIGINT", 130))
        for rank in self.engines:
            self.handle(messages.EngineLeft(rank))
