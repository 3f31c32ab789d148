"""Finding tasks in a status file, by their id or by a text in their line.

Pure: the pieces of the file come in as they are read. What is kept is bounded, whatever is found.
"""

from __future__ import annotations

import json
import re
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from disbatch.records import record
from disbatch.statusfile import report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

MOST = 100
"""Tasks that are shown at most: those that ended last."""


@record
class Found:
    """Lines of the tasks that were found, the newest first; `count` is how many there are.

    Each line is what `statusfile.report` makes of it. `complete` if the whole file was looked through; `task_id` is the
    id that was searched for, None where it was no number.
    """

    lines: tuple[Mapping[str, object], ...]
    count: int
    complete: bool
    task_id: int | None


def search(pieces: Iterable[bytes], text: str, has_time: Callable[[], bool]) -> Found:
    """Look through pieces of a status file, of whole lines each, as long as there is time.

    Lines of the task with that id come first where `text` is a number. Letters count as the same in both cases.
    """
    number = text.strip()
    task_id = int(number) if _is_id(number) else None
    of_id = None if task_id is None else re.compile(rb"^[ROEPSZBC ]{0,5}\t%d\t[^\n]*$" % task_id, re.MULTILINE)
    wanted = text.encode(errors="replace").lower()
    by_id: deque[bytes] = deque(maxlen=MOST)
    by_text: deque[bytes] = deque(maxlen=MOST)
    count = 0
    complete = False
    for piece in pieces:
        if of_id is not None:
            for match in of_id.finditer(piece):
                by_id.append(match[0])
                count += 1
        for line in _lines_with(wanted, piece):
            if of_id is None or not of_id.match(line):
                by_text.append(line)
                count += 1
        if not has_time():
            break
    else:
        complete = True
    newest_first = [*reversed(by_id), *reversed(by_text)]
    return Found(tuple(_reported(islice(newest_first, MOST))), count, complete, task_id)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19  # noqa: PLR2004 - what a task id has at most


def _lines_with(wanted: bytes, piece: bytes) -> Iterator[bytes]:
    if not wanted:
        return
    lowered = piece.lower()
    at = lowered.find(wanted)
    while at >= 0:
        end = piece.find(b"\n", at)
        yield piece[piece.rfind(b"\n", 0, at) + 1 : end]
        at = lowered.find(wanted, end)


def _reported(lines: Iterable[bytes]) -> Iterator[Mapping[str, object]]:
    for line in lines:
        try:
            found = json.loads(report(line))
        except ValueError:  # it has too few fields
            continue
        if isinstance(found["TaskId"], int):  # not so in the header
            yield found
