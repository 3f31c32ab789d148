"""Who may do what in the key-value store of a run: the roles of its clients, and the secret that gives each its rights.

Pure. It must not know how a secret gets to whom.
"""

from __future__ import annotations

from disbatch import messages
from disbatch.kvsstcp.rights import Keys, Rights
from disbatch.records import record


@record
class Credentials:
    """The secrets of a run, one for each role; none of them tells anything of another."""

    engine: bytes
    """Of contexts and engines, which take tasks and report: they put to the driver, and get what is put for them."""
    operator: bytes
    """Of those who may also see and stop what runs: they view the state of the run and its commands, and put orders."""
    program: bytes
    """Of programs that share the store, and may submit tasks: whatever is not between the processes of the run."""
    observer: bytes
    """Of those who may look at the state of the run, and nothing else."""


def rights(credentials: Credentials, run: str) -> dict[bytes, Rights]:
    """What each secret gives the right to in the store of `run` (its job id)."""
    state = Keys(messages.STATE_KEY, messages.END_KEY)
    private = messages.own_keys(run)
    shared = Keys(begin=(b"",), but=(private, messages.STATE_KEY, messages.END_KEY, messages.RUNNING_KEYS))
    return {
        credentials.engine: Rights(
            put=Keys(messages.driver_key(run)), get=Keys(begin=(messages.context_keys(run), messages.engine_keys(run)))
        ),
        credentials.operator: Rights(
            view=Keys(messages.STATE_KEY, messages.END_KEY, begin=(messages.RUNNING_KEYS,)),
            put=Keys(messages.orders_key(run)),
        ),
        credentials.program: Rights(
            put=shared, get=shared, view=Keys(begin=(b"",), but=(private,)), monitor=True, dump=True
        ),
        credentials.observer: Rights(view=state),
    }
