"""Runs, lines and requests that tests of the web page have in common."""

from __future__ import annotations

from disbatch.driver.controller import Counts
from disbatch.handover import Handover, RunEnd
from disbatch.statusfile import task_line
from disbatch.tasks import Outcome, Task
from disbatch.watch.state import GONE
from tests.unit.watch.examples import context, engine, run, task

TOKEN = "0123456789abcdef" * 4

ENGINE = engine(0, "h1", assigned=20, finished=17, failed=2)
CONTEXT = context(0, engines=(0, 1), assigned=40)
STATE = run(
    ENGINE, engine(1, "h2", status=GONE, active=0), contexts=(CONTEXT,), active=7, waiting=3, total=200, finished=30,
    failed=4, skipped=10, seconds_offered=800.0, seconds_taken=600.0,
)  # fmt: skip
RUNNING = task(31, "sleep 31")
END = RunEnd(
    exit_status=0, complete=True, words="200 tasks finished, 4 failed",
    counts=vars(Counts(finished=200, failed=4)),
)  # fmt: skip
HANDOVER = Handover(TOKEN, ["login"], everywhere=False, secret="of operators", rerun="disbatch -R Tasks")


def line(task_id: int, command: bytes = b"true", return_code: int = 0, err: bytes = b"", node: str = "h1") -> bytes:
    """Line of a status file."""
    outcome = Outcome(
        pid=4711, return_code=return_code, start=1000.0, elapsed=1.5, out_bytes=0, out_snippet=b"", err_bytes=len(err),
        err_snippet=err, cpu_seconds=0.1, peak_memory=1000, interrupted=False,
    )  # fmt: skip
    return task_line(Task(task_id, task_id + 1, -1, command), node, outcome)
