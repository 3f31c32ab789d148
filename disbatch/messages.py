"""Everything that the processes of a run say to one another, and how it is coded.

Pure. A message is a value put under a key of the run's key-value store, coded with msgpack under a tag of its own: a
list of the message's name and its fields in their order. What is declared here is also what is checked on arrival:
bytes that do not fit raise `MessageError` and change nothing. It must not know who sends or what follows.
"""

from __future__ import annotations

from operator import attrgetter

import msgpack

from disbatch import __version__
from disbatch.errors import MessageError
from disbatch.records import fields, record
from disbatch.tasks import Outcome, PerEngineTask, Phase, Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    _MessageType = TypeVar("_MessageType", bound=type)

REPORT_DELAY = 0.025
"""Seconds that the reports of an engine may wait for others while tasks wait there for a free cylinder."""

TAG = b"DBMP"
"""Encoding tag of a message in the key-value store."""

STATE_KEY = b"DisBatch status"
"""Where the driver posts the state of the run; from the documentation of the existing tool."""

END_KEY = b"DisBatch end"
"""Where the driver puts the state in which the run has ended, for those who wait for that."""

RUNNING_KEYS = b"DisBatch running"
"""What runs now, made anew for each who looks: in the whole run, or with a blank and a rank behind it on one engine."""

_UNDECODABLE = "surrogateescape"
"""How text holds bytes that are no UTF-8: file names, and with them a run's name, may have some."""

_encoders: dict[type, tuple[str, Callable[[Any], tuple[Any, ...]]]] = {}
_decoders: dict[str, Callable[[Any], Any]] = {}


def own_keys(run: str) -> bytes:
    """Beginning of all keys under which the processes of `run` (its job id) speak with one another."""
    return f"disbatch {run} ".encode(errors=_UNDECODABLE)


def driver_key(run: str) -> bytes:
    """Key under which contexts and engines put their messages to the driver of `run`."""
    return own_keys(run) + b"driver"


def orders_key(run: str) -> bytes:
    """Key under which those who may stop what runs put their orders to the driver."""
    return own_keys(run) + b"orders"


def context_keys(run: str) -> bytes:
    """Beginning of the keys of contexts."""
    return own_keys(run) + b"context "


def context_name(token: str) -> str:
    """Name of a context among the members of a run, by the token that it goes by from its coming to its end."""
    return f"context {token}"


def engine_keys(run: str) -> bytes:
    """Beginning of the keys of engines."""
    return own_keys(run) + b"engine "


def engine_name(rank: int) -> str:
    """Name of the engine with that rank among the members of a run."""
    return f"engine {rank}"


def member_key(run: str, name: str, connection: int = 0) -> bytes:
    """Key of a member of the run, by its name: another one for each of its connections, which are counted from 0."""
    again = f" {connection}" if connection else ""
    return own_keys(run) + f"{name}{again}".encode(errors=_UNDECODABLE)


def _checked(*kinds: type) -> Callable[[Any], Any]:
    expected = " or ".join(kind.__name__ for kind in kinds)

    def check(value: Any) -> Any:  # noqa: ANN401 - anything may arrive
        if type(value) not in kinds:  # by isinstance() a bool would do for an int
            raise MessageError(f"a {type(value).__name__} arrived where {expected} was expected")
        return value

    return check


_list = _checked(list)


def _sequence(decode_element: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def decode_all(value: Any) -> tuple[Any, ...]:  # noqa: ANN401 - anything may arrive
        return tuple(map(decode_element, _list(value)))

    return decode_all


_phases = {phase.value: phase for phase in Phase}


def _phase(value: Any) -> Phase:  # noqa: ANN401 - anything may arrive
    # Not by way of Phase(): the error that it makes shows the value, which fails when that is nested deeply.
    if type(value) is not str or value not in _phases:
        raise MessageError(f"a {type(value).__name__} arrived that is no phase")
    return _phases[value]


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "str": (str,),
    "bytes": (bytes,),
}
"""Fields of which nothing but the type is checked."""

_FIELD_DECODERS: dict[str, Callable[[Any], Any]] = {
    **{kind: _checked(*types) for kind, types in _TYPES.items()},
    "Phase": _phase,
    "tuple[int, ...]": _sequence(_checked(int)),
    "tuple[str, ...]": _sequence(_checked(str)),
}


def _record(cls: _MessageType) -> _MessageType:
    """Make `cls` a part that messages may hold: coded as the list of its fields."""
    names = fields(cls)
    kinds = [cls.__annotations__[name] for name in names]
    decoders = [_FIELD_DECODERS[kind] for kind in kinds]
    count = len(names)
    seen: set[tuple[type, ...]] = set()
    types_tell_all = _TYPES.keys() >= set(kinds)

    def decode_fields(value: Any) -> Any:  # noqa: ANN401 - anything may arrive
        if not isinstance(value, list) or len(value) != count:
            raise MessageError(f"{cls.__name__} has {count} fields; what arrived does not")
        types = tuple(map(type, value))
        if types in seen:
            return cls(*value)
        decoded = cls(*[decode_field(part) for decode_field, part in zip(decoders, value, strict=True)])
        if types_tell_all:
            seen.add(types)
        return decoded

    getter = attrgetter(*names) if count > 1 else None
    _encoders[cls] = ("", getter or (lambda value: tuple(getattr(value, name) for name in names)))
    _FIELD_DECODERS[cls.__name__] = decode_fields
    _FIELD_DECODERS[f"tuple[{cls.__name__}, ...]"] = _sequence(decode_fields)
    return cls


def _message(cls: _MessageType) -> _MessageType:
    """Make `cls` a message: coded as its name and its fields."""
    _record(cls)
    _encoders[cls] = (cls.__name__, _encoders[cls][1])
    _decoders[cls.__name__] = _FIELD_DECODERS[cls.__name__]
    return cls


_record(Task)
_record(PerEngineTask)
_record(Outcome)


# What an offer, an order and a report consist of.


@_record
@record
class Lease:
    """For how long a member of the run counts on the driver, and the driver on it, without hearing of one another.

    All in seconds. It sends a `Beat` every `period`. When `limit` has passed since it sent the last one that was
    answered, nothing of it may run any longer than another `grace`; the driver waits for more than both.
    """

    period: float
    limit: float
    grace: float


@_record
@record
class NodeOffer:
    """A node that a context can start an engine on, with its cylinders and the whole cores of each."""

    name: str
    cylinders: int
    cores_per_cylinder: int


@_record
@record
class TaskReport:
    """One task has ended, with its outcome."""

    task_id: int
    outcome: Outcome


# Between the driver and a member, a context or an engine, about their conversation itself; see `line`.


@_message
@record
class Beat:
    """So many messages of yours have come. A member says with it when it sent this, by its own clock (s).

    The driver's answer tells it the same time.
    """

    received: int
    sent_at: float


@_message
@record
class Rejoined:
    """The member of that name has another connection, its `connection`th; so many messages had come over the others."""

    name: str
    connection: int
    received: int


@_message
@record
class Resumed:
    """The driver knows of the new connection; so many messages had come over the others."""

    received: int


# From a context to the driver.


@_message
@record
class ContextCame:
    """A context has come, can start these engines, and waits for an answer under the key of its token.

    `label` is empty where the user gave none; `version` is that of its disbatch; `environment_resources` are the names
    of variables whose elements its engines share out to their cylinders; `task_limit` is how many tasks it is to be
    given at most, 0 for any number. `retires`: whether it gives back nodes whose engines have ended, so that an engine
    that nothing is left for had better end.
    """

    token: str
    version: str
    host: str
    pid: int
    label: str
    system: str
    nodes: tuple[NodeOffer, ...]
    environment_resources: tuple[str, ...]
    task_limit: int
    retires: bool = False


@_message
@record
class ContextFailed:
    """A context ends before it could offer anything; the reason is for the user."""

    token: str
    reason: str
    hint: str


@_message
@record
class EngineProcessEnded:
    """The process that a context started for an engine has ended: exit status (-n for signal n), last words.

    `certain`: whether that status tells, if it is none of a signal or of ssh, that nothing of the engine runs any more.
    """

    engine_rank: int
    return_code: int
    last_words: str
    certain: bool = True


@_message
@record
class ContextToldToEnd:
    """Somebody has told the context to end: its engines are to be cancelled, and what they run goes to others."""

    context_rank: int


@_message
@record
class ContextToldToDrain:
    """Somebody has told the context to drain: that is to be done which `StopContext` asks for."""

    context_rank: int


@_message
@record
class ContextLeft:
    """All that the context started has ended, and it ends too."""

    context_rank: int


# From the driver to a context.


@_message
@record
class ContextAdmitted:
    """The context belongs to the run: its rank and label, and a rank for the engine of each node it offered."""

    context_rank: int
    label: str
    engine_ranks: tuple[int, ...]
    lease: Lease


@_message
@record
class ContextRefused:
    """The run has no use for the context; with `run_done` because it is over, which is no error."""

    run_done: bool
    reason: str


@_message
@record
class EngineHasCome:
    """An engine of the context has joined the run, or has tried to."""

    engine_rank: int


@_message
@record
class EndContext:
    """End: kill the launchers of `abandoned` engines, which never came, and wait for the others.

    `run_over`: whether all others end too.
    """

    abandoned: tuple[int, ...]
    run_over: bool = False


# From the driver to contexts and engines.


@_message
@record
class DriverPauses:
    """The driver has been stopped, as by Ctrl-Z: it is silent until it says that it goes on, and has not gone."""


@_message
@record
class DriverGoesOn:
    """The driver has been let go on, and is no longer silent."""


# From an engine to the driver.


@_message
@record
class EngineCame:
    """An engine runs and waits for its settings."""

    engine_rank: int
    version: str
    host: str
    pid: int


@_message
@record
class EngineUnfit:
    """An engine cannot serve on its node, and ends; the reason is for the user."""

    engine_rank: int
    reason: str


@_message
@record
class EngineToldToEnd:
    """Somebody has told the engine to end: what it runs goes to others."""

    engine_rank: int


@_message
@record
class EngineReady:
    """The START commands have ended; the engine takes tasks, `cylinders` of them at once."""

    engine_rank: int
    cylinders: int


@_message
@record
class CylindersChanged:
    """Processes of the engine's cylinders have gone or come: from now on it takes that many tasks at once."""

    engine_rank: int
    cylinders: int


@_message
@record
class CylindersFreed:
    """The bash of these tasks has ended, but background processes of theirs hold back the reports for a while."""

    engine_rank: int
    task_ids: tuple[int, ...]


@_message
@record
class TasksEnded:
    """Tasks have ended, in the order in which they did."""

    engine_rank: int
    reports: tuple[TaskReport, ...]


@_message
@record
class EngineToldToDrain:
    """Somebody has told the engine to drain: that is to be done which `StopEngine` asks for."""

    engine_rank: int


@_message
@record
class TasksReturned:
    """These tasks were waiting for a cylinder; the engine will not run them."""

    engine_rank: int
    task_ids: tuple[int, ...]


@_message
@record
class PerEngineTaskEnded:
    """A START or STOP command of the engine has ended."""

    engine_rank: int
    task: PerEngineTask
    outcome: Outcome


@_message
@record
class EngineCleared:
    """The keeper of an engine that was killed has ended all that it left behind."""

    engine_rank: int


@_message
@record
class EngineLeft:
    """The engine has nothing running and has reported everything; it ends."""

    engine_rank: int


# From the driver to an engine.


@_message
@record
class EngineAdmitted:
    """What an engine must know of the run before it can run a task.

    `directory` is the driver's working directory, `job` the last component of the unique id, `task_source` the base
    name of the task file, `environment_resources` the names of variables whose elements are shared out to cylinders.
    """

    directory: bytes
    job: str
    task_source: str
    cylinders: int
    cores_per_cylinder: int
    environment_resources: tuple[str, ...]
    per_engine_tasks: tuple[PerEngineTask, ...]
    lease: Lease


@_message
@record
class EngineRefused:
    """The run has no use for the engine, which ends."""

    reason: str


@_message
@record
class RunTasks:
    """Run these, in this order, as cylinders are free."""

    tasks: tuple[Task, ...]


@_message
@record
class ReturnTasks:
    """Give back the tasks that wait for a cylinder: others can start them at once."""


@_message
@record
class FinishEngine:
    """Take no more tasks; when those you have are done, run the STOP commands and leave."""


@_message
@record
class CancelEngine:
    """End the running tasks (TERM, then KILL after `grace` seconds), forget those not started, then finish.

    Without `stop_commands` leave without running them; it may follow on one that was gentler.
    """

    grace: float
    stop_commands: bool


# From a rank to its engine, besides what an engine tells the driver.


@_message
@record
class RankCame:
    """The process of that place runs, and waits for its settings."""

    place: int


# What an operator may tell the driver.


@_message
@record
class StopEngine:
    """The engine is to finish what runs there and take no more; with `now` that is ended, and runs again elsewhere."""

    engine_rank: int
    now: bool


@_message
@record
class StopContext:
    """The same for all engines of a context, and then the context itself."""

    context_rank: int
    now: bool


FromEngine = (
    EngineCame
    | EngineUnfit
    | EngineToldToEnd
    | EngineReady
    | CylindersChanged
    | CylindersFreed
    | EngineToldToDrain
    | TasksEnded
    | TasksReturned
    | PerEngineTaskEnded
    | EngineLeft
)
ToDriver = (
    ContextCame
    | ContextFailed
    | EngineProcessEnded
    | EngineCleared
    | ContextToldToEnd
    | ContextToldToDrain
    | ContextLeft
    | FromEngine
    | Beat
    | Rejoined
)
Order = StopEngine | StopContext
ToBoth = DriverPauses | DriverGoesOn
ToContext = ContextAdmitted | ContextRefused | EngineHasCome | EndContext | ToBoth
ToEngine = EngineAdmitted | EngineRefused | RunTasks | ReturnTasks | FinishEngine | CancelEngine | ToBoth
ToMember = ToContext | ToEngine | Beat | Resumed
FromRank = RankCame | FromEngine
ToRank = EngineAdmitted | EngineRefused | RunTasks | CancelEngine | FinishEngine
Message = ToDriver | Order | ToMember | RankCame


def _encode_record(value: Any) -> Any:  # noqa: ANN401 - msgpack hands over what it does not know
    return _encoders[type(value)][1](value)


def encode(message: Message) -> bytes:
    """Bytes of a message."""
    name, values = _encoders[type(message)]
    packed: bytes = msgpack.packb((name, *values(message)), default=_encode_record, unicode_errors=_UNDECODABLE)
    return packed


def decode(data: bytes, tag: bytes = TAG) -> Message:
    """Message of these bytes, which came with that tag; raises `MessageError` when they are none."""
    _check_tag(tag)
    try:
        parts = msgpack.unpackb(data, unicode_errors=_UNDECODABLE)
    except Exception as error:
        raise _no_message(data) from error
    return _of_parts(parts, data)


def decode_all(data: bytes, tag: bytes = TAG) -> list[Message]:
    """Messages whose bytes stand one behind another in `data`, one at least; raises as `decode` does."""
    _check_tag(tag)
    found: list[Message] = []
    rest = data
    while rest or not found:
        try:
            parts, rest = msgpack.unpackb(rest, unicode_errors=_UNDECODABLE), b""
        except msgpack.ExtraData as more:
            parts, rest = more.unpacked, more.extra
        except Exception as error:
            raise _no_message(data) from error
        found.append(_of_parts(parts, data))
    return found


def newcomer(data: bytes) -> EngineCame | ContextCame | None:
    """Who has come that does not speak this version's language, so that it can be refused; None for anything else.

    `data` is no message. In every version the first that an engine or context says begins with who it is, its version,
    and its host.
    """
    try:
        name, who, version, host, *_ = msgpack.unpackb(data, unicode_errors=_UNDECODABLE)
    except Exception:  # noqa: BLE001 - anything may arrive, and raise anything
        return None
    if version == __version__ or type(version) is not str or type(host) is not str:
        return None
    if name == "EngineCame" and type(who) is int:
        return EngineCame(who, version, host, 0)
    if name == "ContextCame" and type(who) is str:
        return ContextCame(who, version, host, 0, "", "", (), (), 0)
    return None


def _check_tag(tag: bytes) -> None:
    if tag != TAG:
        raise MessageError(f"a value with the tag {tag!r} came where a message was expected")


def _no_message(data: bytes) -> MessageError:
    # msgpack documents ValueError for malformed input, but a hostile peer can make it raise several others.
    return MessageError(f"{len(data)} bytes arrived that are no message of this version of disbatch")


def _of_parts(parts: Any, data: bytes) -> Message:  # noqa: ANN401 - anything may arrive
    try:
        name, *values = _list(parts)
        decode_fields = _decoders[name]
    except Exception as error:
        raise _no_message(data) from error
    message: Message = decode_fields(values)
    return message
