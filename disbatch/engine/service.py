"""An admitted engine at work, or one of its ranks: what its roster decides is done, what comes of it is reported.

It must not know where messages come from or go to.
"""

from __future__ import annotations

import math
import os
import signal
from functools import partial

from disbatch import descriptors, messages
from disbatch.engine import roster
from disbatch.engine.attempts import Attempts
from disbatch.engine.launchers import launcher, limiting
from disbatch.records import replace
from disbatch.tasks import Outcome, PerEngineTask, Phase, Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from disbatch.engine.environment import TaskEnvironment
    from disbatch.engine.ranks import Ranks
    from disbatch.eventloop import EventLoop, Timer
    from disbatch.log import Log

    class Channel(Protocol):
        """What messages are sent over."""

        @property
        def open(self) -> bool:
            """Whether it has not ended."""

        @property
        def unsent(self) -> int:
            """How much still waits to be sent."""


GRACE = 3.0
"""Seconds between TERM and KILL where the driver names no grace: it is gone, or the engine itself was told to end."""

DOUBT = 0.25
"""Seconds until an outcome is believed where a resource manager that ends a job signals its tasks with their engine."""

CLEARING = 1.0
"""Seconds beyond the grace in which what a command has left behind is gone, also in the other processes."""

FAREWELL_LIMIT = 5.0
"""Seconds that the last reports may take to be sent."""

DESCRIPTORS_PER_CYLINDER = 2
DESCRIPTORS_BESIDES = 64

Owner = PerEngineTask | tuple[int, Task]
"""What a command is run for: a START or STOP command, or a task in a cylinder."""


class Service:
    """Runs tasks in `cylinders` of its own, and in those of the other processes that `recruit` finds, if it is given.

    `recruit` gets this object, which these processes' cylinders and tasks are to be told to.
    """

    def __init__(
        self,
        rank: int,
        loop: EventLoop,
        environment: TaskEnvironment,
        cylinders: Sequence[int],
        per_engine_tasks: Sequence[PerEngineTask],
        send: Callable[[messages.FromEngine], object],
        log: Log,
        recruit: Callable[[Service], Ranks] | None = None,
    ) -> None:
        self._rank = rank
        self._loop = loop
        self._environment = environment
        self._send = send
        self._log = log
        launch = launcher()
        limit = descriptors.make_room(descriptors.MANY)  # what tasks leave behind may hold pipes
        if limit is not None:
            launch = limiting(launch, limit)
        possible = max(1, (descriptors.room() - DESCRIPTORS_BESIDES) // DESCRIPTORS_PER_CYLINDER)
        if possible < len(cylinders):
            log.warning("%d cylinders only: this machine's limit of open files allows no more", possible)
        self._attempts = Attempts(loop, launch, self.command_ended, self.outcome_known)
        self._reports: list[messages.TaskReport] = []
        self._freed: set[int] = set()
        self._report_later: Timer | None = None
        self._grace = GRACE
        self._children_ended = False
        self._may_be_left = False
        self.has_left = False
        loop.on_signal(signal.SIGCHLD, self._note_children)
        self._roster = roster.Roster(cylinders[:possible], per_engine_tasks, settled=recruit is None)
        self._ranks = None if recruit is None else recruit(self)
        self._to_leave = 1 if self._ranks is None else 2
        self._doubted: list[tuple[Owner, Outcome]] = []
        self._held: list[tuple[Owner, Outcome]] = []
        """How those ended that a signal has interrupted: recorded when what it has left of them has been ended."""
        self._signalled_until = -math.inf
        self._perform(self._roster.begin())

    def _note_children(self) -> None:
        self._children_ended = True

    def cancel(self, grace: float, *, stop_commands: bool) -> None:
        """End what runs, TERM first and KILL after `grace` seconds; then STOP commands where wanted; then leave."""
        self._attempts.reap()  # what has ended by itself is none of that; START commands leave something to others
        self._grace = grace
        self.decide(roster.CancelAsked(stop_commands))

    def end_running(self, grace: float) -> None:
        """End what runs, as `cancel` does, and stay."""
        self._attempts.reap()
        self._grace = grace
        self._end_running()

    def end_all(self, grace: float) -> None:
        """End what runs, and return what waits; stay."""
        self._attempts.reap()
        self._grace = grace
        self.decide(roster.ReturnAsked())
        self._end_running()

    def decide(self, event: roster.Event) -> None:
        """Let the roster decide what follows from `event`, and do it."""
        self._perform(self._roster.handle(event))

    def command_ended(self, owner: Owner) -> None:
        """Take note that the bash has ended that was run for `owner`."""
        if isinstance(owner, PerEngineTask):
            self._may_be_left |= owner.phase is Phase.START
            self._spare_what_is_left()
            self.decide(roster.PerEngineTaskDone())
        else:
            cylinder, task = owner
            self._freed.add(task.task_id)
            self.decide(roster.CylinderFreed(cylinder))

    def _spare_what_is_left(self) -> None:
        """Let live what START commands have left behind; no task has run yet."""
        if self._may_be_left:
            self._attempts.spare_what_is_left()

    def outcome_known(self, owner: Owner, outcome: Outcome) -> None:
        """Take note of how it ended; nothing more will be known.

        An end just before or after such a signal is taken for its work, and that command for interrupted; a success
        too: of `sleep 300; true` the signal may end nothing but the sleep before the engine has looked.
        """
        if self._ranks is None or outcome.interrupted:
            self._record(owner, outcome)
        elif self._loop.now() < self._signalled_until:
            self._held.append((owner, replace(outcome, interrupted=True)))
        else:
            self._doubted.append((owner, outcome))
            self._loop.after(DOUBT, partial(self._believe, 1))

    def signalled(self, seconds: float = math.inf) -> None:
        """Learn that somebody has sent this engine a signal, and perhaps its tasks too: in the next `seconds` at most.

        It may be one to end at once, or one to end when the tasks have ended that live through it. What died of it is
        reported when what it has left behind has been ended.
        """
        self._signalled_until = max(self._signalled_until, self._loop.now() + seconds)
        self._held += [(owner, replace(outcome, interrupted=True)) for owner, outcome in self._doubted]
        self._doubted.clear()
        if self._ranks is not None and seconds < math.inf:
            self._loop.after(seconds, self.end_leftovers)
            self._loop.after(seconds + GRACE + CLEARING, self._record_held)

    def end_leftovers(self) -> None:
        """End what the command has left behind that a signal has ended here, in the one cylinder that there is."""
        if not self._attempts.are_running:
            self._attempts.end_running(GRACE)

    def _record_held(self) -> None:
        held, self._held = self._held, []
        for owner, outcome in held:
            self._record(owner, outcome)

    def _believe(self, count: int) -> None:
        believed, self._doubted = self._doubted[:count], self._doubted[count:]
        for owner, outcome in believed:
            self._record(owner, outcome)

    def _record(self, owner: Owner, outcome: Outcome) -> None:
        if isinstance(owner, PerEngineTask):
            self._send(messages.PerEngineTaskEnded(self._rank, owner, outcome))
        else:
            task_id = owner[1].task_id
            self._freed.discard(task_id)
            self._reports.append(messages.TaskReport(task_id, outcome))

    def end_turn(self) -> None:
        """Do what is left to be done in this turn of the loop, after its events."""
        if self._children_ended:
            # After the turn's other events: pipes that have closed by now make an outcome complete at once.
            self._children_ended = False
            self._attempts.reap()
        self._report_if_due()

    def _report_if_due(self) -> None:
        """Report, unless nobody loses by waiting for more to report: as long as tasks wait here for cylinders."""
        if not (self._reports or self._freed):
            return
        if not self._roster.has_waiting:
            self._report()
        elif self._report_later is None:
            self._report_later = self._loop.after(messages.REPORT_DELAY, self._report)

    def _report(self) -> None:
        """Send what has become known since the last time: outcomes as one message, and what they are late for."""
        if self._report_later is not None:
            self._report_later.cancel()
            self._report_later = None
        if self._freed:
            self._send(messages.CylindersFreed(self._rank, tuple(self._freed)))
            self._freed.clear()
        if self._reports:
            self._send(messages.TasksEnded(self._rank, tuple(self._reports)))
            self._reports.clear()

    def _perform(self, commands: Sequence[roster.Command]) -> None:
        for command in commands:
            if isinstance(command, roster.StartTask):
                self._start(command.task, command.cylinder)
            elif isinstance(command, roster.StartPerEngineTask):
                task = command.task
                self._log.info("%s command %d", task.phase.value, task.task_id)
                self._attempts.start(task, task.command, self._environment.of_per_engine_task(task))
            elif isinstance(command, roster.TellReady):
                self._send(messages.EngineReady(self._rank, self._roster.cylinders))
            elif isinstance(command, roster.TellCylinders):
                self._send(messages.CylindersChanged(self._rank, self._roster.cylinders))
            elif isinstance(command, roster.ReturnTasks):
                self._send(messages.TasksReturned(self._rank, command.task_ids))
            elif isinstance(command, roster.EndRunning):
                self._end_running()
            elif isinstance(command, roster.Leave):
                self._leave()

    def _start(self, task: Task, cylinder: int) -> None:
        self._spare_what_is_left()
        self._may_be_left = False
        if self._ranks is not None and self._ranks.have(cylinder):
            self._ranks.start(task, cylinder)
        else:
            self._attempts.start((cylinder, task), task.command, self._environment.of_task(task, cylinder))

    def _end_running(self) -> None:
        self._attempts.end_running(self._grace)
        if self._ranks is not None:
            self._ranks.end_running(self._grace)

    def _leave(self) -> None:
        """Leave when what commands left behind has ended, here and in the other processes at the same time."""
        grace = min(self._grace, GRACE)
        if self._ranks is not None:
            self._ranks.finish(grace, then=self._one_has_left)
        self._attempts.end_lingering(grace, then=self._one_has_left)

    def _one_has_left(self) -> None:
        self._to_leave -= 1
        if not self._to_leave:
            self._believe(len(self._doubted))
            self._record_held()
            self._report()
            self.has_left = True


def enter(directory: bytes) -> str:
    """Make `directory` the working directory of this process, which its tasks inherit; what is wrong if it cannot."""
    try:
        os.chdir(directory)
    except OSError as error:
        return f"cannot change to the run's directory {os.fsdecode(directory)}: {error.strerror}"
    return ""


def send_rest(loop: EventLoop, channel: Channel) -> None:
    """Let what was said last be sent, for `FAREWELL_LIMIT` at most."""
    deadline = loop.now() + FAREWELL_LIMIT
    while channel.open and channel.unsent and loop.now() < deadline:
        loop.turn(deadline - loop.now())
