"""Posts the state of the run when it has changed, at most a few times a second.

It must not know what the state is made of. What it costs is bounded: the more there is to post, the less often.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from disbatch.eventloop import EventLoop, Timer

PERIOD = 0.3
"""Seconds between two posts, at least."""

SHARE = 0.01
"""Share of the driver's time that posting may take."""


class Publisher:
    """Calls `post` some time after `changed` was called, once for any number of calls."""

    def __init__(self, loop: EventLoop, post: Callable[[], None]) -> None:
        self._loop = loop
        self._post = post
        self._pause = PERIOD
        self._due: Timer | None = None

    def changed(self) -> None:
        """Take note that what was posted is out of date."""
        if self._due is None:
            self._due = self._loop.after(self._pause, self._publish)

    def _publish(self) -> None:
        self._due = None
        began = self._loop.now()
        self._post()
        self._pause = max(PERIOD, (self._loop.now() - began) / SHARE)

    def close(self) -> None:
        """Post no more."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
