"""disbatch in jobs of a real Slurm: the README's lines, places that are Slurm's own tasks, growth, and what fails."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import CHECKOUT, PATIENCE, eventually, read_status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.support import Workplace
    from tests.slurm import Cluster

pytestmark = pytest.mark.slurm

SHOW = (
    "echo $(hostname) $SLURM_PROCID $DISBATCH_CYLINDER_RANK $DISBATCH_CORES_PER_TASK ${CUDA_VISIBLE_DEVICES--}"
    " >> shown; sleep 0.2"
)
MEET = "touch met.$DISBATCH_TASKID; until [ $(ls met.* | wc -l) -ge {} ]; do sleep 0.05; done; {}"
"""A task that ends when so many of its kind run at the same time."""

WAIT = "touch begun.$DISBATCH_TASKID; until [ -e go ]; do sleep 0.05; done; echo $DISBATCH_TASKID >> ran"


class Site:
    """A cluster and a directory that it sees, with `disbatch` on its users' path."""

    def __init__(self, cluster: Cluster, work: Workplace) -> None:
        self.cluster = cluster
        self.work = work
        tools = work.directory / "tools"
        tools.mkdir()
        command = tools / "disbatch"
        # What pip makes of a console script; a batch job runs a copy of it from elsewhere.
        command.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(CHECKOUT)!r})\n"
            "from disbatch.cli import main\nsys.exit(main())\n",
            encoding="utf-8",
        )
        command.chmod(0o755)
        self.environment = {**work.environment, "PATH": f"{tools}:{cluster.environment['PATH']}"}
        for name in ("SLURM_CONF",):
            self.environment[name] = cluster.environment[name]

    def run(self, *command: str | Path, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a command on the login host to its end."""
        return self.cluster.run(command, timeout, env=self.environment, cwd=self.work.directory)

    @contextmanager
    def started(self, *command: str | Path) -> Iterator[subprocess.Popen[str]]:
        """A command on the login host, killed if the test fails meanwhile."""
        environment = {**self.cluster.environment, **self.environment}
        with self.cluster.popen(command, env=environment, cwd=self.work.directory, stderr=subprocess.PIPE) as process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise

    def submit(self, *arguments: str | Path) -> int:
        return self.cluster.submit(*arguments, env=self.environment, cwd=self.work.directory)

    def ends(self, job: int | str) -> str:
        """Wait for the end of a job; its state, and what it printed into the failure of a test."""
        state = self.cluster.await_state(
            job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", seconds=PATIENCE
        )
        if state == "FAILED":
            print(self.output(job))
        return state

    def nodes(self, job: int) -> str:
        """Node list of a job that runs."""
        return self.cluster.ask("squeue", "--noheader", "--format=%N", f"--jobs={job}").strip()

    def output(self, job: int | str) -> str:
        return self.work.text(f"slurm-{job}.out")

    def shown(self) -> list[list[str]]:
        """Words that each task has written down."""
        return sorted(line.split() for line in self.work.text("shown").splitlines())

    def script(self, name: str = "tasks") -> Path:
        """The script of the only run of that task file."""
        eventually(lambda: any(self.work.directory.glob(f"{name}_*_kvsinfo.txt")), "the run")
        (path,) = self.work.directory.glob(f"{name}_*_dbUtil.sh")
        return path


@pytest.fixture
def site(cluster: Cluster, work: Workplace) -> Site:
    return Site(cluster, work)


# The lines of the README


def test_a_batch_job_runs_the_tasks_on_its_nodes(site: Site) -> None:
    site.work.write("tasks", *[MEET.format(20, SHOW)] * 20)
    job = site.submit("-n", "20", "disbatch", "tasks")
    assert site.ends(job) == "COMPLETED"
    nodes = [line.node for line in site.work.status()]
    assert {name: nodes.count(name) for name in nodes} == {"n1": 4, "n2": 4, "n3": 4, "n4": 8}
    assert {words[0] for words in site.shown()} == {"n1", "n2", "n3", "n4"}
    assert "20 tasks finished" in site.output(job)


def test_what_salloc_starts_runs_the_tasks_on_its_nodes(site: Site) -> None:
    site.work.write("tasks", *[MEET.format(6, SHOW)] * 6)
    done = site.run("salloc", "-n", "6", "disbatch", "tasks")
    assert done.returncode == 0, done.stderr
    assert sorted(line.node for line in site.work.status()) == ["n1"] * 4 + ["n2"] * 2
    assert any(site.work.directory.glob("tasks_*_J*_n1_engine_0.log")), "the label is that of the job"


def test_the_script_of_a_run_adds_a_job_of_its_own(site: Site) -> None:
    site.work.write("tasks", *[WAIT] * 3)
    with site.started("disbatch", "-S", "tasks") as run:
        job = site.submit("-n", "3", f"./{site.script().name}")
        site.work.await_file("begun.2")
        site.work.write("go")
        assert run.wait(PATIENCE) == 0
    assert site.ends(job) == "COMPLETED"
    assert [line.node for line in site.work.status()] == ["n1"] * 3


# Places


def test_each_task_runs_under_the_slurm_task_of_its_place(site: Site) -> None:
    site.work.write("tasks", *[SHOW] * 12)
    done = site.run("salloc", "-n", "6", "disbatch", "tasks")
    assert done.returncode == 0, done.stderr
    for _, procid, cylinder, cores, _ in site.shown():
        assert (procid, cores) == (cylinder, "1")
    assert {(node, cylinder) for node, _, cylinder, _, _ in site.shown()} == {
        *(("n1", str(number)) for number in range(4)),
        *(("n2", str(number)) for number in range(2)),
    }


def test_each_place_has_gpus_of_its_own(site: Site) -> None:
    site.work.write("tasks", *[SHOW] * 4)
    done = site.run("salloc", "-n", "2", "--gpus-per-task=1", "disbatch", "tasks")
    assert done.returncode == 0, done.stderr
    assert {(cylinder, gpu) for _, _, cylinder, _, gpu in site.shown()} == {("0", "0"), ("1", "1")}


def test_cores_per_task_are_what_slurm_was_asked_for(site: Site) -> None:
    site.work.write("tasks", *[MEET.format(3, SHOW)] * 3)
    assert site.run("salloc", "-n", "3", "-c", "2", "disbatch", "tasks").returncode == 0
    assert sorted((node, cores) for node, _, _, cores, _ in site.shown()) == [("n1", "2"), ("n1", "2"), ("n2", "2")]


def test_what_disbatch_is_asked_for_counts_more_and_is_said(site: Site) -> None:
    site.work.write("tasks", *[SHOW] * 6)
    done = site.run("salloc", "-n", "3", "-c", "2", "disbatch", "-c", "1", "-t", "3", "tasks")
    assert done.returncode == 0, done.stderr
    assert "disbatch: -c 1 counts, and not the 2 that Slurm was asked for\n" in done.stderr
    assert {(node, cores) for node, _, _, cores, _ in site.shown()} == {("n1", "1"), ("n2", "1")}


def test_tasks_of_half_a_core_share_it(site: Site) -> None:
    site.work.write("tasks", *[SHOW] * 4)
    done = site.run("salloc", "-n", "2", "disbatch", "-c", "0.5", "-t", "4", "tasks")
    assert done.returncode == 0, done.stderr
    assert {cylinder for _, _, cylinder, _, _ in site.shown()} == {"0", "1", "2", "3"}


def test_a_task_may_call_srun(site: Site) -> None:
    site.work.write("tasks", "srun -n1 hostname > of.srun", "srun --overlap -N1 -n1 -w n2 hostname > of.overlap")
    done = site.run("salloc", "-n", "6", "disbatch", "tasks")
    assert done.returncode == 0, done.stderr
    assert [line.return_code for line in site.work.status()] == [0, 0]
    assert site.work.text("of.overlap") == "n2\n"


def test_options_of_srun_come_from_a_file(site: Site) -> None:
    options = site.work.write("options", "SLURM_STDOUTMODE=none", "MINE=yes")
    site.environment["DISBATCH_SLURM_SRUN_OPTIONS_FILE"] = str(options)
    site.work.write("tasks", "echo $MINE > mine")
    assert site.run("salloc", "-n", "1", "disbatch", "tasks").returncode == 0
    assert site.work.text("mine") == "yes\n"


@pytest.mark.parametrize(("options", "places"), [([], 1), (["--fill"], 4)])
def test_fill_takes_all_cores_of_the_job(site: Site, options: list[str], places: int) -> None:
    site.work.write("tasks", *[MEET.format(2 * places, SHOW)] * (2 * places))
    done = site.run("salloc", "-N", "2", "-n", "2", "--exclusive", "disbatch", *options, "tasks")
    assert done.returncode == 0, done.stderr
    seen = sorted((node, cylinder) for node, _, cylinder, _, _ in site.shown())
    assert seen == [(node, str(number)) for node in ("n1", "n2") for number in range(places)]


# Growth and loss


def test_elements_of_an_array_are_contexts_each(site: Site) -> None:
    site.work.write("tasks", *[WAIT] * 4)
    with site.started("disbatch", "-S", "tasks") as run:
        array = site.submit("-n", "2", "--array=0-1", f"./{site.script().name}")
        site.work.await_file("begun.3")
        site.work.write("go")
        assert run.wait(PATIENCE) == 0
    for element in range(2):
        assert site.ends(f"{array}_{element}") == "COMPLETED"


def test_tasks_of_a_job_that_is_cancelled_run_elsewhere(site: Site) -> None:
    site.work.write("tasks", *[WAIT] * 4)
    with site.started("disbatch", "-S", "tasks") as run:
        first = site.submit("-n", "2", f"./{site.script().name}")
        site.work.await_file("begun.1")
        site.cluster.cancel(first)
        second = site.submit("-n", "4", f"./{site.script().name}")
        site.work.await_file("begun.3")
        site.work.write("go")
        assert run.wait(PATIENCE) == 0
    assert site.ends(second) == "COMPLETED"
    assert sorted(site.work.text("ran").split()) == ["0", "1", "2", "3"]
    lines = read_status(site.work.status_file())
    assert sorted((line.task_id, line.return_code) for line in lines) == [(number, 0) for number in range(4)]


def test_jobs_at_their_time_limit_leave_their_tasks_to_others(site: Site) -> None:
    """All of it in one test: Slurm looks for what is due once in 30 s, and then deals with all jobs."""
    # What is deaf to TERM its engine kills; the engine, which waits for its STOP command then, Slurm has to.
    stop = "#DISBATCH PERENGINE STOP [ $SLURM_JOB_ID != $(cat ended) ] || sleep 300"
    site.work.write("tasks", stop, *[f"trap '' TERM; {WAIT}"] * 7)
    site.work.write("others", "touch begun.own; sleep 300; true")
    with site.started("disbatch", "-S", "tasks") as run:
        script = f"./{site.script().name}"
        ended = site.submit("-n2", "-t2", script)
        warned = [site.submit("-n2", "-t2", f"--signal={whom}TERM@10", script) for whom in ("", "B:")]
        stays = site.submit("-n1", script)
        own = site.submit("-n1", "-t2", "disbatch", "-p", "own", "others")
        site.work.write("ended", str(ended))
        for name in (*range(7), "own"):
            site.work.await_file(f"begun.{name}")
        for job in (ended, own):
            site.cluster.ask("scontrol", "update", f"JobId={job}", "EndTime=now+5seconds")
        for job in warned:  # near enough to be warned the next time, and too far to be ended then
            site.cluster.ask("scontrol", "update", f"JobId={job}", "EndTime=now+38seconds")
        for job, expected in {ended: "TIMEOUT", own: "TIMEOUT", **dict.fromkeys(warned, "COMPLETED")}.items():
            state = site.cluster.await_state(job, "COMPLETED", "FAILED", "TIMEOUT", seconds=60)
            assert state == expected, site.output(job)
        assert run.poll() is None
        site.work.write("go")
        assert run.wait(PATIENCE) == 0
    assert site.ends(stays) == "COMPLETED"
    assert sorted(map(int, site.work.text("ran").split())) == list(range(7))
    lines = [line for line in site.work.status() if "P" not in line.flags]
    assert sorted((line.task_id, line.return_code) for line in lines) == [(number, 0) for number in range(7)]
    assert len({line.node for line in lines}) == 1, "all of them where the job is that was left"
    assert "to go on where this run left off: disbatch -p own others -r own_status.txt" in site.output(own)


@pytest.mark.parametrize("whom", [[], ["--batch"]], ids=["steps", "script"])
def test_a_job_that_is_drained_by_a_signal_finishes_what_it_runs(site: Site, whom: list[str]) -> None:
    """With the steps their tasks get it too, and those that do not expect it run again elsewhere."""
    waits = "touch begun.$DISBATCH_TASKID.$(hostname); until [ -e go ]; do sleep 0.05; done"
    lives = f"trap '' USR1; {waits}; sleep 1"  # for longer than the engine doubts what ends
    site.work.write("tasks", lives, *[waits] * 3)
    with site.started("disbatch", "-S", "tasks") as run:
        drained = site.submit("-n", "2", "-w", "n1", f"./{site.script().name}")
        site.work.await_file("begun.0.n1")
        site.work.await_file("begun.1.n1")
        stays = site.submit("-n", "3", "-w", "n2", f"./{site.script().name}")
        site.work.await_file("begun.2.n2")
        site.work.await_file("begun.3.n2")
        site.cluster.ask("scancel", "--signal=USR1", *whom, str(drained))
        (log,) = site.work.directory.glob(f"*_J{drained}_*_engine_0.log")
        eventually(lambda: "told to finish" in log.read_text(encoding="utf-8"), "the engine to be told")
        if not whom:
            site.work.await_file("begun.1.n2")
        site.work.write("go")
        assert site.ends(drained) == "COMPLETED"
        assert run.wait(PATIENCE) == 0
    assert site.ends(stays) == "COMPLETED"
    lines = site.work.status()
    assert sorted((line.task_id, line.return_code) for line in lines) == [(number, 0) for number in range(4)]
    nodes = {line.task_id: line.node for line in lines}
    assert nodes == {0: "n1", 1: "n1" if whom else "n2", 2: "n2", 3: "n2"}
    assert "lost the process" not in log.read_text(encoding="utf-8")


SCRIPTS = {
    "itself": "exec disbatch -p run tasks",
    "trap": "trap 'kill -USR1 $run' USR1; disbatch -p run tasks & run=$!\nwait $run; [ $? -lt 128 ] || wait $run",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_batch_script_that_is_signalled_drains_the_run(site: Site, script: str) -> None:
    site.work.write("tasks", *[WAIT] * 3)
    batch = site.work.write("batch", "#!/bin/bash", SCRIPTS[script])
    job = site.submit("-n", "2", batch)
    site.work.await_file("begun.1")
    site.cluster.ask("scancel", "--signal=USR1", "--batch", str(job))
    eventually(lambda: "got SIGUSR1" in site.output(job), "the driver to hear of it", PATIENCE)
    site.work.write("go")
    assert site.ends(job) == "FAILED", "with 1, since something is left"
    lines = read_status(site.work.directory / "run_status.txt")
    assert sorted((line.task_id, line.return_code) for line in lines) == [(0, 0), (1, 0)]
    assert "to go on where this run left off: disbatch -p run tasks -r run_status.txt" in site.output(job)


def test_tasks_of_a_node_without_power_run_elsewhere(site: Site) -> None:
    site.work.write("tasks", *[WAIT] * 2)
    with site.started("disbatch", "--heartbeat", "1", "--heartbeat-patience", "10", "-S", "tasks") as run:
        stays = site.submit("-n", "1", "-w", "n1", f"./{site.script().name}")
        site.work.await_file("begun.0")
        with site.started("salloc", "-n", "1", "-w", "n2", f"./{site.script().name}") as elsewhere:
            site.work.await_file("begun.1")
            site.cluster["n2"].power_off()
            site.work.write("go")
            assert run.wait(2 * PATIENCE) == 0
            elsewhere.wait(PATIENCE)
    assert site.ends(stays) == "COMPLETED"
    lines = site.work.status()
    assert sorted((line.task_id, line.node, line.return_code) for line in lines) == [(0, "n1", 0), (1, "n1", 0)]


def test_a_driver_whose_allocation_is_revoked_ends_and_says_so(site: Site) -> None:
    site.work.write("tasks", *[WAIT] * 4)
    with site.started("salloc", "-n", "2", "disbatch", "-p", "run", "tasks") as run:
        site.work.await_file("begun.1")
        job = site.cluster.ask("squeue", "--noheader", "--format=%i").strip()
        site.cluster.cancel(job)
        _, said = run.communicate(timeout=2 * PATIENCE)
    assert "to go on where this run left off: disbatch -p run tasks -r run_status.txt" in said
    site.work.await_silence(PATIENCE)


# Nodes that are given back


def test_nodes_that_nothing_is_left_for_are_given_back_while_others_work(site: Site) -> None:
    wait = "case $(hostname) in n[23]) until [ -e go.$(hostname) ]; do sleep 0.05; done;; esac; srun -n1 hostname"
    site.work.write("tasks", *[MEET.format(4, wait)] * 4)
    job = site.submit("-N", "4", "-n", "4", "disbatch", "tasks")
    eventually(lambda: site.nodes(job) == "n[1-3]", "n4 given back", PATIENCE)
    # Without accounting Slurm takes a second request for a mistake: that is between it and the log.
    site.work.write("go.n3")
    (log,) = site.work.directory.glob("*_J*.context.log")
    eventually(lambda: "gives nodes back ended with 1" in log.read_text(), "the second try", PATIENCE)
    site.work.write("go.n2")
    assert site.ends(job) == "COMPLETED"
    assert [line.return_code for line in site.work.status()] == [0] * 4
    assert "4 tasks finished" in site.output(job)
    assert len(site.output(job).splitlines()) == 2
    assert not list(site.work.directory.glob("*resize*"))


def test_a_job_that_nothing_is_left_for_ends_while_others_work(site: Site) -> None:
    """One more stays, for what these might lose."""
    site.work.write("tasks", *[MEET.format(3, "[ $(hostname) != n1 ] || until [ -e go ]; do sleep 0.05; done")] * 3)
    with site.started("disbatch", "-S", "tasks") as run:
        jobs = [site.submit("-n", "1", "-w", name, f"./{site.script().name}") for name in ("n1", "n2", "n3")]
        eventually(lambda: len(site.cluster.ask("squeue", "--noheader").splitlines()) == 2, "one to end", PATIENCE)
        assert site.nodes(jobs[0]) == "n1"
        site.work.write("go")
        assert run.wait(PATIENCE) == 0
    assert [site.ends(job) for job in jobs] == ["COMPLETED"] * 3


def test_nodes_are_kept_or_given_back_by_a_command_as_the_user_wants(site: Site) -> None:
    site.work.write("tasks", *[MEET.format(3, "[ $(hostname) != n1 ] || until [ -s freed ]; do sleep 0.05; done")] * 3)
    command = "echo $NODES $ACTIVE $SLURM_JOBID >> freed"
    done = site.run("salloc", "-N", "3", "-n", "3", "disbatch", "--retire-cmd", command, "tasks")
    assert done.returncode == 0, done.stderr
    assert site.work.text("freed").split()[:2] in (["n2", "n1,n3"], ["n3", "n1,n2"])
    done = site.run("salloc", "-N", "3", "-n", "3", "disbatch", "--no-retire", "--retire-cmd", command, "tasks")
    assert done.returncode == 0, done.stderr
    assert len(site.work.text("freed").splitlines()) == 1
