from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from disbatch import joining
from disbatch.errors import DisbatchError, DriverUnreachableError
from disbatch.kvsstcp.client import DisconnectedError, HandshakeError
from disbatch.values import Address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KVS = Address("driver.example.org", 4711)


class Client:
    """Stands for the client of the key-value store: notes how it was made."""

    made_with: dict[str, object]
    failure: Exception | None = None
    connection: socket.socket

    def __init__(self, host: str, port: int, *, secret: str | None, connect_timeout: float) -> None:
        type(self).made_with = {"host": host, "port": port, "secret": secret, "patience": connect_timeout}
        if self.failure is not None:
            raise self.failure

    def detach(self) -> socket.socket:
        return self.connection


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Client]]:
    ours, theirs = socket.socketpair()
    kind = type("ThisClient", (Client,), {"connection": ours})
    monkeypatch.setattr(joining, "KVSClient", kind)
    yield kind
    ours.close()
    theirs.close()


def test_a_process_connects_with_the_secret_of_its_environment(
    client: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVSSTCP_SECRET", "s3cret")
    assert joining.connect(KVS) is client.connection
    assert client.made_with == {"host": "driver.example.org", "port": 4711, "secret": "s3cret", "patience": 30.0}


def test_a_secret_that_is_given_counts_and_an_empty_one_is_none(
    client: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVSSTCP_SECRET", "s3cret")
    for given in ("other", ""):
        joining.client(KVS, 1.0, given)
        assert client.made_with["secret"] == given


def test_without_a_secret_it_connects_without(client: type[Client], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KVSSTCP_SECRET", raising=False)
    joining.connect(KVS)
    assert client.made_with["secret"] is None


@pytest.mark.parametrize(
    "failure",
    [
        DisconnectedError("connection refused"),
        HandshakeError("the server does not know the secret"),
        TimeoutError("timed out"),
        socket.gaierror(-2, "Name or service not known"),
    ],
)
def test_a_driver_out_of_reach_is_an_error_for_people(client: type[Client], failure: Exception) -> None:
    client.failure = failure
    with pytest.raises(DriverUnreachableError) as error:
        joining.connect(KVS)
    assert error.value.message == f"cannot reach the driver at driver.example.org:4711: {failure}"
    assert "--use-address" in error.value.hint


def test_connecting_takes_no_longer_than_it_may(client: type[Client]) -> None:
    joining.connect(KVS, 3.0)
    assert client.made_with["patience"] == 3.0


@pytest.mark.parametrize(
    ("cause", "nobody_listens"), [(ConnectionRefusedError(), True), (TimeoutError(), False), (None, False)]
)
def test_an_address_at_which_nobody_listens_is_told_from_one_out_of_reach(
    client: type[Client],
    cause: Exception | None,
    nobody_listens: bool,
) -> None:
    client.failure = DisconnectedError("no")
    client.failure.__cause__ = cause
    with pytest.raises(DriverUnreachableError) as error:
        joining.connect(KVS)
    assert error.value.nobody_listens is nobody_listens


def test_a_log_is_of_the_level_that_was_asked_for(tmp_path: Path) -> None:
    log = joining.open_log(str(tmp_path / "log"), "WARNING")
    log.info("not this")
    log.warning("but this")
    log.close()
    [line] = (tmp_path / "log").read_text().splitlines()
    assert line.endswith("but this")


def test_a_log_that_cannot_be_opened_is_an_error_for_people(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "log"
    with pytest.raises(DisbatchError) as error:
        joining.open_log(str(path), "INFO")
    assert error.value.message == f"cannot write the log {path}: No such file or directory"
    assert error.value.hint == "it must be a file, in a directory that exists and can be written to"
