"""The cluster that other tests stand on is what they promise: real nodes, a real Slurm, faults on demand, nothing left.

What stands here about Slurm itself is what disbatch counts on in an allocation.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import CHECKOUT, eventually
from tests.hosts import processes_in
from tests.slurm import Cluster, ClusterError
from tests.slurm.environments import HOST_NAMES

if TYPE_CHECKING:
    from tests.slurm import Node

pytestmark = pytest.mark.slurm

SHOW_RANK = "echo $(hostname) $SLURMD_NODENAME $SLURM_PROCID $CUDA_VISIBLE_DEVICES"

KILLED_BY_TERM = 128 + signal.SIGTERM


def runs_on(node: Node, program: str) -> bool:
    """Whether a program of that name runs on a node."""
    return any(Path(process.command[0]).name == program for process in node.processes() if process.command)


def start_long_steps(cluster: Cluster, place: Path, *options: str) -> int:
    """Start a job on n1 and n2 with a step of `sleep` on each, and return when both run."""
    script = "srun -N1 -n1 -w n1 sleep 100 & srun -N1 -n1 -w n2 sleep 100 & wait -n; touch one.has.ended; wait"
    job = cluster.submit("-N2", "--no-requeue", *options, script=script, cwd=place)
    for name in ("n1", "n2"):
        eventually(lambda name=name: runs_on(cluster[name], "sleep"), f"a step on {name}")  # type: ignore[misc] # called at once
    return job


def test_nodes_have_names_of_their_own_and_share_files(cluster: Cluster, tmp_path: Path) -> None:
    assert cluster.run(["hostname"]).stdout == "login\n"
    done = cluster.run(["srun", "-N4", "bash", "-c", "hostname > seen.$SLURMD_NODENAME; hostname"], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == ["n1", "n2", "n3", "n4"]
    seen = {path.name: path.read_text(encoding="ascii") for path in tmp_path.glob("seen.*")}
    assert seen == {f"seen.{name}": f"{name}\n" for name in ("n1", "n2", "n3", "n4")}


def test_an_exit_status_comes_through(cluster: Cluster) -> None:
    assert cluster.run(["srun", "-n1", "bash", "-c", "exit 3"]).returncode == 3
    assert cluster.run(["srun", "-n1", "bash", "-c", "kill -TERM $$"]).returncode == KILLED_BY_TERM


def test_what_salloc_starts_is_on_the_login_host_and_knows_its_nodes(cluster: Cluster) -> None:
    show = "echo $(hostname) $SLURM_JOB_NODELIST $SLURM_TASKS_PER_NODE $SLURM_JOB_CPUS_PER_NODE"
    done = cluster.run(["salloc", "-n6", "bash", "-c", f"{show}; srun -N1 -n2 -w n2 hostname"])
    assert done.stdout == "login n[1-2] 4,2 4,2\nn2\nn2\n"


def test_a_batch_script_is_a_copy_with_its_arguments(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('#!/bin/bash\necho "$0"; pwd; hostname; printf "<%s>" "$@"\n', encoding="ascii")
    job = cluster.submit("-n2", script, "a b", "", "*", cwd=tmp_path)
    assert cluster.await_state(job, "COMPLETED", "FAILED") == "COMPLETED"
    where, place, host, arguments = (tmp_path / f"slurm-{job}.out").read_text(encoding="ascii").splitlines()
    assert Path(where).name == "slurm_script"
    assert tmp_path not in Path(where).parents
    assert (place, host, arguments) == (str(tmp_path), "n1", "<a b><><*>")


def test_elements_of_an_array_are_jobs(cluster: Cluster, tmp_path: Path) -> None:
    script = "echo $SLURM_JOB_ID > job.$SLURM_ARRAY_JOB_ID.$SLURM_ARRAY_TASK_ID"
    array = cluster.submit("--array=3,7", script=script, cwd=tmp_path)
    files = [tmp_path / f"job.{array}.{element}" for element in (3, 7)]
    eventually(lambda: all(path.exists() and path.read_text(encoding="ascii") for path in files), "both elements")
    jobs = {path.read_text(encoding="ascii").strip() for path in files}
    assert len(jobs) == 2
    assert str(array) in jobs
    for element in (3, 7):
        cluster.await_state(f"{array}_{element}", "COMPLETED")


def test_each_rank_has_a_gpu_of_its_own(cluster: Cluster) -> None:
    done = cluster.run(["srun", "-n2", "--gpus-per-task=1", "bash", "-c", SHOW_RANK])
    assert (done.returncode, sorted(done.stdout.splitlines())) == (0, ["n3 n3 0 0", "n3 n3 1 1"])
    inside = f"echo salloc ${{CUDA_VISIBLE_DEVICES-none}}; srun -N1 -n2 -w n3 bash -c '{SHOW_RANK}'"
    done = cluster.run(["salloc", "--quiet", "-n2", "--gpus-per-task=1", "bash", "-c", inside])
    assert sorted(done.stdout.splitlines()) == ["n3 n3 0 0", "n3 n3 1 1", "salloc none"]


def test_a_cancelled_job_is_gone(cluster: Cluster, tmp_path: Path) -> None:
    job = start_long_steps(cluster, tmp_path)
    cluster.cancel(job)
    assert cluster.state(job) == "CANCELLED"
    assert not any(runs_on(node, "sleep") for node in cluster)


def test_a_job_gives_a_node_back(cluster: Cluster, tmp_path: Path) -> None:
    resize = (
        "scontrol update JobId=$SLURM_JOB_ID NodeList=n1; squeue -h -j $SLURM_JOB_ID -o %N; srun -N1 -n1 -w n1 hostname"
    )
    done = cluster.run(["salloc", "--quiet", "-N2", "bash", "-c", resize], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["n1", "n1"]
    litter = sorted(path.suffix for path in tmp_path.iterdir())
    assert litter == [".csh", ".sh"]


def test_a_lost_node_is_noticed_and_healed(tmp_path: Path) -> None:
    with Cluster(tmp_path / "impatient", 2, timeout=2, message_timeout=1) as cluster:
        job = start_long_steps(cluster, tmp_path)
        cluster["n2"].power_off()
        cluster.await_node("n2", "down", "down*")
        assert cluster.await_state(job, "NODE_FAIL", "COMPLETED") == "NODE_FAIL"
        assert cluster.reset() == []
        assert cluster.run(["srun", "-w", "n2", "hostname"]).stdout == "n2\n"


def test_a_node_that_is_set_down_fails_at_once_and_the_rest_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    job = start_long_steps(cluster, tmp_path, "--no-kill")
    cluster.set_down("n2")
    eventually((tmp_path / "one.has.ended").exists, "the end of the step on n2")
    assert cluster.state(job) == "RUNNING"
    assert runs_on(cluster["n1"], "sleep")
    cluster.cancel(job)


def test_steps_outlive_slurmd_and_slurmctld(cluster: Cluster, tmp_path: Path) -> None:
    script = "srun -N1 -n1 -w n2 bash -c 'touch begun; until [ -e go ]; do sleep 0.05; done; hostname'"
    job = cluster.submit("-N2", script=script, cwd=tmp_path)
    eventually((tmp_path / "begun").exists, "the step")
    cluster.stop_controller()
    cluster.kill_slurmd("n2")
    cluster.start_slurmd("n2")
    cluster.start_controller()
    (tmp_path / "go").touch()
    assert cluster.await_state(job, "COMPLETED", "FAILED", "NODE_FAIL") == "COMPLETED"
    assert (tmp_path / f"slurm-{job}.out").read_text(encoding="ascii") == "n2\n"


def test_reset_leaves_nothing_of_a_test(cluster: Cluster) -> None:
    script = "trap '' TERM; setsid sleep 200 & sleep 100"
    allocation = cluster.popen(["salloc", "--quiet", "-N2", "srun", "-n2", "bash", "-c", script])
    eventually(lambda: runs_on(cluster["n2"], "sleep"), "a step")
    cluster.kill_slurmd("n3")
    cluster["n4"].cut()
    (left,) = cluster.reset(grace=0)
    assert left.split()[1:] == ["RUNNING", "interactive"]
    assert set(cluster.node_states().values()) == {"idle"}
    assert [process for node in cluster for process in node.processes()] == []
    assert cluster.login.processes() == []
    assert allocation.wait(0) is not None
    assert sorted(cluster.run(["srun", "-N4", "hostname"]).stdout.split()) == ["n1", "n2", "n3", "n4"]


def test_a_command_that_blocks_is_ended(cluster: Cluster) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        cluster.run(["srun", "sleep", "100"], timeout=0.5)
    (left,) = cluster.reset(grace=0)
    assert left.split()[2] == "sleep"


def test_what_does_not_come_true_is_told_with_the_cluster_s_state(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"a wonder: has not come true within 0.1 s(?s:.)*n1 idle"):
        cluster.until(lambda: False, "a wonder", 0.1)


@pytest.mark.parametrize("hosts", HOST_NAMES)
def test_the_recorded_lists_of_hosts_are_scontrol_s(cluster: Cluster, hosts: str) -> None:
    assert tuple(cluster.ask("scontrol", "show", "hostnames", hosts).split()) == HOST_NAMES[hosts]


def test_a_cluster_goes_when_its_owner_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, time; from tests.slurm import Cluster\n"
        "with Cluster(pathlib.Path(sys.argv[1]), nodes=1) as cluster:\n"
        "    cluster.popen(['srun', 'sleep', '60'])\n"
        "    cluster.until(lambda: any('sleep' in seen.command[0] for seen in cluster['n1'].processes()), 'a step')\n"
        "    print(*(host.pid_namespace for host in (cluster.login, *cluster)), flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        namespaces = owner.stdout.readline().split()
        assert len(namespaces) == 2
        assert all(processes_in(namespace) for namespace in namespaces)
        owner.kill()
    eventually(lambda: not any(processes_in(namespace) for namespace in namespaces), "an end of all")
