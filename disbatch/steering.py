"""What the script of a run does besides adding resources: it tells where the key-value store is, and stops what runs.

A client of the run's store like any other. It must not know how the driver does what it is asked for.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from disbatch import joining, messages
from disbatch.errors import DisbatchError, ExitStatus
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.kvsstcp.endpoint import client_environment
from disbatch.runfiles import RunFiles
from disbatch.terminal import answer
from disbatch.watch.observer import Observer
from disbatch.watch.state import GONE
from disbatch.watch.words import told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disbatch.options import ContextRoleOptions
    from disbatch.watch.state import RunState

STATE_PATIENCE = 2.0
"""Seconds that the driver may take to post what it knows; it does so a few times a second."""

_PAUSE = 0.2


def print_store(asked: ContextRoleOptions) -> int:
    """Print where the store of the run is, and the secret of programs, as lines for their environment; 0.

    Raises `DriverUnreachableError` when it is not there.
    """
    joining.client(asked.kvs).close()
    secret = os.environ.get(SECRET_VARIABLE, "").encode() or None
    variables = client_environment((asked.kvs.host, asked.kvs.port), secret, {})
    answer("\n".join(f"{name}={value}" for name, value in variables.items()))
    return ExitStatus.OK


def stop(asked: ContextRoleOptions, kind: str, name: str) -> int:
    """Tell the driver to stop a context or an engine, and say so; the exit status.

    Raises `DisbatchError` when the run has none of that name, or several.
    """
    with Observer(asked.kvs) as observer:
        rank, what = _find(observer, kind, name)
        order = messages.StopEngine(rank, asked.now) if kind == "engine" else messages.StopContext(rank, asked.now)
        observer.order(RunFiles(asked.run).job, order)
    answer(told(what, now=asked.now))
    return ExitStatus.OK


def _find(observer: Observer, kind: str, name: str) -> tuple[int, str]:
    """Rank of the one that is meant, and words for it; looked for until the state is newer than the question."""
    deadline = time.monotonic() + STATE_PATIENCE
    while True:
        state = observer.state()
        found = matching(state, kind, name)
        if found or time.monotonic() > deadline:
            break
        time.sleep(_PAUSE)
    if not found:
        there = ", ".join(names(state, kind)) or "none"
        raise DisbatchError(f"no {kind} of this run goes by {name!r}", f"there is: {there}")
    if len(found) > 1:
        words = ", ".join(what for _, what in found)
        raise DisbatchError(f"{name!r} may be any of these: {words}", "name one by its number")
    return found[0]


def matching(state: RunState | None, kind: str, name: str) -> list[tuple[int, str]]:
    """Rank, and words for it, of each context or engine that a user may mean by `name` and that is not gone yet."""
    there = list(_there(state, kind))
    return [(rank, what) for rank, what, known_as in there if name in known_as] or [
        (rank, what) for rank, what, _ in there if name == str(rank)
    ]


def names(state: RunState | None, kind: str) -> list[str]:
    """What the contexts or engines that are not gone may be called, each once."""
    return list(dict.fromkeys(known_as[0] for _, _, known_as in _there(state, kind)))


def _there(state: RunState | None, kind: str) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    if state is not None and kind == "context":
        for context in state.contexts:
            if not context.gone:
                yield context.rank, f"context {context.label}", (context.label,)
    elif state is not None:
        for engine in state.engines:
            if engine.status != GONE:
                yield engine.rank, f"engine {engine.rank} on {engine.node}", (engine.node, engine.host)
