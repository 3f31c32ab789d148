from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from disbatch.errors import ResourceError, UsageError
from disbatch.managers.base import EngineCall, Wishes
from disbatch.managers.choice import BUILT_IN, manager_of
from disbatch.managers.lsf import Lsf
from disbatch.managers.pbs import Pbs
from disbatch.managers.sge import GridEngine
from disbatch.managers.slurm import Slurm
from disbatch.managers.ssh import Ssh
from disbatch.messages import NodeOffer
from disbatch.values import SshNode
from tests.managers import JOBS
from tests.slurm.environments import ENVIRONMENTS

if TYPE_CHECKING:
    from disbatch.managers.base import Manager

CHECKOUT = Path(__file__).parents[3]

JOB = ENVIRONMENTS["sbatch -n 6"]
ENGINE = EngineCall(("python",), "script", ())

OTHER = """
class Other:
    system = "Other"
    ends_by = ("SIGTERM", "SIGQUIT", "SIGKILL")
    label = "mine"

    @classmethod
    def found_in(cls, environment):
        return "OTHER_JOB" in environment

    @classmethod
    def made_from(cls, environment, outside):
        return cls()
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which `package` puts packages that can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def package(where: Path, name: str, target: str, text: str) -> None:
    """Install a package of one module that has the entry point `name`."""
    (where / f"{target.partition(':')[0]}.py").write_text(text)
    information = where / f"{name}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[disbatch.contexts]\n{name} = {target}\n")


# What is chosen.


def test_hosts_that_are_named_are_taken_wherever_this_is() -> None:
    for environment in ({}, JOB, {"DISBATCH_SSH_NODELIST": "b:1"}, {"DISBATCH_CONTEXT": "slurm"}):
        manager = manager_of(environment, [SshNode("a", 2)])
        assert isinstance(manager, Ssh)
        assert manager.offers(Wishes()) == (NodeOffer("a", 2, 1),)


def test_hosts_of_the_environment_count_as_named() -> None:
    for environment in (JOB, {"DISBATCH_CONTEXT": "slurm"}, {"PBS_JOBID": "1"}):
        manager = manager_of({**environment, "DISBATCH_SSH_NODELIST": "b:1"}, [])
        assert manager.offers(Wishes()) == (NodeOffer("b", 1, 1),)


@pytest.mark.parametrize("missing", ["SLURM_JOB_ID", "SLURM_JOBID"])
def test_in_a_job_its_nodes_are_taken(missing: str) -> None:
    manager = manager_of({name: value for name, value in JOB.items() if name != missing}, [])
    assert isinstance(manager, Slurm)


@pytest.mark.parametrize(("name", "manager"), [("pbs", Pbs), ("lsf", Lsf), ("sge", GridEngine)])
def test_jobs_of_all_systems_are_recognised(tmp_path: Path, name: str, manager: type) -> None:
    job = next(job for job in JOBS.values() if job.system == name)
    path = tmp_path / "nodes"
    path.write_text(job.file)
    assert isinstance(manager_of(job.environment(path), []), manager)


def test_without_any_of_these_there_is_nothing_to_run_on() -> None:
    with pytest.raises(UsageError, match="no resources to run on"):
        manager_of({}, [])


def test_who_is_asked_for_by_name_comes_before_the_others() -> None:
    job = JOBS["bsub -n 6"]
    assert isinstance(manager_of({**JOB, **job.variables}, []), Slurm)
    assert isinstance(manager_of({**JOB, **job.variables, "DISBATCH_CONTEXT": "lsf"}, []), Lsf)


def test_who_is_asked_for_in_vain_is_told() -> None:
    with pytest.raises(ResourceError, match="DISBATCH_CONTEXT asks for lsf, but the environment has nothing of LSF"):
        manager_of({**JOB, "DISBATCH_CONTEXT": "lsf"}, [])
    with pytest.raises(
        UsageError, match=r"DISBATCH_CONTEXT: there is no context 'ninja' \(there are ssh, slurm, pbs, lsf, sge"
    ):
        manager_of({**JOB, "DISBATCH_CONTEXT": "ninja"}, [])


# The door.


def test_one_of_ones_own_is_found(install: Path) -> None:
    package(install, "other", "other_module:Other", OTHER)
    assert manager_of({"OTHER_JOB": "1"}, []).label == "mine"
    assert manager_of({**JOB, "OTHER_JOB": "1", "DISBATCH_CONTEXT": "other"}, []).label == "mine"
    assert isinstance(manager_of({**JOB, "OTHER_JOB": "1"}, []), Slurm)
    with pytest.raises(UsageError, match="no resources to run on"):
        manager_of({}, [])


def test_no_other_takes_the_name_of_one_of_ours(install: Path) -> None:
    package(install, "slurm", "taken_module:Other", OTHER)
    assert isinstance(manager_of({**JOB, "DISBATCH_CONTEXT": "slurm"}, []), Slurm)
    with pytest.raises(UsageError, match="no resources to run on"):
        manager_of({"OTHER_JOB": "1"}, [])


@pytest.mark.parametrize("text", ["import nowhere", "raise RuntimeError", ""])
def test_one_that_cannot_be_loaded_is_told(install: Path, text: str) -> None:
    package(install, "broken", f"broken_{len(text)}:Other", text)
    with pytest.raises(ResourceError, match=rf"cannot load the context 'broken', broken_{len(text)}:Other: "):
        manager_of({}, [])


def test_all_of_ours_enter_through_the_door() -> None:
    project = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition('[project.entry-points."disbatch.contexts"]\n')[2].partition("\n\n")[0]
    named = dict(re.findall(r'^(\w+) = "([\w.:]+)"$', section, re.MULTILINE))
    assert named == {name: f"{built_in.module}:{built_in.name}" for name, built_in in BUILT_IN.items()}


@pytest.mark.parametrize(("name", "telltale"), [(name, of) for name, ours in BUILT_IN.items() for of in ours.telltales])
def test_the_telltales_of_ours_are_those_that_they_go_by(name: str, telltale: str) -> None:
    managers: dict[str, type[Manager]] = {"ssh": Ssh, "slurm": Slurm, "pbs": Pbs, "lsf": Lsf, "sge": GridEngine}
    assert [known for known, manager in managers.items() if manager.found_in({telltale: "1"})] == [name]


IMPORTED = """
import sys
from disbatch.errors import DisbatchError
from disbatch.managers.choice import manager_of
before = set(sys.modules)
try:
    manager_of(dict(word.split("=") for word in sys.argv[1:]), [])
except DisbatchError:
    pass
print(*(set(sys.modules) - before))
"""


def imported(*environment: str) -> set[str]:
    """Modules that choosing a manager in this environment imports."""
    paths = {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
    command = [sys.executable, "-S", "-c", IMPORTED, *environment]
    return set(subprocess.run(command, env=paths, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize(
    ("environment", "module"),
    [
        (["DISBATCH_SSH_NODELIST=a:1"], set()),
        (["PBS_JOBID=1"], {"disbatch.managers.pbs"}),
        (["LSB_JOBID=1"], {"disbatch.managers.lsf"}),
        (["SGE_TASK_ID=1"], {"disbatch.managers.sge"}),
        (["SLURM_JOB_ID=1"], {"disbatch.managers.slurm"}),
        (["SLURM_JOB_ID=1", "LSB_JOBID=1", "DISBATCH_CONTEXT=lsf"], {"disbatch.managers.lsf"}),
    ],
)
def test_no_context_waits_for_the_managers_of_others(environment: list[str], module: set[str]) -> None:
    modules = imported(*environment)
    systems = {f"disbatch.managers.{name}" for name in ("slurm", "pbs", "lsf", "sge")}
    assert modules & systems == module
    assert "importlib.metadata" not in modules


def test_the_door_is_looked_through_when_nothing_else_is_left() -> None:
    assert "importlib.metadata" in imported()


# What managers ask the world.


def test_options_of_srun_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "srun options"
    path.write_text("SLURM_CPU_BIND=none\n")
    manager = manager_of({**JOB, "DISBATCH_SLURM_SRUN_OPTIONS_FILE": str(path)}, [])
    start = manager.start(NodeOffer("n1", 1, 1), ENGINE)
    assert start.environment is not None
    assert start.environment["SLURM_CPU_BIND"] == "none"
    assert "SLURM_MPI_TYPE" not in start.environment


def test_a_file_of_options_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(ResourceError, match=f"cannot read {missing}, the options of srun: No such file or directory"):
        manager_of({**JOB, "DISBATCH_SLURM_SRUN_OPTIONS_FILE": str(missing)}, [])


def test_commands_are_looked_for_on_the_path(tmp_path: Path) -> None:
    environment = {"LSB_JOBID": "1", "LSB_MCPU_HOSTS": "a 1 b 1", "PATH": f"/nowhere:{tmp_path}"}
    manager = manager_of(environment, [])
    assert manager.start(NodeOffer("b", 1, 1), ENGINE).command[0] == "ssh"
    (tmp_path / "blaunch").touch(0o644)
    assert manager.start(NodeOffer("b", 1, 1), ENGINE).command[0] == "ssh"
    (tmp_path / "blaunch").chmod(0o755)
    assert manager.start(NodeOffer("b", 1, 1), ENGINE).command[0] == "blaunch"
