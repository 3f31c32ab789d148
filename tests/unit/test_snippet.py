from __future__ import annotations

import sys

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch.snippet import KEPT, OutputMeter


def metered(*pieces: bytes) -> OutputMeter:
    meter = OutputMeter()
    for piece in pieces:
        meter.feed(piece)
    return meter


def expected(output: bytes) -> bytes:
    """What behaviour.md says: the first 40 bytes, and when there was more, `...` and the last 40 of the rest."""
    head, rest = output[:40], output[40:]
    return head + b"..." + rest[-40:] if rest else head


@pytest.mark.parametrize(
    ("length", "snippet_length"), [(0, 0), (1, 1), (39, 39), (40, 40), (41, 44), (80, 83), (81, 83), (1000, 83)]
)
def test_a_snippet_has_the_documented_length(length: int, snippet_length: int) -> None:
    meter = metered(b"x" * length)
    assert meter.count == length
    assert len(meter.snippet) == snippet_length


def test_head_and_tail_are_the_first_and_the_last_bytes() -> None:
    output = bytes(range(200))
    assert metered(output).snippet == output[:40] + b"..." + output[-40:]


def test_what_the_head_holds_is_not_shown_again_as_tail() -> None:
    assert metered(b"a" * 40 + b"end").snippet == b"a" * 40 + b"...end"


def test_the_snippet_can_be_read_while_output_comes() -> None:
    meter = metered(b"hel")
    assert meter.snippet == b"hel"
    meter.feed(b"lo")
    assert meter.snippet == b"hello"


@given(st.lists(st.binary(max_size=100), max_size=20))
def test_any_chunking_gives_what_the_whole_gives(pieces: list[bytes]) -> None:
    output = b"".join(pieces)
    meter = metered(*pieces)
    assert (meter.count, meter.snippet) == (len(output), expected(output))


def test_its_size_does_not_grow_with_the_output() -> None:
    meter = metered(*[b"x" * 65536] * 50, *[b"y"] * 1000)
    assert meter.count == 50 * 65536 + 1000
    kept = [getattr(meter, name) for name in OutputMeter.__slots__]
    assert sum(map(sys.getsizeof, kept)) < 10 * KEPT
