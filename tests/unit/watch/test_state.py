from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from disbatch.records import replace
from disbatch.watch.state import (
    DRAINING,
    ENDED,
    GONE,
    STOPPING,
    WORKING,
    RunningTask,
    RunState,
    StateError,
    parse_running,
    parse_state,
)
from tests.unit.driver.play import play, task
from tests.unit.driver.test_snapshot import running_of, state_of
from tests.unit.watch.examples import BEGAN, context, engine, posted, run

RUN = run(engine(0))


def read(state: RunState) -> RunState:
    """A state, when it was posted and read."""
    return parse_state(json.dumps(posted(state)).encode())


def test_a_posted_state_becomes_a_record() -> None:
    made = read(replace(RUN, skipped=5, failed=3, failed_earlier=2))
    assert (made.job, made.phase, made.cylinders, made.active, made.waiting) == (RUN.job, WORKING, 4, 3, 70)
    assert (made.ended, made.failed_now, made.list_ended) == (30, 1, True)
    (one,) = made.engines
    assert (one.node, one.status, one.context_rank, one.came, one.heard) == ("h0", "running", 0, BEGAN, BEGAN + 100)
    (group,) = made.contexts
    assert (group.label, group.gone, group.engines) == ("SSH0", False, (0,))


def test_what_a_driver_posts_can_be_read() -> None:
    played = play(task(0), task(1), cylinders=[2])
    made = parse_state(json.dumps(state_of(played)).encode())
    assert (made.active, made.total, made.engines[0].active) == (2, 2, 2)
    running, more = parse_running(json.dumps(running_of(played)).encode())
    assert running[0] == RunningTask(0, 1, -1, 1, 0, 0.0, "command 0")
    assert (len(running), more) == (2, 0)


@pytest.mark.parametrize("key", [*posted(RUN)])
def test_a_state_in_which_something_is_missing_is_of_another_version(key: str) -> None:
    found = posted(RUN)
    del found[key]
    with pytest.raises(StateError, match="not of this version"):
        parse_state(json.dumps(found).encode())


@pytest.mark.parametrize(
    "text", [b"", b"<Starting...>", b"[]", b"3", b"\xff", b"{}", b'{"engines": 3}', b'{"tasks": [], "more": Infinity}']
)
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


@given(st.sampled_from([*posted(RUN)]), anything)
@example("finished", float("inf"))
def test_a_hostile_state_is_refused_or_read(key: str, value: Any) -> None:  # noqa: ANN401 - of any kind
    with contextlib.suppress(StateError):
        parse_state(json.dumps(posted(RUN) | {key: value}).encode())


def test_a_total_that_nobody_knows_is_none() -> None:
    assert read(replace(RUN, total=None)).total is None


def test_tasks_that_are_left() -> None:
    assert run(total=None).tasks_left is None
    assert run(total=100, finished=20, skipped=10, interrupted=1).tasks_left == 69
    assert run(total=100, finished=120).tasks_left == 0
    assert run(total=100, phase=DRAINING).tasks_left is None, "those that wait are not run"


def test_tasks_that_wait_are_all_of_them_where_their_number_is_known() -> None:
    assert RUN.yet_to_start == replace(RUN, total=None, list_ended=False).yet_to_start == 70
    assert run(list_ended=False, total=100, finished=20, skipped=10, interrupted=1).yet_to_start == 69
    assert run(list_ended=False, total=5, finished=20).yet_to_start == 0


@pytest.mark.parametrize("phase", [DRAINING, STOPPING, ENDED])
def test_tasks_that_will_not_be_run_do_not_wait(phase: str) -> None:
    assert run(list_ended=False, phase=phase, waiting=0, total=900).yet_to_start == 0


def test_engines_and_contexts_that_have_gone() -> None:
    made = read(run(engine(0, status=GONE, heard=None), contexts=(context(0, engines=(0,), gone=True),)))
    assert (made.engines[0].heard, made.contexts[0].gone) == (None, True)


@pytest.mark.parametrize(("came", "word"), [(None, "absent"), (BEGAN, "gone")])
def test_an_engine_that_never_came_is_not_called_like_one_that_left(came: float | None, word: str) -> None:
    assert engine(0, status=GONE, came=came).in_words == word
