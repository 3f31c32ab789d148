"""Nodes of a context whose engines have ended, and what the command that gives them back is told of them.

Pure. It must not know how such a command is run, nor when.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Retirement:
    """The nodes of a context, in their order, and those among them that nobody needs any longer.

    `own` is the node of the job that the context itself runs on, among them or not, if any: it is not given back.
    `last_too` is whether a command is to be told when no node is in use any more, or the context's end is all it takes.
    """

    def __init__(self, nodes: Iterable[str], own: str, *, last_too: bool) -> None:
        self._active = dict.fromkeys(nodes)
        self._own = own
        self._last_too = last_too
        self._new: dict[str, int] = {}
        self._given_back: list[str] = []

    def add(self, node: str, return_code: int) -> None:
        """What had started the engine of a node has ended, with this exit status (-n for signal n)."""
        del self._active[node]
        if node != self._own:
            self._new[node] = return_code

    @property
    def is_due(self) -> bool:
        """Whether there are nodes to give back that no command has been told of."""
        return bool(self._new) and (self._last_too or bool(self._active))

    def take(self) -> dict[str, str]:
        """Variables that tell a command of the nodes that have been added since it was called last.

        Lists are separated by commas: NODES, and NODE, are those to give back; RETCODES how their engines have ended,
        in that order; ACTIVE are the nodes in use; RETIRED all that were ever to be given back, with these. DRIVER_NODE
        is the context's own node if its engine has ended too.
        """
        nodes = ",".join(self._new)
        self._given_back += self._new
        variables = {
            "NODES": nodes,
            "NODE": nodes,
            "RETCODES": ",".join(map(str, self._new.values())),
            "ACTIVE": ",".join(self._active),
            "RETIRED": ",".join(self._given_back),
        }
        if self._own and self._own not in self._active:
            variables["DRIVER_NODE"] = self._own
        self._new.clear()
        return variables
