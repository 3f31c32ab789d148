from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.errors import (
    DisbatchError,
    ExitStatus,
    MessageError,
    ResourceError,
    StatusFileError,
    TaskFileError,
    UsageError,
    quoted,
)


def test_an_error_says_what_and_what_to_do() -> None:
    error = TaskFileError("cannot read tasks.txt", "is it there?")
    assert (error.message, error.hint) == ("cannot read tasks.txt", "is it there?")
    assert str(error) == "cannot read tasks.txt (is it there?)"
    assert str(TaskFileError("cannot read tasks.txt")) == "cannot read tasks.txt"


@pytest.mark.parametrize("kind", [TaskFileError, StatusFileError, ResourceError, MessageError])
def test_only_usage_errors_end_with_status_2(kind: type[DisbatchError]) -> None:
    assert kind("x").exit_status == ExitStatus.FAILED == 1
    assert UsageError("x").exit_status == ExitStatus.USAGE == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"echo hi", "'echo hi'"),
        (b"echo\thi\r", r"'echo\thi\r'"),
        (b"\x1b[2J", r"'\x1b[2J'"),
        ("schön".encode(), "'schön'"),
        (b"\xffoo", "'\ufffdoo'"),
        (b"123456789", "'12345678'..."),
        (b"12345678", "'12345678'"),
        (4 * b"\xf0\x9f\x90\x9f" + b"x", "'🐟🐟🐟🐟x'"),
        (b"x" + 8 * "🐟".encode(), "'x🐟🐟🐟🐟🐟🐟🐟'..."),
    ],
)
def test_bytes_are_quoted_for_people(text: bytes, shown: str) -> None:
    assert quoted(text, limit=8) == shown


@given(text=st.binary(max_size=60), limit=st.integers(1, 20))
def test_quoted_bytes_are_one_printable_line(text: bytes, limit: int) -> None:
    assert quoted(text, limit).isprintable()
    whole = text.decode(errors="replace")
    assert quoted(text, limit) == (repr(whole) if len(whole) <= limit else repr(whole[:limit]) + "...")
