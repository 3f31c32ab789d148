"""What disbatch adds to a job of Slurm: until its first task starts, and after its last one has ended.

Usage: python benchmarks/slurm.py [--rounds 5]

On the cluster of four nodes that the tests boot, which takes root. In each round a job of 6 tasks runs `srun hostname`
on its nodes, and another one disbatch with 6 times `sleep 0.2`; both from within salloc, so that no queue counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from tests.slurm import Cluster, why_no_cluster  # noqa: E402 - of this checkout

CLOCK = "date +%s.%N"
DISBATCH = f"{sys.executable} {CHECKOUT / 'disbatch' / '__main__.py'} -p run tasks"


def round_of(cluster: Cluster, directory: Path) -> tuple[float, float, float]:
    """Seconds of `srun hostname`, from the job's beginning to the first task's, from the last task's end to its end."""
    environment = {"PYTHONDONTWRITEBYTECODE": ""}
    done = cluster.run(
        ["salloc", "--quiet", "-n6", "bash", "-c", f"{CLOCK}; srun hostname > names; {CLOCK}"], cwd=directory
    )
    began, ended = map(float, done.stdout.split())
    hostname = ended - began
    done = cluster.run(
        ["salloc", "--quiet", "-n6", "bash", "-c", f"{CLOCK}; {DISBATCH}; {CLOCK}"], cwd=directory, env=environment
    )
    began, ended = map(float, done.stdout.split())
    lines = [line.split("\t") for line in (directory / "run_status.txt").read_text(encoding="utf-8").splitlines()]
    for file in directory.glob("run_*"):
        file.unlink()
    return hostname, min(float(line[8]) for line in lines) - began, ended - max(float(line[9]) for line in lines)


def spread(values: list[float]) -> str:
    """Median of the values, with their range."""
    return f"{statistics.median(values):.2f}  ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    if reason := why_no_cluster():
        sys.exit(reason)
    with tempfile.TemporaryDirectory(prefix="disbatch-benchmark-") as name, Cluster(Path(name) / "cluster") as cluster:
        directory = Path(name) / "work"
        directory.mkdir()
        (directory / "tasks").write_text("sleep 0.2\n" * 6, encoding="ascii")
        rounds = [round_of(cluster, directory) for _ in range(asked.rounds)]
    hostname, first, after = (list(column) for column in zip(*rounds, strict=True))
    print(f"a job of 6 tasks on two nodes, {asked.rounds} rounds, Python {sys.version.split()[0]}")
    print(f"srun hostname, s                                    {spread(hostname)}")
    print(f"from the beginning to the start of the first task   {spread(first)}")
    print(f"from the end of the last task to the end            {spread(after)}")


if __name__ == "__main__":
    main()
