"""The mailbox of a context or engine: messages to the driver go out, those under its key are handed over as they come.

A connection that breaks is made again, and the conversation goes on, until the member's lease has ended. It must not
know what a message means, but for those about the conversation itself.
"""

from __future__ import annotations

import os
from functools import partial
from math import inf

from disbatch import messages
from disbatch.connection import Connection
from disbatch.errors import DriverUnreachableError, MessageError
from disbatch.eventloop import READ, uptime
from disbatch.kvsstcp import wire
from disbatch.line import Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from disbatch.eventloop import EventLoop, Timer
    from disbatch.messages import Lease, Message, ToDriver

ASK_DELAY = 0.002
"""Seconds that asking for the next message may wait for a message that it can travel with."""

RECONNECT_PATIENCE = 3.0
"""Seconds that one try to connect again may take: where packets vanish, a new one gets through sooner."""

RECONNECT_PAUSE = 0.2
"""Seconds between two tries to connect again."""

REFUSED_PATIENCE = 2.0
"""Seconds after which a driver has gone for good whose host says that nobody listens there."""


class Mailbox:
    """Sends to the driver of `run`, and calls `on_message` for each message to the member of that name.

    `connected` has given its proof, as has what `connect(patience)` gives when the connection is to be made again; that
    raises `DriverUnreachableError` when it takes more than so many seconds. Before `keep` it is not made again.
    `on_lost(reason)` is called once, when there is no connection and will be none, or something came over it that is
    no message; nothing is sent or handed over afterwards. `on_lapse()` is called when the lease has ended while there
    seems to be a connection still. `on_news(text)` gets lines for a log.
    """

    def __init__(
        self,
        loop: EventLoop,
        connected: socket.socket,
        connect: Callable[[float], socket.socket],
        run: str,
        name: str,
        on_message: Callable[[Message], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._connect = connect
        self._run = run
        self._name = name
        self._driver_key = messages.driver_key(run)
        self._on_message = on_message
        self._on_lost = on_lost
        self.on_lapse: Callable[[], None] = lambda: None
        self.on_renewal: Callable[[float], None] = lambda _end: None
        self.on_news: Callable[[str], None] = lambda _text: None
        self.open = True
        """Whether there is a connection, or may be one again."""
        self._line = Line()
        self._lease: Lease | None = None
        self._lease_end = 0.0
        self._lapse_told = False
        self._suspended = False
        self._lease_timer: Timer | None = None
        self._ask_later: Timer | None = None
        self._connections = 0
        self._refused_since: float | None = None
        self._resumed = True
        self._connection: Connection | None = None
        self._take_up(connected)

    def _take_up(self, connected: socket.socket) -> None:
        self._ask = wire.encode_get(messages.member_key(self._run, self._name, self._connections))
        self._connections += 1
        self._connection = Connection(self._loop, connected, self._reply_came, self._connection_lost)
        self._connection.send(self._ask)

    def send(self, message: ToDriver) -> None:
        """Send a message, as soon as there is a connection, and again over the next one if this one loses it."""
        data = messages.encode(message)
        self._line.sends(data)
        if self._resumed:
            self._put(data)

    def _put(self, *data: bytes) -> None:
        sent = b"".join([wire.encode_put(self._driver_key, messages.TAG, one) for one in data])
        if self._ask_later is not None:
            self._ask_later.cancel()
            self._ask_later = None
            sent += self._ask
        if self._connection is not None:
            self._connection.send(sent)

    @property
    def unsent(self) -> int:
        """Bytes, about, that still wait to be sent."""
        if self._connection is None or not self._resumed:
            return sum(map(len, self._line.unsettled))
        return self._connection.unsent

    def _reply_came(self, tag: bytes, value: bytes) -> None:
        try:
            arrived = messages.decode_all(value, tag)
            acknowledgement_is_due = False
            # Soon, and with the next message if there is one, be it the answer: the driver wakes up once, not twice.
            if self._ask_later is None:
                self._ask_later = self._loop.after(ASK_DELAY, self._ask_again)
            for message in arrived:
                if isinstance(message, messages.Beat):
                    self._line.settle(message.received)
                    self._renew(message.sent_at)
                elif isinstance(message, messages.Resumed):
                    self._resume(message.received)
                elif self.open:
                    acknowledgement_is_due = self._line.took() or acknowledgement_is_due
                    self._take(message)
        except MessageError as error:
            self._give_up(str(error))
            return
        if acknowledgement_is_due and self.open:
            self._beat()

    def _take(self, message: Message) -> None:
        if isinstance(message, messages.DriverPauses):
            self._suspend()
        elif isinstance(message, messages.DriverGoesOn):
            self._go_on()
        else:
            self._on_message(message)

    def _ask_again(self) -> None:
        self._ask_later = None
        if self._connection is not None:
            self._connection.send(self._ask)

    def close(self) -> None:
        """End the connection for good; harmless when it has ended."""
        self.open = False
        self._drop_connection()

    def _drop_connection(self) -> None:
        if self._ask_later is not None:
            self._ask_later.cancel()
            self._ask_later = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up(self, reason: str) -> None:
        if self.open:
            self.close()
            self._on_lost(reason)

    # The lease.

    def keep(self, lease: Lease) -> None:
        """Keep to a lease from now on: it begins when the driver has answered, and ends when it does so no more."""
        if self._lease is None:
            self._lease = lease
            self._lease_end = uptime() + lease.limit
            self._beat_on()
            self._watch_lease()

    @property
    def lapsed(self) -> bool:
        """Whether the driver has not answered for so long that it may have given all that runs here to others."""
        return self._lease is not None and not self._suspended and uptime() >= self._lease_end

    def _beat_on(self) -> None:
        if self.open and self._lease is not None:
            self._loop.after(self._lease.period, self._beat_on)
            self._beat()

    def _beat(self) -> None:
        if self._resumed:
            self._put(messages.encode(messages.Beat(self._line.tell_received(), uptime())))

    def _renew(self, sent_at: float) -> None:
        if self._lease is not None:
            end = min(sent_at, uptime()) + self._lease.limit
            self._lease_end = max(self._lease_end, end)
            if end > uptime() and not self._suspended:  # an answer may come too late
                self.on_renewal(end)
                if self._lapse_told:
                    self._lapse_told = False
                    self.on_news("the driver answers again")
                    self._watch_lease()

    def _suspend(self) -> None:
        """Let the lease not end while the driver is stopped, as long as its host keeps up the connection."""
        self.on_news("the driver has been stopped")
        self._suspended = True
        self.on_renewal(inf)

    def _go_on(self) -> None:
        self.on_news("the driver goes on")
        self._suspended = False
        if self._lease is not None:
            self._renew(uptime())
            self._watch_lease()

    def _watch_lease(self) -> None:
        if self._lease_timer is not None:
            self._lease_timer.cancel()
        if self._lease is None or not self.open or self._suspended:
            return
        left = self._lease_end - uptime()
        if left > 0:
            # In steps: timers stand still while this machine sleeps, and the lease does not.
            self._lease_timer = self._loop.after(min(left, self._lease.period), self._watch_lease)
        elif self._connection is None or not self._resumed:
            self._give_up("there is no connection to it any more, and the lease has ended")
        else:
            self._lapse_told = True
            self.on_lapse()

    # Another connection.

    def _connection_lost(self, reason: str) -> None:
        if self._lease is None or self.lapsed or self._suspended:
            self._give_up(reason)
            return
        self.on_news(f"the connection to the driver broke: {reason}; trying to get another")
        self._drop_connection()
        self._resumed = False
        self._refused_since = None
        self._try_to_connect()

    def _try_to_connect(self) -> None:
        """Connect again, in a thread: that takes its time where nobody answers, and tasks end meanwhile."""
        import threading  # noqa: PLC0415 - most runs have no use for it

        if not self.open:
            return
        done, finished = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        outcome: list[socket.socket | DriverUnreachableError] = []
        self._loop.watch(done, READ, lambda _mask: self._tried(done, outcome))
        try:
            threading.Thread(target=partial(self._connect_once, outcome, finished), daemon=True).start()
        except RuntimeError:  # tasks have used up what this user may have of processes: later, then
            os.close(finished)

    def _connect_once(self, outcome: list[socket.socket | DriverUnreachableError], finished: int) -> None:
        try:
            outcome.append(self._connect(RECONNECT_PATIENCE))
        except DriverUnreachableError as error:
            outcome.append(error)
        finally:
            os.close(finished)

    def _tried(self, done: int, outcome: list[socket.socket | DriverUnreachableError]) -> None:
        self._loop.unwatch(done)
        os.close(done)
        result = outcome[0] if outcome else None
        if result is None or isinstance(result, DriverUnreachableError):
            self._try_again_later(result)
        elif not self.open:
            result.close()
        else:
            self._take_up(result)
            self._put(messages.encode(messages.Rejoined(self._name, self._connections - 1, self._line.tell_received())))

    def _try_again_later(self, error: DriverUnreachableError | None) -> None:
        if error is None or not error.nobody_listens:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = self._loop.now()
        elif self._loop.now() - self._refused_since > REFUSED_PATIENCE:
            self._give_up("nobody listens at its address any more")
            return
        self._loop.after(RECONNECT_PAUSE, self._try_to_connect)

    def _resume(self, received: int) -> None:
        self._line.settle(received)
        if not self._resumed:
            self._resumed = True
            unsettled = self._line.unsettled
            self.on_news(f"connected to the driver again; {len(unsettled)} messages are sent once more")
            self._put(*unsettled)
            self._beat()
