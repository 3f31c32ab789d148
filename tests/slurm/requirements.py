"""Whether this machine can have a `Cluster`."""

from __future__ import annotations

from tests.hosts.requirements import why_no_network

SLURM_TOOLS = ("munged", "slurmctld", "slurmd", "srun", "salloc", "sbatch", "scancel", "scontrol", "sinfo", "squeue")


def why_no_cluster() -> str:
    """Return why `Cluster` cannot work here, "" when it can."""
    return why_no_network(SLURM_TOOLS)
