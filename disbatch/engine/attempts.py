"""The commands that run in this engine, each from its start to the outcome that is reported.

A thin shell around processes and pipes. It must not know tasks, cylinders or the driver: whoever starts a command
gives an owner's token with it, and gets it back when bash has ended and again with the outcome.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from functools import partial
from math import inf

from disbatch.engine.keeper import descendants
from disbatch.eventloop import READ
from disbatch.snippet import OutputMeter
from disbatch.tasks import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    from disbatch.engine.launchers import Launcher
    from disbatch.eventloop import EventLoop, Timer

    Owner: TypeAlias = Any

PIPE_PATIENCE = 5.0
"""Seconds that an outcome waits for background processes to close the pipes, after bash has ended."""

NOT_STARTED = -1
"""Pid in the outcome of a command that could not be started."""

NO_ERRNO = 200
"""Return code of a command that could not be started for a reason that has no errno."""

WATCH_AFTER = 0.005
"""Seconds until the pipes of a new command are watched: those that end before need not be, which costs a tenth less."""

LOOK_PERIOD = 0.1
"""Seconds between two looks at what lives of all that is to end."""

LOOK_AFTER_END = 0.005
"""Seconds until the next look when something has ended; others may follow it."""

LOOK_SHARE = 0.1
"""Share of the time that looks may take, where a machine has processes by the thousand."""

KILLS = 10
"""How often the same processes are killed until it is believed that they cannot be: for about a second."""

MOST_KILLS = 200
"""How often any are, where others have taken their place each time."""

_ELSEWHERE = 0
"""What stands for a session, or process group, of another namespace."""

_CHUNK = 1 << 16  # also what a pipe holds, where nobody has asked for more
_PIPE_CAPACITY = 1 << 20  # the most that a process without privileges can give a pipe on Linux
_KIBIBYTE = 1024  # what Linux counts ru_maxrss in


class _Attempt:
    """A command under way; `pipes` are those that somebody may write to still, each with what is metered of it."""

    __slots__ = (
        "cpu_seconds",
        "elapsed",
        "err",
        "interrupted",
        "out",
        "owner",
        "patience",
        "peak_memory",
        "pid",
        "pipes",
        "return_code",
        "start",
        "started",
        "watched",
    )

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.out = OutputMeter()
        self.err = OutputMeter()
        self.pipes: dict[int, OutputMeter] = {}
        self.pid = NOT_STARTED
        self.start = time.time()
        self.started = time.monotonic()
        self.interrupted = False
        self.watched = False
        self.return_code: int | None = None
        self.elapsed = self.cpu_seconds = 0.0
        self.peak_memory = 0
        self.patience: Timer | None = None

    def outcome(self) -> Outcome:
        """What is reported of it, as far as is known now."""
        return Outcome(
            pid=self.pid,
            return_code=NO_ERRNO if self.return_code is None else self.return_code,
            start=self.start,
            elapsed=self.elapsed,
            out_bytes=self.out.count,
            out_snippet=self.out.snippet,
            err_bytes=self.err.count,
            err_snippet=self.err.snippet,
            cpu_seconds=self.cpu_seconds,
            peak_memory=self.peak_memory,
            interrupted=self.interrupted,
        )


class _Ending:
    """The end of all that runs, and what is to be done when that is over.

    Process groups get a TERM unless they are `asked` already, and a KILL from `kill_at` (monotonic, s) on; then those
    that live are `left`, which were killed `in_vain` so many times, of `kills` in all.
    """

    __slots__ = ("asked", "ended", "in_vain", "kill_at", "kills", "left", "next_look", "then", "waiting")

    def __init__(self) -> None:
        self.kill_at = inf
        self.asked: set[int] = set()
        self.left: set[int] = set()
        self.kills = self.in_vain = 0
        self.next_look: Timer | None = None
        self.ended: list[_Attempt] = []
        """Commands that are interrupted and whose bash has ended, or never began."""
        self.then: list[Callable[[], None]] = []
        self.waiting: list[tuple[Owner, bytes, Mapping[bytes, bytes]]] = []
        """Commands to be started."""


class Attempts:
    """Starts commands, meters their output, reaps and ends them.

    `on_end(owner)` is called when bash has ended, `on_outcome(owner, outcome)` when there is no more to know: at once
    unless processes that bash left behind hold the pipes open, and after `PIPE_PATIENCE` even then. Of a command that
    was interrupted both are called when nothing that it began runs any more, wherever in the process tree: another is
    about to run it again.
    """

    def __init__(
        self,
        loop: EventLoop,
        launch: Launcher,
        on_end: Callable[[Owner], None],
        on_outcome: Callable[[Owner, Outcome], None],
    ) -> None:
        self._loop = loop
        self._launch = launch
        self._on_end = on_end
        self._on_outcome = on_outcome
        self._running: dict[int, _Attempt] = {}
        self._unreported: set[_Attempt] = set()
        self._ending: _Ending | None = None
        self._spared = {os.getsid(0), _ELSEWHERE}
        """Sessions that nothing is ended of: that of this process, where no command runs, and others for a reason."""
        self._young: list[_Attempt] = []
        """Commands whose pipes are not watched yet, and some that have ended."""
        self._prints_much = False
        """Whether the command that ended last had printed more than its pipes hold: the next would have to wait."""

    def start(self, owner: Owner, command: bytes, environment: Mapping[bytes, bytes]) -> None:
        """Start a command; one that cannot be started ends in the next turn, with the reason as its error output.

        It waits for the end of what ran before, if that is being ended.
        """
        if self._ending is not None:
            self._ending.waiting.append((owner, command, environment))
            return
        attempt = _Attempt(owner)
        try:
            self._spawn(attempt, command, environment)
        except (OSError, ValueError) as error:
            errno = error.errno if isinstance(error, OSError) else None
            attempt.return_code = errno or NO_ERRNO
            reason = os.strerror(errno) if errno else str(error)
            attempt.err.feed(f"disbatch could not start this task: {reason}\n".encode())
            # In a turn of its own, as every end is: the owner may answer by starting the next one.
            self._loop.after(0, lambda: self._ended(attempt))
            return
        self._running[attempt.pid] = attempt
        self._spared.discard(attempt.pid)  # the number may have been that of one who is no more

    def _spawn(self, attempt: _Attempt, command: bytes, environment: Mapping[bytes, bytes]) -> None:
        descriptors: list[int] = []
        try:
            descriptors += os.pipe()
            descriptors += os.pipe()
            out_read, out_write, err_read, err_write = descriptors
            attempt.pid = self._launch(command, environment, out_write, err_write)
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        os.close(out_write)
        os.close(err_write)
        os.set_blocking(out_read, False)
        os.set_blocking(err_read, False)
        attempt.pipes = {out_read: attempt.out, err_read: attempt.err}
        if self._prints_much:
            self._watch(attempt)
            return
        if not self._young:
            self._loop.after(WATCH_AFTER, self._watch_young)
        self._young.append(attempt)

    def _watch_young(self) -> None:
        for attempt in self._young:
            self._watch(attempt)
        self._young.clear()

    def _watch(self, attempt: _Attempt) -> None:
        """Read what comes through the pipes of a command as it comes, if there are any left."""
        if not attempt.watched:
            attempt.watched = True
            for descriptor in attempt.pipes:
                self._loop.watch(descriptor, READ, partial(self._read, attempt, descriptor))

    def _read(self, attempt: _Attempt, descriptor: int, _mask: int = READ) -> bool:
        """Whether there was something to read; the end of the pipe closes it, and may complete the outcome.

        After the report nobody asks for the figures any more, but what holds the pipe must not block or die on it.
        """
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        if data:
            attempt.pipes[descriptor].feed(data)
            return True
        del attempt.pipes[descriptor]
        if attempt.watched:
            self._loop.unwatch(descriptor)
        os.close(descriptor)
        if not attempt.pipes:
            self._report(attempt)
        return False

    def _drain(self, attempt: _Attempt) -> None:
        """Read what bash has left in its pipes, and no more than fits into them: others may go on writing."""
        for descriptor in list(attempt.pipes):
            for _ in range(_PIPE_CAPACITY // _CHUNK):
                if not self._read(attempt, descriptor):
                    break

    def reap(self) -> None:
        """Take note of every child that has ended."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if self._ending is not None:
                self._look_after(self._ending, LOOK_AFTER_END)
            attempt = self._running.pop(pid, None)
            if attempt is None:
                continue  # left behind by a task, whose parent has ended; the engine is its subreaper
            attempt.elapsed = time.monotonic() - attempt.started
            attempt.return_code = os.waitstatus_to_exitcode(status)
            attempt.cpu_seconds = usage.ru_utime + usage.ru_stime
            attempt.peak_memory = usage.ru_maxrss * _KIBIBYTE
            self._drain(attempt)
            self._prints_much = max(attempt.out.count, attempt.err.count) > _CHUNK
            if attempt.interrupted and self._ending is not None:
                self._ending.ended.append(attempt)
            else:
                self._ended(attempt)

    def _ended(self, attempt: _Attempt) -> None:
        self._unreported.add(attempt)
        self._on_end(attempt.owner)
        if attempt.pipes:
            self._watch(attempt)
            attempt.patience = self._loop.after(PIPE_PATIENCE, lambda: self._report(attempt))
        else:
            self._report(attempt)

    def _report(self, attempt: _Attempt) -> None:
        if attempt in self._unreported:
            self._unreported.remove(attempt)
            if attempt.patience is not None:
                attempt.patience.cancel()
            self._on_outcome(attempt.owner, attempt.outcome())

    # Ending.

    @property
    def are_running(self) -> bool:
        """Whether any command's bash runs."""
        return bool(self._running)

    def spare_what_is_left(self) -> None:
        """Let what commands have left behind up to now live, as others may need it, until `end_lingering`."""
        for process in descendants():
            if process.pid not in self._running:
                self._spared |= {process.session, process.pid}  # which may be about to begin a session of its own

    def end_running(self, grace: float) -> None:
        """Ask all that runs to end, and kill what is left of it after `grace` seconds; 0 or less kills at once.

        What commands have left behind ends with it, be it in a session of its own, unless it is spared.
        """
        for attempt in self._running.values():
            attempt.interrupted = attempt.interrupted or not _has_ended(attempt.pid)
        ending = self._ending = self._ending or _Ending()
        ending.kill_at = min(ending.kill_at, time.monotonic() + max(0.0, grace))
        for owner, _, _ in ending.waiting:
            attempt = _Attempt(owner)
            attempt.interrupted = True
            attempt.return_code = -signal.SIGTERM
            ending.ended.append(attempt)
        ending.waiting.clear()
        self._look(ending)

    def end_lingering(self, grace: float, then: Callable[[], None]) -> None:
        """End all that commands have left behind, as `end_running` does, the spared too, and then call `then`.

        Outcomes that still waited for pipes are reported before.
        """
        if self._ending is not None:
            self._ending.then.append(partial(self.end_lingering, grace, then))
            return
        self._spared = {os.getsid(0), _ELSEWHERE}
        self._ending = _Ending()
        self._ending.then.append(partial(self._report_all, then))
        self.end_running(grace)

    def _report_all(self, then: Callable[[], None]) -> None:
        for attempt in list(self._unreported):
            self._drain(attempt)
            self._report(attempt)
        then()

    def _look(self, ending: _Ending) -> None:
        """Signal what is to end and lives, and look again; or go on, if nothing does, or it cannot be ended."""
        self._look_no_more(ending)
        now = time.monotonic()
        groups = self._groups_to_end()
        if not groups or ending.in_vain >= KILLS or ending.kills >= MOST_KILLS:
            self._go_on(ending)
            return
        pause = max(LOOK_PERIOD, (time.monotonic() - now) / LOOK_SHARE)
        if now < ending.kill_at:
            _signal_groups(groups - ending.asked, signal.SIGTERM)
            ending.asked |= groups
            pause = min(pause, ending.kill_at - now)
        else:
            _signal_groups(groups, signal.SIGKILL)
            ending.kills += 1
            ending.in_vain = ending.in_vain + 1 if groups == ending.left else 0
            ending.left = groups
        self._look_after(ending, pause)

    def _look_after(self, ending: _Ending, seconds: float) -> None:
        """Look again so many seconds from now, or earlier where that is due anyway."""
        if ending.next_look is None or ending.next_look.when > self._loop.now() + seconds:
            self._look_no_more(ending)
            ending.next_look = self._loop.after(seconds, partial(self._look, ending))

    @staticmethod
    def _look_no_more(ending: _Ending) -> None:
        if ending.next_look is not None:
            ending.next_look.cancel()
            ending.next_look = None

    def _go_on(self, ending: _Ending) -> None:
        self._ending = None
        for attempt in ending.ended:
            self._drain(attempt)
            self._ended(attempt)
        for command in ending.waiting:
            self.start(*command)
        for step in ending.then:
            step()

    def _groups_to_end(self) -> set[int]:
        """Process groups of what runs, and of all below that or left behind by what has run."""
        below = {process.group for process in descendants() if process.session not in self._spared}
        return below | self._running.keys()


def _has_ended(pid: int) -> bool:
    """Whether a child has ended that is still to be reaped."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _signal_groups(groups: set[int], number: signal.Signals) -> None:
    for group in groups:
        # What a command runs as another user may not be signalled.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
            os.killpg(group, signal.SIGCONT)  # a stopped process gets to see its TERM only when it goes on
