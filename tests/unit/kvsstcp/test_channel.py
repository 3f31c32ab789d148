"""`channel`: two ends of a local socket, the client's in a thread where it waits for the server's."""

from __future__ import annotations

import importlib.util
import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from disbatch.kvsstcp import channel
from disbatch.kvsstcp.channel import Channel, Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 30.0


@pytest.fixture(scope="module")
def identity() -> Identity:
    return Identity()


class Pair:
    """A client and a server that have made the handshake; neither blocks."""

    def __init__(self, identity: Identity) -> None:
        theirs, ours = socket.socketpair()
        self.write, self.read = theirs.dup(), ours.dup()
        """Who stands between them can write to the server there what he likes, and take what is for it."""
        for end in (theirs, ours):
            end.settimeout(PATIENCE)
        self.seen = b""
        thread = threading.Thread(target=self._connect, args=[theirs])
        thread.start()
        self.server = identity.wrap(ours)
        self.server.recv_into(bytearray(1 << 16))
        thread.join()
        self.client.setblocking(False)
        self.server.setblocking(False)

    def _connect(self, end: socket.socket) -> None:
        self.client, self.seen = channel.connect(end)
        self.client.sendall(b"hello")

    def close(self) -> None:
        for end in (self.client, self.server, self.write, self.read):
            end.close()


@pytest.fixture
def pair(identity: Identity) -> Iterator[Pair]:
    made = Pair(identity)
    yield made
    made.close()


def test_the_client_sees_the_certificate_of_the_server(pair: Pair, identity: Identity) -> None:
    assert pair.seen == identity.certificate
    assert pair.client.version() == "TLSv1.3"


def test_every_server_has_a_certificate_of_its_own(identity: Identity) -> None:
    assert Identity().certificate != identity.certificate


def send_for_ever(send: Callable[[memoryview], int]) -> None:
    while send(memoryview(b"x" * 10_000)):
        pass


def test_where_a_plain_socket_would_block_so_does_this(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        pair.client.recv(1 << 16)
    with pytest.raises(BlockingIOError):
        pair.server.recv_into(bytearray(1 << 16))
    for send in (pair.client.send, lambda data: pair.server.sendmsg([data])):
        with pytest.raises(BlockingIOError):
            send_for_ever(send)


@pytest.mark.parametrize("sizes", [[1], [3, 70_000, 5], [1] * 60, [16_384] * 9, [1 << 20]])
def test_pieces_arrive_as_they_were_sent_although_both_ends_stop_in_between(pair: Pair, sizes: list[int]) -> None:
    pieces = [bytes([65 + number % 26]) * size for number, size in enumerate(sizes)]
    unsent = memoryview(b"".join(pieces))
    buffer, arrived = memoryview(bytearray(1 << 16)), bytearray()
    while len(arrived) < sum(sizes):
        if unsent:
            with suppress(BlockingIOError):
                # What is not taken is offered again, cut into pieces in another way.
                unsent = unsent[pair.server.sendmsg([unsent[:1000], unsent[1000:]]) :]
        with suppress(BlockingIOError):
            while count := pair.client.recv_into(buffer):
                arrived += buffer[:count]
                assert not pair.client.pending()  # or a loop would wait for what is here already
    assert arrived == b"".join(pieces)


def test_the_end_of_a_connection_is_one(pair: Pair) -> None:
    pair.client.close()
    pair.write.close()
    assert pair.server.recv(1 << 16) == b""


def test_nothing_unencrypted_is_taken_for_the_peers_not_even_after_a_shutdown(pair: Pair) -> None:
    pair.write.sendall(b"down" * 10)
    pair.server.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ssl.SSLError):
        pair.server.recv_into(bytearray(1 << 16))


def test_what_was_recorded_elsewhere_is_refused(pair: Pair, identity: Identity) -> None:
    other = Pair(identity)
    other.client.send(b"put_")
    pair.write.sendall(other.read.recv(1 << 16))  # rightly encrypted, for another connection
    with pytest.raises(ssl.SSLError):
        pair.server.recv(1 << 16)
    other.close()


def test_a_connection_that_has_ended_before_it_is_taken_over_is_an_error(identity: Identity) -> None:
    for take_over in (identity.wrap, channel.connect):
        with pytest.raises(ConnectionResetError):
            take_over(socket.socket())


def test_an_answer_that_is_not_encrypted_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(b"ASTR        64" + b"0" * 64)
        with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version"):
            channel.connect(theirs)


def test_an_older_tls_is_refused(identity: Identity) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    client = context.wrap_socket(theirs, do_handshake_on_connect=False)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    server = identity.wrap(ours)
    with pytest.raises(ssl.SSLError, match=r"(?i)unsupported.protocol"):
        server.recv(1 << 16)
    client.close()
    server.close()


def test_a_python_without_tls_1_3_cannot_import_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "HAS_TLSv1_3", False)
    spec = importlib.util.find_spec(channel.__name__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r"no TLS 1.3"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_it_stands_in_the_place_of_a_socket() -> None:
    assert issubclass(Channel, socket.socket)
