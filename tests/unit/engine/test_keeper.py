from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from disbatch.engine import keeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

ROOT = Path(__file__).parents[3]
DEADLINE = 20.0
"""Seconds after which a test has failed; none takes a tenth of them."""


class Kept:
    """A process that starts as the keeper of an engine made of the lines of `code`; it prints its pid first."""

    def __init__(self, code: str, on_killed: str = "") -> None:
        start = """
import os, signal, subprocess, time
from math import inf
from disbatch.engine import keeper
from disbatch.eventloop import uptime
task = None
lease = keeper.fork_from_keeper(%s)
print(os.getpid(), flush=True)
"""
        start %= on_killed
        self.keeper = subprocess.Popen(
            [sys.executable, "-c", start + code], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
        )
        self.engine = int(self.line())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.keeper.poll() is None:
            self.keeper.send_signal(keeper.AT_ONCE)
            self.keeper.wait(DEADLINE)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.engine, signal.SIGKILL)
        assert self.keeper.stdout is not None
        self.keeper.stdout.close()

    def line(self) -> str:
        assert self.keeper.stdout is not None
        return self.keeper.stdout.readline().decode().strip()

    def pids(self) -> list[int]:
        return [int(pid) for pid in self.line().split()]

    def exit_status(self) -> int:
        return self.keeper.wait(DEADLINE)


LEAVE_THREE_BEHIND = """
script = '''
    exec 3>&1 > /dev/null
    sleep 60 &                                # in the group of its parent
    pids=$!
    (trap '' TERM HUP INT; exec sleep 60) &   # one that does not end when asked
    pids="$pids $!"
    setsid sleep 60 &                         # in a session of its own
    echo "$pids $!" >&3
'''
task = subprocess.Popen(["bash", "-c", script], start_new_session=True)
"""


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_when_the_engine_is_killed_nothing_that_it_started_lives_on() -> None:
    with Kept(LEAVE_THREE_BEHIND + "signal.pause()") as kept:
        pids = kept.pids()
        assert all(map(exists, pids))
        os.kill(kept.engine, signal.SIGKILL)
        assert kept.exit_status() == 128 + signal.SIGKILL
        assert not any(map(exists, pids)), "the keeper ends last"


def test_what_a_killed_engine_had_running_is_killed_with_its_children() -> None:
    with Kept(
        "task = subprocess.Popen(['bash', '-c', '(setsid bash -c \"echo \\$\\$ $$; sleep 60; :\" & wait); :'])\n"
        "signal.pause()"
    ) as kept:
        pids = kept.pids()
        assert len(pids) == 2
        os.kill(kept.engine, signal.SIGKILL)
        kept.exit_status()
        assert not any(map(exists, pids))


def test_when_the_engine_ends_nothing_that_it_left_behind_lives_on() -> None:
    with Kept(LEAVE_THREE_BEHIND + "task.wait()") as kept:
        pids = kept.pids()
        assert kept.exit_status() == 0
        assert not any(map(exists, pids))


def test_the_engine_can_kill_its_own_orphans() -> None:
    with Kept(LEAVE_THREE_BEHIND + "task.wait(); keeper.kill_descendants(); print('done', flush=True)") as kept:
        pids = kept.pids()
        assert kept.line() == "done"
        assert not any(map(exists, pids))


@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_the_engine_is_asked_to_end_when_the_keeper_or_its_group_is_killed(kill: Callable[[int, int], None]) -> None:
    with Kept("""
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'asked to end\\n'), os._exit(0)))
print('ready', flush=True)
while True:
    time.sleep(0.02)  # and not pause(): a signal that comes just before it would be handled with the next one
""") as kept:
        assert kept.line() == "ready"
        kill(kept.keeper.pid, signal.SIGKILL)
        assert kept.line() == "asked to end"


@pytest.mark.parametrize("stopped", [False, True])
def test_all_can_be_ended_at_once(stopped: bool) -> None:
    with Kept(
        "task = subprocess.Popen(['sleep', '60'], start_new_session=True, stdout=subprocess.DEVNULL)\n"
        "print(task.pid, flush=True)\n"
        "signal.pause()"
    ) as kept:
        [pid] = kept.pids()
        if stopped:
            os.kill(kept.engine, signal.SIGSTOP)
        os.killpg(kept.keeper.pid, keeper.AT_ONCE)  # as a context does with an engine that does not end
        assert kept.exit_status() == 128 + signal.SIGKILL
        assert not exists(pid)


def test_signals_to_the_keeper_reach_the_engine() -> None:
    with Kept("""
for number in keeper.FORWARDED:
    signal.signal(number, lambda received, _: os.write(1, signal.Signals(received).name.encode() + b'\\n'))
print('ready', flush=True)
while True:
    time.sleep(0.02)  # as above
""") as kept:
        assert kept.line() == "ready"
        for number in 200 * keeper.FORWARDED:
            kept.keeper.send_signal(number)
            assert kept.line() == number.name
        assert kept.keeper.poll() is None


def test_signals_that_come_when_the_engine_has_ended_go_to_nobody() -> None:
    """The engine's pid may be that of another process by then."""
    code = """
import os
from disbatch.engine import keeper

def kill_descendants():
    for number in (*keeper.FORWARDED, keeper.AT_ONCE):
        os.kill(os.getpid(), number)

keeper.kill_descendants = kill_descendants
keeper._forward = lambda *_: print("forwarded", flush=True)
keeper.fork_from_keeper()
os._exit(7)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout) == (7, b"")


@pytest.mark.parametrize(
    ("code", "exit_status"),
    [("os._exit(0)", 0), ("os._exit(7)", 7), ("os.kill(os.getpid(), signal.SIGTERM)", 143)],
)
def test_the_keeper_ends_as_its_engine_did(code: str, exit_status: int) -> None:
    with Kept(code) as kept:
        assert kept.exit_status() == exit_status


def test_the_engine_starts_with_no_signal_blocked() -> None:
    with Kept("print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())), flush=True)") as kept:
        assert kept.line() == "[]"


# The lease.

SLEEPER = """
task = subprocess.Popen(['sleep', '60'], start_new_session=True, stdout=subprocess.DEVNULL)
print(task.pid, flush=True)
"""
ALIVE = """
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'alive\\n'), os._exit(0)))
os.kill(os.getppid(), signal.SIGTERM)  # which the keeper hands on when it has looked at the lease
while True:
    time.sleep(0.02)
"""


@pytest.mark.parametrize("left", ["0.05", "0.0", "-5.0"])
@pytest.mark.parametrize("way", ["os.kill(os.getpid(), signal.SIGSTOP)", "signal.pause()"])
def test_an_engine_that_has_not_ended_with_its_lease_is_killed_with_all_that_it_runs(left: str, way: str) -> None:
    with Kept(f"{SLEEPER}lease.renew(uptime() + {left})\n{way}") as kept:
        [pid] = kept.pids()
        assert kept.exit_status() == 128 + signal.SIGKILL
        assert not exists(pid)


def test_an_engine_whose_lease_was_renewed_lives_on() -> None:
    renewed = """
first = uptime() + 0.05
lease.renew(first)
lease.renew(uptime() + 1000)
while uptime() < first:
    time.sleep(0.01)
"""
    with Kept(renewed + ALIVE) as kept:
        assert kept.line() == "alive"


def test_a_lease_that_was_renewed_ends_when_it_is_not_renewed_again() -> None:
    with Kept("lease.renew(uptime() + 0.02)\nlease.renew(uptime() + 0.06)\nsignal.pause()") as kept:
        assert kept.exit_status() == 128 + signal.SIGKILL


def test_an_engine_that_has_no_lease_any_more_lives_on() -> None:
    given_up = "lease.renew(uptime() + 1000)\nlease.renew(inf)\nos.kill(os.getppid(), keeper.LEASE_CHANGED)\n"
    with Kept(given_up + ALIVE) as kept:
        assert kept.line() == "alive"


def test_a_lease_can_begin_again() -> None:
    again = "lease.renew(uptime() + 1000)\nlease.renew(inf)\nlease.renew(uptime() + 0.02)\nsignal.pause()"
    with Kept(again) as kept:
        assert kept.exit_status() == 128 + signal.SIGKILL


def test_nobody_is_told_of_a_lease_but_the_keeper() -> None:
    lease = keeper.Lease()
    assert lease.end == inf
    lease.renew(5.0)  # or a signal would have ended what runs these tests
    assert lease.end == 5.0


TELL = "lambda: print('killed', os.getpid(), keeper.descendants(), flush=True)"


def test_the_keeper_of_an_engine_that_was_killed_says_so_when_nothing_of_it_runs() -> None:
    with Kept(f"{SLEEPER}os.kill(os.getpid(), signal.SIGKILL)", TELL) as kept:
        kept.line()
        assert kept.line() == f"killed {kept.keeper.pid} []"
        assert kept.exit_status() == 128 + signal.SIGKILL


def test_the_keeper_of_an_engine_that_has_ended_says_nothing() -> None:
    with Kept("os._exit(3)", TELL) as kept:
        assert kept.exit_status() == 3
        assert kept.line() == ""


def test_a_keeper_that_cannot_say_so_ends_all_the_same() -> None:
    with Kept("os.kill(os.getpid(), signal.SIGKILL)", "lambda: 1 // 0") as kept:
        assert kept.exit_status() == 128 + signal.SIGKILL


@pytest.fixture
def child_with_a_confusing_name(tmp_path: Path) -> Iterator[int]:
    """Pid of a child whose name, in its line under /proc, looks like the fields after it."""
    program = tmp_path / ") S 1 ("
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([program, "60"])
    yield process.pid
    process.kill()
    process.wait()


def test_children_are_found_whatever_their_names_are(child_with_a_confusing_name: int) -> None:
    child = keeper.Process(child_with_a_confusing_name, os.getpid(), os.getpgrp(), os.getsid(0))
    assert child in keeper.descendants()


def test_a_process_has_a_parent_as_long_as_it_lives() -> None:
    process = subprocess.Popen(["sleep", "60"])
    alive = keeper.parent_of(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    unreaped = keeper.parent_of(process.pid)
    process.wait()
    assert (alive, unreaped, keeper.parent_of(process.pid)) == (os.getpid(), 0, 0)


def test_a_child_has_a_process_group_and_a_session() -> None:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    children = keeper.descendants()
    process.kill()
    process.wait()
    assert keeper.Process(process.pid, os.getpid(), process.pid, process.pid) in children


def test_what_is_below_children_is_found_too() -> None:
    process = subprocess.Popen(["bash", "-c", "setsid sleep 60 & echo $!; wait"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    found = {found.pid: found.parent for found in keeper.descendants()}
    os.kill(grandchild, signal.SIGKILL)
    process.communicate()
    assert found[process.pid] == os.getpid()
    assert found[grandchild] == process.pid
    assert os.getpid() not in found


def test_killing_gives_up_on_what_may_not_be_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(_pid: int, _number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(keeper, "PATIENCE", 0.02)
    monkeypatch.setattr(keeper, "_reap", lambda: True)
    monkeypatch.setattr(keeper, "descendants", lambda: [keeper.Process(4711, os.getpid(), 4711, 4711)])
    monkeypatch.setattr(os, "kill", kill)
    begun = time.monotonic()
    keeper.kill_descendants()
    assert 0.02 <= time.monotonic() - begun < DEADLINE
