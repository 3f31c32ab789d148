"""Contexts and engines come, go, and are lost: what the run answers them, and what it can still expect.

Pure: handlers of events, which give their commands to `do`. It must not know the list of tasks; what an engine holds
when it goes is for the controller to take back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from disbatch import messages
from disbatch.driver import events
from disbatch.driver.fleet import Context, EngineStage
from disbatch.managers.ssh import SSH_FAILED
from disbatch.values import shell_word

if TYPE_CHECKING:
    from collections.abc import Callable

    from disbatch.driver.events import Command, Settings
    from disbatch.driver.fleet import Engine, Fleet
    from disbatch.tasks import PerEngineTask

GRACE = 5.0
"""Seconds between TERM and KILL for tasks that a run, or a context that is told to end, ends."""

DRAIN = (messages.ReturnTasks(), messages.FinishEngine())
"""What an engine is told that is to finish what runs; what only waits there can start elsewhere."""

CANCEL = (messages.CancelEngine(GRACE, stop_commands=True),)
"""What an engine is told that is to end what runs."""

GOODBYE_PATIENCE = 5.0
"""Seconds that the goodbye of an engine may be on its way when all of it has ended, or the run does."""

SILENT_HOST = 35.0
"""Seconds within which TCP tells that a host is silent, and some more; see `kvsstcp.endpoint`."""

LOOKS = 20
"""How often in the time of the driver's patience it is looked who is silent."""

OWN_TOKEN = "own"  # noqa: S105 - it names the context, and lets nobody in
"""Token of the context that the driver starts itself."""


class Membership:
    """Who belongs to the run, as long as it is `open`; closed, it refuses whoever comes.

    `do` takes each command; `on_gone` each engine that has gone, with tasks to its name or without, and whether some of
    them may have begun; it says how many of them are to run again. `now` (s since the epoch, only
    shown) and `clock` (s, for all that is decided) are to be set before an event is handed over.
    """

    def __init__(
        self, settings: Settings, fleet: Fleet, do: Callable[[Command], None], on_gone: Callable[[Engine, bool], int]
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._do = do
        self._on_gone = on_gone
        self._open = True
        self._wanted = False
        self._own_context_pending = False
        self._per_engine_tasks: tuple[PerEngineTask, ...] | None = None
        self.may_wait = settings.startup_only
        """Whether a run without engines waits for others: those that it had were sent away, or it began without."""
        self._told_to_add = False
        self._told_to_have_ended: set[int] = set()
        self._news: list[str] = []
        self.now = self.clock = 0.0
        self._looked_at: float | None = None
        self._has_paused = False
        self.handlers: dict[type, Callable[..., None]] = {
            events.MemberCut: self._member_cut,
            events.MemberRejoined: self._member_rejoined,
            events.MemberHeard: self._member_heard,
            events.SilenceToBeJudged: self._judge_silence,
            events.OwnContextEnded: self._own_context_ended,
            events.EngineOverdue: self._engine_overdue,
            events.PauseBegan: self._pause_began,
            events.PauseEnded: self._pause_ended,
            messages.ContextCame: self._context_came,
            messages.ContextFailed: self._context_failed,
            messages.ContextToldToEnd: self._context_told_to_end,
            messages.ContextToldToDrain: self._context_told_to_drain,
            messages.ContextLeft: self._context_left,
            messages.EngineProcessEnded: self._engine_process_ended,
            messages.EngineCleared: self._engine_cleared,
            messages.EngineCame: self._engine_came,
            messages.EngineUnfit: self._engine_unfit,
            messages.EngineToldToEnd: self._engine_told_to_end,
            messages.EngineReady: self._engine_ready,
            messages.CylindersChanged: self._cylinders_changed,
            messages.EngineToldToDrain: self._engine_told_to_drain,
            messages.EngineLeft: self._engine_left,
            messages.StopEngine: self._engine_to_stop,
            messages.StopContext: self._context_to_stop,
        }

    # What the controller asks for.

    def want(self) -> None:
        """Start the driver's own context, the first time that a task wants a cylinder."""
        if not self._wanted:
            self._wanted = True
            if not self._settings.startup_only:
                self._own_context_pending = True
                self._do(events.StartContext())

    def settle_per_engine_tasks(self, tasks: tuple[PerEngineTask, ...]) -> None:
        """Take the per-engine commands for complete, the first time, and admit the engines that waited for them."""
        if self._per_engine_tasks is None:
            self._per_engine_tasks = tasks
            for engine in self._fleet.engines:
                if engine.stage is EngineStage.WAITING:
                    self._admit_engine(engine, tasks)

    @property
    def is_forsaken(self) -> bool:
        """Whether resources were wanted, and none is there or on its way."""
        return self._wanted and not self._own_context_pending and not self._fleet.any_left()

    def wait(self) -> None:
        """Tell the user, once until somebody comes, that the run waits for resources."""
        if not self._told_to_add:
            self._told_to_add = True
            self._tell(f"the run waits for resources; {shell_word(self._settings.script)} -s HOST:N adds some")

    def retire_idle(self) -> None:
        """Let engines end that have nothing to do, where that is worth it, because no more is to come."""
        for engine in self._fleet.idle():
            self._note(f"nothing is left for engine {engine.rank} on {engine.node}, it retires")
            self._send_away(engine, messages.FinishEngine())

    def dismiss(self, context: Context) -> None:
        """Let a context finish what its engines have, and give them nothing more."""
        self._note(f"context {context.label} was given its {context.task_limit} tasks and is let go")
        self.may_wait = True
        context.dismissed = True
        self._end_context(context, messages.FinishEngine())

    def close(self, *farewell: messages.ToEngine) -> None:
        """Let nobody in any more, and send everybody away."""
        self._open = False
        for engine in self._fleet.listening:
            if engine.cut:
                self._await_goodbye(engine)
        for context in self._fleet.contexts:
            self._end_context(context, *farewell)

    def tell_news(self) -> None:
        """Tell the user, a line each, what this event has brought."""
        for text in self._take_news():
            self._do(events.TellUser(text))

    def in_one_line(self, consequence: str) -> str:
        """What this event has brought, and what the run makes of it; it is not told again."""
        return "; ".join([*self._take_news(), consequence])

    def _take_news(self) -> list[str]:
        news, self._news = self._news, []
        return news

    def _tell(self, text: str) -> None:
        self._news.append(text)

    def _note(self, text: str) -> None:
        self._do(events.NoteInLog(text))

    # The driver is silent for a while.

    def _pause_began(self, _event: events.PauseBegan) -> None:
        self._note("stopped by a signal; goes on when it is let")
        self._tell_everybody(messages.DriverPauses())

    def _pause_ended(self, _event: events.PauseEnded) -> None:
        self._note("goes on")
        self._tell_everybody(messages.DriverGoesOn())
        self._has_paused = True
        # Who is cut off by now has learned of neither: its lease ends when TCP tells that the connection has broken.
        for engine in self._fleet.listening:
            engine.heard_at = self.clock + SILENT_HOST
        for context in self._fleet.contexts:
            context.heard_at = self.clock + SILENT_HOST

    def _tell_everybody(self, message: messages.ToBoth) -> None:
        for context in self._fleet.contexts:
            if not context.gone:
                self._do(events.SendToContext(context.token, message))
        for engine in self._fleet.listening:
            self._do(events.SendToEngine(engine.rank, message))

    # Contexts.

    def _context_came(self, event: messages.ContextCame) -> None:
        refusal = None
        if not self._open:
            refusal = messages.ContextRefused(run_done=True, reason="the run is over")
        elif event.version != self._settings.version:
            reason = self._other_version(event.version)
            self._tell(f"refused the context on {event.host}: {reason}")
            refusal = messages.ContextRefused(run_done=False, reason=reason)
        if refusal is not None:
            self._do(events.SendToContext(event.token, refusal))
            return
        if event.token == OWN_TOKEN:
            self._own_context_pending = False
        self._told_to_add = False
        context = self._fleet.admit_context(event)
        self.hear(context)
        admission = messages.ContextAdmitted(context.rank, context.label, context.engines, self._settings.lease)
        self._do(events.SendToContext(event.token, admission))
        nodes = ", ".join(f"engine {rank} on {self._fleet.engines[rank].node}" for rank in context.engines)
        self._note(f"context {context.label} of {event.host}, pid {event.pid}, has come: {nodes}")

    def _other_version(self, version: str) -> str:
        return f"it is of version {version}, the driver of {self._settings.version}"

    def _context_failed(self, event: messages.ContextFailed) -> None:
        reason = f"{event.reason}; {event.hint}" if event.hint else event.reason
        if event.token == OWN_TOKEN:
            self._own_context_pending = False
            self._tell(reason)
        else:
            self._tell(f"a context could not join the run: {reason}")
        context = self._fleet.context_with(event.token)
        if context is not None:
            self._context_is_gone(context)

    def _own_context_ended(self, event: events.OwnContextEnded) -> None:
        if self._own_context_pending and self._open:
            self._own_context_pending = False
            self._tell(f"the context ended with {event.return_code} before it had joined the run: {event.last_words}")
        context = self._fleet.context_with(OWN_TOKEN)
        if context is not None and not context.gone:
            context.has_ended = True
            if context.cut:  # or what it has said last may still come
                self._context_lost(context)

    def _context_told_to_end(self, event: messages.ContextToldToEnd) -> None:
        if not 0 <= event.context_rank < len(self._fleet.contexts):
            return
        context = self._fleet.contexts[event.context_rank]
        self._note(f"context {context.label} was told to end")
        self._end_context(context, *CANCEL)

    def _context_told_to_drain(self, event: messages.ContextToldToDrain) -> None:
        self._context_to_stop(messages.StopContext(event.context_rank, now=False))

    def _context_to_stop(self, event: messages.StopContext) -> None:
        if 0 <= event.context_rank < len(self._fleet.contexts):
            self.may_wait = True
            context = self._fleet.contexts[event.context_rank]
            self._note(f"context {context.label} is to stop{' now' * event.now}")
            self._end_context(context, *(CANCEL if event.now else DRAIN))

    def _end_context(self, context: Context, *orders: messages.ToEngine) -> None:
        for engine in self._engines_of(context):
            self._send_away(engine, *orders)
        if not context.gone:
            order = messages.EndContext(self._abandon(context), run_over=not self._open)
            self._do(events.SendToContext(context.token, order))

    def _context_left(self, event: messages.ContextLeft) -> None:
        if 0 <= event.context_rank < len(self._fleet.contexts):
            self._context_is_gone(self._fleet.contexts[event.context_rank])

    def _context_lost(self, context: Context) -> None:
        if self._open:
            self._tell(f"lost the context {context.label}; its engines that run go on")
        self._context_is_gone(context)

    def _context_is_gone(self, context: Context) -> None:
        if not context.gone:
            self._note(f"context {context.label} has gone")
            self._do(events.ForgetMember(messages.context_name(context.token)))
        context.gone = True
        self._abandon(context)

    def _engines_of(self, context: Context) -> list[Engine]:
        return [self._fleet.engines[rank] for rank in context.engines]

    def _abandon(self, context: Context) -> tuple[int, ...]:
        """Expect no longer those engines of the context that have not come; their ranks."""
        expected = [engine for engine in self._engines_of(context) if engine.stage is EngineStage.EXPECTED]
        for engine in expected:
            self._fleet.move(engine, EngineStage.GONE)
        return tuple(engine.rank for engine in expected)

    # Who is heard, and who is not.

    def _member(self, name: str) -> Engine | Context | None:
        """Engine or context of that name, if it is one that counts on the driver still."""
        kind, _, which = name.partition(" ")
        if kind == "engine":
            engine = self._fleet.engine(int(which))
            return engine if engine is not None and engine.can_hear else None
        context = self._fleet.context_with(which)
        return context if context is not None and not context.gone else None

    def hear(self, member: Engine | Context) -> None:
        """Take note that a member has said something."""
        member.heard_at = max(member.heard_at, self.clock)
        if self._looked_at is None:
            self._look_again()

    def _look_again(self) -> None:
        self._looked_at = self.clock
        self._do(events.WakeAfter(self._settings.heartbeat_patience / LOOKS, events.SilenceToBeJudged()))

    def _member_heard(self, event: events.MemberHeard) -> None:
        member = self._member(event.name)
        if member is not None:
            self.hear(member)
        if member is not None and not isinstance(member, Context):
            member.heard = self.now

    def _member_cut(self, event: events.MemberCut) -> None:
        member = self._member(event.name)
        if member is None:
            self._do(events.ForgetMember(event.name))
        elif isinstance(member, Context):
            member.cut = True
            self._note(f"the connection to context {member.label} broke")
            serves = any(engine.can_hear for engine in self._engines_of(member))
            if member.has_ended or not (self._open or serves):
                self._context_lost(member)
        else:
            self._note(f"the connection to engine {member.rank} on {member.node} broke")
            self._fleet.cut_off(member, cut=True)
            if member.nothing_runs:
                self._engine_lost(member)
            elif not self._open:
                self._await_goodbye(member)

    def _await_goodbye(self, engine: Engine) -> None:
        """Wait for an engine that is cut off in a run that ends: not for long, unless something may still run there."""
        if engine.tasks:
            patience = f"for {self._settings.heartbeat_patience:g} s at most"
            self._tell(f"the connection to the engine on {engine.node} is broken; waiting {patience} (Ctrl-C: at once)")
        else:
            self._do(events.WakeAfter(GOODBYE_PATIENCE, events.EngineOverdue(engine.rank)))

    def _member_rejoined(self, event: events.MemberRejoined) -> None:
        member = self._member(event.name)
        if member is None:
            self._do(events.ForgetMember(event.name))
            return
        self.hear(member)
        if self._has_paused:  # it may learn only now that the driver goes on, and count from then
            member.heard_at = self.clock + SILENT_HOST
        if isinstance(member, Context):
            member.cut = False
            self._note(f"context {member.label} is connected again")
        else:
            self._note(f"engine {member.rank} on {member.node} is connected again")
            self._fleet.cut_off(member, cut=False)

    def _judge_silence(self, _event: events.SilenceToBeJudged) -> None:
        """Give up who has not been heard for the driver's patience: nothing of it runs any more."""
        patience = self._settings.heartbeat_patience
        # Who looks late may have been stopped, and not have read what the others said meanwhile.
        is_late = self._looked_at is not None and self.clock - self._looked_at > 3 * patience / LOOKS
        self._look_again()
        if is_late:
            heard = self.clock - patience / 2
            for engine in self._fleet.listening:
                engine.heard_at = max(engine.heard_at, heard)
            for context in self._fleet.contexts:
                context.heard_at = max(context.heard_at, heard)
            return
        for engine in list(self._fleet.listening):
            # One that waits to be admitted has no lease: it does not beat, and it ends with its connection.
            has_lease = engine.stage is not EngineStage.WAITING or engine.cut
            if has_lease and self.clock - engine.heard_at > patience:
                self._engine_lost(engine)
        for context in self._fleet.contexts:
            if not context.gone and self.clock - context.heard_at > patience:
                self._context_lost(context)

    # Engines.

    def _engine_told_to_drain(self, event: messages.EngineToldToDrain) -> None:
        self._engine_to_stop(messages.StopEngine(event.engine_rank, now=False))

    def _engine_to_stop(self, event: messages.StopEngine) -> None:
        engine = self._fleet.engine(event.engine_rank)
        if engine is None:
            return
        self.may_wait = True
        self._note(f"engine {engine.rank} on {engine.node} is to stop{' now' * event.now}")
        if engine.stage is EngineStage.EXPECTED:
            self._fleet.move(engine, EngineStage.GONE)  # it is refused when it comes
        else:
            self._send_away(engine, *(CANCEL if event.now else DRAIN))

    def _send_away(self, engine: Engine, *orders: messages.ToEngine) -> None:
        """Send an engine away that has come; one that leaves already can only be hurried."""
        if not engine.can_hear or (engine.stage is EngineStage.LEAVING and orders != CANCEL):
            return
        if engine.stage is EngineStage.WAITING:
            self._fleet.move(engine, EngineStage.GONE)
            reason = "it was told to stop" if self._open else "the run is over"
            self._do(events.SendToEngine(engine.rank, messages.EngineRefused(reason)))
            return
        self._fleet.move(engine, EngineStage.LEAVING)
        engine.on_purpose = True
        for order in orders:
            engine.recalled = engine.recalled or isinstance(order, messages.ReturnTasks)
            self._do(events.SendToEngine(engine.rank, order))

    def _engine_came(self, event: messages.EngineCame) -> None:
        engine = self._fleet.engine(event.engine_rank)
        if engine is not None and engine.can_hear:
            return  # an answer would reach the engine that is here already, under the same key
        if engine is not None and not self._fleet.contexts[engine.context_rank].gone:
            token = self._fleet.contexts[engine.context_rank].token
            self._do(events.SendToContext(token, messages.EngineHasCome(engine.rank)))
        if engine is None or engine.stage is not EngineStage.EXPECTED or not self._open:
            refusal = messages.EngineRefused("the run is over, or does not expect this engine")
            self._do(events.SendToEngine(event.engine_rank, refusal))
            return
        if event.version != self._settings.version:
            self._fleet.move(engine, EngineStage.GONE)
            reason = self._other_version(event.version)
            self._tell(f"refused the engine on {engine.node}: {reason}")
            self._do(events.SendToEngine(engine.rank, messages.EngineRefused(reason)))
            return
        self._fleet.move(engine, EngineStage.WAITING)
        self.hear(engine)
        engine.host, engine.pid = event.host, event.pid
        # The node of the driver cannot be given back; what others lose can still run there.
        engine.retires = self._fleet.contexts[engine.context_rank].retires and event.host != self._settings.host
        if self._per_engine_tasks is not None:
            self._admit_engine(engine, self._per_engine_tasks)

    def _admit_engine(self, engine: Engine, per_engine_tasks: tuple[PerEngineTask, ...]) -> None:
        self._fleet.move(engine, EngineStage.STARTING)
        settings = messages.EngineAdmitted(
            directory=self._settings.directory,
            job=self._settings.job,
            task_source=self._settings.task_source,
            cylinders=engine.cylinders,
            cores_per_cylinder=engine.cores_per_cylinder,
            environment_resources=self._fleet.contexts[engine.context_rank].environment_resources,
            per_engine_tasks=per_engine_tasks,
            lease=self._settings.lease,
        )
        self.hear(engine)
        self._do(events.SendToEngine(engine.rank, settings))

    def _engine_ready(self, event: messages.EngineReady) -> None:
        engine = self._fleet.engine(event.engine_rank)
        if engine is not None and engine.stage is EngineStage.STARTING:
            self._fleet.serve(engine, event.cylinders)
            self._note(
                f"engine {engine.rank} on {engine.node}, pid {engine.pid}, takes {event.cylinders} tasks at once"
            )

    def _cylinders_changed(self, event: messages.CylindersChanged) -> None:
        engine = self._fleet.engine(event.engine_rank)
        if engine is None or engine.stage is not EngineStage.SERVING:
            return
        text = f"{engine.node} takes {event.cylinders} tasks at once from now on, not {engine.cylinders}"
        if event.cylinders < engine.cylinders:
            self._tell(f"{text}: processes of its engine have gone")
        else:
            self._note(text)
        self._fleet.resize(engine, event.cylinders)

    def _engine_unfit(self, event: messages.EngineUnfit) -> None:
        engine = self._fleet.engine(event.engine_rank)
        if engine is not None and engine.can_hear:
            self._tell(f"{engine.node} runs no tasks: {event.reason}")
            self._engine_is_gone(engine)

    def _engine_told_to_end(self, event: messages.EngineToldToEnd) -> None:
        engine = self._fleet.engine(event.engine_rank)
        if engine is not None and engine.stage in (EngineStage.STARTING, EngineStage.SERVING):
            self._note(f"engine {engine.rank} on {engine.node} was told to end")
            self._fleet.move(engine, EngineStage.LEAVING)
            engine.on_purpose = True

    def _engine_process_ended(self, event: messages.EngineProcessEnded) -> None:
        engine = self._fleet.engine(event.engine_rank)
        if engine is None:
            return
        # What was started is the keeper, which ends last; only when it was killed itself may something live on.
        if event.certain and 0 <= event.return_code < SSH_FAILED and self._nothing_runs(engine):
            return
        if engine.stage in (EngineStage.WAITING, EngineStage.STARTING, EngineStage.SERVING) and event.return_code:
            why = f": {event.last_words}" if event.last_words else ""
            self._tell(f"{engine.node}: what had started its engine ended with {event.return_code}{why}")
            self._told_to_have_ended.add(engine.rank)
        elif engine.stage is EngineStage.EXPECTED:
            self._fleet.move(engine, EngineStage.GONE)
            why = event.last_words or f"what was to start it ended with {event.return_code}"
            self._tell(f"{engine.node} runs no tasks: its engine did not start: {why}")

    def _engine_cleared(self, event: messages.EngineCleared) -> None:
        engine = self._fleet.engine(event.engine_rank)
        if engine is not None:
            self._nothing_runs(engine)

    def _nothing_runs(self, engine: Engine) -> bool:
        """Take note that all of an engine has ended for sure; whether it is lost by that at once."""
        engine.nothing_runs = True
        if engine.can_hear and engine.cut:
            self._engine_lost(engine)
            return True
        if engine.can_hear:  # what it has said last may be on its way
            self._do(events.WakeAfter(GOODBYE_PATIENCE, events.EngineOverdue(engine.rank)))
        return False

    def _engine_left(self, event: messages.EngineLeft) -> None:
        engine = self._fleet.engine(event.engine_rank)
        if engine is not None and engine.can_hear:
            self._engine_is_gone(engine)

    def _engine_lost(self, engine: Engine) -> None:
        """Count on an engine no longer that has not said goodbye, and of which nothing runs any more."""
        held = len(engine.tasks)
        self._note(f"engine {engine.rank} is lost, with the tasks {', '.join(map(str, engine.begun)) or 'none'} begun")
        self._fleet.cut_off(engine, cut=True)  # it has not left, as those who look are to see
        again = self._engine_is_gone(engine, lost=True)
        fate = f"; {again} of its tasks {'to run again' if self._open else 'left to a run that resumes'}" * bool(again)
        if not self._settings.requeue:
            fate = f"; {held} of its tasks have failed, as they must not run twice" * bool(held)
        if held or engine.rank not in self._told_to_have_ended:
            self._tell(f"lost the engine on {engine.node}{fate}")

    def _engine_overdue(self, event: events.EngineOverdue) -> None:
        engine = self._fleet.engines[event.engine_rank]
        is_of_no_use = engine.cut and not self._open and not engine.tasks
        if engine.can_hear and (engine.nothing_runs or is_of_no_use):
            self._engine_lost(engine)

    def _engine_is_gone(self, engine: Engine, *, lost: bool = False) -> int:
        """Take note that an engine has gone; how many of its tasks are to run again."""
        self._note(f"engine {engine.rank} on {engine.node} has gone; it finished {engine.finished} tasks")
        self._fleet.move(engine, EngineStage.GONE)
        self._do(events.ForgetMember(messages.engine_name(engine.rank)))
        return self._on_gone(engine, lost)
