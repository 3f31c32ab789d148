"""What the controller is told and what it asks for; messages from other processes are events too.

Pure. Events are named in the past tense, commands in the imperative.
"""

from __future__ import annotations

from disbatch.messages import ToContext, ToDriver, ToEngine
from disbatch.records import record
from disbatch.taskfile import Complaint
from disbatch.tasks import Barrier, Outcome, PerEngineTask, Task


@record
class SkippedTask:
    """A task that an earlier run completed, with the line that it has there, and whether it had failed.

    The status file of this run has that line already, with flag S.
    """

    task: Task
    line: bytes
    failed: bool


Item = Task | Barrier | PerEngineTask | Complaint | SkippedTask


@record
class Settings:
    """What the controller must know of the user's wishes and of the run."""

    version: str
    job: str
    task_source: str
    directory: bytes
    script: str
    host: str
    startup_only: bool = False
    exit_code: bool = False
    fail_fast: bool = False


# Events.


@record
class ItemsRead:
    """The next items of the task list; with `ended` there are none behind them."""

    items: tuple[Item, ...]
    ended: bool


@record
class ReadingFailed:
    """The task list cannot be read on; with `is_another` because it is not that of the run that is resumed."""

    reason: str
    is_another: bool = False


@record
class RecordingFailed:
    """The status file cannot be written."""

    reason: str


@record
class EngineLost:
    """The connection to an engine has ended without a goodbye."""

    engine_rank: int


@record
class ContextLost:
    """The connection to a context has ended without a goodbye."""

    token: str


@record
class OwnContextEnded:
    """The context that the driver itself has started has ended; what it printed last."""

    return_code: int
    last_words: str


@record
class SignalCame:
    """Somebody wants the driver to end; `exit_status` is the one that is due then."""

    name: str
    exit_status: int


@record
class EngineOverdue:
    """What had started an engine ended a while ago, and the engine has not said goodbye."""

    engine_rank: int


@record
class TasksCouldBeGivenBack:
    """The tasks of a lost engine have ended by now, wherever it is."""

    engine_rank: int


@record
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
    | EngineOverdue
    | TasksCouldBeGivenBack
    | PatienceEnded
)


# Commands.


@record
class ReadItems:
    """Read at most that many items and tell of them; one event answers it."""

    limit: int


@record
class StartContext:
    """Start the context that the driver's own options describe."""


@record
class SendToContext:
    """Put a message under a context's key."""

    token: str
    message: ToContext


@record
class SendToEngine:
    """Put a message under an engine's key."""

    engine_rank: int
    message: ToEngine


@record
class RecordTask:
    """Write down how a task ended; `abandoned` when the run had given it up, so that a resume runs it again."""

    task: Task
    node: str
    outcome: Outcome
    abandoned: bool


@record
class RecordPerEngineTask:
    """Write down how a START or STOP command ended."""

    task: PerEngineTask
    node: str
    outcome: Outcome


@record
class RecordBarrier:
    """Write down that a barrier was passed; times are seconds since the epoch."""

    barrier: Barrier
    start: float
    end: float


@record
class AnnounceBarrier:
    """Put the barrier's id under the key that it names."""

    key: bytes
    task_id: int


@record
class TellUser:
    """Print a line on something that is not as it should be to the user's terminal, and log it as an error."""

    text: str


@record
class NoteInLog:
    """Write a line on the course of the run into the log."""

    text: str


@record
class WakeAfter:
    """Hand this event over once, so many seconds from now."""

    seconds: float
    event: Event


@record
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
