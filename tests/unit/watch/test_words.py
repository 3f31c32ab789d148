from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.watch.words import bar, duration, number, rate, span, told


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0.0 s"),
        (0.42, "0.4 s"),
        (9.96, "10.0 s"),
        (12.4, "12 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400 * 4 + 3600 * 7 + 59, "4 d 7 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("least", "most", "words"),
    [
        (0.1, 0.9, "1 s"),
        (20, 50, "20 to 50 s"),
        (100, 130, "100 s to 2 min"),
        (180, 190, "3 min"),
        (125, 300, "2 to 5 min"),
        (3600, 9000, "60 min to 2 h"),
        (86400 * 3, 86400 * 5, "3 to 5 d"),
    ],
)
def test_a_span_is_as_exact_as_it_is_known(least: float, most: float, words: str) -> None:
    assert span(least, most) == words


@pytest.mark.parametrize(
    ("per_second", "words"),
    [(None, "-"), (0, "0.0/s"), (0.2, "12.0/min"), (3.44, "3.4/s"), (1234.5, "1,234/s")],
)
def test_a_rate_is_of_a_size_that_people_can_imagine(per_second: float | None, words: str) -> None:
    assert rate(per_second) == words


def test_thousands_stand_apart() -> None:
    assert number(1234567) == "1,234,567"


def test_words_for_an_order_that_was_given() -> None:
    assert told("engine 3 on h", now=False) == "told engine 3 on h to finish what runs there"
    assert told("context A", now=True) == "told context A to end what runs there, which others run again"


def test_a_bar_is_as_long_as_it_has_to_be() -> None:
    assert bar(0.5, 4, unicode=True) == ("██", "░░")
    assert bar(0.45, 5, unicode=True) == ("██▎", "░░")
    assert bar(0.5, 10, unicode=False) == ("[####", "----]")


@given(st.floats(0, 1), st.integers(2, 60), st.booleans())
def test_a_bar_has_the_width_that_it_is_given(done: float, cells: int, unicode: bool) -> None:
    assert len("".join(bar(done, cells, unicode=unicode))) == cells
