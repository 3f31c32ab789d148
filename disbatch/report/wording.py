"""What failed, as people read it, and as programs do.

Pure. It must not know where a digest comes from, nor what it is printed to. Every text of a task is made harmless: it
moves no cursor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from disbatch.report.causes import EXIT, LOST_WITH_ENGINE, SIGNAL, last_line, printable
from disbatch.tasks import NO_REPEAT

if TYPE_CHECKING:
    from disbatch.report.causes import Digest, Failure, Group

WIDTH = 80
"""Characters of a line; the terminal's own width is not asked for, so that every run says the same."""

_SIGNALS = (
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
)  # fmt: skip
"""Linux's, from 1 on."""

_OF_SHELL = 128
"""What bash adds to the number of a signal that has ended a command of its own."""


def ended(kind: str, return_code: int) -> str:
    """How a task has ended, in words: `exit status 1`, `killed by SIGSEGV`."""
    if kind == EXIT:
        number = return_code - _OF_SHELL
        hint = f" ({_OF_SHELL} + SIG{_SIGNALS[number - 1]})" if 0 < number <= len(_SIGNALS) else ""
        return f"exit status {return_code}{hint}"
    if kind == SIGNAL:
        number = -return_code
        name = f"SIG{_SIGNALS[number - 1]}" if number <= len(_SIGNALS) else f"signal {number}"
        return f"killed by {name}"
    return "lost with its engine" if kind == LOST_WITH_ENGINE else "could not be started"


def lines(digest: Digest, *, most: int | None = None, all_by: str = "") -> list[str]:
    """What failed, in lines for a terminal; of `most` kinds at most, and then the command `all_by` that shows all."""
    if not digest.failed:
        return ["nothing has failed"]
    groups = digest.groups()
    earlier = f" ({digest.earlier:,} of them in an earlier run)" if digest.earlier else ""
    if digest.earlier == digest.failed:
        earlier = " in an earlier run"
    result = [f"{digest.failed:,} failed{earlier}, for {_reasons(len(groups))}{' or more' * bool(digest.others)}:"]
    for group in groups[:most]:
        result += _group_lines(group, len(f"{groups[0].count:,}"))
    left_out = len(groups) - len(groups[:most])
    if left_out:
        result.append(f"  and for {_reasons(left_out)} more, which {all_by} tells")
    if digest.others:
        result.append(f"  and {digest.others:,} more, hardly two of which failed alike")
    return result


def _reasons(number: int) -> str:
    return f"{number:,} reason{'s' * (number != 1)}"


def _group_lines(group: Group, width: int) -> list[str]:
    count = f"  {group.count:>{width},}  "
    indent = " " * len(count)
    room = WIDTH - len(indent)
    how, error = ended(group.kind, group.return_code), error_of(group)
    together = f"{how}: {error}"
    result = [count + together] if len(together) <= room else [f"{count}{how}:", indent + _cut(error, room)]
    if group.alone or len(group.nodes) > 1:
        result.append(indent + _where(group, room))
    result.append(indent + _cut(f"such as {place_of(group.example)}: {printable(group.example.command)}", room))
    return result


def error_of(group: Group) -> str:
    """What failures of a group had at the end of their error outputs."""
    if not group.text:
        return "nothing on stderr"
    return f"...{group.text}" if group.torn else group.text


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _where(group: Group, width: int) -> str:
    """Hosts with their counts, as many as fit."""
    if group.alone:
        return _cut(f"all on {printable(group.nodes[0][0])}", width)
    shown = [f"{printable(node)} ({count:,})" for node, count in group.nodes[:width]]
    for number in range(len(shown), 0, -1):
        more = len(group.nodes) - number
        text = f"on {', '.join(shown[:number])}" + f" and {more:,} more" * bool(more)
        if len(text) <= width:
            return text
    return f"on {len(group.nodes):,} hosts"


def place_of(failure: Failure) -> str:
    """Which task it is, by its id and its line in the task file."""
    repeat = f", repeat index {failure.repeat}" if failure.repeat != NO_REPEAT else ""
    line = f"(line {failure.line}{repeat})"
    return f"the per-engine command {line}" if failure.per_engine else f"task {failure.task_id} {line}"


def facts(digest: Digest) -> dict[str, Any]:
    """The same, of all kinds, in builtin types that JSON has; docs/reference/failed-tasks.md tells the keys."""
    return {
        "failed": digest.failed,
        "earlier": digest.earlier,
        "others": digest.others,
        "groups": [_group_facts(group) for group in digest.groups()],
    }


def _group_facts(group: Group) -> dict[str, Any]:
    example = group.example
    return {
        "count": group.count,
        "earlier": group.earlier,
        "kind": group.kind,
        "return_code": group.return_code,
        "ended": ended(group.kind, group.return_code),
        "error": group.text,
        "torn": group.torn,
        "nodes": dict(group.nodes),
        "alone": group.alone,
        "example": {
            "task": example.task_id,
            "line": example.line,
            "repeat": example.repeat,
            "per_engine": example.per_engine,
            "node": example.node,
            "error": printable(last_line(example.err, example.err_bytes)[0]),
            "command": example.command,
        },
    }
