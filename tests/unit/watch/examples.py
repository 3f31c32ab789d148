"""Runs as those see them who watch them: made by hand, made at random, and as a driver posts them."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st

from disbatch.records import fields
from disbatch.watch.state import (
    DRAINING,
    ENDED,
    EXPECTED,
    FINISHING,
    GONE,
    LEAVING,
    RUNNING,
    STOPPING,
    WORKING,
    ContextState,
    EngineState,
    RunningTask,
    RunState,
)

BEGAN = 1_795_000_000.0
"""When these runs began, in seconds since the epoch."""


def engine(rank: int, node: str = "", context: int = 0, **different: Any) -> EngineState:  # noqa: ANN401 - any field
    known: dict[str, Any] = {
        "rank": rank, "context_rank": context, "node": node or f"h{rank}", "host": "", "pid": 4000 + rank,
        "status": RUNNING, "cut": False, "cylinders": 4, "active": 3, "assigned": 10, "finished": 7, "failed": 0,
        "came": BEGAN, "heard": BEGAN + 100,
    }  # fmt: skip
    return EngineState(**{**known, **different})


def context(
    rank: int,
    label: str = "",
    engines: tuple[int, ...] = (),
    **different: Any,  # noqa: ANN401 - any field
) -> ContextState:
    known: dict[str, Any] = {
        "rank": rank, "label": label or f"SSH{rank}", "system": "SSH", "host": "login", "pid": 3000 + rank,
        "gone": False, "engines": engines, "assigned": 0, "task_limit": 0,
    }  # fmt: skip
    return ContextState(**{**known, **different})


def run(
    *engines: EngineState,
    contexts: tuple[ContextState, ...] | None = None,
    **different: Any,  # noqa: ANN401 - any field
) -> RunState:
    """A run with these engines, 100 s after its beginning."""
    if contexts is None:
        ranks = sorted({engine.context_rank for engine in engines})
        contexts = tuple(
            context(rank, engines=tuple(engine.rank for engine in engines if engine.context_rank == rank))
            for rank in ranks
        )
    known: dict[str, Any] = {
        "job": "Tasks_disBatch_261121103000_123", "version": "0.1.0", "host": "login", "started": BEGAN,
        "time": BEGAN + 100, "phase": WORKING, "list_ended": True, "exit_status": 0, "barriers": 0,
        "cylinders": sum(engine.cylinders for engine in engines), "active": sum(engine.active for engine in engines),
        "waiting": 70, "total": 100, "total_is_exact": True, "finished": 25, "failed": 0, "failed_earlier": 0,
        "skipped": 0, "interrupted": 0, "lost": 0, "rerun": 0, "seconds_offered": 0.0, "seconds_taken": 0.0,
        "contexts": contexts, "engines": engines,
    }  # fmt: skip
    return RunState(**{**known, **different})


def large(engines: int) -> RunState:
    """A run of that many engines in two contexts."""
    return run(*(engine(rank, f"node{rank:04}", rank % 2) for rank in range(engines)))


def task(task_id: int, command: str = "./simulate", engine: int = 0, since: float = BEGAN + 90) -> RunningTask:
    return RunningTask(task_id, task_id + 1, -1, 1, engine, since, command)


# As a driver posts it.


def posted(state: RunState) -> dict[str, Any]:
    """What the driver of that run posts."""
    contexts = [named(one, system="sysid", gone="active") | {"active": not one.gone} for one in state.contexts]
    engines = [named(one, context_rank="cRank", host="hostname", came="start", heard="last") for one in state.engines]
    return {
        **named(state, list_ended="more", exit_status="currentReturnCode", active="activeCylinders"),
        "more": "No more tasks." if state.list_ended else "More tasks.",
        "contexts": {str(one["rank"]): one for one in contexts},
        "engines": {str(one["rank"]): one for one in engines},
    }


def named(state: RunState | ContextState | EngineState, **names: str) -> dict[str, Any]:
    """Fields of a record by these names, those that are not mentioned by their own."""
    return {names.get(field, field): getattr(state, field) for field in fields(state)}


# At random.

texts = st.text(max_size=30) | st.sampled_from(
    ["", "h1", "\x1b[2J", "日本語ホスト", "e\u0301", "a\u202eb", "x" * 300, "\udcff"]
)
"""Names that hosts, contexts and commands may have: whatever a hostile user can think of."""

counts = st.integers(0, 20) | st.integers()
times = st.floats(-1e12, 1e12)
"""Figures that a driver may post: whatever one of a later version, or a liar, can think of."""

engines = st.builds(
    engine,
    st.integers(0, 12),
    texts,
    st.integers(0, 4),
    host=texts,
    status=st.sampled_from([EXPECTED, RUNNING, LEAVING, GONE]) | texts,
    cut=st.booleans(),
    cylinders=counts,
    active=counts,
    assigned=counts,
    finished=counts,
    failed=counts,
    came=st.none() | times,
    heard=st.none() | times,
)
contexts = st.builds(context, st.integers(0, 4), texts, system=texts, host=texts, gone=st.booleans(), task_limit=counts)
states = st.builds(
    lambda engines, contexts, different: run(*engines, contexts=tuple(contexts), **different),
    st.lists(engines, max_size=12, unique_by=lambda engine: engine.rank),
    st.lists(contexts, max_size=4, unique_by=lambda context: context.rank),
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(["job", "version", "host"], texts),
            **dict.fromkeys(["started", "time", "seconds_offered", "seconds_taken"], times),
            **dict.fromkeys(["list_ended", "total_is_exact"], st.booleans()),
            **dict.fromkeys(["cylinders", "active", "waiting", "lost", "rerun", "exit_status", "barriers"], counts),
            **dict.fromkeys(["finished", "failed", "failed_earlier", "skipped", "interrupted"], counts),
            "phase": st.sampled_from([WORKING, FINISHING, DRAINING, STOPPING, ENDED]) | texts,
            "total": st.none() | counts,
        },
    ),
)
tasks = st.builds(task, counts, texts, st.integers(0, 12), times)
