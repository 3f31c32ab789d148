"""What a run is to do and what is to happen to it, made of a seed.

Pure: the same seed gives the same schedule, on any machine and with any Python. It must not know how anything of it is
performed. Other seeds give other schedules when this file changes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

T = TypeVar("T")

FEATURES = ("kills", "driver", "stops", "additions", "cuts", "resets", "freezes", "delays", "disk")
"""Kinds of what may happen."""

LOGIN = "login"
"""Host of the driver."""

HOSTS = ("h1", "h2", "h3")

HEARTBEAT, PATIENCE = 0.5, 3.0
"""Seconds: the options --heartbeat and --heartbeat-patience of all runs."""

FIRST, LAST = 0.0, 5.0
"""Seconds after the first command has begun within which something happens."""

REST = PATIENCE + 1.5
"""Seconds after something has happened to a host, in which it is let alone: nobody survives everything at once."""

WORK = 5_000
"""Milliseconds of work for each core, about."""

SHORTEST = 100
"""Milliseconds that a task takes at least, about, on a machine that has much to do."""


@dataclass(frozen=True)
class Work:
    """A line of the task file, which makes `count` tasks (a REPEAT where that is not 1). See `attempt` for manners."""

    milliseconds: int
    manner: str
    count: int = 1


@dataclass(frozen=True)
class Wall:
    """A barrier."""

    check: bool


@dataclass(frozen=True)
class Event:
    """Something that happens to `target`, `at` seconds after the first command; undone after `lasts`, if not 0."""

    at: float
    action: str
    target: str
    how: str = ""
    lasts: float = 0.0

    def __str__(self) -> str:
        words = " ".join(word for word in (self.action, self.target, self.how) if word)
        return f"{self.at:5.2f} s: {words}" + (f" for {self.lasts:.2f} s" if self.lasts else "")


@dataclass(frozen=True)
class Schedule:
    """A run, over hosts with so many cores each, and what happens to it."""

    seed: int
    cores: tuple[tuple[str, int], ...]
    items: tuple[Work | Wall, ...]
    per_engine: bool
    exit_code: bool
    events: tuple[Event, ...]

    def __str__(self) -> str:
        return "\n".join(
            [
                f"seed {self.seed}: -s {self.node_list}{' -e' * self.exit_code}",
                *(f"    {event}" for event in self.events),
            ]
        )

    @property
    def node_list(self) -> str:
        """Value of the option -s."""
        return ",".join(f"{host}:{cores}" for host, cores in self.cores)


@dataclass(frozen=True)
class TaskPlan:
    """What is known of a task beforehand; tasks below `since` have ended when it starts."""

    task_id: int
    line: int
    repeat_index: int
    manner: str
    since: int


@dataclass(frozen=True)
class TaskList:
    """A task file, the tasks in it by id, and the ids of its barriers with whether they check."""

    text: str
    tasks: Mapping[int, TaskPlan]
    barriers: Mapping[int, bool]


def task_list(schedule: Schedule) -> TaskList:
    """Task file of a schedule; its tasks are run in the directory in which `attempt` is."""
    lines = [f"#DISBATCH PERENGINE {phase.upper()} exec ./attempt 30 {phase} 0" for phase in ("start", "stop")]
    lines = lines if schedule.per_engine else ["# no commands for engines"]
    tasks: dict[int, TaskPlan] = {}
    barriers: dict[int, bool] = {}
    task_id = since = 0
    for item in schedule.items:
        if isinstance(item, Wall):
            lines.append(f"#DISBATCH BARRIER{' CHECK' * item.check}")
            barriers[task_id] = item.check
            task_id += 1
            since = task_id
            continue
        arguments = f"./attempt {item.milliseconds} {item.manner} {since}"
        command = f"{arguments}; exit $?" if item.manner == "below-bash" else f"exec {arguments}"
        repeats = item.count != 1
        lines.append(f"#DISBATCH REPEAT {item.count} start 3 step 2 {command}" if repeats else command)
        for number in range(item.count):
            repeat_index = 3 + 2 * number if repeats else -1
            tasks[task_id] = TaskPlan(task_id, len(lines), repeat_index, item.manner, since)
            task_id += 1
    return TaskList("".join(f"{line}\n" for line in lines), tasks, barriers)


class _Dice:
    """Random choices, made of nothing but `random()`, which no version of Python gives other values for a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"disbatch {seed}")  # noqa: S311 - no secret is made of it

    def between(self, low: float, high: float) -> float:
        return round(low + (high - low) * self._random.random(), 2)

    def number(self, low: int, high: int) -> int:
        """From `low` to `high`, both included."""
        return low + int((high - low + 1) * self._random.random())

    def chance(self, share: float) -> bool:
        return self._random.random() < share

    def one(self, choices: Sequence[T]) -> T:
        return choices[self.number(0, len(choices) - 1)]

    def weighted(self, weights: Mapping[str, int]) -> str:
        point = self._random.random() * sum(weights.values())
        for choice, weight in weights.items():
            point -= weight
            if point < 0:
                return choice
        return next(iter(weights))


def make_schedule(seed: int, features: Sequence[str]) -> Schedule:
    """Schedule of a seed, in which nothing happens but of these kinds."""
    dice = _Dice(seed)
    hosts = HOSTS if dice.chance(0.5) or "additions" not in features else HOSTS[:2]
    cores = [(host, dice.number(1, 2)) for host in hosts]
    if dice.chance(0.2):
        cores.append(("localhost", 1))
    items = tuple(_items(dice, WORK * sum(count for _, count in cores)))
    return Schedule(
        seed,
        tuple(cores),
        items,
        per_engine=dice.chance(0.6),
        exit_code=dice.chance(0.3),
        events=tuple(_Happenings(dice, features, hosts).events()),
    )


MANNERS = {
    "plain": 45,
    "fails": 8,
    "stubborn": 15,
    "leaves-child": 6,
    "leaves-daemon": 6,
    "leaves-holder": 4,
    "prints": 6,
    "below-bash": 8,
}
"""How often which kind of task comes."""


def _items(dice: _Dice, work: int) -> Iterator[Work | Wall]:
    """Lines of a task file with so much to do: groups with barriers between. Before a CHECK nothing fails for good."""
    group_size = dice.one((10, 25, 1000))
    check_may_fail = dice.chance(0.3)
    while True:
        check = dice.chance(0.4)
        for _ in range(dice.number(1, group_size)):
            manner = dice.weighted(MANNERS)
            if manner == "fails" and check:
                manner = "fails-once" if check_may_fail else "plain"
            count = dice.number(2, 5) if dice.chance(0.1) else 1
            milliseconds = _duration(dice)
            yield Work(milliseconds, manner, count)
            work -= count * max(milliseconds, SHORTEST)
            if work <= 0:
                return
        yield Wall(check)


def _duration(dice: _Dice) -> int:
    longest = int(dice.weighted({"0": 20, "100": 20, "500": 25, "2000": 25, "4000": 10}))
    return dice.number(longest // 4, longest)


class _Happenings:
    """Draws events, such that a run can survive them, resumed where its driver or all of its engines have gone."""

    def __init__(self, dice: _Dice, features: Sequence[str], hosts: Sequence[str]) -> None:
        self._dice = dice
        self._features = features
        self._in_use = list(hosts)
        self._rested = dict.fromkeys((*HOSTS, "driver", "network", "disk", "contexts"), 0.0)
        self._without_power: set[str] = set()
        self._added = 0

    def events(self) -> list[Event]:
        """Some events, in the order of their times."""
        if not self._features:
            return []
        times = sorted(self._dice.between(FIRST, LAST) for _ in range(self._dice.number(3, 8)))
        drawn = [self._draw(at) for at in times]
        return [event for event in drawn if event is not None]

    def _draw(self, at: float) -> Event | None:
        weights = {
            "kills": 6,
            "driver": 2,
            "stops": 3,
            "additions": 3,
            "cuts": 5,
            "resets": 3,
            "freezes": 4,
            "delays": 2,
            "disk": 2,
        }
        kind = self._dice.weighted({name: weights[name] for name in FEATURES if name in self._features})
        makers = {
            "kills": self._kill,
            "driver": self._driver,
            "stops": self._stop,
            "additions": self._addition,
            "cuts": self._cut,
            "resets": self._reset,
            "freezes": self._freeze,
            "delays": self._delay,
            "disk": self._disk,
        }
        return makers[kind](at)

    def _host(self, at: float, lasts: float = 0.0, also: str = "") -> str | None:
        """A host that has had its rest, and nothing has happened lately to `also`; both are busy from then on."""
        if also and not self._take(also, at, lasts):
            return None
        free = [host for host in self._in_use if self._rested[host] <= at and host not in self._without_power]
        if not free:
            return None
        host = self._dice.one(free)
        self._take(host, at, lasts)
        return host

    def _take(self, what: str, at: float, lasts: float = 0.0) -> bool:
        """Whether it has had its rest; it is busy from then on."""
        if self._rested[what] > at:
            return False
        self._rested[what] = at + lasts + REST
        return True

    def _kill(self, at: float) -> Event | None:
        kind = self._dice.weighted({"engine": 8, "keeper": 4, "launcher": 3, "node": 3, "power": 1, "context": 3})
        signal = self._dice.one(("KILL", "KILL", "TERM"))
        if kind == "context":
            return self._of_context(at, "kill", signal)
        host = self._host(at)
        if host is None:
            return None
        if kind == "power":
            if self._without_power:
                return None
            self._without_power.add(host)
            return Event(at, "power-off", host)
        return Event(at, "kill", f"{kind} {host}", "KILL" if kind == "node" else signal)

    def _of_context(self, at: float, action: str, how: str, lasts: float = 0.0) -> Event | None:
        number = self._dice.number(0, self._added)
        return Event(at, action, f"context {number}", how, lasts) if self._take("contexts", at, lasts) else None

    def _driver(self, at: float) -> Event | None:
        signal = self._dice.one(("KILL", "KILL", "TERM", "INT"))
        return Event(at, "kill", "driver", signal) if self._take("driver", at) else None

    def _stop(self, at: float) -> Event | None:
        how = self._dice.one(("", "now"))
        if self._dice.chance(0.3):
            return self._of_context(at, "stop", how)
        host = self._host(at)
        return None if host is None else Event(at, "stop", f"engine {host}", how)

    def _addition(self, at: float) -> Event | None:
        free = [host for host in HOSTS if self._rested[host] <= at and host not in self._without_power]
        if not free or self._rested["disk"] > at:
            return None
        self._added += 1
        host = self._dice.one(free)
        self._in_use += [host] * (host not in self._in_use)
        return Event(at, "add", host, self._dice.one(("from login", "from there")))

    def _cut(self, at: float) -> Event | None:
        lasts = self._dice.between(0.2, 1.5) if self._dice.chance(0.5) else self._dice.between(4.0, 6.0)
        direction = self._dice.one(("both ways", "both ways", "in", "out"))
        if self._dice.chance(0.15):
            return Event(at, "cut", LOGIN, direction, lasts) if self._all_hosts(at, lasts) else None
        host = self._host(at, lasts)
        return None if host is None else Event(at, "cut", host, direction, lasts)

    def _all_hosts(self, at: float, lasts: float) -> bool:
        if any(self._rested[host] > at for host in HOSTS):
            return False
        for host in HOSTS:
            self._take(host, at, lasts)
        return True

    def _reset(self, at: float) -> Event | None:
        side = self._dice.one(("seen here", "seen there"))
        what = self._dice.one(("engine", "engine", "ssh"))
        host = self._host(at)
        return None if host is None else Event(at, "reset", f"{what} {host}", side)

    def _freeze(self, at: float) -> Event | None:
        what = self._dice.weighted({"engine": 4, "keeper": 2, "node": 3, "driver": 2, "context": 2})
        long = self._dice.chance(0.4)
        lasts = self._dice.between(4.0, 5.0) if long else self._dice.between(0.2, 1.5)
        if what == "driver":
            return Event(at, "freeze", "driver", "", lasts) if self._take("driver", at, lasts) else None
        if what == "context":
            return self._of_context(at, "freeze", "", lasts)
        host = self._host(at, lasts)
        return None if host is None else Event(at, "freeze", f"{what} {host}", "", lasts)

    def _delay(self, at: float) -> Event | None:
        seconds = self._dice.between(0.02, 0.3)
        lasts = self._dice.between(2.0, 4.0)
        host = self._host(at, lasts)
        return None if host is None else Event(at, "delay", host, f"{seconds}", lasts)

    def _disk(self, at: float) -> Event | None:
        lasts = self._dice.between(0.3, 3.0)
        return Event(at, "fill", "disk", "", lasts) if self._take("disk", at, lasts) else None
