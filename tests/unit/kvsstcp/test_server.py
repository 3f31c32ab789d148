"""`server`, alone: clients are the other ends of socket pairs, the loop is turned by hand, the clock is a number."""

from __future__ import annotations

import errno
import resource
import selectors
import socket
import ssl
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from disbatch.kvsstcp import auth
from disbatch.kvsstcp import server as server_module
from disbatch.kvsstcp.dump import decode_snapshot
from disbatch.kvsstcp.rights import Keys, Rights
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

    def __init__(
        self,
        secret: bytes | dict[bytes, Rights] | None = None,
        queue_limit: int = 1 << 20,
        store_limit: int = 1 << 24,
    ) -> None:
        self.now = 100.0
        self.cost = 0.0
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
            store_limit=store_limit,
            on_disconnect=self.gone.append,
            log=self.lines.append,
            clock=self.clock,
        )
        self.lines.clear()

    def clock(self) -> float:
        self.now += self.cost
        return self.now

    def client(self, sent: bytes = b"", address: str = "a local socket") -> socket.socket:
        ours, theirs = socket.socketpair()
        self.clients.append(ours)
        ours.setblocking(False)
        self.server.adopt(theirs, address)
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


def test_the_owner_can_ask_whether_a_key_is_awaited(house: House) -> None:
    client = house.client(encode_view(b"k"))
    house.turn()
    assert house.server.is_awaited(b"k")
    house.server.put(b"k", ASTR, b"v")
    assert house.hear(client) == astr(b"v")
    assert not house.server.is_awaited(b"k")


def test_a_key_may_be_answered_anew_for_each_view_while_others_are_as_ever(house: House) -> None:
    asked: list[bytes] = []

    def answer(key: bytes) -> bytes:
        asked.append(key)
        return b"%d" % len(asked)

    house.server.answer(b"made", ASTR, answer)
    client = house.client(encode_view(b"made") + encode_view(b"made of") + put(b"mad", b"plain") + encode_view(b"mad"))
    assert house.hear(client) == astr(b"1") + astr(b"2") + astr(b"plain")
    assert asked == [b"made", b"made of"]
    assert house.server.take(b"made") is None, "nothing of it is kept"


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


LOOKING, DOING = b"7" * 64, b"8" * 64
ROLES = {
    LOOKING: Rights(view=Keys(b"k")),
    DOING: Rights(put=Keys(b"k"), get=Keys(begin=(b"mine",)), view=Keys(begin=(b"",), but=(b"private",)), dump=True),
}


@pytest.fixture
def shared(houses: list[House]) -> House:
    houses.append(House(ROLES))
    houses[0].server.put(b"k", ASTR, b"1")
    houses[0].server.put(b"private", ASTR, b"2")
    return houses[0]


@pytest.mark.parametrize(
    ("secret", "sent", "answer"),
    [
        (LOOKING, encode_view(b"k"), b"1"),
        (DOING, put(b"k", b"3") + encode_view(b"k"), b"3"),
        (DOING, put(b"k", b"v" * 1025) + encode_view(b"k"), b"v" * 1025),
    ],
)
def test_a_connection_may_do_what_its_secret_gives_the_right_to(
    shared: House, secret: bytes, sent: bytes, answer: bytes
) -> None:
    [_, value] = ReplyParser().feed(shared.hear(shake_hands(shared, secret, sent)))
    assert value == (ASTR, answer)
    assert shared.lines == []


@pytest.mark.parametrize(
    ("secret", "sent", "complaint"),
    [
        (LOOKING, encode_view(b"private"), "its secret gives no right to view b'private'"),
        (LOOKING, encode_get(b"k"), "its secret gives no right to get b'k'"),
        (LOOKING, put(b"k", b"3"), "its secret gives no right to put b'k'"),
        (LOOKING, encode_monitor(b"k", b"k:p"), "its secret gives no right to monitor b'k'"),
        (LOOKING, encode_dump(), "its secret gives no right to dump"),
        (LOOKING, encode_down(), "its secret gives no right to down"),
        (DOING, encode_get(b"k"), "its secret gives no right to get b'k'"),
        (DOING, put(b"private", b"3"), "its secret gives no right to put b'private'"),
        (DOING, put(b"p" * 100, b"3"), f"its secret gives no right to put {b'p' * 40!r}"),
        (DOING, encode_down(), "its secret gives no right to down"),
    ],
)
def test_a_request_beyond_its_rights_ends_a_connection_and_nothing_else(
    shared: House, secret: bytes, sent: bytes, complaint: str
) -> None:
    heard = shared.hear(shake_hands(shared, secret, sent + encode_view(b"k")))
    assert len(ReplyParser().feed(heard.removesuffix(b"END"))) == 1, "the proof, and no answer"
    assert heard.endswith(b"END")
    assert shared.lines == [f"ended the connection of a local socket: {complaint}"]
    assert shared.server.take(b"k") == (ASTR, b"1")
    assert shared.server.take(b"k") is None
    assert not shared.server.closed
    assert len(shared.gone) == 1


def test_what_may_not_be_viewed_is_in_no_dump(shared: House) -> None:
    client = shake_hands(shared, DOING)
    shared.hear(client)
    shared.say(client, encode_dump())
    _, _, held = decode_snapshot(shared.hear(client)[10:])
    assert [key for key, *_ in held] == [b"k"]


def test_who_may_put_nothing_cannot_send_much(shared: House) -> None:
    client = shake_hands(shared, LOOKING, encode_put_header(b"k", ASTR, 1025))
    assert shared.hear(client).endswith(b"END")
    assert "a value of 1025 bytes is over the limit of 1024" in shared.lines[0]


def test_several_secrets_that_are_none_let_nobody_in(houses: list[House]) -> None:
    houses.append(House({}))
    assert houses[0].hear(shake_hands(houses[0], SECRET, encode_dump())) == b"END"


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
        server = Server(selector, listening, secret=None, log=lines.append, clock=lambda: now[0])
        lines.clear()
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
        for key, mask in selector.select(1):
            key.data(mask)
        assert len(server._connections) == (2 if way == "time" else 1)
        server.close()
        ours.close()


def test_out_of_descriptors_a_stranger_makes_room() -> None:
    lines: list[str] = []
    with selectors.DefaultSelector() as selector, _Refusing() as listening, socket.socket() as client:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = Server(selector, listening, secret=SECRET, log=lines.append)
        ours, theirs = socket.socketpair()
        server.adopt(theirs, "stranger:1")
        client.connect(listening.getsockname())
        for key, mask in selector.select(1):
            key.data(mask)
        assert ours.recv(1) == b""
        assert lines == ["ended the connection of stranger:1: no room is left for others"]
        assert len(server._connections) == 1
        server.close()
        ours.close()


# Strangers in crowds


def a_few_strangers(house: House, most: int) -> None:
    house.server._most_strangers = most


def test_of_too_many_strangers_those_of_the_host_with_most_go_the_oldest_first(guarded: House) -> None:
    a_few_strangers(guarded, 4)
    alone = guarded.client(address="alone:1")
    crowd = [guarded.client(address=f"crowd:{port}") for port in range(10)]
    assert guarded.hear(alone) == b""
    assert [guarded.hear(client) for client in crowd] == [b"END"] * 7 + [b""] * 3
    assert guarded.lines[0] == "ended the connection of crowd:0: more than 4 without a proof"


def test_who_has_given_the_proof_is_no_stranger(guarded: House) -> None:
    a_few_strangers(guarded, 2)
    proved = [shake_hands(guarded, SECRET) for _ in range(5)]
    crowd = [guarded.client() for _ in range(5)]
    for client in proved:
        guarded.hear(client)
        assert guarded.hear(guarded.say(client, put(b"k", b"1") + encode_get(b"k"))) == astr(b"1")
    assert guarded.hear(crowd[-1]) == b""
    assert not guarded.gone


def test_a_client_is_let_in_while_strangers_come_by_the_thousand(guarded: House) -> None:
    a_few_strangers(guarded, 100)
    client = guarded.client(encode_get(auth.CHALLENGE_KEY), "friend:1")
    for port in range(1000):
        guarded.client(address=f"foe:{port}")
    [(_, nonce)] = ReplyParser().feed(guarded.hear(client))
    guarded.say(client, put(auth.RESPONSE_KEY, auth.respond(SECRET, nonce, b"c" * 64)))
    for port in range(1000):
        guarded.client(address=f"foe:{port}")
    guarded.say(client, encode_get(auth.PROOF_KEY))
    assert not guarded.hear(client).endswith(b"END")
    assert len(guarded.server._connections) <= 101
    assert len(guarded.lines) == 5


def test_strangers_may_fill_half_of_the_open_files_at_most(houses: list[House]) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, limit[1]))
    try:
        houses.append(House(SECRET))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert houses[0].server._most_strangers == 300


def test_what_strangers_do_silences_no_complaint_of_a_client(guarded: House) -> None:
    for _ in range(20):
        guarded.client(b"quit")
    shake_hands(guarded, SECRET, b"quit")
    assert len(guarded.lines) == 6


def test_strangers_get_a_share_of_the_time_and_clients_all_they_need(guarded: House) -> None:
    client = shake_hands(guarded, SECRET)
    guarded.hear(client)
    stranger = guarded.client()
    guarded.server._credit = 0.5
    guarded.cost = 1.0  # each look at the clock takes so long: hearing the stranger uses up more than was saved
    guarded.say(stranger, encode_get(auth.CHALLENGE_KEY)[:10])
    guarded.cost = 0.0
    guarded.say(stranger, encode_get(auth.CHALLENGE_KEY)[10:])
    assert guarded.hear(stranger) == b""
    assert guarded.hear(guarded.say(client, put(b"k", b"1") + encode_get(b"k"))) == astr(b"1")
    wait = guarded.server.expire(guarded.now)
    assert wait == pytest.approx(1.0)  # 0.5 and 1/4 of 1.0 were there, 1.0 was used: four times the rest
    guarded.now += 1.0
    guarded.server.expire(guarded.now)
    [(_, nonce)] = ReplyParser().feed(guarded.hear(stranger))
    assert len(nonce) == 64


def test_it_may_be_closed_while_strangers_have_to_wait(guarded: House) -> None:
    stranger = guarded.client()
    guarded.cost = 10.0
    guarded.say(stranger, b"get_")
    guarded.server.close()
    assert guarded.server.expire(1e9) is None
    assert guarded.hear(stranger) == b"END"


# Clients that go too far


@pytest.fixture
def small(houses: list[House]) -> House:
    houses.append(House(store_limit=100_000))
    return houses[0]


def test_keys_without_end_fill_the_store_and_no_more(small: House) -> None:
    waiting = small.client(encode_get(b"report"))
    for number in range(0, 1000, 10):
        if small.hear(small.client(b"".join(put(b"%d" % key, b"") for key in range(number, number + 10)))):
            break
    assert "no room for what it puts: the store takes 100000 bytes" in small.lines[0]
    assert small.server._store.size <= 100_000
    small.client(put(b"report", b"what is awaited goes through"))
    assert small.hear(waiting) == astr(b"what is awaited goes through")
    small.server.put(b"owner", ASTR, b"x" * 200_000)
    assert small.server.take(b"owner") == (ASTR, b"x" * 200_000)
    assert small.hear(small.client(encode_get(b"0") + put(b"0", b"there is room again"))) == astr(b"")
    assert small.server.take(b"0") == (ASTR, b"there is room again")


def test_monitors_without_end_fill_the_store_and_no_more(small: House) -> None:
    assert small.hear(small.client(b"".join(encode_monitor(b"%d" % number, b"k:p") for number in range(200)))) == b"END"
    assert small.server._store.size <= 100_000


def test_of_unfinished_requests_that_are_too_much_together_the_largest_is_ended(small: House) -> None:
    begun = encode_put_header(b"k", ASTR, 90_000)
    large, other = small.client(begun + b"x" * 60_000), small.client(begun + b"x" * 30_000)
    small.say(other, b"x" * 20_000)
    assert small.hear(large) == b"END"
    assert "more than 100000 bytes of unfinished requests, most of them its own" in small.lines[0]
    small.say(other, b"x" * 40_000)
    assert small.server.take(b"k") == (ASTR, b"x" * 90_000)
    assert small.server._unfinished == 0


def test_what_a_connection_has_not_finished_is_forgotten_with_it(small: House) -> None:
    for _ in range(10):
        small.client(encode_put_header(b"k", ASTR, 90_000) + b"x" * 60_000).close()
        small.turn()
    assert small.lines == []
    assert small.server._unfinished == 0


# Encryption

ENCRYPTED_SECRET = b"tls:" + SECRET


@pytest.fixture
def private(houses: list[House]) -> House:
    houses.append(House(ENCRYPTED_SECRET))
    return houses[0]


class EncryptedClient:
    """The other end of a connection over TLS, which never waits."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.raw = house.client()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.pass_on()
        self.pass_on()

    def pass_on(self) -> bytes:
        """Send what is to be sent, and take what comes; b"END" is the end of the connection."""
        heard = self.house.hear(self.house.say(self.raw, self.outgoing.read()))
        self.incoming.write(heard.removesuffix(b"END"))
        return heard

    def hear(self, sent: bytes = b"") -> bytes:
        """Say something, and return all that is answered."""
        self.tls.write(sent) if sent else None
        ended = self.pass_on().endswith(b"END")
        heard = bytearray()
        with suppress(ssl.SSLWantReadError):
            while data := self.tls.read(1 << 16):
                heard += data
        return bytes(heard) + b"END" * ended

    def prove(self, secret: bytes) -> bytes:
        """Try to prove a secret; the server's proof, or its end."""
        nonce = self.hear(encode_get(auth.CHALLENGE_KEY))[-64:]
        answered = self.hear(put(auth.RESPONSE_KEY, auth.respond(secret, nonce, b"c" * 64)))
        return answered or self.hear(encode_get(auth.PROOF_KEY))

    @property
    def secret(self) -> bytes:
        """What the secret is on this connection."""
        return auth.bound_secret(ENCRYPTED_SECRET, self.tls.getpeercert(binary_form=True) or b"")


def test_a_client_that_encrypts_speaks_as_any_other(private: House) -> None:
    client = EncryptedClient(private)
    assert not client.prove(client.secret).endswith(b"END")
    assert client.hear(put(b"k", b"v") + encode_get(b"k")) == astr(b"v")
    assert client.hear(encode_close()) == b"END"
    assert private.gone == [1]


def test_values_of_any_size_reach_a_client_that_encrypts(private: House) -> None:
    client = EncryptedClient(private)
    client.prove(client.secret)
    for number in range(200):
        private.server.put(b"k", ASTR, b"%d" % number)
    private.server.put(b"k", ASTR, LARGE)
    replies = ReplyParser().feed(client.hear(encode_get(b"k") * 201))
    assert replies == [(ASTR, b"%d" % number) for number in range(200)] + [(ASTR, LARGE)]
    assert private.server.unsent == 0


def test_a_value_that_a_client_that_encrypts_did_not_read_goes_to_others(private: House) -> None:
    client = EncryptedClient(private)
    client.prove(client.secret)
    client.tls.write(encode_get(b"k"))
    private.say(client.raw, client.outgoing.read())
    private.server.put(b"k", ASTR, LARGE)
    client.raw.close()
    private.turn()
    assert private.server.take(b"k") == (ASTR, LARGE)


@pytest.mark.parametrize("secret", [ENCRYPTED_SECRET, SECRET, auth.bound_secret(ENCRYPTED_SECRET, b"another")])
def test_a_proof_that_is_not_of_this_connection_is_refused(private: House, secret: bytes) -> None:
    assert EncryptedClient(private).prove(secret) == b"END"
    assert "another secret" in private.lines[-1]


def prove_unencrypted(house: House) -> bytes:
    client = house.client(encode_get(auth.CHALLENGE_KEY))
    nonce = house.hear(client)
    if nonce == b"END":
        return nonce
    house.say(client, put(auth.RESPONSE_KEY, auth.respond(ENCRYPTED_SECRET, nonce[-64:], b"c" * 64)))
    return house.hear(house.say(client, encode_get(auth.PROOF_KEY) + put(b"k", b"v") + encode_get(b"k")))


def test_a_client_of_this_host_may_do_without(private: House) -> None:
    assert prove_unencrypted(private).endswith(astr(b"v"))


def test_a_client_of_another_host_may_not(private: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "on_this_host", lambda _socket: False)
    assert prove_unencrypted(private) == b"END"
    assert private.lines == ["ended the connection of a local socket: it does not encrypt, as other hosts must"]
    client = EncryptedClient(private)
    assert not client.prove(client.secret).endswith(b"END")


def test_tls_is_no_request_where_nothing_is_encrypted(guarded: House) -> None:
    assert guarded.hear(guarded.client(b"\x16\x03\x01\x00\x05hello")) == b"END"
    assert "unknown operation" in guarded.lines[0]


def test_what_is_no_tls_ends_the_connection_and_is_logged(private: House) -> None:
    assert private.hear(private.client(b"\x16 is how it begins, no more")).endswith(b"END")
    assert "SSL" in private.lines[0]


def test_a_tls_handshake_takes_no_longer_than_another(private: House) -> None:
    stranger = private.client(b"\x16\x03\x01")
    silent = private.client()
    private.now += auth.HANDSHAKE_SECONDS
    private.server.expire(private.now)
    assert private.hear(stranger) == private.hear(silent) == b"END"


def test_strangers_over_tls_drive_out_one_another_and_nobody_else(
    private: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "TLS_HANDSHAKES", 2)
    proved = EncryptedClient(private)
    proved.prove(proved.secret)
    plain = private.client(b"get_")
    first, second, third = (private.client(b"\x16") for _ in range(3))
    assert [private.hear(client) for client in (first, second, third, plain)] == [b"END", b"", b"", b""]
    assert private.lines[0].endswith("more than 2 over TLS without a proof")
    assert proved.hear(put(b"k", b"v") + encode_get(b"k")) == astr(b"v")


def test_strangers_may_say_no_more_over_tls(private: House) -> None:
    assert EncryptedClient(private).hear(put(auth.RESPONSE_KEY, b"x" * 2000)) == b"END"
    assert "over the limit of 1024" in private.lines[0]


def test_a_python_that_cannot_encrypt_says_so(private: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "disbatch.kvsstcp.channel", None)
    assert private.hear(private.client(b"\x16")) == b"END"
    assert "cannot serve it: import of" in private.lines[0]
    assert prove_unencrypted(private).endswith(astr(b"v"))
