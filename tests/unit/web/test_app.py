"""The application, asked as its server asks it."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest

from disbatch.errors import DisbatchError
from disbatch.records import replace
from disbatch.web import app
from disbatch.web.app import MOST_BODY, REFUSAL, application
from disbatch.web.desk import UnclearError
from disbatch.web.feed import MOST_READERS, Feed
from disbatch.web.gate import Gate, Verdict
from tests.unit.web.examples import TOKEN

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from disbatch.web.desk import Desk

HERE = "127.0.0.1:4711"
JSON = "application/json"
DEADLINE = 20.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Clerk:
    """Stands for the desk."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.stopped: list[Mapping[str, Any]] = []

    def find(self, text: str) -> dict[str, Any]:
        if self.failure:
            raise self.failure
        return {"asked": text}

    def stop(self, asked: Mapping[str, Any]) -> str:
        if self.failure:
            raise self.failure
        self.stopped.append(asked)
        return "told"


class Bench:
    def __init__(self) -> None:
        self.gate = Gate(TOKEN, [], everywhere=False)
        self.feed = Feed()
        self.clerk = Clerk()
        self.noted: list[str] = []
        self.app = application(self.gate, self.feed, cast("Desk", self.clerk), self.noted.append)

    def ask(self, method: str, path: str, query: str = "", body: bytes = b"", **headers: str) -> Answer:
        """Ask as somebody who has nothing but these headers."""
        return asyncio.run(self._ask(method, path, query, body, headers))

    def ask_inside(self, method: str, path: str, query: str = "", body: bytes = b"", **headers: str) -> Answer:
        """Ask as the page itself does."""
        return asyncio.run(self.ask_later(method, path, query, body, **headers))

    def ask_later(
        self, method: str, path: str, query: str = "", body: bytes = b"", **headers: str
    ) -> Coroutine[Any, Any, Answer]:
        """Ask as the page itself does, among others."""
        mine = {"host": HERE, "origin": f"http://{HERE}", "cookie": self.gate.cookie.partition(";")[0], **headers}
        return self._ask(method, self.gate.room + path, query, body, mine)

    async def _ask(self, method: str, path: str, query: str, body: bytes, headers: dict[str, str]) -> Answer:
        sent: list[dict[str, Any]] = []
        pieces = [body[begin : begin + 512] for begin in range(0, len(body), 512)] or [b""]

        async def receive() -> dict[str, Any]:
            if not pieces:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: Any) -> None:  # noqa: ANN401 - whatever the application sends
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": query.encode(),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
        await self.app(scope, receive, send)
        status, raw = sent[0]["status"], sent[0]["headers"]
        text = b"".join(message.get("body", b"") for message in sent[1:])
        return Answer(status, {name.decode(): value.decode() for name, value in raw}, text)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_who_shows_the_token_is_led_to_the_page_without_it(bench: Bench) -> None:
    answer = bench.ask("GET", "/", f"token={TOKEN}", host=HERE)
    assert (answer.status, answer.headers["location"]) == (303, bench.gate.room)
    assert answer.headers["set-cookie"] == bench.gate.cookie
    assert TOKEN not in str(answer)


@pytest.mark.parametrize(("came_from", "status"), [("none", 303), ("cross-site", 200), ("same-site", 200)])
def test_who_comes_by_a_link_from_elsewhere_goes_on_by_himself(bench: Bench, came_from: str, status: int) -> None:
    answer = bench.ask("GET", "/", f"token={TOKEN}", host=HERE, sec_fetch_site=came_from)
    assert answer.status == status
    assert answer.headers["set-cookie"] == bench.gate.cookie
    onward = {"none": ("location", bench.gate.room)}.get(came_from, ("refresh", f"0; url={bench.gate.room}"))
    assert onward in answer.headers.items()


@pytest.mark.parametrize(
    ("path", "query"), [("/", ""), ("/", "token=wrong"), ("/find", ""), ("/page.js", ""), ("/no", ""), ("*", "")]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "BREW"])
def test_who_does_not_is_told_nothing(bench: Bench, method: str, path: str, query: str) -> None:
    answer = bench.ask(method, path, query, host=HERE)
    assert (answer.status, answer.body.decode()) == (403, REFUSAL)
    assert answer.headers["connection"] == "close"
    assert "set-cookie" not in answer.headers
    assert answer == bench.ask("GET", "/nothing/like/that", host="evil.example")


def test_two_hosts_are_none_and_several_cookies_are_one_list(bench: Bench) -> None:
    headers = [(b"host", HERE.encode()), (b"host", HERE.encode()), (b"cookie", b"a=b"), (b"cookie", b"c=d")]
    knock = app._knock({"method": "GET", "path": "/", "query_string": f"token={TOKEN}".encode(), "headers": headers})
    assert bench.gate.judge(knock) is Verdict.REFUSED
    assert bench.gate.judge(replace(knock, host=HERE)) is Verdict.WELCOME
    assert knock.cookie == "a=b; c=d"


@pytest.mark.parametrize(
    ("path", "media_type", "begin"),
    [
        ("", "text/html; charset=utf-8", b"<!doctype html>"),
        ("page.css", "text/css; charset=utf-8", b":root"),
        ("page.js", "text/javascript; charset=utf-8", b"//"),
        ("icon.svg", "image/svg+xml", b"<svg"),
    ],
)
def test_the_page_is_served_from_this_package(bench: Bench, path: str, media_type: str, begin: bytes) -> None:
    answer = bench.ask_inside("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (200, media_type)
    assert answer.body.startswith(begin)


def test_nothing_on_the_page_comes_from_elsewhere(bench: Bench) -> None:
    for path in ("", "page.css", "page.js"):
        text = bench.ask_inside("GET", path).body.decode().replace("http://www.w3.org/2000/svg", "")
        for way_out in ("//", "url(", "@import", "innerHTML", "eval(", "document.write", "style="):
            lines = [line for line in text.splitlines() if way_out in line and not line.lstrip().startswith("//")]
            assert not [line for line in lines if " // " not in line], (path, way_out)


@pytest.mark.parametrize("path", ["", "page.js", "find", "no", "stop"])
def test_every_answer_says_what_browsers_are_not_to_do(bench: Bench, path: str) -> None:
    for answer in (bench.ask_inside("GET", path), bench.ask("GET", "/"), bench.ask_inside("POST", path)):
        policy = answer.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)
        assert not any("unsafe" in rule for rule in policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_what_is_searched_for_is_asked_of_the_desk(bench: Bench) -> None:
    answer = bench.ask_inside("GET", "find", "text=a%20b%26")
    assert (answer.status, json.loads(answer.body)) == (200, {"asked": "a b&"})
    bench.clerk.failure = UnclearError("what?")
    answer = bench.ask_inside("GET", "find")
    assert (answer.status, answer.body) == (400, b"400: what?\n")


def test_searches_take_turns_and_a_stop_does_not_wait_for_them(bench: Bench) -> None:
    at_once, gate = [], threading.Event()
    most: list[int] = []

    def find(text: str) -> dict[str, Any]:
        at_once.append(text)
        most.append(len(at_once))
        gate.wait(DEADLINE)
        at_once.remove(text)
        return {}

    bench.clerk.find = find  # type: ignore[method-assign] # a slow one

    async def play() -> int:
        searches = [asyncio.create_task(bench.ask_later("GET", "find", f"text={n}")) for n in range(100)]
        await asyncio.sleep(0)
        stop = json.dumps({"kind": "engine", "rank": 0, "now": False}).encode()
        answer = await bench.ask_later("POST", "stop", body=stop, content_type=JSON)
        assert not any(search.done() for search in searches)
        gate.set()
        await asyncio.gather(*searches)
        return answer.status

    assert asyncio.run(play()) == 200
    assert most == [1] * 100


@pytest.mark.parametrize("path", ["find/", "stop/"])
def test_there_is_nothing_at_paths_that_are_nearly_right(bench: Bench, path: str) -> None:
    assert bench.ask_inside("GET", path).status == 404


def test_a_stop_is_asked_of_the_desk_and_noted(bench: Bench) -> None:
    asked = {"kind": "engine", "rank": 0, "now": False}
    answer = bench.ask_inside("POST", "stop", body=json.dumps(asked).encode(), content_type=JSON)
    assert (answer.status, json.loads(answer.body)) == (200, {"words": "told"})
    assert bench.clerk.stopped == [asked]
    assert bench.noted == ["told"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", JSON),
        (b"[]", JSON),
        (b'"stop"', JSON),
        (b"kind=engine", JSON),
        (b"\xff", JSON),
        (b"{}", "text/plain"),
        (b'{"kind": "' + b"x" * MOST_BODY + b'"}', JSON),
    ],
)
def test_a_stop_in_another_form_is_refused(bench: Bench, body: bytes, content_type: str) -> None:
    assert bench.ask_inside("POST", "stop", body=body, content_type=content_type).status == 400
    assert not bench.clerk.stopped


def test_a_stop_that_cannot_be_is_said_so(bench: Bench) -> None:
    bench.clerk.failure = DisbatchError("this engine is gone already")
    answer = bench.ask_inside("POST", "stop", body=b"{}", content_type=JSON)
    assert (answer.status, answer.body) == (409, b"409: this engine is gone already\n")
    assert not bench.noted


def test_nothing_is_stopped_from_another_origin_or_by_a_look(bench: Bench) -> None:
    body = json.dumps({"kind": "engine", "rank": 0, "now": False}).encode()
    assert bench.ask_inside("GET", "stop", body=body, content_type=JSON).status == 405
    assert bench.ask_inside("HEAD", "stop", body=body, content_type=JSON).status == 405
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": ""},
        {"host": "evil.example"},
        {"cookie": "disbatch="},
    ):
        answer = bench.ask_inside("POST", "stop", body=body, content_type=JSON, **headers)
        assert (answer.status, answer.body.decode()) == (403, REFUSAL)
    assert not bench.clerk.stopped


def test_events_are_what_the_feed_tells(bench: Bench) -> None:
    bench.feed.post({"run": b"event: run\ndata: {}\n\n"})
    bench.feed.end()
    answer = bench.ask_inside("GET", "events")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert answer.body == b"event: run\ndata: {}\n\n"


def test_no_more_pages_are_open_than_may_be(bench: Bench) -> None:
    bench.feed.readers = MOST_READERS
    assert bench.ask_inside("GET", "events").status == 503


def test_what_is_not_there_is_not_there(bench: Bench) -> None:
    for path in ("nothing", "../page.js", "page/page.js", "%2e%2e/process.py"):
        assert bench.ask_inside("GET", path).status == 404
