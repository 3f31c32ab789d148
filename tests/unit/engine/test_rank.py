"""A rank in this process: its connection is a pair of sockets, of which the test has the engine's end."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from disbatch import messages
from disbatch.engine import link
from disbatch.engine import rank as module
from disbatch.engine.rank import Rank
from disbatch.errors import DisbatchError
from disbatch.eventloop import EventLoop
from disbatch.messages import (
    CancelEngine,
    CylindersFreed,
    EngineAdmitted,
    EngineLeft,
    EngineReady,
    EngineRefused,
    EngineUnfit,
    FinishEngine,
    Lease,
    Message,
    RankCame,
    RunTasks,
    TasksEnded,
    ToRank,
)
from disbatch.options import EngineRoleOptions
from disbatch.tasks import Outcome, Task
from disbatch.values import Address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLACE = 2
ENGINE = 3
LEASE = Lease(10.0, 45.0, 6.0)


class Bench:
    """A rank and its engine's end of the connection: all that the engine says is there before the rank runs."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.engine, self.connected = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.tries = 0
        self.comes_at_try = 1
        monkeypatch.setattr(link, "connect", self.connect)
        monkeypatch.setattr(module, "SEEKING_PAUSE", 0.0)
        asked = EngineRoleOptions(str(directory / "run"), Address("", 0), "INFO", "label", "node", ENGINE, "PLACE")
        self.loop = EventLoop()
        self.rank = Rank(asked, PLACE, self.loop)

    def connect(self, _name: bytes) -> socket.socket | None:
        self.tries += 1
        return self.connected if self.tries == self.comes_at_try else None

    def run(self, *said: ToRank, lose_engine: bool = False) -> list[Message]:
        """Let the rank run to its end; what it tells the engine."""
        for message in said:
            self.engine.send(messages.encode(message))
        if lose_engine:
            self.engine.shutdown(socket.SHUT_WR)
        self.rank.run()
        return [messages.decode(data) for data in iter(lambda: self.engine.recv(link.LIMIT), b"")]

    def admission(self, *, cylinders: int = 4, directory: bytes = b"", shared: tuple[str, ...] = ()) -> EngineAdmitted:
        return EngineAdmitted(directory or bytes(self.directory), "run", "Tasks", cylinders, 1, shared, (), LEASE)

    @property
    def log(self) -> str:
        return (self.directory / "run_label_node_engine_3.log").read_text()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subreaper: None) -> Iterator[Bench]:  # noqa: ARG001 - what it does counts
    monkeypatch.chdir(tmp_path)  # the rank changes its directory
    made = Bench(tmp_path, monkeypatch)
    yield made
    made.loop.close()
    made.engine.close()
    made.connected.close()


def task(number: int, command: bytes) -> RunTasks:
    return RunTasks((Task(number, number + 1, -1, command),))


def outcomes(heard: list[Message]) -> dict[int, Outcome]:
    reports = (report for message in heard if isinstance(message, TasksEnded) for report in message.reports)
    return {report.task_id: report.outcome for report in reports}


def test_a_rank_says_its_place_runs_a_task_of_its_cylinder_and_leaves(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVICES", "7")
    there = bench.directory / "there"
    there.mkdir()
    shown = b"echo $DISBATCH_CYLINDER_RANK $DISBATCH_ENGINE_RANK $DISBATCH_TASKID $DEVICES $(basename $PWD)"
    heard = bench.run(bench.admission(directory=bytes(there)), task(0, shown), FinishEngine())
    assert heard[:2] == [RankCame(PLACE), EngineReady(ENGINE, 1)]
    assert outcomes(heard)[0].out_snippet == b"2 3 0 7 there\n"
    assert heard[-1] == EngineLeft(ENGINE)


def test_a_task_takes_one_packet_each_way(bench: Bench) -> None:
    heard = bench.run(bench.admission(), task(0, b"true"), FinishEngine())
    assert [type(message) for message in heard] == [RankCame, EngineReady, TasksEnded, EngineLeft]


def test_a_task_with_a_process_in_the_background_frees_its_cylinder_before_its_report(bench: Bench) -> None:
    heard = bench.run(bench.admission(), task(0, b"sleep 60 & echo x"), FinishEngine())
    assert [type(message) for message in heard[2:]] == [CylindersFreed, TasksEnded, EngineLeft]
    assert outcomes(heard)[0].out_snippet == b"x\n"


def test_the_cylinder_has_the_element_of_its_number(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUS", "4,5,6,7")
    heard = bench.run(bench.admission(shared=("GPUS",)), task(0, b"echo $GPUS"), FinishEngine())
    assert outcomes(heard)[0].out_snippet == b"6\n"


def test_a_rank_without_an_element_to_its_number_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUS", "4,5")
    heard = bench.run(bench.admission(shared=("GPUS",)))
    assert heard[1:] == [EngineUnfit(ENGINE, "no element number 2 in GPUS to give to a task"), EngineLeft(ENGINE)]


def test_a_rank_that_cannot_reach_the_runs_directory_says_so(bench: Bench) -> None:
    heard = bench.run(bench.admission(directory=b"/nonexistent/here"))
    assert [type(message) for message in heard] == [RankCame, EngineUnfit, EngineLeft]


def test_a_rank_that_is_refused_leaves(bench: Bench) -> None:
    assert bench.run(EngineRefused("there is another")) == [RankCame(PLACE), EngineLeft(ENGINE)]


@pytest.mark.parametrize("message", [FinishEngine(), CancelEngine(3.0, stop_commands=False)])
def test_a_rank_told_to_end_before_it_is_let_in_leaves(bench: Bench, message: ToRank) -> None:
    assert bench.run(message) == [RankCame(PLACE), EngineLeft(ENGINE)]


def test_what_runs_is_ended_when_the_engine_says_so_and_the_rank_stays_until_it_may_leave(bench: Bench) -> None:
    heard = bench.run(
        bench.admission(),
        task(0, b"exec sleep 60"),
        CancelEngine(10.0, stop_commands=False),
        FinishEngine(),
    )
    assert (outcomes(heard)[0].return_code, outcomes(heard)[0].interrupted) == (-signal.SIGTERM, True)
    assert heard[-1] == EngineLeft(ENGINE)


def test_what_runs_is_killed_when_there_is_no_grace(bench: Bench) -> None:
    stubborn = b'trap "" TERM; exec sleep 60'
    heard = bench.run(bench.admission(), task(0, stubborn), CancelEngine(0.0, stop_commands=False), FinishEngine())
    assert outcomes(heard)[0].return_code == -signal.SIGKILL


# Its engine.


def test_a_rank_looks_for_its_engine_until_that_is_there(bench: Bench) -> None:
    bench.comes_at_try = 5
    assert bench.run(FinishEngine())[0] == RankCame(PLACE)
    assert bench.tries == 5


def test_a_rank_that_finds_no_engine_gives_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEEKING_PATIENCE", 0.01)
    bench.comes_at_try = -1
    with pytest.raises(DisbatchError, match="the process of place 2 has found no engine"):
        bench.run()


def test_a_rank_that_loses_its_engine_ends_its_task(bench: Bench) -> None:
    ended = b'trap "echo ended > ended; exit" TERM; touch begun; sleep 60 & wait'
    bench.run(bench.admission(), task(0, ended), lose_engine=True)
    assert (bench.directory / "ended").exists() or not (bench.directory / "begun").exists()
    assert "place 2: lost the engine" in bench.log


def test_a_rank_that_loses_its_engine_before_it_is_let_in_ends(bench: Bench) -> None:
    assert bench.run(lose_engine=True)[0] == RankCame(PLACE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_is_left_to_the_engine(bench: Bench, number: signal.Signals) -> None:
    heard = bench.run(bench.admission(), task(0, b"kill -%d $PPID; echo on" % number), FinishEngine())
    assert outcomes(heard)[0].out_snippet == b"on\n"
    assert not outcomes(heard)[0].interrupted


def test_a_signal_ends_a_rank_that_has_found_no_engine_yet(bench: Bench) -> None:
    bench.comes_at_try = -1
    bench.loop.after(0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    bench.rank.run()
    assert "got SIGTERM" in bench.log


def test_a_signal_that_comes_of_the_end_of_the_keeper_ends_the_task_and_the_rank(bench: Bench) -> None:
    bench.rank._keeper = -1  # the process that was the parent when the rank began
    heard = bench.run(bench.admission(), task(0, b"kill -TERM $PPID; exec sleep 60"))
    assert outcomes(heard)[0].interrupted
    assert heard[-1] == EngineLeft(ENGINE)
    assert "the keeper has gone" in bench.log
