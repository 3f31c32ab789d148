"""The status file as a file: appended to, never left with half a line that is not the last, never in anybody's way.

It must not know what a line means.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from disbatch import runfiles
from disbatch.errors import DisbatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_BATCH = 1 << 16


class NameTakenError(DisbatchError):
    """A run that goes on writes the status file of that name."""


class Recorder:
    """Appends lines to a status file; `add` collects, `flush` writes whole lines with as few writes as possible.

    The file gets its name with `take_place`: whatever fails before that has changed nothing. Until the recorder is
    closed, or its process has ended in whatever way, no other gets the same name. Raises `NameTakenError`, and OSError.

    With `sync`, as `os.fdatasync`, what was flushed is remembered until it is known to be on disk: a system that could
    not write its cache to the disk may have thrown away what was in it. None: that is left to the system.
    """

    def __init__(
        self,
        path: str,
        write: Callable[[int, bytes], int] = os.write,
        sync: Callable[[int], None] | None = os.fdatasync,
    ) -> None:
        self._path = path
        self._write = write
        self._sync = sync
        self._lines: list[bytes] = []
        self._half = b""
        """What is in the file of a line whose rest is the beginning of `_lines`."""
        self._end = 0
        """Where the last write has ended."""
        self._unsynced: list[tuple[int, bytes]] = []
        """What may not be on disk yet, and where it stands in the file; the beginning of a run without its bytes."""
        self._place_is_synced = False
        self._beginning: str | None = runfiles.beginning_name(path)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._beginning, flags, 0o666)
        is_ours = _lock(self._descriptor) and _is_still(self._descriptor, self._beginning)
        if not (is_ours and _is_free(path)):
            if is_ours:
                os.unlink(self._beginning)
            os.close(self._descriptor)
            raise NameTakenError(f"the run that writes {path} goes on", "wait for its end, or give another -p")
        os.ftruncate(self._descriptor, 0)  # a driver may have been killed at this point

    def add(self, line: bytes) -> None:
        """Collect a line, which ends with a newline."""
        self._lines.append(line)

    def add_all(self, lines: Iterable[bytes]) -> None:
        """Write lines, however many, without holding them in memory together; raises as `flush` does."""
        size = 0
        for line in lines:
            self._lines.append(line)
            size += len(line)
            if size > _BATCH:
                self._flush(remember=False)
                size = 0
        self._flush(remember=False)

    def take_place(self) -> str | None:
        """Give the file its name, in one step; what an earlier one of that name is called now, if there is one.

        Raises `DisbatchError` when what was written before is not on disk.
        """
        assert self._beginning is not None  # noqa: S101 - it is called once
        if self._sync is not None and self._unsynced:
            try:
                _bring_to_disk(self._sync, self._descriptor)
            except OSError as error:
                raise self._failure(error) from error
            self._unsynced = []
        aside = _keep_earlier(self._path)
        os.rename(self._beginning, self._path)
        self._beginning = None
        return aside

    def flush(self) -> None:
        """Write what was collected; raises `DisbatchError` when that fails, and forgets nothing that is not written."""
        if self._lines:
            self._flush(remember=True)

    def _flush(self, *, remember: bool) -> None:
        if not self._lines:
            return
        data = self._half + b"".join(self._lines)
        written = done = len(self._half)
        try:
            if self._half and not self._ends_with_half():
                # Somebody has changed the file: what is left of the line there is of no use, nor is its rest alone.
                written = done = 0
                if not self._ends_with_line():
                    self._write(self._descriptor, b"\n")
            while done < len(data):
                done += self._write(self._descriptor, data[done:])
        except OSError as error:
            raise self._failure(error) from error
        finally:
            self._half = data[data.rfind(b"\n", 0, done) + 1 : done]
            self._lines = [data[done:]] if done < len(data) else []
            if done > written:
                self._end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
                if self._sync is not None:
                    start = self._end - (done - written)
                    self._unsynced.append((start, data[written:done] if remember else b""))

    def _ends_with_half(self) -> bool:
        return os.fstat(self._descriptor).st_size == self._end

    def _ends_with_line(self) -> bool:
        size = os.fstat(self._descriptor).st_size
        return size == 0 or os.pread(self._descriptor, 1, size - 1) == b"\n"

    @staticmethod
    def _failure(error: OSError) -> DisbatchError:
        return DisbatchError(
            f"cannot write the status file: {error.strerror}",
            "make room; what has no line there runs again in a run that resumes",
        )

    @property
    def path(self) -> str:
        """Where the file is, or will be."""
        return self._path

    @property
    def unwritten(self) -> int:
        """How many lines are not in the file yet."""
        return sum(data.count(b"\n") for data in self._lines)

    # What is on disk.

    @property
    def unsynced(self) -> bool:
        """Whether some of what was written may not be on disk; never without `sync`."""
        return bool(self._unsynced)

    def sync(self) -> int:
        """Bring to disk what is written; what `synced` is to be told then. Raises OSError.

        The only method that another thread may call.
        """
        pieces = len(self._unsynced)
        if self._sync is not None:
            _bring_to_disk(self._sync, self._descriptor)
            if not self._place_is_synced:
                with suppress(OSError):  # not every file system lets a directory be synced
                    _sync_directory(os.path.dirname(self._path))
                self._place_is_synced = True
        return pieces

    def synced(self, pieces: int) -> None:
        """Take note of what has come to disk."""
        del self._unsynced[:pieces]

    def write_again(self) -> None:
        """Write once more, in its place, what may not be on disk; raises `DisbatchError`, as often as it likes.

        After a sync that has failed another may succeed that has had nothing to do any more.
        """
        try:
            if self._unsynced and os.fstat(self._descriptor).st_size < self._unsynced[0][0]:
                # Somebody has cut the file off: its place is gone, and behind what is left there is another.
                self._lines[:0] = [data for _, data in self._unsynced]
                self._half, self._unsynced = b"", []
            flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~os.O_APPEND)  # or Linux would append all the same
            try:
                for start, data in self._unsynced:
                    done = 0
                    while done < len(data):
                        done += os.pwrite(self._descriptor, data[done:], start + done)
            finally:
                fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags)
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the file, having tried to write what was collected; one that never got its name is removed.

        Raises `DisbatchError` when something is not in the file, or not on disk, that should be.
        """
        try:
            if self._beginning is not None:
                os.unlink(self._beginning)
                return
            self.flush()
            if self._unsynced:
                try:
                    self.sync()
                except OSError as error:
                    raise self._failure(error) from error
        finally:
            os.close(self._descriptor)


def _bring_to_disk(sync: Callable[[int], None], descriptor: int) -> None:
    try:
        sync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):  # a file system that does not do that
            raise


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether no other process has locked the file; where the file system has no locks, none has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _is_still(descriptor: int, path: str) -> bool:
    """Whether the open file is the one of that name: it has another by now if its run began in between."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _is_free(path: str) -> bool:
    """Whether no run that goes on writes the file, if there is one."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # NFS locks only what may be written
    except OSError:
        return True
    try:
        return _lock(descriptor)
    finally:
        os.close(descriptor)


def _keep_earlier(path: str) -> str | None:
    """Give a file that is there a further name, the first free one; None where there is no file."""
    number = 1
    while True:
        aside = runfiles.set_aside_name(path, number)
        try:
            os.link(path, aside, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except FileExistsError:
            number += 1
        except OSError:  # a file system without links, or a directory
            with suppress(FileNotFoundError):
                if os.path.lexists(aside):
                    number += 1
                    continue
                os.rename(path, aside)
                return aside
            return None
        else:
            return aside
