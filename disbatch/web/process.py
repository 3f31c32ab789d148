"""The web page as a process: from what its driver hands over to the end of the run."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from disbatch import handover, options
from disbatch.errors import DisbatchError, ExitStatus
from disbatch.handover import Handover, RunEnd
from disbatch.joining import open_log
from disbatch.runfiles import RunFiles
from disbatch.watch.observer import Observer
from disbatch.web.app import application
from disbatch.web.desk import Desk
from disbatch.web.failures import Failures
from disbatch.web.feed import Feed
from disbatch.web.gate import Gate
from disbatch.web.lookout import Lookout
from disbatch.web.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from disbatch.log import Log
    from disbatch.messages import StopContext, StopEngine
    from disbatch.options import PageRoleOptions

PATIENCE = 5.0
"""Seconds that connecting to the driver may take, which is on this machine."""

PERIOD, IDLE_PERIOD = 1.0, 5.0
"""Seconds between two looks at the run at least, while a page is open and while none is."""

SHARE = 0.05
"""Share of the driver's time that its answers may take, at most: when it is slow it is asked less often."""

LONGEST_PAUSE = 10.0
"""Seconds between two looks at most, however slow the driver is."""

LINGER = 2.0
"""Seconds that pages have at most to hear of the end of the run."""

MOST_ANSWERED = 256
MOST_CONNECTIONS = 2 * MOST_ANSWERED
"""Visitors at once: beyond the first figure they hear that there are too many, and beyond the second nothing at all."""

REQUEST_PATIENCE = 10.0
"""Seconds that a visitor has for a request, from when it could begin."""

MOST_HEAD = 16 * 1024
"""Bytes that the head of a request may have."""

_HANDED_OVER = 0
_MOST_HANDED_OVER = 1 << 20


class _Protocol(H11Protocol):  # type: ignore[misc, unused-ignore] # an extra, which may not be there
    """Also ends connections that are too many, or over which no whole request comes: the library waits for ever."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override, unused-ignore] # so has the library
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._await_nothing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_request()

    def _await_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _await_request(self) -> None:
        self._await_nothing()
        self._deadline = self.loop.call_later(REQUEST_PATIENCE, self._end_if_unfinished)

    def _end_if_unfinished(self) -> None:
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self.transport.abort()


def main(arguments: Sequence[str]) -> int:
    """Be the web page of a run; the exit status."""
    asked = options.parse_page(arguments, "disbatch --web-page")
    try:
        channel = socket.socket(fileno=_HANDED_OVER)
    except OSError as error:
        raise DisbatchError("a run starts its web page itself", "see -w of disbatch") from error
    with channel:
        known, listening = _take_over(channel)
        files = RunFiles(asked.run)
        log = open_log(files.page_log, asked.log_level)
        log.info("web page of %s, pid %d, at %s", files.job, os.getpid(), listening.getsockname())
        try:
            asyncio.run(_serve(asked, known, listening, channel, log))
        finally:
            _remove_url(files.url, known.token)
            log.info("the web page ends; CPU %.3f s", time.process_time())
    return ExitStatus.OK


def _take_over(channel: socket.socket) -> tuple[Handover, socket.socket]:
    """What the driver says first, and the socket that comes with it."""
    text = b""
    descriptors: list[int] = []
    while not text.endswith(b"\n"):
        piece, came, _, _ = socket.recv_fds(channel, _MOST_HANDED_OVER, 1)
        if not piece:
            raise DisbatchError("the driver is gone")
        text += piece
        descriptors += came
    return handover.parse(Handover, text), socket.socket(fileno=descriptors[0])


async def _serve(
    asked: PageRoleOptions, known: Handover, listening: socket.socket, channel: socket.socket, log: Log
) -> None:
    """Serve the page until the run is over, or a signal comes."""
    files = RunFiles(asked.run)

    def connect() -> Observer:
        return Observer(asked.kvs, PATIENCE, known.secret)

    def order(wanted: StopEngine | StopContext) -> None:
        with connect() as operator:
            operator.order(files.job, wanted)

    lookout = Lookout(connect, Failures(Tail(files.status), time.monotonic), known.rerun, time.monotonic)
    feed = Feed()
    desk = Desk(lookout, files.status, order, time.monotonic)
    gate = Gate(known.token, known.names, everywhere=known.everywhere)
    app = application(gate, feed, desk, lambda text: log.info("a visitor has %s", text))
    server = uvicorn.Server(_configuration(app))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    watching = asyncio.create_task(_watch(lookout, feed, channel))
    await asyncio.wait([serving, watching], return_when=asyncio.FIRST_COMPLETED)
    if watching.done():
        await watching
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(feed.deserted.wait(), LINGER)
    server.should_exit = True
    feed.end()
    watching.cancel()
    await serving


def _configuration(app: Any) -> uvicorn.Config:  # noqa: ANN401 - what the library calls an application
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_ANSWERED,
        h11_max_incomplete_event_size=MOST_HEAD,
        timeout_graceful_shutdown=1,
    )


async def _watch(lookout: Lookout, feed: Feed, channel: socket.socket) -> None:
    """Look at the run again and again until it is over, and tell how it has ended."""
    ending = asyncio.create_task(_word_of_the_end(channel))
    while not ending.done():
        look = asyncio.create_task(asyncio.to_thread(lookout.look, closely=feed.readers > 0))
        while not (await asyncio.wait([look], timeout=PERIOD))[0]:
            feed.post(lookout.silence())
        feed.post(await look)
        await asyncio.wait([ending], timeout=max(PERIOD, min(LONGEST_PAUSE, lookout.answered_in / SHARE)))
        if not feed.readers:
            visited = asyncio.create_task(feed.visited.wait())
            await asyncio.wait([ending, visited], timeout=IDLE_PERIOD - PERIOD, return_when=asyncio.FIRST_COMPLETED)
            visited.cancel()
    feed.post(await asyncio.to_thread(lookout.last, await ending))
    feed.end()


async def _word_of_the_end(channel: socket.socket) -> RunEnd | None:
    """What the driver says last; None when it is gone without a word."""
    channel.setblocking(False)
    text = b""
    try:
        while piece := await asyncio.get_running_loop().sock_recv(channel, _MOST_HANDED_OVER):
            text += piece
        return handover.parse(RunEnd, text)
    except (OSError, ValueError):
        return None


def _remove_url(path: str, token: str) -> None:
    """Remove the file with the URL, which a driver that was killed leaves, unless it is another run's by now."""
    try:
        with open(path, encoding="utf-8") as file:
            if token in file.read(_MOST_HANDED_OVER):
                os.unlink(path)
    except (OSError, ValueError):
        pass
