"""The beginning of a run: whatever may be wrong with what its user asks for, and its files.

Until all of it has succeeded nothing has changed. It must not know what becomes of a task.
"""

from __future__ import annotations

import os
import random
import signal
import stat
import sys
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING

from disbatch import options, runfiles, statusfile
from disbatch.arguments import arguments_for
from disbatch.credentials import Credentials
from disbatch.driver import address
from disbatch.driver.feeder import EarlierRuns
from disbatch.driver.loop import EXIT_STATUS_OF_SIGNAL
from disbatch.driver.recorder import NameTakenError, Recorder
from disbatch.errors import DisbatchError, TaskFileError, UsageError
from disbatch.joining import open_log
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.kvsstcp.client import KVSClient
from disbatch.kvsstcp.endpoint import AddressError, KVSError, new_secret, parse_address, tune
from disbatch.launching import disbatch_command
from disbatch.managers.base import Wishes
from disbatch.managers.choice import check_retire_command, manager_of
from disbatch.records import fields, record
from disbatch.runfiles import RunFiles
from disbatch.values import mail_server_of_environment

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from disbatch.log import Log
    from disbatch.options import DriverOptions
    from disbatch.values import Address

INHERITED = ("cpus_per_task", "tasks_per_node", "environment_resources")
"""Options of the driver that hold for contexts added later, unless those are told otherwise."""


PAGE_LIBRARY = ("starlette", "uvicorn")
"""What the web page needs, and is not installed with disbatch unless it is asked for."""


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
    """All that a run begins with, and nothing of which it has to wait for.

    `conflicts` is what was asked of disbatch and, otherwise, of a resource manager; `credentials` are those of the
    run's own store, None where it asks for none, and `public` where others are to find it; `aside` is where an earlier
    status file of the name is now; `page` listens for those who want to see the web page, if there is one.
    """

    conflicts: tuple[str, ...]
    mail_server: Address | None
    other_store: OtherStoreAddress | None
    task_file: int | None
    earlier: EarlierRuns | None
    files: RunFiles
    recorder: Recorder
    listening: socket.socket
    credentials: Credentials | None
    log: Log
    public: Address
    aside: str | None
    page: socket.socket | None

    @property
    def port(self) -> int:
        """Where the run's own store listens."""
        port: int = self.listening.getsockname()[1]
        return port


def begin(asked: DriverOptions) -> Beginning:
    """Do what may fail because of a mistake, or take its time, before anything is to be seen of the run.

    Raises `DisbatchError` and OSError, also when a signal comes that means the end; then nothing is left of it. One
    that comes when all has been done waits for `let_signals_through`: who clears that away is to be there.
    """
    with _ended_by_signals():
        beginning = _begin(asked)
        signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_STATUS_OF_SIGNAL)
        return beginning


def let_signals_through() -> None:
    """Let those signals come again, which are handled from now on."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, EXIT_STATUS_OF_SIGNAL)


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


def own_address(asked: DriverOptions) -> Address | None:
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
    if asked.web:
        _check_page_library()
    nodes, conflicts = _resources(asked)
    mail_server = mail_server_of_environment(os.environ) if asked.mail_to else None
    other_store = _other_store(asked)
    task_file = None if asked.task_file is None else _open_task_file(asked.task_file)
    earlier = _earlier_runs(asked)
    files, recorder = _begin_files(asked)
    with ExitStack() as undo:
        # What fails here leaves the status file of an earlier run of this name as it is, for -r to read next time.
        undo.callback(recorder.close)
        listening = address.listen(own_address(asked))
        page = _listen_for_page(asked)
        log_file = asked.log_file or files.driver_log
        if not os.path.lexists(log_file):
            undo.callback(remove, log_file)
        log = open_log(log_file, asked.log_level)
        if asked.status_header:
            recorder.add(statusfile.HEADER)
        recorder.add_all(earlier.lines() if earlier else ())
        credentials = _new_credentials(asked)
        port = listening.getsockname()[1]
        public = address.advertised(own_address(asked), port, nodes)
        undo.callback(remove, files.script)
        _write_script(files, asked, public, credentials)
        if asked.startup_only:
            _print_path(files.script)
        aside = recorder.take_place()
        undo.pop_all()
    return Beginning(
        conflicts,
        mail_server,
        other_store,
        task_file,
        earlier,
        files,
        recorder,
        listening,
        credentials,
        log,
        public,
        aside,
        page,
    )


def _check_page_library() -> None:
    missing = [name for name in PAGE_LIBRARY if find_spec(name) is None]  # to import them takes long
    if missing:
        raise UsageError(
            f"-w needs what is not installed: {', '.join(missing)}", "install it with: pip install 'disbatch[web]'"
        )


def _listen_for_page(asked: DriverOptions) -> socket.socket | None:
    if not asked.web:
        return None
    page = address.listen(asked.web_address, "--web-address")
    tune(page)  # connections have what it has
    return page


def _new_credentials(asked: DriverOptions) -> Credentials | None:
    """Secrets for the run's own store; they say whether what goes between hosts is encrypted."""
    if asked.insecure_kvs:
        return None
    if not asked.no_encryption and find_spec("_ssl") is None:  # to import it takes long, and few runs need it
        raise DisbatchError(
            "this Python cannot encrypt what goes between hosts: it was built without ssl",
            "use another, or give --no-encryption",
        )
    return Credentials(*(new_secret(encrypted=not asked.no_encryption) for _ in fields(Credentials)))


def _print_path(script: str) -> None:
    if sys.stdout is None:  # closed by whoever started this, who does not want to know
        return
    try:
        sys.stdout.buffer.write(os.fsencode(script) + b"\n")  # no name of a file is too odd for it
        sys.stdout.flush()
    except OSError as error:
        raise DisbatchError(f"cannot print the path of {script} to standard output: {error.strerror}") from error


def remove(path: str) -> None:
    """Remove a file of the run, if it is there still."""
    with suppress(OSError):
        os.unlink(path)


def _resources(asked: DriverOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Nodes that the run begins with, on which there is a place for a task; conflicts about them."""
    if asked.startup_only:
        return (), ()
    manager = manager_of(os.environ, asked.nodes)
    check_retire_command(manager, asked.retire_command)
    wishes = Wishes(asked.cpus_per_task, asked.tasks_per_node, asked.fill)
    return tuple(offer.name for offer in manager.offers(wishes)), tuple(manager.conflicts(wishes))


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
        _check_place_of_files(files.directory)
        return files, _recorder(files, asked)
    _check_place_of_files(prefix)
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
            recorder = _recorder(files, asked)
            if not os.path.lexists(files.status):
                return files, recorder
            recorder.close()


def _recorder(files: RunFiles, asked: DriverOptions) -> Recorder:
    return Recorder(files.status, sync=None if asked.no_fsync else os.fdatasync)


def _check_place_of_files(directory: str) -> None:
    if not os.path.isdir(directory):
        raise DisbatchError(f"there is no directory {directory} for the run's files", "make it, or give another -p")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise DisbatchError(f"cannot write into {directory}, where the run's files go", "give another place with -p")


def _write_script(files: RunFiles, asked: DriverOptions, public: Address, credentials: Credentials | None) -> None:
    joining = options.JoinOptions(files.unique_id, public, asked.log_level)
    text = runfiles.script_text(
        disbatch_command(), arguments_for(joining), arguments_for(asked, INHERITED), credentials
    )
    write(files.script, text.encode(errors="surrogateescape"), 0o700)


def write(path: str, content: bytes, mode: int) -> None:
    """Write a file anew; what it holds is never to be seen under the rights of one that was there before."""
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise DisbatchError(
            f"cannot write {path}: {error.strerror}", "make room, or give another place with -p"
        ) from error
