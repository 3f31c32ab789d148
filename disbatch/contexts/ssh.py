"""Hosts that the user names: this machine directly, others through ssh.

Pure. It turns the name of a node into the command that starts an engine there.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

SYSTEM = "SSH"
"""What contexts of this kind call themselves, and begin their default labels with."""

SSH_COMMAND = ("ssh", "-T", "-n", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15")
"""ssh that asks nobody anything and gives up on a host that does not answer."""


def names_of_this_machine(host_name: str, full_name: str) -> frozenset[str]:
    """Names that mean the machine itself, in lower case, given its host name and its fully qualified one."""
    names = {"localhost", "127.0.0.1", "::1", host_name, host_name.partition(".")[0], full_name}
    return frozenset(name.lower() for name in names)


def engine_command(
    node: str, here: Collection[str], local: Sequence[str], script: str, engine: Sequence[str]
) -> list[str]:
    """Argument list that starts an engine on `node`.

    `here` are the names of this machine, `local` starts an engine on it, and `script` does on one that shares its
    files; both take the arguments `engine`. ssh joins its arguments with blanks and a shell there splits them again,
    hence the quoting.
    """
    if node.lower() in here:
        return [*local, *engine]
    import shlex  # noqa: PLC0415 - it takes `re`, together 2 ms, which an engine on this machine need not wait for

    # A shell that is not replaced would make an exit status of the signal that has killed what it started.
    return [*SSH_COMMAND, "--", node, f"exec {shlex.join([script, '--engine', *engine])}"]
