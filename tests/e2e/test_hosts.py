"""The hosts that other tests stand on are what they promise: real names, real ssh, faults on demand, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.hosts import CellError, Hosts, LoopbackSshd, not_here, processes_in, why_no_sshd

if TYPE_CHECKING:
    from collections.abc import Callable

SSH = ["ssh", "-o", "ConnectTimeout=1", "-o", "BatchMode=yes"]

NO_CONNECTION = 255

ANSWER_A_SERVER = "read -r line < /dev/tcp/login/7000; echo $line"
SERVE_ONE_LINE = (
    "import socket; server = socket.create_server(('', 7000)); print('ready', flush=True);"
    "server.accept()[0].sendall(b'hello\\n')"
)


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.ssh
def test_ssh_reaches_each_host_under_its_own_name(hosts: Hosts) -> None:
    for name in ("h1", "h2"):
        result = hosts["login"].run([*SSH, name, "hostname; echo from ${SSH_CONNECTION%% *}"])
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == f"{name}\nfrom {hosts['login'].address}\n"


@pytest.mark.ssh
def test_a_host_reaches_the_login_host_by_the_name_it_gives_itself(hosts: Hosts) -> None:
    server = hosts["login"].popen([sys.executable, "-c", SERVE_ONE_LINE], stdout=subprocess.PIPE)
    with server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        assert hosts["login"].run(["hostname"]).stdout == "login\n"
        assert hosts["h1"].run(["bash", "-c", ANSWER_A_SERVER]).stdout == "hello\n"


@pytest.mark.ssh
def test_the_file_system_is_shared(hosts: Hosts, tmp_path: Path) -> None:
    assert hosts["h1"].run(["bash", "-c", "hostname > where"], cwd=tmp_path).returncode == 0
    assert hosts["login"].run([*SSH, "h2", f"cat {tmp_path}/where"]).stdout == "h1\n"
    assert (tmp_path / "where").read_text(encoding="ascii") == "h1\n"


@pytest.mark.ssh
def test_run_passes_input_environment_and_exit_status(hosts: Hosts) -> None:
    result = hosts["h1"].run(["bash", "-c", "cat; echo $WORD >&2; exit 3"], env={"WORD": "word"}, text="line\n")
    assert (result.returncode, result.stdout, result.stderr) == (3, "line\n", "word\n")


@pytest.mark.ssh
def test_run_ends_what_takes_too_long_and_keeps_its_output(hosts: Hosts) -> None:
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        hosts["h1"].run(["bash", "-c", "echo begun; sleep 60; true"], timeout=0.2)
    assert caught.value.output == "begun\n"
    await_true(lambda: hosts["h1"].processes() == [])


@pytest.mark.ssh
def test_signals_reach_the_program_itself(hosts: Hosts) -> None:
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"
    process = hosts["h1"].popen(["bash", "-c", script], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert process.pid in {seen.pid for seen in hosts["h1"].processes()}
        process.send_signal(signal.SIGTERM)
        assert process.wait(5.0) == 7


@pytest.mark.ssh
def test_an_unknown_host_does_not_resolve(hosts: Hosts) -> None:
    result = hosts["login"].run([*SSH, "nowhere", "true"])
    assert result.returncode == NO_CONNECTION
    assert "Could not resolve hostname nowhere" in result.stderr


@pytest.mark.ssh
def test_a_cut_host_is_silent_and_its_connections_outlive_the_cut(hosts: Hosts) -> None:
    login, h2 = hosts["login"], hosts["h2"]
    session = login.popen([*SSH, "h2", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with session:
        assert session.stdin is not None
        assert session.stdout is not None
        print("before", file=session.stdin, flush=True)
        assert session.stdout.readline() == "before\n"
        h2.cut()
        result = login.run([*SSH, "h2", "true"])
        assert result.returncode == NO_CONNECTION
        assert "timed out" in result.stderr or "No route to host" in result.stderr
        assert login.run([*SSH, "h1", "hostname"]).stdout == "h1\n"
        print("during", file=session.stdin, flush=True)
        h2.heal()
        assert session.stdout.readline() == "during\n"
        assert login.run([*SSH, "h2", "hostname"]).stdout == "h2\n"


@pytest.mark.ssh
def test_what_is_misdirected_is_lost_one_way(hosts: Hosts) -> None:
    login, h2 = hosts["login"], hosts["h2"]
    session = login.popen([*SSH, "h2", "cat; echo end"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with session:
        assert session.stdin is not None
        assert session.stdout is not None
        print("before", file=session.stdin, flush=True)
        assert session.stdout.readline() == "before\n"
        h2.misdirect([login])
        print("during", file=session.stdin, flush=True)
        assert "timed out" in login.run([*SSH, "h2", "true"]).stderr
        assert hosts["h1"].run([*SSH, "h2", "hostname"]).stdout == "h2\n"
        h2.find_again([login])
        assert session.stdout.readline() == "during\n"


@pytest.mark.ssh
def test_a_longer_cable_is_slower_and_loses_nothing(hosts: Hosts) -> None:
    login, h2 = hosts["login"], hosts["h2"]
    text = "".join(f"{number}\n" for number in range(5_000))
    for delay in (0.02, 0.05, 0.0):
        h2.lengthen(delay)
        begun = time.monotonic()
        assert login.run([*SSH, "h2", "cat"], text=text).stdout == text
        assert time.monotonic() - begun > 10 * delay


@pytest.mark.ssh
def test_reset_leaves_nothing_of_a_test(hosts: Hosts) -> None:
    hosts["h1"].run([*SSH, "localhost", "nohup sleep 60 > /dev/null 2>&1 &"])
    await_true(lambda: ("sleep", "60") in {process.command for process in hosts["h1"].processes()})
    hosts["h1"].cut()
    hosts["h1"].reset()
    assert hosts["h1"].processes() == []
    assert hosts["login"].run([*SSH, "h1", "hostname"]).stdout == "h1\n"


@pytest.mark.ssh
def test_power_failure_refusal_and_the_end_of_all(tmp_path: Path) -> None:
    names = ["login", "h1", "closed"]
    with Hosts(tmp_path / "with a blank", names, refusing=["closed"], debian=["login"]) as hosts:
        login, h1 = hosts["login"], hosts["h1"]
        assert "Permission denied" in login.run([*SSH, "closed", "true"]).stderr
        assert login.run(["getent", "hosts", "login"]).stdout.split() == ["127.0.1.1", "login"]
        assert h1.run(["getent", "hosts", "login"]).stdout.split() == [login.address, "login"]
        session = login.popen([*SSH, "h1", "echo ready; sleep 60"], stdout=subprocess.PIPE)
        assert session.stdout is not None
        assert session.stdout.readline() == "ready\n"
        h1.power_off()
        assert processes_in(h1.pid_namespace) == []
        with pytest.raises(subprocess.TimeoutExpired):
            session.wait(0.3)
        with pytest.raises(CellError):
            h1.run(["true"])
        assert login.processes() != []
    assert session.wait(0) == -signal.SIGKILL
    session.stdout.close()
    assert [processes_in(host.pid_namespace) for host in hosts] == [[], [], []]


@pytest.mark.ssh
def test_hosts_go_when_their_owner_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, time; from tests.hosts import Hosts\n"
        "with Hosts(pathlib.Path(sys.argv[1]), ['h1']) as hosts:\n"
        "    hosts['h1'].popen(['sleep', '60']); print(hosts['h1'].pid_namespace, flush=True); time.sleep(60)\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], cwd=root, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        namespace = owner.stdout.readline().strip()
        await_true(lambda: ("sleep", "60") in {process.command for process in processes_in(namespace)})
        owner.kill()
    await_true(lambda: processes_in(namespace) == [])


def test_loopback_sshd_lets_its_user_in(loopback_sshd: LoopbackSshd) -> None:
    result = subprocess.run(
        [*SSH, loopback_sshd.alias, "id -u; echo $SSH_CONNECTION"],
        env=loopback_sshd.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{os.geteuid()}\n127.0.0.1 ")


def test_loopback_sshd_takes_along_what_was_started_through_it(tmp_path: Path) -> None:
    if reason := why_no_sshd():
        not_here(reason)
    with LoopbackSshd(tmp_path) as server:
        pid = subprocess.run(
            [*SSH, server.alias, "setsid sleep 60 > /dev/null 2>&1 < /dev/null & echo $!"],
            env=server.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        assert Path("/proc", pid).exists()
    assert not Path("/proc", pid).exists()
