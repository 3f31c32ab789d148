"""Engines of many nodes are started side by side: an `ssh` that is none stands for nodes of every kind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from disbatch.contexts.process import LAUNCHES

if TYPE_CHECKING:
    from tests.e2e.support import Workplace

SSH = """#!/bin/bash
while [ "$1" != -- ]; do shift; done
case $2 in
    dead*) exec sleep 300;;
    late) until [ -e met.good ]; do sleep 0.02; done;;
esac
NODE=$2 exec bash -c "${*:3}"
"""

MEET = "touch met.$NODE; until [ -e met.good -a -e met.late ]; do sleep 0.02; done"
"""A task that ends when one of its kind has begun on each of the two nodes."""


@pytest.fixture
def path(work: Workplace) -> str:
    """A PATH that begins with that `ssh`."""
    folder = work.directory / "tools"
    folder.mkdir()
    program = folder / "ssh"
    program.write_text(SSH, encoding="ascii")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_nodes_that_are_dead_or_late_hold_up_no_other(work: Workplace, path: str) -> None:
    """More are dead, and in front of the others, than engines are started at once."""
    dead = [f"dead{number}:1" for number in range(LAUNCHES + 1)]
    work.write("tasks", MEET, MEET)
    done = work.run("-s", ",".join([*dead, "late:1", "good:1"]), "tasks", env={"PATH": path})
    assert done.returncode == 0, done.stderr
    assert sorted(line.node for line in work.status()) == ["good", "late"]
