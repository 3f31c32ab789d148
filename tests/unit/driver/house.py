"""A driver's loop among stand-ins: what it is told comes from the test, what it does is noted in order."""

from __future__ import annotations

import signal
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from disbatch import descriptors, messages
from disbatch.driver import events
from disbatch.driver import loop as loop_file
from disbatch.driver.loop import DriverLoop, OwnContext
from disbatch.driver.snapshot import Run
from disbatch.errors import DisbatchError
from disbatch.eventloop import EventLoop, Timer
from disbatch.kvsstcp.rights import EVERYTHING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    import pytest

    from disbatch.driver.controller import Controller
    from disbatch.driver.feeder import Feeder
    from disbatch.driver.recorder import Recorder

JOB = "my run"
SECRETS = {b"s3cret": EVERYTHING}
NOW = 1_700_000_000.25
FORMER_LIMIT = (1024, 4096)
OWN_CONTEXT = OwnContext(["disbatch", "--context"], {"KVSSTCP_SECRET": "s3cret"}, "context_launch.log")
THE_END = events.EndRun(0, complete=True)


class Loop:
    """Stands for the event loop: in each turn the next thing happens that the test has in store."""

    selector = "the selector"

    def __init__(self, house: House) -> None:
        self.house = house
        self.clock = 100.0
        self.timeouts: list[float | None] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.signal_handlers: dict[int, Callable[[], None]] = {}

    def now(self) -> float:
        return self.clock

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        self.timers.append((seconds, action))
        return Timer(self.clock + seconds, action)

    def on_signal(self, number: signal.Signals, handler: Callable[[], None]) -> None:
        self.signal_handlers[number] = handler

    on_request_to_end = EventLoop.on_request_to_end
    on_request_to_stop = EventLoop.on_request_to_stop

    def stop(self) -> None:
        self.house.did("stop")

    def turn(self, timeout: float | None) -> None:
        self.timeouts.append(timeout)
        if self.house.to_happen:
            self.house.to_happen.popleft()()
        elif self.house.over:
            self.clock += 0.25
        elif timeout != 0.0:
            self.house.driver.happened(events.PatienceEnded())


class Script:
    """Stands for the controller: it asks for what the test has written down, and for the end when its patience ends."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.first: list[events.Command] = []
        self.answers: dict[type, list[events.Command]] = {events.PatienceEnded: [THE_END]}
        self.times: list[float] = []

    def begin(self) -> list[events.Command]:
        return self.first

    def handle(self, event: events.Event, now: float, _clock: float) -> list[events.Command]:
        self.house.events.append(event)
        self.times.append(now)
        commands = self.answers.get(type(event), [])
        self.house.over = self.house.over or THE_END in commands
        return commands


class Book:
    """Stands for the recorder of a file that nobody brings to disk."""

    path = "/data/status"
    unsynced = False

    def __init__(self, house: House) -> None:
        self.house = house
        self.failures: deque[DisbatchError] = deque()

    def fails(self, times: int = 1) -> None:
        self.failures.extend([DisbatchError("the disk is full")] * times)

    def add(self, line: bytes) -> None:
        self.house.did("line", line)

    def flush(self) -> None:
        self.house.did("flush")
        if self.failures:
            raise self.failures.popleft()


class Source:
    """Stands for the feeder."""

    unread = None

    def __init__(self, house: House) -> None:
        self.house = house

    def read(self, limit: int) -> None:
        self.house.did("read", limit)


class Store:
    """Stands for the server of the key-value store."""

    def __init__(
        self,
        house: House,
        selector: object,
        listening: object,
        *,
        secret: object,
        on_disconnect: Callable[[int], None],
        on_down: Callable[[], None],
        log: Callable[..., None],
    ) -> None:
        self.house = house
        self.made_with = (selector, listening, secret)
        self.hang_up = on_disconnect
        self.ask_to_end = on_down
        self.log = log
        self.listeners: dict[bytes, Callable[[bytes, bytes, int | None], None]] = {}
        self.awaited: set[bytes] = set()
        self.answers: dict[bytes, tuple[bytes, Callable[[bytes], bytes]]] = {}
        self.ended: set[int] = set()
        self.turns_until_sent = 0
        self.closed = False
        self.next_expiry: float | None = None

    def listen(self, key: bytes, handler: Callable[[bytes, bytes, int | None], None]) -> None:
        self.listeners[key] = handler

    def is_awaited(self, key: bytes) -> bool:
        return key in self.awaited

    def answer(self, keys: bytes, tag: bytes, answer: Callable[[bytes], bytes]) -> None:
        self.answers[keys] = (tag, answer)

    def replace(self, key: bytes, tag: bytes, value: bytes) -> None:
        self.house.did("replace", key, tag, value)

    def put(self, key: bytes, tag: bytes, value: bytes) -> None:
        self.house.did("put", key, messages.decode(value) if tag == messages.TAG else (tag, value))

    put_behind = put

    def take(self, _key: bytes) -> None:
        return None

    def disconnect(self, peer: int) -> None:
        if peer not in self.ended:
            self.ended.add(peer)
            self.house.did("disconnect", peer)
            self.hang_up(peer)

    def expire(self, _now: float) -> float | None:
        return self.next_expiry

    @property
    def unsent(self) -> bool:
        self.turns_until_sent -= 1
        return self.turns_until_sent >= 0

    def close(self) -> None:
        self.closed = True
        self.house.did("close")


class Child:
    """Stands for the process of the driver's own context."""

    failure: DisbatchError | None = None

    def __init__(
        self,
        house: House,
        command: Sequence[str],
        output: str,
        *,
        environment: dict[str, str],
        limit: tuple[int, int] | None,
    ) -> None:
        if house.child_failure is not None:
            raise house.child_failure
        house.child = self
        house.did("start", command, output, environment, limit)
        self.house = house
        self.ended_with: int | None = None

    def return_code(self) -> int | None:
        return self.ended_with

    def last_words(self) -> str:
        return "last words"

    def clear_away(self) -> None:
        self.house.did("clear away")


class Press:
    """Stands for the publisher."""

    def __init__(self, post: Callable[[], None]) -> None:
        self.post = post
        self.changes = 0
        self.closed = False

    def changed(self) -> None:
        self.changes += 1

    def close(self) -> None:
        self.closed = True


def state_of(run: Run, controller: object, unread: float | None, now: float) -> dict[str, object]:
    """Stand for the state of a run."""
    return {"job": run.job, "of": type(controller).__name__, "unread": unread, "time": now}


def running_of(controller: object, rank: int | None, now: float) -> dict[str, object]:
    """Stand for what runs."""
    return {"of": type(controller).__name__, "rank": rank, "time": now}


class Display:
    """Stands for what the user sees."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.shown: list[object] = []

    def show(self, state: object) -> None:
        self.shown.append(state)

    def hide(self) -> None:
        self.house.did("hide")


class Log:
    """Stands for the log."""

    def __init__(self, house: House) -> None:
        self.house = house

    def info(self, text: str, *values: object) -> None:
        self.house.did("log", text % values)

    def error(self, text: str, *values: object) -> None:
        self.house.did("error", text % values)

    def warning(self, text: str, *values: object) -> None:
        self.house.did("warn", text % values if values else text)


class House:
    """A driver's loop with stand-ins for everything around it."""

    driver: DriverLoop
    store: Store
    press: Press
    child: Child | None = None
    child_failure: DisbatchError | None = None
    is_listened_to = False

    def __init__(self, monkeypatch: pytest.MonkeyPatch, event_loop: EventLoop | None = None) -> None:
        self.done: list[tuple[object, ...]] = []
        self.events: list[events.Event] = []
        self.to_happen: deque[Callable[[], None]] = deque()
        self.over = False
        self.script = Script(self)
        self.book = Book(self)
        self.loop = Loop(self)
        self._event_loop = event_loop or cast("EventLoop", self.loop)
        monkeypatch.setattr(loop_file, "time", SimpleNamespace(time=lambda: NOW))
        monkeypatch.setattr(loop_file, "Server", self._make_store)
        monkeypatch.setattr(loop_file, "Publisher", self._make_press)
        monkeypatch.setattr("disbatch.driver.snapshot.state", state_of)
        monkeypatch.setattr("disbatch.driver.snapshot.running", running_of)
        self.display = Display(self)
        monkeypatch.setattr(loop_file, "Launched", lambda *given, **named: Child(self, *given, **named))
        monkeypatch.setattr(descriptors, "make_room", self._make_room)

    def _make_store(self, *given: object, **named: Any) -> Store:  # noqa: ANN401 - as the loop gives them
        self.store = Store(self, *given, **named)
        return self.store

    def _make_press(self, _loop: object, post: Callable[[], None]) -> Press:
        self.press = Press(post)
        return self.press

    def _make_room(self, needed: int) -> tuple[int, int]:
        self.did("make room", needed)
        return FORMER_LIMIT

    def open(
        self,
        controller: Controller | None = None,
        recorder: Recorder | None = None,
        own_context: OwnContext = OWN_CONTEXT,
        *,
        forget: bool = True,
    ) -> None:
        """Make the driver's loop and let it serve; nothing has happened then."""
        self.driver = DriverLoop(
            self._event_loop,
            controller or cast("Controller", self.script),
            recorder or cast("Recorder", self.book),
            Run(JOB, "1.0", "host", 1.0),
            own_context,
            cast(Any, Log(self)),
            lambda text: self.did("tell", text),
            lambda lines: self.did("recorded", *lines) if self.is_listened_to else None,
            cast(Any, self.display),
        )
        self.driver.serve(cast("socket.socket", "the listening socket"), SECRETS)
        if forget:
            self.done.clear()

    def did(self, *what: object) -> None:
        self.done.append(what)

    def happens(self, what: Callable[[], None]) -> None:
        """Let this happen in a turn of its own."""
        self.to_happen.append(what)

    def is_told(self, *told: events.Event) -> None:
        """Let all of this be told to the driver in one turn."""

        def tell() -> None:
            for event in told:
                self.driver.happened(event)

        self.happens(tell)

    def arrives(
        self, message: messages.Message, peer: int | None = 1, *, key: bytes = messages.driver_key(JOB)
    ) -> None:
        self.arrives_as(messages.encode(message), messages.TAG, peer, key=key)

    def arrives_as(
        self, value: bytes, tag: bytes, peer: int | None = 1, *, key: bytes = messages.driver_key(JOB)
    ) -> None:
        self.happens(lambda: self.store.listeners[key](tag, value, peer))

    def hangs_up(self, peer: int) -> None:
        self.happens(lambda: self.store.hang_up(peer))

    def a_child_ends(self) -> None:
        self.happens(self.loop.signal_handlers[signal.SIGCHLD])

    def run(self, *commands: events.Command) -> events.EndRun:
        """Go through a run that begins with these commands."""
        self.script.first = [*commands]
        self.over = THE_END in commands
        end = self.driver.run(cast("Feeder", Source(self)))
        self.driver.close()
        return end

    @property
    def heard(self) -> list[events.Event]:
        """What the controller was told, the end of its patience aside."""
        return [event for event in self.events if not isinstance(event, events.PatienceEnded)]

    @property
    def replaced(self) -> list[tuple[object, ...]]:
        return self.all("replace")

    def all(self, what: str) -> list[tuple[object, ...]]:
        return [values[1:] for values in self.done if values[0] == what]
