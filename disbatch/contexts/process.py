"""A context as a process: offers its nodes to the driver, starts an engine on each, watches what it has started.

A thin shell. It must not know tasks: engines speak with the driver themselves.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from functools import partial

from disbatch import __version__, messages, options
from disbatch.arguments import arguments_for
from disbatch.contexts.retirement import Retirement
from disbatch.errors import DisbatchError, DriverUnreachableError, ExitStatus
from disbatch.eventloop import EventLoop
from disbatch.joining import connect, open_log
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.launching import Launched, disbatch_command
from disbatch.mailbox import Mailbox
from disbatch.managers.base import EngineCall, Wishes
from disbatch.managers.choice import check_retire_command, manager_of
from disbatch.managers.ssh import SSH_FAILED, names_of_this_machine
from disbatch.runfiles import RunFiles
from disbatch.terminal import answer, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from disbatch.log import Log
    from disbatch.managers.base import Manager
    from disbatch.messages import NodeOffer
    from disbatch.options import ContextRoleOptions

ANSWER_PATIENCE = 60.0
"""Seconds that the driver may take to admit a context."""

LAUNCHES = 100
"""Engines on their way at once, from their start to their coming: a thousand ssh would hinder one another."""

LAUNCH_PATIENCE = 2.0
"""Seconds until an engine that has not come counts as on its way no more: a slow or dead node holds nobody up."""

LAUNCHER_PATIENCE = 12.0
"""Seconds from the first to the second signal for what started engines: to end tasks takes an engine its time."""

DRIVER_PATIENCE = 5.0
"""Seconds until a context that was told to end, and told the driver so, ends its engines itself."""

RETIRE_PAUSE = 10.0
"""Seconds that nodes which are needed no longer are collected before they are given back together."""

KILL_PATIENCE = 6.0
"""Seconds from the second, on which a keeper kills its engine and all that this started, to the last."""


class Context:
    """One context, from its offer to its leaving."""

    def __init__(self, asked: ContextRoleOptions, loop: EventLoop) -> None:
        self._asked = asked
        self._loop = loop
        self._files = RunFiles(asked.run)
        self._token = asked.token or os.urandom(8).hex()
        self._log: Log | None = None
        self._manager: Manager
        self._offers: tuple[NodeOffer, ...] = ()
        self._nodes: dict[int, NodeOffer] = {}
        self._to_launch: list[int] = []
        """Ranks of engines that are still to be started, the first one last."""
        self._on_their_way: set[int] = set()
        self._launched: dict[int, Launched] = {}
        self._uncertain: set[int] = set()
        """Ranks of engines of which the end of what had started them tells little."""
        self._failed = 0
        """How many engines have failed, their start included, while nobody was ending them."""
        self._rank: int | None = None
        self._label = ""
        self._exit_status: int | None = None
        self._retirement: Retirement | None = None
        self._retire_command = ""
        self._retire_is_planned = False
        self._retiring: Launched | None = None
        """The command that is giving nodes back."""
        self._ending = False
        """Whether what was started is to end: a failure is no news then."""
        self._in_a_hurry = False
        """Whether the run is over, or somebody wants this context to end: no nodes are waited for to be given back."""
        self._mailbox = Mailbox(
            loop,
            connect(asked.kvs),
            partial(connect, asked.kvs),
            self._files.job,
            messages.context_name(self._token),
            self._take,
            self._driver_lost,
        )

    def run(self) -> int:
        """Serve until nothing that was started runs any more; the exit status."""
        try:
            self._offers = self._lay_out()
        except DisbatchError as error:
            self._mailbox.send(messages.ContextFailed(self._token, error.message, error.hint))
            self._mailbox.close()
            raise
        self._mailbox.send(
            messages.ContextCame(
                token=self._token,
                version=__version__,
                label=self._asked.label or self._manager.label,
                system=self._manager.system,
                host=os.uname().nodename,
                pid=os.getpid(),
                nodes=self._offers,
                environment_resources=self._asked.environment_resources,
                task_limit=self._asked.task_limit,
                retires=bool(self._retire_command),
            )
        )
        if self._asked.gpu:
            tell(options.GPU_HAS_NO_EFFECT)
        self._loop.after(ANSWER_PATIENCE, partial(self._fail, "the driver did not answer"))
        self._loop.on_signal(signal.SIGCHLD, self._reap)
        self._loop.on_request_to_end(self._told_to_end)
        self._loop.on_signal(signal.SIGUSR1, self._told_to_drain)
        while self._exit_status is None:
            self._loop.turn()
        self._mailbox.close()
        return self._exit_status

    def _lay_out(self) -> tuple[NodeOffer, ...]:
        self._manager = manager_of(os.environ, self._asked.nodes, _names_of_this_machine)
        wishes = Wishes(self._asked.cpus_per_task, self._asked.tasks_per_node, self._asked.fill)
        for conflict in self._manager.conflicts(wishes):
            tell(conflict)
        if not self._asked.no_retire:
            check_retire_command(self._manager, self._asked.retire_command)
            self._retire_command = self._asked.retire_command or str(getattr(self._manager, "give_back", ""))
        return self._manager.offers(wishes)

    # What comes from the driver.

    def _take(self, message: messages.Message) -> None:
        if isinstance(message, messages.ContextAdmitted):
            self._be_admitted(message)
        elif isinstance(message, messages.ContextRefused):
            if self._rank is not None:
                self._driver_lost(message.reason)
            elif message.run_done:
                answer("Run done")
                self._exit_status = ExitStatus.OK
            else:
                self._fail(message.reason)
        elif isinstance(message, messages.EngineHasCome):
            self._on_its_way_no_more(message.engine_rank)
        elif isinstance(message, messages.EndContext):
            self._note("told to end by the driver")
            self._in_a_hurry = self._in_a_hurry or message.run_over
            self._begin_to_end()
            # The others are not hurried: their STOP commands take what they take, and the driver knows of each.
            self._end(message.abandoned)
            self._leave_if_done()

    def _be_admitted(self, admission: messages.ContextAdmitted) -> None:
        self._rank, self._label = admission.context_rank, admission.label
        try:
            self._log = open_log(self._files.context_log(self._label), self._asked.log_level)
        except DisbatchError as error:
            self._mailbox.send(messages.ContextFailed(self._token, error.message, error.hint))
            self._mailbox.close()
            raise
        self._note(f"context {self._rank}, label {self._label}, pid {os.getpid()}, version {__version__}")
        self._mailbox.on_news = self._note
        self._mailbox.keep(admission.lease)
        self._nodes = dict(zip(admission.engine_ranks, self._offers, strict=True))
        names = [offer.name for offer in self._offers]
        if sys.stderr.isatty():
            tell(f"added {', '.join(names)} to the run; Ctrl-C takes them away again")
        if self._retire_command:
            own = self._own_node(names)
            # A job lives on without engines where the driver itself is in it.
            stays = self._token == self._asked.token and bool(own)
            self._retirement = Retirement(names, own, last_too=stays or self._asked.retire_command is not None)
        self._to_launch = sorted(self._nodes, reverse=True)
        self._start_engines()
        self._leave_if_done()

    def _start_engines(self) -> None:
        while self._to_launch and len(self._on_their_way) < LAUNCHES:
            rank = self._to_launch.pop()
            self._on_their_way.add(rank)
            if self._to_launch:
                self._loop.after(LAUNCH_PATIENCE, partial(self._on_its_way_no_more, rank))
            self._start_engine(self._nodes[rank], rank)

    def _on_its_way_no_more(self, rank: int) -> None:
        self._on_their_way.discard(rank)
        self._start_engines()

    def _start_engine(self, offer: NodeOffer, rank: int) -> None:
        node, label = offer.name, self._label
        joining = options.JoinOptions(self._asked.run, self._asked.kvs, self._asked.log_level)
        engine = options.EngineRoleOptions(joining.run, joining.kvs, joining.log_level, label, node, rank)
        # The script names the run itself; what runs here directly has to be told.
        only_engine = arguments_for(engine, ["label", "node", "rank", "log_level"])
        local = [*disbatch_command(), options.ENGINE_ROLE, *arguments_for(joining, ["run", "kvs"])]
        start = self._manager.start(offer, EngineCall(tuple(local), self._files.script, tuple(only_engine)))
        self._note(f"engine {rank} on {node}: {list(start.command)}")
        output = self._files.engine_output(label, node)
        if not start.status_tells:
            self._uncertain.add(rank)
        try:
            self._launched[rank] = Launched(start.command, output, environment=start.environment)
        except DisbatchError as error:
            self._engine_ended(rank, ExitStatus.FAILED, str(error))

    def _driver_lost(self, reason: str) -> None:
        if self._rank is None:
            self._fail(f"lost the driver: {reason}")
            return
        self._note(f"lost the driver: {reason}")
        self._end_all()

    # What comes from elsewhere.

    def _told_to_end(self, number: signal.Signals) -> None:
        self._note(f"got {number.name}")
        if self._rank is None:
            self._fail(f"got {number.name}")
            return
        self._in_a_hurry = True
        self._mailbox.send(messages.ContextToldToEnd(self._rank))
        self._loop.after(DRIVER_PATIENCE, self._end_without_driver)

    def _told_to_drain(self) -> None:
        self._note("got SIGUSR1")
        if self._rank is None:
            self._fail("got SIGUSR1")
            return
        self._mailbox.send(messages.ContextToldToDrain(self._rank))

    def _reap(self) -> None:
        self._reap_retire_command()
        for rank, launched in list(self._launched.items()):
            return_code = launched.return_code()
            if return_code is not None:
                del self._launched[rank]
                words = launched.last_words()
                launched.clear_away()
                self._engine_ended(rank, return_code, words)
        self._start_engines()
        self._leave_if_done()

    def _engine_ended(self, rank: int, return_code: int, words: str) -> None:
        self._on_their_way.discard(rank)
        self._note(f"engine {rank} ended with {return_code} {words}")
        self._mailbox.send(messages.EngineProcessEnded(rank, return_code, words, rank not in self._uncertain))
        if return_code and not self._ending:
            self._failed += 1
            tell(f"{self._nodes[rank].name} runs no tasks: {words or f'its engine ended with {return_code}'}")
        # An ssh that has lost its host says 255; where a status tells little, an engine may run on behind all but 0.
        if self._retirement is not None and 0 <= return_code < (1 if rank in self._uncertain else SSH_FAILED):
            self._retirement.add(self._nodes[rank].name, return_code)
            self._plan_to_retire()

    def _leave_if_done(self) -> None:
        busy = self._launched or self._to_launch or (self._has_nodes_to_give_back and not self._in_a_hurry)
        if self._rank is not None and not busy and self._exit_status is None:
            if self._retiring is not None:
                self._retiring.signal(signal.SIGTERM)
                self._retiring.clear_away()
            self._mailbox.send(messages.ContextLeft(self._rank))
            self._note("leaving")
            self._exit_status = ExitStatus.FAILED if self._failed == len(self._nodes) else ExitStatus.OK

    # Giving nodes back.

    def _own_node(self, names: Sequence[str]) -> str:
        """Node that this process runs on, as its manager names it, or as one of those names; empty for none."""
        here = _names_of_this_machine(names)
        return getattr(self._manager, "own_node", "") or next((name for name in names if name.lower() in here), "")

    @property
    def _has_nodes_to_give_back(self) -> bool:
        return self._retiring is not None or (self._retirement is not None and self._retirement.is_due)

    def _plan_to_retire(self) -> None:
        if not self._retire_is_planned:
            self._retire_is_planned = True
            self._loop.after(RETIRE_PAUSE, self._retire)

    def _retire(self) -> None:
        """Give back what is needed no longer."""
        self._retire_is_planned = False
        if self._retiring is not None:
            self._plan_to_retire()
        elif self._retirement is not None and self._retirement.is_due:
            variables = self._retirement.take()
            kept = {name: value for name, value in os.environ.items() if name not in (SECRET_VARIABLE, "DRIVER_NODE")}
            self._note(f"giving back {variables['NODES']}; in use: {variables['ACTIVE'] or 'none'}")
            try:
                command = ("/bin/bash", "-c", self._retire_command)
                self._retiring = Launched(
                    command, self._files.retire_output(self._label), environment={**kept, **variables}
                )
            except DisbatchError as error:
                self._note(f"cannot give nodes back: {error}")
        self._leave_if_done()

    def _reap_retire_command(self) -> None:
        if self._retiring is not None and (return_code := self._retiring.return_code()) is not None:
            self._note(f"the command that gives nodes back ended with {return_code} {self._retiring.last_words()}")
            self._retiring.clear_away()
            self._retiring = None

    # Ending what was started.

    def _end(self, ranks: Collection[int]) -> None:
        """Ask what was started for these engines to end, and see to it that it does."""
        ask, insist, kill = (signal.Signals[name] for name in self._manager.ends_by)
        self._signal(ranks, ask)
        self._loop.after(LAUNCHER_PATIENCE, partial(self._signal, ranks, insist))
        self._loop.after(LAUNCHER_PATIENCE + KILL_PATIENCE, partial(self._signal, ranks, kill))

    def _end_without_driver(self) -> None:
        if not self._ending:
            self._note("the driver does not answer")
            self._end_all()

    def _begin_to_end(self) -> None:
        self._ending = True
        self._to_launch.clear()

    def _end_all(self) -> None:
        self._in_a_hurry = True
        self._begin_to_end()
        self._end(tuple(self._launched))
        self._leave_if_done()

    def _signal(self, ranks: Collection[int], number: signal.Signals) -> None:
        for rank in ranks:
            if rank in self._launched:
                self._launched[rank].signal(number)

    def _fail(self, reason: str) -> None:
        """End without having joined; once the driver has admitted the context this has no effect."""
        if self._rank is None:
            tell(f"this context could not join the run: {reason}")
            self._exit_status = ExitStatus.FAILED

    def _note(self, text: str) -> None:
        if self._log is not None:
            self._log.info("%s", text)


def _names_of_this_machine(nodes: Sequence[str]) -> frozenset[str]:
    name = os.uname().nodename
    short = name.partition(".")[0]
    # A look-up that may take seconds, for the one case where it can make a difference.
    needs_full_name = any(node.lower().startswith(f"{short.lower()}.") for node in nodes)
    return names_of_this_machine(name, socket.getfqdn() if needs_full_name else name)


def main(arguments: Sequence[str]) -> int:
    """Be a context, or what else a run's script is asked for; the exit status."""
    asked = options.parse_context(arguments, "dbUtil.sh")
    try:
        if asked.failures:
            return _tell_failures(asked)
        if asked.mon or asked.status:
            return _show(asked)
        return _steer(asked) if asked.kvs_env or asked.stop else _serve(asked)
    except DriverUnreachableError:
        if _is_over(asked.run):
            if asked.kvs_env:  # whose reader takes every line for one of a variable
                raise DisbatchError("the run is over, and its key-value store has gone with it") from None
            answer("Run done")
            return ExitStatus.OK
        raise


def _is_over(run: str) -> bool:
    """Whether a run has ended in order: it takes away the files that tell where its store is."""
    files = RunFiles(run)
    return not any(map(os.path.exists, (files.kvs_address, files.observer)))


def _tell_failures(asked: ContextRoleOptions) -> int:
    from disbatch.report import failures  # noqa: PLC0415 - a context has no use for it

    return failures.main_of_run(asked)


def _show(asked: ContextRoleOptions) -> int:
    from disbatch.monitor import process as monitor  # noqa: PLC0415 - a context has no use for it

    if asked.status:
        return monitor.tell(asked.kvs, partial(_is_over, asked.run), as_json=asked.json)
    return monitor.watch(asked.kvs, partial(_is_over, asked.run), may_stop=True)


def _steer(asked: ContextRoleOptions) -> int:
    from disbatch import steering  # noqa: PLC0415 - a context has no use for it

    if asked.kvs_env:
        return steering.print_store(asked)
    kind, name = asked.stop
    return steering.stop(asked, kind, name)


def _serve(asked: ContextRoleOptions) -> int:
    loop = EventLoop()
    try:
        return Context(asked, loop).run()
    finally:
        loop.close()
