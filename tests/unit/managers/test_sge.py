from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch.errors import ResourceError
from disbatch.managers.base import Start
from disbatch.managers.job import guarded
from disbatch.managers.sge import GridEngine, slots_of_queues
from tests.managers import JOBS
from tests.unit.managers.outside import ENGINE, FILE, starts, world


def test_qrsh_starts_an_engine_through_a_shell_and_in_the_same_environment() -> None:
    job = JOBS["qsub -pe mpi 3"]
    environment = {**job.environment(FILE), "MINE": "too"}
    first, second = starts(GridEngine.made_from(environment, world({FILE: job.file}, ["qrsh"])))
    assert first == Start((*ENGINE.here, *ENGINE.arguments))
    assert second == Start(("qrsh", "-inherit", "-V", "n2", guarded(ENGINE)), environment, status_tells=False)


def test_grid_engine_is_not_told_the_secret_of_the_run() -> None:
    job = JOBS["qsub -pe mpi 3"]
    environment = {**job.environment(FILE), "KVSSTCP_SECRET": "secret"}
    second = starts(GridEngine(environment, world({FILE: job.file}, ["qrsh"])))[1]
    assert second.environment == job.environment(FILE)


def test_a_job_that_cannot_be_told_from_another_program_s_is_none() -> None:
    assert not GridEngine.found_in({"JOB_ID": "7", "PE_HOSTFILE": FILE})


@given(
    st.lists(st.tuples(st.sampled_from(["n1", "n2"]), st.integers(1, 99), st.sampled_from(["UNDEFINED", "0,0:0,1"])))
)
def test_lines_come_back_as_they_were_written(lines: list[tuple[str, int, str]]) -> None:
    text = "".join(f"{name} {slots} all.q@{name} {binding}\n" for name, slots, binding in lines)
    assert slots_of_queues(text) == [(name, slots) for name, slots, _ in lines]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("n1", "'n1' is no line of a host file of Grid Engine's"),
        ("n1 all.q@n1", "'all.q@n1' is no number of slots"),
        ("n1 2 q U\n-x 2 q U", "'-x' is no name of a node"),
    ],
)
def test_what_is_no_host_file_is_told(text: str, complaint: str) -> None:
    with pytest.raises(ResourceError, match=complaint):
        slots_of_queues(text)


@given(st.text("ab-12 \n\x00é", max_size=12))
def test_any_file_is_read_or_told_in_one_line(text: str) -> None:
    try:
        slots_of_queues(text)
    except ResourceError as error:
        assert str(error).isprintable()  # noqa: PT017 - that it raises nothing else is the other half
