from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch.errors import ResourceError
from disbatch.managers.base import Start, Wishes
from disbatch.managers.job import guarded
from disbatch.managers.lsf import Lsf, slots_of_pairs
from tests.managers import JOBS
from tests.unit.managers.outside import ENGINE, starts, world


def test_blaunch_starts_an_engine_through_a_shell() -> None:
    job = JOBS["bsub -n 6"].variables
    first, second = starts(Lsf.made_from({**job, "KVSSTCP_SECRET": "s3cret"}, world(commands=["blaunch"])))
    assert first == Start((*ENGINE.here, *ENGINE.arguments))
    assert second == Start(("blaunch", "-z", "n2", guarded(ENGINE)), {**job}, status_tells=False)


def test_the_variable_counts_more_than_the_file() -> None:
    environment = {"LSB_JOBID": "1", "LSB_MCPU_HOSTS": "a 2", "LSB_DJOB_HOSTFILE": "/not/there"}
    assert [offer.name for offer in Lsf(environment, world()).offers(Wishes())] == ["a"]


@given(st.lists(st.tuples(st.sampled_from(["n1", "n2", "host.example.org"]), st.integers(1, 999))))
def test_pairs_come_back_as_they_were_written(pairs: list[tuple[str, int]]) -> None:
    assert slots_of_pairs(" ".join(f"{name} {slots}" for name, slots in pairs)) == pairs


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("n1", "is no list of nodes and slots of LSF's"),
        ("n1 2 n2", "is no list of nodes and slots of LSF's"),
        ("n1 n2", "'n2' is no number of slots"),
        ("n1 0", "'0' is no number of slots"),
        ("-n 1", "'-n' is no name of a node"),
    ],
)
def test_what_is_no_list_is_told(text: str, complaint: str) -> None:
    with pytest.raises(ResourceError, match=complaint):
        slots_of_pairs(text)


@given(st.text("ab-12 \n\x00é", max_size=12))
def test_any_text_is_read_or_told_in_one_line(text: str) -> None:
    try:
        slots_of_pairs(text)
    except ResourceError as error:
        assert str(error).isprintable()  # noqa: PT017 - that it raises nothing else is the other half
