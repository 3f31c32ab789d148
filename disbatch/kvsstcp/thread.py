"""The server of the key-value store in a thread of its own, for programs that have no loop to be a guest in.

It must not know what the store is used for.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING

from disbatch.kvsstcp.endpoint import client_environment, new_secret
from disbatch.kvsstcp.server import Server
from disbatch.kvsstcp.wire import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self


class KVSServerThread:
    """Serves from construction to `shutdown()`; as a context manager, to the end of the block.

    Binds to `host` and `port` (0: any; OSError if that fails). Clients must prove to know `secret`, a new one if it is
    None; `authenticate=False` lets anyone in, which is logged, and warned of where there is no log. `log(text)` is
    called in the server's thread. `cinfo` is `(host, port)` as bound.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        authenticate: bool = True,
        secret: bytes | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        log: Callable[[str], None] | None = None,
    ) -> None:
        if not authenticate and log is None:
            warnings.warn("this key-value store asks for no secret: anyone who can connect may use it", stacklevel=2)
        self.secret = (secret or new_secret()) if authenticate else None
        self._selector = selectors.DefaultSelector()
        try:
            self._server = Server(self._selector, (host, int(port)), secret=self.secret, limits=limits, log=log)
        except OSError:
            self._selector.close()
            raise
        self.cinfo = self._server.address
        self._woken, self._waker = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, lambda _mask: self._server.close())
        self._thread = threading.Thread(target=self._run, name="kvsstcp", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def env(self, environment: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return a copy of `environment` (this process's own) in which a client finds the server and the secret."""
        return client_environment(self.cinfo, self.secret, os.environ if environment is None else environment)

    def shutdown(self) -> None:
        """End the server and all connections: a client that waits gets an error. May be called twice."""
        with suppress(OSError):  # it may have ended already
            self._waker.send(b"!")
        self._thread.join()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the server has ended, for `timeout` seconds at most. Returns whether it has."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._server.closed:
                for key, mask in self._selector.select(self._server.expire(time.monotonic())):
                    key.data(mask)
        finally:
            self._server.close()
            self._selector.close()
            self._woken.close()
            self._waker.close()


KVSServer = KVSServerThread
