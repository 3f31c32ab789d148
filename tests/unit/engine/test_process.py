"""The engine as a process, in this one: its connection is a pair of sockets, of which the test has the driver's end."""

from __future__ import annotations

import os
import signal
import socket
from math import inf
from typing import TYPE_CHECKING

import pytest

from disbatch import __version__, descriptors, mailbox, messages
from disbatch.engine import keeper, link, process, service
from disbatch.engine.process import Engine
from disbatch.errors import DisbatchError, DriverUnreachableError
from disbatch.eventloop import READ, EventLoop, uptime
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.kvsstcp.wire import Limits, Put, RequestParser, encode_reply
from disbatch.messages import (
    Beat,
    CancelEngine,
    CylindersFreed,
    DriverGoesOn,
    DriverPauses,
    EngineAdmitted,
    EngineCame,
    EngineCleared,
    EngineLeft,
    EngineReady,
    EngineRefused,
    EngineToldToDrain,
    EngineToldToEnd,
    EngineUnfit,
    FinishEngine,
    Lease,
    Message,
    PerEngineTaskEnded,
    RankCame,
    ReturnTasks,
    RunTasks,
    TaskReport,
    TasksEnded,
    TasksReturned,
)
from disbatch.options import EngineRoleOptions
from disbatch.tasks import Outcome, PerEngineTask, Phase, Task
from disbatch.values import Address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RANK = 3
LEASE = Lease(10.0, 45.0, 6.0)

NEXT_DOOR = Outcome(4711, 0, 1.7e9, 0.25, 10, b"out", 0, b"", 0.125, 1 << 20, interrupted=False)


def refused() -> socket.socket:
    """Stand for connecting to a driver that is no more."""
    error = DriverUnreachableError("connection refused")
    error.nobody_listens = True
    raise error


class Kept(keeper.Lease):
    """A lease that no keeper looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def renew(self, end: float) -> None:
        self.ends.append(end)


class Bench:
    """An engine and its driver's end of the connection: all that the driver says is there before the engine runs."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, place_variable: str = "") -> None:
        self.directory = directory
        self.driver, connection = socket.socketpair()
        monkeypatch.setattr(process, "connect", lambda *given: connection if len(given) == 1 else refused())
        monkeypatch.setattr(mailbox, "RECONNECT_PAUSE", 0.002)
        monkeypatch.setattr(mailbox, "REFUSED_PATIENCE", 0.01)
        asked = EngineRoleOptions(str(directory / "run"), Address("", 0), "INFO", "label", "node", RANK, place_variable)
        self.loop = EventLoop()
        self.kept = Kept()
        self.engine = Engine(asked, self.loop, self.kept)

    def run(self, *said: Message, lose_driver: bool = False) -> list[Message]:
        """Let the engine run to its end; what it tells the driver."""
        for message in said:
            self.driver.sendall(encode_reply(messages.TAG, messages.encode(message)))
        if lose_driver:
            self.driver.shutdown(socket.SHUT_WR)
        self.engine.run()
        heard = b"".join(iter(lambda: self.driver.recv(1 << 20), b""))
        requests = RequestParser(Limits()).feed(heard)
        told = [messages.decode(put.value, put.tag) for put in requests if isinstance(put, Put)]
        return [message for message in told if not isinstance(message, Beat)]

    def admission(
        self,
        *per_engine_tasks: PerEngineTask,
        cylinders: int = 2,
        directory: bytes = b"",
        shared: tuple[str, ...] = (),
        lease: Lease = LEASE,
    ) -> EngineAdmitted:
        return EngineAdmitted(
            directory=directory or bytes(self.directory),
            job="run",
            task_source="Tasks",
            cylinders=cylinders,
            cores_per_cylinder=1,
            environment_resources=shared,
            per_engine_tasks=per_engine_tasks,
            lease=lease,
        )

    @property
    def log(self) -> str:
        return (self.directory / "run_label_node_engine_3.log").read_text()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subreaper: None) -> Iterator[Bench]:  # noqa: ARG001 - what it does counts
    monkeypatch.chdir(tmp_path)  # the engine changes its directory
    made = Bench(tmp_path, monkeypatch)
    yield made
    made.loop.close()
    made.driver.close()


def task(number: int, command: bytes) -> Task:
    return Task(number, number + 1, -1, command)


def outcomes(heard: list[Message]) -> dict[int, Outcome]:
    return {
        report.task_id: report.outcome
        for message in heard
        if isinstance(message, TasksEnded)
        for report in message.reports
    }


def of_kind(heard: list[Message], kind: type) -> list[Message]:
    return [message for message in heard if isinstance(message, kind)]


def test_an_engine_has_no_more_cylinders_than_the_limit_of_open_files_allows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "make_room", lambda _: None)
    monkeypatch.setattr(descriptors, "room", lambda: service.DESCRIPTORS_BESIDES + 7)
    heard = bench.run(bench.admission(cylinders=5), FinishEngine())
    assert heard[1] == EngineReady(RANK, 3)
    assert "3 cylinders only" in bench.log


def test_an_engine_comes_is_ready_runs_its_tasks_and_leaves(bench: Bench) -> None:
    there = bench.directory / "there"
    there.mkdir()
    commands = [b"echo $DISBATCH_TASKID; exit 1", b"basename $PWD", b"echo $DISBATCH_ENGINE_RANK"]
    tasks = tuple(task(number, command) for number, command in enumerate(commands))
    heard = bench.run(bench.admission(directory=bytes(there)), RunTasks(tasks), FinishEngine())
    assert heard[0] == EngineCame(RANK, __version__, os.uname().nodename, os.getpid())
    assert heard[1] == EngineReady(RANK, 2)
    assert heard[-1] == EngineLeft(RANK)
    ended = outcomes(heard)
    assert [ended[number].out_snippet for number in range(3)] == [b"0\n", b"there\n", b"3\n"]
    assert [ended[number].return_code for number in range(3)] == [1, 0, 0]


def test_no_more_tasks_run_at_once_than_there_are_cylinders(bench: Bench) -> None:
    count = b"mkdir $DISBATCH_CYLINDER_RANK && sleep 0.005 && rmdir $DISBATCH_CYLINDER_RANK"
    heard = bench.run(bench.admission(), RunTasks(tuple(task(number, count) for number in range(10))), FinishEngine())
    ended = outcomes(heard)
    assert len(ended) == 10
    assert not any(outcome.failed for outcome in ended.values()), "two tasks were in one cylinder"
    assert not {"0", "1"} & set(os.listdir(bench.directory))


def test_start_and_stop_commands_run_around_the_tasks(bench: Bench) -> None:
    start, stop = (PerEngineTask(phase, 0, 1, b"echo $DISBATCH_CYLINDER_RANK; exit 2") for phase in Phase)
    heard = bench.run(bench.admission(start, stop), FinishEngine())
    ended = [message for message in heard if isinstance(message, PerEngineTaskEnded)]
    assert [message.task for message in ended] == [start, stop]
    assert all(message.outcome.out_snippet == b"-1\n" and message.outcome.return_code == 2 for message in ended)


def test_reports_of_tasks_that_ended_together_travel_together(bench: Bench) -> None:
    bench.loop.turn(0)
    tasks = tuple(task(number, b"true") for number in range(40))
    heard = bench.run(bench.admission(), RunTasks(tasks), FinishEngine())
    assert len(outcomes(heard)) == 40
    assert len(of_kind(heard, TasksEnded)) < 40


def test_a_task_with_a_process_in_the_background_frees_its_cylinder_before_its_report(bench: Bench) -> None:
    heard = bench.run(bench.admission(cylinders=1), RunTasks((task(0, b"sleep 60 & echo x"),)), FinishEngine())
    freed, ended = of_kind(heard, CylindersFreed), of_kind(heard, TasksEnded)
    assert freed == [CylindersFreed(RANK, (0,))]
    assert heard.index(freed[0]) < heard.index(ended[0])
    assert outcomes(heard)[0].out_snippet == b"x\n"


def test_waiting_tasks_are_given_back(bench: Bench) -> None:
    tasks = (task(0, b"sleep 0.02"), task(1, b"true"), task(2, b"true"))
    heard = bench.run(bench.admission(cylinders=1), RunTasks(tasks), ReturnTasks(), FinishEngine())
    assert of_kind(heard, TasksReturned) == [TasksReturned(RANK, (1, 2))]
    assert set(outcomes(heard)) == {0}


def test_a_cancelled_engine_ends_its_tasks_and_runs_its_stop_commands(bench: Bench) -> None:
    stop = PerEngineTask(Phase.STOP, 0, 1, b"echo stopped")
    tasks = tuple(task(number, b"exec sleep 60") for number in range(3))
    heard = bench.run(bench.admission(stop), RunTasks(tasks), CancelEngine(10.0, stop_commands=True))
    ended = outcomes(heard)
    assert {number: outcome.return_code for number, outcome in ended.items()} == {0: -15, 1: -15}
    assert all(outcome.interrupted for outcome in ended.values())
    assert len(of_kind(heard, PerEngineTaskEnded)) == 1


def test_an_engine_that_is_cancelled_for_good_runs_nothing_more(bench: Bench) -> None:
    stop = PerEngineTask(Phase.STOP, 0, 1, b"echo stopped")
    stubborn = task(0, b'trap "" TERM; exec sleep 60')
    heard = bench.run(bench.admission(stop), RunTasks((stubborn,)), CancelEngine(0.0, stop_commands=False))
    assert outcomes(heard)[0].return_code == -signal.SIGKILL
    assert of_kind(heard, PerEngineTaskEnded) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_tasks_and_then_the_engine_in_order(bench: Bench, number: signal.Signals) -> None:
    stop = PerEngineTask(Phase.STOP, 0, 1, b"echo stopped")
    suicide = task(0, b"kill -%d $PPID; exec sleep 60" % number)
    heard = bench.run(bench.admission(stop), RunTasks((suicide,)))
    assert outcomes(heard)[0].interrupted
    assert len(of_kind(heard, PerEngineTaskEnded)) == 1
    assert heard[-1] == EngineLeft(RANK)
    assert of_kind(heard, EngineToldToEnd) == [EngineToldToEnd(RANK)]
    assert f"got {number.name}" in bench.log


def test_a_signal_that_drains_is_told_to_the_driver_and_what_runs_goes_on(bench: Bench) -> None:
    heard = bench.run(bench.admission(), RunTasks((task(0, b"kill -USR1 $PPID; echo on"),)), FinishEngine())
    assert of_kind(heard, EngineToldToDrain) == [EngineToldToDrain(RANK)]
    assert outcomes(heard)[0].out_snippet == b"on\n"
    assert not outcomes(heard)[0].interrupted


def test_a_driver_that_pauses_has_not_gone(bench: Bench) -> None:
    said = (DriverPauses(), bench.admission(), DriverPauses(), RunTasks((task(0, b"true"),)), DriverGoesOn())
    heard = bench.run(*said, FinishEngine())
    assert set(outcomes(heard)) == {0}
    assert bench.log.index("the driver has been stopped") < bench.log.index("the driver goes on")


def test_an_engine_that_loses_its_driver_ends_its_tasks_and_runs_its_stop_commands(bench: Bench) -> None:
    stop = PerEngineTask(Phase.STOP, 0, 1, b"echo stopped > stopped")
    ended = task(0, b'trap "echo ended > ended; exit" TERM; sleep 60 & wait')
    bench.run(bench.admission(stop), RunTasks((ended, task(1, b"exec sleep 60"))), lose_driver=True)
    assert (bench.directory / "stopped").exists()
    assert "lost the driver" in bench.log


# The lease.

SHORT = Lease(period=1000.0, limit=0.02, grace=0.01)


def test_an_engine_whose_lease_has_ended_ends_its_tasks_and_returns_the_others(bench: Bench) -> None:
    tasks = (task(0, b"exec sleep 60"), task(1, b"true"))
    heard = bench.run(bench.admission(cylinders=1, lease=SHORT), RunTasks(tasks), FinishEngine())
    assert of_kind(heard, TasksReturned) == [TasksReturned(RANK, (1,))]
    assert outcomes(heard)[0].interrupted
    assert heard[-1] == EngineLeft(RANK)
    assert "the driver does not answer" in bench.log


def test_a_task_that_comes_when_the_lease_has_ended_is_returned(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox.Mailbox, "lapsed", True)
    heard = bench.run(bench.admission(), RunTasks((task(0, b"true"), task(1, b"true"))), FinishEngine())
    assert of_kind(heard, TasksReturned) == [TasksReturned(RANK, (0, 1))]
    assert outcomes(heard) == {}


def test_the_keeper_is_to_look_a_grace_later_than_the_engine_ends_its_tasks(bench: Bench) -> None:
    before = uptime()
    bench.run(bench.admission(), Beat(0, before), FinishEngine())
    assert bench.kept.ends == [before + LEASE.limit + 1.5 * LEASE.grace]


def test_the_keeper_has_nothing_to_look_for_when_the_tasks_have_ended(bench: Bench) -> None:
    wait = task(0, b'trap "" TERM; while [ ! -e done ]; do sleep 0.01; done')
    stay = PerEngineTask(Phase.STOP, 0, 1, b"sleep 0.1")
    bench.run(bench.admission(stay, lease=SHORT), Beat(0, uptime()), RunTasks((wait,)), FinishEngine())
    assert bench.kept.ends[-1] == inf


def test_an_engine_ends_its_tasks_within_the_grace_that_its_lease_leaves(bench: Bench) -> None:
    stubborn = task(0, b'trap "" TERM; exec sleep 60')
    heard = bench.run(bench.admission(lease=SHORT), RunTasks((stubborn,)), FinishEngine())
    assert outcomes(heard)[0].return_code == -signal.SIGKILL


class Told:
    """Stands for the client of the driver's store: what is put there."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def put(self, key: bytes, value: bytes, tag: str) -> None:
        self.done.append((key, messages.decode(value, tag.encode())))

    def close(self) -> None:
        self.done.append("closed")


def test_a_keeper_tells_the_driver_that_nothing_of_its_engine_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    monkeypatch.setattr(process, "client", lambda *_: told)
    process._tell_of_end(EngineRoleOptions(run="/there/run", rank=RANK))
    assert told.done == [(messages.driver_key("run"), EngineCleared(RANK)), "closed"]


def test_a_keeper_of_one_of_several_processes_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "client", lambda *_: pytest.fail("it cannot know"))
    process._tell_of_end(EngineRoleOptions(run="/there/run", rank=RANK, place_variable="PLACE"))


# Where each cylinder is a process.


@pytest.fixture
def place_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subreaper: None) -> Iterator[Bench]:  # noqa: ARG001 - as above
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(SECRET_VARIABLE, "secret")
    made = Bench(tmp_path, monkeypatch, "PLACE")
    yield made
    made.loop.close()
    made.driver.close()


class NextDoor:
    """The process of place 1, in the engine's own loop: says of each task that it has ended."""

    def __init__(self, bench: Bench) -> None:
        connected = link.connect(link.address(str(bench.directory / "run"), RANK, "secret"))
        assert connected is not None
        self.given: list[Task] = []
        self.link = link.Link(bench.loop, connected, self.take, lambda _: None)
        self.link.send(RankCame(1))

    def take(self, message: Message) -> None:
        if isinstance(message, EngineAdmitted):
            self.link.send(EngineReady(RANK, 1))
        elif isinstance(message, RunTasks):
            self.given += message.tasks
            reports = tuple(TaskReport(task.task_id, NEXT_DOOR) for task in message.tasks)
            self.link.send(TasksEnded(RANK, reports))
        else:
            assert message == FinishEngine()
            self.link.send(EngineLeft(RANK))


def test_an_engine_gives_tasks_to_the_process_of_another_place_and_leaves_after_it(place_bench: Bench) -> None:
    bench = place_bench
    here, there = task(0, b"echo $DISBATCH_CYLINDER_RANK"), task(1, b"true")
    requests = RequestParser(Limits())
    heard: list[Message] = []

    def say(*said: Message) -> None:
        for message in said:
            bench.driver.sendall(encode_reply(messages.TAG, messages.encode(message)))

    def hear(data: bytes) -> None:
        puts = [request for request in requests.feed(data) if isinstance(request, Put)]
        for message in (messages.decode(put.value, put.tag) for put in puts):
            heard.append(message)
            if message == EngineReady(RANK, 2):
                say(RunTasks((here, there)), FinishEngine())

    next_door = NextDoor(bench)
    bench.loop.watch(bench.driver.fileno(), READ, lambda _: hear(bench.driver.recv(1 << 20)))
    say(bench.admission())
    bench.engine.run()
    for data in iter(lambda: bench.driver.recv(1 << 20), b""):
        hear(data)
    assert next_door.given == [there]
    assert outcomes(heard)[0].out_snippet == b"0\n"
    assert outcomes(heard)[1] == NEXT_DOOR
    assert heard[-1] == EngineLeft(RANK)
    next_door.link.close()


def test_an_engine_whose_name_is_taken_says_so(place_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DisbatchError, match="cannot listen for the processes of this engine: Address already in use"):
        Bench(place_bench.directory, monkeypatch, "PLACE")


def test_a_process_finds_its_place_where_it_is_told_to_look() -> None:
    asked = EngineRoleOptions(place_variable="PLACE")
    assert process.place_of(EngineRoleOptions(), {"PLACE": "7"}) == 0
    assert process.place_of(asked, {"PLACE": "7"}) == 7
    for wrong in ({}, {"PLACE": ""}, {"PLACE": "-1"}, {"PLACE": "one"}, {"PLACE": "\u0663"}):
        with pytest.raises(DisbatchError, match="and not the number of a process of this engine"):
            process.place_of(asked, wrong)


def test_a_signal_to_an_engine_that_has_left_does_not_make_it_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    class HasLeft:
        def __init__(self, _asked: EngineRoleOptions, loop: EventLoop, _kept: object) -> None:
            loop.on_request_to_end(lambda _: None)

        def run(self) -> None:
            pass

    monkeypatch.setattr(process, "Engine", HasLeft)
    monkeypatch.setattr(keeper, "fork_from_keeper", lambda _: None)
    monkeypatch.setattr(descriptors, "keep_from_children", lambda: None)
    monkeypatch.setattr(keeper, "kill_descendants", lambda: signal.raise_signal(signal.SIGTERM))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        assert process.main(["--run=/run", "--kvs=driver:1", "--label=L", "--node=n", "--rank=0"]) == 0
        assert signal.sigtimedwait([signal.SIGTERM], 0) is not None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_an_engine_that_is_refused_ends(bench: Bench) -> None:
    heard = bench.run(EngineRefused("the run is over"))
    assert [type(message) for message in heard] == [EngineCame, EngineLeft]
    assert "refused: the run is over" in bench.log


@pytest.mark.parametrize("message", [FinishEngine(), CancelEngine(3.0, stop_commands=True)])
def test_an_engine_told_to_end_before_it_is_admitted_ends(bench: Bench, message: Message) -> None:
    assert [type(told) for told in bench.run(message)] == [EngineCame, EngineLeft]


def test_an_engine_that_loses_its_driver_before_it_is_admitted_ends(bench: Bench) -> None:
    bench.run(lose_driver=True)
    assert "lost the driver" in bench.log


def test_an_engine_that_cannot_reach_the_runs_directory_says_so(bench: Bench) -> None:
    heard = bench.run(bench.admission(directory=b"/nonexistent/here"))
    assert heard[1:] == [
        EngineUnfit(RANK, "cannot change to the run's directory /nonexistent/here: No such file or directory"),
        EngineLeft(RANK),
    ]


def test_an_engine_without_an_element_to_share_out_says_of_what(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTS", "1,2")
    heard = bench.run(bench.admission(shared=("NO_SUCH_GPUS", "PORTS", "NO_SUCH_TPUS")))
    problem = "no element in NO_SUCH_GPUS or NO_SUCH_TPUS to give to a task"
    assert heard[1:] == [EngineUnfit(RANK, problem), EngineLeft(RANK)]


def test_fewer_elements_to_share_out_make_a_smaller_engine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUS", "7")
    gpu = task(0, b"echo $GPUS")
    heard = bench.run(bench.admission(shared=("GPUS",)), RunTasks((gpu,)), FinishEngine())
    assert EngineReady(RANK, 1) in heard
    assert outcomes(heard)[0].out_snippet == b"7\n"


def test_the_log_tells_how_it_went_and_holds_no_environment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVATE_VARIABLE", "private value")
    bench.run(bench.admission(), RunTasks((task(0, b"true"),)), FinishEngine())
    assert f"engine 3 on node, pid {os.getpid()}, version {__version__}" in bench.log
    assert "admitted; 2 cylinders" in bench.log
    assert "told to finish" in bench.log
    assert "private value" not in bench.log
    assert "PRIVATE_VARIABLE" not in bench.log


def test_an_engine_that_cannot_write_its_log_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run_label_node_engine_3.log").mkdir()
    driver, connection = socket.socketpair()
    monkeypatch.setattr(process, "connect", lambda *_: connection)
    loop = EventLoop()
    asked = EngineRoleOptions(str(tmp_path / "run"), Address("", 0), "INFO", "label", "node", RANK)
    with pytest.raises(DisbatchError, match="cannot write the log"):
        Engine(asked, loop, Kept())
    heard = [
        messages.decode(request.value, request.tag)
        for request in RequestParser(Limits()).feed(driver.recv(1 << 20))
        if isinstance(request, Put)
    ]
    assert [type(message) for message in heard] == [EngineCame, EngineUnfit]
    loop.close()
    driver.close()
