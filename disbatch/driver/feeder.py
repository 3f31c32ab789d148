"""Reads the task list, no further ahead than it is asked to, and says of each task whether an earlier run did it.

A thin shell around a file or a pipe. It must not know what runs where: it answers each request with one event.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from disbatch import statusfile, taskfile
from disbatch.driver.events import ItemsRead, ReadingFailed, SkippedTask
from disbatch.errors import DisbatchError, StatusFileError, TaskFileError
from disbatch.eventloop import READ
from disbatch.taskfile import Complaint, TaskParser
from disbatch.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from disbatch.driver.events import Event, Item
    from disbatch.eventloop import EventLoop

_CHUNK = 1 << 16

WARNINGS_SHOWN = 5
"""Tasks that differ from the record that a forced resume goes by are named up to this many, and then counted."""


class EarlierRuns:
    """The status files of the runs that this one resumes; which of their tasks count is decided once, by `retry`."""

    def __init__(self, paths: Sequence[str], *, retry: bool, by_id_alone: bool) -> None:
        self._resume = statusfile.Resume()
        self._retry = retry
        self._by_id_alone = by_id_alone
        self._files: list[BinaryIO] = []
        self._warned = 0
        self.warnings: list[str] = []
        for number, path in enumerate(paths):
            try:
                file = open(path, "rb")  # noqa: SIM115 - read from until the task list has ended
                self._files.append(file)
                if not file.seekable():
                    raise StatusFileError(
                        f"the status file {path} can be read only once", "-r takes a file, not a pipe"
                    )
                self.warnings += statusfile.read_into(self._resume, path, file, number)
            except OSError as error:
                hint = "-r takes the status file of an earlier run"
                raise StatusFileError(f"cannot read the status file {path}: {error.strerror}", hint) from error

    @property
    def completed(self) -> int:
        """How many tasks they completed."""
        return self._resume.completed

    def lines(self) -> Iterator[bytes]:
        """Lines for this run's status file: of all tasks that earlier runs completed and this one will not run again.

        Raises `DisbatchError` when a file cannot be read once more.
        """
        return self._lines_where(lambda _task_id, return_code: not (self._retry and return_code))

    def lines_still_true(self, recorded: Iterable[bytes]) -> Iterator[bytes]:
        """Lines for the end of a run that was cut short: of tasks that it was to run again, and has not `recorded`.

        So that its status file too tells of all that is known. Raises `DisbatchError` as `lines` does.
        """
        if not self._retry:
            return iter(())  # there is none
        by_now = statusfile.Resume()
        for line in recorded:
            with suppress(StatusFileError):  # a header, or the end of a line for which there was no room
                by_now.note(line, 0)
        return self._lines_where(lambda task_id, _return_code: by_now.place_of(task_id) is None)

    def _lines_where(self, is_wanted: Callable[[int, int], bool]) -> Iterator[bytes]:
        for number, file in enumerate(self._files):
            try:
                file.seek(0)
                yield from statusfile.lines_to_keep(self._resume, file, number, is_wanted)
            except OSError as error:
                raise _unreadable(file, error) from error

    def look_up(self, task: Task) -> list[Item]:
        """Items to take instead of the task: itself or its record, and a complaint where the two differ."""
        place = self._resume.place_of(task.task_id)
        if place is None:
            return [task]
        number, offset = statusfile.place_in_file(place)
        file = self._files[number]
        try:
            file.seek(offset)
            line = file.readline()
        except OSError as error:
            raise _unreadable(file, error) from error
        decision = statusfile.judge(task, line, retry=self._retry, by_id_alone=self._by_id_alone)
        items: list[Item] = []
        if decision.warning:
            self._warned += 1
            if self._warned <= WARNINGS_SHOWN:
                items.append(Complaint(task.stream_index, decision.warning))
        if not decision.skip:
            return [*items, task]
        return [*items, SkippedTask(task, line, decision.failed)]

    def items_for(self, items: Sequence[taskfile.Item], *, ended: bool) -> tuple[Item, ...]:
        """Items to take instead of these; with `ended` no others follow."""
        result: list[Item] = []
        for item in items:
            result += self.look_up(item) if isinstance(item, Task) else [item]
        more = self._warned - WARNINGS_SHOWN
        if ended and more > 0:
            result.append(Complaint(0, f"{more} more tasks differ from the status file"))
        return tuple(result)


def _unreadable(file: BinaryIO, error: OSError) -> DisbatchError:
    return DisbatchError(f"cannot read the status file {file.name} any further: {error.strerror}")


class Feeder:
    """Gives the items of the task list; `tell` takes one event for each `read`, at once or when a pipe has more."""

    def __init__(
        self, descriptor: int, earlier: EarlierRuns | None, loop: EventLoop, tell: Callable[[Event], None]
    ) -> None:
        self._descriptor = descriptor
        self._earlier = earlier
        self._loop = loop
        self._tell = tell
        self._parser = TaskParser()
        self._limit = 0
        self._watching = False
        self._can_wait = _can_be_waited_for(descriptor)

    @property
    def unread(self) -> float | None:
        """Tasks that are still to be read, about; None of a pipe, whose end nobody knows."""
        if self._can_wait:
            return None
        try:
            left = os.fstat(self._descriptor).st_size - os.lseek(self._descriptor, 0, os.SEEK_CUR)
        except OSError:
            return None
        return self._parser.unread + max(0, left) * self._parser.tasks_per_byte

    def read(self, limit: int) -> None:
        """Tell of at most `limit` further items, of fewer when the list ends or a pipe has no more for now."""
        self._limit = limit
        self._go_on(ready=not self._can_wait)

    def _go_on(self, *, ready: bool) -> None:
        """Tell of what can be told; `ready`: reading would not wait."""
        try:
            items = self._parser.take(self._limit)
            while not items and not self._parser.exhausted:
                if not ready and self._can_wait:
                    self._wait()
                    return
                self._fill()
                items = self._parser.take(self._limit)
                ready = False
            ended = self._parser.exhausted
            event = ItemsRead(self._earlier.items_for(items, ended=ended) if self._earlier else tuple(items), ended)
        except DisbatchError as error:
            self._stop_waiting()
            self._tell(ReadingFailed(str(error), is_another=isinstance(error, StatusFileError)))
            return
        self._stop_waiting()
        self._tell(event)

    def _fill(self) -> None:
        """Read once, which waits for nothing when the descriptor is ready."""
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return  # somebody else who reads from the same pipe was faster
        except OSError as error:
            raise TaskFileError(f"cannot read the task file any further: {error.strerror}") from error
        if data:
            self._parser.feed(data)
        else:
            self._parser.end()

    def _wait(self) -> None:
        if not self._watching:
            self._watching = True
            self._loop.watch(self._descriptor, READ, lambda _mask: self._go_on(ready=True))

    def _stop_waiting(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.unwatch(self._descriptor)


def _can_be_waited_for(descriptor: int) -> bool:
    """Whether reading may have to wait for somebody, as with a pipe or a terminal; a file or /dev/null never does."""
    poller = select.epoll()
    try:
        poller.register(descriptor, select.EPOLLIN)
    except PermissionError:
        return False
    finally:
        poller.close()
    return True
