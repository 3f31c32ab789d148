"""`thread`: a server in a thread of the test, over loopback."""

from __future__ import annotations

import os
import threading
import warnings
from typing import TYPE_CHECKING

import pytest

from disbatch.kvsstcp.client import DisconnectedError, HandshakeError, KVSClient
from disbatch.kvsstcp.thread import KVSServer, KVSServerThread
from disbatch.kvsstcp.wire import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 30.0
"""Seconds until something that is due at once counts as not coming."""


@pytest.fixture
def server() -> Iterator[KVSServerThread]:
    with KVSServerThread() as serving:
        yield serving


def client_of(server: KVSServerThread) -> KVSClient:
    return KVSClient(server.cinfo, secret=server.secret or b"")


def test_it_serves_from_its_construction_on() -> None:
    server = KVSServerThread()
    with client_of(server) as client:
        client.put("k", "v", False)
        assert client.get("k", False, PATIENCE) == b"v"
    server.shutdown()


def test_it_says_where_it_is_bound(server: KVSServerThread) -> None:
    host, port = server.cinfo
    assert host == "127.0.0.1"
    assert 0 < port < 65536


def test_an_address_that_is_taken_is_an_error_and_leaves_no_thread(server: KVSServerThread) -> None:
    before = threading.active_count()
    with pytest.raises(OSError, match="in use"):
        KVSServerThread(*server.cinfo)
    assert threading.active_count() == before


def test_a_text_that_is_no_host_is_an_error_of_the_address() -> None:
    with pytest.raises(OSError, match="is no host name"):
        KVSServerThread("ü" * 70)


def test_two_servers_have_two_secrets(server: KVSServerThread) -> None:
    with KVSServerThread() as other:
        assert server.secret is not None
        assert len(server.secret) == 64
        assert other.secret != server.secret
        with pytest.raises(HandshakeError):
            KVSClient(other.cinfo, secret=server.secret)


def test_the_secret_may_be_one_s_own() -> None:
    with KVSServerThread(secret=b"known to both") as server:
        assert server.secret == b"known to both"
        with client_of(server) as client:
            assert client.proved


def test_a_server_without_a_secret_lets_anyone_in_and_says_so() -> None:
    lines: list[str] = []
    with KVSServerThread(authenticate=False, secret=b"of no use", log=lines.append) as server:
        assert server.secret is None
        with KVSClient(server.cinfo, secret="") as client:
            client.put("k", "v", False)
            assert client.get("k", False, PATIENCE) == b"v"
    assert [line for line in lines if "asks for no secret" in line] == lines
    assert len(lines) == 1


def test_where_there_is_no_log_a_server_without_a_secret_warns_who_starts_it() -> None:
    with pytest.warns(UserWarning, match="asks for no secret: anyone who can connect may use it") as warned:
        KVSServerThread(authenticate=False).shutdown()
    assert [warning.filename for warning in warned] == [__file__]


def test_a_warning_that_is_an_error_leaves_no_server() -> None:
    before = threading.active_count(), set(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="asks for no secret"):
            KVSServerThread(authenticate=False)
    assert (threading.active_count(), set(os.listdir("/proc/self/fd"))) == before


def test_a_server_with_a_secret_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        KVSServerThread().shutdown()


def test_its_environment_leads_clients_to_it(server: KVSServerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.secret is not None
    before = {"HOME": "/"}
    assert server.env(before) == {
        "HOME": "/",
        "KVSSTCP_HOST": "127.0.0.1",
        "KVSSTCP_PORT": str(server.cinfo[1]),
        "KVSSTCP_SECRET": server.secret.decode(),
    }
    assert before == {"HOME": "/"}
    for name, value in server.env({}).items():
        monkeypatch.setenv(name, value)
    with KVSClient() as client:
        assert client.proved


def test_its_environment_is_this_process_s_own_if_none_is_given(
    server: KVSServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_TEST", "1")
    monkeypatch.delenv("KVSSTCP_SECRET", raising=False)
    assert server.env()["OF_THE_TEST"] == "1"
    assert "KVSSTCP_SECRET" in server.env()
    assert "KVSSTCP_SECRET" not in os.environ


def test_an_environment_without_a_secret_does_not_keep_another_s() -> None:
    with KVSServerThread(authenticate=False, log=list[str]().append) as server:
        assert "KVSSTCP_SECRET" not in server.env({"KVSSTCP_SECRET": "of another"})


def test_limits_are_those_given_and_cost_no_one_else_the_connection() -> None:
    lines: list[str] = []
    with (
        KVSServerThread(limits=Limits(key=200, value=200), log=lines.append) as server,
        client_of(server) as client,
        client_of(server) as greedy,
    ):
        greedy.put("k", "x" * 201, False)
        with pytest.raises(DisconnectedError):
            greedy.get("k", False, PATIENCE)
        client.put("k", "x" * 200, False)
        assert client.get("k", False, PATIENCE) == b"x" * 200
    assert [line for line in lines if "a value of 201 bytes is over the limit of 200" in line] == lines
    assert len(lines) == 1


def test_a_client_that_waits_gets_an_error_when_it_ends(server: KVSServerThread) -> None:
    with client_of(server) as waiting:
        assert waiting._get_nb("k", False, 0) is None
        with client_of(server) as other:
            assert other.dump()[1] == [(b"k", 1)]
        server.shutdown()
        with pytest.raises(DisconnectedError):
            waiting.get("k", False, PATIENCE)


def test_it_can_be_ended_twice(server: KVSServerThread) -> None:
    assert not server.join(0)
    server.shutdown()
    assert server.join(0)
    server.shutdown()


def test_no_descriptor_of_it_is_left(server: KVSServerThread) -> None:
    with client_of(server):  # whatever is opened once for all is open by now
        before = set(os.listdir("/proc/self/fd"))
        with KVSServerThread() as other, client_of(other):
            pass
        with pytest.raises(OSError, match="in use"):
            KVSServerThread(*server.cinfo)
        assert not set(os.listdir("/proc/self/fd")) - before


def test_it_ends_with_its_block_whatever_happens_in_there() -> None:
    with pytest.raises(KeyError), KVSServerThread() as server:
        raise KeyError
    assert server.join(0)


def test_a_client_may_end_it(server: KVSServerThread) -> None:
    with client_of(server) as client:
        client.shutdown()
    assert server.join(PATIENCE)
    server.shutdown()


def test_it_does_not_keep_a_program_from_ending(server: KVSServerThread) -> None:
    assert server._thread.daemon


def test_it_can_be_ended_by_several_threads_at_once() -> None:
    server = KVSServerThread()
    enders = [threading.Thread(target=server.shutdown) for _ in range(4)]
    for ender in enders:
        ender.start()
    for ender in enders:
        ender.join(PATIENCE)
    assert server.join(0)


def test_the_other_name_means_the_same() -> None:
    assert KVSServer is KVSServerThread
