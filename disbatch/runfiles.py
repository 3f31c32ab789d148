"""Names of a run's files, and the text of the script that joins it.

Pure: nothing here touches a file, and what differs from run to run (the time, random digits, whether a path is a
directory) comes in as an argument.
"""

from __future__ import annotations

import os.path

from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.records import record
from disbatch.values import shell_word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from disbatch.credentials import Credentials

STREAM_NAME = "STREAM"
"""What the source of tasks is called that programs submit."""

STDIN_NAME = "stdin"
"""What a task file is called that comes through standard input."""

STATUS_ENDING = "_status.txt"
"""What the name of a status file ends with."""

SCRIPT_ENDING = "_dbUtil.sh"
"""What the name of a run's script ends with."""


@record
class RunFiles:
    """The paths of one run, all of them `unique_id` with something behind it; `unique_id` is an absolute path."""

    unique_id: str

    @property
    def job(self) -> str:
        """Last component of the unique id: the name of the run among those of its directory."""
        return os.path.basename(self.unique_id)

    @property
    def directory(self) -> str:
        """Where the files are."""
        return os.path.dirname(self.unique_id)

    @property
    def status(self) -> str:
        """The status file."""
        return f"{self.unique_id}{STATUS_ENDING}"

    @property
    def driver_log(self) -> str:
        """The driver's log, unless an option names another."""
        return f"{self.unique_id}_driver.log"

    @property
    def script(self) -> str:
        """The script that adds contexts and starts engines; it holds the secrets that give the rights to do so."""
        return f"{self.unique_id}{SCRIPT_ENDING}"

    @property
    def kvs_address(self) -> str:
        """Holds `host:port` of the key-value store while the run goes on."""
        return f"{self.unique_id}_kvsinfo.txt"

    @property
    def observer(self) -> str:
        """Tells observers where the store is while the run goes on; it holds a secret that shows its state alone."""
        return f"{self.unique_id}_observer.txt"

    @property
    def url(self) -> str:
        """Holds the URL of the web page while there is one; whoever knows that may look at the run, and stop hosts."""
        return f"{self.unique_id}_url"

    @property
    def page_log(self) -> str:
        """The web page's log."""
        return f"{self.unique_id}_web.log"

    def context_launch_log(self, pid: int) -> str:
        """What the context prints that the driver with this pid starts."""
        return f"{self.unique_id}_{pid}_context_launch.log"

    def context_log(self, label: str) -> str:
        """A context's log."""
        return f"{self.unique_id}_{file_name(label)}.context.log"

    def engine_log(self, label: str, node: str, rank: int) -> str:
        """An engine's log."""
        return f"{self.unique_id}_{file_name(label)}_{file_name(node)}_engine_{rank}.log"

    def retire_output(self, label: str) -> str:
        """What the command prints that gives nodes of a context back."""
        return f"{self.unique_id}_{file_name(label)}_retire_wrap.log"

    def engine_output(self, label: str, node: str) -> str:
        """What the process prints that starts an engine (ssh, or the engine itself)."""
        return f"{self.unique_id}_{file_name(label)}_{file_name(node)}_engine_wrap.log"


def file_name(text: str) -> str:
    """`text` with what a file name cannot hold replaced."""
    return text.replace("/", "_").replace("\0", "_")


def task_source_name(task_file: str | None) -> str:
    """What a task file is called in names of files and in DISBATCH_NAMETASKS; None: programs submit the tasks."""
    if task_file is None:
        return STREAM_NAME
    return STDIN_NAME if task_file == "-" else os.path.basename(task_file)


def unique_id(directory: str, *, source_name: str, now: datetime, digits: int) -> str:
    """Unique id of a run that the user has not named: made of the task file's name, the time and three `digits`."""
    return os.path.join(directory, f"{source_name}_disBatch_{now:%y%m%d%H%M%S}_{digits:03d}")


def beginning_name(path: str) -> str:
    """Name of a status file until its run has begun."""
    return f"{path}.new"


def set_aside_name(path: str, number: int) -> str:
    """Name number `number` (from 1) for a status file that must make room for the one of a new run."""
    return f"{path}.{number}"


def script_text(
    command: Sequence[str], run_arguments: Sequence[str], inherited: Sequence[str], credentials: Credentials | None
) -> str:
    """Text of the script that joins a run.

    `command` starts disbatch from any directory, without it being on PATH; `run_arguments` tell it which run;
    `inherited` are the driver's options for contexts, which options given to the script override. Whatever it starts
    has in its environment the secret that it needs, and no other.
    """
    import shlex  # noqa: PLC0415 - it takes `re`, together 2 ms, which contexts and engines need not wait for

    start = shlex.join(command)
    run = shlex.join(run_arguments)
    lines = [
        "#!/bin/bash",
        "# Adds resources to a run of disbatch: SCRIPT -s HOST:N,...   (SCRIPT --help tells more)",
        "# It holds secrets of the run: whoever can read it can run commands as you.",
        # The user's environment may hold that of another store.
        f"unset {SECRET_VARIABLE}" if credentials is None else f"export {_assignment(credentials.engine)}",
        'if [ "$1" = --engine ]; then',
        "    shift",
        f'    exec {start} --engine {run} "$@"',
        "fi",
    ]
    if credentials is not None:
        lines += [
            # No value of another option can be one of these words: both are options themselves.
            "for word; do",
            '    case "$word" in',
            f"    --mon|--status|--stop) {_assignment(credentials.operator)} ;;",
            f"    --kvs-env) {_assignment(credentials.program)} ;;",
            "    esac",
            "done",
        ]
    return "\n".join([*lines, f'exec {start} --context {run} {shlex.join(inherited)} "$@"', ""])


def _assignment(secret: bytes) -> str:
    return f"{SECRET_VARIABLE}={secret.decode()}"


def script_command(path: str) -> str:
    """How a shell is told to run the script at that path: without a directory it would look elsewhere."""
    return shell_word(path if os.path.dirname(path) else os.path.join(os.curdir, path))
