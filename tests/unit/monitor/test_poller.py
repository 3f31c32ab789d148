"""The thread that asks, without one: `ask` is called by hand, of an observer that answers as the test says."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

import pytest

from disbatch import messages
from disbatch.errors import DriverUnreachableError
from disbatch.monitor import poller
from disbatch.monitor.model import Answered, Event, Failed, Listed, Over, Seen, Stop
from disbatch.monitor.poller import LONGEST_PAUSE, MOST_UNHEARD, PERIOD, Poller
from disbatch.records import replace
from disbatch.watch.state import ENDED, RunningTask, RunState, StateError
from tests.unit.watch.examples import engine, run, task

if TYPE_CHECKING:
    from disbatch.watch.observer import Observer

STATE = run(engine(0, "alpha"))
STOP = Stop(messages.StopEngine(0, now=False), "engine 0 on alpha")


class Driver:
    """Stands for an observer, and for the driver behind it."""

    def __init__(self) -> None:
        self.now: RunState | None = STATE
        self.failure: Exception | None = None
        self.takes_orders = True
        self.orders: list[tuple[str, object]] = []
        self.closed = 0
        self.connected = 0

    def connect(self) -> Observer:
        if self.failure is not None:
            raise self.failure
        self.connected += 1
        return cast("Observer", self)

    def state(self) -> RunState | None:
        if self.failure is not None:
            raise self.failure
        return self.now

    def running(self, engine: int) -> tuple[tuple[RunningTask, ...], int]:
        return (task(7, engine=engine),), 1

    def order(self, job: str, order: object) -> None:
        if not self.takes_orders:
            raise DriverUnreachableError("lost the driver")
        self.orders.append((job, order))

    def close(self) -> None:
        self.closed += 1


class Bench:
    """A poller of a driver that the test plays."""

    def __init__(self) -> None:
        self.driver = Driver()
        self.is_over = False
        self.rung = 0
        self.poller = Poller(self.driver.connect(), self.driver.connect, lambda: self.is_over, self.ring)

    def ring(self) -> None:
        self.rung += 1

    def heard(self) -> list[Event | Exception]:
        found = []
        while not self.poller.events.empty():
            found.append(self.poller.events.get())
        assert self.rung == len(found), "who waits is woken"
        self.rung = 0
        return found


@pytest.fixture(autouse=True)
def no_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is a thread of its own, with a twin of its own."""
    monkeypatch.setattr(poller, "LastWord", lambda _connect: None)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_state_is_asked_for(bench: Bench) -> None:
    assert not bench.poller.ask()
    assert bench.heard() == [Seen(STATE)]
    assert bench.poller._pause >= PERIOD


def test_what_runs_is_asked_for_where_somebody_looks(bench: Bench) -> None:
    bench.poller.look_at(3)
    bench.poller.ask()
    assert bench.heard() == [Seen(STATE), Listed(3, (task(7, engine=3),), 1)]
    bench.poller.look_at(None)
    bench.poller.ask()
    assert bench.heard() == [Seen(STATE)]


def test_the_end_of_the_run_is_the_end_of_asking(bench: Bench) -> None:
    bench.driver.now = replace(STATE, phase=ENDED)
    assert bench.poller.ask()


def test_orders_are_passed_on(bench: Bench) -> None:
    bench.poller.stop(STOP)
    bench.poller.ask()
    assert bench.driver.orders == [(STATE.job, STOP.order)]
    assert bench.heard() == [Answered("told engine 0 on alpha to finish what runs there"), Seen(STATE)]


def test_a_run_that_has_just_begun_gets_its_orders_later(bench: Bench) -> None:
    bench.driver.now = None
    bench.poller.stop(STOP)
    bench.poller.ask()
    assert bench.heard() == [Seen(None)]
    bench.driver.now = STATE
    bench.poller.ask()
    assert len(bench.driver.orders) == 1


def test_a_driver_that_is_lost_is_looked_for_less_and_less_often(bench: Bench) -> None:
    bench.driver.failure = DriverUnreachableError("lost the driver")
    pauses = []
    for _ in range(8):
        assert not bench.poller.ask()
        pauses.append(bench.poller._pause)
    assert pauses[0] == PERIOD
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    assert bench.heard() == [Failed("")] * 8
    assert bench.driver.closed == 1
    bench.driver.failure = None
    bench.poller.ask()
    assert (bench.heard(), bench.driver.connected) == ([Seen(STATE)], 2)
    assert bench.poller._pause < LONGEST_PAUSE


def test_a_driver_whose_host_answers_without_it_was_killed(bench: Bench) -> None:
    bench.driver.failure = DriverUnreachableError("cannot reach the driver")
    bench.driver.failure.nobody_listens = True
    bench.poller.ask()
    assert bench.heard() == [Failed(poller.NOBODY_LISTENS)]


def test_a_run_that_has_taken_its_files_away_is_over(bench: Bench) -> None:
    bench.driver.failure = DriverUnreachableError("lost the driver")
    bench.is_over = True
    assert bench.poller.ask()
    assert bench.heard() == [Over()]


def test_an_order_that_a_lost_driver_does_not_get_is_not_kept_for_later(bench: Bench) -> None:
    bench.driver.failure = DriverUnreachableError("lost the driver")
    bench.poller.stop(STOP)
    bench.poller.ask()
    assert bench.heard() == [Failed(""), Answered("engine 0 on alpha was not told: the driver does not answer")]
    bench.driver.failure = None
    bench.poller.ask()
    assert bench.driver.orders == []


def test_of_an_order_that_was_under_way_nobody_knows(bench: Bench) -> None:
    bench.driver.takes_orders = False
    bench.poller.stop(STOP)
    assert not bench.poller.ask()
    words = "whether engine 0 on alpha was told is not known: the driver does not answer"
    assert bench.heard() == [Answered(words), Failed("")]


def test_a_state_that_nobody_understands_is_said_so(bench: Bench) -> None:
    bench.driver.failure = StateError("the state of the run is no JSON")
    assert not bench.poller.ask()
    assert bench.heard() == [Failed("the state of the run is no JSON")]


def test_where_nobody_hears_what_is_said_nothing_piles_up(bench: Bench) -> None:
    for _ in range(3 * MOST_UNHEARD):
        assert not bench.poller.ask()
    assert bench.heard() == [Seen(STATE)] * MOST_UNHEARD
    bench.poller.ask()
    assert bench.heard() == [Seen(STATE)]


def test_a_driver_that_is_slow_is_asked_less_often(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 102.0])
    monkeypatch.setattr("disbatch.monitor.poller.time.monotonic", lambda: next(clock))
    bench.poller.ask()
    assert bench.poller._pause == 10.0


# In its thread.


def test_it_asks_when_it_is_started_and_when_it_is_woken_and_no_more_at_the_end(bench: Bench) -> None:
    bench.poller.start()
    assert bench.poller.events.get() == Seen(STATE)
    bench.poller._pause = 1e6
    bench.poller.look_at(3)
    while not isinstance(heard := bench.poller.events.get(), Listed):
        assert heard == Seen(STATE)
    bench.poller.end()
    bench.poller._thread.join()


def test_a_mistake_of_its_own_is_told_to_who_listens() -> None:
    rung = threading.Event()
    driver = Driver()
    mistaken = Poller(driver.connect(), driver.connect, lambda: False, rung.set)
    driver.failure = ZeroDivisionError("a mistake")
    mistaken.start()
    assert mistaken.events.get() is driver.failure
    mistaken._thread.join()
    assert rung.is_set()


def test_the_last_that_is_seen_of_a_run_is_its_end(bench: Bench) -> None:
    class LastWord:
        @staticmethod
        def get() -> RunState:
            return replace(STATE, phase=ENDED)

    bench.poller._last_word = cast(Any, LastWord())
    bench.driver.failure = DriverUnreachableError("lost the driver")
    bench.is_over = True
    assert bench.poller.ask()
    assert bench.heard() == [Seen(replace(STATE, phase=ENDED)), Over()]
