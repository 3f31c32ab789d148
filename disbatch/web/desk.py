"""What visitors may ask for besides what all are told: to find tasks, and to stop engines and contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from disbatch import messages
from disbatch.errors import DisbatchError, DriverUnreachableError
from disbatch.watch import state as states
from disbatch.watch.words import told
from disbatch.web import view
from disbatch.web.search import search
from disbatch.web.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from disbatch.web.lookout import Lookout

SEARCH_PATIENCE = 3.0
"""Seconds that a search may take."""

MOST_TEXT = 200
"""Characters that may be searched for."""


class UnclearError(ValueError):
    """A visitor asks for what cannot be."""


class Desk:
    """Answers for the run that `lookout` looks at, whose status file is at `status_path`.

    `order` gives its driver an order, and raises `DriverUnreachableError` where that does not get through; `clock`
    tells seconds that never jump.
    """

    def __init__(
        self,
        lookout: Lookout,
        status_path: str,
        order: Callable[[messages.StopEngine | messages.StopContext], None],
        clock: Callable[[], float],
    ) -> None:
        self._lookout = lookout
        self._status_path = status_path
        self._order = order
        self._clock = clock

    def find(self, text: str) -> dict[str, Any]:
        """Tasks with that id, or that text in their lines, or in the command or host of those that run."""
        text = text.strip()[:MOST_TEXT]
        if not text:
            raise UnclearError("what is to be searched for?")
        deadline = self._clock() + SEARCH_PATIENCE
        result = search(self._pieces(), text, lambda: self._clock() < deadline)
        return view.found(result, self._running_with(text, result.task_id), self._lookout.unlisted)

    def _running_with(self, text: str, task_id: int | None) -> list[dict[str, Any]]:
        state = self._lookout.state
        if state is None:
            return []
        wanted = text.lower()
        nodes = {engine.rank: engine.node for engine in state.engines}
        found = [
            task
            for task in self._lookout.running
            if task.task_id == task_id or wanted in f"{task.command}\n{nodes.get(task.engine, '')}".lower()
        ]
        return view.running_tasks(found, state)

    def _pieces(self) -> Iterator[bytes]:
        tail = Tail(self._status_path)
        while piece := tail.read():
            yield piece

    def stop(self, asked: Mapping[str, Any]) -> str:
        """Tell the driver to stop an engine or a context; words for what was told, and to whom.

        Raises `UnclearError` for what is no such wish, and `DisbatchError` where it cannot be done.
        """
        kind, rank, now = asked.get("kind"), asked.get("rank"), asked.get("now")
        if kind not in ("engine", "context") or type(rank) is not int or type(now) is not bool:
            raise UnclearError("what is to be stopped?")
        state = self._lookout.state
        there = {}
        if state is not None and kind == "engine":
            there = {one.rank: f"the engine on {one.node}" for one in state.engines if one.status != states.GONE}
        elif state is not None:
            there = {one.rank: f"context {one.label}" for one in state.contexts if not one.gone}
        if rank not in there:
            raise DisbatchError(f"this {kind} is gone already")
        try:
            self._order(messages.StopEngine(rank, now) if kind == "engine" else messages.StopContext(rank, now))
        except DriverUnreachableError as error:
            raise DisbatchError("the driver does not answer, and whether it was told is not known") from error
        return told(view.shown(there[rank], 100), now=now)
