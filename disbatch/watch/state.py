"""The state of a run as those see it who look at it from outside.

Pure: what the driver posts as JSON (`driver.snapshot`) becomes records, and nothing of it is trusted to be there.
Times are seconds since the epoch.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from disbatch.errors import DisbatchError
from disbatch.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKING, FINISHING, DRAINING, STOPPING, ENDED = "working", "finishing", "draining", "stopping", "ended"
"""Phases of a run."""

DESERTED = "deserted"
"""What those make of its last state who find that its driver is gone without a word."""

PHASES = {
    WORKING: "running",
    FINISHING: "all tasks have ended, hosts are finishing",
    DRAINING: "draining: what runs is to end, nothing more starts",
    STOPPING: "being cut short",
    ENDED: "ended",
    DESERTED: "its driver is gone",
}
"""What a run does in each of them, in words."""

_CUT_SHORT = (DRAINING, STOPPING, ENDED, DESERTED)
"""Phases in which no task is started any more, although some may be left."""

EXPECTED, RUNNING, LEAVING, GONE = "expected", "running", "stopping", "stopped"
"""What an engine may be."""

CUT, LEFT, ABSENT = "cut off", "gone", "absent"
_WORDS = {EXPECTED: "expected", RUNNING: "running", LEAVING: "leaving"}
"""How people are told that; of those that are no more some were never there."""

AWAY = (ABSENT, LEFT)
"""Words for those that are no more."""

_UNLIKE_A_STATE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What comes of reading something else as if it were one."""


class StateError(DisbatchError):
    """What a driver has posted is no state of a run that this version understands."""


@record
class EngineState:
    """An engine: `active` of its `cylinders` run a task; `came` and `heard` are its first word and its last.

    `cut` while its connection is broken, and it may come back.
    """

    rank: int
    context_rank: int
    node: str
    host: str
    pid: int
    status: str
    cut: bool
    cylinders: int
    active: int
    assigned: int
    finished: int
    failed: int
    came: float | None
    heard: float | None

    @property
    def in_words(self) -> str:
        """What it is, as people are told."""
        if self.status == GONE:
            return ABSENT if self.came is None else LEFT
        return CUT if self.cut else _WORDS.get(self.status, self.status)


@record
class ContextState:
    """A context, until it is `gone`; `task_limit` is 0 where there is none."""

    rank: int
    label: str
    system: str
    host: str
    pid: int
    gone: bool
    engines: tuple[int, ...]
    assigned: int
    task_limit: int


@record
class RunState:
    """A run at a `time`.

    Of its tasks `active` run and `waiting` are read and wait, none where it is cut short; `total` is how many there are
    in all, None where nobody knows, an estimate unless `total_is_exact`. Those that earlier runs did count as
    `skipped`. `lost` are attempts that ended with their engine, `rerun` all that were not the last of their task.
    `seconds_offered` are those that cylinders were there, `seconds_taken` those that tasks took of them.
    """

    job: str
    version: str
    host: str
    started: float
    time: float
    phase: str
    list_ended: bool
    exit_status: int
    barriers: int
    cylinders: int
    active: int
    waiting: int
    total: int | None
    total_is_exact: bool
    finished: int
    failed: int
    failed_earlier: int
    skipped: int
    interrupted: int
    lost: int
    rerun: int
    seconds_offered: float
    seconds_taken: float
    contexts: tuple[ContextState, ...]
    engines: tuple[EngineState, ...]

    @property
    def ended(self) -> int:
        """Tasks that need nothing more, those of earlier runs too."""
        return self.finished + self.skipped

    @property
    def tasks_left(self) -> int | None:
        """How many tasks are still to end; None if nobody knows, or if they will not be run."""
        if self.total is None or self.phase != WORKING:
            return None
        return max(0, self.total - self.ended - self.interrupted)

    @property
    def yet_to_start(self) -> int:
        """How many tasks wait, those that are not read yet too, unless nobody knows how many they are.

        0 in a run that is cut short.
        """
        if self.total is None or self.list_ended or self.phase in _CUT_SHORT:
            return self.waiting
        return max(0, self.total - self.ended - self.active - self.interrupted)

    @property
    def failed_now(self) -> int:
        """Commands that failed in this run."""
        return self.failed - self.failed_earlier


@record
class RunningTask:
    """A task that runs, for the `attempt`th time, on the engine of that rank, about `since` then.

    `line` and `repeat` say where it comes from; `repeat` is -1 for a line of its own. The command may be cut short.
    """

    task_id: int
    line: int
    repeat: int
    attempt: int
    engine: int
    since: float
    command: str


def parse_state(text: bytes) -> RunState:
    """State that a driver has posted; raises `StateError` for anything else."""
    return read_state(_object(text))


def read_state(found: Mapping[str, Any]) -> RunState:
    """State that a driver has posted, out of its JSON; raises `StateError`."""
    try:
        return _run(found)
    except _UNLIKE_A_STATE as error:
        raise StateError("the state of the run is not of this version of disbatch") from error


def parse_running(text: bytes) -> tuple[tuple[RunningTask, ...], int]:
    """Tasks that run, those that run for longest first, and how many more do; raises `StateError`."""
    found = _object(text)
    try:
        tasks = tuple(
            RunningTask(
                int(task["task"]),
                int(task["line"]),
                int(task["repeat"]),
                int(task["attempt"]),
                int(task["engine"]),
                float(task["since"]),
                str(task["command"]),
            )
            for task in found["tasks"]
        )
        return tasks, int(found["more"])
    except _UNLIKE_A_STATE as error:
        raise StateError("the list of what runs is not of this version of disbatch") from error


def _object(text: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise StateError("the state of the run is no JSON") from error
    if not isinstance(found, dict):
        raise StateError("the state of the run is no JSON object")
    return cast("Mapping[str, Any]", found)


def _run(found: Mapping[str, Any]) -> RunState:
    total = found["total"]
    return RunState(
        job=str(found["job"]),
        version=str(found["version"]),
        host=str(found["host"]),
        started=float(found["started"]),
        time=float(found["time"]),
        phase=str(found["phase"]),
        list_ended=found["more"] != "More tasks.",
        exit_status=int(found["currentReturnCode"]),
        barriers=int(found["barriers"]),
        cylinders=int(found["cylinders"]),
        active=int(found["activeCylinders"]),
        waiting=int(found["waiting"]),
        total=None if total is None else int(total),
        total_is_exact=bool(found["total_is_exact"]),
        finished=int(found["finished"]),
        failed=int(found["failed"]),
        failed_earlier=int(found["failed_earlier"]),
        skipped=int(found["skipped"]),
        interrupted=int(found["interrupted"]),
        lost=int(found["lost"]),
        rerun=int(found["rerun"]),
        seconds_offered=float(found["seconds_offered"]),
        seconds_taken=float(found["seconds_taken"]),
        contexts=tuple(map(_context, found["contexts"].values())),
        engines=tuple(map(_engine, found["engines"].values())),
    )


def _context(found: Mapping[str, Any]) -> ContextState:
    return ContextState(
        rank=int(found["rank"]),
        label=str(found["label"]),
        system=str(found["sysid"]),
        host=str(found["host"]),
        pid=int(found["pid"]),
        gone=not found["active"],
        engines=tuple(map(int, found["engines"])),
        assigned=int(found["assigned"]),
        task_limit=int(found["task_limit"]),
    )


def _engine(found: Mapping[str, Any]) -> EngineState:
    return EngineState(
        rank=int(found["rank"]),
        context_rank=int(found["cRank"]),
        node=str(found["node"]),
        host=str(found["hostname"]),
        pid=int(found["pid"]),
        status=str(found["status"]),
        cut=bool(found["cut"]),
        cylinders=int(found["cylinders"]),
        active=int(found["active"]),
        assigned=int(found["assigned"]),
        finished=int(found["finished"]),
        failed=int(found["failed"]),
        came=_time(found["start"]),
        heard=_time(found["last"]),
    )


def _time(found: Any) -> float | None:  # noqa: ANN401 - JSON has any
    return None if found is None else float(found)
