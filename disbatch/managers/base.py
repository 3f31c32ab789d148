"""What a context asks of a resource manager, whichever it is.

Pure, as the managers are: what they know of the world is in the environment of the context, which comes in as an
argument.
"""

from __future__ import annotations

from disbatch.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from disbatch.messages import NodeOffer

    class Manager(Protocol):
        """Nodes of one allocation, and how engines are started on them."""

        @property
        def system(self) -> str:
            """What contexts of the kind call themselves, and begin their default labels with."""

        @property
        def label(self) -> str:
            """Default label of this very allocation, empty where its rank in the run is to make one."""

        @property
        def ends_by(self) -> Sequence[str]:
            """Names of three signals for what has started an engine: to ask it to end, to insist, to be rid of it."""

        def offers(self, wishes: Wishes) -> tuple[NodeOffer, ...]:
            """Nodes that have cylinders; raises `ResourceError` when none has any."""

        def conflicts(self, wishes: Wishes) -> list[str]:
            """What the user has asked of disbatch and, otherwise, of the resource manager: a line each."""

        def start(self, offer: NodeOffer, engine: EngineCall) -> Start:
            """How an engine is started on a node."""


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


@record
class Start:
    """A process to start: argument list, and environment where it is not to have that of the context."""

    command: tuple[str, ...]
    environment: dict[str, str] | None = None
