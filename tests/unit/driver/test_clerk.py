from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.driver import clerk as clerk_file
from disbatch.driver.clerk import RETRY_PERIOD, SYNC_PERIOD, Clerk
from disbatch.driver.recorder import Recorder
from disbatch.eventloop import Timer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from disbatch.eventloop import EventLoop

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
BROKEN = OSError(errno.EIO, os.strerror(errno.EIO))
AGAIN = "the status file can be written again; the run goes on"


class Clock:
    """Stands for the event loop: time passes when the test says so."""

    def __init__(self) -> None:
        self.time = 100.0
        self.timers: list[Timer] = []

    def now(self) -> float:
        return self.time

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.time + seconds, action))
        return self.timers[-1]

    @property
    def due(self) -> list[float]:
        """Seconds until each timer is due."""
        return [timer.when - self.time for timer in self.timers if timer.action is not None]

    def passes(self, seconds: float) -> None:
        self.time += seconds
        due = [timer for timer in self.timers if timer.when <= self.time]
        self.timers = [timer for timer in self.timers if timer.when > self.time]
        for timer in due:
            if timer.action is not None:
                timer.action()


class Hand:
    """Stands for the syncer: it does its work when the test says so."""

    def __init__(self, work: Callable[[], int], ended: Callable[[int | OSError], None]) -> None:
        self.work = work
        self.ended = ended
        self.busy = False
        self.starts = 0
        self.result: int | OSError = 0

    def start(self) -> None:
        assert not self.busy
        self.busy = True
        self.starts += 1

    def works(self) -> None:
        try:
            self.result = self.work()
        except OSError as error:
            self.result = error

    def ends(self) -> None:
        self.busy = False
        self.ended(self.result)

    def close(self) -> int | OSError:
        if self.busy:
            self.works()
        return self.result


class Office:
    """A clerk with a real recorder on a disk that takes what the test says."""

    hand: Hand | None = None

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, *, syncs: bool = True) -> None:
        self.path = path
        self.clock = Clock()
        self.write_failure: OSError | None = None
        self.room: int | None = None
        self.sync_failure: OSError | None = None
        self.told: list[str] = []
        self.recorded: list[bytes] = []
        self.heard: list[str] = []
        monkeypatch.setattr(clerk_file, "Syncer", self._make_hand)
        self.recorder = Recorder(str(path), self._write, self._sync if syncs else None)
        self.recorder.take_place()
        self.clerk = Clerk(
            cast("EventLoop", self.clock),
            self.recorder,
            self.told.append,
            self.recorded.extend,
            lambda: self.heard.append("held back"),
            lambda: self.heard.append("written"),
        )

    def _make_hand(self, _loop: object, work: Callable[[], int], ended: Callable[[int | OSError], None]) -> Hand:
        self.hand = Hand(work, ended)
        return self.hand

    def _write(self, descriptor: int, data: bytes) -> int:
        if self.write_failure is not None and not self.room:
            raise self.write_failure
        taken = os.write(descriptor, data[: self.room])
        if self.room is not None:
            self.room -= taken
        return taken

    def _sync(self, _descriptor: int) -> None:
        if self.sync_failure is not None:
            raise self.sync_failure

    def writes(self, *lines: bytes) -> bool:
        for line in lines:
            self.clerk.add(line)
        return self.clerk.write()

    def syncs(self) -> None:
        """Let a sync go on that has been started, and end."""
        assert self.hand is not None
        assert self.hand.busy
        self.hand.works()
        self.hand.ends()

    def is_syncing(self) -> bool:
        return self.hand is not None and self.hand.busy

    @property
    def content(self) -> bytes:
        return self.path.read_bytes()


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    return Office(tmp_path / "status", monkeypatch)


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    """An office in which nothing is brought to disk."""
    return Office(tmp_path / "status", monkeypatch, syncs=False)


# Writing


def test_lines_are_handed_on_when_they_are_in_the_file(plain: Office) -> None:
    assert plain.writes(b"one\n", b"two\n")
    assert plain.content == b"one\ntwo\n"
    assert plain.recorded == [b"one\n", b"two\n"]
    assert plain.writes()
    assert plain.recorded == [b"one\n", b"two\n"]
    assert plain.clerk.is_settled


def test_what_the_disk_does_not_take_is_held_back_and_told_of_once(plain: Office) -> None:
    plain.write_failure = FULL
    assert not plain.writes(b"one\n")
    assert not plain.writes(b"two\n")
    plain.clock.passes(RETRY_PERIOD)
    assert plain.clerk.holds_back
    assert not plain.clerk.is_settled
    assert plain.recorded == []
    assert plain.heard == ["held back"]
    what = "nothing is started until that works, and nothing is lost"
    hint = f"make room for {plain.path}; Ctrl-C ends the run"
    assert plain.told == [f"cannot write the status file: No space left on device; {what} ({hint})"]


def test_it_is_tried_again_as_time_passes_and_not_before(plain: Office) -> None:
    plain.write_failure = FULL
    plain.writes(b"one\n")
    plain.write_failure = None
    plain.writes(b"two\n")
    plain.clock.passes(RETRY_PERIOD * 0.9)
    assert plain.content == b""
    plain.clock.passes(RETRY_PERIOD * 0.2)
    assert plain.content == b"one\ntwo\n"
    assert plain.recorded == [b"one\n", b"two\n"]
    assert plain.heard == ["held back", "written"]
    assert plain.told[1:] == [AGAIN]
    assert plain.clerk.is_settled
    assert plain.clock.due == []


def test_what_has_been_written_of_a_line_is_not_written_twice(plain: Office) -> None:
    plain.write_failure, plain.room = FULL, 6
    plain.writes(b"one\n", b"two\n")
    assert plain.content == b"one\ntw"
    assert plain.recorded == [], "lines of one turn are handed on together"
    plain.room = 1
    plain.clock.passes(RETRY_PERIOD)
    assert plain.content == b"one\ntwo"
    plain.write_failure = plain.room = None
    plain.clock.passes(RETRY_PERIOD)
    assert plain.content == b"one\ntwo\n"


def test_a_disk_that_is_full_again_is_told_of_again(plain: Office) -> None:
    for _ in range(2):
        plain.write_failure = FULL
        plain.writes(b"one\n")
        plain.write_failure = None
        plain.clock.passes(RETRY_PERIOD)
    assert plain.heard == ["held back", "written"] * 2
    assert len(plain.told) == 4


# On disk


def test_the_first_line_is_brought_to_disk_at_once_and_the_next_ones_together(office: Office) -> None:
    office.writes(b"one\n")
    assert office.is_syncing()
    office.writes(b"two\n")
    office.clock.passes(SYNC_PERIOD / 4)
    office.syncs()
    assert not office.is_syncing()
    office.writes(b"three\n")
    assert office.clock.due == [pytest.approx(SYNC_PERIOD * 3 / 4)]
    office.clock.passes(SYNC_PERIOD)
    office.syncs()
    assert office.clerk.is_settled
    assert office.hand is not None
    assert office.hand.starts == 2


def test_what_is_written_while_a_sync_goes_on_is_brought_to_disk_by_the_next(office: Office) -> None:
    assert office.writes(b"one\n")
    assert office.hand is not None
    office.hand.works()
    office.writes(b"two\n")
    office.clock.passes(SYNC_PERIOD)
    office.hand.ends()
    assert office.is_syncing()
    assert not office.clerk.is_settled
    office.syncs()
    assert office.clerk.is_settled


def test_nothing_is_done_where_nothing_is_new(office: Office) -> None:
    office.writes(b"one\n")
    office.syncs()
    office.writes()
    office.clock.passes(1.0)
    assert office.clock.due == []
    assert not office.is_syncing()


def test_in_the_end_nothing_waits_for_its_time(office: Office) -> None:
    office.writes(b"one\n")
    office.syncs()
    office.writes(b"two\n")
    assert not office.is_syncing()
    office.clerk.hurry()
    assert office.is_syncing()
    office.writes(b"three\n")
    office.syncs()
    office.writes(b"four\n")
    office.syncs()
    assert office.clerk.is_settled
    assert office.clock.due == []


def test_without_sync_nothing_is_brought_to_disk(plain: Office) -> None:
    plain.writes(b"one\n")
    plain.clerk.hurry()
    assert plain.hand is None
    assert plain.clerk.is_settled


def test_a_disk_that_fails_holds_the_run_back_until_all_is_on_it(office: Office) -> None:
    office.writes(b"one\n")
    office.sync_failure = BROKEN
    office.syncs()
    assert office.told[0].startswith("cannot write the status file: Input/output error; nothing is started")
    assert not office.writes(b"two\n")
    assert office.content == b"one\n"
    office.clock.passes(RETRY_PERIOD)
    office.syncs()
    assert office.heard == ["held back"]
    office.sync_failure = None
    office.path.write_bytes(bytes(4))
    office.clock.passes(RETRY_PERIOD)
    assert office.content == b"one\ntwo\n"
    assert office.heard == ["held back"], "it is not known to be on disk"
    office.syncs()
    assert office.heard == ["held back", "written"]
    assert office.recorded == [b"one\n", b"two\n"]
    assert len(office.told) == 2


def test_a_full_disk_that_fails_too_is_waited_for_in_both_respects(office: Office) -> None:
    office.writes(b"one\n")
    assert office.hand is not None
    office.write_failure, office.sync_failure = FULL, BROKEN
    office.writes(b"two\n")
    office.hand.works()
    office.hand.ends()
    assert len(office.told) == 1
    assert office.clock.due == [RETRY_PERIOD]
    office.write_failure = None
    office.clock.passes(RETRY_PERIOD)
    office.syncs()
    assert office.heard == ["held back"]
    office.sync_failure = None
    office.clock.passes(RETRY_PERIOD)
    office.syncs()
    assert office.heard == ["held back", "written"]
    assert office.content == b"one\ntwo\n"


def test_what_comes_while_it_is_not_known_to_be_on_disk_is_written_before_the_run_goes_on(office: Office) -> None:
    office.writes(b"one\n")
    office.sync_failure = BROKEN
    office.syncs()
    office.sync_failure = None
    office.clock.passes(RETRY_PERIOD)
    assert not office.writes(b"two\n")
    office.syncs()
    assert office.content == b"one\ntwo\n"
    assert office.heard == ["held back"]
    office.syncs()
    assert office.heard == ["held back", "written"]
    assert office.recorded == [b"one\n", b"two\n"]


def test_a_sync_that_ends_while_lines_are_held_back_changes_nothing(office: Office) -> None:
    office.writes(b"one\n")
    office.write_failure = FULL
    office.writes(b"two\n")
    office.syncs()
    assert office.clerk.holds_back
    office.write_failure = None
    office.clock.passes(RETRY_PERIOD)
    office.syncs()
    assert office.heard == ["held back", "written"]


# The end


def test_what_could_not_be_written_is_left_to_the_recorder(plain: Office) -> None:
    plain.write_failure = FULL
    plain.writes(b"one\n")
    plain.clerk.close()
    plain.clock.passes(RETRY_PERIOD)
    assert plain.content == b""
    plain.write_failure = None
    plain.recorder.close()
    assert plain.content == b"one\n"


def test_a_sync_that_has_failed_at_last_leaves_it_to_the_recorder_to_try_again(office: Office) -> None:
    office.writes(b"one\n")
    office.sync_failure = BROKEN
    office.path.write_bytes(bytes(4))
    office.clerk.close()
    assert office.content == b"one\n"
    assert office.recorder.unsynced
    office.sync_failure = None
    office.recorder.close()


# Any order


@given(
    steps=st.lists(
        st.one_of(
            st.lists(st.binary(max_size=4), max_size=3),
            st.sampled_from(["full", "room", "little room", "broken", "mended", "sync", "time", "more time"]),
        ),
        max_size=30,
    )
)
def test_whatever_the_disk_does_every_line_is_written_and_handed_on_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[bytes] | str]
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        office = Office(tmp_path_factory.mktemp("clerk") / "status", monkeypatch)
        said: list[bytes] = []
        for step in steps:
            if isinstance(step, list):
                lines = [line.replace(b"\n", b"") + b"\n" for line in step]
                said += lines
                office.writes(*lines)
            elif step == "sync":
                office.syncs() if office.is_syncing() else None
            elif step in ("time", "more time"):
                office.clock.passes(SYNC_PERIOD if step == "time" else RETRY_PERIOD)
            elif step in ("broken", "mended"):
                office.sync_failure = BROKEN if step == "broken" else None
            else:
                office.write_failure = None if step == "room" else FULL
                office.room = {"full": 0, "room": None, "little room": 3}[step]
            assert b"".join(said).startswith(office.content)
            assert office.content.startswith(b"".join(office.recorded)), "what was handed on is not in the file"
            assert len(office.clock.due) <= 2
        office.write_failure = office.sync_failure = office.room = None
        for _ in range(10):
            office.clock.passes(RETRY_PERIOD)
            office.syncs() if office.is_syncing() else None
        assert office.clerk.is_settled
        assert office.recorded == said
        assert office.content == b"".join(said)
        assert office.heard == ["held back", "written"] * (len(office.heard) // 2)
        office.clerk.close()
        office.recorder.close()
