"""What a context asks of a resource manager, whichever it is. docs/how-to/resource-managers.md shows how to write one.

Pure, as the managers are: what they know of the world is in the environment of the context, which comes in as an
argument, and in the answers of `Outside`.
"""

from __future__ import annotations

from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Protocol

    from disbatch.messages import NodeOffer

    class Manager(Protocol):
        """Nodes of one allocation, and how engines are started on them.

        A manager may have a `give_back` too: a shell command that gives back nodes whose engines have ended, see
        `contexts.retirement` for what it finds in its environment; without one, or with an empty one, nodes are kept.
        And an `own_node`: the name of the node that this process runs on, which may have no engine, or another name.
        """

        @property
        def system(self) -> str:
            """What contexts of the kind call themselves, and begin their default labels with."""

        @property
        def label(self) -> str:
            """Default label of this very allocation, empty where its rank in the run is to make one."""

        @property
        def ends_by(self) -> Sequence[str]:
            """Names of three signals for what has started an engine: to ask it to end, to insist, to be rid of it."""

        @classmethod
        def found_in(cls, environment: Mapping[str, str]) -> bool:
            """Whether that is the environment of one of its jobs."""

        @classmethod
        def made_from(cls, environment: Mapping[str, str], outside: Outside) -> Manager:
            """Make the manager of the job whose environment this is; raises `ResourceError` for what it cannot read."""

        def offers(self, wishes: Wishes) -> tuple[NodeOffer, ...]:
            """Nodes that have cylinders; raises `ResourceError` when none has any."""

        def conflicts(self, wishes: Wishes) -> list[str]:
            """What the user has asked of disbatch and, otherwise, of the resource manager: a line each."""

        def start(self, offer: NodeOffer, engine: EngineCall) -> Start:
            """How an engine is started on a node; what is started runs until the engine has ended."""


@record
class Outside:
    """Questions of a manager to the world."""

    read: Callable[[str, str], str]
    """Text of a file, given its path and what is in it; raises `ResourceError` when it cannot be read."""
    has_command: Callable[[str], bool]
    """Whether a command is on PATH."""
    names_here: Callable[[Sequence[str]], Collection[str]]
    """Names of this machine, in lower case, given those of the nodes; it may take seconds."""


@record
class Wishes:
    """What a user asks of a context's layout; None for what is left to the resource manager."""

    cpus_per_task: float | None = None
    tasks_per_node: int | None = None
    fill: bool = False


@record
class EngineCall:
    """What starts an engine: by `here` on this machine, by `script` on one that shares its files, with `arguments`."""

    here: tuple[str, ...]
    script: str
    arguments: tuple[str, ...]

    def in_place(self) -> tuple[str, ...]:
        """Argument list that starts it on this machine."""
        return (*self.here, *self.arguments)

    def elsewhere(self) -> tuple[str, ...]:
        """Argument list that starts it on any machine that shares the files of this one."""
        return (self.script, "--engine", *self.arguments)

    def line(self) -> str:
        """The latter for a shell to read."""
        import shlex  # noqa: PLC0415 - it takes `re`, together 2 ms, which an engine on this machine need not wait for

        return shlex.join(self.elsewhere())


def for_script(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment of a context as it may travel to where the script starts an engine, which has the secret of its own.

    How it travels is up to the resource manager: others may be able to read it.
    """
    return {name: value for name, value in environment.items() if name != SECRET_VARIABLE}


@record
class Start:
    """A process to start: argument list, and environment where it is not to have that of the context.

    `status_tells`: whether its end with a status from 0 to 254 means that nothing of the engine runs any more.
    """

    command: tuple[str, ...]
    environment: dict[str, str] | None = None
    status_tells: bool = True
