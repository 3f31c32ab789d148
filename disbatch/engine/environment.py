"""What a task sees in its environment.

Pure: the engine's own environment comes in as an argument. All names and values are bytes, which is what bash gets.
"""

from __future__ import annotations

from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.tasks import NO_REPEAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from disbatch.messages import EngineAdmitted
    from disbatch.tasks import PerEngineTask, Task

NO_CYLINDER = -1
"""Cylinder rank that a per-engine command sees."""


def shared_resources(names: Sequence[str], base: Mapping[bytes, bytes]) -> dict[bytes, list[bytes]]:
    """Elements of the variables that are shared out to cylinders, one to each; a variable that is not set has none."""
    return {name.encode(): [part for part in base.get(name.encode(), b"").split(b",") if part] for name in names}


class TaskEnvironment:
    """Makes the environment of each task of one engine.

    `cylinders` is how many there are: what the driver allows, and no more than any shared variable has elements.
    `empty` are the names of the shared variables that have none.
    """

    def __init__(self, base: Mapping[bytes, bytes], settings: EngineAdmitted, engine_rank: int) -> None:
        common = {name: value for name, value in base.items() if name != SECRET_VARIABLE.encode()}
        resources = shared_resources(settings.environment_resources, common)
        self.cylinders = min([settings.cylinders, *map(len, resources.values())])
        self.empty = [name.decode() for name, elements in resources.items() if not elements]
        common[b"DISBATCH_JOBID"] = settings.job.encode(errors="surrogateescape")
        common[b"DISBATCH_NAMETASKS"] = settings.task_source.encode(errors="surrogateescape")
        common[b"DISBATCH_CORES_PER_TASK"] = b"%d" % settings.cores_per_cylinder
        common[b"DISBATCH_ENGINE_RANK"] = b"%d" % engine_rank
        self._per_cylinder = [self._of_cylinder(common, resources, rank) for rank in range(self.cylinders)]
        self._per_engine = self._of_cylinder(common, resources, NO_CYLINDER)

    @staticmethod
    def _of_cylinder(
        common: Mapping[bytes, bytes], resources: Mapping[bytes, Sequence[bytes]], rank: int
    ) -> dict[bytes, bytes]:
        shares = {name: elements[max(rank, 0)] for name, elements in resources.items() if elements}
        return {**common, **shares, b"DISBATCH_CYLINDER_RANK": b"%d" % rank}

    def of_task(self, task: Task, cylinder: int) -> dict[bytes, bytes]:
        """Environment of a task in that cylinder."""
        base = self._per_cylinder[cylinder]
        return self._numbered(base, task.stream_index, task.repeat_index, task.task_id, task.attempt)

    def of_per_engine_task(self, task: PerEngineTask) -> dict[bytes, bytes]:
        """Environment of a START or STOP command."""
        return self._numbered(self._per_engine, task.stream_index, NO_REPEAT, task.task_id)

    @staticmethod
    def _numbered(
        base: Mapping[bytes, bytes], stream: int, repeat: int, task_id: int, attempt: int = 1
    ) -> dict[bytes, bytes]:
        return {
            **base,
            b"DISBATCH_STREAM_INDEX": b"%d" % stream,
            b"DISBATCH_STREAM_INDEX_ZP": b"%06d" % stream,
            b"DISBATCH_REPEAT_INDEX": b"%d" % repeat,
            b"DISBATCH_REPEAT_INDEX_ZP": b"%06d" % repeat,
            b"DISBATCH_TASKID": b"%d" % task_id,
            b"DISBATCH_TASKID_ZP": b"%06d" % task_id,
            b"DISBATCH_ATTEMPT": b"%d" % attempt,
        }
