"""Seeds that `make test` performs."""

from __future__ import annotations

EACH_TIME = (1, 2, 3, 4, 5)
"""Five of all the seeds there are; `make chaos` takes more."""

ONCE_FAILED: dict[int, str] = {}
"""Seeds that have shown a mistake, with what that was in a line. A schedule that changes takes them out of use."""
