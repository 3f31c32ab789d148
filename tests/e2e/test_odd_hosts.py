"""Hosts that are odd: with a clock that jumps, a name that others have, a directory missing, or another version."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from disbatch import __version__
from tests.e2e.support import CHECKOUT, DISBATCH, PATIENCE, Finished, eventually, read_status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.support import Workplace
    from tests.hosts import Hosts
    from tests.hosts.network import Host

DAY = 86400.0

CLOCK_THAT_JUMPS = f"""
import itertools, time

true, jumps = time.time, itertools.cycle([0, {DAY}, -{DAY}, 3 * {DAY}, -2 * {DAY}])
time.time = lambda: true() + next(jumps)
"""
"""What Python runs before any program of its own, where it is called `sitecustomize`."""


def test_a_clock_that_jumps_decides_nothing(work: Workplace) -> None:
    place = work.directory / "clock"
    place.mkdir()
    (place / "sitecustomize.py").write_text(CLOCK_THAT_JUMPS, encoding="ascii")
    lines = ["#DISBATCH PERENGINE START true", *["sleep 0.01"] * 20, "#DISBATCH BARRIER", *["sleep 0.01; false"] * 20]
    done = work.run("-s", "localhost:3", work.write("tasks", *lines).name, env={"PYTHONPATH": f"{place}:{CHECKOUT}"})
    assert done.returncode == 0
    assert "40 tasks finished, 20 failed" in done.complaints[0]
    assert done.complaints[1] == "disbatch: 20 failed, for 1 reason:"
    lines_of_tasks = work.status()
    assert len(lines_of_tasks) == 42
    starts = [line.start for line in lines_of_tasks]
    assert max(starts) - min(starts) > DAY, "the clocks have jumped"
    for line in lines_of_tasks:
        assert 0 <= line.elapsed < PATIENCE
        assert abs(line.start + line.elapsed - line.end) < 0.002


# On hosts that are really several.


def run_on(host: Host, work: Workplace, *arguments: str) -> list[str]:
    """Run disbatch on a host to its end, which is to be a success; what it complains of."""
    done = host.run([*DISBATCH, *arguments], env=work.environment, cwd=work.directory, timeout=2 * PATIENCE)
    assert done.returncode == 0, done.stderr
    return Finished(done.returncode, done.stdout, done.stderr).complaints


def on(host: Host, *command: str | Path) -> None:
    done = host.run(command)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def silent(hosts: Hosts) -> Iterator[Hosts]:
    """Hosts on which, whatever the test was about, nothing runs soon after it."""
    yield hosts
    for host in hosts:
        eventually(lambda host=host: not host.processes(), f"silence on {host.name}")  # type: ignore[misc] # called at once


MEET = "touch met.$DISBATCH_TASKID; until [ -e met.0 -a -e met.1 ]; do sleep 0.02; done"


@pytest.mark.ssh
def test_hosts_that_call_themselves_the_same_are_several_all_the_same(silent: Hosts, work: Workplace) -> None:
    names = {host.name: host for host in silent}
    try:
        for host in silent:
            on(host, "hostname", "twin")
        complaints = run_on(silent["login"], work, "-s", "h1:1,h2:1", work.write("tasks", MEET, MEET).name)
    finally:
        for name, host in names.items():
            on(host, "hostname", name)
    assert len(complaints) == 1
    assert sorted(line.node for line in work.status()) == ["h1", "h2"]
    assert len([*work.directory.glob("*_engine_*.log")]) == 2


@pytest.mark.ssh
@pytest.mark.parametrize("how", ["missing", "read-only"])
def test_a_host_that_lacks_the_directory_of_the_files_is_told_of_in_one_line_and_the_others_work(
    silent: Hosts, work: Workplace, how: str
) -> None:
    place = work.directory / "files"
    place.mkdir()
    with private_mount(silent["h2"], place, how):
        tasks = work.write("tasks", *[until_told("h2 runs no tasks", place / "run_driver.log")] * 3)
        complaint, summary = run_on(silent["login"], work, "-p", f"{place}/run", "-s", "h2:1,h1:1", str(tasks))
    if how == "missing":
        assert complaint.startswith("disbatch: h2 runs no tasks: its engine did not start: ")
        assert complaint.endswith(f"{place}/run_dbUtil.sh: No such file or directory")
    else:
        assert complaint.startswith(
            f"disbatch: h2 runs no tasks: cannot write the log {place}/run_SSH0_h2_engine_0.log"
        )
        assert "Read-only file system" in complaint
    assert summary.startswith("disbatch: 3 tasks finished; ")


def until_told(what: str, log: Path) -> str:
    """Return a task that ends when the user of its run has been told something."""
    return f"until grep -q {shlex.quote(what)} {log}; do sleep 0.05; done"


@contextmanager
def private_mount(host: Host, place: Path, how: str) -> Iterator[None]:
    """Let a directory be empty, or not to be written to, on one host."""
    if how == "missing":
        on(host, "mount", "-t", "tmpfs", "tmpfs", place)
    else:
        on(host, "mount", "--bind", place, place)
        on(host, "mount", "-o", "remount,bind,ro", place)
    try:
        yield
    finally:
        on(host, "umount", place)


MORE_WORDS = """
in_this_version = encode

def encode(message):
    parts = msgpack.unpackb(in_this_version(message), unicode_errors=_UNDECODABLE)
    return msgpack.packb([*parts, "and more"] if parts[0] == "CAME" else parts, unicode_errors=_UNDECODABLE)
"""


@contextmanager
def other_version(host: Host, work: Workplace, came: str) -> Iterator[None]:
    """Let one host have another version of disbatch, whose newcomers say something else."""
    package = work.directory / "other"
    shutil.copytree(CHECKOUT / "disbatch", package)
    door = package / "__init__.py"
    door.write_text(door.read_text(encoding="utf-8").replace(f'"{__version__}"', '"0.0.7"'), encoding="utf-8")
    if came:
        with (package / "messages.py").open("a", encoding="utf-8") as vocabulary:
            vocabulary.write(MORE_WORDS.replace("CAME", came))
    on(host, "mount", "--bind", package, CHECKOUT / "disbatch")
    try:
        yield
    finally:
        on(host, "umount", CHECKOUT / "disbatch")


REFUSED = f"it is of version 0.0.7, the driver of {__version__}"


@pytest.mark.ssh
@pytest.mark.parametrize("came", ["", "EngineCame"], ids=["same words", "other words"])
def test_an_engine_of_another_version_is_refused_and_named_and_the_others_work(
    silent: Hosts, work: Workplace, came: str
) -> None:
    with other_version(silent["h2"], work, came):
        tasks = work.write("tasks", *[until_told("refused the engine", work.directory / "run_driver.log")] * 3)
        complaints = run_on(silent["login"], work, "-s", "h2:1,h1:1", "-p", "run", tasks.name)
    assert complaints[0] == f"disbatch: refused the engine on h2: {REFUSED}"
    assert len(complaints) == 2
    assert [line.node for line in read_status(work.directory / "run_status.txt")] == ["h1"] * 3


@pytest.mark.ssh
@pytest.mark.parametrize("came", ["", "ContextCame"], ids=["same words", "other words"])
def test_a_context_of_another_version_is_refused_and_named_and_the_run_goes_on(
    silent: Hosts, work: Workplace, came: str
) -> None:
    tasks = work.write("tasks", "touch begun; until [ -e go ]; do sleep 0.02; done")
    run = silent["login"].popen(
        [*DISBATCH, "-s", "h1:1", "-p", "run", tasks.name],
        env=work.environment,
        cwd=work.directory,
        stderr=subprocess.PIPE,
    )
    work.await_file("begun")
    with other_version(silent["h2"], work, came):
        added = silent["h2"].run([work.directory / "run_dbUtil.sh", "-s", "localhost:1"], env=work.environment)
    assert added.returncode == 1
    assert added.stderr == f"disbatch: this context could not join the run: {REFUSED}\n"
    work.write("go")
    _, told = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0
    assert told.splitlines()[0] == f"disbatch: refused the context on h2: {REFUSED}"
