"""The driver's memory does not grow with the number of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.support import PATIENCE, finish

if TYPE_CHECKING:
    from tests.e2e.support import Workplace

WAIT = "touch {name}; until [ -e go ]; do sleep 0.02; done"

ALLOWANCE = 2048  # KiB


def peak_memory(pid: int) -> int:
    """The most that a process has had in memory until now, in KiB."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines())
    return int(status["VmHWM"].split()[0])


def peak_of_driver(work: Workplace, name: str, *lines: str, resume: str = "") -> int:
    """What the driver's memory has been at most when all tasks but the last, one that is added here, have ended."""
    (work.directory / "go").unlink(missing_ok=True)
    path = work.write(name, *lines, "#DISBATCH BARRIER", WAIT.format(name=f"{name}.end"))
    options = ["-r", resume] if resume else []
    run = work.start("-s", "localhost:2", "-p", f"{name}.run", *options, path.name)
    work.await_file(f"{name}.end")
    peak = peak_memory(run.pid)
    work.write("go")
    assert finish(run, timeout=PATIENCE).returncode == 0
    return peak


def test_tasks_that_run(work: Workplace) -> None:
    few = peak_of_driver(work, "few", *["true"] * 500)
    many = peak_of_driver(work, "many", *["true"] * 3000)
    assert many < few + ALLOWANCE


def test_a_hundred_thousand_lines_ahead(work: Workplace) -> None:
    """All are in the file, none has its turn: what lies ahead is not in memory."""
    peaks = {}
    for count in (500, 100_000):
        name = f"lines{count}"
        (work.directory / "go").unlink(missing_ok=True)
        work.write(name, WAIT.format(name=f"{name}.begun"), *["true"] * count)
        run = work.start("-s", "localhost:1", "-p", f"{name}.run", name)
        work.await_file(f"{name}.begun")
        peaks[count] = peak_memory(run.pid)
        run.terminate()
        assert finish(run, timeout=PATIENCE).returncode == 143
    assert peaks[100_000] < peaks[500] + ALLOWANCE


def test_a_hundred_thousand_lines_of_which_few_are_left(work: Workplace) -> None:
    """Every line goes through the driver; what it remembers of the earlier run is 8 bytes of each."""
    peaks = {}
    for count in (1000, 100_000):
        record = "    \t{0}\t{1}\t-1\tlocalhost\t9\t0\t0.001\t1.000\t1.001\t0\t''\t0\t''\ttrue\n"
        (work.directory / f"old{count}").write_text(
            "".join(record.format(n, n + 1) for n in range(count)), encoding="ascii"
        )
        peaks[count] = peak_of_driver(work, f"lines{count}", *["true"] * (count + 10), resume=f"old{count}")
        assert len((work.directory / f"lines{count}.run_status.txt").read_bytes().splitlines()) == count + 12
    assert peaks[100_000] < peaks[1000] + 8 * 100_000 / 1024 + ALLOWANCE
