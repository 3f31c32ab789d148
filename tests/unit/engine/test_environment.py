from __future__ import annotations

import pytest

from disbatch.engine.environment import TaskEnvironment, shared_resources
from disbatch.messages import EngineAdmitted, Lease
from disbatch.records import replace
from disbatch.tasks import NO_REPEAT, PerEngineTask, Phase, Task

SETTINGS = EngineAdmitted(
    directory=b"/data",
    job="Tasks_disBatch_260101000000_007",
    task_source="Tasks",
    cylinders=3,
    cores_per_cylinder=2,
    environment_resources=(),
    per_engine_tasks=(),
    lease=Lease(10.0, 45.0, 6.0),
)
TASK = Task(task_id=12, stream_index=34, repeat_index=5, command=b"true")
START = PerEngineTask(Phase.START, task_id=1, stream_index=2, command=b"true")


def environment(base: dict[bytes, bytes], *, rank: int = 0, shared: tuple[str, ...] = ()) -> TaskEnvironment:
    return TaskEnvironment(base, replace(SETTINGS, environment_resources=shared), rank)


def test_a_task_sees_the_documented_variables() -> None:
    assert environment({}, rank=7).of_task(TASK, cylinder=2) == {
        b"DISBATCH_JOBID": b"Tasks_disBatch_260101000000_007",
        b"DISBATCH_NAMETASKS": b"Tasks",
        b"DISBATCH_STREAM_INDEX": b"34",
        b"DISBATCH_STREAM_INDEX_ZP": b"000034",
        b"DISBATCH_REPEAT_INDEX": b"5",
        b"DISBATCH_REPEAT_INDEX_ZP": b"000005",
        b"DISBATCH_TASKID": b"12",
        b"DISBATCH_TASKID_ZP": b"000012",
        b"DISBATCH_ATTEMPT": b"1",
        b"DISBATCH_CORES_PER_TASK": b"2",
        b"DISBATCH_CYLINDER_RANK": b"2",
        b"DISBATCH_ENGINE_RANK": b"7",
    }


def test_every_attempt_knows_its_number() -> None:
    assert environment({}).of_task(replace(TASK, attempt=3), 0)[b"DISBATCH_ATTEMPT"] == b"3"


def test_a_per_engine_command_belongs_to_no_cylinder_and_no_repeat() -> None:
    seen = environment({}).of_per_engine_task(START)
    assert seen[b"DISBATCH_CYLINDER_RANK"] == b"-1"
    assert seen[b"DISBATCH_REPEAT_INDEX"] == b"-1"
    assert (seen[b"DISBATCH_TASKID"], seen[b"DISBATCH_STREAM_INDEX"]) == (b"1", b"2")
    assert set(seen) == set(environment({}).of_task(TASK, 0))


@pytest.mark.parametrize(
    ("number", "padded"), [(NO_REPEAT, b"-00001"), (0, b"000000"), (999_999, b"999999"), (1_234_567, b"1234567")]
)
def test_numbers_are_padded_to_six_places(number: int, padded: bytes) -> None:
    seen = environment({}).of_task(replace(TASK, repeat_index=number), 0)
    assert seen[b"DISBATCH_REPEAT_INDEX_ZP"] == padded


def test_a_task_sees_the_engines_environment_whatever_its_bytes() -> None:
    base = {b"HOME": b"/home/me", b"NASTY": b"\xff\n=", b"DISBATCH_TASKID": b"of an outer run"}
    seen = environment(base).of_task(TASK, 0)
    assert (seen[b"HOME"], seen[b"NASTY"]) == (b"/home/me", b"\xff\n=")
    assert seen[b"DISBATCH_TASKID"] == b"12"


def test_the_secret_of_the_run_is_in_no_environment() -> None:
    base = {b"KVSSTCP_SECRET": b"secret", b"OTHER": b"x"}
    made = environment(base)
    for seen in (made.of_task(TASK, 0), made.of_per_engine_task(START)):
        assert b"KVSSTCP_SECRET" not in seen
        assert b"secret" not in seen.values()
    assert base == {b"KVSSTCP_SECRET": b"secret", b"OTHER": b"x"}, "the engine's own environment is left alone"


def test_each_cylinder_gets_an_element_of_a_shared_variable() -> None:
    made = environment({b"GPUS": b"a,b,c,d"}, shared=("GPUS",))
    assert made.cylinders == 3
    assert [made.of_task(TASK, cylinder)[b"GPUS"] for cylinder in range(3)] == [b"a", b"b", b"c"]
    assert made.of_per_engine_task(START)[b"GPUS"] == b"a"


def test_fewer_elements_make_fewer_cylinders() -> None:
    made = environment({b"GPUS": b"a,b,c", b"PORTS": b"1,2"}, shared=("GPUS", "PORTS"))
    assert made.cylinders == 2
    last = made.of_task(TASK, 1)
    assert (last[b"GPUS"], last[b"PORTS"]) == (b"b", b"2")


@pytest.mark.parametrize("base", [{}, {b"GPUS": b""}, {b"GPUS": b","}])
def test_a_shared_variable_without_elements_leaves_no_cylinder(base: dict[bytes, bytes]) -> None:
    made = environment({**base, b"PORTS": b"1,2"}, shared=("PORTS", "GPUS"))
    assert made.cylinders == 0
    assert made.empty == ["GPUS"]


def test_empty_elements_do_not_count() -> None:
    assert shared_resources(["A", "B"], {b"A": b",x,,y,"}) == {b"A": [b"x", b"y"], b"B": []}


def test_the_secret_cannot_be_shared_out() -> None:
    assert environment({b"KVSSTCP_SECRET": b"a,b,c"}, shared=("KVSSTCP_SECRET",)).cylinders == 0


def test_names_that_are_not_utf_8_reach_the_task_as_they_are() -> None:
    settings = replace(SETTINGS, job="t\udcff_7", task_source="t\udcff")
    seen = TaskEnvironment({}, settings, 0).of_task(TASK, 0)
    assert (seen[b"DISBATCH_JOBID"], seen[b"DISBATCH_NAMETASKS"]) == (b"t\xff_7", b"t\xff")


def test_one_task_cannot_change_what_another_sees() -> None:
    made = environment({b"A": b"1"})
    made.of_task(TASK, 0)[b"A"] = b"2"
    assert made.of_task(TASK, 0)[b"A"] == b"1"
