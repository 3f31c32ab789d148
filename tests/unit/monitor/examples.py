"""A monitor that has seen a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disbatch.monitor.model import Monitor, Seen
from tests.unit.watch.examples import BEGAN

if TYPE_CHECKING:
    from disbatch.watch.state import RunState


def shown(state: RunState | None, *, width: int = 80, height: int = 24, may_stop: bool = True) -> Monitor:
    """A monitor that has seen this state once, 100 s after the run began."""
    monitor = Monitor(may_stop=may_stop)
    monitor.resized(width, height)
    monitor.passed(BEGAN + 100, 50.0)
    monitor.heard(Seen(state))
    return monitor
