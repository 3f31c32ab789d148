"""What a connection may ask of a server: which operations, on which keys.

Pure. It must not know of secrets, nor of who has which rights.
"""

from __future__ import annotations

from disbatch.kvsstcp.wire import Close, Down, Dump, Get, Monitor, Plain, Put, View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from disbatch.kvsstcp.wire import Request


class Keys(Plain):
    """A set of keys: those in `named`, and those that begin as `begin` says, but not as `but` does."""

    def __init__(self, *named: bytes, begin: tuple[bytes, ...] = (), but: tuple[bytes, ...] = ()) -> None:
        self._named = frozenset(named)
        self._begin = begin
        self._but = but

    def __contains__(self, key: object) -> bool:
        if key in self._named:
            return True
        return isinstance(key, bytes) and key.startswith(self._begin) and not key.startswith(self._but)


NO_KEY = Keys()
EVERY_KEY = Keys(begin=(b"",))


class Rights(Plain):
    """Keys that may be put to, got from and viewed, and whether the other operations may be asked for.

    `monitor`: under keys that may be put to, of keys that may be viewed; so of every key at once only where each may
    be. `dump`: of what is under keys that may be viewed. `down`: the end of the server. To close its own connection is
    everybody's right.
    """

    def __init__(
        self,
        *,
        put: Keys = NO_KEY,
        get: Keys = NO_KEY,
        view: Keys = NO_KEY,
        monitor: bool = False,
        dump: bool = False,
        down: bool = False,
    ) -> None:
        self.put = put
        self.get = get
        self.view = view
        self.monitor = monitor
        self.dump = dump
        self.down = down

    def allow(self, request: Request) -> bool:
        """Whether the request is within these rights."""
        if isinstance(request, Put):
            allowed = request.key in self.put
        elif isinstance(request, Get):
            allowed = request.key in self.get
        elif isinstance(request, View):
            allowed = request.key in self.view
        elif isinstance(request, Monitor):
            seen = request.key in self.view if request.key else self.view == EVERY_KEY
            allowed = self.monitor and seen and request.monitor_key in self.put
        elif isinstance(request, Dump):
            allowed = self.dump
        elif isinstance(request, Down):
            allowed = self.down
        else:
            allowed = isinstance(request, Close)
        return allowed


EVERYTHING = Rights(put=EVERY_KEY, get=EVERY_KEY, view=EVERY_KEY, monitor=True, dump=True, down=True)
