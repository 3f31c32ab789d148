"""What the controller is told and what it asks for; messages from other processes are events too.

Pure. Events are named in the past tense, commands in the imperative.
"""

from __future__ import annotations

from dataclasses import dataclass

from disbatch.messages import ToContext, ToDriver, ToEngine
from disbatch.taskfile import Complaint
from disbatch.tasks import Barrier, Outcome, PerEngineTask, Task


@dataclass(frozen=True, slots=True)
class SkippedTask:
    """A task that an earlier run completed, and whether it had failed there; its line is in the status file already."""

    task: Task
    line: bytes
    failed: bool


Item = Task | Barrier | PerEngineTask | Complaint | SkippedTask


@dataclass(frozen=True, slots=True)
class Settings:
    """What the controller must know of the user's wishes and of the run."""

    version: str
    job: str
    task_source: str
    directory: bytes
    script: str
    startup_only: bool = False
    exit_code: bool = False
    fail_fast: bool = False


# Events.


@dataclass(frozen=True, slots=True)
class ItemsRead:
    """The next items of the task list; with `ended` there are none behind them."""

    items: tuple[Item, ...]
    ended: bool


@dataclass(frozen=True, slots=True)
class ReadingFailed:
    """The task list cannot be read on; with `is_another` because it is not that of the run that is resumed."""

    reason: str
    is_another: bool = False


@dataclass(frozen=True, slots=True)
class RecordingFailed:
    """The status file cannot be written."""

    reason: str


@dataclass(frozen=True, slots=True)
class EngineLost:
    """The connection to an engine has ended without a goodbye."""

    engine_rank: int


@dataclass(frozen=True, slots=True)
class ContextLost:
    """The connection to a context has ended without a goodbye."""

    token: str


@dataclass(frozen=True, slots=True)
class OwnContextEnded:
    """The context that the driver itself has started has ended; what it printed last."""

    return_code: int
    last_words: str


@dataclass(frozen=True, slots=True)
class SignalCame:
    """Somebody wants the driver to end; `exit_status` is the one that is due then."""

    name: str
    exit_status: int


@dataclass(frozen=True, slots=True)
class TasksCouldBeGivenBack:
    """The tasks of a lost engine have ended by now, wherever it is."""

    engine_rank: int


@dataclass(frozen=True, slots=True)
class PatienceEnded:
    """What has not left by now is not waited for any longer."""


Event = (
    ToDriver
    | ItemsRead
    | ReadingFailed
    | RecordingFailed
    | EngineLost
    | ContextLost
    | OwnContextEnded
    | SignalCame
    | TasksCouldBeGivenBack
    | PatienceEnded
)


# Commands.


@dataclass(frozen=True, slots=True)
class ReadItems:
    """Read at most that many items and tell of them; one event answers it."""

    limit: int


@dataclass(frozen=True, slots=True)
class StartContext:
    """Start the context that the driver's own options describe."""


@dataclass(frozen=True, slots=True)
class SendToContext:
    """Put a message under a context's key."""

    token: str
    message: ToContext


@dataclass(frozen=True, slots=True)
class SendToEngine:
    """Put a message under an engine's key."""

    engine_rank: int
    message: ToEngine


@dataclass(frozen=True, slots=True)
class RecordTask:
    """Write down how a task ended; `abandoned` when the run had given it up, so that a resume runs it again."""

    task: Task
    node: str
    outcome: Outcome
    abandoned: bool


@dataclass(frozen=True, slots=True)
class RecordPerEngineTask:
    """Write down how a START or STOP command ended."""

    task: PerEngineTask
    node: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class RecordBarrier:
    """Write down that a barrier was passed; times are seconds since the epoch."""

    barrier: Barrier
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class AnnounceBarrier:
    """Put the barrier's id under the key that it names."""

    key: bytes
    task_id: int


@dataclass(frozen=True, slots=True)
class TellUser:
    """Print a line on something that is not as it should be to the user's terminal, and log it as an error."""

    text: str


@dataclass(frozen=True, slots=True)
class NoteInLog:
    """Write a line on the course of the run into the log."""

    text: str


@dataclass(frozen=True, slots=True)
class WakeAfter:
    """Hand this event over once, so many seconds from now."""

    seconds: float
    event: Event


@dataclass(frozen=True, slots=True)
class EndRun:
    """Nothing is left to do: end with this status; `complete` when every task of the list has its line."""

    exit_status: int
    complete: bool


Command = (
    ReadItems
    | StartContext
    | SendToContext
    | SendToEngine
    | RecordTask
    | RecordPerEngineTask
    | RecordBarrier
    | AnnounceBarrier
    | TellUser
    | NoteInLog
    | WakeAfter
    | EndRun
)
