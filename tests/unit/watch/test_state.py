from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.watch.state import RunningTask, StateError, parse_running, parse_state
from tests.unit.driver.play import play, task
from tests.unit.driver.test_snapshot import running_of, state_of
from tests.unit.watch.examples import context, engine, posted, state


def test_a_posted_state_becomes_a_record() -> None:
    made = parse_state(json.dumps(posted(skipped=5, failed=3, failed_earlier=2)).encode())
    assert (made.job, made.phase, made.cylinders, made.active, made.waiting) == ("Tasks_1", "working", 4, 2, 28)
    assert (made.ended, made.failed_now, made.list_ended) == (15, 1, True)
    (one,) = made.engines
    assert (one.node, one.status, one.context_rank, one.came, one.heard) == ("h0", "running", 0, 1000.0, 1100.0)
    (group,) = made.contexts
    assert (group.label, group.gone, group.engines) == ("SSH0", False, (0,))


def test_what_a_driver_posts_can_be_read() -> None:
    run = play(task(0), task(1), cylinders=[2])
    made = parse_state(json.dumps(state_of(run)).encode())
    assert (made.active, made.total, made.engines[0].active) == (2, 2, 2)
    running, more = parse_running(json.dumps(running_of(run)).encode())
    assert running[0] == RunningTask(0, 1, -1, 1, 0, 0.0, "command 0")
    assert (len(running), more) == (2, 0)


@pytest.mark.parametrize("key", [*posted()])
def test_a_state_in_which_something_is_missing_is_of_another_version(key: str) -> None:
    found = posted()
    del found[key]
    with pytest.raises(StateError, match="not of this version"):
        parse_state(json.dumps(found).encode())


@pytest.mark.parametrize("text", [b"", b"<Starting...>", b"[]", b"3", b"\xff", b"{}", b'{"engines": 3}'])
def test_anything_else_is_no_state(text: bytes) -> None:
    with pytest.raises(StateError):
        parse_state(text)
    with pytest.raises(StateError):
        parse_running(text)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([*posted()]), anything)
def test_a_hostile_state_is_refused_or_read(key: str, value: Any) -> None:  # noqa: ANN401 - of any kind
    with contextlib.suppress(StateError):
        parse_state(json.dumps(posted(**{key: value})).encode())


def test_a_total_that_nobody_knows_is_none() -> None:
    assert state(total=None).total is None


def test_engines_and_contexts_that_have_gone() -> None:
    made = state(engines={"0": engine(0, status="stopped", last=None)}, contexts={"0": context(0, 0, active=False)})
    assert (made.engines[0].heard, made.contexts[0].gone) == (None, True)
