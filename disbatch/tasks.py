"""The nouns of a run: what a task file asks for, and how one attempt at a task ended.

Pure. It must not know where tasks come from, who runs them or how any of this is written down.
"""

from __future__ import annotations

from enum import Enum

from disbatch.records import record
from disbatch.snippet import OutputMeter

NO_REPEAT = -1
"""Repeat index of a task that does not come from a REPEAT directive."""


@record
class Task:
    """One bash command to run once.

    `task_id` counts from 0 in file order, `stream_index` is the 1-based number of its line, `command` holds prefix
    and suffix already. `attempt` is 1 until it may have begun and was then lost or interrupted.
    """

    task_id: int
    stream_index: int
    repeat_index: int
    command: bytes
    attempt: int = 1


@record
class Barrier:
    """No later task starts before all earlier ones have ended; with `check`, a failed one among them ends the run.

    `key` is the key of the key-value store under which its passing is announced, None without one. `text` is the line.
    """

    task_id: int
    stream_index: int
    check: bool
    key: bytes | None
    text: bytes


class Phase(str, Enum):
    """When an engine runs a per-engine command."""

    START = "START"
    STOP = "STOP"


@record
class PerEngineTask:
    """A command that every engine runs once when it comes or when it leaves; ids count from 0 in each phase."""

    phase: Phase
    task_id: int
    stream_index: int
    command: bytes


NO_PROCESS = -1
"""Pid in the outcome of a task of which no process is known."""

LOST = -9
"""Return code of a task that was lost with what ran it: as though SIGKILL had ended it."""


@record
class Outcome:
    """How one attempt at a task ended, as its engine measured it.

    `pid` is bash's, -1 when it could not be started. `return_code` is the exit code, -n when signal n ended it.
    `start` is in seconds since the epoch; `elapsed` (s) comes from a monotonic clock, so no jump of the clock shows in
    it. `out_bytes` and `err_bytes` count what was written; a snippet is what `snippet` kept of it.
    `cpu_seconds` and `peak_memory` (bytes) are bash's and its waited-for children's, as wait4(2) tells them.
    `interrupted`: disbatch sent it a signal before it had ended.
    """

    pid: int
    return_code: int
    start: float
    elapsed: float
    out_bytes: int
    out_snippet: bytes
    err_bytes: int
    err_snippet: bytes
    cpu_seconds: float
    peak_memory: int
    interrupted: bool

    @property
    def failed(self) -> bool:
        """Whether it counts as failed: a return code other than 0."""
        return self.return_code != 0


def lost_outcome(
    reason: str, start: float, elapsed: float = 0.0, *, return_code: int = LOST, interrupted: bool = False
) -> Outcome:
    """Outcome of a task of which no more is known than that, with the reason as its error output; times as above."""
    err = OutputMeter()
    err.feed(f"{reason}\n".encode(errors="surrogateescape"))
    return Outcome(
        pid=NO_PROCESS,
        return_code=return_code,
        start=start,
        elapsed=elapsed,
        out_bytes=0,
        out_snippet=b"",
        err_bytes=err.count,
        err_snippet=err.snippet,
        cpu_seconds=0.0,
        peak_memory=0,
        interrupted=interrupted,
    )
