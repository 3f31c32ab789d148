"""disbatch in jobs of a real Grid Engine."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import CHECKOUT

if TYPE_CHECKING:
    from tests.e2e.support import Workplace
    from tests.gridengine import GridEngineCell

pytestmark = pytest.mark.gridengine

DISBATCH = f"PYTHONPATH={shlex.quote(str(CHECKOUT))} {shlex.quote(sys.executable)} -m disbatch"

THREE_SLOTS = ("-pe", "mpi", "3")


def run(cell: GridEngineCell, work: Workplace, script: str) -> list[str]:
    """Run a job with three slots on two nodes; the lines that it has printed."""
    return cell.job(script, *THREE_SLOTS, cwd=work.directory, env=work.environment).splitlines()


def test_tasks_fill_all_slots_of_a_job(grid_engine: GridEngineCell, work: Workplace) -> None:
    work.directory /= 'it\'s a "$place"'
    work.directory.mkdir()
    meet = "touch met.$DISBATCH_TASKID; until [ $(ls -d met.* | wc -l) = 3 ]; do sleep 0.02; done"
    work.write("tasks", *[f"{meet}; echo $(hostname) $MINE"] * 3)
    printed = run(grid_engine, work, f"export MINE=too; cat $PE_HOSTFILE; {DISBATCH} tasks; echo $?")
    slots = {line.split()[0]: int(line.split()[1]) for line in printed[:2]}
    assert set(slots) == {"n1", "n2"}
    assert printed[-1] == "0"
    shown = [(node, rf"'{node} too\n'") for node in sorted(slots) for _ in range(slots[node])]
    assert sorted((line.node, line.out) for line in work.status()) == shown
    assert len(list(work.directory.glob("tasks_disBatch_*_J*.context.log"))) == 1


def test_the_secret_of_the_run_is_in_no_file_of_grid_engine(grid_engine: GridEngineCell, work: Workplace) -> None:
    work.write("tasks", "find $SGE_ROOT/spool -name environment -exec grep -c MARK_OF {} + -exec grep KVSSTCP {} +")
    assert run(grid_engine, work, f"{DISBATCH} tasks; echo $?")[-1] == "0"
    (line,) = work.status()
    assert line.out_bytes > 0
    assert "KVSSTCP" not in line.out


def test_a_signal_ends_all_tasks_in_order(grid_engine: GridEngineCell, work: Workplace) -> None:
    work.write("tasks", *["touch begun.$DISBATCH_TASKID; sleep 300; true"] * 3)
    wait = "until [ -e begun.0 -a -e begun.1 -a -e begun.2 ]; do sleep 0.05; done"
    printed = run(grid_engine, work, f"{DISBATCH} tasks & {wait}; kill $!; wait $!; echo $?")
    assert printed[-1] == "143"
    assert {(line.flags, line.return_code) for line in work.status()} == {("R  Z", -15)}


def test_an_engine_that_is_killed_does_not_end_the_job(grid_engine: GridEngineCell, work: Workplace) -> None:
    end_keeper = "if mkdir once 2> /dev/null; then kill -9 $(ps -o ppid= -p $PPID); sleep 300; fi"
    task = f"[ $(hostname) = $HERE ] || {{ {end_keeper}; }}; until [ -e once ]; do sleep 0.05; done; sleep 1"
    work.write("tasks", *[task] * 8)
    printed = run(grid_engine, work, f"export HERE=$(hostname); {DISBATCH} tasks; echo $?; sleep 3; echo still here")
    assert printed[-2:] == ["0", "still here"], printed
    assert len({line.task_id for line in work.status() if line.return_code == 0}) == 8
