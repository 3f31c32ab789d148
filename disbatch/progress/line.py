"""What is said of a run in one line: figures, the most important first, as many as there is room for.

Pure. It must not know how a line gets onto a terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from disbatch.watch import state as run
from disbatch.watch.words import duration, number, rate, span

if TYPE_CHECKING:
    from disbatch.watch.pace import Pace
    from disbatch.watch.state import RunState

PLAIN, GOOD, BAD, FAINT = "plain", "good", "bad", "faint"
"""What a figure means, for those who have colours."""

GAP = "  "

Part = tuple[str, str]
"""A figure and its meaning."""

_OF_OTHER_PHASES = {
    run.FINISHING: "all tasks have ended, hosts leave",
    run.DRAINING: "finishing what runs",
    run.STOPPING: "ending what runs",
    run.ENDED: "ended",
}

_IN_ORDER_OF_WEIGHT = ("done", "failed", "left", "running", "rate", "waiting", "places", "phase")


def share(state: RunState) -> float | None:
    """Part of the tasks that need nothing more, from 0 to 1; None where nobody knows how many there are."""
    if not state.total:
        return None
    return min(1.0, state.ended / state.total)


def parts(state: RunState, pace: Pace) -> dict[str, Part]:
    """All figures, each under a name, in the order in which they stand in a line."""
    made = {}
    if state.phase in _OF_OTHER_PHASES:
        made["phase"] = (_OF_OTHER_PHASES[state.phase], PLAIN)
    made["done"] = (_done(state), GOOD)
    if state.failed_now:
        made["failed"] = (f"{number(state.failed_now)} failed", BAD)
    made["running"] = (f"{number(state.active)} running", PLAIN)
    may_be_more = state.total is None and state.phase == run.WORKING
    made["waiting"] = ("more to come" if may_be_more else f"{number(state.yet_to_start)} waiting", FAINT)
    made["places"] = (f"{number(state.active)}/{number(state.cylinders)} places", FAINT)
    if pace.rate is not None:
        made["rate"] = (rate(pace.rate), PLAIN)
    time_left = pace.left(state.tasks_left)
    if time_left is not None:
        made["left"] = (f"{span(*time_left)} left", PLAIN)
    elif state.phase == run.WORKING and not state.cylinders:
        made["left"] = ("no hosts yet" if not state.engines else "waiting for hosts", PLAIN)
    return made


def _done(state: RunState) -> str:
    if state.total is None:
        return f"{number(state.ended)} done"
    about = "" if state.total_is_exact else "~"
    return f"{number(state.ended)}/{about}{number(state.total)} done"


def fitting(made: dict[str, Part], width: int) -> list[Part]:
    """Those of the parts that have room side by side in so many columns: what matters less gives way."""
    kept: set[str] = set()
    room = width + len(GAP)
    for name in _IN_ORDER_OF_WEIGHT:
        if name in made:
            room -= len(made[name][0]) + len(GAP)
            if room < 0:
                break
            kept.add(name)
    return [part for name, part in made.items() if name in kept]


def sentence(state: RunState, pace: Pace, now: float) -> str:
    """All of it in plain words, for those who have no terminal."""
    figures = ", ".join(text for text, _ in parts(state, pace).values())
    return f"{figures}; {duration(now - state.started)} since the run began"
