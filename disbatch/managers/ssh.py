"""Hosts that the user names: this machine directly, others through ssh.

Pure.
"""

from __future__ import annotations

from disbatch import layout
from disbatch.managers.base import Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from disbatch.managers.base import EngineCall, Wishes
    from disbatch.messages import NodeOffer
    from disbatch.values import SshNode

SSH_COMMAND = ("ssh", "-T", "-n", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15")
"""ssh that asks nobody anything and gives up on a host that does not answer."""


def names_of_this_machine(host_name: str, full_name: str) -> frozenset[str]:
    """Names that mean the machine itself, in lower case, given its host name and its fully qualified one."""
    names = {"localhost", "127.0.0.1", "::1", host_name, host_name.partition(".")[0], full_name}
    return frozenset(name.lower() for name in names)


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

    def offers(self, wishes: Wishes) -> tuple[NodeOffer, ...]:
        """See `Manager`."""
        return layout.lay_out(self._nodes, wishes.cpus_per_task, wishes.tasks_per_node)

    def conflicts(self, _wishes: Wishes) -> list[str]:
        """See `Manager`."""
        return []

    def start(self, offer: NodeOffer, engine: EngineCall) -> Start:
        """See `Manager`. ssh joins its arguments with blanks and a shell there splits them again, hence the quoting."""
        if self._here is None:
            self._here = self._names_here([node.name for node in self._nodes])
        if offer.name.lower() in self._here:
            return Start((*engine.here, *engine.arguments))
        import shlex  # noqa: PLC0415 - it takes `re`, together 2 ms, which an engine on this machine need not wait for

        # A shell that is not replaced would make an exit status of the signal that has killed what it started.
        there = f"exec {shlex.join([engine.script, '--engine', *engine.arguments])}"
        return Start((*SSH_COMMAND, "--", offer.name, there))
