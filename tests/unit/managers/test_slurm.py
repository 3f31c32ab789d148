from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch.errors import ResourceError
from disbatch.managers.base import EngineCall, Wishes
from disbatch.managers.slurm import Slurm, counts, expand, srun_environment
from disbatch.messages import NodeOffer
from tests.slurm.environments import ENVIRONMENTS, HOST_NAMES

if TYPE_CHECKING:
    from pathlib import Path

ENGINE = EngineCall(("python", "disbatch"), "/data/a run_dbUtil.sh", ("--rank=0", "--node=n1"))


def offers(environment: str, wishes: Wishes | None = None) -> list[tuple[str, int, int]]:
    """Node, cylinders and cores of each for a real environment."""
    made = Slurm(ENVIRONMENTS[environment]).offers(wishes or Wishes())
    return [(offer.name, offer.cylinders, offer.cores_per_cylinder) for offer in made]


# Layout, in the environments of real jobs.


@pytest.mark.parametrize(
    ("environment", "laid_out"),
    [
        ("sbatch -n 1", [("n1", 1, 1)]),
        ("sbatch -n 6", [("n1", 4, 1), ("n2", 2, 1)]),
        ("sbatch -n 20", [("n1", 4, 1), ("n2", 4, 1), ("n3", 4, 1), ("n4", 8, 1)]),
        ("sbatch -N 2", [("n1", 1, 1), ("n2", 1, 1)]),
        ("sbatch -N 4 --exclusive", [("n1", 4, 1), ("n2", 4, 1), ("n3", 4, 1), ("n4", 8, 1)]),
        ("sbatch -c 2 -n 3", [("n1", 2, 2), ("n2", 1, 2)]),
        ("sbatch -N 2 -c 2", [("n1", 1, 2), ("n2", 1, 2)]),
        ("sbatch -N 2 --ntasks-per-node=2", [("n1", 2, 1), ("n2", 2, 1)]),
        ("sbatch -N 3 -n 6", [("n1", 4, 1), ("n2", 1, 1), ("n3", 1, 1)]),
        ("sbatch -n 2 --gpus-per-task=1", [("n3", 2, 1)]),
        ("sbatch -N 1 --gres=gpu:2", [("n3", 1, 1)]),
        ("salloc -n 6", [("n1", 4, 1), ("n2", 2, 1)]),
        ("salloc -N 2", [("n1", 1, 1), ("n2", 1, 1)]),
    ],
)
def test_each_node_has_the_tasks_that_slurm_was_asked_for(
    environment: str, laid_out: list[tuple[str, int, int]]
) -> None:
    assert offers(environment) == laid_out


@pytest.mark.parametrize(
    ("environment", "wishes", "laid_out"),
    [
        ("sbatch -n 6", Wishes(2.0), [("n1", 2, 2), ("n2", 1, 2)]),
        ("sbatch -n 6", Wishes(4.0), [("n1", 1, 4)]),
        ("sbatch -n 6", Wishes(0.5), [("n1", 4, 1), ("n2", 2, 1)]),
        ("sbatch -n 6", Wishes(0.5, 8), [("n1", 8, 1), ("n2", 4, 1)]),
        ("sbatch -n 6", Wishes(None, 3), [("n1", 3, 1), ("n2", 2, 1)]),
        ("sbatch -n 6", Wishes(None, 1), [("n1", 1, 4), ("n2", 1, 2)]),
        ("sbatch -c 2 -n 3", Wishes(1.0, 4), [("n1", 4, 1), ("n2", 2, 1)]),
        ("sbatch -N 2 --ntasks-per-node=2", Wishes(None, 1), [("n1", 1, 2), ("n2", 1, 2)]),
    ],
)
def test_what_disbatch_is_asked_for_counts_more(
    environment: str, wishes: Wishes, laid_out: list[tuple[str, int, int]]
) -> None:
    assert offers(environment, wishes) == laid_out


def test_fill_takes_all_cores_of_the_job() -> None:
    job = {**ENVIRONMENTS["sbatch -N 2 --exclusive"], "SLURM_TASKS_PER_NODE": "1(x2)"}
    assert [offer.cylinders for offer in Slurm(job).offers(Wishes())] == [1, 1]
    assert [offer.cylinders for offer in Slurm(job).offers(Wishes(fill=True))] == [4, 4]
    assert [offer.cylinders for offer in Slurm(job).offers(Wishes(fill=True, cpus_per_task=2.0))] == [2, 2]


def test_fill_leaves_gpus_to_those_whose_they_are() -> None:
    job = {**ENVIRONMENTS["sbatch -N 1 --gres=gpu:2"], "SLURM_JOB_CPUS_PER_NODE": "4"}
    assert [offer.cylinders for offer in Slurm(job).offers(Wishes(fill=True))] == [1]


def test_a_job_with_nodes_that_are_too_small_uses_the_others() -> None:
    assert offers("sbatch -n 20", Wishes(5.0)) == [("n4", 1, 5)]
    with pytest.raises(
        ResourceError, match=r"no node of job 3 has the 9 cores that a task needs; the largest has 8 \(lower -c, or ask"
    ):
        offers("sbatch -n 20", Wishes(9.0))


def test_counts_of_the_documented_form_are_read() -> None:
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "a[1-4]",
        "SLURM_TASKS_PER_NODE": "40,128(x3)",
        "SLURM_JOB_CPUS_PER_NODE": "40,128(x3)",
    }
    assert [offer.cylinders for offer in Slurm(job).offers(Wishes())] == [40, 128, 128, 128]


def test_a_job_is_called_by_its_number() -> None:
    manager = Slurm(ENVIRONMENTS["sbatch -n 6"])
    assert (manager.system, manager.label) == ("Slurm", "J2")


# What contradicts.


@pytest.mark.parametrize(
    ("environment", "wishes", "lines"),
    [
        ("sbatch -c 2 -n 3", Wishes(2.0), []),
        ("sbatch -c 2 -n 3", Wishes(0.5), ["-c 0.5 counts, and not the 2 that Slurm was asked for"]),
        ("sbatch -n 6", Wishes(3.0, 1), []),
        (
            "sbatch -N 2 --ntasks-per-node=2",
            Wishes(None, 4),
            ["-t 4 counts, and not the 2 that Slurm was asked for"],
        ),
        ("sbatch -n 6", Wishes(fill=True), []),
    ],
)
def test_conflicts_are_told(environment: str, wishes: Wishes, lines: list[str]) -> None:
    assert Slurm(ENVIRONMENTS[environment]).conflicts(wishes) == lines


def test_fill_in_a_job_with_gpus_is_a_conflict() -> None:
    (line,) = Slurm(ENVIRONMENTS["sbatch -n 2 --gpus-per-task=1"]).conflicts(Wishes(fill=True))
    assert line.startswith("--fill has no effect in a job with GPUs")


# Steps.


def test_an_engine_is_a_step_with_a_rank_for_each_cylinder() -> None:
    manager = Slurm(ENVIRONMENTS["sbatch -c 2 -n 3"])
    first, _ = manager.offers(Wishes())
    *options, script, engine, rank, node, place = manager.start(first, ENGINE).command
    assert options[:6] == ["srun", "-N1", "-n2", "-c2", "-w", "n1"]
    assert {"--overlap", "--kill-on-bad-exit=0", "--wait=0"} <= set(options)
    assert "--overcommit" not in options
    assert (script, engine, rank, node) == (ENGINE.script, "--engine", "--rank=0", "--node=n1")
    assert place == "--place-variable=SLURM_LOCALID"


def test_tasks_of_less_than_a_core_share_cores() -> None:
    manager = Slurm(ENVIRONMENTS["sbatch -n 6"])
    assert "--overcommit" in manager.start(NodeOffer("n2", 4, 1), ENGINE).command


def test_steps_are_not_limited_by_what_the_job_was_asked_for() -> None:
    started = Slurm(ENVIRONMENTS["sbatch -N 2 --ntasks-per-node=2"]).start(NodeOffer("n1", 1, 1), ENGINE)
    assert started.environment is not None
    assert "SLURM_NTASKS_PER_NODE" not in started.environment
    assert started.environment["SLURM_JOB_ID"] == ENVIRONMENTS["sbatch -N 2 --ntasks-per-node=2"]["SLURM_JOB_ID"]


def test_srun_is_not_given_the_secret_to_carry() -> None:
    environment = {**ENVIRONMENTS["sbatch -N 2 --ntasks-per-node=2"], "KVSSTCP_SECRET": "s3cret"}
    started = Slurm(environment).start(NodeOffer("n1", 1, 1), ENGINE)
    assert started.environment is not None
    assert "s3cret" not in started.environment.values()


def test_srun_has_defaults_that_the_environment_or_a_file_may_change() -> None:
    assert srun_environment({}, None) == {"SLURM_CPU_BIND": "cores", "SLURM_MPI_TYPE": "none"}
    assert srun_environment({"SLURM_CPU_BIND": "no", "A": "b"}, None) == {
        "SLURM_CPU_BIND": "no",
        "SLURM_MPI_TYPE": "none",
        "A": "b",
    }
    lines = ["# mine", "", "SLURM_MPI_TYPE=pmix", " SLURM_EXPORT_ENV=A,B=c "]
    assert srun_environment({"A": "b"}, lines) == {"A": "b", "SLURM_MPI_TYPE": "pmix", "SLURM_EXPORT_ENV": "A,B=c"}


@pytest.mark.parametrize("line", ["SLURM_MPI_TYPE", "=pmix", "--mpi=pmix", "A B=c"])
def test_a_line_that_is_no_option_of_srun_is_told(line: str) -> None:
    complaint = f"DISBATCH_SLURM_SRUN_OPTIONS_FILE: {line!r} is not of the form NAME=value"
    with pytest.raises(ResourceError, match=f"^{re.escape(complaint)}$"):
        srun_environment({}, [line])


# What Slurm writes down.


@pytest.mark.parametrize(("text", "names"), HOST_NAMES.items())
def test_node_lists_are_expanded_as_slurm_does_it(text: str, names: tuple[str, ...]) -> None:
    assert expand(text) == list(names)


@pytest.mark.parametrize(
    "text", ["", "n[1-2", "n1]", "n[2-1]", "n[a-b]", "n[]", "n[1-99999999999]", "a,,b", "n[1-1000][1-1000]"]
)
def test_what_is_no_node_list_is_told(text: str) -> None:
    with pytest.raises(ResourceError, match=r"is no node list of Slurm's|names more nodes than any cluster has"):
        expand(text)


@pytest.mark.parametrize("text", ["", "a", "4,", "4(x", "4(3)", "-1", "1(x999999999)"])
def test_what_is_no_list_of_counts_is_told(text: str) -> None:
    with pytest.raises(ResourceError, match="is no list of counts of Slurm's"):
        counts(text)


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(1, 5)), min_size=1, max_size=5))
def test_counts_come_back_as_they_were_written(runs: list[tuple[int, int]]) -> None:
    text = ",".join(f"{number}(x{times})" if times > 1 else f"{number}" for number, times in runs)
    assert counts(text) == [number for number, times in runs for _ in range(times)]


@given(st.text("n[]-,0129", max_size=20))
def test_any_text_is_a_list_or_told_in_one_line(text: str) -> None:
    for read in (expand, counts):
        try:
            read(text)
        except ResourceError as error:
            assert str(error).isprintable()  # noqa: PT017 - that it raises nothing else is the other half


@pytest.mark.parametrize("name", ["SLURM_JOB_NODELIST", "SLURM_JOB_CPUS_PER_NODE", "SLURM_TASKS_PER_NODE"])
def test_a_job_that_says_too_little_is_told(name: str) -> None:
    job = {key: value for key, value in ENVIRONMENTS["sbatch -n 6"].items() if key not in (name, "SLURM_NODELIST")}
    with pytest.raises(ResourceError, match=f"this is a job of Slurm, but {name} is not set"):
        Slurm(job)


def test_the_older_names_of_variables_will_do() -> None:
    job = dict(ENVIRONMENTS["sbatch -n 6"])
    del job["SLURM_JOB_ID"], job["SLURM_JOB_NODELIST"]
    assert Slurm(job).label == "J2"
    assert len(Slurm(job).offers(Wishes())) == 2


def test_a_step_is_no_place_to_start_from() -> None:
    (inside,) = (name for name in ENVIRONMENTS if name.startswith("salloc -n 6 > srun"))
    with pytest.raises(
        ResourceError, match=r"contradicts itself: 2 nodes, cores of 2, tasks of 1 \(is disbatch started by a"
    ):
        Slurm(ENVIRONMENTS[inside])


@pytest.mark.parametrize("value", ["0", "two", "-1", "²"])
def test_a_number_that_is_none_is_told(value: str) -> None:
    with pytest.raises(ResourceError, match=r"SLURM_CPUS_PER_TASK=.* is no number of Slurm's"):
        Slurm({**ENVIRONMENTS["sbatch -n 6"], "SLURM_CPUS_PER_TASK": value})


def test_the_command_that_gives_nodes_back_keeps_those_in_use_and_the_node_of_the_context(tmp_path: Path) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/bash\necho "$*" "${SLURM_JOBID-unset}"\n')
    scontrol.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOBID": "7", "ACTIVE": "n2,n3"}

    def said(**more: str) -> str:
        command = ["/bin/bash", "-c", Slurm.give_back]
        return subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, check=True).stdout

    assert said() == "update JobId=7 NodeList=n2,n3 unset\n"
    assert said(DRIVER_NODE="n1") == "update JobId=7 NodeList=n1,n2,n3 unset\n"
    assert said(DRIVER_NODE="n1", ACTIVE="") == "update JobId=7 NodeList=n1 unset\n"


@pytest.mark.parametrize(("name", "own"), [("n2", "n2"), ("another", ""), ("", "")])
def test_the_node_of_the_context_is_the_one_that_slurm_says_it_is_if_it_is_of_the_job(name: str, own: str) -> None:
    environment = {**ENVIRONMENTS["sbatch -n 20"], "SLURMD_NODENAME": name}
    assert Slurm(environment).own_node == own
