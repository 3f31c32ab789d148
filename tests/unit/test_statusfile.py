from __future__ import annotations

import contextlib
import io
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.errors import StatusFileError
from disbatch.statusfile import (
    HEADER,
    Decision,
    Record,
    Resume,
    barrier_line,
    judge,
    parse_line,
    per_engine_line,
    place_in_file,
    read_into,
    report,
    skipped_line,
    task_line,
)
from disbatch.tasks import NO_REPEAT, Barrier, Outcome, PerEngineTask, Phase, Task

OLD_LINE = (
    b"\t314\t315\t-1\tworker032\t8016\t0\t10.0486528873\t1458660919.78\t1458660929.83"
    b'\t0\t""\t0\t""\tcd /work ; my -a 3\n'
)


def outcome(return_code: int = 0, out: bytes = b"", err: bytes = b"") -> Outcome:
    return Outcome(
        pid=4711,
        return_code=return_code,
        start=1700000000.25,
        elapsed=1.5,
        out_bytes=len(out),
        out_snippet=out,
        err_bytes=len(err),
        err_snippet=err,
        cpu_seconds=0.1,
        peak_memory=1024,
        interrupted=False,
    )


def task(task_id: int = 7, command: bytes = b"echo a") -> Task:
    return Task(task_id, task_id + 1, NO_REPEAT, command)


def line(task_id: int = 7, return_code: int = 0, command: bytes = b"echo a", node: str = "node1") -> bytes:
    return task_line(task(task_id, command), node, outcome(return_code))


def fields_of(text: bytes) -> list[bytes]:
    text.decode()
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    fields = text[:-1].split(b"\t", 14)
    assert len(fields) == 15
    return fields


def read(*files: bytes) -> Resume:
    resume = Resume()
    for number, content in enumerate(files):
        assert read_into(resume, f"file{number}", io.BytesIO(content), number) == []
    return resume


# Writing


def test_the_header_names_the_columns() -> None:
    assert fields_of(HEADER)[0] == b"ROE[ PSZ]"
    assert all(fields_of(HEADER))


def test_a_line_in_full() -> None:
    written = task_line(Task(3, 12, 40, b"echo a"), "node1", outcome(-9, b"hello\n", b"it's"))
    assert written == (
        b"ROE \t3\t12\t40\tnode1\t4711\t-9\t1.500\t1700000000.250\t1700000001.750\t6\t'hello\\n'\t4\t\"it's\"\techo a\n"
    )


@pytest.mark.parametrize(
    ("ended", "abandoned", "flags"),
    [
        (outcome(), False, b"    "),
        (outcome(), True, b"   Z"),
        (outcome(1), False, b"R   "),
        (outcome(out=b"x"), False, b" O  "),
        (outcome(err=b"x"), False, b"  E "),
        (outcome(-15, b"x", b"x"), True, b"ROEZ"),
    ],
)
def test_flags(ended: Outcome, abandoned: bool, flags: bytes) -> None:
    assert fields_of(task_line(task(), "n", ended, abandoned=abandoned))[0] == flags


def test_output_without_a_snippet_is_flagged() -> None:
    ended = Outcome(1, 0, 0.0, 0.0, 99, b"", 0, b"", 0.0, 0, interrupted=False)
    assert fields_of(task_line(task(), "n", ended))[0] == b" O  "


def test_per_engine_line() -> None:
    written = per_engine_line(PerEngineTask(Phase.STOP, 1, 4, b"rm x"), "n", outcome(2))
    assert written == b"R  P\t1\t4\t-1\tn\t4711\t2\t1.500\t1700000000.250\t1700000001.750\t0\t''\t0\t''\trm x\n"


@pytest.mark.parametrize(("check", "flags"), [(False, b"B    "), (True, b"C    ")])
def test_barrier_line(check: bool, flags: bytes) -> None:
    barrier = Barrier(5, 9, check=check, key=b"k", text=b"#DISBATCH BARRIER k")
    written = barrier_line(barrier, "n", 17, start=10.0, end=12.25)
    assert written == flags + b"\t5\t9\t-1\tn\t17\t0\t2.250\t10.000\t12.250\t0\t''\t0\t''\t#DISBATCH BARRIER k\n"


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (b"a\tb\r", b"a\tb\r"),
        (b"\x00", b"\x00"),
        ("schön".encode(), "schön".encode()),
        (b"sch\xf6n", rb"b'sch\xf6n'"),
        (b"\xf6\t\r", rb"b'\xf6\t\r'"),
    ],
)
def test_a_command_is_written_as_it_is_if_it_is_text(command: bytes, field: bytes) -> None:
    assert fields_of(line(command=command))[14] == field


@pytest.mark.parametrize(("node", "field"), [("a b", b"a b"), ("a\tb\n", rb"'a\tb\n'"), ("\udc80", rb"'\udc80'")])
def test_no_node_name_breaks_a_line(node: str, field: bytes) -> None:
    assert fields_of(line(node=node))[4] == field


@pytest.mark.parametrize(
    ("old_flags", "flags"),
    [(b"    ", b"   S"), (b"R E ", b"R ES"), (b"   S", b"   S"), (b"", b"   S"), (b"OE", b" OES"), (b"R", b"R  S")],
)
def test_a_skipped_line_keeps_all_but_the_flag(old_flags: bytes, flags: bytes) -> None:
    rest = OLD_LINE[OLD_LINE.index(b"\t") :]
    assert skipped_line(old_flags + rest) == skipped_line(old_flags + rest[:-1]) == flags + rest


# Reading


def test_a_line_of_the_first_versions_is_read() -> None:
    assert parse_line(OLD_LINE) == Record(b"", 314, 315, NO_REPEAT, 0, b"cd /work ; my -a 3")
    assert read(OLD_LINE).place_of(314) == 0


@pytest.mark.parametrize("flags", [b"", b"E", b"S", b"RO", b"OES", b"ROE", b"  E ", b"   S", b"ROE  ", b"ROE S"])
def test_flags_of_every_earlier_version_are_read(flags: bytes) -> None:
    assert read(flags + OLD_LINE).place_of(314) == 0
    recorded = Task(314, 315, NO_REPEAT, b"cd /work ; my -a 3")
    assert judge(recorded, flags + OLD_LINE, retry=False, by_id_alone=False) == Decision(skip=True)


def test_a_command_may_hold_tabs_and_carriage_returns() -> None:
    assert parse_line(line(command=b"a\tb\t\r")).command == b"a\tb\t\r"
    assert parse_line(line(command=b"")).command == b""


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        (0, b"X", "flags 'X'"),
        (0, b"      ", "flags '      '"),
        (1, b"-1", "TaskID '-1'"),
        (1, b"1_0", "TaskID '1_0'"),
        (1, 20 * b"1", "TaskID '11111111111111111111'"),
        (2, b"", "LineNumber ''"),
        (3, b"x", "RepeatIndex 'x'"),
        (6, b"None", "ReturnCode 'None'"),
        (9, b"1\n2", "a newline inside of"),
    ],
)
def test_a_malformed_field_is_named(field: int, value: bytes, text: str) -> None:
    fields = line().split(b"\t")
    fields[field] = value
    with pytest.raises(StatusFileError) as raised:
        parse_line(b"\t".join(fields))
    assert raised.value.message.startswith(text)


@pytest.mark.parametrize("text", [b"", b"\n", b"echo", b"\t" * 13])
def test_too_few_fields_are_counted(text: bytes) -> None:
    with pytest.raises(StatusFileError, match=f"^{text.count(9) + 1} instead of 15 fields"):
        parse_line(text)


# What earlier runs completed


def test_a_resume_knows_the_place_of_each_completed_task() -> None:
    first = HEADER + line(0) + line(5)
    resume = read(first, line(1))
    assert resume.completed == 3
    assert [resume.place_of(task_id) for task_id in (2, 300, 10**18)] == [None, None, None]
    for task_id, expected in [(0, (0, len(HEADER))), (5, (0, len(HEADER + line(0)))), (1, (1, 0))]:
        place = resume.place_of(task_id)
        assert place is not None
        assert place_in_file(place) == expected


@pytest.mark.parametrize(
    "passed_over",
    [
        per_engine_line(PerEngineTask(Phase.START, 7, 8, b"x"), "n", outcome()),
        barrier_line(Barrier(7, 8, check=False, key=None, text=b"x"), "n", 1, 0.0, 0.0),
        barrier_line(Barrier(7, 8, check=True, key=None, text=b"x"), "n", 1, 0.0, 0.0),
        task_line(task(7), "n", outcome(), abandoned=True),
    ],
)
def test_only_tasks_count_as_completed(passed_over: bytes) -> None:
    resume = read(passed_over)
    assert resume.completed == 0
    assert resume.place_of(7) is None


def test_skipped_tasks_count_as_completed() -> None:
    assert read(skipped_line(line(7))).place_of(7) == 0


def test_among_equals_the_later_line_counts() -> None:
    failed, succeeded = line(7, 1), line(7)
    for files, expected in [
        ((failed + failed,), (0, len(failed))),
        ((succeeded + failed,), (0, 0)),
        ((succeeded, failed), (0, 0)),
        ((failed, succeeded), (1, 0)),
        ((succeeded, succeeded), (1, 0)),
    ]:
        resume = read(*files)
        place = resume.place_of(7)
        assert place is not None
        assert place_in_file(place) == expected
        assert resume.completed == 1


def test_a_resume_costs_few_bytes_a_task() -> None:
    tracemalloc.start()
    resume = Resume()
    for task_id in range(20_000):
        resume.note(b"\t%d\t1\t-1\tn\t1\t0\t1\t1\t1\t0\t\t0\t\tx\n" % task_id, task_id)
    size, _ = tracemalloc.get_traced_memory()
    resume.note(b"\t%d\t1\t-1\tn\t1\t0\t1\t1\t1\t0\t\t0\t\tx\n" % (2**63 - 1), 1)
    size_with_huge_id, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 10 * 20_000
    assert size_with_huge_id - size < 4096


# Files


@pytest.mark.parametrize("content", [HEADER, line() + HEADER + line(8), b"ROE[ PS]\tsome older header\n" + line()])
def test_files_with_or_without_headers_are_read(content: bytes) -> None:
    assert read(content).completed == content.count(b"echo")


def test_an_empty_file_is_warned_of() -> None:
    resume = Resume()
    warning = "old_status.txt is empty: nothing is skipped because of it"
    assert read_into(resume, "old_status.txt", io.BytesIO(), 0) == [warning]
    assert resume.completed == 0


@pytest.mark.parametrize("before", [b"", line(7), HEADER])
@pytest.mark.parametrize("torn", [line(8)[:-1], line(8)[:20], line(8)[:3], HEADER[:4]])
def test_a_torn_last_line_is_ignored_with_a_warning(before: bytes, torn: bytes) -> None:
    resume = Resume()
    (warning,) = read_into(resume, "old_status.txt", io.BytesIO(before + torn), 0)
    assert warning.startswith(f"old_status.txt: line {1 + before.count(10)} is cut off and ignored: ")
    assert resume.place_of(8) is None
    assert resume.completed == (before == line(7))


@pytest.mark.parametrize("content", [b"echo\n", b"echo", b"echo\n" * 9 + b"echo", b"\n", b"\x00\x00", b"a\tb\tc\n"])
def test_another_file_is_no_status_file(content: bytes) -> None:
    with pytest.raises(StatusFileError, match=r"^tasks is no status file of disbatch"):
        read_into(Resume(), "tasks", io.BytesIO(content), 0)


@pytest.mark.parametrize(
    ("content", "number"),
    [(line() + b"x\n" + line(), 2), (b"x\n" + line(), 1), (HEADER + line() + b"x\ny", 3), (b"\n" + HEADER, 1)],
)
def test_a_malformed_line_is_named(content: bytes, number: int) -> None:
    with pytest.raises(StatusFileError) as raised:
        read_into(Resume(), "old_status.txt", io.BytesIO(content), 0)
    assert raised.value.message.startswith(
        f"old_status.txt: line {number} is no line of a status file: 1 instead of 15"
    )
    assert raised.value.hint == "remove the line to have its task run again"


# Deciding


@pytest.mark.parametrize(
    ("return_code", "retry", "skip"),
    [(0, False, True), (0, True, True), (1, False, True), (1, True, False), (-9, True, False)],
)
def test_completed_tasks_are_skipped_and_failed_ones_retried(return_code: int, retry: bool, skip: bool) -> None:
    assert judge(task(), line(return_code=return_code), retry=retry, by_id_alone=False) == Decision(
        skip, failed=return_code != 0
    )


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        (Task(7, 8, NO_REPEAT, b"echo b"), "command 'echo b', recorded as 'echo a'"),
        (Task(7, 9, NO_REPEAT, b"echo a"), "line 9, recorded as line 8; command 'echo a', recorded as 'echo a'"),
        (Task(7, 8, 3, b"echo a"), "repeat index 3, recorded as -1; command 'echo a', recorded as 'echo a'"),
        (
            Task(7, 9, 3, b"x"),
            "line 9, recorded as line 8; repeat index 3, recorded as -1; command 'x', recorded as 'echo a'",
        ),
    ],
)
def test_another_task_of_the_same_id_is_an_error_or_a_warning(changed: Task, difference: str) -> None:
    message = f"task 7 is not the one in the status file: {difference}"
    with pytest.raises(StatusFileError) as raised:
        judge(changed, line(), retry=False, by_id_alone=False)
    assert raised.value.message == message
    assert "--force-resume" in raised.value.hint
    assert judge(changed, line(), retry=True, by_id_alone=True) == Decision(skip=True, warning=message)
    assert judge(changed, line(return_code=1), retry=True, by_id_alone=True) == Decision(
        skip=False, failed=True, warning=message
    )


def test_the_difference_of_long_commands_shows() -> None:
    long = b"x" * 5000
    with pytest.raises(StatusFileError) as raised:
        judge(task(command=long + b"new"), line(command=long + b"old"), retry=False, by_id_alone=False)
    assert raised.value.message.endswith("xxxnew', recorded as ...'" + 30 * "x" + "old'")
    assert len(raised.value.message) < 300


def test_equal_long_commands_are_shown_from_their_beginning() -> None:
    long = b"echo " + b"x" * 5000
    with pytest.raises(StatusFileError) as raised:
        judge(Task(7, 9, NO_REPEAT, long), line(command=long), retry=False, by_id_alone=False)
    assert raised.value.message.count("'echo xxx") == 2
    assert len(raised.value.message) < 400


@pytest.mark.parametrize("by_id_alone", [False, True])
def test_a_line_of_another_id_is_always_an_error(by_id_alone: bool) -> None:
    with pytest.raises(StatusFileError, match="task 7 is now about task 8"):
        judge(task(7), line(8), retry=False, by_id_alone=by_id_alone)


# Properties

commands = st.binary(max_size=20).map(lambda command: command.replace(b"\n", b""))
# Bytes at random are hardly ever valid UTF-8 beyond ASCII.
commands |= st.text("ab é\t\r\x85\u2028🐟", max_size=10).map(str.encode)
numbers = st.integers(0, 2**63 - 2)
tasks = st.builds(Task, numbers, numbers, st.just(NO_REPEAT) | numbers, commands)
outcomes = st.builds(
    Outcome,
    pid=st.integers(-1, 2**22),
    return_code=st.sampled_from([0, 0, 1, 255, -9]),
    start=st.floats(0, 1e10),
    elapsed=st.floats(0, 1e7),
    out_bytes=st.integers(0, 2**60),
    out_snippet=st.binary(max_size=83),
    err_bytes=st.integers(0, 2**60),
    err_snippet=st.binary(max_size=83),
    cpu_seconds=st.floats(0, 1e7),
    peak_memory=numbers,
    interrupted=st.booleans(),
)


@given(done=tasks, node=st.text("ab é\t\n\r\x85\u2028\udc80🐟", max_size=8), ended=outcomes)
def test_a_written_task_is_read_back_as_the_same(done: Task, node: str, ended: Outcome) -> None:
    written = task_line(done, node, ended)
    assert fields_of(written)[1] == b"%d" % done.task_id
    record = parse_line(written)
    assert (record.task_id, record.stream_index) == (done.task_id, done.stream_index)
    assert (record.repeat_index, record.return_code) == (done.repeat_index, ended.return_code)
    assert judge(done, written, retry=True, by_id_alone=False) == Decision(skip=not ended.failed, failed=ended.failed)


@given(done=tasks, other=commands, ended=outcomes)
def test_another_command_is_noticed(done: Task, other: bytes, ended: Outcome) -> None:
    changed = Task(done.task_id, done.stream_index, done.repeat_index, done.command + b"x" + other)
    with pytest.raises(StatusFileError):
        judge(changed, task_line(done, "n", ended), retry=True, by_id_alone=False)


@given(done=tasks, ended=outcomes)
def test_a_chain_of_resumes_keeps_the_first_record(done: Task, ended: Outcome) -> None:
    written = task_line(done, "n", ended)
    chained = skipped_line(skipped_line(written))
    assert fields_of(chained)[1:] == fields_of(written)[1:]
    assert judge(done, chained, retry=False, by_id_alone=False).skip
    assert read(chained).place_of(done.task_id) == 0


@given(records=st.lists(st.tuples(st.integers(0, 3) | numbers, st.integers(0, 1)), max_size=12), data=st.data())
def test_the_order_of_lines_does_not_matter(records: list[tuple[int, int]], data: st.DataObject) -> None:
    noted = [(place, task_id, return_code) for place, (task_id, return_code) in enumerate(records)]
    resume = Resume()
    for place, task_id, return_code in data.draw(st.permutations(noted)):
        resume.note(line(task_id, return_code), place)
    best: dict[int, tuple[bool, int]] = {}
    for place, task_id, return_code in noted:
        best[task_id] = max(best.get(task_id, (False, -1)), (return_code == 0, place))
    assert resume.completed == len(best)
    assert {task_id: resume.place_of(task_id) for task_id in best} == {
        task_id: place for task_id, (_, place) in best.items()
    }


@given(done=st.lists(tasks, max_size=6, unique_by=lambda task: task.task_id), ended=outcomes, cut=st.integers(0, 200))
def test_a_file_cut_anywhere_loses_only_its_last_line(done: list[Task], ended: Outcome, cut: int) -> None:
    content = b"".join(task_line(each, "n", ended) for each in done)[:cut]
    resume = Resume()
    warnings = read_into(resume, "f", io.BytesIO(content), 0)
    assert resume.completed == content.count(b"\n")
    assert len(warnings) == (not content.endswith(b"\n"))
    for each in done:
        place = resume.place_of(each.task_id)
        if place is not None:
            assert judge(each, content[place:].split(b"\n")[0], retry=False, by_id_alone=False).skip


status_fragments = st.sampled_from(
    [b"\t", b"\t\t", b"\n", b"7\t", b"-1", b"R", b" ", b"S\t", b"\xff", line(), HEADER, line()[:30]]
)


@given(content=st.binary(max_size=40) | st.lists(status_fragments, max_size=20).map(b"".join))
def test_random_bytes_never_raise_anything_else(content: bytes) -> None:
    with contextlib.suppress(StatusFileError):
        read_into(Resume(), "f", io.BytesIO(content), 3)
    with contextlib.suppress(StatusFileError):
        Resume().note(content, 0)
    with contextlib.suppress(StatusFileError):
        parse_line(content)
    with contextlib.suppress(StatusFileError):
        judge(task(), content, retry=True, by_id_alone=True)


# What programs are told


def told(text: bytes) -> dict[str, object]:
    result = json.loads(report(text), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert isinstance(result, dict)
    return result


def test_a_report_tells_a_program_what_a_line_tells_a_person() -> None:
    ended = outcome(return_code=3, out=b"out\n\ttab 'quoted'", err=b"\xff")
    assert told(task_line(Task(7, 8, 2, b"echo a\tb"), "node1", ended)) == {
        "Flags": "ROE ",
        "TaskId": 7,
        "TaskStreamIndex": 8,
        "TaskRepIndex": 2,
        "Host": "node1",
        "PID": 4711,
        "ReturnCode": 3,
        "Elapsed": 1.5,
        "Start": 1700000000.25,
        "End": 1700000001.75,
        "OutBytes": 17,
        "OutData": "out\n\ttab 'quoted'",
        "ErrBytes": 1,
        "ErrData": "\ufffd",
        "TaskCmd": "echo a\tb",
    }


def test_a_report_of_a_skipped_task_says_so() -> None:
    assert told(skipped_line(line(return_code=1)))["Flags"] == "R  S"
    assert told(skipped_line(OLD_LINE))["TaskCmd"] == "cd /work ; my -a 3"


def test_a_line_without_its_end_is_reported_alike() -> None:
    assert report(line()[:-1]) == report(line())


@pytest.mark.parametrize(
    ("number", "field"),
    [
        *((5, field) for field in (b"", b"unknown", b"1.5", b"9" * 5000)),
        *((7, field) for field in (b"", b"long", b"nan", b"inf", b"1e999")),
        *((11, field) for field in (b"", b"not quoted", b"'open", b"{1}", b"b'x'", b"'a' + 1", b"'a', 'b'", b"'\0'")),
        (13, b"(" * 5000),
        (13, b"'a'" + b" + 'a'" * 5000),
        (13, b"'\xff"),
    ],
)
def test_a_field_of_another_form_is_told_as_it_stands(number: int, field: bytes) -> None:
    fields = line().removesuffix(b"\n").split(b"\t")
    fields[number] = field
    report_of_it = told(b"\t".join(fields) + b"\n")
    value = list(report_of_it.values())[number]
    assert value == field.decode(errors="replace")
    assert report_of_it["TaskCmd"] == "echo a"


@given(done=tasks, node=st.text("ab é\t\n\r\x85\u2028\udc80🐟", max_size=8), ended=outcomes)
def test_every_line_can_be_reported(done: Task, node: str, ended: Outcome) -> None:
    text = task_line(done, node, ended)
    values = told(text)
    assert (values["TaskId"], values["ReturnCode"]) == (done.task_id, ended.return_code)
    assert (values["OutData"], values["ErrData"]) == (
        ended.out_snippet.decode(errors="replace"),
        ended.err_snippet.decode(errors="replace"),
    )
