"""`line`: two ends over connections that break wherever they like lose nothing and say nothing twice."""

from __future__ import annotations

from collections import deque

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch.errors import MessageError
from disbatch.line import ACKNOWLEDGE_AFTER, Line


def sent(*texts: bytes) -> Line:
    line = Line()
    for text in texts:
        line.sends(text)
    return line


def test_what_is_sent_is_kept_until_it_is_said_to_have_come() -> None:
    line = sent(b"a", b"b", b"c")
    assert list(line.unsettled) == [b"a", b"b", b"c"]
    line.settle(2)
    assert list(line.unsettled) == [b"c"]
    line.sends(b"d")
    line.settle(2)
    assert list(line.unsettled) == [b"c", b"d"]
    line.settle(4)
    assert list(line.unsettled) == []


@pytest.mark.parametrize("received", [1, 4, -1, 10**20, -(10**20)])
def test_a_number_that_cannot_be_is_refused_and_changes_nothing(received: int) -> None:
    line = sent(b"a", b"b", b"c")
    line.settle(2)
    with pytest.raises(MessageError, match=f"^{received} messages are said to have come, of 3 that were sent$"):
        line.settle(received)
    assert line.unsettled == (b"c",)


def test_nothing_can_have_come_where_nothing_was_sent() -> None:
    line = Line()
    line.settle(0)
    with pytest.raises(MessageError):
        line.settle(1)


def test_it_is_time_to_tell_when_many_have_come_that_the_other_end_was_not_told_of() -> None:
    line = Line()
    for _ in range(3):
        assert [line.took() for _ in range(ACKNOWLEDGE_AFTER)] == [*[False] * (ACKNOWLEDGE_AFTER - 1), True]
        assert line.took(), "and still"
        assert line.tell_received() == line.received
    assert line.received == 3 * (ACKNOWLEDGE_AFTER + 1)


class End:
    """One end, and what is under way from it over the connection that there is."""

    def __init__(self) -> None:
        self.line = Line()
        self.said: list[bytes] = []
        self.heard: list[bytes] = []
        self.under_way: deque[bytes | int] = deque()
        self.connected = True

    def says(self, text: bytes) -> None:
        self.said.append(text)
        self.line.sends(text)
        if self.connected:
            self.under_way.append(text)

    def acknowledges(self) -> None:
        if self.connected:
            self.under_way.append(self.line.tell_received())

    def takes_from(self, other: End) -> None:
        if other.under_way:
            what = other.under_way.popleft()
            if isinstance(what, int):
                self.line.settle(what)
            else:
                self.line.took()
                self.heard.append(what)

    def breaks(self) -> None:
        self.connected = False
        self.under_way.clear()

    def resumes(self, received: int) -> None:
        """Go on over a new connection, the other end having told how many messages have come there."""
        self.line.settle(received)
        self.connected = True
        self.under_way.extend(self.line.unsettled)


STEPS = st.lists(
    st.tuples(st.sampled_from(["says", "says", "takes", "takes", "acknowledges", "breaks"]), st.integers(0, 1)),
    max_size=60,
)


@given(STEPS)
def test_nothing_is_lost_or_doubled_wherever_connections_break(steps: list[tuple[str, int]]) -> None:
    ends = End(), End()
    for number, (step, which) in enumerate(steps):
        one, other = ends[which], ends[1 - which]
        if step == "says":
            one.says(b"%d" % number)
        elif step == "takes":
            one.takes_from(other)
        elif step == "acknowledges":
            one.acknowledges()
        else:
            join_again(one, other)
    join_again(*ends)
    for one, other in (ends, ends[::-1]):
        while other.under_way:
            one.takes_from(other)
        assert one.heard == other.said
        other.line.settle(one.line.tell_received())
        assert other.line.unsettled == ()


def join_again(one: End, other: End) -> None:
    """Break the connection, with all that is under way, and make another: one end tells first, as a member does."""
    one.breaks()
    other.breaks()
    told = one.line.tell_received()
    other.resumes(told)
    one.resumes(other.line.tell_received())
