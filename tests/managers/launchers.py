"""Stand-ins for the commands that start processes on nodes of a job: what they are documented to do, on this machine.

Each writes a line to `launched`, in the directory that it is in: its own name and the node's. What it starts finds the
latter in `STAND_IN_NODE`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.support import MARK

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NOTE = """#!/bin/bash
note() { echo "${0##*/} $1" >> "${0%/*}/launched"; export STAND_IN_NODE=$1; }
fresh=(env -i HOME="$HOME" PATH=/usr/bin:/bin STAND_IN_MARK)
""".replace("STAND_IN_MARK", f'{MARK}="${MARK}"')

LAUNCHERS = {
    # Arguments as they are; the job's output; TERM is passed on and not waited for; its status says nothing.
    "pbsdsh": """
        [ -n "$PBS_ENVIRONMENT" ] || { echo "pbsdsh: not executing under PBS"; exit 1; }
        [ "$1" = -n ] && [ "$3" = -- ] || { echo "Usage: pbsdsh [-n node_index] -- program [args...]"; exit 1; }
        note "$(sed -n "$(($2 + 1))p" "$PBS_NODEFILE")"
        shift 3
        setsid "${fresh[@]}" STAND_IN_NODE=$STAND_IN_NODE "$@" >> "${0%/*}/job_output" 2>&1 &
        trap 'kill -TERM $!; exit 1' HUP INT TERM
        wait $! || echo "pbsdsh: task 0x00000000 exit status $?"
        exit 0
    """,
    # As rsh: a shell reads the words, joined; environment and status pass.
    "blaunch": """
        [ -n "$LSB_JOBID" ] || { echo "blaunch: only under LSF"; exit 1; }
        [ "$1" = -z ] || { echo "usage: blaunch -z host_name command [argument ...]"; exit 1; }
        note "$2"
        shift 2
        exec setsid --wait /bin/sh -c "$*"
    """,
    # A shell reads the words, joined; the environment is kept in a file and passes with -V alone; the status passes.
    "qrsh": """
        [ -n "$JOB_ID" ] || { echo "qrsh: -inherit needs JOB_ID"; exit 1; }
        [ "$1" = -inherit ] || { echo "qrsh: this is no place to ask for a job"; exit 1; }
        shift
        [ "$1" = -V ] && { env > "${0%/*}/kept_environment"; fresh=(env); shift; }
        note "$1"
        shift
        exec setsid --wait "${fresh[@]}" STAND_IN_NODE=$STAND_IN_NODE /bin/sh -c "$*"
    """,
    "ssh": """
        while [ "$1" != -- ]; do shift; done
        note "$2"
        shift 2
        exec setsid --wait "${fresh[@]}" STAND_IN_NODE=$STAND_IN_NODE /bin/sh -c "$*"
    """,
}


def install(directory: Path, names: Iterable[str]) -> str:
    """Put stand-ins of these names into a directory; a PATH that begins with it."""
    directory.mkdir()
    for name in names:
        path = directory / name
        path.write_text(NOTE + LAUNCHERS[name], encoding="utf-8")
        path.chmod(0o755)
    return f"{directory}:/usr/bin:/bin"
