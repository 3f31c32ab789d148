"""That the checks of chaotic runs see what must not be, and complain of nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.chaos.check import is_complete, wrongs
from tests.chaos.evidence import Attempt, Deed, Evidence, Run, attempts_in, load
from tests.chaos.schedule import TaskPlan, Wall, make_schedule, task_list

if TYPE_CHECKING:
    from pathlib import Path

SEED = next(
    seed
    for seed in range(100)
    if sum(isinstance(item, Wall) for item in make_schedule(seed, []).items) > 1
    and not make_schedule(seed, []).exit_code
)
TASKS = task_list(make_schedule(SEED, []))
FIRST = TASKS.tasks[0]
LAST = TASKS.tasks[max(TASKS.tasks)]
"""It is behind a barrier."""


def attempt_at(plan: TaskPlan, at: float, token: str = "", job: str = "r0") -> Attempt:
    """An attempt that took half a second."""
    return Attempt(
        token or f"{plan.task_id}.100.a", plan.task_id, "plain", job, "h1", 0, 100, 0, at, overlaps=False, behind=-1,
        ended=at + 0.5, code=0, printed=20,
    )  # fmt: skip


def line_of(attempt: Attempt, flags: str = " O  ") -> str:
    """Its line in a status file."""
    plan = TASKS.tasks[attempt.task]
    fields = (flags, plan.task_id, plan.line, plan.repeat_index, attempt.host, attempt.pid, 0, "0.5", "1.0", "1.5")
    return "\t".join([*map(str, fields), "20", repr(f"{attempt.token}\n"), "0", "''", "command"])


def barrier_line(task_id: int) -> str:
    return f"B    \t{task_id}\t9\t-1\tlogin\t5\t0\t0.1\t1.0\t1.1\t0\t''\t0\t''\t#DISBATCH BARRIER"


@pytest.fixture
def evidence() -> Evidence:
    """Of a run of one driver to which nothing has happened."""
    attempts = [attempt_at(plan, float(task_id)) for task_id, plan in TASKS.tasks.items()]
    lines = [*map(line_of, attempts), *map(barrier_line, TASKS.barriers)]
    run = Run("r0", 0.0, False, 1000.0, 0, ["disbatch: 9 tasks finished; status file: x"], lines)
    return Evidence(SEED, [], False, [run], [], attempts, [], [])


def deed(action: str, target: str, how: str, began: float, ended: float | None = None) -> Deed:
    return Deed("event", action, target, how, target.rpartition(" ")[2], began, ended, done=True, note="")


def resumed(evidence: Evidence, *, attempts: list[Attempt], lines: list[str], retries: bool = False) -> None:
    """Let a second driver finish what the first one, killed, has not come to."""
    evidence.runs[0].return_code, evidence.runs[0].said = -9, []
    evidence.deeds.append(deed("kill", "driver", "KILL", 999.0))
    evidence.runs.append(Run("r1", 1001.0, retries, 2000.0, 0, ["disbatch: 1 task finished"], lines))
    evidence.attempts += attempts


def test_all_is_well(evidence: Evidence) -> None:
    assert wrongs(evidence) == []


def test_evidence_is_kept_in_a_file(evidence: Evidence, tmp_path: Path) -> None:
    evidence.deeds.append(deed("kill", "driver", "KILL", 999.0))
    evidence.save(tmp_path / "evidence")
    assert load(tmp_path / "evidence") == evidence


def test_a_journal_tells_of_attempts_in_the_order_of_their_beginnings() -> None:
    said = {"job": "r0", "host": "h1", "engine": 0, "pid": 9, "attempt": 1, "overlaps": False, "behind": -1}
    entries = [
        {"token": "b", "task": 2, "manner": "plain", "what": "start", "at": 2.0, **said},
        {"token": "a", "task": 1, "manner": "plain", "what": "start", "at": 1.0, **said},
        {"token": "b", "task": 2, "manner": "plain", "what": "end", "at": 3.0, "code": 4, "printed": 5},
    ]
    first, second = attempts_in("".join(f"{entry}\n" for entry in entries))
    assert (first.token, first.began, first.ended) == ("a", 1.0, None)
    assert (second.token, second.ended, second.code, second.printed) == ("b", 3.0, 4, 5)


def test_what_the_runner_saw_and_what_lives_on_is_told(evidence: Evidence) -> None:
    evidence.problems.append("something")
    evidence.left.append("a process")
    assert wrongs(evidence) == ["something", "still alive at the end: a process"]


def test_a_missing_line_is_seen(evidence: Evidence) -> None:
    del evidence.runs[0].lines[0]
    assert wrongs(evidence) == ["task 0 has 0 lines in the last status file"]


def test_a_second_line_is_seen(evidence: Evidence) -> None:
    evidence.runs[0].lines.append(evidence.runs[0].lines[0])
    assert wrongs(evidence) == ["task 0 has 2 lines in the last status file"]


def test_a_barrier_without_a_line_is_seen(evidence: Evidence) -> None:
    evidence.runs[0].lines.pop()
    assert wrongs(evidence) == [f"barrier {max(TASKS.barriers)} has 0 lines in the last status file"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"token": "other"}, "no attempt wrote that down"),
        ({"pid": 7}, "the attempt was another"),
        ({"host": "h2"}, "the attempt was another"),
        ({"ended": None, "code": None, "printed": None}, "did not come to its end"),
        ({"code": 3}, "another result"),
        ({"printed": 19}, "another result"),
    ],
)
def test_a_line_that_is_not_true_is_seen(evidence: Evidence, change: dict[str, object], problem: str) -> None:
    evidence.attempts[0] = replace(evidence.attempts[0], **change)  # type: ignore[arg-type] # each case names its field
    (told,) = wrongs(evidence)
    assert problem in told


def test_a_wrong_flag_is_seen(evidence: Evidence) -> None:
    evidence.runs[0].lines[0] = line_of(evidence.attempts[0], flags="RO  ")
    (told,) = wrongs(evidence)
    assert "the flag R is wrong" in told


def test_a_failed_task_before_a_check_explains_status_1(evidence: Evidence) -> None:
    run = evidence.runs[0]
    lines = [line_of(attempt, " O S") for attempt in evidence.attempts]
    resumed(evidence, attempts=[], lines=[*lines, *map(barrier_line, TASKS.barriers)], retries=True)
    run.return_code, run.said = 1, ["disbatch: BARRIER CHECK in line 3: 1 of the tasks before it failed"]
    (told,) = wrongs(evidence)
    assert "no task had failed before the CHECK" in told
    evidence.attempts[0].code = 1
    run.lines[0] = line_of(evidence.attempts[0], "RO  ").replace("\t0\t0.5", "\t1\t0.5")
    evidence.runs[1].lines[0] = run.lines[0].replace("RO  ", "RO S")
    assert wrongs(evidence) == []


@pytest.mark.parametrize(
    ("return_code", "said", "problem"),
    [
        (None, "", "it did not end"),
        (-9, "", "it had got no such signal"),
        (143, "", "it had got no such signal"),
        (2, "", "there is no such status"),
        (1, "disbatch: 9 tasks finished", "nothing in it explains that"),
        (1, "disbatch: no engine is left to run the remaining tasks", "nothing had happened to its engines"),
    ],
)
def test_an_end_that_nothing_explains_is_seen(
    evidence: Evidence, return_code: int | None, said: str, problem: str
) -> None:
    evidence.runs[0].return_code, evidence.runs[0].said = return_code, [said]
    assert any(problem in told for told in wrongs(evidence))


def test_a_driver_ends_like_any_program_before_it_has_begun(evidence: Evidence) -> None:
    run = evidence.runs[0]
    run.return_code, run.said = -15, []
    evidence.deeds.append(deed("kill", "driver", "TERM", 999.0))
    assert any("tasks had run" in told for told in wrongs(evidence))
    evidence.attempts.clear()
    assert not any("r0 ended with" in told for told in wrongs(evidence))


def test_only_a_run_that_went_to_its_end_is_complete() -> None:
    run = Run("r0", 0.0, retries=False, ended=1.0, return_code=1, said=["disbatch: 1 task finished; status file: x"])
    assert is_complete(run)
    assert not is_complete(replace(run, said=[*run.said, "disbatch: to go on where this run left off: y"]))
    assert not is_complete(replace(run, said=["disbatch: no engine is left"]))
    assert not is_complete(replace(run, return_code=143))
    assert is_complete(replace(run, return_code=0, said=[]))


def test_a_task_that_runs_again_although_it_has_its_line_is_seen(evidence: Evidence) -> None:
    again = attempt_at(LAST, 1500.0, "again", "r1")
    lines = [line_of(attempt, " O S") for attempt in evidence.attempts[:-1]]
    resumed(evidence, attempts=[again], lines=[*lines, line_of(again), *map(barrier_line, TASKS.barriers)])
    (told,) = wrongs(evidence)
    assert f"r1 ran task {LAST.task_id} again" in told


def test_a_line_that_changes_is_seen(evidence: Evidence) -> None:
    lines = [line_of(attempt, " O S") for attempt in evidence.attempts]
    resumed(evidence, attempts=[], lines=[*lines, *map(barrier_line, TASKS.barriers)])
    assert wrongs(evidence) == []
    evidence.runs[1].lines[0] = evidence.runs[1].lines[0].replace("\t0.5\t", "\t0.6\t")
    (told,) = wrongs(evidence)
    assert "r1 skipped a task with another line" in told


def test_two_attempts_at_once_are_seen_unless_the_whole_host_was_frozen(evidence: Evidence) -> None:
    at = evidence.attempts[-1].began
    evidence.attempts.insert(-1, attempt_at(LAST, at - 0.1, "before"))
    evidence.attempts[-1].overlaps = True
    (told,) = wrongs(evidence)
    assert told.startswith("two attempts at the same time")
    evidence.deeds.append(deed("freeze", "node h1", "", at - 0.05, at - 0.01))
    assert wrongs(evidence) == []


def test_a_task_that_runs_on_behind_a_barrier_is_seen(evidence: Evidence) -> None:
    evidence.attempts[-1].behind = 0
    (told,) = wrongs(evidence)
    assert "task 0 still ran when one behind a barrier began" in told


def test_a_task_that_begins_after_one_behind_its_barrier_is_seen(evidence: Evidence) -> None:
    evidence.attempts.append(attempt_at(FIRST, 900.0, "late"))
    (told,) = wrongs(evidence)
    assert "a task before a barrier began after one behind it" in told


def test_commands_of_engines_are_seen_out_of_their_order(evidence: Evidence) -> None:
    def command(manner: str, at: float) -> Attempt:
        return replace(attempt_at(FIRST, at, f"{manner} {at}"), manner=manner)

    well = evidence.attempts
    evidence.attempts = sorted([*well, command("start", -5.0), command("stop", 999.0)], key=lambda each: each.began)
    assert wrongs(evidence) == []
    evidence.attempts = sorted([*well, command("start", -0.2)], key=lambda each: each.began)
    assert "a task began before START had ended" in wrongs(evidence)[0]
    evidence.attempts = sorted([*well, command("stop", LAST.task_id + 0.2)], key=lambda each: each.began)
    assert "a task had not ended before STOP" in wrongs(evidence)[0]
    evidence.attempts = [*well, command("stop", 998.0), command("stop", 999.0)]
    assert "more than once on an engine" in wrongs(evidence)[0]


def test_numbers_of_attempts_rise(evidence: Evidence) -> None:
    evidence.has_lease = True
    for attempt in evidence.attempts:
        attempt.attempt = 1
    assert wrongs(evidence) == []
    evidence.attempts[0].attempt = 0
    assert len(wrongs(evidence)) == 1
