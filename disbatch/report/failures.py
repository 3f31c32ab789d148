"""From status files to what failed in them: which lines count, and the commands that tell it.

Of a million lines those of tasks that failed are looked at, by their first letter; of the others, where there are such,
the task's id and the host alone.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO

from disbatch import statusfile
from disbatch.errors import ExitStatus, StatusFileError
from disbatch.options import parse_failures
from disbatch.report import wording
from disbatch.report.causes import Digest, Failure
from disbatch.runfiles import RunFiles
from disbatch.terminal import answer
from disbatch.values import shell_word

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from disbatch.options import ContextRoleOptions

_FAILED = b"R"
"""What a line begins with that tells of a failure."""

_NO_SUCCESS = (_FAILED, b"B", b"C")

_FILE_SHIFT = 40
"""A place is a file's number and, in so many bits, the number of a line in it."""


def failure_in(line: bytes) -> Failure | None:
    """What a line tells of a task that has failed, or of a per-engine command; None if it tells of no such thing.

    Of a task that was given up before it had ended nothing is known. Raises StatusFileError where the line holds no
    record; a newline may be at its end.
    """
    if not line.startswith(_FAILED) or statusfile.is_header(line):
        return None
    record = statusfile.parse_line(line)
    if record.return_code == 0 or record.flags.strip(b"ROEPS "):
        return None
    fields = line.split(b"\t", 14)
    return Failure(
        task_id=record.task_id,
        line=record.stream_index,
        repeat=record.repeat_index,
        node=_text(fields[4]),
        pid=_number(fields[5]),
        return_code=record.return_code,
        err_bytes=_number(fields[12]),
        err=statusfile.snippet_text(_text(fields[13])),
        command=_text(record.command),
        per_engine=b"P" in record.flags,
        earlier=b"S" in record.flags,
    )


def _text(field: bytes) -> str:
    return field.decode(errors="replace")


def _number(field: bytes) -> int:
    try:
        return int(field)
    except ValueError:  # of an earlier version
        return 0


def read(paths: Sequence[str]) -> Digest:
    """What failed in the runs of these status files, each task once: one that has succeeded in any has not failed.

    A last line that is torn is left out. Raises StatusFileError for what is no status file, or cannot be read.
    """
    resume, digest = statusfile.Resume(), Digest()
    with ExitStack() as opened:
        try:
            files = [opened.enter_context(open(path, "rb")) for path in paths]
            if _note_failed(resume, files):
                _note_others(resume, files, digest)
                _add_failed(resume, files, digest)
        except OSError as error:
            name = error.filename or " or ".join(paths)
            raise StatusFileError(f"cannot read the status file {name}: {error.strerror}") from error
    return digest


def _lines(files: Sequence[BinaryIO], beginning: bytes = b"") -> Iterator[tuple[int, bytes]]:
    """Whole lines of that beginning with their places, which stay what they are while a file grows."""
    for number, file in enumerate(files):
        file.seek(0)
        for place, line in enumerate(file, number << _FILE_SHIFT):
            if line.startswith(beginning) and line.endswith(b"\n"):
                yield place, line


def _note_failed(resume: statusfile.Resume, files: Sequence[BinaryIO]) -> bool:
    """Note which tasks have failed; whether there is anything that has."""
    found = False
    for file in files:
        if not file.seekable():
            raise StatusFileError(f"the status file {file.name} can be read only once", "give a file, not a pipe")
        statusfile.check_beginning(file.name, file.readline())
    for place, line in _lines(files, _FAILED):
        if not statusfile.is_header(line):
            found = True
            try:
                resume.note(line, place)
            except StatusFileError as error:
                name, number = files[place >> _FILE_SHIFT].name, place % (1 << _FILE_SHIFT) + 1
                raise StatusFileError(f"{name}: line {number} is no line of a status file: {error.message}") from None
    return found


def _note_others(resume: statusfile.Resume, files: Sequence[BinaryIO], digest: Digest) -> None:
    """Note where tasks have succeeded that have failed as well, and on which hosts tasks have run."""
    nodes = set()
    for place, line in _lines(files):
        if line.startswith(_NO_SUCCESS):
            continue
        try:
            _, task_id, _, _, node, _ = line.split(b"\t", 5)
            nodes.add(node)
            if resume.place_of(int(task_id)) is not None:
                resume.note(line, place)
        except (ValueError, StatusFileError):  # it is no record, which only a resume cares for
            pass
    for node in nodes:
        digest.ran_on(_text(node))


def _add_failed(resume: statusfile.Resume, files: Sequence[BinaryIO], digest: Digest) -> None:
    for place, line in _lines(files, _FAILED):
        failure = failure_in(line)
        if failure is not None and (failure.per_engine or resume.place_of(failure.task_id) == place):
            digest.add(failure)


def main(arguments: Sequence[str]) -> int:
    """Print what failed in the runs of the status files that are named; the exit status."""
    asked = parse_failures(arguments)
    files = " ".join(f"-r {shell_word(path)}" for path in asked.status_files)
    advice = f"to run again what failed: disbatch <what you gave it before> {files} -R"
    return _print(asked.status_files, advice, as_json=asked.json)


def main_of_run(asked: ContextRoleOptions) -> int:
    """Print what failed in the run of a script, so far; the exit status."""
    files = RunFiles(asked.run)
    path = files.status
    if not os.path.exists(path):
        raise StatusFileError(
            f"there is no status file {path}", "the run has not begun yet, or somebody has removed it"
        )
    when = ", after the run" * os.path.exists(files.observer)
    advice = f"to run again what failed{when}: disbatch <what you gave it before> -r {shell_word(path)} -R"
    return _print([path], advice, as_json=asked.json)


def _has_lines(path: str) -> bool:
    try:
        return os.path.getsize(path) > 0
    except OSError:  # it was there just now
        return True


def _print(paths: Sequence[str], advice: str, *, as_json: bool) -> int:
    digest = read(paths)
    if as_json:
        text = json.dumps(wording.facts(digest), indent=2)
    elif not digest.failed and not any(map(_has_lines, paths)):
        text = f"no task has ended yet: nothing is in {' or '.join(map(shell_word, paths))}"
    else:
        text = "\n".join([*wording.lines(digest), *[advice] * bool(digest.failed)])
    answer(text)
    return ExitStatus.OK
