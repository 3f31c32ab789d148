"""One who looks at a run from outside, and may stop parts of it where his secret gives the right.

A client of the run's key-value store like any other.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from disbatch import joining, messages
from disbatch.errors import DriverUnreachableError
from disbatch.kvsstcp.client import KVSError
from disbatch.kvsstcp.wire import JSON
from disbatch.watch.state import StateError, parse_running, parse_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from disbatch.values import Address
    from disbatch.watch.state import RunningTask, RunState

ANSWER_PATIENCE = 10.0
"""Seconds that the driver may take to answer; one that was stopped does not."""


class Observer:
    """A connection to the run whose store is at `kvs`, with that secret, or the one in the environment.

    Every call may raise `DriverUnreachableError`: the run is over, or cannot be reached; and `watch.state.StateError`.
    """

    def __init__(self, kvs: Address, patience: float = joining.PATIENCE, secret: str | None = None) -> None:
        self._client = joining.client(kvs, patience, secret)

    def state(self) -> RunState | None:
        """State of the run as it was posted last; None when it has just begun."""
        tag, text = self._view(messages.STATE_KEY)
        return parse_state(text) if tag == JSON else None

    def end(self) -> RunState:
        """Wait for the end of the run, however long that takes; its state then."""
        try:
            return parse_state(cast("tuple[bytes, bytes]", self._client.view(messages.END_KEY, None))[1])
        except (KVSError, OSError) as error:
            raise _lost(error) from error

    def running(self, engine: int | None = None) -> tuple[tuple[RunningTask, ...], int]:
        """What runs on the engine of that rank, or in the whole run: those that run for longest, and how many more.

        For operators: the store ends the connection of an observer who asks for it.
        """
        key = messages.RUNNING_KEYS if engine is None else messages.RUNNING_KEYS + b" %d" % engine
        return parse_running(self._view(key)[1])

    def order(self, job: str, order: messages.StopEngine | messages.StopContext) -> None:
        """Give the driver of the run with that job id an order, and return when it has it."""
        try:
            self._client.put(messages.orders_key(job), messages.encode(order), messages.TAG)
        except (KVSError, OSError) as error:
            raise _lost(error) from error
        self._view(messages.STATE_KEY)  # an answer to what was asked for later: the driver has the order

    def _view(self, key: bytes) -> tuple[bytes, bytes]:
        try:
            return cast("tuple[bytes, bytes]", self._client.view(key, None, ANSWER_PATIENCE))
        except (KVSError, OSError) as error:
            raise _lost(error) from error

    def close(self) -> None:
        """Look no more."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _lost(error: Exception) -> DriverUnreachableError:
    return DriverUnreachableError(f"lost the driver: {error}", "the run is over, or its host is not to be reached")


class LastWord:
    """Waits, in a thread and over the connection that `connect` makes, for the state in which the run ends.

    One who asks now and then would miss that: the driver has left by the next time.
    """

    def __init__(self, connect: Callable[[], Observer]) -> None:
        self._connect = connect
        self._state: RunState | None = None
        self._thread = threading.Thread(target=self._wait, name="last word", daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        # Without a last word the end is known all the same.
        with suppress(DriverUnreachableError, StateError), self._connect() as observer:
            self._state = observer.end()

    def get(self, patience: float = 1.0) -> RunState | None:
        """That state, if it has come or comes within so many seconds; for when the driver has gone."""
        self._thread.join(patience)
        return self._state
