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
from disbatch.driver.clerk import Clerk
from disbatch.driver.correspondence import Correspondence
from disbatch.driver.publisher import Publisher
from disbatch.driver.store import OtherStore, OwnStore
from disbatch.errors import DisbatchError, ExitStatus, MessageError
from disbatch.kvsstcp import wire
from disbatch.kvsstcp.complaints import Complaints
from disbatch.kvsstcp.server import Server
from disbatch.launching import Launched
from disbatch.records import record

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from disbatch.driver.controller import Controller
    from disbatch.driver.display import Display
    from disbatch.driver.feeder import Feeder
    from disbatch.driver.recorder import Recorder
    from disbatch.driver.store import PublicStore
    from disbatch.driver.submissions import Submissions
    from disbatch.eventloop import EventLoop
    from disbatch.kvsstcp.rights import Rights
    from disbatch.log import Log

PAUSE_NOTICE = 0.1
"""Seconds given to the word that the driver stops until it does."""

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

    `on_recorded` gets the lines of each turn that has any, once they are in the status file; it must not block. Nor may
    `display`, which gets the state of the run whenever that is posted.
    """

    def __init__(
        self,
        loop: EventLoop,
        controller: Controller,
        recorder: Recorder,
        run: snapshot.Run,
        own_context: OwnContext,
        log: Log,
        tell: Callable[[str], None],
        on_recorded: Callable[[Sequence[bytes]], None] | None = None,
        display: Display | None = None,
    ) -> None:
        self._loop = loop
        self._controller = controller
        self._clerk = Clerk(loop, recorder, self._tell_user, on_recorded, self._held_back, self._written)
        self._run = run
        self._own_context = own_context
        self._log = log
        self._complaints = Complaints(log.warning, loop.now)
        self._tell = tell
        self._display = display
        self._server: Server | None = None
        self._stores: list[PublicStore] = []
        self._publisher = Publisher(loop, self._publish)
        self._feeder: Feeder | Submissions | None = None
        self._inbox: deque[events.Event] = deque()
        self._correspondence: Correspondence | None = None
        self._context_process: Launched | None = None
        self._pid = os.getpid()
        self._end: events.EndRun | None = None
        self._former_limit = descriptors.make_room(descriptors.MANY)  # a connection for each engine
        # From the beginning: a signal may come before anything else does.
        self._loop.on_request_to_end(
            lambda number: self.happened(events.SignalCame(number.name, EXIT_STATUS_OF_SIGNAL[number]))
        )
        self._loop.on_signal(signal.SIGUSR1, lambda: self.happened(events.DrainAsked(signal.SIGUSR1.name)))
        self._pause_asked = False
        self._loop.on_request_to_stop(self._ask_for_pause)
        self._loop.on_signal(signal.SIGCHLD, self._check_own_context)

    def serve(self, listening: socket.socket, secrets: Mapping[bytes, Rights] | None) -> None:
        """Open the key-value store of the run on a socket that listens already, to those who know one of `secrets`.

        None lets anyone in.
        """
        self._server = Server(
            self._loop.selector,
            listening,
            secret=secrets,
            on_disconnect=self._peer_gone,
            on_down=lambda: self._complaints.say("a client asked the key-value store to shut down; it serves this run"),
            log=self._log.warning,
        )
        self._correspondence = Correspondence(self._run.job, self._server)
        self._server.listen(messages.driver_key(self._run.job), self._message_came)
        self._server.listen(messages.orders_key(self._run.job), self._order_came)
        self._server.answer(messages.RUNNING_KEYS, wire.JSON, self._running)
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

    def serve_until(self, is_over: Callable[[], bool], limit: float | None = None) -> events.SignalCame | None:
        """Serve the store, when the run has ended, to those who still read from it; the signal that has ended that.

        For `limit` seconds at most, if there is one.
        """
        deadline = None if limit is None else self._loop.now() + limit
        while not is_over():
            for event in self._inbox:
                if isinstance(event, events.SignalCame):
                    return event
            self._inbox.clear()
            left = None if deadline is None else deadline - self._loop.now()
            if left is not None and left <= 0:
                break
            self._turn(left)
        return None

    def settle(self, limit: float | None) -> events.SignalCame | None:
        """Wait until the status file is complete and on disk; otherwise as `serve_until`."""
        self._clerk.hurry()
        return self.serve_until(lambda: self._clerk.is_settled, limit)

    def _turn(self, timeout: float | None) -> None:
        assert self._server is not None  # noqa: S101 - `serve` comes before `run`
        strangers = self._server.expire(self._loop.now())
        if strangers is not None and timeout is not None:
            timeout = min(strangers, timeout)
        self._loop.turn(strangers if timeout is None else timeout)
        if self._pause_asked:
            self._pause_asked = False
            self._pause()

    def _ask_for_pause(self) -> None:
        self._pause_asked = True  # between two turns: others are to be told before, which takes turns itself

    def _pause(self) -> None:
        """Stop, everybody having been told, and tell them again when somebody has let this process go on."""
        self._perform(self._controller.handle(events.PauseBegan(), time.time(), self._loop.now()))
        deadline = self._loop.now() + PAUSE_NOTICE
        while (left := deadline - self._loop.now()) > 0:
            self._loop.turn(left)
        if self._display is not None:
            self._display.hide()
        self._loop.stop()
        self._perform(self._controller.handle(events.PauseEnded(), time.time(), self._loop.now()))

    def _handle_inbox(self) -> None:
        commands: list[events.Command] = []
        now, clock = time.time(), self._loop.now()
        while self._inbox:
            commands += self._controller.handle(self._inbox.popleft(), now, clock)
            self._publisher.changed()
        while commands:
            has_recorded = self._perform(commands)
            commands = self._controller.handle(events.RecordsWritten(), now, clock) if has_recorded else []

    def _publish(self) -> None:
        """Post the state of the run in its own store, for the script of the run, and in one that programs share.

        It tells how many tasks have ended: while their lines wait for the disk it stays as it was.
        """
        if self._clerk.holds_back:
            return
        posted = self._state()
        for store in self._stores:
            store.replace(messages.STATE_KEY, wire.JSON, posted)

    def _state(self) -> bytes:
        """State of the run, which its user sees now too."""
        import json  # noqa: PLC0415 - a run that is over before it first posts its state need not wait for that

        unread = None if self._feeder is None else self._feeder.unread
        state = snapshot.state(self._run, self._controller, unread, time.time())
        if self._display is not None:
            self._display.show(state)
        return json.dumps(state).encode()

    def _running(self, key: bytes) -> bytes:
        """What runs now, for one who looks under that key."""
        import json  # noqa: PLC0415 - as above

        rank = key.removeprefix(messages.RUNNING_KEYS + b" ")[:20]  # of thousands of digits Python makes no number
        of_one = int(rank) if rank.isdigit() else None
        return json.dumps(snapshot.running(self._controller, of_one, time.time())).encode()

    # Events.

    def _order_came(self, tag: bytes, value: bytes, peer: int | None) -> None:
        try:
            order = messages.decode(value, tag)
        except MessageError as error:
            self._complaints.say(f"ignored what peer {peer} sent: {error}")
            return
        if isinstance(order, messages.Order):
            self.happened(order)
        else:
            self._complaints.say(f"ignored what peer {peer} sent: {type(order).__name__} is no order")

    def _message_came(self, tag: bytes, value: bytes, peer: int | None) -> None:
        message: messages.Message | None
        try:
            message = messages.decode(value, tag)
        except MessageError as error:
            message = messages.newcomer(value)
            if message is None:
                self._complaints.say(f"ignored what peer {peer} sent: {error}")
                return
        if not isinstance(message, messages.ToDriver):
            self._complaints.say(f"ignored what peer {peer} sent: {type(message).__name__} is not for the driver")
            return
        if peer is not None:
            self._heard(peer, message)
        elif not isinstance(message, messages.Beat | messages.Rejoined):
            self.happened(message)

    def _heard(self, peer: int, message: messages.ToDriver) -> None:
        assert self._server is not None  # noqa: S101 - messages come through it
        assert self._correspondence is not None  # noqa: S101 - as above
        try:
            event = self._correspondence.heard(peer, message)
        except MessageError as error:
            self._complaints.say(f"ended the connection of peer {peer}: {error}")
            self._server.disconnect(peer)
            return
        if event is not None:
            self.happened(event)

    def _peer_gone(self, peer: int) -> None:
        assert self._correspondence is not None  # noqa: S101 - it is there as long as the server is
        cut = self._correspondence.gone(peer)
        if cut is not None:
            self.happened(cut)

    def _check_own_context(self) -> None:
        process = self._context_process
        return_code = process.return_code() if process is not None else None
        if process is not None and return_code is not None:
            self._context_process = None
            self.happened(events.OwnContextEnded(return_code, process.last_words()))
            process.clear_away()

    # Commands.

    def _perform(self, commands: Sequence[events.Command]) -> bool:
        """Do what the controller asks for; whether records are among it, and all of them are in the status file."""
        are_records = False
        others: list[events.Command] = []
        for command in commands:
            line = self._line_for(command)
            if line is None:
                others.append(command)
            else:
                self._clerk.add(line)
                are_records = True
        all_written = self._clerk.write()
        for command in others:
            self._do(command)
        return are_records and all_written

    def _held_back(self) -> None:
        self.happened(events.RecordsHeldBack())

    def _written(self) -> None:
        self._inbox = deque(event for event in self._inbox if not isinstance(event, events.RecordsHeldBack))
        self._inbox.appendleft(events.RecordsWritten())  # what is told behind it may be recorded, and not be written

    def _line_for(self, command: events.Command) -> bytes | None:
        if isinstance(command, events.RecordTask):
            return statusfile.task_line(command.task, command.node, command.outcome, abandoned=command.abandoned)
        if isinstance(command, events.RecordPerEngineTask):
            return statusfile.per_engine_line(command.task, command.node, command.outcome)
        if isinstance(command, events.RecordBarrier):
            return statusfile.barrier_line(command.barrier, self._run.host, self._pid, command.start, command.end)
        return None

    def _do(self, command: events.Command) -> None:
        assert self._server is not None  # noqa: S101 - `serve` and `run` come before
        assert self._feeder is not None  # noqa: S101 - as above
        assert self._correspondence is not None  # noqa: S101 - as above
        if isinstance(command, (events.SendToEngine, events.SendToContext, events.ForgetMember)):
            self._correspondence.perform(command)
        elif isinstance(command, events.ReadItems):
            self._feeder.read(command.limit)
        elif isinstance(command, events.AnnounceBarrier):
            self.store.put(command.key, wire.ASTR, b"%d" % command.task_id)
        elif isinstance(command, events.NoteInLog):
            self._log.info("%s", command.text)
        elif isinstance(command, events.TellUser):
            self._tell_user(command.text)
        elif isinstance(command, events.StartContext):
            self._start_context()
        elif isinstance(command, events.WakeAfter):
            self._loop.after(command.seconds, partial(self.happened, command.event))
        elif isinstance(command, events.EndRun):
            self._end = command

    def _tell_user(self, text: str) -> None:
        self._log.error("%s", text)
        self._tell(text)

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
        self._clerk.close()
        if self._server is None:
            return
        self._publisher.close()
        if len(self._stores) > 1:
            self._publish()  # a store of somebody else outlives the run
        if self._server.is_awaited(messages.END_KEY):
            self._server.put(messages.END_KEY, wire.JSON, self._state())
        deadline = self._loop.now() + FAREWELL_LIMIT
        while (self._server.unsent or self.store.unsettled) and self._loop.now() < deadline:
            self._turn(deadline - self._loop.now())
        self.store.close()
        self._server.close()
        if self._context_process is not None:
            self._context_process.clear_away()
