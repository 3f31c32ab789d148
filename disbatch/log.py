"""The log of a process: lines with their time and level, each appended to its file at once.

Python's `logging` would do, and takes 7 ms to be imported, for which a context lets its engines wait, and an engine its
first task.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress

from disbatch.values import LOG_LEVELS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import FileIO


FULL = (errno.ENOSPC, errno.EDQUOT)
"""Why a disk takes no file more: neither a mistake of the user's, nor a reason to do without what would write there."""


def open_to_append(path: str) -> FileIO:
    """File to append to, made where it is not there; on a full disk it leads nowhere. Raises OSError."""
    try:
        return open(path, "ab", buffering=0)
    except OSError as error:
        if error.errno not in FULL:
            raise
        return open(os.devnull, "ab", buffering=0)


class Log:
    """Appends to the file at `path` what is of `level` or above; raises OSError when that cannot be opened.

    Texts are formatted with the values behind them, by `%`, if there are any. A log that cannot be written to any more
    disturbs nobody.
    """

    def __init__(self, path: str, level: str) -> None:
        self._file = open_to_append(path)
        self._most = LOG_LEVELS.index(level)

    def info(self, text: str, *values: object) -> None:
        """Note what is as it should be."""
        self._note("INFO", text, values)

    def warning(self, text: str, *values: object) -> None:
        """Note what should not be, and can be lived with."""
        self._note("WARNING", text, values)

    def error(self, text: str, *values: object) -> None:
        """Note what has failed."""
        self._note("ERROR", text, values)

    def _note(self, level: str, text: str, values: tuple[object, ...]) -> None:
        if LOG_LEVELS.index(level) > self._most:
            return
        now = time.time()
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        line = f"{moment},{int(now % 1 * 1000):03d} {level:<8} {text % values if values else text}\n"
        with suppress(OSError):
            self._file.write(line.encode(errors="backslashreplace"))

    def close(self) -> None:
        """Close the file; nothing can be noted afterwards."""
        self._file.close()
