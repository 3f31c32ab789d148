"""The state of a run, once: as text for people, or as JSON for scripts.

Pure. It must not know how the state is got.
"""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

from disbatch.monitor import render
from disbatch.monitor.model import rows_of
from disbatch.records import astuple, fields
from disbatch.watch.pace import Pace

if TYPE_CHECKING:
    from typing import Any

    from disbatch.watch.state import ContextState, EngineState, RunState

WIDTH = 80

OVER = "Run done"
"""What people are told of a run that is over, and by `--stop` too."""

STARTING = "the run has just begun, and nothing is known of it yet"


def pace(state: RunState, now: float) -> tuple[float | None, tuple[float, float] | None]:
    """Tasks in a second on the average of the run, and seconds that it may still take at that rate."""
    average = Pace()
    average.note(state.started, 0)
    average.note(max(now, state.time), state.finished)
    return average.rate, average.left(state.tasks_left)


def text(state: RunState | None, now: float, *, unicode: bool = True) -> str:
    """The state of a run for people, as lines; `now` is in seconds since the epoch."""
    if state is None:
        return STARTING
    rate, left = pace(state, now)
    average = {engine.rank: _average(engine, max(now, state.time)) for engine in state.engines}
    known = {rank: rate for rank, rate in average.items() if rate is not None}
    summary = render.summary(state, WIDTH, elapsed=render.elapsed(state, now), rate=rate, left=left, unicode=unicode)
    table = [
        render.heading(WIDTH, unicode=unicode),
        *(render.row_line(row, WIDTH, now, unicode=unicode) for row in rows_of(state, known)),
    ]
    lines = [part for line in summary for part in textwrap.wrap(render.plain(line), WIDTH)]
    lines += ["", *map(render.plain, table)]
    return "\n".join(lines)


def _average(engine: EngineState, now: float) -> float | None:
    if engine.came is None or now <= engine.came:
        return None
    return engine.finished / (now - engine.came)


def as_json(state: RunState | None, now: float) -> str:
    """The state of a run for scripts: one line."""
    if state is None:
        return json.dumps({"phase": "starting"})
    rate, left = pace(state, now)
    found = {
        **_as_dict(state),
        "done": state.ended,
        "elapsed": render.elapsed(state, now),
        "rate": rate,
        "seconds_left": None if left is None else list(left),
        "contexts": [_as_dict(context) for context in state.contexts],
        "engines": [_as_dict(engine) for engine in state.engines],
    }
    return json.dumps(found)


OVER_JSON = json.dumps({"phase": "ended"})
"""What scripts are told of a run that is over."""


def _as_dict(state: RunState | ContextState | EngineState) -> dict[str, Any]:
    return dict(zip(fields(state), astuple(state), strict=True))
