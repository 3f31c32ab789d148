"""What the page shows: the state of a run, and what else is known of it, as objects that JSON has.

Pure. Texts that come from tasks, hosts and users are made harmless here, whatever becomes of them: no longer than they
have to be, and without a character that could move or hide others. Words are made here and not by the page, so that
they are those that the user reads elsewhere.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from disbatch.report import wording
from disbatch.report.causes import kind_of, printable
from disbatch.tasks import NO_REPEAT
from disbatch.watch import state as states
from disbatch.watch import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from disbatch.handover import RunEnd
    from disbatch.report.causes import Digest, Group
    from disbatch.watch.pace import Pace
    from disbatch.watch.state import RunningTask, RunState
    from disbatch.web.history import Moment
    from disbatch.web.search import Found

MOST_TEXT = 300
"""Characters of a command or of an output that are shown."""

MOST_RUNNING = 200
"""Tasks that run which are shown, those that run for longest."""

MOST_GROUPS = 50
"""Causes of failures that are shown, the biggest."""

_MOST_NODES = 5


def event(name: str, told: Mapping[str, Any]) -> bytes:
    """An event of that name as an event stream has it."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps(told, separators=(",", ":")).encode())


def shown(text: str, most: int = MOST_TEXT) -> str:
    """A text as it can be shown anywhere: what is not printable is escaped, what is too much is left out."""
    cut = printable(text[: most + 1])
    return cut if len(cut) <= most else f"{cut[:most]}…"


def run(state: RunState, pace: Pace) -> dict[str, Any]:
    """The head of the page: how far the run is."""
    left = pace.left(state.tasks_left)
    return {
        "job": shown(state.job),
        "host": shown(state.host),
        "version": shown(state.version),
        "words": states.PHASES.get(state.phase, shown(state.phase)),
        "time": round(state.time, 1),
        "elapsed": words.duration(state.time - state.started),
        "done": state.ended,
        "total": state.total,
        "exact": state.total_is_exact,
        "failed": state.failed,
        "running": state.active,
        "waiting": state.yet_to_start,
        "skipped": state.skipped,
        "interrupted": state.interrupted,
        "lost": state.lost,
        "rerun": state.rerun,
        "places": state.cylinders,
        "busy": _percent(state.seconds_taken, state.seconds_offered),
        "rate": words.rate(pace.rate),
        "left": None if left is None else words.span(*left),
    }


def silence(seconds: float | None) -> dict[str, Any]:
    """The driver has not answered for so many seconds; None where it does."""
    return {"time": None if seconds is None else words.duration(seconds)}


def _percent(part: float, whole: float) -> int | None:
    return round(100 * max(0.0, min(1.0, part / whole))) if whole > 0 else None


def hosts(state: RunState) -> dict[str, Any]:
    """Contexts and engines."""
    labels = {context.rank: shown(context.label, 80) for context in state.contexts}
    return {
        "time": round(state.time, 1),
        "contexts": [
            {
                "rank": context.rank,
                "label": labels[context.rank],
                "system": shown(context.system, 40),
                "gone": context.gone,
                "engines": len(context.engines),
                "assigned": context.assigned,
                "limit": context.task_limit,
            }
            for context in state.contexts
        ],
        "engines": [
            {
                "rank": engine.rank,
                "node": shown(engine.node, 80),
                "context": labels.get(engine.context_rank, ""),
                "state": shown(engine.in_words, 40),
                "gone": engine.status == states.GONE,
                "active": engine.active,
                "places": engine.cylinders,
                "assigned": engine.assigned,
                "finished": engine.finished,
                "failed": engine.failed,
                "heard": None if engine.heard is None else round(engine.heard, 1),
            }
            for engine in state.engines
        ],
    }


def running(tasks: Sequence[RunningTask], more: int, state: RunState) -> dict[str, Any]:
    """Tasks that run, those that run for longest first, and how many `more` do."""
    listed = tasks[:MOST_RUNNING]
    return {
        "time": round(state.time, 1),
        "tasks": running_tasks(listed, state),
        "more": more + len(tasks) - len(listed),
    }


def running_tasks(tasks: Iterable[RunningTask], state: RunState) -> list[dict[str, Any]]:
    """Each of these tasks, which run."""
    nodes = {engine.rank: shown(engine.node, 80) for engine in state.engines}
    return [
        {
            "task": task.task_id,
            "line": _line(task.line, task.repeat),
            "attempt": task.attempt,
            "node": nodes.get(task.engine, ""),
            "since": round(task.since, 1),
            "command": shown(task.command),
        }
        for task in tasks
    ]


def history(moments: Iterable[Moment], began: float) -> dict[str, Any]:
    """What the charts show; times are in seconds since the page `began` to look."""
    return {
        "points": [
            [round(moment.time - began, 1), float(f"{moment.rate:.3g}"), moment.active, moment.places]
            for moment in moments
        ]
    }


def ended(end: RunEnd | None) -> dict[str, Any]:
    """How the run has ended; None: its driver has gone without a word."""
    if end is None:
        return {"well": False, "words": "The driver of the run is gone, and has not said how the run ended."}
    how = "The run has ended" if end.complete else "The run has been cut short"
    return {
        "well": end.complete and not end.counts["failed"],
        "words": f"{how}: {end.words}; exit status {end.exit_status}.",
    }


def found(result: Found, still_running: Sequence[Mapping[str, Any]], unlisted: int) -> dict[str, Any]:
    """Answer to a search: tasks that run first, then those that have ended, the newest first.

    Before all others comes the task of that id, where one was searched for. `unlisted` others run, through which
    nobody has looked.
    """

    def is_other(task: Mapping[str, Any]) -> bool:
        return bool(task["task"] != result.task_id)

    tasks = [
        *({**task, "well": True, "how": "running"} for task in sorted(still_running, key=is_other)[:MOST_RUNNING]),
        *map(_ended_task, result.lines),
    ]
    return {
        "tasks": sorted(tasks, key=is_other),
        "count": len(still_running) + result.count,
        "complete": result.complete,
        "unlisted": unlisted,
    }


def _ended_task(line: Mapping[str, Any]) -> dict[str, Any]:
    def text(key: str, most: int = MOST_TEXT) -> str:
        return shown(str(line[key]), most)

    return {
        "task": line["TaskId"],
        "line": _line(line["TaskStreamIndex"], line["TaskRepIndex"]),
        "node": text("Host", 80),
        "well": line["ReturnCode"] == 0,
        "how": _how(line["ReturnCode"], line["PID"]),
        "took": words.duration(line["Elapsed"]) if isinstance(line["Elapsed"], float) else text("Elapsed"),
        "out": text("OutData"),
        "err": text("ErrData"),
        "command": text("TaskCmd"),
    }


def _how(code: object, pid: object) -> str:
    if not isinstance(code, int) or code == 0:
        return "done" if code == 0 else shown(str(code), 40)
    return wording.ended(kind_of(pid, code), code)


def _line(line: object, repeat: object) -> str:
    return f"{line}" if repeat == NO_REPEAT else f"{line}, repeat {repeat}"


def failures(digest: Digest, rerun: str, *, behind: bool) -> dict[str, Any]:
    """What failed, by cause; `behind` where more of the status file is still to be read."""
    groups = digest.groups()
    return {
        "count": digest.failed,
        "groups": [_group(group) for group in groups[:MOST_GROUPS]],
        "others": digest.others + sum(group.count for group in groups[MOST_GROUPS:]),
        "rerun": rerun,
        "behind": behind,
    }


def _group(group: Group) -> dict[str, Any]:
    example = group.example
    hosts_of = [f"{shown(node, 80)} ({words.number(count)})" for node, count in group.nodes[:_MOST_NODES]]
    more = len(group.nodes) - _MOST_NODES
    return {
        "count": group.count,
        "how": wording.ended(group.kind, group.return_code),
        "text": shown(wording.error_of(group)),
        "hosts": f"all on {shown(group.nodes[0][0], 80)}"
        if group.alone
        else ", ".join(hosts_of) + (f" and {more} more" if more > 0 else ""),
        "example": wording.place_of(example),
        "command": shown(example.command),
    }
