"""How fast short tasks go through disbatch, side by side with `xargs -P` on the same list in the same run.

Usage: python benchmarks/throughput.py [--tasks 2000] [--slots 2] [--rounds 5]

The two take turns, so that a noisy machine is noisy for both. "run" is from the start of the first task to the end of
the last, as the status file has it; xargs has no start-up to speak of, so its whole command stands for both. A figure
is the median over the rounds, a ratio the median of the ratios round by round, each with its range.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
SHORT_RUN = 20


def run_disbatch(tasks: Path, slots: int) -> tuple[float, float]:
    """Seconds of the whole command, and of the run itself."""
    command = [sys.executable, str(CHECKOUT / "disbatch" / "__main__.py"), "-p", "run", "-s", f"localhost:{slots}"]
    began = time.perf_counter()
    subprocess.run([*command, tasks.name], cwd=tasks.parent, check=True, stderr=subprocess.DEVNULL)
    whole = time.perf_counter() - began
    status = tasks.parent / "run_status.txt"
    lines = [line.split("\t") for line in status.read_text().splitlines()]
    run = max(float(fields[9]) for fields in lines) - min(float(fields[8]) for fields in lines)
    for file in tasks.parent.glob("run_*"):
        file.unlink()
    return whole, run


def run_xargs(tasks: Path, slots: int) -> float:
    """Seconds of the whole command."""
    command = ["xargs", "-a", tasks.name, f"-P{slots}", "-d", "\\n", "-n1", "bash", "-c"]
    began = time.perf_counter()
    subprocess.run(command, cwd=tasks.parent, check=True)
    return time.perf_counter() - began


def spread(values: list[float], form: str) -> str:
    """Median of the values, with their range."""
    return f"{statistics.median(values):{form}}  ({min(values):{form}} to {max(values):{form}})"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    whole, run, xargs, short, bare = [], [], [], [], []
    with tempfile.TemporaryDirectory(prefix="disbatch-benchmark-") as directory:
        tasks, few = Path(directory) / "tasks", Path(directory) / "few"
        tasks.write_text("true\n" * asked.tasks)
        few.write_text("true\n" * SHORT_RUN)
        for _ in range(asked.rounds):
            seconds = run_disbatch(tasks, asked.slots)
            whole.append(asked.tasks / seconds[0])
            run.append(asked.tasks / seconds[1])
            xargs.append(asked.tasks / run_xargs(tasks, asked.slots))
            short.append(run_disbatch(few, asked.slots)[0])
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", "pass"], check=True)
            bare.append(time.perf_counter() - began)
    ratio_run = [a / b for a, b in zip(run, xargs, strict=True)]
    ratio_whole = [a / b for a, b in zip(whole, xargs, strict=True)]
    print(f"{asked.tasks} times true, {asked.slots} slots, {asked.rounds} rounds, Python {sys.version.split()[0]}")
    print(f"disbatch, the run itself, tasks/s      {spread(run, '.0f')}")
    print(f"disbatch, whole command, tasks/s       {spread(whole, '.0f')}")
    print(f"xargs -P{asked.slots}, tasks/s                     {spread(xargs, '.0f')}")
    print(f"ratio of the run itself to xargs       {spread(ratio_run, '.2f')}")
    print(f"ratio of the whole command to xargs    {spread(ratio_whole, '.2f')}")
    print(f"{SHORT_RUN} times true, whole command, s          {spread(short, '.3f')}")
    print(f"a bare Python start, s                 {spread(bare, '.3f')}")


if __name__ == "__main__":
    main()
