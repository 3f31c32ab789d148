from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from disbatch.driver.syncer import Syncer
from disbatch.eventloop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Iterator

BROKEN = OSError(errno.EIO, os.strerror(errno.EIO))


class Work:
    """Work that is done when the test says so."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.may_go_on = threading.Semaphore(0)
        self.failure: OSError | None = None
        self.times = 0
        self.threads: set[int] = set()

    def __call__(self) -> int:
        self.began.set()
        assert self.may_go_on.acquire(timeout=20)
        self.threads.add(threading.get_ident())
        if self.failure is not None:
            raise self.failure
        self.times += 1
        return self.times


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    made = EventLoop()
    yield made
    made.close()


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def ended() -> list[int | OSError]:
    return []


@pytest.fixture
def syncer(loop: EventLoop, work: Work, ended: list[int | OSError]) -> Iterator[Syncer]:
    made = Syncer(loop, work, ended.append)
    yield made
    work.may_go_on.release()
    made.close()


def test_what_came_of_it_is_told_in_a_turn_of_the_loop(
    loop: EventLoop, work: Work, ended: list[int | OSError], syncer: Syncer
) -> None:
    for number in (1, 2, 3):
        syncer.start()
        work.may_go_on.release()
        loop.turn(20)
        assert ended[-1] == number
    assert [syncer.busy] == [False]
    assert len(work.threads) == 1
    assert threading.get_ident() not in work.threads


def test_the_loop_goes_on_while_it_is_being_done(
    loop: EventLoop, work: Work, ended: list[int | OSError], syncer: Syncer
) -> None:
    syncer.start()
    loop.turn(0)
    assert ended == []
    assert syncer.busy
    work.may_go_on.release()
    loop.turn(20)
    assert ended == [1]


def test_a_failure_is_told_and_it_can_be_done_again(
    loop: EventLoop, work: Work, ended: list[int | OSError], syncer: Syncer
) -> None:
    work.failure = BROKEN
    syncer.start()
    work.may_go_on.release()
    loop.turn(20)
    work.failure = None
    syncer.start()
    work.may_go_on.release()
    loop.turn(20)
    assert ended == [BROKEN, 1]


@pytest.mark.parametrize("failure", [None, BROKEN])
def test_closing_waits_for_what_is_being_done_and_says_what_came_of_it(
    loop: EventLoop, work: Work, ended: list[int | OSError], failure: OSError | None
) -> None:
    syncer = Syncer(loop, work, ended.append)
    work.failure = failure
    syncer.start()
    assert work.began.wait(20)
    work.may_go_on.release()
    assert syncer.close() == (failure or 1)
    assert ended == []
    assert not [thread for thread in threading.enumerate() if thread.name == "syncer"]


def test_where_no_thread_can_be_had_the_loop_waits(
    loop: EventLoop, work: Work, ended: list[int | OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    syncer = Syncer(loop, work, ended.append)
    work.may_go_on.release()
    syncer.start()
    assert work.threads == {threading.get_ident()}
    loop.turn(20)
    assert ended == [1]
    assert syncer.close() == 1
