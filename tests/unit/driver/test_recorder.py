from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.driver.recorder import NameTakenError, Recorder
from disbatch.errors import DisbatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Disk:
    """Writes as a disk does that takes only so much at a time, or nothing when it is full."""

    def __init__(self, *answers: int | OSError) -> None:
        self.answers = list(answers)
        self.writes: list[bytes] = []

    def write(self, descriptor: int, data: bytes) -> int:
        self.writes.append(bytes(data))
        answer = self.answers.pop(0) if self.answers else len(data)
        if isinstance(answer, OSError):
            raise answer
        return os.write(descriptor, data[:answer])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my run_status.txt"


@pytest.fixture
def recorder_on(path: Path) -> Iterator[Callable[[Disk], Recorder]]:
    """Make a recorder that writes to a disk; it is closed in the end, whatever that says."""
    made: list[Recorder] = []

    def make(disk: Disk) -> Recorder:
        made.append(begun(path, disk.write))
        return made[-1]

    yield make
    for recorder in made:
        with suppress(OSError, DisbatchError):
            recorder.close()


# Its place


def begun(path: Path, write: Callable[[int, bytes], int] = os.write) -> Recorder:
    recorder = Recorder(str(path), write)
    recorder.take_place()
    return recorder


def test_a_file_has_its_name_when_it_takes_its_place(path: Path) -> None:
    recorder = Recorder(str(path))
    assert not path.exists()
    assert recorder.take_place() is None
    assert path.exists()
    recorder.close()
    assert os.listdir(path.parent) == [path.name]


def test_an_earlier_file_of_the_name_is_kept(path: Path) -> None:
    path.write_text("earlier\n")
    recorder = Recorder(str(path))
    recorder.add_all([b"line\n"])
    assert path.read_text() == "earlier\n"
    aside = recorder.take_place()
    assert aside == f"{path}.1"
    assert path.with_name(f"{path.name}.1").read_text() == "earlier\n"
    assert path.read_text() == "line\n"
    recorder.close()


def test_a_file_that_never_takes_its_place_leaves_nothing_behind(path: Path) -> None:
    path.write_text("earlier\n")
    recorder = Recorder(str(path))
    recorder.add(b"line\n")
    recorder.close()
    assert os.listdir(path.parent) == [path.name]
    assert path.read_text() == "earlier\n"


@pytest.mark.parametrize("links", [True, False])
def test_what_was_kept_before_is_never_overwritten(path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:  # as on some file systems
        monkeypatch.setattr(os, "link", refuse)
    for number in range(1, 4):
        path.write_text(f"run {number}\n")
        recorder = Recorder(str(path))
        assert recorder.take_place() == f"{path}.{number}"
        recorder.close()
    kept = [path.with_name(f"{path.name}.{number}").read_text() for number in range(1, 4)]
    assert kept == ["run 1\n", "run 2\n", "run 3\n"]


def test_without_links_a_name_that_is_free_is_taken_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    recorder = Recorder(str(path))
    assert recorder.take_place() is None
    recorder.close()


def test_a_link_that_leads_nowhere_is_kept_too(path: Path) -> None:
    path.symlink_to("nowhere")
    path.with_name(f"{path.name}.1").symlink_to("nowhere either")
    recorder = Recorder(str(path))
    assert recorder.take_place() == f"{path}.2"
    recorder.close()
    assert os.readlink(f"{path}.1") == "nowhere either"
    assert os.readlink(f"{path}.2") == "nowhere"


@pytest.mark.parametrize("has_begun", [False, True])
def test_nobody_gets_the_name_of_a_run_that_goes_on(path: Path, *, has_begun: bool) -> None:
    first = Recorder(str(path))
    if has_begun:
        first.take_place()
    with pytest.raises(NameTakenError, match="goes on"):
        Recorder(str(path))
    first.add(b"line\n")
    first.take_place() if not has_begun else None
    first.close()
    assert path.read_text() == "line\n"
    Recorder(str(path)).close()


def test_a_run_that_began_in_between_keeps_its_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lock_late(_descriptor: int, _operation: int) -> None:
        monkeypatch.undo()
        os.rename(f"{path}.new", path)

    Recorder(str(path), lambda _descriptor, data: len(data))
    monkeypatch.setattr(fcntl, "flock", lock_late)
    with pytest.raises(NameTakenError):
        Recorder(str(path))


def test_a_file_system_without_locks_is_good_enough(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    begun(path).close()
    begun(path).close()


def test_what_a_killed_driver_left_at_its_beginning_is_not_kept(path: Path) -> None:
    path.with_name(f"{path.name}.new").write_text("half a li")
    begun(path).close()
    assert path.read_text() == ""


def test_a_place_that_there_is_not_is_named(path: Path) -> None:
    path.write_text("")
    with pytest.raises(NotADirectoryError) as error:
        Recorder(str(path / "status.txt"))
    assert error.value.filename == f"{path}/status.txt.new"


def test_many_lines_are_written_in_parts(recorder_on: Callable[[Disk], Recorder], path: Path) -> None:
    disk = Disk()
    lines = [b"%d %s\n" % (number, b"x" * 1000) for number in range(3000)]
    recorder_on(disk).add_all(iter(lines))
    assert path.read_bytes() == b"".join(lines)
    assert 20 < len(disk.writes) < 100


# Writing


def test_lines_are_in_the_file_after_a_flush_in_their_order(path: Path) -> None:
    recorder = begun(path)
    recorder.add(b"one\n")
    recorder.add(b"two\n")
    assert path.read_bytes() == b""
    recorder.flush()
    assert path.read_bytes() == b"one\ntwo\n"
    recorder.add(b"three\n")
    recorder.close()
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_lines_of_one_flush_are_one_write(recorder_on: Callable[[Disk], Recorder]) -> None:
    disk = Disk()
    recorder = recorder_on(disk)
    for number in range(100):
        recorder.add(b"%d\n" % number)
    recorder.flush()
    assert disk.writes == [b"".join(b"%d\n" % number for number in range(100))]


def test_a_flush_of_nothing_writes_nothing(recorder_on: Callable[[Disk], Recorder]) -> None:
    disk = Disk()
    recorder = recorder_on(disk)
    recorder.flush()
    recorder.add(b"one\n")
    recorder.flush()
    recorder.flush()
    assert disk.writes == [b"one\n"]


def test_a_write_that_takes_only_a_part_is_gone_on_with(recorder_on: Callable[[Disk], Recorder], path: Path) -> None:
    recorder = recorder_on(Disk(2, 1, 3))
    recorder.add(b"one\n")
    recorder.add(b"two\n")
    recorder.flush()
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_full_disk_is_an_error_for_people(recorder_on: Callable[[Disk], Recorder]) -> None:
    recorder = recorder_on(Disk(FULL))
    recorder.add(b"one\n")
    with pytest.raises(DisbatchError) as error:
        recorder.flush()
    assert error.value.message == "cannot write the status file: No space left on device"
    assert error.value.hint


@pytest.mark.parametrize("written", [0, 2, 4, 6])
def test_what_a_full_disk_did_not_take_is_written_later_and_nothing_twice(
    recorder_on: Callable[[Disk], Recorder], path: Path, written: int
) -> None:
    recorder = recorder_on(Disk(*[written] * bool(written), FULL))
    recorder.add(b"one\n")
    recorder.add(b"two\n")
    with pytest.raises(DisbatchError):
        recorder.flush()
    assert path.read_bytes() == b"one\ntwo\n"[:written]
    recorder.add(b"three\n")
    recorder.flush()
    assert path.read_bytes() == b"one\ntwo\nthree\n"


@given(
    turns=st.lists(st.lists(st.binary(max_size=5), max_size=3), max_size=6),
    answers=st.lists(st.one_of(st.just(FULL), st.integers(1, 4)), max_size=12),
)
def test_whatever_the_disk_does_the_file_is_a_beginning_of_the_lines(
    tmp_path_factory: pytest.TempPathFactory, turns: list[list[bytes]], answers: list[int | OSError]
) -> None:
    path = tmp_path_factory.mktemp("recorder") / "status"
    recorder = begun(path, Disk(*answers).write)
    said = b""
    for lines in turns:
        for line in lines:
            recorder.add(line + b"\n")
            said += line + b"\n"
        try:
            recorder.flush()
        except DisbatchError:
            assert said.startswith(path.read_bytes())
        else:
            assert path.read_bytes() == said
    while path.read_bytes() != said:
        with suppress(DisbatchError):
            recorder.flush()
    recorder.close()
    assert path.read_bytes() == said


def test_lines_that_are_not_written_are_counted(recorder_on: Callable[[Disk], Recorder]) -> None:
    recorder = recorder_on(Disk(5, FULL))
    for number in range(4):
        recorder.add(b"%d..\n" % number)
    assert recorder.unwritten == 4
    with pytest.raises(DisbatchError):
        recorder.flush()
    assert recorder.unwritten == 3
    recorder.flush()
    assert recorder.unwritten == 0


def stopped_in_a_line(recorder: Recorder) -> None:
    for line in (b"one\n", b"two\n"):
        recorder.add(line)
    with pytest.raises(DisbatchError):
        recorder.flush()


def test_a_line_of_which_somebody_has_cut_off_the_beginning_is_written_from_it(
    recorder_on: Callable[[Disk], Recorder], path: Path
) -> None:
    recorder = recorder_on(Disk(6, FULL))
    stopped_in_a_line(recorder)
    path.write_bytes(b"")
    recorder.flush()
    assert path.read_bytes() == b"two\n"


@pytest.mark.parametrize("left", [b"one\nt", b"o"])
def test_what_somebody_has_left_of_a_line_does_not_get_into_another(
    recorder_on: Callable[[Disk], Recorder], path: Path, left: bytes
) -> None:
    recorder = recorder_on(Disk(6, FULL))
    stopped_in_a_line(recorder)
    path.write_bytes(left)
    recorder.flush()
    assert path.read_bytes() == left + b"\ntwo\n"


def test_what_somebody_has_put_behind_half_a_line_does_not_get_into_its_rest(
    recorder_on: Callable[[Disk], Recorder], path: Path
) -> None:
    recorder = recorder_on(Disk(6, FULL))
    stopped_in_a_line(recorder)
    with path.open("ab") as file:
        file.write(b"a note\n")
    recorder.flush()
    assert path.read_bytes() == b"one\ntwa note\ntwo\n"


# What is on disk


BROKEN = OSError(errno.EIO, os.strerror(errno.EIO))
NO_SYNC = OSError(errno.EINVAL, os.strerror(errno.EINVAL))


class Platter:
    """Stands for `os.fdatasync`: notes what is in the file by then, and throws it away as often as it is to fail."""

    def __init__(self, path: Path, *failures: OSError) -> None:
        self.path = path
        self.failures = list(failures)
        self.synced: list[bytes] = []

    def __call__(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if self.failures:
            held = sum(map(len, self.synced))
            with open(f"/proc/self/fd/{descriptor}", "r+b") as file:
                file.seek(held)
                file.write(bytes(size - held))
            raise self.failures.pop(0)
        self.synced = [os.pread(descriptor, size, 0)]


def synced_on(platter: Platter) -> Recorder:
    recorder = Recorder(str(platter.path), sync=platter)
    recorder.take_place()
    return recorder


def waits(recorder: Recorder) -> bool:
    return recorder.unsynced


def test_what_is_written_waits_to_be_brought_to_disk(path: Path) -> None:
    platter = Platter(path)
    recorder = synced_on(platter)
    assert not waits(recorder)
    recorder.add(b"one\n")
    assert not waits(recorder)
    recorder.flush()
    assert waits(recorder)
    recorder.synced(recorder.sync())
    assert not waits(recorder)
    assert platter.synced == [b"one\n"]
    recorder.close()


def test_what_is_written_while_a_sync_goes_on_waits_for_the_next_one(path: Path) -> None:
    recorder = synced_on(Platter(path))
    recorder.add(b"one\n")
    recorder.flush()
    pieces = recorder.sync()
    recorder.add(b"two\n")
    recorder.flush()
    recorder.synced(pieces)
    assert waits(recorder)
    recorder.synced(recorder.sync())
    assert not waits(recorder)
    recorder.close()


def test_what_a_disk_has_thrown_away_is_written_again_in_its_place(path: Path) -> None:
    platter = Platter(path)
    recorder = synced_on(platter)
    recorder.add(b"one\n")
    recorder.flush()
    recorder.synced(recorder.sync())
    for line in (b"two\n", b"three\n"):
        recorder.add(line)
        recorder.flush()
    platter.failures = [BROKEN]
    with pytest.raises(OSError, match="Input/output error"):
        recorder.sync()
    assert path.read_bytes() == b"one\n" + bytes(10)
    recorder.write_again()
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    recorder.add(b"four\n")
    recorder.close()
    assert platter.synced == [b"one\ntwo\nthree\nfour\n"]


def test_what_has_lost_its_place_in_the_file_goes_behind_what_is_left(path: Path) -> None:
    platter = Platter(path)
    recorder = synced_on(platter)
    recorder.add(b"one\n")
    recorder.flush()
    recorder.synced(recorder.sync())
    recorder.add(b"two\n")
    recorder.flush()
    path.write_bytes(b"")
    recorder.write_again()
    recorder.close()
    assert path.read_bytes() == b"two\n"


def test_what_cannot_be_written_again_is_an_error_for_people(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _data: bytes, _offset: int) -> int:
        raise FULL

    recorder = synced_on(Platter(path))
    recorder.add(b"one\n")
    recorder.flush()
    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(DisbatchError, match="cannot write the status file: No space left on device"):
        recorder.write_again()
    recorder.close()


def test_what_a_run_begins_with_is_on_disk_before_the_file_has_its_name(path: Path) -> None:
    platter = Platter(path)
    recorder = Recorder(str(path), sync=platter)
    recorder.add_all([b"one\n", b"two\n"])
    platter.failures = [BROKEN]
    with pytest.raises(DisbatchError, match="Input/output error"):
        recorder.take_place()
    assert not path.exists()
    recorder.close()


def test_a_file_is_on_disk_when_it_is_closed(path: Path) -> None:
    platter = Platter(path)
    recorder = synced_on(platter)
    recorder.add(b"one\n")
    recorder.close()
    assert platter.synced == [b"one\n"]


def test_a_file_that_does_not_get_to_disk_is_told_of_when_it_is_closed(path: Path) -> None:
    platter = Platter(path, BROKEN)
    recorder = synced_on(platter)
    recorder.add(b"one\n")
    with pytest.raises(DisbatchError, match="Input/output error"):
        recorder.close()


def test_a_file_system_that_knows_no_sync_is_good_enough(path: Path) -> None:
    recorder = synced_on(Platter(path, NO_SYNC))
    recorder.add(b"one\n")
    recorder.close()


def test_a_name_that_cannot_be_brought_to_disk_is_good_enough(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise NO_SYNC

    monkeypatch.setattr(os, "fsync", refuse)
    recorder = synced_on(Platter(path))
    recorder.add(b"one\n")
    recorder.close()
    assert path.read_bytes() == b"one\n"


def test_without_sync_nothing_is_brought_to_disk_and_nothing_waits_for_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", None)
    recorder = Recorder(str(path), sync=None)
    recorder.take_place()
    recorder.add(b"one\n")
    recorder.flush()
    assert not recorder.unsynced
    recorder.close()


@given(
    turns=st.lists(st.tuples(st.lists(st.binary(max_size=5), max_size=3), st.booleans()), max_size=8),
    answers=st.lists(st.one_of(st.just(FULL), st.integers(1, 4)), max_size=12),
    failures=st.integers(0, 3),
)
def test_whatever_the_disk_takes_and_throws_away_the_file_has_all_lines_once_in_the_end(
    tmp_path_factory: pytest.TempPathFactory,
    turns: list[tuple[list[bytes], bool]],
    answers: list[int | OSError],
    failures: int,
) -> None:
    path = tmp_path_factory.mktemp("recorder") / "status"
    platter = Platter(path, *[BROKEN] * failures)
    recorder = Recorder(str(path), Disk(*answers).write, platter)
    recorder.take_place()
    said = b""

    def try_to_sync() -> None:
        with suppress(DisbatchError):
            try:
                recorder.synced(recorder.sync())
            except OSError:
                recorder.write_again()

    for lines, is_synced in turns:
        for line in lines:
            recorder.add(line + b"\n")
            said += line + b"\n"
        with suppress(DisbatchError):
            recorder.flush()
        if is_synced:
            try_to_sync()
        assert said.startswith(path.read_bytes())
    while recorder.unwritten or recorder.unsynced:
        with suppress(DisbatchError):
            recorder.flush()
        try_to_sync()
    recorder.close()
    assert path.read_bytes() == said
    assert platter.synced in ([said], [])


# The file


def test_closing_writes_what_is_left(path: Path) -> None:
    recorder = begun(path)
    recorder.add(b"one\n")
    recorder.close()
    assert path.read_bytes() == b"one\n"


def test_a_file_that_cannot_be_written_to_the_end_is_closed_all_the_same(path: Path) -> None:
    seen: list[int] = []

    def write(descriptor: int, _data: bytes) -> int:
        seen.append(descriptor)
        raise FULL

    recorder = begun(path, write)
    recorder.add(b"one\n")
    with pytest.raises(DisbatchError, match="No space left on device"):
        recorder.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(seen[0])


def test_lines_go_behind_what_somebody_else_has_put_there(path: Path) -> None:
    recorder = begun(path)
    recorder.add(b"one\n")
    recorder.flush()
    with path.open("a") as file:
        file.write("a note of the user's\n")
    recorder.add(b"two\n")
    recorder.close()
    assert path.read_text() == "one\na note of the user's\ntwo\n"


def test_the_user_decides_who_may_read_it_and_no_child_gets_it(path: Path) -> None:
    seen: list[int] = []

    def write(descriptor: int, data: bytes) -> int:
        seen.append(descriptor)
        return os.write(descriptor, data)

    mask = os.umask(0o027)
    try:
        recorder = begun(path, write)
    finally:
        os.umask(mask)
    recorder.add(b"one\n")
    recorder.flush()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not os.get_inheritable(seen[0])
    recorder.close()
