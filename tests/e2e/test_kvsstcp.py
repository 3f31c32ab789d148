"""The key-value store as real processes over loopback: its doors, strangers, slow clients, many clients, a run's."""

from __future__ import annotations

import os
import shlex
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
from tests.e2e.support import PATIENCE, finish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.support import Workplace

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


def test_the_old_client_door_shows_the_store_and_ends_the_server() -> None:
    serving = Served()
    steps = "-p a 1 -p a 22 -d -S"
    done = run("disbatch.kvsstcp.kvsclient", *steps.split(), env=serving.env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "gets 0, puts 2, views 0, waits 0\na: 2 held, newest ASTR 22\n"
    assert serving.process.wait(SECONDS) == 0
    serving.process.communicate()


def test_the_old_doors_are_modules_to_import_from(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from disbatch.kvsstcp.kvsclient import KVSClient\n"
        "from disbatch.kvsstcp.kvsstcp import KVSServer, KVSServerThread\n"
        "server = KVSServerThread('127.0.0.1', 0)\n"
        "client = KVSClient(*server.cinfo, secret=server.secret)\n"
        "client.put('k', {'a': 1})\n"
        "print(client.get('k'), KVSServer is KVSServerThread)\n"
        "client.shutdown()\n",
        encoding="ascii",
    )
    command = [sys.executable, str(program)]
    done = subprocess.run(command, env=CLEAN, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.stdout, done.stderr) == ("{'a': 1} True\n", "")


@pytest.mark.parametrize("secret", [None, "0" * 64], ids=["no secret", "another"])
@pytest.mark.parametrize(
    ("door", "steps"),
    [
        ("kvsstcp", ("put", "refused", "v")),
        ("kvsstcp", ("monitor", "refused", ":p")),
        ("kvsstcp", ("shutdown",)),
        ("kvsclient", ("-p", "refused", "v")),
        ("kvsclient", ("-m", "refused", ":p")),
        ("kvsclient", ("-S",)),
    ],
)
def test_who_is_refused_is_told(served: Served, door: str, steps: tuple[str, ...], secret: str | None) -> None:
    env = {name: value for name, value in served.env.items() if name != "KVSSTCP_SECRET"}
    if secret is not None:
        env["KVSSTCP_SECRET"] = secret
    done = run("disbatch.kvsstcp" if door == "kvsstcp" else "disbatch.kvsstcp.kvsclient", *steps, env=env)
    where = "{}:{}".format(*served.address)
    why = (
        f"{where} has ended the connection; it may ask for a secret, see KVSSTCP_SECRET"
        if secret is None
        else f"{where} refused the handshake: it has another secret, or none"
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{door}: error: {why}\n")
    with served.client() as client:
        assert b"refused" not in [key for key, *_ in client.dump()[2]]


def test_what_is_against_the_rules_is_told(served: Served) -> None:
    done = run("disbatch.kvsstcp", "put", "k" * 65_537, "v", env=served.env)
    where = "{}:{}".format(*served.address)
    assert (done.returncode, done.stderr) == (1, f"kvsstcp: error: {where} has ended the connection\n")


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


def test_what_the_server_has_to_say_goes_into_its_log(tmp_path: Path) -> None:
    log_file = tmp_path / "log"
    script = f"{sys.executable} -m disbatch.kvsstcp put {'k' * 65_537} v 2> {tmp_path}/refused"
    done = run("disbatch.kvsstcp.kvsstcp", "--insecure", "-e", script, "-l", str(log_file))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    warning, complaint = log_file.read_text().splitlines()
    assert "asks for no secret: anyone may use it" in warning
    assert "a key of 65537 bytes is over the limit of 65536" in complaint


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
        (("get", "k", "-s", "127.0.0.1:1"), "cannot connect to 127.0.0.1:1: Connection refused"),
        (("get", "k", "-T", "soon"), "a number of seconds is due, not 'soon'"),
        (("monitor", "m", "k:x"), "a key, a colon and any of the letters g, p, v, w are due, not 'k:x'"),
        (("put", "k"), "the following arguments are required: V"),
        (("put", "k", "v", "-t", "TAGGED"), "a tag has 4 characters, not 'TAGGED'"),
        (("serve", "-p", "70000"), "a port is a number from 0 to 65535, not '70000'"),
        (("serve", "-H", "192.0.2.1"), "cannot serve at 192.0.2.1:0: "),
        (("serve", "-a", "/nowhere/address"), "cannot serve: /nowhere/address: "),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], complaint: str) -> None:
    done = run("disbatch.kvsstcp", *arguments)
    assert done.returncode in (1, 2)
    [line] = done.stderr.splitlines()
    assert line.startswith("kvsstcp: error: ")
    assert complaint in line


def test_help_says_what_is_meant() -> None:
    for operation, words in (
        ("put", ("K", "V", "TAG", "ASTR")),
        ("monitor", ("KEY:EVENTS", "g get, p put, v view, w wait")),
        ("dump", ("waits", "waiting", "held")),
    ):
        text = " ".join(run("disbatch.kvsstcp", operation, "-h").stdout.split())
        assert not [word for word in words if word not in text]
    text = " ".join(run("disbatch.kvsstcp.kvsclient", "-h").stdout.split())
    assert not [word for word in ("K is a key", "g get, p put", "waits", "held") if word not in text]


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


# The store of a run


def test_a_barrier_s_key_is_in_the_store_of_the_run(work: Workplace) -> None:
    kvsstcp = shlex.join([sys.executable, "-m", "disbatch.kvsstcp"])
    look = f'export $(./run_dbUtil.sh --kvs-env); there="-s $(cat run_kvsinfo.txt)"; {kvsstcp}'
    tasks = work.write(
        "tasks",
        "true",
        "#DISBATCH BARRIER CHECK passed by",
        f"{look} dump $there > dump && {kvsstcp} get 'passed by' $there > got",
    )
    done = work.run("-s", "localhost:1", "-p", "run", "-e", tasks.name)
    assert done.returncode == 0, done.stderr
    assert "passed by: 1 held, newest ASTR 1\n" in work.text("dump")
    assert work.text("got") == "1\n"


def test_a_run_does_not_shut_down_its_store_and_says_so(work: Workplace) -> None:
    kvsstcp = shlex.join([sys.executable, "-m", "disbatch.kvsstcp"])
    tasks = work.write("tasks", f"{kvsstcp} shutdown -s $(cat run_kvsinfo.txt) 2> said; echo $? > status", "true")
    done = work.run("-s", "localhost:1", "-p", "run", "--insecure-kvs", tasks.name)
    assert done.returncode == 0, done.stderr
    assert work.text("status") == "1\n"
    assert work.text("said").endswith(" does not shut down\n")


def test_an_open_store_lets_in_those_whom_the_script_adds(work: Workplace) -> None:
    wait = "touch begun.$DISBATCH_TASKID; until [ -e go ]; do sleep 0.02; done"
    process = work.start("-s", "localhost:1", "-p", "run", "--insecure-kvs", work.write("tasks", wait, wait).name)
    work.await_file("begun.0")
    added = work.start("-s", "localhost:1", program=[work.directory / "run_dbUtil.sh"])
    work.await_file("begun.1")
    work.write("go")
    assert finish(process, timeout=PATIENCE).returncode == 0
    assert finish(added, timeout=PATIENCE) == (0, "", "")
