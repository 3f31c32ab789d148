"""What a task of a chaotic run is: a program that writes down its own start and end, and notices what must not be.

Run in the directory of the runs, as `attempt MILLISECONDS MANNER SINCE`: to live so long, in such a manner, and behind
all tasks whose ids are below SINCE. It appends dictionaries, as Python writes them, to `journal`, and knows by locks
whether another attempt at its task, or an earlier task, has processes still: locks end with their holders, however
those end.

It must not import anything beside the standard library, and little of that: a run starts it a hundred times.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

ATTEMPTS = "attempts.lock"
"""A byte for each task, locked by all processes of an attempt."""

MAIN = "main.lock"
"""A byte for each task, locked by the attempt itself, and not by what it leaves behind."""

FLOCK = struct.Struct("hhqqi4x")
"""struct flock: type, whence, start, length, pid."""

LEAVING = ("leaves-child", "leaves-daemon", "leaves-holder")
"""Manners of those that leave a process behind: in their group, in a session of its own, at their pipes for a while."""

PRINTED = 100_000
"""Bytes that one prints which prints much."""

HELD = 1.0
"""Seconds for which what is left behind holds the pipes."""

LEFT_BEHIND = 30.0
"""Seconds for which anything else that is left behind would live if nobody ended it."""


def lock(file: str, byte: int) -> tuple[int, bool]:
    """Lock a byte of a file for whoever has the descriptor; whether it was free. It never waits."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return descriptor, False
    return descriptor, True


def first_locked(descriptor: int, end: int) -> int:
    """Return the lowest byte below `end` that somebody else has locked, -1 for none."""
    if not end:
        return -1
    asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, end, 0)
    kind, _, start, _, _ = FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))
    return -1 if kind == fcntl.F_UNLCK else start


def exit_code(manner: str, task: int, attempt: int, *, is_first: bool) -> int:
    """What an attempt ends with that nothing disturbs; `is_first`: none before it has come so far."""
    fails = manner == "fails" or (manner == "fails-once" and is_first)
    return 1 + (task + 7 * attempt) % 99 if fails else 0


def is_first_end(task: int) -> bool:
    """Whether no attempt at the task has come to its end before this one."""
    try:
        os.close(os.open(f"ended.{task}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def leave_behind(manner: str) -> None:
    """Start a process that outlives this one."""
    if os.fork():
        return
    if manner == "leaves-daemon":
        os.setsid()
        if os.fork():
            os._exit(0)
    if manner != "leaves-holder":
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
    time.sleep(HELD if manner == "leaves-holder" else LEFT_BEHIND)
    os._exit(0)


def note(journal: int, entry: dict[str, object]) -> None:
    """Write one line, in one step."""
    os.write(journal, f"{entry}\n".encode())


def main() -> NoReturn:
    """Live, and write it down."""
    started = time.monotonic()
    milliseconds, manner, since = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    task, attempt = int(os.environ["DISBATCH_TASKID"]), int(os.environ.get("DISBATCH_ATTEMPT", "0"))
    # Where bash has not become this program, it is bash that is in the status file.
    pid = os.getppid() if manner == "below-bash" else os.getpid()
    said: dict[str, object] = {"token": f"{task}.{pid}.{time.monotonic_ns():x}", "task": task, "manner": manner}
    journal = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    overlaps, behind = False, -1
    if manner not in ("start", "stop"):
        _, free = lock(ATTEMPTS, task)
        overlaps = not free
        if manner in LEAVING:
            leave_behind(manner)
        main_lock, _ = lock(MAIN, task)
        behind = first_locked(main_lock, since)
    if manner == "stubborn":
        import signal  # noqa: PLC0415 - few need it

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    start = {
        "what": "start",
        "at": started,
        "job": os.environ["DISBATCH_JOBID"],
        "host": os.uname().nodename,
        "engine": int(os.environ["DISBATCH_ENGINE_RANK"]),
        "pid": pid,
        "attempt": attempt,
        "overlaps": overlaps,
        "behind": behind,
    }
    note(journal, {**said, **start})
    printed = os.write(1, f"{said['token']}\n".encode())
    time.sleep(max(0.0, started + milliseconds / 1000 - time.monotonic()))
    if manner == "prints":
        printed += os.write(1, b"." * PRINTED)
    code = exit_code(manner, task, attempt, is_first=manner == "fails-once" and is_first_end(task))
    note(journal, {**said, "what": "end", "at": time.monotonic(), "code": code, "printed": printed})
    os._exit(code)


if __name__ == "__main__":
    main()
