from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from disbatch.driver import ending
from disbatch.driver.controller import Controller, Counts
from disbatch.driver.events import DrainAsked, SignalCame
from disbatch.driver.feeder import EarlierRuns
from disbatch.driver.recorder import Recorder
from disbatch.statusfile import skipped_line
from tests.unit.driver.bench import write_to_full_disk
from tests.unit.driver.examples import context_came, line, settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from disbatch.driver.events import Event


# The status file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "status"


def begun(path: Path, write: Callable[[int, bytes], int] = os.write) -> Recorder:
    recorder = Recorder(str(path), write)
    recorder.take_place()
    return recorder


@pytest.fixture
def earlier(tmp_path: Path) -> EarlierRuns:
    """A run in which tasks 0 and 1 failed, which are to be run again."""
    (tmp_path / "earlier").write_bytes(line(0, 1) + line(1, 1))
    return EarlierRuns([str(tmp_path / "earlier")], retry=True, by_id_alone=False)


def test_the_last_lines_are_written(path: Path) -> None:
    recorder = begun(path)
    recorder.add(line(0))
    assert ending.close(recorder, str(path))
    assert path.read_bytes() == line(0)


def test_a_run_cut_short_writes_down_what_it_has_not_come_to(path: Path, earlier: EarlierRuns) -> None:
    recorder = begun(path)
    recorder.add(line(1))
    recorder.flush()
    assert ending.close(recorder, str(path), earlier)
    assert path.read_bytes() == line(1) + skipped_line(line(0, 1))


@pytest.mark.parametrize("cut_short", [False, True])
def test_lines_that_cannot_be_written_are_told_of_once(
    path: Path, earlier: EarlierRuns, capsys: pytest.CaptureFixture[str], *, cut_short: bool
) -> None:
    recorder = begun(path, write_to_full_disk)
    recorder.add(line(1))
    assert not ending.close(recorder, str(path), earlier if cut_short else None)
    [told] = capsys.readouterr().err.splitlines()
    assert told.startswith("disbatch: cannot write the status file: No space left on device")


def test_a_status_file_that_somebody_has_removed_is_told_of(
    path: Path, earlier: EarlierRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = begun(path)
    path.unlink()
    assert not ending.close(recorder, str(path), earlier)
    assert "No such file or directory" in capsys.readouterr().err


# Summing up


@pytest.fixture
def controller() -> Controller:
    return Controller(settings())


def told(
    controller: Controller,
    capsys: pytest.CaptureFixture[str],
    *,
    complete: bool = False,
    resumed: bool = False,
    retry: bool = False,
) -> list[str]:
    """What the user is told, each line without its beginning."""

    def command(status_file: str, *, retry: bool) -> str:
        return f"go on with {status_file}{' and retry' * retry}"

    ending.sum_up(controller, "run_status.txt", command, complete=complete, resumed=resumed, retry=retry)
    out, err = capsys.readouterr()
    assert out == ""
    return [text.removeprefix("disbatch: ") for text in err.splitlines()]


NOTHING = "0 tasks finished; status file: run_status.txt"
GO_ON = "to go on where this run left off: go on with run_status.txt"


@pytest.mark.parametrize(
    ("counts", "complete", "summary"),
    [
        (Counts(), True, "No tasks to run."),
        (Counts(finished=3), True, "3 tasks finished; status file: run_status.txt"),
        (Counts(finished=3, failed=2), True, "3 tasks finished, 2 failed; status file: run_status.txt"),
        (Counts(skipped=4), True, "0 tasks finished, 4 skipped; status file: run_status.txt"),
        (Counts(interrupted=1), False, "0 tasks finished, 1 interrupted; status file: run_status.txt"),
        (Counts(failed=1), False, "0 tasks finished, 1 failed; status file: run_status.txt"),
        (Counts(1, 1, 1, 1), False, "1 task finished, 1 failed, 1 skipped, 1 interrupted; status file: run_status.txt"),
    ],
)
def test_the_last_lines_sum_up(
    controller: Controller, capsys: pytest.CaptureFixture[str], counts: Counts, summary: str, *, complete: bool
) -> None:
    controller.counts = counts
    assert told(controller, capsys, complete=complete) == [summary, *[GO_ON] * (not complete)]


def test_of_a_run_that_nobody_has_come_to_all_is_told(
    controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(controller, capsys) == []
    assert told(controller, capsys, resumed=True) == [NOTHING, GO_ON]


@pytest.mark.parametrize("event", [SignalCame("SIGINT", 130), DrainAsked("SIGUSR1")])
def test_a_run_that_a_signal_has_ended_can_be_gone_on_with_however_early_that_was(
    controller: Controller, capsys: pytest.CaptureFixture[str], event: Event
) -> None:
    controller.handle(event, 0.0, 0.0)
    assert told(controller, capsys) == [NOTHING, GO_ON]


def test_a_run_that_an_engine_has_come_to_can_be_gone_on_with(
    controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    controller.fleet.admit_context(context_came("t", 1))
    controller.fleet.engines[0].came = 1.0
    assert told(controller, capsys) == [NOTHING, GO_ON]


@pytest.mark.parametrize("retry", [False, True])
def test_after_a_failed_check_only_a_retry_gets_any_further(
    controller: Controller, capsys: pytest.CaptureFixture[str], *, retry: bool
) -> None:
    controller.check_failed = True
    assert told(controller, capsys, resumed=True, retry=retry)[-1] == GO_ON + " and retry" * (not retry)


def test_no_command_is_told_that_cannot_get_any_further(
    controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    controller.can_be_resumed = False
    assert told(controller, capsys, resumed=True) == [NOTHING]
