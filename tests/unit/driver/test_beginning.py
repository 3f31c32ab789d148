"""What a run begins with, or why it does not: `begin` alone, in a directory with a file of tasks."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from disbatch import options
from disbatch.driver import address, beginning
from disbatch.errors import DisbatchError
from disbatch.statusfile import skipped_line, task_line
from disbatch.tasks import NO_REPEAT, Task
from disbatch.values import Address
from tests.slurm.environments import ENVIRONMENTS
from tests.unit.driver.simulation import outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from disbatch.driver.beginning import Beginning

LINE = task_line(Task(0, 1, NO_REPEAT, b"true"), "node", outcome(0))


class Bench:
    """A directory in which runs begin with the prefix `run`; what has begun is ended with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begun: list[Beginning] = []
        (folder / "tasks").write_bytes(b"true\n")

    def begin(self, *arguments: str, hosts: tuple[str, ...] = ("-s", "localhost:2")) -> Beginning:
        asked = options.parse_driver([*hosts, "-p", "run", *arguments, "tasks"], "disbatch")
        self.begun.append(beginning.begin(asked))
        return self.begun[-1]

    @property
    def names(self) -> set[str]:
        """Names of the files that are there beside the tasks."""
        return set(os.listdir(self.folder)) - {"tasks"}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(address, "advertised", lambda _wanted, port, _hosts: Address("driver.example.org", port))
    made = Bench(tmp_path)
    yield made
    for begun in made.begun:
        begun.recorder.close()
        begun.listening.close()
        assert begun.task_file is not None
        os.close(begun.task_file)
        begun.log.close()


def test_a_run_begins_with_all_that_it_needs(bench: Bench) -> None:
    begun = bench.begin("--mailTo", "me")
    assert bench.names == {"run_status.txt", "run_dbUtil.sh", "run_driver.log"}
    assert begun.conflicts == ()
    assert begun.mail_server == Address("localhost", 25)
    assert begun.public == Address("driver.example.org", begun.port)
    assert begun.secret is not None
    assert begun.secret.decode() in (bench.folder / "run_dbUtil.sh").read_text()
    assert (begun.earlier, begun.other_store, begun.aside) == (None, None, None)
    assert begun.task_file is not None
    assert not os.get_inheritable(begun.task_file)


def test_what_an_earlier_run_completed_is_carried_over_before_its_file_is_set_aside(bench: Bench) -> None:
    (bench.folder / "run_status.txt").write_bytes(LINE)
    begun = bench.begin("-r", "run_status.txt")
    assert begun.aside == f"{bench.folder}/run_status.txt.1"
    assert (bench.folder / "run_status.txt.1").read_bytes() == LINE
    assert (bench.folder / "run_status.txt").read_bytes() == skipped_line(LINE)


@pytest.mark.parametrize("standard_output", ["/dev/full", None])
def test_the_path_of_the_script_is_printed_or_nothing_has_changed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, standard_output: str | None
) -> None:
    (bench.folder / "run_status.txt").write_bytes(LINE)
    if standard_output is None:  # closed by whoever has started this
        monkeypatch.setattr(sys, "stdout", None)
        assert bench.begin("-S", hosts=()).conflicts == ()
        return
    with open(standard_output, "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(DisbatchError) as error:
            bench.begin("-S", hosts=())
        with suppress(OSError):
            full.close()
    path = f"{bench.folder}/run_dbUtil.sh"
    assert str(error.value) == f"cannot print the path of {path} to standard output: No space left on device"
    assert bench.names == {"run_status.txt"}
    assert (bench.folder / "run_status.txt").read_bytes() == LINE


def test_a_log_that_was_there_before_stays_where_a_run_does_not_begin(bench: Bench) -> None:
    (bench.folder / "mine").write_text("earlier\n")
    (bench.folder / "run_dbUtil.sh").mkdir()
    with pytest.raises(IsADirectoryError):
        bench.begin("--logfile", "mine")
    assert bench.names == {"mine", "run_dbUtil.sh"}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_before_the_run_has_begun_changes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: int
) -> None:
    (bench.folder / "run_status.txt").write_bytes(LINE)
    monkeypatch.setattr(address, "advertised", lambda *_: os.kill(os.getpid(), number))
    former = signal.getsignal(number)
    with pytest.raises(DisbatchError, match=f"got {number.name} before the run had begun") as error:
        bench.begin("-r", "run_status.txt")
    assert error.value.exit_status == status
    assert bench.names == {"run_status.txt"}
    assert (bench.folder / "run_status.txt").read_bytes() == LINE
    assert signal.getsignal(number) is former


def test_a_signal_that_is_ignored_stays_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def advertised(*_: object) -> Address:
        os.kill(os.getpid(), signal.SIGHUP)
        return Address("here", 1)

    monkeypatch.setattr(address, "advertised", advertised)
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert bench.begin().public == Address("here", 1)
    finally:
        signal.signal(signal.SIGHUP, former)


def test_in_a_job_what_contradicts_is_told_of(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENTS["sbatch -c 2 -n 3"].items():
        monkeypatch.setenv(name, value)
    assert bench.begin("-c", "1", hosts=()).conflicts == ("-c 1 counts, and not the 2 that Slurm was asked for",)


def test_a_job_that_cannot_run_a_task_is_a_mistake(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENTS["sbatch -n 6"].items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DisbatchError, match="no node of job 2 has the 5 cores that a task needs"):
        bench.begin("-c", "5", hosts=())
    assert bench.names == set()
