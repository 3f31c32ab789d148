"""The world that a manager asks, as data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disbatch.errors import ResourceError
from disbatch.managers.base import EngineCall, Outside, Wishes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from disbatch.managers.base import Manager, Start

ENGINE = EngineCall(("python", "disbatch", "--run=r"), "/data/a run_dbUtil.sh", ("--rank=1", "--label=J 1"))

LINE = "'/data/a run_dbUtil.sh' --engine --rank=1 '--label=J 1'"
"""The same for a shell."""

FILE = "/spool/nodes"


def world(
    files: Mapping[str, str] | None = None, commands: Collection[str] = (), names: Collection[str] = ()
) -> Outside:
    """A world with these files and commands, in which this machine has these names."""

    def read(path: str, what: str) -> str:
        if path not in (files or {}):
            raise ResourceError(f"cannot read {path}, {what}: not there")
        return (files or {})[path]

    return Outside(read, lambda command: command in commands, lambda _: names)


def starts(manager: Manager) -> list[Start]:
    """How the engines of all nodes are started."""
    return [manager.start(offer, ENGINE) for offer in manager.offers(Wishes())]
