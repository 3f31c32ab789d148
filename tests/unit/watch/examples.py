"""States of a run for the tests of those who watch it."""

from __future__ import annotations

import json
from typing import Any

from disbatch.watch.state import RunState, read_state


def engine(rank: int = 0, **other: Any) -> dict[str, Any]:  # noqa: ANN401 - as the driver posts them
    """An engine as the driver posts it."""
    made: dict[str, Any] = {
        "rank": rank,
        "cRank": 0,
        "node": f"h{rank}",
        "hostname": f"h{rank}.example",
        "pid": 100 + rank,
        "active": 2,
        "assigned": 12,
        "cylinders": 4,
        "failed": 1,
        "finished": 10,
        "start": 1000.0,
        "status": "running",
        "cut": False,
        "last": 1100.0,
    }
    return made | other


def context(rank: int = 0, *engines: int, **other: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    """A context as the driver posts it."""
    made: dict[str, Any] = {
        "label": f"SSH{rank}",
        "rank": rank,
        "sysid": "SSH",
        "nodes": [f"h{number}" for number in engines],
        "cylinders": [4 for _ in engines],
        "cores_per_cylinder": [1 for _ in engines],
        "engines": list(engines),
        "host": "login",
        "pid": 99,
        "active": True,
        "assigned": 12,
        "task_limit": 0,
    }
    return made | other


def posted(**other: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    """A run as the driver posts it, with one engine."""
    made: dict[str, Any] = {
        "job": "Tasks_1",
        "version": "1.0",
        "host": "login",
        "started": 990.0,
        "more": "No more tasks.",
        "barriers": 0,
        "currentReturnCode": 0,
        "activeCylinders": 2,
        "contexts": {"0": context(0, 0)},
        "engines": {"0": engine(0)},
        "time": 1100.0,
        "phase": "working",
        "cylinders": 4,
        "finished": 10,
        "failed": 1,
        "skipped": 0,
        "interrupted": 0,
        "failed_earlier": 0,
        "lost": 0,
        "rerun": 0,
        "waiting": 28,
        "total": 40,
        "total_is_exact": True,
        "seconds_offered": 400.0,
        "seconds_taken": 300.0,
    }
    return made | other


def state(**other: Any) -> RunState:  # noqa: ANN401 - as above
    """The same, read."""
    return read_state(json.loads(json.dumps(posted(**other))))


def with_engines(*engines: dict[str, Any], **other: Any) -> RunState:  # noqa: ANN401 - as above
    """A run with these engines."""
    return state(engines={str(one["rank"]): one for one in engines}, **other)
