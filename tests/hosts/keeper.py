"""The first process of a cell: prepares it, starts its one service, and ends everything in it when its owner is gone.

A program, run by `cell.py` as `python -I -S keeper.py PLAN` with standard input held open by the owner. PLAN is a JSON
object: `hostname` (empty: leave it), `setup` (commands, each an argument list, run in order, all must succeed) and
`service` (the argument list of a daemon that stays in the foreground; empty: none).

When the cell is ready, one line goes to standard output: this process's pid, as the owner sees it. End of file on
standard input, which comes however the owner ends, even by SIGKILL, ends the cell.

It must not import anything beside the standard library: it runs without site-packages.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def reap(*_: object) -> None:
    """Take the exit statuses of all children that have ended, adopted ones too, and forget them."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass


def end_descendants() -> None:
    """Kill every process below this one. Needed only where no pid namespace makes the kernel do it.

    Killing a child hands its own children to this process, the subreaper; so the next turn finds them here.
    """
    # From here on only this loop reaps: a reap in the handler could leave the wait below with nothing that dies.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    own_pid = os.getpid()
    children = Path(f"/proc/{own_pid}/task/{own_pid}/children")
    while True:
        for pid in children.read_text(encoding="ascii").split():
            os.kill(int(pid), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def main() -> None:
    """Prepare, serve, and wait for the owner's end."""
    plan = json.loads(sys.argv[1])
    # Before the setup mounts a /proc of the new pid namespace: this one still counts as the owner counts.
    pid_seen_by_owner = Path("/proc/self").readlink().name
    if plan["hostname"]:
        socket.sethostname(plan["hostname"])
    for command in plan["setup"]:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    if os.getpid() != 1:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # After the setup, whose exit statuses the handler would take away from `subprocess`.
    signal.signal(signal.SIGCHLD, reap)
    if plan["service"]:
        subprocess.Popen(plan["service"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    print(pid_seen_by_owner, flush=True)
    sys.stdin.buffer.read()
    if os.getpid() != 1:
        end_descendants()


if __name__ == "__main__":
    main()
