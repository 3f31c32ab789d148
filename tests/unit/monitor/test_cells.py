from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.monitor.cells import cut, fitted, shown, width

texts = st.text(st.characters(exclude_categories=()))
"""Of any characters, those too that no terminal can be sent."""


@pytest.mark.parametrize(
    ("text", "in_unicode", "in_ascii"),
    [
        ("plain ~!", "plain ~!", "plain ~!"),
        ("\x1b[2Jx\ny\x9b", "?[2Jx?y?", "?[2Jx?y?"),
        ("größe", "größe", "gr??e"),
        ("gro\u0308ße", "größe", "gr??e"),
        ("x\u0336\u20dd", "x", "x"),
        ("日本", "日本", "??"),
        ("a\u202eb\u200bc", "a?b?c", "a?b?c"),
        ("\udcff", "?", "?"),
        ("", "", ""),
    ],
)
def test_what_is_shown_of_a_text(text: str, in_unicode: str, in_ascii: str) -> None:
    assert shown(text) == in_unicode
    assert shown(text, unicode=False) == in_ascii


@given(texts)
def test_nothing_that_is_shown_does_anything_to_a_terminal(text: str) -> None:
    assert shown(text).isprintable()
    assert not any(unicodedata.combining(character) for character in shown(text))
    assert shown(text, unicode=False).isascii()
    assert shown(text, unicode=False).isprintable()


def test_no_more_is_looked_at_than_a_window_could_show() -> None:
    assert len(shown("ä" * 10**6)) == 4000


@pytest.mark.parametrize(("text", "cells"), [("", 0), ("abc", 3), ("é", 1), ("日本", 4), ("\uff58", 2)])
def test_how_wide_a_text_is(text: str, cells: int) -> None:
    assert width(text) == cells


@pytest.mark.parametrize(
    ("text", "cells", "mark", "left"),
    [
        ("abcdef", 6, "~", "abcdef"),
        ("abcdef", 4, "~", "abc~"),
        ("abcdef", 4, "", "abcd"),
        ("abcdef", 1, "~", "~"),
        ("abcdef", 0, "~", ""),
        ("abcdef", -3, "~", ""),
        ("日本語", 6, "…", "日本語"),
        ("日本語", 5, "…", "日本…"),
        ("日本語", 4, "…", "日…"),
        ("日本語", 1, "", ""),
    ],
)
def test_a_text_is_cut_to_fit(text: str, cells: int, mark: str, left: str) -> None:
    assert cut(text, cells, mark) == left


@given(texts, st.integers(-5, 40), st.sampled_from(["", "~", "…"]), st.booleans())
def test_a_fitted_text_is_as_wide_as_is_asked_for(text: str, cells: int, mark: str, right: bool) -> None:
    kept = shown(text)
    assert width(cut(kept, cells, mark)) <= max(0, cells)
    assert width(fitted(kept, cells, mark, right=right)) == max(0, cells)


def test_a_text_stands_at_the_left_or_at_the_right() -> None:
    assert fitted("ab", 4) == "ab  "
    assert fitted("ab", 4, right=True) == "  ab"
