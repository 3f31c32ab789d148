"""The monitor as a process: its loop on a screen that is none, and what it tells once, of an observer that is none."""

from __future__ import annotations

import json
import os
import queue
import signal
from typing import TYPE_CHECKING, cast

import pytest

from disbatch.errors import DisbatchError, DriverUnreachableError, UsageError
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.monitor import model, process
from disbatch.monitor.model import Event, Listed, Monitor, Over, Seen, Stop
from disbatch.monitor.render import plain
from disbatch.values import Address
from tests.unit.watch.examples import engine, run, task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from typing_extensions import Self

    from disbatch.monitor.poller import Poller
    from disbatch.monitor.render import Line
    from disbatch.monitor.screen import Screen
    from disbatch.watch.state import RunState

STATE = run(engine(0, "alpha"))
KVS = Address("driver", 4711)


class Observer:
    """Stands for the client of a run: shows these states, one after another."""

    def __init__(self, *states: RunState | None, failure: Exception | None = None) -> None:
        self.states = list(states)
        self.failure = failure
        self.asked: list[Address] = []

    def __call__(self, kvs: Address, _patience: float) -> Self:
        self.asked.append(kvs)
        if self.failure is not None:
            raise self.failure
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def state(self) -> RunState | None:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SECRET_VARIABLE, "KVSSTCP_HOST", "KVSSTCP_PORT"):
        monkeypatch.setenv(name, "that of another store")


# Told once.


def tell(monkeypatch: pytest.MonkeyPatch, observer: Observer, *, as_json: bool = False, is_over: bool = False) -> int:
    monkeypatch.setattr(process, "Observer", observer)
    monkeypatch.setattr(process, "_PAUSE", 0.0)
    return process.tell(KVS, lambda: is_over, as_json=as_json)


def test_the_state_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(monkeypatch, Observer(STATE)) == 0
    assert "alpha" in capsys.readouterr().out
    assert tell(monkeypatch, Observer(STATE), as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["engines"][0]["node"] == "alpha"


def test_a_run_that_has_just_begun_is_given_a_moment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tell(monkeypatch, Observer(None, None, STATE)) == 0
    assert "alpha" in capsys.readouterr().out
    monkeypatch.setattr(process, "STATE_PATIENCE", 0.0)
    assert tell(monkeypatch, Observer(None), as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"phase": "starting"}


GONE = DriverUnreachableError("cannot reach the driver")


def test_a_run_that_is_over_is_said_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(monkeypatch, Observer(failure=GONE), is_over=True) == 0
    assert capsys.readouterr() == ("Run done\n", "")
    assert tell(monkeypatch, Observer(failure=GONE), is_over=True, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"phase": "ended"}


def test_a_driver_that_cannot_be_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DriverUnreachableError):
        tell(monkeypatch, Observer(failure=GONE))


# By a file for observers.


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run_observer.txt"
    path.write_text("export KVSSTCP_HOST=h\nexport KVSSTCP_PORT=4711\nexport KVSSTCP_SECRET=s3cret\n")
    return path


def test_a_file_for_observers_says_where_and_by_which_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    observer = Observer(STATE)
    monkeypatch.setattr(process, "Observer", observer)
    assert process.show_once([str(file)]) == 0
    assert observer.asked == [Address("h", 4711)]
    assert os.environ[SECRET_VARIABLE] == "s3cret"
    assert "alpha" in capsys.readouterr().out


def test_a_file_without_a_secret_leaves_none_of_another_store(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text("export KVSSTCP_HOST=h\nexport KVSSTCP_PORT=4711\n")
    monkeypatch.setattr(process, "Observer", Observer(STATE))
    assert process.show_once([str(file), "--json"]) == 0
    assert SECRET_VARIABLE not in os.environ


def test_who_comes_by_such_a_file_may_stop_nothing(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    seen: list[object] = []

    def watch(kvs: Address, _: object, *, may_stop: bool) -> int:
        seen.extend((kvs, may_stop))
        return 5

    monkeypatch.setattr(process, "watch", watch)
    assert process.show_live([str(file)]) == 5
    assert seen == [Address("h", 4711), False]


@pytest.mark.parametrize("show", [process.show_once, process.show_live])
def test_a_run_that_has_taken_the_file_away_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path, show: Callable[[list[str]], int]
) -> None:
    def gone(*_: object, **__: object) -> int:
        file.unlink(missing_ok=True)
        raise GONE

    monkeypatch.setattr(process, "Observer", gone)
    monkeypatch.setattr(process, "watch", gone)
    assert show([str(file)]) == 0
    assert capsys.readouterr().out == "Run done\n"


def test_a_copy_of_the_file_stays_and_tells_nothing(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr(process, "Observer", Observer(failure=GONE))
    with pytest.raises(DriverUnreachableError):
        process.show_once([str(file)])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "there is no file {!r} (a run has its file for observers until it ends)"),
        ("", "{!r} does not say where a run is (name the file of a run whose name ends in _observer.txt)"),
        ("rm -rf /\n", "{!r} does not say where a run is (name the file of a run whose name ends in _observer.txt)"),
        ("KVSSTCP_HOST=h\nKVSSTCP_PORT=x\n",
         "{!r} does not say where a run is (name the file of a run whose name ends in _observer.txt)"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_of_a_run(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = tmp_path / "x\x1b"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DisbatchError) as error:
        process.show_once([str(path)])
    assert str(error.value) == complaint.format(str(path))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DisbatchError, match=r"cannot read '.*': Is a directory"):
        process.show_once([str(tmp_path)])


def test_a_mistake_in_the_arguments() -> None:
    with pytest.raises(UsageError, match="the following arguments are required: OBSERVERFILE"):
        process.show_live([])


def test_without_a_terminal_there_is_no_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.__stdin__", None)
    observer = Observer(STATE)
    monkeypatch.setattr(process, "Observer", observer)
    with pytest.raises(DisbatchError, match="--mon needs a terminal"):
        process.watch(KVS, lambda: False, may_stop=True)
    assert observer.asked == [], "nobody is asked for what cannot be shown"


# The loop.


class Shown:
    """Stands for the screen: `keys` has those that are pressed between two pictures, for one picture each."""

    def __init__(self, bell: Bell, *keys: str | Sequence[str]) -> None:
        self.bell = bell
        self.pressed = list(keys)
        self.pictures: list[list[str]] = []
        self.size = (80, 24)
        self.fitted = 0
        self.there = True

    def draw(self, lines: Sequence[Line]) -> None:
        self.pictures.append([plain(line) for line in lines])
        self.bell.keys_are_there = bool(self.pressed)

    def keys(self) -> Iterator[str]:
        return iter(self.pressed.pop(0))

    def fit(self) -> None:
        self.fitted += 1
        self.size = (40, 10)

    def is_there(self) -> bool:
        return self.there


class Bell:
    """Stands for what is waited for."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.resized = False
        self.keys_are_there = False
        self.turns = 0

    def wait(self, seconds: float) -> bool:
        assert seconds == process.TICK
        self.turns += 1
        assert self.turns < 100, "the loop does not end"
        return self.keys_are_there


class Asked:
    """Stands for the poller."""

    def __init__(self, *events: Event | Exception) -> None:
        self.events: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
        for event in events:
            self.events.put(event)
        self.stops: list[Stop] = []
        self.engines: list[int | None] = []

    def stop(self, order: Stop) -> None:
        self.stops.append(order)

    def look_at(self, engine: int | None) -> None:
        self.engines.append(engine)
        if engine is not None:
            self.events.put(Listed(engine, (task(7),), 0))


def loop(shown: Shown, asked: Asked) -> int:
    return process._loop(
        Monitor(),
        cast("Poller", asked),
        cast("Screen", shown),
        cast("process._Bell", shown.bell),
        unicode=False,
    )


def test_the_loop_shows_what_is_heard_until_the_user_has_seen_enough() -> None:
    shown = Shown(Bell(), "d", [model.ENTER], "u", "q")
    asked = Asked(Seen(STATE))
    assert loop(shown, asked) == 0
    assert any("> SSH0" in line for line in shown.pictures[0])
    assert any(">   alpha" in line for line in shown.pictures[1])
    assert any("./simulate" in line for line in shown.pictures[3])
    assert asked.engines == [None, 0, 0]


def test_what_is_to_be_stopped_goes_to_the_driver() -> None:
    asked = Asked(Seen(STATE))
    assert loop(Shown(Bell(), "dE", "y", "q"), asked) == 0
    assert [stop.what for stop in asked.stops] == ["engine 0 on alpha"]


def test_a_key_behind_the_last_one_is_not_looked_at() -> None:
    asked = Asked(Seen(STATE))
    assert loop(Shown(Bell(), "qEy"), asked) == 0
    assert asked.stops == []


def test_the_end_of_the_run_stays_on_the_screen_until_a_key() -> None:
    shown = Shown(Bell(), "u", "z")
    assert loop(shown, Asked(Seen(STATE), Over())) == 0
    assert "The run has ended" in shown.pictures[-1][4]


def test_a_signal_ends_the_loop_with_its_status() -> None:
    shown = Shown(Bell())
    shown.bell.signal = signal.SIGTERM
    assert loop(shown, Asked()) == 143


def test_a_window_of_another_size_gets_another_picture() -> None:
    shown = Shown(Bell(), "q")
    shown.bell.resized = True
    assert loop(shown, Asked(Seen(STATE))) == 0
    assert (shown.fitted, shown.bell.resized) == (1, False)
    assert len(shown.pictures[0]) == 10


def test_a_terminal_that_has_gone_ends_the_loop() -> None:
    shown = Shown(Bell(), "")
    shown.there = False
    assert loop(shown, Asked()) == 129


def test_a_mistake_in_the_thread_is_not_kept_from_the_user() -> None:
    with pytest.raises(ZeroDivisionError):
        loop(Shown(Bell()), Asked(ZeroDivisionError("a mistake")))


# What the loop waits for.


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    ears, mouth = os.pipe()
    monkeypatch.setattr(process, "STDIN", ears)
    yield mouth
    os.close(ears)
    os.close(mouth)


@pytest.fixture
def bell(keyboard: int) -> Iterator[process._Bell]:  # noqa: ARG001 - it is what it listens to
    with process._Bell() as made:
        yield made


def test_the_bell_tells_keys_from_news(bell: process._Bell, keyboard: int) -> None:
    bell.ring()
    bell.ring()
    assert bell.wait(1e6) is False
    assert bell.wait(0) is False, "it has been heard"
    os.write(keyboard, b"x")
    assert bell.wait(1e6) is True


def test_nobody_is_held_up_by_a_bell_that_nobody_hears(bell: process._Bell) -> None:
    for _ in range(100_000):
        bell.ring()
    assert bell.wait(0) is False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_signals_leave_a_note_and_ring(bell: process._Bell, number: signal.Signals) -> None:
    signal.raise_signal(number)
    assert bell.wait(1e6) is False
    assert bell.signal == number


def test_a_change_of_the_window_is_noticed(bell: process._Bell) -> None:
    signal.raise_signal(signal.SIGWINCH)
    assert bell.wait(1e6) is False
    assert bell.resized


def test_signals_are_handled_as_before_when_it_is_over() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGWINCH, signal.SIGINT)]
    with process._Bell():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGWINCH, signal.SIGINT)] == before


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with process._Bell():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
