"""Open files of a process: how many it may have, and which of them its children get.

A process with many connections or pipes raises its own limit, and what it starts is to have the limit that was there
before: programs that use select(2) fail beyond 1,024, and some close every descriptor that they might have.
"""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress

MANY = 65536
"""Open files that a driver or an engine makes room for, as far as the system lets it."""

Limit = tuple[int, int]
"""Soft and hard limit, as in setrlimit(2)."""


def make_room(needed: int) -> Limit | None:
    """Raise the soft limit to `needed`, as far as the hard one goes; the limit that was in force, None if unchanged."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft == resource.RLIM_INFINITY or soft >= enough:
        return None
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
    return soft, hard


def room() -> int:
    """How many open files this process may have now."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def restore_limit(pid: int, limit: Limit | None) -> None:
    """Give a child that was just started the limit that `make_room` has raised here, if it did."""
    if limit is not None:
        with suppress(ProcessLookupError, PermissionError):  # it has ended, or is another user's already
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)


def keep_from_children() -> None:
    """See that a child gets the three standard streams and nothing else, and that these exist here.

    A pipe that took the number of a missing standard stream would be handed on as that.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # It takes the lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:  # noqa: PLR2004 - standard error
            with suppress(OSError):  # the descriptor that the listing itself used
                os.set_inheritable(int(name), False)
