"""The texts of a cluster's configuration files, and the figures that tests may count on.

Knows slurm.conf(5) and gres.conf(5). It must not know how a cluster is started.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CONTROLLER_PORT = 6817
SLURMD_PORT = 6818


@dataclass(frozen=True)
class NodeFacts:
    """What Slurm is told of a node: its name, where it is, and what it has to offer."""

    name: str
    address: str
    cpus: int
    gpus: int = 0
    weight: int = 1
    """Nodes of less weight are given out first."""

    def line(self) -> str:
        """Return its line of slurm.conf."""
        gpus = f" Gres=gpu:{self.gpus}" if self.gpus else ""
        return (
            f"NodeName={self.name} NodeAddr={self.address} CPUs={self.cpus} RealMemory=1000 Weight={self.weight}{gpus}"
        )


def slurm_conf(
    directory: Path, controller: str, nodes: Sequence[NodeFacts], *, timeout: int, kill_wait: int, message_timeout: int
) -> str:
    """Return the slurm.conf of a cluster that keeps its state in `directory`; `controller` is a NAME(ADDRESS).

    A node that is silent for `timeout` seconds is down. `kill_wait` is the time from SIGTERM to SIGKILL.
    """
    return f"""\
ClusterName=test
SlurmctldHost={controller}
SlurmctldPort={CONTROLLER_PORT}
SlurmdPort={SLURMD_PORT}
SlurmUser=root
SlurmdUser=root
MailProg=/bin/true
StateSaveLocation={directory}/state
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmdSpoolDir=/run/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
# More CPUs than the machine has.
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
# A batch job that could begin waits for up to a second even so: slurmctld looks for such jobs once a second.
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
SlurmctldTimeout=10
SlurmdTimeout={timeout}
MessageTimeout={message_timeout}
KillWait={kill_wait}
# A node that was down is used again as soon as its slurmd is back.
ReturnToService=2
{"".join(f"{node.line()}{chr(10)}" for node in nodes)}\
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def gres_conf(directory: Path, nodes: Sequence[NodeFacts]) -> str:
    """Return the gres.conf that says where the nodes' GPUs are: device files `gpu0`, `gpu1`... in `directory`."""
    return "".join(
        f"NodeName={node.name} Name=gpu File={directory}/gpu[0-{node.gpus - 1}]\n" for node in nodes if node.gpus
    )
