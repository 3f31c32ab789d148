"""Examples of what the driver is told, asks for and records: those that many tests need, and one of any kind."""

from __future__ import annotations

from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from disbatch import messages
from disbatch.driver.events import Settings
from disbatch.records import fields, is_record
from disbatch.statusfile import task_line
from disbatch.tasks import NO_REPEAT, Outcome, Task

VERSION = "1.0"

PLAIN: dict[type, object] = {int: 0, str: "text", bytes: b"bytes", bool: False, float: 1.5, type(None): None}


def example(kind: Any) -> Any:  # noqa: ANN401 - of any type, a value of that type
    """Something of that type, made from the types of its fields: a kind or a field that is new needs nothing here.

    Of a union it is one of the first kind, of a sequence one with one element.
    """
    if get_origin(kind) in (Union, UnionType):
        return example(get_args(kind)[0])
    if get_origin(kind) is tuple:
        return (example(get_args(kind)[0]),)
    if is_record(kind):
        types = get_type_hints(kind)
        return kind(**{name: example(types[name]) for name in fields(kind)})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(iter(kind))
    return PLAIN[kind]


def outcome(return_code: int = 0, elapsed: float = 1.0, *, interrupted: bool = False) -> Outcome:
    return Outcome(
        pid=4711,
        return_code=return_code,
        start=1.0,
        elapsed=elapsed,
        out_bytes=0,
        out_snippet=b"",
        err_bytes=0,
        err_snippet=b"",
        cpu_seconds=0.1,
        peak_memory=1024,
        interrupted=interrupted,
    )


def task(task_id: int, command: bytes = b"true") -> Task:
    return Task(task_id, task_id + 1, NO_REPEAT, command)


def line(task_id: int, return_code: int = 0, command: bytes = b"true") -> bytes:
    """Line of a status file about such a task."""
    return task_line(task(task_id, command), "node", outcome(return_code))


def settings(
    *,
    exit_code: bool = False,
    fail_fast: bool = False,
    startup_only: bool = False,
    requeue: bool = True,
    crash_limit: int = 3,
) -> Settings:
    return Settings(
        VERSION,
        "job",
        "tasks",
        b"/data",
        "run.sh",
        "driver",
        startup_only,
        exit_code=exit_code,
        fail_fast=fail_fast,
        requeue=requeue,
        crash_limit=crash_limit,
    )


def context_came(
    token: str,
    *cylinders: int,
    label: str = "",
    version: str = VERSION,
    environment_resources: tuple[str, ...] = (),
    task_limit: int = 0,
    retires: bool = False,
) -> messages.ContextCame:
    nodes = tuple(messages.NodeOffer(f"{token}{number}", count, 1) for number, count in enumerate(cylinders))
    return messages.ContextCame(
        token, version, "host", 99, label, "SSH", nodes, environment_resources, task_limit, retires
    )


def engine_came(rank: int, version: str = VERSION) -> messages.EngineCame:
    return messages.EngineCame(rank, version, "host", 1)
