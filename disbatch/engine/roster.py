"""Which cylinder of an engine does what, from the engine's coming to its leaving.

Pure: `handle` takes an event and returns what is to be done. It must not know how a command is started, by which
process, or what it prints; a START or STOP command, and a task in its cylinder, are here only something that has ended
or not.
"""

from __future__ import annotations

import heapq
from collections import deque
from enum import Enum, auto

from disbatch.records import record
from disbatch.tasks import PerEngineTask, Phase, Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Stage(Enum):
    """How far an engine is in its life; it only ever moves on."""

    STARTING = auto()
    """START commands run, one after another; cylinders may be waited for."""
    SERVING = auto()
    """Tasks run, more may come."""
    FINISHING = auto()
    """No more tasks come; those that run are waited for."""
    STOPPING = auto()
    """STOP commands run, one after another."""
    LEFT = auto()
    """Nothing runs any more."""


# Events.


@record
class TasksCame:
    """The driver has given tasks to this engine."""

    tasks: tuple[Task, ...]


@record
class CylinderFreed:
    """The bash of the task in that cylinder has ended, or could not be started."""

    cylinder: int


@record
class CylinderCame:
    """There is one more cylinder, of that number."""

    cylinder: int


@record
class CylinderLost:
    """There is no such cylinder any more; a task that ran in it has ended."""

    cylinder: int


@record
class CylindersSettled:
    """No more cylinders are waited for."""


@record
class PerEngineTaskDone:
    """The START or STOP command that ran has ended, or could not be started."""


@record
class ReturnAsked:
    """The driver wants those tasks back that wait for a cylinder."""


@record
class FinishAsked:
    """The driver has no more tasks for this engine."""


@record
class CancelAsked:
    """What runs is to be ended; without `stop_commands` no STOP command is started and a running one ends too."""

    stop_commands: bool


Event = (
    TasksCame
    | CylinderFreed
    | CylinderCame
    | CylinderLost
    | CylindersSettled
    | PerEngineTaskDone
    | ReturnAsked
    | FinishAsked
    | CancelAsked
)

# Commands.


@record
class StartTask:
    """Start this task in this cylinder, which is free."""

    cylinder: int
    task: Task


@record
class StartPerEngineTask:
    """Start this START or STOP command."""

    task: PerEngineTask


@record
class TellReady:
    """Tell the driver that tasks can come."""


@record
class TellCylinders:
    """Tell the driver that there are as many cylinders now as there are."""


@record
class ReturnTasks:
    """Tell the driver that these tasks are not run here."""

    task_ids: tuple[int, ...]


@record
class EndRunning:
    """End all that runs now: ask first, then kill."""


@record
class Leave:
    """End what commands left behind, send what is not reported yet, say goodbye and end."""


Command = StartTask | StartPerEngineTask | TellReady | TellCylinders | ReturnTasks | EndRunning | Leave


class RosterError(Exception):
    """An event that cannot happen in the state the roster is in; nothing has changed."""


class Roster:
    """The plan of one engine with cylinders of these numbers and the per-engine commands of the run.

    Unless they are `settled` more of them are waited for, until that is over, before the engine is ready.
    """

    def __init__(
        self, cylinders: Sequence[int], per_engine_tasks: Sequence[PerEngineTask], *, settled: bool = True
    ) -> None:
        self.stage = Stage.STARTING
        self._settled = settled
        self._free = sorted(cylinders)
        self._busy: set[int] = set()
        self._waiting: deque[Task] = deque()
        self._start_tasks = deque(task for task in per_engine_tasks if task.phase is Phase.START)
        self._stop_tasks = deque(task for task in per_engine_tasks if task.phase is Phase.STOP)
        self._per_engine_task_runs = False

    @property
    def has_waiting(self) -> bool:
        """Whether tasks wait here for a cylinder."""
        return bool(self._waiting)

    @property
    def cylinders(self) -> int:
        """How many cylinders there are."""
        return len(self._free) + len(self._busy)

    def begin(self) -> list[Command]:
        """Commands that the engine's life begins with; to be called once."""
        return self._next_step()

    def handle(self, event: Event) -> list[Command]:
        """Commands that follow from `event`; raises `RosterError` for one that cannot happen now."""
        if isinstance(event, CylinderFreed):
            return self._free_cylinder(event.cylinder)
        if isinstance(event, TasksCame):
            return self._take_tasks(event.tasks)
        if isinstance(event, PerEngineTaskDone):
            return self._per_engine_task_done()
        if isinstance(event, ReturnAsked):
            return self._return_waiting()
        if isinstance(event, FinishAsked):
            return self._finish()
        return self._cancel(event) if isinstance(event, CancelAsked) else self._change_cylinders(event)

    def _take_tasks(self, tasks: tuple[Task, ...]) -> list[Command]:
        if self.stage is Stage.SERVING:
            self._waiting.extend(tasks)
            return self._fill_cylinders()
        if self.stage is Stage.STARTING:
            raise RosterError("tasks came before the engine was ready")
        # The driver gave them before it knew that the engine finishes; it gets them back with the engine's leaving.
        return []

    def _fill_cylinders(self) -> list[Command]:
        commands: list[Command] = []
        while self._waiting and self._free:
            cylinder = heapq.heappop(self._free)
            self._busy.add(cylinder)
            commands.append(StartTask(cylinder, self._waiting.popleft()))
        return commands

    def _free_cylinder(self, cylinder: int) -> list[Command]:
        if cylinder not in self._busy:
            raise RosterError(f"cylinder {cylinder} was freed while no task ran in it")
        self._busy.remove(cylinder)
        heapq.heappush(self._free, cylinder)
        return self._fill_cylinders() if self._waiting else self._next_step()

    def _change_cylinders(self, event: CylinderCame | CylinderLost | CylindersSettled) -> list[Command]:
        if isinstance(event, CylinderCame):
            self._add_cylinder(event.cylinder)
        elif isinstance(event, CylinderLost):
            self._remove_cylinder(event.cylinder)
        else:
            self._settled = True
            return self._next_step()
        # Before the engine is ready, and once it finishes, the driver counts on none of them.
        told: list[Command] = [TellCylinders()] if self.stage is Stage.SERVING else []
        return told + (self._fill_cylinders() if self._waiting else self._next_step())

    def _add_cylinder(self, cylinder: int) -> None:
        if cylinder in self._busy or cylinder in self._free:
            raise RosterError(f"cylinder {cylinder} came twice")
        heapq.heappush(self._free, cylinder)

    def _remove_cylinder(self, cylinder: int) -> None:
        if self.cylinders == 1:
            raise RosterError("the last cylinder, which is the engine's own, was lost")
        if cylinder in self._busy:
            self._busy.remove(cylinder)
        elif cylinder in self._free:
            self._free.remove(cylinder)
            heapq.heapify(self._free)
        else:
            raise RosterError(f"cylinder {cylinder} was lost, which there is not")

    def _return_waiting(self) -> list[Command]:
        task_ids = tuple(task.task_id for task in self._waiting)
        self._waiting.clear()
        return [ReturnTasks(task_ids), *self._next_step()]

    def _per_engine_task_done(self) -> list[Command]:
        if not self._per_engine_task_runs:
            raise RosterError("a per-engine command ended while none ran")
        self._per_engine_task_runs = False
        return self._next_step()

    def _finish(self) -> list[Command]:
        if self.stage is Stage.STARTING:
            self._start_tasks.clear()
        if self.stage in (Stage.STARTING, Stage.SERVING):
            self.stage = Stage.FINISHING
        return self._next_step()

    def _cancel(self, event: CancelAsked) -> list[Command]:
        self._waiting.clear()
        stop_runs = self.stage is Stage.STOPPING and self._per_engine_task_runs
        if not event.stop_commands:
            self._stop_tasks.clear()
        # Of what runs, a STOP command alone is let go on, unless it is to be cut short too.
        commands: list[Command] = [] if stop_runs and event.stop_commands else [EndRunning()]
        return commands + self._finish()

    def _next_step(self) -> list[Command]:
        """Move on as far as nothing that runs or waits stands in the way."""
        if self._per_engine_task_runs or self._busy or self._waiting:
            return []
        if self.stage is Stage.STARTING:
            if self._start_tasks:
                return self._start_per_engine_task(self._start_tasks.popleft())
            if self._settled:
                self.stage = Stage.SERVING
                return [TellReady()]
        if self.stage is Stage.FINISHING:
            self.stage = Stage.STOPPING
        if self.stage is Stage.STOPPING:
            if self._stop_tasks:
                return self._start_per_engine_task(self._stop_tasks.popleft())
            self.stage = Stage.LEFT
            return [Leave()]
        return []

    def _start_per_engine_task(self, task: PerEngineTask) -> list[Command]:
        self._per_engine_task_runs = True
        return [StartPerEngineTask(task)]
