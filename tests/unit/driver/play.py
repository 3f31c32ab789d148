"""A run of the controller in which a test says what happens, for the tests of the machines behind the driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from disbatch import messages
from disbatch.driver import events
from disbatch.driver.controller import Controller
from disbatch.driver.membership import GRACE, LOOKS, OWN_TOKEN
from disbatch.tasks import NO_REPEAT, Barrier, PerEngineTask, Task
from disbatch.tasks import Phase as When
from tests.unit.driver.examples import VERSION, context_came, engine_came, outcome, settings
from tests.unit.driver.simulation import RECORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

CommandType = TypeVar("CommandType")
TOKEN = OWN_TOKEN
CANCEL = messages.CancelEngine(GRACE, stop_commands=True)


def task(task_id: int) -> Task:
    return Task(task_id, task_id + 1, NO_REPEAT, b"command %d" % task_id)


def tasks(*ids: int) -> list[Task]:
    return [task(task_id) for task_id in ids]


def barrier(task_id: int, *, check: bool = False, key: bytes | None = None) -> Barrier:
    return Barrier(task_id, task_id + 1, check, key, b"#DISBATCH BARRIER")


def skipped(task_id: int, *, failed: bool = False) -> events.SkippedTask:
    return events.SkippedTask(task(task_id), b"line of %d" % task_id, failed)


class Play:
    """A run in which a test says what happens, with all that the controller has asked for so far."""

    def __init__(self, **wishes: Any) -> None:  # noqa: ANN401 - those of `settings`
        self.settings = settings(**wishes)
        self.controller = Controller(self.settings)
        self.commands: list[events.Command] = self.controller.begin()
        self.given: dict[int, list[int]] = {}
        self.held_back = False
        self.now = self.clock = 0.0

    def happens(self, event: events.Event) -> list[events.Command]:
        """Let it happen; what the controller asks for then, but for what goes into the log, and looks at the time.

        What is recorded is written at once, unless records are held back.
        """
        if isinstance(event, events.RecordsHeldBack | events.RecordsWritten):
            self.held_back = isinstance(event, events.RecordsHeldBack)
        commands = answer = self.controller.handle(event, self.now, self.clock)
        while not self.held_back and any(isinstance(command, RECORDS) for command in answer):
            answer = self.controller.handle(events.RecordsWritten(), self.now, self.clock)
            commands = commands + answer
        self.commands += commands
        for command in commands:
            if isinstance(command, events.SendToEngine) and isinstance(command.message, messages.RunTasks):
                self.given.setdefault(command.engine_rank, []).extend(task.task_id for task in command.message.tasks)
        return [command for command in commands if not isinstance(command, events.NoteInLog) and command != self.look]

    @property
    def look(self) -> events.WakeAfter:
        """What the controller asks for to see who is silent."""
        return events.WakeAfter(self.settings.heartbeat_patience / LOOKS, events.SilenceToBeJudged())

    def is_cut(self, rank: int) -> list[events.Command]:
        """Let the connection to an engine break."""
        return self.happens(events.MemberCut(messages.engine_name(rank)))

    def is_lost(self, rank: int) -> list[events.Command]:
        """Let all of an engine have ended, its connection as well, without a goodbye."""
        return self.is_cut(rank) + self.happens(messages.EngineCleared(rank))

    def passes(self, seconds: float, *heard: str) -> None:
        """Let time go by, in which the driver looks who is silent, and all members are silent but these."""
        end = self.clock + seconds
        while self.clock < end:
            self.clock = min(end, self.clock + self.look.seconds)
            for name in heard:
                self.happens(events.MemberHeard(name))
            self.happens(events.SilenceToBeJudged())

    def reads(self, *items: events.Item, ended: bool = True) -> list[events.Command]:
        return self.happens(events.ItemsRead(items, ended))

    def engines(self, *cylinders: int, token: str = TOKEN, ready: bool = True) -> None:
        """Let a context come, and an engine with so many cylinders for each of its nodes."""
        self.happens(context_came(token, *cylinders))
        for rank in self.controller.fleet.contexts[-1].engines:
            self.comes(rank)
            if ready:
                self.is_ready(rank)

    def comes(self, rank: int, version: str = VERSION) -> list[events.Command]:
        return self.happens(engine_came(rank, version))

    def is_ready(self, rank: int) -> list[events.Command]:
        return self.happens(messages.EngineReady(rank, self.controller.fleet.engines[rank].cylinders))

    def ends(
        self, rank: int, *ids: int, return_code: int = 0, elapsed: float = 1.0, interrupted: bool = False
    ) -> list[events.Command]:
        how = outcome(return_code, elapsed, interrupted=interrupted)
        return self.happens(messages.TasksEnded(rank, tuple(messages.TaskReport(task_id, how) for task_id in ids)))

    def per_engine_ends(self, rank: int, when: When, return_code: int = 0) -> list[events.Command]:
        command = PerEngineTask(when, 0, 1, b"p")
        return self.happens(messages.PerEngineTaskEnded(rank, command, outcome(return_code)))

    def everybody_leaves(self) -> events.EndRun:
        for engine in self.controller.fleet.engines:
            self.happens(messages.EngineLeft(engine.rank))
        for context in self.controller.fleet.contexts:
            self.happens(messages.ContextLeft(context.rank))
        return self.end

    def all(self, kind: type[CommandType]) -> list[CommandType]:
        return [command for command in self.commands if isinstance(command, kind)]

    @property
    def told(self) -> str:
        return "\n".join(command.text for command in self.all(events.TellUser))

    @property
    def noted(self) -> list[str]:
        return [command.text for command in self.all(events.NoteInLog)]

    def tasks_given(self, rank: int) -> list[Task]:
        orders = [message for message in self.said_to(rank) if isinstance(message, messages.RunTasks)]
        return [task for order in orders for task in order.tasks]

    @property
    def recorded(self) -> list[int]:
        return [command.task.task_id for command in self.all(events.RecordTask) if not command.abandoned]

    def said_to(self, rank: int) -> list[messages.ToEngine]:
        return [command.message for command in self.all(events.SendToEngine) if command.engine_rank == rank]

    def said_to_context(self, token: str = TOKEN) -> list[messages.ToContext]:
        return [command.message for command in self.all(events.SendToContext) if command.token == token]

    @property
    def end(self) -> events.EndRun:
        (end,) = self.all(events.EndRun)
        assert self.commands[-1] is end
        return end


def play(*items: events.Item, cylinders: Sequence[int] = (2,), **wishes: Any) -> Play:  # noqa: ANN401 - as above
    """Return a run with these items, and engines that are ready."""
    run = Play(**wishes)
    run.reads(*items)
    run.engines(*cylinders)
    return run
