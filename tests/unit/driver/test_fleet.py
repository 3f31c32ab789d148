"""`fleet`, alone: first each of its decisions, then an adversary who lets engines come, work and go in any order."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from disbatch.driver.fleet import HELD_TASKS, HELD_WORK, Engine, EngineStage, Fleet
from tests.unit.driver.examples import context_came

LONG = 10.0
HEARING = {EngineStage.WAITING, EngineStage.STARTING, EngineStage.SERVING, EngineStage.LEAVING}


def fleet_of(*cylinders: int, fleet: Fleet | None = None) -> Fleet:
    """A fleet with an engine that serves for each of these numbers of cylinders."""
    fleet = fleet or Fleet()
    for rank in fleet.admit_context(context_came("t", *cylinders)).engines:
        fleet.serve(fleet.engines[rank], fleet.engines[rank].cylinders)
    return fleet


def place(fleet: Fleet, *task_ids: int, may_wait: bool = False) -> list[int | None]:
    """Give out tasks, each where the fleet wants it; the ranks of their engines, None where there was no place."""
    ranks: list[int | None] = []
    for task_id in task_ids:
        engine = fleet.place_for_task(may_wait=may_wait)
        if engine is not None:
            fleet.give(engine, task_id)
        ranks.append(None if engine is None else engine.rank)
    return ranks


def place_all(fleet: Fleet, first_id: int = 1000, *, may_wait: bool = True) -> int:
    """Give out as many tasks as there is place for; their number."""
    count = 0
    while place(fleet, first_id + count, may_wait=may_wait) != [None]:
        count += 1
        assert count < 10_000, "there is no end of places"
    return count


def work(fleet: Fleet, rank: int, elapsed: float, times: int = 1) -> None:
    """Let an engine that has a free cylinder run tasks that take so long."""
    engine = fleet.engines[rank]
    for _ in range(times):
        fleet.give(engine, -1)
        fleet.release(engine, -1, elapsed)


# Contexts


def test_ranks_count_on_from_context_to_context() -> None:
    fleet = Fleet()
    contexts = [fleet.admit_context(context_came(token, 1, 2)) for token in "ab"]
    assert [context.rank for context in contexts] == [0, 1]
    assert [context.engines for context in contexts] == [(0, 1), (2, 3)]
    assert [(engine.rank, engine.context_rank) for engine in fleet.engines] == [(0, 0), (1, 0), (2, 1), (3, 1)]


def test_an_engine_is_what_its_context_offers_and_expected() -> None:
    fleet = Fleet()
    fleet.admit_context(context_came("t", 3))
    [engine] = fleet.engines
    assert (engine.node, engine.cylinders, engine.cores_per_cylinder) == ("t0", 3, 1)
    assert engine.stage is EngineStage.EXPECTED
    assert fleet.cylinders == 0


def test_a_context_has_the_users_label_or_one_from_its_rank() -> None:
    fleet = Fleet()
    assert fleet.admit_context(context_came("a")).label == "SSH0"
    assert fleet.admit_context(context_came("b", label="mine")).label == "mine"
    assert fleet.admit_context(context_came("c")).label == "SSH2"


def test_no_two_contexts_share_their_files() -> None:
    fleet = Fleet()
    labels = [fleet.admit_context(context_came("t", label=label)).label for label in ("a/b", "a_b", "a/b")]
    assert labels == ["a/b", "a_b_1", "a/b_2"]


def test_no_two_contexts_share_what_their_launchers_print_to() -> None:
    fleet = Fleet()
    labels = [
        fleet.admit_context(context_came(token, 1, label=label)).label
        for label, token in (("a", "b_c"), ("a_b", "c"), ("a_b", "d"))
    ]
    assert labels == ["a", "a_b_1", "a_b"]


@given(st.lists(st.sampled_from(["", "a", "a_1", "a_2", "a_1_2", "SSH0", "SSH1", "SSH2_2"]), max_size=8))
def test_no_two_contexts_have_one_label(labels: list[str]) -> None:
    fleet = Fleet()
    given_labels = [fleet.admit_context(context_came("t", label=label)).label for label in labels]
    assert len(set(given_labels)) == len(labels)
    for wanted, got in zip(labels, given_labels, strict=True):
        assert got.startswith(wanted)


def test_a_context_is_found_by_its_token() -> None:
    fleet = Fleet()
    contexts = {token: fleet.admit_context(context_came(token, 1)) for token in "ab"}
    assert fleet.context_with("a") is contexts["a"]
    assert fleet.context_with("b") is contexts["b"]
    assert fleet.context_with("c") is None


@pytest.mark.parametrize(("rank", "is_there"), [(0, True), (1, True), (2, False), (-1, False), (10**9, False)])
def test_a_rank_that_never_was_is_no_engine(rank: int, *, is_there: bool) -> None:
    engine = fleet_of(1, 1).engine(rank)
    assert (engine is not None) is is_there
    assert engine is None or engine.rank == rank


# Free cylinders


def test_few_tasks_spread_over_many_engines() -> None:
    assert place(fleet_of(4, 4, 4), 0, 1, 2, 3, 4, 5) == [0, 1, 2, 0, 1, 2]


def test_an_engine_has_its_turns_as_long_as_it_has_cylinders() -> None:
    assert place(fleet_of(1, 3, 2), *range(7)) == [0, 1, 2, 1, 2, 1, None]


def test_without_an_engine_there_is_no_place() -> None:
    assert place(Fleet(), 0, may_wait=True) == [None]


def test_an_engine_takes_a_task_again_when_one_has_ended() -> None:
    fleet = fleet_of(1, 1)
    assert place(fleet, 0, 1, 2) == [0, 1, None]
    fleet.release(fleet.engines[1], 1, LONG)
    assert place(fleet, 2, 3) == [1, None]


def test_an_engine_may_have_fewer_cylinders_than_were_offered() -> None:
    fleet = Fleet()
    fleet.admit_context(context_came("t", 4))
    fleet.serve(fleet.engines[0], 2)
    assert fleet.cylinders == 2
    assert place(fleet, 0, 1, 2) == [0, 0, None]


def test_an_engine_that_loses_cylinders_is_given_no_more_than_it_has_left() -> None:
    fleet = fleet_of(3, 1)
    place(fleet, 0, 1)
    fleet.resize(fleet.engines[0], 1)
    assert fleet.cylinders == 2
    assert place(fleet, 2) == [None]


def test_what_waits_at_an_engine_because_it_has_lost_cylinders_can_start_elsewhere() -> None:
    fleet = fleet_of(2, 2)
    place(fleet, 0, 1, 2)
    fleet.resize(fleet.engines[0], 1)
    assert fleet.to_recall() == [fleet.engines[0]]


def test_an_engine_that_gains_cylinders_is_given_more_at_once() -> None:
    fleet = fleet_of(1)
    place(fleet, 0)
    fleet.resize(fleet.engines[0], 3)
    assert fleet.cylinders == 3
    assert place(fleet, 1, 2, 3) == [0, 0, None]


def test_an_engine_that_comes_later_has_its_turn_too() -> None:
    fleet = fleet_of(3)
    place(fleet, 0)
    fleet_of(3, fleet=fleet)
    assert place(fleet, 1, 2, 3) == [0, 1, 0]


@pytest.mark.parametrize("stage", [EngineStage.LEAVING, EngineStage.GONE])
def test_an_engine_that_goes_is_given_nothing_more(stage: EngineStage) -> None:
    fleet = fleet_of(2, 1)
    place(fleet, 0)
    fleet.move(fleet.engines[0], stage)
    assert fleet.cylinders == 1
    fleet.release(fleet.engines[0], 0, LONG)
    assert place(fleet, 1, 2, may_wait=True) == [1, None]


@pytest.mark.parametrize("stage", [EngineStage.EXPECTED, EngineStage.WAITING, EngineStage.STARTING])
def test_an_engine_that_does_not_serve_yet_is_given_nothing(stage: EngineStage) -> None:
    fleet = Fleet()
    fleet.admit_context(context_came("t", 4))
    fleet.move(fleet.engines[0], stage)
    assert place(fleet, 0, may_wait=True) == [None]
    assert fleet.cylinders == 0


# Reports that come later than cylinders are free


def test_a_task_that_lingers_leaves_its_cylinder_to_another() -> None:
    fleet = fleet_of(1)
    engine = fleet.engines[0]
    place(fleet, 0)
    fleet.free_cylinder(engine, 0)
    assert place(fleet, 1, 2) == [0, None]
    fleet.release(engine, 0, LONG)
    assert place(fleet, 2) == [None], "its cylinder was free already"
    assert list(engine.tasks) == [1]


def test_a_cylinder_is_freed_once_by_one_task() -> None:
    fleet = fleet_of(2)
    place(fleet, 0, 1)
    for _ in range(2):
        fleet.free_cylinder(fleet.engines[0], 0)
    assert place(fleet, 2, 3) == [0, None]


def test_a_task_that_the_engine_does_not_have_frees_nothing() -> None:
    fleet = fleet_of(1)
    place(fleet, 0)
    fleet.free_cylinder(fleet.engines[0], 7)
    assert place(fleet, 1) == [None]


# Tasks that wait at an engine


@pytest.mark.parametrize(
    ("elapsed", "held"), [(LONG, 0), (0.051, 0), (0.049, 1), (0.016, 3), (0.0001, HELD_TASKS), (0.0, HELD_TASKS)]
)
def test_an_engine_holds_some_work_for_each_cylinder_while_its_tasks_are_short(elapsed: float, held: int) -> None:
    fleet = fleet_of(2)
    work(fleet, 0, elapsed)
    assert place_all(fleet) == 2 * (1 + held)
    assert held * elapsed <= HELD_WORK


def test_an_engine_far_away_holds_what_it_works_off_on_the_way_there_and_back() -> None:
    fleet = fleet_of(1)
    engine = fleet.engines[0]
    fleet.give(engine, 0, clock=100.0)
    fleet.release(engine, 0, 0.0625, clock=100.3125)
    assert engine.lag == 0.25
    assert place_all(fleet) == 1 + int((HELD_WORK + 0.5) / 0.0625)


def test_what_waited_for_a_cylinder_or_for_its_pipes_tells_nothing_of_the_way() -> None:
    fleet = fleet_of(1)
    engine = fleet.engines[0]
    for task_id in (0, 1):
        fleet.give(engine, task_id, clock=100.0)
    fleet.free_cylinder(engine, 0)
    fleet.release(engine, 1, 0.01, clock=105.0)
    fleet.release(engine, 0, 0.01, clock=105.0)
    assert engine.lag == 0.0


def test_no_lag_is_negative_or_beyond_a_second() -> None:
    fleet = fleet_of(1)
    engine = fleet.engines[0]
    for elapsed in (8.0, 0.0):
        fleet.give(engine, 0, clock=100.0)
        fleet.release(engine, 0, elapsed, clock=107.0)
        assert engine.lag == (0.0 if elapsed else 1.0)


def test_an_engine_of_which_nothing_is_known_holds_nothing() -> None:
    assert place_all(fleet_of(2)) == 2


def test_a_task_that_may_not_wait_does_not() -> None:
    fleet = fleet_of(2)
    work(fleet, 0, 0.0)
    assert place_all(fleet, may_wait=False) == 2


def test_a_free_cylinder_anywhere_is_better_than_waiting() -> None:
    fleet = fleet_of(1, 1, 1)
    for rank in range(3):
        work(fleet, rank, 0.0)
    assert sorted(rank for rank in place(fleet, 0, 1, 2, may_wait=True) if rank is not None) == [0, 1, 2]


def test_those_that_may_hold_more_have_their_turns() -> None:
    fleet = fleet_of(1, 1, 1)
    for rank in range(3):
        work(fleet, rank, 0.049)
    place(fleet, 0, 1, 2)
    assert sorted(rank for rank in place(fleet, 3, 4, 5, may_wait=True) if rank is not None) == [0, 1, 2]
    assert place(fleet, 6, may_wait=True) == [None]


def test_one_short_task_among_long_ones_changes_little() -> None:
    fleet = fleet_of(1)
    work(fleet, 0, LONG, 10)
    work(fleet, 0, 0.0)
    assert place_all(fleet) == 1


def test_an_engine_follows_its_tasks_when_they_become_short_or_long() -> None:
    fleet = fleet_of(1)
    work(fleet, 0, LONG)
    work(fleet, 0, 0.0, 200)
    assert place_all(fleet) == 1 + HELD_TASKS
    for task_id in sorted(fleet.engines[0].tasks):
        fleet.release(fleet.engines[0], task_id)
    work(fleet, 0, LONG)
    assert place_all(fleet) == 1


def test_a_task_that_was_not_run_to_its_end_tells_nothing_of_how_long_tasks_take() -> None:
    fleet = fleet_of(1)
    place(fleet, 0)
    fleet.release(fleet.engines[0], 0)
    assert place_all(fleet) == 1


# Taking them back


def holding(*cylinders: int) -> Fleet:
    """A fleet in which the first engine holds tasks and nobody has a free cylinder."""
    fleet = fleet_of(*cylinders)
    work(fleet, 0, 0.0)
    place(fleet, *range(sum(cylinders)))
    place(fleet, *range(100, 103), may_wait=True)
    assert fleet.engines[0].holds
    return fleet


def test_tasks_that_wait_are_wanted_back_when_they_could_start_elsewhere() -> None:
    fleet = holding(1, 1)
    assert fleet.to_recall() == []
    fleet.release(fleet.engines[1], 1, LONG)
    assert fleet.to_recall() == [fleet.engines[0]]


def test_an_engine_that_was_asked_is_not_asked_again_and_gets_nothing_to_hold() -> None:
    fleet = holding(1, 1)
    fleet.engines[0].recalled = True
    fleet.release(fleet.engines[1], 1, LONG)
    assert fleet.to_recall() == []
    assert place(fleet, 200, 201, may_wait=True) == [1, None]


def test_an_engine_that_had_nothing_to_give_back_may_hold_tasks_again() -> None:
    fleet = holding(1)
    engine = fleet.engines[0]
    engine.recalled = True
    assert place(fleet, 200, may_wait=True) == [None]
    fleet.recall_answered(engine)
    assert place(fleet, 200, may_wait=True) == [0]


def test_an_engine_whose_tasks_all_run_has_nothing_to_give_back() -> None:
    fleet = holding(1, 1)
    engine = fleet.engines[0]
    for task_id in sorted(engine.tasks)[1:]:
        fleet.release(engine, task_id)
    fleet.release(fleet.engines[1], 1, LONG)
    assert fleet.to_recall() == []


@pytest.mark.parametrize("stage", [EngineStage.LEAVING, EngineStage.GONE])
def test_an_engine_that_goes_is_not_asked_for_tasks(stage: EngineStage) -> None:
    fleet = holding(1, 1)
    fleet.release(fleet.engines[1], 1, LONG)
    assert fleet.to_recall() == [fleet.engines[0]]
    fleet.move(fleet.engines[0], stage)
    assert fleet.to_recall() == []
    fleet.release(fleet.engines[0], 100)
    assert fleet.to_recall() == []


def test_the_free_cylinder_of_an_engine_that_goes_is_no_place_elsewhere() -> None:
    fleet = holding(1, 1)
    fleet.release(fleet.engines[1], 1, LONG)
    fleet.move(fleet.engines[1], EngineStage.LEAVING)
    assert fleet.to_recall() == []


# Who is there


@pytest.mark.parametrize("stage", [stage for stage in EngineStage if stage is not EngineStage.SERVING])
def test_an_engine_hears_from_its_coming_to_its_end(stage: EngineStage) -> None:
    fleet = fleet_of(1)
    fleet.engines[0].stage = EngineStage.EXPECTED
    fleet.move(fleet.engines[0], stage)
    assert list(fleet.listening) == ([fleet.engines[0]] if stage in HEARING else [])


def test_an_engine_only_ever_moves_on() -> None:
    for before, after in product(EngineStage, EngineStage):
        fleet = fleet_of(1)
        fleet.engines[0].stage = before
        if after.value >= before.value:
            fleet.move(fleet.engines[0], after)
        else:
            with pytest.raises(ValueError, match=f"engine 0 is {before.name} and cannot be {after.name} again"):
                fleet.move(fleet.engines[0], after)


def test_as_long_as_one_engine_may_serve_or_holds_tasks_somebody_is_left() -> None:
    fleet = fleet_of(1, 1)
    assert not Fleet().any_left()
    for stage in EngineStage:
        fleet.move(fleet.engines[0], EngineStage.GONE)
        fleet.engines[1].stage = stage
        assert fleet.any_left() is (stage is not EngineStage.GONE)


# Any order


which = st.integers(0, 7)
durations = st.sampled_from([0.0, 0.0001, 0.004, 0.015, LONG])


class AnyOrder(RuleBasedStateMachine):
    """An adversary decides what becomes of engines and tasks; what the fleet says is held against plain counting."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.next_task_id = 0
        self.passed_over: dict[int, set[int]] = {}
        """For each engine with a free cylinder those that were given a task since it has one or was given one."""
        self.had: dict[int, int] = {}
        """The most cylinders that an engine had before it lost some."""

    def of(self, *stages: EngineStage) -> list[Engine]:
        return [engine for engine in self.fleet.engines if engine.stage in stages]

    @staticmethod
    def wanting(engine: Engine) -> int:
        return len(engine.tasks.keys() - engine.lingering)

    def have_room(self) -> list[Engine]:
        return [engine for engine in self.of(EngineStage.SERVING) if self.wanting(engine) < engine.cylinders]

    def may_hold(self) -> list[Engine]:
        return [
            engine
            for engine in self.of(EngineStage.SERVING)
            if not engine.recalled and self.wanting(engine) < self.most(engine)
        ]

    @staticmethod
    def most(engine: Engine) -> int:
        return engine.cylinders * (1 + min(HELD_TASKS, int(engine.held_work / engine.average)))

    @precondition(lambda self: len(self.fleet.contexts) < 3)
    @rule(cylinders=st.lists(st.integers(1, 3), min_size=1, max_size=3), serve=st.booleans())
    def a_context_comes(self, cylinders: list[int], *, serve: bool) -> None:
        context = self.fleet.admit_context(context_came(str(len(self.fleet.contexts)), *cylinders))
        for rank in context.engines if serve else ():
            self.fleet.serve(self.fleet.engines[rank], self.fleet.engines[rank].cylinders)

    @precondition(lambda self: self.of(EngineStage.EXPECTED, EngineStage.WAITING, EngineStage.STARTING))
    @rule(which=which, fewer=st.integers(0, 1))
    def an_engine_comes_nearer_to_serving(self, which: int, fewer: int) -> None:
        engines = self.of(EngineStage.EXPECTED, EngineStage.WAITING, EngineStage.STARTING)
        engine = engines[which % len(engines)]
        if engine.stage is EngineStage.STARTING:
            self.fleet.serve(engine, max(1, engine.cylinders - fewer))
        else:
            self.fleet.move(
                engine, EngineStage.WAITING if engine.stage is EngineStage.EXPECTED else EngineStage.STARTING
            )

    @precondition(lambda self: self.of(EngineStage.SERVING))
    @rule(which=which, cylinders=st.integers(1, 4))
    def an_engine_loses_or_gains_cylinders(self, which: int, cylinders: int) -> None:
        engines = self.of(EngineStage.SERVING)
        engine = engines[which % len(engines)]
        self.had[engine.rank] = max(self.had.get(engine.rank, 0), engine.cylinders)
        self.fleet.resize(engine, cylinders)
        self.passed_over.pop(engine.rank, None)  # its turn begins anew

    @precondition(lambda self: self.of(EngineStage.SERVING))
    @rule(count=st.integers(1, 20), may_wait=st.booleans())
    def tasks_are_given(self, count: int, *, may_wait: bool) -> None:
        for _ in range(count):
            self.a_task_is_given(may_wait=may_wait)

    def a_task_is_given(self, *, may_wait: bool) -> None:
        free, holders = self.have_room(), self.may_hold()
        engine = self.fleet.place_for_task(may_wait=may_wait)
        if engine is None:
            assert not free, "a cylinder stays free"
            assert not (may_wait and holders), "an engine could hold more"
            return
        if free:
            assert engine in free, "a task waits although a cylinder is free"
            self.note_turn(engine, free)
        else:
            assert may_wait, "a task waits that was to start at once"
            assert engine in holders, "an engine holds too much"
        self.fleet.give(engine, self.next_task_id)
        self.next_task_id += 1

    def note_turn(self, engine: Engine, free: list[Engine]) -> None:
        for other in free:
            before = self.passed_over.setdefault(other.rank, set())
            assert other is engine or engine.rank not in before, "an engine had two turns and another one none"
            before.add(engine.rank)
        self.passed_over[engine.rank] = set()

    @precondition(lambda self: any(engine.tasks for engine in self.fleet.engines))
    @rule(which=which, count=st.integers(1, 6), elapsed=durations)
    def tasks_end(self, which: int, count: int, elapsed: float) -> None:
        busy = [engine for engine in self.fleet.engines if engine.tasks]
        engine = busy[which % len(busy)]
        for task_id in sorted(engine.tasks)[:count]:
            self.fleet.release(engine, task_id, elapsed)

    @precondition(lambda self: any(engine.tasks for engine in self.fleet.engines))
    @rule(which=which)
    def a_cylinder_is_freed_before_the_report(self, which: int) -> None:
        busy = [engine for engine in self.fleet.engines if engine.tasks]
        engine = busy[which % len(busy)]
        self.fleet.free_cylinder(engine, sorted(engine.tasks)[which % len(engine.tasks)])

    @rule()
    def waiting_tasks_are_asked_for(self) -> None:
        for engine in self.fleet.to_recall():
            engine.recalled = True

    @precondition(lambda self: any(engine.recalled for engine in self.fleet.engines))
    @rule(which=which)
    def waiting_tasks_come_back(self, which: int) -> None:
        asked = [engine for engine in self.fleet.engines if engine.recalled]
        engine = asked[which % len(asked)]
        self.fleet.recall_answered(engine)
        for task_id in sorted(engine.tasks.keys() - engine.lingering)[engine.cylinders :]:
            self.fleet.release(engine, task_id)

    @precondition(lambda self: len(self.of(EngineStage.SERVING)) > 1)
    @rule(
        which=which,
        stage=st.sampled_from([EngineStage.LEAVING, EngineStage.GONE]),
        is_due=st.integers(0, 3),
    )
    def an_engine_goes(self, which: int, stage: EngineStage, is_due: int) -> None:
        if is_due == 0:
            engines = [engine for engine in self.fleet.engines if engine.stage is not EngineStage.GONE]
            engine = engines[which % len(engines)]
            if stage.value > engine.stage.value:  # it only ever moves on
                self.fleet.move(engine, stage)
            if engine.stage is EngineStage.GONE:
                engine.tasks.clear()
                engine.lingering.clear()

    @invariant()
    def cylinders_are_those_of_engines_that_serve(self) -> None:
        assert self.fleet.cylinders == sum(engine.cylinders for engine in self.of(EngineStage.SERVING))

    @invariant()
    def no_engine_has_more_than_it_may(self) -> None:
        for engine in self.fleet.engines:
            cylinders = max(engine.cylinders, self.had.get(engine.rank, 0))
            assert self.wanting(engine) <= cylinders * (1 + HELD_TASKS)
            assert engine.lingering <= engine.tasks.keys()

    @invariant()
    def tasks_that_wait_are_wanted_back_just_when_they_could_start(self) -> None:
        expected = {
            engine.rank
            for engine in self.of(EngineStage.SERVING)
            if self.have_room() and self.wanting(engine) > engine.cylinders and not engine.recalled
        }
        assert {engine.rank for engine in self.fleet.to_recall()} == expected

    @invariant()
    def turns_are_those_of_engines_with_a_free_cylinder(self) -> None:
        free = {engine.rank for engine in self.have_room()}
        self.passed_over = {rank: before for rank, before in self.passed_over.items() if rank in free}


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = hypothesis_settings(stateful_step_count=30)
