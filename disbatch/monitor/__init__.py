"""The monitor: a run on a terminal of its own, live or printed once."""
