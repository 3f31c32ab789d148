"""Writes docs/reference/options.md from the declaration of the options, disbatch/options.py.

A test compares the page with what this makes.
"""

from __future__ import annotations

import os
import sys

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, CHECKOUT)

from disbatch import options  # noqa: E402 - of this checkout
from disbatch.arguments import Option, declarations  # noqa: E402 - as above

PAGE = os.path.join(CHECKOUT, "docs", "reference", "options.md")

BEGINNING = """\
# Options

<!-- Made by `make reference` from disbatch/options.py: edit that. -->

A value may follow its option as a word of its own or, for an option with two dashes, behind a `=`: `--prefix out`,
`--prefix=out`. Options and the task file may come in any order; behind `--` nothing is an option. A long option is
not to be shortened.
"""

ROLES = (
    (options.DRIVER, "disbatch", "disbatch"),
    (options.CONTEXT, "dbUtil.sh", "<unique id>_dbUtil.sh"),
    (options.OBSERVER, "disbatch --mon, disbatch --status", "disbatch --mon|--status"),
    (options.FAILURES_OF_RUN, "disbatch --failures", "disbatch --failures"),
)


def page() -> str:
    """Text of the page."""
    parts = [BEGINNING]
    for role, name, program in ROLES:
        parts.append(f"## {name}\n\n    {role.usage % {'prog': program}}\n\n{role.description}\n")
        for title in role.groups:
            rows = [_row(declared) for _, declared in declarations(role) if declared.group == title and declared.help]
            if title == role.groups[-1]:
                rows.append(_table_row(["-h", "--help"], "", "print this help"))
                if role.version is not None:
                    rows.append(_table_row(["--version"], "", "print the version"))
            if rows:
                table = ["| option | meaning |", "|---|---|", *rows, ""]
                parts.append(f"### {title[0].upper()}{title[1:]}\n\n" + "\n".join(table))
    return "\n".join(parts)


def _row(declared: Option) -> str:
    choices = f"{{{','.join(declared.choices)}}}" if declared.choices else ""
    metavar = declared.metavar if isinstance(declared.metavar, str) else " ".join(declared.metavar or ())
    value = "" if declared.default is False else choices or metavar
    note = " (not in `--help`)" if declared.hidden else ""
    return _table_row(declared.flags, value, declared.help + note)


def _table_row(flags: tuple[str, ...] | list[str], value: str, text: str) -> str:
    shown = ", ".join(f"`{f'{flag} {value}'.strip()}`" for flag in flags) or f"`{value}`"
    escaped = text.replace("|", "\\|").replace("<", "&lt;")
    return f"| {shown} | {escaped} |"


def main() -> None:
    """Write the page."""
    text = page()
    with open(PAGE, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


if __name__ == "__main__":
    main()
