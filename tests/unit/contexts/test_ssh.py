from __future__ import annotations

import subprocess

import pytest

from disbatch.contexts.ssh import SSH_COMMAND, engine_command, names_of_this_machine

HERE = frozenset({"localhost", "me"})
NASTY = ["plain", "two words", "it's", '"quoted"', "line\nend", "$HOME", "`date`", "a\\b", "*", "~", "", "-x"]
"""Words that a shell changes unless they are quoted."""


@pytest.mark.parametrize(
    ("host_name", "full_name", "names"),
    [
        ("me", "me.example.org", {"me", "me.example.org"}),
        ("me.example.org", "me.example.org", {"me", "me.example.org"}),
        ("me", "me", {"me"}),
        ("Me", "ME.example.org", {"me", "me.example.org"}),
    ],
)
def test_this_machine_goes_by_several_names(host_name: str, full_name: str, names: set[str]) -> None:
    assert names_of_this_machine(host_name, full_name) == {"localhost", "127.0.0.1", "::1", *names}


@pytest.mark.parametrize("node", [*sorted(HERE), "LOCALHOST", "Me"])
def test_an_engine_here_is_started_directly(node: str) -> None:
    command = engine_command(node, HERE, ["python", "disbatch", "--run=x y"], "/data/a b_dbUtil.sh", ["--rank=0"])
    assert command == ["python", "disbatch", "--run=x y", "--rank=0"]


def test_an_engine_elsewhere_is_started_by_ssh_that_asks_nobody_anything() -> None:
    command = engine_command("h1", HERE, ["python"], "/data/run_dbUtil.sh", ["--rank=0"])
    assert command == [*SSH_COMMAND, "--", "h1", "exec /data/run_dbUtil.sh --engine --rank=0"]
    assert command[0] == "ssh"
    assert "BatchMode=yes" in command


@pytest.mark.parametrize("script", ["/data/run_dbUtil.sh", '/data/it\'s "my" $run\n_dbUtil.sh'])
def test_what_ssh_hands_to_the_shell_there_arrives_word_by_word(script: str) -> None:
    command = engine_command("h1", HERE, ["python"], script, NASTY)
    # As sshd has it done: the words behind the host, joined with blanks, for a shell to read.
    there = " ".join(command[command.index("h1") + 1 :]).removeprefix("exec ")
    shown = subprocess.run(
        ["/bin/sh", "-c", f"printf '%s\\0' {there}"], stdout=subprocess.PIPE, check=True
    ).stdout.decode()
    assert shown.split("\0")[:-1] == [script, "--engine", *NASTY]
