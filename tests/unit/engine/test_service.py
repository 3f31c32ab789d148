"""What serves, between a roster that is real and ranks that are not; with a driver around it `test_process` has it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from disbatch import descriptors
from disbatch.engine import service as module
from disbatch.engine.environment import TaskEnvironment
from disbatch.engine.roster import CylinderCame, CylinderLost, CylindersSettled, FinishAsked, ReturnAsked, TasksCame
from disbatch.engine.service import Service, enter, send_rest
from disbatch.eventloop import EventLoop
from disbatch.log import Log
from disbatch.messages import (
    CylindersChanged,
    EngineAdmitted,
    EngineReady,
    FromEngine,
    Lease,
    PerEngineTaskEnded,
    TaskReport,
    TasksEnded,
    TasksReturned,
)
from disbatch.records import replace
from disbatch.tasks import Outcome, PerEngineTask, Phase, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TURN = 20.0
RANK = 3
OUTCOME = Outcome(4711, 0, 1.7e9, 0.25, 10, b"out", 0, b"", 0.125, 1 << 20, interrupted=False)


def task(number: int, command: bytes = b"true") -> Task:
    return Task(number, number + 1, -1, command)


class NoRanks:
    """Stands for the other processes: notes what they are to do, and does nothing of it."""

    def __init__(self, employer: Service) -> None:
        self.employer = employer
        self.started: list[tuple[int, int]] = []
        self.to_end: list[float] = []
        self.to_finish: list[Callable[[], None]] = []

    def have(self, cylinder: int) -> bool:
        return cylinder != 0

    def start(self, task: Task, cylinder: int) -> None:
        self.started.append((cylinder, task.task_id))

    def end_running(self, grace: float) -> None:
        self.to_end.append(grace)

    def finish(self, _grace: float, then: Callable[[], None]) -> None:
        self.to_finish.append(then)


class Bench:
    """A service in a loop, and all that it says."""

    def __init__(self, directory: Path) -> None:
        self.loop = EventLoop()
        self.log_file = directory / "log"
        self.log = Log(str(self.log_file), "INFO")
        self.settings = EngineAdmitted(bytes(directory), "run", "Tasks", 8, 1, (), (), Lease(10.0, 45.0, 6.0))
        self.said: list[FromEngine] = []
        self.ranks: NoRanks
        self.service: Service

    def recruit(self, employer: Service) -> NoRanks:
        self.ranks = NoRanks(employer)
        return self.ranks

    def begin(self, cylinders: range, *per_engine_tasks: PerEngineTask, with_ranks: bool = False) -> Service:
        self.service = Service(
            RANK,
            self.loop,
            TaskEnvironment(os.environb, self.settings, RANK),
            cylinders,
            per_engine_tasks,
            self.said.append,
            self.log,
            self.recruit if with_ranks else None,  # type: ignore[arg-type] # it stands for them
        )
        return self.service

    def until(self, condition: Callable[[], object]) -> None:
        deadline = self.loop.now() + TURN
        while not condition():
            assert self.loop.now() < deadline, "it did not happen"
            self.loop.turn(TURN)
            self.service.end_turn()


@pytest.fixture
def bench(tmp_path: Path, subreaper: None) -> Iterator[Bench]:  # noqa: ARG001 - what it does counts
    made = Bench(tmp_path)
    yield made
    made.loop.close()
    made.log.close()


def outcomes(said: list[FromEngine]) -> dict[int, Outcome]:
    reports = (report for message in said if isinstance(message, TasksEnded) for report in message.reports)
    return {report.task_id: report.outcome for report in reports}


# Alone.


def test_it_serves_in_the_cylinders_that_it_is_given(bench: Bench) -> None:
    service = bench.begin(range(5, 7))
    assert bench.said == [EngineReady(RANK, 2)]
    service.decide(TasksCame(tuple(task(number, b"echo $DISBATCH_CYLINDER_RANK") for number in range(2))))
    bench.until(lambda: len(outcomes(bench.said)) == 2)
    assert {outcome.out_snippet for outcome in outcomes(bench.said).values()} == {b"5\n", b"6\n"}


def test_what_may_wait_is_given_back_and_the_rest_ends_before_it_leaves(bench: Bench) -> None:
    service = bench.begin(range(1))
    service.decide(TasksCame((task(0), task(1))))
    service.decide(ReturnAsked())
    assert bench.said[-1] == TasksReturned(RANK, (1,))
    service.decide(FinishAsked())
    assert not service.has_left
    bench.until(lambda: service.has_left)
    assert set(outcomes(bench.said)) == {0}


def test_what_runs_can_be_ended_without_that_it_leaves(bench: Bench) -> None:
    service = bench.begin(range(1))
    service.decide(TasksCame((task(0, b"exec sleep 60"),)))
    service.end_running(0.0)
    bench.until(lambda: outcomes(bench.said))
    assert outcomes(bench.said)[0].return_code == -signal.SIGKILL
    service.decide(TasksCame((task(1),)))
    bench.until(lambda: 1 in outcomes(bench.said))
    assert not service.has_left


def test_all_that_runs_can_be_ended_and_what_waits_returned_without_that_it_leaves(bench: Bench) -> None:
    service = bench.begin(range(1))
    service.decide(TasksCame((task(0, b"exec sleep 60"), task(1))))
    service.end_all(0.0)
    assert bench.said[-1] == TasksReturned(RANK, (1,))
    bench.until(lambda: outcomes(bench.said))
    assert outcomes(bench.said)[0].interrupted
    service.decide(TasksCame((task(2),)))
    bench.until(lambda: 2 in outcomes(bench.said))
    assert not service.has_left


def test_it_takes_no_more_cylinders_than_there_is_room_for_their_pipes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "make_room", lambda _: None)
    monkeypatch.setattr(descriptors, "room", lambda: module.DESCRIPTORS_BESIDES + 7)
    bench.begin(range(5))
    assert bench.said == [EngineReady(RANK, 3)]
    assert "3 cylinders only" in bench.log_file.read_text()


# With ranks.


def test_it_is_ready_when_no_rank_is_waited_for_with_those_that_have_come(bench: Bench) -> None:
    service = bench.begin(range(1), with_ranks=True)
    service.decide(CylinderCame(2))
    assert bench.said == []
    service.decide(CylindersSettled())
    assert bench.said == [EngineReady(RANK, 2)]
    service.decide(CylinderCame(1))
    service.decide(CylinderLost(2))
    assert bench.said[1:] == [CylindersChanged(RANK, 3), CylindersChanged(RANK, 2)]


def test_tasks_of_the_first_cylinder_run_here_and_those_of_others_elsewhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DOUBT", 0.01)
    service = bench.begin(range(1), with_ranks=True)
    service.decide(CylinderCame(1))
    service.decide(CylindersSettled())
    service.decide(TasksCame((task(0), task(1), task(2))))
    assert bench.ranks.started == [(1, 1)]
    service.command_ended((1, task(1)))
    assert bench.ranks.started == [(1, 1), (1, 2)]
    service.outcome_known((1, task(1)), OUTCOME)
    bench.until(lambda: {0, 1} <= set(outcomes(bench.said)))
    assert TaskReport(1, OUTCOME) in [
        report for message in bench.said if isinstance(message, TasksEnded) for report in message.reports
    ]


def test_start_and_stop_commands_run_here_alone(bench: Bench) -> None:
    start, stop = (PerEngineTask(phase, 0, 1, b"echo here") for phase in Phase)
    service = bench.begin(range(1), start, stop, with_ranks=True)
    service.decide(CylinderCame(1))
    service.decide(CylindersSettled())
    bench.until(lambda: EngineReady(RANK, 2) in bench.said)
    service.decide(FinishAsked())
    bench.until(lambda: bench.ranks.to_finish)
    bench.ranks.to_finish[0]()
    bench.until(lambda: service.has_left)
    assert [message.task for message in bench.said if isinstance(message, PerEngineTaskEnded)] == [start, stop]
    assert bench.ranks.started == []


def test_what_runs_is_ended_everywhere_and_it_leaves_when_all_have_left(bench: Bench) -> None:
    service = bench.begin(range(1), with_ranks=True)
    service.decide(CylinderCame(1))
    service.decide(CylindersSettled())
    service.decide(TasksCame((task(0, b"exec sleep 60"), task(1))))
    service.cancel(7.0, stop_commands=True)
    assert bench.ranks.to_end == [7.0]
    bench.until(lambda: outcomes(bench.said))
    assert not bench.ranks.to_finish, "a task still runs elsewhere"
    service.command_ended((1, task(1)))
    service.outcome_known((1, task(1)), OUTCOME)
    (left,) = bench.ranks.to_finish
    has_left = [service.has_left]
    left()
    assert [*has_left, service.has_left] == [False, True]
    assert set(outcomes(bench.said)) == {0, 1}


# Coming and going.


def test_a_directory_is_entered_or_it_is_said_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert enter(bytes(tmp_path)) == ""
    assert os.path.samefile(os.getcwd(), tmp_path)
    assert enter(b"/nonexistent") == "cannot change to the run's directory /nonexistent: No such file or directory"


class Channel:
    """Sends a little in each look at it."""

    def __init__(self, unsent: int, *, is_open: bool = True) -> None:
        self.left = unsent
        self.open = is_open

    @property
    def unsent(self) -> int:
        self.left -= 1
        return self.left


def test_what_was_said_last_is_sent_unless_the_connection_ends_or_it_takes_too_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loop(EventLoop):
        def turn(self, timeout: float | None = None) -> None:
            assert timeout is not None
            super().turn(0)

    loop = Loop()
    channel = Channel(10)
    send_rest(loop, channel)
    assert channel.left == 0
    closed = Channel(10, is_open=False)
    send_rest(loop, closed)
    assert closed.left == 10
    monkeypatch.setattr(module, "FAREWELL_LIMIT", 0.0)
    send_rest(bench.loop, Channel(1 << 60))
    loop.close()


# A signal that tasks may have got with their engine


def failed(number: int) -> Outcome:
    return replace(OUTCOME, pid=number, return_code=-signal.SIGTERM)


def reported(bench: Bench) -> dict[int, bool]:
    """Tasks that were reported, and which of them as interrupted."""
    bench.service.end_turn()
    return {number: outcome.interrupted for number, outcome in outcomes(bench.said).items()}


def test_an_outcome_is_believed_when_no_signal_follows_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DOUBT", 0.01)
    bench.begin(range(2), with_ranks=True)
    bench.service.outcome_known((1, task(0)), failed(0))
    bench.service.outcome_known((1, task(1)), OUTCOME)
    assert reported(bench) == {}
    bench.until(lambda: 1 in outcomes(bench.said))
    assert reported(bench) == {0: False, 1: False}


def test_an_end_around_a_signal_is_its_work_and_reported_when_nothing_of_it_is_left(bench: Bench) -> None:
    bench.begin(range(2), with_ranks=True)
    bench.service.outcome_known((1, task(0)), failed(0))
    bench.service.outcome_known((1, task(1)), OUTCOME)
    bench.service.signalled()
    bench.service.outcome_known((1, task(2)), failed(2))
    bench.service.outcome_known((1, task(3)), OUTCOME)
    assert reported(bench) == {}
    bench.service.decide(CylindersSettled())
    bench.service.cancel(1.0, stop_commands=True)
    bench.until(lambda: bench.ranks.to_finish)
    bench.ranks.to_finish[0]()
    assert bench.service.has_left
    assert reported(bench) == {0: True, 1: True, 2: True, 3: True}


def leave(bench: Bench) -> None:
    bench.service.decide(CylindersSettled())
    bench.service.decide(FinishAsked())
    bench.until(lambda: bench.ranks.to_finish)
    bench.ranks.to_finish[0]()
    bench.until(lambda: bench.service.has_left)


def test_after_a_signal_that_lets_tasks_go_on_a_failure_is_one_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DOUBT", 0.01)
    monkeypatch.setattr(module, "CLEARING", 0.05 - module.GRACE)
    bench.begin(range(2), with_ranks=True)
    bench.service.outcome_known((1, task(0)), failed(0))
    bench.service.signalled(0.0)
    bench.service.outcome_known((1, task(1)), failed(1))
    bench.until(lambda: 1 in outcomes(bench.said))
    assert reported(bench) == {1: False}
    bench.until(lambda: 0 in outcomes(bench.said))
    bench.service.signalled(60.0)
    bench.service.signalled(0.0)
    bench.service.outcome_known((1, task(2)), failed(2))
    assert reported(bench) == {0: True, 1: False}
    leave(bench)
    assert reported(bench) == {0: True, 1: False, 2: True}


def test_what_a_command_left_that_died_of_such_a_signal_is_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "CLEARING", 0.5 - module.GRACE)
    file = tmp_path / "pid"
    bench.begin(range(1), with_ranks=True)
    bench.service.decide(CylindersSettled())
    bench.service.decide(TasksCame((task(0, f"setsid sleep 60 >&- 2>&- & echo $! > {file}; kill -USR1 $$".encode()),)))
    bench.service.signalled(0.1)
    bench.until(lambda: outcomes(bench.said))
    assert reported(bench) == {0: True}
    bench.until(lambda: not os.path.exists(f"/proc/{file.read_text().strip()}"))


def test_a_command_that_lives_through_such_a_signal_keeps_what_it_has(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "DOUBT", 0.01)
    monkeypatch.setattr(module, "CLEARING", 0.1 - module.GRACE)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    command = f"setsid sleep 60 >&- 2>&- & read go < {gate}; kill $! && echo there"
    bench.begin(range(1), with_ranks=True)
    bench.service.decide(CylindersSettled())
    bench.service.decide(TasksCame((task(0, command.encode()),)))
    over: list[bool] = []
    bench.service.signalled(0.01)
    bench.loop.after(0.2, lambda: over.append(True))
    bench.until(lambda: over)
    gate.write_text("go\n")
    bench.until(lambda: outcomes(bench.said))
    assert (outcomes(bench.said)[0].out_snippet, outcomes(bench.said)[0].interrupted) == (b"there\n", False)


def test_where_tasks_get_no_signal_with_their_engine_an_end_is_their_own(bench: Bench) -> None:
    bench.begin(range(2))
    bench.service.signalled()
    bench.service.outcome_known((1, task(0)), failed(0))
    assert reported(bench) == {0: False}


def test_who_leaves_reports_what_it_doubts(bench: Bench) -> None:
    bench.begin(range(1), with_ranks=True)
    bench.service.outcome_known((0, task(0)), failed(0))
    leave(bench)
    assert reported(bench) == {0: False}


def test_what_was_reported_at_the_end_is_not_believed_once_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DOUBT", 0.01)
    bench.begin(range(1), with_ranks=True)
    leave(bench)
    over: list[bool] = []
    bench.loop.after(0.05, lambda: over.append(True))
    bench.service.outcome_known((0, task(0)), failed(0))
    bench.service._one_has_left()
    bench.until(lambda: over)
    bench.service.end_turn()
    reports = [report for message in bench.said if isinstance(message, TasksEnded) for report in message.reports]
    assert [report.task_id for report in reports] == [0]


def test_what_a_start_command_leaves_is_there_after_a_cancel_that_comes_with_its_end(
    bench: Bench, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    leaves = f"sleep 60 >&- 2>&- & echo $! > {file}".encode()
    stop = f"kill -0 $(cat {file}) && echo there".encode()
    start, last = PerEngineTask(Phase.START, 0, 1, leaves), PerEngineTask(Phase.STOP, 0, 2, stop)
    service = bench.begin(range(1), start, last)
    (pid,) = service._attempts._running
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    service.cancel(10.0, stop_commands=True)
    bench.until(lambda: service.has_left)
    ended = [message for message in bench.said if isinstance(message, PerEngineTaskEnded)]
    assert ended[-1].outcome.out_snippet == b"there\n"
    assert not os.path.exists(f"/proc/{file.read_text().strip()}")


def test_a_server_that_start_commands_leave_may_take_its_time_to_begin_a_session(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    server = f"(sleep 0.1; exec setsid sleep 60) >&- 2>&- & echo $! > {file}".encode()
    service = bench.begin(range(1), PerEngineTask(Phase.START, 0, 1, server))
    bench.until(lambda: EngineReady(RANK, 1) in bench.said)
    pid = int(file.read_text())
    service.decide(TasksCame((task(0, b"exec sleep 60"),)))
    deadline = bench.loop.now() + TURN
    while os.getsid(pid) != pid:
        assert bench.loop.now() < deadline
    service.end_running(10.0)
    bench.until(lambda: outcomes(bench.said))
    assert os.getsid(pid) == pid
    service.decide(FinishAsked())
    bench.until(lambda: service.has_left)
    assert not os.path.exists(f"/proc/{pid}")
