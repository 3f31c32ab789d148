"""What has happened in a run between two looks at it that its driver has said nothing of. Pure.

The driver itself tells of engines that it gives up, and, in a run that ends, of those that it has to wait for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from disbatch.watch.state import EXPECTED, GONE, WORKING
from disbatch.watch.words import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disbatch.watch.state import EngineState, RunState

_MOST_NAMED = 3


def notices(before: RunState, after: RunState) -> list[str]:
    """Lines that tell of engines that have come, left, or lost their connection, and of contexts that have ended."""
    known = {engine.rank: engine for engine in before.engines if _is_there(engine)}
    cut_before = {engine.rank for engine in known.values() if engine.cut}
    there_now = [engine for engine in after.engines if _is_there(engine)]
    came = [engine for engine in there_now if engine.rank not in known]
    # One that is cut off has not left: the driver has given it up.
    left = [engine for engine in after.engines if engine.status == GONE and engine.rank in known and not engine.cut]
    cut = [engine for engine in there_now if engine.cut and engine.rank not in cut_before]
    back = [engine for engine in there_now if not engine.cut and engine.rank in cut_before]
    there = {context.rank for context in before.contexts if not context.gone}
    said = []
    if came:
        places = sum(engine.cylinders for engine in came)
        said.append(f"{_named(came)} came, with {places} place{'s' * (places != 1)}")
    if left:
        said.append(f"{_named(left)} left")
    if cut and after.phase == WORKING:
        tasks = sum(engine.active for engine in cut)
        what = "1 task runs" if tasks == 1 else f"{number(tasks)} tasks run"
        said.append(
            f"lost the connection to {_named(cut)}, where {what}; waiting for {'it' if len(cut) == 1 else 'them'}"
        )
    if back:
        said.append(f"{_named(back)} {'is' if len(back) == 1 else 'are'} connected again")
    said += [
        f"context {context.label} has ended" for context in after.contexts if context.gone and context.rank in there
    ]
    return said


def _is_there(engine: EngineState | None) -> bool:
    return engine is not None and engine.status not in (EXPECTED, GONE)


def _named(engines: Sequence[EngineState]) -> str:
    names = [engine.node for engine in engines]
    if len(names) == 1:
        return f"the engine on {names[0]}"
    if len(names) <= _MOST_NAMED:
        return f"the engines on {', '.join(names[:-1])} and {names[-1]}"
    return f"{len(names)} engines ({', '.join(names[: _MOST_NAMED - 1])}, ...)"
