"""The state of a run at one moment, as it is posted for whoever watches.

Pure. Only the driver makes it; what it is made of is fixed by what monitors and programs of users read. Times are
seconds since the epoch.
"""

from __future__ import annotations

from heapq import nsmallest
from typing import TYPE_CHECKING, Any

from disbatch.driver.fleet import EngineStage
from disbatch.records import record

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

MOST_RUNNING = 1000
"""Tasks that are told of those that run now, at most: those that run for longest."""

_MOST_TEXT = 200
"""Characters of a command that are told."""


@record
class Run:
    """What is known of a run from its beginning: its name, the version of its driver, where it runs, and since when."""

    job: str
    version: str
    host: str
    started: float


def state(run: Run, controller: Controller, unread: float | None, now: float) -> dict[str, Any]:
    """All that there is to know of a run, in builtin types that JSON has.

    `unread` is how many tasks are still to be read, None if nobody knows.
    """
    fleet, counts = controller.fleet, controller.counts
    known = counts.finished + counts.skipped + counts.interrupted + controller.unfinished
    return {
        "job": run.job,
        "version": run.version,
        "host": run.host,
        "started": run.started,
        "more": "No more tasks." if controller.list_ended else "More tasks.",
        "barriers": controller.barriers_passed,
        "currentReturnCode": controller.exit_status,
        "activeCylinders": sum(_active(engine) for engine in fleet.engines),
        "contexts": {context.rank: _context(context, fleet) for context in fleet.contexts},
        "engines": {engine.rank: _engine(engine) for engine in fleet.engines},
        "time": now,
        "phase": controller.phase.name.lower(),
        "cylinders": fleet.cylinders + sum(map(_last_places, fleet.engines)),
        "finished": counts.finished,
        "failed": counts.failed,
        "skipped": counts.skipped,
        "interrupted": counts.interrupted,
        "failed_earlier": counts.failed_earlier,
        "lost": counts.lost,
        "rerun": counts.rerun,
        "waiting": controller.waiting,
        "total": known if controller.list_ended else None if unread is None else known + round(unread),
        "total_is_exact": controller.list_ended,
        "seconds_offered": controller.use.offered,
        "seconds_taken": controller.use.taken,
    }


def running(controller: Controller, rank: int | None, now: float) -> dict[str, Any]:
    """What runs now, on the engine of that rank or on all, in builtin types that JSON has."""
    found = controller.running(rank)
    told = nsmallest(MOST_RUNNING, found, key=lambda task: task[0])
    return {
        "time": now,
        "tasks": [
            {
                "task": task.task_id,
                "line": task.stream_index,
                "repeat": task.repeat_index,
                "attempt": task.attempt,
                "engine": engine,
                "since": since,
                "command": task.command[: 4 * _MOST_TEXT].decode(errors="replace")[:_MOST_TEXT],
            }
            for since, engine, task in told
        ],
        "more": len(found) - len(told),
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
        "cut": engine.cut,
        "last": engine.heard,
    }


def _active(engine: Engine) -> int:
    """How many of an engine's cylinders run a task, as far as it has been heard."""
    return min(engine.wanting_cylinders, engine.cylinders)


def _last_places(engine: Engine) -> int:
    """Cylinders of an engine that leaves and runs tasks still."""
    return engine.cylinders if engine.stage is EngineStage.LEAVING and engine.wanting_cylinders else 0
