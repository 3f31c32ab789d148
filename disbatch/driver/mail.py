"""Mails on a run, sent by SMTP from a thread of their own, so that no mail server ever holds up the run.

It must not know what a mail says, nor where the lines in it come from. Only a driver that sends mails imports it, and
what it takes to send one is imported by the thread: that takes longer than starting Python.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from disbatch.driver.letter import harmless
from disbatch.errors import DisbatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from email.message import EmailMessage

    from disbatch.driver.controller import Counts
    from disbatch.driver.letter import Digest, Letter
    from disbatch.values import Address

STEP_LIMIT = 10.0
"""Seconds that the mail server may take for each of its answers."""

FAREWELL_LIMIT = 5.0
"""Seconds for which a run that is over waits until its last mail is sent."""


class Mail:
    """Sends the letters of a digest; while one is under way, what there is to tell collects for the next.

    `send` is called in the thread alone, and may fail as it likes: then that was the last letter. Of that `warn` tells,
    once, in the thread that calls `recorded` and `await_end`. `counts` are the run's, which change as it goes on.
    """

    def __init__(
        self, digest: Digest, counts: Counts, send: Callable[[Letter], None], warn: Callable[[str], None]
    ) -> None:
        self._digest = digest
        self._counts = counts
        self._send = send
        self._warn = warn
        self._changed = threading.Condition()
        self._failure = ""
        self._warned = False
        self._thread = threading.Thread(target=self._send_letters, name="mail", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # there is a limit to threads
            self._failure = str(error)

    def recorded(self, lines: Sequence[bytes]) -> None:
        """Take note of lines of the status file, never waiting for anything."""
        if self._failure:
            self._warn_once()
            return
        with self._changed:
            self._digest.add(lines, self._counts)
            if self._digest.is_due:
                self._changed.notify()

    def end(self, *, complete: bool) -> None:
        """Have the last letter sent."""
        with self._changed:
            self._digest.end(self._counts, complete=complete)
            self._changed.notify()

    def await_end(self, limit: float = FAREWELL_LIMIT) -> None:
        """Wait until it has been sent, `limit` seconds at most, or until the user presses Ctrl-C."""
        if not self._failure:
            with suppress(KeyboardInterrupt):
                self._thread.join(limit)
            if self._thread.is_alive():
                self._failure = "the mail server takes too long for the last mail"
        self._warn_once()

    def _warn_once(self) -> None:
        if self._failure and not self._warned:
            self._warned = True
            self._warn(f"no mail is sent any more: {self._failure}")

    def _send_letters(self) -> None:
        is_last = False
        while not is_last:
            with self._changed:
                self._changed.wait_for(lambda: self._digest.is_due)
                letter = self._digest.take()
                is_last = self._digest.ended
            try:
                self._send(letter)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not disturb the run
                self._failure = harmless(str(error) or type(error).__name__)
                return


def send(server: Address, recipient: str, letter: Letter) -> None:
    """Hand a letter to a mail server; raises `DisbatchError`."""
    import smtplib  # noqa: PLC0415 - see above

    host = os.uname().nodename
    sender = f"{_user_name()}@{host}"
    try:
        # The name of this machine is given: smtplib would ask the network for it.
        with smtplib.SMTP(server.host, server.port, local_hostname=host, timeout=STEP_LIMIT) as connection:
            connection.send_message(message(letter, sender, recipient), sender, [recipient])
    except (OSError, ValueError) as error:  # smtplib's own are among the former
        raise DisbatchError(f"the mail server at {server}: {_reason(error)}") from error


def message(letter: Letter, sender: str, recipient: str) -> EmailMessage:
    """Make a letter a mail that any server takes: of ASCII alone, in lines that are not too long."""
    from email.message import EmailMessage  # noqa: PLC0415 - see above
    from email.utils import localtime, make_msgid  # noqa: PLC0415 - as above

    made = EmailMessage()
    made["Subject"] = letter.subject
    made["From"] = sender
    made["To"] = recipient
    made["Date"] = localtime()
    made["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    made["Auto-Submitted"] = "auto-generated"  # or somebody's "I am on holiday" would come back
    body = letter.body
    # What Python would choose itself, quoted-printable, takes so long that the driver's loop would feel it.
    if body.isascii():
        made.set_content(body, charset="us-ascii", cte="7bit")
    else:
        made.set_content(body, charset="utf-8", cte="base64")
    return made


def _user_name() -> str:
    import pwd  # noqa: PLC0415 - here with the rest

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user may have none
        return f"uid{os.getuid()}"


def _reason(error: Exception) -> str:
    """What an error of a connection or of smtplib says, for a person."""
    answers = list(getattr(error, "recipients", {}).values()) or [
        (getattr(error, "smtp_code", None), getattr(error, "smtp_error", b""))
    ]
    code, text = answers[0]
    if code is not None:
        said = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        return f"{code} {' '.join(said.split())}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
