"""Text as a terminal shows it: how many cells wide it is, cut to fit, and harmless whatever a user has put into it.

Pure. A cell is the place of one character; those of East Asia take two.
"""

from __future__ import annotations

import unicodedata

UNSHOWABLE = "?"
"""Stands for a character that a terminal has no picture of, or would take for an order."""

_LONGEST = 4000
"""Characters that are looked at; no window is that wide."""


def shown(text: str, *, unicode: bool = True) -> str:
    """`text` without what would move the cursor, join its neighbours, or turn the direction of the line.

    With `unicode` false, of ASCII alone.
    """
    text = text[:_LONGEST]
    if text.isascii() and text.isprintable():
        return text
    composed = unicodedata.normalize("NFC", text)
    return "".join(_shown(character, unicode=unicode) for character in composed)


def _shown(character: str, *, unicode: bool) -> str:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return ""  # a mark that has no letter with it in one has a width that terminals do not agree about
    return character if character.isprintable() and (unicode or character.isascii()) else UNSHOWABLE


def width(text: str) -> int:
    """Cells that a text takes which `shown` has made."""
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def _width(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def cut(text: str, cells: int, mark: str = "") -> str:
    """As much of a text that `shown` has made as so many cells hold; `mark` stands where there was more."""
    if width(text) <= cells:
        return text
    room = cells - width(mark)
    if room < 0:
        return ""
    if text.isascii():
        return text[:room] + mark
    end = taken = 0
    for character in text:
        taken += _width(character)
        if taken > room:
            break
        end += 1
    return text[:end] + mark


def fitted(text: str, cells: int, mark: str = "", *, right: bool = False) -> str:
    """`text` in exactly so many cells, at their left or their right."""
    kept = cut(text, cells, mark)
    space = " " * (cells - width(kept))
    return space + kept if right else kept + space
