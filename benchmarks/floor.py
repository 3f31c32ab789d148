"""The least that running a file of commands can cost here: bash started, its two pipes read to their end, reaped.

Usage: python -m benchmarks.floor SLOTS TASKFILE

Nothing is recorded, and nobody told. What other programs are compared with.
"""

from __future__ import annotations

import os
import selectors
import sys
from itertools import islice
from pathlib import Path

CHUNK = 1 << 16


def spawn(command: list[str], actions: list[tuple[int, int, int]]) -> int:
    """Pid of a new process, in a session of its own as disbatch's tasks are: the kernel shares cores among sessions."""
    try:
        return os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setsid=True)
    except NotImplementedError:  # not every Python can
        return os.posix_spawnp(command[0], command, os.environ, file_actions=actions)


def start(command: str, selector: selectors.BaseSelector) -> None:
    """Start a bash, and watch its output."""
    pipes = (os.pipe(), os.pipe())
    actions = [(os.POSIX_SPAWN_DUP2, write, number) for number, (_, write) in enumerate(pipes, 1)]
    pid = spawn(["bash", "-c", command], actions)
    for read, write in pipes:
        os.close(write)
        selector.register(read, selectors.EVENT_READ, pid)


def main(slots: int, commands: list[str]) -> None:
    """Run all commands, so many at once."""
    selector = selectors.DefaultSelector()
    waiting = iter(commands)
    for command in islice(waiting, slots):
        start(command, selector)
    half_done: set[int] = set()
    while selector.get_map():
        for key, _ in selector.select():
            if os.read(key.fd, CHUNK):
                continue
            selector.unregister(key.fd)
            os.close(key.fd)
            if key.data not in half_done:
                half_done.add(key.data)
                continue
            half_done.remove(key.data)
            os.waitpid(key.data, 0)
            if command := next(waiting, ""):
                start(command, selector)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8").splitlines())
