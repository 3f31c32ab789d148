"""What all pages that are open are told: the newest of each part, in one form for all of them.

A page that is slow misses what is no longer the newest, and nothing waits for it: nothing is kept for one alone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

MOST_READERS = 100
"""Pages that may be open at once."""

SILENCE = 15.0
"""Seconds after which a page hears that nothing is new: it is to notice when nobody is there any more."""


class Feed:
    """Parts are named; each is a piece of an event stream as it is sent."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[int, bytes]] = {}
        self._number = 0
        self._news = asyncio.Event()
        self._has_ended = False
        self.readers = 0
        self.visited, self.deserted = asyncio.Event(), asyncio.Event()
        """Set while somebody follows, and while nobody does."""
        self.deserted.set()

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another reader."""
        return self.readers >= MOST_READERS

    def post(self, parts: Mapping[str, bytes]) -> None:
        """Tell everybody what is new of these."""
        new = {name: text for name, text in parts.items() if self._parts.get(name, (0, b""))[1] != text}
        if new:
            self._number += 1
            self._parts.update((name, (self._number, text)) for name, text in new.items())
            self._wake()

    def end(self) -> None:
        """There will be nothing new: let everybody go who has all there is."""
        self._has_ended = True
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def follow(self) -> AsyncGenerator[bytes, None]:
        """All there is, and what is new from then on."""
        seen = 0
        self.readers += 1
        self.visited.set()
        self.deserted.clear()
        try:
            while True:
                news = self._news
                new = b"".join(text for number, text in self._parts.values() if number > seen)
                seen = self._number
                if new:
                    yield new
                    continue
                if self._has_ended:
                    return
                try:
                    await asyncio.wait_for(news.wait(), SILENCE)
                except asyncio.TimeoutError:  # not the builtin one before Python 3.11
                    yield b": nothing new\n\n"
        finally:
            self.readers -= 1
            if not self.readers:
                self.visited.clear()
                self.deserted.set()
