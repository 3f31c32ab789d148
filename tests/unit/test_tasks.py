from __future__ import annotations

import pytest

from disbatch.records import is_record, replace
from disbatch.tasks import LOST, NO_PROCESS, Barrier, Outcome, PerEngineTask, Phase, Task, lost_outcome


def outcome(return_code: int) -> Outcome:
    return Outcome(
        pid=4711,
        return_code=return_code,
        start=1.0,
        elapsed=0.5,
        out_bytes=0,
        out_snippet=b"",
        err_bytes=0,
        err_snippet=b"",
        cpu_seconds=0.1,
        peak_memory=1024,
        interrupted=False,
    )


@pytest.mark.parametrize(("return_code", "failed"), [(0, False), (1, True), (255, True), (-9, True)])
def test_any_return_code_but_0_is_a_failure(return_code: int, failed: bool) -> None:
    assert outcome(return_code).failed is failed


@pytest.mark.parametrize(
    "noun",
    [
        Task(0, 1, -1, b"true"),
        Barrier(0, 1, check=False, key=None, text=b"#DISBATCH BARRIER"),
        PerEngineTask(Phase.START, 0, 1, b"true"),
        outcome(0),
    ],
)
def test_nouns_are_values(noun: Task | Barrier | PerEngineTask | Outcome) -> None:
    assert is_record(noun)
    assert noun == replace(noun)
    hash(noun)


def test_a_phase_is_its_word() -> None:
    assert [Phase("START"), Phase("STOP")] == [Phase.START, Phase.STOP]


def test_a_lost_task_has_failed_for_a_reason_and_nothing_else_is_known() -> None:
    lost = lost_outcome("it is gone", 12.5)
    assert (lost.pid, lost.return_code, lost.start, lost.elapsed) == (NO_PROCESS, LOST, 12.5, 0.0)
    assert (lost.err_snippet, lost.err_bytes) == (b"it is gone\n", 11)
    assert lost.failed
    assert not lost.interrupted


def test_more_may_be_known_of_a_lost_task() -> None:
    lost = lost_outcome("a name \udcff", 1.0, 0.5, return_code=7, interrupted=True)
    assert (lost.return_code, lost.elapsed, lost.interrupted) == (7, 0.5, True)
    assert lost.err_snippet == b"a name \xff\n"
