from __future__ import annotations

from typing import TYPE_CHECKING

from disbatch.statusfile import HEADER
from disbatch.web.search import MOST, search
from tests.unit.web.examples import line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disbatch.web.search import Found


def find(text: str, *pieces: bytes) -> Found:
    return search(pieces, text, lambda: True)


def ids(result: Found) -> list[object]:
    return [found["TaskId"] for found in result.lines]


def test_a_text_is_found_in_any_piece_and_the_newest_comes_first() -> None:
    result = find("true", line(0) + line(1, b"false"), line(2))
    assert ids(result) == [2, 0]
    assert (result.count, result.complete) == (2, True)


def test_a_task_is_found_by_its_id_before_texts_with_that_number() -> None:
    result = find("7", line(7, b"seven"), line(1, b"sleep 7") + line(17, b"seventeen"))
    assert ids(result)[0] == 7
    assert set(ids(result)[1:]) >= {1}
    assert result.count == len(result.lines)


def test_letters_are_the_same_in_both_cases() -> None:
    assert ids(find("ERROR in x", line(0, err=b"some error IN X\n"))) == [0]


def test_a_line_is_found_once_however_often_the_text_is_in_it() -> None:
    assert find("a", line(0, b"a a a a")).count == 1


def test_what_is_found_is_bounded_and_counted() -> None:
    result = find("true", b"".join(line(number) for number in range(3 * MOST)))
    assert ids(result) == list(range(3 * MOST - 1, 2 * MOST - 1, -1))
    assert result.count == 3 * MOST


def test_a_header_and_what_is_no_line_of_a_task_are_left_out() -> None:
    assert ids(find("task", HEADER + b"no task\n" + line(0, b"task"))) == [0]


def test_nothing_is_found_where_nothing_is() -> None:
    assert find("true") == find("", line(0)) == find("\n\n", line(0)) == search([], "x", lambda: True)


def test_numbers_that_no_task_can_have_are_texts() -> None:
    assert ids(find("9" * 30, line(0, b"echo " + b"9" * 30))) == [0]
    assert ids(find("²", line(2), line(0, "echo ²".encode()))) == [0]


def test_when_time_is_up_it_says_so() -> None:
    def pieces() -> Iterator[bytes]:
        yield line(0)
        raise AssertionError("no more is read")

    result = search(pieces(), "true", lambda: False)
    assert (ids(result), result.complete) == ([0], False)
