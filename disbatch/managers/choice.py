"""Which resource manager a context gets its nodes from: what the user names, or the job that it finds itself in.

The door for managers is the group of entry points `disbatch.contexts`, and ours are in it with all others. But reading
it takes `importlib.metadata`, 40 ms, while an engine starts in 24. So ours are in a table too, and the group is read
when nothing in that says where to run, or when the user asks for a manager that is not in it.
"""

from __future__ import annotations

import os

from disbatch.errors import ResourceError, UsageError
from disbatch.managers.base import Outside
from disbatch.managers.ssh import Ssh
from disbatch.records import record
from disbatch.values import CONTEXT_VARIABLE, SSH_NODES_VARIABLE, ssh_nodes_of_environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from importlib.metadata import EntryPoint

    from disbatch.managers.base import Manager
    from disbatch.values import SshNode

GROUP = "disbatch.contexts"


@record
class BuiltIn:
    """A manager of ours: its module and class, and variables of which the environment of each of its jobs has one."""

    module: str
    name: str
    telltales: tuple[str, ...]


BUILT_IN = {
    "ssh": BuiltIn("disbatch.managers.ssh", "Ssh", (SSH_NODES_VARIABLE,)),
    "slurm": BuiltIn("disbatch.managers.slurm", "Slurm", ("SLURM_JOB_ID", "SLURM_JOBID")),
    "pbs": BuiltIn("disbatch.managers.pbs", "Pbs", ("PBS_JOBID",)),
    "lsf": BuiltIn("disbatch.managers.lsf", "Lsf", ("LSB_JOBID",)),
    "sge": BuiltIn("disbatch.managers.sge", "GridEngine", ("SGE_TASK_ID",)),
}
"""In the order in which they are asked. They are imported when they are needed: a context waits for each import."""


def manager_of(
    environment: Mapping[str, str],
    hosts: Sequence[SshNode],
    names_here: Callable[[Sequence[str]], Collection[str]] = frozenset,
) -> Manager:
    """Manager of the hosts that options or the environment name, else of the job that this process is in.

    `names_here`: see `Outside`. Raises `UsageError` when there is neither, `ResourceError` for what cannot be read.
    """
    if hosts:
        return Ssh(hosts, names_here)
    outside = Outside(_read, lambda command: _is_on_path(command, environment), names_here)
    name = environment.get(CONTEXT_VARIABLE)
    if name and not Ssh.found_in(environment):
        return _asked_for(name, environment).made_from(environment, outside)
    for manager in _managers(environment):
        if manager.found_in(environment):
            return manager.made_from(environment, outside)
    # None of them: that says what the user can do.
    return Ssh(ssh_nodes_of_environment(environment), names_here)


def check_retire_command(manager: Manager, command: str | None) -> None:
    """Raise `UsageError` for a command that is to give nodes back where there are none but hosts that were named."""
    if command is not None and isinstance(manager, Ssh):
        raise UsageError(
            f"--retire-cmd gives back nodes of a job, and {SSH_NODES_VARIABLE} names hosts instead",
            "leave out one of the two",
        )


def _managers(environment: Mapping[str, str]) -> Iterator[type[Manager]]:
    """Managers that may know this environment."""
    for built_in in BUILT_IN.values():
        if any(environment.get(name) for name in built_in.telltales):
            yield _imported(built_in)
    for name, entry_point in sorted(_entry_points().items()):
        if name not in BUILT_IN:
            yield _loaded(entry_point)


def _asked_for(name: str, environment: Mapping[str, str]) -> type[Manager]:
    if name in BUILT_IN:
        manager = _imported(BUILT_IN[name])
    else:
        others = _entry_points()
        if name not in others:
            known = ", ".join([*BUILT_IN, *sorted(set(others) - set(BUILT_IN))])
            raise UsageError(f"{CONTEXT_VARIABLE}: there is no context {name!r}", f"there are {known}")
        manager = _loaded(others[name])
    if not manager.found_in(environment):
        raise ResourceError(f"{CONTEXT_VARIABLE} asks for {name}, but the environment has nothing of {manager.system}")
    return manager


def _imported(built_in: BuiltIn) -> type[Manager]:
    from importlib import import_module  # noqa: PLC0415 - for those that are in a job

    manager: type[Manager] = getattr(import_module(built_in.module), built_in.name)
    return manager


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - 40 ms, see above

    return {entry_point.name: entry_point for entry_point in entry_points(group=GROUP)}


def _loaded(entry_point: EntryPoint) -> type[Manager]:
    try:
        manager: type[Manager] = entry_point.load()
    except Exception as error:  # whatever its author has let happen
        raise ResourceError(
            f"cannot load the context {entry_point.name!r}, {entry_point.value}: {error!r}",
            "name hosts with -s, or mend or remove its package",
        ) from error
    return manager


def _is_on_path(command: str, environment: Mapping[str, str]) -> bool:
    return any(os.access(os.path.join(folder, command), os.X_OK) for folder in os.get_exec_path(environment))


def _read(path: str, what: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        raise ResourceError(f"cannot read {path}, {what}: {error.strerror}") from error
