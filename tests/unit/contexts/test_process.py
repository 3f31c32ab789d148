"""The context as a process, in this one: its connection is a pair of sockets, of which the test has the driver's end.

What it starts as engines, here or through an `ssh` that is none, are short scripts of bash.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from disbatch import __version__, joining, mailbox, messages
from disbatch.contexts import process
from disbatch.contexts.process import Context
from disbatch.errors import DisbatchError, DriverUnreachableError, ResourceError, UsageError
from disbatch.eventloop import EventLoop
from disbatch.kvsstcp.wire import Limits, Put, RequestParser, encode_reply
from disbatch.managers.base import Start
from disbatch.messages import (
    Beat,
    ContextAdmitted,
    ContextCame,
    ContextFailed,
    ContextLeft,
    ContextRefused,
    ContextToldToDrain,
    ContextToldToEnd,
    DriverGoesOn,
    DriverPauses,
    EndContext,
    EngineHasCome,
    EngineProcessEnded,
    Lease,
    Message,
    NodeOffer,
)
from disbatch.monitor import process as monitor
from disbatch.options import ContextRoleOptions
from disbatch.values import Address, SshNode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KVS = Address("driver", 4711)
LEASE = Lease(10.0, 45.0, 6.0)


class Bench:
    """A context and its driver's end of the connection: all that the driver says is there before the context runs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.loop = EventLoop()
        self._monkeypatch = monkeypatch
        self.driver, self._connection = socket.socketpair()
        self.exit_status: int | None = None
        monkeypatch.setattr(process, "connect", self._connect)
        monkeypatch.setattr(mailbox, "RECONNECT_PAUSE", 0.002)
        monkeypatch.setattr(mailbox, "REFUSED_PATIENCE", 0.01)
        tools = folder / "tools"
        tools.mkdir()
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        self.engines_here("exit 0")

    def _connect(self, *given: object) -> socket.socket:
        if len(given) == 1:
            return self._connection
        error = DriverUnreachableError("connection refused")
        error.nobody_listens = True
        raise error

    def engines_here(self, script: str) -> None:
        """Let the engines that are started directly be this script of bash."""
        self._monkeypatch.setattr(process, "disbatch_command", lambda: ("/bin/bash", "-c", script, "disbatch"))

    def engines_elsewhere(self, script: str) -> None:
        """Let `ssh` be this script of bash."""
        ssh = self.folder / "tools" / "ssh"
        ssh.write_text(f"#!/bin/bash\n{script}\n")
        ssh.chmod(0o755)

    def run(
        self,
        *said: Message,
        hosts: tuple[SshNode, ...] = (SshNode("localhost", 2),),
        label: str | None = None,
        cpus_per_task: float | None = None,
        token: str = "",
        retire_command: str | None = None,
        no_retire: bool = False,
        lose_driver: bool = False,
    ) -> list[Message]:
        """Let the context run to its end; what it tells the driver."""
        for message in said:
            self.driver.sendall(encode_reply(messages.TAG, messages.encode(message)))
        if lose_driver:
            self.driver.shutdown(socket.SHUT_WR)
        asked = ContextRoleOptions(
            run=str(self.folder / "run"),
            kvs=KVS,
            token=token,
            label=label,
            cpus_per_task=cpus_per_task,
            retire_command=retire_command,
            no_retire=no_retire,
            ssh_nodes=(hosts,),
        )
        self.exit_status = Context(asked, self.loop).run()
        return self.heard()

    def heard(self) -> list[Message]:
        """All that was told, once the context has closed its connection."""
        data = b"".join(iter(lambda: self.driver.recv(1 << 20), b""))
        requests = RequestParser(Limits()).feed(data)
        told = [messages.decode(put.value, put.tag) for put in requests if isinstance(put, Put)]
        return [message for message in told if not isinstance(message, Beat)]

    def say_when(self, file: Path, message: Message | None) -> None:
        """Have the driver say something, or go if it is None, as soon as there is that file."""
        if not file.exists():
            self.loop.after(0.002, lambda: self.say_when(file, message))
        elif message is None:
            self.driver.shutdown(socket.SHUT_WR)
        else:
            self.driver.sendall(encode_reply(messages.TAG, messages.encode(message)))

    def output(self, node: str) -> list[str]:
        return (self.folder / f"run_L_{node}_engine_wrap.log").read_text().splitlines()

    @property
    def log(self) -> str:
        return (self.folder / "run_L.context.log").read_text()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, monkeypatch)
    yield made
    made.loop.close()
    made.driver.close()


def admitted(*engine_ranks: int) -> ContextAdmitted:
    return ContextAdmitted(context_rank=1, label="L", engine_ranks=engine_ranks, lease=LEASE)


def ended(heard: list[Message]) -> dict[int, EngineProcessEnded]:
    return {message.engine_rank: message for message in heard if isinstance(message, EngineProcessEnded)}


def test_a_context_offers_its_nodes(bench: Bench) -> None:
    hosts = (SshNode("localhost", 4), SshNode("small", 1), SshNode("localhost", 2))
    came = bench.run(ContextRefused(run_done=True, reason=""), hosts=hosts, label="mine", cpus_per_task=2.0)[0]
    assert isinstance(came, ContextCame)
    assert (came.version, came.label, came.system) == (__version__, "mine", "SSH")
    assert (came.host, came.pid) == (os.uname().nodename, os.getpid())
    assert came.nodes == (NodeOffer("localhost", 3, 2),)
    assert len(came.token) == 16


def test_a_context_goes_by_the_token_that_it_is_given(bench: Bench) -> None:
    came = bench.run(ContextRefused(run_done=True, reason=""), token="own")[0]
    assert isinstance(came, ContextCame)
    assert came.token == "own"


def test_it_starts_the_engines_that_it_is_admitted_with_and_leaves_after_them(bench: Bench) -> None:
    bench.engines_here("printf '%s\\n' \"$@\"")
    heard = bench.run(admitted(7))
    assert [type(message) for message in heard] == [ContextCame, EngineProcessEnded, ContextLeft]
    assert ended(heard)[7].return_code == 0
    assert heard[-1] == ContextLeft(1)
    assert bench.exit_status == 0
    assert bench.output("localhost") == [
        *("--engine", f"--run={bench.folder}/run", "--kvs=driver:4711"),
        *("--label=L", "--node=localhost", "--rank=7"),
    ]


def test_an_engine_elsewhere_is_started_by_ssh_with_the_script_of_the_run(bench: Bench) -> None:
    bench.engines_elsewhere('printf "%s\\n" "${@: -2}"; exit 255')
    heard = bench.run(admitted(0, 1), hosts=(SshNode("localhost", 1), SshNode("h1.example.org", 1)))
    assert bench.output("h1.example.org") == [
        "h1.example.org",
        f"exec {bench.folder}/run_dbUtil.sh --engine --label=L --node=h1.example.org --rank=1",
    ]
    assert {rank: message.return_code for rank, message in ended(heard).items()} == {0: 0, 1: 255}


def test_the_last_words_of_an_engine_tell_why_it_ended(bench: Bench) -> None:
    (bench.folder / "run_L_localhost_engine_wrap.log").write_text("of an earlier engine\n")
    bench.engines_here("echo first; echo; echo '  ssh: no such host  ' >&2; echo; kill -KILL $$")
    heard = bench.run(admitted(0))
    assert ended(heard)[0] == EngineProcessEnded(0, -signal.SIGKILL, "ssh: no such host")
    assert bench.output("localhost")[0] == "of an earlier engine"


def test_a_silent_engine_has_no_last_words_and_leaves_no_file(bench: Bench) -> None:
    assert ended(bench.run(admitted(0)))[0].last_words == ""
    assert not (bench.folder / "run_L_localhost_engine_wrap.log").exists()


def test_an_engine_that_cannot_be_started_has_ended_for_that_reason(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "disbatch_command", lambda: ("/nonexistent/python",))
    heard = bench.run(admitted(0))
    assert ended(heard)[0].return_code != 0
    assert ended(heard)[0].last_words == "cannot start /nonexistent/python: No such file or directory"
    assert heard[-1] == ContextLeft(1)


def test_an_engine_leads_a_session_of_its_own_with_nothing_to_read(bench: Bench) -> None:
    bench.engines_here("cat; read -r _ _ _ _ _ session _ < /proc/$$/stat; [ $session = $$ ] && echo leads")
    bench.run(admitted(0))
    assert bench.output("localhost") == ["leads"]


TWO_HOSTS = (SshNode("localhost", 2), SshNode("nowhere", 1))


def test_a_host_without_an_engine_is_named_on_the_terminal(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.engines_elsewhere("echo ssh: no such host >&2; exit 255")
    bench.run(admitted(0, 1), hosts=TWO_HOSTS)
    assert capsys.readouterr().err == "disbatch: nowhere runs no tasks: ssh: no such host\n"
    assert bench.exit_status == 0, "there is another one"


def test_a_context_without_any_engine_fails(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.engines_here("exit 3")
    bench.engines_elsewhere("echo ssh: no such host >&2; exit 255")
    bench.run(admitted(0, 1), hosts=TWO_HOSTS)
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "disbatch: localhost runs no tasks: its engine ended with 3",
        "disbatch: nowhere runs no tasks: ssh: no such host",
    ]
    assert bench.exit_status == 1


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_context_on_a_terminal_says_that_it_waits(
    bench: Bench,
    is_terminal: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    bench.engines_elsewhere("exit 0")
    bench.run(admitted(0, 1), hosts=TWO_HOSTS)
    said = "disbatch: added localhost, nowhere to the run; Ctrl-C takes them away again\n"
    assert capsys.readouterr().err == (said if is_terminal else "")


def test_a_terminal_that_has_gone_does_no_harm(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> int:
        raise OSError

    bench.engines_here("exit 3")
    monkeypatch.setattr(sys.stderr, "write", fail)
    assert bench.run(admitted(0))[-1] == ContextLeft(1)


def test_engines_that_never_came_are_ended_with_the_run(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.engines_here("exec sleep 60")
    heard = bench.run(admitted(4), EndContext(abandoned=(4,)))
    assert ended(heard)[4].return_code == -signal.SIGTERM
    assert (bench.exit_status, capsys.readouterr().err) == (0, "")
    assert "told to end by the driver" in bench.log


def test_engines_that_came_are_waited_for_however_long_they_take(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LAUNCHER_PATIENCE", 0.005)
    bench.engines_here("sleep 0.03; exit 5")
    assert ended(bench.run(admitted(4), EndContext(abandoned=())))[4].return_code == 5


@pytest.mark.parametrize(
    ("deaf_to", "number"),
    [("trap '' TERM", signal.SIGQUIT), ("trap '' TERM QUIT", signal.SIGKILL)],
)
def test_engines_that_never_came_and_do_not_end_are_killed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, deaf_to: str, number: signal.Signals
) -> None:
    monkeypatch.setattr(process, "LAUNCHER_PATIENCE", 0.02)
    monkeypatch.setattr(process, "KILL_PATIENCE", 60.0 if number is signal.SIGQUIT else 0.02)
    ready = bench.folder / "ready"
    bench.engines_here(f"{deaf_to}; > '{ready}'; exec sleep 60")
    bench.say_when(ready, EndContext(abandoned=(4,)))
    assert ended(bench.run(admitted(4)))[4].return_code == -number


def test_without_a_driver_engines_that_do_not_end_are_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LAUNCHER_PATIENCE", 0.01)
    ready = bench.folder / "ready"
    bench.engines_here(f"trap '' TERM; > '{ready}'; exec sleep 60")
    bench.say_when(ready, None)
    bench.run(admitted(4))
    assert f"engine 4 ended with {-signal.SIGQUIT}" in bench.log


FIVE_HOSTS = tuple(SshNode(f"h{number}", 1) for number in range(5))


@pytest.fixture
def at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make it two engines at most on their way; how many are, each time that one has been started."""
    monkeypatch.setattr(process, "LAUNCHES", 2)
    counts: list[int] = []
    start = Context._start_engine

    def noted(context: Context, offer: NodeOffer, rank: int) -> None:
        start(context, offer, rank)
        counts.append(len(context._on_their_way))

    monkeypatch.setattr(Context, "_start_engine", noted)
    bench.engines_elsewhere("exit 0")
    return counts


def test_only_so_many_engines_are_on_their_way_at_once(bench: Bench, at_once: list[int]) -> None:
    heard = bench.run(admitted(4, 5, 6, 7, 8), hosts=FIVE_HOSTS)
    assert (len(at_once), max(at_once)) == (5, 2)
    assert sorted(ended(heard)) == [4, 5, 6, 7, 8]


def test_an_engine_that_has_come_makes_room_for_the_next(bench: Bench, at_once: list[int]) -> None:
    go = bench.folder / "go"
    bench.engines_elsewhere(f"case $* in *h4*) > '{go}';; esac; until [ -e '{go}' ]; do sleep 0.01; done")
    bench.run(admitted(4, 5, 6, 7, 8), EngineHasCome(5), EngineHasCome(4), EngineHasCome(6), hosts=FIVE_HOSTS)
    assert at_once == [1, 2, 2, 2, 2]


def test_an_engine_that_does_not_come_makes_room_in_time(
    bench: Bench, at_once: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LAUNCH_PATIENCE", 0.02)
    go = bench.folder / "go"
    bench.engines_elsewhere(f"case $* in *h4*) > '{go}';; esac; until [ -e '{go}' ]; do sleep 0.01; done")
    bench.run(admitted(4, 5, 6, 7, 8), hosts=FIVE_HOSTS)
    assert len(at_once) == 5


def test_engines_that_were_not_started_yet_are_not_when_the_context_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LAUNCHES", 1)
    bench.engines_elsewhere("exit 0")
    heard = bench.run(admitted(4, 5), EndContext(abandoned=(5,)), hosts=(SshNode("h0", 1), SshNode("h1", 1)))
    assert list(ended(heard)) == [4]


def test_a_context_that_loses_its_driver_ends_its_engines(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.engines_here("exec sleep 60")
    bench.run(admitted(4), lose_driver=True)
    assert (bench.exit_status, capsys.readouterr().err) == (0, "")
    assert f"engine 4 ended with {-signal.SIGTERM}" in bench.log


def test_a_context_told_to_end_whose_driver_does_not_answer_ends_its_engines(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "DRIVER_PATIENCE", 0.02)
    bench.engines_here("kill -TERM $PPID; exec sleep 60")
    assert ended(bench.run(admitted(4)))[4].return_code == -signal.SIGTERM


def test_a_context_told_to_end_leaves_to_the_driver_how_long_its_engines_take(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "DRIVER_PATIENCE", 3600.0)
    ready, go = bench.folder / "ready", bench.folder / "go"
    take = Context._take

    def take_and_let_patience_end(context: Context, message: Message) -> None:
        take(context, message)
        if isinstance(message, EndContext):
            context._end_without_driver()
            go.touch()

    monkeypatch.setattr(Context, "_take", take_and_let_patience_end)
    bench.engines_here(f"kill -TERM $PPID; > '{ready}'; until [ -e '{go}' ]; do sleep 0.01; done; exit 5")
    bench.say_when(ready, EndContext(abandoned=()))
    assert ended(bench.run(admitted(4)))[4].return_code == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_told_to_the_driver_which_decides(bench: Bench, number: signal.Signals) -> None:
    bench.engines_here(f"kill -{number.value} $PPID; sleep 0.02")
    heard = bench.run(admitted(0))
    assert ContextToldToEnd(1) in heard
    assert ended(heard)[0].return_code == 0, "engines are ended by the driver"
    assert f"got {number.name}" in bench.log


def test_a_signal_that_drains_is_told_to_the_driver_which_decides(bench: Bench) -> None:
    bench.engines_here("kill -USR1 $PPID; sleep 0.02")
    heard = bench.run(admitted(0))
    assert [message for message in heard if isinstance(message, ContextToldToDrain)] == [ContextToldToDrain(1)]
    assert ended(heard)[0].return_code == 0, "engines are drained by the driver"


def test_a_signal_that_drains_ends_a_context_that_has_not_joined(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.loop.after(0, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    bench.run()
    assert bench.exit_status == 1
    assert capsys.readouterr().err == "disbatch: this context could not join the run: got SIGUSR1\n"


def test_a_driver_that_pauses_has_not_gone(bench: Bench) -> None:
    heard = bench.run(DriverPauses(), admitted(0), DriverPauses(), DriverGoesOn())
    assert ended(heard)[0].return_code == 0
    assert bench.log.index("the driver has been stopped") < bench.log.index("the driver goes on")


def test_a_hang_up_that_is_ignored_stays_so(bench: Bench) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        bench.engines_here("kill -HUP $PPID; sleep 0.02")
        assert ContextToldToEnd(1) not in bench.run(admitted(0))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_context_that_comes_too_late_says_so_and_ends_well(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.run(ContextRefused(run_done=True, reason="it is over"))
    assert (bench.exit_status, capsys.readouterr().out) == (0, "Run done\n")


@pytest.mark.parametrize("lose_driver", [False, True])
def test_a_context_that_cannot_join_says_why(
    bench: Bench,
    lose_driver: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if lose_driver:
        bench.run(lose_driver=True)
    else:
        bench.run(ContextRefused(run_done=False, reason="it is of another version"))
    reason = "lost the driver: the connection was closed" if lose_driver else "it is of another version"
    assert capsys.readouterr().err == f"disbatch: this context could not join the run: {reason}\n"
    assert bench.exit_status == 1


def test_a_context_without_an_answer_gives_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "ANSWER_PATIENCE", 0.01)
    bench.run()
    assert "the driver did not answer" in capsys.readouterr().err
    assert bench.exit_status == 1


def test_patience_for_an_answer_does_not_end_a_context_that_has_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "ANSWER_PATIENCE", 0.005)
    bench.engines_here("sleep 0.03")
    bench.run(admitted(0))
    assert bench.exit_status == 0


def test_a_context_without_room_for_a_task_tells_the_driver_why(bench: Bench) -> None:
    with pytest.raises(ResourceError):
        bench.run(cpus_per_task=8.0)
    [failed] = bench.heard()
    assert isinstance(failed, ContextFailed)
    assert failed.reason == "no node has the 8 cores that a task needs; the largest has 2"
    assert failed.hint


def test_hosts_come_from_the_environment_where_no_option_names_any(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISBATCH_SSH_NODELIST", "a:1,b:2")
    came = bench.run(ContextRefused(run_done=True, reason=""), hosts=())[0]
    assert isinstance(came, ContextCame)
    assert [node.name for node in came.nodes] == ["a", "b"]


def test_no_hosts_anywhere_is_told_to_the_driver(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISBATCH_SSH_NODELIST", raising=False)
    with pytest.raises(UsageError, match="no resources to run on"):
        bench.run(hosts=())
    assert isinstance(bench.heard()[0], ContextFailed)


@pytest.mark.parametrize(
    ("nodes", "asked"), [(["me.example.org"], True), (["ME.Example.org"], True), (["me", "other.example.org"], False)]
)
def test_the_full_name_of_this_machine_is_looked_up_only_where_it_counts(
    nodes: list[str],
    asked: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = os.uname_result(("Linux", "me", "6", "1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: machine)
    monkeypatch.setattr(socket, "getfqdn", lambda: "me.example.org")
    names = process._names_of_this_machine(nodes)
    assert ("me.example.org" in names) is asked
    assert {"localhost", "me"} <= names


def out_of_reach(*_: object) -> socket.socket:
    raise DriverUnreachableError("cannot reach the driver")


def test_a_run_without_a_driver_and_without_its_address_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "connect", out_of_reach)
    assert process.main([f"--run={tmp_path}/run", "-s", "a:1"]) == 0
    assert capsys.readouterr().out == "Run done\n"


def test_programs_are_not_told_where_the_store_was_of_a_run_that_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(joining, "client", out_of_reach)
    with pytest.raises(DisbatchError, match="the run is over, and its key-value store has gone with it"):
        process.main([f"--run={tmp_path}/run", "--kvs-env"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("file", ["run_kvsinfo.txt", "run_observer.txt"])
def test_a_driver_out_of_reach_whose_run_goes_on_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setattr(process, "connect", out_of_reach)
    (tmp_path / file).write_text("where the store is\n")
    with pytest.raises(DriverUnreachableError):
        process.main([f"--run={tmp_path}/run", "-s", "a:1"])


def test_who_wants_to_see_the_run_is_no_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Address, bool, dict[str, bool]]] = []

    def see(kvs: Address, is_over: Callable[[], bool], **how: bool) -> int:
        asked.append((kvs, is_over(), how))
        return 5

    monkeypatch.setattr(monitor, "watch", see)
    monkeypatch.setattr(monitor, "tell", see)
    (tmp_path / "run_observer.txt").touch()
    for given in (["--mon"], ["--status"], ["--status", "--json"]):
        assert process.main([f"--run={tmp_path}/run", "--kvs=driver:4711", *given]) == 5
    (tmp_path / "run_observer.txt").unlink()
    assert process.main([f"--run={tmp_path}/run", "--kvs=driver:4711", "--mon"]) == 5
    assert asked == [
        (KVS, False, {"may_stop": True}),
        (KVS, False, {"as_json": False}),
        (KVS, False, {"as_json": True}),
        (KVS, True, {"may_stop": True}),
    ]


# Giving nodes back

SHOW_RETIRED = 'echo "$NODES|$RETCODES|$ACTIVE|$RETIRED|$DRIVER_NODE|$KVSSTCP_SECRET" >> retired'
THREE_HOSTS = (SshNode("h1", 1), SshNode("h2", 1), SshNode("h3", 1))


@pytest.fixture
def retired(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File with a line for each time that nodes were given back; the pause before that is short."""
    monkeypatch.chdir(bench.folder)
    monkeypatch.setenv("KVSSTCP_SECRET", "hush")
    monkeypatch.setenv("DRIVER_NODE", "another")
    monkeypatch.setattr(process, "RETIRE_PAUSE", 0.01)
    monkeypatch.setattr(process, "check_retire_command", lambda *_: None)  # these hosts stand for nodes of a job
    return bench.folder / "retired"


def test_nodes_whose_engines_have_ended_are_given_back_together(
    bench: Bench, retired: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "RETIRE_PAUSE", 0.1)
    bench.engines_elsewhere('case "$*" in *h3*) until [ -s retired ]; do sleep 0.01; done;; *h2*) exit 3;; esac')
    came, *_, last = bench.run(admitted(0, 1, 2), hosts=THREE_HOSTS, retire_command=SHOW_RETIRED)
    assert isinstance(came, ContextCame)
    assert came.retires
    first, second = retired.read_text().splitlines()
    nodes, return_codes, active, *_ = first.split("|")
    assert dict(zip(nodes.split(","), return_codes.split(","), strict=True)) == {"h1": "0", "h2": "3"}
    assert active == "h3"
    assert second == f"h3|0||{nodes},h3||"
    assert last == ContextLeft(1)
    assert "giving back h3; in use: none" in bench.log
    assert not list(bench.folder.glob("*retire_wrap.log"))


def test_the_node_of_the_context_is_never_given_back(bench: Bench, retired: Path) -> None:
    bench.engines_elsewhere("exit 0")
    bench.run(admitted(0, 1), hosts=(SshNode("localhost", 1), SshNode("h1", 1)), retire_command=SHOW_RETIRED)
    assert retired.read_text() == "h1|0||h1|localhost|\n"


def test_a_command_that_fails_goes_into_the_log_and_no_further(
    bench: Bench, retired: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.engines_elsewhere("exit 0")
    bench.run(admitted(0), hosts=(SshNode("h1", 1),), retire_command="echo not today; exit 4")
    assert "the command that gives nodes back ended with 4 not today" in bench.log
    assert (bench.exit_status, capsys.readouterr().err) == (0, "")
    assert not retired.exists()


def test_nodes_are_kept_where_the_user_wants_that(bench: Bench, retired: Path) -> None:
    bench.engines_elsewhere("exit 0")
    came, *_ = bench.run(admitted(0), hosts=(SshNode("h1", 1),), retire_command=SHOW_RETIRED, no_retire=True)
    assert isinstance(came, ContextCame)
    assert not came.retires
    assert not retired.exists()


def test_a_run_that_ends_does_not_wait_for_nodes_to_be_given_back(
    bench: Bench, retired: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "RETIRE_PAUSE", 3600.0)
    bench.engines_elsewhere("exit 0")
    over = EndContext(abandoned=(), run_over=True)
    bench.run(admitted(0), over, hosts=(SshNode("h1", 1),), retire_command=SHOW_RETIRED)
    assert not retired.exists()


def test_a_command_that_runs_when_the_run_ends_is_ended(bench: Bench, retired: Path) -> None:
    bench.engines_elsewhere("exit 0")
    bench.say_when(retired, EndContext(abandoned=(), run_over=True))
    command = f"trap 'echo ended >> ended; exit' TERM; > '{retired}'; sleep 60 & wait"
    bench.run(admitted(0), hosts=(SshNode("h1", 1),), retire_command=command)
    ended_file = bench.folder / "ended"
    os.waitpid(-1, 0)
    assert ended_file.read_text() == "ended\n"


def test_nodes_that_end_while_a_command_runs_are_for_the_next(bench: Bench, retired: Path) -> None:
    second = "*h2*) until [ -e begun ]; do sleep 0.01; done;;"
    third = "*h3*) until grep -q ^h2 retired; do sleep 0.01; done;;"
    bench.engines_elsewhere(f'exec 2> /dev/null; case "$*" in {second} {third} esac')
    slow = f"> begun; sleep 0.1; {SHOW_RETIRED}"
    bench.run(admitted(0, 1, 2), hosts=THREE_HOSTS, retire_command=slow)
    assert [line.partition("|")[0] for line in retired.read_text().splitlines()] == ["h1", "h2", "h3"]


def test_nodes_of_a_context_that_is_let_go_are_given_back_all_the_same(bench: Bench, retired: Path) -> None:
    bench.engines_elsewhere("exit 0")
    bench.run(admitted(0), EndContext(abandoned=()), hosts=(SshNode("h1", 1),), retire_command=SHOW_RETIRED)
    assert retired.read_text() == "h1|0||h1||\n"


@pytest.mark.parametrize("end", ["exit 255", "kill -9 $$"])
def test_a_node_whose_engine_may_run_on_is_kept(bench: Bench, retired: Path, end: str) -> None:
    bench.engines_elsewhere(end)
    bench.run(admitted(0), hosts=(SshNode("h1", 1),), retire_command=SHOW_RETIRED)
    assert not retired.exists()


@pytest.mark.parametrize(("status", "given_back"), [(0, True), (1, False)])
def test_where_a_status_tells_little_only_that_of_success_is_believed(
    bench: Bench, retired: Path, monkeypatch: pytest.MonkeyPatch, *, status: int, given_back: bool
) -> None:
    command = ("/bin/bash", "-c", f"exit {status}")
    monkeypatch.setattr("disbatch.managers.ssh.by_ssh", lambda *_: Start(command, status_tells=False))
    bench.run(admitted(0), hosts=(SshNode("h1", 1),), retire_command=SHOW_RETIRED)
    assert retired.exists() is given_back


def test_a_manager_may_know_the_node_of_the_context_by_another_name(
    bench: Bench, retired: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("disbatch.managers.ssh.Ssh.own_node", "n0", raising=False)
    bench.engines_elsewhere("exit 0")
    bench.run(admitted(0), hosts=(SshNode("h1", 1),), retire_command=SHOW_RETIRED)
    assert retired.read_text() == "h1|0||h1|n0|\n"


def test_a_command_that_gives_nodes_back_is_refused_where_hosts_are_named(bench: Bench) -> None:
    with pytest.raises(UsageError, match="--retire-cmd gives back nodes of a job"):
        bench.run(retire_command="true")
