"""What went wrong, said to a person: one line with what failed, a hint at what to do, and an exit status.

Pure. It must not know who prints an error or where.
"""

from __future__ import annotations


def quoted(text: bytes, limit: int = 80) -> str:
    """Return bytes from a user's file in the form in which a message shows them: quoted, one line, harmless.

    Undecodable bytes are replaced, unprintable characters escaped, so that no file can move a terminal's cursor.
    At most `limit` characters of the text are shown; `...` after the closing quote says that there is more.
    """
    # No character has more than four bytes: the cut never splits one that is shown.
    characters = text[: 4 * limit + 4].decode(errors="replace")
    return repr(characters) if len(characters) <= limit else repr(characters[:limit]) + "..."


class ExitStatus:
    """Exit statuses of the driver, as documented for its users."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130
    TERMINATED = 143


class DisbatchError(Exception):
    """A failure that a user can understand: a message of one line, and a hint that may be empty."""

    exit_status: int = ExitStatus.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(DisbatchError):
    """Options or values on the command line, or in an environment variable, that cannot be used."""

    exit_status = ExitStatus.USAGE


class TaskFileError(DisbatchError):
    """The task file cannot be read, or holds something that ends the reading of it."""


class StatusFileError(DisbatchError):
    """A status file cannot be read for a resume, or does not fit the tasks of this run."""


class ResourceError(DisbatchError):
    """The hosts or cores asked for cannot run a task."""


class DriverUnreachableError(DisbatchError):
    """A context or an engine cannot connect to the driver of its run, or the two do not share a secret.

    `nobody_listens`: its host has answered, and no process there takes connections at that address.
    """

    nobody_listens = False


class MessageError(DisbatchError):
    """Bytes from another process of the run that are no message of this version."""
