"""What a user's shell is told when it wants to complete a command line of disbatch.

The shell starts the command itself and says in the environment what has been typed; the library argcomplete reads
that, and writes what could follow. It must not be imported by any process that was started for something else.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from disbatch import options
from disbatch.errors import ExitStatus
from disbatch.parser import parser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


_ROLES = {
    options.MONITOR_ROLE: options.OBSERVER,
    options.STATUS_ROLE: options.OBSERVER,
    options.FAILURES_ROLE: options.FAILURES_OF_RUN,
}
"""Roles that a user names by the first word."""


def answer(arguments: Sequence[str], leave: Callable[[int], object] = os._exit) -> int:
    """Tell the shell how the command line could go on, and `leave`; a status for who has not left.

    `arguments` are those that the command was started with, not those that were typed: they tell the role.
    """
    try:
        import argcomplete  # noqa: PLC0415 - an extra, which may not be installed
        from argcomplete.completers import ChoicesCompleter, FilesCompleter  # noqa: PLC0415 - as above
    except ImportError:
        return ExitStatus.FAILED
    files = FilesCompleter()

    def complete_path(prefix: str, **about: object) -> Sequence[str]:
        # zsh would put a backslash before the ~, and what was right when typed would no longer be.
        if prefix.startswith("~") and os.environ.get("_ARGCOMPLETE_SHELL") == "zsh":
            return []
        return list(files(prefix, **about))

    first = _words()[:1]
    if list(arguments[:1]) == [options.CONTEXT_ROLE]:
        role, names = options.CONTEXT, []
    elif first and first[0] in _ROLES:
        role, names = _ROLES[first[0]], first
    else:
        role, names = options.DRIVER, [] if first else list(_ROLES)
    made = parser(role, "disbatch", complete_path=complete_path)
    for name in names:
        made.add_argument(name, action="store_true")
    # Where nothing is typed yet a task file is more likely than an option, which is asked for by its dash.
    argcomplete.autocomplete(
        made,
        always_complete_options=False,
        exit_method=leave,
        default_completer=ChoicesCompleter({}),
    )
    return ExitStatus.OK


def _words() -> list[str]:
    """Words that have been typed after the command, each to its end."""
    line = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "0"))]
    words = line.split()
    return words[1:] if line[-1:].isspace() else words[1:-1]
