"""A mailbox over a pair of sockets: at the other end a key-value store that the test turns by hand."""

from __future__ import annotations

import pickle
import socket
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch import mailbox as module
from disbatch import messages
from disbatch.eventloop import READ, EventLoop
from disbatch.kvsstcp.store import Store
from disbatch.kvsstcp.wire import ASTR, PYPK, Get, Limits, Put, Request, RequestParser, encode_reply
from disbatch.mailbox import Mailbox
from disbatch.messages import EngineLeft, EngineRefused, EngineUnfit, Message, ReturnTasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from disbatch.kvsstcp.store import Delivery

OURS, DRIVER = b"our key", b"the driver's key"
LARGE = 1_000_000


class Office:
    """The server's end of a connection, with a store of its own."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.setblocking(False)
        self.requests: list[Request] = []
        self.answered = 0
        self.unsent = bytearray()
        self._parser = RequestParser(Limits())
        self._store: Store[str] = Store()

    def receive(self, limit: int = 1 << 20) -> bool:
        """Serve what has come, at most so many bytes; whether anything had."""
        try:
            data = self.connection.recv(limit)
        except BlockingIOError:
            return False
        for request in self._parser.feed(data):
            self.requests.append(request)
            if isinstance(request, Put):
                self._store.put(request.key, request.tag, request.value)
            else:
                assert isinstance(request, Get)
                assert self.asked == self.answered + 1, "it asks before it has the answer to its last"
                self._answer(self._store.get("mailbox", request.key))
        return bool(data)

    def put(self, value: bytes, tag: bytes = messages.TAG) -> None:
        """Put a value under the key of the mailbox."""
        self._answer(self._store.put(OURS, tag, value))

    def post(self, *posted: Message) -> None:
        for message in posted:
            self.put(messages.encode(message))

    def _answer(self, deliveries: list[Delivery[str]]) -> None:
        for delivery in deliveries:
            self.answered += 1
            self.unsent += encode_reply(delivery.tag, delivery.value)

    def send(self, limit: int = 1 << 20) -> bool:
        """Send what is due, at most so many bytes; whether any went."""
        try:
            sent = self.connection.send(self.unsent[:limit]) if self.unsent else 0
        except BlockingIOError:
            return False
        del self.unsent[:sent]
        return bool(sent)

    @property
    def heard(self) -> list[Message]:
        """What the driver was told."""
        puts = [request for request in self.requests if isinstance(request, Put)]
        assert all(put.key == DRIVER for put in puts)
        return [messages.decode(put.value, put.tag) for put in puts]

    @property
    def asked(self) -> int:
        """How often the mailbox has asked for a message."""
        gets = [request for request in self.requests if isinstance(request, Get)]
        assert all(get.key == OURS for get in gets)
        return len(gets)


class Bench:
    """A mailbox, its owner, and the other end; the kernel holds about `buffered` bytes each way."""

    def __init__(self, buffered: int = 50_000) -> None:
        self.connection, theirs = socket.socketpair()
        for end in (self.connection, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffered)
        self.office = Office(theirs)
        self.loop = EventLoop()
        self.got: list[Message] = []
        self.lost: list[str] = []
        self.on_message: Callable[[Message], None] = self.got.append

    def open(self) -> Mailbox:
        self.mailbox = Mailbox(self.loop, self.connection, OURS, DRIVER, self._hand_over, self.lost.append)
        return self.mailbox

    def _hand_over(self, message: Message) -> None:
        self.on_message(message)

    def turn(self) -> None:
        self.loop.turn(0)

    def settle(self) -> None:
        """Let everything go its way until nothing moves any more."""
        for _ in range(10_000):
            self.turn()
            received = self.office.receive()
            if not (self.office.send() or received or self.loop.selector.select(0)):
                return
        raise AssertionError("it never comes to rest")

    def hears(self, sent: bytes) -> None:
        """Let the mailbox receive these bytes at once."""
        self.office.connection.sendall(sent)
        self.turn()

    def close(self) -> None:
        self.mailbox.close()
        self.loop.close()
        self.office.connection.close()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A mailbox that asks for the next message in the turn that brought one."""
    monkeypatch.setattr(module, "ASK_DELAY", 0.0)
    made = Bench()
    made.open()
    yield made
    made.close()


def refusal(text: str = "no") -> bytes:
    return encode_reply(messages.TAG, messages.encode(EngineRefused(text)))


# Messages that come.


def test_it_asks_for_its_messages_at_once(bench: Bench) -> None:
    bench.office.receive()
    assert bench.office.requests == [Get(OURS)]


def test_messages_are_handed_over_in_their_order(bench: Bench) -> None:
    sent = [EngineRefused(str(number)) for number in range(20)]
    bench.office.post(*sent[:10])
    bench.settle()
    bench.office.post(*sent[10:])
    bench.settle()
    assert bench.got == sent
    assert bench.office.asked == 21, "one is always asked for"


def test_a_message_in_pieces_is_handed_over_when_it_is_whole(bench: Bench) -> None:
    data = refusal()
    for end in range(1, len(data)):
        bench.hears(data[end - 1 : end])
    assert bench.got == []
    bench.hears(data[-1:])
    assert bench.got == [EngineRefused("no")]


def test_a_message_larger_than_any_buffer_is_handed_over(bench: Bench) -> None:
    bench.office.post(EngineRefused("x" * LARGE), ReturnTasks())
    bench.settle()
    assert bench.got == [EngineRefused("x" * LARGE), ReturnTasks()]


def test_several_messages_that_came_at_once_are_all_handed_over(bench: Bench) -> None:
    bench.hears(refusal("1") + refusal("2") + refusal("3")[:-1])
    bench.hears(refusal("3")[-1:])
    assert bench.got == [EngineRefused(text) for text in "123"]


def several(*sent: Message) -> bytes:
    """Messages as one value."""
    return encode_reply(messages.TAG, b"".join(map(messages.encode, sent)))


def test_several_messages_in_one_value_are_all_handed_over(bench: Bench) -> None:
    bench.hears(several(EngineRefused("1"), EngineRefused("2")) + refusal("3"))
    assert bench.got == [EngineRefused(text) for text in "123"]


def test_the_rest_of_a_value_is_not_handed_over_once_the_owner_has_closed(bench: Bench) -> None:
    def close(message: Message) -> None:
        bench.got.append(message)
        bench.mailbox.close()

    bench.on_message = close
    bench.hears(several(EngineRefused("1"), EngineRefused("2")))
    assert bench.got == [EngineRefused("1")]


# When the next is asked for.


def test_asking_for_the_next_waits_for_a_message_to_travel_with(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_DELAY", 1000.0)
    bench.office.post(ReturnTasks())
    bench.settle()
    assert (bench.got, bench.office.asked) == ([ReturnTasks()], 1)
    bench.office.requests.clear()
    bench.office.answered = 0
    bench.mailbox.send(EngineLeft(1))
    bench.office.receive()
    assert [type(request) for request in bench.office.requests] == [Put, Get], "both in one piece"
    bench.mailbox.send(EngineLeft(2))
    bench.settle()
    assert bench.office.asked == 1, "once for each message that came"


def test_asking_for_the_next_does_not_wait_for_long(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_DELAY", 0.001)
    bench.office.receive()
    bench.office.post(ReturnTasks())
    bench.office.send()
    while bench.office.asked < 2:
        bench.loop.turn(1.0)
        bench.office.receive()


def test_what_took_the_asking_along_leaves_none_for_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_DELAY", 0.001)
    bench.office.receive()
    bench.office.post(ReturnTasks())
    bench.office.send()
    bench.turn()
    bench.mailbox.send(EngineLeft(1))
    bench.loop.turn(0.005)
    bench.settle()
    assert bench.office.asked == 2


def test_what_is_sent_before_any_message_came_does_not_ask_again(bench: Bench) -> None:
    bench.mailbox.send(EngineLeft(1))
    bench.settle()
    assert (bench.office.asked, bench.office.heard) == (1, [EngineLeft(1)])


def test_the_owner_can_answer_as_it_is_handed_a_message(bench: Bench) -> None:
    bench.on_message = lambda _: bench.mailbox.send(EngineLeft(1))
    bench.office.post(ReturnTasks(), ReturnTasks())
    bench.settle()
    assert bench.office.heard == [EngineLeft(1), EngineLeft(1)]
    assert bench.office.asked == 3


def test_asking_for_the_next_travels_with_an_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_DELAY", 1000.0)
    bench.on_message = lambda _: bench.mailbox.send(EngineLeft(1))
    bench.office.post(ReturnTasks())
    bench.settle()
    assert (bench.office.heard, bench.office.asked) == ([EngineLeft(1)], 2)


# Messages that go.


def test_what_is_sent_arrives_under_the_drivers_key_in_its_order(bench: Bench) -> None:
    for number in range(20):
        bench.mailbox.send(EngineLeft(number))
    bench.settle()
    assert bench.office.heard == [EngineLeft(number) for number in range(20)]


def test_a_driver_that_does_not_read_holds_nobody_up(bench: Bench) -> None:
    sent = [EngineUnfit(number, "x" * LARGE) for number in range(3)]
    for message in sent:
        bench.mailbox.send(message)
    bench.turn()
    assert bench.mailbox.unsent > 2 * LARGE
    bench.settle()
    assert bench.office.heard == sent
    assert bench.mailbox.unsent == 0


def test_sending_wakes_the_loop_only_as_long_as_something_is_unsent(bench: Bench) -> None:
    bench.mailbox.send(EngineUnfit(1, "x" * LARGE))
    bench.settle()
    [key] = bench.loop.selector.get_map().values()
    assert key.events == READ


def test_messages_come_while_others_cannot_go(bench: Bench) -> None:
    bench.office.receive()
    bench.mailbox.send(EngineUnfit(1, "x" * LARGE))
    bench.office.post(ReturnTasks())
    bench.office.send()
    bench.turn()
    assert bench.got == [ReturnTasks()]
    assert bench.mailbox.unsent
    bench.office.post(ReturnTasks())
    bench.settle()
    assert bench.got == [ReturnTasks(), ReturnTasks()]


sizes = st.sampled_from([0, 1, 100, 3000, 20_000])
steps = st.lists(
    st.tuples(st.sampled_from(["post", "tell"]), sizes)
    | st.tuples(st.sampled_from(["office receives", "office sends"]), st.integers(1, 5000))
    | st.tuples(st.just("turn"), st.just(0)),
    max_size=30,
)


@given(steps)
def test_everything_arrives_once_and_in_order_however_it_is_cut(steps: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "ASK_DELAY", 0.0)
        bench = Bench(buffered=1)  # that is, the least that there is
        bench.open()
        posted: list[Message] = []
        told: list[Message] = []
        for step, number in steps:
            if step == "post":
                posted.append(EngineRefused(f"{len(posted)}" + "x" * number))
                bench.office.post(posted[-1])
            elif step == "tell":
                told.append(message := EngineUnfit(len(told), "x" * number))
                bench.mailbox.send(message)
            elif step == "office receives":
                bench.office.receive(number)
            elif step == "office sends":
                bench.office.send(number)
            else:
                bench.turn()
        bench.settle()
        bench.close()
        assert bench.got == posted
        assert bench.office.heard == told
        assert bench.office.asked == len(posted) + 1
        assert bench.lost == []


# Ends.


def assert_lost_once(bench: Bench) -> None:
    """The owner was told, and nothing is left that could happen."""
    [reason] = bench.lost
    assert reason
    assert reason.isprintable()
    assert not bench.mailbox.open
    assert not bench.loop.selector.get_map(), "the loop still watches it"
    assert bench.connection.fileno() == -1
    got = list(bench.got)
    bench.mailbox.send(EngineLeft(1))
    bench.turn()
    bench.mailbox.close()
    bench.turn()
    assert bench.lost == [reason]
    assert bench.got == got


def test_a_closed_connection_is_lost_once(bench: Bench) -> None:
    bench.office.receive()
    bench.office.connection.close()
    bench.turn()
    assert_lost_once(bench)
    assert bench.lost == ["the connection was closed"]


def test_a_broken_connection_is_lost_once(bench: Bench) -> None:
    bench.office.connection.close()  # before it has read what was asked: a reset
    bench.turn()
    assert_lost_once(bench)
    assert "reset" in bench.lost[0]


def test_what_came_before_the_end_is_handed_over_first(bench: Bench) -> None:
    order: list[str] = []
    bench.on_message = lambda _: order.append(f"message, lost {len(bench.lost)} times")
    bench.office.receive()
    bench.office.connection.sendall(refusal())
    bench.office.connection.close()
    bench.turn()
    bench.turn()
    assert order == ["message, lost 0 times"]
    assert_lost_once(bench)


def test_a_message_cut_short_by_the_end_is_not_handed_over(bench: Bench) -> None:
    bench.office.receive()
    bench.office.connection.sendall(refusal()[:-1])
    bench.office.connection.close()
    bench.turn()
    bench.turn()
    assert bench.got == []
    assert_lost_once(bench)


def test_a_loss_that_shows_in_sending_is_told_in_a_turn_of_the_loop(bench: Bench) -> None:
    bench.office.receive()
    bench.office.connection.close()
    bench.mailbox.send(EngineLeft(1))
    bench.mailbox.send(EngineLeft(2))
    assert bench.lost == [], "the owner may be in the middle of something"
    bench.turn()
    assert_lost_once(bench)


def test_a_loss_with_much_unsent_is_told_once(bench: Bench) -> None:
    bench.mailbox.send(EngineUnfit(1, "x" * LARGE))
    assert bench.mailbox.unsent
    bench.office.connection.close()
    bench.turn()
    bench.turn()
    assert_lost_once(bench)


def test_a_connection_that_had_ended_before_is_lost_in_a_turn_of_the_loop() -> None:
    bench = Bench()
    bench.office.connection.close()
    bench.open()
    assert bench.lost == []
    bench.turn()
    assert_lost_once(bench)
    bench.close()


def test_the_owner_may_send_and_close_when_it_is_told_of_a_loss(bench: Bench) -> None:
    def lost(reason: str) -> None:
        bench.lost.append(reason)
        bench.mailbox.send(EngineLeft(1))
        bench.mailbox.close()

    bench.mailbox._connection._on_lost = lost
    bench.office.receive()
    bench.office.connection.close()
    bench.turn()
    assert_lost_once(bench)


class _Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("a pickle was loaded",)


NO_MESSAGES = {
    "no message": encode_reply(messages.TAG, b"\xc1"),
    "nothing": encode_reply(messages.TAG, b""),
    "another tag": encode_reply(ASTR, messages.encode(ReturnTasks())),
    "a pickle": encode_reply(PYPK, pickle.dumps(_Dangerous())),
    "a pickle as a message": encode_reply(messages.TAG, pickle.dumps(_Dangerous())),
    "a field too few": encode_reply(messages.TAG, b"\x91\xadEngineRefused"),
    "deep nesting": encode_reply(messages.TAG, b"\x91" * 2000),
    "no length": messages.TAG + b"        -1",
    "no reply": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "zeros": bytes(100),
}


@pytest.mark.parametrize("data", NO_MESSAGES.values(), ids=NO_MESSAGES.keys())
def test_what_is_no_message_ends_the_connection(bench: Bench, data: bytes) -> None:
    bench.office.connection.sendall(data)
    bench.turn()
    assert bench.got == []
    assert_lost_once(bench)


def test_nothing_is_handed_over_after_what_is_no_message(bench: Bench) -> None:
    bench.hears(refusal("before") + NO_MESSAGES["no message"] + refusal("after"))
    assert bench.got == [EngineRefused("before")]
    assert_lost_once(bench)


@given(st.binary(min_size=1, max_size=60), st.booleans())
def test_random_bytes_end_the_connection_or_are_waited_for(data: bytes, framed: bool) -> None:  # noqa: FBT001
    bench = Bench()
    bench.open()
    bench.hears(encode_reply(messages.TAG, data) if framed else data)
    assert bench.got == []
    if bench.lost or framed:
        assert_lost_once(bench)
    bench.close()


def test_the_owner_can_close_it(bench: Bench) -> None:
    bench.mailbox.close()
    bench.mailbox.close()
    bench.turn()
    assert not bench.mailbox.open
    assert bench.connection.fileno() == -1
    assert bench.lost == [], "it knows"


def test_nothing_is_handed_over_after_the_owner_closed_it(bench: Bench) -> None:
    def close(message: Message) -> None:
        bench.got.append(message)
        bench.mailbox.close()

    bench.on_message = close
    bench.hears(refusal("1") + refusal("2"))
    bench.turn()
    assert bench.got == [EngineRefused("1")]
    assert bench.lost == []


def test_what_was_put_off_does_not_disturb_a_closed_mailbox(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_DELAY", 0.001)
    bench.hears(refusal())
    bench.mailbox.close()
    bench.loop.turn(0.002)
    bench.mailbox.send(EngineLeft(1))
    bench.turn()
    assert bench.lost == []
