"""Runs through a real sshd for those who are not root: the one remote host is this machine under another name."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.e2e.support import PATIENCE, eventually, finish, look_at

if TYPE_CHECKING:
    from tests.e2e.support import Workplace
    from tests.hosts import LoopbackSshd


def test_tasks_run_through_ssh(loopback_sshd: LoopbackSshd, work: Workplace) -> None:
    alias = loopback_sshd.alias
    meet = "touch met.$DISBATCH_TASKID; until [ $(ls -d met.* | wc -l) = 4 ]; do sleep 0.02; done"
    tasks = work.write("tasks", *[f"{meet}; echo $DISBATCH_ENGINE_RANK ${{SSH_CONNECTION:+through ssh}}"] * 4)
    done = work.run("-s", f"{alias}:2,localhost:2", tasks.name, env=loopback_sshd.environment)
    assert done.returncode == 0, done.stderr
    assert sorted((line.node, line.out) for line in work.status()) == sorted(
        [(alias, r"'0 through ssh\n'"), ("localhost", r"'1\n'")] * 2
    )


def test_only_through_ssh_with_blanks_in_the_path(loopback_sshd: LoopbackSshd, work: Workplace) -> None:
    work.directory /= "it's a place"
    work.directory.mkdir()
    done = work.run("-s", f"{loopback_sshd.alias}:2", work.write("my tasks", "pwd").name, env=loopback_sshd.environment)
    assert done.returncode == 0, done.stderr
    (line,) = work.status("my tasks")
    assert (line.node, line.out_bytes) == (loopback_sshd.alias, len(f"{work.directory}\n"))


def test_a_signal_reaches_through_ssh(loopback_sshd: LoopbackSshd, work: Workplace) -> None:
    tasks = work.write("tasks", "setsid sleep 300 & echo $$ $! > pids; sleep 300; true")
    run = work.start("-s", f"{loopback_sshd.alias}:1", tasks.name, env=loopback_sshd.environment)
    eventually(lambda: len(work.text("pids").split()) == 2, "the task")
    pids = [int(word) for word in work.text("pids").split()]
    assert all(look_at(pid) for pid in pids)
    run.send_signal(signal.SIGTERM)
    assert finish(run, timeout=PATIENCE).returncode == 143
    eventually(lambda: not any(look_at(pid) for pid in pids), "the end of all that the task started", 5.0)
    assert [(line.flags, line.return_code) for line in work.status()] == [("R  Z", -signal.SIGTERM)]


def test_a_killed_driver_leaves_nothing_behind_ssh(loopback_sshd: LoopbackSshd, work: Workplace) -> None:
    tasks = work.write("tasks", "setsid sleep 300 & echo $$ $! $PPID > pids; sleep 300; true")
    run = work.start("-s", f"{loopback_sshd.alias}:1", tasks.name, env=loopback_sshd.environment)
    eventually(lambda: len(work.text("pids").split()) == 3, "the task")
    pids = [int(word) for word in work.text("pids").split()]
    run.kill()
    finish(run)
    eventually(lambda: not any(look_at(pid) for pid in pids), "the end of task and engine", 15.0)
