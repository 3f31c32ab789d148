"""Mails as they arrive: a real mail server on loopback, and what becomes of a run whose mails nobody takes."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import sys
import threading
from contextlib import contextmanager
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, NamedTuple

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.e2e.support import PATIENCE, eventually, finish

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from email.message import EmailMessage

    from tests.e2e.support import Finished, Workplace

ME = "me@example.org"

WARNING = "disbatch: no mail is sent any more: "


class Received(NamedTuple):
    """A mail that has arrived: from whom and for whom the envelope says it is, and the mail."""

    sender: str
    recipients: list[str]
    mail: EmailMessage

    @property
    def subject(self) -> str:
        return str(self.mail["Subject"])

    @property
    def status_lines(self) -> list[str]:
        return str(self.mail.get_content()).splitlines()[2:]


class MailServer:
    """Takes mails on a port of its own; aiosmtpd calls the methods with `handle` in their names."""

    def __init__(self) -> None:
        self.mails: list[Received] = []
        self.refusal = ""
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve)

    @property
    def environment(self) -> dict[str, str]:
        """What sends a run's mails here."""
        return {"DISBATCH_SMTP": f"127.0.0.1:{self.listening.getsockname()[1]}"}

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if self.refusal:
            return self.refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        assert isinstance(envelope.content, bytes)
        assert envelope.mail_from is not None
        recipients = [str(address) for address in envelope.rcpt_tos]
        mail = message_from_bytes(envelope.content, policy=policy.default)
        self.mails.append(Received(envelope.mail_from, recipients, mail))
        return "250 OK"

    def _serve(self) -> None:
        async def serve() -> None:
            self.stop = asyncio.Event()
            server = await self.loop.create_server(lambda: SMTP(self, hostname="test"), sock=self.listening)
            self.ready.set()
            await self.stop.wait()
            server.close()

        self.loop.run_until_complete(serve())
        self.loop.close()

    def __enter__(self) -> MailServer:  # noqa: PYI034 - Python 3.10 has no Self
        self.ready = threading.Event()
        self._thread.start()
        assert self.ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self._thread.join()


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


def run(
    work: Workplace, environment: dict[str, str], *tasks: str, options: Sequence[str] = (), prefix: str = "run"
) -> Finished:
    work.write("tasks", *tasks)
    return work.run("-s", "localhost:1", "--mailTo", ME, "-p", prefix, *options, "tasks", env=environment)


def recorded(work: Workplace, name: str = "run") -> list[str]:
    return work.text(f"{name}_status.txt").splitlines()


def test_mails_tell_of_all_that_finishes_and_of_the_end(work: Workplace, server: MailServer) -> None:
    done = run(work, server.environment, "echo ä", "false", "true", options=["-e"])
    assert done.returncode == 1
    assert done.complaints[0] == "disbatch: 3 tasks finished, 1 failed; status file: run_status.txt"
    assert [line for mail in server.mails for line in mail.status_lines] == recorded(work)
    assert server.mails[-1].subject == "run has ended: 3 finished, 1 failed"
    host = os.uname().nodename
    assert f"status file: {host}:{work.directory}/run_status.txt" in server.mails[-1].mail.get_content()
    for sender, recipients, mail in server.mails:
        assert sender == mail["From"] == f"{pwd.getpwuid(os.getuid()).pw_name}@{host}"
        assert recipients == [mail["To"]] == [ME]


def test_mails_come_as_often_as_they_are_wanted_while_the_run_goes_on(work: Workplace, server: MailServer) -> None:
    work.write("tasks", "true", "false", "until [ -e go ]; do sleep 0.02; done", "true", "true")
    arguments = ["-s", "localhost:1", "--mailTo", ME, "--mailFreq", "2", "-p", "run", "tasks"]
    going_on = work.start(*arguments, env=server.environment)
    eventually(lambda: bool(server.mails), "a mail")
    assert server.mails[0].subject == "run: 2 finished, 1 failed"
    assert server.mails[0].status_lines == recorded(work)
    work.write("go")
    assert finish(going_on).returncode == 0
    assert server.mails[-1].subject == "run has ended: 5 finished, 1 failed"
    assert [line for mail in server.mails for line in mail.status_lines] == recorded(work)
    assert len(server.mails) <= 3


def test_a_run_that_is_cut_short_sends_its_last_mail(work: Workplace, server: MailServer) -> None:
    work.write("tasks", "true", "touch running; sleep 60")
    going_on = work.start("-s", "localhost:1", "--mailTo", ME, "-p", "run", "tasks", env=server.environment)
    work.await_file("running")
    going_on.terminate()
    assert finish(going_on).returncode == 143
    assert server.mails[-1].subject == "run was cut short: 1 finished, 0 failed"


def test_a_hostile_name_and_hostile_commands_do_no_harm(work: Workplace, server: MailServer) -> None:
    prefix = "my\nBcc: all@example.org\r\n\r\nrün \udcff"
    work.directory.joinpath("tasks").write_bytes(b"true \xff\xfe\ntrue '\x1b[2J' '\r\n.\ntrue\n")
    done = work.run("-s", "localhost:1", "--mailTo", ME, "-p", prefix, "tasks", env=server.environment)
    assert done.returncode == 0
    for mail in server.mails:
        assert mail.recipients == [ME]
        assert "Bcc" not in mail.mail
        # Python's own reader and writer of headers do not agree on every blank.
        assert mail.subject.replace(" ", "").startswith(r"my\nBcc:all@example.org\r\n\r\nrün\udcff")
        assert mail.mail.get_content().replace("\n", "").replace("\t", "").isprintable()
    assert sum(len(mail.status_lines) for mail in server.mails) == 4


# Nobody takes the mails


@contextmanager
def a_port_without_a_server() -> Iterator[dict[str, str]]:
    """A port that is taken, so that no other program listens there, and refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield {"DISBATCH_SMTP": f"127.0.0.1:{taken.getsockname()[1]}"}


def test_without_a_server_there_is_one_warning_and_the_run_goes_on(work: Workplace) -> None:
    with a_port_without_a_server() as environment:
        done = run(work, environment, *["true"] * 20, options=["-e"])
    assert done.returncode == 0
    warning, summary = sorted(done.complaints, reverse=True)
    assert warning == f"{WARNING}the mail server at {environment['DISBATCH_SMTP']}: Connection refused"
    assert summary == "disbatch: 20 tasks finished; status file: run_status.txt"
    assert len(recorded(work)) == 20
    assert warning.removeprefix("disbatch: ") in work.text("run_driver.log")


def test_a_server_that_refuses_the_address_gets_no_second_mail(work: Workplace, server: MailServer) -> None:
    server.refusal = "550 no such user"
    done = run(work, server.environment, "true", "true")
    assert done.returncode == 0
    warnings = [line for line in done.complaints if line.startswith(WARNING)]
    assert warnings == [f"{WARNING}the mail server at {server.environment['DISBATCH_SMTP']}: 550 no such user"]
    assert server.mails == []


def test_a_server_that_never_answers_holds_no_task_up(work: Workplace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {"DISBATCH_SMTP": f"127.0.0.1:{silent.getsockname()[1]}"}
        work.write("tasks", *["true"] * 20)
        going_on = work.start("-s", "localhost:2", "--mailTo", ME, "-p", "run", "tasks", env=environment)
        assert going_on.stderr is not None
        # The first mail is under way all this time, and the run waits for the last one behind it.
        assert going_on.stderr.readline() == b"disbatch: 20 tasks finished; status file: run_status.txt\n"
        assert len(recorded(work)) == 20
    done = finish(going_on)
    assert done.returncode == 0
    assert [line for line in done.complaints if line.startswith(WARNING)] == done.complaints
    assert len(done.complaints) == 1


@pytest.mark.parametrize(
    ("imported", "spared"),
    [
        ("disbatch.driver.process", ["disbatch.driver.mail", "disbatch.driver.letter", "smtplib", "email"]),
        ("disbatch.driver.mail", ["smtplib", "email"]),
    ],
)
def test_what_sends_mails_is_not_loaded_before_there_is_one(work: Workplace, imported: str, spared: list[str]) -> None:
    program = f"import sys, {imported}; print([name for name in {spared} if name in sys.modules])"
    assert work.run("-c", program, program=[sys.executable]).stdout == "[]\n"
