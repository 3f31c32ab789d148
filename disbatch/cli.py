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
    try:
        return _play(given)
    except DisbatchError as error:
        print(f"disbatch: error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED


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
