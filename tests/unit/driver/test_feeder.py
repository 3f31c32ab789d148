from __future__ import annotations

import errno
import os
import socket
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.driver.events import Event, Item, ItemsRead, ReadingFailed, SkippedTask
from disbatch.driver.feeder import WARNINGS_SHOWN, EarlierRuns, Feeder
from disbatch.errors import DisbatchError, StatusFileError
from disbatch.eventloop import EventLoop
from disbatch.statusfile import HEADER, skipped_line
from disbatch.taskfile import Complaint, TaskParser
from disbatch.tasks import NO_REPEAT, Barrier, PerEngineTask, Task
from tests.unit.driver.examples import line, task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Bench:
    """A feeder's surroundings: a real loop that is turned by hand, a folder, and what the feeder tells."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = EventLoop()
        self.told: list[Event] = []
        self.descriptors: list[int] = []

    def feed_from(self, descriptor: int, earlier: EarlierRuns | None = None) -> Feeder:
        return Feeder(descriptor, earlier, self.loop, self.told.append)

    def feed(self, content: bytes, earlier: EarlierRuns | None = None) -> Feeder:
        """Make a feeder that has its tasks from a file."""
        path = self.folder / "tasks"
        path.write_bytes(content)
        return self.feed_from(self.open(path), earlier)

    def feed_from_pipe(self) -> tuple[Feeder, Pipe]:
        pipe = Pipe(self)
        return self.feed_from(pipe.reading), pipe

    def open(self, path: Path | str) -> int:
        self.descriptors.append(os.open(path, os.O_RDONLY))
        return self.descriptors[-1]

    def earlier(self, *recorded: bytes, retry: bool = False, by_id_alone: bool = False) -> EarlierRuns:
        """One earlier run, with these lines in its status file."""
        path = status_file(self.folder / "status", *recorded)
        return earlier_runs(path, retry=retry, by_id_alone=by_id_alone)

    def close(self) -> None:
        self.loop.close()
        for descriptor in self.descriptors:
            os.close(descriptor)

    def turn(self) -> None:
        """Handle what is ready, without waiting for more."""
        self.loop.turn(0)

    def answer(self) -> Event:
        """The one thing that was told since the last time."""
        assert len(self.told) == 1, f"a request is answered once, not with {self.told}"
        return self.told.pop()

    def items(self) -> ItemsRead:
        answer = self.answer()
        assert isinstance(answer, ItemsRead)
        return answer

    @property
    def waits(self) -> bool:
        """Whether the loop watches anything."""
        return bool(self.loop.selector.get_map())

    def resume(self, content: bytes, earlier: EarlierRuns) -> list[Item]:
        """Items of a list of which an earlier run has done some."""
        return self.read_everything(self.feed(content, earlier))

    def read_everything(self, feeder: Feeder, limit: int = 1000) -> list[Item]:
        """Items of a list that lies there as a whole."""
        items: list[Item] = []
        for _ in range(1000):
            feeder.read(limit)
            event = self.items()
            items += event.items
            if event.ended:
                return items
        raise AssertionError("the list does not end")


class Pipe:
    """The end of a pipe that a test writes to."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.reading, self.descriptor = os.pipe()
        self.is_open = True
        bench.descriptors += [self.reading, self.descriptor]

    def write(self, data: bytes) -> None:
        os.write(self.descriptor, data)

    def close(self) -> None:
        self.is_open = False
        self.bench.descriptors.remove(self.descriptor)
        os.close(self.descriptor)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def commands(items: Sequence[Item]) -> list[bytes]:
    return [item.command for item in items if isinstance(item, Task)]


# Files


def test_the_items_of_a_file_come_in_order_and_then_the_end(bench: Bench) -> None:
    content = b"#DISBATCH PERENGINE START prepare\na\n\n# comment\nb\n#DISBATCH BARRIER\n#DISBATCH NONSENSE\nc"
    items = bench.read_everything(bench.feed(content))
    assert [type(item) for item in items] == [PerEngineTask, Task, Task, Barrier, Complaint, Task]
    assert commands(items) == [b"a", b"b", b"c"]
    assert items[-1] == Task(3, 8, NO_REPEAT, b"c")


@pytest.mark.parametrize("content", [b"", b"\n", b"# nothing but\n\n# comments\n" * 10_000])
def test_a_file_without_tasks_ends_at_once(bench: Bench, content: bytes) -> None:
    bench.feed(content).read(10)
    assert bench.items() == ItemsRead((), ended=True)


def test_the_null_device_is_an_empty_file(bench: Bench) -> None:
    bench.feed_from(bench.open(os.devnull)).read(10)
    assert bench.items() == ItemsRead((), ended=True)


def test_a_file_is_read_without_waiting(bench: Bench) -> None:
    feeder = bench.feed(b"true\n" * 100)
    for _ in range(12):
        feeder.read(10)
        bench.items()
        assert not bench.waits


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_no_more_items_come_than_were_asked_for(bench: Bench, limit: int) -> None:
    feeder = bench.feed(b"true\n#DISBATCH REPEAT 20 true\n#DISBATCH BARRIER\ntrue\n")
    ids: list[int] = []
    ended = False
    while not ended:
        feeder.read(limit)
        event = bench.items()
        ended = event.ended
        assert len(event.items) <= limit
        assert event.items or ended, "an answer that brings nothing on"
        ids += [item.task_id for item in event.items if isinstance(item, Task | Barrier)]
    assert ids == list(range(23))


def test_no_more_of_a_file_is_read_than_is_needed(bench: Bench) -> None:
    content = b"echo some task of the usual length\n" * 100_000
    feeder = bench.feed(content)
    [descriptor] = bench.descriptors
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0, "it was read from before anybody asked"
    feeder.read(10)
    one_chunk = os.lseek(descriptor, 0, os.SEEK_CUR)
    assert one_chunk < len(content) // 10
    for _ in range(20):
        feeder.read(10)
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == one_chunk, "it was read from although lines were left"


def test_how_many_tasks_are_unread_is_known_about_and_in_the_end_exactly(bench: Bench) -> None:
    feeder = bench.feed(b"".join(b"command number %06d\n" % number for number in range(20_000)))
    assert feeder.unread == 0, "nothing was read that tells how long a line is"
    feeder.read(10)
    assert feeder.unread == pytest.approx(19_990, rel=0.01)
    bench.told.clear()
    bench.read_everything(feeder)
    assert feeder.unread == 0


def test_what_a_repeat_is_to_give_is_unread(bench: Bench) -> None:
    feeder = bench.feed(b"#DISBATCH REPEAT 100 command\n")
    feeder.read(10)
    assert feeder.unread == 90


def test_nobody_knows_how_much_a_pipe_holds_nor_what_a_lost_file_did(bench: Bench) -> None:
    feeder, pipe = bench.feed_from_pipe()
    pipe.write(b"a\n")
    assert feeder.unread is None
    lost = bench.feed(b"a\n")
    os.close(bench.descriptors.pop())
    assert lost.unread is None


def test_a_repeat_of_a_thousand_million_is_given_out_as_it_is_asked_for(bench: Bench) -> None:
    feeder = bench.feed(b"#DISBATCH REPEAT 1000000000 true\n")
    for beginning in (0, 50):
        feeder.read(50)
        event = bench.items()
        assert [item.repeat_index for item in event.items if isinstance(item, Task)] == [
            *range(beginning, beginning + 50)
        ]
        assert not event.ended


def test_after_a_fatal_mistake_nothing_more_is_read(bench: Bench) -> None:
    feeder, pipe = bench.feed_from_pipe()
    pipe.write(b"true\n#DISBATCH PERENGINE START too late\nfalse\n")
    feeder.read(10)
    bench.turn()
    event = bench.items()
    assert event.ended
    first, second = event.items
    assert first == task(0)
    assert isinstance(second, Complaint)
    assert second.fatal


# Pipes


def test_a_line_from_a_pipe_is_told_of_as_soon_as_it_is_there(bench: Bench) -> None:
    feeder, pipe = bench.feed_from_pipe()
    for number in range(3):
        feeder.read(10)
        bench.turn()
        assert not bench.told, "told before there was anything"
        pipe.write(b"echo %d\n" % number)
        bench.turn()
        assert bench.items() == ItemsRead((task(number, b"echo %d" % number),), ended=False)


def test_a_pipe_ends_when_its_writer_has_closed_it(bench: Bench) -> None:
    feeder, pipe = bench.feed_from_pipe()
    pipe.write(b"true\n")
    pipe.close()
    feeder.read(10)
    bench.turn()
    assert bench.items().items == (task(0),)
    feeder.read(10)
    bench.turn()
    assert bench.items() == ItemsRead((), ended=True)
    assert not bench.waits


def test_a_line_that_comes_in_pieces_is_one_task(bench: Bench) -> None:
    feeder, pipe = bench.feed_from_pipe()
    feeder.read(10)
    for piece in (b"ec", b"ho ", b"x" * 10_000):
        pipe.write(piece)
        bench.turn()
        assert not bench.told
    pipe.write(b"\nha")
    bench.turn()
    assert commands(bench.items().items) == [b"echo " + b"x" * 10_000]


def test_a_last_line_without_its_end_counts_when_the_pipe_ends(bench: Bench) -> None:
    feeder, pipe = bench.feed_from_pipe()
    feeder.read(10)
    pipe.write(b"true")
    bench.turn()
    assert not bench.told
    pipe.close()
    bench.turn()
    assert bench.items() == ItemsRead((task(0),), ended=True)


def test_comments_from_a_pipe_are_no_answer(bench: Bench) -> None:
    feeder, pipe = bench.feed_from_pipe()
    feeder.read(10)
    for text in (b"# comment\n", b"\n", b"#DISBATCH PREFIX echo \n"):
        pipe.write(text)
        bench.turn()
        assert not bench.told
    pipe.write(b"x\n")
    bench.turn()
    assert commands(bench.items().items) == [b"echo x"]


def test_what_nobody_has_asked_for_stays_in_the_pipe(bench: Bench) -> None:
    feeder, pipe = bench.feed_from_pipe()
    feeder.read(1)
    pipe.write(b"a\nb\n")
    bench.turn()
    assert commands(bench.items().items) == [b"a"]
    assert not bench.waits
    pipe.write(b"c\n")
    bench.turn()
    assert not bench.told
    feeder.read(5)
    assert commands(bench.items().items) == [b"b"], "what was read before is told of at once, without waiting for more"
    assert os.read(pipe.reading, 10) == b"c\n"


def test_a_pipe_that_somebody_else_has_emptied_is_waited_for(bench: Bench) -> None:
    feeder, pipe = bench.feed_from_pipe()
    os.set_blocking(pipe.reading, False)
    feeder.read(10)
    feeder._go_on(ready=True)
    assert not bench.told
    pipe.write(b"true\n")
    bench.turn()
    assert bench.items().items == (task(0),)


lines = st.sampled_from(
    [
        *(b"true", b"  indented", b"", b"# comment", b"with\ttab", b"#DISBATCH REPEAT 3 x", b"#DISBATCH BARRIER"),
        *(b"#DISBATCH PREFIX p ", b"#DISBATCH NONSENSE", b"\xff\xfe"),
    ]
)


@given(
    lines=st.lists(lines, max_size=8),
    line_end=st.sampled_from([b"\n", b"\r\n"]),
    last_line_end=st.booleans(),
    cuts=st.lists(st.integers(0, 150), max_size=8),
    limits=st.lists(st.integers(1, 5), min_size=1, max_size=5),
)
def test_however_a_pipe_cuts_the_list_every_item_comes_once(
    lines: list[bytes], line_end: bytes, cuts: list[int], limits: list[int], *, last_line_end: bool
) -> None:
    whole = line_end.join(lines) + (line_end if last_line_end else b"")
    parser = TaskParser()
    parser.feed(whole)
    parser.end()
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in pairwise(edges)]
    bench = Bench(Path())  # which it has no use for
    try:
        assert read_in_pieces(bench, pieces, limits) == parser.take(1000)
    finally:
        bench.close()


def read_in_pieces(bench: Bench, pieces: list[bytes], limits: list[int]) -> list[Item]:
    """Items of a list that somebody writes into a pipe, a piece whenever the feeder has nothing to tell."""
    feeder, pipe = bench.feed_from_pipe()
    items: list[Item] = []
    for limit in islice(cycle(limits), 1000):
        feeder.read(limit)
        while not bench.told:
            assert pipe.is_open, "all has been written, and nothing is told of it"
            if pieces:
                pipe.write(pieces.pop(0))
            else:
                pipe.close()
            bench.turn()
        event = bench.items()
        assert len(event.items) <= limit
        items += event.items
        if event.ended:
            return items
    raise AssertionError("the list does not end")


# Errors while reading


def test_a_file_that_cannot_be_read_on_is_told_of(bench: Bench, tmp_path: Path) -> None:
    bench.feed_from(bench.open(tmp_path)).read(10)
    assert bench.answer() == ReadingFailed("cannot read the task file any further: Is a directory")


def test_a_connection_that_breaks_is_told_of_and_not_waited_for_again(bench: Bench) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        feeder = bench.feed_from(ours.fileno())
        theirs.sendall(b"true\n")
        feeder.read(10)
        bench.turn()
        assert bench.items().items == (task(0),)
        feeder.read(10)
        ours.sendall(b"which is never read")
        theirs.close()
        bench.turn()
        assert bench.answer() == ReadingFailed("cannot read the task file any further: Connection reset by peer")
        assert not bench.waits


# Resuming


def status_file(path: Path, *recorded: bytes) -> str:
    path.write_bytes(b"".join(recorded))
    return str(path)


def earlier_runs(*paths: str, retry: bool = False, by_id_alone: bool = False) -> EarlierRuns:
    return EarlierRuns(paths, retry=retry, by_id_alone=by_id_alone)


def test_the_lines_of_all_tasks_that_are_not_run_again_are_carried_over(tmp_path: Path) -> None:
    failed, again = line(1, return_code=1), line(2, return_code=1)
    first = status_file(tmp_path / "first", HEADER, line(0), failed, again, line(3)[:-1])
    second = status_file(tmp_path / "second", skipped_line(line(0)), line(2))
    assert list(earlier_runs(first, second).lines()) == [skipped_line(of) for of in (failed, line(0), line(2))]
    assert list(earlier_runs(first, second, retry=True).lines()) == [skipped_line(of) for of in (line(0), line(2))]
    assert earlier_runs(first, second).completed == 3


def test_a_run_that_was_to_retry_and_was_cut_short_keeps_the_lines_of_what_it_has_not_come_to(tmp_path: Path) -> None:
    succeeded, failed, retried, failed_again = line(0), *(line(number, return_code=1) for number in (1, 2, 3))
    first = status_file(tmp_path / "first", failed, succeeded, retried, failed_again)
    now = [HEADER, skipped_line(succeeded), line(2), failed_again, line(4), b"torn"]
    assert list(earlier_runs(first, retry=True).lines_still_true(now)) == [skipped_line(failed)]
    assert list(earlier_runs(first, retry=True).lines_still_true([])) == [
        skipped_line(of) for of in (failed, succeeded, retried, failed_again)
    ]
    # One that was to retry nothing has taken all lines over at its beginning.
    assert list(earlier_runs(first).lines_still_true([])) == []


def test_a_status_file_that_cannot_be_read_once_more_is_named(bench: Bench) -> None:
    earlier = bench.earlier(line(0))
    earlier._files[0].close()
    earlier._files[0] = open("/proc/self/mem", "rb")  # noqa: SIM115 - its first bytes cannot be read
    with pytest.raises(DisbatchError, match="cannot read the status file /proc/self/mem any further"):
        list(earlier.lines())
    earlier._files[0].close()


def test_a_recorded_task_is_skipped_with_its_line_and_others_run(bench: Bench) -> None:
    earlier = bench.earlier(line(2, return_code=3), line(0))
    items = bench.resume(b"true\ntrue\ntrue\n#DISBATCH BARRIER\n", earlier)
    assert items == [
        SkippedTask(task(0), line(0), failed=False),
        task(1),
        SkippedTask(task(2), line(2, return_code=3), failed=True),
        Barrier(3, 4, check=False, key=None, text=b"#DISBATCH BARRIER"),
    ]


def test_a_skipped_task_of_a_skipping_run_is_skipped_again(bench: Bench) -> None:
    items = bench.resume(b"true\n", bench.earlier(HEADER, skipped_line(line(0))))
    assert items == [SkippedTask(task(0), skipped_line(line(0)), failed=False)]


def test_retry_runs_failed_tasks_again(bench: Bench) -> None:
    earlier = bench.earlier(line(0), line(1, return_code=1), retry=True)
    first, second = bench.resume(b"true\ntrue\n", earlier)
    assert isinstance(first, SkippedTask)
    assert second == task(1)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("retry", [False, True])
def test_of_several_files_a_success_counts_wherever_it_stands(
    bench: Bench, tmp_path: Path, order: tuple[int, int], *, retry: bool
) -> None:
    failed, succeeded = line(0, return_code=1), line(0)
    files = [status_file(tmp_path / "status0", failed), status_file(tmp_path / "status1", line(1), succeeded)]
    earlier = earlier_runs(*(files[number] for number in order), retry=retry)
    assert bench.resume(b"true\ntrue\ntrue\n", earlier) == [
        SkippedTask(task(0), line(0), failed=False),
        SkippedTask(task(1), line(1), failed=False),
        task(2),
    ]


def test_a_task_that_differs_ends_the_reading_and_names_both(bench: Bench) -> None:
    bench.feed(b"true\necho new\n", bench.earlier(line(1, command=b"echo old"))).read(10)
    failure = bench.answer()
    assert isinstance(failure, ReadingFailed)
    assert failure.is_another
    for word in ("task 1 ", "'echo new'", "'echo old'", "--force-resume"):
        assert word in failure.reason


def test_a_forced_resume_goes_by_the_id_and_warns(bench: Bench) -> None:
    old = line(0, command=b"echo old")
    warning, skipped = bench.resume(b"echo new\n", bench.earlier(old, by_id_alone=True))
    assert isinstance(warning, Complaint)
    assert not warning.fatal
    assert "task 0 " in warning.text
    assert skipped == SkippedTask(task(0, b"echo new"), old, failed=False)


def test_a_forced_resume_warns_of_what_it_runs_again_too(bench: Bench) -> None:
    earlier = bench.earlier(line(0, return_code=1, command=b"echo old"), retry=True, by_id_alone=True)
    warning, again = bench.resume(b"echo new\n", earlier)
    assert isinstance(warning, Complaint)
    assert again == task(0, b"echo new")


@pytest.mark.parametrize("differing", [WARNINGS_SHOWN, WARNINGS_SHOWN + 1, WARNINGS_SHOWN + 4])
@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_many_warnings_of_a_forced_resume_are_counted(bench: Bench, differing: int, limit: int) -> None:
    earlier = bench.earlier(*(line(number, command=b"echo old") for number in range(differing)), by_id_alone=True)
    items = bench.read_everything(bench.feed(b"echo new\n" * differing, earlier), limit)
    assert sum(isinstance(item, SkippedTask) for item in items) == differing
    texts = [item.text for item in items if isinstance(item, Complaint)]
    more = differing - WARNINGS_SHOWN
    assert len(texts) == WARNINGS_SHOWN + (more > 0)
    if more:
        assert texts[-1] == f"{more} more tasks differ from the status file"
        assert isinstance(items[-1], Complaint)


def test_a_torn_last_line_is_warned_of_and_its_task_runs(bench: Bench) -> None:
    earlier = bench.earlier(line(0), line(1)[:-5])
    [warning] = earlier.warnings
    assert warning.startswith(f"{bench.folder}/status: line 2 is cut off")
    assert bench.resume(b"true\ntrue\n", earlier)[1] == task(1)


def test_a_status_file_is_read_on_when_it_has_another_name(bench: Bench) -> None:
    earlier = bench.earlier(line(0))
    path = bench.folder / "status"
    path.rename(bench.folder / "status.1")
    path.write_text("")
    assert isinstance(bench.resume(b"true\n", earlier)[0], SkippedTask)


def test_a_file_that_is_no_status_file_is_an_error_for_people(tmp_path: Path) -> None:
    path = status_file(tmp_path / "picture", b"\x89PNG\r\n\x1a\n")
    with pytest.raises(StatusFileError, match="picture is no status file"):
        earlier_runs(path)


@pytest.mark.parametrize(("name", "reason"), [("missing", "No such file or directory"), (".", "Is a directory")])
def test_a_status_file_that_cannot_be_opened_is_an_error_for_people(tmp_path: Path, name: str, reason: str) -> None:
    path = f"{tmp_path}/{name}"
    with pytest.raises(StatusFileError) as error:
        earlier_runs(path)
    assert error.value.message == f"cannot read the status file {path}: {reason}"
    assert "-r" in error.value.hint


def test_a_pipe_is_no_status_file_because_lines_are_read_twice(bench: Bench) -> None:
    pipe = Pipe(bench)
    pipe.write(line(0))
    pipe.close()
    path = f"/proc/self/fd/{pipe.reading}"
    with pytest.raises(StatusFileError) as error:
        earlier_runs(path)
    assert error.value.message == f"the status file {path} can be read only once"
    assert error.value.hint


def test_a_status_file_that_changes_meanwhile_ends_the_reading(bench: Bench) -> None:
    recorded = [line(number) for number in range(100, 500)]  # more than a buffer holds
    earlier = bench.earlier(*recorded)
    with (bench.folder / "status").open("r+b") as file:
        file.write(b"".join(reversed(recorded)))
    bench.feed(b"true\n" * 101, earlier).read(1000)
    failure = bench.answer()
    assert isinstance(failure, ReadingFailed)
    assert "the line of task 100 is now about task 499" in failure.reason


def test_a_status_file_that_cannot_be_read_on_ends_the_reading(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = bench.earlier(line(0))
    monkeypatch.setattr(earlier, "_files", [Unreadable()])
    bench.feed(b"true\n", earlier).read(10)
    assert bench.answer() == ReadingFailed("cannot read the status file my status any further: Stale file handle")


class Unreadable:
    name = "my status"

    def seek(self, _offset: int) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
