"""The page's process in parts; as a whole it is in the end-to-end tests."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
import uvicorn

from disbatch import handover
from disbatch.errors import DisbatchError
from disbatch.web import process
from disbatch.web.feed import Feed
from tests.unit.web.examples import END, HANDOVER, TOKEN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from disbatch.handover import RunEnd
    from disbatch.web.lookout import Lookout


DEADLINE = 20.0


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The driver's end and the page's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_it_takes_over_what_the_driver_hands_over(channel: tuple[socket.socket, socket.socket]) -> None:
    text = handover.line(HANDOVER)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        socket.send_fds(channel[0], [text[:10]], [listening.fileno()])
        channel[0].sendall(text[10:])
        known, page = process._take_over(channel[1])
        with page:
            assert known == HANDOVER
            assert page.getsockname() == listening.getsockname()


def test_a_driver_that_is_gone_before_it_has_said_anything_is_an_error(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    channel[0].close()
    with pytest.raises(DisbatchError, match="the driver is gone"):
        process._take_over(channel[1])


def test_it_is_not_for_use_by_hand() -> None:
    command = [sys.executable, "-m", "disbatch", "--web-page", "--run=/nowhere/run", "--kvs=127.0.0.1:1"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "disbatch: error: a run starts its web page itself (see -w of disbatch)\n"


@pytest.mark.parametrize(
    ("said", "end"), [(handover.line(END), END), (b"", None), (b"{}", None), (handover.line(END)[:-10], None)]
)
def test_the_word_of_the_end_is_what_the_driver_says_before_it_goes(
    channel: tuple[socket.socket, socket.socket], said: bytes, end: RunEnd | None
) -> None:
    channel[0].sendall(said)
    channel[0].close()
    assert asyncio.run(process._word_of_the_end(channel[1])) == end


class Sights:
    """Stands for the lookout."""

    def __init__(self, driver: socket.socket) -> None:
        self.driver = driver
        self.answered_in = 0.0
        self.looks: list[bool] = []
        self.loop: asyncio.AbstractEventLoop
        self.has_looked = asyncio.Event()

    def look(self, *, closely: bool) -> dict[str, bytes]:
        self.looks.append(closely)
        self.loop.call_soon_threadsafe(self.has_looked.set)
        if len(self.looks) == 3:
            self.driver.sendall(handover.line(END))
            self.driver.close()
        return {"run": b"%d" % len(self.looks)}

    def silence(self) -> dict[str, bytes]:
        return {}

    def last(self, end: RunEnd | None) -> dict[str, bytes]:
        assert end == END
        return {"ended": b" over"}


def test_it_looks_again_and_again_until_the_run_is_over_and_tells_all_readers(
    channel: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PERIOD", 0.001)
    monkeypatch.setattr(process, "IDLE_PERIOD", 0.002)
    sights = Sights(channel[0])

    async def play() -> bytes:
        sights.loop = asyncio.get_running_loop()
        feed = Feed()

        async def follow() -> bytes:
            return b"".join([text async for text in feed.follow()])

        reader = asyncio.ensure_future(follow())
        await process._watch(cast("Lookout", sights), feed, channel[1])
        return await reader

    assert asyncio.run(play()).endswith(b" over")
    assert sights.looks[0] is False, "nobody had come yet"
    assert sights.looks[1:] == [True, True]


def test_where_nobody_is_it_looks_seldom_and_at_once_when_somebody_comes(
    channel: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PERIOD", 0.001)
    monkeypatch.setattr(process, "IDLE_PERIOD", 3600.0)
    sights = Sights(channel[0])

    async def play() -> None:
        sights.loop = asyncio.get_running_loop()
        feed = Feed()
        watching = asyncio.ensure_future(process._watch(cast("Lookout", sights), feed, channel[1]))
        await sights.has_looked.wait()
        async for _ in feed.follow():
            pass
        await watching

    asyncio.run(play())
    assert sights.looks == [False, True, True]


class Waiting:
    """Stands for a lookout whose driver does not answer until it was said often enough that it is silent."""

    answered_in = 0.0

    def __init__(self, driver: socket.socket) -> None:
        self.driver = driver
        self.said = 0
        self.has_answered = threading.Event()

    def look(self, *, closely: bool) -> dict[str, bytes]:  # noqa: ARG002 - as the lookout has it
        assert self.has_answered.wait(DEADLINE)
        self.driver.close()
        return {"silence": b"over"}

    def silence(self) -> dict[str, bytes]:
        self.said += 1
        if self.said == 3:
            self.has_answered.set()
        return {"silence": b"%d" % self.said}

    def last(self, _end: RunEnd | None) -> dict[str, bytes]:
        return {}


def test_while_a_look_waits_for_the_driver_visitors_hear_again_and_again_that_it_is_silent(
    channel: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PERIOD", 0.001)
    monkeypatch.setattr(process, "IDLE_PERIOD", 0.002)
    posted: list[bytes] = []
    feed = Feed()
    monkeypatch.setattr(feed, "post", lambda parts: posted.extend(parts.values()))
    asyncio.run(process._watch(cast("Lookout", Waiting(channel[0])), feed, channel[1]))
    assert posted[:3] == [b"1", b"2", b"3"]
    assert posted[-1] == b"over"


class Transport:
    """Stands for a connection."""

    def __init__(self) -> None:
        self.is_aborted = False
        self.aborted = asyncio.Event()
        self.written = b""

    def get_extra_info(self, _name: str) -> Any:  # noqa: ANN401 - as the library has it
        return None

    def set_write_buffer_limits(self, *_: object, **__: object) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True
        self.aborted.set()

    def write(self, text: bytes) -> None:
        self.written += text

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def never_answer(_scope: object, _receive: object, _send: object) -> None:
    await asyncio.Event().wait()


async def answer_at_once(_scope: object, _receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"it"})


def server_of(app: object) -> uvicorn.Server:
    configuration = process._configuration(app)
    configuration.load()
    return uvicorn.Server(configuration)


def protocol_over(transport: Transport, server: uvicorn.Server | None = None) -> process._Protocol:
    server = server or server_of(never_answer)
    protocol = process._Protocol(server.config, server.server_state, {})
    protocol.connection_made(cast("asyncio.Transport", transport))
    return protocol


REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BEGUN = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"


@pytest.mark.parametrize("said", [b"", b"GET / HT", BEGUN])
def test_a_visitor_who_says_nothing_whole_is_sent_away(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(process, "REQUEST_PATIENCE", 0.0)

    async def play() -> None:
        transport = Transport()
        protocol = protocol_over(transport)
        if said:
            protocol.data_received(said)
        await transport.aborted.wait()

    asyncio.run(play())


def test_a_visitor_who_has_asked_for_something_may_stay() -> None:
    async def play() -> bool:
        transport = Transport()
        protocol = protocol_over(transport)
        protocol.data_received(REQUEST)
        await asyncio.sleep(0)
        protocol._end_if_unfinished()
        return transport.is_aborted

    assert not asyncio.run(play())


def test_who_has_had_an_answer_has_no_longer_for_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "REQUEST_PATIENCE", 3600.0)

    async def play() -> None:
        transport = Transport()
        protocol = protocol_over(transport, server_of(answer_at_once))
        monkeypatch.setattr(process, "REQUEST_PATIENCE", 0.0)
        protocol.data_received(REQUEST + b"GET / HT")
        await asyncio.wait_for(transport.aborted.wait(), DEADLINE)
        assert transport.written.endswith(b"it")

    asyncio.run(play())


def test_of_too_many_visitors_the_last_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MOST_CONNECTIONS", 1)

    async def play() -> list[bool]:
        transports = [Transport(), Transport()]
        server = server_of(never_answer)
        for transport in transports:
            protocol_over(transport, server)
        return [transport.is_aborted for transport in transports]

    assert asyncio.run(play()) == [False, True]


@pytest.mark.parametrize(("content", "stays"), [(f"http://h/?token={TOKEN}\n", False), ("http://h/?token=b\n", True)])
def test_the_url_of_this_page_is_removed_and_no_other(tmp_path: Path, content: str, *, stays: bool) -> None:
    path = tmp_path / "run_url"
    path.write_text(content, encoding="utf-8")
    process._remove_url(str(path), TOKEN)
    assert path.exists() is stays
    process._remove_url(str(tmp_path / "no such file"), TOKEN)


def test_it_is_imported_by_its_own_role_alone() -> None:
    code = (
        "import sys, disbatch.driver.process, disbatch.contexts.process, disbatch.engine.process; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    modules = done.stdout.split()
    assert not [name for name in modules if name.startswith(("starlette", "uvicorn", "disbatch.web", "disbatch.watch"))]
