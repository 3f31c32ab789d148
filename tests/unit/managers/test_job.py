from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch.errors import ResourceError
from disbatch.layout import Node
from disbatch.managers.base import EngineCall, Start, Wishes
from disbatch.managers.job import Job, guarded, node_name, nodes_of, number, slots_of_lines
from disbatch.managers.lsf import Lsf
from disbatch.managers.pbs import Pbs
from disbatch.managers.sge import GridEngine
from disbatch.managers.ssh import SSH_COMMAND
from disbatch.messages import NodeOffer
from tests.managers import JOBS, DocumentedJob
from tests.unit.managers.outside import ENGINE, FILE, LINE, starts, world

if TYPE_CHECKING:
    from pathlib import Path

MANAGERS: dict[str, type[Job]] = {"pbs": Pbs, "lsf": Lsf, "sge": GridEngine}


class Slots(Job):
    """A job whose environment has a node in the name of each variable, and its slots in the value."""

    launcher = "launch"

    def _number(self) -> str:
        return "1"

    def _slots(self) -> list[tuple[str, int]]:
        return [(name, int(value)) for name, value in self._environment.items()]


# What the documentation of each system says.


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_job_as_it_is_documented_is_read(job: DocumentedJob) -> None:
    environment = job.environment(FILE)
    manager = MANAGERS[job.system].made_from(environment, world({FILE: job.file}))
    assert [kind for kind, cls in MANAGERS.items() if cls.found_in(environment)] == [job.system]
    assert tuple((offer.name, offer.cylinders) for offer in manager.offers(Wishes())) == job.laid_out
    assert manager.label == job.label


@pytest.mark.parametrize("manager", MANAGERS.values(), ids=MANAGERS)
def test_no_job_is_no_job(manager: type[Job]) -> None:
    assert not manager.found_in({})
    with pytest.raises(ResourceError, match=r"^this is a job of .*, but [A-Z_]+ is not set \(name hosts with -s\)$"):
        manager.made_from({}, world())


@pytest.mark.parametrize("job", [job for job in JOBS.values() if job.lines and "LSB_MCPU_HOSTS" not in job.variables])
def test_a_file_of_nodes_that_holds_none_is_told(job: DocumentedJob) -> None:
    for text in ("", "\n", " \n\n"):
        with pytest.raises(ResourceError, match="the job's list of nodes is empty"):
            MANAGERS[job.system].made_from(job.environment(FILE), world({FILE: text}))


# What they have in common.


def test_nodes_are_laid_out_as_the_user_wishes() -> None:
    job = Slots({"n1": "3", "n2": "4"}, world())
    assert job.offers(Wishes()) == (NodeOffer("n1", 3, 1), NodeOffer("n2", 4, 1))
    assert job.offers(Wishes(2.0)) == (NodeOffer("n1", 1, 2), NodeOffer("n2", 2, 2))
    assert job.offers(Wishes(None, 1)) == (NodeOffer("n1", 1, 3), NodeOffer("n2", 1, 4))
    assert job.conflicts(Wishes(2.0, 1, fill=True)) == []
    with pytest.raises(
        ResourceError,
        match=r"the 9 cores that a task needs; the largest has 4 \(lower -c, or ask for more cores on a node",
    ):
        job.offers(Wishes(9.0))


@pytest.mark.parametrize(
    ("names", "here"),
    [((), "n1"), (("elsewhere",), "n1"), (("localhost", "n1"), "n1"), (("localhost", "n2"), "N2")],
)
def test_the_engine_on_this_machine_is_started_directly(names: tuple[str, ...], here: str) -> None:
    job = Slots({"n1": "1", "N2": "1"}, world(names=names))
    offers = job.offers(Wishes())
    direct = [offer.name for offer in offers if job.start(offer, ENGINE) == Start((*ENGINE.here, *ENGINE.arguments))]
    assert direct == [here]


@pytest.mark.parametrize("job", ["qsub -l select=2:ncpus=4", "bsub -n 6", "qsub -pe mpi 3"])
def test_without_a_launch_command_ssh_starts_engines(job: str) -> None:
    environment = JOBS[job].environment(FILE)
    manager = MANAGERS[JOBS[job].system].made_from(environment, world({FILE: JOBS[job].file}, commands=["ssh"]))
    assert starts(manager)[1] == Start((*SSH_COMMAND, "--", "n2", f"exec {LINE}"))


@pytest.mark.parametrize(("does", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 255), ("kill $$", 255)])
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_an_engine_that_a_signal_ends_is_told_from_one_that_ends_by_itself(
    tmp_path: Path, shell: str, does: str, status: int
) -> None:
    script = tmp_path / "it's a script"
    script.write_text(f'#!/bin/sh\necho "$2"\n{does}\n')
    script.chmod(0o755)
    line = guarded(EngineCall((), str(script), ('a "$word" of it\'s own',)))
    done = subprocess.run(
        [shell, "-c", line], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ('a "$word" of it\'s own\n', status)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 20)), min_size=1))
def test_no_slot_is_lost(slots: list[tuple[str, int]]) -> None:
    nodes = nodes_of(slots)
    assert [node.name for node in nodes] == list(dict.fromkeys(name for name, _ in slots))
    assert sum(node.cores for node in nodes) == sum(count for _, count in slots)


def test_more_slots_than_any_node_has_are_told() -> None:
    assert nodes_of([("a", 100_000)]) == (Node("a", 100_000),)
    with pytest.raises(ResourceError, match="100001 cores of 'a' are more than any node has"):
        nodes_of([("a", 100_000), ("a", 1)])


def test_each_line_is_a_slot() -> None:
    assert slots_of_lines("n1\n\n n2 \r\nn1") == [("n1", 1), ("n2", 1), ("n1", 1)]


@pytest.mark.parametrize("text", ["-oProxyCommand=x", "a b", "a\x1bb", "a\x00b", "\udcff"])
def test_what_is_no_name_of_a_node_is_told(text: str) -> None:
    with pytest.raises(ResourceError, match="is no name of a node") as error:
        node_name(text)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("text", ["", "0", "-1", "2.5", "two", "²", "100001", "9" * 5000])
def test_what_is_no_number_is_told(text: str) -> None:
    with pytest.raises(ResourceError, match="is no number of slots"):
        number(text, "slots")


@given(st.integers(1, 100_000))
def test_numbers_are_read(value: int) -> None:
    assert number(str(value), "slots") == value
