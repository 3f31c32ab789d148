"""The process behind an engine, which sees to it that nothing of the engine outlives it.

An engine that is killed cannot end its tasks. So the process that was started for it forks first: the child becomes
the engine, the parent - the keeper - does nothing but wait for it and then kill every process that it left behind.
Both are subreapers: what a task leaves behind, even in a session of its own, becomes the engine's child, and the
keeper's when the engine has gone. The engine in turn ends when its keeper does. Each has a process group of its own, so
that a KILL of the group that was started leaves an engine that can end its tasks. It must not know what an engine does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""Requests of prctl(2), from linux/prctl.h."""

AT_ONCE = signal.SIGQUIT
"""Signal to the keeper that ends everything at once: the engine is killed, and then whatever it leaves behind."""

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals to the keeper that are meant for the engine."""

PATIENCE = 5.0
"""Seconds that killing may take."""

PAUSE = 0.005
"""Seconds given to killed processes to end before the next look."""


def fork_from_keeper() -> None:
    """Return in a new child process; the calling process becomes its keeper and never returns."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    keeper = os.getpid()
    # Blocked until the handlers are in place: a signal in between must neither be lost nor end the keeper alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, (*FORWARDED, AT_ONCE))
    child = os.fork()
    if child:
        _keep(child)
    os.setpgid(0, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if os.getppid() != keeper:
        os._exit(1)


def _keep(engine: int) -> NoReturn:
    for number in FORWARDED:
        signal.signal(number, lambda received, _frame: _forward(engine, received))
    signal.signal(AT_ONCE, lambda *_: _forward(engine, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    status = 0
    while True:
        pid, ended_with = os.wait()
        if pid == engine:
            status = ended_with
            break
    for number in (*FORWARDED, AT_ONCE):
        signal.signal(number, signal.SIG_IGN)  # the engine's pid may be another's by now
    kill_children()
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _forward(engine: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(engine, number)


def kill_children() -> None:
    """Kill every process below this one; orphans of those killed become children, and are killed in their turn.

    Gives up after `PATIENCE` on what it may not kill: a command run as another user, a process stuck in the kernel.
    """
    deadline = time.monotonic() + PATIENCE
    while _reap() and time.monotonic() < deadline:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE)


def _reap() -> bool:
    """Whether there are children still, those that have ended having been reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    """Pids of this process's children, those that have ended and are not reaped yet included."""
    me = os.getpid()
    children = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stat:
                # The second field is the program's name in brackets, which may hold anything, brackets too.
                parent = int(stat.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it has ended since it was listed
        if parent == me:
            children.append(int(name))
    return children
