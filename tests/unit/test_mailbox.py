"""A mailbox over a pair of sockets: at the other end a key-value store that the test turns by hand."""

from __future__ import annotations

import pickle
import socket
import threading
from math import inf
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch import mailbox as module
from disbatch import messages
from disbatch.errors import DriverUnreachableError
from disbatch.eventloop import READ, EventLoop
from disbatch.kvsstcp.store import Store
from disbatch.kvsstcp.wire import ASTR, PYPK, Get, Limits, Put, Request, RequestParser, encode_reply
from disbatch.line import ACKNOWLEDGE_AFTER
from disbatch.mailbox import Mailbox
from disbatch.messages import (
    Beat,
    DriverGoesOn,
    DriverPauses,
    EngineLeft,
    EngineRefused,
    EngineUnfit,
    Lease,
    Message,
    Rejoined,
    Resumed,
    ReturnTasks,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from disbatch.kvsstcp.store import Delivery

RUN, NAME = "run", "engine 3"
DRIVER = messages.driver_key(RUN)
LARGE = 1_000_000


class Office:
    """The server's end of a connection, with a store of its own."""

    def __init__(self, connection: socket.socket, number: int = 0) -> None:
        self.connection = connection
        connection.setblocking(False)
        self.key = messages.member_key(RUN, NAME, number)
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
        self._answer(self._store.put(self.key, tag, value))

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
        assert all(get.key == self.key for get in gets)
        return len(gets)


class Bench:
    """A mailbox, its owner, and the other end; the kernel holds about `buffered` bytes each way."""

    def __init__(self, buffered: int = 50_000) -> None:
        self._buffered = buffered
        self.offices: list[Office] = []
        self.connection = self.connect(0.0)
        self.loop = EventLoop()
        self.got: list[Message] = []
        self.lost: list[str] = []
        self.on_message: Callable[[Message], None] = self.got.append
        self.on_lost: Callable[[str], None] = self.lost.append

    def open(self) -> Mailbox:
        self.mailbox = Mailbox(self.loop, self.connection, self.connect, RUN, NAME, self._hand_over, self._be_told)
        return self.mailbox

    def connect(self, _patience: float) -> socket.socket:
        """Make another connection, to another office."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._buffered)
        self.offices.append(Office(theirs, len(self.offices)))
        return ours

    @property
    def office(self) -> Office:
        """The end of the latest connection."""
        return self.offices[-1]

    def _be_told(self, reason: str) -> None:
        self.on_lost(reason)

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
        for office in self.offices:
            office.connection.close()


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
    assert bench.office.requests == [Get(bench.office.key)]


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
        heard = [message for message in bench.office.heard if not isinstance(message, Beat)]
        assert heard == told
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

    bench.on_lost = lost
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
def test_random_bytes_end_the_connection_or_are_waited_for(data: bytes, framed: bool) -> None:
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


# Over several connections: the conversation.

LEASE = Lease(period=10.0, limit=45.0, grace=6.0)
OUT_OF_REACH = DriverUnreachableError("timed out")
REFUSED = DriverUnreachableError("connection refused")
REFUSED.nobody_listens = True


class Clocked(EventLoop):
    """A loop that goes by a clock that the test moves."""

    clock = 1000.0

    def now(self) -> float:  # type: ignore[override] # of one loop, not of all
        return self.clock


class AtOnce:
    """Stands for a thread: it has done its work when it has been started."""

    def __init__(self, *, target: Callable[[], None], daemon: bool) -> None:
        assert daemon
        self._target = target

    def start(self) -> None:
        self._target()


class NoneLeft(AtOnce):
    """Stands for a thread that there is no room for."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


class Kept(Bench):
    """A mailbox that keeps to a lease, at a time that the test sets, and whose connections the test has the ends of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.loop = self.clocked = Clocked()
        monkeypatch.setattr(module, "uptime", self.clocked.now)
        monkeypatch.setattr(module, "ASK_DELAY", 0.0)
        monkeypatch.setattr(threading, "Thread", AtOnce)
        self.failure: DriverUnreachableError | None = None
        self.tries = 0
        self.renewals: list[float] = []
        self.lapses: list[float] = []
        self.news: list[str] = []
        self.open()
        self.mailbox.on_renewal = self.renewals.append
        self.mailbox.on_lapse = lambda: self.lapses.append(self.clocked.clock)
        self.mailbox.on_news = self.news.append

    def connect(self, patience: float) -> socket.socket:
        if hasattr(self, "mailbox"):
            assert patience == module.RECONNECT_PATIENCE
            self.tries += 1
            if self.failure is not None:
                raise self.failure
        return super().connect(patience)

    def keeps(self) -> None:
        self.mailbox.keep(LEASE)
        self.settle()

    def passes(self, seconds: float, *, answered: bool = False) -> None:
        """Let time go by, a second in a turn."""
        end = self.clocked.clock + seconds
        while self.clocked.clock < end:
            self.clocked.clock = min(end, self.clocked.clock + 1.0)
            self.settle()
            if answered:
                self.answer()

    def settle(self) -> None:
        self.turn()
        self.turn()  # what a try to connect has brought
        if self.mailbox.open and self.office.connection.fileno() != -1:
            super().settle()

    def answer(self, received: int | None = None) -> None:
        """Answer the latest beat, with the truth unless told otherwise."""
        beats = [message for message in self.office.heard if isinstance(message, Beat)]
        if beats:
            said = self.received if received is None else received
            self.office.post(Beat(said, beats[-1].sent_at))
            self.settle()

    @property
    def received(self) -> int:
        """How many messages have come, over all connections; those that came twice count once."""
        return len({message for office in self.offices for message in office.heard if isinstance(message, EngineLeft)})

    def breaks(self) -> None:
        """Break the connection; when this is over there is another, if there can be one."""
        self.office.connection.close()
        self.turn()
        self.turn()
        self.settle()

    def resumes(self, received: int | None = None) -> None:
        self.office.post(Resumed(self.received if received is None else received))
        self.settle()

    @property
    def beats(self) -> list[Beat]:
        return [message for message in self.office.heard if isinstance(message, Beat)]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    made = Kept(monkeypatch)
    made.keeps()
    yield made
    made.close()


def test_a_connection_that_breaks_is_made_again(kept: Kept) -> None:
    kept.office.post(ReturnTasks(), ReturnTasks())
    kept.settle()
    kept.breaks()
    assert kept.lost == []
    assert kept.office.heard == [Rejoined(NAME, 1, 2)]
    assert kept.office.asked == 1
    kept.resumes()
    kept.office.post(EngineRefused("1"))
    kept.settle()
    assert kept.got == [ReturnTasks(), ReturnTasks(), EngineRefused("1")]
    assert [type(message) for message in kept.office.heard] == [Rejoined, Beat]
    assert "broke" in kept.news[0]
    assert "connected to the driver again" in kept.news[1]


def test_what_may_not_have_come_is_said_again_and_the_rest_is_not(kept: Kept) -> None:
    for number in range(3):
        kept.mailbox.send(EngineLeft(number))
    kept.settle()
    kept.breaks()
    kept.mailbox.send(EngineLeft(3))
    kept.settle()
    assert kept.office.heard == [Rejoined(NAME, 1, 0)], "nothing before the driver has said how far it is"
    kept.resumes(2)
    kept.mailbox.send(EngineLeft(4))
    kept.settle()
    assert [message for message in kept.office.heard if isinstance(message, EngineLeft)] == [
        EngineLeft(2), EngineLeft(3), EngineLeft(4),
    ]  # fmt: skip


def test_what_the_driver_has_said_to_have_come_is_kept_no_longer(kept: Kept) -> None:
    kept.mailbox.send(EngineUnfit(3, "x" * 1000))
    kept.settle()
    kept.answer(1)
    kept.breaks()
    assert kept.mailbox.unsent == 0
    kept.mailbox.send(EngineUnfit(3, "x" * 1000))
    assert kept.mailbox.unsent > 1000


def test_every_connection_has_its_number_and_its_key(kept: Kept) -> None:
    for number in range(1, 4):
        kept.breaks()
        assert kept.office.heard == [Rejoined(NAME, number, 0)]
        assert kept.office.requests[0] == Get(messages.member_key(RUN, NAME, number))
        if number != 2:  # it may break before the driver has answered
            kept.resumes()


def test_a_driver_that_refuses_one_who_comes_back_is_heard(kept: Kept) -> None:
    kept.breaks()
    kept.office.post(EngineRefused("the run is over"))
    kept.settle()
    assert kept.got == [EngineRefused("the run is over")]


def test_it_is_tried_again_as_long_as_the_driver_is_out_of_reach(kept: Kept) -> None:
    kept.failure = OUT_OF_REACH
    kept.breaks()
    kept.passes(30.0)
    assert kept.tries > 10
    assert kept.lost == []
    kept.failure = None
    kept.passes(1.0)
    kept.resumes()
    assert kept.office.heard[0] == Rejoined(NAME, 1, 0)
    assert len(kept.offices) == 2, "one is enough"


def test_a_driver_at_whose_address_nobody_listens_is_gone_soon(kept: Kept) -> None:
    kept.failure = REFUSED
    kept.breaks()
    kept.passes(module.REFUSED_PATIENCE)
    assert kept.lost == []
    kept.passes(2.0)
    assert kept.lost == ["nobody listens at its address any more"]
    assert not kept.loop.selector.get_map()


def test_only_a_driver_that_refuses_all_the_time_is_gone_soon(kept: Kept) -> None:
    kept.failure = REFUSED
    kept.breaks()
    for _ in range(5):
        kept.failure = REFUSED
        kept.passes(module.REFUSED_PATIENCE)
        kept.failure = OUT_OF_REACH
        kept.passes(1.0)
    assert kept.lost == []


def test_a_thread_that_cannot_be_had_is_tried_for_again(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", NoneLeft)
    kept.breaks()
    kept.passes(3.0)
    assert kept.tries == 0
    monkeypatch.setattr(threading, "Thread", AtOnce)
    kept.passes(1.0)
    assert kept.office.heard == [Rejoined(NAME, 1, 0)]


def test_a_try_to_connect_that_fails_in_an_unknown_way_is_no_end(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fails(AtOnce):
        def start(self) -> None:
            with pytest.raises(ZeroDivisionError):
                super().start()

    monkeypatch.setattr(threading, "Thread", Fails)
    monkeypatch.setattr(kept.mailbox, "_connect", lambda _: 1 // 0)
    kept.breaks()
    kept.passes(3.0)
    assert kept.lost == []


def test_a_connection_that_comes_too_late_is_closed(kept: Kept) -> None:
    kept.office.connection.close()
    kept.turn()  # it has been made; that this is so is for the next turn
    late = kept.office.connection
    kept.mailbox.close()
    kept.turn()
    assert late.recv(1) == b""
    assert not kept.loop.selector.get_map()


@pytest.mark.parametrize("wrong", [Resumed(5), Resumed(-1), Beat(5, 0.0), Beat(-1, 0.0)])
def test_a_count_that_cannot_be_ends_it(kept: Kept, wrong: Message) -> None:
    kept.breaks()
    kept.mailbox.send(EngineLeft(1))
    kept.office.post(wrong)
    kept.settle()
    [reason] = kept.lost
    assert "are said to have come" in reason


def test_the_driver_is_told_after_some_messages_that_they_have_come(kept: Kept) -> None:
    before = len(kept.beats)
    kept.office.post(*[ReturnTasks()] * (ACKNOWLEDGE_AFTER - 1))
    kept.settle()
    assert len(kept.beats) == before
    kept.office.post(ReturnTasks())
    kept.settle()
    assert [beat.received for beat in kept.beats[before:]] == [ACKNOWLEDGE_AFTER]


# The lease.


def test_it_beats_from_the_beginning_of_its_lease(kept: Kept) -> None:
    kept.passes(25.0)
    assert kept.beats == [Beat(0, 1000.0), Beat(0, 1010.0), Beat(0, 1020.0)]


def test_before_it_has_a_lease_it_says_nothing_of_itself(bench: Bench) -> None:
    bench.settle()
    assert bench.office.heard == []
    assert not bench.mailbox.lapsed


def test_a_second_lease_is_none(kept: Kept) -> None:
    kept.mailbox.keep(Lease(1.0, 2.0, 0.1))
    kept.passes(5.0)
    assert not kept.mailbox.lapsed
    assert len(kept.beats) == 1


def test_a_lease_is_counted_from_when_the_last_beat_was_sent_that_was_answered(kept: Kept) -> None:
    kept.passes(14.0)
    kept.answer()
    assert kept.renewals == [1010.0 + LEASE.limit]
    kept.passes(40.0)
    assert kept.lapses == []
    kept.passes(1.0)
    assert kept.lapses == [1055.0]


def test_a_lease_that_is_answered_does_not_end(kept: Kept) -> None:
    kept.passes(500.0, answered=True)
    assert kept.lapses == []
    assert kept.renewals == sorted(kept.renewals)
    assert not kept.mailbox.lapsed


def test_a_lease_without_any_answer_ends_once_and_the_mailbox_stays_open(kept: Kept) -> None:
    kept.passes(200.0)
    assert kept.lapses == [1000.0 + LEASE.limit]
    assert kept.mailbox.lapsed
    assert kept.mailbox.open
    assert kept.lost == []


def test_an_answer_after_its_end_makes_it_a_lease_again_which_can_end_again(kept: Kept) -> None:
    kept.passes(61.0)
    kept.answer()
    assert not kept.mailbox.lapsed
    assert "the driver answers again" in kept.news
    kept.passes(200.0)
    assert kept.lapses == [1045.0, 1060.0 + LEASE.limit]


def test_an_answer_to_a_beat_of_long_ago_is_none(kept: Kept) -> None:
    kept.passes(100.0)
    kept.office.post(Beat(0, 1010.0))
    kept.settle()
    assert kept.mailbox.lapsed
    assert kept.renewals == []


@pytest.mark.parametrize("sent_at", [1e9, float("inf")])
def test_no_answer_makes_a_lease_longer_than_it_is(kept: Kept, sent_at: float) -> None:
    kept.office.post(Beat(0, sent_at))
    kept.settle()
    assert kept.renewals == [1000.0 + LEASE.limit]


def test_answers_that_overtake_one_another_do_not_shorten_it(kept: Kept) -> None:
    kept.passes(20.0)
    kept.office.post(Beat(0, 1020.0), Beat(0, 1000.0))
    kept.settle()
    kept.passes(44.0)
    assert kept.lapses == []


def test_a_member_that_is_cut_off_until_its_lease_ends_gives_up(kept: Kept) -> None:
    kept.failure = OUT_OF_REACH
    kept.breaks()
    kept.passes(44.0)
    assert kept.lost == []
    kept.passes(1.0)
    assert kept.lost == ["there is no connection to it any more, and the lease has ended"]
    assert kept.lapses == []
    assert not kept.loop.selector.get_map()


def test_a_member_whose_driver_does_not_know_it_again_until_its_lease_ends_gives_up(kept: Kept) -> None:
    kept.breaks()
    kept.passes(45.0)
    assert len(kept.lost) == 1


def test_a_member_whose_connection_breaks_when_its_lease_has_ended_gives_up(kept: Kept) -> None:
    kept.passes(50.0)
    kept.breaks()
    assert kept.lost == ["the connection was closed"]
    assert kept.tries == 0


def test_a_short_cut_does_not_end_a_lease(kept: Kept) -> None:
    kept.passes(30.0, answered=True)
    kept.failure = OUT_OF_REACH
    kept.breaks()
    kept.passes(30.0)
    kept.failure = None
    kept.passes(1.0)
    kept.resumes()
    kept.answer()
    kept.passes(40.0)
    assert (kept.lapses, kept.lost) == ([], [])


# A driver that is stopped, and says so.


def test_a_lease_does_not_end_while_the_driver_says_that_it_is_stopped(kept: Kept) -> None:
    kept.office.post(DriverPauses())
    kept.passes(1000.0)
    assert not kept.mailbox.lapsed
    assert (kept.got, kept.lapses, kept.lost) == ([], [], [])
    assert kept.renewals == [inf]


def test_a_lease_begins_anew_when_the_driver_goes_on(kept: Kept) -> None:
    kept.office.post(DriverPauses())
    kept.passes(1000.0)
    kept.office.post(DriverGoesOn())
    kept.settle()
    assert kept.renewals == [inf, 2000.0 + LEASE.limit]
    kept.passes(LEASE.limit)
    assert kept.lapses == [2000.0 + LEASE.limit]


def test_a_lease_that_had_ended_before_is_one_again_when_the_driver_goes_on(kept: Kept) -> None:
    kept.passes(50.0)
    kept.office.post(DriverPauses(), DriverGoesOn())
    kept.settle()
    assert not kept.mailbox.lapsed
    kept.passes(LEASE.limit)
    assert kept.lapses == [1045.0, 1050.0 + LEASE.limit]


def test_a_stopped_driver_whose_connection_breaks_is_gone(kept: Kept) -> None:
    kept.office.post(DriverPauses())
    kept.settle()
    kept.breaks()
    assert len(kept.lost) == 1
    assert kept.tries == 0


def test_a_driver_may_be_stopped_before_there_is_a_lease(bench: Bench) -> None:
    bench.office.post(DriverPauses(), DriverGoesOn(), ReturnTasks())
    bench.settle()
    assert bench.got == [ReturnTasks()]
    assert not bench.mailbox.lapsed
