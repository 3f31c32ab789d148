"""The command line: which role is asked for, and what becomes of an error that is a person's to mend."""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib import import_module

from disbatch import __version__
from disbatch.errors import DisbatchError, ExitStatus
from disbatch.terminal import answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COMPLETION_VARIABLE = "_ARGCOMPLETE"
"""Set by a shell that wants to know how a command line of disbatch could go on, and by nobody else."""

COPY_OF_SLURM = "slurm_script"
"""Name under which a batch job of Slurm runs its copy of this program, which goes with the job."""


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
    if arguments == ["--version"]:
        # One of the options; asked for alone it does not wait for them to be imported.
        answer(__version__)
        return ExitStatus.OK
    if COMPLETION_VARIABLE in os.environ:
        from disbatch import completion  # noqa: PLC0415 - only a shell that completes needs it

        return completion.answer(arguments)
    from disbatch import options  # noqa: PLC0415 - the version does not wait for them

    others = {
        options.CONTEXT_ROLE: "disbatch.contexts.process:main",
        options.ENGINE_ROLE: "disbatch.engine.process:main",
        options.PAGE_ROLE: "disbatch.web.process:main",
        options.MONITOR_ROLE: "disbatch.monitor.process:show_live",
        options.STATUS_ROLE: "disbatch.monitor.process:show_once",
        options.FAILURES_ROLE: "disbatch.report.failures:main",
    }
    if arguments and arguments[0] in others:
        # Each role's modules are imported for that role alone: an engine starts in the time of what it needs.
        module, _, function = others[arguments[0]].partition(":")
        exit_status: int = getattr(import_module(module), function)(arguments[1:])
        return exit_status
    program = _program()
    asked = options.parse_driver(arguments, " ".join(program))
    _check_working_directory()
    from disbatch.driver import process as driver  # noqa: PLC0415 - mistakes and --help do not wait for it either

    return driver.main(asked, partial(options.resume_command, program, arguments))


def _check_working_directory() -> None:
    """Raise `DisbatchError` if the directory is gone in which tasks would run, and which relative paths begin at."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise DisbatchError("the working directory is gone", "change to one that is there") from error


def _program() -> tuple[str, ...]:
    """How the user has called this program, for messages that name a command to be typed."""
    path = sys.argv[0]
    name = os.path.basename(path)
    if name == "__main__.py":
        return tuple(sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1])
    if name == COPY_OF_SLURM:
        return ("disbatch",)
    folders = (folder for folder in os.get_exec_path() if os.path.exists(os.path.join(folder, name)))
    return (name,) if next(folders, None) == os.path.dirname(path) else (path,)
