"""What the driver says to contexts and engines, and hears from them, over however many connections each has in turn.

It must not know what the messages mean, but for those about the conversation itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from disbatch import messages
from disbatch.driver import events
from disbatch.errors import MessageError
from disbatch.line import Line

if TYPE_CHECKING:
    from disbatch.kvsstcp.server import Server
    from disbatch.messages import ContextCame, EngineCame, ToContext, ToDriver, ToEngine

LONGEST_NAME = 100
"""Characters of a member's name, at most."""


class _Member:
    """A context or an engine: its line, the key of its latest connection, and that itself while there is one."""

    def __init__(self, name: str, key: bytes) -> None:
        self.name = name
        self.key = key
        self.line = Line()
        self.peer: int | None = None
        self.connection = 0
        self.reads = True
        """Whether it may read what is put under its key; else that waits for its next connection."""


class Correspondence:
    """Keeps the lines to all members of the run of that job, through a server whose clients they are."""

    def __init__(self, job: str, server: Server) -> None:
        self._job = job
        self._server = server
        self._members: dict[str, _Member] = {}
        self._at: dict[int, _Member] = {}
        """Members by their connections."""
        self._refused: dict[int, bytes] = {}
        """Keys under which connections were refused: what is put there is for nobody else."""

    def _member(self, name: str) -> _Member:
        member = self._members.get(name)
        if member is None:
            member = self._members[name] = _Member(name, messages.member_key(self._job, name))
        return member

    def perform(self, command: events.SendToEngine | events.SendToContext | events.ForgetMember) -> None:
        """Do what the controller asks for."""
        if isinstance(command, events.SendToEngine):
            self._send(messages.engine_name(command.engine_rank), command.message)
        elif isinstance(command, events.SendToContext):
            self._send(messages.context_name(command.token), command.message)
        else:
            self._forget(command.name)

    def _send(self, name: str, message: ToContext | ToEngine) -> None:
        """Send a message to the member of that name; where its connection is broken, over the next one."""
        member = self._member(name)
        data = messages.encode(message)
        member.line.sends(data)
        if member.reads:
            # A member takes one value in the time of a round trip, however long that is: all there is goes into one.
            self._server.put_behind(member.key, messages.TAG, data)

    def heard(self, peer: int, message: ToDriver) -> ToDriver | events.MemberHeard | events.MemberRejoined | None:
        """Take in what has come over a connection; what it means for the run, if anything.

        Raises `MessageError` for what cannot be true.
        """
        if isinstance(message, messages.Beat):
            return self._answer(peer, message)
        if isinstance(message, messages.Rejoined):
            return self._resume(peer, message)
        if isinstance(message, (messages.EngineCame, messages.ContextCame)):
            self._came(peer, message)
        member = self._at.get(peer)
        if member is not None:
            member.line.took()
        return message

    def _came(self, peer: int, message: EngineCame | ContextCame) -> None:
        """Know a member by its connection from now on.

        The first one is who it says; no end of another may pass for its own, and nobody is two.
        """
        if peer in self._at:
            return
        member = self._member(_name_of(message))
        if member.peer is None and member.reads:
            member.peer = peer
            self._at[peer] = member

    def _answer(self, peer: int, beat: messages.Beat) -> events.MemberHeard | None:
        """Tell a member that it is heard."""
        member = self._at.get(peer)
        if member is None:
            return None
        member.line.settle(beat.received)
        answer = messages.Beat(member.line.tell_received(), beat.sent_at)
        self._server.put_behind(member.key, messages.TAG, messages.encode(answer))
        return events.MemberHeard(member.name)

    def _resume(self, peer: int, again: messages.Rejoined) -> events.MemberRejoined | None:
        """Go on with a member over its new connection; one that is not known, or no longer, is refused."""
        if len(again.name) > LONGEST_NAME:
            raise MessageError(f"a name of {len(again.name)} characters is nobody's")
        member = self._members.get(again.name)
        key = messages.member_key(self._job, again.name, again.connection)
        if member is None or again.connection <= member.connection or peer in self._at:
            reason = "it was not heard for so long that it counts as lost"
            refusal = (
                messages.EngineRefused(reason)
                if again.name.startswith("engine ")
                else messages.ContextRefused(run_done=False, reason=reason)
            )
            self._server.put_behind(key, messages.TAG, messages.encode(refusal))
            self._refused[peer] = key
            return None
        member.line.settle(again.received)
        # What is still to come over the connection before is not to count: it is said again.
        self._cut(member)
        member.peer, member.key, member.connection, member.reads = peer, key, again.connection, True
        self._at[peer] = member
        resumed = messages.Resumed(member.line.tell_received())
        for data in (messages.encode(resumed), *member.line.unsettled):
            self._server.put_behind(key, messages.TAG, data)
        return events.MemberRejoined(member.name)

    def gone(self, peer: int) -> events.MemberCut | None:
        """Take note that a connection has ended; who is cut off by that."""
        refused = self._refused.pop(peer, None)
        if refused is not None:
            self._server.take(refused)
        member = self._at.get(peer)
        if member is None:
            return None
        self._cut(member)
        return events.MemberCut(member.name)

    def _forget(self, name: str) -> None:
        """Say no more to a member, and hear no more of it."""
        member = self._members.pop(name, None)
        if member is not None:
            self._cut(member)

    def _cut(self, member: _Member) -> None:
        if member.peer is not None:
            peer, member.peer = member.peer, None
            del self._at[peer]
            self._server.disconnect(peer)
        member.reads = False
        while self._server.take(member.key) is not None:
            pass  # it is kept, and said again over the next connection


def _name_of(message: EngineCame | ContextCame) -> str:
    if isinstance(message, messages.EngineCame):
        return messages.engine_name(message.engine_rank)
    return messages.context_name(message.token)
