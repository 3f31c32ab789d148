from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from disbatch import descriptors

ROOT = Path(__file__).parents[2]
UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limit", "needed", "raised_to"),
    [
        ((1024, 4096), 1000, None),
        ((1024, 4096), 1024, None),
        ((1024, 4096), 2000, (2000, 4096)),
        ((1024, 4096), 9000, (4096, 4096)),
        ((4096, 4096), 9000, None),
        ((1024, UNLIMITED), 9000, (9000, UNLIMITED)),
        ((UNLIMITED, UNLIMITED), 9000, None),
    ],
)
def test_room_is_made_as_far_as_the_hard_limit_goes(
    limit: tuple[int, int], needed: int, raised_to: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limit)
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: became.append(new))
    assert descriptors.make_room(needed) == (limit if raised_to else None)
    assert became == ([raised_to] if raised_to else [])


@pytest.mark.parametrize(("soft", "room"), [(1024, 1024), (UNLIMITED, sys.maxsize)])
def test_room_is_what_the_soft_limit_leaves(soft: int, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, UNLIMITED))
    assert descriptors.room() == room


def test_a_child_gets_the_limit_that_was_there_before() -> None:
    process = subprocess.Popen(["bash", "-c", "read go; ulimit -Sn"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    descriptors.restore_limit(process.pid, (100, 200))
    assert process.communicate(b"go\n")[0] == b"100\n"


def test_without_a_raised_limit_a_child_keeps_what_it_has() -> None:
    own = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors.restore_limit(os.getpid(), None)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == own


def test_a_child_that_is_another_users_by_now_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(resource, "prlimit", refuse)
    descriptors.restore_limit(os.getpid(), (100, 200))


def test_a_child_that_has_gone_needs_no_limit() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    descriptors.restore_limit(process.pid, (100, 200))


@pytest.mark.parametrize("closed", ["", "<&-", ">&-", "<&- 2>&-"])
def test_children_get_three_streams_that_exist_and_nothing_else(closed: str, tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    code = """
import os, sys
from disbatch import descriptors
descriptors.keep_from_children()
os.posix_spawn('/bin/ls', ['ls', '/proc/self/fd'], {}, file_actions=[
    (os.POSIX_SPAWN_OPEN, 1, sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)])
os.wait()
"""
    # In a process of its own: this one's descriptors are left alone. The 3 of `ls` is the directory that it lists.
    subprocess.run(
        ["bash", "-c", f'exec "$@" 7< /dev/null 9> /dev/null {closed}', "_", sys.executable, "-c", code, answer],
        cwd=ROOT,
        check=True,
    )
    assert answer.read_text().split() == ["0", "1", "2", "3"]
