"""A world for the controller to run in: contexts and engines that behave as the real ones do, at any pace.

What is said lies in a queue of the one who says it until somebody delivers it, so every order in which a network and
a scheduler could let things happen is a sequence of calls here. The world holds the promises of a run true as it goes
along: whatever breaks one fails an assertion at the very step.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from disbatch import messages
from disbatch.driver import events
from disbatch.driver.controller import Controller, RunPhase
from disbatch.driver.fleet import HELD_TASKS, EngineStage
from disbatch.driver.membership import LOOKS, OWN_TOKEN
from disbatch.engine import roster
from disbatch.records import replace
from disbatch.tasks import Barrier, PerEngineTask, Task
from tests.unit.driver.examples import VERSION, context_came, outcome, settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


RECORDS = (events.RecordTask, events.RecordPerEngineTask, events.RecordBarrier)


@dataclass(frozen=True)
class Broken:
    """Among what somebody has said: the connection ended there."""


@dataclass(frozen=True)
class Again:
    """Among what somebody has said: there is another connection from there on."""


class Member:
    """One with a line to the driver, over connections that may break, and a lease.

    What it says is kept until the driver has it, and the other way round: that is what `Line` is for.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.outbox: deque[messages.ToDriver | Broken | Again] = deque()
        self.lease_end = math.inf
        self.cut = self.muted = self.frozen = self.lapsed = self.forgotten = self.ended = False

    @property
    def is_disturbed(self) -> bool:
        """Whether it cannot do what it would, or the driver cannot hear it."""
        return not self.ended and (self.cut or self.muted or self.frozen or self.lapsed)

    @property
    def can_be_heard(self) -> bool:
        if self.muted or self.forgotten:
            return False
        return bool(self.outbox) and (not self.cut or Broken() in self.outbox)

    @property
    def can_take(self) -> bool:
        return not (self.muted or self.cut or self.frozen)

    @property
    def can_rejoin(self) -> bool:
        return self.cut and not (self.muted or self.frozen or self.ended) and self.world.clock < self.lease_end

    def admit(self, lease: messages.Lease) -> None:
        self.lease_end = self.world.clock + lease.limit

    def renew(self) -> None:
        """Let a beat have been answered."""
        self.lease_end = self.world.clock + self.world.wishes.lease.limit

    def break_connection(self, kept: int) -> None:
        """Lose the connection when the driver has the first `kept` of what is under way."""
        if not (self.cut or self.ended):
            self.outbox.insert(min(kept, len(self.outbox)), Broken())
            self.cut = True
            if self.lease_end == math.inf:
                self.die()  # before it is admitted it does not try again

    def rejoin(self) -> None:
        self.cut = False
        if self.forgotten:
            self.be_refused()
        elif Broken() in self.outbox:  # the driver may hear of the new connection first
            self.outbox[self.outbox.index(Broken())] = Again()
        else:
            self.outbox.appendleft(Again())

    def be_forgotten(self) -> None:
        self.forgotten = True
        self.cut = True
        self.outbox.clear()

    def lose_unsent(self) -> None:
        """Lose what it has kept for another connection."""
        if self.cut:
            while self.outbox and self.outbox[-1] != Broken():
                self.outbox.pop()

    def be_refused(self) -> None:
        raise NotImplementedError

    def die(self) -> None:
        raise NotImplementedError


class SimulatedEngine(Member):
    """What an engine process does with messages and with commands that end, around a real roster."""

    def __init__(self, world: World, rank: int, cylinders: int) -> None:
        super().__init__(world, messages.engine_name(rank))
        self.rank = rank
        self.cylinders = cylinders
        self.inbox: deque[messages.ToEngine] = deque()
        self.roster: roster.Roster | None = None
        self.running: dict[int, Task] = {}
        self.lingering: list[messages.TaskReport] = []
        self.per_engine_task: PerEngineTask | None = None
        self.interrupted: set[int | str] = set()
        self.lost: set[int] = set()
        self.reports: list[messages.TaskReport] = []
        self.freed: list[int] = []
        self.came = self.connected = False
        self.return_code = 0
        self.process_killed: int | None = None
        # What the driver may know of it:
        self.ready_heard = self.farewell_sent = self.gone_heard = self.cut_heard = False

    def come(self) -> None:
        self.came = self.connected = True
        self.outbox.append(messages.EngineCame(self.rank, VERSION, "host", 100 + self.rank))

    def never_come(self) -> None:
        self.came = self.ended = True

    def take(self, message: messages.ToEngine) -> None:
        if isinstance(message, messages.EngineAdmitted):
            self.admit(message.lease)
            self.roster = roster.Roster(range(message.cylinders), message.per_engine_tasks)
            self.perform(self.roster.begin())
        elif self.roster is None:
            self.leave()
        elif isinstance(message, messages.RunTasks) and self.world.clock >= self.lease_end:
            self.outbox.append(messages.TasksReturned(self.rank, tuple(task.task_id for task in message.tasks)))
            self.renew()  # there is a driver again
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

    def told_to_end(self) -> None:
        """Let somebody tell the engine to end."""
        if self.roster is not None:
            self.outbox.append(messages.EngineToldToEnd(self.rank))
        self.cancel(stop_commands=True)

    def be_refused(self) -> None:
        self.outbox.clear()
        self.cancel(stop_commands=True)

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
                self.end_running()
            else:
                self.leave()

    def end_running(self) -> None:
        """Tell what runs to end, which takes its time."""
        self.interrupted |= {task.task_id for task in self.running.values()}
        if self.per_engine_task is not None:
            self.interrupted.add("per engine")

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
        return self.connected and not self.frozen and self.roster is not None and self.roster.cylinders > 1

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
            if not self.cut:
                self.outbox += [messages.EngineLeft(self.rank), Broken()]
            self.die()

    def be_killed(self, kept: int) -> None:
        """End by SIGKILL; the keeper ends what runs."""
        self.break_connection(kept)
        self.return_code = 128 + 9
        self.die()

    def die(self) -> None:
        self.lose_unsent()
        self.ended = True
        self.connected = self.frozen = self.lapsed = False
        self.running.clear()
        self.lingering.clear()
        self.reports.clear()
        self.freed.clear()
        self.per_engine_task = None

    def renew(self) -> None:
        super().renew()
        if self.lapsed:
            self.lapsed = False
            self.end_what_was_told_to()

    def tick(self) -> None:
        """Keep to the lease as time passes."""
        over = self.world.clock - self.lease_end
        grace = self.world.wishes.lease.grace
        if self.ended or over < 0:
            return
        if self.frozen:
            if over >= 1.5 * grace:
                self.be_killed(0)  # by its keeper
        elif self.cut:
            if over >= grace:
                self.die()
        elif not self.lapsed:
            assert self.roster is not None
            self.lapsed = True
            self.perform(self.roster.handle(roster.ReturnAsked()))
            self.end_running()
        elif over >= grace:
            self.end_what_was_told_to()

    def end_what_was_told_to(self) -> None:
        for cylinder, task in list(self.running.items()):
            if task.task_id in self.interrupted and cylinder in self.running:
                self.end_task(sorted(self.running).index(cylinder), -9, 1.0, lingers=False)
        if "per engine" in self.interrupted and self.per_engine_task is not None:
            self.end_per_engine_task(-9)

    @property
    def has_something_to_do(self) -> bool:
        return bool(self.running or self.lingering or self.reports or self.freed or self.per_engine_task)

    @property
    def is_silent(self) -> bool:
        """Whether nothing is under way from it or to it, and nothing in its way."""
        return not (self.inbox or self.outbox or self.reports or self.freed or self.is_disturbed)

    @property
    def has_free_cylinder(self) -> bool:
        return (
            self.connected
            and self.roster is not None
            and self.roster.stage is roster.Stage.SERVING
            and len(self.running) < self.roster.cylinders
        )


class SimulatedContext(Member):
    """A context process: its engines are launched when it is admitted."""

    def __init__(self, world: World, token: str, cylinders: tuple[int, ...]) -> None:
        super().__init__(world, messages.context_name(token))
        self.token = token
        self.cylinders = cylinders
        self.inbox: deque[messages.ToContext] = deque()
        self.rank: int | None = None
        self.dismissed = False
        self.engines: list[SimulatedEngine] = []
        self.reaped: list[SimulatedEngine] = []

    def take(self, message: messages.ToContext, world: World) -> None:
        if isinstance(message, messages.ContextAdmitted):
            self.admit(message.lease)
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

    def be_refused(self) -> None:
        self.cut = True  # it takes no notice, and ends when its lease does

    def be_killed(self) -> None:
        """End without a goodbye; engines that run do not notice."""
        self.break_connection(len(self.outbox))
        self.die()

    def die(self) -> None:
        self.lose_unsent()
        if not self.ended and self.token == OWN_TOKEN:
            self.world.own_context_has_ended = True
        self.ended = True

    def tick(self) -> None:
        if self.world.clock >= self.lease_end and self.cut and not self.ended:
            for engine in self.engines:
                if not engine.came:
                    engine.never_come()
                elif not engine.ended and not engine.frozen:
                    engine.told_to_end()
            self.die()

    def reap(self) -> None:
        """Say which processes that were started for engines have ended, and leave when all have."""
        for engine in [] if self.ended else self.engines:
            return_code = engine.process_killed
            if return_code is None and engine.ended:
                return_code = engine.return_code
            if return_code is not None and engine not in self.reaped:
                self.reaped.append(engine)
                self.outbox.append(messages.EngineProcessEnded(engine.rank, return_code, "last words"))
        if self.rank is not None and not self.ended and len(self.reaped) == len(self.engines):
            self.outbox += [messages.ContextLeft(self.rank), *([] if self.cut else [Broken()])]
            self.die()


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
        requeue: bool = True,
        crash_limit: int = 3,
    ) -> None:
        self.clock = 0.0
        self.look_is_due = False
        self.unread = deque(items)
        self.barriers = [item for item in items if isinstance(item, Barrier)]
        self.tasks = {item.task_id: item for item in items if isinstance(item, Task)}
        self.skipped = {item.task.task_id: item for item in items if isinstance(item, events.SkippedTask)}
        self.wishes = settings(
            exit_code=exit_code,
            fail_fast=fail_fast,
            startup_only=startup_only,
            requeue=requeue,
            crash_limit=crash_limit,
        )
        self.own_cylinders = own_context
        self.own_task_limit = task_limit
        self.retires = retires
        self.controller = Controller(self.wishes)
        self.asked_to_read: int | None = None
        self.own_context_is_coming = self.own_context_has_ended = False
        self.attempts: dict[int, int] = {}
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
        self.disk_is_full = self.held_back = self.unwritten = False
        self.unwritten_barriers: list[int] = []
        self.perform(self.controller.begin())

    def handle(self, event: events.Event) -> None:
        """Have an event handled in a turn of its own; what is recorded then is written, unless the disk is full."""
        ended = self.end is not None
        commands = self.controller.handle(event, 1.0, self.clock)
        assert not (ended and commands), "commands came after the end"
        self.unwritten = self.unwritten or any(isinstance(command, RECORDS) for command in commands)
        self.perform(commands)
        if self.unwritten and not self.disk_is_full:
            self.write()
        elif self.unwritten and not self.held_back:
            self.held_back = True
            self.handle(events.RecordsHeldBack())

    def fill_disk(self) -> None:
        self.disk_is_full = True

    def make_room(self) -> None:
        """Let what was recorded be written that the disk has not taken."""
        self.disk_is_full = False
        if self.held_back:
            self.held_back = False
            self.write()

    def write(self) -> None:
        self.unwritten = False
        self.unwritten_barriers.clear()
        self.handle(events.RecordsWritten())

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
                self.send_to_context(command)
            elif isinstance(command, events.SendToEngine):
                self.send_to_engine(command)
            elif isinstance(command, events.ForgetMember):
                self.forget(command.name)
            elif isinstance(command, events.WakeAfter):
                self.wake_after(command)
            elif isinstance(command, events.TellUser):
                self.told.append(command.text)
                given_up = "no engine is left" in command.text
                assert not (given_up and self.own_context_is_expected), "given up before the own context was there"
            elif isinstance(command, events.EndRun):
                self.end = command
            else:
                self.record(command)

    def wake_after(self, command: events.WakeAfter) -> None:
        assert command.seconds > 0
        if isinstance(command.event, events.SilenceToBeJudged):
            assert not self.look_is_due, "it is looked twice who is silent"
            self.look_is_due = True
        else:
            self.wakes.append(command)

    def send_to_context(self, command: events.SendToContext) -> None:
        context = self.context_with(command.token)
        context.inbox.append(command.message)
        known = self.controller.fleet.context_with(command.token)
        if known is not None and known.dismissed and not context.dismissed:
            context.dismissed = True
            assert self.given[command.token] == known.task_limit, "a context was dismissed too early"

    def send_to_engine(self, command: events.SendToEngine) -> None:
        engine = self.engines[command.engine_rank]
        if isinstance(command.message, messages.RunTasks):
            assert not self.unwritten, "tasks went out although what they follow from is not written"
            assert command.message.tasks, "an empty order"
            assert engine.ready_heard, "tasks went to an engine that was not ready"
            assert not engine.farewell_sent, "tasks went to an engine after its farewell"
            assert not engine.gone_heard, "tasks went to an engine that has gone"
            assert not engine.cut_heard, "tasks went to an engine that is cut off"
            wanting = self.controller.fleet.engines[engine.rank].wanting_cylinders
            assert wanting <= engine.cylinders * (1 + HELD_TASKS), "an engine was given more than it may hold"
            context = self.controller.fleet.contexts[self.controller.fleet.engines[engine.rank].context_rank]
            self.given[context.token] += len(command.message.tasks)
            assert self.given[context.token] <= (context.task_limit or 1000), "a context was given more than its limit"
        elif isinstance(command.message, messages.FinishEngine | messages.CancelEngine | messages.EngineRefused):
            engine.farewell_sent = True
            if isinstance(command.message, messages.FinishEngine) and self.controller.phase is RunPhase.FINISHING:
                assert all(self.recorded[task_id] for task_id in self.tasks), "an engine is to finish too early"
        if engine.connected and not engine.forgotten:
            engine.inbox.append(command.message)

    def forget(self, name: str) -> None:
        for peer in self.peers:
            if peer.name == name:
                peer.be_forgotten()
                if isinstance(peer, SimulatedEngine):
                    peer.gone_heard = True
                    peer.inbox.clear()

    def record(self, command: events.Command) -> None:
        if isinstance(command, events.RecordTask):
            task_id = command.task.task_id
            assert replace(command.task, attempt=1) == self.tasks[task_id]
            if command.abandoned:
                assert self.controller.phase is not RunPhase.FINISHING
                self.abandoned[task_id] += 1
            else:
                self.recorded[task_id] += 1
                self.failures += command.outcome.failed
            assert self.recorded[task_id] + self.abandoned[task_id] == 1, "a task was recorded twice"
        elif isinstance(command, events.AnnounceBarrier):
            assert command.task_id not in self.unwritten_barriers, "a barrier was announced that is not written"
        elif isinstance(command, events.RecordBarrier):
            barrier = command.barrier
            assert barrier is self.barriers[len(self.passed)], "barriers were passed out of order"
            self.passed.append(barrier.task_id)
            self.unwritten_barriers.append(barrier.task_id)
            earlier = [task_id for task_id in self.tasks if task_id < barrier.task_id]
            assert all(self.recorded[task_id] == 1 for task_id in earlier), "a barrier was passed too early"
        elif isinstance(command, events.RecordPerEngineTask):
            self.failures += command.outcome.failed and not command.outcome.interrupted

    def started(self, engine: SimulatedEngine, task: Task) -> None:
        """Note that bash runs a task: where nothing forbids it."""
        assert replace(task, attempt=1) == self.tasks[task.task_id]
        assert task.attempt > self.attempts.get(task.task_id, 0), "two attempts have one number"
        assert self.wishes.requeue or task.task_id not in self.attempts, "a task was begun twice that may not be"
        self.attempts[task.task_id] = task.attempt
        assert not self.recorded[task.task_id], "a task ran again although it has its line"
        assert all(barrier.task_id in self.passed for barrier in self.barriers if barrier.task_id < task.task_id)
        for other in self.engines.values():
            if other is not engine:
                here = {running.task_id for running in other.running.values()}
                assert task.task_id not in here, "a task runs twice at once"

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
            if not engine.came:
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
        context = SimulatedContext(self, token or f"c{len(self.contexts)}", cylinders)
        context.outbox.append(context_came(context.token, *cylinders, task_limit=task_limit, retires=self.retires))
        self.contexts.append(context)
        return context

    @property
    def own_context_is_expected(self) -> bool:
        own = (context for context in self.contexts if context.token == OWN_TOKEN and not context.ended)
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
        if isinstance(message, Broken | Again):
            if isinstance(sender, SimulatedEngine):
                sender.cut_heard = isinstance(message, Broken)
            self.handle((events.MemberCut if isinstance(message, Broken) else events.MemberRejoined)(sender.name))
            return
        if isinstance(sender, SimulatedEngine):
            sender.ready_heard |= isinstance(message, messages.EngineReady)
            sender.gone_heard |= isinstance(message, messages.EngineLeft)
        if isinstance(message, messages.TasksReturned):
            engine = self.controller.fleet.engines[message.engine_rank]
            token = self.controller.fleet.contexts[engine.context_rank].token
            self.given[token] -= len(engine.tasks.keys() & set(message.task_ids))
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
        self.handle(self.wakes.pop(which % len(self.wakes)).event)

    def time_passes(self, seconds: float, *, driver_is_stopped: bool = False) -> None:
        """Let time go by; whoever is not disturbed beats, and is answered unless the driver is stopped."""
        end = self.clock + seconds
        while self.clock < end:
            self.clock = min(end, self.clock + self.wishes.heartbeat_patience / LOOKS)
            for peer in self.peers:
                peer.tick()
            if not driver_is_stopped:
                self.driver_looks()

    def driver_looks(self) -> None:
        for peer in self.peers:
            if peer.lease_end < math.inf and peer.can_take and not (peer.ended or peer.forgotten):
                self.handle(events.MemberHeard(peer.name))
                peer.renew()
        if self.look_is_due:
            self.look_is_due = False
            self.handle(events.SilenceToBeJudged())

    def own_context_end_is_seen(self) -> None:
        self.own_context_has_ended = False
        self.handle(events.OwnContextEnded(0, ""))

    @property
    def busy(self) -> list[SimulatedEngine]:
        """Engines that have something to do, and can."""
        return [engine for engine in self.engines.values() if engine.has_something_to_do and not engine.frozen]

    @property
    def peers(self) -> list[SimulatedEngine | SimulatedContext]:
        return [*self.engines.values(), *self.contexts]

    @property
    def senders(self) -> list[SimulatedEngine | SimulatedContext]:
        return [peer for peer in self.peers if peer.can_be_heard]

    @property
    def receivers(self) -> list[SimulatedEngine | SimulatedContext]:
        return [peer for peer in self.peers if peer.inbox and peer.can_take]

    def deliver_everything(self) -> None:
        """Let all that was said arrive, and all that follows from it be said and arrive."""
        while self.senders or self.receivers:
            for sender in self.senders:
                self.deliver_from(sender)
            for receiver in self.receivers:
                self.deliver_to(receiver)
            for engine in self.engines.values():
                if engine.connected and not engine.frozen:
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
        if self.controller.phase is not RunPhase.WORKING or self.held_back:
            return
        may_come = any(engine.may_lose_tasks for engine in fleet.engines)
        if self.controller.list_ended and not self.controller._backlog and held and not may_come:
            idle = [engine for engine in serving if engine.retires and not engine.tasks]
            assert len(idle) <= 1, "an engine does not retire"
        if not all(peer.is_silent for peer in self.engines.values()):
            return
        if any(engine.has_free_cylinder for engine in self.engines.values()):
            working = [engine for engine in self.engines.values() if engine.connected]
            held_back = [engine.rank for engine in working if engine.roster and engine.roster.has_waiting]
            assert not held_back, f"tasks wait at engines {held_back} while a cylinder is free elsewhere"
            assert not waiting_here or self._barrier_is_first, "a task waits while a cylinder is free"

    @property
    def _barrier_is_first(self) -> bool:
        return isinstance(self.controller._backlog[0], Barrier)

    def settle(self) -> events.EndRun:
        """Let everything go its way from here, until the run ends."""
        for peer in self.peers:
            peer.muted = peer.frozen = False
        self.make_room()
        last_moved = self.clock
        for _ in range(3000):
            if self.end is not None:
                break
            if self._move_on() or self.end is not None:
                last_moved = self.clock
                continue
            membership = self.controller._membership
            if self.controller.phase is RunPhase.WORKING and membership.is_forsaken and membership.may_wait:
                self.new_context(2)  # what the run waits for
            elif self.wakes:
                self.wake(0)
            else:
                waited = self.clock - last_moved
                assert waited <= 3 * self.wishes.heartbeat_patience, "the run is stuck: it has not ended, and waits"
                self.time_passes(3.0)
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
        if self.own_context_has_ended:
            self.own_context_end_is_seen()
        for peer in self.peers:
            if peer.can_rejoin:
                moved = moved or not peer.forgotten
                peer.rejoin()
        for engine in list(self.engines.values()):
            if not engine.came:
                engine.come()
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
