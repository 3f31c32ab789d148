from __future__ import annotations

import errno
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from disbatch.engine import launchers
from disbatch.engine.launchers import PosixSpawnLauncher, SubprocessLauncher, limiting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from disbatch.engine.launchers import Launcher
PATH = {b"PATH": os.environb[b"PATH"]}


@pytest.fixture(params=[PosixSpawnLauncher, SubprocessLauncher])
def launch(request: pytest.FixtureRequest) -> Launcher:
    if request.param is PosixSpawnLauncher and not launchers.session_by_posix_spawn():
        pytest.skip("posix_spawn of this Python cannot start a session")
    made: Launcher = request.param()
    return made


@dataclass
class Ended:
    pid: int
    return_code: int
    out: bytes
    err: bytes


class Running:
    """A command under way, with the reading ends of its pipes."""

    def __init__(self, launch: Launcher, command: bytes, environment: Mapping[bytes, bytes] = PATH) -> None:
        self.out, out_write = os.pipe()
        self.err, err_write = os.pipe()
        try:
            self.pid = launch(command, environment, out_write, err_write)
        finally:
            os.close(out_write)
            os.close(err_write)

    def wait(self) -> Ended:
        with open(self.out, "rb") as out, open(self.err, "rb") as err:
            printed = out.read(), err.read()
        return Ended(self.pid, os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), *printed)


def run(launch: Launcher, command: bytes, environment: Mapping[bytes, bytes] = PATH) -> Ended:
    return Running(launch, command, environment).wait()


def test_bash_runs_the_command_with_its_output_in_two_pipes(launch: Launcher) -> None:
    ended = run(launch, b'echo "$BASH $$"; [[ a < b ]] && echo oops >&2; exit 3')
    assert (ended.return_code, ended.out, ended.err) == (3, b"/bin/bash %d\n" % ended.pid, b"oops\n")


def test_the_command_leads_a_session_of_its_own(launch: Launcher) -> None:
    running = Running(launch, b"true")
    # Of a process that is not reaped yet both can be asked, ended or not.
    leads = os.getsid(running.pid), os.getpgid(running.pid)
    running.wait()
    assert leads == (running.pid, running.pid)


def test_its_input_is_empty(launch: Launcher) -> None:
    assert run(launch, b"cat; read line || echo nothing").out == b"nothing\n"


def test_it_gets_the_environment_that_it_is_given_and_no_other(
    launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THIS_PROCESS", "1")
    environment = {**PATH, b"NASTY": b"\xff\n ' "}
    assert run(launch, b'printf "%s" "$NASTY$OF_THIS_PROCESS"', environment).out == b"\xff\n ' "


@pytest.fixture
def blocked_signal() -> Iterator[signal.Signals]:
    """A signal that this process blocks during the test."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    yield signal.SIGUSR2
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_its_signals_are_at_their_defaults_and_none_is_blocked(
    launch: Launcher, blocked_signal: signal.Signals
) -> None:
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN
    status = dict(
        line.split(b":\t", maxsplit=1) for line in run(launch, b"exec cat /proc/self/status").out.splitlines()
    )
    ignored, blocked = int(status[b"SigIgn"], 16), int(status[b"SigBlk"], 16)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert not ignored & 1 << (number - 1), f"{number.name} is ignored"
    assert blocked == 0
    assert blocked_signal in signal.pthread_sigmask(signal.SIG_BLOCK, ()), "this process's own mask is as before"


def test_a_writer_into_a_closed_pipe_ends_quietly(launch: Launcher) -> None:
    ended = run(launch, b"yes | head -n 1; exit ${PIPESTATUS[0]}")
    assert (ended.return_code, ended.out, ended.err) == (128 + signal.SIGPIPE, b"y\n", b"")


def test_it_inherits_no_descriptor_of_a_launcher(launch: Launcher) -> None:
    # posix_spawn hands on what is inheritable; that nothing is, the engine sees to at its start.
    inheritable = {name for name in os.listdir("/proc/self/fd") if int(name) > 2 and is_inheritable(int(name))}
    command = b'for file in /proc/$$/fd/*; do [ -e "$file" ] && echo "${file##*/}"; done; true'
    others = [Running(launch, b"read forever < /dev/null") for _ in range(2)]
    ended = run(launch, command)
    for other in others:
        other.wait()
    assert set(ended.out.decode().split()) - inheritable == {"0", "1", "2"}


def is_inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False  # the one that the listing itself used


def test_a_command_too_long_for_the_system_is_refused(launch: Launcher) -> None:
    with pytest.raises(OSError, match="too long") as refusal:
        run(launch, b"true " + b" " * (1 << 17))
    assert refusal.value.errno == errno.E2BIG


def test_the_longest_command_runs(launch: Launcher) -> None:
    command = b"echo yes; #"
    assert run(launch, command + b"x" * ((1 << 17) - 1 - len(command))).out == b"yes\n"


def test_a_command_with_a_null_byte_is_refused(launch: Launcher) -> None:
    with pytest.raises(ValueError, match="null"):
        run(launch, b"echo a\0b")


def test_a_refused_command_leaves_no_child_behind(launch: Launcher) -> None:
    before = own_children()
    with pytest.raises(OSError, match="too long"):
        run(launch, b"true " + b" " * (1 << 17))
    assert own_children() == before


def own_children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def test_a_limited_launcher_gives_the_limit_to_what_it_starts(launch: Launcher, tmp_path: Path) -> None:
    own = resource.getrlimit(resource.RLIMIT_NOFILE)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    command = b"read go < '%s'; ulimit -Sn; ulimit -Hn" % bytes(gate)
    running = Running(limiting(launch, (100, 200)), command)
    gate.write_text("go\n")
    assert running.wait().out == b"100\n200\n"
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == own


def test_limiting_a_command_that_has_gone_already_is_harmless() -> None:
    def launch_and_lose(command: bytes, environment: Mapping[bytes, bytes], stdout: int, stderr: int) -> int:  # noqa: ARG001 - what a launcher is given
        pid = os.posix_spawn("/bin/true", ["true"], {})
        os.waitpid(pid, 0)
        return pid

    assert limiting(launch_and_lose, (100, 200))(b"", {}, 1, 2) > 0


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (NotImplementedError("setsid"), SubprocessLauncher),
        (FileNotFoundError("/nonexistent/disbatch"), PosixSpawnLauncher),
    ],
)
def test_the_launcher_is_the_fastest_that_works_here(
    answer: Exception, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def posix_spawn(*_: object, **__: object) -> int:
        raise answer

    monkeypatch.setattr(os, "posix_spawn", posix_spawn)
    assert isinstance(launchers.launcher(), kind)
