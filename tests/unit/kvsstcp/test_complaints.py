"""`complaints`, alone: the clock is a number, the log a list."""

from __future__ import annotations

from disbatch.kvsstcp.complaints import Complaints


def test_complaints_are_few_and_counted() -> None:
    now, lines = [0.0], list[str]()
    complaints = Complaints(lines.append, lambda: now[0], burst=2, window=60)
    for _ in range(10):
        complaints.say("bad")
    now[0] = 60.0
    complaints.say("worse")
    complaints.say("worse")
    assert lines == ["bad", "bad", "worse (8 more lines of this kind were left out)", "worse"]


def test_without_a_log_nothing_is_counted() -> None:
    Complaints(None, lambda: 0.0).say("bad")
