"""The language of task files: bytes come in, in pieces of any size; tasks, barriers and complaints come out.

Pure. It must not know where the bytes come from, when they come, or what becomes of the items. It never waits for
more than the end of a line, and never holds more than what it was fed: a REPEAT of a thousand million is one line.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TypeAlias

from disbatch.errors import quoted
from disbatch.records import record
from disbatch.tasks import NO_REPEAT, Barrier, PerEngineTask, Phase, Task

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_MARK = b"#DISBATCH"
_AFFIX = re.compile(rb"#DISBATCH ((?i:PREFIX|SUFFIX))(?: (.*))?")
# A command begins at its first word, which is not `start` or `step`: those are meant for what stands before it.
_REPEAT = re.compile(
    rb"#DISBATCH (?i:REPEAT)[ \t]+(\d+)(?:[ \t]+(?i:start)[ \t]+(\d+))?(?:[ \t]+(?i:step)[ \t]+(\d+))?"
    rb"(?:[ \t]+(?![ \t]|(?i:start|step)(?![^ \t]))(.*))?"
)
_BARRIER = re.compile(rb"#DISBATCH BARRIER([ \t]+CHECK(?![^ \t]))?(?:[ \t](.*))?")
_PER_ENGINE = re.compile(rb"#DISBATCH (?i:PERENGINE)[ \t]+((?i:START|STOP))[ \t]+(\S.*)")

_FORMS = {
    b"PREFIX": "#DISBATCH PREFIX [text]",
    b"SUFFIX": "#DISBATCH SUFFIX [text]",
    b"REPEAT": "#DISBATCH REPEAT number [start number] [step number] [command]",
    b"BARRIER": "#DISBATCH BARRIER [CHECK] [key]",
    b"PERENGINE": "#DISBATCH PERENGINE START|STOP command",
}

_MAX_DIGITS = 18
"""A number of a REPEAT has at most so many digits: it fits 64 bits, and `int` takes no time over it."""
_MAX_INDEX = 2**63 - 1
"""A repeat index goes over the wire and into bash's arithmetic as a signed number of 64 bits."""


@record
class Complaint:
    """Something that the parser could not follow, with a text for the user that names the line and says why.

    After a `fatal` one the parser gives nothing more: what was read before is to run, and the run to fail.
    """

    stream_index: int
    text: str
    fatal: bool = False


Item: TypeAlias = Task | Barrier | PerEngineTask | Complaint


class _Repeat:
    """A REPEAT directive with the numbers, counted from 0, of the tasks that are still to come from it."""

    def __init__(self, numbers: range, first_id: int, stream_index: int, start: int, step: int, command: bytes) -> None:
        self.numbers = numbers
        self.first_id = first_id
        self.stream_index = stream_index
        self.start = start
        self.step = step
        self.command = command

    def take(self, limit: int) -> list[Item]:
        now, self.numbers = self.numbers[:limit], self.numbers[limit:]
        return [
            Task(self.first_id + number, self.stream_index, self.start + number * self.step, self.command)
            for number in now
        ]


class TaskParser:
    """Turns the bytes of a task file into its items, in order.

    A parser of `submissions` reads what programs submit instead: each piece fed is complete, may hold several lines,
    and all of them get its number, counted from 1, as their stream index.
    """

    def __init__(self, *, submissions: bool = False) -> None:
        self._submissions = submissions
        self._partial = bytearray()  # the beginning of a line whose end was not fed yet
        self._blocks: deque[bytes] = deque()  # whole lines, split only when their turn comes
        self._lines: deque[bytes] = deque()
        self._repeat: _Repeat | None = None
        self._prefix = b""
        self._suffix = b""
        self._stream_index = 0
        self._next_id = 0
        self._barriers = 0
        self._per_engine_ids = dict.fromkeys(Phase, 0)
        self._ended = False
        self._stopped = False
        self._fed = 0

    @property
    def hungry(self) -> bool:
        """Whether `take` has nothing to give until more is fed.

        False while a fed line waits, even if that turns out to be a comment: a `take` that gives fewer items than it
        may leaves the parser hungry or exhausted.
        """
        return not (self._ended or self._waiting)

    @property
    def exhausted(self) -> bool:
        """Whether `take` will never give anything again; about waiting lines, see `hungry`."""
        return self._ended and not self._waiting

    @property
    def unread(self) -> float:
        """Tasks in what was fed and is to be taken still: about, as nobody has looked at those lines yet."""
        lines = len(self._lines) + sum(block.count(b"\n") for block in self._blocks)
        return lines * self._tasks_per_line + (len(self._repeat.numbers) if self._repeat else 0)

    @property
    def tasks_per_byte(self) -> float:
        """How many tasks there were in what was fed until now, for each of its bytes; about, as `unread`."""
        return (self._next_id + self.unread) / self._fed if self._fed else 0.0

    @property
    def _tasks_per_line(self) -> float:
        return self._next_id / self._stream_index if self._stream_index else 1.0

    @property
    def _waiting(self) -> bool:
        return bool(self._lines or self._blocks or self._repeat)

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the file, or one whole submission. After a fatal complaint they are dropped."""
        if self._stopped:
            return
        if self._ended:
            raise ValueError("fed after the end")
        self._fed += len(data)
        if self._submissions:
            self._blocks.append(data)
            return
        # Only new data is searched: a long line that comes in small pieces costs time in proportion to its length.
        after_last_line = data.rfind(b"\n") + 1
        if after_last_line:
            self._blocks.append(bytes(self._partial) + data[:after_last_line])
            self._partial.clear()
        self._partial += data[after_last_line:]

    def end(self) -> None:
        """Learn that nothing more comes: a last line without a newline counts."""
        self._ended = True
        if self._partial:
            self._blocks.append(bytes(self._partial))
            self._partial.clear()

    def take(self, limit: int) -> list[Item]:
        """Return the next items, at most `limit`; fewer when the parser is then hungry or exhausted."""
        items: list[Item] = []
        while (room := limit - len(items)) > 0:
            if self._repeat:
                items += self._repeat.take(room)
                if not self._repeat.numbers:
                    self._repeat = None
            elif self._lines:
                line = self._lines.popleft()
                if not self._submissions:
                    self._stream_index += 1
                # Most commands begin with a letter or a path: one comparison tells them from blanks and comments.
                item = self._task(line) if line[:1] > b"#" else self._closer_look(line)
                if item is not None:
                    items.append(item)
            elif self._blocks:
                items += self._open(self._blocks.popleft())
            else:
                break
        return items

    def _open(self, block: bytes) -> list[Item]:
        """Split a block into lines; return a complaint where the very beginning says that these are not lines."""
        if self._submissions:
            self._stream_index += 1
        elif not self._stream_index:
            if block.startswith(_UTF_16_MARKS):
                self._stream_index = 1
                return [self._stop("line 1: the task list is in UTF-16, so nothing of it is run; save it as UTF-8")]
            block = block.removeprefix(_BYTE_ORDER_MARK)
        self._lines.extend(_split(block))
        return []

    def _task(self, line: bytes) -> Task:
        task_id = self._next_id
        self._next_id = task_id + 1
        return Task(task_id, self._stream_index, NO_REPEAT, self._prefix + line + self._suffix)

    def _closer_look(self, line: bytes) -> Item | None:
        """Return the item of a line, None for a blank one, a comment or a directive that only changes the state."""
        stripped = line.lstrip()
        if not stripped:
            return None
        if stripped[:1] != b"#":
            return self._task(line)
        return self._directive(line) if line.startswith(_MARK) else None

    def _directive(self, line: bytes) -> Item | None:
        if match := _AFFIX.fullmatch(line):
            word, text = match.groups(default=b"")
            if word.upper() == b"PREFIX":
                self._prefix = text
            else:
                self._suffix = text
            return None
        if match := _REPEAT.fullmatch(line):
            return self._start_repeat(match, line)
        if match := _BARRIER.fullmatch(line):
            return self._barrier(match, line)
        if match := _PER_ENGINE.fullmatch(line):
            return self._per_engine_task(match, line)
        return self._complaint(line, _why_unknown(line))

    def _start_repeat(self, match: re.Match[bytes], line: bytes) -> Complaint | None:
        digits, command = match.group(1, 2, 3), match[4] or b""
        if any(number is not None and len(number) > _MAX_DIGITS for number in digits):
            return self._complaint(line, f"has a number of more than {_MAX_DIGITS} digits")
        count, start, step = (
            default if number is None else int(number) for number, default in zip(digits, (0, 0, 1), strict=True)
        )
        if start + (count - 1) * step > _MAX_INDEX:
            return self._complaint(line, "has repeat indexes that do not fit 64 bits")
        if count:
            whole_command = self._prefix + command + self._suffix
            self._repeat = _Repeat(range(count), self._next_id, self._stream_index, start, step, whole_command)
            self._next_id += count
        return None

    def _barrier(self, match: re.Match[bytes], line: bytes) -> Barrier:
        check, rest = match.groups(default=b"")
        barrier = Barrier(self._next_id, self._stream_index, check=bool(check), key=rest.strip() or None, text=line)
        self._next_id += 1
        self._barriers += 1
        return barrier

    def _per_engine_task(self, match: re.Match[bytes], line: bytes) -> PerEngineTask | Complaint:
        if self._next_id > self._barriers:
            problem = "comes too late: per-engine commands go before the first task; nothing from here on is run"
            return self._stop(self._about(line, problem))
        phase = Phase(match[1].upper().decode())
        task_id = self._per_engine_ids[phase]
        self._per_engine_ids[phase] += 1
        return PerEngineTask(phase, task_id, self._stream_index, self._prefix + match[2] + self._suffix)

    def _complaint(self, line: bytes, problem: str) -> Complaint:
        return Complaint(self._stream_index, self._about(line, f"{problem}; line skipped"))

    def _about(self, line: bytes, problem: str) -> str:
        unit = "submission" if self._submissions else "line"
        return f"{unit} {self._stream_index}: {quoted(line)} {problem}"

    def _stop(self, text: str) -> Complaint:
        """Give nothing more, and say why."""
        self._stopped = self._ended = True
        self._lines.clear()
        self._blocks.clear()
        self._partial.clear()
        return Complaint(self._stream_index, text, fatal=True)


def _why_unknown(line: bytes) -> str:
    words = line[len(_MARK) :].split(None, 1)
    word = words[0] if words else b""
    if word.upper() == b"BARRIER" != word:
        return "is no directive: BARRIER has to be in capitals"
    form = _FORMS.get(word.upper())
    return f"is not of the form {form!r}" if form else "is no directive that disbatch knows"


def _split(text: bytes) -> list[bytes]:
    r"""Return the lines of a text, each ended by `\n` or `\r\n` except that the last one need not be."""
    lines = text.replace(b"\r\n", b"\n").split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines
