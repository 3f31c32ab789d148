"""Where the key-value store is bound, and the address of it that is told to other hosts.

A host name is no use to others when it resolves to a loopback address here, as Debian sets it up.
"""

from __future__ import annotations

import os
import socket
from itertools import islice
from typing import TYPE_CHECKING

from disbatch.errors import DisbatchError
from disbatch.kvsstcp.endpoint import BACKLOG, EVERY_ADDRESS
from disbatch.values import Address

if TYPE_CHECKING:
    from collections.abc import Iterable

_ANYWHERE = ("198.51.100.1", "2001:db8:100::1")  # for documentation (RFC 5737, RFC 3849): nothing is ever sent there
_DISCARD = 9
_LOOKED_UP = 5
"""Hosts at most whose way is looked for: to look up a name that only ssh knows may take seconds."""
_OF_NO_USE_TO_OTHERS = ("127.", "::1", "fe80:")  # loopback and link-local


def listen(wanted: Address | None, asked_by: str = "--use-address") -> socket.socket:
    """Socket that listens at the address that the user wants, or at any free port of every address of this machine.

    `asked_by` is the option that takes such an address. Raises `DisbatchError`.
    """
    host, port = (wanted.host, wanted.port) if wanted else ("", 0)
    try:
        if host not in ("", "::"):
            family, _, _, _, at = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            return socket.create_server(at[:2], family=family, backlog=BACKLOG)
        if socket.has_dualstack_ipv6():
            try:
                return socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
            except OSError:
                pass  # a kernel that knows IPv6 and has it switched off
        return socket.create_server(("", port), backlog=BACKLOG)
    except (OSError, UnicodeError) as error:  # UnicodeError: a text that no host name can be
        # `create_server` repeats the address behind the reason, as Python writes it.
        reason = str(getattr(error, "strerror", None) or error).partition(" (while ")[0]
        raise DisbatchError(
            f"cannot listen at {wanted or 'any address'}: {reason}",
            f"{asked_by} HOST:PORT takes a name or address of this machine; port 0 is any free one",
        ) from error


def advertised(wanted: Address | None, port: int, hosts: Iterable[str]) -> Address:
    """Address by which `hosts` of the run, and others later, reach a store that listens at `port`."""
    if wanted and wanted.host not in EVERY_ADDRESS:
        return Address(wanted.host, port)
    name = os.uname().nodename
    if _leads_elsewhere(name):
        return Address(name, port)
    for host in (*islice(hosts, _LOOKED_UP), *_ANYWHERE):
        own = _own_address_towards(host)
        if own is not None and not own.startswith(_OF_NO_USE_TO_OTHERS):
            return Address(own, port)
    return Address("127.0.0.1", port)


def local(wanted: Address | None, port: int) -> Address:
    """Address by which processes on this machine reach it, whatever becomes of its network meanwhile."""
    return Address(wanted.host if wanted and wanted.host not in EVERY_ADDRESS else "127.0.0.1", port)


def _leads_elsewhere(name: str) -> bool:
    """Whether every address that a host name has here is one that other hosts can use."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return not any(str(entry[4][0]).startswith(_OF_NO_USE_TO_OTHERS) for entry in found)


def _own_address_towards(host: str) -> str | None:
    """Address of this machine on the way to `host`; asks the routing table, sends nothing."""
    try:
        family, kind, _, _, at = socket.getaddrinfo(host, _DISCARD, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(at)
            return str(probe.getsockname()[0])
    except (OSError, UnicodeError):
        return None
