"""What has happened in a run between two looks at it that its driver has said nothing of. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disbatch.watch.state import EXPECTED, GONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disbatch.watch.state import EngineState, RunState

_MOST_NAMED = 3


def notices(before: RunState, after: RunState) -> list[str]:
    """Lines that tell of engines that have come or left, and of contexts that have ended, since `before`."""
    known = {engine.rank: engine for engine in before.engines}
    came = [engine for engine in after.engines if _is_there(engine) and not _is_there(known.get(engine.rank))]
    left = [engine for engine in after.engines if engine.status == GONE and _is_there(known.get(engine.rank))]
    there = {context.rank for context in before.contexts if not context.gone}
    said = []
    if came:
        places = sum(engine.cylinders for engine in came)
        said.append(f"{_named(came)} came, with {places} place{'s' * (places != 1)}")
    if left:
        said.append(f"{_named(left)} left")
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
