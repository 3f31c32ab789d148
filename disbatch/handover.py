"""What the driver hands over to the process of its web page, and what it tells that at the end of the run.

Pure. Both go as a line each over a socket that only the two have: neither lists of processes nor their environments
show what is in it. That the socket is closed without word of an end says that the driver is gone.
"""

from __future__ import annotations

import json
from typing import TypeVar

from disbatch.records import fields, record

MOST_RERUN = 10_000
"""Characters of a command that is handed over: the line has to go through the socket at once, before anybody reads."""


@record
class Handover:
    """What a web page needs to know besides its arguments.

    `token` is what its visitors have to show; `names` are those of the hosts that they may come to, `everywhere` if the
    page is at every address of this machine. `secret` is that of the run's operators, empty where it has none; `rerun`
    is the command that runs again what failed, empty where that is longer than `MOST_RERUN`.
    """

    token: str
    names: list[str]
    everywhere: bool
    secret: str
    rerun: str


@record
class RunEnd:
    """How a run has ended: `complete` if it went to its end, `words` as its user was told.

    `counts` are those of `driver.controller.Counts`, by their names.
    """

    exit_status: int
    complete: bool
    words: str
    counts: dict[str, int]


def line(told: Handover | RunEnd) -> bytes:
    """Line that says that."""
    return json.dumps(vars(told)).encode() + b"\n"


Told = TypeVar("Told", Handover, RunEnd)


def parse(kind: type[Told], text: bytes) -> Told:
    """What `line` was made of, which was of that kind; raises ValueError."""
    found = json.loads(text)
    if not isinstance(found, dict) or set(found) != set(fields(kind)):
        raise ValueError("no line of a driver of this version")
    return kind(**found)
