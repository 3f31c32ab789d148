"""Which resource manager a context gets its nodes from: what the user names, or the job that it finds itself in."""

from __future__ import annotations

from disbatch.errors import ResourceError
from disbatch.managers.ssh import Ssh
from disbatch.values import SSH_NODES_VARIABLE, ssh_nodes_of_environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from disbatch.managers.base import Manager
    from disbatch.values import SshNode

JOB_VARIABLES = ("SLURM_JOB_ID", "SLURM_JOBID")
"""Set in a job of Slurm."""


def manager_of(
    environment: Mapping[str, str],
    hosts: Sequence[SshNode],
    names_here: Callable[[Sequence[str]], Collection[str]] = frozenset,
) -> Manager:
    """Manager of the hosts that options or the environment name, else of the Slurm job that this process is in.

    `names_here`: see `Ssh`. Raises `UsageError` when there is neither, `ResourceError` for what cannot be read.
    """
    if hosts:
        return Ssh(hosts, names_here)
    if not environment.get(SSH_NODES_VARIABLE) and any(environment.get(name) for name in JOB_VARIABLES):
        from disbatch.managers import slurm  # noqa: PLC0415 - it takes `re`, for which other contexts need not wait

        return slurm.Slurm(environment, _lines(environment.get(slurm.SRUN_OPTIONS_VARIABLE)))
    return Ssh(ssh_nodes_of_environment(environment), names_here)


def _lines(path: str | None) -> list[str] | None:
    if not path:
        return None
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError as error:
        raise ResourceError(f"cannot read {path}, the options of srun: {error.strerror}") from error
