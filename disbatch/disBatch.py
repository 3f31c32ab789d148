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
from collections import OrderedDict, deque
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

from disbatch.errors import DisbatchError
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.kvsstcp.client import KVSClient
from disbatch.kvsstcp.endpoint import KVSError, address_text
from disbatch.kvsstcp.thread import KVSServerThread
from disbatch.kvsstcp.wire import JSON
from disbatch.launching import disbatch_command
from disbatch.messages import STATE_KEY
from disbatch.options import RESUME_ADVICE, RETRY_ADVICE
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

WINDOW = 1000
"""Tasks that `map` has under way unless it is told otherwise: more than most runs have places for, few for a store."""

LAST_OF_SIGN_IN = b"task source task key"
"""Key of that value which a driver takes last of the four with which a program signs in."""


class DriverEndedError(DisbatchError):
    """The driver has ended before it had done what this program waits for."""


class DisBatcher:
    """A driver that runs what this program submits.

    `tasksname` names the source of the tasks, `args` are options of `disbatch`. With `kvsserver` ("HOST:PORT" of a
    store behind which a driver waits that was started with --taskserver) none is started, and none ended; the secret of
    the store is expected in KVSSTCP_SECRET. Task ids count from 0 in the order of submission; barriers have ids too.

    Each report is given once, by `map` for the tasks of its lines, for others by whichever call comes first; but
    `syncTasks` gives them as often as it is asked.

    Used as a context manager it waits for everything that was submitted, and kills the driver when the block raises,
    or the waiting does. Raises `DriverEndedError` from whatever waits for a driver that has ended early; of one that
    was not started here only an end of which it could tell is noticed. It is for one thread at a time.
    """

    def __init__(self, tasksname: str = "DisBatcher", args: Sequence[str] = (), kvsserver: str | None = None) -> None:
        if isinstance(args, str):
            raise TypeError(f'args is a list of options, as ["-s", "localhost:4"], and not the text {args!r}')
        self._reports: dict[int, Report] = {}
        self._unread: OrderedDict[int, Report] = OrderedDict()
        self._running: set[int] = set()
        self._mapped: dict[int, deque[Report]] = {}  # of tasks under way: where the `map` looks that submitted them
        self._ids = TaskParser(submissions=True)
        self._is_done = False
        # A store may be shared with others of the kind.
        own = f"{tasksname} {os.uname().nodename} {os.getpid()} {id(self)}"
        self._task_key, self._result_key, self._sentinel = f"{own} task", f"{own} result", f"{own} done"
        self._driver: _Driver | _OtherDriver
        with ExitStack() as undo:
            if kvsserver is None:
                server = undo.enter_context(KVSServerThread())
                assert server.secret is not None  # noqa: S101 - it makes one
                secret = server.secret.decode()
                self._store = undo.enter_context(KVSClient(*server.cinfo, secret=secret))
                self._driver = _Driver([*args, "--taskserver", address_text(*server.cinfo)], secret)
            else:
                self._store = undo.enter_context(KVSClient(kvsserver))
                self._driver = _OtherDriver(self._store.clone())
            undo.callback(self._driver.end)  # before its store is closed
            for key, value in (
                ("task source name", tasksname),
                ("task source done task", self._sentinel),
                ("task source result key", self._result_key),
                (LAST_OF_SIGN_IN, self._task_key),
            ):
                self._store.put(key, value, False)
            self._resources = undo.pop_all()

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
        ids = self._submit(line)
        self._running.update(ids)
        return ids

    def wait_one_task(self) -> Report:
        """Report of the next task that has ended, in the order in which they do."""
        while not self._unread:
            if not self._running:
                raise DisbatchError("no task is under way that could be waited for")
            self._collect()
        return self._unread.popitem(last=False)[1]

    def syncTasks(self, ids: Iterable[int]) -> dict[int, Report]:  # noqa: N802 - documented call
        """Reports of these tasks by id, when all of them have ended.

        Raises ValueError for an id that `submit` has not given.
        """
        wanted = list(ids)
        for task_id in wanted:
            if task_id not in self._running and task_id not in self._reports:
                raise ValueError(f"{task_id!r} is the id of no task that submit() has made")
        for task_id in wanted:
            while task_id not in self._reports:
                self._collect()
        for task_id in wanted:
            self._unread.pop(task_id, None)
        return {task_id: self._reports[task_id] for task_id in wanted}

    def results(self) -> Iterator[Report]:
        """Reports as tasks end, until every task that was submitted so far or meanwhile has been reported."""
        while self._unread or self._running:
            yield self.wait_one_task()

    def map(self, lines: Iterable[str], window: int = WINDOW) -> Iterator[Report]:
        """Submit lines, and give the reports of their tasks, and of no others, as they come.

        A line is taken as soon as fewer than `window` tasks are under way, reports that were not taken yet included;
        there may be any number of lines. Nothing is submitted before the first report is asked for. Tasks of a map
        that is left early go on.
        """
        if window < 1:
            raise ValueError(f"window is a number of tasks from 1, not {window}")
        came: deque[Report] = deque()
        owed = 0
        for line in lines:
            ids = self._submit(line)
            self._mapped.update(dict.fromkeys(ids, came))
            owed += len(ids)
            while came or owed >= window or self._collect(wait=False):
                if came:
                    owed -= 1
                    yield came.popleft()
                elif owed >= window:
                    self._collect()
        for _ in range(owed):
            while not came:
                self._collect()
            yield came.popleft()

    def done(self) -> None:
        """Submit nothing more, and wait for the end of what was; raises `DriverEndedError` if the driver failed.

        Reports can be asked for afterwards too, if they were not before.
        """
        if self._is_done:
            return
        self._is_done = True
        with self._resources:
            self._store.put(self._task_key, self._sentinel, False)
            while self._running or self._mapped:
                self._collect()
            self._driver.wait()

    def kill(self) -> None:
        """End the driver, and what it runs, as Ctrl-C does."""
        self._is_done = True
        self._resources.close()

    def _submit(self, line: str) -> list[int]:
        if self._is_done:
            raise DisbatchError("nothing can be submitted after done()")
        data = line.encode(errors="surrogateescape")
        self._ids.feed(data)
        ids = []
        while items := self._ids.take(1000):
            ids += [item.task_id for item in items if isinstance(item, Task)]
        self._store.put(self._task_key, data, False)
        return ids

    def _collect(self, *, wait: bool = True) -> bool:
        """Take in the next report; without `wait` only one that is there. Whether there was one."""
        try:
            task_id = self._next_ended(wait=wait)
            if task_id is None:
                return False
            report: Report = json.loads(cast("bytes", self._store.get(f"{self._result_key} {task_id}", False)))
        except KVSError as error:
            raise DriverEndedError(str(error)) from error
        if task_id in self._mapped:
            self._mapped.pop(task_id).append(report)
        else:
            self._running.discard(task_id)
            self._reports[task_id] = self._unread[task_id] = report
        return True

    def _next_ended(self, *, wait: bool) -> int | None:
        patience = LOOK_AFTER if wait else 0.0
        has_ended = False
        while True:
            try:
                return int(cast("bytes", self._store.get(f"{self._result_key} done tasks", False, patience)))
            except TimeoutError:
                had_ended, has_ended = has_ended, self._driver.has_ended(patience)
            if had_ended and has_ended:
                raise self._driver.failure()
            if not wait and not has_ended:
                return None
            patience = LOOK_AFTER  # what it put last may be on its way


class _Driver:
    """A driver process; what it prints goes to this program's standard error.

    It has a session of its own: of a Ctrl-C on the terminal it is told by this program, once.
    """

    def __init__(self, arguments: Sequence[str], secret: str) -> None:
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._process = subprocess.Popen(
            [*disbatch_command(), *arguments],
            env={**os.environ, SECRET_VARIABLE: secret},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._pass_on, name="disbatch", daemon=True)
        self._reader.start()

    def _pass_on(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - asked for above
        with self._process.stderr as lines:
            for line in lines:
                if line.startswith((f"disbatch: {RESUME_ADVICE}", f"disbatch: {RETRY_ADVICE}")):
                    continue  # nobody can follow it: the store that the command names ends with this program
                self._lines.append(line.strip())
                if sys.stderr is not None:
                    sys.stderr.write(line)

    def has_ended(self, _patience: float) -> bool:
        """Whether it has."""
        return self._process.poll() is not None

    def wait(self) -> None:
        """Wait for its end; raises `DriverEndedError` if that is none in order."""
        if self._process.wait():
            raise self.failure()

    def end(self) -> None:
        """End it as Ctrl-C does, if it runs; one that comes meanwhile is passed on: a second signal kills at once."""
        try:
            self._process.terminate()
            self._process.wait()
        except KeyboardInterrupt:
            self._process.terminate()
            self._process.wait()
            raise
        finally:
            self._reader.join()

    def failure(self) -> DriverEndedError:
        self._reader.join(LOOK_AFTER)
        said = "; ".join(line.removeprefix("disbatch: ") for line in self._lines)
        return DriverEndedError(f"the driver has ended with {self._process.poll()}: {said}")


class _OtherDriver:
    """The driver that waits behind a store; all that is known of it is the state that it posts there."""

    def __init__(self, store: KVSClient) -> None:
        self._store = store
        self._exit_status = 0

    def has_ended(self, patience: float) -> bool:
        """Whether it has told so; a look takes `patience` (s) at most, and 0 is too little for any."""
        if not patience:
            return False
        try:
            tag, value = cast("tuple[bytes, bytes]", self._store.view(STATE_KEY, None, patience))
        except TimeoutError:
            return False  # there was none yet
        state = json.loads(value) if tag == JSON else {}
        if state.get("phase") != "ended":
            return False
        self._exit_status = state["currentReturnCode"]
        # As long as that waits there to be taken, the state is one of an earlier run.
        return all(key != LAST_OF_SIGN_IN for key, *_ in self._store.dump()[2])

    def wait(self) -> None:
        """It ends in its own time."""

    def end(self) -> None:
        """It was not started here, and goes on."""
        self._store.close()

    def failure(self) -> DriverEndedError:
        return DriverEndedError(f"the run behind the key-value store has ended with {self._exit_status}")
