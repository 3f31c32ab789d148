"""Runs under random failures, some of all that `make chaos` performs, and those that have shown a mistake once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos import harness
from tests.chaos.schedule import make_schedule
from tests.chaos.seeds import EACH_TIME, ONCE_FAILED
from tests.hosts import not_here, why_no_hosts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("seed", [*EACH_TIME, *(seed for seed in ONCE_FAILED if seed not in EACH_TIME)])
def test_nothing_is_lost_or_doubled_whatever_happens(seed: int, tmp_path: Path) -> None:
    if reason := why_no_hosts():
        not_here(reason)
    directory = tmp_path / "chaos"
    wrongs = harness.perform(seed, directory)
    told = "\n".join([str(make_schedule(seed, harness.READY)), f"see {directory}", *wrongs])
    assert not wrongs, told
