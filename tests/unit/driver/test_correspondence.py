"""`correspondence` with a real server: members are the other ends of socket pairs, the loop is turned by hand."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch import mailbox, messages
from disbatch.driver import events
from disbatch.driver.correspondence import Correspondence
from disbatch.errors import DriverUnreachableError, MessageError
from disbatch.eventloop import EventLoop
from disbatch.kvsstcp.server import Server
from disbatch.kvsstcp.wire import ReplyParser, encode_get, encode_put
from disbatch.mailbox import Mailbox
from disbatch.messages import Beat, EngineLeft, EngineRefused, Message, Rejoined, Resumed, ReturnTasks
from tests.unit.driver.examples import VERSION, context_came

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JOB = "my run"
NAME = messages.engine_name(3)
CAME = messages.EngineCame(3, VERSION, "host", 1)


class House:
    """A server whose messages for the driver go through a correspondence, as they do in the driver's loop."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        self.heard: list[object] = []
        self.wrong: list[str] = []
        self.others: list[socket.socket] = []
        self.peer = 0
        self.server = Server(self.loop.selector, ("127.0.0.1", 0), secret=None, on_disconnect=self._gone)
        self.correspondence = Correspondence(JOB, self.server)
        self.server.listen(messages.driver_key(JOB), self._take)

    def _take(self, tag: bytes, value: bytes, peer: int | None) -> None:
        assert peer is not None
        message: Any = messages.decode(value, tag)
        try:
            event = self.correspondence.heard(peer, message)
        except MessageError as error:
            self.wrong.append(str(error))
            self.server.disconnect(peer)
        else:
            self.heard += [] if event is None else [event]

    def _gone(self, peer: int) -> None:
        cut = self.correspondence.gone(peer)
        self.heard += [] if cut is None else [cut]

    def connection(self) -> socket.socket:
        """Client's end of a new connection."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.others.append(ours)
        self.peer = self.server.adopt(theirs) or 0
        return ours

    def turn(self) -> None:
        while self.loop.selector.select(0):
            self.loop.turn(0)

    def says(self, *said: messages.ToEngine, rank: int = 3) -> None:
        for message in said:
            self.correspondence.perform(events.SendToEngine(rank, message))
        self.turn()

    def forgets(self, name: str = NAME) -> None:
        self.correspondence.perform(events.ForgetMember(name))
        self.turn()

    def close(self) -> None:
        self.server.close()
        self.loop.close()
        for other in self.others:
            other.close()


class Peer:
    """A connection of a member, that asks for what is under one key."""

    def __init__(self, house: House, number: int = 0, name: str = NAME) -> None:
        self.house = house
        self.socket = house.connection()
        self.key = messages.member_key(JOB, name, number)
        self._replies = ReplyParser()
        self._asks = False

    def says(self, *said: Message) -> None:
        for message in said:
            self.socket.sendall(encode_put(messages.driver_key(JOB), messages.TAG, messages.encode(message)))
        self.house.turn()

    def hears(self) -> list[Message]:
        """All that has been said to it since."""
        heard: list[Message] = []
        while True:
            if not self._asks:
                self.socket.sendall(encode_get(self.key))
                self._asks = True
                self.house.turn()
            try:
                data = self.socket.recv(1 << 20)
            except BlockingIOError:
                return heard
            assert data, "it has been hung up on"
            for tag, value in self._replies.feed(data):
                heard += messages.decode_all(value, tag)
                self._asks = False

    @property
    def is_hung_up_on(self) -> bool:
        try:
            return not self.socket.recv(1 << 20)
        except BlockingIOError:
            return False

    def breaks(self) -> None:
        self.socket.close()
        self.house.turn()


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


def admitted(house: House) -> Peer:
    """Engine that has come, and that nothing was said to."""
    peer = Peer(house)
    peer.says(CAME)
    assert house.heard == [CAME]
    house.heard.clear()
    return peer


def refused(number: int) -> EngineRefused:
    """Return a message that can be told from others."""
    return EngineRefused(str(number))


# One connection


def test_what_is_said_to_a_member_comes_in_its_order(house: House) -> None:
    peer = admitted(house)
    house.says(refused(1), refused(2))
    assert peer.hears() == [refused(1), refused(2)]


def test_a_context_is_a_member_by_its_token(house: House) -> None:
    peer = Peer(house, name=messages.context_name("t"))
    peer.says(context_came("t", 1))
    house.correspondence.perform(events.SendToContext("t", messages.EndContext(())))
    house.turn()
    assert peer.hears() == [messages.EndContext(())]
    peer.breaks()
    assert house.heard == [context_came("t", 1), events.MemberCut("context t")]


def test_messages_are_handed_on_whoever_says_them(house: House) -> None:
    admitted(house)
    Peer(house).says(messages.EngineCleared(3), messages.StopEngine(3, now=True))
    assert house.heard == [messages.EngineCleared(3), messages.StopEngine(3, now=True)]


def test_a_beat_is_answered_with_its_time_and_with_how_many_messages_have_come(house: House) -> None:
    peer = admitted(house)
    house.says(refused(1), refused(2))
    peer.says(EngineLeft(3), Beat(1, 17.5), Beat(2, 18.5))
    assert peer.hears() == [refused(1), refused(2), Beat(2, 17.5), Beat(2, 18.5)]
    assert house.heard == [EngineLeft(3), events.MemberHeard(NAME), events.MemberHeard(NAME)]


def test_the_beat_of_nobody_is_not_answered(house: House) -> None:
    peer = Peer(house)
    peer.says(Beat(0, 1.0))
    assert peer.hears() == []
    assert house.heard == []


def test_what_has_come_at_a_member_is_kept_no_longer(house: House) -> None:
    peer = admitted(house)
    house.says(*map(refused, range(9)))
    assert len(peer.hears()) == 9
    peer.says(Beat(8, 1.0))
    line = house.correspondence._members[NAME].line
    assert line.unsettled == (messages.encode(refused(8)),)


@pytest.mark.parametrize("received", [-1, 3, 2**63])
def test_a_count_that_cannot_be_is_refused(house: House, received: int) -> None:
    peer = admitted(house)
    house.says(refused(1), refused(2))
    peer.says(Beat(received, 1.0))
    assert len(house.wrong) == 1
    assert house.heard == [events.MemberCut(NAME)]
    again = Peer(house, 1)
    again.says(Rejoined(NAME, 1, 0))
    assert again.hears() == [Resumed(1), refused(1), refused(2)], "what is true is as it was"


def test_what_a_peer_says_behind_a_count_that_cannot_be_is_not_heard(house: House) -> None:
    peer = admitted(house)
    peer.says(Beat(1, 1.0), EngineLeft(3))
    assert house.heard == [events.MemberCut(NAME)]


# Another connection


def test_the_end_of_a_connection_cuts_its_member_off_once(house: House) -> None:
    peer = admitted(house)
    peer.breaks()
    assert house.heard == [events.MemberCut(NAME)]


def test_a_member_that_is_cut_off_goes_on_over_another_connection(house: House) -> None:
    peer = admitted(house)
    house.says(refused(1), refused(2))
    assert peer.hears() == [refused(1), refused(2)]
    peer.says(EngineLeft(3))
    peer.breaks()
    house.says(refused(3))
    house.heard.clear()
    again = Peer(house, 1)
    again.says(Rejoined(NAME, 1, 1))
    house.says(refused(4))
    assert again.hears() == [Resumed(2), refused(2), refused(3), refused(4)]
    again.says(Beat(4, 1.0))
    assert again.hears() == [Beat(2, 1.0)]
    assert house.heard == [events.MemberRejoined(NAME), events.MemberHeard(NAME)]
    again.breaks()
    assert house.heard[-1] == events.MemberCut(NAME)


def test_what_a_broken_connection_did_not_take_is_said_once_over_the_next(house: House) -> None:
    peer = admitted(house)
    peer.breaks()
    house.says(*map(refused, range(3)))
    again = Peer(house, 1)
    again.says(Rejoined(NAME, 1, 0))
    assert again.hears() == [Resumed(1), *map(refused, range(3))]
    assert house.server.take(peer.key) is None, "nothing is left under the key of a connection that is no more"


def test_what_was_on_its_way_over_a_broken_connection_is_left_to_nobody(house: House) -> None:
    peer = admitted(house)
    peer.socket.sendall(encode_get(peer.key))
    house.turn()
    for number in range(2000):
        house.correspondence.perform(events.SendToEngine(3, EngineRefused(f"{number}" + "x" * 1000)))
    peer.breaks()
    assert house.server.take(peer.key) is None
    again = Peer(house, 1)
    again.says(Rejoined(NAME, 1, 0))
    heard = again.hears()
    assert heard[0] == Resumed(1)
    numbers = [int(message.reason.rstrip("x")) for message in heard[1:] if isinstance(message, EngineRefused)]
    assert numbers == list(range(2000))


def test_a_member_may_be_back_before_its_last_connection_has_ended(house: House) -> None:
    peer = admitted(house)
    again = Peer(house, 1)
    again.says(Rejoined(NAME, 1, 0))
    assert peer.is_hung_up_on
    assert house.heard == [events.MemberRejoined(NAME)], "it was never cut off"
    house.says(refused(1))
    assert again.hears() == [Resumed(1), refused(1)]


def test_what_comes_over_a_connection_that_was_replaced_does_not_count(house: House) -> None:
    peer = admitted(house)
    again = Peer(house, 1)
    put = encode_put(messages.driver_key(JOB), messages.TAG, messages.encode(EngineLeft(3)))
    again.socket.sendall(encode_put(messages.driver_key(JOB), messages.TAG, messages.encode(Rejoined(NAME, 1, 0))))
    house.turn()
    with pytest.raises(OSError, match="Broken pipe"):
        peer.socket.sendall(put)
    house.turn()
    assert house.heard == [events.MemberRejoined(NAME)]


@pytest.mark.parametrize("number", [2, 1, 0, -5])
def test_no_connection_that_is_older_than_the_latest_is_taken_for_it(house: House, number: int) -> None:
    admitted(house).breaks()
    latest = Peer(house, 2)
    latest.says(Rejoined(NAME, 2, 0))
    assert latest.hears() == [Resumed(1)]
    house.heard.clear()
    late = Peer(house)
    late.says(Rejoined(NAME, number, 0))
    assert house.heard == []
    assert not latest.is_hung_up_on
    late.breaks()
    assert house.heard == []


@pytest.mark.parametrize("received", [-1, 3, 2**63])
def test_a_count_that_cannot_be_lets_nobody_back(house: House, received: int) -> None:
    admitted(house).breaks()
    house.says(refused(1), refused(2))
    house.heard.clear()
    wrong = Peer(house, 1)
    wrong.says(Rejoined(NAME, 1, received))
    assert len(house.wrong) == 1
    assert wrong.is_hung_up_on
    assert house.heard == []
    again = Peer(house, 1)
    again.says(Rejoined(NAME, 1, 0))
    assert again.hears() == [Resumed(1), refused(1), refused(2)]


def test_one_that_is_forgotten_is_hung_up_on_and_not_said_to_be_cut_off(house: House) -> None:
    peer = admitted(house)
    house.forgets()
    assert peer.is_hung_up_on
    assert house.heard == []


@pytest.mark.parametrize("is_cut", [False, True])
def test_one_that_is_forgotten_is_refused(house: House, is_cut: bool) -> None:
    peer = admitted(house)
    if is_cut:
        peer.breaks()
    house.forgets()
    house.heard.clear()
    again = Peer(house, 1)
    again.says(Rejoined(NAME, 1, 0))
    (refusal,) = again.hears()
    assert isinstance(refusal, EngineRefused)
    again.breaks()
    assert house.heard == []


def test_one_that_never_came_is_refused_and_forgetting_it_is_harmless(house: House) -> None:
    house.forgets("engine 7")
    stranger = Peer(house, 1, "engine 7")
    stranger.says(Rejoined("engine 7", 1, 0))
    (refusal,) = stranger.hears()
    assert isinstance(refusal, EngineRefused)
    assert house.heard == []


def test_a_member_cannot_come_back_as_another(house: House) -> None:
    peer = admitted(house)
    other = Peer(house, name="engine 4")
    other.says(messages.EngineCame(4, VERSION, "host", 1))
    house.heard.clear()
    other.says(Rejoined(NAME, 1, 0))
    assert house.heard == []
    house.says(refused(1))
    assert peer.hears() == [refused(1)]


def test_no_second_one_takes_the_place_of_a_member(house: House) -> None:
    peer = admitted(house)
    second = Peer(house)
    second.says(CAME, Beat(0, 1.0))
    second.breaks()
    assert house.heard == [CAME]
    peer.breaks()
    Peer(house).says(CAME)
    assert house.heard == [CAME, events.MemberCut(NAME), CAME]
    assert NAME not in [member.name for member in house.correspondence._at.values()]


# With a real mailbox at the other end


class AtOnce:
    """Stands for a thread: it has done its work when it has been started."""

    def __init__(self, *, target: Callable[[], None], daemon: bool) -> None:
        assert daemon
        self.start = target


class Pair:
    """A mailbox and the driver's end, over connections that break when the test says so."""

    def __init__(self) -> None:
        self.house = House()
        self.reachable = True
        self.got: list[Message] = []
        self.lost: list[str] = []
        loop = self.house.loop
        self.mailbox = Mailbox(
            loop, self.house.connection(), self._connect, JOB, NAME, self.got.append, self.lost.append
        )
        self.mailbox.send(CAME)
        self.mailbox.keep(messages.Lease(1000.0, 4000.0, 500.0))

    def _connect(self, _patience: float) -> socket.socket:
        if not self.reachable:
            raise DriverUnreachableError("no way to it")
        return self.house.connection()

    def breaks(self) -> None:
        latest = self.house.others[-1]
        if latest.fileno() != -1:
            latest.shutdown(socket.SHUT_RDWR)

    def turn(self) -> None:
        self.house.loop.turn(0)


STEPS = st.lists(
    st.sampled_from(["driver", "driver", "member", "member", "turn", "turn", "break", "reset", "no way"]), max_size=50
)


@given(STEPS)
def test_a_mailbox_and_the_driver_lose_and_double_nothing_wherever_their_connections_break(steps: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threading, "Thread", AtOnce)
        patched.setattr(mailbox, "ASK_DELAY", 0.0)
        patched.setattr(mailbox, "RECONNECT_PAUSE", 0.0)
        pair = Pair()
        to_member: list[Message] = []
        to_driver: list[Message] = [CAME]
        pair.turn()
        pair.turn()
        for step in steps:
            if step == "driver":
                to_member.append(message := refused(len(to_member)))
                pair.house.correspondence.perform(events.SendToEngine(3, message))
            elif step == "member":
                to_driver.append(said := EngineLeft(len(to_driver)))
                pair.mailbox.send(said)
            elif step == "turn":
                pair.turn()
            elif step == "break":
                pair.breaks()
            elif step == "reset":
                pair.house.server.disconnect(pair.house.peer)
            else:
                pair.reachable = not pair.reachable
        pair.reachable = True
        to_member.append(ReturnTasks())
        pair.house.correspondence.perform(events.SendToEngine(3, ReturnTasks()))
        to_driver.append(EngineLeft(-1))
        pair.mailbox.send(EngineLeft(-1))
        for _ in range(1000):
            pair.turn()
            if pair.got == to_member and pair.house.heard and EngineLeft(-1) in pair.house.heard:
                break
        conversation = (events.MemberHeard, events.MemberCut, events.MemberRejoined)
        assert [event for event in pair.house.heard if not isinstance(event, conversation)] == to_driver
        assert pair.got == to_member
        assert pair.lost == []
        pair.mailbox.close()
        pair.turn()
        pair.house.close()
