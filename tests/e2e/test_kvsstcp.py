"""The key-value store as real processes over loopback: its doors, strangers, slow clients and many of them."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from disbatch.kvsstcp.client import DisconnectedError, HandshakeError, KVSClient
from disbatch.kvsstcp.wire import encode_get, encode_put, encode_put_header, encode_view

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 30
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("KVSSTCP_")}
CLEAN["PYTHONPATH"] = str(ROOT)


def run(*arguments: str, env: dict[str, str] = CLEAN) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)


class Served:
    """A server by hand, in a process of its own."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "disbatch.kvsstcp", "serve", *options]
        self.process = subprocess.Popen(
            command, env=CLEAN, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        count = 2 if "--insecure" in options else 3
        lines = [self.process.stdout.readline().removeprefix("export ").strip() for _ in range(count)]
        self.env = CLEAN | dict(line.split("=", 1) for line in lines)
        self.address = (self.env["KVSSTCP_HOST"], int(self.env["KVSSTCP_PORT"]))
        self.secret = self.env.get("KVSSTCP_SECRET", "")

    def client(self) -> KVSClient:
        return KVSClient(self.address, secret=self.secret)

    def end(self) -> str:
        """End it as a user would, and return what it said."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=SECONDS)
        return said


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    serving = Served()
    yield serving
    serving.end()
    assert serving.process.returncode == 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def insecure() -> Iterator[Served]:
    serving = Served("--insecure")
    yield serving
    assert serving.process.poll() is None
    said = serving.end()
    assert "asks for no secret" in said.splitlines()[0]
    assert "Traceback" not in said
    assert len(said.splitlines()) < 20


def test_operations_by_hand(served: Served) -> None:
    assert run("disbatch.kvsstcp", "monitor", "m", "hand:g", env=served.env).returncode == 0
    assert run("disbatch.kvsstcp", "put", "hand", "[1]", "--tag", "JSON", env=served.env).returncode == 0
    assert run("disbatch.kvsstcp", "view", "hand", env=served.env).stdout == "[1]\n"
    assert "hand: 1 held, newest JSON 3 bytes" in run("disbatch.kvsstcp", "dump", env=served.env).stdout
    assert run("disbatch.kvsstcp", "get", "hand", env=served.env).stdout == "[1]\n"
    assert run("disbatch.kvsstcp", "get", "m", env=served.env).stdout == "g:hand\n"
    late = run("disbatch.kvsstcp", "get", "hand", "-T", "0.05", env=served.env)
    assert (late.returncode, late.stderr) == (1, "kvsstcp: error: no value for 'hand' within 0.05 s\n")


def test_the_old_client_door_keeps_the_order_given(served: Served) -> None:
    address = "{}:{}".format(*served.address)
    steps = "-R 2 -p a 1 -v a -p a 2 -g a -g a -T 0.05 -m mm a:p -g a"
    done = run("disbatch.kvsstcp.kvsclient", address, *steps.split(), env=served.env)
    assert done.stdout == "1\n1\n2\n"
    assert done.stderr == "kvsclient: error: no value for 'a' within 0.05 s\n"


def test_a_command_is_served_and_ended_with(tmp_path: Path) -> None:
    address_file, log_file = tmp_path / "address", tmp_path / "log"
    script = f"{sys.executable} -m disbatch.kvsstcp put k v && {sys.executable} -m disbatch.kvsstcp get k; exit 7"
    arguments = ("-H", "127.0.0.1", "-p", "0", "-a", str(address_file), "-e", script, "-l", str(log_file))
    done = run("disbatch.kvsstcp.kvsstcp", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (7, "v\n", "")
    host, port = address_file.read_text().strip().split(":")
    assert host == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
    assert log_file.read_text() == ""


def test_the_secret_goes_into_a_file_of_its_owner_alone(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("")
    env_file.chmod(0o644)
    script = f". {env_file} && test ${{#KVSSTCP_SECRET}} = 64 && {sys.executable} -m disbatch.kvsstcp dump"
    done = run("disbatch.kvsstcp", "serve", "-k", str(env_file), "-e", f"unset KVSSTCP_SECRET; {script}")
    assert (done.returncode, done.stdout) == (0, "gets 0, puts 0, views 0, waits 0\n")
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600


def test_shutdown_by_hand() -> None:
    serving = Served()
    with serving.client() as waiting:
        assert waiting._get_nb("k", False, 0) is None
        assert run("disbatch.kvsstcp", "shutdown", env=serving.env).returncode == 0
        assert serving.process.wait(SECONDS) == 0
        with pytest.raises(DisconnectedError):
            waiting.get("k")
    serving.process.communicate()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("get", "k"), "KVSSTCP_HOST and KVSSTCP_PORT are not set"),
        (("get", "k", "-s", "nowhere"), "not the HOST:PORT of a key-value store: 'nowhere'"),
        (("get", "k", "-s", "127.0.0.1:1"), "cannot connect to 127.0.0.1:1: "),
        (("get", "k", "-T", "soon"), "a number of seconds is due, not 'soon'"),
        (("put", "k", "v", "-t", "TAGGED"), "a tag has 4 characters, not 'TAGGED'"),
        (("serve", "-p", "70000"), "a port is a number from 0 to 65535, not '70000'"),
        (("serve", "-H", "192.0.2.1"), "cannot serve at 192.0.2.1:0: "),
        (("serve", "-a", "/nowhere/address"), "cannot serve: /nowhere/address: "),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], complaint: str) -> None:
    done = run("disbatch.kvsstcp", *arguments)
    assert done.returncode in (1, 2)
    assert complaint in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_strangers_get_nothing(served: Served) -> None:
    with pytest.raises(HandshakeError, match="another secret"):
        KVSClient(served.address, secret="0" * 64)
    for sent in (b"down", b"dump", encode_get(b"k"), encode_put_header(b"k", b"ASTR", 9_999_999_999)):
        with socket.create_connection(served.address, SECONDS) as stranger:
            stranger.sendall(sent)
            assert stranger.recv(100) == b""
    with served.client() as client:
        assert client.proved


operations = st.sampled_from([b"put_", b"get_", b"view", b"mkey", b"dump", b"clos", b"quit"])
lengths = st.one_of(st.integers(0, 30).map(lambda n: b"%10d" % n), st.binary(min_size=10, max_size=10))
noise = st.lists(st.one_of(operations, lengths, st.binary(max_size=30)), max_size=12).map(b"".join)


@seed(20)
@settings(max_examples=60, deadline=None, derandomize=False, suppress_health_check=list(HealthCheck), database=None)
@given(noise)
def test_random_bytes_stop_neither_server_nor_others(insecure: Served, sent: bytes) -> None:
    with socket.create_connection(insecure.address, SECONDS) as stranger:
        stranger.sendall(sent.replace(b"down", b"clos"))
        stranger.shutdown(socket.SHUT_WR)
        try:
            while stranger.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
    with insecure.client() as client:
        client.put("alive", "yes", False)
        assert client.get("alive", False) is not None


def test_a_client_that_reads_nothing_does_not_stop_others(served: Served) -> None:
    value = b"x" * (24 << 20)
    with served.client() as slow, served.client() as other:
        slow.put("slow", value, "HTML")
        slow.view("slow", False)  # it has arrived
        connected = slow.detach()
        connected.sendall(encode_view(b"slow") * 50)
        for number in range(50):
            other.put("k", str(number), False)
            assert other.get("k", False) == str(number).encode()
        assert other.view("slow", False) == value
        connected.settimeout(SECONDS)
        received = 0
        try:
            while data := connected.recv(1 << 20):
                received += len(data)
        except ConnectionResetError:
            pass
        connected.close()
        assert other.get("slow", False) == value
    assert received < 50 * len(value)  # it was cut off with 64 MiB unread


def test_many_clients_get_each_value_once(served: Served) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(served.client()) for _ in range(200)]
        for client in clients:
            assert client._get_nb("many", False, 0) is None
        clients[0].clone().put("many", "first", False)
        with served.client() as source:
            for number in range(1, 200):
                source.put("many", str(number), False)
        values = [client._get_nb("many", False, SECONDS) for client in clients]
    assert sorted(map(str, values)) == sorted(str(value) for value in [b"first", *(b"%d" % n for n in range(1, 200))])


def test_a_getter_that_is_killed_takes_nothing(served: Served) -> None:
    script = "import sys; from disbatch.kvsstcp import KVSClient; c = KVSClient(); c.put('up', 1); c.get('killed')"
    with served.client() as client:
        with subprocess.Popen([sys.executable, "-c", script], env=served.env) as getter:
            assert client.get("up", timeout=SECONDS) == 1
            getter.kill()
        client.put("killed", "alive", False)
        assert client.get("killed", False, timeout=SECONDS) == b"alive"


def test_a_client_in_raw_bytes_as_any_language_may_write_it(insecure: Served) -> None:
    with socket.create_connection(insecure.address, SECONDS) as plain:
        plain.sendall(encode_put(b"raw", b"ASTR", b"value") + b"get_0000000003raw")
        received = b""
        while len(received) < 19:
            received += plain.recv(100)
    assert received == b"ASTR         5value"
