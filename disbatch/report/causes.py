"""What tasks have failed of: failures that ended alike, with error outputs that end alike, have one cause.

Pure, and of constant size: of any number of failures a few hundred groups are kept. It must not know files, nor how any
of this is shown.

Two error outputs end alike when the words of their last lines are the same but for what differs from task to task: see
`words_of`. Of a long output the status file has the beginning and the end alone, and so the last line may be torn: its
first word, in which it is torn, is left out, and what is left is compared with the end of other lines.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from disbatch.records import record
from disbatch.snippet import KEPT
from disbatch.tasks import LOST, NO_PROCESS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EXIT, SIGNAL, NOT_STARTED, LOST_WITH_ENGINE = "exit", "signal", "not started", "lost"
"""How a task may have failed."""

MOST_GROUPS = 600
"""Groups in memory; when there are more the smaller half is given up, of which only the number is kept."""

_LONGEST_LINE = 400
"""Characters of a line that are looked at; what snippets hold today is shorter."""

_GAP = "..."
_REPLACED = "\ufffd"
"""What stands for bytes that are no text."""


@record
class Failure:
    """A task or per-engine command that has failed, as its line in the status file has it.

    `err` is the snippet of its error output, as text, and `err_bytes` the length of all of that. `earlier`: it failed
    in a run before, and this one has skipped it.
    """

    task_id: int
    line: int
    repeat: int
    node: str
    pid: int
    return_code: int
    err_bytes: int
    err: str
    command: str
    per_engine: bool = False
    earlier: bool = False

    @property
    def kind(self) -> str:
        """How it failed: one of the four words above."""
        return kind_of(self.pid, self.return_code)


def kind_of(pid: object, return_code: int) -> str:
    """How a task failed that has left these in the status file."""
    if pid == NO_PROCESS:
        return LOST_WITH_ENGINE if return_code == LOST else NOT_STARTED
    return SIGNAL if return_code < 0 else EXIT


@record
class Group:
    """Failures of one cause: `count` of them, `earlier` of those in an earlier run.

    `text` is the last line of their error outputs, with a `*` for what differs, empty where there was none; it is
    `torn` where its beginning is not known. `nodes` are the hosts with their counts, the highest first; `alone` says
    that several of them have only one although others ran tasks, too. The `example` is the first in the order of tasks.
    """

    kind: str
    return_code: int
    text: str
    torn: bool
    count: int
    earlier: int
    nodes: tuple[tuple[str, int], ...]
    alone: bool
    example: Failure


class Digest:
    """Collects failures, one after the other, and tells their groups at any time; the order makes no difference.

    Unless there are more kinds than `MOST_GROUPS`: then those that are left out, which were few, are `others`.
    """

    def __init__(self) -> None:
        self.failed = 0
        self.earlier = 0
        """How many of them failed in an earlier run."""
        self.per_engine = 0
        """How many are per-engine commands."""
        self.others = 0
        """How many are left out of the groups, as hardly two of them failed alike."""
        self._nodes: set[str] = set()
        self._tallies: dict[_Key, _Tally] = {}

    def ran_on(self, node: str) -> None:
        """Take note of a host on which a task has run, be it without failing."""
        self._nodes.add(node)

    def add(self, failure: Failure) -> None:
        """Take note of a failure."""
        self.failed += 1
        self.earlier += failure.earlier
        self.per_engine += failure.per_engine
        self._nodes.add(failure.node)
        line, torn = last_line(failure.err, failure.err_bytes)
        words = words_of(line, torn=torn)
        key = (failure.kind, failure.return_code, torn, tuple(word for _, word in words))
        tally = self._tallies.get(key)
        if tally is None:
            if len(self._tallies) >= MOST_GROUPS:
                self._give_up_smaller_half()
            tally = self._tallies[key] = _Tally(failure, key[3])
        tally.add(failure, [text for text, _ in words])

    def _give_up_smaller_half(self) -> None:
        by_size = sorted(self._tallies.items(), key=lambda item: (-item[1].count, item[0]))
        for key, tally in by_size[MOST_GROUPS // 2 :]:
            self.others += tally.count
            del self._tallies[key]

    def groups(self) -> tuple[Group, ...]:
        """All groups, the biggest first."""
        found = [
            self._group(kind, return_code, members)
            for (kind, return_code), keys in _apart(self._tallies).items()
            for members in self._joined(keys)
        ]
        return tuple(sorted(found, key=lambda group: (-group.count, group.kind, group.return_code, group.text)))

    def _joined(self, keys: Iterable[_Key]) -> list[list[_Key]]:
        """Keys of one cause together, for failures that ended alike: first those with a whole line.

        A torn line belongs to the whole one that it ends like; of several, to that with most failures.
        """
        joined: list[list[_Key]] = []
        for key in sorted(keys, key=lambda key: (key[2], -len(key[3]) * key[2], -self._tallies[key].count, key[3])):
            for members in joined if key[2] else ():
                if _end_alike(members[0][3], key[3]):
                    members.append(key)
                    break
            else:
                joined.append([key])
        return joined

    def _group(self, kind: str, return_code: int, members: Sequence[_Key]) -> Group:
        tallies = [self._tallies[key] for key in members]
        nodes: dict[str, int] = {}
        for tally in tallies:
            for node, count in tally.nodes.items():
                nodes[node] = nodes.get(node, 0) + count
        failed = sum(nodes.values())
        return Group(
            kind=kind,
            return_code=return_code,
            text=" ".join(_common([tally.shown for tally in tallies], members[0][3])),
            torn=members[0][2],
            count=failed,
            earlier=sum(tally.earlier for tally in tallies),
            nodes=tuple(sorted(nodes.items(), key=lambda item: (-item[1], item[0]))),
            alone=failed > 1 and len(nodes) == 1 and len(self._nodes) > 1,
            example=min((tally.example for tally in tallies), key=_order),
        )


_Key = tuple[str, int, bool, tuple[str, ...]]
"""How failures ended, whether their last line is torn, and its words."""


class _Tally:
    """What is kept of the failures that have one key."""

    __slots__ = ("_words", "count", "earlier", "example", "nodes", "shown")

    def __init__(self, failure: Failure, words: tuple[str, ...]) -> None:
        self._words = words
        self.count = 0
        self.earlier = 0
        self.example = failure
        self.nodes: dict[str, int] = {}
        self.shown: list[str] = []
        """The words as all of them have them, with stars where they differ."""

    def add(self, failure: Failure, texts: list[str]) -> None:
        if texts != self.shown:
            self.shown = _common([self.shown, texts], self._words) if self.count else texts
        self.count += 1
        self.earlier += failure.earlier
        self.nodes[failure.node] = self.nodes.get(failure.node, 0) + 1
        if _order(failure) < _order(self.example):
            self.example = failure


def _order(failure: Failure) -> tuple[bool, int, int, str]:
    return (failure.per_engine, failure.task_id, failure.line, failure.node)


def _apart(keys: Iterable[_Key]) -> dict[tuple[str, int], list[_Key]]:
    result: dict[tuple[str, int], list[_Key]] = {}
    for key in keys:
        result.setdefault(key[:2], []).append(key)
    return result


def _end_alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one ends with the other, and not with stars alone."""
    shorter = min(len(one), len(other))
    end = one[len(one) - shorter :]
    return end == other[len(other) - shorter :] and not all(map(_is_star, end))


def _common(lines: Iterable[Sequence[str]], words: Sequence[str]) -> list[str]:
    """What lines have in common that end like `words`: these, but as they stand there where all have the same."""
    result: list[str] = []
    for place, word in enumerate(words, -len(words)):
        texts = {line[place] for line in lines if len(line) >= -place}
        result.append(texts.pop() if len(texts) == 1 else word)
    return result


# The last line.


def last_line(snippet: str, size: int) -> tuple[str, bool]:
    """Last line with anything in it of an error output of so many bytes, and whether its beginning may be missing."""
    if size <= KEPT:
        return _last_of(snippet)[0], False
    head, tail = _parts(snippet)
    if size <= 2 * KEPT:
        return _last_of(head + tail)[0], False
    if _JOB.match(head) and len(head.splitlines()) == 1:
        return head, False  # what is missing is the text of a command
    return _last_of(tail) if tail.strip() else (_last_of(head)[0], False)


def _last_of(text: str) -> tuple[str, bool]:
    """Last line with anything in it, and whether it is the first."""
    lines = (_ESCAPE.sub("", text) if "\x1b" in text else text).splitlines()
    number = next((number for number in reversed(range(len(lines))) if lines[number].strip()), None)
    return ("", False) if number is None else (lines[number].strip(), number == 0)


def _parts(snippet: str) -> tuple[str, str]:
    """Beginning and end of an output of which there was more than its beginning."""
    data = snippet.encode(errors="replace")
    if _REPLACED not in snippet and data[KEPT : KEPT + len(_GAP)] == _GAP.encode():
        return data[:KEPT].decode(errors="replace"), data[KEPT + len(_GAP) :].decode(errors="replace")
    head, gap, tail = snippet[: KEPT + len(_GAP)].rpartition(_GAP)
    return (head, tail + snippet[KEPT + len(_GAP) :]) if gap else ("", snippet)


_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.?)", re.DOTALL)


# What differs from task to task.

_SHELL = re.compile(r"(?:\S*/)?(?:ba|da|k|z)?sh: (?:(?:line )?\d+: )?")
"""What a shell says before anything else."""

_REST_OF_SHELL = re.compile(r"(?:line )?\d+: ")

_ENDED_BY_SIGNAL = {
    "Aborted": "Aborted",
    "Alarm": "Alarm clock",
    "Bus": "Bus error",
    "CPU": "CPU time limit exceeded",
    "File size": "File size limit exceeded",
    "Floating": "Floating point exception",
    "Hangup": "Hangup",
    "Illegal": "Illegal instruction",
    "Killed": "Killed",
    "Quit": "Quit",
    "Segmentation": "Segmentation fault",
    "Terminated": "Terminated",
    "Trace": "Trace/breakpoint trap",
}
"""What bash says of a process that a signal has ended, by the beginning of it."""

_JOB = re.compile(rf"(?:{_SHELL.pattern})? *\d+ +({'|'.join(_ENDED_BY_SIGNAL)})")
"""The same with what is before it; behind it is the text of a command."""

_QUOTED = (
    r"(?<!\w)'[^']*'(?!\w)"
    r'|(?<!\w)"[^"]*"(?!\w)'
    r"|(?<!\w)`[^`']*['`](?!\w)"
    rf"|‘[^’{_REPLACED}]*(?:’|{_REPLACED}+)"  # noqa: RUF001 - these quotes are meant
    r"|“[^”]*”"
)
_END_OF_QUOTED = re.compile(r"[^\s'\"`’”]['\"’”](?!\w)\S*")  # noqa: RUF001 - as above

_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_DATE = rf"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? +)?(?:{_MONTH} +\d+|\d+ +{_MONTH})\b"

_WORD = re.compile(rf"(?:[a-z]+|{_DATE}|{_QUOTED}|\S)+")
"""A word; what stands in quotes is in one. No date or quote begins with what comes first, which saves a third."""

_ENDINGS = (
    "avi|bam|bin|bz2|c|cc|cfg|conf|cpp|cram|csv|cxx|dat|db|err|f|f90|fa|fasta|fastq|fits|fq|gro|gz|h|h5|hdf5|html|in|ini|"
    "ipynb|jl|jpeg|jpg|js|json|jsonl|lock|log|m|mat|mol2?|mp4|nc|npy|npz|out|parquet|pdb|pdf|pickle|pkl|pl|png|ps|pt|pth|"
    "py|r|R|root|rs|sam|sdf|sh|so|sql|sqlite|tar|tgz|tif|tiff|tmp|toml|tsv|txt|vcf|wav|xlsx|xml|xtc|xz|yaml|yml|zip|zst"
)
"""Ends of names by which files are known that are named without a directory."""

_IN_PATH = r"[\w.~+%@#-]"
_PATH = (
    r"(?<!\w)[A-Za-z][A-Za-z0-9+.-]*://[^\s'\")>\],;]+"
    r"|(?<![\w.~])(?:~\w*|\.{1,2})?/[^\s:;,'\"()<>\[\]=|]+"
    rf"|(?<![\w/.~+%@#-]){_IN_PATH}+(?:/{_IN_PATH}+){{2,}}/?"
    rf"|(?<![\w/.~+%@#-])(?:{_IN_PATH}+/)*{_IN_PATH}+\.(?:{_ENDINGS})(?!\w|\.\w)"
)
"""URL, path that begins with a slash or dots, path through two directories, name of a file."""

_NUMBER = (
    r"\[[\w.-]+:\d+\]"
    r"|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    r"|0[xX][0-9a-fA-F]+"
    r"|(?<![A-Za-z0-9])(?:[0-9a-f]{7,}|[0-9A-F]{7,})(?![A-Za-z0-9])"
    r"|(?<![\w:])(?=[0-9A-Fa-f:]*\d)[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])"
    r"|(?<![A-Za-z0-9])(?=[A-Za-z]*\d+[A-Za-z]+\d)[A-Za-z0-9]+"
    r"|(?:(?<!\w)[-+])?(?:(?<![\w.])\.)?\d+(?:[.,:]\d+)*(?:[eE][-+]?\d+(?![A-Za-z0-9]))?"
)
"""Host and process, UUID, hexadecimal number, such an id, IPv6 or time, id of letters and digits, number."""

_DIFFERING = re.compile(rf"(?P<quoted>{_QUOTED})|{_DATE}|{_PATH}|{_NUMBER}")


@lru_cache(maxsize=1024)
def words_of(line: str, *, torn: bool = False) -> tuple[tuple[str, str], ...]:
    """Words of a line, each as it stands there, and with a `*` for what differs from task to task.

    Differing are numbers (of processes, lines, bytes, times, addresses), ids that have digits or are hexadecimal,
    dates, paths and names of files, and all that stands in quotes. Several such words in a row are one. What a shell
    says before anything else is left out, and the text of a command that a signal has ended; so is of a line that is
    `torn` all that may be torn, up to the first word that is known.
    """
    job = None if torn else _JOB.match(line)
    if job is not None:
        return tuple((word, word) for word in _ENDED_BY_SIGNAL[job[1]].split())
    shell = None if torn else _SHELL.match(line)
    rest = line[shell.end() if shell else 0 :][:_LONGEST_LINE]
    pairs: list[tuple[str, str]] = []
    for text in _WORD.findall(_behind_tear(rest) if torn else rest):
        shown, word = printable(text), _with_stars(text)
        if not _is_star(word):
            pairs.append((shown, word))
        elif pairs and _is_star(pairs[-1][1]):
            before = pairs[-1]
            pairs[-1] = (f"{before[0]} {shown}", _one_star(before[1] + word))
        elif pairs or not torn:
            pairs.append((shown, _one_star(word)))
    return tuple(pairs) if pairs or not torn else ((printable(line), "*"),)


def _behind_tear(line: str) -> str:
    """What is whole of a line that is torn in its first word; of one that has no other, what begins behind a sign."""
    rest = re.search(r"\s\S.*", line) or re.search(r"[^\w\s][^\W_].*", line)
    whole = "" if rest is None else rest[0].strip()
    quoted = _END_OF_QUOTED.search(re.sub(_QUOTED, lambda match: "q" * len(match[0]), whole))
    whole = whole[quoted.end() :].lstrip() if quoted else whole
    shell = _REST_OF_SHELL.match(whole)
    return whole[shell.end() :] if shell else whole


@lru_cache(maxsize=4096)
def _with_stars(word: str) -> str:
    return printable(_DIFFERING.sub(lambda match: "'*'" if match["quoted"] else "*", word))


def _is_star(word: str) -> bool:
    """Whether a word is nothing but what differs, and signs."""
    return "*" in word and not any(map(str.isalnum, word))


def _one_star(word: str) -> str:
    """Such a word with one star for all that differs, and the signs around it."""
    result = f"{word[: word.index('*')]}*{word[word.rindex('*') + 1 :]}"
    return result if result.count("'") % 2 == 0 else result.replace("'", "")


def printable(text: str) -> str:
    """Text that does nothing to a terminal but to be shown."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
