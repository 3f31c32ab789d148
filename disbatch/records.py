"""Records: classes of named values, two of which are equal when they are of one class and hold the same.

Pure. A process of a run declares about a hundred of them before it does anything, and makes instances of a fifth of
them. As dataclasses each took 0.4 ms, and the module 10 ms; here it is 7 us, as the only method that has to be compiled
is compiled for the first instance. That no field is set again is seen to by type checkers alone: enforcing it would
make an instance take three times as long.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from typing_extensions import dataclass_transform

    Class = TypeVar("Class", bound=type[Any])
    Instance = TypeVar("Instance")
else:

    def dataclass_transform(**_):  # noqa: ANN003, ANN201, D103 - what type checkers see is above
        return lambda function: function


class Declaration:
    """What stands in the place of a field's default where there is more to say of the field."""

    default: Any


@dataclass_transform(frozen_default=True)
def record(cls: Class) -> Class:
    """Make a class a record: its fields are what it annotates, behind those of its bases, with the defaults given."""
    made: Any = cls
    inherited = [name for base in cls.__mro__[-2:0:-1] for name in fields(base)]
    names = dict.fromkeys([*inherited, *cls.__annotations__])
    made.__match_args__ = tuple(names)  # type: ignore[misc] # mypy lets only a class body do that

    def first_init(self: object, *values: object, **named: object) -> None:
        made.__init__ = _init(cls)
        made.__init__(self, *values, **named)

    made.__init__ = first_init
    made.__eq__ = _eq
    made.__hash__ = _hash
    made.__repr__ = _repr
    return cls


def is_record(of: object) -> bool:
    """Whether that is a record, or the class of one."""
    cls = of if isinstance(of, type) else type(of)
    return vars(cls).get("__hash__") is _hash


def fields(of: object) -> tuple[str, ...]:
    """Names of the fields of a record or of its class, in their order."""
    names: tuple[str, ...] = getattr(of, "__match_args__", ())
    return names


def astuple(instance: object) -> tuple[Any, ...]:
    """Values of a record's fields, in their order."""
    return tuple(instance.__dict__.values())


def replace(instance: Instance, **changes: object) -> Instance:
    """Return a record like `instance` but for what `changes` names."""
    return type(instance)(**{**instance.__dict__, **changes})


def _init(cls: type) -> Any:  # noqa: ANN401 - a constructor's arguments are the fields
    defaults = {name: getattr(cls, name) for name in fields(cls) if hasattr(cls, name)}
    for name, default in defaults.items():
        if isinstance(default, Declaration):
            defaults[name] = default.default
    parameters = [f"{name}=defaults[{name!r}]" if name in defaults else name for name in fields(cls)]
    body = [f"self.{name} = {name}" for name in fields(cls)] or ["pass"]
    made: dict[str, Any] = {}
    source = f"def __init__({', '.join(['self', *parameters])}):\n {'; '.join(body)}"
    exec(source, {"defaults": defaults}, made)  # noqa: S102 - of names that stand in a class of this program
    return made["__init__"]


def _eq(self: object, other: object) -> bool:
    return self.__dict__ == other.__dict__ if other.__class__ is self.__class__ else NotImplemented


def _hash(self: object) -> int:
    return hash(astuple(self))


def _repr(self: object) -> str:
    values = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
    return f"{type(self).__qualname__}({values})"
