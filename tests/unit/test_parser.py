"""What argparse reads; what the parser's help and complaints say is in the twins of `arguments` and `options`."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from disbatch import arguments, parser
from disbatch.arguments import declared_by
from disbatch.errors import UsageError
from disbatch.options import CONTEXT, DRIVER, ENGINE, FAILURES_OF_RUN, DriverOptions, FailuresOptions
from disbatch.values import SshNode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from disbatch.arguments import Role

FLAGS = [
    flag for role in (DRIVER, CONTEXT, ENGINE) for option in declared_by(role.options).values() for flag in option.flags
]
VALUES = ["2", "0.5", "a:4", "localhost:2,b:1", "DEBUG", "debug", "x y", "", "-", "-1", "--", "=", "é", "me@x", "a=b"]
values = st.sampled_from(VALUES)
flags = st.sampled_from(FLAGS)
words = (
    st.tuples(flags, values)
    | st.builds("{}={}".format, flags, values).map(lambda word: (word,))
    | st.builds("{}{}".format, flags, values).map(lambda word: (word,))
    | st.tuples(flags | values | st.sampled_from(["-h", "--version", "-ef", "--labe", "--no-such"]))
)
command_lines = st.lists(words, max_size=5).map(lambda parts: [word for part in parts for word in part])


def comes_of(parse: Callable[[Role, Sequence[str], str], Any], role: Role, line: Sequence[str]) -> object:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            return parse(role, line, "disbatch")
        except UsageError as error:
            return str(error)
        except SystemExit:
            return out.getvalue()


@pytest.mark.parametrize("role", [DRIVER, CONTEXT, ENGINE, FAILURES_OF_RUN])
@given(line=command_lines)
def test_what_is_read_without_argparse_is_what_it_reads(role: Role, line: list[str]) -> None:
    assert comes_of(arguments.parse, role, line) == comes_of(parser.parse, role, line)


@pytest.mark.parametrize("line", [["a", "--json", "b"], ["a", "b", "--json"], ["--json", "--", "a", "b"]])
def test_arguments_of_which_there_may_be_several_stand_anywhere(line: list[str]) -> None:
    assert arguments.parse(FAILURES_OF_RUN, line, "disbatch") == FailuresOptions(("a", "b"), json=True)
    assert parser.parse(FAILURES_OF_RUN, line, "disbatch") == FailuresOptions(("a", "b"), json=True)


def test_what_is_written_in_an_unusual_way_is_read_too() -> None:
    line = ["-ef", "-slocalhost:2", "-c=2", "--logfile=-", "--", "-tasks"]
    read: DriverOptions = arguments.parse(DRIVER, line, "disbatch")
    assert read == DriverOptions(
        exit_code=True,
        fail_fast=True,
        ssh_nodes=((SshNode("localhost", 2),),),
        cpus_per_task=2.0,
        log_file="-",
        task_file="-tasks",
    )
