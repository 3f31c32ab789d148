"""The driver as a process: from the command line to the exit status, step by step."""

from __future__ import annotations

import gc
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from disbatch import __version__, options, runfiles
from disbatch.arguments import arguments_for
from disbatch.credentials import rights
from disbatch.driver import address, ending
from disbatch.driver.beginning import begin, let_signals_through, own_address, remove, write
from disbatch.driver.controller import Controller
from disbatch.driver.display import Display
from disbatch.driver.events import Settings
from disbatch.driver.feeder import Feeder
from disbatch.driver.loop import DriverLoop, OwnContext
from disbatch.driver.membership import OWN_TOKEN
from disbatch.driver.snapshot import Run
from disbatch.driver.submissions import Submissions
from disbatch.driver.taskcommand import TaskCommand
from disbatch.errors import DisbatchError, ExitStatus
from disbatch.eventloop import EventLoop
from disbatch.kvsstcp import envfile
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.kvsstcp.endpoint import (
    address_text,
    client_environment,
)
from disbatch.launching import disbatch_command
from disbatch.records import fields
from disbatch.terminal import tell
from disbatch.values import shell_word

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from disbatch.driver.beginning import Beginning
    from disbatch.driver.controller import Counts
    from disbatch.driver.events import EndRun
    from disbatch.driver.mail import Mail
    from disbatch.driver.page import WebPage
    from disbatch.kvsstcp.rights import Rights
    from disbatch.log import Log
    from disbatch.options import ContextOptions, DriverOptions
    from disbatch.runfiles import RunFiles
    from disbatch.values import Address

QUIET_AFTER_COMMAND = 0.5
"""Seconds for which what a task command has submitted may be on its way after its end."""

GARBAGE_AFTER = 50_000
"""New objects after which Python looks for some that refer only to one another; no task or message leaves such behind.

After 700 of them, as Python has it, looking through the tasks of a large run was a fifth of what each cost the driver.
"""

LAST_TRIES = 2.0
"""Seconds for which a run that was cut short tries to write what the disk has not taken."""

PATIENCE_WITH_COMMAND = 2.0
"""Seconds that a task command may take to end, after its last task, before the user hears what is waited for."""


def main(asked: DriverOptions, resume_command: Callable[..., str]) -> int:
    """Be a driver; the exit status. `resume_command` is `options.resume_command` for what the user has typed."""
    gc.set_threshold(GARBAGE_AFTER)
    try:
        return _run(asked, begin(asked), resume_command)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DisbatchError(f"{error.filename}: {reason}" if error.filename else reason) from error


def _run(asked: DriverOptions, beginning: Beginning, resume_command: Callable[..., str]) -> int:
    """Go through the run, clear away what is of no use after it, and sum up."""
    began = time.monotonic()
    files, log, recorder = beginning.files, beginning.log, beginning.recorder
    loop = EventLoop()
    controller = Controller(_settings(asked, files))
    mail = _mail(asked, files, beginning.mail_server, controller.counts, log) if beginning.mail_server else None
    recorded = _Recorded([] if mail is None else [mail.recorded])
    run = Run(files.job, __version__, os.uname().nodename, time.time())
    display = Display(loop, asked.progress, _hint(asked, files))
    driver = DriverLoop(loop, controller, recorder, run, _own_context(asked, beginning), log, tell, recorded, display)
    let_signals_through()
    command: TaskCommand | None = None
    page = None if beginning.page is None else _web_page(asked, beginning, beginning.page, loop, resume_command)
    end: EndRun | None = None
    exit_status: int = ExitStatus.FAILED
    try:
        _announce(asked, beginning)
        _say_where(beginning)
        driver.serve(beginning.listening, _rights(beginning))
        if beginning.other_store is not None:
            other = beginning.other_store
            driver.use_store(*other.connected, address_text(*other.where))
        source: Feeder | Submissions
        if beginning.task_file is not None:
            source = Feeder(beginning.task_file, beginning.earlier, loop, driver.happened)
        else:
            source = Submissions(driver.store, beginning.earlier, driver.happened, log.info)
            recorded.listeners.append(source.recorded)
            if asked.task_command is not None:
                command = _start_command(asked, beginning, loop, source)
        end = driver.run(source)
        exit_status = _see_off(end, driver, command, loop)
    finally:
        if command is not None:
            command.close()
        for path in (files.kvs_address, files.observer, files.url):
            remove(path)  # whoever comes from now on finds that the run is done
        driver.close()
        display.close()
        complete = end is not None and end.complete
        all_recorded = ending.close(recorder, files.status, None if complete else beginning.earlier)
        loop.close()
    # The last lines of a run are written, or not, when its controller has nothing more to say.
    if not all_recorded:
        complete = False
        exit_status = exit_status or ExitStatus.FAILED
    _tell_others(page, mail, exit_status, controller.counts, complete=complete)  # before a terminal that may be stuck
    ending.sum_up(
        controller,
        _shown(files.status, asked),
        resume_command,
        time.monotonic() - began,
        complete=complete,
        resumed=beginning.earlier is not None,
        retry=asked.retry,
    )
    if mail is not None:
        mail.await_end()
    log.info(
        "the run ends with status %d: %s; CPU %.3f s", exit_status, controller.counts.in_words, time.process_time()
    )
    return exit_status


def _tell_others(page: WebPage | None, mail: Mail | None, exit_status: int, counts: Counts, *, complete: bool) -> None:
    """Tell those who look at the page, and who reads the mails, if there are such, how the run has ended."""
    if page is not None:
        page.end(exit_status, counts, complete=complete)
    if mail is not None:
        mail.end(complete=complete)


def _see_off(end: EndRun, driver: DriverLoop, command: TaskCommand | None, loop: EventLoop) -> int:
    """Wait for what a run waits for that has ended: its last lines on disk, and its task command; the exit status."""
    came = driver.settle(None if end.complete else LAST_TRIES)
    if came is not None:
        return end.exit_status or came.exit_status
    if command is not None and end.complete:
        return _await_command(command, driver, loop) or end.exit_status
    return end.exit_status


def _await_command(command: TaskCommand, driver: DriverLoop, loop: EventLoop) -> int:
    """Serve a task command to its end, when all of its tasks have ended; the exit status if a signal comes before."""
    waiting = "all tasks have ended; waiting for the task command to end, which Ctrl-C would make it do"
    reminder = loop.after(PATIENCE_WITH_COMMAND, partial(tell, waiting))
    came = driver.serve_until(lambda: command.has_ended)
    reminder.cancel()
    if came is None:
        return ExitStatus.OK
    tell(f"got {came.name}; ending the task command, whose tasks have all ended")
    return came.exit_status


class _Recorded:
    """Tells all who want to know of the lines of the status file."""

    def __init__(self, listeners: list[Callable[[Sequence[bytes]], None]]) -> None:
        self.listeners = listeners

    def __call__(self, lines: Sequence[bytes]) -> None:
        for listener in self.listeners:
            listener(lines)


def _announce(asked: DriverOptions, beginning: Beginning) -> None:
    """Say what is worth saying before the run begins."""
    beginning.log.info("disbatch %s, pid %d: %s", __version__, os.getpid(), sys.argv)
    beginning.log.info("key-value store at %s", beginning.public)
    if beginning.aside is not None:
        tell(f"an earlier status file of this name is now {shell_word(_shown(beginning.aside, asked))}")
    if asked.insecure_kvs:
        tell("--insecure-kvs: whoever can connect to this machine can run commands as you while this run goes on")
    if beginning.other_store is not None and asked.use_address is not None:
        tell("--use-address has no effect together with --kvsserver")
    for conflict in beginning.conflicts:
        tell(conflict)
    if asked.gpu:
        tell(options.GPU_HAS_NO_EFFECT)
    if beginning.earlier is not None:
        beginning.log.info("resuming; earlier runs completed %d tasks", beginning.earlier.completed)
        for warning in beginning.earlier.warnings:
            tell(warning)


def _start_command(
    asked: DriverOptions, beginning: Beginning, loop: EventLoop, submissions: Submissions
) -> TaskCommand:
    """Start the command that submits tasks; it finds the store of the run in its environment."""
    assert asked.task_command is not None  # noqa: S101 - it is called for one
    other = beginning.other_store
    if other is None:
        own = address.local(asked.use_address, beginning.port)
        secret = None if beginning.credentials is None else beginning.credentials.program
        environment = client_environment((own.host, own.port), secret, os.environ)
    else:
        environment = client_environment(other.where, other.secret, os.environ)
    return TaskCommand(asked.task_command, environment, loop, partial(_command_ended, loop, submissions))


def _rights(beginning: Beginning) -> Mapping[bytes, Rights] | None:
    """What each secret of the run gives the right to; None where its store asks for none."""
    return None if beginning.credentials is None else rights(beginning.credentials, beginning.files.job)


def _say_where(beginning: Beginning) -> None:
    """Write the files that say where the store of the run is, one for everybody and one with a secret for observers."""
    files, public = beginning.files, beginning.public
    if beginning.other_store is None:
        write(files.kvs_address, f"{public}\n".encode(), 0o644)
    secret = None if beginning.credentials is None else beginning.credentials.observer
    text = envfile.text_of(client_environment((public.host, public.port), secret, {}))
    write(files.observer, text.encode(), 0o600)


def _command_ended(loop: EventLoop, submissions: Submissions, return_code: int) -> None:
    """Expect no more of a command that has ended, when all is read that it may have submitted."""
    reason = f"the task command ended with {return_code}" if return_code else ""
    loop.after(QUIET_AFTER_COMMAND, partial(submissions.end, reason))


def _settings(asked: DriverOptions, files: RunFiles) -> Settings:
    return Settings(
        version=__version__,
        job=files.job,
        task_source=runfiles.task_source_name(asked.task_file),
        directory=os.getcwdb(),
        script=files.script,
        host=os.uname().nodename,
        startup_only=asked.startup_only,
        exit_code=asked.exit_code,
        fail_fast=asked.fail_fast,
        requeue=not asked.no_requeue,
        crash_limit=asked.crash_limit,
        heartbeat=asked.heartbeat,
        heartbeat_patience=asked.heartbeat_patience,
    )


def _own_context(asked: DriverOptions, beginning: Beginning) -> OwnContext:
    files = beginning.files
    joining = options.ContextRoleOptions(
        run=files.unique_id,
        kvs=address.local(own_address(asked), beginning.port),
        log_level=asked.log_level,
        token=OWN_TOKEN,
    )
    environment = dict(os.environ)
    environment.pop(SECRET_VARIABLE, None)
    if beginning.credentials is not None:
        environment[SECRET_VARIABLE] = beginning.credentials.engine.decode()
    nodes: ContextOptions = options.ContextOptions(
        task_limit=asked.task_limit,
        cpus_per_task=asked.cpus_per_task,
        label=asked.label,
        ssh_nodes=asked.ssh_nodes,
        fill=asked.fill,
        no_retire=asked.no_retire,
        retire_command=asked.retire_command,
        tasks_per_node=asked.tasks_per_node,
        environment_resources=asked.environment_resources,
    )
    command = [
        *disbatch_command(),
        options.CONTEXT_ROLE,
        *arguments_for(joining),
        *arguments_for(nodes, fields(nodes)),
    ]
    return OwnContext(command, environment, files.context_launch_log(os.getpid()))


def _web_page(
    asked: DriverOptions,
    beginning: Beginning,
    listening: socket.socket,
    loop: EventLoop,
    resume_command: Callable[..., str],
) -> WebPage:
    """The web page, which starts by itself when the run goes on, and says then where it is."""
    from disbatch.driver import page  # noqa: PLC0415 - most runs have none
    from disbatch.handover import MOST_RERUN, Handover  # noqa: PLC0415 - as above

    files, wanted = beginning.files, asked.web_address
    if page.is_open_to_others(wanted.host):
        tell("--web-address: what goes between the web page and browsers on other machines is not encrypted")
    at = address.advertised(wanted, listening.getsockname()[1], ())
    names, everywhere = page.names_of(wanted, at)
    rerun = resume_command(_shown(files.status, asked), retry=True)
    known = Handover(
        token=page.new_token(),
        names=names,
        everywhere=everywhere,
        secret="" if beginning.credentials is None else beginning.credentials.operator.decode(),
        rerun=rerun if len(rerun) <= MOST_RERUN else "",
    )
    joining = options.PageRoleOptions(
        run=files.unique_id, kvs=address.local(own_address(asked), beginning.port), log_level=asked.log_level
    )
    command = [*disbatch_command(), options.PAGE_ROLE, *arguments_for(joining)]
    environment = {name: value for name, value in os.environ.items() if name != SECRET_VARIABLE}
    return page.WebPage(listening, at, command, environment, known, files, loop, tell)


def _mail(asked: DriverOptions, files: RunFiles, server: Address, counts: Counts, log: Log) -> Mail:
    from disbatch.driver import letter, mail  # noqa: PLC0415 - most runs send none

    def warn(text: str) -> None:
        log.warning("%s", text)
        tell(text)

    assert asked.mail_to is not None  # noqa: S101 - there is a server only for a run that has one to write to
    digest = letter.Digest(files.job, f"{os.uname().nodename}:{files.status}", asked.mail_frequency or 1)
    return mail.Mail(digest, counts, partial(mail.send, server, asked.mail_to), warn)


def _hint(asked: DriverOptions, files: RunFiles) -> str:
    """What a user may do with a run that goes on."""
    script = runfiles.script_command(_shown(files.script, asked))
    return f"{script} --mon shows this run, and with -s HOST:N it adds hosts"


def _shown(path: str, asked: DriverOptions) -> str:
    """Path of one of the run's files as its user writes paths: from here, or in full."""
    return path if os.path.isabs(asked.prefix) else os.path.relpath(path)
