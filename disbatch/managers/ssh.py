"""Hosts that the user names: this machine directly, others through ssh.

Pure.
"""

from __future__ import annotations

from disbatch import layout
from disbatch.managers.base import Start
from disbatch.values import SSH_NODES_VARIABLE, ssh_nodes_of_environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from disbatch.managers.base import EngineCall, Outside, Wishes
    from disbatch.messages import NodeOffer
    from disbatch.values import SshNode

SSH_COMMAND = (
    *("ssh", "-T", "-n", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"),
    # Or one whose context was killed would wait for two hours for a host that has lost its power.
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"),
)
"""ssh that asks nobody anything and gives up on a host that does not answer."""


SSH_FAILED = 255
"""Exit status of ssh itself, which has not got to its host or has lost it; nothing follows for what runs there."""


def names_of_this_machine(host_name: str, full_name: str) -> frozenset[str]:
    """Names that mean the machine itself, in lower case, given its host name and its fully qualified one."""
    names = {"localhost", "127.0.0.1", "::1", host_name, host_name.partition(".")[0], full_name}
    return frozenset(name.lower() for name in names)


def by_ssh(host: str, engine: EngineCall) -> Start:
    """Start of an engine through ssh, which joins its arguments with blanks for a shell there to split them again."""
    # A shell that is not replaced would make an exit status of the signal that has killed what it started.
    return Start((*SSH_COMMAND, "--", host, f"exec {engine.line()}"))


class Ssh:
    """Hosts and their cores; `names_here` is asked for the names of this machine, given those of the hosts."""

    system = "SSH"
    label = ""
    ends_by = ("SIGTERM", "SIGQUIT", "SIGKILL")

    def __init__(
        self, hosts: Sequence[SshNode], names_here: Callable[[Sequence[str]], Collection[str]] = frozenset
    ) -> None:
        self._nodes = layout.nodes_of(hosts)
        self._names_here = names_here
        self._here: Collection[str] | None = None

    @classmethod
    def found_in(cls, environment: Mapping[str, str]) -> bool:
        """See `Manager`."""
        return bool(environment.get(SSH_NODES_VARIABLE))

    @classmethod
    def made_from(cls, environment: Mapping[str, str], outside: Outside) -> Ssh:
        """See `Manager`. Raises `UsageError` when the environment names no hosts, or not in the right form."""
        return cls(ssh_nodes_of_environment(environment), outside.names_here)

    def offers(self, wishes: Wishes) -> tuple[NodeOffer, ...]:
        """See `Manager`."""
        return layout.lay_out(self._nodes, wishes.cpus_per_task, wishes.tasks_per_node)

    def conflicts(self, _wishes: Wishes) -> list[str]:
        """See `Manager`."""
        return []

    def start(self, offer: NodeOffer, engine: EngineCall) -> Start:
        """See `Manager`."""
        if self._here is None:
            self._here = self._names_here([node.name for node in self._nodes])
        if offer.name.lower() in self._here:
            return Start(engine.in_place())
        return by_ssh(offer.name, engine)
