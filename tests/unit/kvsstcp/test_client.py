"""`client`: against a server in a thread of the test, over loopback, without sleeps."""

from __future__ import annotations

import errno
import os
import pickle
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from disbatch.kvsstcp import KVSClient, KVSServer, KVSServerThread, channel
from disbatch.kvsstcp import client as client_module
from disbatch.kvsstcp.channel import Channel, Identity
from disbatch.kvsstcp.client import DisconnectedError, HandshakeError, PickleRefusedError
from disbatch.kvsstcp.endpoint import KVSError, new_secret
from disbatch.kvsstcp.wire import ReplyParser, encode_dump_reply, encode_get, encode_put, encode_reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

PATIENCE = 30.0
"""Seconds until something that is due at once counts as not coming."""


@pytest.fixture
def server() -> Iterator[KVSServerThread]:
    with KVSServerThread() as serving:
        yield serving


@pytest.fixture
def client(server: KVSServerThread) -> Iterator[KVSClient]:
    with KVSClient(server.cinfo, secret=server.secret) as connected:
        yield connected


@pytest.mark.parametrize(
    ("value", "encoding", "raw"),
    [
        ("té", False, (b"ASTR", b"t\xc3\xa9")),
        (b"\xff", False, (b"ASTR", b"\xff")),
        (bytearray(b"b"), False, (b"ASTR", b"b")),
        (17, False, (b"ASTR", b"17")),
        ("[1]", "JSON", (b"JSON", b"[1]")),
        (b"<p>", b"HTML", (b"HTML", b"<p>")),
        ("x" * 100_000, False, (b"ASTR", b"x" * 100_000)),
    ],
)
def test_encodings_of_raw_values(client: KVSClient, value: object, encoding: str, raw: tuple[bytes, bytes]) -> None:
    client.put("k", value, encoding)
    assert client.view("k", None) == raw
    assert client.view("k", True) == raw[1]
    assert client.get(b"k", False) == raw[1]


def test_python_values_are_pickled_and_unpickled(client: KVSClient) -> None:
    client.put("k", {"a": [1, None]})
    assert client.view("k") == {"a": [1, None]}
    assert client.get("k", False) == pickle.dumps({"a": [1, None]})


@pytest.mark.parametrize("encoding", ["AST", "ASTRO", "é" * 4, 7, None])
def test_an_encoding_of_another_length_is_refused(client: KVSClient, encoding: str) -> None:
    with pytest.raises(TypeError, match="4 characters"):
        client.put("k", "v", encoding)


def test_the_secret_can_come_from_the_environment(server: KVSServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.env({}).items():
        monkeypatch.setenv(name, value)
    with KVSClient() as connected:
        assert connected.proved


def test_a_client_without_the_secret_is_told(server: KVSServerThread) -> None:
    with pytest.raises(DisconnectedError, match="may ask for a secret, see KVSSTCP_SECRET"):
        KVSClient(server.cinfo, secret=b"").dump()


@pytest.mark.parametrize("size", [1, 24 << 20])
def test_a_client_without_the_secret_learns_that_nothing_was_put(server: KVSServerThread, size: int) -> None:
    with pytest.raises(DisconnectedError, match="may ask for a secret, see KVSSTCP_SECRET"):
        put_and_confirm(KVSClient(server.cinfo, secret=b""), "k", size)


def test_a_put_that_is_against_the_rules_is_not_confirmed(client: KVSClient) -> None:
    with pytest.raises(DisconnectedError, match=r"has ended the connection$"):
        put_and_confirm(client, "k" * 65_537, 1)


def put_and_confirm(client: KVSClient, key: str, size: int) -> None:
    client.put(key, b"x" * size, False)
    client.confirm()


def test_what_is_confirmed_is_done_and_leaves_no_trace(client: KVSClient) -> None:
    client.monkey("m", ":gpvw")
    client.put("k", "1", False)
    with client.clone() as other:
        client.confirm()
        assert other.dump() == ([0, 1, 0, 0], [], [(b"k", 1, (b"ASTR", b"1")), (b"m", 1, (b"ASTR", b"p:k"))])


def test_a_client_with_another_secret_is_told(server: KVSServerThread) -> None:
    with pytest.raises(HandshakeError, match="another secret, or none"):
        KVSClient(server.cinfo, secret="6" * 64)


def test_a_client_with_a_secret_does_not_speak_to_a_server_without() -> None:
    with (
        KVSServerThread(authenticate=False, log=list[str]().append) as open_server,
        pytest.raises(HandshakeError, match="another secret, or"),
    ):
        KVSClient(open_server.cinfo, secret="6" * 64)


def test_a_server_that_does_not_know_the_secret_is_found_out() -> None:
    def pretend() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(encode_reply(b"ASTR", b"a" * 64) + encode_reply(b"ASTR", b"b" * 64))
            connection.recv(1000)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=pretend)
        thread.start()
        with pytest.raises(HandshakeError, match="does not know the secret"):
            KVSClient(listening.getsockname(), secret="5" * 64)
        thread.join()


def test_a_silent_server_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.raises(HandshakeError, match="does not answer"):
        KVSClient(listening.getsockname(), secret="5" * 64, connect_timeout=0.02)


def test_no_server_at_all_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
    with pytest.raises(DisconnectedError, match=f"cannot connect to 127.0.0.1:{address[1]}: Connection refused$"):
        KVSClient(*address)


@pytest.mark.parametrize("host", [".x", "x" * 64, "\udcff"])
def test_a_text_that_no_host_name_can_be_is_one_line(host: str) -> None:
    with pytest.raises(DisconnectedError, match=f"cannot connect to {host}:7: that is no host name$"):
        KVSClient(host, 7, retry=9)


def test_an_ipv6_address_in_a_complaint_can_be_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_address: object, _timeout: float) -> socket.socket:
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(DisconnectedError, match=r"cannot connect to \[::1\]:7: "):
        KVSClient("[::1]:7")


def test_pickles_of_an_unproved_server_are_refused_and_not_lost() -> None:
    with KVSServerThread(authenticate=False, log=list[str]().append) as open_server:
        KVSClient(open_server.cinfo, secret="").put("k", 1)
        with pytest.raises(PickleRefusedError, match="allow_pickle=True") as refused:
            KVSClient(open_server.cinfo, secret="").get("k")
        assert pickle.loads(refused.value.value) == 1  # noqa: S301 - its own pickle
        trusting = KVSClient(open_server.cinfo, secret="", allow_pickle=True)
        trusting.put("k", 2)
        assert trusting.get("k") == 2


def test_a_get_that_times_out_leaves_nothing_behind(client: KVSClient) -> None:
    with pytest.raises(TimeoutError, match=r"no value for 'k' within 0 s"):
        client.get("k", False, timeout=0)
    with pytest.raises(TimeoutError):
        client.view("k", False, timeout=0)
    assert client.dump()[1] == []
    client.put("k", "1", False)
    assert client.get("k", False, timeout=1) == b"1"


def test_a_wait_goes_on_from_call_to_call(client: KVSClient) -> None:
    assert client._get_nb("k", False, 0) is None
    assert client._get_nb("k", False, 0) is None
    with client.clone() as other:
        assert other.dump()[1] == [(b"k", 1)]
        other.put("k", "1", False)
        assert client._get_nb("k", False, 10) == b"1"
        assert client._view_nb("k", False, 0) is None
        other.put("k", "2", False)
        assert client._view_nb("k", False, 10) == b"2"


def test_another_operation_ends_a_wait_and_loses_no_value(client: KVSClient) -> None:
    assert client._get_nb("k", False, 0) is None
    with client.clone() as other:
        other.put("k", "1", False)
        other.put("k", "2", False)
        other.dump()  # so that the answer is on its way
    assert client.dump()[2][-1][:2] == (b"k", 1)
    assert client.get("k", False) == b"1"
    assert client._get_nb("k", False, 1) == b"2"


def test_a_value_that_came_too_late_goes_back_at_the_close(client: KVSClient) -> None:
    with client.clone() as other:
        assert other._get_nb("k", False, 0) is None
        client.put("k", "1", False)
        client.dump()
    assert client.get("k", False, timeout=10) == b"1"


def test_monitors(client: KVSClient) -> None:
    client.monkey("m", "k:pg")
    client.put("k", "1", False)
    client.get("k", False)
    assert [client.get("m", False), client.get("m", False)] == [b"p:k", b"g:k"]


def test_waiting_clients_get_an_error_when_the_server_ends(server: KVSServerThread, client: KVSClient) -> None:
    assert client._get_nb("k", False, 0) is None
    with KVSClient(server.cinfo, secret=server.secret) as other:
        other.shutdown()
    assert server.join(10)
    with pytest.raises(DisconnectedError):
        client.get("k")
    with pytest.raises(DisconnectedError, match="not connected"):
        client.put("k", "v")


def test_a_client_that_may_not_speak_cannot_end_the_server(server: KVSServerThread, client: KVSClient) -> None:
    with pytest.raises(DisconnectedError, match="may ask for a secret"):
        KVSClient(server.cinfo, secret=b"").shutdown()
    client.confirm()


@pytest.mark.parametrize("answers", [True, False])
def test_a_server_that_goes_on_is_told_of(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_END_SECONDS", PATIENCE if answers else 0.0)

    def go_on() -> None:
        connection, _ = listening.accept()
        with connection:
            for asked in (b"dump", b"downdump") if answers else (b"dump",):
                received = b""
                while received != asked:
                    received += connection.recv(100)
                connection.sendall(encode_dump_reply(b"snapshot"))
            while connection.recv(100):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=go_on)
        thread.start()
        connected = KVSClient(listening.getsockname(), secret="")
        with pytest.raises(KVSError, match=r"does not shut down$"):
            connected.shutdown()
        thread.join()
    with pytest.raises(DisconnectedError, match="not connected"):
        connected.confirm()


class _Silent:
    """The socket of a connection to a host that the kernel has given up."""

    def settimeout(self, _seconds: float | None) -> None:
        pass

    def sendall(self, _data: bytes) -> None:
        pass

    def recv(self, _size: int) -> bytes:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    def close(self) -> None:
        pass


def test_a_host_that_was_given_up_is_no_value_that_is_late(client: KVSClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.close()
    monkeypatch.setattr(client, "_socket", _Silent())
    with pytest.raises(DisconnectedError, match=r"lost the connection to 127\.0\.0\.1:\d+: Connection timed out$"):
        client.get("k", timeout=PATIENCE)


def test_a_closed_client_can_connect_again(client: KVSClient) -> None:
    client.close()
    client.close()
    client.connect()
    client.put("k", 1)
    assert client.get("k") == 1


def test_a_socket_is_handed_over_ready_to_use(client: KVSClient) -> None:
    with client.detach() as connected:
        connected.sendall(encode_put(b"k", b"ASTR", b"1") + encode_get(b"k"))
        parser, replies = ReplyParser(), list[tuple[bytes, bytes]]()
        while not replies:
            replies += parser.feed(connected.recv(100))
        assert replies == [(b"ASTR", b"1")]
    with pytest.raises(DisconnectedError):
        client.dump()


def test_a_socket_with_an_answer_outstanding_is_not_handed_over(client: KVSClient) -> None:
    assert client._get_nb("k", False, 0) is None
    with pytest.raises(KVSError, match="outstanding"):
        client.detach()


class _Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo never",)


@pytest.mark.parametrize("sent", [pickle.dumps(_Dangerous()), pickle.dumps(7)])
def test_a_dump_of_a_dangerous_server_is_one_error(sent: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connected = KVSClient(listening.getsockname(), secret="")
        connection, _ = listening.accept()
        with connection:
            connection.sendall(encode_dump_reply(sent))
            with pytest.raises(KVSError, match="cannot be read"):
                connected.dump()
            connected.close()


# Encryption


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """To clients every server is on another host, to servers no client is."""
    monkeypatch.setattr(client_module, "on_this_host", lambda _socket: False)


@pytest.fixture
def private() -> Iterator[KVSServerThread]:
    with KVSServerThread(secret=new_secret(encrypted=True)) as serving:
        yield serving


@pytest.mark.usefixtures("elsewhere")
def test_what_goes_to_another_host_is_encrypted_and_the_same(private: KVSServerThread) -> None:
    with KVSClient(private.cinfo, secret=private.secret) as client:
        large = bytes(range(256)) * 20_000
        client.put("k", large)
        assert client.get("k", timeout=PATIENCE) == large
        with pytest.raises(TimeoutError):
            client.get("k", timeout=0)
        with pytest.raises(TimeoutError):
            client.get("k", timeout=0.01)
        client.put("k", 7)
        assert client.get("k", timeout=PATIENCE) == 7
        with client.clone() as other:
            other.confirm()
        connected = client.detach()
    with connected:
        assert isinstance(connected, Channel)
        connected.sendall(encode_put(b"k", b"ASTR", b"v") + encode_get(b"k"))
        assert ReplyParser().feed(connected.recv(1 << 16)) == [(b"ASTR", b"v")]


@pytest.mark.parametrize("encrypted", [False, True])
def test_what_stays_on_this_host_is_not_encrypted(private: KVSServerThread, *, encrypted: bool) -> None:
    with KVSServerThread() as public:
        server = private if encrypted else public
        with KVSClient(server.cinfo, secret=server.secret) as client, client.detach() as connected:
            assert not isinstance(connected, Channel)


@pytest.mark.usefixtures("elsewhere")
def test_a_secret_without_that_word_is_proved_without(server: KVSServerThread) -> None:
    with KVSClient(server.cinfo, secret=server.secret) as client, client.detach() as connected:
        assert not isinstance(connected, Channel)


@pytest.mark.usefixtures("elsewhere")
def test_a_server_that_does_not_encrypt_is_not_spoken_to(server: KVSServerThread) -> None:
    with pytest.raises(HandshakeError, match="no encrypted connection to"):
        KVSClient(server.cinfo, secret=b"tls:" + (server.secret or b""))


@pytest.mark.usefixtures("elsewhere")
def test_a_silent_server_on_another_host_is_given_up() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        pytest.raises(HandshakeError, match=r"no encrypted connection to .* timed out"),
    ):
        KVSClient(listening.getsockname(), secret=new_secret(encrypted=True), connect_timeout=0.02)


class Between:
    """Stands between a client and a server, and encrypts to the client with a key of his own; `heard` is all he got."""

    def __init__(self, server: KVSServerThread, *, encrypts_to_server: bool) -> None:
        self._server = server
        self._encrypts = encrypts_to_server
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = self._listening.getsockname()
        self.heard = bytearray()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listening.close()

    def _run(self) -> None:
        ours: socket.socket = Identity().wrap(self._listening.accept()[0])
        theirs = socket.create_connection(self._server.cinfo)
        if self._encrypts:
            theirs, _ = channel.connect(theirs)
        with ours, theirs:
            turns = [(ours, theirs), (theirs, ours), (ours, theirs), (theirs, ours)]
            for source, target in turns:
                data = source.recv(1 << 16)
                if not data:
                    break
                self.heard += data
                target.sendall(data)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("encrypts", [False, True])
def test_who_stands_between_is_found_out_by_both_sides(private: KVSServerThread, *, encrypts: bool) -> None:
    with (
        Between(private, encrypts_to_server=encrypts) as between,
        pytest.raises(HandshakeError, match="refused the handshake"),
    ):
        KVSClient(between.address, secret=private.secret)
    assert b".auth response" in between.heard
    assert (private.secret or b"") not in between.heard


@pytest.mark.usefixtures("elsewhere")
def test_a_python_that_cannot_encrypt_is_one_line(private: KVSServerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("disbatch.kvsstcp.channel")
    monkeypatch.setitem(sys.modules, "disbatch.kvsstcp.channel", None)
    with pytest.raises(HandshakeError, match=r"cannot encrypt what goes to 127.0.0.1"):
        KVSClient(private.cinfo, secret=private.secret)
