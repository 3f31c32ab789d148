"""What end-to-end tests share: real ssh hosts, a real Slurm, a browser, and the rule for machines without them.

Any two tests may run at once: each process of pytest-xdist makes hosts and clusters of its own, which are in nobody's
way, and no test uses what the machine has only once, such as a port of a fixed number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser import browser, why_no_browser
from tests.e2e.support import Workplace
from tests.gridengine import GridEngineCell, why_no_grid_engine
from tests.hosts import Hosts, LoopbackSshd, not_here, why_no_hosts, why_no_sshd
from tests.slurm import Cluster, why_no_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of a test that is marked: end it here when the machine cannot have what it needs."""
    for marker, why_not in (
        ("ssh", why_no_hosts),
        ("slurm", why_no_cluster),
        ("gridengine", why_no_grid_engine),
        ("browser", why_no_browser),
    ):
        if item.get_closest_marker(marker) and (reason := why_not()):
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
def session_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Slurm cluster of four nodes, up for the whole test run; tests take it through `cluster`."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(session_cluster: Cluster) -> Iterator[Cluster]:
    """A Slurm cluster without a trace of the tests before; whatever a test is about, it fails when it leaves a job.

    Nodes may be left in any state, without power too.
    """
    yield session_cluster
    left = session_cluster.reset()
    assert not left, f"jobs that were there still, and are cancelled now: {left}"


@pytest.fixture(scope="session")
def session_grid_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridEngineCell]:
    """A Grid Engine of two nodes, up for the whole test run; tests take it through `grid_engine`."""
    with GridEngineCell(tmp_path_factory.mktemp("gridengine")) as cell:
        yield cell


@pytest.fixture
def grid_engine(session_grid_engine: GridEngineCell) -> Iterator[GridEngineCell]:
    """A Grid Engine without a trace of the tests before; whatever a test is about, it fails when it leaves a job."""
    yield session_grid_engine
    left = session_grid_engine.reset()
    assert not left, f"jobs that were there still, and are ended now: {left}"


@pytest.fixture(scope="session")
def loopback_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackSshd]:
    """A real sshd that lets the user of the tests in to this machine, as `ssh sshhost`, root or not."""
    if reason := why_no_sshd():
        not_here(reason)
    with LoopbackSshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="module")
def one_browser() -> Iterator[Browser]:
    """A browser for all tests of a file, which open windows of their own in it.

    While it is open an event loop of its library's runs in this thread, and no test can run another.
    """
    with browser() as found:
        yield found


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Workplace]:
    """A place to run disbatch in; whatever a test is about, it fails when something of its runs stays alive."""
    workplace = Workplace(tmp_path)
    try:
        yield workplace
        workplace.await_silence()
    finally:
        workplace.close()
