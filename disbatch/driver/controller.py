"""The driver's mind: which task may run when and where, and when the run is over.

Pure: `handle` takes an event and the time, once in seconds since the epoch, for the records alone, and once as a clock
has it that never jumps. It returns commands, which the loop performs in their order. It must not know files, sockets,
or how a line of the status file looks.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING

from disbatch import messages
from disbatch.driver import events
from disbatch.driver.fleet import Fleet
from disbatch.driver.membership import CANCEL, DRAIN, Membership
from disbatch.errors import ExitStatus
from disbatch.records import replace
from disbatch.tasks import LOST, Barrier, PerEngineTask, Task, lost_outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from disbatch.driver.events import Command, Event, Item, Settings
    from disbatch.driver.fleet import Context, Engine
    from disbatch.taskfile import Complaint
    from disbatch.tasks import Outcome

READ_AHEAD = 256
"""Items asked for at a time, where the cylinders do not call for more."""

CONTEXT_PATIENCE = 2.0
"""Seconds that contexts have to leave when all engines have."""

HURRY_PATIENCE = 2.0
"""Seconds that engines have to leave once the user is in a hurry."""


class RunPhase(Enum):
    """How far the run is; it only ever moves on."""

    WORKING = auto()
    FINISHING = auto()
    """Every task has ended; engines run STOP commands and leave."""
    DRAINING = auto()
    """The run is cut short; engines finish what runs there, run STOP commands and leave."""
    STOPPING = auto()
    """The run is cut short; engines end their tasks, run STOP commands and leave."""
    ENDED = auto()


class Counts:
    """Figures of a run so far, in tasks.

    Among `failed` are per-engine commands too, and skipped tasks that had failed in an earlier run, which
    `failed_earlier` counts alone. `lost` are attempts that ended with their engine, `rerun` all that were not the last
    of their task.
    """

    def __init__(
        self,
        finished: int = 0,
        failed: int = 0,
        skipped: int = 0,
        interrupted: int = 0,
        failed_earlier: int = 0,
        lost: int = 0,
        rerun: int = 0,
    ) -> None:
        self.finished = finished
        self.failed = failed
        self.skipped = skipped
        self.interrupted = interrupted
        self.failed_earlier = failed_earlier
        self.lost = lost
        self.rerun = rerun

    @property
    def in_words(self) -> str:
        """The figures for a person; those that are 0 are left out, but for the first."""
        parts = [f"{self.finished} task{'s' * (self.finished != 1)} finished"]
        if self.failed > self.failed_earlier:
            parts.append(f"{self.failed - self.failed_earlier} failed")
        if self.skipped:
            parts.append(f"{self.skipped} skipped")
        if self.failed_earlier:
            parts[-1] += f" ({self.failed_earlier} of them had failed)"
        if self.interrupted:
            parts.append(f"{self.interrupted} interrupted")
        return ", ".join(parts)


class Use:
    """What became of the cylinders of a run: seconds that they were there, each for itself, and that tasks took."""

    def __init__(self) -> None:
        self.offered = 0.0
        self.taken = 0.0
        self._since: float | None = None

    def passed(self, cylinders: int, clock: float) -> None:
        """Take note that there were so many cylinders until then (monotonic, s)."""
        if self._since is not None:
            self.offered += cylinders * (clock - self._since)
        self._since = clock


class Controller:
    """Decides, from the first item of the task list to the end of the run."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.counts = Counts()
        self.use = Use()
        self.fleet = Fleet()
        self.phase = RunPhase.WORKING
        self.can_be_resumed = True
        """Whether the same command, resuming, could get any further."""
        self.told_to_end = False
        """Whether somebody has ended the run, or drained it."""
        self.check_failed = False
        """Whether a CHECK has ended the run: it will again, unless what failed runs again."""
        self._commands: list[Command] = []
        self._membership = Membership(settings, self.fleet, self._commands.append, self._take_back_from)
        self._now = self._clock = 0.0
        self._backlog: deque[Item] = deque()
        self._outstanding: dict[int, tuple[Task, Engine, float]] = {}
        """Tasks that engines have, each with when it was given (s since the epoch)."""
        self._losses: dict[int, int] = {}
        """How often tasks were lost with their engine that were, and have not ended."""
        self._new: dict[int, list[Task]] = {}
        self._per_engine_tasks: list[PerEngineTask] = []
        self._is_reading = False
        self._list_ended = False
        self.barriers_passed = 0
        self._barriers_ahead = 0
        self._barrier_reached: tuple[float, float] | None = None
        """When it was, by the time of day and by the clock."""
        self._failed_since_barrier = 0
        self._unwritten = False
        """Whether something is recorded that is not in the status file yet: nothing may follow from it before it is."""
        self._when_written: list[Command] = []
        self._exit_status = ExitStatus.OK
        self._patience_set = False
        self._handlers: dict[type, Callable[..., None]] = {
            events.ItemsRead: self._items_read,
            events.ReadingFailed: self._reading_failed,
            events.RecordsHeldBack: self._records_held_back,
            events.RecordsWritten: self._records_written,
            events.SignalCame: self._signal_came,
            events.DrainAsked: self._drain_asked,
            events.PatienceEnded: self._patience_ended,
            messages.CylindersFreed: self._cylinders_freed,
            messages.TasksEnded: self._tasks_ended,
            messages.TasksReturned: self._tasks_returned,
            messages.PerEngineTaskEnded: self._per_engine_task_ended,
            **self._membership.handlers,
        }

    def begin(self) -> list[Command]:
        """Commands that the run begins with; to be called once."""
        self._advance()
        return self._take_commands()

    def handle(self, event: Event, now: float, clock: float) -> list[Command]:
        """Commands that follow from `event`; `now` is in seconds since the epoch, `clock` since any other time."""
        if self.phase is RunPhase.ENDED:
            return []
        self._now, self._clock = now, clock
        self._membership.now, self._membership.clock = now, clock
        self.use.passed(self.fleet.cylinders, clock)
        self._handlers[type(event)](event)
        if isinstance(event, messages.FromEngine):
            self._note_heard(event.engine_rank)
        self._advance()
        return self._take_commands()

    @property
    def list_ended(self) -> bool:
        """Whether the task list has been read to its end."""
        return self._list_ended

    @property
    def waiting(self) -> int:
        """How many of the tasks that were read wait to be started, here or at an engine.

        0 in a run that is cut short.
        """
        if self.phase is not RunPhase.WORKING:
            return 0
        held = sum(max(0, engine.wanting_cylinders - engine.cylinders) for engine in self.fleet.listening)
        return sum(isinstance(item, Task) for item in self._backlog) + held

    @property
    def unfinished(self) -> int:
        """How many of the tasks that were read have not ended, those that are to be skipped too."""
        return sum(isinstance(item, Task | events.SkippedTask) for item in self._backlog) + len(self._outstanding)

    def running(self, rank: int | None = None) -> list[tuple[float, int, Task]]:
        """Tasks that run now, as far as is known here: since when (s since the epoch), where (rank), and what.

        On the engine of that rank, or on all.
        """
        if rank is None:
            engines = list(self.fleet.listening)
        else:
            engine = self.fleet.engine(rank)
            engines = [] if engine is None else [engine]
        return [
            (self._outstanding[task_id][2], engine.rank, self._outstanding[task_id][0])
            for engine in engines
            for task_id in engine.running
        ]

    @property
    def exit_status(self) -> int:
        """What the run would end with, if nothing more happened."""
        if self._settings.exit_code and self.counts.failed:
            return self._exit_status or ExitStatus.FAILED
        return self._exit_status

    def _note_heard(self, rank: int) -> None:
        engine = self.fleet.engine(rank)
        if engine is not None and engine.pid:  # or somebody says what is not his to say
            engine.came = self._now if engine.came is None else engine.came
            engine.heard = self._now
            self._membership.hear(engine)

    def _take_commands(self) -> list[Command]:
        commands = self._commands.copy()
        self._commands.clear()
        return commands

    def _do(self, command: Command) -> None:
        self._commands.append(command)

    def _tell(self, text: str) -> None:
        self._do(events.TellUser(text))

    # The task list.

    def _items_read(self, event: events.ItemsRead) -> None:
        self._is_reading = False
        self._backlog.extend(event.items)
        self._barriers_ahead += sum(isinstance(item, Barrier) for item in event.items)
        self._list_ended = self._list_ended or event.ended

    def _reading_failed(self, event: events.ReadingFailed) -> None:
        self.can_be_resumed = not event.is_another
        self._stop(ExitStatus.FAILED, event.reason)

    def _advance(self) -> None:
        """Do all that the state allows; called after every event."""
        if self.phase is RunPhase.WORKING and not self._unwritten:
            self._work_off_backlog()
            self._send_new_tasks()
        if self.phase is RunPhase.WORKING and not self._unwritten:
            self._read_ahead()
            self._recall_held_tasks()
            if self._list_ended and not self._backlog:
                if self._outstanding:
                    self._membership.retire_idle()
                else:
                    self._finish()
            elif self._membership.is_forsaken:
                if self._membership.may_wait:
                    self._membership.wait()
                else:
                    why = self._membership.in_one_line("no engine is left to run the remaining tasks")
                    self._stop(ExitStatus.FAILED, why)
        self._membership.tell_news()
        if self.phase in (RunPhase.FINISHING, RunPhase.DRAINING, RunPhase.STOPPING):
            self._end_if_alone()

    def _work_off_backlog(self) -> None:
        backlog = self._backlog
        while backlog and self.phase is RunPhase.WORKING:
            item = backlog[0]
            if isinstance(item, Task):
                if not self._start(item):
                    return
            elif isinstance(item, Barrier):
                if not self._pass(item):
                    return
            elif isinstance(item, events.SkippedTask):
                self._skip(item)
            elif isinstance(item, PerEngineTask):
                self._per_engine_tasks.append(item)
            else:
                self._complain(item)
            backlog.popleft()
            if self._unwritten:
                return
        if self._list_ended:
            self._membership.settle_per_engine_tasks(tuple(self._per_engine_tasks))

    def _start(self, task: Task) -> bool:
        """Whether a cylinder was free for the task, which is then given to its engine."""
        self._membership.settle_per_engine_tasks(tuple(self._per_engine_tasks))
        # A task may wait at an engine where it would wait here anyway, and where others are sure to come after it.
        many_wait = not self._barriers_ahead and len(self._backlog) > self.fleet.cylinders
        engine = self.fleet.place_for_task(may_wait=many_wait)
        if engine is None:
            self._membership.want()
            return False
        context = self.fleet.give(engine, task.task_id, self._clock)
        self._outstanding[task.task_id] = (task, engine, self._now)
        self._new.setdefault(engine.rank, []).append(task)
        self._dismiss_if_used_up(context)
        return True

    def _dismiss_if_used_up(self, context: Context) -> None:
        if self.fleet.is_used_up(context):
            self._send_new_tasks()
            self._membership.dismiss(context)

    def _recall_held_tasks(self) -> None:
        """Ask for tasks that wait at an engine while a cylinder is free elsewhere and none is left here to fill it."""
        if not self._backlog or isinstance(self._backlog[0], Barrier):
            for engine in self.fleet.to_recall():
                engine.recalled = True
                self._do(events.SendToEngine(engine.rank, messages.ReturnTasks()))

    def _tasks_returned(self, event: messages.TasksReturned) -> None:
        engine = self.fleet.engine(event.engine_rank)
        if engine is None:
            return
        self.fleet.recall_answered(engine)
        returned = []
        for task_id in event.task_ids:
            if task_id in engine.tasks:
                self.fleet.take_back(engine, task_id)
                returned.append(self._outstanding.pop(task_id)[0])
        self._give_back(returned)
        if self.phase is RunPhase.WORKING:
            self._dismiss_if_used_up(self.fleet.contexts[engine.context_rank])

    def _send_new_tasks(self) -> None:
        for rank, tasks in self._new.items():
            self._do(events.SendToEngine(rank, messages.RunTasks(tuple(tasks))))
        self._new.clear()

    def _pass(self, barrier: Barrier) -> bool:
        """Whether all earlier tasks have ended, so that what is behind the barrier may start."""
        if self._barrier_reached is None:
            self._barrier_reached = (self._now, self._clock)
        if self._outstanding:
            return False
        if barrier.check and self._failed_since_barrier:
            failed = self._failed_since_barrier
            self.check_failed = True
            self._stop(
                ExitStatus.FAILED,
                f"BARRIER CHECK in line {barrier.stream_index}: {failed} of the tasks before it failed",
            )
            return False
        start, since = self._barrier_reached
        self._write_down(events.RecordBarrier(barrier, start, start + self._clock - since))
        if barrier.key is not None:
            self._when_written.append(events.AnnounceBarrier(barrier.key, barrier.task_id))
        self.barriers_passed += 1
        self._barriers_ahead -= 1
        self._barrier_reached = None
        self._failed_since_barrier = 0
        return True

    def _skip(self, item: events.SkippedTask) -> None:
        self.counts.skipped += 1
        if item.failed:
            self.counts.failed_earlier += 1
            self._count_failure()

    def _complain(self, complaint: Complaint) -> None:
        self._tell(complaint.text)
        if complaint.fatal:
            self._exit_status = ExitStatus.FAILED
            self._list_ended = True

    def _read_ahead(self) -> None:
        wanted = max(READ_AHEAD, 2 * self.fleet.cylinders)
        if not (self._list_ended or self._is_reading) and len(self._backlog) < wanted // 2:
            self._is_reading = True
            self._do(events.ReadItems(wanted))

    # Tasks that have ended.

    def _cylinders_freed(self, event: messages.CylindersFreed) -> None:
        engine = self.fleet.engine(event.engine_rank)
        if engine is not None:
            for task_id in event.task_ids:
                self.fleet.free_cylinder(engine, task_id)

    def _tasks_ended(self, event: messages.TasksEnded) -> None:
        interrupted = []
        for report in event.reports:
            task, engine, _ = self._outstanding.get(report.task_id, (None, None, None))
            if task is None or engine is None or engine.rank != event.engine_rank:
                continue  # it has been given to another engine since, whose report will count
            del self._outstanding[report.task_id]
            self.fleet.release(engine, report.task_id, report.outcome.elapsed, self._clock)
            outcome = report.outcome
            if outcome.interrupted and not self._settings.requeue:
                # Without a failure of its own it was cut short all the same, as `sleep 300; true` is.
                return_code = outcome.return_code or LOST
                self._record(task, engine, replace(outcome, interrupted=False, return_code=return_code))
            elif outcome.interrupted and self.phase is RunPhase.WORKING:
                self.use.taken += outcome.elapsed
                self.counts.rerun += 1
                interrupted.append(_next_attempt(task))
            else:
                self._record(task, engine, outcome)
        self._give_back(interrupted)

    def _record(self, task: Task, engine: Engine, outcome: Outcome) -> None:
        self._losses.pop(task.task_id, None)
        self.use.taken += outcome.elapsed
        self._write_down(events.RecordTask(task, engine.node, outcome, abandoned=outcome.interrupted))
        if outcome.interrupted:
            self.counts.interrupted += 1
            return
        self.counts.finished += 1
        engine.finished += 1
        if outcome.failed:
            engine.failed += 1
            self._count_failure()
            self._stop_if_fail_fast(f"task {task.task_id} (line {task.stream_index})", outcome.return_code)

    def _per_engine_task_ended(self, event: messages.PerEngineTaskEnded) -> None:
        engine = self.fleet.engine(event.engine_rank)
        if engine is None:
            return
        self._write_down(events.RecordPerEngineTask(event.task, engine.node, event.outcome))
        if event.outcome.failed and not event.outcome.interrupted:
            self._count_failure()
            task = event.task
            what = f"PERENGINE {task.phase.value} command in line {task.stream_index}"
            self._stop_if_fail_fast(f"{what} on {engine.node}", event.outcome.return_code)

    def _count_failure(self) -> None:
        self.counts.failed += 1
        self._failed_since_barrier += 1

    def _stop_if_fail_fast(self, what: str, return_code: int) -> None:
        if self._settings.fail_fast:
            self._stop(ExitStatus.FAILED, f"{what} failed with return code {return_code}; --fail-fast ends the run")

    def _give_back(self, tasks: list[Task]) -> None:
        """Put tasks at the head of the list, where they came from, in their order and that of those there already."""
        if not tasks:
            return
        last = max(task.task_id for task in tasks)
        backlog = self._backlog
        while backlog and isinstance(item := backlog[0], Task) and item.task_id < last:
            tasks.append(item)
            backlog.popleft()
        tasks.sort(key=lambda task: task.task_id, reverse=True)
        backlog.extendleft(tasks)

    def _take_back_from(self, engine: Engine, may_have_begun: bool) -> int:  # noqa: FBT001 - it is called in one place
        """Take what an engine held that has gone: to run elsewhere, or, in a run that ends, to stay without a line.

        What may have begun there and must not begin again, or has been lost too often, has failed. How many have not.
        """
        tasks = [self._outstanding.pop(task_id)[0] for task_id in engine.tasks]
        if may_have_begun:
            tasks = self._without_failed(engine, tasks)
        engine.tasks.clear()
        engine.lingering.clear()
        engine.prompt.clear()
        self._give_back(tasks)
        if self.phase is RunPhase.WORKING:
            self._dismiss_if_used_up(self.fleet.contexts[engine.context_rank])
        return len(tasks)

    def _without_failed(self, engine: Engine, tasks: list[Task]) -> list[Task]:
        """Further attempts at those of the lost tasks that may have one; the others are recorded."""
        begun = set(engine.begun)
        self.counts.lost += len(begun)
        if not self._settings.requeue:
            for task in tasks:
                self._record_lost(task, engine, _NOT_RUN_AGAIN)
            return []
        if engine.on_purpose:
            begun.clear()
        kept = []
        for task in tasks:
            losses = self._losses.get(task.task_id, 0) + (task.task_id in begun)
            if losses >= self._settings.crash_limit > 0 and self.phase is RunPhase.WORKING:
                self._tell(
                    f"task {task.task_id} (line {task.stream_index}) was lost with its engine {_times(losses)}, "
                    "and is given up"
                )
                self._record_lost(task, engine, f"disbatch: lost with its engine {_times(losses)}")
            else:
                if losses:
                    self._losses[task.task_id] = losses
                kept.append(_next_attempt(task))
        self.counts.rerun += len(kept)
        return kept

    def _record_lost(self, task: Task, engine: Engine, why: str) -> None:
        self._record(task, engine, lost_outcome(why, self._now))

    # Records.

    def _write_down(self, record: Command) -> None:
        """Have something recorded; `RecordsWritten` answers that, and until then nothing is given out."""
        self._unwritten = True
        self._do(record)

    def _records_written(self, _event: events.RecordsWritten) -> None:
        self._unwritten = False
        self._commands += self._when_written
        self._when_written.clear()

    def _records_held_back(self, _event: events.RecordsHeldBack) -> None:
        """Let nothing start that could wait, neither here nor at an engine."""
        self._unwritten = True
        for engine in self.fleet.listening:
            if engine.may_be_given and engine.holds and not engine.recalled:
                engine.recalled = True
                self._do(events.SendToEngine(engine.rank, messages.ReturnTasks()))

    # The end.

    def _signal_came(self, event: events.SignalCame) -> None:
        self.told_to_end = True
        if self.phase is RunPhase.STOPPING:
            self._hurry()
        elif self.phase is RunPhase.FINISHING:
            self.can_be_resumed = self._unwritten  # or every task has its line
            what = "all tasks have ended; STOP commands and what tasks left behind may take a while"
            self._stop(event.exit_status, f"got {event.name}; {what} (again: at once)")
        elif self._outstanding:
            self._stop(event.exit_status, f"got {event.name}; ending the running tasks (again: at once)")
        else:
            has_started = any(engine.assigned for engine in self.fleet.engines)
            when = "while no task ran" if has_started else "before any task had started"
            self._stop(event.exit_status, f"got {event.name} {when}")

    def _drain_asked(self, event: events.DrainAsked) -> None:
        if self.phase is not RunPhase.WORKING:
            return
        self.told_to_end = True
        self.phase = RunPhase.DRAINING
        what = "waiting for the tasks that run, and giving out no more" if self._outstanding else "no task runs"
        self._tell(f"got {event.name}; {what}")
        self._membership.close(*DRAIN)

    def _hurry(self) -> None:
        for engine in self.fleet.listening:
            self._do(events.SendToEngine(engine.rank, messages.CancelEngine(0.0, stop_commands=False)))
        self._set_patience(HURRY_PATIENCE)

    def _finish(self) -> None:
        self.phase = RunPhase.FINISHING
        self._membership.close(messages.FinishEngine())

    def _stop(self, exit_status: int, reason: str) -> None:
        """Cut the run short, unless it is being cut short already."""
        if self.phase in (RunPhase.STOPPING, RunPhase.ENDED):
            return
        self._tell(reason)
        self.phase = RunPhase.STOPPING
        self._exit_status = exit_status
        self._new.clear()
        self._membership.close(*CANCEL)

    def _end_if_alone(self) -> None:
        if self.fleet.listening:
            return
        if all(context.gone for context in self.fleet.contexts):
            self._end()
        else:
            self._set_patience(CONTEXT_PATIENCE)

    def _set_patience(self, seconds: float) -> None:
        if not self._patience_set:
            self._patience_set = True
            self._do(events.WakeAfter(seconds, events.PatienceEnded()))

    @property
    def _all_have_ended(self) -> bool:
        """Whether every task of the list has its line."""
        return self._list_ended and not (self._backlog or self._outstanding or self.counts.interrupted)

    def _patience_ended(self, _event: events.PatienceEnded) -> None:
        self._end()

    def _end(self) -> None:
        complete = self.phase is RunPhase.FINISHING or (self.phase is RunPhase.DRAINING and self._all_have_ended)
        if self.phase is RunPhase.DRAINING and not complete:
            self._exit_status = ExitStatus.FAILED
        self.phase = RunPhase.ENDED
        if not self._settings.requeue:  # what was not heard of again may have begun
            for task, engine, _ in self._outstanding.values():
                self.fleet.release(engine, task.task_id)
                self._record_lost(task, engine, _NOT_RUN_AGAIN)
            self._outstanding.clear()
        self._do(events.EndRun(self.exit_status, complete=complete))


_NOT_RUN_AGAIN = "disbatch: lost with its engine, not run again (--no-requeue)"


def _next_attempt(task: Task) -> Task:
    return replace(task, attempt=task.attempt + 1)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
