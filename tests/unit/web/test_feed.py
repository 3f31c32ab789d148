from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from disbatch.web import feed
from disbatch.web.feed import MOST_READERS, Feed

if TYPE_CHECKING:
    import pytest


def test_who_comes_gets_all_there_is_and_then_what_is_new() -> None:
    async def play() -> None:
        told = Feed()
        told.post({"a": b"a1 ", "b": b"b1 "})
        told.post({"a": b"a2 "})
        reader = told.follow()
        assert sorted((await anext(reader)).split()) == [b"a2", b"b1"]
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        told.post({"a": b"a2 ", "b": b"b2 "})
        assert await waiting == b"b2 "

    asyncio.run(play())


def test_a_slow_reader_misses_what_is_no_longer_the_newest() -> None:
    async def play() -> None:
        told = Feed()
        told.post({"a": b"1 "})
        reader = told.follow()
        assert await anext(reader) == b"1 "
        for number in range(2, 100):
            told.post({"a": b"%d " % number})
        assert await anext(reader) == b"99 "

    asyncio.run(play())


def test_what_has_not_changed_wakes_nobody() -> None:
    async def play() -> None:
        told = Feed()
        told.post({"a": b"1 "})
        reader = told.follow()
        await anext(reader)
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        told.post({"a": b"1 "})
        await asyncio.sleep(0)
        assert not waiting.done()
        told.post({"a": b"2 "})
        assert await waiting == b"2 "

    asyncio.run(play())


def test_at_the_end_everybody_hears_the_last_and_goes() -> None:
    async def play() -> None:
        told = Feed()
        told.post({"a": b"1 "})
        readers = [told.follow() for _ in range(3)]
        for reader in readers:
            await anext(reader)
        told.post({"ended": b"over "})
        told.end()
        for reader in readers:
            assert [text async for text in reader] == [b"over "]
        assert [text async for text in told.follow()] == [b"1 over "]
        assert told.readers == 0

    asyncio.run(play())


def whether_visited(told: Feed) -> bool:
    assert told.visited.is_set() is not told.deserted.is_set()
    return told.visited.is_set()


def test_it_knows_whether_anybody_is_there() -> None:
    async def play() -> None:
        told = Feed()
        told.post({"a": b"1 "})
        assert whether_visited(told) is False
        readers = [told.follow() for _ in range(MOST_READERS)]
        for reader in readers[1:]:
            await anext(reader)
        before_the_last = told.is_full
        await anext(readers[0])
        assert (before_the_last, told.is_full) == (False, True)
        assert whether_visited(told) is True
        for reader in readers:
            await reader.aclose()
        assert not told.readers
        assert whether_visited(told) is False

    asyncio.run(play())


def test_where_nothing_is_new_for_long_readers_hear_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "SILENCE", 0.001)

    async def play() -> None:
        assert (await anext(Feed().follow())).startswith(b":")

    asyncio.run(play())
