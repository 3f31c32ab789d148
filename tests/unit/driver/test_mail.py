"""Mails and their thread; at the other end is a stand-in for a server that takes, refuses or keeps one waiting."""

from __future__ import annotations

import errno
import os
import pwd
import smtplib
import socket
import threading
from email import message_from_bytes, policy
from queue import SimpleQueue
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.driver.controller import Counts
from disbatch.driver.letter import Digest, Letter
from disbatch.driver.mail import STEP_LIMIT, Mail, message, send
from disbatch.errors import DisbatchError
from disbatch.values import Address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import EmailMessage

PATIENCE = 20.0
"""Seconds that the thread may take for what it does at once; only a failure ever waits that long."""

SERVER = Address("relay", 2525)
LETTER = Letter("run", "host:/data/run_status.txt", Counts(4, 1), "", (b"line 1", b"line 2"), 0)


class Bench:
    """Mails of a run, and the way they go: letters stay on it as long as the gate is shut."""

    def __init__(self, frequency: int = 1) -> None:
        self.counts = Counts()
        self.warnings: list[str] = []
        self.letters: SimpleQueue[Letter] = SimpleQueue()
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.mail = Mail(Digest("run", "status", frequency), self.counts, self._send, self.warnings.append)

    def _send(self, letter: Letter) -> None:
        self.letters.put(letter)
        assert self.gate.wait(PATIENCE)
        if self.failure is not None:
            raise self.failure

    def finish(self, *names: bytes) -> None:
        """Let tasks finish in one turn of the loop."""
        self.counts.finished += len(names)
        self.mail.recorded([name + b"\n" for name in names])

    def sent(self) -> tuple[bytes, ...]:
        """Lines of the next letter that comes."""
        return self.letters.get(timeout=PATIENCE).lines

    def await_failure(self) -> None:
        """Wait until the thread has given up."""
        self.mail._thread.join(PATIENCE)
        assert not self.mail._thread.is_alive()

    def close(self) -> None:
        self.gate.set()
        self.mail.end(complete=True)
        self.mail.await_end(PATIENCE)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_a_task_that_finishes_is_told_of_at_once(bench: Bench) -> None:
    bench.finish(b"first")
    assert bench.sent() == (b"first",)
    bench.finish(b"second", b"third")
    assert bench.sent() == (b"second", b"third")


def test_what_happens_while_a_mail_is_under_way_goes_into_the_next(bench: Bench) -> None:
    bench.gate.clear()
    bench.finish(b"first")
    assert bench.sent() == (b"first",)
    for name in (b"second", b"third", b"fourth"):
        bench.finish(name)
    bench.gate.set()
    assert bench.sent() == (b"second", b"third", b"fourth")


def test_the_last_mail_has_what_is_left() -> None:
    bench = Bench(frequency=2)
    for name in (b"first", b"second"):
        bench.finish(name)
    assert bench.sent() == (b"first", b"second")
    bench.finish(b"third")
    bench.mail.recorded([b"STOP command\n"])
    bench.close()
    letter = bench.letters.get_nowait()
    assert letter.lines == (b"third", b"STOP command")
    assert letter.subject == "run has ended: 3 finished, 0 failed"
    assert bench.letters.empty()
    assert bench.warnings == []
    assert not bench.mail._thread.is_alive()


def test_the_first_failure_is_warned_of_once_and_no_mail_follows(bench: Bench) -> None:
    bench.failure = DisbatchError("nobody\nthere")
    bench.finish(b"first")
    bench.await_failure()
    assert bench.warnings == []  # the thread itself says nothing: the terminal is the driver's
    for _ in range(3):
        bench.finish(b"next")
    bench.mail.end(complete=True)
    bench.mail.await_end()
    assert bench.warnings == ["no mail is sent any more: nobody\\nthere"]
    assert bench.sent() == (b"first",)
    assert bench.letters.empty()


@pytest.mark.parametrize("failure", [ValueError(), MemoryError(), UnicodeError("odd"), KeyError("a")])
def test_no_failure_disturbs_the_run(failure: Exception) -> None:
    bench = Bench()
    bench.failure = failure
    bench.finish(b"first")
    bench.close()
    [warning] = bench.warnings
    assert warning.startswith("no mail is sent any more: ")
    assert not warning.endswith(" ")


def test_a_server_that_takes_too_long_for_the_last_mail_is_not_waited_for(bench: Bench) -> None:
    bench.gate.clear()
    bench.finish(b"first")
    assert bench.sent() == (b"first",)
    bench.mail.end(complete=True)
    bench.mail.await_end(0.0)
    assert bench.warnings == ["no mail is sent any more: the mail server takes too long for the last mail"]


def test_ctrl_c_ends_the_waiting_for_the_last_mail(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_limit: float) -> None:
        raise KeyboardInterrupt

    bench.gate.clear()
    with monkeypatch.context() as patch:
        patch.setattr(bench.mail._thread, "join", interrupted)
        bench.mail.end(complete=True)
        bench.mail.await_end()
    assert len(bench.warnings) == 1


def test_where_there_is_no_thread_to_be_had_there_are_no_mails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    bench = Bench()
    bench.finish(b"first")
    bench.mail.end(complete=True)
    bench.mail.await_end()
    assert bench.warnings == ["no mail is sent any more: can't start new thread"]


# By SMTP


class Connection:
    """Stands for smtplib's connection to a mail server."""

    made: ClassVar[list[Connection]]
    failure: Exception | None = None

    def __init__(self, host: str, port: int, *, local_hostname: str, timeout: float) -> None:
        self.made_with = (host, port, local_hostname, timeout)
        self.sent: list[tuple[EmailMessage, str, list[str]]] = []
        self.made.append(self)

    def __enter__(self) -> Connection:  # noqa: PYI034 - Python 3.10 has no Self
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send_message(self, mail: EmailMessage, sender: str, recipients: list[str]) -> None:
        if self.failure is not None:
            raise self.failure
        self.sent.append((mail, sender, recipients))


@pytest.fixture
def smtp(monkeypatch: pytest.MonkeyPatch) -> type[Connection]:
    class Ours(Connection):
        made: ClassVar[list[Connection]] = []

    monkeypatch.setattr(smtplib, "SMTP", Ours)
    return Ours


def test_a_letter_is_handed_to_the_server(smtp: type[Connection]) -> None:
    send(SERVER, "me@example.org", LETTER)
    [connection] = smtp.made
    host = os.uname().nodename
    assert connection.made_with == ("relay", 2525, host, STEP_LIMIT)
    [(mail, sender, recipients)] = connection.sent
    assert sender == mail["From"] == f"{pwd.getpwuid(os.getuid()).pw_name}@{host}"
    assert recipients == ["me@example.org"]
    assert mail["To"] == "me@example.org"
    assert mail["Subject"] == "run: 4 finished, 1 failed"


def test_a_user_without_a_name_sends_mails_too(smtp: type[Connection], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_001)
    send(SERVER, "me", LETTER)
    assert smtp.made[0].sent[0][1] == f"uid4000000001@{os.uname().nodename}"


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (TimeoutError("timed out"), "timed out"),
        (OSError(), "OSError"),
        (smtplib.SMTPRecipientsRefused({"me": (550, b"5.1.1 no\r\nsuch user")}), "550 5.1.1 no such user"),
        (smtplib.SMTPSenderRefused(553, b"who?", "you"), "553 who?"),
        (smtplib.SMTPDataError(554, "no"), "554 no"),
        (smtplib.SMTPServerDisconnected("Connection unexpectedly closed"), "Connection unexpectedly closed"),
        (ValueError("odd address"), "odd address"),
    ],
)
def test_a_failure_is_told_in_a_line(smtp: type[Connection], failure: Exception, told: str) -> None:
    smtp.failure = failure
    with pytest.raises(DisbatchError) as raised:
        send(SERVER, "me", LETTER)
    assert str(raised.value) == f"the mail server at relay:2525: {told}"


# The mail itself


def read(mail: EmailMessage) -> EmailMessage:
    """The mail as one gets it who reads what goes to the server."""
    data = mail.as_bytes(policy=policy.SMTP)
    assert data.isascii()
    assert all(len(line) <= 998 for line in data.split(b"\r\n"))
    return message_from_bytes(data, policy=policy.default)


HEADERS = {
    *("Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted"),
    *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
}


@given(
    st.text(st.characters(exclude_categories=[]), max_size=30),
    st.lists(st.binary(max_size=100), max_size=3),
    st.integers(1, 10),
)
def test_nothing_hostile_gets_into_the_headers(run: str, lines: list[bytes], repeated: int) -> None:
    letter = Letter(run * repeated, "status", Counts(1), "", tuple(lines), 0)
    mail = read(message(letter, "user@host", "me@example.org"))
    assert set(mail.keys()) == HEADERS
    assert len(mail.keys()) == len(HEADERS)
    assert not mail.defects
    # Python's own reader and writer of headers do not agree on every blank.
    assert "".join(mail["Subject"].split()) == "".join(letter.subject.split())
    assert mail.get_content().replace("\r\n", "\n") == letter.body


def test_a_body_of_ascii_is_readable_as_it_is() -> None:
    line = b"x" * 800
    data = message(Letter("run", "status", Counts(1), "", (line,), 0), "user@host", "me").as_bytes()
    assert line in data


def test_a_mail_is_nothing_to_be_answered_by_a_machine() -> None:
    mail = read(message(LETTER, "user@host", "me"))
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Date"]
    assert mail["Message-ID"].endswith("@host>")
