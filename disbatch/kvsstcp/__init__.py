"""A key-value store for coordination, in the manner of Linda: a server, a blocking client, and the bytes between them.

This file stays almost empty, so that whoever imports one file of the package does not pay for the others. It must not
import anything of disbatch outside this package, and nor may any file beside it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from disbatch.kvsstcp.client import KVSClient
    from disbatch.kvsstcp.server import Server
    from disbatch.kvsstcp.thread import KVSServer, KVSServerThread

__all__ = ["KVSClient", "KVSServer", "KVSServerThread", "Server"]

_HOMES = {"KVSClient": "client", "KVSServer": "thread", "KVSServerThread": "thread", "Server": "server"}


def __getattr__(name: str) -> object:
    """Find the public classes where they live, on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only those who come by this door pay for it

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
