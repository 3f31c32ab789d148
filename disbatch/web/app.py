"""The web page as a web application: requests in, answers out.

A thin shell: who gets in is decided by `gate`, what is answered by `desk` and `feed`.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from disbatch.errors import DisbatchError
from disbatch.web.desk import UnclearError
from disbatch.web.gate import Knock, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from disbatch.web.desk import Desk
    from disbatch.web.feed import Feed
    from disbatch.web.gate import Gate

MOST_BODY = 1024
"""Bytes of a request, besides its head."""

REFUSAL = "403: open the URL that disbatch has printed\n"

_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)

_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def application(gate: Gate, feed: Feed, desk: Desk, note: Callable[[str], None]) -> ASGIApp:
    """The application; `note` takes a line for the log where somebody has stopped something."""

    async def events(_request: Request) -> Response:
        if feed.is_full:
            return _text(503, "too many pages are open")
        return StreamingResponse(feed.follow(), media_type="text/event-stream")

    searching = asyncio.Lock()  # one at a time: together they would take the threads that stops need

    async def find(request: Request) -> Response:
        try:
            async with searching:
                return _object(await run_in_threadpool(desk.find, request.query_params.get("text", "")))
        except UnclearError as error:
            return _text(400, str(error))

    async def stop(request: Request) -> Response:
        try:
            told = await run_in_threadpool(desk.stop, await _object_of(request))
        except UnclearError as error:
            return _text(400, str(error))
        except DisbatchError as error:
            return _text(409, str(error))
        note(told)
        return _object({"words": told})

    routes = [
        *(Route(path, _file(*file)) for path, file in _FILES.items()),
        Route("/events", events),
        Route("/find", find),
        Route("/stop", stop, methods=["POST"]),
    ]
    inner = Starlette(routes=routes)
    inner.router.redirect_slashes = False  # to a path that is not behind the gate
    return _Door(gate, inner)


class _Door:
    """Lets to `inner` what the gate admits, with the paths that are behind it."""

    def __init__(self, gate: Gate, inner: ASGIApp) -> None:
        self._gate = gate
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        knock = _knock(scope)
        verdict = self._gate.judge(knock)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        answer: ASGIApp
        if verdict is Verdict.ADMITTED:
            answer = self._inner
            scope = {**scope, "path": self._gate.inside(knock.path)}
        elif verdict is Verdict.WELCOME:
            answer = _welcome(self._gate, scope)
        else:
            # Whoever is refused sends nothing more over this connection.
            answer = PlainTextResponse(REFUSAL, 403, {"connection": "close"})
        await answer(scope, receive, send_with_headers)


def _welcome(gate: Gate, scope: Scope) -> Response:
    """Lead somebody to the page who has shown the token.

    The browser of one who comes by a link on a page from elsewhere, such as a terminal in a browser, would not send the
    cookie after a redirect, which counts as part of that link: it is asked to go on by itself.
    """
    by_link = any(name == b"sec-fetch-site" and value != b"none" for name, value in scope["headers"])
    onward = {"refresh": f"0; url={gate.room}"} if by_link else {"location": gate.room}
    return Response(status_code=200 if by_link else 303, headers={**onward, "set-cookie": gate.cookie})


def _knock(scope: Scope) -> Knock:
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        known = headers.get(name)
        # Of two hosts none is right; cookies may come in several.
        headers[name] = value.decode("latin-1") if known is None else f"{known}; {value.decode('latin-1')}"
    return Knock(
        method=scope["method"],
        path=scope["path"],
        query=scope["query_string"].decode("latin-1"),
        host=headers.get(b"host", ""),
        origin=headers.get(b"origin", ""),
        cookie=headers.get(b"cookie", ""),
    )


def _file(name: str, media_type: str) -> Callable[[Request], Response]:
    with open(os.path.join(os.path.dirname(__file__), "page", name), "rb") as file:
        content = file.read()
    return lambda _request: Response(content, media_type=media_type)


async def _object_of(request: Request) -> dict[str, Any]:
    """Object that came with a request; raises `UnclearError` for anything else, and for too much."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BODY:
            raise UnclearError("that is too much")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnclearError("that is no JSON") from error
    if request.headers.get("content-type") != "application/json" or not isinstance(found, dict):
        raise UnclearError("that is no JSON object")
    return found


def _object(told: dict[str, Any]) -> Response:
    return Response(json.dumps(told).encode(), media_type="application/json")


def _text(status: int, text: str) -> Response:
    return PlainTextResponse(f"{status}: {text}\n", status)
