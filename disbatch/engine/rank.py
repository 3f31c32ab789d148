"""The process of one cylinder, where an engine's cylinders are processes: to its engine what that is to the driver.

Tasks run below it, one at a time and in its own environment; it ends them when the engine has gone. It must not know
the driver.
"""

from __future__ import annotations

import os
import signal
import time

from disbatch import messages
from disbatch.engine import link, roster
from disbatch.engine.environment import TaskEnvironment
from disbatch.engine.service import DOUBT, GRACE, Service, enter, send_rest
from disbatch.errors import DisbatchError
from disbatch.joining import open_log
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.runfiles import RunFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from disbatch.engine.link import Link
    from disbatch.eventloop import EventLoop
    from disbatch.options import EngineRoleOptions

SEEKING_PATIENCE = 30.0
"""Seconds for which a rank looks for its engine, which may start later."""

SEEKING_PAUSE = 0.01
"""Seconds between two looks."""


class Rank:
    """The process of `place`, from looking for its engine to leaving it."""

    def __init__(self, asked: EngineRoleOptions, place: int, loop: EventLoop) -> None:
        self._asked = asked
        self._place = place
        self._loop = loop
        self._keeper = os.getppid()
        self._log = open_log(RunFiles(asked.run).engine_log(asked.label, asked.node, asked.rank), asked.log_level)
        self._name = link.address(asked.run, asked.rank, os.environ.get(SECRET_VARIABLE, ""))
        self._link: Link | None = None
        self._service: Service | None = None
        self._grace = GRACE
        self._ended = False
        self._given_up = False

    def run(self) -> None:
        """Serve until there is nothing more to do; raises `DisbatchError` when there is no engine to serve."""
        self._loop.on_request_to_end(self._told_to_end)
        self._loop.on_signal(signal.SIGUSR1, self._told_to_drain)
        self._loop.after(SEEKING_PATIENCE, self._give_up)
        self._seek()
        while not self._ended:
            self._loop.turn()
            if self._service is not None:
                self._service.end_turn()
                if self._service.has_left:
                    self._ended = True
        if self._given_up:
            raise DisbatchError(f"the process of place {self._place} has found no engine in {SEEKING_PATIENCE:g} s")
        self._say_goodbye()

    def _seek(self) -> None:
        connected = link.connect(self._name)
        if connected is None:
            self._loop.after(SEEKING_PAUSE, self._seek)
            return
        self._link = link.Link(self._loop, connected, self._take, self._engine_lost)
        self._link.send(messages.RankCame(self._place))

    def _give_up(self) -> None:
        if self._link is None:
            self._given_up = self._ended = True

    def _take(self, message: messages.Message) -> None:
        if isinstance(message, messages.EngineAdmitted):
            self._be_admitted(message)
        elif self._service is None:
            self._ended = True  # refused, or told to end before there was anything to end
        elif isinstance(message, messages.RunTasks):
            self._service.decide(roster.TasksCame(message.tasks))
        elif isinstance(message, messages.CancelEngine):
            self._service.end_running(message.grace)
        elif isinstance(message, messages.FinishEngine):
            self._service.decide(roster.FinishAsked())

    def _be_admitted(self, settings: messages.EngineAdmitted) -> None:
        problem = enter(settings.directory)
        environment = TaskEnvironment(os.environb, settings, self._asked.rank)
        if not problem and self._place >= environment.cylinders:
            shared = " or ".join(settings.environment_resources)
            problem = f"no element number {self._place} in {shared} to give to a task"
        if problem:
            self._send(messages.EngineUnfit(self._asked.rank, problem))
            self._ended = True
            return
        self._grace = min(GRACE, settings.lease.grace)
        self._service = Service(self._asked.rank, self._loop, environment, (self._place,), (), self._send, self._log)

    def _send(self, message: messages.FromEngine) -> None:
        if self._link is not None:
            self._link.send(message)

    def _engine_lost(self, reason: str) -> None:
        self._log.warning("place %d: lost the engine: %s", self._place, reason)
        self._cancel()

    def _told_to_end(self, number: signal.Signals) -> None:
        """End what runs only if nobody else will: who wants a whole engine to end signals all of its processes."""
        keeper_has_gone = os.getppid() != self._keeper
        self._log.info("place %d: got %s%s", self._place, number.name, "; the keeper has gone" * keeper_has_gone)
        if self._link is None or keeper_has_gone:
            self._cancel()

    def _told_to_drain(self) -> None:
        """Go on: the engine has got the signal too, and ends this process when it has drained.

        A task may have died of it, and have left something behind; one that lives through it goes on.
        """
        self._log.info("place %d: got SIGUSR1", self._place)
        if self._service is not None:
            self._loop.after(DOUBT, self._service.end_leftovers)

    def _cancel(self) -> None:
        if self._service is None:
            self._ended = True
        else:
            self._service.cancel(self._grace, stop_commands=False)

    def _say_goodbye(self) -> None:
        self._send(messages.EngineLeft(self._asked.rank))
        if self._link is not None:
            send_rest(self._loop, self._link)
            self._link.close()
        self._log.info("place %d: leaving, having used %.3f s of CPU", self._place, time.process_time())
