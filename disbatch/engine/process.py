"""The engine as a process: takes the driver's messages, and hands them to what serves.

A thin shell. Everything happens in the turns of one loop over one connection.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from math import inf

from disbatch import __version__, descriptors, messages, options
from disbatch.engine import keeper, roster
from disbatch.engine.environment import TaskEnvironment
from disbatch.engine.service import DOUBT, GRACE, Service, enter, send_rest
from disbatch.errors import DisbatchError
from disbatch.eventloop import EventLoop
from disbatch.joining import client, connect, open_log
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.mailbox import Mailbox
from disbatch.runfiles import RunFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from disbatch.options import EngineRoleOptions

TELLING_PATIENCE = 3.0
"""Seconds that connecting to the driver may take to the keeper of an engine that was killed."""

KILLED_AFTER = 1.2
"""How many graces after the end of a lease all has got its KILL for sure; the keeper gives one and a half."""

STOP_LIMIT = 5.0
"""Seconds that STOP commands may take together when the driver is gone."""


class Engine:
    """The engine's side of its connection: what it is told, and what it tells."""

    def __init__(self, asked: EngineRoleOptions, loop: EventLoop, kept: keeper.Lease) -> None:
        self._rank = asked.rank
        self._node = asked.node
        self._loop = loop
        # First of all, for the ranks to find; they wait until the engine is admitted.
        self._listener = _listen(asked) if asked.place_variable else None
        files = RunFiles(asked.run)
        self._mailbox = Mailbox(
            loop,
            connect(asked.kvs),
            partial(connect, asked.kvs),
            files.job,
            messages.engine_name(self._rank),
            self._take,
            self._driver_lost,
        )
        self._kept = kept
        self._grace = GRACE
        self._mailbox.send(messages.EngineCame(self._rank, __version__, os.uname().nodename, os.getpid()))
        try:
            self._log = open_log(files.engine_log(asked.label, asked.node, self._rank), asked.log_level)
        except DisbatchError as error:
            self._mailbox.send(messages.EngineUnfit(self._rank, str(error)))
            self._mailbox.close()
            raise
        self._mailbox.on_news = self._log.info
        self._log.info("engine %d on %s, pid %d, version %s", self._rank, asked.node, os.getpid(), __version__)
        self._service: Service | None = None
        self._ended = False

    def run(self) -> None:
        """Serve until there is nothing more to do."""
        self._loop.on_request_to_end(self._told_to_end)
        self._loop.on_signal(signal.SIGUSR1, self._told_to_drain)
        while not self._ended:
            self._loop.turn()
            if self._service is not None:
                self._service.end_turn()
                if self._service.has_left:
                    self._ended = True
        self._say_goodbye()

    def _take(self, message: messages.Message) -> None:
        if isinstance(message, messages.EngineAdmitted):
            self._be_admitted(message)
        elif isinstance(message, messages.EngineRefused):
            self._log.warning("refused: %s", message.reason)
            self._cancel_all(self._grace)
        elif self._service is None:
            self._ended = True  # told to end before there was anything to end
        elif isinstance(message, messages.RunTasks):
            if self._mailbox.lapsed:
                self._mailbox.send(messages.TasksReturned(self._rank, tuple(task.task_id for task in message.tasks)))
            else:
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
        problem = enter(settings.directory)
        environment = TaskEnvironment(os.environb, settings, self._rank)
        if not problem and not environment.cylinders:
            problem = f"no element in {' or '.join(environment.empty)} to give to a task"
        if problem:
            self._log.error("cannot serve: %s", problem)
            self._mailbox.send(messages.EngineUnfit(self._rank, problem))
            self._ended = True
            return
        self._log.info("admitted; %d cylinders", environment.cylinders)
        recruit = None
        if self._listener is not None:
            from disbatch.engine.ranks import Ranks  # noqa: PLC0415 - few engines need it

            recruit = partial(Ranks, self._loop, self._listener, settings, self._node, self._log)
        self._service = Service(
            self._rank,
            self._loop,
            environment,
            range(environment.cylinders if recruit is None else 1),
            settings.per_engine_tasks,
            self._mailbox.send,
            self._log,
            recruit,
        )
        self._keep(settings.lease)

    # The lease, and its end.

    def _keep(self, lease: messages.Lease) -> None:
        """End what runs when the lease has ended; the keeper does it, a grace later, if this process is stopped."""
        self._grace = min(GRACE, lease.grace)
        self._mailbox.on_lapse = self._lapse
        self._mailbox.on_renewal = lambda end: self._kept.renew(end + 1.5 * lease.grace)
        self._mailbox.keep(lease)

    def _lapse(self) -> None:
        self._log.warning("the driver does not answer: what runs here is ended, as others may be given it")
        if self._service is not None:
            self._service.end_all(self._grace)
            self._loop.after(KILLED_AFTER * self._grace, self._end_lease)

    def _end_lease(self) -> None:
        """Let the keeper wait no longer for what has been done, unless there is a lease again."""
        if self._mailbox.lapsed or not self._mailbox.open:
            self._kept.renew(inf)

    def _driver_lost(self, reason: str) -> None:
        self._log.warning("lost the driver: %s", reason)
        if self._service is None:
            self._ended = True
        else:
            self._service.end_all(self._grace)
            self._service.decide(roster.FinishAsked())
            self._loop.after(KILLED_AFTER * self._grace, self._end_lease)
            self._loop.after(self._grace + STOP_LIMIT, partial(self._service.cancel, 0.0, stop_commands=False))

    def _told_to_end(self, number: signal.Signals) -> None:
        self._log.warning("got %s", number.name)
        if self._service is not None:
            self._service.signalled()
            self._mailbox.send(messages.EngineToldToEnd(self._rank))
        self._cancel_all()

    def _told_to_drain(self) -> None:
        """Ask the driver to let this engine finish; its tasks may have got the signal too, and some die of it."""
        self._log.info("got SIGUSR1")
        if self._service is not None:
            self._service.signalled(DOUBT)
        self._mailbox.send(messages.EngineToldToDrain(self._rank))

    def _cancel_all(self, grace: float = GRACE) -> None:
        if self._service is None:
            self._ended = True
        else:
            self._service.cancel(grace, stop_commands=True)

    def _say_goodbye(self) -> None:
        self._mailbox.send(messages.EngineLeft(self._rank))
        send_rest(self._loop, self._mailbox)
        self._log.info("leaving, having used %.3f s of CPU", time.process_time())
        self._mailbox.close()


def _listen(asked: EngineRoleOptions) -> socket.socket:
    """Socket at which the engine's ranks find it."""
    from disbatch.engine import link  # noqa: PLC0415 - few engines need it

    name = link.address(asked.run, asked.rank, os.environ.get(SECRET_VARIABLE, ""))
    try:
        return link.listen(name)
    except OSError as error:
        raise DisbatchError(f"cannot listen for the processes of this engine: {error.strerror}") from error


def place_of(asked: EngineRoleOptions, environment: Mapping[str, str]) -> int:
    """Which of its engine's processes this is, 0 for the engine itself; raises `DisbatchError` if that is not said."""
    if not asked.place_variable:
        return 0
    value = environment.get(asked.place_variable, "")
    if not (value.isascii() and value.isdigit()):
        problem = f"{asked.place_variable} is {value!r}, and not the number of a process of this engine"
        raise DisbatchError(problem)
    return int(value)


def _tell_of_end(asked: EngineRoleOptions) -> None:
    """Tell the driver, as the keeper of an engine that was killed, that nothing of it runs any more."""
    if not asked.place_variable:  # of its other processes this one knows nothing
        store = client(asked.kvs, TELLING_PATIENCE)
        message = messages.EngineCleared(asked.rank)
        store.put(messages.driver_key(RunFiles(asked.run).job), messages.encode(message), messages.TAG.decode())
        store.close()


def main(arguments: Sequence[str]) -> int:
    """Be an engine; the exit status."""
    asked = options.parse_engine(arguments, "disbatch --engine")
    place = place_of(asked, os.environ)
    kept = keeper.fork_from_keeper(partial(_tell_of_end, asked))
    descriptors.keep_from_children()
    loop = EventLoop()
    if place:
        from disbatch.engine.rank import Rank  # noqa: PLC0415 - no engine needs it

        Rank(asked, place, loop).run()
    else:
        Engine(asked, loop, kept).run()
    # A resource manager sends TERM more than once: the last may be for one who has done all that it asked for.
    signal.pthread_sigmask(signal.SIG_BLOCK, keeper.FORWARDED)
    loop.close()
    keeper.kill_descendants()
    sys.stdout.flush()
    return 0
