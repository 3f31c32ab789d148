from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.errors import ResourceError
from disbatch.layout import Node, cylinders_of, lay_out, nodes_of
from disbatch.messages import NodeOffer
from disbatch.values import SshNode


@pytest.mark.parametrize(
    ("cores", "cpus_per_task", "tasks_per_node", "cylinders", "cores_per_cylinder"),
    [
        (8, None, None, 8, 1),
        (1, None, None, 1, 1),
        (8, 1.0, None, 8, 1),
        (8, 3.0, None, 2, 3),
        (8, 8.0, None, 1, 8),
        (8, 1.5, None, 5, 1),
        (8, 2.5, None, 3, 2),
        (8, 0.5, None, 16, 1),
        (3, 0.3, None, 10, 1),
        (1, 0.1, None, 10, 1),
        (7, 0.7, None, 10, 1),
        (8, None, 3, 3, 2),
        (8, None, 8, 8, 1),
        (8, None, 100, 8, 1),
        (8, 3.0, 1, 1, 3),
        (8, 3.0, 5, 2, 3),
        (8, 0.5, 10, 10, 1),
    ],
)
def test_a_node_is_laid_out_as_documented(
    cores: int, cpus_per_task: float | None, tasks_per_node: int | None, cylinders: int, cores_per_cylinder: int
) -> None:
    assert lay_out([Node("n", cores)], cpus_per_task, tasks_per_node) == (
        NodeOffer("n", cylinders, cores_per_cylinder),
    )


def test_nodes_without_a_cylinder_are_left_out() -> None:
    nodes = [Node("small", 3), Node("big", 8), Node("tiny", 1)]
    assert lay_out(nodes, 4.0, None) == (NodeOffer("big", 2, 4),)


def test_no_cylinder_on_any_node_is_an_error_that_tells_why() -> None:
    with pytest.raises(ResourceError) as error:
        lay_out([Node("a", 2), Node("b", 3)], 4.5, None)
    assert error.value.message == "no node has the 4.5 cores that a task needs; the largest has 3"
    assert error.value.hint == "lower -c, or name hosts with more cores"


def test_a_node_without_cores_is_an_error_too() -> None:
    with pytest.raises(ResourceError, match="no node has the 1 cores that a task needs; the largest has 0"):
        lay_out([Node("a", 0)], None, None)


@given(cores=st.integers(1, 100_000), thousandths=st.integers(1, 10_000))
def test_decimal_fractions_of_cores_are_counted_as_a_person_does(cores: int, thousandths: int) -> None:
    exactly = Fraction(thousandths, 1000)
    assert cylinders_of(cores, float(exactly), None) == math.floor(cores / exactly)


@given(
    cores=st.integers(1, 1000),
    cpus_per_task=st.none() | st.floats(0.01, 1000),
    tasks_per_node=st.none() | st.integers(1, 100),
)
def test_no_layout_uses_more_than_there_is(cores: int, cpus_per_task: float | None, tasks_per_node: int | None) -> None:
    cylinders = cylinders_of(cores, cpus_per_task, tasks_per_node)
    assert tasks_per_node is None or cylinders <= tasks_per_node
    assert cylinders * (cpus_per_task or 1) <= cores * (1 + 1e-6)
    if cylinders:
        [offer] = lay_out([Node("n", cores)], cpus_per_task, tasks_per_node)
        assert offer.cores_per_cylinder >= 1
        assert cpus_per_task is not None or offer.cylinders * offer.cores_per_cylinder <= cores


def test_hosts_become_nodes_in_order_and_the_cores_of_repeated_ones_add_up() -> None:
    hosts = [SshNode("b", 2), SshNode("a", 1), SshNode("b", 3), SshNode("c", 1), SshNode("a", 1)]
    assert nodes_of(hosts) == (Node("b", 5), Node("a", 2), Node("c", 1))
