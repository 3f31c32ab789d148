"""Runs over ssh on hosts that have addresses of IPv6 and no others: the driver on one of them, tasks on `h1`."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import PATIENCE, read_status
from tests.e2e.test_ssh import await_silence, end, run, start
from tests.hosts import Hosts, why_no_ipv6

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.support import Workplace

pytestmark = pytest.mark.ssh

READ_THE_STATE = """
from disbatch.kvsstcp import KVSClient
for client in (KVSClient(), KVSClient(open("run_kvsinfo.txt").read().strip())):
    print(type(client.view("DisBatch status", False, 20)).__name__)
"""


@pytest.fixture(scope="module")
def module_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Hosts `login`, `debian`, which finds its own name at 127.0.1.1, and `h1`."""
    if reason := why_no_ipv6():
        pytest.skip(reason)
    with Hosts(tmp_path_factory.mktemp("ipv6"), ["login", "debian", "h1"], debian=["debian"], ipv6=True) as hosts:
        # Where no hosts are named the way to anywhere tells the address.
        assert hosts["debian"].run(["ip", "-6", "route", "add", "default", "dev", "eth0"]).returncode == 0
        yield hosts


@pytest.fixture
def hosts(module_hosts: Hosts) -> Iterator[Hosts]:
    """The same; soon after a test no host has a process more than before."""
    yield module_hosts
    await_silence(module_hosts)


@pytest.mark.parametrize(
    ("driver", "address", "advertised", "node"),
    [
        ("login", "", "login", "[{}]"),
        ("login", "login:0", "login", "h1"),
        ("login", "[{}]:0", "[{}]", "h1"),
        ("login", "[::]:0", "login", "[{}]"),
        ("debian", "", "[{}]", "[{}]"),
    ],
)
def test_a_host_is_reached_and_reaches_the_driver(
    hosts: Hosts, work: Workplace, driver: str, address: str, advertised: str, node: str
) -> None:
    own, other = hosts[driver].address, hosts["h1"].address
    options = ["--use-address", address.format(own)] if address else []
    work.write("tasks", "hostname; cat run_kvsinfo.txt > known")
    done = run(hosts[driver], work, "-p", "run", "-s", f"{node.format(other)}:1", *options, "tasks")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(re.escape(advertised.format(own)) + r":\d+\n", work.text("known"))
    (line,) = read_status(work.directory / "run_status.txt")
    assert (line.node, line.out) == (node.format(other).strip("[]"), r"'h1\n'")


def test_programs_and_contexts_on_any_host_read_the_address_of_the_store(hosts: Hosts, work: Workplace) -> None:
    work.write("tasks", "hostname")
    driver = start(hosts["debian"], work, "-S", "-p", "run", "tasks")
    work.await_file("run_kvsinfo.txt")
    assert work.text("run_kvsinfo.txt").startswith(f"[{hosts['debian'].address}]:")
    work.write("program", READ_THE_STATE)
    command = f"export $(./run_dbUtil.sh --kvs-env) && exec {sys.executable} program"
    for host in hosts:
        seen = host.run(["bash", "-c", command], env=work.environment, cwd=work.directory)
        assert (seen.returncode, seen.stdout) == (0, "bytes\nbytes\n"), seen.stderr
    added = hosts["h1"].run(["./run_dbUtil.sh", "-s", "[::1]:1"], cwd=work.directory, timeout=PATIENCE)
    assert added.returncode == 0, added.stderr
    assert end(driver).returncode == 0
    assert [(line.node, line.out) for line in read_status(work.directory / "run_status.txt")] == [("::1", r"'h1\n'")]
