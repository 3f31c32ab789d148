"""Output of any length is counted, and kept at its two ends only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.support import DISBATCH, PATIENCE, finish

if TYPE_CHECKING:
    from tests.e2e.support import Workplace

MUCH = 300_000_000

HALF_A_MEBIBYTE = 512  # KiB


def peak_memory(pid: int) -> int:
    """The most that a process has had in memory until now, in KiB."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines())
    return int(status["VmHWM"].split()[0])


def test_much_output_costs_no_memory(work: Workplace) -> None:
    flood = f"printf begin; head -c {MUCH} /dev/zero | tr '\\0' x; printf end"
    tasks = work.write(
        "tasks",
        "touch before; until [ -e go.1 ]; do sleep 0.02; done",
        f"{{ {flood}; }} & {{ {flood}; }} >&2; wait",
        "touch after; until [ -e go.2 ]; do sleep 0.02; done",
    )
    run = work.start("-s", "localhost:1", tasks.name)
    work.await_file("before")
    engine = work.engine().pid
    before = peak_memory(engine)
    work.write("go.1")
    work.await_file("after")
    grown = peak_memory(engine) - before
    work.write("go.2")
    assert finish(run, timeout=PATIENCE).returncode == 0
    (line,) = (line for line in work.status() if line.task_id == 1)
    both_ends = repr("begin" + "x" * 35 + "..." + "x" * 37 + "end")
    assert (line.out_bytes, line.out) == (MUCH + 8, both_ends)
    assert (line.err_bytes, line.err) == (MUCH + 8, both_ends)
    assert grown < 2 * HALF_A_MEBIBYTE


def test_much_output_through_a_background_process_is_counted_too(work: Workplace) -> None:
    work.run_tasks("(sleep 0.2; head -c 3000000 /dev/zero) & head -c 3000000 /dev/zero")
    assert [line.out_bytes for line in work.status()] == [6_000_000]


def test_output_left_in_the_pipe_by_a_task_that_has_ended_is_counted(work: Workplace) -> None:
    work.run_tasks(*["head -c 60000 /dev/zero; sleep 30 > /dev/null 2>&1 & exit 0"] * 5)
    assert [line.out_bytes for line in work.status()] == [60_000] * 5


def test_pipes_held_by_what_tasks_leave_behind_are_no_limit(work: Workplace) -> None:
    tasks = work.write("tasks", "#DISBATCH REPEAT 150 sleep 3 &")
    limited = ["bash", "-c", 'ulimit -Sn 200; exec "$@"', "limited"]
    done = work.run(*DISBATCH, "-e", "-s", "localhost:2", tasks.name, program=limited)
    assert done.returncode == 0
    assert len(work.status()) == 150


def test_an_endless_writer_in_the_background_holds_nothing_up(work: Workplace) -> None:
    done = work.run_tasks("yes & exit 0", "#DISBATCH BARRIER", "touch after")
    assert done.returncode == 0
    assert (work.directory / "after").exists()
    work.await_silence()
