from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.web import tail
from disbatch.web.tail import Tail

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "status"


def all_of(follower: Tail) -> bytes:
    text = b""
    while piece := follower.read():
        assert len(piece) <= tail.PIECE
        text += piece
    return text


def append(file: Path, text: bytes) -> None:
    with file.open("ab") as opened:
        opened.write(text)


def test_what_is_appended_is_read_once(file: Path) -> None:
    follower = Tail(str(file))
    assert follower.read() == b""
    append(file, b"one\ntwo\n")
    assert follower.read() == b"one\ntwo\n"
    assert follower.read() == b""
    append(file, b"three\n")
    assert follower.read() == b"three\n"


def test_a_line_counts_when_it_has_ended(file: Path) -> None:
    follower = Tail(str(file))
    append(file, b"one\ntw")
    assert follower.read() == b"one\n"
    assert follower.read() == b""
    append(file, b"o\n")
    assert follower.read() == b"two\n"


def test_what_is_no_file_has_no_lines(tmp_path: Path) -> None:
    assert Tail(str(tmp_path)).read() == b""


def test_a_line_without_end_is_left_out_and_takes_no_memory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "PIECE", 8)
    follower = Tail(str(file))
    append(file, b"a\nb\n" + b"x" * 50)
    assert all_of(follower) == b"a\nb\n"
    append(file, b"x" * 50 + b"\nc\n")
    assert all_of(follower) == b"c\n"


def test_no_descriptor_stays_open(file: Path) -> None:
    append(file, b"one\n")
    before = os.listdir("/proc/self/fd")
    Tail(str(file)).read()
    assert len(os.listdir("/proc/self/fd")) == len(before)


@given(st.lists(st.lists(st.integers(0, 20), max_size=6), max_size=6), st.integers(1, 12))
def test_however_a_file_grows_its_lines_of_ordinary_length_are_read(appended: list[list[int]], cut: int) -> None:
    """Lines of these lengths, the last one of each part torn and gone on with in the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tail, "PIECE", 16)
        path = f"/dev/shm/test_tail.{os.getpid()}"  # noqa: S108 - of this process alone
        text = b"".join(b"x" * length + b"\n" for part in appended for length in part)
        follower = Tail(path)
        read = b""
        try:
            for begin in range(0, len(text), cut):
                with open(path, "ab") as file:
                    file.write(text[begin : begin + cut])
                read += all_of(follower)
        finally:
            if os.path.exists(path):
                os.unlink(path)
    lines = [line for line in text.splitlines(keepends=True) if len(line) < 16]
    assert [line for line in read.splitlines(keepends=True) if len(line) < 16] == lines
