"""The end of a run: the last lines of its status file, what its user is told then, and how to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disbatch.errors import DisbatchError
from disbatch.options import RESUME_ADVICE
from disbatch.terminal import tell
from disbatch.values import shell_word

if TYPE_CHECKING:
    from collections.abc import Callable

    from disbatch.driver.controller import Controller
    from disbatch.driver.feeder import EarlierRuns
    from disbatch.driver.recorder import Recorder


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
    *,
    complete: bool,
    resumed: bool,
    retry: bool,
) -> None:
    """Print how the run went and, if it was cut short, the command that goes on, unless that cannot get any further.

    `resumed` and `retry` are what the user has asked for.
    """
    if not any(vars(controller.counts).values()):
        if complete:
            tell("No tasks to run.")
            return
        somebody_came = any(engine.came is not None for engine in controller.fleet.engines)
        if not (resumed or controller.told_to_end or somebody_came):
            return  # what has kept the run from beginning has been told, and is all there is to tell
    tell(f"{controller.counts.in_words}; status file: {shell_word(status_file)}")
    if not complete and controller.can_be_resumed:
        command = resume_command(status_file, retry=controller.check_failed and not retry)
        tell(f"{RESUME_ADVICE}{command}")
