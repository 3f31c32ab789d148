"""The engine's side of its ranks, whose part the test plays: at the other ends of real connections, in this process."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

from disbatch import messages
from disbatch.engine import keeper, link
from disbatch.engine import ranks as module
from disbatch.engine.ranks import Ranks
from disbatch.engine.roster import CylinderCame, CylinderLost, CylindersSettled, Event
from disbatch.eventloop import EventLoop
from disbatch.log import Log
from disbatch.messages import (
    CancelEngine,
    CylindersFreed,
    EngineAdmitted,
    EngineLeft,
    EngineReady,
    EngineRefused,
    EngineUnfit,
    FinishEngine,
    FromRank,
    Lease,
    Message,
    RankCame,
    RunTasks,
    TaskReport,
    TasksEnded,
)
from disbatch.tasks import Outcome, PerEngineTask, Phase, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TURN = 20.0
"""Seconds that something may take to come that is under way; only a failure waits as long."""

LEASE = Lease(10.0, 45.0, 6.0)
START = PerEngineTask(Phase.START, 0, 1, b"true")
OUTCOME = Outcome(4711, 0, 1.7e9, 0.25, 10, b"out", 0, b"", 0.125, 1 << 20, interrupted=False)

KEEPER = 4711

Owner = tuple[int, Task]


def task(number: int, command: bytes = b"true") -> Task:
    return Task(number, number + 1, -1, command)


class Peer:
    """What a rank says and hears."""

    def __init__(self, name: bytes) -> None:
        connected = link.connect(name)
        assert connected is not None
        self.socket = connected
        self.socket.setblocking(False)

    def say(self, *said: FromRank) -> None:
        for message in said:
            self.socket.send(messages.encode(message))

    def heard(self) -> list[Message]:
        """All that has come until now."""
        found: list[Message] = []
        while True:
            try:
                data = self.socket.recv(link.LIMIT)
            except BlockingIOError:
                return found
            if not data:
                return found
            found.append(messages.decode(data))

    @property
    def is_cut_off(self) -> bool:
        try:
            return self.socket.recv(link.LIMIT) == b""
        except BlockingIOError:
            return False


class Bench:
    """Ranks, and the employer whom they tell."""

    def __init__(self, directory: Path) -> None:
        self.loop = EventLoop()
        self.name = link.address(str(directory), 0, "secret")
        self.listener = link.listen(self.name)
        self.log_file = directory / "log"
        self.log = Log(str(self.log_file), "INFO")
        self.told: list[Event | Owner | tuple[Owner, Outcome]] = []
        self.peers: list[Peer] = []
        self.keeper_lives = False
        """Whether the keepers of ranks that have gone still end what they left behind."""
        self.ranks: Ranks

    def begin(self, cylinders: int = 3) -> None:
        settings = EngineAdmitted(b"/data", "run", "Tasks", cylinders, 1, ("GPUS",), (START,), LEASE)
        self.ranks = Ranks(self.loop, self.listener, settings, "n1", self.log, self)

    def decide(self, event: Event) -> None:
        self.told.append(event)

    def command_ended(self, owner: Owner) -> None:
        self.told.append(owner)

    def outcome_known(self, owner: Owner, outcome: Outcome) -> None:
        self.told.append((owner, outcome))

    def comes(self, *said: FromRank) -> Peer:
        peer = Peer(self.name)
        self.peers.append(peer)
        peer.say(*said)
        return peer

    def serving(self, place: int) -> Peer:
        """A rank that takes tasks."""
        peer = self.comes(RankCame(place), EngineReady(0, 1))
        self.until(lambda: CylinderCame(place) in self.told)
        peer.heard()
        self.told.clear()
        return peer

    def until(self, condition: Callable[[], object]) -> None:
        deadline = self.loop.now() + TURN
        while not condition():
            assert self.loop.now() < deadline, "it did not happen"
            self.loop.turn(TURN)

    def settle(self) -> None:
        """Let everything that is under way arrive."""
        for _ in range(10):
            self.loop.turn(0)

    def outcome_of(self, owner: Owner) -> Outcome:
        (outcome,) = (told[1] for told in self.told if isinstance(told, tuple) and told[0] == owner)
        assert isinstance(outcome, Outcome)
        return outcome

    @property
    def logged(self) -> str:
        return self.log_file.read_text()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path)
    monkeypatch.setattr(keeper, "parent_of", lambda pid: KEEPER if pid == os.getpid() else made.keeper_lives)
    yield made
    for peer in made.peers:
        peer.socket.close()
    made.listener.close()
    made.loop.close()
    made.log.close()


# Coming.


def test_who_says_his_place_gets_the_settings_but_for_what_the_engine_alone_runs(bench: Bench) -> None:
    bench.begin()
    peer = bench.comes(RankCame(2))
    bench.settle()
    assert peer.heard() == [EngineAdmitted(b"/data", "run", "Tasks", 3, 1, ("GPUS",), (), LEASE)]
    assert bench.told == []


def test_who_came_before_the_engine_was_admitted_is_let_in_then(bench: Bench) -> None:
    peer = bench.comes(RankCame(1))
    bench.begin()
    bench.settle()
    assert [type(message) for message in peer.heard()] == [EngineAdmitted]


def test_each_rank_that_is_ready_is_a_cylinder_and_with_the_last_one_nobody_is_waited_for(bench: Bench) -> None:
    bench.begin()
    bench.comes(RankCame(2), EngineReady(0, 1))
    bench.until(lambda: bench.told)
    assert bench.told == [CylinderCame(2)]
    assert bench.ranks.have(2)
    assert not bench.ranks.have(1)
    bench.comes(RankCame(1), EngineReady(0, 1))
    bench.until(lambda: len(bench.told) > 2)
    assert bench.told == [CylinderCame(2), CylinderCame(1), CylindersSettled()]
    assert f"the process of place 1, pid {os.getpid()}, serves" in bench.logged


def test_an_engine_with_one_cylinder_waits_for_nobody(bench: Bench) -> None:
    bench.begin(cylinders=1)
    bench.until(lambda: bench.told)
    assert bench.told == [CylindersSettled()]


def test_ranks_that_do_not_come_are_waited_for_with_patience(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMING_PATIENCE", 0.01)
    bench.begin(cylinders=4)
    bench.comes(RankCame(2), EngineReady(0, 1))
    bench.until(lambda: CylindersSettled() in bench.told and CylinderCame(2) in bench.told)
    assert "not waiting any longer for the processes of places 1" in bench.logged


def test_a_rank_that_comes_late_is_a_cylinder_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMING_PATIENCE", 0)
    bench.begin(cylinders=2)
    bench.until(lambda: bench.told)
    bench.comes(RankCame(1), EngineReady(0, 1))
    bench.until(lambda: len(bench.told) > 1)
    assert bench.told == [CylindersSettled(), CylinderCame(1)]


def test_a_rank_that_cannot_serve_or_dies_before_it_does_is_not_waited_for(bench: Bench) -> None:
    bench.begin()
    bench.comes(RankCame(1), EngineUnfit(0, "no element"), EngineLeft(0))
    bench.comes(RankCame(2)).socket.close()
    bench.until(lambda: bench.told)
    assert bench.told == [CylindersSettled()]
    assert "the process of place 1 cannot serve: no element" in bench.logged


@pytest.mark.parametrize("place", [-1, 0, 3])
def test_a_place_that_there_is_not_is_refused(bench: Bench, place: int) -> None:
    bench.begin()
    peer = bench.comes(RankCame(place))
    bench.settle()
    assert peer.heard() == [EngineRefused(f"there is no place {place} among 3")]


def test_a_second_process_of_a_place_is_refused_and_the_first_stays(bench: Bench) -> None:
    bench.begin()
    bench.serving(1)
    second = bench.comes(RankCame(1))
    bench.settle()
    assert second.heard() == [EngineRefused("there is another process of place 1")]
    second.socket.close()
    bench.settle()
    assert bench.ranks.have(1)
    assert bench.told == []


def test_who_says_anything_else_first_is_not_listened_to(bench: Bench) -> None:
    bench.begin()
    bench.comes(EngineReady(0, 1), TasksEnded(0, (TaskReport(0, OUTCOME),)), EngineLeft(0)).socket.close()
    bench.settle()
    assert bench.told == []


# Tasks.


def test_a_task_goes_to_the_rank_of_its_cylinder_and_its_report_comes_back(bench: Bench) -> None:
    bench.begin()
    first, second = bench.serving(1), bench.serving(2)
    bench.ranks.start(task(7), 2)
    assert second.heard() == [RunTasks((task(7),))]
    assert first.heard() == []
    second.say(TasksEnded(0, (TaskReport(7, OUTCOME),)))
    bench.until(lambda: bench.told)
    assert bench.told == [(2, task(7)), ((2, task(7)), OUTCOME)]


def test_a_cylinder_that_is_freed_before_the_report_is_freed_once(bench: Bench) -> None:
    bench.begin()
    rank = bench.serving(1)
    bench.ranks.start(task(0), 1)
    rank.say(CylindersFreed(0, (0,)), CylindersFreed(0, (0,)))
    bench.settle()
    assert bench.told == [(1, task(0))]
    bench.ranks.start(task(1), 1)
    rank.say(TasksEnded(0, (TaskReport(1, OUTCOME), TaskReport(0, OUTCOME))))
    bench.settle()
    assert bench.told[1:] == [(1, task(1)), ((1, task(1)), OUTCOME), ((1, task(0)), OUTCOME)]


def test_what_was_not_asked_for_is_not_believed(bench: Bench) -> None:
    bench.begin()
    rank = bench.serving(1)
    rank.say(TasksEnded(0, (TaskReport(5, OUTCOME),)), CylindersFreed(0, (6,)))
    bench.settle()
    assert bench.told == []


def test_a_command_that_fits_in_no_packet_could_not_be_started(bench: Bench) -> None:
    bench.begin()
    bench.serving(1)
    long = task(0, b"x" * link.LIMIT)
    bench.ranks.start(long, 1)
    assert bench.told == []
    bench.until(lambda: bench.told)
    outcome = bench.outcome_of((1, long))
    assert bench.told[0] == (1, long)
    assert (outcome.return_code, outcome.pid, outcome.interrupted) == (errno.E2BIG, -1, False)
    assert outcome.err_snippet.startswith(b"disbatch could not start this task: Arg")
    assert bench.ranks.have(1)


# The end of a rank.


def test_a_rank_that_dies_takes_its_tasks_with_it_and_then_its_cylinder(bench: Bench) -> None:
    bench.begin()
    rank = bench.serving(1)
    bench.ranks.start(task(0), 1)
    rank.say(CylindersFreed(0, (0,)))
    bench.settle()
    bench.ranks.start(task(1), 1)
    bench.told.clear()
    rank.socket.close()
    bench.until(lambda: CylinderLost(1) in bench.told)
    assert bench.told[0] == CylinderLost(1)
    for number in (0, 1):
        outcome = bench.outcome_of((1, task(number)))
        assert (outcome.return_code, outcome.interrupted) == (-signal.SIGKILL, False)
        assert outcome.err_bytes == len("disbatch: the process of place 1 on n1 has gone, and this task with it\n")
    assert not bench.ranks.have(1)
    assert "lost the process of place 1" in bench.logged


def test_what_a_rank_had_is_lost_when_its_keeper_has_ended_all_of_it(bench: Bench) -> None:
    bench.begin()
    bench.keeper_lives = True
    rank = bench.serving(1)
    bench.ranks.start(task(0), 1)
    rank.socket.close()
    bench.until(lambda: bench.told)
    done: list[bool] = []
    bench.ranks.finish(1.0, then=lambda: done.append(True))
    bench.settle()
    assert (bench.told, done) == ([CylinderLost(1)], [])
    bench.keeper_lives = False
    bench.until(lambda: done)
    assert bench.outcome_of((1, task(0))).return_code == -signal.SIGKILL


def test_a_task_too_large_for_its_rank_is_told_of_once_though_the_rank_goes_meanwhile(bench: Bench) -> None:
    bench.begin()
    rank = bench.serving(1)
    bench.ranks.start(task(0, b"x" * (1 << 20)), 1)
    rank.socket.close()
    bench.ranks._lost(bench.ranks._at[1], "it has gone")
    bench.settle()
    outcomes = [told for told in bench.told if isinstance(told, tuple) and isinstance(told[1], Outcome)]
    assert len(outcomes) == 1
    assert bench.told[0] == CylinderLost(1)
    assert (1, task(0)) not in bench.told


def test_a_keeper_that_cannot_end_it_is_not_waited_for_without_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLEARING_PATIENCE", 0.02)
    bench.begin()
    bench.keeper_lives = True
    rank = bench.serving(1)
    bench.ranks.start(task(0), 1)
    rank.socket.close()
    bench.until(lambda: len(bench.told) == 2)
    assert bench.outcome_of((1, task(0))).return_code == -signal.SIGKILL


def test_the_task_of_a_rank_that_leaves_by_itself_without_having_begun_it_was_interrupted(bench: Bench) -> None:
    bench.begin()
    rank = bench.serving(1)
    bench.ranks.start(task(0), 1)
    rank.say(EngineLeft(0))
    bench.until(lambda: CylinderLost(1) in bench.told)
    assert bench.outcome_of((1, task(0))).interrupted


def test_a_place_whose_process_has_gone_can_be_taken_again(bench: Bench) -> None:
    bench.begin()
    bench.serving(1).socket.close()
    bench.until(lambda: bench.told)
    bench.serving(1)
    assert bench.ranks.have(1)


def test_what_is_no_message_is_the_end_of_a_rank(bench: Bench) -> None:
    bench.begin()
    rank = bench.serving(1)
    rank.socket.send(b"nonsense")
    bench.until(lambda: bench.told)
    assert bench.told == [CylinderLost(1)]
    assert rank.is_cut_off


# The end of the engine.


def test_what_runs_is_ended_everywhere(bench: Bench) -> None:
    bench.begin()
    ranks = [bench.serving(1), bench.serving(2)]
    bench.ranks.end_running(1.5)
    assert [rank.heard() for rank in ranks] == [[CancelEngine(1.5, stop_commands=False)]] * 2


def test_the_end_has_come_when_every_rank_has_left(bench: Bench) -> None:
    bench.begin()
    ranks = [bench.serving(1), bench.serving(2)]
    done: list[bool] = []
    bench.ranks.finish(1.0, then=lambda: done.append(True))
    assert [rank.heard() for rank in ranks] == [[FinishEngine()]] * 2
    ranks[0].say(EngineLeft(0))
    bench.settle()
    assert not done
    ranks[1].socket.close()
    bench.until(lambda: done)
    bench.settle()
    assert done == [True]
    assert bench.told == [], "a cylinder that goes at the end is not lost"


def test_without_ranks_the_end_comes_at_once(bench: Bench) -> None:
    bench.begin()
    done: list[bool] = []
    bench.ranks.finish(1.0, then=lambda: done.append(True))
    assert done == [True]


def test_a_rank_that_does_not_leave_is_not_waited_for_and_what_it_had_is_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAVING_PATIENCE", 0.01)
    bench.begin()
    rank = bench.serving(1)
    bench.ranks.start(task(0), 1)
    rank.say(CylindersFreed(0, (0,)))
    bench.until(lambda: bench.told)
    done: list[bool] = []
    bench.ranks.finish(0.0, then=lambda: done.append(True))
    bench.until(lambda: done)
    assert bench.outcome_of((1, task(0))).return_code == -signal.SIGKILL
    rank.heard()
    assert rank.is_cut_off
    assert "it did not leave in time" in bench.logged


def test_who_comes_when_the_engine_leaves_is_refused(bench: Bench) -> None:
    bench.begin()
    bench.serving(1)
    bench.ranks.finish(1.0, then=lambda: None)
    late = bench.comes(RankCame(2))
    bench.settle()
    assert late.heard() == [EngineRefused("its engine is about to leave")]


def test_nobody_is_let_in_who_has_gone_already(bench: Bench) -> None:
    bench.comes().socket.close()
    bench.begin()
    bench.settle()
    assert bench.told == []
