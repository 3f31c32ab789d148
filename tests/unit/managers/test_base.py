from __future__ import annotations

import typing

import pytest

from disbatch.managers import base
from disbatch.managers.slurm import Slurm
from disbatch.managers.ssh import Ssh


def test_nothing_is_wished_by_default() -> None:
    assert base.Wishes() == base.Wishes(cpus_per_task=None, tasks_per_node=None, fill=False)


@pytest.mark.parametrize("manager", [Ssh, Slurm])
def test_managers_have_all_that_a_context_asks_for(manager: type) -> None:
    assert {"system", "ends_by", "offers", "conflicts", "start"} <= set(dir(manager))
    assert len(typing.cast("base.Manager", manager).ends_by) == 3
