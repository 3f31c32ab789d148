"""Runs, lines and requests that tests of the web page have in common."""

from __future__ import annotations

from disbatch.handover import Handover, RunEnd
from disbatch.records import replace
from disbatch.statusfile import task_line
from disbatch.tasks import Outcome, Task
from disbatch.watch.state import ContextState, EngineState, RunningTask, RunState

TOKEN = "0123456789abcdef" * 4

ENGINE = EngineState(
    rank=0,
    context_rank=0,
    node="h1",
    host="h1.example.org",
    pid=17,
    status="running",
    cut=False,
    cylinders=4,
    active=3,
    assigned=20,
    finished=17,
    failed=2,
    came=1000.0,
    heard=1099.0,
)
CONTEXT = ContextState(
    rank=0, label="SSH0", system="SSH", host="login", pid=16, gone=False, engines=(0, 1), assigned=40, task_limit=0
)
STATE = RunState(
    job="run",
    version="0.1.0",
    host="login",
    started=1000.0,
    time=1100.0,
    phase="working",
    list_ended=False,
    exit_status=0,
    barriers=0,
    cylinders=8,
    active=7,
    waiting=3,
    total=200,
    total_is_exact=True,
    finished=30,
    failed=4,
    failed_earlier=0,
    skipped=10,
    interrupted=0,
    lost=0,
    rerun=0,
    seconds_offered=800.0,
    seconds_taken=600.0,
    contexts=(CONTEXT,),
    engines=(ENGINE, replace(ENGINE, rank=1, node="h2", status="stopped", active=0)),
)
RUNNING = RunningTask(task_id=31, line=32, repeat=-1, attempt=1, engine=0, since=1090.0, command="sleep 31")
END = RunEnd(
    exit_status=0, complete=True, words="200 tasks finished, 4 failed", finished=200, failed=4, skipped=0,
    interrupted=0, lost=0, rerun=0,
)  # fmt: skip
HANDOVER = Handover(TOKEN, ("login",), everywhere=False, secret="of operators", rerun="disbatch -R Tasks")


def line(task_id: int, command: bytes = b"true", return_code: int = 0, err: bytes = b"", node: str = "h1") -> bytes:
    """Line of a status file."""
    outcome = Outcome(
        pid=4711, return_code=return_code, start=1000.0, elapsed=1.5, out_bytes=0, out_snippet=b"", err_bytes=len(err),
        err_snippet=err, cpu_seconds=0.1, peak_memory=1000, interrupted=False,
    )  # fmt: skip
    return task_line(Task(task_id, task_id + 1, -1, command), node, outcome)
