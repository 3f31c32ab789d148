"""Whether this machine can have a `GridEngineCell`."""

from __future__ import annotations

from pathlib import Path

from tests.hosts import why_no_hosts

UNPACKED = Path(__file__).parents[2] / ".gridengine"
"""Where tools/install-system-packages.sh unpacks Debian's packages: installed they would start a cell of their own."""


def why_no_grid_engine() -> str:
    """Return why `GridEngineCell` cannot work here, "" when it can."""
    programs = UNPACKED / "usr/lib/gridengine"
    missing = [name for name in ("sge_qmaster", "sge_execd", "qsub", "qrsh") if not (programs / name).exists()]
    if missing:
        return f"not unpacked by tools/install-system-packages.sh: {', '.join(missing)}"
    return why_no_hosts()
