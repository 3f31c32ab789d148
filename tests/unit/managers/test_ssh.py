from __future__ import annotations

import subprocess

import pytest

from disbatch.errors import ResourceError
from disbatch.managers.base import EngineCall, Wishes
from disbatch.managers.ssh import SSH_COMMAND, Ssh, names_of_this_machine
from disbatch.messages import NodeOffer
from disbatch.values import SshNode
from tests.unit.managers.outside import world

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


def command(
    node: str, *arguments: str, here: tuple[str, ...] = ("python",), script: str = "/data/run_dbUtil.sh"
) -> list[str]:
    manager = Ssh([SshNode(node, 1)], lambda _: HERE)
    start = manager.start(NodeOffer(node, 1, 1), EngineCall(here, script, arguments))
    assert start.environment is None
    return list(start.command)


@pytest.mark.parametrize("node", [*sorted(HERE), "LOCALHOST", "Me"])
def test_an_engine_here_is_started_directly(node: str) -> None:
    assert command(node, "--rank=0", here=("python", "disbatch", "--run=x y")) == [
        *("python", "disbatch", "--run=x y", "--rank=0")
    ]


def test_an_engine_elsewhere_is_started_by_ssh_that_asks_nobody_anything() -> None:
    there = command("h1", "--rank=0")
    assert there == [*SSH_COMMAND, "--", "h1", "exec /data/run_dbUtil.sh --engine --rank=0"]
    assert there[0] == "ssh"
    assert "BatchMode=yes" in there


@pytest.mark.parametrize("script", ["/data/run_dbUtil.sh", '/data/it\'s "my" $run\n_dbUtil.sh'])
def test_what_ssh_hands_to_the_shell_there_arrives_word_by_word(script: str) -> None:
    words = command("h1", *NASTY, script=script)
    # As sshd has it done: the words behind the host, joined with blanks, for a shell to read.
    there = " ".join(words[words.index("h1") + 1 :]).removeprefix("exec ")
    shown = subprocess.run(
        ["/bin/sh", "-c", f"printf '%s\\0' {there}"], stdout=subprocess.PIPE, check=True
    ).stdout.decode()
    assert shown.split("\0")[:-1] == [script, "--engine", *NASTY]


def test_the_names_of_this_machine_are_looked_up_once_and_when_they_are_needed() -> None:
    asked: list[list[str]] = []

    def names_here(nodes: object) -> frozenset[str]:
        assert isinstance(nodes, list)
        asked.append(nodes)
        return HERE

    manager = Ssh([SshNode("h1", 1), SshNode("me", 2)], names_here)
    offers = manager.offers(Wishes())
    assert not asked
    for offer in offers:
        manager.start(offer, EngineCall(("python",), "script", ()))
    assert asked == [["h1", "me"]]


def test_hosts_are_laid_out_as_the_user_wishes() -> None:
    manager = Ssh([SshNode("a", 3), SshNode("b", 4), SshNode("a", 3)])
    assert manager.offers(Wishes(2.0, 2)) == (NodeOffer("a", 2, 2), NodeOffer("b", 2, 2))
    with pytest.raises(ResourceError, match="no node has the 9 cores that a task needs; the largest has 6"):
        manager.offers(Wishes(9.0))
    assert manager.conflicts(Wishes(2.0, 2, fill=True)) == []
    assert (manager.system, manager.label) == ("SSH", "")


def test_hosts_of_the_environment_are_those_of_a_list() -> None:
    environment = {"DISBATCH_SSH_NODELIST": "a:3,me:1"}
    assert Ssh.found_in(environment)
    assert not Ssh.found_in({"DISBATCH_SSH_NODELIST": ""})
    manager = Ssh.made_from(environment, world(names=HERE))
    assert manager.offers(Wishes()) == (NodeOffer("a", 3, 1), NodeOffer("me", 1, 1))
    assert manager.start(NodeOffer("me", 1, 1), EngineCall(("python",), "script", ())).command == ("python",)
