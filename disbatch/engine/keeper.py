"""The process behind an engine, which sees to it that nothing of the engine outlives it.

An engine that is killed cannot end its tasks. So the process that was started for it forks first: the child becomes
the engine, the parent - the keeper - does nothing but wait for it and then kill every process that it left behind.
Both are subreapers: what a task leaves behind, even in a session of its own, becomes the engine's child, and the
keeper's when the engine has gone. The engine in turn ends when its keeper does. Each has a process group of its own, so
that a KILL of the group that was started leaves an engine that can end its tasks. The keeper also sees to it that the
engine's lease is kept where that is stopped itself, and cannot. It must not know what an engine does.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import time
from math import inf

from disbatch.eventloop import uptime
from disbatch.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""Requests of prctl(2), from linux/prctl.h."""

AT_ONCE = signal.SIGQUIT
"""Signal to the keeper that ends everything at once: the engine is killed, and then whatever it leaves behind."""

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""Signals to the keeper that are meant for the engine."""

PATIENCE = 5.0
"""Seconds that killing may take."""

LOOK_PERIOD = 10.0
"""Seconds between two looks at the lease, at most: timers stand still while this machine sleeps, and it does not."""

PAUSE = 0.005
"""Seconds given to killed processes to end before the next look."""


LEASE_CHANGED = signal.SIGALRM
"""Signal to the keeper, by its engine and by its own timer: it is time to look at the lease."""


WATCHED = (*FORWARDED, AT_ONCE, LEASE_CHANGED, signal.SIGCHLD)
"""Signals that a keeper waits for."""


class Lease:
    """When an engine has to have ended by: a number in memory that it shares with its keeper, which makes this."""

    def __init__(self) -> None:
        self._shared = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")
        self._shared[0] = inf
        self._keeper = os.getpid()

    @property
    def end(self) -> float:
        """That time, of `uptime` (s)."""
        return self._shared[0]

    def renew(self, end: float) -> None:
        """Have the keeper kill this process and all below it at that time, or at another if this is called again."""
        is_first = self.end == inf
        self._shared[0] = end
        if is_first and os.getppid() == self._keeper:  # or it would be for whoever has that place when it has gone
            os.kill(self._keeper, LEASE_CHANGED)


def fork_from_keeper(on_killed: Callable[[], None] = lambda: None) -> Lease:
    """Return in a new child process; the calling process becomes its keeper and never returns.

    The keeper calls `on_killed` when a signal has ended the child and nothing of it runs any more.
    """
    lease = Lease()
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    keeper = os.getpid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or, ignored by whoever started this, it would not come
    # From the beginning: a signal must neither be lost nor end the keeper alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    child = os.fork()
    if child:
        _keep(child, lease, on_killed)
    os.setpgid(0, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if os.getppid() != keeper:
        os._exit(1)
    return lease


def _keep(engine: int, lease: Lease, on_killed: Callable[[], None]) -> NoReturn:
    status = None
    while status is None:
        # Blocked, and taken one by one: one that came just before a wait that it was to end would be lost on a handler.
        number = signal.sigwait(WATCHED)
        if number == signal.SIGCHLD:
            status = _status_of(engine)
        elif number == LEASE_CHANGED:
            _look_at(lease, engine)
        else:
            _forward(engine, signal.SIGKILL if number == AT_ONCE else number)
    # What comes from now on stays blocked: the engine's pid may be another's.
    kill_descendants()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        with contextlib.suppress(Exception):  # whoever started this is told by its exit status, in any case
            on_killed()
    os._exit(code if code >= 0 else 128 - code)


def _status_of(engine: int) -> int | None:
    """What the engine has ended with, if it has; all children that have ended are reaped up to it."""
    pid = -1
    while pid:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == engine:
            return status
    return None


def _look_at(lease: Lease, engine: int) -> None:
    left = lease.end - uptime()
    if left <= 0:
        _forward(engine, signal.SIGKILL)
    elif left < inf:
        signal.setitimer(signal.ITIMER_REAL, min(left, LOOK_PERIOD))


def _forward(engine: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(engine, number)


def kill_descendants() -> None:
    """Kill every process below this one, also those that are begun meanwhile.

    Gives up after `PATIENCE` on what it may not kill: a command run as another user, a process stuck in the kernel.
    """
    deadline = time.monotonic() + PATIENCE
    while _reap() and time.monotonic() < deadline:
        for process in descendants():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)
        time.sleep(PAUSE)


def _reap() -> bool:
    """Whether there are children still, those that have ended having been reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


@record
class Process:
    """A process: its pid, that of its parent, its process group and its session."""

    pid: int
    parent: int
    group: int
    session: int


def descendants() -> list[Process]:
    """All processes below this one; children that have ended and are not reaped yet count too.

    What is below one of those when it is looked at, and is its parent's when that has ended, is not passed over.
    """
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []  # as is known without a look at every process of this machine
    below: dict[int, list[Process]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (process := _process(name)) is not None:
            below.setdefault(process.parent, []).append(process)
    found = below.get(os.getpid(), [])
    for process in found:  # which grows meanwhile
        found += below.get(process.pid, ())
    return found


def parent_of(pid: int) -> int:
    """Pid of the parent of a process that runs; 0 if there is none, or no such process."""
    process = _process(str(pid), ended=False)
    return 0 if process is None else process.parent


def _process(pid: str, *, ended: bool = True) -> Process | None:
    """What is known of a process; unless `ended` is set none of one that has ended and waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The second field is the program's name in brackets, which may hold anything, brackets too.
            state, parent, group, session = stat.read().rpartition(b")")[2].split()[:4]
    except (OSError, ValueError):
        return None  # it has ended since it was listed
    return Process(int(pid), int(parent), int(group), int(session)) if ended or state != b"Z" else None
