"""The state of a run at one moment, as it is posted for whoever watches.

Pure. Only the driver makes it; what it is made of is fixed by what monitors and programs of users read. Times are
seconds since the epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from disbatch.driver.fleet import EngineStage

if TYPE_CHECKING:
    from disbatch.driver.controller import Controller
    from disbatch.driver.fleet import Context, Engine, Fleet

_STATUS = {
    EngineStage.EXPECTED: "expected",
    EngineStage.WAITING: "running",
    EngineStage.STARTING: "running",
    EngineStage.SERVING: "running",
    EngineStage.LEAVING: "stopping",
    EngineStage.GONE: "stopped",
}


def state(controller: Controller, now: float) -> dict[str, Any]:
    """All that there is to know of a run, in builtin types that JSON has."""
    fleet, counts = controller.fleet, controller.counts
    return {
        "more": "No more tasks." if controller.list_ended else "More tasks.",
        "barriers": controller.barriers_passed,
        "currentReturnCode": controller.exit_status,
        "activeCylinders": sum(_active(engine) for engine in fleet.engines),
        "contexts": {context.rank: _context(context, fleet) for context in fleet.contexts},
        "engines": {engine.rank: _engine(engine) for engine in fleet.engines},
        "time": now,
        "phase": controller.phase.name.lower(),
        "cylinders": fleet.cylinders,
        "finished": counts.finished,
        "failed": counts.failed,
        "skipped": counts.skipped,
        "interrupted": counts.interrupted,
    }


def _context(context: Context, fleet: Fleet) -> dict[str, Any]:
    engines = [fleet.engines[rank] for rank in context.engines]
    return {
        "label": context.label,
        "rank": context.rank,
        "sysid": context.system,
        "nodes": [engine.node for engine in engines],
        "cylinders": [engine.cylinders for engine in engines],
        "cores_per_cylinder": [engine.cores_per_cylinder for engine in engines],
        "engines": list(context.engines),
        "host": context.host,
        "pid": context.pid,
        "active": not context.gone,
        "assigned": context.given,
        "task_limit": context.task_limit,
    }


def _engine(engine: Engine) -> dict[str, Any]:
    return {
        "rank": engine.rank,
        "cRank": engine.context_rank,
        "node": engine.node,
        "hostname": engine.host,
        "pid": engine.pid,
        "active": _active(engine),
        "assigned": engine.assigned,
        "cylinders": engine.cylinders,
        "failed": engine.failed,
        "finished": engine.finished,
        "start": engine.came,
        "status": _STATUS[engine.stage],
        "last": engine.heard,
    }


def _active(engine: Engine) -> int:
    """How many of an engine's cylinders run a task, as far as it has been heard."""
    return min(engine.wanting_cylinders, engine.cylinders)
