"""`dump`, alone: a snapshot to bytes and back, and bytes of a server that means ill."""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import pickletools
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from disbatch.kvsstcp.dump import decode_snapshot, encode_snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from disbatch.kvsstcp.store import Newest, Snapshot

counts = st.integers(0, 1 << 40)
texts = st.binary(max_size=20)
tags = st.binary(min_size=4, max_size=4)
newest: st.SearchStrategy[Newest] = st.one_of(st.tuples(tags, texts), st.tuples(tags, st.none() | texts, counts))
snapshots: st.SearchStrategy[Snapshot] = st.tuples(
    st.lists(counts, min_size=4, max_size=6),
    st.lists(st.tuples(texts, counts), max_size=4),
    st.lists(st.tuples(texts, counts, newest), max_size=4),
)

ONE: Snapshot = ([1, 2, 3, 4], [(b"wanted", 1)], [(b"k", 2, (b"ASTR", b"v")), (b"l", 1, (b"JSON", None, 3))])


@given(snapshots)
def test_a_snapshot_comes_back_as_it_was(snapshot: Snapshot) -> None:
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot


@given(snapshots)
@example(ONE)
def test_a_snapshot_is_a_pickle_that_names_no_class_or_function(snapshot: Snapshot) -> None:
    names = {opcode.name for opcode, _, _ in pickletools.genops(encode_snapshot(snapshot))}
    assert not names & {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "REDUCE", "BUILD"}


def test_any_python_3_reads_it() -> None:
    assert max(opcode.proto for opcode, _, _ in pickletools.genops(encode_snapshot(ONE))) <= 3


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_any_protocol_that_has_bytes_as_a_builtin_is_read(protocol: int) -> None:
    pickled = pickle.dumps(ONE, protocol)
    if protocol >= 3:
        assert decode_snapshot(pickled) == ONE
    else:
        with pytest.raises(ValueError, match="it names _codecs"):
            decode_snapshot(pickled)


class Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Dangerous(), "posix.mkdir"),
        ([7, Dangerous()], "posix.mkdir"),
        (collections.OrderedDict(k=1), "collections.OrderedDict"),
        (print, r"(builtins|__builtin__).print"),
        (ValueError("x"), r"(builtins|exceptions).ValueError"),
    ],
)
def test_a_class_or_function_by_name_is_refused_and_never_called(
    value: object, name: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^no pickle of builtin types: it names {name}$"):
        decode_snapshot(pickle.dumps(value, protocol))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pickled", [b"", b".", b"\xff", b"(" * 99, b"Pname\n.", encode_snapshot(ONE)[:-1]])
def test_what_is_no_pickle_is_refused(pickled: bytes) -> None:
    with pytest.raises(ValueError, match=r"^no pickle of builtin types: "):
        decode_snapshot(pickled)


@pytest.mark.parametrize(
    "value",
    [
        7,
        None,
        "text",
        b"bytes",
        {},
        (),
        ([], [], []),
        ([1, 2, 3], [], []),
        ([1, 2, 3, 4], []),
        ([1, 2, 3, "4"], [], []),
        ([1, 2, 3, -4], [], []),
        ([1, 2, 3, 10**5000], [], []),
        ([1, 2, 3, 4], 5, []),
        ([1, 2, 3, 4], [5], []),
        ([1, 2, 3, 4], [("text", 5)], []),
        ([1, 2, 3, 4], [(b"k", None)], []),
        ([1, 2, 3, 4], [], {b"k": 5}),
        ([1, 2, 3, 4], [], [(b"k", 1)]),
        ([1, 2, 3, 4], [], [(b"k", 1, b"ASTR")]),
        ([1, 2, 3, 4], [], [(b"k", "1", (b"ASTR", b"v"))]),
        ([1, 2, 3, 4], [], [("k", 1, (b"ASTR", b"v"))]),
        ([1, 2, 3, 4], [], [(b"k", 1, ("ASTR", b"v"))]),
        ([1, 2, 3, 4], [], [(b"k", 1, (b"ASTR", None))]),
        ([1, 2, 3, 4], [], [(b"k", 1, (b"ASTR", None, None))]),
        ([1, 2, 3, 4], [], [(b"k", 1, (b"ASTR", "v", 1))]),
        ([1, 2, 3, 4], [], [(b"k", 1, (b"ASTR", b"v", 1, 2))]),
    ],
)
def test_a_pickle_of_anything_else_is_no_snapshot(value: object) -> None:
    with pytest.raises(ValueError, match=r"^no snapshot of a store$"):
        decode_snapshot(pickle.dumps(value))


@given(st.binary(max_size=60), st.integers(0, 200))
def test_random_bytes_raise_a_value_error_or_nothing(noise: bytes, place: int) -> None:
    noise = noise.translate(None, b"rp")  # they have Python make room for as many things as the number after them says
    pickled = encode_snapshot(ONE)
    place %= len(pickled)
    for bad in (noise, pickled[:place] + noise + pickled[place + len(noise) :]):
        with contextlib.suppress(ValueError):
            decode_snapshot(bad)
