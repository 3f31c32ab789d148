"""The language of status files: how a task ended becomes a line, and lines of earlier runs say what a resume skips.

Pure. It must not know where a status file lies, when a line is written, or who decides on a resume.
A line has fifteen fields with tabs between them and the command last, so that tabs in a command do no harm. Lines
end with a newline, and nothing that comes from elsewhere can bring one in.
"""

from __future__ import annotations

import math
import re
from array import array
from functools import lru_cache
from typing import TYPE_CHECKING

from disbatch.errors import StatusFileError, quoted
from disbatch.records import record
from disbatch.tasks import NO_REPEAT, Barrier, Outcome, PerEngineTask, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_COLUMNS = (
    "ROE[ PSZ]", "TaskID", "LineNumber", "RepeatIndex", "Node", "PID", "ReturnCode", "Elapsed", "Start", "End",
    "OutBytes", "OutSnippet", "ErrBytes", "ErrSnippet", "Command",
)  # fmt: skip
HEADER = "\t".join(_COLUMNS).encode() + b"\n"
"""The line of `--status-header`."""

_LINE = b"%b%b%b%b\t%d\t%d\t%d\t%b\t%d\t%d\t%.3f\t%.3f\t%.3f\t%d\t%b\t%d\t%b\t%b\n"
_BARRIER_LINE = b"%b    \t%d\t%d\t%d\t%b\t%d\t0\t%.3f\t%.3f\t%.3f\t0\t''\t0\t''\t%b\n"


def task_line(task: Task, node: str, outcome: Outcome, *, abandoned: bool = False) -> bytes:
    """Return the line of an ended task; `abandoned`: it had been given up before its report came."""
    kind = b"Z" if abandoned else b" "
    return _line(kind, (task.task_id, task.stream_index, task.repeat_index), node, outcome, task.command)


def per_engine_line(task: PerEngineTask, node: str, outcome: Outcome) -> bytes:
    """Return the line of an ended per-engine command."""
    return _line(b"P", (task.task_id, task.stream_index, NO_REPEAT), node, outcome, task.command)


def barrier_line(barrier: Barrier, node: str, pid: int, start: float, end: float) -> bytes:
    """Return the line of a barrier that was met at `start` and passed at `end` (s since the epoch)."""
    return _BARRIER_LINE % (
        b"C" if barrier.check else b"B",
        barrier.task_id,
        barrier.stream_index,
        NO_REPEAT,
        _node_field(node),
        pid,
        end - start,
        start,
        end,
        _command_field(barrier.text),
    )


def skipped_line(old_line: bytes) -> bytes:
    """Return the line of a task that is skipped because of `old_line`: flag S, figures and text as in that.

    `old_line` is one that `parse_line` takes, its newline there or not.
    """
    flags, _, rest = old_line.removesuffix(b"\n").partition(b"\t")
    return b"%b\t%b\n" % (_skipped_flags(flags), rest)


@lru_cache(maxsize=64)  # there are hardly more, and a million lines
def _skipped_flags(flags: bytes) -> bytes:
    # Earlier versions had flags of other lengths: their letters are put where they belong today.
    return b"".join(letter if letter in flags else b" " for letter in (b"R", b"O", b"E")) + b"S"


def _line(kind: bytes, numbers: tuple[int, int, int], node: str, outcome: Outcome, command: bytes) -> bytes:
    return_code, out_bytes, err_bytes = outcome.return_code, outcome.out_bytes, outcome.err_bytes
    start, elapsed = outcome.start, outcome.elapsed
    return _LINE % (
        b"R" if return_code else b" ",
        b"O" if out_bytes else b" ",
        b"E" if err_bytes else b" ",
        kind,
        *numbers,
        _node_field(node),
        outcome.pid,
        return_code,
        elapsed,
        start,
        start + elapsed,
        out_bytes,
        _snippet_field(outcome.out_snippet) if outcome.out_snippet else b"''",
        err_bytes,
        _snippet_field(outcome.err_snippet) if outcome.err_snippet else b"''",
        _command_field(command),
    )


def _node_field(node: str) -> bytes:
    return (node if node.isprintable() else repr(node)).encode()


def _snippet_field(snippet: bytes) -> bytes:
    # `repr` escapes all that is not printable: tabs, newlines and whatever else could break or disguise a line.
    return repr(snippet.decode(errors="replace")).encode()


def _command_field(command: bytes) -> bytes:
    if command.isascii():
        return command
    try:
        command.decode()
    except UnicodeDecodeError:
        return repr(command).encode()
    return command


# Earlier versions wrote fewer flags, more decimals and other quotes: only what a resume needs is held to a form.
_NUMBER = rb"(-?\d{1,19})"
_ANYTHING = rb"[^\t\n]*"
_RECORD = re.compile(
    rb"\t".join([rb"([ROEPSZBC ]{0,5})", rb"(\d{1,19})", _NUMBER, _NUMBER, _ANYTHING, _ANYTHING, _NUMBER])
    + (rb"\t" + _ANYTHING) * 7
    + rb"\t"
)
_FLAGS_OF_COMPLETED = b"ROES "
_BEGINNING = re.compile(rb"[ROEPSZBC ]{0,5}(?:\t|\Z)")


@record
class Record:
    """What a resume needs of a line. `command` is the field as it stands there, not always the command's bytes."""

    flags: bytes
    task_id: int
    stream_index: int
    repeat_index: int
    return_code: int
    command: bytes


def parse_line(line: bytes) -> Record:
    """Return the record that a line holds, its newline there or not; raise StatusFileError if it holds none."""
    match = _RECORD.match(line)
    if match is None:
        raise StatusFileError(_what_is_wrong(line))
    flags, task_id, stream_index, repeat_index, return_code = match.groups()
    command = line[match.end() :].removesuffix(b"\n")
    return Record(flags, int(task_id), int(stream_index), int(repeat_index), int(return_code), command)


def _what_is_wrong(line: bytes) -> str:
    """Say what makes a line, one that `_RECORD` does not match, no record."""
    fields = line.split(b"\t", len(_COLUMNS) - 1)
    if len(fields) < len(_COLUMNS):
        return f"{len(fields)} instead of {len(_COLUMNS)} fields between tabs: {quoted(line)}"
    if not re.fullmatch(rb"[ROEPSZBC ]{0,5}", fields[0]):
        return f"flags {quoted(fields[0])}"
    for index in (1, 2, 3, 6):
        if not re.fullmatch(rb"-?\d{1,19}", fields[index]) or (index == 1 and fields[index].startswith(b"-")):
            return f"{_COLUMNS[index]} {quoted(fields[index])}"
    return f"a newline inside of {quoted(line)}"


_REPORT_KEYS = (
    "Flags", "TaskId", "TaskStreamIndex", "TaskRepIndex", "Host", "PID", "ReturnCode", "Elapsed", "Start", "End",
    "OutBytes", "OutData", "ErrBytes", "ErrData", "TaskCmd",
)  # fmt: skip


def report(line: bytes) -> bytes:
    """Return the JSON object that tells a program what a line of the status file tells a person; snippets are text.

    `line` is one that `parse_line` takes. A field of an earlier version that is not of today's form stays as it is.
    """
    import json  # noqa: PLC0415 - few runs report to programs

    types: tuple[Callable[[str], object], ...] = (
        str, int, int, int, str, int, int, _seconds, _seconds, _seconds, int, _snippet, int, _snippet, str,
    )  # fmt: skip
    fields = line.decode(errors="replace").removesuffix("\n").split("\t", len(_COLUMNS) - 1)
    values = [_read(field, of_type) for of_type, field in zip(types, fields, strict=True)]
    return json.dumps(dict(zip(_REPORT_KEYS, values, strict=True))).encode()


def _read(field: str, of_type: Callable[[str], object]) -> object:
    try:
        return of_type(field)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all that `literal_eval` may raise
        return field


def _seconds(field: str) -> float:
    seconds = float(field)
    if not math.isfinite(seconds):
        raise ValueError("JSON has no such number")
    return seconds


def _snippet(field: str) -> str:
    # What `repr` makes of a text has no other form; anything else is not to be taken for an expression.
    quote, body = field[:1], field[1:-1]
    if quote not in ("'", '"'):
        raise ValueError("no quoted text")
    is_plain = field.endswith(quote, 1) and quote not in body and body.isprintable()
    if is_plain and "\\" not in body.replace("\\n", ""):
        return body.replace("\\n", "\n")  # nearly all are of this form, which costs a tenth to read
    import ast  # noqa: PLC0415 - as in `report`

    text = ast.literal_eval(field)
    if not isinstance(text, str):
        raise TypeError("an expression that is no text")
    return text


def snippet_text(field: str) -> str:
    """Text that a snippet's field stands for; one of an earlier version that is not of today's form stays as it is."""
    return str(_read(field, _snippet))


_FILE_SHIFT = 44
"""A place is a file's number and, in so many bits (16 TiB), an offset in it."""
_PAGE_SHIFT = 8
"""Ids come dense, 8 bytes each; a lone one, or a damaged huge one, costs one page of 2 KiB."""
_PAGE_SIZE = 1 << _PAGE_SHIFT
_NOTHING = -1
_SUCCEEDED = 1 << 62


def place_in_file(place: int) -> tuple[int, int]:
    """Return the file number and the offset that a place of `read_into` stands for."""
    return place >> _FILE_SHIFT, place & ((1 << _FILE_SHIFT) - 1)


class Resume:
    """What earlier runs completed: for each task the place of the line to go by, in 8 bytes.

    A place is a number from 0 up to 2**62 - 1. A line of a task that succeeded goes before one that failed; of two
    alike the one of the higher place counts. The order in which lines are noted does not matter.
    """

    def __init__(self) -> None:
        # One number holds the place and, above it, whether the task succeeded: of two, the higher one wins.
        self._pages: dict[int, array[int]] = {}
        self.completed = 0

    def note(self, line: bytes, place: int) -> None:
        """Take in the line at `place`; raise StatusFileError if it holds no record.

        Per-engine commands, barriers and reports of tasks given up are passed over.
        """
        match = _RECORD.match(line)
        if match is None:
            raise StatusFileError(_what_is_wrong(line))
        flags, id_digits, return_code = match.group(1, 2, 5)
        if flags.strip(_FLAGS_OF_COMPLETED):
            return
        task_id = int(id_digits)
        entry = place if int(return_code) else place | _SUCCEEDED
        page = self._pages.get(task_id >> _PAGE_SHIFT)
        if page is None:
            page = self._pages[task_id >> _PAGE_SHIFT] = array("q", [_NOTHING]) * _PAGE_SIZE
        index = task_id & (_PAGE_SIZE - 1)
        known = page[index]
        if entry > known:
            page[index] = entry
            if known == _NOTHING:
                self.completed += 1

    def place_of(self, task_id: int) -> int | None:
        """Return the place of the line to go by for a task, None when no earlier run completed it."""
        page = self._pages.get(task_id >> _PAGE_SHIFT)
        entry = _NOTHING if page is None else page[task_id & (_PAGE_SIZE - 1)]
        return None if entry == _NOTHING else entry & ~_SUCCEEDED


def read_into(resume: Resume, name: str, lines: Iterable[bytes], file_number: int) -> list[str]:
    """Note all lines of one status file, and return warnings for the user.

    `lines` come as a file opened for bytes gives them, with their newlines; a last one without is torn, and ignored
    with a warning. Raises StatusFileError, which names the file by `name`, at a line that holds no record.
    """
    place = file_number << _FILE_SHIFT
    found = False
    remaining = iter(lines)
    for number, line in enumerate(remaining, 1):
        if not line.endswith(b"\n"):
            if not found and not _may_begin_a_file(line):
                raise _no_status_file(name)
            return [f"{name}: line {number} is cut off and ignored: {quoted(line)}"]
        try:
            resume.note(line, place)
        except StatusFileError as error:
            if not is_header(line):
                if not found and not any(_RECORD.match(other) or is_header(other) for other in remaining):
                    raise _no_status_file(name) from None
                message = f"{name}: line {number} is no line of a status file: {error.message}"
                raise StatusFileError(message, "remove the line to have its task run again") from None
        found = True
        place += len(line)
    return [] if found else [f"{name} is empty: nothing is skipped because of it"]


def lines_to_keep(
    resume: Resume, lines: Iterable[bytes], file_number: int, is_wanted: Callable[[int, int], bool]
) -> Iterator[bytes]:
    """Lines of a status file for the one of a run that resumes from it, flag S: of the tasks that are wanted there.

    `resume` is what `read_into` made of it; `is_wanted` gets a task's id and its return code.
    """
    place = file_number << _FILE_SHIFT
    for line in lines:
        match = _RECORD.match(line)
        if match is not None and not match[1].strip(_FLAGS_OF_COMPLETED):
            task_id, return_code = int(match[2]), int(match[5])
            if resume.place_of(task_id) == place and is_wanted(task_id, return_code):
                yield skipped_line(line)
        place += len(line)


def check_beginning(name: str, line: bytes) -> None:
    """Raise StatusFileError, which names the file by `name`, if no status file begins with that line.

    One without a newline is torn.
    """
    whole = line.endswith(b"\n")
    if not (is_header(line) or (_RECORD.match(line) if whole else _may_begin_a_file(line))):
        raise _no_status_file(name)


def is_header(line: bytes) -> bool:
    """Whether that is the line of `--status-header`, of whatever version."""
    # The letters in the brackets have grown with the versions.
    return line.startswith(b"ROE[")


def _may_begin_a_file(torn: bytes) -> bool:
    return HEADER.startswith(torn) or is_header(torn) or _BEGINNING.match(torn) is not None


def _no_status_file(name: str) -> StatusFileError:
    return StatusFileError(f"{name} is no status file of disbatch", "its name ends with _status.txt by default")


@record
class Decision:
    """Whether a resume skips a task, which may have failed, and what the user must be told of it, if anything."""

    skip: bool
    failed: bool = False
    warning: str = ""


def judge(task: Task, old_line: bytes, *, retry: bool, by_id_alone: bool) -> Decision:
    """Decide on a task that an earlier run completed as `old_line` says; with `retry`, failed ones run again.

    Raises StatusFileError when the line is about another task; `by_id_alone`, one of the same id is good enough.
    """
    record = parse_line(old_line)
    if record.task_id != task.task_id:
        raise StatusFileError(
            f"the line of task {task.task_id} is now about task {record.task_id}",
            "do not change status files while a run resumes from them",
        )
    warning = ""
    if mismatch := _mismatch(task, record):
        warning = f"task {task.task_id} is not the one in the status file: {mismatch}"
        if not by_id_alone:
            raise StatusFileError(warning, "--force-resume goes by the task id alone")
    failed = record.return_code != 0
    return Decision(not (retry and failed), failed, warning)


def _mismatch(task: Task, record: Record) -> str:
    """Say where a task and the record of its id differ, with both commands in any case; empty if they do not."""
    command = _command_field(task.command)
    if (task.stream_index, task.repeat_index, command) == (record.stream_index, record.repeat_index, record.command):
        return ""
    differences = []
    if task.stream_index != record.stream_index:
        differences.append(f"line {task.stream_index}, recorded as line {record.stream_index}")
    if task.repeat_index != record.repeat_index:
        differences.append(f"repeat index {task.repeat_index}, recorded as {record.repeat_index}")
    new, old = _quoted_apart(command, record.command)
    return "; ".join([*differences, f"command {new}, recorded as {old}"])


def _quoted_apart(new: bytes, old: bytes, limit: int = 120, lead: int = 30) -> tuple[str, str]:
    """Quote two texts so that their first difference shows, however long they are."""
    pairs = zip(new, old, strict=False)
    same = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(new), len(old)))
    begin = 0 if new == old or max(len(new), len(old)) <= limit else max(0, same - lead)
    dots = "..." if begin else ""
    return dots + quoted(new[begin:], limit), dots + quoted(old[begin:], limit)
