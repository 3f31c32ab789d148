"""What has become of a run over time: how fast tasks ended, and how many places they took.

Pure, and of bounded size: when it is full every other point goes, and from then on they are twice as far apart. Times
are seconds, of whatever clock the caller reads.
"""

from __future__ import annotations

from disbatch.records import record

MOST = 600
"""Points that are kept."""

FIRST_STEP = 1.0
"""Seconds between two points at first."""


@record
class Moment:
    """Since the point before, tasks ended at this `rate` (in a second); then `active` of `places` were taken."""

    time: float
    rate: float
    active: int
    places: int


class History:
    """Told again and again how many tasks had ended, and how many places there were and were taken."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._step = FIRST_STEP
        self._points: list[tuple[float, int, int, int]] = []

    def note(self, time: float, ended: int, active: int, places: int) -> bool:
        """Take note of a moment later than those before; whether it is a point of its own."""
        if self._points and time - self._points[-1][0] < self._step:
            return False
        if len(self._points) >= self._most:
            del self._points[1::2]
            self._step *= 2
            if time - self._points[-1][0] < self._step:
                return False
        self._points.append((time, ended, active, places))
        return True

    @property
    def moments(self) -> list[Moment]:
        """All points but the first, which has none before it."""
        pairs = zip(self._points, self._points[1:], strict=False)
        return [
            Moment(time, max(0, ended - before) / (time - since), active, places)
            for (since, before, _, _), (time, ended, active, places) in pairs
        ]
