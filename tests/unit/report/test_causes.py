from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from disbatch.report.causes import (
    EXIT,
    LOST_WITH_ENGINE,
    MOST_GROUPS,
    NOT_STARTED,
    SIGNAL,
    Digest,
    Failure,
    Group,
    last_line,
    printable,
    words_of,
)
from disbatch.snippet import OutputMeter

if TYPE_CHECKING:
    from collections.abc import Iterable


def failure(
    err: str | bytes = "",
    return_code: int = 1,
    *,
    task_id: int = 0,
    node: str = "h1",
    pid: int = 4711,
    per_engine: bool = False,
    earlier: bool = False,
) -> Failure:
    """A task that has printed that to its standard error."""
    meter = OutputMeter()
    meter.feed(err.encode() if isinstance(err, str) else err)
    snippet = meter.snippet.decode(errors="replace")
    command = f"work {task_id}"
    return Failure(task_id, task_id + 1, -1, node, pid, return_code, meter.count, snippet, command, per_engine, earlier)


def digest_of(failures: Iterable[Failure]) -> Digest:
    digest = Digest()
    for each in failures:
        digest.add(each)
    return digest


def groups_of(*errs: str | bytes) -> tuple[Group, ...]:
    """Groups of tasks that have printed this to their standard errors, each one of them."""
    return digest_of(failure(err, task_id=number) for number, err in enumerate(errs)).groups()


def starred(line: str, *, torn: bool = False) -> str:
    return " ".join(word for _, word in words_of(line, torn=torn))


# How they ended


@pytest.mark.parametrize(
    ("failed", "kind"),
    [
        (failure(return_code=1), EXIT),
        (failure(return_code=139), EXIT),
        (failure(return_code=-9), SIGNAL),
        (failure("disbatch: lost with its engine 3 times\n", -9, pid=-1), LOST_WITH_ENGINE),
        (failure("disbatch: lost with its engine, not run again (--no-requeue)\n", -9, pid=-1), LOST_WITH_ENGINE),
        (
            failure("disbatch: the process of place 1 on h has gone, and this task with it\n", -9, pid=-1),
            LOST_WITH_ENGINE,
        ),
        (failure("disbatch: lost with its engine 3 times\n", -9), SIGNAL),
        (failure("disbatch: cannot start: Argument list too long\n", 7, pid=-1), NOT_STARTED),
    ],
)
def test_how_a_task_failed_is_one_of_four(failed: Failure, kind: str) -> None:
    assert failed.kind == kind


def test_what_ended_in_another_way_has_another_cause() -> None:
    failures = [failure("no", 1), failure("no", 2), failure("no", -9), failure("no", 1, pid=-1)]
    assert len(digest_of(failures).groups()) == 4


# The last line


@pytest.mark.parametrize(
    ("err", "line"),
    [
        ("", ("", False)),
        (" \n\n", ("", False)),
        ("short", ("short", False)),
        ("one\ntwo\n\n \n", ("two", False)),
        ("10 %\r20 %\r", ("20 %", False)),
        ("\x1b[31mred\x1b[0m", ("red", False)),
        ("x" * 39 + "\nbehind the gap that is none", ("behind the gap that is none", False)),
        ("a" * 38 + "bcd" + "e" * 39, ("a" * 38 + "bcd" + "e" * 39, False)),
        ("x" * 60 + "\nthis line is whole, it begins later\n", ("this line is whole, it begins later", False)),
        ("x" * 60 + " and this line is torn somewhere in it", ("xx and this line is torn somewhere in it", True)),
        ("known\n" + "\n" * 80, ("known", False)),
        ("é" * 19 + "\n" + "ab…cd" * 5, ("ab…cd" * 5, False)),
    ],
)
def test_the_last_line_is_the_last_with_anything_in_it(err: str, line: tuple[str, bool]) -> None:
    failed = failure(err)
    found, torn = last_line(failed.err, failed.err_bytes)
    assert (found, torn) == line


def test_dots_of_its_own_in_a_snippet_do_no_harm() -> None:
    assert groups_of("..." * 13 + "....", "..." * 20)[0].count >= 1
    assert last_line("." * 83, 80) == ("." * 80, False)


@given(err=st.text(max_size=200), size=st.integers(0, 300))
def test_any_snippet_has_a_last_line(err: str, size: int) -> None:
    line, torn = last_line(err, size)
    assert "\n" not in line
    words_of(line, torn=torn)


# What differs from task to task


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ValueError: bad value -3.5e-07 in row 17", "ValueError: bad value * in row *"),
        ("took 1,234.5 s of 10:30:00", "took * s of *"),
        ("needs 12.5MB, has .5", "needs *MB, has *"),
        ("pid 4711 at 0x7fff3a: id a3f9c2d1e, kJ8s9Fq2", "pid * at *: id *"),
        ("job 123e4567-e89b-12d3-a456-426614174000 died", "job * died"),
        ("2026-11-21 10:30:00,123 ERROR: no", "* ERROR: no"),
        ("[Sat Nov 21 10:30:00 2026] no", "[*] no"),
        ("shapes (3, 4, 5) differ", "shapes (*) differ"),
        ("cat: /data/in_17.txt: No such file", "cat: *: No such file"),
        ("cat: alice.csv: No such file", "cat: *: No such file"),
        ("cat: results/alice.csv.", "cat: *."),
        ("cannot get https://example.org/a?b=c (404)", "cannot get *)"),
        ("10.0.0.17:5000 refused, fe80::1ff:fe23 too", "* refused, * too"),
        ("No module named 'numpy'", "No module named '*'"),
        ("open '/a b/c' or \"d e\" or \u2018f\u2019 failed", "open '*' or '*' or '*' failed"),
        ("KeyError: 'it'", "KeyError: '*'"),
        ("can't do what isn't there", "can't do what isn't there"),
        ("Input/output error and/or I/O", "Input/output error and/or I/O"),
        ("numpy.linalg.LinAlgError: Singular matrix", "numpy.linalg.LinAlgError: Singular matrix"),
        ("std::bad_alloc", "std::bad_alloc"),
        ("[alice:1234] *** Process received signal ***", "* Process received signal *"),
        ("/bin/bash: line 1: nosuch: command not found", "nosuch: command not found"),
        ("bash: line 12: nosuch: command not found", "nosuch: command not found"),
        ("/bin/sh: 3: nosuch: not found", "nosuch: not found"),
        ("./run.sh: line 12: nosuch: command not found", "*: line *: nosuch: command not found"),
        ("/bin/bash: line 1: 17764 Segmentation fault      (core dumped) ./x alice", "Segmentation fault"),
        ("/bin/bash: line 1:  4711 Killed                  ./x alice", "Killed"),
        ("bash: line 7: 4711 Floating point exceptionpython3 x.py", "Floating point exception"),
    ],
)
def test_what_differs_becomes_a_star(line: str, words: str) -> None:
    assert starred(line) == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Error: no such thing", "no such thing"),
        ("n 17.txt' for reading it", "for reading it"),
        ("bash: line 12: nosuch: command not found", "nosuch: command not found"),
        ("0:30:00 12 ERROR: no", "ERROR: no"),
        ("ta/deep/in_17.txt: 'a b' is bad", "'*' is bad"),
        ("very_long_name:more", ":more"),
        ("/17/18", "*"),
        ("onewordalone", "*"),
    ],
)
def test_of_a_torn_line_only_what_is_known_counts(line: str, words: str) -> None:
    expected = words.removeprefix("'*' ")  # what differs does not begin what is known
    assert starred(line, torn=True) == expected


def test_words_are_also_told_as_they_stand() -> None:
    assert [text for text, _ in words_of("bad value 17 18 in 'a b'")] == ["bad", "value", "17 18", "in", "'a b'"]


@given(line=st.text(max_size=60), torn=st.booleans())
@example(line="\x1b[2J\u202e'", torn=False)
def test_words_move_no_cursor(line: str, *, torn: bool) -> None:
    for text, word in words_of(line, torn=torn):
        assert text.isprintable()
        assert word.isprintable()


numbers = st.lists(
    st.integers(-(10**9), 10**9).map(str)
    | st.floats(0, 1e9, allow_nan=False).map(str)
    | st.integers(0, 2**64).map(hex)
    | st.uuids().map(str)
    | st.datetimes().map(str)
    | st.text("ab/", max_size=9).map("/data/{}".format)
    | st.text("abc de", max_size=20).map(repr),
    min_size=1,
    max_size=50,
)
sentences = st.lists(st.sampled_from(["Error:", "cannot", "read", "file", "line", "of", "so,"]), min_size=1, max_size=5)


@given(before=sentences, after=sentences, numbers=numbers)
def test_what_differs_splits_no_cause(before: list[str], after: list[str], numbers: list[str]) -> None:
    lines = {starred(" ".join([*before, number, *after])) for number in numbers}
    assert len({line.replace("'", "") for line in lines}) == 1


@given(before=sentences, after=sentences, numbers=st.lists(st.integers(0, 10**12), min_size=1, max_size=30))
def test_numbers_split_no_cause_however_long_the_output_is(
    before: list[str], after: list[str], numbers: list[int]
) -> None:
    # What is torn may have been torn behind all that is said before the number.
    errs = [
        f"Traceback:\n  File 'x', line {number}\n{' '.join(before)} {number} {' '.join(after)}\n" for number in numbers
    ]
    assert len(groups_of(*errs)) == 1


# Groups


def test_three_causes_are_three_groups_however_they_are_spread() -> None:
    failures = [
        failed
        for number in range(300)
        for failed in (
            failure(
                f"Traceback (most recent call last):\nValueError: could not convert 'x{number}' in row {number**4}\n",
                task_id=3 * number,
                node=f"h{number % 7}",
            ),
            failure(return_code=-11, task_id=3 * number + 1, node=f"h{number % 5}"),
            failure(f"cat: /data/{'x' * (number % 60)}/{number}: No such file or directory\n", node="h3"),
        )
    ]
    groups = digest_of(failures).groups()
    assert [group.count for group in groups] == [300, 300, 300]
    assert {(group.kind, group.return_code) for group in groups} == {(EXIT, 1), (SIGNAL, -11)}
    texts = {"", "ValueError: could not convert '*' in row *", "cat: *: No such file or directory"}
    assert {group.text for group in groups} == texts


def test_the_biggest_group_comes_first() -> None:
    groups = groups_of("few", *["many"] * 5, *["some"] * 3)
    assert [(group.text, group.count) for group in groups] == [("many", 5), ("some", 3), ("few", 1)]


def test_what_all_of_a_group_have_alike_is_told_as_it_is() -> None:
    assert groups_of("[Errno 2] no 'x' in 7", "[Errno 2] no 'x' in 8")[0].text == "[Errno 2] no 'x' in *"
    assert groups_of("[Errno 2] no 'x' in 7")[0].text == "[Errno 2] no 'x' in 7"


LONG = "x" * 60


def test_a_torn_line_belongs_to_a_whole_one_that_ends_alike() -> None:
    whole, torn = "Error: nothing known of the matter 17", f"{LONG} Error: nothing known of the matter 1234567"
    [group] = groups_of(whole, torn)
    assert (group.text, group.torn, group.count) == ("Error: nothing known of the matter *", False, 2)
    assert groups_of(torn)[0].torn
    assert len(groups_of(whole, torn, "nothing known of the matter 5")) == 2


def test_torn_lines_that_end_alike_belong_together() -> None:
    [group] = groups_of(
        f"{LONG} the reading of it 1 has failed badly", f"{LONG} reading of it 1000000 has failed badly"
    )
    assert (group.text, group.torn) == ("the reading of it * has failed badly", True)


def test_stars_alone_make_no_line_like_another() -> None:
    assert len(groups_of(f"{LONG} ends with the number\t17/18/19 20 21", f"{LONG}\t17\t18")) == 2


def test_of_several_lines_that_a_torn_one_may_be_it_belongs_to_the_most_frequent() -> None:
    torn = f"{LONG} is not there at all, as it seems"
    for order in (1, -1):
        groups = groups_of(*["A is not there at all, as it seems", "B is not there at all, as it seems", torn][::order])
        assert sum(group.count for group in groups) == 3
        assert len(groups) == 2
    groups = groups_of("A is not there at all, as it seems", *["B is not there at all, as it seems"] * 2, torn)
    assert [(group.text[0], group.count) for group in groups] == [("B", 3), ("A", 1)]


def test_a_long_line_of_bash_is_known_by_its_beginning() -> None:
    names = ["alice", "bob", "a very long name with many words in it"]
    groups = groups_of(*(f"/bin/bash: line 1: 4711 Segmentation fault      ./x {name} {LONG}\n" for name in names))
    assert [(group.text, group.count) for group in groups] == [("Segmentation fault", 3)]


def test_a_group_tells_its_hosts() -> None:
    failures = [failure("no", node=node) for node in ("h2", "h1", "h2", "h3", "h2", "h3")]
    [group] = digest_of(failures).groups()
    assert group.nodes == (("h2", 3), ("h3", 2), ("h1", 1))
    assert not group.alone


def test_a_group_on_one_host_says_so_when_others_ran_too() -> None:
    digest = digest_of([failure("no", node="h3"), failure("no", node="h3")])
    assert not digest.groups()[0].alone
    digest.ran_on("h1")
    assert digest.groups()[0].alone
    digest.add(failure("no", node="h2"))
    assert not digest.groups()[0].alone


def test_a_single_failure_says_nothing_of_its_host() -> None:
    digest = digest_of([failure("no", node="h3")])
    digest.ran_on("h1")
    assert not digest.groups()[0].alone


def test_the_example_is_the_first_task() -> None:
    failures = [failure("no", task_id=0, per_engine=True), *(failure("no", task_id=number) for number in (7, 5, 6))]
    assert digest_of(failures).groups()[0].example.command == "work 5"
    assert digest_of(failures[:1]).groups()[0].example.per_engine


def test_what_failed_earlier_is_counted_as_well() -> None:
    digest = digest_of([failure("no"), failure("no", earlier=True), failure("no", per_engine=True)])
    assert (digest.failed, digest.earlier, digest.per_engine) == (3, 1, 1)
    assert (digest.groups()[0].count, digest.groups()[0].earlier) == (3, 1)


def test_nothing_has_no_groups() -> None:
    assert Digest().groups() == ()


letters = st.text("abc xyz'/7\n", max_size=100)
some_failures = st.lists(
    st.builds(
        failure,
        letters | st.just("") | sentences.map(" ".join),
        st.sampled_from([1, 2, 139, -9]),
        task_id=st.integers(0, 99),
        node=st.sampled_from(["h1", "h2", "alice"]),
    ),
    max_size=20,
)


@given(failures=some_failures.flatmap(lambda failures: st.tuples(st.just(failures), st.permutations(failures))))
def test_the_order_makes_no_difference(failures: tuple[list[Failure], list[Failure]]) -> None:
    one, other = map(digest_of, failures)
    assert one.groups() == other.groups()


@given(failures=some_failures)
def test_there_are_no_more_groups_than_different_failures(failures: list[Failure]) -> None:
    groups = digest_of(failures).groups()
    assert len(groups) <= len({(failed.return_code, failed.err, failed.err_bytes) for failed in failures})
    assert sum(group.count for group in groups) == len(failures)
    for group in groups:
        assert sum(count for _, count in group.nodes) == group.count
        assert group.example in failures


def words(number: int) -> str:
    """A word of its own for each number, which nobody takes for one."""
    return "".join("ghijklmnop"[int(digit)] for digit in f"{number:06}")


def test_memory_is_bounded_and_what_is_frequent_is_found_however_late_it_comes() -> None:
    digest = Digest()
    for number in range(5000):
        digest.add(failure(words(number), task_id=number))
        if number > 3000:
            digest.add(failure("late and frequent"))
    assert len(digest._tallies) <= MOST_GROUPS
    groups = digest.groups()
    assert groups[0].text == "late and frequent"
    assert groups[0].count > 1900
    assert digest.others + sum(group.count for group in groups) == digest.failed == 6999


def test_what_cannot_be_printed_is_escaped() -> None:
    assert printable("a\x1b[2J é\u202e") == "a\\x1b[2J é\\u202e"
