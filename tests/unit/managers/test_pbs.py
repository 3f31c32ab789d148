from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch.errors import ResourceError
from disbatch.managers.base import Start, Wishes, for_script
from disbatch.managers.pbs import Pbs, cores_of_a_line
from tests.managers import JOBS
from tests.unit.managers.outside import ENGINE, FILE, starts, world

if TYPE_CHECKING:
    from disbatch.managers.job import Job


def manager(job: str, *commands: str) -> Job:
    return Pbs.made_from(JOBS[job].environment(FILE), world({FILE: JOBS[job].file}, commands))


def test_pbsdsh_starts_an_engine_on_the_node_of_a_line() -> None:
    words = (ENGINE.script, "--engine", *ENGINE.arguments)
    for job, index in (("qsub -l select=2:ncpus=4", "1"), ("qsub -l nodes=1:ppn=3+1:ppn=2", "3")):
        first, second = starts(made := manager(job, "pbsdsh"))
        assert first == Start((*ENGINE.here, *ENGINE.arguments))
        environment = for_script(made._environment)
        assert second == Start(("pbsdsh", "-n", index, "--", *words), environment, status_tells=False)


@pytest.mark.parametrize(
    ("lines", "environment", "cores"),
    [
        (["a", "b"], {}, 1),
        (["a", "b"], {"NCPUS": "8"}, 8),
        (["a", "b"], {"PBS_NUM_PPN": "4", "NCPUS": "8"}, 4),
        (["a"], {"NCPUS": "1"}, 1),
        (["a", "a", "b"], {"NCPUS": "8", "PBS_NUM_PPN": "4"}, 1),
    ],
)
def test_a_file_with_each_node_once_does_not_tell_of_cores(
    lines: list[str], environment: dict[str, str], cores: int
) -> None:
    assert cores_of_a_line(lines, environment) == cores


def test_cores_that_are_no_number_are_told() -> None:
    with pytest.raises(ResourceError, match=r"'many' is no number of cores \(NCPUS\)"):
        cores_of_a_line(["a"], {"NCPUS": "many"})


@given(st.lists(st.sampled_from(["n1", "n2", "n3"]), min_size=1))
def test_a_node_has_as_many_cores_as_lines(lines: list[str]) -> None:
    made = Pbs({"PBS_JOBID": "1.head", "PBS_NODEFILE": FILE}, world({FILE: "\n".join(lines)}))
    assert {offer.name: offer.cylinders for offer in made.offers(Wishes())} == {
        name: lines.count(name) for name in lines
    }


@given(st.text("ab-1 \n\t\x00é", max_size=12))
def test_any_file_is_read_or_told_in_one_line(text: str) -> None:
    try:
        Pbs({"PBS_JOBID": "1.head", "PBS_NODEFILE": FILE}, world({FILE: text}))
    except ResourceError as error:
        assert str(error).isprintable()  # noqa: PT017 - that it raises nothing else is the other half


def test_contexts_are_of_pbs() -> None:
    assert Pbs.system == "PBS"
