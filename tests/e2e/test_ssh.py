"""Runs over ssh, on hosts that are really several: the driver on `login`, tasks on `h1` and `h2`."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import AFTER_KILL, DISBATCH, PATIENCE, Finished, eventually, look_at, read_status
from tests.hosts import Hosts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.e2e.support import Workplace
    from tests.hosts.network import Host

pytestmark = pytest.mark.ssh

MEET = "touch met.$DISBATCH_TASKID; until [ -e met.0 -a -e met.1 -a -e met.2 -a -e met.3 ]; do sleep 0.02; done"
"""A task that ends when four of its kind run at the same time: with `:2` each, that is on both hosts."""

LONG = "touch begun.$DISBATCH_TASKID; setsid sleep 300 & sleep 300 & sleep 300; true"


@pytest.fixture(autouse=True)
def nothing_left(hosts: Hosts) -> Iterator[None]:
    """Whatever the test was about: soon after it no host has a process more than before."""
    yield
    await_silence(hosts)


def await_silence(hosts: Hosts, seconds: float = AFTER_KILL) -> None:
    """Wait until nothing runs on the hosts, sshd's sessions included."""
    for host in hosts:
        eventually(lambda host=host: not host.processes(), f"silence on {host.name}", seconds)  # type: ignore[misc] # called at once


def start(
    host: Host,
    work: Workplace,
    *arguments: str | Path,
    cwd: Path | None = None,
    program: Sequence[str] = DISBATCH,
) -> subprocess.Popen[str]:
    """Start disbatch on a host."""
    return host.popen(
        [*program, *arguments],
        env=work.environment,
        cwd=cwd or work.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def end(process: subprocess.Popen[str], timeout: float = 2 * PATIENCE) -> Finished:
    """Wait for it."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        raise AssertionError(f"still running after {timeout} s; it said {stdout} {stderr}") from None
    return Finished(process.returncode, stdout, stderr)


def run(host: Host, work: Workplace, *arguments: str | Path, cwd: Path | None = None) -> Finished:
    """Run disbatch on a host to its end."""
    return end(start(host, work, *arguments, cwd=cwd))


def test_two_hosts_share_the_tasks(hosts: Hosts, work: Workplace) -> None:
    show = "hostname; pwd; echo $DISBATCH_ENGINE_RANK $DISBATCH_CYLINDER_RANK $DISBATCH_CORES_PER_TASK"
    tasks = work.write("tasks", *[f"{MEET}; {show}"] * 4)
    done = run(hosts["login"], work, "-s", "h1:2,h2:2", tasks.name)
    assert (done.returncode, done.complaints[0]) == (
        0,
        f"disbatch: 4 tasks finished; status file: {work.status_file().name}",
    )
    lines = work.status()
    assert sorted(line.node for line in lines) == ["h1", "h1", "h2", "h2"]
    expected = sorted(
        repr(f"{host}\n{work.directory}\n{rank} {cylinder} 1\n")[1:41]
        for rank, host in enumerate(["h1", "h2"])
        for cylinder in range(2)
    )
    assert sorted(line.out[1:41] for line in lines) == expected


def test_what_a_remote_task_sees(hosts: Hosts, work: Workplace) -> None:
    tasks = work.write("tasks", "hostname > name; pwd > place; env -0 > environment; cat > input")
    assert run(hosts["login"], work, "-s", "h1:3", "-c", "1.5", tasks.name).returncode == 0
    assert work.text("name") == "h1\n"
    assert work.text("place") == f"{work.directory}\n"
    assert work.text("input") == ""
    seen = dict(entry.split("=", 1) for entry in work.text("environment").split("\0") if entry)
    assert seen["DISBATCH_NAMETASKS"] == "tasks"
    assert seen["DISBATCH_CORES_PER_TASK"] == "1"
    assert seen["DISBATCH_TASKID_ZP"] == "000000"
    assert "KVSSTCP_SECRET" not in seen


def test_per_engine_commands_run_on_each_host(hosts: Hosts, work: Workplace) -> None:
    tasks = work.write(
        "tasks",
        "#DISBATCH PERENGINE START hostname > start.$DISBATCH_ENGINE_RANK",
        "#DISBATCH PERENGINE STOP hostname > stop.$DISBATCH_ENGINE_RANK",
        *[MEET] * 4,
    )
    assert run(hosts["login"], work, "-s", "h1:2,h2:2", tasks.name).returncode == 0
    assert [work.text(name) for name in ("start.0", "start.1", "stop.0", "stop.1")] == ["h1\n", "h2\n"] * 2
    assert sorted(line.node for line in work.status() if line.flags == "   P") == ["h1", "h1", "h2", "h2"]


def test_paths_with_blanks_and_quotes(hosts: Hosts, work: Workplace) -> None:
    place = work.directory / 'it\'s "a" place $HOME'
    place.mkdir()
    (place / "my tasks").write_text("pwd; hostname\n", encoding="ascii")
    done = run(hosts["login"], work, "-s", "h1:1", "-p", "my run", "my tasks", cwd=place)
    assert done.returncode == 0, done.stderr
    (line,) = read_status(place / "my run_status.txt")
    assert (line.node, line.out_bytes) == ("h1", len(f"{place}\nh1\n"))


def test_localhost_needs_no_ssh_and_joins_in(hosts: Hosts, work: Workplace) -> None:
    tasks = work.write("tasks", *[f"{MEET}; hostname"] * 4)
    assert run(hosts["login"], work, "-s", "localhost:1,LOGIN:1,h1:2", tasks.name).returncode == 0
    assert sorted((line.node, line.out) for line in work.status()) == [
        ("LOGIN", r"'login\n'"),
        ("h1", r"'h1\n'"),
        ("h1", r"'h1\n'"),
        ("localhost", r"'login\n'"),
    ]


def test_an_unknown_host_does_not_keep_the_others_from_working(hosts: Hosts, work: Workplace) -> None:
    tasks = work.write("tasks", *["sleep 0.4"] * 5)
    done = run(hosts["login"], work, "-s", "nowhere:4,h1:1", tasks.name)
    assert done.returncode == 0
    (said, _) = done.complaints
    assert said.startswith("disbatch: nowhere runs no tasks: its engine did not start:")
    assert "Could not resolve hostname nowhere" in said
    assert [line.node for line in work.status()] == ["h1"] * 5


def test_an_unknown_host_alone_is_one_clear_line(hosts: Hosts, work: Workplace) -> None:
    done = run(hosts["login"], work, "-s", "nowhere:4", work.write("tasks", "true").name)
    assert done.returncode == 1
    [said] = done.complaints
    assert said.startswith("disbatch: nowhere runs no tasks: its engine did not start: ssh: Could not resolve hostname")
    assert said.endswith("; no engine is left to run the remaining tasks")


def test_only_unknown_hosts(hosts: Hosts, work: Workplace) -> None:
    done = run(hosts["login"], work, "-s", "nowhere:4,nobody:1", work.write("tasks", "true").name)
    assert done.returncode == 1
    for host in ("nowhere", "nobody"):
        assert f"disbatch: {host} runs no tasks: its engine did not start: ssh: Could not resolve" in done.stderr
    assert "no engine is left to run the remaining tasks" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refusing_host_and_a_debian_driver(work: Workplace, tmp_path: Path) -> None:
    """A driver whose own name is 127.0.1.1 to itself must tell other hosts something better."""
    names = ["login", "h1", "closed"]
    with Hosts(tmp_path / "hosts", names, refusing=["closed"], debian=["login"]) as others:
        tasks = work.write("tasks", *["hostname; sleep 0.4"] * 3)
        done = run(others["login"], work, "-s", "closed:4,h1:1", tasks.name)
        assert done.returncode == 0, done.stderr
        assert "closed runs no tasks: its engine did not start: " in done.stderr
        assert "Permission denied" in done.stderr
        assert [(line.node, line.out) for line in work.status()] == [("h1", r"'h1\n'")] * 3

        only_closed = run(others["login"], work, "-s", "closed:4", "-p", "refused", tasks.name)
        assert only_closed.returncode == 1
        assert "Permission denied" in only_closed.stderr
        assert "no engine is left" in only_closed.stderr


def test_a_host_without_the_directory(hosts: Hosts, work: Workplace) -> None:
    """/run is each host's own; the run's files are on what they share."""
    hosts["login"].run(["mkdir", "/run/only here"])
    hosts["h1"].run(["mkdir", "/run/only here"])
    tasks = work.write("tasks", *["sleep 0.4; pwd"] * 3)
    command = shlex.join([*DISBATCH, "-s", "h2:4,h1:1", "-p", str(work.directory), str(tasks)])
    process = hosts["login"].popen(
        ["bash", "-c", f"cd '/run/only here' && exec {command}"],
        env=work.environment,
        cwd=work.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    done = end(process)
    assert done.returncode == 0, done.stderr
    assert "h2 runs no tasks: cannot change to the run's directory /run/only here: No such file" in done.stderr
    assert [(line.node, line.out) for line in work.status()] == [("h1", r"'/run/only here\n'")] * 3
    for host in (hosts["login"], hosts["h1"]):
        host.run(["rmdir", "/run/only here"])


def begin_on_both(hosts: Hosts, work: Workplace, *more: str) -> subprocess.Popen[str]:
    """Start a run with a long task on each of two hosts; return when both have begun."""
    process = start(hosts["login"], work, "-s", "h1:1,h2:1", work.write("tasks", LONG, LONG, *more).name)
    work.await_file("begun.0")
    work.await_file("begun.1")
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_a_signal_to_the_driver_leaves_nothing_on_any_host(
    hosts: Hosts, work: Workplace, number: signal.Signals, status: int
) -> None:
    process = begin_on_both(hosts, work)
    process.send_signal(number)
    assert end(process).returncode == status
    await_silence(hosts)
    assert sorted((line.task_id, line.flags, line.return_code) for line in work.status()) == [
        (0, "R  Z", -signal.SIGTERM),
        (1, "R  Z", -signal.SIGTERM),
    ]


def test_a_killed_driver_leaves_nothing_on_any_host(hosts: Hosts, work: Workplace) -> None:
    process = begin_on_both(hosts, work)
    process.kill()
    end(process)
    await_silence(hosts)


def test_a_killed_context_does_not_stop_the_run(hosts: Hosts, work: Workplace) -> None:
    task = "touch begun.$DISBATCH_TASKID; until [ -e go ]; do sleep 0.02; done"
    process = start(hosts["login"], work, "-s", "h1:1,h2:1", work.write("tasks", task, task, "true").name)
    work.await_file("begun.0")
    work.await_file("begun.1")
    (context,) = (seen for seen in hosts["login"].processes() if "--context" in seen.command)
    os.kill(context.pid, signal.SIGKILL)
    assert process.stderr is not None
    assert "lost the context" in process.stderr.readline()
    work.write("go")
    assert end(process).returncode == 0
    assert sorted(line.task_id for line in work.status()) == [0, 1, 2]


@pytest.mark.parametrize("part", ["engine", "ssh"])
def test_tasks_of_a_lost_engine_run_on_the_other_host(hosts: Hosts, work: Workplace, part: str) -> None:
    task = "echo $DISBATCH_TASKID >> begun.$(hostname); until [ -e go ]; do sleep 0.02; done; hostname"
    process = start(hosts["login"], work, "-s", "h1:1,h2:1", work.write("tasks", *[task] * 4).name)
    work.await_file("begun.h1")
    work.await_file("begun.h2")
    if part == "engine":
        engines = [seen for seen in hosts["h1"].processes() if "--engine" in seen.command]
        parents = {seen.pid: found.parent for seen in engines if (found := look_at(seen.pid))}
        (doomed,) = (pid for pid, parent in parents.items() if parent in parents)
    else:
        (doomed,) = (
            seen.pid for seen in hosts["login"].processes() if seen.command[0] == "ssh" and "h1" in seen.command
        )
    os.kill(doomed, signal.SIGKILL)
    if part == "engine":
        assert process.stderr is not None
        assert "lost the engine on h1; 1 of its tasks to run again" in process.stderr.readline()
    work.write("go")
    done = end(process)
    assert done.returncode == 0, done.stderr
    lines = work.status()
    assert sorted(line.task_id for line in lines) == [0, 1, 2, 3]
    if part == "engine":
        assert {(line.node, line.out) for line in lines} == {("h2", r"'h2\n'")}


def test_a_script_adds_a_host_while_the_run_goes_on(hosts: Hosts, work: Workplace) -> None:
    tasks = work.write("tasks", *[f"{MEET}; hostname"] * 4)
    process = start(hosts["login"], work, "-s", "h1:2", tasks.name)
    work.await_file("met.1")
    (script,) = work.directory.glob("*_dbUtil.sh")
    added = hosts["login"].popen([script, "-s", "h2:2"], cwd=work.directory)
    assert end(process).returncode == 0
    assert added.wait(PATIENCE) == 0
    assert sorted((line.node, line.out) for line in work.status()) == sorted([("h1", r"'h1\n'"), ("h2", r"'h2\n'")] * 2)


def test_a_script_run_on_another_host_adds_that_host(hosts: Hosts, work: Workplace) -> None:
    tasks = work.write("tasks", *[f"{MEET}; hostname"] * 4)
    process = start(hosts["login"], work, "-s", "h1:2", tasks.name)
    work.await_file("met.1")
    (script,) = work.directory.glob("*_dbUtil.sh")
    added = hosts["h2"].popen([script, "-s", "localhost:2"], env={}, cwd=work.directory.parent)
    assert end(process).returncode == 0
    assert added.wait(PATIENCE) == 0
    assert {line.out for line in work.status()} == {r"'h1\n'", r"'h2\n'"}


def test_no_argument_list_on_any_host_holds_the_secret(hosts: Hosts, work: Workplace) -> None:
    process = begin_on_both(hosts, work)
    (script,) = work.directory.glob("*_dbUtil.sh")
    secrets = re.findall(r"KVSSTCP_SECRET=((?:tls:)?\w{64})", script.read_text(encoding="utf-8"))
    assert len(secrets) == 3
    arguments = [word for host in hosts for seen in host.processes() for word in seen.command]
    assert any("--engine" in word for word in arguments)
    assert not any(secret in word for word in arguments for secret in secrets)
    process.terminate()
    end(process)
    assert not [path for path in work.directory.glob("*log*") if any(map(path.read_text().__contains__, secrets))]


IMPATIENT_PROGRAM = """
import sys
from disbatch.cli import main
from disbatch.kvsstcp import endpoint
endpoint.SILENCE = (("TCP_USER_TIMEOUT", 1000),)
sys.exit(main())
"""
IMPATIENT = (sys.executable, "-c", IMPATIENT_PROGRAM)
"""disbatch with a driver that gives up a host after 1 s, not 30 s, that does not acknowledge what it is sent."""


def test_an_idle_host_that_is_cut_off_does_not_keep_the_run_from_ending(hosts: Hosts, work: Workplace) -> None:
    meet = "touch begun.$(hostname); until [ -e begun.h1 -a -e begun.h2 ]; do sleep 0.02; done"
    task = f"{meet}; [ $(hostname) = h1 ] || until [ -e go ]; do sleep 0.02; done"
    process = start(hosts["login"], work, "-s", "h1:1,h2:1", work.write("tasks", task, task).name, program=IMPATIENT)
    eventually(lambda: [line.node for line in work.status()] == ["h1"], "the end of the task on h1")
    hosts["h1"].cut()
    work.write("go")
    done = end(process)
    assert done.returncode == 0, done.stderr
    assert [line.node for line in work.status()] == ["h1", "h2"]
    hosts["h1"].reset()  # its engine goes on for 30 s, its sshd for longer


def test_a_host_without_power_does_not_hold_up_who_is_in_a_hurry(work: Workplace, tmp_path: Path) -> None:
    with Hosts(tmp_path / "hosts", ["login", "h1", "h2"]) as others:
        process = begin_on_both(others, work)
        others["h2"].power_off()
        process.terminate()
        assert process.stderr is not None
        assert "got SIGTERM" in process.stderr.readline()
        process.terminate()
        assert end(process).returncode == 143
        await_silence(others)
