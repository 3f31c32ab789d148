from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from disbatch import messages
from disbatch.engine import link
from disbatch.engine.link import Link
from disbatch.eventloop import EventLoop
from disbatch.messages import CancelEngine, EngineRefused, FinishEngine, Message, RankCame, RunTasks, encode
from disbatch.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Iterator

TURN = 20.0
"""Seconds that something may take to come that is under way; only a failure waits as long."""


class Bench(NamedTuple):
    """A link in a loop and the other end of its connection."""

    loop: EventLoop
    other: socket.socket
    link: Link
    heard: list[Message]
    lost: list[str]


@pytest.fixture
def bench() -> Iterator[Bench]:
    other, connected = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    loop = EventLoop()
    heard: list[Message] = []
    lost: list[str] = []
    made = Link(loop, connected, heard.append, lost.append)
    yield Bench(loop, other, made, heard, lost)
    made.close()
    loop.close()
    other.close()


@pytest.fixture
def name() -> bytes:
    return link.address(f"/a/run/of/{os.urandom(8).hex()}", 3, "secret")


def command_of(length: int) -> RunTasks:
    return RunTasks((Task(0, 1, -1, b"x" * length),))


# Names.


def test_every_engine_of_every_run_has_a_name_of_its_own_which_the_secret_hides() -> None:
    names = [
        link.address(run, rank, secret)
        for run in ("/a/run", "/b/run", os.fsdecode(b"/r\xff"))
        for rank in (0, 1, 11)
        for secret in ("", "one", "two")
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith(b"\0disbatch ") and len(name) < 108 for name in names)


def test_two_ends_of_one_name_meet(name: bytes) -> None:
    with link.listen(name) as listener:
        here = link.connect(name)
        there = link.accept(listener)
        assert here is not None
        assert there is not None
        with here, there:
            here.send(b"one")
            here.send(b"two")
            assert [there.recv(100), there.recv(100)] == [b"one", b"two"]


def test_nobody_is_met_where_nobody_listens(name: bytes) -> None:
    assert link.connect(name) is None
    link.listen(name).close()
    assert link.connect(name) is None


def test_a_name_is_taken_once(name: bytes) -> None:
    with link.listen(name), pytest.raises(OSError, match="in use"):
        link.listen(name)


def test_a_connection_that_has_gone_before_it_was_accepted_is_none(name: bytes) -> None:
    with link.listen(name) as listener:
        assert link.accept(listener) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_neither_let_in_nor_spoken_to(name: bytes) -> None:
    code = (
        "import os, socket, sys\n"
        "os.seteuid(65534)\n"
        "other = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "name = bytes.fromhex(sys.argv[1])\n"
        "if sys.argv[2] == 'listen':\n"
        "    other.bind(name); other.listen()\n"
        "else:\n"
        "    other.connect(name)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    for role in ("connect", "listen"):
        with link.listen(name) if role == "connect" else socket.socket() as listener:
            command = [sys.executable, "-c", code, name.hex(), role]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stranger:
                assert stranger.stdout is not None
                assert stranger.stdout.readline() == b"ready\n"
                assert (link.accept(listener) if role == "connect" else link.connect(name)) is None
                stranger.communicate()


# Messages.


def test_messages_come_one_by_one_and_in_their_order(bench: Bench) -> None:
    said: list[Message] = [RankCame(2), FinishEngine(), CancelEngine(3.0, stop_commands=False)]
    for message in said:
        bench.other.send(encode(message))
    while len(bench.heard) < len(said):
        bench.loop.turn(TURN)
    assert bench.heard == said


def test_messages_go_as_packets(bench: Bench) -> None:
    bench.link.send(RankCame(2))
    bench.link.send(FinishEngine())
    assert [messages.decode(bench.other.recv(1000)) for _ in range(2)] == [RankCame(2), FinishEngine()]


def test_a_link_knows_who_is_at_the_other_end(bench: Bench) -> None:
    assert bench.link.peer == os.getpid()


def test_what_cannot_be_sent_at_once_goes_out_as_there_is_room(bench: Bench) -> None:
    said = [CancelEngine(float(number), stop_commands=False) for number in range(20_000)]
    for message in said:
        bench.link.send(message)
    assert bench.link.unsent
    bench.other.setblocking(False)
    heard: list[Message] = []
    while len(heard) < len(said):
        try:
            heard.append(messages.decode(bench.other.recv(1000)))
        except BlockingIOError:
            bench.loop.turn(TURN)
    assert heard == said
    assert not bench.link.unsent


def test_the_longest_command_that_linux_starts_fits_and_a_much_longer_one_is_refused(bench: Bench) -> None:
    assert bench.link.send(command_of(1 << 17))
    assert messages.decode(bench.other.recv(link.LIMIT)) == command_of(1 << 17)
    assert not bench.link.send(command_of(link.LIMIT))
    assert bench.link.send(FinishEngine())
    assert messages.decode(bench.other.recv(link.LIMIT)) == FinishEngine()


def test_a_long_message_comes_as_it_went(bench: Bench) -> None:
    bench.other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, link.LIMIT // 2)
    bench.other.send(encode(command_of(1 << 17)))
    bench.loop.turn(TURN)
    assert bench.heard == [command_of(1 << 17)]


# The end.


def test_the_end_of_a_connection_is_told_once_and_nothing_is_sent_afterwards(bench: Bench) -> None:
    bench.other.close()
    bench.link.send(FinishEngine())
    bench.loop.turn(TURN)
    assert bench.lost == ["the connection was closed"]
    assert not bench.link.open
    assert bench.link.send(FinishEngine())
    bench.link.close()
    assert bench.lost == ["the connection was closed"]


def test_what_the_other_end_said_last_is_heard_even_if_it_has_not_read_all(bench: Bench) -> None:
    bench.link.send(FinishEngine())
    bench.other.send(encode(EngineRefused("one")))
    bench.other.send(encode(EngineRefused("two")))
    bench.other.close()
    while not bench.lost:
        bench.loop.turn(TURN)
    assert bench.heard == [EngineRefused("one"), EngineRefused("two")]


def test_what_is_no_message_ends_the_connection(bench: Bench) -> None:
    bench.other.send(b"nonsense")
    bench.other.send(encode(FinishEngine()))
    bench.loop.turn(TURN)
    assert bench.heard == []
    assert len(bench.lost) == 1
    assert "no message" in bench.lost[0]
    assert not bench.link.open


def test_a_link_that_is_closed_tells_nobody_but_the_other_end(bench: Bench) -> None:
    bench.link.close()
    assert bench.other.recv(100) == b""
    assert bench.lost == []
