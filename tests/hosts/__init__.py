"""Real computers for tests, made of this one: `Hosts` as root, `LoopbackSshd` as anybody."""

from tests.hosts.cell import CellError, Process, processes_in
from tests.hosts.network import Host, Hosts
from tests.hosts.requirements import not_here, why_no_hosts, why_no_ipv6, why_no_small_disk, why_no_sshd
from tests.hosts.sshd import LoopbackSshd

__all__ = [
    "CellError",
    "Host",
    "Hosts",
    "LoopbackSshd",
    "Process",
    "not_here",
    "processes_in",
    "why_no_hosts",
    "why_no_ipv6",
    "why_no_small_disk",
    "why_no_sshd",
]
