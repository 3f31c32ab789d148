"""One loop for every process of a run: descriptors that are ready, signals, timers.

A thin shell around `selectors`: whoever registers something hands over the function to call for it. It must not know
what any of it means. Everything happens in the thread that calls `turn`, one handler after another.
"""

from __future__ import annotations

import heapq
import os
import selectors
import signal
import time
from functools import partial
from itertools import count

from disbatch.epoll import Epoll

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Timer:
    """Something to be done once at a time of the loop's clock, unless cancelled before."""

    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Never do it; harmless when it has been done."""
        self.action = None


class EventLoop:
    """Calls handlers as descriptors become ready, signals arrive and timers run out.

    `selector` may be shared with code that registers descriptors itself: the `data` of every registration is a
    callable that takes the mask of ready events. Times are seconds of a monotonic clock.
    """

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self.selector = selector or Epoll()
        self._timers: list[tuple[float, int, Timer]] = []
        self._timer_numbers = count()
        self._signal_handlers: dict[int, list[Callable[[], None]]] = {}
        self._previous_handlers: dict[int, object] = {}
        self._wake_read = self._wake_write = -1

    @staticmethod
    def now() -> float:
        """Seconds of the clock that timers go by; no jump of the time of day moves it."""
        return time.monotonic()

    def watch(self, descriptor: int, events: int, handler: Callable[[int], object]) -> None:
        """Call `handler(mask)` whenever one of `events` is ready on `descriptor`, until `unwatch`."""
        self.selector.register(descriptor, events, handler)

    def rewatch(self, descriptor: int, events: int, handler: Callable[[int], object]) -> None:
        """Change what is waited for on a watched descriptor."""
        self.selector.modify(descriptor, events, handler)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching; to be done before the descriptor is closed.

        With epoll a closed descriptor goes on reporting as long as a child just started has a copy of it.
        """
        self.selector.unregister(descriptor)

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Do `action` once, `seconds` from now."""
        timer = Timer(self.now() + seconds, action)
        heapq.heappush(self._timers, (timer.when, next(self._timer_numbers), timer))
        return timer

    def on_signal(self, number: signal.Signals, handler: Callable[[], None]) -> None:
        """Call `handler` in the loop's own turn after signal `number` has arrived, once for any number of arrivals.

        Several handlers of one signal are called in the order in which they were given.
        """
        if self._wake_read < 0:
            self._open_wake_pipe()
        self._signal_handlers.setdefault(number, []).append(handler)
        previous = signal.signal(number, _leave_a_note)
        self._previous_handlers.setdefault(number, previous)

    def on_request_to_end(self, handler: Callable[[signal.Signals], None]) -> None:
        """Call `handler`, as `on_signal` does, with the signal by which somebody wants this process to end.

        A SIGHUP that is ignored stays so: `nohup` wants the process to outlive its terminal.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self.on_signal(number, partial(handler, number))

    def on_request_to_stop(self, handler: Callable[[], None]) -> None:
        """Call `handler`, as `on_signal` does, when this process is to stop until somebody lets it go on (Ctrl-Z).

        It does not stop before `stop` is called. A SIGTSTP that is ignored stays so.
        """
        if signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:
            self.on_signal(signal.SIGTSTP, handler)

    def stop(self) -> None:
        """Stop this process, and return when somebody has let it go on; for timers no time has passed.

        Where there is nobody who could do so, no shell with control of its jobs, Linux does not stop it.
        """
        began = self.now()
        former = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, former)
        stopped = self.now() - began
        for _, _, timer in self._timers:
            timer.when += stopped
        self._timers = [(timer.when, number, timer) for _, number, timer in self._timers]

    def _open_wake_pipe(self) -> None:
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # A full pipe has woken the loop already: no warning is due for signals by the thousand.
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self.watch(self._wake_read, READ, self._signals_arrived)

    def _signals_arrived(self, _mask: int) -> None:
        for number in sorted(set(os.read(self._wake_read, 4096))):
            for handler in self._signal_handlers.get(number, ()):
                handler()

    def turn(self, timeout: float | None = None) -> None:
        """Wait until something is due, at most `timeout` seconds (None: as long as it takes), and handle what is."""
        for key, mask in self.selector.select(self._wait(timeout)):
            # A handler may have unwatched a descriptor that was ready in this same turn.
            if self.selector.get_map().get(key.fd) is key:
                key.data(mask)
        self._run_timers()

    def _wait(self, timeout: float | None) -> float | None:
        timers = self._timers
        while timers and timers[0][2].action is None:
            heapq.heappop(timers)
        if timers:
            due = max(0.0, timers[0][0] - self.now())
            return due if timeout is None else min(due, timeout)
        return timeout

    def _run_timers(self) -> None:
        if not self._timers:
            return
        now = self.now()
        # A timer that another sets waits for the next turn, or one that sets itself again at once would never end.
        first_new = next(self._timer_numbers)
        while self._timers and self._timers[0][0] <= now and self._timers[0][1] < first_new:
            timer = heapq.heappop(self._timers)[2]
            if timer.action is not None:
                action, timer.action = timer.action, None
                action()

    def close(self) -> None:
        """Give signals back to their former handlers and close what the loop itself opened."""
        if self._wake_read >= 0:
            signal.set_wakeup_fd(-1)
            for number, previous in self._previous_handlers.items():
                signal.signal(number, previous)  # type: ignore[arg-type] # what signal() gave is what it takes
            self.unwatch(self._wake_read)
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read = self._wake_write = -1
        self.selector.close()


def uptime() -> float:
    """Seconds since this machine has started: no jump of the time of day moves it, and it goes on in its sleep."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _leave_a_note(_number: int, _frame: object) -> None:
    """Nothing: the number that the interpreter has written to the wake-up pipe is the note."""
