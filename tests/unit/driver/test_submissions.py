from __future__ import annotations

import json
from collections import deque
from itertools import permutations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.driver.events import Event, Item, ItemsRead, ReadingFailed, SkippedTask
from disbatch.driver.feeder import EarlierRuns
from disbatch.driver.submissions import SIGN_IN, Submissions
from disbatch.statusfile import HEADER, barrier_line, per_engine_line, task_line
from disbatch.taskfile import Complaint
from disbatch.tasks import NO_REPEAT, Barrier, PerEngineTask, Phase, Task
from tests.unit.driver.examples import line, outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

NAME, DONE, RESULTS, TASKS = b"my source", b"that is all", b"my results", b"my tasks"
MANY = 5000


class Table:
    """A store that lies in memory, and what the run puts there."""

    def __init__(self) -> None:
        self.values: dict[bytes, deque[bytes]] = {}
        self.posted: list[tuple[bytes, bytes, bytes]] = []
        self.waiting: tuple[bytes, Callable[[bytes], None]] | None = None
        self._busy = False

    def submit(self, *values: bytes, key: bytes = TASKS) -> None:
        self.values.setdefault(key, deque()).extend(values)
        self._hand_over()

    def replace(self, key: bytes, _tag: bytes, _value: bytes) -> None:
        raise AssertionError(f"{key!r} is not for it to replace")

    def put(self, key: bytes, tag: bytes, value: bytes) -> None:
        self.posted.append((key, tag, value))
        self.submit(value, key=key)

    def get(self, key: bytes, handler: Callable[[bytes], None]) -> None:
        assert self.waiting is None, "one request at a time"
        self.waiting = (key, handler)
        self._hand_over()

    @property
    def unsettled(self) -> bool:
        return False

    def close(self) -> None:
        self.waiting = None

    @property
    def asked(self) -> bytes | None:
        """Key of the request that is open."""
        return self.waiting and self.waiting[0]

    def left(self, key: bytes = TASKS) -> list[bytes]:
        return list(self.values.get(key, ()))

    def _hand_over(self) -> None:
        if self._busy:
            return
        self._busy = True
        while self.waiting is not None and self.values.get(self.waiting[0]):
            key, handler = self.waiting
            self.waiting = None
            handler(self.values[key].popleft())
        self._busy = False


class Bench:
    """Submissions, a store that programs share with them, and what they tell."""

    def __init__(self, earlier: EarlierRuns | None = None, *, signed_in: bool = True) -> None:
        self.table = Table()
        self.told: list[Event] = []
        self.noted: list[str] = []
        self.submissions = Submissions(self.table, earlier, self.told.append, self.note)
        if signed_in:
            self.sign_in()

    def note(self, text: str, *values: str) -> None:
        self.noted.append(text % values)

    def sign_in(self, order: Iterable[int] = range(4)) -> None:
        for number in order:
            self.table.submit((NAME, DONE, RESULTS, TASKS)[number], key=SIGN_IN[number])

    def submit(self, *values: bytes) -> None:
        self.table.submit(*values)

    def answer(self) -> Event:
        """The one thing that was told since the last time."""
        assert len(self.told) == 1, f"a request is answered once, not with {self.told}"
        return self.told.pop()

    def read(self, limit: int = 100) -> ItemsRead:
        """Ask for what is there."""
        self.submissions.read(limit)
        return self.items()

    def items(self) -> ItemsRead:
        answer = self.answer()
        assert isinstance(answer, ItemsRead)
        return answer

    def read_everything(self, limit: int = 100) -> list[Item]:
        items: list[Item] = []
        for _ in range(1000):
            event = self.read(limit)
            assert len(event.items) <= limit
            items += event.items
            if event.ended:
                return items
        raise AssertionError("the list does not end")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def task(task_id: int, command: bytes = b"true", stream_index: int = 0) -> Task:
    return Task(task_id, stream_index or task_id + 1, NO_REPEAT, command)


# Signing in


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_program_signs_in_with_four_values_in_any_order(order: tuple[int, ...]) -> None:
    bench = Bench(signed_in=False)
    bench.submissions.read(10)
    bench.submit(b"echo early")
    bench.sign_in(order[:3])
    assert not bench.told
    assert not bench.noted
    bench.sign_in(order[3:])
    assert bench.noted == [f"tasks come from {NAME.decode()!r}"]
    assert bench.items() == ItemsRead((task(0, b"echo early"),), ended=False)
    assert not any(bench.table.left(key) for key in SIGN_IN)


def test_a_program_that_has_signed_in_before_the_run_is_heard() -> None:
    bench = Bench(signed_in=False)
    bench.sign_in()
    assert bench.table.left() == []
    bench.submit(b"true", DONE)
    assert bench.read_everything() == [task(0)]


def test_a_second_program_that_signs_in_is_left_waiting(bench: Bench) -> None:
    bench.table.submit(b"another", key=SIGN_IN[0])
    bench.submit(b"true", DONE)
    assert bench.read_everything() == [task(0)]
    assert bench.table.left(SIGN_IN[0]) == [b"another"]


# Submitting


def test_a_submission_is_told_of_as_soon_as_it_is_there(bench: Bench) -> None:
    for number in range(3):
        bench.submissions.read(10)
        assert not bench.told, "told before there was anything"
        bench.submit(b"echo %d" % number)
        assert bench.items() == ItemsRead((task(number, b"echo %d" % number),), ended=False)


def test_the_lines_of_a_submission_share_its_number(bench: Bench) -> None:
    bench.submit(b"first\n\n# comment\nsecond\n", b"third", DONE)
    assert bench.read_everything() == [task(0, b"first", 1), task(1, b"second", 1), task(2, b"third", 2)]


def test_directives_mean_what_they_do_in_a_file(bench: Bench) -> None:
    bench.submit(
        b"#DISBATCH PERENGINE START prepare",
        b"#DISBATCH PREFIX echo ",
        b"a",
        b"#DISBATCH REPEAT 2 start 5 b\n#DISBATCH BARRIER CHECK met",
        b"#DISBATCH NONSENSE",
        DONE,
    )
    start, first, *repeated, barrier, complaint = bench.read_everything()
    assert start == PerEngineTask(Phase.START, 0, 1, b"prepare")
    assert first == task(0, b"echo a", 3)
    assert repeated == [Task(1, 4, 5, b"echo b"), Task(2, 4, 6, b"echo b")]
    assert barrier == Barrier(3, 4, check=True, key=b"met", text=b"#DISBATCH BARRIER CHECK met")
    assert isinstance(complaint, Complaint)
    assert complaint.text.startswith("submission 5: ")


def test_what_is_no_task_is_no_answer(bench: Bench) -> None:
    bench.submissions.read(10)
    for value in (b"", b"\n", b"# comment", b"#DISBATCH SUFFIX  x"):
        bench.submit(value)
        assert not bench.told
    bench.submit(b"echo")
    assert bench.items().items == (task(0, b"echo x", 5),)


def test_any_number_of_submissions_without_a_task_do_no_harm(bench: Bench) -> None:
    bench.submit(*[b"# comment"] * MANY, b"true")
    assert bench.read() == ItemsRead((task(0, b"true", MANY + 1),), ended=False)


def test_the_store_is_asked_only_for_what_was_asked_for(bench: Bench) -> None:
    assert bench.table.asked is None
    bench.submit(b"1\n2\n3", b"4", b"5")
    assert bench.table.left() == [b"1\n2\n3", b"4", b"5"], "it was asked before anybody wanted to read"
    assert [bench.read(2).items, bench.read(2).items] == [
        (task(0, b"1", 1), task(1, b"2", 1)),
        (task(2, b"3", 1),),
    ]
    assert bench.table.left() == [b"4", b"5"], "it was asked although lines were left"
    assert bench.read(2).items == (task(3, b"4", 2),)
    assert bench.table.asked is None
    assert bench.table.left() == [b"5"]


def test_a_request_that_goes_on_is_put_to_the_store_once(bench: Bench) -> None:
    bench.submissions.read(3)
    bench.submissions.read(5)  # more is wanted meanwhile; `Table.get` would see a second request
    bench.submit(b"1\n2\n3\n4\n5\n6")
    assert len(bench.items().items) == 5


def test_a_repeat_of_a_thousand_million_is_given_out_as_it_is_asked_for(bench: Bench) -> None:
    bench.submit(b"#DISBATCH REPEAT 1000000000 true", DONE)
    for beginning in (0, 50):
        items = bench.read(50).items
        assert [item.repeat_index for item in items if isinstance(item, Task)] == [*range(beginning, beginning + 50)]
    assert bench.table.left() == [DONE]


@pytest.mark.parametrize("command", [b"echo \xff\xfe", b"echo \0", b"\xef\xbb\xbfecho", b"#\0", b"\r", b" \xa0"])
def test_bytes_that_are_no_text_do_no_harm(bench: Bench, command: bytes) -> None:
    bench.submit(command, b"true", DONE)
    *before, last = bench.read_everything()
    assert isinstance(last, Task)
    assert last.command == b"true"
    assert all(isinstance(item, Task) and item.command == command for item in before)


values = st.binary(max_size=12) | st.sampled_from(
    [b"true", b"a\nb\r\nc\n", b"", b"# x", b"#DISBATCH REPEAT 3 x", b"#DISBATCH BARRIER", b"#DISBATCH ", b"\xff\0"]
)


@given(st.lists(values.filter(lambda value: value != DONE), max_size=8), st.integers(1, 4), st.integers(0, 8))
def test_whatever_is_submitted_and_when_every_item_comes_once(values: list[bytes], limit: int, before: int) -> None:
    whole = Bench()
    whole.submit(*values, DONE)
    bench = Bench()
    bench.submit(*values[:before])
    items: list[Item] = []
    rest = [*values[before:], DONE]
    ended = False
    while not ended:
        bench.submissions.read(limit)
        while not bench.told:
            bench.submit(rest.pop(0))
        event = bench.items()
        assert len(event.items) <= limit
        items += event.items
        ended = event.ended
    assert items == whole.read_everything()


# The end


def test_the_sentinel_ends_the_list_and_what_comes_behind_it_is_left(bench: Bench) -> None:
    bench.submit(b"true", DONE, b"false")
    assert bench.read_everything() == [task(0)]
    assert bench.table.left() == [b"false"]
    assert bench.table.asked is None


def test_the_sentinel_is_an_answer_to_who_waits(bench: Bench) -> None:
    bench.submissions.read(10)
    bench.submit(DONE)
    assert bench.items() == ItemsRead((), ended=True)


def test_a_line_that_only_holds_the_sentinel_is_a_task(bench: Bench) -> None:
    bench.submit(DONE + b"\n", DONE)
    assert bench.read_everything() == [task(0, DONE)]


def test_a_source_that_ends_before_it_has_signed_in_has_no_tasks() -> None:
    bench = Bench(signed_in=False)
    bench.sign_in(range(3))
    bench.submissions.read(10)
    bench.submissions.end()
    assert bench.items() == ItemsRead((), ended=True)
    bench.sign_in([3])
    bench.submit(b"true")
    assert not bench.told


def test_a_source_that_ends_before_anybody_reads_has_no_tasks() -> None:
    bench = Bench(signed_in=False)
    bench.submissions.end()
    assert not bench.told
    assert bench.read() == ItemsRead((), ended=True)


@pytest.mark.parametrize("reads_before", [True, False])
def test_a_source_that_ends_without_the_sentinel_has_all_its_tasks_run(bench: Bench, *, reads_before: bool) -> None:
    bench.submit(b"first")
    items = [*bench.read().items] if reads_before else []
    bench.submit(b"second", b"third")
    bench.submissions.end()
    bench.submissions.end()  # once more is of no consequence
    assert items + bench.read_everything(1) == [task(0, b"first"), task(1, b"second"), task(2, b"third")]


def test_the_end_of_the_source_is_an_answer_to_who_waits(bench: Bench) -> None:
    bench.submissions.read(10)
    bench.submissions.end()
    assert bench.items() == ItemsRead((), ended=True)


@pytest.mark.parametrize("reason", ["", "the command ended with 1"])
def test_an_end_after_the_end_changes_nothing(bench: Bench, reason: str) -> None:
    bench.submit(b"true", DONE)
    bench.read_everything()
    bench.submissions.end(reason)
    assert not bench.told
    assert not bench.table.posted


@pytest.mark.parametrize("reason", ["", "the command ended with 1"])
def test_a_directive_that_ends_the_list_is_an_end(bench: Bench, reason: str) -> None:
    bench.submit(b"true\n#DISBATCH PERENGINE START too late\nfalse", b"false")
    event = bench.read()
    assert event.ended
    first, second = event.items
    assert first == task(0)
    assert isinstance(second, Complaint)
    assert second.fatal
    bench.submissions.end(reason)
    assert not bench.told
    assert bench.table.left() == [b"false"]


@pytest.mark.parametrize("signed_in", [True, False])
@pytest.mark.parametrize("waited_for", [True, False])
def test_a_source_that_fails_fails_the_list(*, signed_in: bool, waited_for: bool) -> None:
    bench = Bench(signed_in=signed_in)
    if waited_for:
        bench.submissions.read(10)
    bench.submissions.end("the command ended with 1")
    assert bench.answer() == ReadingFailed("the command ended with 1")
    bench.sign_in()
    bench.submit(b"true", DONE)
    bench.submissions.end("again")
    assert not bench.told


# Results


def test_a_result_is_posted_for_each_task_that_has_ended(bench: Bench) -> None:
    bench.submissions.recorded([line(7, return_code=3), line(2)])
    (key, tag, value), done, *others = bench.table.posted
    assert (key, tag) == (b"my results 7", b"JSON")
    assert done == (b"my results done tasks", b"ASTR", b"7")
    report = json.loads(value)
    assert (report["TaskId"], report["ReturnCode"], report["TaskCmd"]) == (7, 3, "true")
    assert [other[:2] for other in others] == [(b"my results 2", b"JSON"), (b"my results done tasks", b"ASTR")]
    assert others[1][2] == b"2"


def test_nothing_is_posted_for_what_is_no_task_that_has_ended(bench: Bench) -> None:
    barriers = [Barrier(number, 1, check=bool(number), key=None, text=b"#DISBATCH BARRIER") for number in range(2)]
    bench.submissions.recorded([barrier_line(barrier, "node", 1, 1.0, 2.0) for barrier in barriers])
    bench.submissions.recorded([per_engine_line(PerEngineTask(Phase.START, 0, 1, b"true"), "node", outcome(1))])
    bench.submissions.recorded([task_line(task(0), "node", outcome(1), abandoned=True)])
    bench.submissions.recorded([])
    assert not bench.table.posted


@pytest.mark.parametrize("command", [b"echo \xff", b"echo \0", b"a\tb", "ö\u2028".encode(), b'"\\'])
def test_the_result_of_any_command_can_be_read(bench: Bench, command: bytes) -> None:
    bench.submissions.recorded([line(0, command=command)])
    report = json.loads(bench.table.posted[0][2])
    try:
        assert report["TaskCmd"] == command.decode()
    except UnicodeDecodeError:
        assert report["TaskCmd"] == repr(command)


def test_results_go_on_after_the_end_of_the_list(bench: Bench) -> None:
    bench.submit(b"true", DONE)
    bench.read_everything()
    bench.submissions.recorded([line(0)])
    assert [key for key, _, _ in bench.table.posted] == [b"my results 0", b"my results done tasks"]


# Resuming


def earlier_runs(path: Path, *recorded: bytes, retry: bool = False, by_id_alone: bool = False) -> EarlierRuns:
    path.write_bytes(b"".join(recorded))
    return EarlierRuns([str(path)], retry=retry, by_id_alone=by_id_alone)


def test_tasks_that_are_skipped_have_their_results_posted(tmp_path: Path) -> None:
    bench = Bench(earlier_runs(tmp_path / "status", HEADER, line(2, return_code=3), line(0)))
    bench.submit(b"true", b"true", b"true", DONE)
    assert bench.read_everything() == [
        SkippedTask(task(0), line(0), failed=False),
        task(1),
        SkippedTask(task(2), line(2, return_code=3), failed=True),
    ]
    reports = [json.loads(value) for _, tag, value in bench.table.posted if tag == b"JSON"]
    assert [(report["TaskId"], report["Flags"], report["ReturnCode"]) for report in reports] == [
        (0, "   S", 0),
        (2, "R  S", 3),
    ]
    assert [value for key, _, value in bench.table.posted if key == b"my results done tasks"] == [b"0", b"2"]


def test_tasks_that_run_again_have_no_result_posted_before(tmp_path: Path) -> None:
    bench = Bench(earlier_runs(tmp_path / "status", line(0, return_code=1), retry=True))
    bench.submit(b"true", DONE)
    assert bench.read_everything() == [task(0)]
    assert not bench.table.posted


def test_the_line_of_an_earlier_version_does_no_harm(tmp_path: Path) -> None:
    old = b"\t0\t1\t-1\tnode\tunknown\t0\tlong\tnan\t\t0\tnot quoted\t0\t{1\ttrue\n"
    bench = Bench(earlier_runs(tmp_path / "status", old))
    bench.submit(b"true", DONE)
    assert bench.read_everything() == [SkippedTask(task(0), old, failed=False)]
    assert json.loads(bench.table.posted[0][2])["PID"] == "unknown"


def test_a_task_that_is_not_the_recorded_one_fails_the_list(tmp_path: Path) -> None:
    bench = Bench(earlier_runs(tmp_path / "status", line(0, command=b"another")))
    bench.submissions.read(10)
    bench.submit(b"true")
    event = bench.answer()
    assert isinstance(event, ReadingFailed)
    assert event.is_another
    bench.submissions.end()
    bench.submit(DONE)
    assert not bench.told


def test_a_forced_resume_warns(tmp_path: Path) -> None:
    old = line(0, command=b"another")
    bench = Bench(earlier_runs(tmp_path / "status", old, by_id_alone=True))
    bench.submit(b"true", DONE)
    warning, skipped = bench.read_everything()
    assert isinstance(warning, Complaint)
    assert skipped == SkippedTask(task(0), old, failed=False)
