from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from disbatch.errors import ResourceError, UsageError
from disbatch.managers.base import EngineCall, Wishes
from disbatch.managers.choice import manager_of
from disbatch.managers.slurm import Slurm
from disbatch.managers.ssh import Ssh
from disbatch.messages import NodeOffer
from disbatch.values import SshNode
from tests.slurm.environments import ENVIRONMENTS

if TYPE_CHECKING:
    from pathlib import Path

JOB = ENVIRONMENTS["sbatch -n 6"]


def test_hosts_that_are_named_are_taken_wherever_this_is() -> None:
    for environment in ({}, JOB, {"DISBATCH_SSH_NODELIST": "b:1"}):
        manager = manager_of(environment, [SshNode("a", 2)])
        assert isinstance(manager, Ssh)
        assert manager.offers(Wishes()) == (NodeOffer("a", 2, 1),)


def test_hosts_of_the_environment_count_as_named() -> None:
    manager = manager_of({**JOB, "DISBATCH_SSH_NODELIST": "b:1"}, [])
    assert manager.offers(Wishes()) == (NodeOffer("b", 1, 1),)


@pytest.mark.parametrize("missing", ["SLURM_JOB_ID", "SLURM_JOBID"])
def test_in_a_job_its_nodes_are_taken(missing: str) -> None:
    manager = manager_of({name: value for name, value in JOB.items() if name != missing}, [])
    assert isinstance(manager, Slurm)


def test_without_any_of_these_there_is_nothing_to_run_on() -> None:
    with pytest.raises(UsageError, match="no resources to run on"):
        manager_of({}, [])


def test_options_of_srun_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "srun options"
    path.write_text("SLURM_CPU_BIND=none\n")
    manager = manager_of({**JOB, "DISBATCH_SLURM_SRUN_OPTIONS_FILE": str(path)}, [])
    start = manager.start(NodeOffer("n1", 1, 1), EngineCall(("python",), "script", ()))
    assert start.environment is not None
    assert start.environment["SLURM_CPU_BIND"] == "none"
    assert "SLURM_MPI_TYPE" not in start.environment


def test_a_file_of_options_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(ResourceError, match=f"cannot read {missing}, the options of srun: No such file or directory"):
        manager_of({**JOB, "DISBATCH_SLURM_SRUN_OPTIONS_FILE": str(missing)}, [])
