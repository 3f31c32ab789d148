"""How fast a run goes, and how long it may still take, from how many tasks had ended when.

Pure. Times are seconds, of whatever clock the caller reads.
"""

from __future__ import annotations

from collections import deque

SHORT, LONG = 15.0, 300.0
"""Seconds over which the pace of the moment is taken, and those that are looked back at most."""

_STEPS = 60
"""Points that are kept of the time that is looked back at."""

_FRACTIONS = (0.2, 0.5, 1.0)
"""Parts of that time, each with a pace of its own: how much these differ is how sure the future is."""

_MARGIN = 0.1
"""Part by which a time may be off that all of them agree about."""


class Pace:
    """Told again and again how many tasks have ended."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()
        self._newest: tuple[float, int] | None = None

    def note(self, time: float, ended: int) -> None:
        """Take note that so many tasks had ended at that time, later than those before."""
        self._newest = (time, ended)
        if not self._points or time - self._points[-1][0] >= LONG / _STEPS or len(self._points) == 1:
            self._points.append(self._newest)
        while len(self._points) > 1 and time - self._points[1][0] >= LONG:
            self._points.popleft()

    @property
    def rate(self) -> float | None:
        """Tasks that end in a second now; None as long as that cannot be said."""
        return self._rate_over(SHORT)

    def _rate_over(self, seconds: float) -> float | None:
        if self._newest is None:
            return None
        now, ended = self._newest
        since = next((point for point in reversed(self._points) if now - point[0] >= seconds), self._points[0])
        passed = now - since[0]
        return (ended - since[1]) / passed if passed > 0 else None

    def left(self, tasks: int | None) -> tuple[float, float] | None:
        """Seconds until so many more tasks will have ended, at least and at most; None if that cannot be said.

        So it is where nobody knows how many (None), and where there are none.
        """
        if self._newest is None or not tasks:
            return None
        span = self._newest[0] - self._points[0][0]
        rates = [self._rate_over(span * fraction) for fraction in _FRACTIONS]
        times = [tasks / rate for rate in rates if rate]
        if not times:
            return None
        return min(times) * (1 - _MARGIN), max(times) * (1 + _MARGIN)
