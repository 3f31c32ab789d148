from __future__ import annotations

import errno
import os
import re
import time
from typing import TYPE_CHECKING

import pytest

from disbatch import log as log_file
from disbatch.log import Log
from disbatch.values import LOG_LEVELS

if TYPE_CHECKING:
    from pathlib import Path


def test_a_line_has_its_time_and_level(tmp_path: Path) -> None:
    before = time.time()
    Log(str(tmp_path / "log"), "INFO").info("engine %d on %s", 3, "a")
    line = (tmp_path / "log").read_text()
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) INFO     engine 3 on a\n", line)
    assert found is not None
    noted = time.mktime(time.strptime(found[1], "%Y-%m-%d %H:%M:%S")) + int(found[2]) / 1000
    assert before - 0.001 <= noted <= time.time()


def test_a_text_without_values_is_noted_as_it_is(tmp_path: Path) -> None:
    Log(str(tmp_path / "log"), "INFO").warning("100%s")
    assert (tmp_path / "log").read_text().endswith(" WARNING  100%s\n")


@pytest.mark.parametrize(
    ("level", "noted"),
    [
        ("DEBUG", ["INFO", "WARNING", "ERROR"]),
        ("INFO", ["INFO", "WARNING", "ERROR"]),
        ("WARNING", ["WARNING", "ERROR"]),
        ("ERROR", ["ERROR"]),
        ("CRITICAL", []),
    ],
)
def test_what_is_below_the_level_is_left_out(tmp_path: Path, level: str, noted: list[str]) -> None:
    assert level in LOG_LEVELS
    log = Log(str(tmp_path / "log"), level)
    log.info("this")
    log.warning("this")
    log.error("this")
    assert [line.split()[2] for line in (tmp_path / "log").read_text().splitlines()] == noted


def test_a_log_is_appended_to_whatever_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "my log"
    path.write_text("earlier\n")
    first, second = Log(str(path), "INFO"), Log(str(path), "INFO")
    first.info("é \udcff")
    second.info("here")
    first.info("there")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line[33:] for line in lines[1:]] == [r"é \udcff", "here", "there"]
    assert lines[0] == "earlier"


def test_a_log_that_cannot_be_written_any_more_disturbs_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    Log("/dev/full", "DEBUG").error("into a full disk")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_log_for_which_a_disk_has_no_room_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def open_on_full_disk(path: str, *rest: object, **named: int) -> object:
        if path != os.devnull:
            raise OSError(number, os.strerror(number), path)
        return open(path, *rest, **named)  # type: ignore[call-overload] # as they are given

    monkeypatch.setattr(log_file, "open", open_on_full_disk, raising=False)
    log = Log(str(tmp_path / "log"), "INFO")
    log.info("into a full disk")
    log.close()
    assert os.listdir(tmp_path) == []


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Log(str(tmp_path / "missing" / "log"), "INFO")
