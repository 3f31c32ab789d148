"""What end-to-end tests share: hosts with a real sshd, and the rule for machines that cannot have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import Workplace
from tests.hosts import Hosts, LoopbackSshd, not_here, why_no_hosts, why_no_sshd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of a test marked `ssh`: end it here when the machine cannot have hosts."""
    if item.get_closest_marker("ssh") and (reason := why_no_hosts()):
        not_here(reason)


@pytest.fixture(scope="session")
def session_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Hosts `login`, `h1` and `h2`, up for the whole test run; tests take them through `hosts`."""
    with Hosts(tmp_path_factory.mktemp("hosts"), ["login", "h1", "h2"]) as hosts:
        yield hosts


@pytest.fixture
def hosts(session_hosts: Hosts) -> Iterator[Hosts]:
    """Hosts `login`, `h1` and `h2`, without a trace of the tests before; `power_off` is for a `Hosts` of one's own."""
    yield session_hosts
    for host in session_hosts:
        host.reset()


@pytest.fixture(scope="session")
def loopback_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackSshd]:
    """A real sshd that lets the user of the tests in to this machine, as `ssh sshhost`, root or not."""
    if reason := why_no_sshd():
        not_here(reason)
    with LoopbackSshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Workplace]:
    """A place to run disbatch in; whatever a test is about, it fails when something of its runs stays alive."""
    workplace = Workplace(tmp_path)
    try:
        yield workplace
        workplace.await_silence()
    finally:
        workplace.close()
