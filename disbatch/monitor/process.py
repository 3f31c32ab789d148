"""The monitor as a process: what is heard of the run, keys and signals go to the model, its picture to the screen.

And the same for those who want to be told once. A thin shell: it must not know what is shown, nor how.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from disbatch import options
from disbatch.errors import DisbatchError, DriverUnreachableError, ExitStatus
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.kvsstcp.endpoint import AddressError, parse_address
from disbatch.kvsstcp.envfile import variables_in
from disbatch.monitor import status
from disbatch.monitor.model import Monitor, Quit, Stop
from disbatch.monitor.poller import Poller
from disbatch.monitor.render import frame
from disbatch.terminal import answer
from disbatch.values import Address
from disbatch.watch import locales
from disbatch.watch.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from disbatch.monitor.screen import Screen
    from disbatch.watch.state import RunState

TICK = 1.0
"""Seconds after which times that are shown are out of date."""

STDIN = 0

CONNECT_PATIENCE = 10.0
"""Seconds that connecting to the driver may take."""

STATE_PATIENCE = 2.0
"""Seconds for which the state of a run is waited for that has just begun."""

_PAUSE = 0.2

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def show_live(arguments: Sequence[str]) -> int:
    """Show a run to who has a file of it for observers; the exit status."""
    path = options.parse_observer(arguments, options.MONITOR_ROLE).observer_file
    kvs = _read(path)
    try:
        return watch(kvs, lambda: not os.path.exists(path), may_stop=False)
    except DriverUnreachableError:
        if os.path.exists(path):
            raise
        answer(status.OVER)
        return ExitStatus.OK


def show_once(arguments: Sequence[str]) -> int:
    """Print how a run is to who has a file of it for observers; the exit status."""
    asked = options.parse_observer(arguments, options.STATUS_ROLE)
    path = asked.observer_file
    return tell(_read(path), lambda: not os.path.exists(path), as_json=asked.json)


def _read(path: str) -> Address:
    """Address of the store that a file for observers names, whose secret is in the environment from now on."""
    try:
        with open(path, encoding="utf-8") as file:
            variables = variables_in(file.read())
        host, port = parse_address(None, None, variables)
    except FileNotFoundError:
        raise DisbatchError(f"there is no file {path!r}", "a run has its file for observers until it ends") from None
    except OSError as error:
        raise DisbatchError(f"cannot read {path!r}: {error.strerror}", "it must be a file that you may read") from error
    except (AddressError, ValueError):
        raise DisbatchError(
            f"{path!r} does not say where a run is", "name the file of a run whose name ends in _observer.txt"
        ) from None
    os.environ.pop(SECRET_VARIABLE, None)  # that of another store
    os.environ.update(variables)
    return Address(host, port)


def tell(kvs: Address, is_over: Callable[[], bool], *, as_json: bool) -> int:
    """Print the state of the run once; the exit status. Raises as `watch` does."""
    try:
        with Observer(kvs, CONNECT_PATIENCE) as observer:
            state = _first_state(observer)
    except DriverUnreachableError:
        if not is_over():
            raise
        answer(status.OVER_JSON if as_json else status.OVER)
        return ExitStatus.OK
    now = time.time()
    answer(status.as_json(state, now) if as_json else status.text(state, now, unicode=locales.is_utf8()))
    return ExitStatus.OK


def _first_state(observer: Observer) -> RunState | None:
    """State of the run; one that has just begun is given a moment."""
    deadline = time.monotonic() + STATE_PATIENCE
    while (state := observer.state()) is None and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return state


def watch(kvs: Address, is_over: Callable[[], bool], *, may_stop: bool) -> int:
    """Show the run whose store is at `kvs` until the user has seen enough; the exit status.

    The secret is in the environment; `may_stop` tells whether it gives the right to stop parts of the run, and
    `is_over` of a run that cannot be reached whether it has ended. Raises `DisbatchError` when there is no terminal
    that it could be shown on, or no such run.
    """
    try:
        from disbatch.monitor import screen  # noqa: PLC0415 - a Python may have been built without curses
    except ImportError as error:
        raise DisbatchError(f"--mon needs a Python with curses: {error}", "--status prints the same once") from None
    screen.check_terminal(os.environ)
    observer = Observer(kvs, CONNECT_PATIENCE)
    unicode = locales.is_utf8()
    with _Bell() as bell, screen.Screen(os.environ) as shown:
        poller = Poller(observer, lambda: Observer(kvs, CONNECT_PATIENCE), is_over, bell.ring)
        poller.start()
        try:
            return _loop(Monitor(may_stop=may_stop), poller, shown, bell, unicode=unicode)
        finally:
            poller.end()


def _loop(monitor: Monitor, poller: Poller, shown: Screen, bell: _Bell, *, unicode: bool) -> int:
    while True:
        _listen(monitor, poller)
        if bell.resized:
            bell.resized = False
            shown.fit()
        monitor.resized(*shown.size)
        shown.draw(frame(monitor, unicode=unicode))
        came = bell.wait(TICK)
        if bell.signal is not None:
            return 128 + bell.signal
        keys = list(shown.keys()) if came else []
        if came and not keys and not shown.is_there():
            return 128 + signal.SIGHUP
        for key in keys:
            asked = monitor.pressed(key)
            if isinstance(asked, Quit):
                return ExitStatus.OK
            if isinstance(asked, Stop):
                poller.stop(asked)
        poller.look_at(monitor.engine_asked_about)


def _listen(monitor: Monitor, poller: Poller) -> None:
    """Tell the monitor the time, and what was heard of the run."""
    monitor.passed(time.time(), time.monotonic())
    while not poller.events.empty():
        event = poller.events.get()
        if isinstance(event, Exception):
            raise event
        monitor.heard(event)


class _Bell:
    """What the loop waits for besides keys: signals, and the poller's news. Handlers leave nothing but a note."""

    def __init__(self) -> None:
        self.signal: int | None = None
        """That which asks for the end."""
        self.resized = False
        self._ears, self._mouth = os.pipe()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        os.set_blocking(self._mouth, False)
        os.set_blocking(self._ears, False)
        for number in _ENDS:
            # What `nohup` has ignored stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._asked_to_end)
        # Before curses is there, which would handle it otherwise.
        self._before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, self._window_changed)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what it gave itself
        # The pipe stays: the thread may ring still, and its descriptor must not be another file's by then.

    def _asked_to_end(self, number: int, _frame: object) -> None:
        self.signal = number
        self.ring()

    def _window_changed(self, _number: int, _frame: object) -> None:
        self.resized = True
        self.ring()

    def ring(self) -> None:
        """Wake who waits; from any thread."""
        with suppress(BlockingIOError):
            os.write(self._mouth, b"!")

    def wait(self, seconds: float) -> bool:
        """Wait until there is something to do, for so long at most; whether there are keys to be read."""
        ready, _, _ = select.select([STDIN, self._ears], [], [], seconds)
        if self._ears in ready:
            with suppress(BlockingIOError):
                while os.read(self._ears, 4096):
                    pass
        return STDIN in ready
