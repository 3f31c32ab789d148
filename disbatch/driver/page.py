"""The web page of a run as its driver sees it: a process of its own, to which the run owes nothing.

It must not know what is on the page. Whatever becomes of the process, the run goes on.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from disbatch import handover
from disbatch.driver.beginning import remove, write
from disbatch.errors import DisbatchError
from disbatch.handover import RunEnd
from disbatch.kvsstcp.endpoint import EVERY_ADDRESS
from disbatch.launching import Launched

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from disbatch.driver.controller import Counts
    from disbatch.eventloop import EventLoop
    from disbatch.handover import Handover
    from disbatch.runfiles import RunFiles
    from disbatch.values import Address

START_AFTER = 0.05
"""Seconds of the run after which the page is started: the first context is on its way by then."""

NICENESS = 10
"""Tasks go before the page."""

_TOKEN_BYTES = 32


def new_token() -> str:
    """Return a token of 256 random bits."""
    return os.urandom(_TOKEN_BYTES).hex()


def url(at: Address, token: str) -> str:
    """Where the page is, for those who are to see it."""
    return f"http://{at}/?token={token}"


def is_open_to_others(host: str) -> bool:
    """Whether a page that is bound to this host can be reached from other machines, as far as its name tells."""
    return host not in ("localhost", "::1") and not host.startswith("127.")


def names_of(bound: Address, public: Address) -> tuple[list[str], bool]:
    """Names by which visitors may come to a page, and whether it is at every address of this machine."""
    names = {bound.host, public.host, os.uname().nodename} - {*EVERY_ADDRESS}
    return sorted(names), bound.host in EVERY_ADDRESS


class WebPage:
    """The page is started `START_AFTER` the loop's first turn, on a socket that listens already at `at`.

    `command` and `environment` are those of its process.
    """

    def __init__(
        self,
        listening: socket.socket,
        at: Address,
        command: Sequence[str],
        environment: Mapping[str, str],
        known: Handover,
        files: RunFiles,
        loop: EventLoop,
        tell: Callable[[str], None],
    ) -> None:
        self._listening = listening
        self._url = url(at, known.token)
        self._command = command
        self._environment = environment
        self._known = known
        self._files = files
        self._tell = tell
        self._channel: socket.socket | None = None
        self._process: Launched | None = None
        loop.on_signal(signal.SIGCHLD, self._check)
        loop.after(START_AFTER, self._start)

    def _start(self) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs, self._listening:
            try:
                self._process = Launched(
                    self._command,
                    self._files.page_log,
                    environment=self._environment,
                    given=theirs.fileno(),
                    niceness=NICENESS,
                )
            except DisbatchError as error:
                self._tell(f"no web page: {error}")
                self._close_channel()
                return
            self._channel.setblocking(False)
            socket.send_fds(self._channel, [handover.line(self._known)], [self._listening.fileno()])
        try:
            write(self._files.url, f"{self._url}\n".encode(), 0o600)
        except DisbatchError as error:
            self._tell(str(error))
            self._tell(f"web page: {self._url}")
            return
        # Whoever has the URL can stop hosts, and the log of a job may be there for all to read.
        self._tell(f"web page: {self._url}" if sys.stderr.isatty() else f"web page: its URL is in {self._files.url}")

    def _check(self) -> None:
        process = self._process
        return_code = None if process is None else process.return_code()
        if process is None or return_code is None:
            return
        self._process = None
        self._close_channel()
        remove(self._files.url)
        how = f"signal {-return_code}" if return_code < 0 else f"status {return_code}"
        words = f": {process.last_words()}" if return_code > 0 else ""
        self._tell(f"the web page has ended with {how}, and the run goes on without it{words}")
        process.clear_away()

    def end(self, exit_status: int, counts: Counts, *, complete: bool) -> None:
        """Tell the page how the run has ended, and let it end by itself; it is not waited for."""
        if self._channel is not None:
            ended = RunEnd(
                exit_status=exit_status,
                complete=complete,
                words=counts.in_words,
                counts=vars(counts),
            )
            with suppress(OSError):  # it has ended, or hangs
                self._channel.send(handover.line(ended))
        self._close_channel()

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
