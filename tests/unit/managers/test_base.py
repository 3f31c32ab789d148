from __future__ import annotations

import shlex
import typing

import pytest

from disbatch.managers import base
from disbatch.managers.lsf import Lsf
from disbatch.managers.pbs import Pbs
from disbatch.managers.sge import GridEngine
from disbatch.managers.slurm import Slurm
from disbatch.managers.ssh import Ssh


def test_nothing_is_wished_by_default() -> None:
    assert base.Wishes() == base.Wishes(cpus_per_task=None, tasks_per_node=None, fill=False)


@pytest.mark.parametrize("manager", [Ssh, Slurm, Pbs, Lsf, GridEngine])
def test_managers_have_all_that_a_context_asks_for(manager: type) -> None:
    assert {"system", "ends_by", "found_in", "made_from", "offers", "conflicts", "start"} <= set(dir(manager))
    assert len(typing.cast("base.Manager", manager).ends_by) == 3


def test_what_travels_to_where_the_script_starts_an_engine_holds_no_secret() -> None:
    assert base.for_script({"HOME": "/root", "KVSSTCP_SECRET": "s3cret"}) == {"HOME": "/root"}


def test_an_engine_is_called_in_words_or_in_a_line() -> None:
    engine = base.EngineCall(("python", "-m", "disbatch"), "/a b/script", ("--rank=1", "--label=it's"))
    assert engine.in_place() == ("python", "-m", "disbatch", "--rank=1", "--label=it's")
    assert engine.elsewhere() == ("/a b/script", "--engine", "--rank=1", "--label=it's")
    assert tuple(shlex.split(engine.line())) == engine.elsewhere()
