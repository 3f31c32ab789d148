"""`address` on a machine that is made up: its names, its routes and what can be bound there are in dictionaries."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.driver import address
from disbatch.errors import DisbatchError
from disbatch.values import Address

if TYPE_CHECKING:
    from typing_extensions import Self

EVERYWHERE = "198.51.100.1"
EVERYWHERE_OF_IPV6 = "2001:db8:100::1"
"""What stands for the rest of the world."""
IPV4, IPV6 = socket.AF_INET, socket.AF_INET6
Family = socket.AddressFamily
Info = tuple[int, int, int, str, tuple[str, int]]


class Probe:
    """A socket that can be connected, which sends nothing, and asked for its own address."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.own = ""
        machine.probes += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.probes -= 1

    def connect(self, at: tuple[str, int]) -> None:
        if at[0] not in self.machine.routes:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        self.own = self.machine.routes[at[0]]

    def getsockname(self) -> tuple[str, int]:
        return self.own, 40000


@dataclass
class Machine:
    """Stands for the module `socket`, and for the name in `os.uname()`.

    `names`: the addresses of each name. `routes`: this machine's own address on the way to an address. `refused`: the
    families of which nothing can be bound. `bound`: what was bound, with which options.
    """

    name: str = "login1"
    names: dict[str, list[str]] = field(default_factory=dict)
    routes: dict[str, str] = field(default_factory=dict)
    dual_stack: bool = True
    refused: set[Family] = field(default_factory=set)
    bound: list[tuple[str, int, Family, bool]] = field(default_factory=list)
    probes: int = 0

    AF_INET = IPV4
    AF_INET6 = IPV6
    AI_PASSIVE = socket.AI_PASSIVE
    SOCK_DGRAM = socket.SOCK_DGRAM
    SOCK_STREAM = socket.SOCK_STREAM

    def getaddrinfo(self, host: str, port: int | None, type: int, flags: int = 0) -> list[Info]:  # noqa: A002, ARG002 - as `socket` has it
        if len(host) > 63:
            raise UnicodeError("label too long")
        addresses = self.names.get(host, [host] if set(host) <= set("0123456789.") or ":" in host else [])
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(IPV6 if ":" in found else IPV4, type, 0, "", (found, port or 0)) for found in addresses]

    def socket(self, _family: int, kind: int) -> Probe:
        assert kind == self.SOCK_DGRAM  # connecting any other sends something
        return Probe(self)

    def has_dualstack_ipv6(self) -> bool:
        return self.dual_stack

    def create_server(
        self,
        at: tuple[str, int],
        *,
        family: Family = IPV4,
        backlog: int,
        dualstack_ipv6: bool = False,
    ) -> object:
        assert backlog >= 1000  # engines that connect at once are not to be turned away
        if family in self.refused:
            reason = f"{os.strerror(errno.EADDRINUSE)} (while attempting to bind on address {at})"
            raise OSError(errno.EADDRINUSE, reason)  # as the real one says it
        self.bound.append((*at, family, dualstack_ipv6))
        return self.bound[-1]


def on(patch: pytest.MonkeyPatch, machine: Machine) -> Machine:
    patch.setattr(address, "socket", machine)
    patch.setattr(address, "os", SimpleNamespace(uname=lambda: SimpleNamespace(nodename=machine.name)))
    return machine


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return on(monkeypatch, Machine())


# Where it listens


@pytest.mark.parametrize(
    ("wanted", "port"), [(None, 0), (Address("", 0), 0), (Address("", 4711), 4711), (Address("::", 4711), 4711)]
)
def test_it_listens_on_every_address_of_both_families(wanted: Address | None, port: int, machine: Machine) -> None:
    address.listen(wanted)
    assert machine.bound == [("", port, IPV6, True)]


def test_without_ipv6_it_listens_on_every_ipv4_address(machine: Machine) -> None:
    machine.dual_stack = False
    address.listen(None)
    assert machine.bound == [("", 0, IPV4, False)]


def test_an_ipv6_that_is_switched_off_is_done_without(machine: Machine) -> None:
    machine.refused = {IPV6}
    address.listen(Address("", 4711))
    assert machine.bound == [("", 4711, IPV4, False)]


@pytest.mark.parametrize(
    ("host", "at", "family"),
    [
        ("127.0.0.1", "127.0.0.1", IPV4),
        ("0.0.0.0", "0.0.0.0", IPV4),
        ("2001:db8::1", "2001:db8::1", IPV6),
        ("inner", "10.0.0.1", IPV4),
        ("inner6", "2001:db8::1", IPV6),
    ],
)
def test_it_listens_where_the_user_wants(host: str, at: str, family: Family, machine: Machine) -> None:
    machine.names = {"inner": ["10.0.0.1", "10.0.0.2"], "inner6": ["2001:db8::1", "10.0.0.1"]}
    address.listen(Address(host, 4711))
    assert machine.bound == [(at, 4711, family, False)]


@pytest.mark.usefixtures("machine")
def test_a_name_that_nobody_knows_is_an_error_for_people() -> None:
    with pytest.raises(DisbatchError) as error:
        address.listen(Address("nowhere", 4711))
    assert error.value.message == "cannot listen at nowhere:4711: Name or service not known"
    assert "--use-address HOST:PORT" in error.value.hint


@pytest.mark.usefixtures("machine")
def test_a_text_that_no_name_can_be_is_an_error_for_people() -> None:
    with pytest.raises(DisbatchError, match=r"cannot listen at x{64}:0: label too long"):
        address.listen(Address("x" * 64, 0))


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        (Address("10.0.0.1", 4711), "10.0.0.1:4711"),
        (Address("::1", 4711), "[::1]:4711"),
        (Address("", 4711), ":4711"),
        (None, "any address"),
    ],
)
def test_an_address_that_is_taken_is_an_error_for_people(wanted: Address | None, shown: str, machine: Machine) -> None:
    machine.refused = {IPV4, IPV6}
    with pytest.raises(DisbatchError) as error:
        address.listen(wanted)
    assert error.value.message == f"cannot listen at {shown}: {os.strerror(errno.EADDRINUSE)}"
    assert "port 0 is any free one" in error.value.hint


def test_the_option_that_takes_the_address_is_named() -> None:
    for asked_by, told in ((), "--use-address"), (("--web-address",), "--web-address"):
        with pytest.raises(DisbatchError) as error:
            address.listen(Address("nobody.knows", 80), *asked_by)
        assert error.value.hint.startswith(f"{told} HOST:PORT takes")


def test_a_real_socket_listens_at_a_port_that_was_free() -> None:
    with address.listen(Address("127.0.0.1", 0)) as listening:
        host, port = listening.getsockname()
        assert host == "127.0.0.1"
        assert port > 0
        with socket.create_connection((host, port)) as connected:
            assert connected.getpeername() == (host, port)
        with pytest.raises(DisbatchError) as error:
            address.listen(Address("127.0.0.1", port))
        assert error.value.message == f"cannot listen at 127.0.0.1:{port}: {os.strerror(errno.EADDRINUSE)}"


# What others are told


def test_others_are_told_the_address_that_the_user_wants(machine: Machine) -> None:
    machine.names = {"login1": ["10.0.0.1"]}
    assert address.advertised(Address("inner", 0), 4711, ["host1"]) == Address("inner", 4711)
    assert address.advertised(Address("127.0.0.1", 0), 4711, ["host1"]) == Address("127.0.0.1", 4711)


@pytest.mark.parametrize("wanted", [None, Address("", 0), Address("0.0.0.0", 0), Address("::", 0)])
@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["2001:db8::1"], ["2001:db8::1", "10.0.0.1"]])
def test_others_are_told_the_name_of_this_machine_where_it_leads_here(
    wanted: Address | None, addresses: list[str], machine: Machine
) -> None:
    machine.names = {"login1": addresses}
    assert address.advertised(wanted, 4711, ["host1"]) == Address("login1", 4711)


NAMES_OF_NO_USE: list[list[str]] = [
    [],
    ["127.0.0.1"],
    ["127.0.1.1"],
    ["::1"],
    ["fe80::1%eth0"],
    ["127.0.1.1", "10.0.0.1"],
    ["10.0.0.1", "::1"],
]


@pytest.mark.parametrize("addresses", NAMES_OF_NO_USE)
def test_a_name_that_may_not_lead_here_from_elsewhere_gives_way_to_an_address(
    addresses: list[str], machine: Machine
) -> None:
    machine.names = {"login1": addresses, "host1": ["10.0.0.9"]}
    machine.routes = {"10.0.0.9": "10.0.0.1"}
    assert address.advertised(None, 4711, ["host1"]) == Address("10.0.0.1", 4711)


def test_a_name_that_cannot_be_looked_up_gives_way_to_an_address(machine: Machine) -> None:
    machine.name = "x" * 64
    machine.routes = {EVERYWHERE: "10.0.0.1"}
    assert address.advertised(None, 4711, []) == Address("10.0.0.1", 4711)


def test_the_first_host_to_which_there_is_a_way_decides(machine: Machine) -> None:
    machine.names = {"localhost": ["127.0.0.1"], "cut-off": ["10.9.9.9"], "host1": ["10.1.0.9"], "host2": ["10.2.0.9"]}
    machine.routes = {
        "127.0.0.1": "127.0.0.1",
        "10.1.0.9": "10.1.0.1",
        "10.2.0.9": "10.2.0.1",
        EVERYWHERE: "192.0.2.1",
    }
    hosts = ["localhost", "unknown", "x" * 64, "cut-off", "host1", "host2"]
    assert address.advertised(None, 4711, hosts) == Address("10.1.0.1", 4711)
    assert address.advertised(None, 4711, reversed(hosts)) == Address("10.2.0.1", 4711)


def test_names_that_only_ssh_knows_are_not_all_looked_up(machine: Machine) -> None:
    machine.routes = {EVERYWHERE: "192.0.2.1"}
    assert address.advertised(None, 4711, (f"alias{number}" for number in count())) == Address("192.0.2.1", 4711)


@pytest.mark.parametrize("hosts", [[], ["localhost"], ["unknown"], ["neighbour"]])
def test_a_run_on_this_machine_alone_is_reached_by_those_who_come_later(hosts: list[str], machine: Machine) -> None:
    machine.names = {"localhost": ["127.0.0.1"], "neighbour": ["fe80::9%eth0"]}
    machine.routes = {"127.0.0.1": "127.0.0.1", "fe80::9%eth0": "fe80::1", EVERYWHERE: "192.0.2.1"}
    assert address.advertised(None, 4711, hosts) == Address("192.0.2.1", 4711)


def test_so_it_is_where_the_network_has_no_ipv4(machine: Machine) -> None:
    machine.routes = {"127.0.0.1": "127.0.0.1", EVERYWHERE_OF_IPV6: "2001:db8::1"}
    assert address.advertised(None, 4711, ["localhost"]) == Address("2001:db8::1", 4711)


def test_a_machine_without_a_network_is_at_its_loopback_address(machine: Machine) -> None:
    machine.names = {"localhost": ["127.0.0.1"]}
    machine.routes = {"127.0.0.1": "127.0.0.1"}
    assert address.advertised(None, 4711, ["localhost"]) == Address("127.0.0.1", 4711)


def test_an_ipv6_address_is_told_as_others_can_read_it(machine: Machine) -> None:
    machine.routes = {"2001:db8::9": "2001:db8::1"}
    assert str(address.advertised(None, 4711, ["2001:db8::9"])) == "[2001:db8::1]:4711"


addresses = st.sampled_from(["127.0.0.1", "127.0.1.1", "::1", "fe80::1%eth0", "10.0.0.1", "10.1.0.1", "2001:db8::1"])
hosts = st.sampled_from(["login1", "localhost", "host1", "host2", "unknown"])


@given(
    st.dictionaries(hosts, st.lists(addresses, min_size=1, max_size=2)),
    st.dictionaries(addresses | st.sampled_from([EVERYWHERE, EVERYWHERE_OF_IPV6]), addresses),
    st.lists(hosts, max_size=3),
)
def test_others_are_told_something_of_use_wherever_there_is_something(
    names: dict[str, list[str]], routes: dict[str, str], asked: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        machine = on(patch, Machine(names=names, routes=routes))
        told = address.advertised(None, 4711, asked)
        probed = machine.probes
    assert probed == 0  # each probe is closed
    useful = {"10.0.0.1", "10.1.0.1", "2001:db8::1"}
    if told.host == "login1":
        assert set(names["login1"]) <= useful
    elif told.host == "127.0.0.1":
        assert not {routes.get(EVERYWHERE), routes.get(EVERYWHERE_OF_IPV6)} & useful
    else:
        assert told.host in useful & set(routes.values())
    assert told.port == 4711


# What this machine's own processes are told


@pytest.mark.parametrize(
    ("wanted", "host"),
    [
        (None, "127.0.0.1"),
        (Address("", 0), "127.0.0.1"),
        (Address("0.0.0.0", 0), "127.0.0.1"),
        (Address("::", 0), "127.0.0.1"),
        (Address("10.0.0.1", 0), "10.0.0.1"),
        (Address("::1", 0), "::1"),
        (Address("inner", 0), "inner"),
    ],
)
def test_processes_here_need_no_network_unless_the_user_wants_one_address(
    wanted: Address | None, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "socket", None)  # nothing is looked up
    monkeypatch.setattr(address, "os", None)
    assert address.local(wanted, 4711) == Address(host, 4711)
