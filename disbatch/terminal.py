"""The lines that a process of a run prints for its user; whether anybody reads them must not matter to the run."""

from __future__ import annotations

import sys
from contextlib import suppress


def tell(text: str) -> None:
    """Print a line to the user's terminal, which may have gone."""
    with suppress(OSError, ValueError):
        print(f"disbatch: {text}", file=sys.stderr, flush=True)
