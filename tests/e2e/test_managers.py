"""disbatch in jobs of PBS, LSF and Grid Engine: environments and launch commands are stand-ins, all else is real.

Of Grid Engine there is a real one in `test_gridengine.py`, where the machine can have it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import CHECKOUT, PATIENCE, eventually, finish
from tests.e2e.test_slurm import MEET
from tests.managers import JOBS, LAUNCHERS, install

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.support import Workplace

PAGE = CHECKOUT / "docs" / "how-to" / "resource-managers.md"

MULTI_NODE = {
    "qsub -l select=2:ncpus=2:mpiprocs=2": "pbsdsh",
    "bsub -n 3, the host file alone": "blaunch",
    "qsub -pe mpi 3": "qrsh",
}
"""Jobs of two nodes, and the command that starts processes on the second."""

SHOW = "echo ${STAND_IN_NODE-here}"


class Site:
    """A machine that is in a job: its node file, and launch commands first on PATH."""

    def __init__(self, work: Workplace, job: str, *launchers: str) -> None:
        self.work = work
        self.job = JOBS[job]
        self.tools = work.directory.parent / f"{work.directory.name} tools"
        path = install(self.tools, launchers)
        nodes = self.tools / "nodes"
        nodes.write_text(self.job.file, encoding="utf-8")
        self.environment = {**self.job.environment(nodes), "PATH": path}

    @property
    def launched(self) -> list[str]:
        """Commands that have started something, each with the node."""
        path = self.tools / "launched"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    @property
    def slots(self) -> int:
        return sum(cores for _, cores in self.job.laid_out)


@pytest.mark.parametrize(("job", "launcher"), MULTI_NODE.items())
def test_tasks_fill_all_nodes_of_a_job(work: Workplace, job: str, launcher: str) -> None:
    site = Site(work, job, launcher)
    meet = f"touch met.$DISBATCH_TASKID; until [ $(ls -d met.* | wc -l) = {site.slots} ]; do sleep 0.02; done"
    done = work.run(work.write("tasks", *[f"{meet}; {SHOW}"] * site.slots).name, env=site.environment)
    assert done.returncode == 0, done.stderr
    (_, first), (_, second) = site.job.laid_out
    shown = [("n1", r"'here\n'")] * first + [("n2", r"'n2\n'")] * second
    assert sorted((line.node, line.out) for line in work.status()) == shown
    assert site.launched == [f"{launcher} n2"]
    assert list(work.directory.glob(f"tasks_disBatch_*_{site.job.label}.context.log"))


@pytest.mark.parametrize(("job", "launcher"), MULTI_NODE.items())
def test_launch_commands_are_given_words_that_arrive_as_they_are(work: Workplace, job: str, launcher: str) -> None:
    work.directory /= 'it\'s a "$place"'
    work.directory.mkdir()
    site = Site(work, job, launcher)
    tasks = work.write("my tasks", *[MEET.format(site.slots, "pwd")] * site.slots)
    done = work.run("-l", "a label", tasks.name, env=site.environment)
    assert done.returncode == 0, done.stderr
    assert {line.node for line in work.status("my tasks")} == {"n1", "n2"}


@pytest.mark.parametrize("job", MULTI_NODE)
def test_ssh_does_where_there_is_no_launch_command(work: Workplace, job: str) -> None:
    site = Site(work, job, "ssh")
    done = work.run(work.write("tasks", *[MEET.format(site.slots, SHOW)] * site.slots).name, env=site.environment)
    assert done.returncode == 0, done.stderr
    assert {line.out for line in work.status()} == {r"'here\n'", r"'n2\n'"}
    assert site.launched == ["ssh n2"]


@pytest.mark.parametrize(("job", "launcher"), MULTI_NODE.items())
def test_a_signal_ends_what_a_launch_command_has_started(work: Workplace, job: str, launcher: str) -> None:
    site = Site(work, job, launcher)
    tasks = work.write("tasks", *["touch begun.$DISBATCH_TASKID; sleep 300; true"] * site.slots)
    run = work.start(tasks.name, env=site.environment)
    eventually(lambda: len(list(work.directory.glob("begun.*"))) == site.slots, "all tasks")
    run.send_signal(signal.SIGTERM)
    assert finish(run, timeout=PATIENCE).returncode == 143
    assert {(line.flags, line.return_code) for line in work.status()} == {("R  Z", -signal.SIGTERM)}


@pytest.mark.parametrize(("job", "launcher"), MULTI_NODE.items())
def test_a_launch_command_that_cannot_reach_its_node_is_told(work: Workplace, job: str, launcher: str) -> None:
    site = Site(work, job, launcher)
    (site.tools / launcher).write_text("#!/bin/sh\necho no way to the node\nexit 1\n", encoding="utf-8")
    done = work.run(work.write("tasks", "sleep 0.2", "sleep 0.2", "true").name, env=site.environment)
    assert done.returncode == 0
    assert done.complaints[0].startswith("disbatch: n2 runs no tasks: ")
    assert "no way to the node" in done.complaints[0]
    assert {line.node for line in work.status()} == {"n1"}


def test_an_engine_that_fails_behind_a_launch_command_that_does_not_tell(work: Workplace) -> None:
    site = Site(work, "qsub -l select=2:ncpus=2:mpiprocs=2", "pbsdsh")
    text = (site.tools / "pbsdsh").read_text(encoding="utf-8")
    (site.tools / "pbsdsh").write_text(text.replace('"$@"', "/bin/false"), encoding="utf-8")
    done = work.run(work.write("tasks", "sleep 0.2", "sleep 0.2", "true").name, env=site.environment)
    assert done.returncode == 0
    assert done.complaints[0].startswith("disbatch: n2 runs no tasks: ")
    assert {line.node for line in work.status()} == {"n1"}


def test_grid_engine_is_not_given_the_secret_of_the_run_to_keep(work: Workplace) -> None:
    site = Site(work, "qsub -pe mpi 3", "qrsh")
    tasks = work.write("tasks", *[MEET.format(3, "true")] * 3)
    assert work.run(tasks.name, env={**site.environment, "PASSED": "on"}).returncode == 0
    kept = (site.tools / "kept_environment").read_text(encoding="utf-8")
    assert "PASSED=on" in kept
    assert "KVSSTCP_SECRET" not in kept


def test_a_job_may_join_a_run_that_goes_on(work: Workplace) -> None:
    site = Site(work, "bsub -n 3, the host file alone", "blaunch")
    run = work.start("-S", work.write("tasks", "pwd").name)
    assert run.stdout is not None
    script = run.stdout.readline().decode().strip()
    added = work.start(program=[script], env=site.environment)
    assert finish(run).returncode == 0
    assert finish(added).returncode == 0
    assert site.launched == ["blaunch n2"]
    assert list(work.directory.glob("tasks_disBatch_*_J1234.context.log"))


@pytest.mark.parametrize(
    ("job", "hint"),
    [("qsub -l select=2:ncpus=4", "PBS_NODEFILE"), ("qsub -pe mpi 3", "PE_HOSTFILE")],
)
def test_a_node_file_that_is_not_there_is_one_clear_line(work: Workplace, job: str, hint: str) -> None:
    environment = {**Site(work, job).environment, hint: "/nowhere/nodes"}
    done = work.run(work.write("tasks", "true").name, env=environment)
    assert done.returncode == 1
    assert (
        done.stderr == "disbatch: error: cannot read /nowhere/nodes, the nodes of the job: No such file or directory\n"
    )


# The manager of one's own that the documentation shows.


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def site_packages(tmp_path: Path) -> Path:
    """A directory into which the package of the page has been installed, as its author would install it."""
    (module,) = blocks("python")
    (project,) = blocks("toml")
    source = tmp_path / "source"
    source.mkdir()
    (source / "disbatch_teapot.py").write_text(module, encoding="utf-8")
    (source / "pyproject.toml").write_text(project, encoding="utf-8")
    target = tmp_path / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", target, source], check=True, timeout=300)
    return target


def test_the_manager_of_the_page_is_found_and_runs_tasks(work: Workplace, site_packages: Path) -> None:
    tools = work.directory / "tools"
    tools.mkdir()
    launcher = tools / "teapot-run"
    launcher.write_text('#!/bin/bash\nexport POT=$1\nshift\nexec "$@"\n', encoding="utf-8")
    launcher.chmod(0o755)
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": f"{site_packages}:{CHECKOUT}",
        "TEAPOT_JOB": "7",
        "TEAPOT_NODES": "pot1:1,pot2:2",
    }
    meet = "touch met.$DISBATCH_TASKID; until [ $(ls -d met.* | wc -l) = 3 ]; do sleep 0.02; done"
    done = work.run(work.write("tasks", *[f"{meet}; echo $POT"] * 3).name, env=environment)
    assert done.returncode == 0, done.stderr
    shown = [("pot1", r"'pot1\n'"), ("pot2", r"'pot2\n'"), ("pot2", r"'pot2\n'")]
    assert sorted((line.node, line.out) for line in work.status()) == shown
    assert list(work.directory.glob("tasks_disBatch_*_J7.context.log"))

    # What is asked for by name comes before a job of one that disbatch knows.
    site = Site(work, "bsub -n 3, the host file alone", *LAUNCHERS)
    environment = {**site.environment, **environment, "DISBATCH_CONTEXT": "teapot"}
    (work.directory / "inner").mkdir()
    inner = work.run("../tasks", env=environment, cwd=work.directory / "inner")
    assert inner.returncode == 0, inner.stderr
