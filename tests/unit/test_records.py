"""A record behaves like the frozen dataclass of the same fields, but for what is said in `records`."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import threading
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch.records import Declaration, astuple, fields, is_record, record, replace

# What a record does, on its own.


class Said(Declaration):
    def __init__(self, default: int) -> None:
        self.default = default


def said(default: int) -> Any:  # noqa: ANN401 - a field declares its type
    return Said(default)


@record
class Point:
    """Where something is."""

    x: int
    y: int = 7

    @property
    def sum(self) -> int:
        return self.x + self.y


@record
class Named(Point):
    name: str = "n"
    weight: int = said(3)


@record
class Nothing:
    """Nothing at all."""


def test_a_record_holds_what_it_is_made_of() -> None:
    point = Point(1, y=2)
    assert (point.x, point.y, point.sum) == (1, 2, 3)
    assert Point(1).y == 7
    assert fields(point) == fields(Point) == Point.__match_args__ == ("x", "y")
    assert astuple(Point(4)) == (4, 7)
    assert (fields(Nothing), astuple(Nothing()), repr(Nothing())) == ((), (), "Nothing()")
    assert Point.__doc__ == "Where something is."


def test_a_record_has_the_fields_of_its_bases_first() -> None:
    assert fields(Named) == ("x", "y", "name", "weight")
    assert repr(Named(1, 2)) == "Named(x=1, y=2, name='n', weight=3)"
    assert Named(1, 2).sum == 3


def test_a_declaration_in_the_place_of_a_default_stays_with_the_class() -> None:
    assert isinstance(Named.weight, Said)
    assert Named(1).weight == 3


def test_only_those_of_one_class_are_equal() -> None:
    assert Point(1, 2) == Point(1, 2) != Point(1, 3)
    assert Point(1, 2) != Named(1, 2)
    assert Point(1, 2) != object()
    assert len({Point(1, 2), Point(1, 2), Point(2, 1)}) == 2


def test_a_record_can_be_taken_apart_by_its_places() -> None:
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_what_is_replaced_is_another_record() -> None:
    point = Named(1, 2)
    assert replace(point, y=5) == Named(1, 5)
    assert point == replace(point) == Named(1, 2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        replace(point, z=1)


def test_what_is_a_record_is_told_from_what_is_none() -> None:
    assert all(map(is_record, (Point, Named, Nothing, Point(1), Nothing())))
    assert not any(map(is_record, (Said, said(1), 1, int, None)))


@pytest.mark.parametrize(("values", "named"), [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((), {"z": 1})])
def test_what_does_not_fit_is_refused_and_the_class_is_none_the_worse(
    values: tuple[int, ...], named: dict[str, int]
) -> None:
    @record
    class Pair:
        x: int
        y: int = 0

    made: Any = Pair
    for _ in range(2):
        with pytest.raises(TypeError):
            made(*values, **named)
    assert made(1) == made(x=1, y=0)


def test_the_constructor_is_compiled_for_the_first_instance() -> None:
    @record
    class Late:
        x: int

    stand_in = vars(Late)["__init__"]
    first = Late(1)
    compiled = vars(Late)["__init__"]
    assert compiled is not stand_in
    assert list(inspect.signature(compiled).parameters) == ["self", "x"]
    assert first == Late(1)
    assert vars(Late)["__init__"] is compiled


def test_threads_may_make_the_first_instance_at_once() -> None:
    @record
    class Shared:
        x: int

    made: list[object] = []
    barrier = threading.Barrier(4)

    def make() -> None:
        barrier.wait()
        made.append(Shared(1))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [Shared(1)] * 4


def test_records_are_copied_like_anything_else() -> None:
    point = Point(1, 2)
    assert copy.copy(point) == copy.deepcopy(point) == pickle.loads(pickle.dumps(point)) == point  # noqa: S301 - its own pickle


# The same as a dataclass.

names = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), unique=True)
values = st.integers(-2, 2) | st.text("xy", max_size=1)
Body = dict[str, Any]


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Body, Body]:
    """What stands in the body of a class, and in that of a class derived from it: annotations and defaults."""
    result = []
    for start in sorted(draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))):
        chosen = draw(names)
        defaults = {name: draw(values) for name in chosen[start:]}
        result.append({"__annotations__": dict.fromkeys(chosen, "object"), **defaults})
    return result[0], result[1]


def made_by(make: Any, both: tuple[Body, Body]) -> list[Any]:  # noqa: ANN401 - `record` or what `dataclass` gives
    """Two classes, the second derived from the first."""
    base = make(type("Base", (), dict(both[0])))
    return [base, make(type("Derived", (base,), dict(both[1])))]


def outcome(action: Any) -> Any:  # noqa: ANN401 - anything may be done
    """What comes of an action, a refusal included."""
    try:
        return action()
    except TypeError:
        return TypeError


@given(bodies(), st.data())
def test_a_record_behaves_like_a_dataclass(both: tuple[Body, Body], data: st.DataObject) -> None:
    try:
        twins = made_by(dataclasses.dataclass(frozen=True), both)
    except TypeError:
        return  # a field without a default behind one that has one, which mypy refuses too
    for ours, theirs in zip(made_by(record, both), twins, strict=True):
        assert fields(ours) == ours.__match_args__ == theirs.__match_args__
        arguments = st.tuples(st.lists(values, max_size=4), st.dictionaries(st.sampled_from("abcde"), values))
        pairs = []
        for given_values, named in data.draw(st.lists(arguments, min_size=2, max_size=4)):
            pair = [outcome(lambda kind=kind: kind(*given_values, **named)) for kind in (ours, theirs)]  # noqa: B023 - called at once
            assert (pair[0] is TypeError) is (pair[1] is TypeError)
            if pair[0] is not TypeError:
                pairs.append(pair)
        changes = data.draw(st.dictionaries(st.sampled_from("abcde"), values))
        for mine, other in pairs:
            assert repr(mine) == repr(other)
            assert hash(mine) == hash(other)
            assert astuple(mine) == dataclasses.astuple(other)
            assert not mine != mine  # noqa: PLR0124, SIM202 - `!=` is what is tried
            changed = outcome(lambda mine=mine: replace(mine, **changes))  # noqa: B023 - called at once
            assert repr(changed) == repr(outcome(lambda other=other: dataclasses.replace(other, **changes)))  # noqa: B023 - called at once
        for mine, other in pairs:
            assert [mine == another for another, _ in pairs] == [other == another for _, another in pairs]
