"""The driver's turns: what comes in becomes events, `_perform` does what the controller answers.

A thin shell. All of a turn's records are written before anything that follows from them is sent or announced.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from disbatch import descriptors, messages, statusfile
from disbatch.driver import events, snapshot
from disbatch.driver.publisher import Publisher
from disbatch.driver.store import OtherStore, OwnStore
from disbatch.errors import DisbatchError, ExitStatus, MessageError
from disbatch.kvsstcp import wire
from disbatch.kvsstcp.server import Server
from disbatch.launching import Launched
from disbatch.records import record

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from disbatch.driver.controller import Controller
    from disbatch.driver.feeder import Feeder
    from disbatch.driver.recorder import Recorder
    from disbatch.driver.store import PublicStore
    from disbatch.driver.submissions import Submissions
    from disbatch.eventloop import EventLoop
    from disbatch.log import Log

FAREWELL_LIMIT = 2.0
"""Seconds that the last messages may take to be sent."""

STARTING = b"<Starting...>"
"""What is posted until there is a state; from the documentation of the existing tool."""

EXIT_STATUS_OF_SIGNAL = {
    signal.SIGINT: ExitStatus.INTERRUPTED,
    signal.SIGTERM: ExitStatus.TERMINATED,
    signal.SIGHUP: ExitStatus.TERMINATED,
}


@record
class OwnContext:
    """How the driver starts its own context: arguments, environment, and the file that takes what it prints."""

    command: Sequence[str]
    environment: dict[str, str]
    output: str


class DriverLoop:
    """Joins the controller of a run with everything around it.

    `on_recorded` gets the lines of each turn that has any, once they are in the status file; it must not block.
    """

    def __init__(
        self,
        loop: EventLoop,
        controller: Controller,
        recorder: Recorder,
        job: str,
        own_context: OwnContext,
        log: Log,
        tell: Callable[[str], None],
        on_recorded: Callable[[Sequence[bytes]], None] | None = None,
    ) -> None:
        self._loop = loop
        self._controller = controller
        self._recorder = recorder
        self._job = job
        self._own_context = own_context
        self._log = log
        self._tell = tell
        self._on_recorded = on_recorded
        self._server: Server | None = None
        self._stores: list[PublicStore] = []
        self._publisher = Publisher(loop, self._publish)
        self._feeder: Feeder | Submissions | None = None
        self._inbox: deque[events.Event] = deque()
        self._peers: dict[int, events.EngineLost | events.ContextLost] = {}
        self._known: set[events.EngineLost | events.ContextLost] = set()
        """What stands in `_peers`, to be found there among thousands."""
        self._context_process: Launched | None = None
        self._host = os.uname().nodename
        self._pid = os.getpid()
        self._end: events.EndRun | None = None
        self._lines: list[bytes] = []
        """What is not in the status file yet."""
        self._former_limit = descriptors.make_room(descriptors.MANY)  # a connection for each engine
        # From the beginning: a signal may come before anything else does.
        self._loop.on_request_to_end(
            lambda number: self.happened(events.SignalCame(number.name, EXIT_STATUS_OF_SIGNAL[number]))
        )
        self._loop.on_signal(signal.SIGCHLD, self._check_own_context)

    def serve(self, listening: socket.socket, secret: bytes | None) -> None:
        """Open the key-value store of the run on a socket that listens already."""
        self._server = Server(
            self._loop.selector,
            listening,
            secret=secret,
            on_disconnect=self._peer_gone,
            on_down=lambda: self._log.warning("a client asked the key-value store to shut down; it serves this run"),
            log=self._log.warning,
        )
        self._server.listen(messages.driver_key(self._job), self._message_came)
        self._open(OwnStore(self._server))

    def use_store(self, connected: socket.socket, replacing: socket.socket, where: str) -> None:
        """Share a store with programs that somebody else serves, by two connections, instead of this run's own."""
        self._open(OtherStore(self._loop, connected, replacing, partial(self._store_lost, where)))

    def _open(self, store: PublicStore) -> None:
        store.replace(messages.STATE_KEY, wire.ASTR, STARTING)
        self._stores.append(store)

    def _store_lost(self, where: str, reason: str) -> None:
        self.happened(events.ReadingFailed(f"lost the key-value store at {where}: {reason}"))

    @property
    def store(self) -> PublicStore:
        """The store that programs share with this run."""
        return self._stores[-1]

    def happened(self, event: events.Event) -> None:
        """Take note of an event; it is handled in this turn or the next."""
        self._inbox.append(event)

    def run(self, feeder: Feeder | Submissions) -> events.EndRun:
        """Go through the run to its end."""
        self._feeder = feeder
        self._perform(self._controller.begin())
        while self._end is None:
            self._handle_inbox()
            if self._end is None:
                self._turn(0.0 if self._inbox else None)
        return self._end

    def serve_until(self, is_over: Callable[[], bool]) -> events.SignalCame | None:
        """Serve the store, when the run has ended, to those who still read from it; the signal that has ended that."""
        while not is_over():
            for event in self._inbox:
                if isinstance(event, events.SignalCame):
                    return event
            self._inbox.clear()
            self._turn(None)
        return None

    def _turn(self, timeout: float | None) -> None:
        assert self._server is not None  # noqa: S101 - `serve` comes before `run`
        strangers = self._server.expire(self._loop.now())
        self._loop.turn(strangers if timeout is None else timeout)

    def _handle_inbox(self) -> None:
        commands: list[events.Command] = []
        now, clock = time.time(), self._loop.now()
        while self._inbox:
            commands += self._controller.handle(self._inbox.popleft(), now, clock)
            self._publisher.changed()
        if commands:  # or a status file that cannot be written would be tried again, and complained of, without a pause
            self._perform(commands)

    def _publish(self) -> None:
        """Post the state of the run in its own store, for the script of the run, and in one that programs share."""
        import json  # noqa: PLC0415 - a run that is over before it first posts its state need not wait for that

        state = json.dumps(snapshot.state(self._controller, time.time())).encode()
        for store in self._stores:
            store.replace(messages.STATE_KEY, wire.JSON, state)

    # Events.

    def _message_came(self, tag: bytes, value: bytes, peer: int | None) -> None:
        try:
            message = messages.decode(value, tag)
        except MessageError as error:
            self._log.warning("ignored what peer %s sent: %s", peer, error)
            return
        if not isinstance(message, messages.ToDriver):
            self._log.warning("ignored what peer %s sent: %s is not for the driver", peer, type(message).__name__)
            return
        if peer is not None:
            self._remember(peer, message)
        self.happened(message)

    def _remember(self, peer: int, message: messages.Message) -> None:
        """Know by its connection who has gone, when that breaks."""
        loss: events.EngineLost | events.ContextLost
        if isinstance(message, messages.EngineCame):
            loss = events.EngineLost(message.engine_rank)
        elif isinstance(message, messages.ContextCame):
            loss = events.ContextLost(message.token)
        else:
            return
        # The first one is who it says; no end of another may pass for its own, and nobody is two.
        if loss not in self._known and peer not in self._peers:
            self._known.add(loss)
            self._peers[peer] = loss

    def _peer_gone(self, peer: int) -> None:
        lost = self._peers.pop(peer, None)
        if lost is not None:
            self._known.discard(lost)
            self.happened(lost)

    def _check_own_context(self) -> None:
        process = self._context_process
        return_code = process.return_code() if process is not None else None
        if process is not None and return_code is not None:
            self._context_process = None
            self.happened(events.OwnContextEnded(return_code, process.last_words()))
            process.clear_away()

    # Commands.

    def _perform(self, commands: Sequence[events.Command]) -> None:
        others: list[events.Command] = []
        for command in commands:
            line = self._line_for(command)
            if line is None:
                others.append(command)
            else:
                self._recorder.add(line)
                self._lines.append(line)
        try:
            self._recorder.flush()
        except DisbatchError as error:
            self.happened(events.RecordingFailed(str(error)))
        else:
            if self._lines and self._on_recorded is not None:
                self._on_recorded(self._lines)
            self._lines = []
        for command in others:
            # What is not in the file is not announced either.
            if not (self._lines and isinstance(command, events.AnnounceBarrier)):
                self._do(command)

    def _line_for(self, command: events.Command) -> bytes | None:
        if isinstance(command, events.RecordTask):
            return statusfile.task_line(command.task, command.node, command.outcome, abandoned=command.abandoned)
        if isinstance(command, events.RecordPerEngineTask):
            return statusfile.per_engine_line(command.task, command.node, command.outcome)
        if isinstance(command, events.RecordBarrier):
            end = max(command.start, command.end)  # whatever became of the clock meanwhile
            return statusfile.barrier_line(command.barrier, self._host, self._pid, command.start, end)
        return None

    def _do(self, command: events.Command) -> None:
        assert self._server is not None  # noqa: S101 - `serve` and `run` come before
        assert self._feeder is not None  # noqa: S101
        if isinstance(command, events.SendToEngine):
            key = messages.engine_key(self._job, command.engine_rank)
            # An engine takes one value in the time of a round trip, however long that is: all there is goes into one.
            self._server.put_behind(key, messages.TAG, messages.encode(command.message))
        elif isinstance(command, events.ReadItems):
            self._feeder.read(command.limit)
        elif isinstance(command, events.SendToContext):
            key = messages.context_key(self._job, command.token)
            self._server.put(key, messages.TAG, messages.encode(command.message))
        elif isinstance(command, events.AnnounceBarrier):
            self.store.put(command.key, wire.ASTR, b"%d" % command.task_id)
        elif isinstance(command, events.NoteInLog):
            self._log.info("%s", command.text)
        elif isinstance(command, events.TellUser):
            self._log.error("%s", command.text)
            self._tell(command.text)
        elif isinstance(command, events.StartContext):
            self._start_context()
        elif isinstance(command, events.WakeAfter):
            self._loop.after(command.seconds, partial(self.happened, command.event))
        elif isinstance(command, events.EndRun):
            self._end = command

    def _start_context(self) -> None:
        own = self._own_context
        self._log.info("starting a context: %s", list(own.command))
        try:
            self._context_process = Launched(
                own.command, own.output, environment=own.environment, limit=self._former_limit
            )
        except DisbatchError as error:
            self.happened(events.OwnContextEnded(ExitStatus.FAILED, str(error)))

    def close(self) -> None:
        """Send what is still to be sent, and serve no longer."""
        if self._server is None:
            return
        self._publisher.close()
        if len(self._stores) > 1:
            self._publish()  # a store of somebody else outlives the run
        deadline = self._loop.now() + FAREWELL_LIMIT
        while (self._server.unsent or self.store.unsettled) and self._loop.now() < deadline:
            self._turn(deadline - self._loop.now())
        self.store.close()
        self._server.close()
        if self._context_process is not None:
            self._context_process.clear_away()
