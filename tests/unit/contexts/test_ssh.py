from __future__ import annotations

import subprocess

import pytest

from disbatch.contexts.base import Node
from disbatch.contexts.ssh import SSH_COMMAND, engine_command, names_of_this_machine, nodes_of
from disbatch.options import SshNode

HERE = frozenset({"localhost", "me"})
NASTY = ["plain", "two words", "it's", '"quoted"', "line\nend", "$HOME", "`date`", "a\\b", "*", "~", "", "-x"]
"""Words that a shell changes unless they are quoted."""


def test_hosts_become_nodes_in_order_and_the_cores_of_repeated_ones_add_up() -> None:
    hosts = [SshNode("b", 2), SshNode("a", 1), SshNode("b", 3), SshNode("c", 1), SshNode("a", 1)]
    assert nodes_of(hosts) == (Node("b", 5), Node("a", 2), Node("c", 1))


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
    command = engine_command(node, HERE, ["python", "disbatch", "--run=x y"], "/work/a b_dbUtil.sh", ["--rank=0"])
    assert command == ["python", "disbatch", "--run=x y", "--rank=0"]


def test_an_engine_elsewhere_is_started_by_ssh_that_asks_nobody_anything() -> None:
    command = engine_command("h1", HERE, ["python"], "/work/run_dbUtil.sh", ["--rank=0"])
    assert command == [*SSH_COMMAND, "--", "h1", "exec /work/run_dbUtil.sh --engine --rank=0"]
    assert command[0] == "ssh"
    assert "BatchMode=yes" in command


@pytest.mark.parametrize("script", ["/work/run_dbUtil.sh", '/work/it\'s "my" $run\n_dbUtil.sh'])
def test_what_ssh_hands_to_the_shell_there_arrives_word_by_word(script: str) -> None:
    command = engine_command("h1", HERE, ["python"], script, NASTY)
    # As sshd has it done: the words behind the host, joined with blanks, for a shell to read.
    there = " ".join(command[command.index("h1") + 1 :]).removeprefix("exec ")
    shown = subprocess.run(
        ["/bin/sh", "-c", f"printf '%s\\0' {there}"], stdout=subprocess.PIPE, check=True
    ).stdout.decode()
    assert shown.split("\0")[:-1] == [script, "--engine", *NASTY]
