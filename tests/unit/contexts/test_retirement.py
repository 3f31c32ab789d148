"""Nodes that are needed no longer, as the command hears of them that gives them back."""

from __future__ import annotations

from disbatch.contexts.retirement import Retirement


def test_a_command_is_told_of_the_nodes_since_the_last_of_all_and_of_those_in_use() -> None:
    retirement = Retirement(["a", "b", "c", "d"], "", last_too=False)
    retirement.add("c", 0)
    retirement.add("b", -9)
    taken = {"NODES": "c,b", "NODE": "c,b", "RETCODES": "0,-9", "ACTIVE": "a,d", "RETIRED": "c,b"}
    assert (retirement.is_due, retirement.take(), retirement.is_due) == (True, taken, False)
    retirement.add("a", 1)
    assert retirement.take() == {"NODES": "a", "NODE": "a", "RETCODES": "1", "ACTIVE": "d", "RETIRED": "c,b,a"}


def test_the_node_of_the_context_is_not_given_back_but_named() -> None:
    retirement = Retirement(["a", "b", "c"], "a", last_too=True)
    retirement.add("a", 0)
    assert not retirement.is_due
    retirement.add("b", 0)
    assert retirement.take() == {
        "NODES": "b",
        "NODE": "b",
        "RETCODES": "0",
        "ACTIVE": "c",
        "RETIRED": "b",
        "DRIVER_NODE": "a",
    }


def test_the_node_of_the_context_is_one_of_those_in_use_while_its_engine_runs() -> None:
    retirement = Retirement(["a", "b"], "a", last_too=False)
    retirement.add("b", 0)
    assert retirement.take()["ACTIVE"] == "a"


def test_nodes_that_end_last_are_for_the_command_of_a_user_alone() -> None:
    for last_too in (False, True):
        retirement = Retirement(["a", "b"], "", last_too=last_too)
        retirement.add("a", 0)
        retirement.add("b", 0)
        assert retirement.is_due is last_too
