"""Records the environments that a real Slurm gives to jobs and steps, as data for unit tests: `environments.py`.

A program, to be run by hand as root, in the checkout: `python -m tests.slurm.record`; it takes half a minute. Nothing
of the machine is in what it writes: the directory of the jobs is `/home/user/work` there.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.slurm.cluster import Cluster

TABLE = Path(__file__).with_name("environments.py")

NEUTRAL_DIRECTORY = "/home/user/work"

LEFT_OUT = (
    *("SLURM_CONF", "SLURM_TASK_PID", "SLURM_WORKING_CLUSTER", "SLURM_TOPOLOGY_", "SLURM_JOB_UID", "SLURM_JOB_GID"),
    *("SLURM_JOB_USER", "SLURM_UMASK", "SLURM_PRIO_PROCESS", "SLURM_SRUN_COMM_", "SLURM_STEP_LAUNCHER_PORT"),
    *("SLURM_LAUNCH_NODE_IPADDR", "SLURM_JOB_START_TIME", "SLURM_JOB_END_TIME", "SLURM_CLUSTER_NAME"),
)
"""Beginnings of names whose values are the machine's or the moment's, or say nothing about what a job may use."""


@dataclass(frozen=True)
class Case:
    """One environment: of what `allocate` starts, or of a step in it that `step` starts."""

    allocate: str
    step: str = ""
    which: str = ""
    """A shell condition that holds in one of several processes only."""

    @property
    def name(self) -> str:
        """The key in the table."""
        step = f" > {self.step}" if self.step else ""
        which = f" where {self.which}" if self.which else ""
        return f"{self.allocate}{step}{which}"


RANK_1 = "$SLURM_PROCID = 1"

CASES = (
    Case("sbatch -n 1"),
    Case("sbatch -n 6"),
    Case("sbatch -n 20"),
    Case("sbatch -N 2"),
    Case("sbatch -N 2 --exclusive"),
    Case("sbatch -N 4 --exclusive"),
    Case("sbatch -c 2 -n 3"),
    Case("sbatch -N 2 -c 2"),
    Case("sbatch -N 2 --ntasks-per-node=2"),
    Case("sbatch -N 3 -n 6"),
    Case("sbatch --array=3,7 -n 2", which="$SLURM_ARRAY_TASK_ID = 3"),
    Case("sbatch --array=3,7 -n 2", which="$SLURM_ARRAY_TASK_ID = 7"),
    Case("sbatch -n 1 : -n 2"),
    Case("sbatch -n 2 --gpus-per-task=1"),
    Case("sbatch -N 1 --gres=gpu:2"),
    Case("salloc -n 6"),
    Case("salloc -N 2"),
    Case("salloc -n 2 --gpus-per-task=1"),
    Case("srun -n 6", which=RANK_1),
    Case("sbatch -n 6", "srun -N 1 -n 2 -w n2", RANK_1),
    Case("sbatch -N 2 --exclusive", "srun -N 1 -n 4 -w n2", RANK_1),
    Case("sbatch -c 2 -n 3", "srun -N 1 -n 2 -c 2 -w n1", RANK_1),
    Case("salloc -n 6", "srun -N 1 -n 4 -w n1", RANK_1),
    Case("sbatch -n 2 --gpus-per-task=1", "srun -N 1 -n 2 -w n3", RANK_1),
    Case("sbatch -N 1 -n 2 --gres=gpu:2", "srun -N 1 -n 2 -w n3", RANK_1),
    Case("sbatch -N 1 -n 2 --gres=gpu:2", "srun -N 1 -n 2 -w n3 --gpus-per-task=1", RANK_1),
)

HOST_LISTS = (
    "n1",
    "n[1-2]",
    "n[1-3,7,9-10]",
    "n[08-11]",
    "n[1-2],login,gpu[3,5]",
    "rack[1-2]node[3-4]",
    "n1,n1",
)


def main() -> None:
    """Boot a cluster, record all cases on it, and write the table."""
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory)) as cluster:
        version = cluster.ask("sinfo", "--version").split()[1]
        recorded = {case.name: record(cluster, case) for case in CASES}
        names = {text: tuple(cluster.ask("scontrol", "show", "hostnames", text).split()) for text in HOST_LISTS}
    TABLE.write_text(table(version, recorded, names), encoding="utf-8")


def record(cluster: Cluster, case: Case) -> dict[str, str]:
    """Run a case and return what it saw, sorted by name."""
    place = cluster.directory / "work"
    place.mkdir(exist_ok=True)
    found = place / "environment"
    found.unlink(missing_ok=True)
    note = f"{f'[ {case.which} ] || exit 0; ' if case.which else ''}env -0 > unfinished; mv unfinished environment"
    command = f"{case.step} bash -c {shlex.quote(note)}" if case.step else note
    allocate = shlex.split(case.allocate)
    if allocate[0] == "sbatch":
        # A heterogeneous job has its script behind the last component's options.
        script = place / "script"
        script.write_text(f"#!/bin/bash\n{command}\n", encoding="utf-8")
        cluster.ask("env", f"--chdir={place}", *allocate, script)
    else:
        done = cluster.run([*allocate, "bash", "-c", command], cwd=place)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
    cluster.until(found.exists, f"the environment of {case.name}")
    cluster.reset()
    pairs = (entry.partition("=") for entry in found.read_text(encoding="utf-8").split("\0") if entry)
    return {
        name: value.replace(str(place), NEUTRAL_DIRECTORY)
        for name, _, value in sorted(pairs)
        if name.startswith(("SLURM", "CUDA_VISIBLE_DEVICES"))
        and not name.startswith(LEFT_OUT)
        and "_PACK_" not in name  # an older name of what is there with `_HET_` too
    }


def table(version: str, recorded: dict[str, dict[str, str]], names: dict[str, tuple[str, ...]]) -> str:
    """Return the text of `environments.py`, as ruff would format it."""
    lines = [
        '"""Environments of real jobs and steps of Slurm, recorded by `record.py`, which says what is left out.',
        "",
        "Of a cluster of n1 to n3 with 4 CPUs and n4 with 8, n3 with two GPUs. Written by a program: do not edit.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        f'VERSION = "{version}"',
        '"""Slurm\'s."""',
        "",
        "ENVIRONMENTS: dict[str, dict[str, str]] = {",
    ]
    for name, environment in recorded.items():
        lines.append(f"    {quoted(name)}: {{")
        lines.extend(f"        {quoted(variable)}: {quoted(value)}," for variable, value in environment.items())
        lines.append("    },")
    lines += [
        "}",
        '"""By the command that made the job, `>` that of a step in it, `where` the one of several processes."""',
        "",
        "HOST_NAMES: dict[str, tuple[str, ...]] = {",
        *(
            f"    {quoted(text)}: ({', '.join(map(quoted, hosts))}{',' if len(hosts) == 1 else ''}),"
            for text, hosts in names.items()
        ),
        "}",
        '"""What `scontrol show hostnames` makes of lists of nodes."""',
    ]
    return "".join(f"{line}\n" for line in lines)


def quoted(text: str) -> str:
    """Return a string as Python's formatter writes it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


if __name__ == "__main__":
    main()
