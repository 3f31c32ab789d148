"""Each benchmark works; what it measures is of no interest here.

Not that of Slurm, which boots a cluster of its own.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import CHECKOUT

if TYPE_CHECKING:
    from tests.e2e.support import Workplace


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("throughput", "--only disbatch xargs floor --tasks 5 --slots 2 --kinds true --rounds 1", "floor"),
        ("latency", "--tasks 3 --delays 0 1 --rounds 1", "disbatch, 1 ms"),
        ("startup", "--rounds 1", "whole command"),
        ("resume", "--tasks 100 --rounds 1", "lines/s"),
        ("idle", "--seconds 0.1 --rounds 1", "keeper"),
        ("growth", "--rounds 1", "first task of an added context"),
        ("loss", "--rounds 1", "starts elsewhere"),
        ("launches", "--nodes 1,3", "last first task"),
        ("scale", "--engines 2 --cylinders 2 --tasks 1000 --seconds 0", "tasks/s"),
        ("attack", "--rounds 1 --seconds 0.2 --only wrong nonsense", "nonsense"),
        ("digest", "--failed 6 --lines 2000 --rounds 1", "2,000 lines, 2 failed"),
        ("watched", "--tasks 5 --pages 2 --rounds 1", "visitors"),
        ("store", "--idle 2 --busy 2 --seconds 0.1", "2 busy without the idle ones"),
    ],
)
def test_a_benchmark_prints_its_figures(work: Workplace, name: str, arguments: str, said: str) -> None:
    program = (sys.executable, "-m", f"benchmarks.{name}")
    done = work.run(*arguments.split(), program=program, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
