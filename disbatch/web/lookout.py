"""What the page's process sees of the run, look by look, made into what its visitors are told.

Whatever is asked of the driver is asked here, by nobody else, and no more often than somebody calls `look`. It must
not know who listens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from disbatch.errors import DisbatchError
from disbatch.records import replace
from disbatch.watch import state as states
from disbatch.watch.pace import Pace
from disbatch.web import view
from disbatch.web.history import History

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from disbatch.handover import RunEnd
    from disbatch.watch.observer import Observer
    from disbatch.watch.state import RunningTask, RunState
    from disbatch.web.failures import Failures

LAST_READING = 1.0
"""Seconds for which failures are still read when the run has ended, before visitors hear of its end."""

SILENCE = 3.0
"""Seconds that the driver, once asked, may have nothing to say before visitors hear of it."""


class Lookout:
    """Looks at a run through what `connect` gives, and at its status file; `clock` tells seconds that never jump."""

    def __init__(
        self, connect: Callable[[], Observer], failures: Failures, rerun: str, clock: Callable[[], float]
    ) -> None:
        self._connect = connect
        self._observer: Observer | None = None
        self._failures = failures
        self._rerun = rerun
        self._clock = clock
        self._began = clock()
        self._unanswered_since: float | None = None
        self._pace = Pace()
        self._history = History()
        self._known_nodes: set[str] = set()
        self.answered_in = 0.0
        """Seconds that the driver has taken to answer; 0 when it has not."""
        self.state: RunState | None = None
        self.running: tuple[RunningTask, ...] = ()
        """What ran at the last look from nearby: those that have run for longest, of which the driver lists so many."""
        self.unlisted = 0
        """How many others ran."""

    def look(self, *, closely: bool) -> Mapping[str, bytes]:
        """What is new, part by part; `closely`: what runs too, which costs the driver more."""
        parts = self._at_run(closely=closely)
        if self._failures.read():
            parts["failures"] = self._told_of_failures()
        return parts

    def _at_run(self, *, closely: bool) -> dict[str, bytes]:
        asked = self._clock()
        if self._unanswered_since is None:
            self._unanswered_since = asked
        try:
            if self._observer is None:
                self._observer = self._connect()
            state = self._observer.state()
            if closely:
                self.running, self.unlisted = self._observer.running()
        except DisbatchError:
            self.close()
            self.answered_in = 0.0
            return self.silence()
        self._unanswered_since = None
        now = self._clock()
        self.answered_in = now - asked
        parts = self.silence()
        if state is None:
            return parts
        self.state = state
        self._pace.note(now, state.finished)
        is_point = self._history.note(now, state.finished, state.active, state.cylinders)
        for engine in state.engines:
            if engine.finished and engine.node not in self._known_nodes:
                self._known_nodes.add(engine.node)
                self._failures.digest.ran_on(engine.node)
        parts["run"] = view.event("run", view.run(state, self._pace))
        parts["hosts"] = view.event("hosts", view.hosts(state))
        if closely:
            parts["running"] = view.event("running", view.running(self.running, self.unlisted, state))
        if is_point:
            parts["history"] = view.event("history", view.history(self._history.moments, self._began))
        return parts

    def silence(self) -> dict[str, bytes]:
        """Whether the driver is silent by now, and for how long; also while a look is under way in another thread."""
        since = self._unanswered_since
        silent = 0.0 if since is None else self._clock() - since
        return {"silence": view.event("silence", view.silence(silent if silent > SILENCE else None))}

    def _told_of_failures(self) -> bytes:
        failures = self._failures
        return view.event("failures", view.failures(failures.digest, self._rerun, behind=failures.is_behind))

    def last(self, end: RunEnd | None) -> Mapping[str, bytes]:
        """What there is to tell when the run has ended, or its driver is gone."""
        self.close()
        self.running, self.unlisted = (), 0
        deadline = self._clock() + LAST_READING
        while (self._failures.read() or self._failures.is_behind) and self._clock() < deadline:
            pass
        parts = {"failures": self._told_of_failures()}
        if self.state is not None:
            state = replace(self.state, active=0, waiting=0, phase=states.DESERTED)
            if end is not None:
                state = replace(
                    state,
                    phase=states.ENDED,
                    exit_status=end.exit_status,
                    **end.counts,
                    engines=tuple(replace(engine, active=0, status=states.GONE) for engine in state.engines),
                    contexts=tuple(replace(context, gone=True) for context in state.contexts),
                )
            parts["run"] = view.event("run", view.run(state, self._pace))
            parts["hosts"] = view.event("hosts", view.hosts(state))
            parts["running"] = view.event("running", view.running((), 0, state))
        parts["ended"] = view.event("ended", view.ended(end))
        return parts

    def close(self) -> None:
        """Give the connection to the driver back; the next look makes another."""
        if self._observer is not None:
            self._observer.close()
            self._observer = None
