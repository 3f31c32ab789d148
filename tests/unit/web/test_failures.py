from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from disbatch.web.failures import PATIENCE, Failures
from disbatch.web.tail import Tail
from tests.unit.web.examples import line

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "status"


def append(file: Path, *lines: bytes) -> None:
    with file.open("ab") as opened:
        opened.writelines(lines)


def test_a_growing_file_is_digested_bit_by_bit(file: Path) -> None:
    failures = Failures(Tail(str(file)), lambda: 0.0)
    assert not failures.read()
    append(file, line(0), line(1, b"false", 1, b"no file 1\n"))
    assert failures.read()
    assert not failures.read()
    append(file, line(2, b"false", 1, b"no file 2\n"), line(3, b"x", -9))
    assert failures.read()
    assert failures.digest.failed == 3
    assert [group.count for group in failures.digest.groups()] == [2, 1]
    assert failures.digest.others == 0


def test_what_is_no_line_of_a_task_that_failed_does_not_count(file: Path) -> None:
    failures = Failures(Tail(str(file)), lambda: 0.0)
    append(file, b"ROE[ PSZ]\tTaskID\n", b"R\n", b"R\tdamaged\t1\n", line(0), line(1, b"false", 1)[:-1])
    assert not failures.read()
    assert failures.digest.failed == 0


def test_a_large_file_is_read_in_several_goes(file: Path) -> None:
    clock = count(0, PATIENCE / 1.5)
    failures = Failures(Tail(str(file)), lambda: next(clock))
    append(file, line(1, b"false", 1))
    assert failures.read()
    assert failures.is_behind, "there was no time to see that there is no more"
    assert failures.read()
    assert not failures.is_behind


def test_a_cause_on_one_host_of_several_is_noticed(file: Path) -> None:
    failures = Failures(Tail(str(file)), lambda: 0.0)
    append(file, *(line(number, b"false", 1, node="h1") for number in (1, 2)))
    failures.read()
    assert not failures.digest.groups()[0].alone
    failures.digest.ran_on("h2")
    assert failures.digest.groups()[0].alone
