"""What the controller is told and what it asks for; messages from other processes are events too.

Pure. Events are named in the past tense, commands in the imperative.
"""

from __future__ import annotations

from disbatch.messages import Lease, Order, ToContext, ToDriver, ToEngine
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
    requeue: bool = True
    crash_limit: int = 3
    heartbeat: float = 10.0
    heartbeat_patience: float = 60.0

    @property
    def lease(self) -> Lease:
        """What members keep to, so that nothing of them runs any more when they are waited for no longer."""
        patience = self.heartbeat_patience
        return Lease(self.heartbeat, LEASE_SHARE * patience, GRACE_SHARE * patience)


LEASE_SHARE = 0.75
GRACE_SHARE = 0.1
"""Shares of the driver's patience that a lease takes, and ending what runs then; the rest is for slow machines."""


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
class RecordsWritten:
    """All that was recorded is in the status file; it answers records, those of one turn together."""


@record
class RecordsHeldBack:
    """The status file cannot be written; `RecordsWritten` comes when it can."""


@record
class MemberCut:
    """The connection to an engine or a context has ended without a goodbye; it may get another."""

    name: str


@record
class MemberRejoined:
    """An engine or a context that was cut off has another connection."""

    name: str


@record
class MemberHeard:
    """An engine or a context has said that it is there."""

    name: str


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
class DrainAsked:
    """Somebody wants the run to end when what runs has ended; the name of the signal that says so."""

    name: str


@record
class PauseBegan:
    """The driver is about to stop, until somebody lets it go on."""


@record
class PauseEnded:
    """It has been let go on."""


@record
class EngineOverdue:
    """An engine that is no more, or is not waited for, has had time for a goodbye that was on its way."""

    engine_rank: int


@record
class SilenceToBeJudged:
    """It is time to look who has not been heard for too long."""


@record
class PatienceEnded:
    """What has not left by now is not waited for any longer."""


Event = (
    ToDriver
    | Order
    | ItemsRead
    | ReadingFailed
    | RecordsWritten
    | RecordsHeldBack
    | MemberCut
    | MemberRejoined
    | MemberHeard
    | OwnContextEnded
    | SignalCame
    | DrainAsked
    | PauseBegan
    | PauseEnded
    | EngineOverdue
    | SilenceToBeJudged
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
class ForgetMember:
    """End the connection of an engine or a context, if it has one, and refuse it when it comes back."""

    name: str


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
    """Write down that a barrier was passed; times are seconds since the epoch, the end by what has passed since."""

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
    | ForgetMember
    | RecordTask
    | RecordPerEngineTask
    | RecordBarrier
    | AnnounceBarrier
    | TellUser
    | NoteInLog
    | WakeAfter
    | EndRun
)
