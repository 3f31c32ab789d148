"""What goes between hosts: nobody who reads it learns anything, nobody who stands between gets in."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import CHECKOUT, DISBATCH, Finished, eventually, read_status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.support import Workplace
    from tests.hosts import Hosts

pytestmark = pytest.mark.ssh

SAYS = "echo $((6 * 7))-is-what-the-task-says  # known-by-its-command"

PLAIN_CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as connection:
    connection.sendall(b"get_        15.auth challenge")
    try:
        print(len(connection.recv(1000)))
    except ConnectionResetError:
        print(0)
"""
"""A program that knows nothing of TLS: it says how many bytes of the challenge it gets."""


class Run:
    """A run whose driver is on `login`, waiting for somebody to add h1."""

    def __init__(self, hosts: Hosts, work: Workplace, *options: str) -> None:
        self.hosts = hosts
        self.work = work
        tasks = work.write("tasks", SAYS)
        self.driver = self._start("login", *DISBATCH, "-S", "-p", "run", *options, tasks.name)
        work.await_file("run_kvsinfo.txt")
        eventually(lambda: work.text("run_kvsinfo.txt").endswith("\n"))
        self.script = str(work.directory / "run_dbUtil.sh")
        self.store = work.text("run_kvsinfo.txt").strip()

    def _start(self, host: str, *command: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        return self.hosts[host].popen(
            list(command),
            env=self.work.environment,
            cwd=cwd or self.work.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def on(self, host: str, *command: str) -> Finished:
        """Run a command on a host to its end."""
        process = self._start(host, *command)
        stdout, stderr = process.communicate(timeout=60)
        return Finished(process.returncode, stdout, stderr)

    def put_between(self, how: str) -> str:
        """Put somebody between h1 and the store; his address."""
        command = (sys.executable, "-m", "tests.e2e.between", how, self.store, str(self.record))
        between = self._start("login", *command, cwd=CHECKOUT)
        assert between.stdout is not None
        return f"login:{between.stdout.readline().strip()}"

    @property
    def record(self) -> Path:
        """Where all is that he could read."""
        return self.work.directory / "record"

    def end(self) -> None:
        """End the run, whatever becomes of it."""
        self.driver.terminate()
        self.driver.communicate(timeout=60)


@pytest.fixture
def runs(hosts: Hosts, work: Workplace) -> Iterator[list[Run]]:
    begun: list[Run] = []
    yield begun
    for run in begun:
        run.end()
    for host in hosts:
        host.reset()
    work.close()


@pytest.mark.parametrize("encrypted", [True, False])
def test_who_reads_along_learns_nothing(hosts: Hosts, work: Workplace, runs: list[Run], *, encrypted: bool) -> None:
    """Without encryption he does, or this test would show nothing."""
    runs.append(run := Run(hosts, work, *["--no-encryption"] * (not encrypted)))
    added = run.on("h1", run.script, "-s", "localhost:1", "--kvs", run.put_between("pass"))
    assert added.returncode == 0, added
    assert run.driver.wait(60) == 0
    (line,) = read_status(work.directory / "run_status.txt")
    assert line.out == r"'42-is-what-the-task-says\n'"
    recorded = run.record.read_bytes()
    assert len(recorded) > 1000
    for told in (b"known-by-its-command", b"42-is-what", b".auth", b"run engine", b"localhost", b"h1"):
        assert (told in recorded) is not encrypted, told


@pytest.mark.parametrize("how", ["encrypt", "strip", "plain"])
def test_who_stands_between_is_refused_and_learns_nothing(
    hosts: Hosts, work: Workplace, runs: list[Run], how: str
) -> None:
    runs.append(run := Run(hosts, work))
    added = run.on("h1", run.script, "-s", "localhost:1", "--kvs", run.put_between(how))
    assert added.returncode == 1
    assert "cannot reach the driver" in added.stderr
    assert ("no encrypted connection" if how == "plain" else "refused the handshake") in added.stderr
    recorded = run.record.read_bytes()
    secrets = re.findall(r"SECRET=(\S+)", work.text("run_dbUtil.sh"))
    assert len(secrets) == 3
    for secret in secrets:
        assert secret.startswith("tls:")
        assert secret[4:].encode() not in recorded
    assert (b".auth response" in recorded) is (how != "plain")
    assert b"known-by-its-command" not in recorded
    assert run.driver.poll() is None
    assert run.on("h1", run.script, "-s", "localhost:1").returncode == 0
    assert run.driver.wait(60) == 0


def test_programs_on_another_host_have_to_encrypt_unless_nothing_is(
    hosts: Hosts, work: Workplace, runs: list[Run]
) -> None:
    runs.append(run := Run(hosts, work))
    host, _, port = run.store.rpartition(":")
    plain = (sys.executable, "-c", PLAIN_CLIENT, host, port)
    assert run.on("h1", *plain).stdout == "0\n"
    assert run.on("login", *plain).stdout == "78\n"
    assert "does not encrypt, as other hosts must" in work.text("run_driver.log")
    with_store = 'set -a; eval "$("$0" --kvs-env)"; "$@"'
    client = ("bash", "-c", with_store, run.script, sys.executable, "-m", "disbatch.kvsstcp")
    assert run.on("h1", *client, "put", "k", "from h1").returncode == 0
    assert run.on("login", *client, "get", "k").stdout == "from h1\n"
    run.end()
    runs.append(run := Run(hosts, work, "--no-encryption"))
    host, _, port = run.store.rpartition(":")
    assert run.on("h1", sys.executable, "-c", PLAIN_CLIENT, host, port).stdout == "78\n"
