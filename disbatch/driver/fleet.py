"""The contexts and engines of a run: who has come, who has cylinders free, who has gone.

Pure. It must not know the list of tasks; a task is here a number that an engine holds.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum, auto
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from disbatch.messages import REPORT_DELAY
from disbatch.runfiles import file_name

if TYPE_CHECKING:
    from collections.abc import Callable, ValuesView

    from disbatch.messages import ContextCame


class EngineStage(Enum):
    """How far an engine is; it only ever moves on, and any stage may be followed by GONE."""

    EXPECTED = auto()
    """Its context has been told to start it."""
    WAITING = auto()
    """It has come, but the run's per-engine commands are not known yet."""
    STARTING = auto()
    """It runs the START commands."""
    SERVING = auto()
    """It takes tasks."""
    LEAVING = auto()
    """It has been told to finish or to cancel."""
    GONE = auto()
    """It holds nothing and is not coming back."""


HELD_WORK = 2 * REPORT_DELAY
"""Seconds of work that an engine may hold beyond its free cylinders, and twice its lag more: until others can come."""

_MOST_LAG = 1.0
"""Seconds of lag, beyond which something else than the way to an engine is slow."""

HELD_TASKS = 16
"""The most tasks that an engine may hold for each cylinder, however short they are."""

_SHORTEST = 1e-6
_WEIGHT = 0.1
"""Share of the newest task in an engine's average."""


class Engine:
    """One engine.

    `tasks` are the ids of those it has been given and not reported, in the order in which it was given them; those of
    them in `lingering` need no cylinder any more, only their reports are still to come. `average` is of what its tasks
    took (s), infinite at first; `lag` (s) is what passes besides until their end is known here, where they could start
    at once: the way there and back, and the delay of reports. `prompt` are such tasks, each with the time when it was
    given. `recalled` while it is asked for the tasks that wait there; `paused` when its context must not be given any
    more; `retires`: whether it ends, and its node is given back, as soon as nothing is left for it. `cut` while its
    connection is broken; `nothing_runs` when all of its processes have ended for sure, although what it has said may
    not have been heard to its end; `on_purpose` when somebody wants it to end. `heard_at` is when it was heard last, by
    a clock that never jumps. `assigned`, `finished` and `failed` count tasks; `host` and `pid` are what it says of
    itself, `came` and `heard` when it did so first and last (seconds since the epoch).
    """

    def __init__(self, rank: int, context_rank: int, node: str, cylinders: int, cores_per_cylinder: int) -> None:
        self.rank = rank
        self.context_rank = context_rank
        self.node = node
        self.cylinders = cylinders
        self.cores_per_cylinder = cores_per_cylinder
        self.stage = EngineStage.EXPECTED
        self.tasks: dict[int, None] = {}
        self.lingering: set[int] = set()
        self.average = math.inf
        self.lag = 0.0
        self.prompt: dict[int, float] = {}
        self.recalled = False
        self.paused = False
        self.retires = False
        self.cut = False
        self.nothing_runs = False
        self.on_purpose = False
        self.heard_at = 0.0
        self.assigned = 0
        self.finished = 0
        self.failed = 0
        self.host = ""
        self.pid = 0
        self.came: float | None = None
        self.heard: float | None = None

    @property
    def wanting_cylinders(self) -> int:
        """How many of its tasks run or wait for a cylinder."""
        return len(self.tasks) - len(self.lingering)

    @property
    def has_room(self) -> bool:
        """Whether a task given to it now would start at once."""
        return self.may_be_given and self.wanting_cylinders < self.cylinders

    @property
    def may_be_given(self) -> bool:
        """Whether it takes tasks, and may have more of them."""
        return self.stage is EngineStage.SERVING and not (self.paused or self.cut)

    @property
    def may_hold_more(self) -> bool:
        """Whether a task given to it now would start soon enough to be better off than in the driver's list."""
        return (
            self.may_be_given
            and not self.recalled
            and self.wanting_cylinders < self.cylinders * (1 + min(HELD_TASKS, int(self.held_work / self.average)))
        )

    @property
    def held_work(self) -> float:
        """Seconds of work for each cylinder that it may hold: its reports may be late, and the next need their time."""
        return HELD_WORK + 2 * self.lag

    @property
    def holds(self) -> bool:
        """Whether it has tasks that wait for a cylinder."""
        return self.wanting_cylinders > self.cylinders

    @property
    def may_lose_tasks(self) -> bool:
        """Whether tasks that it has may run elsewhere in the end: it leaves, is cut off, or has some that wait."""
        is_sure = self.stage is EngineStage.SERVING and not (self.cut or self.recalled or self.holds)
        return bool(self.tasks) and not is_sure

    @property
    def begun(self) -> list[int]:
        """Tasks that it has begun, as far as is known here."""
        return [*self.lingering, *self.running]

    @property
    def running(self) -> list[int]:
        """Tasks that need a cylinder and have one, as far as is known here: those given first; others wait behind."""
        needing = (task_id for task_id in self.tasks if task_id not in self.lingering)
        return list(islice(needing, self.cylinders))

    @property
    def can_hear(self) -> bool:
        """Whether it has come and not gone."""
        return self.stage in (EngineStage.WAITING, EngineStage.STARTING, EngineStage.SERVING, EngineStage.LEAVING)


class Context:
    """One context and the ranks of its engines.

    `given` counts the tasks that its engines were given and have not returned, `task_limit` is how many that may
    become; 0 is no limit. `cut` while its connection is broken; `has_ended` when its process has, for sure. `heard_at`
    is as for an engine.
    """

    def __init__(self, rank: int, label: str, engines: tuple[int, ...], came: ContextCame) -> None:
        self.rank = rank
        self.label = label
        self.engines = engines
        self.token = came.token
        self.environment_resources = came.environment_resources
        self.task_limit = came.task_limit
        self.retires = came.retires
        self.system = came.system
        self.host = came.host
        self.pid = came.pid
        self.given = 0
        self.paused = False
        self.dismissed = False
        self.gone = False
        self.cut = False
        self.has_ended = False
        self.heard_at = 0.0

    @property
    def has_enough(self) -> bool:
        """Whether it must not be given another task."""
        return 0 < self.task_limit <= self.given


class _Turns:
    """Engines that are fit and wait for their turn, each at most once."""

    def __init__(self, is_fit: Callable[[Engine], bool]) -> None:
        self._is_fit = is_fit
        self._engines: deque[Engine] = deque()
        self._ranks: set[int] = set()

    def add(self, engine: Engine) -> None:
        """Let an engine wait, if it is fit."""
        if engine.rank not in self._ranks and self._is_fit(engine):
            self._ranks.add(engine.rank)
            self._engines.append(engine)

    def first(self) -> Engine | None:
        """First engine that is fit still; those before it lose their turns."""
        while self._engines:
            if self._is_fit(self._engines[0]):
                return self._engines[0]
            self._ranks.discard(self._engines.popleft().rank)
        return None

    def take(self, engine: Engine) -> None:
        """The first engine has its turn."""
        self._engines.popleft()
        self._ranks.discard(engine.rank)


def _file_names(label: str, came: ContextCame) -> set[str]:
    """What the names of a context's files begin with, and of those that take what its launchers print."""
    own = file_name(label)
    return {f"{own}.", *(f"{own}_{file_name(node.name)}_" for node in came.nodes)}


class Fleet:
    """Everything that has ever joined the run, by rank."""

    def __init__(self) -> None:
        self.contexts: list[Context] = []
        self.engines: list[Engine] = []
        self.cylinders = 0
        """Cylinders of all engines that take tasks."""
        self._file_names: set[str] = set()
        self._with_room = _Turns(attrgetter("has_room"))
        self._may_hold = _Turns(attrgetter("may_hold_more"))
        self._holding: dict[int, Engine] = {}
        self._idle: dict[int, Engine] = {}
        self._staying = 0
        """How many engines take tasks that do not retire."""
        self._listening: dict[int, Engine] = {}

    def admit_context(self, came: ContextCame) -> Context:
        """Take a context in, with an expected engine for each node that it offers."""
        rank = len(self.contexts)
        label = came.label or f"{came.system}{rank}"
        # Two contexts of one name would write to the same files; so would `a` with a node `b_c` and `a_b` with `c`.
        while not self._file_names.isdisjoint(_file_names(label, came)):
            label = f"{label}_{rank}"
        self._file_names |= _file_names(label, came)
        first = len(self.engines)
        for number, offer in enumerate(came.nodes, first):
            self.engines.append(Engine(number, rank, offer.name, offer.cylinders, offer.cores_per_cylinder))
        engines = tuple(range(first, len(self.engines)))
        context = Context(rank, label, engines, came)
        self.contexts.append(context)
        return context

    def context_with(self, token: str) -> Context | None:
        """Context that goes by that token."""
        return next((context for context in self.contexts if context.token == token), None)

    def engine(self, rank: int) -> Engine | None:
        """Engine of that rank, None where there never was one."""
        return self.engines[rank] if 0 <= rank < len(self.engines) else None

    def serve(self, engine: Engine, cylinders: int) -> None:
        """Let an engine take tasks in that many cylinders."""
        self.move(engine, EngineStage.SERVING)
        engine.cylinders = cylinders
        self.cylinders += cylinders
        self._staying += not engine.retires
        self._queue(engine)

    def resize(self, engine: Engine, cylinders: int) -> None:
        """Note that an engine that takes tasks has another number of cylinders now."""
        self.cylinders += cylinders - engine.cylinders
        engine.cylinders = cylinders
        self._queue(engine)

    def move(self, engine: Engine, stage: EngineStage) -> None:
        """Note that an engine has got to another stage; `serve` is for the one that takes tasks.

        Raises ValueError for a stage that it has left behind.
        """
        if stage.value < engine.stage.value:
            raise ValueError(f"engine {engine.rank} is {engine.stage.name} and cannot be {stage.name} again")
        if engine.stage is EngineStage.SERVING:
            self.cylinders -= engine.cylinders
            self._staying -= not engine.retires
            self._holding.pop(engine.rank, None)
            self._idle.pop(engine.rank, None)
        engine.stage = stage
        if engine.can_hear:
            self._listening[engine.rank] = engine
        else:
            self._listening.pop(engine.rank, None)

    def place_for_task(self, *, may_wait: bool) -> Engine | None:
        """Engine to give the next task to: in turn those with a free cylinder, so that few tasks spread over many.

        With `may_wait` also one where the task has to wait for a moment, if no cylinder is free anywhere.
        """
        engine = self._with_room.first()
        if engine is not None:
            self._with_room.take(engine)
        elif may_wait:
            engine = self._may_hold.first()
            if engine is not None:
                self._may_hold.take(engine)
        return engine

    def give(self, engine: Engine, task_id: int, clock: float = 0.0) -> Context:
        """Note that the engine has been given a task, at that time (monotonic, s); the context that it belongs to."""
        if engine.wanting_cylinders < engine.cylinders:
            engine.prompt[task_id] = clock
        engine.tasks[task_id] = None
        engine.assigned += 1
        self._queue(engine)
        context = self.contexts[engine.context_rank]
        context.given += 1
        self._pause(context, paused=context.has_enough)
        return context

    def _pause(self, context: Context, *, paused: bool) -> None:
        """Give nothing to the engines of the context as long as it has enough; tasks that come back change that."""
        if paused is not context.paused:
            context.paused = paused
            for rank in context.engines:
                self.engines[rank].paused = paused
                self._queue(self.engines[rank])

    def is_used_up(self, context: Context) -> bool:
        """Whether the context, not dismissed yet, has been given all that it may be, and none of it can come back."""
        if context.dismissed or not context.has_enough:
            return False
        engines = (self.engines[rank] for rank in context.engines)
        return not any(engine.recalled and engine.can_hear for engine in engines)

    def take_back(self, engine: Engine, task_id: int) -> None:
        """Note that the engine has returned a task that it had not begun."""
        self.release(engine, task_id)
        engine.assigned -= 1
        context = self.contexts[engine.context_rank]
        context.given -= 1
        self._pause(context, paused=context.has_enough)

    def release(self, engine: Engine, task_id: int, elapsed: float | None = None, clock: float = 0.0) -> None:
        """Note that the engine has a task no longer; `elapsed` (s) is what it took, where it was run to its end."""
        engine.tasks.pop(task_id, None)
        given = engine.prompt.pop(task_id, None)
        if elapsed is not None:
            known = elapsed if engine.average == math.inf else engine.average
            engine.average = max(_SHORTEST, known + _WEIGHT * (elapsed - known))
            if given is not None and task_id not in engine.lingering:
                lag = min(max(0.0, clock - given - elapsed), _MOST_LAG)
                engine.lag += _WEIGHT * (lag - engine.lag) if engine.lag else lag
        engine.lingering.discard(task_id)
        self._queue(engine)

    def free_cylinder(self, engine: Engine, task_id: int) -> None:
        """Note that a task has left its cylinder, and its report is still to come."""
        if task_id in engine.tasks:
            engine.lingering.add(task_id)
            self._queue(engine)

    def cut_off(self, engine: Engine, *, cut: bool) -> None:
        """Note that the connection to an engine is broken, or is there again."""
        engine.cut = cut
        self._queue(engine)

    def recall_answered(self, engine: Engine) -> None:
        """Note that the engine has returned the tasks that it was asked for; it may hold others from now on."""
        engine.recalled = False
        self._queue(engine)

    def _queue(self, engine: Engine) -> None:
        self._with_room.add(engine)
        self._may_hold.add(engine)
        if engine.holds and engine.may_be_given:
            self._holding[engine.rank] = engine
        else:
            self._holding.pop(engine.rank, None)
        if engine.retires:
            if engine.tasks or engine.stage is not EngineStage.SERVING:
                self._idle.pop(engine.rank, None)
            else:
                self._idle[engine.rank] = engine

    def idle(self) -> list[Engine]:
        """Engines that take tasks, have none, and are not needed for what others may lose.

        None while tasks are on their way back, and not the first where no engine stays anyway: one is to be left.
        """
        spare = list(self._idle.values())[0 if self._staying else 1 :]
        # All engines are looked at only when there is one to let go, and not for every task that ends meanwhile.
        return spare if spare and not any(engine.may_lose_tasks for engine in self.engines) else []

    def to_recall(self) -> list[Engine]:
        """Engines whose waiting tasks could start elsewhere at once, and which were not asked for them yet."""
        if not self._holding or self._with_room.first() is None:
            return []
        return [engine for engine in self._holding.values() if not engine.recalled]

    @property
    def listening(self) -> ValuesView[Engine]:
        """Engines that a message can reach, in the order in which they came."""
        return self._listening.values()

    def any_left(self) -> bool:
        """Whether any engine is not GONE."""
        return any(engine.stage is not EngineStage.GONE for engine in self.engines)
