"""What the server has to say about its clients, in few enough lines that strangers cannot fill a disk with them.

Pure: the clock and the log are arguments. It must not know what there is to complain of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Complaints:
    """Writes lines to `log`, if there is one.

    At most `burst` lines in each `window` (seconds); what was left out is counted in the first line of the next window.
    """

    def __init__(
        self, log: Callable[[str], None] | None, clock: Callable[[], float], burst: int = 5, window: float = 60.0
    ) -> None:
        self._log = log
        self._clock = clock
        self._burst = burst
        self._window = window
        self._window_end = -1.0
        self._written = 0
        self._left_out = 0

    def say(self, text: str) -> None:
        """Write one line, or count it."""
        if self._log is None:
            return
        now = self._clock()
        if now >= self._window_end:
            self._window_end = now + self._window
            self._written = 0
        if self._written >= self._burst:
            self._left_out += 1
            return
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        self._log(f"{text} ({left_out} more lines of this kind were left out)" if left_out else text)
