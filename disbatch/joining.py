"""How a context or an engine joins a run: its connection to the key-value store, its log.

What the two have in common before either knows what it is for.
"""

from __future__ import annotations

import os

from disbatch.errors import DisbatchError, DriverUnreachableError
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.kvsstcp.client import KVSClient, KVSError
from disbatch.log import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from disbatch.values import Address

PATIENCE = 30.0
"""Seconds that connecting to the driver may take."""


def connect(kvs: Address, patience: float = PATIENCE) -> socket.socket:
    """Connection to the run's key-value store; otherwise as `client`."""
    return client(kvs, patience).detach()


def client(kvs: Address, patience: float = PATIENCE, secret: str | None = None) -> KVSClient:
    """Client of the run's key-value store, both sides having proved that they know the secret.

    That is the one in the environment unless another is given; none where it is empty. Raises `DriverUnreachableError`
    when the run is over, or the driver cannot be reached from here; `patience` is in seconds, for connecting and for
    each answer of the handshake.
    """
    known = os.environ.get(SECRET_VARIABLE) if secret is None else secret
    try:
        return KVSClient(kvs.host, kvs.port, secret=known, connect_timeout=patience)
    except (KVSError, OSError) as error:
        unreachable = DriverUnreachableError(
            f"cannot reach the driver at {kvs}: {error}",
            "the run is over, or this host cannot connect to that address; see --use-address of disbatch",
        )
        unreachable.nobody_listens = isinstance(error.__cause__, ConnectionRefusedError)
        raise unreachable from error


def open_log(path: str, level: str) -> Log:
    """Log of this process, appended to the file; raises `DisbatchError` when the file cannot be written."""
    try:
        return Log(path, level)
    except OSError as error:
        raise DisbatchError(
            f"cannot write the log {path}: {error.strerror}",
            "it must be a file, in a directory that exists and can be written to",
        ) from error
