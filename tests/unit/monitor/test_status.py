from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from disbatch.monitor import status
from disbatch.records import fields, replace
from disbatch.watch.state import DRAINING, ContextState, EngineState, RunState
from tests.unit.watch.examples import BEGAN, context, engine, run, states

TWO = run(engine(0, "alpha"), engine(1, "beta\x1b[2J", cut=True), contexts=(context(0, "big", (0, 1)),))


def test_the_text_for_people() -> None:
    assert status.text(TWO, BEGAN + 200).splitlines() == [
        "Tasks_disBatch_261121103000_123                                          running",
        "██████████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  25 %   25 of 100 tasks",
        "done 25   failed 0   running 6   waiting 70",
        "6 of 8 places in use   7.5/min   3 min 20 s so far   9 to 11 min left",
        "",
        "  context, host   state       places  assigned  finished  failed     rate  heard",
        "  big             running        6/8        20        14       0  4.2/min  1 min",
        "    alpha         running        3/4        10         7       0  2.1/min  1 min",
        "    beta?[2J      cut off        3/4        10         7       0  2.1/min  1 min",
    ]


def test_a_run_that_has_just_begun() -> None:
    assert status.text(None, BEGAN) == status.STARTING
    assert json.loads(status.as_json(None, BEGAN)) == {"phase": "starting"}
    assert json.loads(status.OVER_JSON) == {"phase": "ended"}


def test_the_json_for_scripts() -> None:
    found = json.loads(status.as_json(TWO, BEGAN + 200))
    assert set(found) == {*fields(RunState), "done", "elapsed", "rate", "seconds_left"}
    assert [set(engine) for engine in found["engines"]] == [set(fields(EngineState))] * 2
    assert [set(context) for context in found["contexts"]] == [set(fields(ContextState))]
    assert (found["done"], found["elapsed"], found["rate"]) == (25, 200.0, 0.125)
    assert found["seconds_left"][0] < 600 < found["seconds_left"][1]
    assert found["engines"][1]["node"] == "beta\x1b[2J"


def test_what_is_not_known_is_null() -> None:
    found = json.loads(status.as_json(replace(TWO, total=None), BEGAN + 200))
    assert (found["total"], found["seconds_left"]) == (None, None)
    assert json.loads(status.as_json(replace(TWO, phase=DRAINING), BEGAN + 200))["seconds_left"] is None
    assert json.loads(status.as_json(replace(TWO, finished=0), BEGAN + 200))["seconds_left"] is None


@given(states, st.floats(0, 4e9), st.booleans())
def test_whatever_the_state_it_can_be_told(state: RunState, now: float, unicode: bool) -> None:
    text = status.text(state, now, unicode=unicode)
    assert all(line.isprintable() and len(line) <= status.WIDTH for line in text.split("\n"))
    assert unicode or text.isascii()
    made = status.as_json(state, now)
    assert made.endswith("}")
    assert made[:-1].isascii()
    assert made[:-1].isprintable()
    assert json.loads(made)["job"] == state.job
