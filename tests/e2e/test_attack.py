"""The key-value store under attack: a run goes on right, and a server serves its clients, whatever others send.

Bytes are made for half a minute in all, or for as long as DISBATCH_ATTACK_MINUTES says (`make attack MINUTES=10`).
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections import deque
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from disbatch.kvsstcp import auth
from disbatch.kvsstcp.client import KVSClient
from disbatch.kvsstcp.wire import ASTR, encode_get, encode_put
from tests.e2e.support import CHECKOUT, PATIENCE, eventually, finish, read_status
from tests.e2e.test_kvsstcp import Served

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from tests.e2e.support import Workplace

SECONDS = 60 * float(os.environ.get("DISBATCH_ATTACK_MINUTES", "1")) / 2
"""For how long each of the two tests makes bytes."""

EXAMPLES = 20
"""How many conversations are made between two looks at the time."""

ALLOWANCE = 10 * 1024
"""KiB by which the memory of a server may grow."""

LONG = 120.0
"""Seconds for what takes some while the machine is attacked by itself; only a failure waits that long."""

TASKS = max(1000, int(50 * SECONDS))
WAIT = "touch begun.$DISBATCH_TASKID; until [ -e go ]; do sleep 0.02; done"


# What is said: requests, good and bad, by one connection or several, in pieces.


class Talk(NamedTuple):
    """What connections send: a stream each, `cuts` (connection, bytes) first, then the rest; how each one ends."""

    streams: list[bytes]
    cuts: list[tuple[int, int]]
    ends: list[str]


def _length(size: int) -> bytes:
    return b"%10d" % size


lengths = st.one_of(
    st.sampled_from([b"9999999999", b"1073741824", b"1073741825", b"     65536", b"     65537", b"      1024"]),
    st.sampled_from([b"          ", b"        -1", b"       1_0", b"0000000003", b"3         ", b"\xd9\xa3        "]),
    st.integers(0, 40).map(_length),
    st.binary(min_size=10, max_size=10),
)
operations = st.sampled_from([b"put_", b"get_", b"view", b"mkey", b"dump", b"clos", b"PUT_", b"\0\0\0\0"])
keys = st.one_of(
    st.binary(max_size=3),
    st.sampled_from([auth.CHALLENGE_KEY, auth.RESPONSE_KEY, auth.PROOF_KEY, auth.RESERVED_PREFIX, b"k" * 1024]),
)
tags = st.sampled_from([ASTR, b"JSON", b"PYPK", b"DBMP", b"\xff\xff\xff\xff"])
proofs = st.builds(
    lambda nonce, mac: nonce * 64 + b" " + mac * 64, *[st.sampled_from([b"0", b"f", b"F", b"x", b""])] * 2
)
values = st.one_of(st.binary(max_size=40), proofs, st.sampled_from([b"k:gpvw", b":gpvw", b":", b"k:", b"x" * 2000]))

sized_keys = keys.map(lambda key: _length(len(key)) + key)
sized_values = st.builds(lambda tag, value: tag + _length(len(value)) + value, tags, values)
requests = st.one_of(
    st.builds(bytes.__add__, st.sampled_from([b"get_", b"view"]), sized_keys),
    st.builds(lambda *parts: b"".join(parts), st.sampled_from([b"put_", b"mkey"]), sized_keys, sized_values),
    st.sampled_from([encode_get(auth.CHALLENGE_KEY), encode_get(auth.PROOF_KEY)]),
    proofs.map(lambda proof: encode_put(auth.RESPONSE_KEY, ASTR, proof)),
    operations,
)
malformed = st.one_of(st.builds(bytes.__add__, operations, lengths), lengths, st.binary(max_size=30), sized_values)
made_by_grammar = st.lists(st.one_of(requests, requests, requests, malformed), max_size=12).map(b"".join)
# Who has the secret may end the server, and hypothesis knows the word for it.
streams = st.one_of(made_by_grammar, st.binary(max_size=3000)).map(lambda stream: stream.replace(b"down", b"town"))

talks = st.builds(
    Talk,
    st.lists(streams, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), max_size=12),
    st.lists(st.sampled_from(["close", "reset", "read", "leave"]), min_size=4, max_size=4),
)


class Speaker:
    """Holds conversations with a server, over connections that `connect` makes."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._left: deque[socket.socket] = deque()

    def say(self, talk: Talk) -> None:
        clients = [self._connect() for _ in talk.streams]
        unsent = list(talk.streams)
        for number, size in [*talk.cuts, *((number, 1 << 20) for number in range(len(clients)))]:
            if number < len(clients):
                with suppress(OSError):  # it has been ended already
                    clients[number].sendall(unsent[number][:size])
                unsent[number] = unsent[number][size:]
        for client, end in zip(clients, talk.ends, strict=False):
            self._end(client, end)

    def _end(self, client: socket.socket, end: str) -> None:
        if end == "leave":
            self._left.append(client)
            while len(self._left) > 50:
                self._left.popleft().close()
            return
        with closing(client), suppress(OSError):
            if end == "read":
                client.shutdown(socket.SHUT_WR)
                while client.recv(1 << 16):
                    pass
            elif end == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        for client in self._left:
            client.close()


def speak(connect: Callable[[], socket.socket], check: Callable[[], None], first: int) -> None:
    """Hold so many conversations, those that belong to the number `first`, and look after each."""
    with closing(Speaker(connect)) as speaker:

        @seed(first)
        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(talks)
        def each(talk: Talk) -> None:
            speaker.say(talk)
            check()

        each()


def is_served(client: KVSClient) -> None:
    """See that a client gets what it puts."""
    client.put("well-behaved", "value", False)
    assert client.get("well-behaved", False, PATIENCE) == b"value"


def memory(pid: int, field: str) -> int:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines())
    return int(status[field].split()[0])


# A run


def attack(work: Workplace, kind: str, at: tuple[str, int], response: bytes = b"") -> subprocess.Popen[bytes]:
    """Have strangers attack in that way, from now on."""
    program = (sys.executable, "-m", "tests.attack.strangers", kind, at[0], str(at[1]), response.decode())
    attacker = work.start(program=program, cwd=CHECKOUT)
    assert attacker.stdout is not None
    assert attacker.stdout.readline() == b"attacking\n"
    return attacker


def test_a_run_goes_on_and_grows_in_spite_of_strangers(work: Workplace) -> None:
    tasks = ["sleep 0.02"] * TASKS + [WAIT] * 3  # of these two run at once, and the third where something is added
    run = work.start("-s", "localhost:2", "-p", "run", work.write("tasks", *tasks).name)
    work.await_file("run_dbUtil.sh")
    script = [work.directory / "run_dbUtil.sh"]
    joining = work.run("--kvs-env", program=script).stdout.split()
    environment = dict(word.split("=", 1) for word in joining)
    at, secret = ("127.0.0.1", int(environment["KVSSTCP_PORT"])), environment["KVSSTCP_SECRET"].encode()
    with KVSClient(at, secret=secret) as client:
        is_served(client)
        before = memory(run.pid, "VmRSS")
        once_right = auth.respond(secret, b"0" * 64, b"0" * 64)
        attackers = [
            attack(work, kind, at, once_right) for kind in ("trickle", "nonsense", "wrong", "replay", "endless")
        ]
        began = time.monotonic()
        for number in count():
            speak(lambda: socket.create_connection(at, PATIENCE), lambda: is_served(client), number)
            if time.monotonic() > began + SECONDS:
                break
        attackers.append(attack(work, "crowd", at))
        added = work.start("-s", "localhost:1", program=script)
        for number in range(TASKS, TASKS + 3):
            eventually((work.directory / f"begun.{number}").exists, f"task {number} running", LONG)
        is_served(client)
        minutes = (time.monotonic() - began) / 60
        grown = memory(run.pid, "VmHWM") - before
    for attacker in attackers:
        attacker.terminate()
    assert all(int(finish(attacker, timeout=LONG).stdout) for attacker in attackers)
    work.write("go")
    done = finish(run, timeout=LONG)
    assert finish(added, timeout=LONG) == (0, "", "")
    assert (done.returncode, len(done.complaints)) == (0, 1)
    records = read_status(work.directory / "run_status.txt")
    assert sorted(record.task_id for record in records) == list(range(TASKS + 3))
    assert {record.return_code for record in records} == {0}
    assert grown < ALLOWANCE
    log = work.text("run_driver.log")
    assert log.count("ended the connection of") <= 5 * (minutes + 1)
    assert len(log.splitlines()) < 30 + 10 * (minutes + 1)
    assert "Traceback" not in log


# Clients that have the secret, and are out of their minds


def test_whatever_clients_send_a_server_serves_the_others() -> None:
    end = time.monotonic() + SECONDS
    for number in count():
        served = Served()
        try:
            with served.client() as client:
                is_served(client)
                before = memory(served.process.pid, "VmRSS")
                speak(lambda: served.client().detach(), lambda: is_served(client), number)  # noqa: B023 - within the turn
                assert memory(served.process.pid, "VmHWM") - before < ALLOWANCE
        finally:
            said = served.end()
        assert "Traceback" not in said
        assert len(said.splitlines()) <= 5
        if time.monotonic() > end:
            break
