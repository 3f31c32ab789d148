"""A disk that is full, or takes no more, under the files of a run: nothing is lost, and nothing is written twice."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.support import DISBATCH, eventually, finish, read_status
from tests.hosts import not_here, why_no_small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.support import Workplace

HELD_BACK = "cannot write the status file: {}; nothing is started until that works, and nothing is lost"
WRITTEN_AGAIN = "disbatch: the status file can be written again; the run goes on"
PAGE = 4096
WAITS = "touch begun; until [ -e full ]; do sleep 0.01; done"


class SmallDisk:
    """A file system of 256 KiB and 64 files, mounted on `disk` of a workplace, for those alone that are started here.

    `seen` is where the tests see it.
    """

    def __init__(self, work: Workplace) -> None:
        self.work = work
        self.path = work.directory / "disk"
        self.path.mkdir()
        mount = 'mount -t tmpfs -o size=256k,nr_inodes=64 none "$0" && echo ready && exec cat'
        self._keeper = work.start(
            *("--mount", "--propagation", "private", "sh", "-c", mount, self.path),
            program=["unshare"],
            stdin=subprocess.PIPE,
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == b"ready\n"
        self.seen = Path(f"/proc/{self._keeper.pid}/root{self.path}")

    def start(self, *arguments: str | Path, program: tuple[str, ...] = DISBATCH) -> subprocess.Popen[bytes]:
        """Start disbatch where the disk is to be seen, in the directory of the workplace."""
        enter = ["nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", "bash", "-c", 'cd "$0" && exec "$@"']
        return self.work.start(*arguments, program=[*enter, self.work.directory, *program])

    def fill(self) -> None:
        """Leave no room on it."""
        with suppress(OSError), (self.seen / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(PAGE))

    def make_room(self) -> None:
        (self.seen / "ballast").unlink()

    def fill_with_files(self) -> None:
        """Leave no room for another file."""
        with suppress(OSError):
            for number in range(100):
                (self.seen / f"file {number}").touch()

    def close(self) -> None:
        finish(self._keeper)


@pytest.fixture
def disk(work: Workplace) -> Iterator[SmallDisk]:
    if reason := why_no_small_disk():
        not_here(reason)
    made = SmallDisk(work)
    yield made
    made.close()


def says(run: subprocess.Popen[bytes], what: str) -> str:
    """The line by which a run says that, once it does."""
    assert run.stderr is not None
    said = b""
    while character := os.read(run.stderr.fileno(), 1):  # what is behind the line is left for `finish`
        said += character
        if character == b"\n":
            line = said.splitlines()[-1].decode()
            if what in line:
                return line
    raise AssertionError(f"it has ended without saying {what!r}: {said!r}")


def begin_and_fill(work: Workplace, disk: SmallDisk, *lines: str) -> subprocess.Popen[bytes]:
    """A run of these tasks, one after the other, that has said that it cannot write the line of the first."""
    tasks = work.write("tasks", *lines)
    run = disk.start("-s", "localhost:1", "-p", "disk/run", tasks.name)
    work.await_file("begun")
    disk.fill()
    (work.directory / "full").touch()
    told = says(run, HELD_BACK.format("No space left on device"))
    assert f"make room for {disk.path}/run_status.txt" in told
    return run


def test_a_run_on_a_full_disk_starts_nothing_and_goes_on_when_there_is_room(work: Workplace, disk: SmallDisk) -> None:
    run = begin_and_fill(work, disk, WAITS, *["true"] * 8, "#DISBATCH BARRIER", *["true"] * 3)
    assert (disk.seen / "run_status.txt").read_bytes() == b""
    freed = time.time()
    disk.make_room()
    done = finish(run)
    assert done.returncode == 0
    assert done.complaints == [WRITTEN_AGAIN, "disbatch: 12 tasks finished; status file: disk/run_status.txt"]
    status = read_status(disk.seen / "run_status.txt")
    assert [line.task_id for line in status] == list(range(13))
    assert [line.task_id for line in status if line.start < freed - 0.001] == [0]


def test_half_a_line_is_finished_when_there_is_room(work: Workplace, disk: SmallDisk) -> None:
    tasks = work.write("tasks", *["true"] * 3, WAITS, *["true"] * 200)
    run = disk.start("-s", "localhost:1", "-p", "disk/run", tasks.name)
    work.await_file("begun")
    status = disk.seen / "run_status.txt"
    eventually(lambda: status.read_bytes().count(b"\n") == 3)
    disk.fill()
    (work.directory / "full").touch()
    says(run, "cannot write the status file")
    assert status.stat().st_size == PAGE
    assert not status.read_bytes().endswith(b"\n")
    disk.make_room()
    assert finish(run).returncode == 0
    assert [line.task_id for line in read_status(status)] == list(range(204))


def test_a_run_that_is_ended_on_a_full_disk_says_what_is_missing_and_can_be_resumed(
    work: Workplace, disk: SmallDisk
) -> None:
    # It is too long for the room that the run makes itself as it ends.
    run = begin_and_fill(work, disk, f"{WAITS}; : {'long' * PAGE}", *["true"] * 8)
    run.send_signal(signal.SIGINT)
    done = finish(run)
    assert done.returncode == 130
    missing, summary, advice = done.complaints[-3:]
    assert missing.startswith("disbatch: cannot write the status file: No space left on device (make room; ")
    assert missing.endswith("; lines missing in it: 1")
    assert "finished" in summary
    assert advice.endswith(" -r disk/run_status.txt")
    disk.make_room()
    again = finish(disk.start("-s", "localhost:2", "-p", "disk/again", "tasks", "-r", "disk/run_status.txt"))
    assert again.returncode == 0
    assert "line 1 is cut off and ignored" in again.stderr
    assert sorted(line.task_id for line in read_status(disk.seen / "again_status.txt")) == list(range(9))


def test_a_run_whose_tasks_have_all_ended_waits_for_room(work: Workplace, disk: SmallDisk) -> None:
    run = begin_and_fill(work, disk, WAITS)
    disk.make_room()
    done = finish(run)
    assert done.returncode == 0
    assert done.complaints[0] == WRITTEN_AGAIN
    assert len(read_status(disk.seen / "run_status.txt")) == 1


def test_nobody_is_told_of_what_is_not_written(work: Workplace, disk: SmallDisk) -> None:
    program = work.write(
        "program.py",
        "import os",
        "from tests.programs.source import Source",
        "source = Source()",
        f"source.submit({WAITS!r})",
        "source.finish()",
        "source.next_done()",
        "open('size', 'w').write(str(os.stat('disk/run_status.txt').st_size))",
    )
    run = disk.start("-s", "localhost:1", "-p", "disk/run", "--taskcommand", f"{sys.executable} {program.name}")
    work.await_file("begun")
    disk.fill()
    (work.directory / "full").touch()
    says(run, "cannot write the status file")
    assert not (work.directory / "size").exists()
    disk.make_room()
    assert finish(run).returncode == 0
    assert int(work.text("size")) > 0


def test_a_limit_on_the_size_of_files_is_waited_for_too(work: Workplace) -> None:
    tasks = work.write("tasks", *["echo 0123456789012345678901234567890123456789"] * 400)
    limited = ["bash", "-c", 'ulimit -S -f 8; exec "$@"', "limited", *DISBATCH]
    run = work.start("-s", "localhost:2", "--logfile", "/dev/null", tasks.name, program=limited)
    says(run, HELD_BACK.format("File too large"))
    _, hard = resource.prlimit(run.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert finish(run).returncode == 0
    assert sorted(line.task_id for line in work.status()) == list(range(400))


# Logs


def test_a_log_on_a_full_disk_does_no_harm(work: Workplace, disk: SmallDisk) -> None:
    disk.fill()
    work.write("tasks", "true", "true")
    done = finish(disk.start("-s", "localhost:2", "-p", "run", "--logfile", "disk/log", "tasks"))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.complaints == ["disbatch: 2 tasks finished; status file: run_status.txt"]
    assert (disk.seen / "log").read_bytes() == b""
    assert len(read_status(work.directory / "run_status.txt")) == 2


def test_a_disk_without_room_for_the_logs_does_no_harm(work: Workplace, disk: SmallDisk) -> None:
    work.write("tasks", "true", "true")
    run = disk.start("-S", "-p", "disk/run", "tasks")
    assert run.stdout is not None
    script = run.stdout.readline().decode().strip()
    eventually((disk.seen / "run_kvsinfo.txt").exists)
    disk.fill_with_files()
    added = disk.start("-s", "localhost:2", program=("bash", script))
    assert finish(run).returncode == 0
    assert finish(added).returncode == 0
    assert len(read_status(disk.seen / "run_status.txt")) == 2
    assert not list(disk.seen.glob("run_SSH0*"))


def test_a_full_disk_under_what_the_run_says_does_no_harm(work: Workplace, disk: SmallDisk) -> None:
    disk.fill()
    work.write("tasks", "true", "false")
    said = ("bash", "-c", 'exec "$@" 2> disk/said', "run", *DISBATCH)
    done = finish(disk.start("-s", "localhost:2", "-p", "run", "-e", "tasks", program=said))
    assert done.returncode == 1
    assert len(read_status(work.directory / "run_status.txt")) == 2
