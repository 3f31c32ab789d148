"""The bytes between a client and the server of the key-value store: both directions, parsed and written.

Pure: bytes are pushed in, requests or replies are pulled out. It must not know of sockets, of what the store holds, or
of who may speak; it knows how large a key and a value may be, because that has to be refused at the length, before a
single byte of the thing is kept.

A request is an operation of 4 ASCII bytes, then what the operation takes. A length is 10 bytes of decimal digits,
right-aligned with blanks. A key is a length and that many bytes; a value is a tag of 4 bytes, a length, and that many
bytes.

    put_ KEY VALUE      view KEY            dump      clos
    get_ KEY            mkey KEY VALUE                down
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

Data = bytes | bytearray | memoryview
"""What bytes may come as."""

ASTR = b"ASTR"
"""Tag of raw bytes, or of text."""
JSON = b"JSON"
"""Tag of a text in that format."""
PYPK = b"PYPK"
"""Tag of a Python pickle."""

_PUT, _GET, _VIEW, _MONITOR = b"put_", b"get_", b"view", b"mkey"
_DUMP, _CLOSE, _DOWN = b"dump", b"clos", b"down"

_OPERATION_SIZE = 4
_TAG_SIZE = 4
_LENGTH_SIZE = 10
MAX_LENGTH = 10**_LENGTH_SIZE - 1
"""The largest length that its field can say, in bytes."""

EVENTS = b"gpvw"
"""What can be monitored: get, put, view, wait, a letter each."""


class ProtocolError(Exception):
    """Bytes that this protocol does not allow here; the text, of one line, names them."""


class Plain:
    """Values under names: equal to another of its class that holds the same.

    A dataclass would cost 0.4 ms at every start of a process, and the module for it 10 ms.
    """

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({values})"


class Limits(Plain):
    """The most bytes that a key and a value may have."""

    def __init__(self, key: int = 64 * 1024, value: int = 1024**3) -> None:
        self.key = key
        self.value = value


class Put(Plain):
    """Add a value to a key; not answered."""

    __match_args__ = ("key", "tag", "value")

    def __init__(self, key: bytes, tag: bytes, value: bytes) -> None:
        self.key = key
        self.tag = tag
        self.value = value


class Get(Plain):
    """Answer with the oldest value of a key, and remove it, as soon as there is one."""

    __match_args__ = ("key",)

    def __init__(self, key: bytes) -> None:
        self.key = key


class View(Plain):
    """Answer with the newest value of a key, and keep it, as soon as there is one."""

    __match_args__ = ("key",)

    def __init__(self, key: bytes) -> None:
        self.key = key


class Monitor(Plain):
    """From now on put a record under `monitor_key` of each of `events` (letters of EVENTS) that happens to `key`.

    An empty `key` stands for every key that is not a monitor key. Not answered.
    """

    __match_args__ = ("monitor_key", "key", "events")

    def __init__(self, monitor_key: bytes, key: bytes, events: bytes) -> None:
        self.monitor_key = monitor_key
        self.key = key
        self.events = events


class Dump(Plain):
    """Answer with a snapshot of the store."""


class Close(Plain):
    """End this connection."""


class Down(Plain):
    """End the server."""


Request = Put | Get | View | Monitor | Dump | Close | Down

_BARE: dict[bytes, Request] = {_DUMP: Dump(), _CLOSE: Close(), _DOWN: Down()}
_KEYED = frozenset((_PUT, _GET, _VIEW, _MONITOR))


# Requests


def encode_put(key: bytes, tag: bytes, value: Data) -> bytes:
    """Return the whole request; `tag` has 4 bytes. Raises ValueError for a tag or a length that cannot be written."""
    return encode_put_header(key, tag, len(value)) + value


def encode_put_header(key: bytes, tag: bytes, length: int) -> bytes:
    """Return what comes before a value of `length` bytes, for a value that is too large to copy."""
    return _PUT + _sized(key) + _value_header(tag, length)


def encode_get(key: bytes) -> bytes:
    """Return the whole request."""
    return _GET + _sized(key)


def encode_view(key: bytes) -> bytes:
    """Return the whole request."""
    return _VIEW + _sized(key)


def encode_monitor(monitor_key: bytes, watched: bytes) -> bytes:
    """Return the whole request; `watched` is `KEY:EVENTS`."""
    return _MONITOR + _sized(monitor_key) + _value_header(ASTR, len(watched)) + watched


def encode_dump() -> bytes:
    """Return the whole request."""
    return _DUMP


def encode_close() -> bytes:
    """Return the whole request."""
    return _CLOSE


def encode_down() -> bytes:
    """Return the whole request."""
    return _DOWN


class RequestParser:
    """The server's side: bytes of one connection to requests, the same ones however the bytes are cut into pieces.

    `limits` may be replaced between two requests and counts from the next one on. After a ProtocolError the stream has
    lost its meaning: every further pull raises it again.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._buffer = bytearray()
        self._needed = _OPERATION_SIZE  # nothing more can be said of the buffer before it holds this many bytes

    @property
    def partial(self) -> bool:
        """Whether bytes of an unfinished request are held: at the end of a connection, that it broke off."""
        return bool(self._buffer)

    @property
    def held(self) -> int:
        """How many bytes of an unfinished request are held."""
        return len(self._buffer)

    def feed(self, data: Data) -> Iterator[Request]:
        """Take over `data` at once (its memory may be used again) and return an iterator that parses as it is pulled.

        What is not pulled comes first the next time. The iterator raises ProtocolError for an unknown operation, a
        length that is no number, or one over the limits; the requests before it have come out by then.
        """
        self._buffer += data
        return self._requests()

    def _requests(self) -> Iterator[Request]:
        while len(self._buffer) >= self._needed:
            request = self._next()
            if request is not None:
                yield request

    def _next(self) -> Request | None:
        """Take one request from the front of the buffer, or say in `_needed` how many bytes that asks for.

        Starts over from the operation each time; as there are at most four steps that is cheaper than keeping a state.
        """
        buffer = self._buffer
        operation = bytes(buffer[:_OPERATION_SIZE])
        if operation in _BARE:
            self._consume(_OPERATION_SIZE)
            return _BARE[operation]
        if operation not in _KEYED:
            raise ProtocolError(f"unknown operation {operation!r}")
        start = _OPERATION_SIZE + _LENGTH_SIZE
        if not self._holds(start):
            return None
        end = start + _length(buffer[_OPERATION_SIZE:start], "key", self.limits.key)
        if operation in (_GET, _VIEW):
            if not self._holds(end):
                return None
            key = bytes(buffer[start:end])
            self._consume(end)
            return Get(key) if operation == _GET else View(key)
        return self._next_with_value(operation, start, end)

    def _next_with_value(self, operation: bytes, key_start: int, key_end: int) -> Request | None:
        buffer = self._buffer
        tag_end = key_end + _TAG_SIZE
        start = tag_end + _LENGTH_SIZE
        if not self._holds(start):
            return None
        end = start + _length(buffer[tag_end:start], "value", self.limits.value)
        if not self._holds(end):
            return None
        key, tag = bytes(buffer[key_start:key_end]), bytes(buffer[key_end:tag_end])
        with memoryview(buffer) as whole:  # a slice of the bytearray itself would copy a large value twice
            value = bytes(whole[start:end])
        self._consume(end)
        return Put(key, tag, value) if operation == _PUT else _monitor(key, value)

    def _holds(self, count: int) -> bool:
        self._needed = count
        return len(self._buffer) >= count

    def _consume(self, count: int) -> None:
        del self._buffer[:count]  # moves the start of a bytearray and copies nothing
        self._needed = _OPERATION_SIZE


# Replies


def encode_reply(tag: bytes, value: bytes) -> bytes:
    """Return the whole answer to a get or a view."""
    return encode_reply_header(tag, len(value)) + value


def encode_reply_header(tag: bytes, length: int) -> bytes:
    """Return what comes before a value of `length` bytes."""
    return _value_header(tag, length)


def encode_dump_reply(snapshot: bytes) -> bytes:
    """Return the whole answer to a dump: the one reply without a tag."""
    return _sized(snapshot)


class ReplyParser:
    """The client's side: bytes of one connection to `(tag, value)` replies.

    `max_value` (bytes) may be changed between two replies.
    """

    def __init__(self, max_value: int = MAX_LENGTH) -> None:
        self.max_value = max_value
        self._buffer = bytearray()
        self._needed = 0
        self._header_size = _TAG_SIZE + _LENGTH_SIZE

    @property
    def partial(self) -> bool:
        """Whether bytes of an unfinished reply are held."""
        return bool(self._buffer)

    def expect_dump(self) -> None:
        """Say that the next reply is the answer to a dump. It comes out with the tag PYPK, which it is but lacks."""
        self._header_size = _LENGTH_SIZE

    def feed(self, data: Data) -> list[tuple[bytes, bytes]]:
        """Return the replies that `data` completes. Raises ProtocolError for a bad length, or one over the limit."""
        self._buffer += data
        replies: list[tuple[bytes, bytes]] = []
        while len(self._buffer) >= max(self._needed, self._header_size):
            reply = self._next()
            if reply is not None:
                replies.append(reply)
        return replies

    def _next(self) -> tuple[bytes, bytes] | None:
        buffer, start = self._buffer, self._header_size
        tag_end = start - _LENGTH_SIZE
        end = start + _length(buffer[tag_end:start], "value", self.max_value)
        if len(buffer) < end:
            self._needed = end
            return None
        tag = bytes(buffer[:tag_end]) or PYPK
        with memoryview(buffer) as whole:
            value = bytes(whole[start:end])
        del buffer[:end]
        self._needed = 0
        self._header_size = _TAG_SIZE + _LENGTH_SIZE
        return tag, value


# Both


def _sized(data: Data) -> bytes:
    return _length_field(len(data)) + data


def _value_header(tag: bytes, length: int) -> bytes:
    if len(tag) != _TAG_SIZE:
        raise ValueError(f"a tag has {_TAG_SIZE} bytes, not {tag!r}")
    return tag + _length_field(length)


def _length_field(length: int) -> bytes:
    if length > MAX_LENGTH:
        raise ValueError(f"{length} bytes cannot be sent: a length has {_LENGTH_SIZE} digits")
    return b"%10d" % length


def _length(field: bytearray, what: str, limit: int) -> int:
    """Read a length, leniently: blanks on both sides and leading zeros do not matter."""
    digits = field.strip(b" ")
    if not digits.isdigit():  # int() alone would take signs, underscores and line ends
        raise ProtocolError(f"bad length {bytes(field)!r} of a {what}")
    length = int(digits)
    if length > limit:
        raise ProtocolError(f"a {what} of {length} bytes is over the limit of {limit}")
    return length


def _monitor(monitor_key: bytes, watched: bytes) -> Monitor:
    """Read `KEY:EVENTS`; a key may hold colons of its own, events cannot."""
    key, colon, events = watched.rpartition(b":")
    if not colon or events.strip(EVENTS):
        raise ProtocolError(f"bad value {watched[-20:]!r} of mkey: not KEY:EVENTS with events of g, p, v, w")
    return Monitor(monitor_key, key, events)
