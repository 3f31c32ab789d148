"""The command line: which role is asked for, and what becomes of an error that is a person's to mend."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from disbatch.errors import DisbatchError, ExitStatus
from disbatch.options import CONTEXT_ROLE, ENGINE_ROLE

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Be what the first argument names, a driver without one that does; the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if sys.stderr is None:  # closed by whoever started this; `print` would write to stdout instead
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    try:
        return _play(given)
    except DisbatchError as error:
        print(f"disbatch: error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    finally:
        _forget_unwritten()


def _forget_unwritten() -> None:
    """Throw away what the user's terminal does not take: Python would fail on it, with a status of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _play(arguments: list[str]) -> int:
    # Each role's modules are imported for that role alone: an engine starts in the time of what it needs.
    role = arguments[0] if arguments else ""
    if role == ENGINE_ROLE:
        from disbatch.engine import process as engine  # noqa: PLC0415

        return engine.main(arguments[1:])
    if role == CONTEXT_ROLE:
        from disbatch.contexts import process as context  # noqa: PLC0415

        return context.main(arguments[1:], program="dbUtil.sh")
    from disbatch.driver import process as driver  # noqa: PLC0415

    return driver.main(arguments, _program())


def _program() -> tuple[str, ...]:
    """How the user has called this program, for messages that name a command to be typed."""
    path = sys.argv[0]
    name = os.path.basename(path)
    if name == "__main__.py":
        return tuple(sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1])
    folders = (folder for folder in os.get_exec_path() if os.path.exists(os.path.join(folder, name)))
    return (name,) if next(folders, None) == os.path.dirname(path) else (path,)
