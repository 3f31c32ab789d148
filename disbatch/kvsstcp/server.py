"""The server of the key-value store, as a guest in the loop of whoever owns it.

Performs what `wire`, `auth` and `store` decide: the one file of the package with sockets of clients on the serving
side. It must not run a loop, start a thread, or know what values mean.

The owner's loop is `for key, mask in selector.select(timeout): key.data(mask)`, with a timeout of at most
`expire(time.monotonic())`. All methods are called in that loop's thread.

What becomes of a value that a get has taken but whose client goes: as long as TCP has told of the client's end (FIN
or RST has come) before the value went to the kernel, or as long as not all of it has gone there, the store takes the
value back and gives it to the next. A value that went wholly to the kernel of a client that still seemed alive counts
as received: TCP says nothing more.

Strangers, who have not proved that they know the secret, wait together with the listening socket in a selector of their
own, which the owner's sees as one descriptor. So whatever they do costs an owner no more than a share of its time.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import selectors
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from disbatch.kvsstcp import auth
from disbatch.kvsstcp.complaints import Complaints
from disbatch.kvsstcp.endpoint import BACKLOG, ENCRYPTED, on_this_host, reason, tune
from disbatch.kvsstcp.rights import EVERYTHING, NO_KEY
from disbatch.kvsstcp.store import Delivery, Store
from disbatch.kvsstcp.wire import (
    ASTR,
    Close,
    Down,
    Dump,
    Get,
    Limits,
    Monitor,
    ProtocolError,
    Put,
    Request,
    RequestParser,
    View,
    encode_dump_reply,
    encode_reply,
    encode_reply_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from disbatch.kvsstcp.channel import Identity
    from disbatch.kvsstcp.rights import Rights

    Handler = Callable[[bytes, bytes, int | None], None]
    """Takes the tag and the value of a put, and the peer that put it."""

_RECEIVE_BYTES = 64 * 1024
_ACCEPTS_PER_TURN = 64
_ACCEPT_PAUSE_SECONDS = 1.0
_STRANGERS_TURN_SECONDS = 0.002
_STRANGERS_SHARE = 0.25
"""Time for accepting connections and for what comes before a proof, to that for the rest, in the long run."""
_STRANGERS_CREDIT_SECONDS = 2.0
"""How much of that time may be saved up: thousands of clients that come at once need no more."""
_COPIED_BYTES = 16 * 1024  # up to here a value is joined to its header; above, copying costs more than a second buffer
_PIECES_PER_SEND = 64
_TLS = b"\x16"  # a client's first byte that means TLS; every operation begins with a letter
TLS_HANDSHAKES = 200
"""Connections over TLS without a proof at once: one more ends the first of them. Each takes 46 KiB."""
_PIECE_COST = 256  # bytes that a queued piece takes beside its contents, about
QUEUE_LIMIT = 64 * 1024**2
"""What may be queued for a client, in bytes, before the next answer ends its connection."""
STRANGERS = 1000
"""Connections without a proof at once: one more ends another. At most half of the files that may be open."""
STORE_LIMIT = 4 * 1024**3
"""What clients may fill the store with, in bytes."""

_HANG_UP: int = getattr(select, "POLLRDHUP", 0)  # elsewhere than on Linux poll() tells of a broken connection alone


class _Listener:
    """The owner's own standing get of a key."""

    __slots__ = ("handler", "key")

    def __init__(self, key: bytes, handler: Handler) -> None:
        self.key = key
        self.handler = handler


class _Connection:
    """One client: what it sent that is no request yet, and what it is sent that the kernel has not taken yet.

    `descriptor`, and not the socket, is what a selector knows: TLS puts another object in the place of the socket.
    `handshake` is None once the client may speak; `rights` say what it may ask for then. `outgoing` holds pieces, and
    with the last piece of an answer the delivery that it makes; `watching`: it waits for the kernel to take more.
    `deaf`: nothing more can be sent, what it sent before is still to be read. `unfinished`: bytes of a request that has
    not come wholly. `encrypted`: over TLS, to which its proof of a secret is to be bound.
    """

    __slots__ = (
        *("address", "deaf", "descriptor", "encrypted", "ended", "handshake", "outgoing", "parser", "peer", "queued"),
        *("rights", "selector", "socket", "unfinished", "watching"),
    )

    def __init__(
        self,
        connected: socket.socket,
        selector: selectors.BaseSelector,
        peer: int,
        address: str,
        limits: Limits,
        handshake: auth.Handshake | None,
    ) -> None:
        self.socket = connected
        self.selector = selector
        self.descriptor = connected.fileno()
        self.peer = peer
        self.address = address
        self.parser = RequestParser(limits)
        self.handshake = handshake
        self.rights = EVERYTHING
        self.outgoing: deque[tuple[memoryview, Delivery[_Client] | None]] = deque()
        self.queued = 0
        self.unfinished = 0
        self.watching = False
        self.deaf = False
        self.encrypted = False
        self.ended = False

    @property
    def host(self) -> str:
        """Where it is, without its port."""
        return self.address.rpartition(":")[0]


_Client = _Connection | _Listener


class Server:
    """Serves a store to the network from inside the loop of `selector`.

    `at` is a listening socket, which it takes over, or a `(host, port)` to bind (OSError if that fails); port 0 is any.
    `secret`: what clients must prove to know, or several secrets, each with the rights that it gives, instead of one
    that gives all; None lets anyone in, which is logged once; with one that begins with ENCRYPTED clients may, and
    those on other hosts must, speak over TLS. A request beyond its rights ends a connection, as one against the
    protocol does. `limits` are for proved clients. `queue_limit` (bytes): a client to which more than this is unsent
    when it is due another answer is cut off; a single answer may be of any size. `store_limit` (bytes): a client that
    puts what does not fit in any more is cut off, unless somebody takes it at once; what the owner puts always fits. As
    many bytes again may lie in unfinished requests: then the largest is cut off. `on_disconnect(peer)` is called when a
    connection ends that was allowed to speak, but not by `close()`. `on_down()` is called when a client asks the server
    to end; without it, it ends. `log(text)` takes lines without a line end. `clock` is in seconds and monotonic.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        at: socket.socket | tuple[str, int],
        *,
        secret: bytes | Mapping[bytes, Rights] | None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        queue_limit: int = QUEUE_LIMIT,
        store_limit: int = STORE_LIMIT,
        on_disconnect: Callable[[int], None] | None = None,
        on_down: Callable[[], None] | None = None,
        log: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._selector = selector
        rights = {secret: EVERYTHING} if isinstance(secret, bytes) else secret
        self._secrets = None if rights is None else tuple(rights)
        self._rights = () if rights is None else tuple(rights.values())
        self._encrypts = any(known.startswith(ENCRYPTED) for known in rights or ())
        self._identity: Identity | None = None
        self._limits = limits
        self._queue_limit = queue_limit
        self._store_limit = store_limit
        self._on_disconnect = on_disconnect
        self._on_down = on_down or self.close
        self._clock = clock
        self._complaints = Complaints(log, clock)
        self._complaints_of_strangers = Complaints(log, clock)  # or they could silence what there is to say of others
        self._store: Store[_Client] = Store(store_limit)
        self._answers: list[tuple[bytes, bytes, Callable[[bytes], bytes]]] = []
        self._unfinished = 0
        self._connections: dict[int, _Connection] = {}
        self._strangers: dict[_Connection, float] = {}  # to deadline; in the order of both
        self._strangers_of: dict[str, dict[_Connection, None]] = {}  # by their host
        self._most_strangers = min(STRANGERS, _open_files() // 2)
        self._due: deque[tuple[Delivery[_Client], int | None]] = deque()
        self._performing = False
        self._peers = 0
        self._called: deque[tuple[selectors.SelectorKey, int]] = deque()  # at the doorstep, and was not served yet
        self._credit = _STRANGERS_CREDIT_SECONDS
        self._credit_of = clock()
        self._door_shut_until: float | None = None
        self._lacks_room = False
        self._buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self.closed = False
        self._listening = at if isinstance(at, socket.socket) else _listen(at)
        self._listening.setblocking(False)
        self._doorstep = selectors.DefaultSelector()
        self.address: tuple[str, int] = self._listening.getsockname()[:2]
        self._doorstep.register(self._listening, selectors.EVENT_READ, self._accept)
        selector.register(self._doorstep, selectors.EVENT_READ, self._serve_doorstep)
        if secret is None and log is not None:
            log(f"the key-value store at {self.address[0]}:{self.address[1]} asks for no secret: anyone may use it")

    # For the owner

    def put(self, key: bytes, tag: bytes, value: bytes) -> None:
        """Put a value, as a client would. `tag` has 4 bytes."""
        self._perform(self._store.put(key, tag, value), None)

    def is_awaited(self, key: bytes) -> bool:
        """Whether a get or view of that key waits."""
        return self._store.is_awaited(key)

    def put_behind(self, key: bytes, tag: bytes, value: bytes) -> None:
        """Put a value that may be taken as one with the newest of its key: see `Store.put_behind`."""
        self._perform(self._store.put_behind(key, tag, value), None)

    def take(self, key: bytes) -> tuple[bytes, bytes] | None:
        """Remove the oldest value of `key` and return its tag and value; None, at once, if there is none."""
        found, deliveries = self._store.take(key)
        self._perform(deliveries, None)
        return found

    def replace(self, key: bytes, tag: bytes, value: bytes) -> None:
        """Put a value and remove those that were there before, so that a view never finds the key empty meanwhile."""
        before = self._store.count(key)
        self.put(key, tag, value)
        for _ in range(before):
            self.take(key)

    def listen(self, key: bytes, handler: Handler) -> None:
        """From now on hand every value of `key` to `handler(tag, value, peer)`, those that it has already at once.

        A standing get: it takes its turn among the gets of clients for the same key. `peer` is the connection that put
        the value, None when that was the owner, or when the value lay in the store. What a handler raises comes out of
        the call that put the value, or of the loop's `key.data(mask)`; that value counts as handed over, and what else
        the same client sent waits for its next bytes: an owner ends then.
        """
        listener = _Listener(key, handler)
        self._perform(self._store.get(listener, key), None)

    def answer(self, keys: bytes, tag: bytes, answer: Callable[[bytes], bytes]) -> None:
        """From now on a view of a key that begins with `keys` gets what `answer(key)` returns then; nobody puts there.

        For what costs something to make, and is looked at now and then.
        """
        self._answers.append((keys, tag, answer))

    def expire(self, now: float) -> float | None:
        """End connections that took too long to prove themselves, and look after strangers again when that is due.

        `now` is of the same clock as the server's. Returns the seconds until it wants to be called again, None for
        no need.
        """
        while self._strangers:
            connection, deadline = next(iter(self._strangers.items()))
            if deadline > now:
                break
            self._end(connection, f"no proof of the secret within {auth.HANDSHAKE_SECONDS:g} s")
        if self._door_shut_until is not None and self._door_shut_until <= now:
            self._open_door()
        deadlines = [next(iter(self._strangers.values()))] if self._strangers else []
        if self._door_shut_until is not None:
            deadlines.append(self._door_shut_until)
        return max(0.0, min(deadlines) - now) if deadlines else None

    @property
    def unsent(self) -> int:
        """Bytes, about, that wait for clients to read. An owner may run its loop until 0 before it closes."""
        return sum(connection.queued for connection in self._connections.values())

    def adopt(self, connected: socket.socket, address: str = "a local socket") -> int | None:
        """Serve a connected socket as though it had been accepted. Returns its peer; None if it could not be."""
        self._peers += 1
        handshake, limits, selector = None, self._limits, self._selector
        if self._secrets is not None:
            selector = self._doorstep
            handshake = auth.AwaitingChallenge(os.urandom(auth.NONCE_BYTES).hex().encode())
            limits = auth.STRANGER_LIMITS
        connection = _Connection(connected, selector, self._peers, address, limits, handshake)
        on_ready = self._greet if self._encrypts else self._on_ready
        try:
            connected.setblocking(False)
            if handshake is None:
                tune(connected)
            selector.register(connection.descriptor, selectors.EVENT_READ, partial(on_ready, connection))
        except (OSError, ValueError) as error:  # it has gone already, or select() has no room for its number
            connected.close()
            self._complaints.say(f"cannot serve {address}: {error}")
            return None
        self._connections[connection.peer] = connection
        if handshake is not None:
            if len(self._strangers) >= self._most_strangers:
                self._end_a_stranger(f"more than {self._most_strangers} without a proof")
            self._strangers[connection] = self._clock() + auth.HANDSHAKE_SECONDS
            self._strangers_of.setdefault(connection.host, {})[connection] = None
        return connection.peer

    def disconnect(self, peer: int) -> None:
        """End the connection of a peer, if there is one still; `on_disconnect` is called for it, too."""
        connection = self._connections.get(peer)
        if connection is not None:
            self._end(connection)

    def close(self) -> None:
        """End all connections and stop listening. What is unsent is lost; may be called twice."""
        if self.closed:
            return
        self.closed = True
        self._on_disconnect = None
        if self._door_shut_until is None:
            self._selector.unregister(self._doorstep)
        self._door_shut_until = None
        self._lacks_room = False
        self._called.clear()
        self._listening.close()
        for connection in list(self._connections.values()):
            self._end(connection)
        self._doorstep.close()

    # Connections come and go

    def _serve_doorstep(self, _mask: int) -> None:
        """Accept connections and hear strangers, in turns and for a short while, as far as there is credit for that."""
        began = now = self._clock()
        self._called = self._called or deque(self._doorstep.select(0))
        while self._called and now - began < _STRANGERS_TURN_SECONDS:
            key, mask = self._called.popleft()
            key.data(mask)
            now = self._clock()
        credit = min(_STRANGERS_CREDIT_SECONDS, self._credit + (began - self._credit_of) * _STRANGERS_SHARE)
        self._credit, self._credit_of = credit - (now - began), now
        if self._credit < 0 and not self.closed:
            self._shut_door(-self._credit / _STRANGERS_SHARE)

    def _shut_door(self, seconds: float) -> None:
        """Leave those who are no clients yet alone for a while; the kernel keeps who comes and what they say."""
        if self._door_shut_until is None:
            self._selector.unregister(self._doorstep)
            self._door_shut_until = self._clock() + seconds

    def _open_door(self) -> None:
        self._door_shut_until = None
        self._lacks_room = False
        self._selector.register(self._doorstep, selectors.EVENT_READ, self._serve_doorstep)

    def _accept(self, _mask: int) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            if self.closed or self._door_shut_until is not None:
                return
            try:
                connected, address = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and self._strangers:
                    self._end_a_stranger("no room is left for others")
                    continue
                # Out of descriptors or memory: the socket stays readable, so listening on would spin. Those who wait
                # stay in the kernel's queue until a connection ends or the pause is over.
                self._shut_door(_ACCEPT_PAUSE_SECONDS)
                self._lacks_room = True
                self._complaints.say(f"cannot accept connections for now: {reason(error)}")
                return
            self.adopt(connected, f"{address[0]}:{address[1]}")

    def _end_a_stranger(self, complaint: str) -> None:
        """End the one that has been here for longest of the host that has most of them: a flood drives out itself."""
        crowd = max(self._strangers_of.values(), key=len)
        self._end(next(iter(crowd)), complaint)

    def _is_stranger_no_more(self, connection: _Connection) -> None:
        del self._strangers[connection]
        crowd = self._strangers_of[connection.host]
        del crowd[connection]
        if not crowd:
            del self._strangers_of[connection.host]

    def _end(self, connection: _Connection, complaint: str = "") -> None:
        """End a connection and give what it did not receive to others; a complaint is logged."""
        if connection.ended:
            return
        connection.ended = True
        connection.selector.unregister(connection.descriptor)  # before the close: a raw epoll could go on reporting it
        connection.socket.close()
        del self._connections[connection.peer]
        self._unfinished -= connection.unfinished
        complaints = self._complaints
        if connection in self._strangers:
            self._is_stranger_no_more(connection)
            complaints = self._complaints_of_strangers
        if complaint:
            complaints.say(f"ended the connection of {connection.address}: {complaint}")
        if self._lacks_room:
            self._open_door()
        self._withdraw(connection)
        if self._on_disconnect is not None and connection.handshake is None:
            self._on_disconnect(connection.peer)

    def _withdraw(self, connection: _Connection) -> None:
        """Answer a client no more: its wait is over, what it was to get goes back to the store."""
        unreceived = [delivery for _, delivery in connection.outgoing if delivery is not None]
        connection.outgoing.clear()
        connection.queued = 0
        self._perform(self._store.forget(connection, unreceived), None)

    def _greet(self, connection: _Connection, mask: int) -> None:
        """Find out by a client's first byte whether it encrypts, and whether it may do without."""
        try:
            first = connection.socket.recv(1, socket.MSG_PEEK)
            if first == _TLS:
                self._make_room_for_tls()
                connection.socket = self._own_identity().wrap(connection.socket)
                connection.encrypted = True
            elif first and not on_this_host(connection.socket):
                self._end(connection, "it does not encrypt, as other hosts must")
                return
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ImportError) as error:
            self._end(connection, f"cannot serve it: {error}")
            return
        connection.selector.modify(connection.descriptor, selectors.EVENT_READ, partial(self._on_ready, connection))
        self._on_ready(connection, mask)

    def _make_room_for_tls(self) -> None:
        begun = [stranger for stranger in self._strangers if stranger.encrypted]
        if len(begun) >= TLS_HANDSHAKES:
            self._end(begun[0], f"more than {TLS_HANDSHAKES} over TLS without a proof")

    def _own_identity(self) -> Identity:
        if self._identity is None:
            from disbatch.kvsstcp.channel import Identity  # noqa: PLC0415 - takes long, and few runs need it

            self._identity = Identity()
        return self._identity

    # What clients send

    def _on_ready(self, connection: _Connection, mask: int) -> None:
        if mask & selectors.EVENT_WRITE and not connection.ended:
            self._flush(connection)
        if mask & selectors.EVENT_READ and not connection.ended:
            self._receive(connection)

    def _receive(self, connection: _Connection) -> None:
        try:
            count = connection.socket.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            failed = connection.encrypted and connection.handshake is not None  # as likely ours as an attacker's
            self._end(connection, reason(error) if failed else "")
            return
        if count == 0:
            self._end(connection)
            return
        try:
            for request in connection.parser.feed(self._buffer[:count]):
                self._serve(connection, request)
                if connection.ended:
                    return
        except (ProtocolError, auth.AuthenticationError) as error:
            self._end(connection, str(error))
        except MemoryError:
            self._end(connection, "no memory for what it sends")
        else:
            self._count_unfinished(connection)

    def _count_unfinished(self, connection: _Connection) -> None:
        self._unfinished += connection.parser.held - connection.unfinished
        connection.unfinished = connection.parser.held
        if self._unfinished > self._store_limit:
            largest = max(self._connections.values(), key=lambda one: one.unfinished)
            self._end(largest, f"more than {self._store_limit} bytes of unfinished requests, most of them its own")

    def _serve(self, connection: _Connection, request: Request) -> None:
        if connection.handshake is not None:
            self._shake_hands(connection, connection.handshake, request)
        elif not connection.rights.allow(request):
            raise ProtocolError(f"its secret gives no right to {_words_for(request)}")
        elif isinstance(request, Put):
            self._refuse_too_much(request.key, request.value)
            self._perform(self._store.put(request.key, request.tag, request.value), connection.peer)
        elif isinstance(request, Get):
            _refuse_reserved(request.key)
            self._perform(self._store.get(connection, request.key), None)
        elif isinstance(request, View):
            _refuse_reserved(request.key)
            self._perform(self._answered(connection, request.key) or self._store.view(connection, request.key), None)
        elif isinstance(request, Monitor):
            self._refuse_too_much(request.monitor_key, request.key)
            self._store.monitor(request.monitor_key, request.key, request.events)
        elif isinstance(request, Dump):
            self._dump(connection)
        elif isinstance(request, Close):
            self._end(connection)
        elif isinstance(request, Down):
            self._on_down()

    def _answered(self, connection: _Connection, key: bytes) -> list[Delivery[_Client]]:
        """The delivery of what is made anew for each view, if that key is one of those."""
        for keys, tag, answer in self._answers:
            if key.startswith(keys):
                return [Delivery(connection, key, tag, answer(key), taken=False)]
        return []

    def _refuse_too_much(self, key: bytes, value: bytes) -> None:
        _refuse_reserved(key)
        if not self._store.fits(key, value):
            raise ProtocolError(f"no room for what it puts: the store takes {self._store_limit} bytes")

    def _dump(self, connection: _Connection) -> None:
        from disbatch.kvsstcp.dump import encode_snapshot  # noqa: PLC0415 - pickle takes long to import

        seen = self._store.snapshot(connection.rights.view)
        self._send(connection, encode_dump_reply(encode_snapshot(seen)))

    def _shake_hands(self, connection: _Connection, handshake: auth.Handshake, request: Request) -> None:
        if self._secrets is None:
            raise ValueError("a handshake without a secret")
        secrets = self._secrets
        if connection.encrypted:
            certificate = self._own_identity().certificate
            secrets = tuple(auth.bound_secret(secret, certificate) for secret in secrets)
        after, answer = auth.advance(secrets, handshake, request)
        connection.handshake = after
        if isinstance(after, auth.Proved):
            self._let_in(connection, self._rights[after.which])
        if answer is not None:
            self._send(connection, encode_reply(ASTR, answer))

    def _let_in(self, connection: _Connection, rights: Rights) -> None:
        """Make a stranger a client, with these rights."""
        try:
            tune(connection.socket)  # not before: it is a quarter of what a stranger costs
            self._selector.register(connection.descriptor, _events(connection), partial(self._on_ready, connection))
        except (OSError, ValueError) as error:  # as in `adopt`
            raise ProtocolError(f"cannot be served: {error}") from error
        connection.selector.unregister(connection.descriptor)
        connection.selector = self._selector
        connection.handshake = None
        connection.rights = rights
        # A value is refused at its length, its key only when all of it has come: who may put nothing sends little.
        value_limit = auth.STRANGER_LIMITS.value if rights.put == NO_KEY else self._limits.value
        connection.parser.limits = Limits(self._limits.key, value_limit)
        self._is_stranger_no_more(connection)

    # What clients are sent

    def _perform(self, deliveries: list[Delivery[_Client]], peer: int | None) -> None:
        """Make deliveries that a put of `peer` brought about, in order.

        Making one can bring about others, by way of a handler or of a client that turns out to be gone: those are
        added to the end, so that nothing overtakes and nothing recurses.
        """
        self._due.extend((delivery, peer) for delivery in deliveries)
        if self._performing:
            return
        self._performing = True
        try:
            while self._due and not self.closed:
                self._make(*self._due.popleft())
        finally:
            self._performing = False

    def _make(self, delivery: Delivery[_Client], peer: int | None) -> None:
        client = delivery.client
        if isinstance(client, _Listener):
            self._perform(self._store.get(client, client.key), None)
            client.handler(delivery.tag, delivery.value, peer)
        elif client.ended or client.deaf or (delivery.taken and _has_hung_up(client.socket)):
            # If it has hung up it may have put something before; so the connection lives on until that is read.
            self._perform(self._store.forget(client, [delivery]), None)
        elif len(delivery.value) <= _COPIED_BYTES:
            self._send(client, encode_reply(delivery.tag, delivery.value), delivery)
        else:
            self._send(client, encode_reply_header(delivery.tag, len(delivery.value)), delivery, delivery.value)

    def _send(
        self, connection: _Connection, head: bytes, delivery: Delivery[_Client] | None = None, body: bytes = b""
    ) -> None:
        """Send an answer, now if nothing is before it, otherwise when the client has read what is."""
        if connection.deaf:
            return
        first = not connection.outgoing
        too_much = connection.queued > self._queue_limit
        pieces = (head, body) if body else (head,)
        for piece in pieces:
            connection.outgoing.append((memoryview(piece), delivery if piece is pieces[-1] else None))
            connection.queued += len(piece) + _PIECE_COST
        if too_much:
            self._end(connection, f"it asks for more and leaves {self._queue_limit} bytes of answers unread")
        elif first:
            self._flush(connection)
            if connection.outgoing:
                self._watch(connection, writable=True)

    def _flush(self, connection: _Connection) -> None:
        """Send as much as the kernel takes at once."""
        outgoing = connection.outgoing
        try:
            sent = connection.socket.sendmsg([piece for piece, _ in islice(outgoing, _PIECES_PER_SEND)])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._turn_deaf(connection)
            return
        while outgoing and sent >= len(outgoing[0][0]):
            piece, _ = outgoing.popleft()
            sent -= len(piece)
            connection.queued -= len(piece) + _PIECE_COST
        if outgoing:
            piece, delivery = outgoing[0]
            outgoing[0] = (piece[sent:], delivery)
            connection.queued -= sent
        else:
            self._watch(connection, writable=False)

    def _turn_deaf(self, connection: _Connection) -> None:
        """Give up sending, because that failed; what the client put before it broke is still to be read."""
        connection.deaf = True
        self._watch(connection, writable=False)
        with suppress(OSError):  # it may have ended already
            connection.socket.shutdown(socket.SHUT_RDWR)  # so that reading comes to an end in any case
        self._withdraw(connection)

    def _watch(self, connection: _Connection, *, writable: bool) -> None:
        """Be told when the client can be read from, and when it can be written to or not."""
        if connection.watching == writable:
            return
        connection.watching = writable
        connection.selector.modify(connection.descriptor, _events(connection), partial(self._on_ready, connection))


def _events(connection: _Connection) -> int:
    return selectors.EVENT_READ | selectors.EVENT_WRITE if connection.watching else selectors.EVENT_READ


def _open_files() -> int:
    """How many files this process may have open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _listen(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except (TypeError, UnicodeError) as error:
        raise OSError(errno.EINVAL, f"{address[0]!r} is no host name") from error


def _has_hung_up(connected: socket.socket) -> bool:
    """Whether the kernel knows that the client has ended the connection, even if bytes before the end are unread."""
    poller = select.poll()
    poller.register(connected, _HANG_UP)
    return bool(poller.poll(0))


def _words_for(request: Request) -> str:
    name = type(request).__name__.lower()
    return f"{name} {request.key[:40]!r}" if isinstance(request, Put | Get | View | Monitor) else name


def _refuse_reserved(key: bytes) -> None:
    if key.startswith(auth.RESERVED_PREFIX):
        raise ProtocolError(f"{key[:40]!r} is reserved for the handshake, and none is due")
