"""How a context or an engine joins a run: its connection to the key-value store, its log.

What the two have in common before either knows what it is for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from disbatch.errors import DisbatchError, DriverUnreachableError
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.kvsstcp.client import KVSClient, KVSError

if TYPE_CHECKING:
    import logging
    import socket

    from disbatch.values import Address

CONNECT_PATIENCE = 30.0
"""Seconds that connecting to the driver may take."""


def connect(kvs: Address) -> socket.socket:
    """Connection to the run's key-value store; otherwise as `client`."""
    return client(kvs).detach()


def client(kvs: Address) -> KVSClient:
    """Client of the run's key-value store, both sides having proved that they know the secret.

    Raises `DriverUnreachableError` when the run is over, or the driver cannot be reached from here.
    """
    try:
        return KVSClient(kvs.host, kvs.port, secret=os.environ.get(SECRET_VARIABLE), connect_timeout=CONNECT_PATIENCE)
    except (KVSError, OSError) as error:
        raise DriverUnreachableError(
            f"cannot reach the driver at {kvs}: {error}",
            "the run is over, or this host cannot connect to that address; see --use-address of disbatch",
        ) from error


def open_log(path: str, level: str) -> logging.Logger:
    """Log of this process, appended to the file; raises `DisbatchError` when the file cannot be written."""
    import logging  # noqa: PLC0415 - 11 ms that an engine spends while it waits for its settings, not before it has come

    logger = logging.getLogger("disbatch")
    logger.propagate = False
    try:
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise DisbatchError(
            f"cannot write the log {path}: {error.strerror}",
            "it must be a file, in a directory that exists and can be written to",
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level)
    logging.raiseExceptions = False  # a log that cannot be written to must not disturb the run
    return logger
