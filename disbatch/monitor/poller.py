"""Asks the driver of a run how it goes, again and again, in a thread: one that does not answer holds no key up.

It must not know what is shown of the answers.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

from disbatch.errors import DriverUnreachableError
from disbatch.monitor.model import Answered, Failed, Listed, Over, Seen
from disbatch.watch.observer import LastWord
from disbatch.watch.state import ENDED, StateError
from disbatch.watch.words import told

if TYPE_CHECKING:
    from collections.abc import Callable

    from disbatch.monitor.model import Event, Stop
    from disbatch.watch.observer import Observer

PERIOD = 1.0
"""Seconds between two questions, at least."""

SHARE = 0.2
"""Share of the time that asking may take: a driver that is slow is asked less often."""

LONGEST_PAUSE = 10.0
"""Seconds between two tries to reach a driver, at most."""

MOST_UNHEARD = 10
"""Events that wait to be heard from which on no more is asked: their reader may have a terminal that takes nothing."""

NOBODY_LISTENS = "it was killed, or the run is over"
"""What is known of a driver whose host answers, and where nobody takes connections any more."""


class Poller:
    """Asks `observer`, and one that `connect` makes when it is lost, until the run has ended.

    `is_over` tells whether a run that cannot be reached has ended. `notify` is called, in the thread, when there is
    something in `events`; an exception there is a mistake in this program.
    """

    def __init__(
        self,
        observer: Observer,
        connect: Callable[[], Observer],
        is_over: Callable[[], bool],
        notify: Callable[[], None],
    ) -> None:
        self.events: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
        self._observer: Observer | None = observer
        self._connect = connect
        self._is_over = is_over
        self._notify = notify
        self._orders: queue.SimpleQueue[Stop] = queue.SimpleQueue()
        self._last_word: LastWord | None = None
        self._engine: int | None = None
        self._job = ""
        self._awake = threading.Event()
        self._ended = False
        self._pause = PERIOD
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._last_word = LastWord(self._connect)
        self._thread.start()

    def stop(self, order: Stop) -> None:
        """Give the driver an order; what becomes of it is among the events."""
        self._orders.put(order)
        self._awake.set()

    def look_at(self, engine: int | None) -> None:
        """From now on ask what runs on that engine, too."""
        if engine != self._engine:
            self._engine = engine
            self._awake.set()

    def end(self) -> None:
        """Ask no more; an answer that is waited for is not waited for any more."""
        self._ended = True
        self._awake.set()

    def _run(self) -> None:
        try:
            while not self._ended:
                self._awake.clear()
                if self.ask():
                    return
                self._awake.wait(self._pause)
        except Exception as error:  # noqa: BLE001 - the thread that shows things is to hear of any
            self._tell(error)

    def ask(self) -> bool:
        """Ask once, and pass all orders on, unless nobody hears of it; whether that was the last time."""
        if self.events.qsize() >= MOST_UNHEARD:
            return False
        began = time.monotonic()
        try:
            if self._observer is None:
                self._observer = self._connect()
            state = self._observer.state()
            self._job = state.job if state is not None else ""
            self._pass_orders(self._observer)
            self._tell(Seen(state))
            engine = self._engine
            if engine is not None:
                self._tell(Listed(engine, *self._observer.running(engine)))
        except DriverUnreachableError as error:
            return self._lost(error)
        except StateError as error:
            self._tell(Failed(str(error)))
        else:
            if state is not None and state.phase == ENDED:
                return True
        self._pause = max(PERIOD, (time.monotonic() - began) / SHARE)
        return False

    def _lost(self, error: DriverUnreachableError) -> bool:
        if self._observer is not None:
            self._observer.close()
            self._observer, self._pause = None, 0.0
        if self._is_over():
            state = None if self._last_word is None else self._last_word.get()
            if state is not None:
                self._tell(Seen(state))
            self._tell(Over())
            return True
        self._tell(Failed(NOBODY_LISTENS if error.nobody_listens else ""))
        while not self._orders.empty():
            self._tell(Answered(f"{self._orders.get().what} was not told: the driver does not answer"))
        self._pause = min(LONGEST_PAUSE, max(PERIOD, 2 * self._pause))
        return False

    def _pass_orders(self, observer: Observer) -> None:
        while self._job and not self._orders.empty():
            stop = self._orders.get()
            try:
                observer.order(self._job, stop.order)
            except DriverUnreachableError:
                self._tell(Answered(f"whether {stop.what} was told is not known: the driver does not answer"))
                raise
            self._tell(Answered(told(stop.what, now=stop.order.now)))

    def _tell(self, event: Event | Exception) -> None:
        self.events.put(event)
        self._notify()
