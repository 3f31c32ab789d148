"""A visitor of the web page of a run who has no browser: what it says and is told, word by word."""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from tests.e2e.support import PATIENCE, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.support import Process, Workplace


class Answer(NamedTuple):
    """What the server has answered."""

    status: int
    headers: dict[str, str]
    body: str


class Visitor:
    """Comes to the page at `url`, which it has from the run's file or terminal."""

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.where = (parts.hostname, parts.port)
        self.entry = f"{parts.path}?{parts.query}"
        self.token = parts.query.removeprefix("token=")
        self.room = ""
        self.cookie = ""

    def ask(self, method: str, path: str, body: bytes | None = None, /, **headers: str) -> Answer:
        """Ask with these headers alone."""
        connection = HTTPConnection(*self.where, timeout=PATIENCE)
        try:
            skip_host = "host" in headers
            connection.putrequest(method, path, skip_host=skip_host, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            if body is not None:
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode())
        finally:
            connection.close()

    def come_in(self) -> Visitor:
        """Show the token, and keep the cookie."""
        answer = self.ask("GET", self.entry)
        assert answer.status == 303, answer
        self.room = answer.headers["location"]
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return self

    @property
    def own(self) -> dict[str, str]:
        """Headers of a browser that is on the page."""
        return {"cookie": self.cookie, "origin": f"http://{self.where[0]}:{self.where[1]}"}

    def get(self, path: str) -> Answer:
        """Ask as the page does."""
        return self.ask("GET", self.room + path, None, **self.own)

    def stop(self, kind: str, rank: int, *, now: bool) -> Answer:
        """Press a button."""
        body = json.dumps({"kind": kind, "rank": rank, "now": now}).encode()
        return self.ask("POST", f"{self.room}stop", body, content_type="application/json", **self.own)

    def listen(self) -> Listener:
        """Open the stream of events."""
        return Listener(self)


class Listener:
    """What a page is told, event by event."""

    def __init__(self, visitor: Visitor) -> None:
        self._connection = socket.create_connection(visitor.where, timeout=PATIENCE)
        head = f"GET {visitor.room}events HTTP/1.1\r\nhost: {visitor.where[0]}:{visitor.where[1]}\r\n"
        self._connection.sendall(f"{head}cookie: {visitor.cookie}\r\nconnection: close\r\n\r\n".encode())
        self._file = self._connection.makefile("rb")
        self.known: dict[str, Any] = {}

    def next(self) -> str | None:
        """Name of the next event, which is `known` then; None when there will be none."""
        name = ""
        for line in self._file:
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
            elif line.startswith(b"data: ") and name:
                self.known[name] = json.loads(line[6:])
                return name
        return None

    def until(self, name: str) -> Any:  # noqa: ANN401 - JSON has any
        """What is told under that name next."""
        for came in iter(self.next, None):
            if came == name:
                return self.known[name]
        raise AssertionError(f"no {name} has come; known are {self.known}")

    def close(self) -> None:
        """Listen no more."""
        self._file.close()
        self._connection.close()


def visitor_of(work: Workplace, name: str = "run") -> Visitor:
    """Visitor who reads the URL in the run's file, and is let in."""
    path = work.directory / f"{name}_url"
    eventually(lambda: path.exists() and path.read_text(encoding="ascii").endswith("\n"), "the URL")
    return Visitor(path.read_text(encoding="ascii").strip()).come_in()


def page_process(work: Workplace) -> Process | None:
    """The process of the page, if it is alive."""
    return next((process for process in work.processes() if "--web-page" in process.command), None)


def await_end_of_page(work: Workplace) -> None:
    """Wait until that process has ended by itself; it goes behind all others, and may take a while."""
    eventually(lambda: page_process(work) is None, "the end of the page")


def files_of(directory: Path) -> set[str]:
    """Names of what is there."""
    return {path.name for path in directory.iterdir()}
