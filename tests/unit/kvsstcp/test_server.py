"""`server`, alone: clients are the other ends of socket pairs, the loop is turned by hand, the clock is a number."""

from __future__ import annotations

import errno
import selectors
import socket
from typing import TYPE_CHECKING

import pytest

from disbatch.kvsstcp import auth
from disbatch.kvsstcp.dump import decode_snapshot
from disbatch.kvsstcp.server import Server
from disbatch.kvsstcp.wire import (
    ASTR,
    Limits,
    ReplyParser,
    encode_close,
    encode_down,
    encode_dump,
    encode_get,
    encode_monitor,
    encode_put,
    encode_put_header,
    encode_reply,
    encode_view,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = b"5" * 64
LARGE = b"x" * (4 << 20)


class House:
    """An owner with a loop, a server in it, and clients."""

    def __init__(self, secret: bytes | None = None, queue_limit: int = 1 << 20) -> None:
        self.now = 100.0
        self.lines: list[str] = []
        self.gone: list[int] = []
        self.clients: list[socket.socket] = []
        self.selector = selectors.DefaultSelector()
        self.server = Server(
            self.selector,
            ("127.0.0.1", 0),
            secret=secret,
            limits=Limits(key=2000, value=1 << 24),
            queue_limit=queue_limit,
            on_disconnect=self.gone.append,
            log=self.lines.append,
            clock=lambda: self.now,
        )
        self.lines.clear()

    def client(self, sent: bytes = b"") -> socket.socket:
        ours, theirs = socket.socketpair()
        self.clients.append(ours)
        ours.setblocking(False)
        self.server.adopt(theirs)
        return self.say(ours, sent)

    def say(self, client: socket.socket, sent: bytes) -> socket.socket:
        client.sendall(sent)
        self.turn()
        return client

    def turn(self) -> None:
        """Turn the loop until nothing is ready."""
        for _ in range(1000):
            ready = self.selector.select(0)
            if not ready:
                return
            for key, mask in ready:
                key.data(mask)
        raise AssertionError("the loop spins")

    def hear(self, client: socket.socket) -> bytes:
        """Read all that comes as long as the loop turns; b"END" marks an end of the connection."""
        heard = bytearray()
        while True:
            self.turn()
            try:
                data = client.recv(1 << 20)
            except BlockingIOError:
                return bytes(heard)
            except ConnectionResetError:
                data = b""
            if not data:
                return bytes(heard) + b"END"
            heard += data


@pytest.fixture
def houses() -> Iterator[list[House]]:
    built: list[House] = []
    yield built
    for house in built:
        house.server.close()
        assert not house.selector.get_map()
        house.selector.close()
        for client in house.clients:
            client.close()


@pytest.fixture
def house(houses: list[House]) -> House:
    houses.append(House())
    return houses[0]


@pytest.fixture
def guarded(houses: list[House]) -> House:
    houses.append(House(SECRET))
    return houses[0]


def astr(value: bytes) -> bytes:
    return encode_reply(ASTR, value)


def put(key: bytes, value: bytes) -> bytes:
    return encode_put(key, ASTR, value)


def test_put_view_and_get_between_two_clients(house: House) -> None:
    waiting = house.client(encode_get(b"k"))
    other = house.client(put(b"k", b"1") + put(b"k", b"2") + encode_view(b"k"))
    assert house.hear(waiting) == astr(b"1")
    assert house.hear(other) == astr(b"2")


def test_requests_may_come_byte_by_byte(house: House) -> None:
    client = house.client()
    for byte in put(b"k", b"value") + encode_get(b"k"):
        house.say(client, bytes([byte]))
    assert house.hear(client) == astr(b"value")


def test_monitor_and_dump(house: House) -> None:
    client = house.client(encode_monitor(b"m", b":p") + put(b"k", b"1") + encode_dump())
    length, pickled = (data := house.hear(client))[:10], data[10:]
    assert int(length) == len(pickled)
    assert decode_snapshot(pickled) == ([0, 1, 0, 0], [], [(b"k", 1, (ASTR, b"1")), (b"m", 1, (ASTR, b"p:k"))])


def test_close_and_the_end_of_a_connection_are_told_to_the_owner(house: House) -> None:
    assert house.hear(house.client(encode_close())) == b"END"
    house.client().close()
    house.turn()
    assert house.gone == [1, 2]


def test_down_ends_the_server(house: House) -> None:
    waiting = house.client(encode_get(b"k"))
    house.client(encode_down())
    assert house.server.closed
    assert house.hear(waiting) == b"END"


def test_the_owner_hears_values_in_order_with_their_peer(house: House) -> None:
    heard: list[tuple[bytes, bytes, int | None]] = []
    house.server.put(b"k", b"JSON", b"0")
    house.server.listen(b"k", lambda tag, value, peer: heard.append((tag, value, peer)))
    house.client(put(b"k", b"1") + put(b"k", b"2"))
    house.client(put(b"k", b"3"))
    house.server.put(b"k", ASTR, b"4")
    assert heard == [(b"JSON", b"0", None), (ASTR, b"1", 1), (ASTR, b"2", 1), (ASTR, b"3", 2), (ASTR, b"4", None)]


def test_a_handler_may_put_to_its_own_key(house: House) -> None:
    heard: list[bytes] = []

    def count_down(_tag: bytes, value: bytes, _peer: int | None) -> None:
        heard.append(value)
        if int(value):
            house.server.put(b"k", ASTR, b"%d" % (int(value) - 1))

    house.server.listen(b"k", count_down)
    house.client(put(b"k", b"3000"))  # more than Python recurses
    assert len(heard) == 3001


def test_what_a_handler_raises_comes_out_and_breaks_nothing(house: House) -> None:
    heard: list[bytes] = []

    def divide(_tag: bytes, value: bytes, _peer: int | None) -> None:
        heard.append(value)
        _ = 1 // int(value)

    house.server.listen(b"k", divide)
    with pytest.raises(ZeroDivisionError):
        house.server.put(b"k", ASTR, b"0")
    house.server.put(b"k", ASTR, b"1")
    assert heard == [b"0", b"1"]


def test_replace_leaves_the_last_value_alone(house: House) -> None:
    for number in range(3):
        house.server.put(b"k", ASTR, b"%d" % number)
    house.server.replace(b"k", ASTR, b"new")
    assert house.server.take(b"k") == (ASTR, b"new")
    assert house.server.take(b"k") is None


def test_a_large_value_reaches_a_waiting_get_without_stopping_others(house: House) -> None:
    slow = house.client(encode_get(b"k"))
    house.server.put(b"k", ASTR, LARGE)
    assert house.server.unsent > 1 << 20
    assert house.hear(house.client(put(b"l", b"1") + encode_get(b"l"))) == astr(b"1")
    assert ReplyParser().feed(house.hear(slow)) == [(ASTR, LARGE)]
    assert house.server.unsent == 0


def test_a_large_value_may_be_put(house: House) -> None:
    client = house.client()
    data = memoryview(encode_put_header(b"k", ASTR, len(LARGE)) + LARGE)
    while data:
        try:
            data = data[client.send(data) :]
        except BlockingIOError:
            house.turn()
    house.turn()
    assert house.server.take(b"k") == (ASTR, LARGE)


def test_who_asks_for_more_and_reads_nothing_is_cut_off_and_loses_nothing(house: House) -> None:
    for number in range(3):
        house.server.put(b"k", ASTR, b"%d" % number + LARGE)
    client = house.client(encode_get(b"k") + encode_get(b"k"))
    assert house.gone == [1]
    assert "asks for more and leaves" in house.lines[0]
    assert house.hear(client).endswith(b"END")
    values = [house.server.take(b"k") for _ in range(3)]
    assert [value[1][:1] for value in values if value] == [b"0", b"1", b"2"]


def test_a_getter_that_has_hung_up_unnoticed_takes_nothing_but_its_puts_count(house: House) -> None:
    getter = house.client(encode_get(b"k"))
    getter.sendall(put(b"l", b"last words"))
    getter.close()
    house.server.put(b"k", ASTR, b"1")  # before the loop has seen the end
    assert house.server.take(b"k") == (ASTR, b"1")
    house.turn()
    assert house.server.take(b"l") == (ASTR, b"last words")
    assert house.gone == [1]


def test_a_getter_whose_end_tcp_has_told_of_takes_nothing(house: House) -> None:
    getter = socket.create_connection(house.server.address)
    house.turn()
    house.say(getter, encode_get(b"k"))
    getter.close()  # over TCP, unlike in a socket pair, the next send would seem to succeed
    house.server.put(b"k", ASTR, b"1")
    assert house.server.take(b"k") == (ASTR, b"1")


def test_what_lies_unsent_when_a_getter_breaks_goes_to_the_next(house: House) -> None:
    broken = house.client(encode_get(b"k"))
    house.server.put(b"k", ASTR, LARGE)
    next_one = house.client(encode_get(b"k"))
    broken.close()
    assert ReplyParser().feed(house.hear(next_one)) == [(ASTR, LARGE)]


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (b"quit", "unknown operation b'quit'"),
        (b"get_      none", "bad length b'      none' of a key"),
        (b"get_      2001", "a key of 2001 bytes is over the limit of 2000"),
        (encode_get(b".auth challenge"), "reserved for the handshake"),
        (put(b".auth response", b""), "reserved for the handshake"),
        (encode_view(b".auth x"), "reserved for the handshake"),
    ],
)
def test_bad_bytes_end_a_connection_and_nothing_else(house: House, sent: bytes, complaint: str) -> None:
    assert house.hear(house.client(put(b"k", b"1") + sent)) == b"END"
    assert complaint in house.lines[0]
    assert house.hear(house.client(encode_get(b"k"))) == astr(b"1")


def shake_hands(house: House, secret: bytes, then: bytes = b"") -> socket.socket:
    client = house.client(encode_get(auth.CHALLENGE_KEY))
    [(_, nonce)] = ReplyParser().feed(house.hear(client))
    response = auth.respond(secret, nonce, b"c" * 64)
    return house.say(client, put(auth.RESPONSE_KEY, response) + encode_get(auth.PROOF_KEY) + then)


def test_after_the_handshake_sizes_grow_in_the_same_bytes(guarded: House) -> None:
    client = shake_hands(guarded, SECRET, put(b"k", b"v" * 1025) + encode_get(b"k"))
    [_, value] = ReplyParser().feed(guarded.hear(client))
    assert value == (ASTR, b"v" * 1025)
    assert guarded.server.expire(1e9) is None


@pytest.mark.parametrize("sent", [encode_dump(), encode_down(), encode_close(), put(b"k", b""), b"get_      1025"])
def test_a_stranger_gets_a_closed_socket(guarded: House, sent: bytes) -> None:
    assert guarded.hear(guarded.client(sent)) == b"END"
    assert len(guarded.lines) == 1
    assert not guarded.server.closed
    assert guarded.server.take(b"k") is None
    assert guarded.gone == []


def test_another_secret_is_not_let_in(guarded: House) -> None:
    assert guarded.hear(shake_hands(guarded, b"6" * 64, encode_dump())) == b"END"
    assert "another secret" in guarded.lines[0]
    assert SECRET.decode() not in guarded.lines[0]


def test_a_handshake_has_ten_seconds(guarded: House) -> None:
    early = guarded.client()
    guarded.now += 4
    late = guarded.client()
    assert guarded.server.expire(guarded.now) == 6
    assert guarded.server.expire(guarded.now + 6) == 4
    assert guarded.hear(early) == b"END"
    assert guarded.hear(late) == b""
    assert guarded.lines == ["ended the connection of a local socket: no proof of the secret within 10 s"]


@pytest.mark.parametrize(
    ("largest", "too_large"),
    [
        (encode_get(b"k" * 65_536), encode_get(b"k" * 65_537)),
        (encode_put_header(b"k", ASTR, 1_073_741_824), encode_put_header(b"k", ASTR, 1_073_741_825)),
    ],
    ids=["key", "value"],
)
def test_an_owner_who_names_no_limits_has_64_kib_and_1_gib(
    houses: list[House], largest: bytes, too_large: bytes
) -> None:
    houses.append(House())
    houses[0].server.close()
    houses[0].server = Server(houses[0].selector, ("127.0.0.1", 0), secret=None)
    assert houses[0].hear(houses[0].client(largest)) == b""
    assert houses[0].hear(houses[0].client(too_large)) == b"END"


def test_without_a_secret_the_owner_is_warned(houses: list[House]) -> None:
    houses.append(House())
    lines: list[str] = []
    Server(houses[0].selector, ("127.0.0.1", 0), secret=None, log=lines.append).close()
    assert "asks for no secret" in lines[0]


class _Refusing(socket.socket):
    """A listening socket with one connection waiting and no descriptor left for it."""

    failures = 1

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@pytest.mark.parametrize("way", ["time", "room"])
def test_out_of_descriptors_it_waits_and_goes_on(way: str) -> None:
    now, lines = [100.0], list[str]()
    with selectors.DefaultSelector() as selector, _Refusing() as listening, socket.socket() as client:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = Server(selector, listening, secret=SECRET, log=lines.append, clock=lambda: now[0])
        ours, theirs = socket.socketpair()
        server.adopt(theirs)
        client.connect(listening.getsockname())
        for key, mask in selector.select(1):
            key.data(mask)
        assert lines == ["cannot accept connections for now: Too many open files"]
        assert selector.select(0) == []  # it does not spin
        if way == "time":
            assert server.expire(100.25) == 0.75
            server.expire(101)
        else:
            ours.close()
            for key, mask in selector.select(1):
                key.data(mask)
        [(key, mask)] = [ready for ready in selector.select(1) if ready[0].fileobj is listening]
        key.data(mask)
        assert len(server._connections) == (2 if way == "time" else 1)
        server.close()
        ours.close()
