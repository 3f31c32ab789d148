"""Tasks that programs submit through a key-value store, and what they are told of them.

A program signs in with four values: a name, what it will submit when it is done, and the two keys under which it
submits and wants to hear. It must not know what runs where: like the feeder it answers each request with one event.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from disbatch import statusfile
from disbatch.driver.events import ItemsRead, ReadingFailed, SkippedTask
from disbatch.errors import DisbatchError, StatusFileError
from disbatch.kvsstcp.wire import ASTR, JSON
from disbatch.taskfile import TaskParser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from disbatch import taskfile
    from disbatch.driver.events import Event, Item
    from disbatch.driver.feeder import EarlierRuns
    from disbatch.driver.store import PublicStore

SIGN_IN = (
    b"task source name",
    b"task source done task",
    b"task source result key",
    b"task source task key",
)
"""Keys of the four values, from the documentation of the existing tool."""

_MARK_BYTES = 16


class Submissions:
    """Gives the items that were submitted; `tell` takes one event for each `read`, when there is something.

    `note` writes into the log.
    """

    def __init__(
        self,
        store: PublicStore,
        earlier: EarlierRuns | None,
        tell: Callable[[Event], None],
        note: Callable[[str, str], None],
    ) -> None:
        self._note = note
        self._store = store
        self._earlier = earlier
        self._tell = tell
        self._parser = TaskParser(submissions=True)
        self._signed_in: list[bytes] = []
        self._limit = 0
        self._asked = False
        self._ended = False
        self._mark: bytes | None = None
        self._done = False
        store.get(SIGN_IN[0], self._sign_in)

    @property
    def unread(self) -> None:
        """How many tasks are still to come: nobody knows."""

    def read(self, limit: int) -> None:
        """Tell of at most `limit` further items as soon as there is one, or none will come."""
        self._limit = limit
        self._go_on()

    def end(self, reason: str = "") -> None:
        """Expect no more than what was submitted before; with a reason, the task list has failed."""
        if self._ended:
            return
        if reason:
            self._fail(reason)
        elif len(self._signed_in) == len(SIGN_IN):
            # Behind all that was submitted, and taken out again: the next run on the same store is not to find it.
            self._mark = b"#" + os.urandom(_MARK_BYTES).hex().encode()
            self._store.put(self._task_key, ASTR, self._mark)
        else:
            self._end()

    @property
    def _done_task(self) -> bytes:
        return self._signed_in[1]

    @property
    def _result_key(self) -> bytes:
        return self._signed_in[2]

    @property
    def _task_key(self) -> bytes:
        return self._signed_in[3]

    def recorded(self, lines: Sequence[bytes]) -> None:
        """Post results for those lines of the status file that tell how a task has ended."""
        for line in lines:
            if line[:1] not in b"BC" and line[3:4] not in b"PZ":
                self._post(line)

    def _post(self, line: bytes) -> None:
        task_id = b"%d" % statusfile.parse_line(line).task_id
        self._store.put(b"%b %b" % (self._result_key, task_id), JSON, statusfile.report(line))
        self._store.put(self._result_key + b" done tasks", ASTR, task_id)

    def _sign_in(self, value: bytes) -> None:
        if self._ended:
            return
        self._signed_in.append(value)
        if len(self._signed_in) < len(SIGN_IN):
            self._store.get(SIGN_IN[len(self._signed_in)], self._sign_in)
        else:
            self._note("tasks come from %s", repr(self._signed_in[0].decode(errors="replace")))
            self._go_on()

    def _submitted(self, value: bytes) -> None:
        if self._ended:
            return
        self._asked = False
        if value == (self._done_task if self._mark is None else self._mark):
            self._end()
            return
        self._done = self._done or value == self._done_task
        if not self._done:
            self._parser.feed(value)
        self._go_on()

    def _end(self) -> None:
        self._ended = True
        self._parser.end()
        self._go_on()

    def _fail(self, reason: str, *, is_another: bool = False) -> None:
        self._ended = True
        self._limit = 0
        self._tell(ReadingFailed(reason, is_another))

    def _go_on(self) -> None:
        """Answer a request that is there, or ask for what it wants."""
        if not self._limit:
            return
        try:
            items = self._parser.take(self._limit)
            ended = self._parser.exhausted
            if items or ended:
                self._limit = 0
                self._ended = self._ended or ended  # a fatal complaint is an end of its own
                self._tell(ItemsRead(self._with_records(items, ended=ended), ended))
                return
        except DisbatchError as error:
            self._fail(str(error), is_another=isinstance(error, StatusFileError))
            return
        if len(self._signed_in) == len(SIGN_IN) and not self._asked:
            self._asked = True
            self._store.get(self._task_key, self._submitted)

    def _with_records(self, items: Sequence[taskfile.Item], *, ended: bool) -> tuple[Item, ...]:
        """Items to take; those that earlier runs completed have their results posted."""
        if self._earlier is None:
            return tuple(items)
        result = self._earlier.items_for(items, ended=ended)
        for item in result:
            if isinstance(item, SkippedTask):
                self._post(statusfile.skipped_line(item.line))
        return result
