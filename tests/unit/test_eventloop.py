"""The loop, turned by hand: over pipes, with a clock that the test moves wherever time matters."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch.eventloop import READ, WRITE, EventLoop, Timer, uptime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


ROOT = Path(__file__).parents[2]


class Ordered(selectors.DefaultSelector):
    """Tells of what is ready in the order of the descriptors' numbers."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return sorted(super().select(timeout), key=lambda ready: ready[0].fd)


class Patient(selectors.DefaultSelector):
    """Waits by moving the clock of its loop, and notes how long; forever is an error of the test."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.waits: list[float] = []

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "the loop would wait forever"
            self.waits.append(timeout)
            self.now += timeout
        return ready


class TimedLoop(EventLoop):
    """A loop that goes by the clock of its selector."""

    def __init__(self) -> None:
        self.clock = Patient()
        super().__init__(self.clock)

    def now(self) -> float:  # type: ignore[override] # of one loop, not of all
        return self.clock.now


class Pipe:
    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()

    def fill(self) -> None:
        os.set_blocking(self.write_end, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.write_end, b"x" * 65536)

    def write(self, data: bytes = b"x") -> None:
        os.write(self.write_end, data)

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self.write_end)


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    made = EventLoop(Ordered())
    yield made
    made.close()


@pytest.fixture
def timed() -> Iterator[TimedLoop]:
    made = TimedLoop()
    yield made
    made.close()


@pytest.fixture
def pipes() -> Iterator[list[Pipe]]:
    """Two pipes, the one with the lower numbers first."""
    made = [Pipe(), Pipe()]
    yield made
    for pipe in made:
        pipe.close()


@pytest.fixture
def pipe(pipes: list[Pipe]) -> Pipe:
    return pipes[0]


class Notes(list[str]):
    """What was called, in order."""

    def taking(self, what: str) -> Callable[..., None]:
        """Return a handler of anything that notes this."""
        return lambda *_: self.append(what)


@pytest.fixture
def notes() -> Notes:
    return Notes()


def nothing(*_: object) -> None:
    """Do nothing with whatever there is."""


# Descriptors.


def test_a_handler_is_called_when_its_descriptor_can_be_read(loop: EventLoop, pipe: Pipe) -> None:
    masks: list[int] = []
    loop.watch(pipe.read_end, READ, masks.append)
    loop.turn(0)
    assert masks == []
    pipe.write()
    loop.turn()
    assert masks == [READ]


def test_a_handler_is_called_again_as_long_as_there_is_something_left(loop: EventLoop, pipe: Pipe) -> None:
    read: list[bytes] = []
    loop.watch(pipe.read_end, READ, lambda _: read.append(os.read(pipe.read_end, 1)))
    pipe.write(b"abc")
    for _ in range(5):
        loop.turn(0)
    assert read == [b"a", b"b", b"c"]


def test_the_end_of_a_pipe_can_be_read(loop: EventLoop) -> None:
    read_end, write_end = os.pipe()
    read: list[bytes] = []
    loop.watch(read_end, READ, lambda _: read.append(os.read(read_end, 1)))
    os.close(write_end)
    loop.turn()
    loop.unwatch(read_end)
    os.close(read_end)
    assert read == [b""]


def test_a_handler_is_called_when_its_descriptor_can_be_written(loop: EventLoop, pipe: Pipe) -> None:
    masks: list[int] = []
    pipe.fill()
    loop.watch(pipe.write_end, WRITE, masks.append)
    loop.turn(0)
    assert masks == []
    os.read(pipe.read_end, 1 << 20)
    loop.turn()
    assert masks == [WRITE]


def test_what_is_waited_for_can_change(loop: EventLoop, pipe: Pipe, notes: Notes) -> None:
    loop.watch(pipe.write_end, WRITE, notes.taking("first"))
    loop.turn()
    loop.rewatch(pipe.write_end, READ, notes.taking("no longer"))
    loop.turn(0)
    loop.rewatch(pipe.write_end, READ | WRITE, notes.taking("second"))
    loop.turn()
    assert notes == ["first", "second"]


def test_all_that_is_ready_is_handled_in_one_turn(loop: EventLoop, pipes: list[Pipe], notes: Notes) -> None:
    for number, each in enumerate(pipes):
        loop.watch(each.read_end, READ, notes.taking(str(number)))
        each.write()
    loop.turn()
    assert sorted(notes) == ["0", "1"]


def test_a_descriptor_is_not_handled_after_it_was_unwatched(loop: EventLoop, pipe: Pipe, notes: Notes) -> None:
    loop.watch(pipe.read_end, READ, notes.taking("called"))
    pipe.write()
    loop.unwatch(pipe.read_end)
    loop.turn(0)
    assert notes == []


def test_a_handler_can_unwatch_its_own_descriptor(loop: EventLoop, pipe: Pipe, notes: Notes) -> None:

    def once(_: int) -> None:
        notes.append("called")
        loop.unwatch(pipe.read_end)

    loop.watch(pipe.read_end, READ, once)
    pipe.write()
    loop.turn()
    loop.turn(0)
    assert notes == ["called"]


@pytest.mark.parametrize("selector", [selectors.DefaultSelector, selectors.PollSelector, selectors.SelectSelector])
def test_what_another_handler_unwatched_in_the_same_turn_is_not_handled(
    selector: type[selectors.BaseSelector], pipes: list[Pipe], notes: Notes
) -> None:
    loop = EventLoop(selector())

    def unwatch_other(number: int) -> Callable[[int], None]:
        def handler(_: int) -> None:
            notes.append(f"{number}")
            loop.unwatch(pipes[1 - number].read_end)

        return handler

    for number, each in enumerate(pipes):
        loop.watch(each.read_end, READ, unwatch_other(number))
        each.write()
    loop.turn()
    loop.close()
    assert len(notes) == 1, "whichever came first"


def test_a_new_descriptor_with_an_old_number_is_not_taken_for_the_old(
    loop: EventLoop, pipes: list[Pipe], notes: Notes
) -> None:
    new = Pipe()

    def replace_the_second(_: int) -> None:
        notes.append("first")
        loop.unwatch(pipes[0].read_end)
        loop.unwatch(pipes[1].read_end)
        os.dup2(new.read_end, pipes[1].read_end)  # closes what had the number before
        loop.watch(pipes[1].read_end, READ, notes.taking("new"))

    loop.watch(pipes[0].read_end, READ, replace_the_second)
    loop.watch(pipes[1].read_end, READ, notes.taking("old"))
    for each in pipes:
        each.write()
    loop.turn()
    assert notes == ["first"]
    new.write()
    loop.turn()
    assert notes == ["first", "new"]
    new.close()


def test_a_handler_can_watch_more(loop: EventLoop, pipes: list[Pipe], notes: Notes) -> None:

    def watch_second(_: int) -> None:
        os.read(pipes[0].read_end, 1)
        loop.watch(pipes[1].read_end, READ, notes.taking("second"))

    loop.watch(pipes[0].read_end, READ, watch_second)
    for each in pipes:
        each.write()
    loop.turn()
    loop.turn()
    assert notes == ["second"]


def test_others_may_register_with_the_same_selector(pipe: Pipe) -> None:
    selector = selectors.DefaultSelector()
    loop = EventLoop(selector)
    masks: list[int] = []
    selector.register(pipe.read_end, READ, masks.append)
    pipe.write()
    loop.turn()
    loop.close()
    assert masks == [READ]


# Timers.


def test_timers_run_in_the_order_of_their_times_however_they_were_set(timed: TimedLoop, notes: Notes) -> None:
    for seconds in (3.0, 1.0, 2.0):
        timed.after(seconds, notes.taking(f"{seconds} s"))
    for _ in range(3):
        timed.turn()
    assert notes == ["1.0 s", "2.0 s", "3.0 s"]
    assert timed.clock.waits == [1.0, 1.0, 1.0]


def test_timers_of_one_time_run_in_the_order_in_which_they_were_set_and_in_one_turn(
    timed: TimedLoop, notes: Notes
) -> None:
    for number in range(20):
        timed.after(1.0, notes.taking(f"{number}"))
    timed.turn()
    assert notes == [f"{number}" for number in range(20)]


def test_a_timer_runs_once_and_not_before_its_time(timed: TimedLoop, notes: Notes) -> None:
    timed.after(1.0, notes.taking("done"))
    timed.turn(0.75)
    assert notes == []
    timed.turn(0.75)
    timed.turn(0.75)
    assert notes == ["done"]
    assert timed.clock.waits == [0.75, 0.25, 0.75]


def test_a_timer_knows_its_time(timed: TimedLoop) -> None:
    assert timed.after(2.5, nothing).when == timed.now() + 2.5


def test_a_turn_ends_when_there_is_something_to_read_and_leaves_the_timers(
    timed: TimedLoop, pipe: Pipe, notes: Notes
) -> None:
    timed.after(1.0, notes.taking("timer"))
    timed.watch(pipe.read_end, READ, notes.taking("read"))
    pipe.write()
    timed.turn()
    assert notes == ["read"]


def test_timers_that_are_due_run_however_much_there_is_to_read(timed: TimedLoop, pipe: Pipe, notes: Notes) -> None:
    timed.watch(pipe.read_end, READ, notes.taking("read"))
    pipe.write()
    timed.after(0.0, notes.taking("timer"))
    timed.turn()
    assert notes == ["read", "timer"]


def test_a_cancelled_timer_does_nothing_and_wakes_nobody(timed: TimedLoop, notes: Notes) -> None:
    cancelled = timed.after(1.0, notes.taking("cancelled"))
    timed.after(3.0, notes.taking("done"))
    cancelled.cancel()
    timed.turn()
    assert notes == ["done"]
    assert timed.clock.waits == [3.0]


def test_without_a_timer_left_only_the_limit_of_the_turn_counts(timed: TimedLoop) -> None:
    timed.after(1.0, nothing).cancel()
    timed.turn(7.0)
    assert timed.clock.waits == [7.0]


def test_a_timer_can_cancel_one_that_is_due_in_the_same_turn(timed: TimedLoop, notes: Notes) -> None:

    def cancel_second() -> None:
        second.cancel()

    timed.after(1.0, cancel_second)
    second = timed.after(1.0, notes.taking("second"))
    timed.turn()
    timed.turn(1.0)
    assert notes == []


def test_cancelling_is_harmless_at_any_time(timed: TimedLoop) -> None:
    def cancel_itself() -> None:
        timer.cancel()

    timer = timed.after(0.0, cancel_itself)
    timed.turn()
    timer.cancel()
    timer.cancel()
    timed.turn(0)


def test_a_timer_can_set_another(timed: TimedLoop) -> None:
    notes: list[float] = []

    def again() -> None:
        notes.append(timed.now())
        timed.after(1.0, again)

    timed.after(1.0, again)
    for _ in range(3):
        timed.turn()
    assert notes == [1001.0, 1002.0, 1003.0]


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_timer_that_sets_itself_again_at_once_lets_descriptors_have_their_turn(
    timed: TimedLoop, pipe: Pipe, seconds: float, notes: Notes
) -> None:

    def again() -> None:
        notes.append("timer")
        timed.after(seconds, again)

    timed.watch(pipe.read_end, READ, notes.taking("read"))
    pipe.write()
    again()
    timed.turn()
    timed.turn()
    assert notes == ["timer", "read", "timer", "read", "timer"]


def test_a_handler_can_set_a_timer(timed: TimedLoop, pipe: Pipe, notes: Notes) -> None:
    timed.watch(pipe.read_end, READ, lambda _: timed.after(0.0, notes.taking("timer")))
    pipe.write()
    timed.turn()
    assert notes == ["timer"]


def test_a_timer_by_the_real_clock_ends_a_turn_without_limit(loop: EventLoop, notes: Notes) -> None:
    loop.after(0.001, notes.taking("done"))
    begun = loop.now()
    while not notes:
        loop.turn()
    assert loop.now() - begun >= 0.001


steps = st.lists(
    st.tuples(st.just("set"), st.integers(0, 5))
    | st.tuples(st.just("cancel"), st.integers(0, 20))
    | st.tuples(st.just("turn"), st.integers(0, 4)),
    max_size=30,
)


@given(steps)
def test_timers_follow_a_model(steps: list[tuple[str, int]]) -> None:
    loop = TimedLoop()
    timers: list[Timer] = []
    waiting: dict[int, float] = {}
    done: list[int] = []
    for step, number in steps:
        if step == "set":
            waiting[len(timers)] = loop.now() + number
            timers.append(loop.after(number, partial(done.append, len(timers))))
        elif step == "cancel":
            if timers:
                timers[number % len(timers)].cancel()
                waiting.pop(number % len(timers), None)
        else:
            until = min([loop.now() + number, *waiting.values()])
            due = sorted((when, index) for index, when in waiting.items() if when <= until)
            done.clear()
            loop.turn(number)
            assert loop.now() == until
            assert done == [index for _, index in due]
            for index in done:
                del waiting[index]
    loop.close()


# Signals.

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture
def _handlers_stay() -> Iterator[None]:
    """A test must leave the handlers of this process as they were."""
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, *ENDING)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.fixture
def signalled(_handlers_stay: None) -> Iterator[EventLoop]:
    made = EventLoop()
    yield made
    made.close()


@pytest.mark.parametrize("times", [1, 3])
def test_a_signal_is_handled_in_the_turn_of_the_loop_once_however_often_it_came(
    signalled: EventLoop, notes: Notes, times: int
) -> None:
    signalled.on_signal(signal.SIGUSR1, notes.taking("called"))
    for _ in range(times):
        signal.raise_signal(signal.SIGUSR1)
    assert notes == [], "not where the program happened to be"
    signalled.turn()
    signalled.turn(0)
    assert notes == ["called"]


def test_each_signal_has_its_handler(signalled: EventLoop, notes: Notes) -> None:
    signalled.on_signal(signal.SIGUSR1, notes.taking("one"))
    signalled.on_signal(signal.SIGUSR2, notes.taking("two"))
    signal.raise_signal(signal.SIGUSR2)
    signal.raise_signal(signal.SIGUSR1)
    signalled.turn()
    assert sorted(notes) == ["one", "two"]


def test_among_thousands_of_signals_no_other_is_lost(
    signalled: EventLoop, capfd: pytest.CaptureFixture[str], notes: Notes
) -> None:
    signalled.on_signal(signal.SIGUSR1, notes.taking("many"))
    signalled.on_signal(signal.SIGUSR2, notes.taking("other"))
    for _ in range(5000):
        signal.raise_signal(signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR2)
    for _ in range(10):
        signalled.turn(0)
    assert set(notes) == {"many", "other"}
    assert len(notes) < 10
    assert capfd.readouterr() == ("", "")


def test_each_signal_that_asks_to_end_is_told_by_its_name(signalled: EventLoop) -> None:
    asked: list[signal.Signals] = []
    signalled.on_request_to_end(asked.append)
    for number in ENDING:
        signal.raise_signal(number)
        signalled.turn()
    assert asked == [*ENDING]


def test_a_hang_up_that_is_ignored_stays_so(signalled: EventLoop) -> None:
    asked: list[signal.Signals] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signalled.on_request_to_end(asked.append)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        signalled.turn()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert asked == [signal.SIGTERM]


def test_a_stop_that_is_ignored_stays_so(signalled: EventLoop, notes: Notes) -> None:
    before = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        signalled.on_request_to_stop(notes.taking("asked"))
        signal.raise_signal(signal.SIGTSTP)
    finally:
        signal.signal(signal.SIGTSTP, before)
    signalled.on_signal(signal.SIGUSR1, notes.taking("other"))
    signal.raise_signal(signal.SIGUSR1)
    signalled.turn()
    assert notes == ["other"]


STOPS = """
import os, signal
from disbatch.eventloop import EventLoop

class Loop(EventLoop):
    clock = 100.0

    def now(self):
        return self.clock

def go_on(*_):
    loop.clock += 1000.0

os.setpgid(0, 0)  # or nobody could let it go on, and Linux would not stop it
signal.signal(signal.SIGCONT, go_on)
loop = Loop()
first, second = loop.after(1.0, lambda: print("first")), loop.after(2.0, lambda: print("second"))
loop.on_request_to_stop(lambda: print("asked", flush=True))
for _ in range(2):
    signal.raise_signal(signal.SIGTSTP)
    loop.turn(0)
    loop.stop()
print("goes on", first.when, second.when, loop.now(), flush=True)
loop.turn(0)
loop.clock += 1.5
loop.turn(0)
"""


def test_a_process_stops_when_it_says_so_and_no_time_has_passed_for_its_timers() -> None:
    process = subprocess.Popen([sys.executable, "-c", STOPS], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        for _ in range(2):
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            assert os.WSTOPSIG(status) == signal.SIGTSTP
            process.send_signal(signal.SIGCONT)
        output, _ = process.communicate()
    finally:
        process.kill()
        process.wait()
    assert output.splitlines() == ["asked", "asked", "goes on 2101.0 2102.0 2100.0", "first"]


def test_a_signal_ends_a_wait(signalled: EventLoop, notes: Notes) -> None:
    signalled.on_signal(signal.SIGALRM, notes.taking("called"))
    signal.setitimer(signal.ITIMER_REAL, 0.002)
    signalled.turn()
    assert notes == ["called"]


def test_several_handlers_of_a_signal_are_called_in_their_order(signalled: EventLoop, notes: Notes) -> None:
    signalled.on_signal(signal.SIGUSR1, notes.taking("earlier"))
    signalled.on_signal(signal.SIGUSR1, notes.taking("later"))
    signal.raise_signal(signal.SIGUSR1)
    signalled.turn()
    assert notes == ["earlier", "later"]


def test_signals_that_are_somebody_elses_are_left_to_them(signalled: EventLoop, notes: Notes) -> None:
    signalled.on_signal(signal.SIGUSR1, notes.taking("ours"))
    before = signal.signal(signal.SIGUSR2, notes.taking("theirs"))
    try:
        signal.raise_signal(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    signalled.turn(0)
    assert notes == ["theirs"]


@pytest.mark.usefixtures("_handlers_stay")
def test_a_closed_loop_gives_signals_back(notes: Notes) -> None:
    before = signal.signal(signal.SIGUSR1, notes.taking("before"))
    loop = EventLoop()
    loop.on_signal(signal.SIGUSR1, notes.taking("loop"))
    loop.on_signal(signal.SIGUSR1, notes.taking("loop"))
    loop.close()
    signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
    assert notes == ["before"]


def open_descriptors() -> set[int]:
    found = set()
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # that of the folder itself is closed by now
            os.fstat(int(name))
            found.add(int(name))
    return found


@pytest.mark.usefixtures("_handlers_stay")
def test_a_closed_loop_leaves_no_descriptor_open() -> None:
    before = open_descriptors()
    loop = EventLoop()
    loop.on_signal(signal.SIGUSR1, nothing)
    opened = open_descriptors() - before
    assert opened
    assert not any(map(os.get_inheritable, opened)), "a child must not have them"
    loop.close()
    assert open_descriptors() <= before


# Handlers that fail.


class MishapError(Exception):
    pass


def fail(*_: object) -> None:
    raise MishapError


def test_an_error_of_a_handler_ends_the_turn_and_nothing_ready_is_lost(
    loop: EventLoop, pipes: list[Pipe], notes: Notes
) -> None:
    loop.watch(pipes[0].read_end, READ, fail)
    loop.watch(pipes[1].read_end, READ, notes.taking("second"))
    for each in pipes:
        each.write()
    with pytest.raises(MishapError):
        loop.turn()
    loop.unwatch(pipes[0].read_end)
    loop.turn()
    assert notes == ["second"]


def test_an_error_of_a_timer_ends_the_turn_and_the_others_are_still_due(timed: TimedLoop, notes: Notes) -> None:
    timed.after(1.0, fail)
    timed.after(1.0, notes.taking("second"))
    with pytest.raises(MishapError):
        timed.turn()
    timed.turn()
    assert notes == ["second"]
    assert timed.clock.waits == [1.0, 0.0]


def test_an_error_of_a_signals_handler_ends_the_turn(signalled: EventLoop) -> None:
    signalled.on_signal(signal.SIGUSR1, fail)
    signal.raise_signal(signal.SIGUSR1)
    with pytest.raises(MishapError):
        signalled.turn()
    signalled.turn(0)


def test_the_time_since_the_machine_has_started_only_grows() -> None:
    times = [uptime() for _ in range(100)]
    assert times == sorted(times)
    assert times[0] > 0
