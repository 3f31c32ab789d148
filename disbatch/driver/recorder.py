"""The status file as a file: appended to, never left with half a line that is not the last, never in anybody's way.

It must not know what a line means.
"""

from __future__ import annotations

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
    """

    def __init__(self, path: str, write: Callable[[int, bytes], int] = os.write) -> None:
        self._path = path
        self._write = write
        self._lines: list[bytes] = []
        self._beginning: str | None = runfiles.beginning_name(path)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
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
                self.flush()
                size = 0
        self.flush()

    def take_place(self) -> str | None:
        """Give the file its name, in one step; what an earlier one of that name is called now, if there is one."""
        assert self._beginning is not None  # noqa: S101 - it is called once
        aside = _keep_earlier(self._path)
        os.rename(self._beginning, self._path)
        self._beginning = None
        return aside

    def flush(self) -> None:
        """Write what was collected; raises `DisbatchError` when that fails, and forgets nothing that is not written."""
        if not self._lines:
            return
        data = b"".join(self._lines)
        try:
            while data:
                data = data[self._write(self._descriptor, data) :]
        except OSError as error:
            raise DisbatchError(
                f"cannot write the status file: {error.strerror}",
                "make room; what has no line there runs again in a run that resumes",
            ) from error
        finally:
            self._lines = [data] if data else []

    def close(self) -> None:
        """Close the file, having tried to write what was collected; one that never got its name is removed."""
        try:
            if self._beginning is None:
                self.flush()
            else:
                os.unlink(self._beginning)
        finally:
            os.close(self._descriptor)


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
