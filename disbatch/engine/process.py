"""The engine as a process: takes messages, starts and reaps commands, sends reports.

A thin shell: `roster` decides, `_perform` does. Everything happens in the turns of one loop over one connection.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial

from disbatch import __version__, descriptors, messages, options
from disbatch.engine import keeper, roster
from disbatch.engine.attempts import Attempts
from disbatch.engine.environment import TaskEnvironment
from disbatch.engine.launchers import launcher, limiting
from disbatch.errors import DisbatchError
from disbatch.eventloop import EventLoop
from disbatch.joining import connect, open_log
from disbatch.mailbox import Mailbox
from disbatch.runfiles import RunFiles
from disbatch.tasks import Outcome, PerEngineTask, Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from disbatch.eventloop import Timer
    from disbatch.log import Log
    from disbatch.options import EngineRoleOptions

GRACE = 3.0
"""Seconds between TERM and KILL where the driver names no grace: it is gone, or the engine itself was told to end."""

STOP_LIMIT = 5.0
"""Seconds that STOP commands may take together when the driver is gone."""

REPORT_DELAY = 0.005
"""Seconds that reports may wait for others while every cylinder has its next task here already."""

FAREWELL_LIMIT = 5.0
"""Seconds that the last reports may take to be sent."""

DESCRIPTORS_PER_CYLINDER = 2
DESCRIPTORS_BESIDES = 64

Owner = PerEngineTask | tuple[int, Task]
"""What a command is run for: a START or STOP command, or a task in a cylinder."""


class Engine:
    """The engine's side of its connection: what it is told, and what it tells."""

    def __init__(self, asked: EngineRoleOptions, loop: EventLoop) -> None:
        self._rank = asked.rank
        self._loop = loop
        files = RunFiles(asked.run)
        self._mailbox = Mailbox(
            loop,
            connect(asked.kvs),
            messages.engine_key(files.job, self._rank),
            messages.driver_key(files.job),
            self._take,
            self._driver_lost,
        )
        self._mailbox.send(messages.EngineCame(self._rank, __version__, os.uname().nodename, os.getpid()))
        try:
            self._log = open_log(files.engine_log(asked.label, asked.node, self._rank), asked.log_level)
        except DisbatchError as error:
            self._mailbox.send(messages.EngineUnfit(self._rank, str(error)))
            self._mailbox.close()
            raise
        self._log.info("engine %d on %s, pid %d, version %s", self._rank, asked.node, os.getpid(), __version__)
        self._service: Service | None = None
        self._children_ended = False
        self._ended = False

    def run(self) -> None:
        """Serve until there is nothing more to do."""
        self._loop.on_signal(signal.SIGCHLD, self._note_children)
        self._loop.on_request_to_end(self._told_to_end)
        while not self._ended:
            self._loop.turn()
            if self._service is not None:
                if self._children_ended:
                    # After the turn's other events: pipes that have closed by now make an outcome complete at once.
                    self._children_ended = False
                    self._service.attempts.reap()
                self._service.report_if_due()
                if self._service.has_left:
                    self._ended = True
        self._say_goodbye()

    def _note_children(self) -> None:
        self._children_ended = True

    def _take(self, message: messages.Message) -> None:
        if isinstance(message, messages.EngineAdmitted):
            self._be_admitted(message)
        elif isinstance(message, messages.EngineRefused):
            self._log.warning("refused: %s", message.reason)
            self._ended = True
        elif self._service is None:
            self._ended = True  # told to end before there was anything to end
        elif isinstance(message, messages.RunTasks):
            self._service.decide(roster.TasksCame(message.tasks))
        elif isinstance(message, messages.ReturnTasks):
            self._service.decide(roster.ReturnAsked())
        elif isinstance(message, messages.FinishEngine):
            self._log.info("told to finish")
            self._service.decide(roster.FinishAsked())
        elif isinstance(message, messages.CancelEngine):
            self._log.info("told to cancel; grace %g s", message.grace)
            self._service.cancel(message.grace, stop_commands=message.stop_commands)

    def _be_admitted(self, settings: messages.EngineAdmitted) -> None:
        problem = _enter(settings.directory)
        environment = TaskEnvironment(os.environb, settings, self._rank)
        if not problem and not environment.cylinders:
            problem = f"no element in {' or '.join(environment.empty)} to give to a task"
        if problem:
            self._log.error("cannot serve: %s", problem)
            self._mailbox.send(messages.EngineUnfit(self._rank, problem))
            self._ended = True
            return
        self._log.info("admitted; %d cylinders", environment.cylinders)
        self._service = Service(
            self._rank, self._loop, environment, settings.per_engine_tasks, self._mailbox.send, self._log
        )

    def _driver_lost(self, reason: str) -> None:
        self._log.warning("lost the driver: %s", reason)
        self._cancel_all()
        if self._service is not None:
            self._loop.after(GRACE + STOP_LIMIT, partial(self._service.cancel, 0.0, stop_commands=False))

    def _told_to_end(self, number: signal.Signals) -> None:
        self._log.warning("got %s", number.name)
        self._cancel_all()

    def _cancel_all(self) -> None:
        if self._service is None:
            self._ended = True
        else:
            self._service.cancel(GRACE, stop_commands=True)

    def _say_goodbye(self) -> None:
        self._mailbox.send(messages.EngineLeft(self._rank))
        deadline = self._loop.now() + FAREWELL_LIMIT
        while self._mailbox.open and self._mailbox.unsent and self._loop.now() < deadline:
            self._loop.turn(deadline - self._loop.now())
        self._log.info("leaving, having used %.3f s of CPU", time.process_time())
        self._mailbox.close()


class Service:
    """An admitted engine at work: the commands of its roster performed, what comes of them reported."""

    def __init__(
        self,
        rank: int,
        loop: EventLoop,
        environment: TaskEnvironment,
        per_engine_tasks: Sequence[PerEngineTask],
        send: Callable[[messages.ToDriver], None],
        log: Log,
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
        self._cylinders = min(
            environment.cylinders, max(1, (descriptors.room() - DESCRIPTORS_BESIDES) // DESCRIPTORS_PER_CYLINDER)
        )
        if self._cylinders < environment.cylinders:
            log.warning("%d cylinders only: this machine's limit of open files allows no more", self._cylinders)
        self.attempts = Attempts(loop, launch, self._command_ended, self._outcome_known)
        self._reports: list[messages.TaskReport] = []
        self._freed: set[int] = set()
        self._report_later: Timer | None = None
        self._grace = GRACE
        self.has_left = False
        self._roster = roster.Roster(self._cylinders, per_engine_tasks)
        self._perform(self._roster.begin())

    def cancel(self, grace: float, *, stop_commands: bool) -> None:
        """End what runs, TERM first and KILL after `grace` seconds; then STOP commands where wanted; then leave."""
        self._grace = grace
        self.decide(roster.CancelAsked(stop_commands))

    def decide(self, event: roster.Event) -> None:
        """Let the roster decide what follows from `event`, and do it."""
        self._perform(self._roster.handle(event))

    def _command_ended(self, owner: Owner) -> None:
        if isinstance(owner, PerEngineTask):
            self.decide(roster.PerEngineTaskDone())
        else:
            cylinder, task = owner
            self._freed.add(task.task_id)
            self.decide(roster.CylinderFreed(cylinder))

    def _outcome_known(self, owner: Owner, outcome: Outcome) -> None:
        if isinstance(owner, PerEngineTask):
            self._send(messages.PerEngineTaskEnded(self._rank, owner, outcome))
        else:
            task_id = owner[1].task_id
            self._freed.discard(task_id)
            self._reports.append(messages.TaskReport(task_id, outcome))

    def report_if_due(self) -> None:
        """Report, unless nobody loses by waiting for more to report: as long as tasks wait here for cylinders."""
        if not (self._reports or self._freed):
            return
        if not self._roster.has_waiting:
            self._report()
        elif self._report_later is None:
            self._report_later = self._loop.after(REPORT_DELAY, self._report)

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
                environment = self._environment.of_task(command.task, command.cylinder)
                self.attempts.start((command.cylinder, command.task), command.task.command, environment)
            elif isinstance(command, roster.StartPerEngineTask):
                task = command.task
                self._log.info("%s command %d", task.phase.value, task.task_id)
                self.attempts.start(task, task.command, self._environment.of_per_engine_task(task))
            elif isinstance(command, roster.TellReady):
                self._send(messages.EngineReady(self._rank, self._cylinders))
            elif isinstance(command, roster.ReturnTasks):
                self._send(messages.TasksReturned(self._rank, command.task_ids))
            elif isinstance(command, roster.EndRunning):
                self.attempts.end_running(self._grace)
            elif isinstance(command, roster.Leave):
                self.attempts.end_lingering(min(self._grace, GRACE), then=self._leave)

    def _leave(self) -> None:
        self._report()
        self.has_left = True


def _enter(directory: bytes) -> str:
    """Make `directory` the working directory of this process, which its tasks inherit; what is wrong if it cannot."""
    try:
        os.chdir(directory)
    except OSError as error:
        return f"cannot change to the run's directory {os.fsdecode(directory)}: {error.strerror}"
    return ""


def main(arguments: Sequence[str]) -> int:
    """Be an engine; the exit status."""
    asked = options.parse_engine(arguments, "disbatch --engine")
    keeper.fork_from_keeper()
    descriptors.keep_from_children()
    loop = EventLoop()
    Engine(asked, loop).run()
    loop.close()
    keeper.kill_children()
    sys.stdout.flush()
    return 0
