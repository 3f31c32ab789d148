"""What a short run takes: until its first task starts, and in all.

Usage: python -m benchmarks.startup [--rounds 20]

In each round a Python that does nothing, and then 20 times `true` in two places.
"""

from __future__ import annotations

import time

from benchmarks.measuring import (
    DISBATCH,
    PYTHON,
    clear,
    parser_of,
    print_table,
    ratios,
    read_status,
    seconds_of,
    seconds_of_python,
    spread,
    workplace,
    write_tasks,
)

TASKS = 20


def main() -> None:
    """Measure, and print a table."""
    asked = parser_of(__doc__, rounds=20).parse_args()
    bare, first, whole = [], [], []
    with workplace() as directory:
        write_tasks(directory / "tasks", ["true"] * TASKS)
        for _ in range(asked.rounds):
            bare.append(seconds_of_python())
            began = time.time()
            whole.append(seconds_of(*DISBATCH, "-s", "localhost:2", "tasks", directory=directory))
            first.append(read_status(directory)[0].start - began)
            clear(directory)
    rows = [["", "s", "to a bare Python"]]
    for name, values in (("a bare Python", bare), ("until the first task starts", first), ("whole command", whole)):
        rows.append([name, spread(values, ".3f"), spread(ratios(values, bare), ".1f")])
    print_table(f"{TASKS} times true, 2 slots, {asked.rounds} rounds, {PYTHON}", rows)


if __name__ == "__main__":
    main()
