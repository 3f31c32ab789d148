"""Gets the lines of a run into its status file: at once, or as soon as the disk takes them; and onto the disk.

It must not know what a line means, nor what the run does meanwhile.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from disbatch.driver.syncer import Syncer
from disbatch.errors import DisbatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from disbatch.driver.recorder import Recorder
    from disbatch.eventloop import EventLoop, Timer

RETRY_PERIOD = 1.0
"""Seconds between two tries to write what the disk did not take."""

SYNC_PERIOD = 0.05
"""Seconds from the beginning of one sync to that of the next, at least."""


class Clerk:
    """Writes lines, and holds back those that cannot be written, and all behind them, until they can.

    `on_recorded` gets lines once they are in the file. `on_held_back` is called when lines cannot be written,
    `on_written` when all of them are again, and on disk. The user hears of both by `tell`.
    """

    def __init__(
        self,
        loop: EventLoop,
        recorder: Recorder,
        tell: Callable[[str], None],
        on_recorded: Callable[[Sequence[bytes]], None] | None,
        on_held_back: Callable[[], None],
        on_written: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._recorder = recorder
        self._tell = tell
        self._on_recorded = on_recorded
        self._on_held_back = on_held_back
        self._on_written = on_written
        self._lines: list[bytes] = []
        self.holds_back = False
        """Whether lines wait for the disk."""
        self._retry: Timer | None = None
        self._syncer: Syncer | None = None
        self._next_sync: Timer | None = None
        self._last_sync = -SYNC_PERIOD
        self._hurried = False
        self._doubtful = False
        """Whether a sync has failed, so that the next one may have nothing to do and succeed for that reason."""

    def add(self, line: bytes) -> None:
        """Collect a line."""
        self._recorder.add(line)
        self._lines.append(line)

    def write(self) -> bool:
        """Write what was collected; whether all lines are in the file, and nothing is held back."""
        if not self.holds_back:
            try:
                self._recorder.flush()
            except DisbatchError as error:
                self._hold_back(error.message)
            else:
                self._hand_on()
                self._sync_in_time()
        return not self.holds_back

    def _hand_on(self) -> None:
        lines, self._lines = self._lines, []
        if lines and self._on_recorded is not None:
            self._on_recorded(lines)

    # What cannot be written.

    def _hold_back(self, reason: str) -> None:
        if not self.holds_back:
            self.holds_back = True
            what = "nothing is started until that works, and nothing is lost"
            self._tell(f"{reason}; {what} (make room for {self._recorder.path}; Ctrl-C ends the run)")
            self._on_held_back()
        if self._retry is None:
            self._retry = self._loop.after(RETRY_PERIOD, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        try:
            if self._doubtful:
                self._recorder.write_again()
            self._recorder.flush()
        except DisbatchError as error:
            self._hold_back(error.message)
            return
        self._go_on_or_sync()

    def _go_on_or_sync(self) -> None:
        """Go on, now that all is written, if it is on disk."""
        if self._recorder.unsynced:
            self._sync()
            return
        self.holds_back = False
        self._tell("the status file can be written again; the run goes on")
        self._hand_on()
        self._on_written()

    # What is not on disk.

    def _sync_in_time(self) -> None:
        if not self._recorder.unsynced or self._next_sync is not None or (self._syncer and self._syncer.busy):
            return
        due = self._last_sync + SYNC_PERIOD - self._loop.now()
        if due > 0 and not self._hurried:
            self._next_sync = self._loop.after(due, self._sync)
        else:
            self._sync()

    def _sync(self) -> None:
        self._next_sync = None
        if self._syncer is None:
            self._syncer = Syncer(self._loop, self._recorder.sync, self._sync_ended)
        if not self._syncer.busy:
            self._last_sync = self._loop.now()
            self._syncer.start()

    def _sync_ended(self, result: int | OSError) -> None:
        self._doubtful = isinstance(result, OSError)
        if isinstance(result, OSError):
            self._hold_back(f"cannot write the status file: {result.strerror}")
            return
        self._recorder.synced(result)
        if not self.holds_back:
            self._sync_in_time()
        elif self._retry is None:
            self._try_again()  # lines may have come meanwhile

    # The end.

    def hurry(self) -> None:
        """From now on bring to disk at once what is written."""
        self._hurried = True
        if self._next_sync is not None:
            self._next_sync.cancel()
            self._sync()

    @property
    def is_settled(self) -> bool:
        """Whether all lines are in the file, and on disk."""
        return not (self.holds_back or self._lines or self._recorder.unsynced)

    def close(self) -> None:
        """Try nothing more; what is not in the file or on disk by now is left to the recorder."""
        for timer in (self._retry, self._next_sync):
            if timer is not None:
                timer.cancel()
        if self._syncer is not None and isinstance(self._syncer.close(), OSError):
            with suppress(DisbatchError):
                self._recorder.write_again()
