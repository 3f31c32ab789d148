"""What must hold of any run, whatever happened to it: found out from the evidence alone.

Pure. Each check gives sentences about what is wrong, none where all is well.
"""

from __future__ import annotations

import ast
import signal
from collections import Counter, defaultdict
from itertools import product
from typing import TYPE_CHECKING

from tests.chaos.schedule import make_schedule, task_list
from tests.e2e.support import StatusLine, status_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.chaos.evidence import Attempt, Deed, Evidence, Run
    from tests.chaos.schedule import TaskList

FREEZE_GRACE = 1.0
"""Seconds that what a whole frozen host had been running may go on for when that thaws: nobody there could end it."""

LEFT_OFF = "to go on where this run left off: "
SUMMED_UP = "finished"
WAITS = "the run waits for resources"
NO_ENGINE = "no engine is left to run the remaining tasks"
CHECK_FAILED = "BARRIER CHECK in line"

ENDED_BY = {130: "INT", 143: "TERM", -signal.SIGKILL: "KILL", -signal.SIGINT: "INT", -signal.SIGTERM: "TERM"}
"""Exit status of a driver that a signal has ended."""

OWN_NAMES = {"localhost": "login"}
"""What a node is called in the status file, and what its host is called."""


def wrongs(evidence: Evidence) -> list[str]:
    """Everything that is wrong."""
    tasks = task_list(make_schedule(evidence.seed, evidence.features))
    case = _Case(evidence, tasks)
    checks = (
        case.statuses,
        case.one_line_each,
        case.true_lines,
        case.nothing_forgotten,
        case.overlaps,
        case.barriers,
        case.per_engine_commands,
        case.attempt_numbers,
    )
    found = [*evidence.problems, *(f"still alive at the end: {what}" for what in evidence.left)]
    for check in checks:
        found += check()
    return found


def is_complete(run: Run) -> bool:
    """Whether a run went to its end, by what its driver said."""
    has_summed_up = any(SUMMED_UP in line for line in run.said)
    left_off = any(LEFT_OFF in line for line in run.said)
    return run.return_code == 0 or (run.return_code == 1 and has_summed_up and not left_off)


class _Case:
    def __init__(self, evidence: Evidence, tasks: TaskList) -> None:
        self.evidence = evidence
        self.tasks = tasks
        self.lines = [[status_line(text) for text in run.lines] for run in evidence.runs]
        self.attempts = {attempt.token: attempt for attempt in evidence.attempts}
        self.names = [run.name for run in evidence.runs]

    def results(self, run: int) -> Iterator[StatusLine]:
        """Lines that say how a task ended."""
        for line in self.lines[run]:
            if line.flags[3:4] in ("", " ", "S") and line.flags[0] not in "BC":
                yield line

    # How drivers ended.

    def statuses(self) -> Iterator[str]:
        for number, run in enumerate(self.evidence.runs):
            problem = self._status(number, run)
            if problem:
                yield f"{run.name} ended with {run.return_code}: {problem}; it said {run.said}"
        if not self.evidence.runs or not is_complete(self.evidence.runs[-1]):
            yield "no run went to its end"

    def _status(self, number: int, run: Run) -> str:
        if run.return_code is None:
            return "it did not end"
        signals = [deed.how for deed in self._deeds_during(run) if deed.target == "driver" and deed.action == "kill"]
        if run.return_code in ENDED_BY:
            if ENDED_BY[run.return_code] not in signals:
                return "it had got no such signal"
            # Python itself ends so, as long as it has hardly started.
            is_early = run.return_code not in (-signal.SIGTERM, -signal.SIGINT) or not (run.said or self._ran(run))
            return "" if is_early else "tasks had run"
        if run.return_code == 1:
            return self._why_1(number, run)
        return "" if run.return_code == 0 else "there is no such status"

    def _why_1(self, number: int, run: Run) -> str:
        said = "\n".join(run.said)
        if is_complete(run):
            schedule = make_schedule(self.evidence.seed, self.evidence.features)
            if schedule.exit_code and any(line.return_code for line in self.lines[number]):
                return ""
            return "nothing in it explains that"
        if CHECK_FAILED in said:
            failed = {line.task_id for line in self.lines[number] if line.return_code}
            return "" if failed else "no task had failed before the CHECK"
        if NO_ENGINE in said:
            return "" if self._deeds_during(run) else "nothing had happened to its engines"
        return "nothing explains that"

    def _deeds_during(self, run: Run) -> list[Deed]:
        """What happened between its beginning and its end, or just before and had consequences."""
        return [
            deed
            for deed in self.evidence.deeds
            if deed.done and deed.began <= run.ended and (deed.ended or deed.began) >= run.started - 1.0
        ]

    # What is written down.

    def one_line_each(self) -> Iterator[str]:
        if not self.evidence.runs:
            return
        last = len(self.evidence.runs) - 1
        counts = Counter(line.task_id for line in self.results(last))
        for task_id in self.tasks.tasks:
            if counts[task_id] != 1:
                yield f"task {task_id} has {counts[task_id]} lines in the last status file"
        for task_id in counts.keys() - self.tasks.tasks.keys():
            yield f"there is no task {task_id}, and a line of it"
        barriers = Counter(line.task_id for line in self.lines[last] if line.flags[0] in "BC")
        for task_id in self.tasks.barriers:
            if barriers[task_id] != 1:
                yield f"barrier {task_id} has {barriers[task_id]} lines in the last status file"

    def true_lines(self) -> Iterator[str]:
        for number, name in enumerate(self.names):
            for line in self.results(number):
                problem = self._untrue(line)
                if problem:
                    yield f"{name}: {problem}: {line}"
            for line in self.lines[number]:
                if (line.flags[0] == "R") != (line.return_code != 0) and line.flags[0] not in "BC":
                    yield f"{name}: the flag R is wrong: {line}"

    def _untrue(self, line: StatusLine) -> str:
        plan = self.tasks.tasks.get(line.task_id)
        token = str(ast.literal_eval(line.out)).partition("\n")[0]
        attempt = self.attempts.get(token)
        if plan is None or (plan.line, plan.repeat_index) != (line.line, line.repeat_index):
            return "there is no such task"
        if attempt is None:
            return "no attempt wrote that down"
        seen = (attempt.task, attempt.host, attempt.pid)
        if seen != (line.task_id, OWN_NAMES.get(line.node, line.node), line.pid):
            return f"the attempt was another: {attempt}"
        if attempt.ended is None:
            return f"the attempt did not come to its end: {attempt}"
        if (attempt.code, attempt.printed) != (line.return_code, line.out_bytes):
            return f"the attempt had another result: {attempt}"
        return ""

    def nothing_forgotten(self) -> Iterator[str]:
        """What is in a status file stays, and does not run again, unless it is a failure that is to be retried."""
        recorded: dict[int, StatusLine] = {}
        to_retry: set[int] = set()
        for number, run in enumerate(self.evidence.runs):
            if run.retries:
                to_retry.update(line.task_id for line in recorded.values() if line.return_code)
            for attempt in self._attempts_of(run):
                if attempt.task in recorded and attempt.task not in to_retry:
                    yield f"{run.name} ran task {attempt.task} again, which had its line: {attempt}"
            for line in self.results(number):
                before = recorded.get(line.task_id)
                if line.flags[3:4] == "S" and (before is None or before[1:] != line[1:]):
                    yield f"{run.name} skipped a task with another line: {line}; before {before}"
                elif line.flags[3:4] != "S":
                    to_retry.discard(line.task_id)
            recorded.update({line.task_id: line for line in self.results(number)})

    def _ran(self, run: Run) -> bool:
        return any(attempt.job == run.name for attempt in self.evidence.attempts)

    def _attempts_of(self, run: Run) -> Iterable[Attempt]:
        return (
            attempt for attempt in self.evidence.attempts if attempt.job == run.name and _is_of_a_task(attempt.manner)
        )

    # What ran when.

    def overlaps(self) -> Iterator[str]:
        for attempt in self.evidence.attempts:
            if attempt.overlaps:
                others = [
                    other
                    for other in self.evidence.attempts
                    if other.task == attempt.task and other.began < attempt.began and _is_of_a_task(other.manner)
                ]
                if not any(self._was_frozen(other, attempt.began) for other in others):
                    yield f"two attempts at the same time: {attempt}, before it {others}"

    def _was_frozen(self, attempt: Attempt, at: float) -> bool:
        """Whether all of its host was frozen, or had been just before."""
        return any(
            deed.action == "freeze"
            and deed.target == f"node {attempt.host}"
            and deed.began <= at <= (deed.ended or at) + FREEZE_GRACE
            for deed in self.evidence.deeds
        )

    def barriers(self) -> Iterator[str]:
        furthest: Attempt | None = None
        for attempt in self.evidence.attempts:
            plan = self.tasks.tasks.get(attempt.task)
            if plan is None or not _is_of_a_task(attempt.manner):
                continue
            if attempt.behind >= 0:
                others = [other for other in self.evidence.attempts if other.task == attempt.behind]
                if not any(self._was_frozen(other, attempt.began) for other in others):
                    yield f"task {attempt.behind} still ran when one behind a barrier began: {attempt}; {others}"
            since = self.tasks.tasks[furthest.task].since if furthest is not None else 0
            if attempt.task < since:
                until_then = self.evidence.runs[: self.names.index(attempt.job) + 1]
                if not any(run.retries for run in until_then):
                    yield f"a task before a barrier began after one behind it: {attempt}; {furthest}"
            elif furthest is None or attempt.task > furthest.task:
                furthest = attempt

    def per_engine_commands(self) -> Iterator[str]:
        by_engine: dict[tuple[str, int], list[Attempt]] = defaultdict(list)
        for attempt in self.evidence.attempts:
            by_engine[attempt.job, attempt.engine].append(attempt)
        for attempts in by_engine.values():
            tasks = [attempt for attempt in attempts if _is_of_a_task(attempt.manner)]
            starts = [attempt for attempt in attempts if attempt.manner == "start"]
            stops = [attempt for attempt in attempts if attempt.manner == "stop"]
            if len(starts) > 1 or len(stops) > 1:
                yield f"more than once on an engine: {starts} {stops}"
            for start, task in product(starts, tasks):
                if start.ended is None or task.began < start.ended:
                    yield f"a task began before START had ended: {task}, {start}"
            for stop, task in product(stops, tasks):
                if task.began > stop.began or (task.ended or 0.0) > stop.began:
                    yield f"a task had not ended before STOP: {task}, {stop}"

    def attempt_numbers(self) -> Iterator[str]:
        if not self.evidence.has_lease:
            return
        numbers: dict[tuple[str, int], int] = {}
        for attempt in self.evidence.attempts:
            if _is_of_a_task(attempt.manner):
                before = numbers.get((attempt.job, attempt.task), 0)
                if attempt.attempt <= before:
                    yield f"attempt {before} had been before it: {attempt}"
                numbers[attempt.job, attempt.task] = attempt.attempt


def _is_of_a_task(manner: str) -> bool:
    return manner not in ("start", "stop")
