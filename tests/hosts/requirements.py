"""Whether this machine can run tests with real ssh or a real Slurm, and what happens to them where it cannot.

At a developer's, they are skipped with the reason. In CI (environment variable CI set) they fail with it: a test that
nobody ever runs tests nothing. Where the kernel has no IPv6 those that need it are skipped even there: programs can be
installed and root can be had, but a kernel is what it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.hosts.sshd import SYSTEM_PATH

if TYPE_CHECKING:
    from typing import NoReturn

SSH_TOOLS = ("ssh", "sshd", "ssh-keygen")
NETWORK_TOOLS = ("ip", "bridge", "mount", "unshare")


@cache
def why_no_sshd() -> str:
    """Return why `LoopbackSshd` cannot work here, "" when it can."""
    return not_installed(SSH_TOOLS)


def why_no_hosts() -> str:
    """Return why `Hosts` cannot work here, "" when it can."""
    return why_no_network(SSH_TOOLS)


@cache
def why_no_network(tools: tuple[str, ...] = ()) -> str:
    """Return why there cannot be several computers with these programs on them, "" when there can."""
    if missing := not_installed((*tools, *NETWORK_TOOLS)):
        return missing
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    trial = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "true"], capture_output=True, text=True, check=False
    )
    return f"no namespaces to be had: {trial.stderr.strip()}" if trial.returncode else ""


@cache
def why_no_small_disk() -> str:
    """Return why there can be no file system of a test's own, "" when there can."""
    if missing := not_installed(("mount", "nsenter", "unshare")):
        return missing
    if os.geteuid() != 0:
        return "only root can mount a file system"
    trial = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
    )
    return f"no file system can be mounted: {trial.stderr.strip()}" if trial.returncode else ""


@cache
def why_no_ipv6() -> str:
    """Return why `Hosts` cannot have addresses of IPv6, "" when they can; asked where they can be had at all."""
    trial = subprocess.run(
        ["unshare", "--net", "ip", "addr", "add", "fd00::1/64", "dev", "lo", "nodad"],
        env={**os.environ, "PATH": SYSTEM_PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    return f"the kernel has no IPv6: {trial.stderr.strip()}" if trial.returncode else ""


def not_here(reason: str) -> NoReturn:
    """End the running test: skipped for `reason`, or failed for it in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (CI must run these tests)", pytrace=False)
    pytest.skip(reason)


def not_installed(tools: tuple[str, ...]) -> str:
    """Say which of these programs are missing, "" when none is."""
    missing = [name for name in tools if shutil.which(name, path=SYSTEM_PATH) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""
