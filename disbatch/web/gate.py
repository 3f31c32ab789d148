"""Who gets in to the web page, and who is sent away.

Pure. A visitor shows the token once, in the URL, and a cookie from then on. Browsers send cookies to every port of a
host, so to servers of other users as well: this one is for paths that begin with letters that nobody else knows.
"""

from __future__ import annotations

import hmac
import re
from enum import Enum, auto
from typing import TYPE_CHECKING

from disbatch.records import record

if TYPE_CHECKING:
    from collections.abc import Iterable

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/?#@]+)(?::\d{1,5})?")
_TOKEN = re.compile(r"(?:^|&)token=([0-9a-f]+)(?=&|$)")
_ADDRESS = re.compile(r"[0-9.]+|\[[0-9a-f:.]+\]")

COOKIE = "disbatch"

_HARMLESS = ("GET", "HEAD")
"""Methods that change nothing."""


class Verdict(Enum):
    """What becomes of a request."""

    REFUSED = auto()
    """It is sent away, and told nothing."""
    WELCOME = auto()
    """It has shown the token: it gets the cookie, and is led to the page."""
    ADMITTED = auto()
    """It is answered."""


@record
class Knock:
    """A request as far as it matters here; headers are empty where there are none."""

    method: str
    path: str
    query: str
    host: str
    origin: str
    cookie: str


class Gate:
    """Lets those in who know `token`, and come by one of these names of hosts; by an address too if `everywhere`."""

    def __init__(self, token: str, names: Iterable[str], *, everywhere: bool) -> None:
        self._token = token.encode()
        self._names = {*_LOOPBACK, *(_as_in_header(name) for name in names)}
        self._everywhere = everywhere
        self.room = f"/{self._made_of_token(b'room')[:32]}/"
        """What the paths begin with that the cookie is for."""
        self._pass = self._made_of_token(b"pass")

    def _made_of_token(self, purpose: bytes) -> str:
        return hmac.new(self._token, purpose, "sha256").hexdigest()

    @property
    def cookie(self) -> str:
        """What those get who have shown the token."""
        return f"{COOKIE}={self._pass}; Path={self.room}; HttpOnly; SameSite=Strict"

    def judge(self, knock: Knock) -> Verdict:
        """Decide on a request."""
        if not self._is_own_name(knock.host):
            return Verdict.REFUSED
        if knock.path == "/":
            shown = _TOKEN.search(knock.query)
            knows = shown is not None and hmac.compare_digest(shown[1].encode(), self._token)
            return Verdict.WELCOME if knows and knock.method in _HARMLESS else Verdict.REFUSED
        if not (knock.path.startswith(self.room) and self._has_pass(knock.cookie)):
            return Verdict.REFUSED
        if knock.method not in _HARMLESS and knock.origin != f"http://{knock.host}":
            return Verdict.REFUSED
        return Verdict.ADMITTED

    def inside(self, path: str) -> str:
        """What an admitted request asks for: its path behind the letters."""
        return path[len(self.room) - 1 :]

    def _is_own_name(self, host: str) -> bool:
        """Whether that is this server, and not a name that somebody else has let lead here (DNS rebinding).

        The port does not matter for that, and is another one where a tunnel leads here.
        """
        found = _HOST.fullmatch(host.lower())
        if found is None:
            return False
        name = found[1].removesuffix(".")
        return name in self._names or (self._everywhere and _ADDRESS.fullmatch(name) is not None)

    def _has_pass(self, cookies: str) -> bool:
        shown = [value for name, _, value in (cookie.strip().partition("=") for cookie in cookies.split(";"))
                 if name == COOKIE]  # fmt: skip
        return any(hmac.compare_digest(value.encode(errors="replace"), self._pass.encode()) for value in shown)


def _as_in_header(name: str) -> str:
    return f"[{name}]".lower() if ":" in name else name.lower()
