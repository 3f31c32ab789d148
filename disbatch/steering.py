"""What the script of a run does besides adding resources: it tells where the key-value store is, and stops what runs.

A client of the run's store like any other. It must not know how the driver does what it is asked for.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, cast

from disbatch import joining, messages
from disbatch.errors import DisbatchError, DriverUnreachableError, ExitStatus
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.kvsstcp.client import KVSError
from disbatch.kvsstcp.endpoint import client_environment
from disbatch.kvsstcp.wire import JSON
from disbatch.runfiles import RunFiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disbatch.kvsstcp.client import KVSClient
    from disbatch.options import ContextRoleOptions

STATE_PATIENCE = 2.0
"""Seconds that the driver may take to post what it knows; it does so a few times a second."""

_PAUSE = 0.2


def print_store(asked: ContextRoleOptions) -> int:
    """Print where the store of the run is, and the secret of programs, as lines for their environment; 0.

    Raises `DriverUnreachableError` when it is not there.
    """
    joining.client(asked.kvs).close()
    secret = os.environ.get(SECRET_VARIABLE, "").encode() or None
    for name, value in client_environment((asked.kvs.host, asked.kvs.port), secret, {}).items():
        print(f"{name}={value}")
    return ExitStatus.OK


def stop(asked: ContextRoleOptions, kind: str, name: str) -> int:
    """Tell the driver to stop a context or an engine, and say so; the exit status.

    Raises `DisbatchError` when the run has none of that name, or several.
    """
    with joining.client(asked.kvs) as client:
        try:
            rank, what = _find(client, kind, name)
            order = messages.StopEngine(rank, asked.now) if kind == "engine" else messages.StopContext(rank, asked.now)
            client.put(messages.orders_key(RunFiles(asked.run).job), messages.encode(order), messages.TAG)
            _state(client)  # an answer to what was asked for later: the driver has the order
        except KVSError as error:
            raise DriverUnreachableError(
                f"lost the driver: {error}", "the run is over, or its host is not to be reached"
            ) from error
    print(f"told {what} to {'end what runs there, which others run again' if asked.now else 'finish what runs there'}")
    return ExitStatus.OK


def _find(client: KVSClient, kind: str, name: str) -> tuple[int, str]:
    """Rank of the one that is meant, and words for it; looked for until the state is newer than the question."""
    deadline = time.monotonic() + STATE_PATIENCE
    while True:
        state = _state(client)
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


def _state(client: KVSClient) -> dict[str, Any]:
    """The state of the run as it was posted last; nothing of it, when it has just begun."""
    tag, text = cast("tuple[bytes, bytes]", client.view(messages.STATE_KEY, encoding=None))
    return cast("dict[str, Any]", json.loads(text)) if tag == JSON else {}


def matching(state: dict[str, Any], kind: str, name: str) -> list[tuple[int, str]]:
    """Rank, and words for it, of each context or engine that a user may mean by `name` and that is not gone yet."""
    there = list(_there(state, kind))
    return [(rank, what) for rank, what, known_as in there if name in known_as] or [
        (rank, what) for rank, what, _ in there if name == str(rank)
    ]


def names(state: dict[str, Any], kind: str) -> list[str]:
    """What the contexts or engines that are not gone may be called, each once."""
    return list(dict.fromkeys(known_as[0] for _, _, known_as in _there(state, kind)))


def _there(state: dict[str, Any], kind: str) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    if kind == "context":
        for context in state.get("contexts", {}).values():
            if context["active"]:
                yield context["rank"], f"context {context['label']}", (context["label"],)
        return
    for engine in state.get("engines", {}).values():
        if engine["status"] != "stopped":
            what = f"engine {engine['rank']} on {engine['node']}"
            yield engine["rank"], what, (engine["node"], engine["hostname"])
