"""A snapshot of the store as the bytes that answer a dump: a Python pickle of builtin types alone, and back.

Pure. A file of its own because pickle takes long to import and hardly any process dumps.
"""

from __future__ import annotations

import io
import pickle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from disbatch.kvsstcp.store import Snapshot

_PROTOCOL = 3  # the lowest in which bytes are a builtin and not a function by name
_MAX_COUNT = 1 << 64


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return the pickle."""
    return pickle.dumps(snapshot, _PROTOCOL)


def decode_snapshot(pickled: bytes) -> Snapshot:
    """Read the pickle of a server that may be anyone.

    Raises ValueError for bytes that are none of builtin types, and for anything in them that is no snapshot.
    """
    try:
        found = _BuiltinsUnpickler(io.BytesIO(pickled)).load()
    except Exception as error:  # pickle raises whatever the bytes lead it to
        raise ValueError(f"no pickle of builtin types: {error}") from error
    match found:
        case ([_, _, _, _, *_] as counts, [*waiting], [*held]) if (
            all(map(_is_count, counts)) and all(map(_is_waiting, waiting)) and all(map(_is_held, held))
        ):
            snapshot: Snapshot = found
            return snapshot
    raise ValueError("no snapshot of a store")


def _is_count(found: object) -> bool:
    return isinstance(found, int) and 0 <= found < _MAX_COUNT


def _is_waiting(found: object) -> bool:
    match found:
        case (bytes(), waiters):
            return _is_count(waiters)
    return False


def _is_held(found: object) -> bool:
    match found:
        case (bytes(), values, (bytes(), bytes())):
            return _is_count(values)
        case (bytes(), values, (bytes(), bytes() | None, length)):
            return _is_count(values) and _is_count(length)
    return False


class _BuiltinsUnpickler(pickle.Unpickler):
    """Refuses everything that needs a class or a function by name, which is what makes a pickle dangerous."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"it names {module}.{name}")
