"""A program's side of a run: signs in, submits, and reads what has become of its tasks."""

from __future__ import annotations

import json
from typing import Any

from disbatch.kvsstcp import KVSClient

PATIENCE = 20.0
"""Seconds that a value may take to come; only a failure ever waits that long."""


class Source:
    """Submits tasks over `client`, without one over a connection to the store that the environment names."""

    def __init__(self, client: KVSClient | None = None, *, sign_in: bool = True) -> None:
        self.client = client or KVSClient()
        if sign_in:
            self.put("task source name", "program")
            self.put("task source done task", "that was all")
            self.put("task source result key", "outcome")
            self.put("task source task key", "work")

    def put(self, key: str, value: str) -> None:
        """Put a raw value."""
        self.client.put(key, value, False)

    def get(self, key: str) -> str:
        """Take a raw value."""
        value = self.client.get(key, False, PATIENCE)
        assert isinstance(value, bytes)
        return value.decode()

    def submit(self, *lines: str) -> None:
        """Submit lines, all at once."""
        self.put("work", "\n".join(lines))

    def finish(self) -> None:
        """Say that nothing more comes."""
        self.put("work", "that was all")
        self.client.confirm()

    def next_done(self) -> int:
        """Wait for a task to end; its id."""
        return int(self.get("outcome done tasks"))

    def result(self, task_id: int) -> dict[str, Any]:
        """Wait for the result of a task."""
        reply = self.client.get(f"outcome {task_id}", "with its tag", PATIENCE)
        assert isinstance(reply, tuple)
        assert reply[0] == b"JSON"
        return dict(json.loads(reply[1]))

    def results(self, count: int) -> list[dict[str, Any]]:
        """Wait for that many tasks to end; their results, in the order of the tasks."""
        return [self.result(task_id) for task_id in sorted(self.next_done() for _ in range(count))]
