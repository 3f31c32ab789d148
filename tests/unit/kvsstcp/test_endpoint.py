"""`endpoint`: the name service is a dictionary, sockets are not connected to anything."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from disbatch.kvsstcp.endpoint import (
    ENCRYPTED,
    AddressError,
    KVSError,
    address_text,
    client_environment,
    new_secret,
    on_this_host,
    parse_address,
    reason,
    tune,
)

if TYPE_CHECKING:
    from disbatch.kvsstcp.endpoint import Address

# Addresses


@pytest.mark.parametrize(
    ("host", "port", "environment"),
    [
        ("h", 1, {}),
        ("h", "1", {}),
        (("h", 1), None, {}),
        (("h", "1"), None, {}),
        ("h:1", None, {}),
        (b"h:1", None, {}),
        (None, None, {"KVSSTCP_HOST": "h", "KVSSTCP_PORT": "1"}),
        (None, 1, {"KVSSTCP_HOST": "h", "KVSSTCP_PORT": "2"}),
        ("h:1", None, {"KVSSTCP_HOST": "other", "KVSSTCP_PORT": "2"}),
    ],
)
def test_forms_of_an_address(host: Address | None, port: int | str | None, environment: dict[str, str]) -> None:
    assert parse_address(host, port, environment) == ("h", 1)


@pytest.mark.parametrize(
    ("host", "port", "environment"),
    [
        ("[::1]:7", None, {}),
        ("[::1]", 7, {}),
        ("::1", 7, {}),
        (None, None, {"KVSSTCP_HOST": "[::1]", "KVSSTCP_PORT": "7"}),
        (None, None, {"KVSSTCP_HOST": "::1", "KVSSTCP_PORT": "7"}),
    ],
)
def test_an_ipv6_address_may_stand_in_brackets(host: str | None, port: int | None, environment: dict[str, str]) -> None:
    assert parse_address(host, port, environment) == ("::1", 7)


@pytest.mark.parametrize(
    ("host", "port", "shown"),
    [
        ("h", None, "h"),
        (":1", None, ":1"),
        ("h:", None, "h:"),
        ("", 1, ":1"),
        ("h", 0, "h:0"),
        ("h", -1, "h:-1"),
        ("h", 65536, "h:65536"),
        ("h", "x", "h:x"),
        ("h", "²", "h:²"),
        ("h", "9" * 5000, "h:999"),
        (b"\xff", None, "\ufffd"),
    ],
)
def test_what_is_no_address_is_named(host: Address, port: int | str | None, shown: str) -> None:
    with pytest.raises(AddressError, match=f"^not the HOST:PORT of a key-value store: '{shown}"):
        parse_address(host, port, {})


@pytest.mark.parametrize("host", ["[::1", "::1]", "[", "]", "[]", "[[::1]]", "[a]b", "a[b", "]::1["])
def test_brackets_that_do_not_match_are_refused(host: str) -> None:
    for given_host, given_port in ((f"{host}:80", None), (host, 80)):
        with pytest.raises(AddressError) as refused:
            parse_address(given_host, given_port, {})
        assert str(refused.value) == f"not the HOST:PORT of a key-value store: '{host}:80'"


@pytest.mark.parametrize(
    "environment", [{}, {"KVSSTCP_HOST": "h"}, {"KVSSTCP_PORT": "1"}, {"KVSSTCP_HOST": "", "KVSSTCP_PORT": "1"}]
)
def test_an_environment_without_an_address_is_named(environment: dict[str, str]) -> None:
    with pytest.raises(AddressError, match="KVSSTCP_HOST and KVSSTCP_PORT are not set"):
        parse_address(None, None, environment)


def test_no_address_is_an_error_of_the_store_and_of_a_value() -> None:
    assert issubclass(AddressError, KVSError)
    assert issubclass(AddressError, ValueError)


@given(st.text() | st.text("a:1[]-² \n", max_size=12) | st.binary(max_size=12))
@example("h:" + "1" * 5000)
def test_any_text_is_an_address_or_one_line(text: str | bytes) -> None:
    try:
        host, port = parse_address(text, None, {})
    except AddressError as error:
        assert str(error).isprintable()  # noqa: PT017 - that it raises nothing else is the other half
    else:
        assert host
        assert 0 < port < 65536


@given(st.from_regex(r"[a-z0-9.:-]+", fullmatch=True), st.integers(1, 65535))
def test_an_address_that_is_written_is_read(host: str, port: int) -> None:
    written = address_text(host, port)
    assert parse_address(written, None, {}) == (host, port)
    assert written == (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


# The environment of clients


def names(monkeypatch: pytest.MonkeyPatch, own: str, failure: Exception | None) -> None:
    """Give this host a name, and a name service that knows it or fails."""

    def look_up(name: str, _port: None) -> list[object]:
        assert name == own
        if failure is not None:
            raise failure
        return [object()]

    monkeypatch.setattr(socket, "gethostname", lambda: own)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_the_environment_for_clients_says_where_and_leaves_the_rest_alone() -> None:
    before = {"HOME": "/", "KVSSTCP_HOST": "old"}
    after = client_environment(("h", 7), b"5", before)
    assert after == {"HOME": "/", "KVSSTCP_HOST": "h", "KVSSTCP_PORT": "7", "KVSSTCP_SECRET": "5"}
    assert before == {"HOME": "/", "KVSSTCP_HOST": "old"}


def test_the_environment_for_clients_holds_a_secret_only_if_the_server_has_one() -> None:
    assert "KVSSTCP_SECRET" not in client_environment(("h", 7), None, {"KVSSTCP_SECRET": "old"})


def test_clients_find_in_it_what_they_look_for() -> None:
    for host in ("h", "127.0.0.1", "::1"):
        assert parse_address(None, None, client_environment((host, 7), None, {})) == (host, 7)


@pytest.mark.parametrize("bound", ["", "0.0.0.0", "::"])
def test_a_server_on_every_address_is_known_by_the_name_of_its_host(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, "login1", None)
    assert client_environment((bound, 7), None, {})["KVSSTCP_HOST"] == "login1"


@pytest.mark.parametrize(
    "failure",
    [
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        UnicodeError("label too long"),  # as Python says of a name of the longest sort that Linux allows
    ],
)
def test_a_name_that_leads_nowhere_is_not_given_to_clients(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, "x" * 64, failure)
    assert client_environment(("0.0.0.0", 7), None, {})["KVSSTCP_HOST"] == "127.0.0.1"


# What went wrong


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (TimeoutError("timed out"), "timed out"),
        (
            OSError(98, "Address already in use (while attempting to bind on address ('h', 1))"),
            "Address already in use",
        ),
    ],
)
def test_a_reason_is_words_without_a_number(error: OSError, text: str) -> None:
    assert reason(error) == text


# Secrets and sockets


def test_a_secret_says_whether_it_is_for_encrypted_connections_alone() -> None:
    assert not new_secret().startswith(ENCRYPTED)
    digits = new_secret(encrypted=True).removeprefix(ENCRYPTED)
    assert len(bytes.fromhex(digits.decode())) == 32


@pytest.mark.parametrize(
    ("own", "peer", "here"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("127.0.1.1", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::ffff:127.0.1.1", "::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("fd00::1", "fd00::2", False),
        ("10.0.0.1", "1.127.0.1", False),
    ],
)
def test_a_peer_is_on_this_host_by_its_address(own: str, peer: str, here: bool) -> None:
    connected = cast(
        "socket.socket",
        SimpleNamespace(
            family=socket.AF_INET6, getsockname=lambda: (own, 1, 0, 0), getpeername=lambda: (peer, 2, 0, 0)
        ),
    )
    assert on_this_host(connected) is here


def test_a_local_socket_ends_on_this_host() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert on_this_host(ours)


def test_a_secret_is_256_random_bits_in_hex() -> None:
    secrets = {new_secret() for _ in range(10)}
    assert len(secrets) == 10
    for secret in secrets:
        assert len(secret) == 64
        assert len(bytes.fromhex(secret.decode())) == 32


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_connections_send_at_once_and_notice_a_silent_host_after_30_s(family: socket.AddressFamily) -> None:
    try:
        connected = socket.socket(family)
    except OSError:
        pytest.skip("the kernel does not know this family")
    with connected:
        tune(connected)
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        interval = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
        count = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
        assert idle + interval * count == 30
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_a_local_socket_is_left_as_it_is() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        tune(ours)
        assert not ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
