"""`commandline`, alone: complaints of a parser, on the standard error of this process."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.kvsstcp.commandline import Parser


def parser() -> Parser:
    built = Parser(prog="python -m some.program")
    built.add_argument("-n", type=int)
    built.add_subparsers(required=True, metavar="WHAT").add_parser("do").add_argument("K")
    return built


def complaint(arguments: list[str]) -> str:
    said = io.StringIO()
    with redirect_stderr(said), pytest.raises(SystemExit) as ended:
        parser().parse_args(arguments)
    assert ended.value.code == 2
    return said.getvalue()


def test_a_mistake_is_one_line_that_names_the_program_and_where_to_look() -> None:
    assert complaint(["-n", "x", "do", "1"]) == (
        "program: error: argument -n: invalid int value: 'x' (see python -m some.program --help)\n"
    )


def test_a_mistake_in_a_part_leads_to_the_help_of_that_part() -> None:
    assert complaint(["do"]) == (
        "program: error: the following arguments are required: K (see python -m some.program do --help)\n"
    )


@given(st.lists(st.text("\n\r\x1b\u2028é -n", min_size=1, max_size=6), max_size=3))
def test_a_mistake_is_one_line_whatever_was_given(more: list[str]) -> None:
    line = complaint(["-n", "1", "do", "1", "2", *(f"x{text}" for text in more)]).removesuffix("\n")
    assert line.startswith("program: error: ")
    assert line.isprintable()
