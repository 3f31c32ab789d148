"""Where a server is and how its connections are set: what the client and the server must do alike.

It must not know what is said over a connection.
"""

from __future__ import annotations

import os
import socket

from disbatch.kvsstcp.auth import SECRET_VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Address = str | bytes | tuple[str, int | str]

HOST_VARIABLE, PORT_VARIABLE = "KVSSTCP_HOST", "KVSSTCP_PORT"
"""Where in its environment a program finds the address of the store that it belongs to."""

BACKLOG = 4096
"""Connections that may wait to be accepted: a thousand engines come at once. The kernel cuts it to its own limit."""

_SECRET_BYTES = 32
ENCRYPTED = b"tls:"
"""What a secret begins with that is to be proved over TLS alone, unless both sides are on one host.

It is part of the secret, so that nobody who passes one on, or reads it, can lose what goes with it.
"""

_LOOPBACK = ("127.", "::ffff:127.")
EVERY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - to recognise them, not to bind to them
_MAX_PORT, _PORT_DIGITS = (1 << 16) - 1, 5
SILENCE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 30_000))
"""When the kernel gives up a host that says nothing more: after 30 s, whether or not anything is under way to it.

While nothing is, it sends four probes, 5 s apart, after 10 s. As long as something that was sent is not acknowledged
Linux sends none, and would go on trying for 15 minutes: hence the time-out, in ms. It also ends the connection to a
program that lives but for so long reads nothing, if more was sent to it than the buffers on the way take.
"""


class KVSError(Exception):
    """An operation on the store failed; the text is one line for a person."""


class AddressError(KVSError, ValueError):
    """There is no address of a server, or it is none."""


def parse_address(host: Address | None, port: int | str | None, environment: Mapping[str, str]) -> tuple[str, int]:
    """Return `(host, port)` from what a caller gave: both, a pair, "host:port", or neither: from the environment.

    Raises AddressError if that gives no address. An IPv6 address in "host:port" stands in brackets, elsewhere it may.
    """
    if isinstance(host, tuple):
        host, port = host
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if host is None:
        host, port = environment.get(HOST_VARIABLE), port or environment.get(PORT_VARIABLE)
        if not host or not port:
            raise AddressError(f"no address of a key-value store: {HOST_VARIABLE} and {PORT_VARIABLE} are not set")
    given = host if port is None else f"{host}:{port}"
    if port is None:
        host, _, port = host.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    digits = str(port)
    if not host or "[" in host or "]" in host or not _is_port(digits):
        raise AddressError(f"not the HOST:PORT of a key-value store: {given!r}")
    return host, int(digits)


def address_text(host: str, port: int | str) -> str:
    """Return "host:port" in the form that `parse_address` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def client_environment(
    address: tuple[str, int], secret: bytes | None, environment: Mapping[str, str]
) -> dict[str, str]:
    """Return a copy of `environment` in which a client finds the server bound to `address`, and its secret.

    For a server bound to all addresses of this host that is the name of the host, or the loopback address if that name
    leads nowhere.
    """
    host, port = address
    variables = dict(environment)
    variables[HOST_VARIABLE] = _this_host() if host in EVERY_ADDRESS else host
    variables[PORT_VARIABLE] = str(port)
    variables.pop(SECRET_VARIABLE, None)
    if secret is not None:
        variables[SECRET_VARIABLE] = secret.decode()
    return variables


def new_secret(*, encrypted: bool = False) -> bytes:
    """Return a secret of 256 random bits, as KVSSTCP_SECRET holds it: hex digits, behind ENCRYPTED if it is to be."""
    return (ENCRYPTED if encrypted else b"") + os.urandom(_SECRET_BYTES).hex().encode()


def on_this_host(connected: socket.socket) -> bool:
    """Whether what goes over a connection stays in this kernel. Raises OSError where it has ended already.

    No other host can make it seem so: the kernel delivers what is for its own address, and drops what comes from
    outside under such a one.
    """
    if connected.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    peer: str = connected.getpeername()[0]
    return peer.startswith(_LOOPBACK) or peer == connected.getsockname()[0]


def tune(connected: socket.socket) -> None:
    """Send small messages at once, and have the kernel notice a silent host. Does nothing to a local socket."""
    if connected.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in SILENCE:
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def reason(error: OSError) -> str:
    """Return what the system said, without number and repetition."""
    return (error.strerror or str(error)).partition(" (while ")[0]


def _is_port(digits: str) -> bool:
    return digits.isascii() and digits.isdigit() and len(digits) <= _PORT_DIGITS and 0 < int(digits) <= _MAX_PORT


def _this_host() -> str:
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except (OSError, UnicodeError):  # UnicodeError: a name that the name service cannot be asked for
        return "127.0.0.1"
    return name
