"""`envfile`, alone: what is written can be read, by us and by a shell."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.kvsstcp import envfile

VARIABLES = {"KVSSTCP_HOST": "fd00::1", "KVSSTCP_PORT": "4711", "KVSSTCP_SECRET": "it's a $SECRET"}


def test_a_line_for_each_variable_of_a_client_and_for_no_other() -> None:
    assert envfile.text_of({"HOME": "/root", "KVSSTCP_PORT": "1", "KVSSTCP_HOST": "h"}) == (
        "export KVSSTCP_HOST=h\nexport KVSSTCP_PORT=1\n"
    )


def test_a_shell_can_read_it() -> None:
    script = f'{envfile.text_of(VARIABLES)}printf \'%s,\' "$KVSSTCP_HOST" "$KVSSTCP_PORT" "$KVSSTCP_SECRET"'
    said = subprocess.run(["/bin/sh", "-c", script], env={}, capture_output=True, text=True, check=True).stdout
    assert said.split(",")[:-1] == list(VARIABLES.values())


@given(st.dictionaries(st.sampled_from(list(VARIABLES)), st.text(st.characters(exclude_categories=["C", "Z"]))))
def test_what_is_written_is_read_again(variables: dict[str, str]) -> None:
    assert envfile.variables_in(envfile.text_of(variables)) == variables


def test_lines_may_be_written_by_hand() -> None:
    assert envfile.variables_in("\nKVSSTCP_HOST=h\n  export KVSSTCP_PORT='1'\n") == {
        "KVSSTCP_HOST": "h",
        "KVSSTCP_PORT": "1",
    }


@pytest.mark.parametrize(
    "text", ["h:1", "export KVSSTCP_HOST", "KVSSTCP_HOST=h rm file", "LD_PRELOAD=x", "KVSSTCP_HOST='h", "'' "]
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        envfile.variables_in(text)
