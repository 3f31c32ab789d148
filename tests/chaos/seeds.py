"""Seeds that `make test` performs."""

from __future__ import annotations

EACH_TIME = (1, 2, 3, 4, 5)
"""Five of all the seeds there are; `make chaos` takes more."""

ONCE_FAILED = {
    82: "an ssh to a host without power outlived its context, which was killed, for as long as TCP lets it",
    122: "what a task had moved into a session of its own lived on while the task ran again elsewhere",
    1022: "a child of the engine that was about to become a task's bash was taken for the engine, and killed",
}
"""Seeds that have shown a mistake, with what that was in a line. A schedule that changes takes them out of use."""
