from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch import handover
from disbatch.handover import Handover, RunEnd

HANDOVERS = st.builds(
    Handover, st.text(), st.lists(st.text()), everywhere=st.booleans(), secret=st.text(), rerun=st.text()
)
ENDS = st.builds(RunEnd, st.integers(), st.booleans(), st.text(), st.dictionaries(st.text(), st.integers()))


@given(HANDOVERS)
def test_what_is_handed_over_arrives_as_one_line(known: Handover) -> None:
    text = handover.line(known)
    assert text.count(b"\n") == 1
    assert text.endswith(b"\n")
    assert handover.parse(Handover, text) == known


@given(ENDS)
def test_what_is_told_at_the_end_arrives_as_one_line(end: RunEnd) -> None:
    text = handover.line(end)
    assert text.count(b"\n") == 1
    assert handover.parse(RunEnd, text) == end


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"7", b"null", b"{}", b'{"token": 1}', b'{"exit_status": 0, "of_another_version": 1}']
)
def test_anything_else_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        handover.parse(Handover, text)
    with pytest.raises(ValueError, match=r"."):
        handover.parse(RunEnd, text)


def test_a_field_too_many_is_an_error() -> None:
    end = json.loads(handover.line(RunEnd(0, complete=True, words="", counts={})))
    with pytest.raises(ValueError, match="no line of a driver of this version"):
        handover.parse(RunEnd, json.dumps({**end, "more": 1}).encode())
