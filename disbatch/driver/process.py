"""The driver as a process: from the command line to the exit status, step by step."""

from __future__ import annotations

import os
import random
import shlex
import signal
import stat
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from disbatch import __version__, layout, options, runfiles, statusfile
from disbatch.arguments import arguments_for
from disbatch.driver import address
from disbatch.driver.controller import Controller
from disbatch.driver.events import Settings
from disbatch.driver.feeder import EarlierRuns, Feeder
from disbatch.driver.loop import EXIT_STATUS_OF_SIGNAL, DriverLoop, OwnContext
from disbatch.driver.membership import OWN_TOKEN
from disbatch.driver.recorder import NameTakenError, Recorder
from disbatch.driver.submissions import Submissions
from disbatch.driver.taskcommand import TaskCommand
from disbatch.errors import DisbatchError, ExitStatus, TaskFileError, UsageError
from disbatch.eventloop import EventLoop
from disbatch.joining import open_log
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.kvsstcp.client import KVSClient
from disbatch.kvsstcp.endpoint import (
    AddressError,
    KVSError,
    address_text,
    client_environment,
    new_secret,
    parse_address,
)
from disbatch.launching import disbatch_command
from disbatch.records import fields, record
from disbatch.runfiles import RunFiles
from disbatch.values import mail_server_of_environment, ssh_nodes_of_environment

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence

    from disbatch.driver.controller import Counts
    from disbatch.driver.mail import Mail
    from disbatch.log import Log
    from disbatch.options import ContextOptions, DriverOptions
    from disbatch.values import Address, SshNode

QUIET_AFTER_COMMAND = 0.5
"""Seconds for which what a task command has submitted may be on its way after its end."""

INHERITED = ("cpus_per_task", "tasks_per_node", "environment_resources")
"""Options of the driver that hold for contexts added later, unless those are told otherwise."""


class EndedEarlyError(DisbatchError):
    """A signal came before the run had begun."""

    def __init__(self, number: int) -> None:
        super().__init__(f"got {signal.Signals(number).name} before the run had begun; nothing has changed")
        self.exit_status = EXIT_STATUS_OF_SIGNAL[signal.Signals(number)]


@record
class OtherStoreAddress:
    """A key-value store that somebody else serves, and two connections to it that have given their proof."""

    where: tuple[str, int]
    secret: bytes | None
    connected: tuple[socket.socket, socket.socket]


@record
class Beginning:
    """All that a run begins with, and nothing of which it has to wait for; `aside` is where an earlier file is now."""

    hosts: tuple[SshNode, ...]
    mail_server: Address | None
    other_store: OtherStoreAddress | None
    task_file: int | None
    earlier: EarlierRuns | None
    files: RunFiles
    recorder: Recorder
    listening: socket.socket
    log: Log
    aside: str | None


def main(asked: DriverOptions, resume_command: Callable[..., str]) -> int:
    """Be a driver; the exit status. `resume_command` is `options.resume_command` for what the user has typed."""
    try:
        with _ended_by_signals():
            beginning = _begin(asked)
        return _run(asked, beginning, resume_command)
    except OSError as error:
        raise DisbatchError(f"{error.filename or asked.prefix}: {error.strerror or error}") from error


def _run(asked: DriverOptions, beginning: Beginning, resume_command: Callable[..., str]) -> int:
    """Make the run's other files, go through the run, clear away what is of no use after it."""
    files, log = beginning.files, beginning.log
    port = beginning.listening.getsockname()[1]
    secret = None if asked.insecure_kvs else new_secret()
    loop = EventLoop()
    controller = Controller(_settings(asked, files))
    mail = _mail(asked, files, beginning.mail_server, controller.counts, log) if beginning.mail_server else None
    recorded = _Recorded()
    if mail is not None:
        recorded.listeners.append(mail.recorded)
    context = _own_context(asked, files, beginning.hosts, port, secret)
    driver = DriverLoop(loop, controller, beginning.recorder, files.job, context, log, _tell, recorded)
    _make_files(asked, beginning, port, secret)
    _announce(asked, beginning)
    command: TaskCommand | None = None
    try:
        driver.serve(beginning.listening, secret)
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
                command = _start_command(asked, beginning.other_store, port, secret, loop, source)
        end = driver.run(source)
        if command is not None and end.complete:
            driver.serve_until(lambda: command.has_ended)
    finally:
        if command is not None:
            command.close()
        with suppress(FileNotFoundError):
            os.unlink(files.kvs_address)  # whoever comes from now on finds that the run is done
        driver.close()
        all_recorded = _close(beginning.recorder)
        loop.close()
    # The last lines of a run are written, or not, when its controller has nothing more to say.
    exit_status = end.exit_status if all_recorded else end.exit_status or ExitStatus.FAILED
    complete = end.complete and all_recorded
    _sum_up(controller.counts, _shown(files.status, asked), complete=complete)
    if not complete:
        _tell_how_to_go_on(asked, beginning, controller, resume_command)
    if mail is not None:
        mail.end(complete=complete)
    log.info(
        "the run ends with status %d: %s; CPU %.3f s", exit_status, controller.counts.in_words, time.process_time()
    )
    return exit_status


class _Recorded:
    """Tells all who want to know of the lines of the status file."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[Sequence[bytes]], None]] = []

    def __call__(self, lines: Sequence[bytes]) -> None:
        for listener in self.listeners:
            listener(lines)


def _make_files(asked: DriverOptions, beginning: Beginning, port: int, secret: bytes | None) -> None:
    """Make the files by which others join the run."""
    public = address.advertised(_own_address(asked), port, [host.host for host in beginning.hosts])
    _write_script(beginning.files, asked, public, secret)
    if beginning.other_store is None:
        _write(beginning.files.kvs_address, f"{public}\n".encode(), 0o644)
    beginning.log.info("key-value store at %s", public)


def _announce(asked: DriverOptions, beginning: Beginning) -> None:
    """Say what is worth saying before the run begins."""
    beginning.log.info("disbatch %s, pid %d: %s", __version__, os.getpid(), sys.argv)
    if beginning.aside is not None:
        _tell(f"an earlier status file of this name is now {_shown(beginning.aside, asked)}")
    if asked.insecure_kvs:
        _tell("--insecure-kvs: whoever can connect to this machine can run commands as you while this run goes on")
    if beginning.other_store is not None and asked.use_address is not None:
        _tell("--use-address has no effect together with --kvsserver")
    if asked.gpu:
        _tell(options.GPU_HAS_NO_EFFECT)
    if asked.startup_only:
        print(beginning.files.script, flush=True)
    if beginning.earlier is not None:
        beginning.log.info("resuming; earlier runs completed %d tasks", beginning.earlier.completed)
        for warning in beginning.earlier.warnings:
            _tell(warning)


def _tell_how_to_go_on(
    asked: DriverOptions, beginning: Beginning, controller: Controller, resume_command: Callable[..., str]
) -> None:
    """Print the command that goes on where the run left off, if one can."""
    if controller.can_be_resumed and (beginning.earlier or any(vars(controller.counts).values())):
        retry = controller.check_failed and not asked.retry
        status_file = _shown(beginning.files.status, asked)
        _tell(f"{options.RESUME_ADVICE}{resume_command(status_file, retry=retry)}")


def _start_command(
    asked: DriverOptions,
    other_store: OtherStoreAddress | None,
    port: int,
    secret: bytes | None,
    loop: EventLoop,
    submissions: Submissions,
) -> TaskCommand:
    """Start the command that submits tasks; it finds the store of the run in its environment."""
    assert asked.task_command is not None  # noqa: S101 - it is called for one
    if other_store is None:
        own = address.local(asked.use_address, port)
        environment = client_environment((own.host, own.port), secret, os.environ)
    else:
        environment = client_environment(other_store.where, other_store.secret, os.environ)
    return TaskCommand(asked.task_command, environment, loop, partial(_command_ended, loop, submissions))


def _command_ended(loop: EventLoop, submissions: Submissions, return_code: int) -> None:
    """Expect no more of a command that has ended, when all is read that it may have submitted."""
    reason = f"the task command ended with {return_code}" if return_code else ""
    loop.after(QUIET_AFTER_COMMAND, partial(submissions.end, reason))


# Before the run.


def _other_store(asked: DriverOptions) -> OtherStoreAddress | None:
    """Connection to the store that --kvsserver or --taskserver names; raises `DisbatchError`."""
    task_server = asked.task_server
    if task_server == options.OF_ENVIRONMENT and asked.kvs_server is not None:
        task_server = asked.kvs_server
    wanted = {_resolved(server) for server in (asked.kvs_server, task_server) if server is not None}
    if not wanted:
        return None
    if len(wanted) > 1:
        raise UsageError("--kvsserver and --taskserver name different stores", "a run can share only one")
    (where,) = wanted
    secret = os.environ.get(SECRET_VARIABLE, "")
    try:
        client = KVSClient(*where, secret=secret)
        if not secret:
            client.confirm()  # or a server that asks for one would be noticed only when the run has begun
        connected = client.clone().detach(), client.detach()
    except (KVSError, OSError) as error:
        raise DisbatchError(f"{error}", "see --kvsserver and --taskserver") from error
    return OtherStoreAddress(where, secret.encode() or None, connected)


def _own_address(asked: DriverOptions) -> Address | None:
    """Address that the user wants for the run's own store; with another store that does not count."""
    return None if asked.kvs_server is not None or asked.task_server is not None else asked.use_address


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let signals that mean the end raise `EndedEarlyError` meanwhile; one that is ignored stays so."""

    def end(number: int, _frame: object) -> None:
        raise EndedEarlyError(number)

    former = {number: signal.getsignal(number) for number in EXIT_STATUS_OF_SIGNAL}
    for number, handler in former.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _begin(asked: DriverOptions) -> Beginning:
    """Do what may fail because of a mistake, or take its time, before anything is to be seen of the run."""
    hosts = _hosts(asked)
    mail_server = mail_server_of_environment(os.environ) if asked.mail_to else None
    other_store = _other_store(asked)
    task_file = None if asked.task_file is None else _open_task_file(asked.task_file)
    earlier = _earlier_runs(asked)
    files, recorder = _begin_files(asked)
    with ExitStack() as undo:
        # What fails here leaves the status file of an earlier run of this name as it is, for -r to read next time.
        undo.callback(_close, recorder)
        listening = address.listen(_own_address(asked))
        log = open_log(asked.log_file or files.driver_log, asked.log_level)
        if asked.status_header:
            recorder.add(statusfile.HEADER)
        recorder.add_all(earlier.lines() if earlier else ())
        aside = recorder.take_place()
        undo.pop_all()
    return Beginning(hosts, mail_server, other_store, task_file, earlier, files, recorder, listening, log, aside)


def _hosts(asked: DriverOptions) -> tuple[SshNode, ...]:
    """Hosts that the run begins with, on which there is a place for a task."""
    if asked.startup_only:
        return ()
    hosts = asked.nodes or ssh_nodes_of_environment(os.environ)
    layout.lay_out(layout.nodes_of(hosts), asked.cpus_per_task, asked.tasks_per_node)
    return hosts


def _resolved(server: Address) -> tuple[str, int]:
    """Where a store is that the user has named, or leaves to the environment to name."""
    if server == options.OF_ENVIRONMENT:
        try:
            return parse_address(None, None, os.environ)
        except AddressError as error:
            raise UsageError(str(error), "name it, or set KVSSTCP_HOST and KVSSTCP_PORT") from error
    return server.host, server.port


def _open_task_file(path: str) -> int:
    if path == "-":
        if sys.stdin is None:
            raise TaskFileError("cannot read tasks from standard input: it is closed", "give it a file or a pipe")
        return sys.stdin.fileno()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise TaskFileError(
            f"cannot read the task file {path}: {error.strerror}", "name a file with one bash command a line"
        ) from error
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise TaskFileError(f"the task file {path} is a directory", "name a file with one bash command a line")
    return descriptor


def _earlier_runs(asked: DriverOptions) -> EarlierRuns | None:
    if not asked.resume_from:
        return None
    return EarlierRuns(asked.resume_from, retry=asked.retry, by_id_alone=asked.force_resume)


def _begin_files(asked: DriverOptions) -> tuple[RunFiles, Recorder]:
    """Names for the files of this run that no other run has, and its status file."""
    prefix = os.path.abspath(asked.prefix)
    if not os.path.isdir(prefix):
        if asked.prefix.endswith("/"):
            raise DisbatchError(
                f"there is no directory {asked.prefix} for the run's files", "make it, or give another -p"
            )
        files = RunFiles(prefix)
        _check_directory(files.directory)
        return files, Recorder(files.status)
    _check_directory(prefix)
    while True:
        files = RunFiles(
            runfiles.unique_id(
                prefix,
                source_name=runfiles.task_source_name(asked.task_file),
                now=datetime.now(),  # noqa: DTZ005 - users know their runs by the time on their own clock
                digits=random.randrange(1000),  # noqa: S311 - tells runs apart that start in the same second
            )
        )
        with suppress(NameTakenError):
            recorder = Recorder(files.status)
            if not os.path.lexists(files.status):
                return files, recorder
            recorder.close()


def _check_directory(directory: str) -> None:
    if not os.path.isdir(directory):
        raise DisbatchError(f"there is no directory {directory} for the run's files", "make it, or give another -p")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise DisbatchError(f"cannot write into {directory}, where the run's files go", "give another place with -p")


def _settings(asked: DriverOptions, files: RunFiles) -> Settings:
    return Settings(
        version=__version__,
        job=files.job,
        task_source=runfiles.task_source_name(asked.task_file),
        directory=os.getcwdb(),
        script=files.script,
        startup_only=asked.startup_only,
        exit_code=asked.exit_code,
        fail_fast=asked.fail_fast,
    )


def _write_script(files: RunFiles, asked: DriverOptions, public: Address, secret: bytes | None) -> None:
    joining = options.JoinOptions(files.unique_id, public, asked.log_level)
    text = runfiles.script_text(
        disbatch_command(),
        arguments_for(joining),
        arguments_for(asked, INHERITED),
        secret.decode() if secret else None,
    )
    _write(files.script, text.encode(errors="surrogateescape"), 0o700)


def _write(path: str, content: bytes, mode: int) -> None:
    """Write a file anew; what it holds is never to be seen under the rights of one that was there before."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(content)


def _own_context(
    asked: DriverOptions, files: RunFiles, hosts: Sequence[SshNode], port: int, secret: bytes | None
) -> OwnContext:
    joining = options.ContextRoleOptions(
        run=files.unique_id, kvs=address.local(_own_address(asked), port), log_level=asked.log_level, token=OWN_TOKEN
    )
    environment = dict(os.environ)
    environment.pop(SECRET_VARIABLE, None)
    if secret is not None:
        environment[SECRET_VARIABLE] = secret.decode()
    nodes: ContextOptions = options.ContextOptions(
        task_limit=asked.task_limit,
        cpus_per_task=asked.cpus_per_task,
        label=asked.label,
        ssh_nodes=(tuple(hosts),),
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


def _mail(asked: DriverOptions, files: RunFiles, server: Address, counts: Counts, log: Log) -> Mail:
    from disbatch.driver import letter, mail  # noqa: PLC0415 - most runs send none

    def warn(text: str) -> None:
        log.warning("%s", text)
        _tell(text)

    assert asked.mail_to is not None  # noqa: S101 - there is a server only for a run that has one to write to
    digest = letter.Digest(files.job, f"{os.uname().nodename}:{files.status}", asked.mail_frequency or 1)
    return mail.Mail(digest, counts, partial(mail.send, server, asked.mail_to), warn)


# After the run.


def _close(recorder: Recorder) -> bool:
    """Whether every line has got into the status file."""
    try:
        recorder.close()
    except DisbatchError as error:
        _tell(str(error))
        return False
    return True


def _sum_up(counts: Counts, status_file: str, *, complete: bool) -> None:
    if not any(vars(counts).values()):  # then whatever ended the run early has been told, and is all there is to tell
        if complete:
            _tell("No tasks to run.")
        return
    _tell(f"{counts.in_words}; status file: {shlex.quote(status_file)}")


def _shown(path: str, asked: DriverOptions) -> str:
    """Path of one of the run's files as its user writes paths: from here, or in full."""
    return path if os.path.isabs(asked.prefix) else os.path.relpath(path)


def _tell(text: str) -> None:
    """Print a line to the user's terminal, which may have gone."""
    with suppress(OSError, ValueError):
        print(f"disbatch: {text}", file=sys.stderr, flush=True)
