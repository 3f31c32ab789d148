"""Performs the schedule of a seed in namespaces of its own, and judges what came of it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.chaos import check, evidence
from tests.chaos.schedule import FEATURES, make_schedule
from tests.e2e.support import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

READY = FEATURES
"""What may happen."""

LIMIT = 180.0
"""Seconds after which a seed is given up for which even the runner has not ended."""

NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def perform(seed: int, directory: Path, features: Sequence[str] = READY) -> list[str]:
    """Have it happen, with all there is to know of it left in a directory that is made for it; what was wrong."""
    directory.mkdir(parents=True)
    (directory / "schedule").write_text(f"{make_schedule(seed, features)}\n", encoding="utf-8")
    command = [*NAMESPACES, sys.executable, "-m", "tests.chaos.runner", str(seed), str(directory), *features]
    with (directory / "runner.log").open("wb") as log:
        # Killed after the time limit, it takes all with it that it has started.
        try:
            done = subprocess.run(
                command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            return [f"the runner has not ended within {LIMIT} s"]
    if done.returncode:
        return [f"the runner failed: {(directory / 'runner.log').read_text(encoding='utf-8', errors='replace')}"]
    return judge(directory)


def judge(directory: Path) -> list[str]:
    """What was wrong, by the evidence that was left in a directory; it is put there in words, too."""
    found = evidence.load(directory / "evidence.json")
    wrongs = check.wrongs(found)
    zero = min([attempt.began for attempt in found.attempts], default=0.0)
    happened = [
        (deed.began, f"{deed.event}: {'done' if deed.done else 'NOT DONE'} {deed.note}") for deed in found.deeds
    ] + [(deed.ended, f"undone: {deed.event}") for deed in found.deeds if deed.ended is not None]
    for run in found.runs:
        happened += [(run.started, f"{run.name} begins"), (run.ended, f"{run.name} ends with {run.return_code}")]
    story = [f"{at - zero:6.2f} {text}" for at, text in sorted(happened)]
    (directory / "happened").write_text("\n".join([*story, "", *wrongs, ""]), encoding="utf-8")
    return wrongs
