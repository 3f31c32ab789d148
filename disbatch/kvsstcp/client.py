"""The blocking client of the key-value store, for one thread of a program in Python.

It must not know what values mean. A program with a loop of its own connects with it and then takes the socket over by
`detach()`; the bytes from there on are in `wire`.

No value is lost to a time-out: a get that gives up first makes sure that the server has cancelled it, and a value that
comes in that moment is returned, or kept for the next call for its key, or put back when the client closes.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

from disbatch.kvsstcp import auth
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.kvsstcp.endpoint import (
    ENCRYPTED,
    AddressError,
    KVSError,
    address_text,
    on_this_host,
    parse_address,
    reason,
    tune,
)
from disbatch.kvsstcp.wire import (
    ASTR,
    MAX_LENGTH,
    PYPK,
    Get,
    ProtocolError,
    ReplyParser,
    View,
    encode_close,
    encode_down,
    encode_dump,
    encode_get,
    encode_monitor,
    encode_put,
    encode_put_header,
    encode_view,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self

    from disbatch.kvsstcp.endpoint import Address
    from disbatch.kvsstcp.store import Snapshot

__all__ = [
    "AddressError",
    "DisconnectedError",
    "HandshakeError",
    "KVSClient",
    "KVSError",
    "PickleRefusedError",
    "parse_address",
]

CONNECT_SECONDS = 30.0
"""How long a try to connect may take by default."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 5.0
_CANCEL_SECONDS = 10.0
"""How long the server may take to confirm that it has cancelled a wait, before the connection is given up."""
_END_SECONDS = 10.0
"""How long the server may take to end."""
_RECEIVE_BYTES = 64 * 1024
_COPIED_BYTES = 64 * 1024
_TAG_LENGTH = 4
_LONGEST_LABEL = 63  # of a name of a host, in bytes


class DisconnectedError(KVSError, ConnectionError):
    """There is no connection to the server, or no longer."""


class HandshakeError(DisconnectedError):
    """The server or the client did not prove that it knows the secret."""


class PickleRefusedError(KVSError):
    """A pickle was not read, because the server has not proved that it is the right one; `value` is the pickle."""

    def __init__(self, value: bytes) -> None:
        super().__init__(
            "a pickled value from a server that has not proved the secret: reading it could run any code"
            " (give a secret, or allow_pickle=True if everyone who can reach the server is trusted)"
        )
        self.value = value


class KVSClient:
    """A connection to a server, made at once.

    `host` and `port`: see `parse_address`. `retry`: how many further tries to connect there may be, with growing pauses
    (0.25 s to 5 s). `secret`: as in KVSSTCP_SECRET, which is used when it is None; empty: no handshake; one that
    begins with ENCRYPTED is proved to a server on another host over TLS alone.
    `allow_pickle`: read pickles even from a server that has not proved the secret. `connect_timeout`: seconds for one
    try to connect, and again for the handshake.

    Raises AddressError, DisconnectedError, HandshakeError. Of one thread: another one takes a `clone()`.
    """

    def __init__(
        self,
        host: Address | None = None,
        port: int | str | None = None,
        retry: int = 0,
        *,
        secret: bytes | str | None = None,
        allow_pickle: bool = False,
        connect_timeout: float = CONNECT_SECONDS,
    ) -> None:
        self.address = parse_address(host, port, os.environ)
        if secret is None:
            secret = os.environ.get(SECRET_VARIABLE, "")
        self._secret = secret.encode() if isinstance(secret, str) else secret
        self._allow_pickle = allow_pickle
        self._connect_timeout = connect_timeout
        self._socket: socket.socket | None = None
        self._parser = ReplyParser()
        self._replies: list[tuple[bytes, bytes]] = []
        self._waiting: Get | View | None = None  # what the server is to answer when it can
        self._kept: dict[bytes, list[tuple[bytes, bytes]]] = {}  # answers that came too late, by key
        self.proved = False
        self.connect(retry)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Connection

    def connect(self, retry: int = 0) -> None:
        """Connect, after closing the connection that there was. Raises DisconnectedError, HandshakeError."""
        self.close()
        pause = _FIRST_PAUSE_SECONDS
        for left in range(retry, -1, -1):
            try:
                connected = socket.create_connection(_encoded(*self.address), self._connect_timeout)
                break
            except OSError as error:
                if left == 0:
                    raise DisconnectedError(f"cannot connect to {self._where}: {reason(error)}") from error
            except ValueError as error:
                raise DisconnectedError(f"cannot connect to {self._where}: that is no host name") from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        else:
            raise ValueError(f"retry must be at least 0, not {retry}")
        self._take_over(connected)

    def _take_over(self, connected: socket.socket) -> None:
        """Speak over a connected socket from now on, after the handshake if there is a secret."""
        self._socket = connected
        self._parser = ReplyParser()
        self._replies = []
        self.proved = False
        tune(connected)
        if self._secret:
            try:
                self._shake_hands(self._encrypted(connected, self._secret))
            except BaseException:
                self._abandon()
                raise

    def _encrypted(self, connected: socket.socket, secret: bytes) -> bytes:
        """Encrypt from now on, if that is due; return the secret to be proved."""
        try:
            if not secret.startswith(ENCRYPTED) or on_this_host(connected):
                return secret
            from disbatch.kvsstcp import channel  # noqa: PLC0415 - takes long to import

            self._socket, certificate = channel.connect(connected)
        except ImportError as error:
            raise HandshakeError(f"cannot encrypt what goes to {self._where}: {error}") from error
        except OSError as error:
            raise HandshakeError(f"no encrypted connection to {self._where}: {reason(error)}") from error
        return auth.bound_secret(secret, certificate)

    def clone(self) -> KVSClient:
        """Return a new connection to the same server, in the same manner."""
        return KVSClient(
            self.address,
            secret=self._secret,
            allow_pickle=self._allow_pickle,
            connect_timeout=self._connect_timeout,
        )

    def close(self) -> None:
        """End the connection, if there is one; a value that came too late for its get goes back to the server."""
        if self._socket is None:
            return
        with suppress(KVSError, OSError):
            self._cancel()
            for key, replies in self._kept.items():
                for tag, value in replies:
                    self._send(encode_put(key, tag, value))
            self._send(encode_close())
        self._abandon()

    def shutdown(self) -> None:
        """End the server, and the connection; returns when it has ended. Raises KVSError if it goes on."""
        self.confirm()  # or the end that is asked for could not be told from that of a client that is refused
        try:
            self._snapshot(encode_down(), _END_SECONDS)
        except DisconnectedError:
            return
        except TimeoutError:
            pass
        self._abandon()
        raise KVSError(f"{self._where} does not shut down")

    def detach(self) -> socket.socket:
        """Hand over the socket, connected, blocking, past the handshake, and forget it.

        Raises KVSError while an answer is outstanding: its bytes would be lost.
        """
        connected = self._connected()
        if self._waiting is not None or self._parser.partial or self._replies or self._kept:
            raise KVSError("the connection cannot be handed over while an answer is outstanding")
        connected.settimeout(None)
        self._socket = None
        return connected

    # Operations

    def put(self, key: str | bytes, value: object, encoding: bool | str | bytes = True) -> None:  # noqa: FBT001, FBT002 - documented call
        """Add a value to `key`.

        `encoding`: False: raw under the tag ASTR, text as UTF-8, bytes as they are, anything else its `repr`; a tag of
        4 characters: raw under that tag (TypeError for another length); True: pickled.
        """
        if encoding is True:
            import pickle  # noqa: PLC0415 - takes long to import, and disbatch itself never needs it

            tag, data = PYPK, pickle.dumps(value)
        else:
            tag, data = ASTR if encoding is False else _tag(encoding), _raw(value)
        encoded_key = _key(key)
        if len(data) <= _COPIED_BYTES:
            self._send(encode_put(encoded_key, tag, data))
        else:
            self._send(encode_put_header(encoded_key, tag, len(data)))
            self._send(data)

    def get(self, key: str | bytes, encoding: object = True, timeout: float | None = None) -> object:  # noqa: FBT002 - documented call
        """Remove the oldest value of `key` and return it, waiting until there is one.

        `encoding`: False: the bytes; True: unpickled if it is a pickle (PickleRefusedError if that may not be), else
        the bytes; anything else: `(tag, bytes)`. Raises TimeoutError after `timeout` seconds without a value.
        """
        return self._decode(self._get(key, timeout), encoding)

    def view(self, key: str | bytes, encoding: object = True, timeout: float | None = None) -> object:  # noqa: FBT002 - documented call
        """Return the newest value of `key` and leave it there; otherwise as `get`."""
        return self._decode(self._view(key, timeout), encoding)

    def _get_nb(self, key: str | bytes, encoding: object = True, timeout: float | None = 0) -> object:  # noqa: FBT002 - documented call
        """As `get`, but None after `timeout` seconds; the wait goes on, and the next call for `key` joins it.

        Another operation with an answer ends the wait.
        """
        encoded = _key(key)
        reply = self._late(encoded) or self._await(Get(encoded), timeout)
        return None if reply is None else self._decode(reply, encoding)

    def _view_nb(self, key: str | bytes, encoding: object = True, timeout: float | None = 0) -> object:  # noqa: FBT002 - documented call
        """As `_get_nb`, of a view."""
        reply = self._await(View(_key(key)), timeout)
        return None if reply is None else self._decode(reply, encoding)

    def monkey(self, mkey: str | bytes, value: str | bytes) -> None:
        """From now on have a record put under `mkey` of what happens to a key; `value` is "KEY:EVENTS".

        EVENTS are letters: g for get, p put, v view, w wait; an empty KEY is every key. A record has the tag ASTR and
        the text EVENT:KEY.
        """
        self._send(encode_monitor(_key(mkey), _raw(value)))

    def dump(self) -> Snapshot:
        """Return what is in the store: see `store.Snapshot`. Raises KVSError if the server sends anything else."""
        from disbatch.kvsstcp.dump import decode_snapshot  # noqa: PLC0415 - pickle takes long to import

        try:
            return decode_snapshot(self._snapshot())
        except ValueError as error:
            raise KVSError(f"the snapshot of {self._where} cannot be read: {error}") from error

    def confirm(self) -> None:
        """Return when the server has done all that was asked of it, puts and monitors too, which it does not answer.

        Raises DisconnectedError if it has ended the connection instead, because it does not let this client speak or
        because something was against its rules.
        """
        self._snapshot()  # the one request that is always answered at once and leaves no trace in the store

    # Behind the operations

    def _snapshot(self, before: bytes = b"", timeout: float | None = None) -> bytes:
        """Return the server's answer to a dump, which is asked for behind the request `before`."""
        self._cancel()
        self._parser.expect_dump()
        self._send(before + encode_dump())
        return self._receive(timeout)[1]

    def _get(self, key: str | bytes, timeout: float | None) -> tuple[bytes, bytes]:
        encoded = _key(key)
        reply = self._late(encoded) or self._await(Get(encoded), timeout)
        if reply is None:
            self._cancel()
            reply = self._late(encoded)
        if reply is None:
            raise _no_value(key, timeout)
        return reply

    def _view(self, key: str | bytes, timeout: float | None) -> tuple[bytes, bytes]:
        reply = self._await(View(_key(key)), timeout)
        if reply is None:
            self._cancel()
            raise _no_value(key, timeout)
        return reply

    def _await(self, request: Get | View, timeout: float | None) -> tuple[bytes, bytes] | None:
        """Ask, unless that is asked already, and wait for the answer, `timeout` seconds at most: then None."""
        if self._waiting != request:
            self._cancel()
            self._send(encode_get(request.key) if isinstance(request, Get) else encode_view(request.key))
            self._waiting = request
        try:
            reply = self._receive(timeout)
        except TimeoutError:
            return None
        self._waiting = None
        return reply

    def _late(self, key: bytes) -> tuple[bytes, bytes] | None:
        """Return an answer for `key` that came too late for the get that asked for it."""
        replies = self._kept.get(key)
        if not replies:
            return None
        reply = replies.pop(0)
        if not replies:
            del self._kept[key]
        return reply

    def _cancel(self) -> None:
        """End the wait that the server has of this client, and keep what the answer to a get has brought meanwhile.

        The protocol has no word for it. A new get cancels the old, so one is made whose answer is known: of a key of
        its own, into which the client then puts the value itself. What is answered before that is the old one's.
        """
        if self._waiting is None:
            return
        request, self._waiting = self._waiting, None
        key = b".cancel " + os.urandom(16).hex().encode()
        self._send(encode_get(key) + encode_put(key, ASTR, key))
        while True:
            try:
                reply = self._receive(_CANCEL_SECONDS)
            except TimeoutError as error:
                self._abandon()
                raise DisconnectedError(f"no answer from {self._where} within {_CANCEL_SECONDS:g} s") from error
            if reply == (ASTR, key):
                return
            if isinstance(request, Get):
                self._kept.setdefault(request.key, []).append(reply)

    def _send(self, data: bytes) -> None:
        connected = self._connected()
        try:
            connected.settimeout(None)
            connected.sendall(data)
        except OSError as error:
            raise self._lost(error) from error
        except BaseException:  # interrupted in the middle of a request: nothing sent after it would be understood
            self._abandon()
            raise

    def _receive(self, timeout: float | None) -> tuple[bytes, bytes]:
        """Return the next reply. Raises TimeoutError after `timeout` seconds, None for never."""
        connected = self._connected()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._replies:
            try:
                connected.settimeout(None if deadline is None else max(0.0, deadline - time.monotonic()))
                data = connected.recv(_RECEIVE_BYTES)
            except OSError as error:
                # The kernel's own ETIMEDOUT, of a host that is silent, is a TimeoutError too: it has a number.
                if isinstance(error, BlockingIOError) or (isinstance(error, TimeoutError) and error.errno is None):
                    raise TimeoutError from None
                raise self._lost(error) from error
            if not data:
                raise self._lost(None)
            try:
                self._replies += self._parser.feed(data)
            except ProtocolError as error:
                self._abandon()
                raise DisconnectedError(f"{self._where} is no key-value store: {error}") from error
        return self._replies.pop(0)

    def _lost(self, error: OSError | None) -> DisconnectedError:
        """Give the connection up; return what there is to say of its end, which may have come without an error."""
        self._abandon()
        if error is not None and not isinstance(error, (BrokenPipeError, ConnectionResetError)):
            return DisconnectedError(f"lost the connection to {self._where}: {reason(error)}")
        hint = "" if self._secret else f"; it may ask for a secret, see {SECRET_VARIABLE}"
        return DisconnectedError(f"{self._where} has ended the connection{hint}")

    def _shake_hands(self, secret: bytes) -> None:
        self._parser.max_value = auth.STRANGER_LIMITS.value
        client_nonce = os.urandom(auth.NONCE_BYTES).hex().encode()
        try:
            self._send(encode_get(auth.CHALLENGE_KEY))
            _, nonce = self._receive(self._connect_timeout)
            self._send(encode_put(auth.RESPONSE_KEY, ASTR, auth.respond(secret, nonce, client_nonce)))
            self._send(encode_get(auth.PROOF_KEY))
            _, proof = self._receive(self._connect_timeout)
            auth.check_proof(secret, nonce, client_nonce, proof)
        except TimeoutError as error:
            raise HandshakeError(f"{self._where} does not answer in the handshake") from error
        except DisconnectedError as error:
            raise HandshakeError(f"{self._where} refused the handshake: it has another secret, or none") from error
        except auth.AuthenticationError as error:
            raise HandshakeError(f"the handshake with {self._where} failed: {error}") from error
        self._parser.max_value = MAX_LENGTH
        self.proved = True

    def _decode(self, reply: tuple[bytes, bytes], encoding: object) -> object:
        tag, value = reply
        if encoding is False or (encoding is True and tag != PYPK):
            return value
        if encoding is not True:
            return tag, value
        if not self.proved and not self._allow_pickle:
            raise PickleRefusedError(value)
        import pickle  # noqa: PLC0415 - as in put

        return pickle.loads(value)  # noqa: S301 - the server is proved, or the caller has vouched for it

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise DisconnectedError(f"not connected to {self._where}")
        return self._socket

    def _abandon(self) -> None:
        """Close the socket, without a word to the server."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._waiting = None
        self._kept = {}

    @property
    def _where(self) -> str:
        return address_text(*self.address)


def _encoded(host: str, port: int) -> tuple[Any, int]:
    """Address as the system is asked for it; a plain name as bytes, or Python imports the codec of others for 3 ms."""
    plain = host.isascii() and all(0 < len(label) <= _LONGEST_LABEL for label in host.split("."))
    return (host.encode() if plain else host), port


def _key(key: str | bytes) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode()


def _no_value(key: str | bytes, timeout: float | None) -> TimeoutError:
    return TimeoutError(f"no value for {_key(key).decode(errors='backslashreplace')!r} within {timeout} s")


def _raw(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    return (value if isinstance(value, str) else repr(value)).encode()


def _tag(encoding: object) -> bytes:
    tag = encoding.encode() if isinstance(encoding, str) else encoding
    if not isinstance(tag, bytes) or len(tag) != _TAG_LENGTH:
        raise TypeError(f"an encoding is True, False or a tag of {_TAG_LENGTH} characters, not {encoding!r}")
    return tag
