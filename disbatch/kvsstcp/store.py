"""What the key-value store holds: a queue of values for each key, and who waits for one.

Pure: an operation returns the deliveries that follow from it, in the order in which they are to be made. It must not
know what a client is (any hashable will do), how values travel, or what is inside of them.

Monitors: a record is a value with the tag ASTR, the letter of the event, a colon and the key: `p:results`. Events are
of what was done: g a value was taken, v one was looked at, p one was put, w a get or view had to wait. Records are put
by the store itself and are no event p of the monitor key, or a monitor key that watches itself would never come to an
end. A key is a monitor key as long as at least one event is recorded under it. What does not fit in is not recorded.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Generic, TypeVar

from disbatch.kvsstcp.rights import EVERY_KEY
from disbatch.kvsstcp.wire import ASTR, Plain

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

ClientT = TypeVar("ClientT")

_GET, _PUT, _VIEW, _WAIT = b"g", b"p", b"v", b"w"

_SHOWN_WHOLE = 50
"""A text up to this many bytes is shown whole in a snapshot."""
_SHOWN_HEAD, _SHOWN_TAIL = 24, 23

_LONG = 1 << 16
"""Bytes of a value behind which no other is put: each makes it anew."""

_KEY_COST = 1024
"""Bytes that a key, or a monitor, takes beside names and values, about."""
_VALUE_COST = 128
"""Bytes that a value takes beside itself, about."""

Newest = tuple[bytes, bytes] | tuple[bytes, bytes | None, int]
Snapshot = tuple[list[int], list[tuple[bytes, int]], list[tuple[bytes, int, Newest]]]
"""`([gets, puts, views, waits], [(key, waiters)], [(key, values, newest)])`, sorted by key.

Counts are of operations that were served, waits of those that had to wait. `newest` is `(tag, text)` for an ASTR of up
to 50 bytes, `(ASTR, head...tail, length)` for a longer one, `(tag, None, length)` for any other tag.
"""


class Delivery(Plain, Generic[ClientT]):
    """The answer to a get (`taken`: the store has it no longer) or view of `client`."""

    def __init__(self, client: ClientT, key: bytes, tag: bytes, value: bytes, taken: bool) -> None:  # noqa: FBT001 - a value like the others
        self.client = client
        self.key = key
        self.tag = tag
        self.value = value
        self.taken = taken


class _Waiters(Generic[ClientT]):
    """Clients that wait for a key, each with the serial number of its wait.

    Two maps, so that a put does not search a thousand gets for a view. An OrderedDict, because a plain dict that is
    emptied from the front searches through all that was there before.
    """

    __slots__ = ("gets", "views")

    def __init__(self) -> None:
        self.gets: OrderedDict[ClientT, int] = OrderedDict()
        self.views: dict[ClientT, int] = {}


class Store(Generic[ClientT]):
    """Keys and their values, clients and their waits. A client has at most one wait: a new one cancels the old.

    `limit` (bytes): what clients may fill it with. It is for whoever puts something to ask `fits`.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self._limit = limit
        self._size = 0
        self._values: dict[bytes, deque[tuple[bytes, bytes]]] = {}
        self._waiters: dict[bytes, _Waiters[ClientT]] = {}
        self._awaited: dict[ClientT, bytes] = {}
        self._watches: dict[bytes, dict[bytes, bytes]] = {}  # watched key -> monitor key -> events
        self._noted: deque[tuple[bytes, bytes]] = deque()
        self._gets = self._puts = self._views = self._waits = 0

    @property
    def size(self) -> int:
        """Bytes that values, keys and monitors take, about."""
        return self._size

    def is_awaited(self, key: bytes) -> bool:
        """Whether anybody waits for a value of that key."""
        return key in self._waiters

    def fits(self, key: bytes, value: bytes) -> bool:
        """Whether a value may be put: there is room, or somebody takes it at once."""
        waiters = self._waiters.get(key)
        if waiters is not None and waiters.gets:
            return True
        return self._size + len(key) + len(value) + _KEY_COST + _VALUE_COST <= self._limit

    def put(self, key: bytes, tag: bytes, value: bytes) -> list[Delivery[ClientT]]:
        """Add a value: every waiting view gets it, the first waiting get takes it; untaken it becomes the newest."""
        deliveries: list[Delivery[ClientT]] = []
        self._puts += 1
        self._note(_PUT, key)
        self._add(key, tag, value, deliveries)
        self._record(deliveries)
        return deliveries

    def put_behind(self, key: bytes, tag: bytes, value: bytes) -> list[Delivery[ClientT]]:
        """Add a value as `put` does, but in the same bytes as the newest one of its key, if that has the same tag.

        That is for values which readers can take apart. One that is long already is left as it is.
        """
        values = self._values.get(key)
        if values is None or values[-1][0] != tag or len(values[-1][1]) > _LONG:
            return self.put(key, tag, value)
        deliveries: list[Delivery[ClientT]] = []
        self._puts += 1
        self._note(_PUT, key)
        values[-1] = (tag, values[-1][1] + value)
        self._size += len(value)
        self._record(deliveries)
        return deliveries

    def get(self, client: ClientT, key: bytes) -> list[Delivery[ClientT]]:
        """Take the oldest value of `key` for `client`, or let it wait for one."""
        self.cancel(client)
        deliveries: list[Delivery[ClientT]] = []
        found = self._pop(key)
        if found is None:
            self._waiters_of(client, key).gets[client] = self._waits
        else:
            self._deliver(Delivery(client, key, *found, taken=True), deliveries)
        self._record(deliveries)
        return deliveries

    def view(self, client: ClientT, key: bytes) -> list[Delivery[ClientT]]:
        """Show the newest value of `key` to `client`, or let it wait for one."""
        self.cancel(client)
        deliveries: list[Delivery[ClientT]] = []
        values = self._values.get(key)
        if values is None:
            self._waiters_of(client, key).views[client] = self._waits
        else:
            self._deliver(Delivery(client, key, *values[-1], taken=False), deliveries)
        self._record(deliveries)
        return deliveries

    def take(self, key: bytes) -> tuple[tuple[bytes, bytes] | None, list[Delivery[ClientT]]]:
        """Remove the oldest value of `key` for the owner of the store, None if there is none: a get that never waits.

        Returns `(tag, value)`, and the deliveries of records about it.
        """
        deliveries: list[Delivery[ClientT]] = []
        found = self._pop(key)
        if found is not None:
            self._gets += 1
            self._note(_GET, key)
            self._record(deliveries)
        return found, deliveries

    def count(self, key: bytes) -> int:
        """Return how many values `key` has."""
        return len(self._values.get(key, ()))

    def monitor(self, monitor_key: bytes, key: bytes, events: bytes) -> None:
        """Record under `monitor_key` those events of `key` (empty: of every key) that are in `events`, and no others.

        What other monitor keys are told of `key`, and what this one is told of other keys, stays as it is.
        """
        watches = self._watches.setdefault(key, {})
        cost = len(key) + len(monitor_key) + _KEY_COST
        self._size += cost * (bool(events) - (monitor_key in watches))
        if events:
            watches[monitor_key] = events
            return
        watches.pop(monitor_key, None)
        if not watches:
            del self._watches[key]

    def cancel(self, client: ClientT) -> None:
        """End the wait of `client`, if it has one, without an answer."""
        key = self._awaited.pop(client, None)
        if key is None:
            return
        waiters = self._waiters[key]
        waiters.gets.pop(client, None)
        waiters.views.pop(client, None)
        self._drop_if_empty(key, waiters)

    def forget(self, client: ClientT, unreceived: Iterable[Delivery[ClientT]] = ()) -> list[Delivery[ClientT]]:
        """End the wait of `client`, which has gone, and take back what it was given but cannot have received.

        `unreceived` is in the order of delivery. What was taken goes to those who wait for its key by now, or back to
        where it was: the front of the queue. That is no event, and the gets do not count as served.
        """
        self.cancel(client)
        deliveries: list[Delivery[ClientT]] = []
        returned: list[Delivery[ClientT]] = []
        for delivery in unreceived:
            if delivery.taken:
                self._gets -= 1
                if not self._offer(delivery.key, delivery.tag, delivery.value, deliveries):
                    returned.append(delivery)
        for delivery in reversed(returned):
            self._hold(delivery.key, delivery.value).appendleft((delivery.tag, delivery.value))
        self._record(deliveries)
        return deliveries

    def snapshot(self, keys: Container[bytes] = EVERY_KEY) -> Snapshot:
        """Return what is in the store under `keys`, in builtin types alone; the counts are of all of it."""
        counts = [self._gets, self._puts, self._views, self._waits]
        waiting = [
            (key, len(waiters.gets) + len(waiters.views))
            for key, waiters in sorted(self._waiters.items())
            if key in keys
        ]
        held = [
            (key, len(values), _summary(*values[-1])) for key, values in sorted(self._values.items()) if key in keys
        ]
        return counts, waiting, held

    def _add(self, key: bytes, tag: bytes, value: bytes, deliveries: list[Delivery[ClientT]]) -> None:
        if not self._offer(key, tag, value, deliveries):
            self._hold(key, value).append((tag, value))

    def _hold(self, key: bytes, value: bytes) -> deque[tuple[bytes, bytes]]:
        """Count a value, and return the values of its key, to which it is to be added."""
        values = self._values.get(key)
        if values is None:
            values = self._values[key] = deque()
            self._size += len(key) + _KEY_COST
        self._size += len(value) + _VALUE_COST
        return values

    def _offer(self, key: bytes, tag: bytes, value: bytes, deliveries: list[Delivery[ClientT]]) -> bool:
        """Serve all waiting views and the first waiting get, in the order in which they came; whether it was taken."""
        waiters = self._waiters.get(key)
        if waiters is None:
            return False
        due = [(serial, client, False) for client, serial in waiters.views.items()]
        waiters.views.clear()
        taken = bool(waiters.gets)
        if taken:
            client, serial = waiters.gets.popitem(last=False)
            due.append((serial, client, True))
            due.sort(key=lambda wait: wait[0])
        self._drop_if_empty(key, waiters)
        for _, client, takes in due:
            del self._awaited[client]
            self._deliver(Delivery(client, key, tag, value, takes), deliveries)
        return taken

    def _deliver(self, delivery: Delivery[ClientT], deliveries: list[Delivery[ClientT]]) -> None:
        if delivery.taken:
            self._gets += 1
        else:
            self._views += 1
        self._note(_GET if delivery.taken else _VIEW, delivery.key)
        deliveries.append(delivery)

    def _pop(self, key: bytes) -> tuple[bytes, bytes] | None:
        values = self._values.get(key)
        if values is None:
            return None
        found = values.popleft()
        self._size -= len(found[1]) + _VALUE_COST
        if not values:  # or a run that uses each key once would grow for ever
            del self._values[key]
            self._size -= len(key) + _KEY_COST
        return found

    def _waiters_of(self, client: ClientT, key: bytes) -> _Waiters[ClientT]:
        """Count a wait of `client` for `key`, and return where to write it down under `_waits` as its serial number."""
        self._waits += 1
        self._note(_WAIT, key)
        self._awaited[client] = key
        waiters = self._waiters.get(key)
        if waiters is None:
            waiters = self._waiters[key] = _Waiters()
        return waiters

    def _drop_if_empty(self, key: bytes, waiters: _Waiters[ClientT]) -> None:
        if not waiters.gets and not waiters.views:
            del self._waiters[key]

    def _note(self, event: bytes, key: bytes) -> None:
        if self._watches:
            self._noted.append((event, key))

    def _record(self, deliveries: list[Delivery[ClientT]]) -> None:
        """Put the records of what was noted. That can serve waiters, which is noted in turn; each serves only once."""
        while self._noted:
            event, key = self._noted.popleft()
            for monitor_key in self._monitors(event, key):
                record = event + b":" + key
                if self.fits(monitor_key, record):
                    self._add(monitor_key, ASTR, record, deliveries)

    def _monitors(self, event: bytes, key: bytes) -> list[bytes]:
        """Return the monitor keys to be told of an event, each once."""
        watches = dict(self._watches.get(key, {}))
        if not any(key in monitors for monitors in self._watches.values()):
            for monitor_key, events in self._watches.get(b"", {}).items():
                watches[monitor_key] = watches.get(monitor_key, b"") + events
        return [monitor_key for monitor_key, events in watches.items() if event in events]


def _summary(tag: bytes, value: bytes) -> Newest:
    if tag != ASTR:
        return tag, None, len(value)
    if len(value) <= _SHOWN_WHOLE:
        return tag, value
    return tag, value[:_SHOWN_HEAD] + b"..." + value[-_SHOWN_TAIL:], len(value)
