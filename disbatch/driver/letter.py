"""What the mails on a run say, and when one is due.

Pure. It must not know how a mail travels. All that a letter says may come from a hostile hand: names of runs, commands.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from typing import TYPE_CHECKING

from disbatch.driver.controller import Counts
from disbatch.records import record

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_LINES = 1000
"""Status lines in one mail; of more, the last ones."""

LONGEST_LINE = 900
"""Characters of a line in a mail, less than the 998 bytes that SMTP carries."""


@record
class Letter:
    """A mail to be: what it tells of; `news` says what has become of the run."""

    run: str
    status_file: str
    counts: Counts
    news: str
    lines: tuple[bytes, ...]
    left_out: int

    @property
    def subject(self) -> str:
        """One printable line: run, news, tasks finished and failed."""
        named = " ".join(filter(None, [harmless(self.run), self.news]))
        return f"{named}: {self.counts.finished} finished, {self.counts.failed} failed"

    @property
    def body(self) -> str:
        """Lines of printable characters and tabs, each at most `LONGEST_LINE` long."""
        text = [f"{self.counts.in_words}; status file: {self.status_file}", ""]
        if self.left_out:
            text.append(f"({self.left_out} earlier line{'s' * (self.left_out != 1)} left out here)")
        # Status lines are valid UTF-8: what cannot be decoded is a character that was cut in two.
        text += [line.decode(errors="ignore") for line in self.lines]
        return "".join(f"{_shortened(harmless(line))}\n" for line in text)


class Digest:
    """What there is to tell since the last letter, bounded in memory, however much that is.

    A letter is due when the number of finished tasks reaches or passes a multiple of `frequency`, and at the end.
    """

    def __init__(self, run: str, status_file: str, frequency: int) -> None:
        self._run = run
        self._status_file = status_file
        self._frequency = frequency
        self._lines: deque[bytes] = deque(maxlen=MOST_LINES)
        self._number_of_lines = 0
        self._counts = Counts()
        self._told_of = 0
        self._news = ""

    def add(self, lines: Iterable[bytes], counts: Counts) -> None:
        """Take in lines of the status file, and the counts that go with them."""
        for line in lines:
            # A little more than is shown, so that it shows that there was more.
            self._lines.append(line.removesuffix(b"\n")[: 4 * LONGEST_LINE])
            self._number_of_lines += 1
        self._counts = copy(counts)

    def end(self, counts: Counts, *, complete: bool) -> None:
        """Take in the final counts: the next letter is the last one."""
        self._counts = copy(counts)
        self._news = "has ended" if complete else "was cut short"

    @property
    def ended(self) -> bool:
        """Whether the next letter, or the one that was taken last, is the last one."""
        return bool(self._news)

    @property
    def is_due(self) -> bool:
        """Whether there is a letter to be sent."""
        if self.ended:
            return True
        return self._counts.finished // self._frequency > self._told_of // self._frequency

    def take(self) -> Letter:
        """Return the letter that is due; what it tells of is forgotten here."""
        lines = tuple(self._lines)
        left_out = self._number_of_lines - len(lines)
        self._lines.clear()
        self._number_of_lines = 0
        self._told_of = self._counts.finished
        return Letter(self._run, self._status_file, self._counts, self._news, lines, left_out)


def harmless(text: str) -> str:
    """`text` in one line, with what is not printable, tabs aside, escaped."""
    if text.replace("\t", "").isprintable():
        return text
    return "".join(
        character if character.isprintable() or character == "\t" else ascii(character)[1:-1] for character in text
    )


def _shortened(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 3]}..."
