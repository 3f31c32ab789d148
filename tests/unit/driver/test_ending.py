from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from disbatch.driver import ending
from disbatch.driver.controller import Controller, Counts
from disbatch.driver.events import DrainAsked, SignalCame
from disbatch.driver.feeder import EarlierRuns
from disbatch.driver.recorder import Recorder
from disbatch.report import failures
from disbatch.statusfile import skipped_line
from tests.unit.driver.bench import write_to_full_disk
from tests.unit.driver.examples import context_came, line, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from disbatch.driver.events import Event
    from disbatch.report.causes import Digest


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
    """What the user is told, each line without its beginning, of a run of 12 s."""

    def command(status_file: str, *, retry: bool) -> str:
        return f"go on with {status_file}{' and retry' * retry}"

    ending.sum_up(controller, "run_status.txt", command, 12.0, complete=complete, resumed=resumed, retry=retry)
    out, err = capsys.readouterr()
    assert out == ""
    return [text.removeprefix("disbatch: ") for text in err.splitlines()]


NOTHING = "0 tasks finished; status file: run_status.txt"
COURSE = "took 12 s; logs: run_*.log"
GO_ON = "to go on where this run left off: go on with run_status.txt"


@pytest.mark.parametrize(
    ("counts", "complete", "summary"),
    [
        (Counts(), True, "No tasks to run."),
        (Counts(finished=3), True, "3 tasks finished; status file: run_status.txt"),
        (Counts(skipped=4), True, "0 tasks finished, 4 skipped; status file: run_status.txt"),
        (Counts(interrupted=1), False, "0 tasks finished, 1 interrupted; status file: run_status.txt"),
        (Counts(1, 0, 1, 1), False, "1 task finished, 1 skipped, 1 interrupted; status file: run_status.txt"),
    ],
)
def test_the_last_lines_sum_up(
    controller: Controller, capsys: pytest.CaptureFixture[str], counts: Counts, summary: str, *, complete: bool
) -> None:
    controller.counts = counts
    course = [COURSE.partition(";")[0]] if complete and any(vars(counts).values()) else [COURSE] * (not complete)
    assert told(controller, capsys, complete=complete) == [summary, *course, *[GO_ON] * (not complete)]


def test_how_busy_the_places_were_is_told(controller: Controller, capsys: pytest.CaptureFixture[str]) -> None:
    controller.counts = Counts(finished=3)
    controller.use.offered, controller.use.taken = 24.0, 20.0
    assert told(controller, capsys, complete=True)[1] == "took 12 s, places busy 83 % of the time"
    controller.use.taken = 24.1  # each task is measured by itself
    assert told(controller, capsys, complete=True)[1] == "took 12 s, places busy 100 % of the time"


def test_what_was_lost_and_run_again_is_told(controller: Controller, capsys: pytest.CaptureFixture[str]) -> None:
    controller.counts = Counts(finished=3, lost=2, rerun=1234)
    course = "took 12 s, attempts lost with their engine: 2, run again: 1,234; logs: run_*.log"
    assert told(controller, capsys, complete=True)[1] == course


FAILED = ["1 failed, for 1 reason:", "  1  exit status 7: nothing on stderr", "     such as task 0 (line 1): true"]
RETRY = "to run again what failed: go on with run_status.txt and retry"


@pytest.fixture
def status_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of a run in which task 0 failed."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run_status.txt"
    path.write_bytes(line(0, 7) + line(1))
    return path


@pytest.mark.usefixtures("status_file")
def test_what_failed_is_told_and_how_to_run_it_again(
    controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    controller.counts = Counts(finished=2, failed=1)
    summary = "2 tasks finished, 1 failed; status file: run_status.txt"
    assert told(controller, capsys, complete=True) == [summary, COURSE, *FAILED, RETRY]
    assert told(controller, capsys) == [summary, COURSE, *FAILED, RETRY, GO_ON]
    assert told(controller, capsys, complete=True, retry=True)[-1] == RETRY.removesuffix(" and retry")


@pytest.mark.usefixtures("status_file")
def test_of_two_commands_that_are_one_one_is_told(controller: Controller, capsys: pytest.CaptureFixture[str]) -> None:
    controller.counts = Counts(finished=2, failed=1)
    controller.check_failed = True
    assert told(controller, capsys)[2:] == [*FAILED, GO_ON + " and retry"]


def test_failed_commands_of_engines_are_not_to_be_run_again(
    controller: Controller, capsys: pytest.CaptureFixture[str], status_file: Path
) -> None:
    controller.counts = Counts(finished=1, failed=1)
    status_file.write_bytes(line(0, 7).replace(b"R   ", b"R  P") + line(1))
    assert "such as the per-engine command (line 1): true" in told(controller, capsys, complete=True)[-1]


def test_the_end_of_a_run_tells_of_a_few_kinds_of_failures(
    controller: Controller, capsys: pytest.CaptureFixture[str], status_file: Path
) -> None:
    controller.counts = Counts(finished=20, failed=20)
    status_file.write_bytes(b"".join(line(number, number + 1) for number in range(20)))
    lines = told(controller, capsys, complete=True)
    assert lines[-2] == "  and for 10 reasons more, which ./run_dbUtil.sh --failures tells"
    assert len(lines) == 2 + 1 + 2 * ending.KINDS_TOLD + 2


def test_a_status_file_that_is_gone_is_told_of(controller: Controller, capsys: pytest.CaptureFixture[str]) -> None:
    controller.counts = Counts(finished=1, failed=1)
    lines = told(controller, capsys, complete=True)
    assert lines[2].startswith("what failed cannot be told: cannot read the status file run_status.txt: No such file")


def test_who_does_not_wait_for_what_failed_is_told_how_to_see_it(
    controller: Controller, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_paths: Sequence[str]) -> Digest:
        raise KeyboardInterrupt

    monkeypatch.setattr(failures, "read", interrupt)
    controller.counts = Counts(finished=1, failed=1)
    assert told(controller, capsys, complete=True)[2:] == ["to see what failed: ./run_dbUtil.sh --failures", RETRY]


def test_nobody_has_to_wait_for_reasons_of_very_many_failures(
    controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    controller.counts = Counts(finished=10**6, failed=ending.MOST_DIGESTED + 1)
    assert told(controller, capsys, complete=True)[2:] == ["to see what failed: ./run_dbUtil.sh --failures", RETRY]


def test_of_a_run_that_nobody_has_come_to_all_is_told(
    controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(controller, capsys) == []
    assert told(controller, capsys, resumed=True) == [NOTHING, COURSE, GO_ON]


@pytest.mark.parametrize("event", [SignalCame("SIGINT", 130), DrainAsked("SIGUSR1")])
def test_a_run_that_a_signal_has_ended_can_be_gone_on_with_however_early_that_was(
    controller: Controller, capsys: pytest.CaptureFixture[str], event: Event
) -> None:
    controller.handle(event, 0.0, 0.0)
    assert told(controller, capsys) == [NOTHING, COURSE, GO_ON]


def test_a_run_that_an_engine_has_come_to_can_be_gone_on_with(
    controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    controller.fleet.admit_context(context_came("t", 1))
    controller.fleet.engines[0].came = 1.0
    assert told(controller, capsys) == [NOTHING, COURSE, GO_ON]


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
    assert told(controller, capsys, resumed=True) == [NOTHING, COURSE]
