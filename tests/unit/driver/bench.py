"""What surrounds a driver as it begins and ends: a directory with a file of tasks, and another store."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

from disbatch.driver import beginning
from tests.slurm.environments import ENVIRONMENTS
from tests.unit.driver.examples import task

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CONNECTION: Any = "the connection"
HERE = ("-s", "localhost:2")
TRUE, FALSE = task(0), task(1, b"false")


def write_to_full_disk(_descriptor: int, _data: bytes) -> int:
    """Stand for `os.write`."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Elsewhere:
    """Stands for connecting to a store that somebody else serves."""

    def __init__(self) -> None:
        self.connected: list[tuple[str, int, str]] = []
        self.failure: Exception | None = None
        self.refusal: Exception | None = None

    def __call__(self, host: str, port: int, *, secret: str) -> Elsewhere:
        if self.failure:
            raise self.failure
        self.connected.append((host, port, secret))
        return self

    def confirm(self) -> None:
        if self.refusal:
            raise self.refusal

    def clone(self) -> Elsewhere:
        return self

    def detach(self) -> Any:  # noqa: ANN401 - in the place of a socket
        return CONNECTION


class Bench:
    """A directory in which to be, with the tasks TRUE and FALSE in a file, and an environment that names nothing."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self.elsewhere = Elsewhere()
        (folder / "tasks").write_bytes(b"true\nfalse\n")
        monkeypatch.chdir(folder)
        for variable in ("DISBATCH_SSH_NODELIST", "DISBATCH_SMTP", "KVSSTCP_HOST", "KVSSTCP_PORT", "KVSSTCP_SECRET"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr(beginning, "KVSClient", self.elsewhere)

    def be_in_job(self, submitted: str) -> None:
        """Have the environment of the job of Slurm that was submitted by these words."""
        for name, value in ENVIRONMENTS[submitted].items():
            self._monkeypatch.setenv(name, value)

    @property
    def names(self) -> set[str]:
        """Names of the files that are there beside the tasks."""
        return set(os.listdir(self.folder)) - {"tasks"}

    def content(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def write(self, name: str, *lines: bytes) -> None:
        (self.folder / name).write_bytes(b"".join(lines))

    @property
    def modes(self) -> dict[str, int]:
        """Rights of each of these files."""
        return {name: stat.S_IMODE((self.folder / name).stat().st_mode) for name in self.names}
