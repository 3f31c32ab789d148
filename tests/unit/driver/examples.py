"""An example of whatever the driver is told and asks for, made from the types of its fields.

A kind that is new, and a field that is, need nothing here.
"""

from __future__ import annotations

from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from disbatch.records import fields, is_record

PLAIN: dict[type, object] = {int: 0, str: "text", bytes: b"bytes", bool: False, float: 1.5, type(None): None}


def example(kind: Any) -> Any:  # noqa: ANN401 - of any type, a value of that type
    """Something of that type; of a union its first, of a sequence one with one element."""
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
