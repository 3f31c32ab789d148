"""`controller` in a world where an adversary lets things happen in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from disbatch import messages
from disbatch.driver import events
from disbatch.driver.controller import RunPhase
from disbatch.taskfile import Complaint
from disbatch.tasks import NO_REPEAT, Barrier, PerEngineTask, Task
from disbatch.tasks import Phase as When
from tests.unit.driver.simulation import World

if TYPE_CHECKING:
    from collections.abc import Sequence


which = st.integers(0, 7)
few = st.integers(1, 4)
codes = st.sampled_from([0, 0, 0, 1])
cylinders = st.lists(st.integers(1, 3), min_size=1, max_size=2)
limits = st.sampled_from([0, 0, 1, 3, 10])
kinds = st.sampled_from(["task", "task", "task", "task", "skipped", "skipped failed", "barrier", "check", "complaint"])


def items_of(per_engine: Sequence[When], kinds: Sequence[str], *, too_late: bool) -> list[events.Item]:
    items: list[events.Item] = [PerEngineTask(when, number, 1, b"p") for number, when in enumerate(per_engine)]
    for task_id, kind in enumerate(kinds):
        task = Task(task_id, task_id + 1, NO_REPEAT, b"true")
        if kind == "task":
            items.append(task)
        elif kind.startswith("skipped"):
            items.append(events.SkippedTask(task, b"", failed=kind != "skipped"))
        elif kind == "complaint":
            items.append(Complaint(1, "what is this"))
        else:
            items.append(Barrier(task_id, task_id + 1, check=kind == "check", key=b"key", text=b""))
    if too_late:
        items.append(Complaint(1, "too late", fatal=True))
    return items


class Lives(RuleBasedStateMachine):
    """What happens in every run, and what an adversary can do to its engines and their connections.

    `World` asserts what must hold at every step.
    """

    world: World

    @precondition(lambda self: any(engine.connected for engine in self.world.engines.values()))
    @rule(which=which, kept=few, fate=st.sampled_from(["cut", "cut", "mute", "freeze", "kill"]))
    def an_engine_is_disturbed(self, which: int, kept: int, fate: str) -> None:
        connected = [engine for engine in self.world.engines.values() if engine.connected]
        engine = connected[which % len(connected)]
        if fate == "cut":
            engine.break_connection(kept - 1)
        elif fate == "kill":
            engine.be_killed(kept - 1)
        elif engine.roster is not None:
            engine.muted |= fate == "mute"
            engine.frozen |= fate == "freeze"

    @precondition(lambda self: self.world.contexts)
    @rule(which=which, fate=which, kept=few)
    def a_context_may_be_disturbed(self, which: int, fate: int, kept: int) -> None:
        context = self.world.contexts[which % len(self.world.contexts)]
        if fate > 6:
            context.break_connection(kept - 1)
        elif fate > 5:
            context.muted = True

    @precondition(lambda self: any(peer.is_disturbed for peer in self.world.peers))
    @rule(which=which)
    def somebody_is_disturbed_no_longer(self, which: int) -> None:
        disturbed = [peer for peer in self.world.peers if peer.is_disturbed]
        peer = disturbed[which % len(disturbed)]
        peer.muted = peer.frozen = False
        if peer.can_rejoin:
            peer.rejoin()

    @precondition(lambda self: any(engine.return_code for engine in self.world.engines.values()))
    @rule(which=which)
    def a_keeper_tells_of_the_end_of_its_engine(self, which: int) -> None:
        killed = [engine.rank for engine in self.world.engines.values() if engine.return_code]
        self.world.handle(messages.EngineCleared(killed[which % len(killed)]))

    @rule(seconds=st.sampled_from([1.0, 10.0, 30.0, 48.0, 63.0, 100.0]), fate=which)
    def time_may_pass(self, seconds: float, fate: int) -> None:
        if fate > 3:
            self.world.time_passes(seconds, driver_is_stopped=fate > 6)

    @rule()
    def contexts_see_which_engines_have_ended(self) -> None:
        for context in self.world.contexts:
            context.reap()

    @precondition(lambda self: self.world.senders)
    @rule(which=which, count=few)
    def the_driver_hears(self, which: int, count: int) -> None:
        for _ in range(count):
            if senders := self.world.senders:
                self.world.deliver_from(senders[which % len(senders)])

    @precondition(lambda self: self.world.receivers)
    @rule(which=which, count=few)
    def others_hear(self, which: int, count: int) -> None:
        for _ in range(count):
            if receivers := self.world.receivers:
                self.world.deliver_to(receivers[which % len(receivers)])

    @rule()
    def everybody_hears(self) -> None:
        self.world.deliver_everything()

    @precondition(lambda self: self.world.busy)
    @rule(which=which, count=few, return_code=codes, short=st.booleans(), lingers=st.sampled_from([False, False, True]))
    def tasks_end(self, which: int, count: int, return_code: int, *, short: bool, lingers: bool) -> None:
        for _ in range(count):
            if busy := [engine for engine in self.world.busy if engine.running]:
                busy[which % len(busy)].end_task(which, return_code, 1e-4 if short else 2.0, lingers=lingers)

    @precondition(lambda self: any(engine.reports or engine.freed for engine in self.world.busy))
    @rule(which=which, with_lingering=st.booleans())
    def an_engine_reports(self, which: int, *, with_lingering: bool) -> None:
        due = [engine for engine in self.world.busy if engine.reports or engine.freed]
        due[which % len(due)].report(with_lingering=with_lingering)

    @precondition(lambda self: self.world.wakes)
    @rule(which=which)
    def a_timer_runs_out(self, which: int) -> None:
        self.world.wake(which)

    @invariant()
    def all_is_well(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()
            assert self.world.controller.phase is RunPhase.ENDED


class Leases(Lives):
    """A run that has begun, and to whose engines this happens alone."""

    @initialize(
        count=st.integers(1, 30),
        barrier=st.integers(0, 60),
        own=cylinders,
        requeue=st.sampled_from([True, True, True, False]),
        crash_limit=st.sampled_from([0, 1, 2, 3]),
    )
    def begin(self, count: int, barrier: int, own: list[int], *, requeue: bool, crash_limit: int) -> None:
        kinds = ["barrier" if number == barrier else "task" for number in range(count)]
        items = items_of([], kinds, too_late=False)
        self.world = World(items, own_context=tuple(own), requeue=requeue, crash_limit=crash_limit)
        self.world.new_context(1, 2)
        self.world.start_up()

    @precondition(lambda self: len(self.world.contexts) < 5)
    @rule(fate=which)
    def another_context_may_come(self, fate: int) -> None:
        if fate > 3:
            self.world.new_context(2)
            self.world.start_up()


class AnyOrder(Lives):
    """An adversary decides what happens next."""

    @initialize(
        per_engine=st.lists(st.sampled_from(When), max_size=2),
        kinds=st.lists(kinds, max_size=40),
        too_late=st.sampled_from([False, False, False, True]),
        exit_code=st.booleans(),
        fail_fast=st.sampled_from([False, False, True]),
        own=cylinders,
        head_start=st.booleans(),
        startup_only=st.sampled_from([False, False, False, True]),
        task_limit=limits,
        retires=st.booleans(),
        requeue=st.sampled_from([True, True, True, False]),
        crash_limit=st.sampled_from([0, 1, 3]),
    )
    def begin(
        self,
        per_engine: list[When],
        kinds: list[str],
        own: list[int],
        *,
        too_late: bool,
        exit_code: bool,
        fail_fast: bool,
        head_start: bool,
        startup_only: bool,
        task_limit: int,
        retires: bool,
        requeue: bool,
        crash_limit: int,
    ) -> None:
        items = items_of(per_engine, kinds, too_late=too_late)
        self.world = World(
            items,
            exit_code=exit_code,
            fail_fast=fail_fast,
            own_context=tuple(own),
            startup_only=startup_only,
            task_limit=task_limit,
            retires=retires,
            requeue=requeue,
            crash_limit=crash_limit,
        )
        if head_start:
            self.world.start_up()

    @precondition(lambda self: self.world.asked_to_read is not None)
    @rule(count=st.integers(0, 30))
    def items_are_read(self, count: int) -> None:
        self.world.read(count)

    @precondition(lambda self: self.world.own_context_is_coming)
    @rule()
    def the_own_context_comes(self) -> None:
        self.world.own_context_comes()

    @precondition(lambda self: self.world.own_context_is_coming)
    @rule(fate=which)
    def the_own_context_may_end(self, fate: int) -> None:
        if fate > 5:
            self.world.own_context_ends(says_why=fate == 6)

    @precondition(lambda self: len(self.world.contexts) < 3)
    @rule(cylinders=cylinders, task_limit=limits)
    def another_context_comes(self, cylinders: list[int], task_limit: int) -> None:
        self.world.new_context(*cylinders, task_limit=task_limit)

    @rule()
    def another_context_cannot_come(self) -> None:
        self.world.handle(messages.ContextFailed("other", "no core", "give it one"))

    @precondition(lambda self: self.world.contexts)
    @rule(which=which, fate=which)
    def a_context_is_lost_or_told_to_end(self, which: int, fate: int) -> None:
        context = self.world.contexts[which % len(self.world.contexts)]
        if fate in (4, 5) and not context.ended:
            context.be_killed()
        elif fate > 5 and context.rank is not None and not context.ended:
            context.outbox.append(messages.ContextToldToEnd(context.rank))

    @precondition(lambda self: any(not engine.came for engine in self.world.engines.values()))
    @rule(which=which, fate=which)
    def an_engine_comes_or_does_not(self, which: int, fate: int) -> None:
        expected = [engine for engine in self.world.engines.values() if not engine.came]
        engine = expected[which % len(expected)]
        if fate < 6:
            engine.come()
            return
        engine.never_come()

    @precondition(lambda self: self.world.own_context_has_ended)
    @rule()
    def the_driver_sees_that_the_own_context_has_ended(self) -> None:
        self.world.own_context_end_is_seen()

    @precondition(lambda self: any(engine.connected for engine in self.world.engines.values()))
    @rule(which=which, fate=which, return_code=st.sampled_from([-9, 255]))
    def what_started_an_engine_is_killed_and_it_may_be_lost(self, which: int, fate: int, return_code: int) -> None:
        connected = [engine for engine in self.world.engines.values() if engine.connected]
        engine = connected[which % len(connected)]
        if fate > 4:
            engine.process_killed = return_code
        if fate > 5:
            engine.break_connection(0)

    @precondition(lambda self: any(engine.per_engine_task for engine in self.world.busy))
    @rule(which=which, return_code=codes)
    def a_per_engine_command_ends(self, which: int, return_code: int) -> None:
        busy = [engine for engine in self.world.busy if engine.per_engine_task]
        busy[which % len(busy)].end_per_engine_task(return_code)

    @precondition(lambda self: any(engine.can_lose_cylinder for engine in self.world.engines.values()))
    @rule(which=which, fate=which)
    def a_cylinder_is_lost(self, which: int, fate: int) -> None:
        engines = [engine for engine in self.world.engines.values() if engine.can_lose_cylinder]
        if fate > 3:
            engines[which % len(engines)].lose_cylinder(which)

    @precondition(lambda self: any(engine.connected and engine.lost for engine in self.world.engines.values()))
    @rule(which=which)
    def a_cylinder_comes_back(self, which: int) -> None:
        engines = [engine for engine in self.world.engines.values() if engine.connected and engine.lost]
        engines[which % len(engines)].frozen = False
        engines[which % len(engines)].gain_cylinder()

    @precondition(lambda self: any(engine.connected for engine in self.world.engines.values()))
    @rule(which=which, fate=which, kept=few)
    def an_engine_is_lost_or_told_to_end(self, which: int, fate: int, kept: int) -> None:
        connected = [engine for engine in self.world.engines.values() if engine.connected]
        engine = connected[which % len(connected)]
        if fate in (4, 5):
            engine.break_connection(kept - 1)
        elif fate > 5 and not engine.frozen:
            engine.told_to_end()

    @rule(which=which, fate=which, now=st.booleans())
    def somebody_stops_an_engine_or_a_context(self, which: int, fate: int, *, now: bool) -> None:
        if fate == 6:
            self.world.handle(messages.StopContext(which - 1, now))
        elif fate == 7:
            self.world.handle(messages.StopEngine(which - 1, now))

    @rule(fate=which)
    def the_disk_fills_up_or_has_room_again(self, fate: int) -> None:
        if fate > 5:
            self.world.fill_disk()
        else:
            self.world.make_room()

    @rule(fate=st.integers(0, 30))
    def a_signal_may_come(self, fate: int) -> None:
        if fate > 28:
            self.world.handle(events.SignalCame("SIGTERM", 143))
        elif fate == 5:
            self.world.handle(events.DrainAsked("SIGUSR1"))


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = hypothesis_settings(stateful_step_count=40)
TestLeases = Leases.TestCase
TestLeases.settings = hypothesis_settings(stateful_step_count=40)
