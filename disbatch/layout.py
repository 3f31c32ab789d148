"""What an allocation is, whatever gave it: nodes with cores, laid out into cylinders.

Pure. Contexts lay out what they have; the driver does first, to tell of a mistake before anything is started. It must
not know how an engine is started, and it knows no resource manager by name.
"""

from __future__ import annotations

import math

from disbatch.errors import ResourceError
from disbatch.messages import NodeOffer
from disbatch.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from disbatch.values import SshNode

_ROUNDING = 1e-9
"""Keeps 0.3 cores of 3 at ten cylinders, where binary fractions would make nine."""


@record
class Node:
    """A node of an allocation, as the context names it, and the number of its cores that belong to the run."""

    name: str
    cores: int


def nodes_of(hosts: Iterable[SshNode]) -> tuple[Node, ...]:
    """One node for each host, in order of first mention; the cores of a host that is named again add up."""
    cores: dict[str, int] = {}
    for host in hosts:
        cores[host.host] = cores.get(host.host, 0) + host.cores
    return tuple(Node(name, count) for name, count in cores.items())


def cylinders_of(cores: int, cpus_per_task: float | None, tasks_per_node: int | None) -> int:
    """How many tasks a node with that many cores runs at once; may be 0."""
    fitting = math.floor(cores / (cpus_per_task or 1) + _ROUNDING)
    return fitting if tasks_per_node is None else min(fitting, tasks_per_node)


def lay_out(
    nodes: Sequence[Node],
    cpus_per_task: float | None,
    tasks_per_node: int | None,
    hint: str = "lower -c, or name hosts with more cores",
) -> tuple[NodeOffer, ...]:
    """Cylinders of each node that has any; raises `ResourceError` when none has.

    A cylinder's cores are the whole cores of `cpus_per_task` where that was asked for, else an even share of the
    node's, and at least 1.
    """
    offers = []
    for node in nodes:
        cylinders = cylinders_of(node.cores, cpus_per_task, tasks_per_node)
        if cylinders:
            share = node.cores // cylinders if cpus_per_task is None else int(cpus_per_task)
            offers.append(NodeOffer(node.name, cylinders, max(1, share)))
    if not offers:
        largest = max(node.cores for node in nodes)
        raise ResourceError(
            f"no node has the {cpus_per_task or 1:g} cores that a task needs; the largest has {largest}",
            hint,
        )
    return tuple(offers)
