from __future__ import annotations

import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.taskfile import Complaint, Item, TaskParser
from disbatch.tasks import NO_REPEAT, Barrier, PerEngineTask, Phase, Task


def drain(parser: TaskParser, limit: int = 1000) -> list[Item]:
    items: list[Item] = []
    while taken := parser.take(limit):
        assert len(taken) <= limit
        items += taken
    assert parser.hungry or parser.exhausted
    return items


def read(text: bytes) -> list[Item]:
    parser = TaskParser()
    parser.feed(text)
    parser.end()
    items = drain(parser)
    assert parser.exhausted
    return items


def commands(text: bytes) -> list[bytes]:
    items = read(text)
    assert all(isinstance(item, Task) for item in items)
    return [item.command for item in items if isinstance(item, Task)]


def only_complaint(text: bytes) -> Complaint:
    (item,) = read(text)
    assert isinstance(item, Complaint)
    return item


# Lines


def test_each_line_is_a_task() -> None:
    assert read(b"echo a\necho b\n") == [Task(0, 1, NO_REPEAT, b"echo a"), Task(1, 2, NO_REPEAT, b"echo b")]


@pytest.mark.parametrize("text", [b"", b"\n", b"\n\n", b" \t\n", b"\r\n", b"# comment", b"  # comment\n"])
def test_blank_lines_and_comments_are_skipped(text: bytes) -> None:
    assert read(text) == []


@pytest.mark.parametrize("line", [b"#disbatch PREFIX x", b" #DISBATCH PREFIX x", b"\t#DISBATCH nonsense", b"#Disbatch"])
def test_what_only_resembles_a_directive_is_a_comment(line: bytes) -> None:
    assert commands(line + b"\necho") == [b"echo"]


@pytest.mark.parametrize(
    "line", [b"  echo ", b"\techo", b"!x", b'"a b"', b"\xff\x00", b"\x01", b"a#b", b"\x0b;", b" \xa0"]
)
def test_a_task_is_its_line_as_it_is(line: bytes) -> None:
    assert commands(line + b"\n") == commands(line) == [line]


def test_skipped_lines_count_as_lines_but_not_as_tasks() -> None:
    assert read(b"# one\n\n#DISBATCH PREFIX \necho\n#DISBATCH FOO\necho\n") == [
        Task(0, 4, NO_REPEAT, b"echo"),
        Complaint(5, "line 5: '#DISBATCH FOO' is no directive that disbatch knows; line skipped"),
        Task(1, 6, NO_REPEAT, b"echo"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"a\rb\n", [b"a\rb"]),
        (b"a\r\r\n", [b"a\r"]),
        (b"a\r", [b"a\r"]),
        (b"#DISBATCH SUFFIX x\r\na\r\n", [b"ax"]),
    ],
)
def test_a_carriage_return_ends_a_line_only_with_a_newline(text: bytes, expected: list[bytes]) -> None:
    assert commands(text) == expected


# The beginning

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def test_a_byte_order_mark_is_passed_over_at_the_beginning_alone() -> None:
    assert read(BYTE_ORDER_MARK) == []
    assert commands(BYTE_ORDER_MARK + b"#DISBATCH PREFIX a\nx\n" + BYTE_ORDER_MARK) == [b"ax", b"a" + BYTE_ORDER_MARK]
    assert commands(b"\n" + BYTE_ORDER_MARK + b"x") == [BYTE_ORDER_MARK + b"x"]
    assert commands(BYTE_ORDER_MARK * 2) == [BYTE_ORDER_MARK]


def test_a_submission_is_taken_as_it_is() -> None:
    parser = TaskParser(submissions=True)
    parser.feed(BYTE_ORDER_MARK)
    parser.feed(b"\xff\xfe")
    assert drain(parser) == [Task(0, 1, NO_REPEAT, BYTE_ORDER_MARK), Task(1, 2, NO_REPEAT, b"\xff\xfe")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_nothing_is_read_of_a_list_in_utf_16(encoding: str) -> None:
    parser = TaskParser()
    for byte in "\ufeffecho a\necho b\n".encode(encoding):
        parser.feed(bytes([byte]))
    text = "line 1: the task list is in UTF-16, so nothing of it is run; save it as UTF-8"
    assert parser.take(9) == [Complaint(1, text, fatal=True)]
    assert parser.exhausted
    parser.end()
    assert parser.take(9) == []


# Feeding and taking


def test_a_line_is_taken_as_soon_as_its_newline_is_there() -> None:
    parser = TaskParser()
    parser.feed(b"echo")
    assert parser.hungry
    assert parser.take(9) == []
    parser.feed(b" a\necho b")
    assert parser.take(9) == [Task(0, 1, NO_REPEAT, b"echo a")]
    assert parser.hungry
    parser.end()
    assert (parser.hungry, parser.exhausted) == (False, False)
    assert parser.take(9) == [Task(1, 2, NO_REPEAT, b"echo b")]
    assert (parser.hungry, parser.exhausted) == (False, True)


def test_take_gives_no_more_than_it_may() -> None:
    parser = TaskParser()
    parser.feed(b"a\nb\n#DISBATCH REPEAT 5 c\nd\n")
    assert parser.take(0) == []
    assert [len(parser.take(3)) for _ in range(4)] == [3, 3, 2, 0]


def test_waiting_comments_keep_a_parser_from_being_hungry() -> None:
    parser = TaskParser()
    parser.feed(b"a\n# b\n")
    assert len(parser.take(1)) == 1
    assert not parser.hungry
    assert parser.take(1) == []
    assert parser.hungry


def test_nothing_is_fed_after_the_end() -> None:
    parser = TaskParser()
    parser.end()
    with pytest.raises(ValueError, match="after the end"):
        parser.feed(b"echo\n")


def test_a_long_line_in_small_pieces_takes_time_in_proportion() -> None:
    def seconds(pieces: int) -> float:
        parser = TaskParser()
        begin = time.process_time()
        for _ in range(pieces):
            parser.feed(b"0123456789")
        parser.feed(b"\n")
        assert len(parser.take(1)) == 1
        return time.process_time() - begin

    # Ten times the pieces: ten times the time, were it quadratic a hundred times.
    assert seconds(100_000) < 40 * min(seconds(10_000) for _ in range(3))


# PREFIX and SUFFIX


@pytest.mark.parametrize(
    ("directives", "expected"),
    [
        (b"#DISBATCH PREFIX a ", b"a x"),
        (b"#DISBATCH PREFIX  a", b" ax"),
        (b"#DISBATCH prefix a", b"ax"),
        (b"#DISBATCH Suffix  > b ", b"x > b "),
        (b"#DISBATCH PREFIX (\n#DISBATCH SUFFIX )", b"(x)"),
        (b"#DISBATCH PREFIX a\n#DISBATCH PREFIX b", b"bx"),
        (b"#DISBATCH PREFIX a\n#DISBATCH PREFIX", b"x"),
        (b"#DISBATCH PREFIX a\n#DISBATCH PREFIX ", b"x"),
        (b"#DISBATCH SUFFIX a\n#DISBATCH SUFFIX", b"x"),
        (b"#DISBATCH PREFIX \t", b"\tx"),
        (b"#DISBATCH PREFIX \xff\n#DISBATCH SUFFIX #", b"\xffx#"),
    ],
)
def test_prefix_and_suffix_hold_until_replaced(directives: bytes, expected: bytes) -> None:
    assert commands(directives + b"\nx\n") == [expected]


def test_prefix_and_suffix_are_put_around_repeat_and_per_engine_commands() -> None:
    text = (
        b"#DISBATCH PREFIX <\n#DISBATCH SUFFIX >\n#DISBATCH PERENGINE START x\n#DISBATCH REPEAT 1 y\n#DISBATCH REPEAT 1"
    )
    assert [item.command for item in read(text) if isinstance(item, (Task, PerEngineTask))] == [b"<x>", b"<y>", b"<>"]


# REPEAT


@pytest.mark.parametrize(
    ("rest", "indexes", "command"),
    [
        (b"3", [0, 1, 2], b""),
        (b"3 ", [0, 1, 2], b""),
        (b"2 x y ", [0, 1], b"x y "),
        (b"2  \tx", [0, 1], b"x"),
        (b"3 start 5 x", [5, 6, 7], b"x"),
        (b"3 step 5 x", [0, 5, 10], b"x"),
        (b"3 START 100 Step 50", [100, 150, 200], b""),
        (b"3 start 7 step 0 x", [7, 7, 7], b"x"),
        (b"1 starter", [0], b"starter"),
        (b"1 start 5 step2 x", [5], b"step2 x"),
        (b"1 echo start step", [0], b"echo start step"),
        (b"007", list(range(7)), b""),
    ],
)
def test_repeat(rest: bytes, indexes: list[int], command: bytes) -> None:
    expected = [Task(task_id, 1, index, command) for task_id, index in enumerate(indexes)]
    assert read(b"#DISBATCH REPEAT " + rest) == expected
    assert read(b"#DISBATCH repeat " + rest) == expected


@pytest.mark.parametrize(
    "rest",
    [
        b"2 step 5 start 3 x", b"2 start five x", b"2 start 5x", b"2 start 2step", b"2 start", b"2  \tSTEP",
        b"2 step -1 x", b"2 start 1 start 1", b"2 start 1 step 1 step 1",
    ],
)  # fmt: skip
def test_no_command_of_a_repeat_begins_with_start_or_step(rest: bytes) -> None:
    assert "is not of the form '#DISBATCH REPEAT number" in only_complaint(b"#DISBATCH REPEAT " + rest).text


def test_repeat_0_is_no_task() -> None:
    assert read(b"#DISBATCH REPEAT 0 x\n#DISBATCH PERENGINE STOP y\nz") == [
        PerEngineTask(Phase.STOP, 0, 2, b"y"),
        Task(0, 3, NO_REPEAT, b"z"),
    ]


def test_a_huge_repeat_costs_no_memory() -> None:
    parser = TaskParser()
    tracemalloc.start()
    parser.feed(b"#DISBATCH REPEAT 1000000000 x\n")
    for begin in range(0, 1000, 100):
        assert [item.task_id for item in parser.take(100) if isinstance(item, Task)] == list(range(begin, begin + 100))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("start", [0, 10**18 - 1])
def test_repeat_indexes_fit_64_bits(start: int) -> None:
    step = 10**18 - 1
    most = (2**63 - 1 - start) // step + 1
    directive = b"#DISBATCH REPEAT %d start %d step %d"
    assert len(read(directive % (most, start, step))) == most
    assert "64 bits" in only_complaint(directive % (most + 1, start, step)).text


# BARRIER


@pytest.mark.parametrize(
    ("line", "check", "key"),
    [
        (b"#DISBATCH BARRIER", False, None),
        (b"#DISBATCH BARRIER ", False, None),
        (b"#DISBATCH BARRIER CHECK", True, None),
        (b"#DISBATCH BARRIER  CHECK ", True, None),
        (b"#DISBATCH BARRIER some key ", False, b"some key"),
        (b"#DISBATCH BARRIER CHECK  key", True, b"key"),
        (b"#DISBATCH BARRIER CHECKED", False, b"CHECKED"),
        (b"#DISBATCH BARRIER check", False, b"check"),
    ],
)
def test_barrier(line: bytes, check: bool, key: bytes | None) -> None:
    assert read(b"x\n" + line + b"\ny") == [
        Task(0, 1, NO_REPEAT, b"x"),
        Barrier(1, 2, check=check, key=key, text=line),
        Task(2, 3, NO_REPEAT, b"y"),
    ]


# PERENGINE


def test_per_engine_ids_count_for_each_phase() -> None:
    text = (
        b"#DISBATCH PERENGINE START a \n#DISBATCH perengine stop  b\n#DISBATCH PERENGINE Start c\n#DISBATCH BARRIER\n"
    )
    assert read(text + b"#DISBATCH PERENGINE STOP d\nx") == [
        PerEngineTask(Phase.START, 0, 1, b"a "),
        PerEngineTask(Phase.STOP, 0, 2, b"b"),
        PerEngineTask(Phase.START, 1, 3, b"c"),
        Barrier(0, 4, check=False, key=None, text=b"#DISBATCH BARRIER"),
        PerEngineTask(Phase.STOP, 1, 5, b"d"),
        Task(1, 6, NO_REPEAT, b"x"),
    ]


def test_reading_stops_at_a_per_engine_command_that_comes_too_late() -> None:
    parser = TaskParser()
    parser.feed(b"x\n#DISBATCH PERENGINE START y\nz\n")
    text = (
        "line 2: '#DISBATCH PERENGINE START y' comes too late: per-engine commands go before the first task; "
        "nothing from here on is run"
    )
    assert parser.take(9) == [Task(0, 1, NO_REPEAT, b"x"), Complaint(2, text, fatal=True)]
    assert parser.exhausted
    parser.feed(b"ignored\n")
    parser.end()
    assert parser.take(9) == []


# Complaints


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"#DISBATCH", "is no directive that disbatch knows"),
        (b"#DISBATCH ", "is no directive that disbatch knows"),
        (b"#DISBATCHES", "is no directive that disbatch knows"),
        (b"#DISBATCH FOO bar", "is no directive that disbatch knows"),
        (b"#DISBATCH barrier", "is no directive: BARRIER has to be in capitals"),
        (b"#DISBATCH Barrier CHECK key", "is no directive: BARRIER has to be in capitals"),
        (b"#DISBATCH  BARRIER", "is not of the form '#DISBATCH BARRIER [CHECK] [key]'"),
        (b"#DISBATCH BARRIERS", "is no directive that disbatch knows"),
        (b"#DISBATCH  PREFIX x", "is not of the form '#DISBATCH PREFIX [text]'"),
        (b"#DISBATCH\tSUFFIX x", "is not of the form '#DISBATCH SUFFIX [text]'"),
        (b"#DISBATCH PREFIX\tx", "is not of the form '#DISBATCH PREFIX [text]'"),
        (b"#DISBATCH PREFIXED", "is no directive that disbatch knows"),
        (b"#DISBATCH REPEAT", "is not of the form '#DISBATCH REPEAT number [start number] [step number] [command]'"),
        (b"#DISBATCH REPEAT -1", "is not of the form '#DISBATCH REPEAT number [start number] [step number] [command]'"),
        (b"#DISBATCH REPEAT 5x", "is not of the form '#DISBATCH REPEAT number [start number] [step number] [command]'"),
        (b"#DISBATCH REPEAT 1 start 1234567890123456789", "has a number of more than 18 digits"),
        (b"#DISBATCH PERENGINE START", "is not of the form '#DISBATCH PERENGINE START|STOP command'"),
        (b"#DISBATCH PERENGINE STOP  ", "is not of the form '#DISBATCH PERENGINE START|STOP command'"),
        (b"#DISBATCH PERENGINE PAUSE x", "is not of the form '#DISBATCH PERENGINE START|STOP command'"),
    ],
)
def test_unknown_directives_are_complained_about(line: bytes, why: str) -> None:
    complaint = only_complaint(b"\n" + line)
    assert (complaint.stream_index, complaint.fatal) == (2, False)
    assert complaint.text.startswith("line 2: '#DISBATCH")
    assert complaint.text.endswith(f"{why}; line skipped")


def test_a_complaint_shows_the_line_shortened_and_harmless() -> None:
    text = only_complaint(b"#DISBATCH \x1b\xff" + 1000 * b"x").text
    assert r"'#DISBATCH \x1b" + "\ufffd" in text
    assert len(text) < 200
    assert text.isprintable()


# Submissions


def test_all_lines_of_a_submission_have_its_number() -> None:
    parser = TaskParser(submissions=True)
    parser.feed(b"a")
    parser.feed(b"#DISBATCH SUFFIX s\nb\r\n\n#DISBATCH REPEAT 2 c\n#DISBATCH x")
    parser.feed(b"")
    parser.feed(b"d\n")
    assert drain(parser) == [
        Task(0, 1, NO_REPEAT, b"a"),
        Task(1, 2, NO_REPEAT, b"bs"),
        Task(2, 2, 0, b"cs"),
        Task(3, 2, 1, b"cs"),
        Complaint(2, "submission 2: '#DISBATCH x' is no directive that disbatch knows; line skipped"),
        Task(4, 4, NO_REPEAT, b"ds"),
    ]
    assert parser.hungry
    parser.end()
    assert parser.exhausted


# Properties

fragments = st.sampled_from(
    [
        b"#DISBATCH ", b"PREFIX ", b"suffix", b"REPEAT", b" 2", b" start 3", b" step ", b"BARRIER", b" CHECK",
        b"PERENGINE ", b"START", b"stop ", b"#", b" ", b"\t", b"\r", b"\n", b"\n", b"\n", b"\r\n", b"x", b"\xff", b"9",
    ]
)  # fmt: skip
texts = st.lists(fragments, max_size=40).map(b"".join)


@given(text=texts, cuts=st.lists(st.integers(0, 200), max_size=10), limit=st.integers(1, 5))
def test_pieces_and_limits_do_not_matter(text: bytes, cuts: list[int], limit: int) -> None:
    parser = TaskParser()
    items: list[Item] = []
    edges = [0, *sorted(cuts), len(text)]
    for begin, end in pairwise(edges):
        parser.feed(text[begin:end])
        items += drain(parser, limit)
    parser.end()
    items += drain(parser, limit)
    assert parser.exhausted
    assert items == read(text)


@given(text=texts)
def test_ids_are_consecutive_and_lines_in_order(text: bytes) -> None:
    items = read(text)
    ids = [item.task_id for item in items if isinstance(item, (Task, Barrier))]
    assert ids == list(range(len(ids)))
    for phase in Phase:
        ids = [item.task_id for item in items if isinstance(item, PerEngineTask) and item.phase is phase]
        assert ids == list(range(len(ids)))
    lines = [item.stream_index for item in items]
    assert lines == sorted(lines)
    assert all(1 <= line <= text.count(b"\n") + 1 for line in lines)
    assert not any(isinstance(item, Complaint) and item.fatal for item in items[:-1])


words = st.binary(max_size=5).map(lambda word: word.translate(None, b"\r\n"))
settings_and_lines = st.lists(
    st.tuples(st.sampled_from([b"PREFIX", b"suffix"]), st.one_of(st.none(), words))
    | st.tuples(st.just(b"line"), words.map(lambda word: b"x" + word)),
    max_size=12,
)


@given(steps=settings_and_lines)
def test_prefix_and_suffix_follow_a_model(steps: list[tuple[bytes, bytes | None]]) -> None:
    in_force = {b"PREFIX": b"", b"SUFFIX": b""}
    text = b""
    expected = []
    for word, value in steps:
        if word == b"line" and value is not None:
            text += value + b"\n"
            expected.append(in_force[b"PREFIX"] + value + in_force[b"SUFFIX"])
        else:
            text += b"#DISBATCH " + word + (b"" if value is None else b" " + value) + b"\n"
            in_force[word.upper()] = value or b""
    assert commands(text) == expected
