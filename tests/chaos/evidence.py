"""What is left of a chaotic run when it is over: what tasks, drivers and the runner wrote down.

All times are in seconds on the clock that all hosts share, CLOCK_MONOTONIC.
"""

from __future__ import annotations

import ast
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Run:
    """One driver, from its start to its end; `return_code` is None for one that did not end."""

    name: str
    started: float
    retries: bool
    ended: float = 0.0
    return_code: int | None = None
    said: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


@dataclass
class Deed:
    """An event of the schedule as it was performed, and until when, if it was undone; `done`: it found its target."""

    event: str
    action: str
    target: str
    how: str
    host: str
    began: float
    ended: float | None
    done: bool
    note: str


@dataclass
class Attempt:
    """What an attempt at a task, or at a per-engine command, wrote down of itself; `ended` is None if it was killed."""

    token: str
    task: int
    manner: str
    job: str
    host: str
    engine: int
    pid: int
    attempt: int
    began: float
    overlaps: bool
    behind: int
    ended: float | None = None
    code: int | None = None
    printed: int | None = None


@dataclass
class Evidence:
    """All of it. `problems` are what the runner itself saw, `left` the processes that lived on after the end."""

    seed: int
    features: list[str]
    has_lease: bool
    runs: list[Run]
    deeds: list[Deed]
    attempts: list[Attempt]
    problems: list[str]
    left: list[str]

    def save(self, path: Path) -> None:
        """Write it to a file."""
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


def load(path: Path) -> Evidence:
    """Read what `save` has written."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name, of_kind in (("runs", Run), ("deeds", Deed), ("attempts", Attempt)):
        found[name] = [of_kind(**each) for each in found[name]]
    return Evidence(**found)


def attempts_in(journal: str) -> list[Attempt]:
    """Attempts that a journal tells of, in the order of their beginnings."""
    attempts: dict[str, Attempt] = {}
    for line in journal.splitlines():
        said = ast.literal_eval(line)
        if said["what"] == "end":
            attempt = attempts[said["token"]]
            attempt.ended, attempt.code, attempt.printed = said["at"], said["code"], said["printed"]
        else:
            attempts[said["token"]] = Attempt(
                began=said["at"], **{name: value for name, value in said.items() if name not in ("what", "at")}
            )
    return sorted(attempts.values(), key=lambda attempt: attempt.began)
