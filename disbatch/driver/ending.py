"""The end of a run: the last lines of its status file, what its user is told then, and how to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disbatch.errors import DisbatchError
from disbatch.options import RESUME_ADVICE, RETRY_ADVICE
from disbatch.runfiles import SCRIPT_ENDING, STATUS_ENDING, script_command
from disbatch.terminal import tell
from disbatch.values import shell_word

if TYPE_CHECKING:
    from collections.abc import Callable

    from disbatch.driver.controller import Controller, Counts, Use
    from disbatch.driver.feeder import EarlierRuns
    from disbatch.driver.recorder import Recorder

KINDS_TOLD = 10
"""Reasons of failures that are told at the end of a run, at most; there is a command that tells all."""

MOST_DIGESTED = 100_000
"""Failures that are grouped by their reasons at the end of a run, at most: so many take 4 seconds."""


def close(recorder: Recorder, path: str, cut_short: EarlierRuns | None = None) -> bool:
    """Close the status file at `path`; whether every line has got into it.

    `cut_short`: the earlier runs of one that has not gone to its end. What they know of tasks that it has not come to
    is written down, too: the same command is to find in this file alone all that it has found before.
    """
    failures: list[Exception] = []
    if cut_short is not None:
        try:
            with open(path, "rb") as recorded:
                recorder.add_all(cut_short.lines_still_true(recorded))
        except (DisbatchError, OSError) as error:
            failures.append(error)
    try:
        recorder.close()
    except DisbatchError as error:
        failures.append(error)
    if failures:
        missing = recorder.unwritten
        tell(f"{failures[0]}{f'; lines missing in it: {missing}' if missing else ''}")
    return not failures


def sum_up(
    controller: Controller,
    status_file: str,
    resume_command: Callable[..., str],
    elapsed: float,
    *,
    complete: bool,
    resumed: bool,
    retry: bool,
) -> None:
    """Print how the run went, what failed and, if it was cut short, the command that goes on.

    That is left out where it cannot get any further. The run has taken `elapsed` seconds; `resumed` and `retry` are
    what the user has asked for.
    """
    if not any(vars(controller.counts).values()):
        if complete:
            tell("No tasks to run.")
            return
        somebody_came = any(engine.came is not None for engine in controller.fleet.engines)
        if not (resumed or controller.told_to_end or somebody_came):
            return  # what has kept the run from beginning has been told, and is all there is to tell
    counts = controller.counts
    tell(f"{counts.in_words}; status file: {shell_word(status_file)}")
    base = status_file.removesuffix(STATUS_ENDING)
    smooth = complete and not (counts.failed or counts.lost or counts.rerun)
    tell(_course(elapsed, controller.use, counts) + ("" if smooth else f"; logs: {shell_word(base)}_*.log"))
    can_go_on = not complete and controller.can_be_resumed
    goes_on_with_failed = can_go_on and controller.check_failed
    if counts.failed:
        of_tasks = _tell_failures(status_file, counts.failed, f"{script_command(base + SCRIPT_ENDING)} --failures")
        if of_tasks and (complete or can_go_on) and not goes_on_with_failed:
            tell(f"{RETRY_ADVICE}{resume_command(status_file, retry=not retry)}")
    if can_go_on:
        tell(f"{RESUME_ADVICE}{resume_command(status_file, retry=goes_on_with_failed and not retry)}")


def _course(elapsed: float, use: Use, counts: Counts) -> str:
    """How long the run took, how busy its places were, and what was lost with an engine."""
    from disbatch.watch.words import duration, number  # noqa: PLC0415 - a run waits for nothing that its end needs

    parts = [f"took {duration(elapsed)}"]
    if use.offered:
        parts.append(f"places busy {100 * min(1.0, use.taken / use.offered):.0f} % of the time")
    if counts.lost:
        parts.append(f"attempts lost with their engine: {number(counts.lost)}")
    if counts.rerun:
        parts.append(f"run again: {number(counts.rerun)}")
    return ", ".join(parts)


def _tell_failures(status_file: str, failed: int, all_by: str) -> bool:
    """Print what failed, and of what; whether something is to be run again."""
    if failed > MOST_DIGESTED:
        tell(f"to see what failed: {all_by}")
        return True
    from disbatch.report import failures, wording  # noqa: PLC0415 - most runs need it not at all

    try:
        digest = failures.read([status_file])
    except DisbatchError as error:
        tell(f"what failed cannot be told: {error}")
        return True
    except KeyboardInterrupt:
        tell(f"to see what failed: {all_by}")  # of a million failures it takes some seconds
        return True
    if digest.failed:
        tell("\n".join(wording.lines(digest, most=KINDS_TOLD, all_by=all_by)))
    return digest.failed > digest.per_engine
