"""A Slurm allocation: what the environment of a job says of its nodes, and the step that starts an engine on one.

Pure. The facts on the variables are from the manual pages of sbatch and srun, and from allocations of Slurm 22.05. It
must not know how a step is watched, nor what runs in it.
"""

from __future__ import annotations

import re

from disbatch.errors import ResourceError
from disbatch.layout import cylinders_of
from disbatch.managers.base import Start, for_script
from disbatch.messages import NodeOffer
from disbatch.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from disbatch.managers.base import EngineCall, Outside, Wishes

SRUN_OPTIONS_VARIABLE = "DISBATCH_SLURM_SRUN_OPTIONS_FILE"

SRUN_DEFAULTS = {"SLURM_CPU_BIND": "cores", "SLURM_MPI_TYPE": "none"}
"""What srun finds in its environment where no file of options says otherwise."""

OF_STEP_ALONE = ("SLURM_CPU_BIND", "SLURM_CPU_BIND_LIST", "SLURM_CPU_BIND_TYPE", "SLURM_CPU_BIND_VERBOSE")
"""What srun tells a step of its binding. A task that calls srun would hand it on, in a form that srun may not read."""

GIVE_BACK = (
    'env -u SLURM_JOBID scontrol update JobId="$SLURM_JOBID" NodeList="${DRIVER_NODE:+$DRIVER_NODE${ACTIVE:+,}}$ACTIVE"'
)
"""Shrinks the job to the nodes that it needs.

With SLURM_JOBID in its environment scontrol would leave scripts behind that tell a shell of it. A job that has shrunk
can do so again when slurmdbd has taken note, for which slurmctld waits 5 s; without one it never can.
"""

PLACE = "--place-variable=SLURM_LOCALID"
"""What an engine's processes are told by which of them is which."""

MOST_NODES = 100_000
"""What lies beyond is no node list but a mistake, and would take memory without end."""

_COUNT = re.compile(r"(\d+)(?:\(x(\d+)\))?")
_GPU_VARIABLES = ("SLURM_JOB_GPUS", "SLURM_GPUS", "SLURM_GPUS_ON_NODE", "SLURM_GPUS_PER_NODE", "SLURM_GPUS_PER_TASK")


@record
class AllocatedNode:
    """A node of a job: its name, how many of its cores are the job's, how many tasks Slurm would start there."""

    name: str
    cores: int
    tasks: int


@record
class Allocation:
    """A job as its environment describes it; None for what was not asked of Slurm."""

    job: str
    nodes: tuple[AllocatedNode, ...]
    cpus_per_task: int | None
    tasks_per_node: int | None
    has_gpus: bool


def job_of(environment: Mapping[str, str]) -> str:
    """Id of the job that this environment belongs to, empty outside of any."""
    return environment.get("SLURM_JOB_ID") or environment.get("SLURM_JOBID") or ""


def allocation(environment: Mapping[str, str]) -> Allocation:
    """Allocation of a job from the environment of its script, or of what salloc starts.

    Raises `ResourceError` for one that says too little, or in a form that cannot be read.
    """
    names = expand(_wanted(environment, "SLURM_JOB_NODELIST", "SLURM_NODELIST"))
    cores = counts(_wanted(environment, "SLURM_JOB_CPUS_PER_NODE"))
    tasks = counts(_wanted(environment, "SLURM_TASKS_PER_NODE"))
    if len(cores) != len(names) or len(tasks) != len(names):
        raise ResourceError(
            f"Slurm's environment contradicts itself: {len(names)} nodes, cores of {len(cores)}, tasks of {len(tasks)}",
            "is disbatch started by a step of the job (srun)? start it from the job's script, or from salloc's shell",
        )
    return Allocation(
        job=job_of(environment),
        nodes=tuple(AllocatedNode(*node) for node in zip(names, cores, tasks, strict=True)),
        cpus_per_task=_number(environment, "SLURM_CPUS_PER_TASK"),
        tasks_per_node=_number(environment, "SLURM_NTASKS_PER_NODE"),
        has_gpus=any(environment.get(name) for name in _GPU_VARIABLES),
    )


def _wanted(environment: Mapping[str, str], *names: str) -> str:
    for name in names:
        if environment.get(name):
            return environment[name]
    raise ResourceError(
        f"this is a job of Slurm, but {names[0]} is not set", "name hosts with -s, or start it by sbatch"
    )


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ResourceError(f"{name}={text!r} is no number of Slurm's", "unset it, or say what you want with -c and -t")
    return int(text)


def counts(text: str) -> list[int]:
    """Numbers of a list in which `128(x3)` is 128 three times; raises `ResourceError`."""
    result: list[int] = []
    for entry in text.split(","):
        match = _COUNT.fullmatch(entry)
        if match is None or len(result) + int(match[2] or 1) > MOST_NODES:
            raise ResourceError(f"{text!r} is no list of counts of Slurm's")
        result += [int(match[1])] * int(match[2] or 1)
    return result


def expand(text: str) -> list[str]:
    """Names of a node list such as `login,n[1-3,07-09]x`, in its order; raises `ResourceError`."""
    result: list[str] = []
    for entry in _entries(text):
        result += _expanded(entry, text)
        if len(result) > MOST_NODES:
            raise ResourceError(f"{text!r} names more nodes than any cluster has")
    return result


def _entries(text: str) -> Iterator[str]:
    """Parts of a node list between those commas that are in no bracket."""
    depth = begin = 0
    for place, character in enumerate(text):
        depth += (character == "[") - (character == "]")
        if character == "," and not depth:
            yield text[begin:place]
            begin = place + 1
    yield text[begin:]


def _expanded(entry: str, text: str) -> list[str]:
    match = re.fullmatch(r"([^][,]*)(?:\[([0-9,-]+)\](.*))?", entry)
    if match is None or not entry:
        raise ResourceError(f"{text!r} is no node list of Slurm's")
    head, ranges, rest = match.groups()
    if ranges is None:
        return [head]
    tails = _expanded(rest, text) if rest else [""]
    numbers = [number for part in ranges.split(",") for number in _numbers(part, text)]
    return [f"{head}{number}{tail}" for number in numbers for tail in tails]


def _numbers(part: str, text: str) -> Iterator[str]:
    first, dash, last = part.partition("-")
    last = last if dash else first
    if not (first.isdigit() and last.isdigit() and 0 <= int(last) - int(first) < MOST_NODES):
        raise ResourceError(f"{text!r} is no node list of Slurm's")
    return (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))


class Slurm:
    """The allocation that `environment` tells of; `srun_options` are the lines of the user's file, None without one.

    Raises `ResourceError` for an environment or a line that cannot be read.
    """

    system = "Slurm"
    # To TERM srun answers by killing the ranks at once; INT it passes on.
    ends_by = ("SIGINT", "SIGTERM", "SIGKILL")
    give_back = GIVE_BACK

    @classmethod
    def found_in(cls, environment: Mapping[str, str]) -> bool:
        """See `Manager`."""
        return bool(job_of(environment))

    @classmethod
    def made_from(cls, environment: Mapping[str, str], outside: Outside) -> Slurm:
        """See `Manager`."""
        path = environment.get(SRUN_OPTIONS_VARIABLE)
        return cls(environment, outside.read(path, "the options of srun").splitlines() if path else None)

    def __init__(self, environment: Mapping[str, str], srun_options: Sequence[str] | None = None) -> None:
        self._job = allocation(environment)
        self._srun_environment = srun_environment(for_script(environment), srun_options)
        self.label = f"J{self._job.job}"
        here = environment.get("SLURMD_NODENAME", "")
        self.own_node = here if any(node.name == here for node in self._job.nodes) else ""

    def offers(self, wishes: Wishes) -> tuple[NodeOffer, ...]:
        """See `Manager`. What the user asks of disbatch counts more than what was asked of Slurm."""
        job = self._job
        cpus = wishes.cpus_per_task if wishes.cpus_per_task is not None else job.cpus_per_task
        limit = wishes.tasks_per_node if wishes.tasks_per_node is not None else job.tasks_per_node
        fills = wishes.fill and not job.has_gpus
        offers = []
        for node in job.nodes:
            wanted = node.tasks if limit is None and not fills else limit
            cylinders = cylinders_of(node.cores, cpus, wanted)
            if cylinders:
                share = node.cores // cylinders if cpus is None else int(cpus)
                offers.append(NodeOffer(node.name, cylinders, max(1, share)))
        if not offers:
            largest = max(node.cores for node in job.nodes)
            raise ResourceError(
                f"no node of job {job.job} has the {cpus or 1:g} cores that a task needs; the largest has {largest}",
                "lower -c, or ask Slurm for more cores",
            )
        return tuple(offers)

    def conflicts(self, wishes: Wishes) -> list[str]:
        """See `Manager`."""
        job = self._job
        result = []
        for flag, here, there in (
            ("-c", wishes.cpus_per_task, job.cpus_per_task),
            ("-t", wishes.tasks_per_node, job.tasks_per_node),
        ):
            if here is not None and there not in (None, here):
                result.append(f"{flag} {here:g} counts, and not the {there} that Slurm was asked for")
        if wishes.fill and job.has_gpus:
            result.append(
                "--fill has no effect in a job with GPUs: Slurm shares them out to the tasks it was asked for"
            )
        return result

    def start(self, offer: NodeOffer, engine: EngineCall) -> Start:
        """See `Manager`: a step with a rank for each cylinder.

        It counts no cores (--overlap), so that a task may call srun itself. A rank that ends takes no other with it.
        """
        size = ["-N1", f"-n{offer.cylinders}", f"-c{offer.cores_per_cylinder}", "-w", offer.name]
        cores = next(node.cores for node in self._job.nodes if node.name == offer.name)
        if offer.cylinders * offer.cores_per_cylinder > cores:
            size.append("--overcommit")  # tasks of a part of a core each: Slurm knows whole ones
        alone = ["--overlap", "--kill-on-bad-exit=0", "--wait=0", "--input=none"]
        without = [word for name in OF_STEP_ALONE for word in ("-u", name)]
        command = ["srun", *size, *alone, "env", *without, engine.script, "--engine", *engine.arguments, PLACE]
        return Start(tuple(command), self._srun_environment, status_tells=False)


def srun_environment(environment: Mapping[str, str], options: Sequence[str] | None) -> dict[str, str]:
    """Environment for srun; `options` are the lines NAME=value of the user's file, which replace our defaults.

    Raises `ResourceError` for a line of another form.
    """
    # What it asks of the job is no limit of our steps, and srun takes it for one.
    result = {name: value for name, value in environment.items() if name != "SLURM_NTASKS_PER_NODE"}
    if options is None:
        return {**SRUN_DEFAULTS, **result}
    for line in options:
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not equals or not name.isidentifier():
            raise ResourceError(f"{SRUN_OPTIONS_VARIABLE}: {stripped!r} is not of the form NAME=value")
        result[name] = value
    return result
