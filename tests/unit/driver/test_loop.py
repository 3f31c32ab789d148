"""`loop` among stand-ins: what it does and waits for; what others say to it is in a file of its own."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, cast, get_args

import pytest

from disbatch import descriptors, messages
from disbatch.driver import events
from disbatch.driver import loop as loop_file
from disbatch.driver.controller import Controller
from disbatch.driver.feeder import Feeder
from disbatch.driver.loop import FAREWELL_LIMIT, PAUSE_NOTICE, OwnContext
from disbatch.driver.recorder import Recorder
from disbatch.errors import DisbatchError
from disbatch.kvsstcp.wire import ASTR
from disbatch.launching import Launched
from disbatch.statusfile import barrier_line, parse_line, per_engine_line, task_line
from disbatch.tasks import NO_REPEAT, Barrier, PerEngineTask, Phase, Task
from tests.unit.driver.examples import context_came, engine_came, outcome, settings
from tests.unit.driver.house import FORMER_LIMIT, JOB, NOW, OWN_CONTEXT, THE_END, House, Store

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from disbatch.eventloop import EventLoop

TASK = Task(3, 4, NO_REPEAT, b"true")
PER_ENGINE_TASK = PerEngineTask(Phase.STOP, 0, 1, b"clean up")
BARRIER = Barrier(5, 6, check=False, key=b"key", text=b"#DISBATCH BARRIER key")


# Commands


def put_for_engine(rank: int, message: messages.ToEngine) -> tuple[object, ...]:
    return "put", messages.member_key(JOB, messages.engine_name(rank)), message


PERFORMED: dict[type, tuple[events.Command, list[tuple[object, ...]]]] = {
    events.ReadItems: (events.ReadItems(7), [("read", 7)]),
    events.StartContext: (
        events.StartContext(),
        [
            ("log", "starting a context: ['disbatch', '--context']"),
            ("start", OWN_CONTEXT.command, OWN_CONTEXT.output, OWN_CONTEXT.environment, FORMER_LIMIT),
        ],
    ),
    events.SendToContext: (
        events.SendToContext("token", messages.EndContext((1,))),
        [("put", messages.member_key(JOB, messages.context_name("token")), messages.EndContext((1,)))],
    ),
    events.SendToEngine: (
        events.SendToEngine(4, messages.RunTasks((TASK,))),
        [put_for_engine(4, messages.RunTasks((TASK,)))],
    ),
    events.ForgetMember: (events.ForgetMember("engine 3"), []),
    events.RecordTask: (
        events.RecordTask(TASK, "node", outcome(1), abandoned=True),
        [("line", task_line(TASK, "node", outcome(1), abandoned=True))],
    ),
    events.RecordPerEngineTask: (
        events.RecordPerEngineTask(PER_ENGINE_TASK, "node", outcome()),
        [("line", per_engine_line(PER_ENGINE_TASK, "node", outcome()))],
    ),
    events.RecordBarrier: (
        events.RecordBarrier(BARRIER, 1.0, 2.5),
        [("line", barrier_line(BARRIER, "host", os.getpid(), 1.0, 2.5))],
    ),
    events.AnnounceBarrier: (events.AnnounceBarrier(b"key", 12), [("put", b"key", (ASTR, b"12"))]),
    events.NoteInLog: (events.NoteInLog("an engine has come"), [("log", "an engine has come")]),
    events.TellUser: (events.TellUser("100 % done"), [("error", "100 % done"), ("tell", "100 % done")]),
    events.WakeAfter: (events.WakeAfter(2.5, events.EngineOverdue(3)), []),
    events.EndRun: (THE_END, []),
}
"""A command of each kind and what is to be seen of it; timers and the end are looked at below."""


@pytest.mark.parametrize("kind", get_args(events.Command))
def test_every_command_is_performed(house: House, kind: type) -> None:
    assert kind in PERFORMED, f"{kind.__name__} is a command whose performance is not tested"
    command, to_be_seen = PERFORMED[kind]
    end = house.run(command)
    assert [what for what in house.done if what[0] not in ("flush", "close", "clear away")] == to_be_seen
    if kind is events.WakeAfter:
        [(seconds, action)] = house.loop.timers
        assert seconds == 2.5
        action()
        assert list(house.driver._inbox) == [events.EngineOverdue(3)]
    if kind is events.EndRun:
        assert end is command
        assert house.events == []


def test_commands_are_performed_in_their_order(house: House) -> None:
    kinds = [events.SendToEngine, events.TellUser, events.AnnounceBarrier, events.ReadItems, events.SendToContext]
    house.run(*(PERFORMED[kind][0] for kind in kinds))
    expected = [what for kind in kinds for what in PERFORMED[kind][1]]
    assert [what for what in house.done if what in expected] == expected


def test_all_records_are_written_before_anything_is_said(house: House) -> None:
    said = [PERFORMED[kind][0] for kind in (events.SendToEngine, events.AnnounceBarrier, events.TellUser)]
    first, second = PERFORMED[events.RecordTask], PERFORMED[events.RecordBarrier]
    house.run(said[0], first[0], said[1], second[0], said[2])
    assert house.done[:3] == [*first[1], *second[1], ("flush",)]
    assert [what[0] for what in house.done[3:7]] == ["put", "put", "error", "tell"]


def test_what_happened_in_one_turn_is_recorded_with_one_flush(house: House) -> None:
    record, (line,) = PERFORMED[events.RecordTask]
    house.script.answers[events.EngineOverdue] = [record, events.TellUser("lost")]
    house.is_told(events.EngineOverdue(1), events.EngineOverdue(2))
    house.run(events.ReadItems(1))
    house.done = house.done[house.done.index(line) :]
    assert [what[0] for what in house.done[:7]] == ["line", "line", "flush", "error", "tell", "error", "tell"]
    assert house.heard == [events.EngineOverdue(1), events.EngineOverdue(2), events.RecordsWritten()]


def test_events_keep_their_order_and_carry_the_time_of_day(house: House) -> None:
    for rank in range(5):
        house.is_told(events.EngineOverdue(rank))
    house.run()
    assert house.heard == [events.EngineOverdue(rank) for rank in range(5)]
    assert set(house.script.times) == {NOW}


def test_what_a_command_brings_about_is_handled_without_waiting(house: House) -> None:
    house.is_told(events.EngineOverdue(1))
    house.script.answers[events.EngineOverdue] = [events.StartContext()]
    house.child_failure = DisbatchError("cannot start it")
    house.run()
    assert house.loop.timeouts[:2] == [None, 0.0]


def test_the_end_leaves_no_command_of_its_turn_undone(house: House) -> None:
    house.run(THE_END, events.TellUser("good-bye"))
    assert ("tell", "good-bye") in house.done


def test_lines_are_handed_on_once_they_are_in_the_file(house: House) -> None:
    house.is_listened_to = True
    kinds = [events.RecordTask, events.RecordPerEngineTask, events.RecordBarrier]
    said = PERFORMED[events.SendToEngine][0]
    house.run(said, *(PERFORMED[kind][0] for kind in kinds))
    lines = [PERFORMED[kind][1][0] for kind in kinds]
    assert house.done[:5] == [*lines, ("flush",), ("recorded", *(line[1] for line in lines))]


def test_a_turn_without_a_record_hands_nothing_on(house: House) -> None:
    house.is_listened_to = True
    house.run(events.TellUser("nothing has ended"))
    assert house.all("recorded") == []


# Records that cannot be written


ORDER = PERFORMED[events.SendToEngine][0]


def there_is_room_again(house: House) -> None:
    """Let the time come when it is tried again."""
    house.book.failures.clear()
    [(_, action)] = house.loop.timers
    action()


def test_a_status_file_that_cannot_be_written_is_told_of_once(house: House) -> None:
    house.book.fails(100)
    house.script.answers[events.EngineOverdue] = [PERFORMED[events.RecordTask][0]]
    for rank in range(3):
        house.is_told(events.EngineOverdue(rank))
    house.run(PERFORMED[events.RecordTask][0])
    assert house.heard[0] == events.RecordsHeldBack()
    what = "the disk is full; nothing is started until that works, and nothing is lost"
    assert house.all("tell") == [(f"{what} (make room for /data/status; Ctrl-C ends the run)",)]
    assert len(house.loop.timers) == 1, "tried again once"
    assert house.done.count(("flush",)) == 1, "before its time"


def test_what_follows_from_records_is_asked_for_when_they_are_written(house: House) -> None:
    house.script.answers[events.RecordsWritten] = [ORDER]
    house.run(PERFORMED[events.RecordTask][0], THE_END)
    house.driver.happened(events.EngineOverdue(1))
    house.script.answers[events.EngineOverdue] = [PERFORMED[events.RecordTask][0]]
    house.driver._handle_inbox()
    assert house.events == [events.EngineOverdue(1), events.RecordsWritten()]
    assert [what[0] for what in house.done[-4:]] == ["line", "flush", "flush", "put"]


def test_what_is_recorded_when_records_are_written_is_written_in_the_same_turn(unopened: House) -> None:
    house = unopened
    house.open(Controller(settings()))
    house.is_told(events.ItemsRead((BARRIER, BARRIER), ended=True))
    assert house.run() == THE_END
    assert [what[0] for what in house.done if what[0] in ("line", "put")] == ["line", "line", "put", "put"]
    assert house.loop.timeouts == [None]


def test_what_could_not_be_written_is_not_handed_on_before_it_is(house: House) -> None:
    house.is_listened_to = True
    house.book.fails()
    house.happens(lambda: there_is_room_again(house))
    house.run(PERFORMED[events.RecordBarrier][0])
    line = PERFORMED[events.RecordBarrier][1][0]
    assert [what for what in house.done if what[0] in ("flush", "recorded", "put")] == [
        ("flush",),
        ("flush",),
        ("recorded", line[1]),
        ("flush",),
    ]
    assert house.heard == [events.RecordsHeldBack(), events.RecordsWritten()]
    assert house.all("tell")[1:] == [("the status file can be written again; the run goes on",)]


def test_lines_that_come_meanwhile_are_kept_in_their_order(house: House) -> None:
    house.is_listened_to = True
    house.book.fails()
    house.script.answers[events.EngineOverdue] = [PERFORMED[events.RecordTask][0]]
    house.is_told(events.EngineOverdue(1))
    house.happens(lambda: there_is_room_again(house))
    house.run(PERFORMED[events.RecordBarrier][0])
    lines = [PERFORMED[kind][1][0][1] for kind in (events.RecordBarrier, events.RecordTask)]
    assert house.all("recorded") == [tuple(lines)]
    assert [what[0] for what in house.done].count("line") == 2


def test_the_posted_state_does_not_get_ahead_of_the_file(house: House) -> None:
    house.book.fails()
    house.happens(house.press.post)
    house.happens(lambda: there_is_room_again(house))
    house.happens(house.press.post)
    house.run(PERFORMED[events.RecordTask][0])
    kinds = [what[0] for what in house.done]
    assert house.replaced == [POSTED]
    assert kinds.index("replace") > [place for place, kind in enumerate(kinds) if kind == "flush"][1]


def test_a_run_that_has_ended_waits_until_its_last_lines_are_written(house: House) -> None:
    house.book.fails()
    house.run(PERFORMED[events.RecordTask][0], THE_END)
    turns: list[int] = []
    house.happens(partial(turns.append, 1))
    house.happens(lambda: there_is_room_again(house))
    assert house.driver.settle(None) is None
    assert turns == [1]
    assert house.all("tell")[1:] == [("the status file can be written again; the run goes on",)]


def test_a_signal_ends_that_wait(house: House) -> None:
    house.book.fails()
    house.run(PERFORMED[events.RecordTask][0], THE_END)
    house.happens(house.loop.signal_handlers[signal.SIGINT])
    assert house.driver.settle(None) == events.SignalCame("SIGINT", 130)


def test_a_run_that_was_cut_short_waits_so_long_and_no_longer(house: House) -> None:
    house.book.fails()
    house.run(PERFORMED[events.RecordTask][0], THE_END)
    began = house.loop.clock
    assert house.driver.settle(2.0) is None
    assert 2.0 <= house.loop.clock - began < 2.5
    assert house.loop.timeouts[-1] == 0.25


def test_a_run_without_unwritten_lines_waits_for_nothing(house: House) -> None:
    house.run(PERFORMED[events.RecordTask][0], THE_END)
    house.loop.timeouts.clear()
    assert house.driver.settle(None) is None
    assert house.loop.timeouts == []


# Waiting


@pytest.mark.parametrize("expiry", [None, 0.7])
def test_the_loop_waits_as_long_as_the_store_has_nothing_to_see_to(house: House, expiry: float | None) -> None:
    house.store.next_expiry = expiry
    house.run()
    assert house.loop.timeouts == [expiry]


# Signals


def test_signals_are_heard_from_the_beginning(house: House) -> None:
    ending = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    assert set(house.loop.signal_handlers) == ending | {signal.SIGUSR1, signal.SIGTSTP, signal.SIGCHLD}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_that_ends_the_run_is_an_event(house: House, number: signal.Signals, status: int) -> None:
    house.happens(house.loop.signal_handlers[number])
    house.run()
    assert house.heard == [events.SignalCame(number.name, status)]


def test_a_signal_before_the_run_begins_is_not_lost(house: House) -> None:
    house.loop.signal_handlers[signal.SIGTERM]()
    house.run(events.ReadItems(1))
    assert house.heard == [events.SignalCame("SIGTERM", 143)]
    assert house.loop.timeouts[0] is None, "it was handled before anything was waited for"


def test_a_signal_that_drains_the_run_is_an_event(house: House) -> None:
    house.happens(house.loop.signal_handlers[signal.SIGUSR1])
    house.run()
    assert house.heard == [events.DrainAsked("SIGUSR1")]


def test_a_driver_that_is_to_stop_tells_everybody_before_and_afterwards(house: House) -> None:
    pauses, goes_on = (events.SendToEngine(4, said) for said in (messages.DriverPauses(), messages.DriverGoesOn()))
    house.script.answers[events.PauseBegan] = [pauses]
    house.script.answers[events.PauseEnded] = [goes_on]
    house.happens(house.loop.signal_handlers[signal.SIGTSTP])
    house.happens(lambda: house.did("sent"))  # in a turn that is taken for it
    house.happens(lambda: setattr(house.loop, "clock", house.loop.clock + PAUSE_NOTICE))
    house.run()
    assert [what for what in house.done if what[0] in ("put", "sent", "hide", "stop")] == [
        put_for_engine(4, pauses.message),
        ("sent",),
        ("hide",),
        ("stop",),
        put_for_engine(4, goes_on.message),
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_real_signal_wakes_the_loop(real: House, number: signal.Signals) -> None:
    real.open()
    real.script.answers[events.SignalCame] = [THE_END]
    os.kill(os.getpid(), number)
    real.run()
    assert [event.name for event in real.heard if isinstance(event, events.SignalCame)] == [number.name]


def test_a_hang_up_that_is_ignored_stays_so(unopened: House) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        unopened.open()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.SIGHUP not in unopened.loop.signal_handlers
    assert signal.SIGTERM in unopened.loop.signal_handlers


# The driver's own context


def test_room_is_made_for_a_connection_to_each_engine(unopened: House) -> None:
    unopened.open(forget=False)
    assert unopened.all("make room") == [(descriptors.MANY,)]


def test_the_end_of_the_own_context_is_told_once(house: House) -> None:
    def end() -> None:
        assert house.child is not None
        house.child.ended_with = 3

    house.a_child_ends()
    house.happens(end)
    house.a_child_ends()
    house.a_child_ends()
    house.run(events.StartContext())
    assert house.heard == [events.OwnContextEnded(3, "last words")]
    assert house.all("clear away") == [()]


def test_a_child_that_ends_before_any_context_was_started_is_no_event(house: House) -> None:
    house.a_child_ends()
    house.run()
    assert house.heard == []


def test_a_context_that_cannot_be_started_has_ended(house: House) -> None:
    house.child_failure = DisbatchError("cannot start disbatch: No such file or directory")
    house.run(events.StartContext())
    assert house.heard == [events.OwnContextEnded(1, "cannot start disbatch: No such file or directory")]


def test_a_real_context_that_ends_says_its_last_words(
    real: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loop_file, "Launched", Launched)
    monkeypatch.setattr(descriptors, "make_room", lambda _: None)
    command = ["/bin/bash", "-c", "echo $WORDS; exit 3"]
    real.open(own_context=OwnContext(command, {"WORDS": "no resources"}, str(tmp_path / "output")))
    real.script.answers[events.OwnContextEnded] = [THE_END]
    real.run(events.StartContext())
    assert real.heard == [events.OwnContextEnded(3, "no resources")]


# A store that programs share


class Shared:
    """Stands for a store that somebody else serves."""

    def __init__(self, _loop: EventLoop, connected: object, replacing: object, on_lost: Callable[[str], None]) -> None:
        self.connected = (connected, replacing)
        self.replaced: list[tuple[bytes, bytes, bytes]] = []
        self.lose = on_lost
        self.posted: list[tuple[bytes, bytes, bytes]] = []
        self.turns_until_sent = 0
        self.closed = False

    def put(self, key: bytes, tag: bytes, value: bytes) -> None:
        self.posted.append((key, tag, value))

    def replace(self, key: bytes, tag: bytes, value: bytes) -> None:
        self.replaced.append((key, tag, value))

    @property
    def unsettled(self) -> bool:
        self.turns_until_sent -= 1
        return self.turns_until_sent >= 0

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def shared(house: House, monkeypatch: pytest.MonkeyPatch) -> Shared:
    monkeypatch.setattr(loop_file, "OtherStore", Shared)
    connected, replacing = cast("list[socket.socket]", ["the connection", "the other"])
    house.driver.use_store(connected, replacing, "there:1")
    made = house.driver.store
    assert isinstance(made, Shared)
    assert made.connected == ("the connection", "the other")
    return made


def test_programs_share_the_runs_own_store_unless_there_is_another(house: House) -> None:
    house.driver.store.put(b"key", b"ASTR", b"value")
    assert house.all("put") == [(b"key", (b"ASTR", b"value"))]


def test_what_is_for_programs_goes_into_the_store_that_they_share(house: House, shared: Shared) -> None:
    message = messages.RunTasks((TASK,))
    house.run(events.AnnounceBarrier(b"key", 5), events.SendToEngine(1, message), THE_END)
    assert shared.posted == [(b"key", b"ASTR", b"5")]
    assert house.all("put") == [(messages.member_key(JOB, messages.engine_name(1)), message)]


STATE = json.dumps({"job": JOB, "of": "Script", "unread": None, "time": NOW}).encode()
POSTED = (b"DisBatch status", b"JSON", STATE)
NOT_YET = (b"DisBatch status", b"ASTR", b"<Starting...>")


def test_a_run_that_has_not_begun_is_posted_as_that(unopened: House) -> None:
    unopened.open(forget=False)
    assert unopened.replaced == [NOT_YET]


def test_whatever_happens_makes_the_posted_state_old(house: House) -> None:
    house.arrives(messages.EngineLeft(1))
    house.run()
    assert house.press.changes
    assert house.press.closed, "when the run has ended"


def test_the_state_is_posted_as_json(house: House) -> None:
    house.press.post()
    assert house.replaced == [POSTED]
    assert house.display.shown == [json.loads(STATE)], "the user sees the same"


@pytest.mark.parametrize(("key", "rank"), [(b"", None), (b" 17", 17), (b" x", None), (b"x", None)])
def test_who_looks_is_told_what_runs_just_then(house: House, key: bytes, rank: int | None) -> None:
    tag, answer = house.store.answers[messages.RUNNING_KEYS]
    assert tag == b"JSON"
    assert json.loads(answer(messages.RUNNING_KEYS + key)) == {"of": "Script", "rank": rank, "time": NOW}


def test_the_state_is_posted_in_both_stores_and_at_the_end_where_it_outlives_the_run(
    house: House, shared: Shared
) -> None:
    assert shared.replaced == [NOT_YET]
    house.press.post()
    assert house.replaced == [POSTED]
    house.run(THE_END)
    assert shared.replaced == [NOT_YET, POSTED, POSTED]


def test_where_nobody_waits_for_the_end_nothing_is_put(house: House) -> None:
    house.run(THE_END)
    assert (messages.END_KEY, (b"JSON", STATE)) not in house.all("put")


def test_who_waits_for_the_end_gets_the_state_in_which_the_run_has_ended(unopened: House) -> None:
    unopened.open()
    unopened.store.awaited.add(messages.END_KEY)
    unopened.run(THE_END)
    assert (messages.END_KEY, (b"JSON", STATE)) in unopened.all("put")


def test_a_shared_store_that_is_lost_ends_the_list_of_tasks(house: House, shared: Shared) -> None:
    house.happens(lambda: shared.lose("the connection was closed"))
    house.run()
    assert house.heard == [
        events.ReadingFailed("lost the key-value store at there:1: the connection was closed"),
    ]


# The end


@pytest.fixture(params=["own", "shared"])
def slow(request: pytest.FixtureRequest, house: House) -> Store | Shared:
    """One of the stores, to which somebody may be slow to listen."""
    made: Store | Shared = house.store if request.param == "own" else request.getfixturevalue("shared")
    return made


def test_what_is_unsent_at_the_end_is_sent(house: House, slow: Store | Shared) -> None:
    slow.turns_until_sent = 3
    assert house.run(THE_END) is THE_END
    assert len(house.loop.timeouts) == 3
    assert slow.closed
    assert house.done[-1] == ("close",)


def test_those_who_do_not_listen_hold_the_end_up_for_a_limited_time(house: House, slow: Store | Shared) -> None:
    slow.turns_until_sent = 10**6
    house.run(THE_END)
    assert house.loop.clock <= 100.0 + FAREWELL_LIMIT + 0.25
    assert all(timeout is not None and 0 < timeout <= FAREWELL_LIMIT for timeout in house.loop.timeouts)
    assert slow.closed
    assert house.done[-1] == ("close",)


def test_an_own_context_that_has_not_ended_by_then_leaves_no_empty_file(house: House) -> None:
    house.run(events.StartContext(), THE_END)
    assert house.all("clear away") == [()]


def test_a_run_that_has_ended_serves_its_store_as_long_as_it_is_wanted(house: House) -> None:
    turns: list[int] = []
    for number in range(3):
        house.happens(partial(turns.append, number))
    assert house.driver.serve_until(lambda: len(turns) == 3) is None
    assert turns == [0, 1, 2]
    assert not house.events, "nothing that happens then is of interest"


def test_a_signal_ends_the_serving_of_a_run_that_has_ended(house: House) -> None:
    house.driver.happened(events.PatienceEnded())
    house.happens(house.loop.signal_handlers[signal.SIGINT])
    assert house.driver.serve_until(lambda: False) == events.SignalCame("SIGINT", 130)
    assert len(house.loop.timeouts) == 1


# With the real controller, feeder and recorder


class Partner:
    """Stands for a context and its only engine, whose tasks all fail at once: answers what is put into the store."""

    def __init__(self, house: House) -> None:
        self.house = house

    def answers(self, message: object) -> list[messages.Message]:
        if isinstance(message, messages.ContextAdmitted):
            return [engine_came(message.engine_ranks[0])]
        if isinstance(message, messages.EngineAdmitted):
            return [messages.EngineReady(0, message.cylinders)]
        if isinstance(message, messages.RunTasks):
            reports = tuple(messages.TaskReport(task.task_id, outcome(7)) for task in message.tasks)
            return [messages.TasksEnded(0, reports)]
        if isinstance(message, messages.FinishEngine):
            return [messages.EngineLeft(0), messages.ContextLeft(0)]
        return []

    def hears(self, *what: object) -> None:
        if what[0] == "start":
            self.house.arrives(context_came("token", 2))
        elif what[0] == "put":
            for answer in self.answers(what[2]):
                self.house.arrives(answer)


def test_a_run_goes_from_its_first_line_to_its_last(
    unopened: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tasks = tmp_path / "tasks"
    tasks.write_bytes(b"a\nb\nc\n#DISBATCH BARRIER key\nd\n#DISBATCH REPEAT 300 e\n")
    house = unopened
    monkeypatch.setattr(house, "did", Partner(house).hears)
    recorder = Recorder(str(tmp_path / "status"), sync=None)
    recorder.take_place()
    house.open(Controller(settings(exit_code=True)), recorder)
    descriptor = os.open(tasks, os.O_RDONLY)
    end = house.driver.run(Feeder(descriptor, None, cast("EventLoop", house.loop), house.driver.happened))
    house.driver.close()
    os.close(descriptor)
    recorder.close()
    assert end == events.EndRun(1, complete=True)
    records = [parse_line(line) for line in (tmp_path / "status").read_bytes().splitlines(keepends=True)]
    assert [record.task_id for record in records[:5]] == [0, 1, 2, 3, 4]
    assert sorted(record.task_id for record in records) == list(range(305))
    assert records[3].flags.startswith(b"B")
