"""A thread for what may take long and is not to hold up the loop: bringing the status file to disk.

It must not know what is brought there, nor when.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from disbatch.eventloop import READ

if TYPE_CHECKING:
    from collections.abc import Callable

    from disbatch.eventloop import EventLoop


class Syncer:
    """Calls `work` in its thread, once for each `start`, and then `ended` with what came of it in a turn of the loop.

    What comes of it is the result of `work`, or the OSError that it raised.
    """

    def __init__(self, loop: EventLoop, work: Callable[[], int], ended: Callable[[int | OSError], None]) -> None:
        self._loop = loop
        self._work = work
        self._ended = ended
        self._result: int | OSError = 0
        self._rest = threading.Lock()
        """Free for a moment when there is something to be done."""
        self._rest.acquire()
        self._closing = False
        self.busy = False
        """Whether `ended` is still to be called for a `start`."""
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        loop.watch(self._wake, READ, self._awake)
        self._thread: threading.Thread | None = threading.Thread(target=self._go_round, name="syncer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # there is a limit to threads: the loop has to wait
            self._thread = None

    def start(self) -> None:
        """Have it done; only when the last time has ended."""
        self.busy = True
        if self._thread is None:
            self._do()
        else:
            self._rest.release()

    def _go_round(self) -> None:
        while True:
            self._rest.acquire()
            if self._closing:
                return
            self._do()

    def _do(self) -> None:
        try:
            self._result = self._work()
        except OSError as error:
            self._result = error
        os.eventfd_write(self._wake, 1)

    def _awake(self, _mask: int) -> None:
        os.eventfd_read(self._wake)
        self.busy = False
        self._ended(self._result)

    def close(self) -> int | OSError:
        """Wait until nothing is being done, and nothing can be any more; what came of the last time that it was."""
        if self._thread is not None:
            self._closing = True
            if self._rest.locked():
                self._rest.release()
            self._thread.join()
        self._loop.unwatch(self._wake)
        os.close(self._wake)
        return self._result
