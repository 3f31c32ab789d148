"""What jobs have in common whose resource manager tells of nodes and slots, and starts one process on a node.

Pure. It knows no resource manager by name.
"""

from __future__ import annotations

from disbatch import layout
from disbatch.errors import ResourceError
from disbatch.managers.base import Start
from disbatch.managers.ssh import by_ssh
from disbatch.values import MOST_CORES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from disbatch.layout import Node
    from disbatch.managers.base import EngineCall, Outside, Wishes
    from disbatch.messages import NodeOffer

MOST_DIGITS = len(str(MOST_CORES))

GUARD = ("/bin/sh", "-c", '"$@" || exit $(($? < 128 ? $? : 255))', "sh")
"""Starts the words behind it, and ends with 255 when a signal has ended them, as ssh does."""


class Job:
    """The job that an environment tells of: nodes with slots, of which one is a core.

    Subclasses say how it is found, what it is called, which slots it has, and what starts an engine on a node. That of
    the node that this machine is, by its names, is started directly; where none of the nodes has one of its names that
    is the first, on which these systems run the script of a job.
    """

    system = ""
    ends_by = ("SIGTERM", "SIGQUIT", "SIGKILL")
    telltale = ""
    """Variable that is set in each job."""
    launcher = ""
    """Command that starts processes on nodes of the job; where it is not on PATH, ssh does."""

    def __init__(self, environment: Mapping[str, str], outside: Outside) -> None:
        self._environment = environment
        self._outside = outside
        self._here: str | None = None
        self.label = f"J{self._number()}"
        self._nodes = nodes_of(self._slots())

    @classmethod
    def found_in(cls, environment: Mapping[str, str]) -> bool:
        """See `Manager`."""
        return bool(environment.get(cls.telltale))

    @classmethod
    def made_from(cls, environment: Mapping[str, str], outside: Outside) -> Job:
        """See `Manager`."""
        return cls(environment, outside)

    def offers(self, wishes: Wishes) -> tuple[NodeOffer, ...]:
        """See `Manager`."""
        hint = "lower -c, or ask for more cores on a node"
        return layout.lay_out(self._nodes, wishes.cpus_per_task, wishes.tasks_per_node, hint)

    def conflicts(self, _wishes: Wishes) -> list[str]:
        """See `Manager`."""
        return []

    def start(self, offer: NodeOffer, engine: EngineCall) -> Start:
        """See `Manager`."""
        if self._here is None:
            names = self._outside.names_here([node.name for node in self._nodes])
            mine = (node.name for node in self._nodes if node.name.lower() in names)
            self._here = next(mine, self._nodes[0].name)
        if offer.name == self._here:
            return Start(engine.in_place())
        if self._outside.has_command(self.launcher):
            return self._launch(offer.name, engine)
        return by_ssh(offer.name, engine)

    def _number(self) -> str:
        raise NotImplementedError

    def _slots(self) -> Iterable[tuple[str, int]]:
        """Nodes and slots on each, in any pieces."""
        raise NotImplementedError

    def _launch(self, node: str, engine: EngineCall) -> Start:
        raise NotImplementedError

    def _wanted(self, name: str) -> str:
        value = self._environment.get(name, "")
        if not value:
            raise ResourceError(f"this is a job of {self.system}, but {name} is not set", "name hosts with -s")
        return value

    def _file(self, name: str) -> str:
        """Text of the file of nodes that a variable names."""
        return self._outside.read(self._wanted(name), "the nodes of the job")


def guarded(engine: EngineCall) -> str:
    """Line that starts an engine elsewhere, for commands that let a shell read it, and pass on how that ends.

    What they see is a process that no signal has ended. 255 is for one that a signal has: tasks of it may run still.
    """
    import shlex  # noqa: PLC0415 - as in `EngineCall.line`

    return f"{shlex.join(GUARD)} {engine.line()}"


def nodes_of(slots: Iterable[tuple[str, int]]) -> tuple[Node, ...]:
    """One node for each name, in order of first mention; the slots of one that is named again add up.

    Raises `ResourceError` for more than any node has, and when there is none.
    """
    cores: dict[str, int] = {}
    for name, count in slots:
        cores[name] = cores.get(name, 0) + count
        if cores[name] > MOST_CORES:
            raise ResourceError(f"{cores[name]} cores of {name!r} are more than any node has")
    if not cores:
        raise ResourceError("the job's list of nodes is empty")
    return tuple(layout.Node(name, count) for name, count in cores.items())


def slots_of_lines(text: str) -> list[tuple[str, int]]:
    """A slot for each line of a file that has the name of its node; lines with nothing in them do not count."""
    return [(node_name(line.strip()), 1) for line in text.splitlines() if line.strip()]


def node_name(text: str) -> str:
    """Check a name of a node, of which commands make arguments; raises `ResourceError`."""
    if not text.isprintable() or text.startswith("-") or " " in text:
        raise ResourceError(f"{text!r} is no name of a node")
    return text


def number(text: str, of: str) -> int:
    """A number above 0; raises `ResourceError` that says what it should be `of`."""
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS and 0 < int(text) <= MOST_CORES):
        raise ResourceError(f"{text!r} is no number of {of}")
    return int(text)
