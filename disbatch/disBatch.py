"""Running tasks from within a Python program: it submits bash commands to a driver and gets a report of each.

The driver is a process of its own: it leaves the arguments, the signal handlers and the logging of this one alone. The
module has the name under which programs know it.

    with DisBatcher("mine", args=["-s", "localhost:4"]) as batch:
        for report in batch.map(f"./simulate --seed {seed}" for seed in range(1000)):
            print(report["TaskId"], report["ReturnCode"])
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from disbatch.errors import DisbatchError
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.kvsstcp.client import KVSClient
from disbatch.kvsstcp.endpoint import KVSError, address_text
from disbatch.kvsstcp.thread import KVSServerThread
from disbatch.launching import disbatch_command
from disbatch.taskfile import TaskParser
from disbatch.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from typing_extensions import Self

Report = dict[str, Any]
"""How a task has ended: Flags, TaskId, TaskStreamIndex, TaskRepIndex, Host, PID, ReturnCode, Elapsed (s), Start and End
(s since the epoch), OutBytes, OutData, ErrBytes, ErrData (text of 83 characters at most), TaskCmd."""

LOOK_AFTER = 0.5
"""Seconds between two looks at whether the driver that is waited for still runs."""

LAST_LINES = 10
"""Lines that the driver printed last which the error of its end tells."""


class DriverEndedError(DisbatchError):
    """The driver has ended before it had done what this program waits for."""


class DisBatcher:
    """A driver that runs what this program submits.

    `tasksname` names the source of the tasks, `args` are options of `disbatch`. With `kvsserver` ("HOST:PORT" of a
    store behind which a driver waits that was started with --taskserver) none is started, and its end is not noticed;
    the secret of the store is expected in KVSSTCP_SECRET. Task ids count from 0 in the order of submission;
    barriers have ids too.

    Used as a context manager it waits for everything that was submitted, and kills the driver when the block raises.
    Raises `DriverEndedError` from whatever waits for a driver that has ended early. It is for one thread at a time.
    """

    def __init__(self, tasksname: str = "DisBatcher", args: Sequence[str] = (), kvsserver: str | None = None) -> None:
        self._reports: dict[int, Report] = {}
        self._unread: deque[Report] = deque()
        self._running: set[int] = set()
        self._ids = TaskParser(submissions=True)
        self._is_done = False
        self._server: KVSServerThread | None = None
        self._driver: _Driver | None = None
        if kvsserver is None:
            self._server = KVSServerThread()
            assert self._server.secret is not None  # noqa: S101 - it makes one
            secret = self._server.secret.decode()
            self._store = KVSClient(*self._server.cinfo, secret=secret)
            self._driver = _Driver([*args, "--taskserver", address_text(*self._server.cinfo)], secret)
        else:
            self._store = KVSClient(kvsserver)
        # A store may be shared with others of the kind.
        own = f"{tasksname} {os.uname().nodename} {os.getpid()} {id(self)}"
        self._task_key, self._result_key, self._sentinel = f"{own} task", f"{own} result", f"{own} done"
        for key, value in (
            ("task source name", tasksname),
            ("task source done task", self._sentinel),
            ("task source result key", self._result_key),
            ("task source task key", self._task_key),
        ):
            self._store.put(key, value, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.done()
        else:
            self.kill()

    def submit(self, line: str) -> list[int]:
        """Submit a task, several lines of them, or directives; the ids of the tasks that they make.

        A line that is no task and no directive makes none; the driver complains of it on its terminal.
        """
        if self._is_done:
            raise DisbatchError("nothing can be submitted after done()")
        data = line.encode(errors="surrogateescape")
        self._ids.feed(data)
        ids = []
        while items := self._ids.take(1000):
            ids += [item.task_id for item in items if isinstance(item, Task)]
        self._running.update(ids)
        self._store.put(self._task_key, data, False)
        return ids

    def wait_one_task(self) -> Report:
        """Report of the next task that has ended, in the order in which they do; each is given once."""
        while not self._unread:
            self._collect()
        return self._unread.popleft()

    def syncTasks(self, ids: Iterable[int]) -> dict[int, Report]:  # noqa: N802 - documented call
        """Reports of these tasks by id, when all of them have ended."""
        wanted = list(ids)
        while not all(task_id in self._reports for task_id in wanted):
            self._collect()
        return {task_id: self._reports[task_id] for task_id in wanted}

    def results(self) -> Iterator[Report]:
        """Reports as tasks end, until every task that was submitted so far or meanwhile has been reported."""
        while self._unread or self._running:
            yield self.wait_one_task()

    def map(self, lines: Iterable[str]) -> Iterator[Report]:
        """Submit all lines, and give reports of all that is under way as they come."""
        for line in lines:
            self.submit(line)
        return self.results()

    def done(self) -> None:
        """Submit nothing more, and wait for the end of what was; raises `DriverEndedError` if the driver failed.

        Reports can be asked for afterwards too, if they were not before.
        """
        if self._is_done:
            return
        self._is_done = True
        self._store.put(self._task_key, self._sentinel, False)
        while self._running:
            self._collect()
        if self._driver is not None:
            self._driver.wait()
        self._close()

    def kill(self) -> None:
        """End the driver, and what it runs, as Ctrl-C does."""
        self._is_done = True
        if self._driver is not None:
            self._driver.end()
        self._close()

    def _close(self) -> None:
        self._store.close()
        if self._server is not None:
            self._server.shutdown()

    def _collect(self) -> None:
        """Take in the next report."""
        if not self._running:
            raise DisbatchError("no task is under way that could be waited for")
        task_id = int(self._get(f"{self._result_key} done tasks"))
        report: Report = json.loads(self._get(f"{self._result_key} {task_id}"))
        self._reports[task_id] = report
        self._unread.append(report)
        self._running.discard(task_id)

    def _get(self, key: str) -> bytes:
        ended = False
        while True:
            try:
                return cast("bytes", self._store.get(key, False, LOOK_AFTER))
            except TimeoutError:
                if ended:
                    assert self._driver is not None  # noqa: S101 - it has ended
                    raise self._driver.failure() from None
            except KVSError as error:
                raise DriverEndedError(str(error)) from error
            # What it put last may have come since.
            ended = self._driver is not None and self._driver.has_ended


class _Driver:
    """A driver process; what it prints goes to this program's standard error."""

    def __init__(self, arguments: Sequence[str], secret: str) -> None:
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._process = subprocess.Popen(
            [*disbatch_command(), *arguments],
            env={**os.environ, SECRET_VARIABLE: secret},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._pass_on, name="disbatch", daemon=True)
        self._reader.start()

    def _pass_on(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - asked for above
        for line in self._process.stderr:
            self._lines.append(line.strip())
            if sys.stderr is not None:
                sys.stderr.write(line)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self) -> None:
        """Wait for its end; raises `DriverEndedError` if that is none in order."""
        if self._process.wait():
            raise self.failure()
        self._reader.join()

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()

    def failure(self) -> DriverEndedError:
        self._reader.join(LOOK_AFTER)
        said = "; ".join(line.removeprefix("disbatch: ") for line in self._lines)
        return DriverEndedError(f"the driver has ended with {self._process.poll()}: {said}")
