"""`kvsstcp`, in this process, over loopback: it is ended by its command, by a client in a thread, or by a signal."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import selectors
import shlex
import signal
import stat
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from disbatch.kvsstcp import kvsstcp, server, thread
from disbatch.kvsstcp.client import DisconnectedError, HandshakeError, KVSClient
from disbatch.kvsstcp.endpoint import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 30.0
"""Seconds until something that is due at once counts as not coming."""
SECRET = "5" * 64


@pytest.fixture(autouse=True)
def _no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KVSSTCP_HOST", "KVSSTCP_PORT", "KVSSTCP_SECRET"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _signals_are_left_as_they_were() -> Iterator[None]:
    """Also keeps a signal that comes too late from ending the tests."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, note_nothing) for number in numbers}
    children = signal.getsignal(signal.SIGCHLD)
    yield
    after = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert set(after.values()) == {note_nothing}
    assert signal.getsignal(signal.SIGCHLD) == children
    assert signal.set_wakeup_fd(-1) == -1


def note_nothing(_number: int, _frame: object) -> None:
    pass


def exports(text: str) -> dict[str, str]:
    """What a shell that evaluates these lines has in its environment."""
    words = shlex.split(text)
    assert words[::2] == ["export"] * (len(words) // 2)
    return dict(word.split("=", 1) for word in words[1::2])


class Stdout(io.StringIO):
    """Standard output with someone at the other end, who does something with what is there at the first flush."""

    def __init__(self, then: Callable[[dict[str, str]], None]) -> None:
        super().__init__()
        self.then = then
        self.thread = threading.Thread(target=self.act)
        self.failure: BaseException | None = None

    def flush(self) -> None:
        self.thread.start()

    def act(self) -> None:
        try:
            self.then(exports(self.getvalue()))
        except BaseException as error:  # noqa: BLE001 - it is raised by the test's own thread
            self.failure = error
            os.kill(os.getpid(), signal.SIGTERM)  # or the server would go on for ever


def serve(monkeypatch: pytest.MonkeyPatch, then: Callable[[dict[str, str]], None], *options: str) -> tuple[int, str]:
    """Serve by hand; `then` is given what it prints, and is to end it. Returns exit status and output."""
    stdout = Stdout(then)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        status = kvsstcp.main(options)
    stdout.thread.join(PATIENCE)
    if stdout.failure is not None:
        raise stdout.failure
    return status, stdout.getvalue()


def shut_down(environment: dict[str, str]) -> None:
    client_of(environment).shutdown()


def client_of(environment: dict[str, str]) -> KVSClient:
    address = parse_address(None, None, environment)
    return KVSClient(address, secret=environment.get("KVSSTCP_SECRET", ""))


def test_the_servers_can_be_imported_by_their_old_door() -> None:
    assert kvsstcp.Server is server.Server
    assert kvsstcp.KVSServer is kvsstcp.KVSServerThread is thread.KVSServerThread


# Served by hand


def test_it_prints_what_a_shell_needs_and_serves_until_it_is_told_to_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found: list[object] = []

    def use(environment: dict[str, str]) -> None:
        with client_of(environment) as client:
            client.put("k", "v", False)
            found.extend([client.proved, client.get("k", False, PATIENCE)])
        shut_down(environment)

    status, printed = serve(monkeypatch, use)
    assert (status, found) == (0, [True, b"v"])
    lines = r"export KVSSTCP_HOST=127\.0\.0\.1\nexport KVSSTCP_PORT=\d+\nexport KVSSTCP_SECRET=[0-9a-f]{64}\n"
    assert re.fullmatch(lines, printed)
    assert capfd.readouterr() == ("", "")


def test_each_server_has_a_secret_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = [serve(monkeypatch, shut_down)[1] for _ in range(2)]
    first, second = [exports(text)["KVSSTCP_SECRET"] for text in printed]
    assert first != second


def test_the_secret_of_the_environment_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVSSTCP_SECRET", SECRET)
    assert exports(serve(monkeypatch, shut_down)[1])["KVSSTCP_SECRET"] == SECRET


def test_an_empty_secret_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVSSTCP_SECRET", "")
    assert len(exports(serve(monkeypatch, shut_down)[1])["KVSSTCP_SECRET"]) == 64


@pytest.mark.parametrize("secret", [None, "tls:" + SECRET])
def test_a_store_that_encrypts_says_so_by_its_secret(secret: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if secret is not None:
        monkeypatch.setenv("KVSSTCP_SECRET", secret)
    served = exports(serve(monkeypatch, shut_down, "--encrypt")[1])["KVSSTCP_SECRET"]
    assert served == secret if secret else served.startswith("tls:")


def test_a_given_secret_that_does_not_encrypt_is_a_mistake_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVSSTCP_SECRET", SECRET)
    assert kvsstcp.main(["--encrypt"]) == 1
    assert capfd.readouterr().err == (
        "kvsstcp: error: --encrypt: the secret in KVSSTCP_SECRET does not begin with 'tls:'\n"
    )


@pytest.mark.parametrize("secret", [None, SECRET])
def test_without_a_secret_anyone_is_let_in_and_that_is_said(
    secret: str | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if secret is not None:
        monkeypatch.setenv("KVSSTCP_SECRET", secret)
    status, printed = serve(monkeypatch, shut_down, "--insecure")
    assert status == 0
    assert set(exports(printed)) == {"KVSSTCP_HOST", "KVSSTCP_PORT"}
    [line] = capfd.readouterr().err.splitlines()
    assert line.endswith(f"127.0.0.1:{exports(printed)['KVSSTCP_PORT']} asks for no secret: anyone may use it")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_the_status_that_a_shell_has_for_it(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(environment: dict[str, str]) -> None:
        with client_of(environment):  # so that it serves by now, and hears signals
            os.kill(os.getpid(), number)

    assert serve(monkeypatch, kill)[0] == 128 + number


def test_strangers_are_in_the_log_and_the_secret_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.write_text("earlier\n")

    def knock(environment: dict[str, str]) -> None:
        with pytest.raises(HandshakeError):
            client_of(environment | {"KVSSTCP_SECRET": SECRET})
        shut_down(environment)

    _, printed = serve(monkeypatch, knock, "-l", str(log))
    earlier, line = log.read_text().splitlines()
    assert earlier == "earlier"
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d kvsstcp: ended the connection of 127\.0\.0\.1:\d+:.*another secret", line
    )
    assert exports(printed)["KVSSTCP_SECRET"] not in log.read_text()


def test_a_log_that_cannot_be_written_disturbs_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert kvsstcp.main(["--insecure", "-l", "/dev/full", "-e", "exit 7"]) == 7
    assert capfd.readouterr() == ("", "")


# Around a command


def test_a_command_finds_the_server_in_its_environment(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    address = tmp_path / "address"
    assert kvsstcp.main(["-a", str(address), "-e", 'echo "$KVSSTCP_HOST:$KVSSTCP_PORT ${#KVSSTCP_SECRET}"']) == 0
    said = capfd.readouterr()
    assert said == (f"{address.read_text().strip()} 64\n", "")
    assert "KVSSTCP_HOST" not in os.environ


def test_a_command_of_a_server_without_a_secret_is_given_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVSSTCP_SECRET", SECRET)
    assert kvsstcp.main(["--insecure", "-l", os.devnull, "-e", 'test -z "${KVSSTCP_SECRET+set}"']) == 0


@pytest.mark.parametrize(("command", "status"), [("true", 0), ("exit 7", 7), ("kill -KILL $$", 137)])
def test_it_ends_with_its_command_as_a_shell_would(command: str, status: int) -> None:
    assert kvsstcp.main(["-e", command]) == status


def test_a_command_outlives_a_server_that_is_told_to_end(tmp_path: Path) -> None:
    env_file, fifo = tmp_path / "env", tmp_path / "fifo"
    os.mkfifo(fifo)

    def end_the_server_then_the_command() -> None:
        with open(fifo, "w", encoding="utf-8"):  # waits for the command to read
            environment = exports(env_file.read_text())
            with client_of(environment) as client:
                shut_down(environment)
                with pytest.raises(DisconnectedError):
                    client.get("k", False, PATIENCE)

    other = threading.Thread(target=end_the_server_then_the_command, daemon=True)
    other.start()
    assert kvsstcp.main(["-k", str(env_file), "-e", f"read line < {fifo}; exit 7"]) == 7
    other.join(PATIENCE)


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_a_signal_ends_the_command_too(trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if trap:
        monkeypatch.setattr(kvsstcp, "_END_SECONDS", 0.0)
    fifo, pid = tmp_path / "fifo", tmp_path / "pid"
    os.mkfifo(fifo)
    command = f"{trap}echo $$ > {pid}; kill -TERM $PPID; read line < {fifo}"
    assert kvsstcp.main(["-e", command]) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


# Files


def test_the_secret_goes_into_a_file_of_its_owner_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("x" * 1000)
    env_file.chmod(0o644)
    assert kvsstcp.main(["-k", str(env_file), "-e", 'echo "$KVSSTCP_HOST $KVSSTCP_PORT $KVSSTCP_SECRET"']) == 0
    written = exports(env_file.read_text())
    assert list(written) == ["KVSSTCP_HOST", "KVSSTCP_PORT", "KVSSTCP_SECRET"]
    assert capfd.readouterr().out.split() == list(written.values())
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600


def test_the_file_of_the_address_holds_no_secret(tmp_path: Path) -> None:
    address = tmp_path / "address"
    assert kvsstcp.main(["-a", str(address), "-e", "true"]) == 0
    assert re.fullmatch(r"127\.0\.0\.1:\d+\n", address.read_text())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "login1"])
def test_the_file_of_the_address_is_read_as_it_was_meant(host: str, tmp_path: Path) -> None:
    path = tmp_path / "address"
    options = argparse.Namespace(address_file=str(path), env_file=None, execute="true")
    kvsstcp._announce(options, {"KVSSTCP_HOST": host, "KVSSTCP_PORT": "7"})
    assert parse_address(path.read_text().strip(), None, {}) == (host, 7)
    assert path.read_text() == ("[::1]:7\n" if host == "::1" else f"{host}:7\n")


# Mistakes


def test_an_address_that_is_taken_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with thread.KVSServerThread() as other:
        port = str(other.cinfo[1])
        assert kvsstcp.main(["-p", port, "-e", "true"]) == 1
    reason = os.strerror(errno.EADDRINUSE)
    assert capfd.readouterr() == ("", f"kvsstcp: error: cannot serve at 127.0.0.1:{port}: {reason}\n")


def test_a_host_that_can_be_none_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert kvsstcp.main(["-H", "ü" * 70, "-e", "true"]) == 1
    host = "ü" * 70
    assert capfd.readouterr() == ("", f"kvsstcp: error: cannot serve at {host}:0: {host!r} is no host name\n")


@pytest.mark.parametrize("option", ["-a", "-k", "-l"])
def test_a_file_that_cannot_be_written_is_one_line(
    option: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = f"{tmp_path}/missing/file"
    assert kvsstcp.main([option, path, "-e", "echo never"]) == 1
    reason = os.strerror(errno.ENOENT)
    assert capfd.readouterr() == ("", f"kvsstcp: error: cannot serve: {path}: {reason}\n")


@pytest.mark.parametrize("port", ["-1", "65536", "x", "", "1.0", "²"])
def test_what_is_no_port_is_named(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        kvsstcp.main(["-p", port])
    assert ended.value.code == 2
    assert f"a port is a number from 0 to 65535, not '{port}'" in capsys.readouterr().err


# Signals


def test_the_first_signal_counts_and_a_child_s_end_only_wakes_up() -> None:
    with selectors.DefaultSelector() as selector:
        with kvsstcp._SignalNotes(selector) as notes:
            assert not selector.select(0)
            for numbers, end in (
                ([signal.SIGCHLD], None),
                ([signal.SIGTERM, signal.SIGINT], signal.SIGTERM),
                ([signal.SIGHUP], signal.SIGTERM),
            ):
                for number in numbers:
                    signal.raise_signal(number)
                [(key, mask)] = selector.select(0)
                key.data(mask)
                assert notes.end == end
        assert not selector.get_map()


def test_a_flood_of_signals_does_not_hold_up_who_is_to_read_them() -> None:
    with selectors.DefaultSelector() as selector, kvsstcp._SignalNotes(selector) as notes:
        for _ in range(1000):
            signal.raise_signal(signal.SIGCHLD)
        while ready := selector.select(0):
            for key, mask in ready:
                key.data(mask)
        signal.raise_signal(signal.SIGTERM)
        [(key, mask)] = selector.select(0)
        key.data(mask)
        assert notes.end == signal.SIGTERM
