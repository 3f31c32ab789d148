"""Figures of a run, and what becomes of orders, as people read them. Pure."""

from __future__ import annotations

_MINUTE, _HOUR, _DAY = 60, 3600, 86400

_EIGHTHS = " ▏▎▍▌▋▊▉"
"""Characters that fill so many eighths of a cell."""


def duration(seconds: float) -> str:
    """A time span in its two largest units: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d 7 h`."""
    if seconds < 10:  # noqa: PLR2004 - below, tenths are worth saying
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    for size, unit, smaller, smaller_unit in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    return f"{whole} s"


def span(least: float, most: float) -> str:
    """A time that lies between two: `3 min` where they are as good as one, else `2 to 5 min`."""
    short, long = _roughly(least), _roughly(most)
    if short == long:
        return f"{long[0]} {long[1]}"
    if short[1] == long[1]:
        return f"{short[0]} to {long[0]} {long[1]}"
    return f"{short[0]} {short[1]} to {long[0]} {long[1]}"


def _roughly(seconds: float) -> tuple[int, str]:
    """A time in its largest unit that leaves a figure of more than 1."""
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * size:
            return round(seconds / size), unit
    return max(1, round(seconds)), "s"


def number(value: float) -> str:
    """A count with its thousands apart: `1,234,567`."""
    return f"{value:,.0f}"


def rate(per_second: float | None) -> str:
    """Tasks in a second, or in a minute where those are few: `1,200/s`, `3.4/s`, `12.0/min`; `-` for None."""
    if per_second is None:
        return "-"
    if per_second >= 10:  # noqa: PLR2004 - below, tenths are worth saying
        return f"{per_second:,.0f}/s"
    if per_second >= 1 or per_second == 0:
        return f"{per_second:.1f}/s"
    return f"{per_second * _MINUTE:.1f}/min"


def told(what: str, *, now: bool) -> str:
    """That the driver has got the order to stop that, softly or `now`."""
    return f"told {what} to {'end what runs there, which others run again' if now else 'finish what runs there'}"


def bar(done: float, cells: int, *, unicode: bool) -> tuple[str, str]:
    """A bar of so many cells, 2 at least: that part of it which is done, and the rest."""
    if not unicode:
        full = int(done * (cells - 2))
        return f"[{'#' * full}", f"{'-' * (cells - 2 - full)}]"
    full, eighths = divmod(int(done * cells * 8), 8)
    text = "█" * full + (_EIGHTHS[eighths] if eighths else "")
    return text, "░" * (cells - len(text))
