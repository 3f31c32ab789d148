"""What the processes of a run cost while nothing happens: ten tasks sleep.

Usage: python -m benchmarks.idle [--seconds 10] [--rounds 6]

Each round is so many seconds of the same run, for all of its processes at once.
"""

from __future__ import annotations

import time

from benchmarks.measuring import (
    POLL,
    PYTHON,
    cpu_of,
    descendants,
    of_status,
    parser_of,
    print_table,
    running,
    spread,
    workplace,
    write_tasks,
)

TASKS = 10
ROLES = ("driver", "context", "keeper", "engine")
"""Each starts the next, and the last one the tasks."""


def main() -> None:
    """Measure, and print a table."""
    parser = parser_of(__doc__, rounds=6)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    percent: dict[str, list[float]] = {role: [] for role in ROLES}
    wakings: dict[str, list[float]] = {role: [] for role in ROLES}
    with workplace() as directory:
        write_tasks(directory / "tasks", [f"sleep {asked.seconds * asked.rounds + 3600:.0f}"] * TASKS)
        with running("-s", f"localhost:{TASKS}", "tasks", directory=directory) as driver:
            while len(below := descendants(driver.pid)) < len(ROLES) - 1 + TASKS or below[-1].name != "sleep":
                time.sleep(POLL)
            pids = dict(zip(ROLES, [driver.pid, *(process.pid for process in below)], strict=False))
            time.sleep(asked.seconds / 10)
            for _ in range(asked.rounds):
                before = {role: (cpu_of(pid), of_status(pid, "voluntary_ctxt_switches")) for role, pid in pids.items()}
                began = time.perf_counter()
                time.sleep(asked.seconds)
                took = time.perf_counter() - began
                for role, pid in pids.items():
                    cpu, switches = before[role]
                    percent[role].append((cpu_of(pid) - cpu) / took * 100)
                    wakings[role].append((of_status(pid, "voluntary_ctxt_switches") - switches) / took)
    rows = [["", "CPU, % of a core", "wakings/s"]]
    rows += [[role, spread(percent[role], ".3f"), spread(wakings[role], ".1f")] for role in ROLES]
    print_table(f"{TASKS} tasks sleep; {asked.rounds} times {asked.seconds:g} s, {PYTHON}", rows)


if __name__ == "__main__":
    main()
