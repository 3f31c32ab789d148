"""The status file as a file: made room for, appended to, never left with half a line that is not the last.

It must not know what a line means.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from disbatch import runfiles
from disbatch.errors import DisbatchError

if TYPE_CHECKING:
    from collections.abc import Callable


def make_room(path: str) -> str | None:
    """Rename a file that has the name of the new status file; what it is called now, None when there was none."""
    number = 1
    while os.path.lexists(aside := runfiles.set_aside_name(path, number)):
        number += 1
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return None
    return aside


class Recorder:
    """Appends lines to the status file; `add` collects, `flush` writes whole lines with as few writes as possible."""

    def __init__(self, path: str, write: Callable[[int, bytes], int] = os.write) -> None:
        self._write = write
        self._lines: list[bytes] = []
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def add(self, line: bytes) -> None:
        """Collect a line, which ends with a newline."""
        self._lines.append(line)

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
                f"cannot write the status file: {error.strerror}", "tasks since then have no line"
            ) from error
        finally:
            self._lines = [data] if data else []

    def close(self) -> None:
        """Close the file, having tried to write what was collected."""
        try:
            self.flush()
        finally:
            os.close(self._descriptor)
