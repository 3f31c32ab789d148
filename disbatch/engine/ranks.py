"""The processes of an engine's other cylinders, as the engine sees them: who there is, and what runs where.

A resource manager may give each cylinder a process, with cores and devices of its own; tasks are to run below it. The
engine is the process of place 0; each other one, a rank (`rank`), connects to it, says its place, and runs the tasks
of that one cylinder. It must not know the driver, nor which task comes next: it tells what has happened in events of
the roster, and of tasks as `attempts` does.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from functools import partial

from disbatch import messages
from disbatch.engine import keeper, link, roster
from disbatch.eventloop import READ
from disbatch.records import replace
from disbatch.tasks import LOST, Task, lost_outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from disbatch.engine.link import Link
    from disbatch.eventloop import EventLoop
    from disbatch.log import Log
    from disbatch.tasks import Outcome

    class Employer(Protocol):
        """Whom to tell what has happened; see `service`."""

        def decide(self, event: roster.Event) -> None:
            """Take note of a cylinder that came or went."""

        def command_ended(self, owner: tuple[int, Task]) -> None:
            """Take note that a cylinder is free again."""

        def outcome_known(self, owner: tuple[int, Task], outcome: Outcome) -> None:
            """Take note of how a task ended."""


COMING_PATIENCE = 20.0
"""Seconds from the engine's admission for which it waits for ranks to come before it takes tasks."""

LEAVING_PATIENCE = 3.0
"""Seconds that a rank may take to leave, beyond the grace that it gives to what its tasks left behind."""

CLEARING_PATIENCE = keeper.PATIENCE + 1.0
"""Seconds that the keeper of a rank may take to kill what that has left behind."""

CLEARING_CHECK = 0.01
"""Seconds between two looks at whether it has."""


class _Attempt:
    """A task that a rank was given and has not reported; `freed` when its bash has ended."""

    __slots__ = ("freed", "start", "started", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.freed = False
        self.start = time.time()
        self.started = time.monotonic()

    def failed(self, return_code: int, reason: str, *, interrupted: bool = False) -> Outcome:
        """Outcome of a task of which no more is known than this."""
        elapsed = time.monotonic() - self.started
        return lost_outcome(reason, self.start, elapsed, return_code=return_code, interrupted=interrupted)


class _Rank:
    """A process that has connected: `place` is None until it says so, `serves` when it runs tasks.

    `keeper` is the pid of the process that ends what this one leaves behind, and then itself.
    """

    def __init__(self) -> None:
        self.place: int | None = None
        self.link: Link
        self.keeper = 0
        self.serves = False
        self.attempts: dict[int, _Attempt] = {}


class Ranks:
    """Takes in the processes that connect to `listener`, and gives them tasks.

    `settings` are the engine's, which a rank is to serve under too; there is a rank expected for each cylinder that
    they name but the first. `node` is what the node is called where a task's error output tells of it.
    """

    def __init__(
        self,
        loop: EventLoop,
        listener: socket.socket,
        settings: messages.EngineAdmitted,
        node: str,
        log: Log,
        employer: Employer,
    ) -> None:
        self._loop = loop
        self._listener = listener
        # START and STOP commands are the engine's, and need not fit into a packet.
        self._settings = replace(settings, per_engine_tasks=())
        self._node = node
        self._log = log
        self._employer = employer
        self._connected: set[_Rank] = set()
        self._at: dict[int, _Rank] = {}
        """Ranks that were let in, by their places."""
        self._awaited = set(range(1, settings.cylinders))
        self._settled = False
        self._then: Callable[[], None] | None = None
        self._finishing = False
        loop.watch(listener.fileno(), READ, self._accept)
        loop.after(0 if not self._awaited else COMING_PATIENCE, self._settle)

    # Coming.

    def _accept(self, _mask: int) -> None:
        connected = link.accept(self._listener)
        if connected is not None:
            rank = _Rank()
            rank.link = link.Link(self._loop, connected, partial(self._take, rank), partial(self._lost, rank))
            self._connected.add(rank)

    def _let_in(self, rank: _Rank, place: int) -> None:
        reason = ""
        if not 0 < place < self._settings.cylinders:
            reason = f"there is no place {place} among {self._settings.cylinders}"
        elif place in self._at:
            reason = f"there is another process of place {place}"
        elif self._finishing:
            reason = "its engine is about to leave"
        if reason:
            self._log.warning("refused process %d: %s", rank.link.peer, reason)
            rank.link.send(messages.EngineRefused(reason))
            return
        rank.place = place
        rank.keeper = keeper.parent_of(rank.link.peer)
        self._at[place] = rank
        rank.link.send(self._settings)

    def _answered(self, place: int) -> None:
        """Take note that there is no more to wait for from that place."""
        self._awaited.discard(place)
        if not self._awaited:
            self._settle()

    def _settle(self) -> None:
        if not self._settled:
            self._settled = True
            if self._awaited:
                places = ", ".join(map(str, sorted(self._awaited)))
                self._log.warning("not waiting any longer for the processes of places %s", places)
            self._employer.decide(roster.CylindersSettled())

    # What comes from ranks.

    def _take(self, rank: _Rank, message: messages.Message) -> None:
        if rank.place is None:
            if isinstance(message, messages.RankCame):
                self._let_in(rank, message.place)
        elif isinstance(message, messages.TasksEnded):
            self._tasks_ended(rank, rank.place, message.reports)
        elif isinstance(message, messages.CylindersFreed):
            for task_id in message.task_ids:
                self._command_ended(rank, rank.place, task_id)
        elif isinstance(message, messages.EngineReady):
            self._log.info("the process of place %d, pid %d, serves", rank.place, rank.link.peer)
            rank.serves = True
            self._employer.decide(roster.CylinderCame(rank.place))
            self._answered(rank.place)
        elif isinstance(message, messages.EngineUnfit):
            self._log.warning("the process of place %d cannot serve: %s", rank.place, message.reason)
            self._answered(rank.place)
        elif isinstance(message, messages.EngineLeft):
            # What it had begun it has reported: this order and its leaving have crossed.
            unbegun = f"disbatch: the process of place {rank.place} left before it began this task"
            self._remove(rank, -signal.SIGTERM, unbegun, interrupted=True)

    def _tasks_ended(self, rank: _Rank, place: int, reports: Sequence[messages.TaskReport]) -> None:
        for report in reports:
            self._command_ended(rank, place, report.task_id)
            attempt = rank.attempts.pop(report.task_id, None)
            if attempt is not None:
                self._employer.outcome_known((place, attempt.task), report.outcome)

    def _command_ended(self, rank: _Rank, place: int, task_id: int) -> None:
        attempt = rank.attempts.get(task_id)
        if attempt is not None and not attempt.freed:
            attempt.freed = True
            self._employer.command_ended((place, attempt.task))

    def _lost(self, rank: _Rank, reason: str) -> None:
        if rank.place is not None:
            self._log.warning("lost the process of place %d: %s", rank.place, reason)
        gone = f"disbatch: the process of place {rank.place} on {self._node} has gone, and this task with it"
        self._remove(rank, LOST, gone, interrupted=False)

    def _remove(self, rank: _Rank, return_code: int, reason: str, *, interrupted: bool) -> None:
        """Count on a rank no longer; what it was given and has not reported has ended so."""
        rank.link.close()
        place = rank.place
        if place is not None and self._at.get(place) is rank:
            del self._at[place]
            if rank.serves and not self._finishing:
                self._employer.decide(roster.CylinderLost(place))
            self._answered(place)
        attempts, rank.attempts = rank.attempts, {}
        owned = () if place is None else [((place, attempt.task), attempt) for attempt in attempts.values()]
        outcomes = [(owner, attempt.failed(return_code, reason, interrupted=interrupted)) for owner, attempt in owned]
        self._part_with(rank, outcomes, self._loop.now() + (0.0 if interrupted else CLEARING_PATIENCE))

    def _part_with(self, rank: _Rank, outcomes: Sequence[tuple[tuple[int, Task], Outcome]], deadline: float) -> None:
        """Tell how its tasks ended, when nothing of them runs any more: others may be about to run them again."""
        if outcomes and self._loop.now() < deadline and keeper.parent_of(rank.keeper):
            self._loop.after(CLEARING_CHECK, partial(self._part_with, rank, outcomes, deadline))
            return
        for owner, outcome in outcomes:
            self._employer.outcome_known(owner, outcome)
        self._connected.discard(rank)
        self._leave_if_alone()

    # What the engine wants.

    def have(self, cylinder: int) -> bool:
        """Whether the tasks of that cylinder run below a rank."""
        return cylinder in self._at

    def start(self, task: Task, cylinder: int) -> None:
        """Start a task in a cylinder for which there is a rank; one that fits in no packet ends in the next turn."""
        rank = self._at[cylinder]
        attempt = _Attempt(task)
        rank.attempts[task.task_id] = attempt
        if not rank.link.send(messages.RunTasks((task,))):
            reason = f"disbatch could not start this task: {os.strerror(errno.E2BIG)}"
            outcome = attempt.failed(errno.E2BIG, reason)
            report = messages.TasksEnded(cylinder, (messages.TaskReport(task.task_id, outcome),))
            self._loop.after(0, lambda: self._take(rank, report))

    def end_running(self, grace: float) -> None:
        """Ask all that runs to end, and have killed what is left of it after `grace` seconds."""
        for rank in self._at.values():
            rank.link.send(messages.CancelEngine(grace, stop_commands=False))

    def finish(self, grace: float, then: Callable[[], None]) -> None:
        """Let each rank end what its tasks left behind, and leave; call `then` when all have, or have had the time."""
        self._finishing = True
        self._then = then
        for rank in self._connected:
            rank.link.send(messages.FinishEngine())
        self._loop.after(grace + LEAVING_PATIENCE, self._leave_alone)
        self._leave_if_alone()

    def _leave_alone(self) -> None:
        for rank in list(self._connected):
            if rank.link.open:
                self._lost(rank, "it did not leave in time")

    def _leave_if_alone(self) -> None:
        if self._finishing and not self._connected and self._then is not None:
            then, self._then = self._then, None
            then()
