"""What disbatch adds to a job of Slurm: until its first task starts, and after its last one has ended.

Usage: python -m benchmarks.slurm [--rounds 5]

On the cluster of four nodes that the tests boot, which takes root. In each round a job of 6 tasks runs `srun hostname`
on its nodes, and another one disbatch with 6 times `sleep 0.2`; both from within salloc, so that no queue counts.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import DISBATCH, PYTHON, UNUSUAL, clear, parser_of, read_status, spread, write_tasks
from tests.slurm import Cluster, why_no_cluster

CLOCK = "date +%s.%N"


def round_of(cluster: Cluster, directory: Path) -> tuple[float, float, float]:
    """Seconds of `srun hostname`, from the job's beginning to the first task's, from the last task's end to its end."""
    environment = dict.fromkeys(UNUSUAL, "")
    done = cluster.run(
        ["salloc", "--quiet", "-n6", "bash", "-c", f"{CLOCK}; srun hostname > names; {CLOCK}"], cwd=directory
    )
    began, ended = map(float, done.stdout.split())
    hostname = ended - began
    done = cluster.run(
        ["salloc", "--quiet", "-n6", "bash", "-c", f"{CLOCK}; {shlex.join(DISBATCH)} tasks; {CLOCK}"],
        cwd=directory,
        env=environment,
    )
    began, ended = map(float, done.stdout.split())
    tasks = read_status(directory)
    clear(directory)
    return hostname, tasks[0].start - began, ended - max(task.end for task in tasks)


def main() -> None:
    """Measure, and print a table."""
    asked = parser_of(__doc__, rounds=5).parse_args()
    if reason := why_no_cluster():
        sys.exit(reason)
    with tempfile.TemporaryDirectory(prefix="disbatch-benchmark-") as name, Cluster(Path(name) / "cluster") as cluster:
        directory = Path(name) / "work"
        directory.mkdir()
        write_tasks(directory / "tasks", ["sleep 0.2"] * 6)
        rounds = [round_of(cluster, directory) for _ in range(asked.rounds)]
    hostname, first, after = (list(column) for column in zip(*rounds, strict=True))
    print(f"a job of 6 tasks on two nodes, {asked.rounds} rounds, {PYTHON}")
    print(f"srun hostname, s                                    {spread(hostname, '.2f')}")
    print(f"from the beginning to the start of the first task   {spread(first, '.2f')}")
    print(f"from the end of the last task to the end            {spread(after, '.2f')}")


if __name__ == "__main__":
    main()
