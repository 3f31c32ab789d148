"""The driver as a process, in this one: its loop is a stand-in that looks around while the run would go on."""

from __future__ import annotations

import errno
import functools
import os
import random
import re
import shlex
import signal
import stat
import subprocess
import sys
from contextlib import nullcontext
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from disbatch import __version__, options
from disbatch.arguments import parse
from disbatch.driver import address, beginning, events, letter, mail, process
from disbatch.driver.membership import OWN_TOKEN
from disbatch.driver.recorder import Recorder
from disbatch.driver.submissions import SIGN_IN
from disbatch.errors import DisbatchError, UsageError
from disbatch.eventloop import Timer
from disbatch.kvsstcp.client import DisconnectedError
from disbatch.options import ContextRoleOptions
from disbatch.runfiles import RunFiles
from disbatch.statusfile import HEADER, skipped_line, task_line
from disbatch.taskfile import Complaint
from disbatch.tasks import NO_REPEAT, Task
from disbatch.values import Address, SshNode
from tests.unit.driver.simulation import outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from disbatch.driver.controller import Controller
    from disbatch.driver.feeder import Feeder
    from disbatch.driver.letter import Digest, Letter
    from disbatch.driver.loop import OwnContext
    from disbatch.driver.submissions import Submissions
    from disbatch.eventloop import EventLoop
    from disbatch.log import Log

PORT = 4711
PUBLIC = Address("driver.example.org", PORT)
HERE = ("-s", "localhost:2")
TASKS = b"true\nfalse\n"


def main(*arguments: str) -> int:
    """Be a driver that was started by this command line."""
    asked = options.parse_driver(arguments, "disbatch")
    return process.main(asked, functools.partial(options.resume_command, ["disbatch"], arguments))


class Listening:
    """Stands for the socket on which the store would listen."""

    def getsockname(self) -> tuple[str, int]:
        return "0.0.0.0", PORT


class Shelf:
    """Stands for the store that programs share with the run."""

    def __init__(self) -> None:
        self.posted: list[tuple[bytes, bytes, bytes]] = []
        self.asked: dict[bytes, Callable[[bytes], None]] = {}

    def put(self, key: bytes, tag: bytes, value: bytes) -> None:
        self.posted.append((key, tag, value))

    def get(self, key: bytes, handler: Callable[[bytes], None]) -> None:
        self.asked[key] = handler


class Run:
    """Stands for the driver's loop: keeps what it is made with, and has the test look around in the place of a run."""

    def __init__(
        self,
        bench: Bench,
        loop: EventLoop,
        controller: Controller,
        recorder: Recorder,
        job: str,
        own_context: OwnContext,
        log: Log,
        tell: Callable[[str], None],
        on_recorded: process._Recorded,
    ) -> None:
        self.bench = bench
        self.loop = loop
        self.controller = controller
        self.recorder = recorder
        self.job = job
        self.own_context = own_context
        self.log = log
        self.tell = tell
        self.on_recorded = on_recorded
        self.secret: bytes | None = None
        self.store = Shelf()
        self.used: object = None
        self.served_until: Callable[[], bool] | None = None
        self.happened_so_far: list[events.Event] = []

    def serve(self, listening: object, secret: bytes | None) -> None:
        assert listening is self.bench.listening
        self.secret = secret

    def use_store(self, connected: object, replacing: object, _where: str) -> None:
        self.used = (connected, replacing)

    def serve_until(self, is_over: Callable[[], bool]) -> events.SignalCame | None:
        self.served_until = is_over
        return self.bench.signal_at_the_end

    def happened(self, event: events.Event) -> None:
        self.happened_so_far.append(event)

    def run(self, feeder: Feeder | Submissions) -> events.EndRun:
        self.source = feeder
        feeder.read(100)
        self.bench.run = self
        self.bench.files = RunFiles(os.path.join(os.getcwd(), self.job))
        self.bench.meanwhile(self)
        return self.bench.end

    def close(self) -> None:
        assert "run_kvsinfo.txt" not in self.bench.names

    @property
    def items(self) -> tuple[events.Item, ...]:
        [event] = self.happened_so_far
        assert isinstance(event, events.ItemsRead)
        return event.items


class Bench:
    """A directory with a file of tasks, and stand-ins for what a driver shares with the world."""

    run: Run
    files: RunFiles

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.listening = Listening()
        self.end = events.EndRun(0, complete=True)
        self.signal_at_the_end: events.SignalCame | None = None
        self.wanted: list[Address | None] = []
        self.meanwhile: Callable[[Run], None] = lambda _: None
        self.advertised_to: list[str] = []
        (folder / "tasks").write_bytes(TASKS)
        monkeypatch.chdir(folder)
        monkeypatch.delenv("DISBATCH_SSH_NODELIST", raising=False)
        for variable in ("KVSSTCP_HOST", "KVSSTCP_PORT", "KVSSTCP_SECRET"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr(address, "listen", self._listen)
        monkeypatch.setattr(address, "advertised", self._advertised)
        monkeypatch.setattr(process, "DriverLoop", functools.partial(Run, self))

    def _listen(self, wanted: Address | None) -> Listening:
        self.wanted.append(wanted)
        return self.listening

    def _advertised(self, wanted: Address | None, _port: int, hosts: list[str]) -> Address:
        self.wanted.append(wanted)
        self.advertised_to = hosts
        return PUBLIC

    def main(self, *arguments: str, task_file: str = "tasks") -> int:
        return main(*HERE, *arguments, task_file)

    @property
    def names(self) -> set[str]:
        """Names of the files that are there beside the tasks."""
        return set(os.listdir(self.folder)) - {"tasks"}

    def content(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def line(task_id: int, command: bytes, return_code: int = 0) -> bytes:
    return task_line(Task(task_id, task_id + 1, NO_REPEAT, command), "node", outcome(return_code))


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "taskfile"),
        ([*HERE, "tasks", "--taskcommand", "true"], 2, "exclude one another"),
        (["tasks"], 2, "no resources"),
        ([*HERE, "-R", "tasks"], 2, "-R needs -r"),
        ([*HERE, "nothing"], 1, "cannot read the task file nothing: No such file or directory"),
        ([*HERE, "tasks/x"], 1, "cannot read the task file tasks/x: Not a directory"),
        ([*HERE, ""], 1, "cannot read the task file : No such file or directory"),
        ([*HERE, "."], 1, "the task file . is a directory"),
        ([*HERE, "-r", "nothing", "tasks"], 1, "cannot read the status file nothing: No such file or directory"),
        ([*HERE, "-r", "tasks", "tasks"], 1, "tasks is no status file"),
        ([*HERE, "-p", "missing/", "tasks"], 1, "there is no directory missing/"),
        ([*HERE, "-p", "missing/run", "tasks"], 1, "/missing for the run's files"),
        ([*HERE, "-p", "tasks/run", "tasks"], 1, "/tasks for the run's files"),
        ([*HERE, "--logfile", "missing/log", "tasks"], 1, "cannot write the log missing/log"),
    ],
)
def test_a_mistake_is_an_error_for_people_and_leaves_nothing_behind(
    bench: Bench, arguments: list[str], status: int, message: str
) -> None:
    with pytest.raises(DisbatchError) as error:
        main(*arguments)
    assert message in error.value.message
    assert error.value.hint
    assert error.value.exit_status == status
    assert bench.names == set()


def test_an_address_that_cannot_be_had_leaves_nothing_behind(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def listen(_wanted: Address | None) -> None:
        raise DisbatchError("cannot listen at 192.0.2.1:0")

    monkeypatch.setattr(address, "listen", listen)
    with pytest.raises(DisbatchError, match="cannot listen"):
        bench.main()
    assert bench.names == set()


def test_a_directory_that_cannot_be_written_is_an_error_for_people(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DisbatchError, match=r"^cannot write into .*, where the run's files go \(give .* -p\)$"):
        bench.main()


def test_a_bad_list_of_hosts_in_the_environment_is_a_mistake(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISBATCH_SSH_NODELIST", "node1")
    with pytest.raises(UsageError, match=r"^DISBATCH_SSH_NODELIST: 'node1' has no core count"):
        main("tasks")
    assert bench.names == set()


def test_a_mistake_sets_no_status_file_aside(bench: Bench) -> None:
    (bench.folder / "run_status.txt").write_bytes(line(0, b"true"))
    with pytest.raises(DisbatchError):
        bench.main("-p", "run", "--logfile", "missing/log")
    assert bench.names == {"run_status.txt"}


def test_the_path_of_the_script_may_be_no_utf_8(bench: Bench, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    main("-S", "-p", os.fsdecode(b"u\xff"), "tasks")
    assert capfdbinary.readouterr().out == os.fsencode(bench.folder) + b"/u\xff_dbUtil.sh\n"


def test_a_file_that_cannot_be_made_is_named_and_nothing_is_left(bench: Bench) -> None:
    (bench.folder / "run_dbUtil.sh").mkdir()
    with pytest.raises(DisbatchError) as error:
        bench.main("-p", "run")
    assert str(error.value) == f"{bench.folder}/run_dbUtil.sh: Is a directory"
    assert bench.names == {"run_dbUtil.sh"}


def test_what_the_system_refuses_during_a_run_is_an_error_for_people(bench: Bench) -> None:
    def fail(_run: Run) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    bench.meanwhile = fail
    with pytest.raises(DisbatchError) as error:
        bench.main("-p", "run")
    assert str(error.value) == "Cannot allocate memory"
    assert "run_kvsinfo.txt" not in bench.names


# The task list


def test_the_tasks_come_from_the_file(bench: Bench) -> None:
    assert bench.main() == 0
    assert bench.run.items == (Task(0, 1, NO_REPEAT, b"true"), Task(1, 2, NO_REPEAT, b"false"))


def test_the_tasks_may_come_from_standard_input(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("tasks") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert bench.main(task_file="-") == 0
    assert len(bench.run.items) == 2
    assert bench.run.job.startswith("stdin_disBatch_")
    assert bench.run.controller._settings.task_source == "stdin"


def test_standard_input_that_is_closed_is_an_error_for_people(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DisbatchError, match="standard input: it is closed"):
        bench.main(task_file="-")
    assert bench.names == set()


def test_what_earlier_runs_completed_is_skipped(bench: Bench) -> None:
    (bench.folder / "status").write_bytes(line(1, b"false"))
    bench.main("-r", "status")
    assert bench.run.items == (
        Task(0, 1, NO_REPEAT, b"true"),
        events.SkippedTask(Task(1, 2, NO_REPEAT, b"false"), skipped_line(line(1, b"false")), failed=False),
    )


def test_what_failed_in_an_earlier_run_is_run_again_where_that_is_wanted(bench: Bench) -> None:
    (bench.folder / "status").write_bytes(line(1, b"false", return_code=1))
    bench.main("-r", "status", "-R")
    assert bench.run.items == (Task(0, 1, NO_REPEAT, b"true"), Task(1, 2, NO_REPEAT, b"false"))


def test_what_differs_from_an_earlier_run_ends_this_one_unless_it_is_forced(bench: Bench) -> None:
    (bench.folder / "status").write_bytes(line(0, b"another command"))
    bench.main("-r", "status")
    assert [type(event) for event in bench.run.happened_so_far] == [events.ReadingFailed]
    bench.main("-r", "status", "--force-resume")
    assert [type(item) for item in bench.run.items] == [Complaint, events.SkippedTask, Task]


def test_warnings_about_earlier_runs_are_told(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    (bench.folder / "status").write_bytes(line(0, b"true") + b"  ")
    bench.main("-r", "status")
    assert "disbatch: status: line 2 is cut off and ignored" in capsys.readouterr().err


# The run's files


def test_the_files_of_a_run_are_there_while_it_goes_on(bench: Bench) -> None:
    seen: dict[str, int] = {}
    bench.meanwhile = lambda _: seen.update({name: mode_of(name) for name in bench.names})
    mask = os.umask(0)
    try:
        bench.main("-p", "run")
    finally:
        os.umask(mask)
    assert seen.pop("run_driver.log")
    assert seen == {"run_status.txt": 0o666, "run_dbUtil.sh": 0o700, "run_kvsinfo.txt": 0o644}
    assert bench.names == {"run_status.txt", "run_dbUtil.sh", "run_driver.log"}


def test_the_address_of_the_store_is_in_its_file(bench: Bench) -> None:
    seen: list[str] = []
    bench.meanwhile = lambda _: seen.append(bench.content("run_kvsinfo.txt"))
    bench.main("-p", "run", "-s", "node7:1")
    assert seen == ["driver.example.org:4711\n"]
    assert list(bench.advertised_to) == ["localhost", "node7"]


def test_an_address_file_that_somebody_has_removed_is_not_missed(bench: Bench) -> None:
    bench.meanwhile = lambda _: os.unlink("run_kvsinfo.txt")
    assert bench.main("-p", "run") == 0


def test_a_run_is_named_after_its_task_file_and_its_time(bench: Bench) -> None:
    (bench.folder / "elsewhere").mkdir()
    bench.main("-p", "elsewhere")
    assert re.fullmatch(r"tasks_disBatch_\d{12}_\d{3}", bench.run.job)
    assert {name.removeprefix(bench.run.job) for name in os.listdir("elsewhere")} == {
        "_status.txt",
        "_dbUtil.sh",
        "_driver.log",
    }


def test_the_log_goes_where_the_user_wants_it(bench: Bench) -> None:
    bench.main("-p", "run", "--logfile", "my log")
    assert bench.names == {"run_status.txt", "run_dbUtil.sh", "my log"}


def test_the_log_holds_neither_secret_nor_environment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVATE_VARIABLE", "private value")
    bench.main("-p", "run", "--loglevel", "DEBUG")
    log = bench.content("run_driver.log")
    assert f"disbatch {__version__}, pid {os.getpid()}" in log
    assert "key-value store at driver.example.org:4711" in log
    assert "the run ends with status 0" in log
    assert bench.run.secret
    for private in (bench.run.secret.decode(), "PRIVATE_VARIABLE", "private value"):
        assert private not in log


def test_a_header_is_the_first_line_where_it_is_wanted(bench: Bench) -> None:
    bench.meanwhile = lambda run: run.recorder.add(b"line\n")
    bench.main("-p", "with", "--status-header")
    bench.main("-p", "without")
    assert bench.content("with_status.txt") == HEADER.decode() + "line\n"
    assert bench.content("without_status.txt") == "line\n"


def test_an_earlier_status_file_of_the_name_is_set_aside(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    (bench.folder / "run_status.txt").write_text("earlier\n")
    bench.main("-p", "run")
    assert bench.content("run_status.txt.1") == "earlier\n"
    assert "disbatch: an earlier status file of this name is now run_status.txt.1" in (
        capsys.readouterr().err.splitlines()
    )


def test_it_is_read_before_where_it_is_resumed_from(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    (bench.folder / "run_status.txt").write_bytes(line(0, b"true"))
    bench.end = events.EndRun(130, complete=False)
    bench.meanwhile = lambda run: setattr(run.controller.counts, "skipped", 1)
    bench.main("-p", "run", "-r", "run_status.txt")
    assert isinstance(bench.run.items[0], events.SkippedTask)
    assert bench.content("run_status.txt.1").encode() == line(0, b"true")
    # However early the run was cut short, its own file is enough.
    assert bench.content("run_status.txt").encode() == skipped_line(line(0, b"true"))
    assert capsys.readouterr().err.splitlines()[-1].endswith(" -p run tasks -r run_status.txt")


# The script


def words_of_script(bench: Bench, role: str) -> list[str]:
    """Words behind the role in the script's line that starts it, without the script's own arguments."""
    [command] = [
        text for text in bench.content("run_dbUtil.sh").splitlines() if "exec " in text and f" {role} " in text
    ]
    words = shlex.split(command)
    assert words[-1] == "$@"
    return words[words.index(role) + 1 : -1]


def test_the_script_starts_contexts_that_inherit_from_the_driver(bench: Bench) -> None:
    bench.main("-p", "run", "-c", "1.5", "-t", "3", "-E", "GPUS", "-E", "NICS", "-l", "mine", "--loglevel", "DEBUG")
    words = words_of_script(bench, "--context")
    assert parse(options.CONTEXT, words, "") == ContextRoleOptions(
        run=f"{bench.folder}/run",
        kvs=PUBLIC,
        log_level="DEBUG",
        cpus_per_task=1.5,
        tasks_per_node=3,
        environment_resources=("GPUS", "NICS"),
    )


def test_the_script_starts_engines(bench: Bench) -> None:
    bench.main("-p", "run")
    words = words_of_script(bench, "--engine")
    asked = parse(options.ENGINE, words, "")
    assert (asked.run, asked.kvs) == (f"{bench.folder}/run", PUBLIC)


def test_the_script_holds_the_secret_that_the_store_asks_for(bench: Bench) -> None:
    bench.main("-p", "run")
    assert bench.run.secret is not None
    assert f"export KVSSTCP_SECRET={bench.run.secret.decode()}\n" in bench.content("run_dbUtil.sh")


def test_each_run_has_a_secret_of_its_own(bench: Bench) -> None:
    secrets = set()
    for _ in range(3):
        bench.main("-p", "run")
        secrets.add(bench.run.secret)
    assert len(secrets) == 3


def test_a_prefix_with_blanks_and_quotes_makes_a_script_that_bash_reads(bench: Bench) -> None:
    bench.main("-p", "it's my run")
    subprocess.run(["/bin/bash", "-n", "it's my run_dbUtil.sh"], check=True)


def test_who_could_read_an_earlier_script_cannot_read_the_new_one(bench: Bench) -> None:
    script = bench.folder / "run_dbUtil.sh"
    script.write_text("earlier\n")
    script.chmod(0o666)
    (bench.folder / "link").hardlink_to(script)
    with script.open() as opened_before:
        bench.main("-p", "run")
        assert opened_before.read() == "earlier\n"
    assert mode_of("run_dbUtil.sh") & 0o077 == 0
    assert bench.content("link") == "earlier\n"


def test_no_file_is_written_through_a_link(bench: Bench) -> None:
    (bench.folder / "precious").write_text("precious\n")
    for name in ("run_dbUtil.sh", "run_kvsinfo.txt", "run_status.txt"):
        (bench.folder / name).symlink_to("precious")
    bench.main("-p", "run")
    assert bench.content("precious") == "precious\n"


# The driver's own context


def test_the_own_context_is_told_what_the_user_has_asked_for(bench: Bench) -> None:
    bench.main("-p", "run", "-c", "0.5", "-t", "3", "-E", "GPUS", "--label=-mine", "-s", "node7:4,node8:4")
    command = bench.run.own_context.command
    words = command[command.index("--context") + 1 :]
    assert parse(options.CONTEXT, words, "") == ContextRoleOptions(
        run=f"{bench.folder}/run",
        kvs=Address("127.0.0.1", PORT),
        token=OWN_TOKEN,
        cpus_per_task=0.5,
        label="-mine",
        ssh_nodes=((SshNode("localhost", 2),), (SshNode("node7", 4), SshNode("node8", 4))),
        tasks_per_node=3,
        environment_resources=("GPUS",),
    )
    assert bench.run.own_context.output == f"{bench.folder}/run_{os.getpid()}_context_launch.log"


def test_hosts_of_the_environment_are_as_good(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISBATCH_SSH_NODELIST", "node1:3, node2:5")
    main("tasks")
    command = bench.run.own_context.command
    asked = parse(options.CONTEXT, command[command.index("--context") + 1 :], "")
    assert asked.nodes == (), "it finds them where its driver has"
    assert bench.run.own_context.environment["DISBATCH_SSH_NODELIST"] == "node1:3, node2:5"


def test_the_own_context_has_the_secret_in_its_environment_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "mine")
    bench.main()
    own = bench.run.own_context
    assert bench.run.secret is not None
    secret = bench.run.secret.decode()
    assert own.environment["KVSSTCP_SECRET"] == secret
    assert own.environment["MINE"] == "mine"
    assert not any(secret in word for word in own.command)
    assert "KVSSTCP_SECRET" not in os.environ


def test_an_open_store_has_no_secret_and_the_user_is_warned(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVSSTCP_SECRET", "that of another store")
    bench.main("-p", "run", "--insecure-kvs")
    assert bench.run.secret is None
    assert "KVSSTCP_SECRET" not in bench.run.own_context.environment
    assert "unset KVSSTCP_SECRET\n" in bench.content("run_dbUtil.sh")
    assert "disbatch: --insecure-kvs: whoever can connect" in capsys.readouterr().err


# Tasks through a store


class Elsewhere:
    """Stands for connecting to a store that somebody else serves."""

    def __init__(self) -> None:
        self.connected: list[tuple[str, int, str]] = []
        self.failure: Exception | None = None

    def __call__(self, host: str, port: int, *, secret: str) -> Elsewhere:
        if self.failure:
            raise self.failure
        self.connected.append((host, port, secret))
        return self

    def confirm(self) -> None:
        if self.failure:
            raise self.failure

    def clone(self) -> Elsewhere:
        return self

    def detach(self) -> str:
        return "the connection"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    made = Elsewhere()
    monkeypatch.setattr(beginning, "KVSClient", made)
    return made


class Command:
    """Stands for a task command."""

    def __init__(self) -> None:
        self.has_ended = False
        self.closed = False
        self.failure: DisbatchError | None = None

    def __call__(
        self, text: str, environment: Mapping[str, str], _loop: EventLoop, on_end: Callable[[int], None]
    ) -> Command:
        if self.failure:
            raise self.failure
        self.text = text
        self.environment = environment
        self.on_end = on_end
        return self

    def close(self) -> None:
        self.closed = True

    @property
    def store(self) -> tuple[str | None, ...]:
        return tuple(self.environment.get(f"KVSSTCP_{name}") for name in ("HOST", "PORT", "SECRET"))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    made = Command()
    monkeypatch.setattr(process, "TaskCommand", made)
    return made


@pytest.mark.parametrize(
    "arguments", [["--kvsserver", "a:1", "--taskserver", "b:1"], ["--kvsserver", "a:1", "--taskserver=a:2"]]
)
def test_a_run_shares_no_two_stores(bench: Bench, elsewhere: Elsewhere, arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="--kvsserver and --taskserver name different stores") as error:
        main(*HERE, *arguments)
    assert error.value.exit_status == 2
    assert not elsewhere.connected
    assert bench.names == set()


@pytest.mark.parametrize("arguments", [["tasks", "--kvsserver"], ["--taskserver"], ["--taskserver", "--kvsserver"]])
@pytest.mark.parametrize(("host", "port"), [(None, None), ("there", None), (None, "80"), ("there", "http")])
def test_a_store_that_the_environment_does_not_name_is_a_mistake(
    bench: Bench,
    elsewhere: Elsewhere,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    host: str | None,
    port: str | None,
) -> None:
    for name, value in (("KVSSTCP_HOST", host), ("KVSSTCP_PORT", port)):
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as error:
        main(*HERE, *arguments)
    assert error.value.hint == "name it, or set KVSSTCP_HOST and KVSSTCP_PORT"
    assert not elsewhere.connected
    assert bench.names == set()


@pytest.mark.parametrize(
    ("arguments", "host"),
    [
        (["tasks", "--kvsserver", "there:80"], "there"),
        (["tasks", "--kvsserver"], "of.environment"),
        (["--taskserver", "there:80"], "there"),
        (["--taskserver"], "of.environment"),
        (["--kvsserver", "there:80", "--taskserver"], "there"),
        (["--taskserver", "there:80", "--kvsserver=there:80"], "there"),
        (["--kvsserver", "--taskserver"], "of.environment"),
        (["--kvsserver", "--taskserver=of.environment:80"], "of.environment"),
        (["--kvsserver", "there:80", "--taskcommand", "make tasks"], "there"),
    ],
)
def test_another_store_is_the_one_that_the_user_means(
    bench: Bench,
    elsewhere: Elsewhere,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    host: str,
) -> None:
    monkeypatch.setenv("KVSSTCP_HOST", "of.environment")
    monkeypatch.setenv("KVSSTCP_PORT", "80")
    monkeypatch.setenv("KVSSTCP_SECRET", "its secret")
    assert main(*HERE, *arguments) == 0
    assert elsewhere.connected == [(host, 80, "its secret")]
    assert bench.run.used == ("the connection", "the connection")
    assert bench.run.secret not in (None, b"its secret"), "the run's own store has a secret of its own"
    assert bench.run.own_context.environment["KVSSTCP_SECRET"] != "its secret"
    assert command.closed is ("--taskcommand" in arguments)
    if command.closed:
        assert command.store == ("there", "80", "its secret")


def test_another_store_that_cannot_be_had_leaves_nothing_behind(bench: Bench, elsewhere: Elsewhere) -> None:
    for elsewhere.failure in (DisconnectedError("cannot connect to there:80"), OSError(errno.EPIPE, "Broken pipe")):
        with pytest.raises(DisbatchError) as error:
            bench.main("--kvsserver", "there:80")
        assert error.value.exit_status == 1
        assert error.value.hint == "see --kvsserver and --taskserver"
        assert bench.names == set()


@pytest.mark.usefixtures("elsewhere")
def test_there_is_no_file_with_the_address_of_somebody_elses_store(bench: Bench) -> None:
    seen: set[str] = set()
    bench.meanwhile = lambda _: seen.update(bench.names)
    bench.main("-p", "run", "--kvsserver", "there:80")
    assert seen == {"run_status.txt", "run_dbUtil.sh", "run_driver.log"}


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("other", [["tasks", "--kvsserver", "there:80"], ["--taskserver", "there:80"]])
def test_an_address_for_the_runs_own_store_has_no_effect_with_another(
    bench: Bench, capsys: pytest.CaptureFixture[str], other: list[str]
) -> None:
    main(*HERE, "--use-address", "mine:5", *other)
    assert "disbatch: --use-address has no effect together with --kvsserver" in capsys.readouterr().err.splitlines()
    assert bench.wanted == [None, None]
    assert f"--kvs=127.0.0.1:{PORT}" in bench.run.own_context.command


def test_an_address_for_the_runs_own_store_is_used_without_a_word(
    bench: Bench, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    main(*HERE, "--use-address", "mine:5", "--taskcommand", "make tasks")
    assert bench.wanted == [Address("mine", 5)] * 2
    assert f"--kvs=mine:{PORT}" in bench.run.own_context.command
    assert command.store[:2] == ("mine", str(PORT))
    assert "--use-address" not in capsys.readouterr().err


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("arguments", [["--taskserver", "there:80"], ["--taskcommand", "make tasks"]])
def test_tasks_that_are_submitted_come_from_the_store(bench: Bench, command: Command, arguments: list[str]) -> None:
    main(*HERE, *arguments)
    assert bench.run.job.startswith("STREAM_disBatch_")
    assert bench.run.controller._settings.task_source == "STREAM"
    assert list(bench.run.store.asked) == [b"task source name"]
    assert command.closed is (arguments[0] == "--taskcommand")


def test_results_of_tasks_that_are_submitted_are_posted(bench: Bench, command: Command) -> None:
    def submit(run: Run) -> None:
        for key, value in zip(SIGN_IN, (b"name", b"done", b"R", b"T"), strict=True):
            run.store.asked[key](value)
        run.on_recorded([line(3, b"true")])

    bench.meanwhile = submit
    main(*HERE, "--taskcommand", "make tasks")
    assert [key for key, _, _ in bench.run.store.posted] == [b"R 3", b"R done tasks"]
    assert command.closed


@pytest.mark.usefixtures("elsewhere")
def test_results_of_a_task_file_are_not_posted(bench: Bench) -> None:
    bench.main("--kvsserver", "there:80")
    assert bench.run.on_recorded.listeners == []
    assert not bench.run.store.posted


@pytest.mark.parametrize("open_store", [True, False])
def test_a_task_command_finds_the_runs_own_store(bench: Bench, command: Command, *, open_store: bool) -> None:
    main(*HERE, "--taskcommand", "make tasks; --all", *["--insecure-kvs"] * open_store)
    assert command.text == "make tasks; --all"
    secret = bench.run.secret.decode() if bench.run.secret else None
    assert (secret is None) is open_store
    assert command.store == ("127.0.0.1", str(PORT), secret)


@pytest.mark.parametrize("complete", [True, False])
def test_a_store_is_served_until_the_task_command_has_ended_if_the_run_was_complete(
    bench: Bench, command: Command, *, complete: bool
) -> None:
    bench.end = events.EndRun(0 if complete else 1, complete=complete)
    main(*HERE, "--taskcommand", "make tasks")
    assert command.closed
    is_over = bench.run.served_until
    assert (is_over is not None) is complete
    if is_over is not None:
        assert not is_over()
        command.has_ended = True
        assert is_over()


@pytest.mark.parametrize(
    ("return_code", "event"),
    [
        (0, events.ItemsRead((), ended=True)),
        (3, events.ReadingFailed("the task command ended with 3")),
        (-15, events.ReadingFailed("the task command ended with -15")),
    ],
)
def test_a_task_command_that_ends_early_ends_the_list_when_all_is_read(
    bench: Bench, command: Command, monkeypatch: pytest.MonkeyPatch, return_code: int, event: events.Event
) -> None:
    def end(run: Run) -> None:
        later: list[tuple[float, Callable[[], None]]] = []
        with monkeypatch.context() as patch:
            patch.setattr(run.loop, "after", lambda seconds, action: later.append((seconds, action)))
            command.on_end(return_code)
        assert not run.happened_so_far
        [(seconds, action)] = later
        assert seconds == process.QUIET_AFTER_COMMAND
        action()

    bench.meanwhile = end
    main(*HERE, "--taskcommand", "make tasks")
    assert bench.run.happened_so_far == [event]


def test_a_signal_ends_a_task_command_that_outlives_its_tasks_and_is_told(
    bench: Bench, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.signal_at_the_end = events.SignalCame("SIGTERM", 143)
    bench.meanwhile = lambda run: setattr(run.controller.counts, "finished", 1)
    assert main(*HERE, "-p", "run", "--taskcommand", "make tasks") == 143
    assert command.closed
    assert capsys.readouterr().err.splitlines() == [
        "disbatch: got SIGTERM; ending the task command, whose tasks have all ended",
        "disbatch: 1 task finished; status file: run_status.txt",
    ]


@pytest.mark.usefixtures("command")
def test_a_task_command_that_outlives_its_tasks_for_a_while_is_said_to_be_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    later: list[tuple[float, Callable[[], None]]] = []

    def after(seconds: float, action: Callable[[], None]) -> Timer:
        later.append((seconds, action))
        return Timer(0.0, action)

    bench.meanwhile = lambda run: monkeypatch.setattr(run.loop, "after", after)
    assert main(*HERE, "-p", "run", "--taskcommand", "make tasks") == 0
    [(seconds, action)] = later
    assert seconds == process.PATIENCE_WITH_COMMAND
    capsys.readouterr()
    action()
    told = "disbatch: all tasks have ended; waiting for the task command to end, which Ctrl-C would make it do\n"
    assert capsys.readouterr().err == told


def test_a_task_command_that_cannot_be_started_ends_the_run_in_order(bench: Bench, command: Command) -> None:
    command.failure = DisbatchError("cannot start the task command: no")
    with pytest.raises(DisbatchError, match="cannot start the task command"):
        main(*HERE, "-p", "run", "--taskcommand", "make tasks")
    assert "run_kvsinfo.txt" not in bench.names


def test_a_task_command_is_ended_when_the_run_fails(bench: Bench, command: Command) -> None:
    def fail(_run: Run) -> None:
        raise DisbatchError("something cannot go on")

    bench.meanwhile = fail
    with pytest.raises(DisbatchError, match="cannot go on"):
        main(*HERE, "--taskcommand", "make tasks")
    assert command.closed
    assert bench.run.served_until is None


# What the controller knows


def test_the_controller_knows_the_run_and_the_users_wishes(bench: Bench) -> None:
    bench.main("-p", "run", "-e", "-f", "-E", "GPUS")
    known = bench.run.controller._settings
    assert (known.version, known.job, known.task_source) == (__version__, "run", "tasks")
    assert known.directory == os.fsencode(bench.folder)
    assert known.exit_code
    assert known.fail_fast


def test_the_run_goes_by_its_defaults(bench: Bench) -> None:
    bench.main()
    known = bench.run.controller._settings
    assert not known.exit_code
    assert not known.fail_fast


# Mails


class Post:
    """Stands for the way to a mail server."""

    def __init__(self) -> None:
        self.letters: list[tuple[Address, str, Letter]] = []
        self.failure: Exception | None = None

    def send(self, server: Address, recipient: str, letter: Letter) -> None:
        self.letters.append((server, recipient, letter))
        if self.failure:
            raise self.failure


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Post:
    post = Post()
    monkeypatch.delenv("DISBATCH_SMTP", raising=False)
    monkeypatch.setattr(mail, "send", post.send)
    return post


def test_a_run_that_sends_no_mails_has_nothing_to_do_with_them(bench: Bench, post: Post) -> None:
    bench.main("-p", "run")
    assert bench.run.on_recorded.listeners == []
    assert not post.letters


def test_the_last_mail_tells_how_the_run_has_ended(bench: Bench, post: Post) -> None:
    bench.end = events.EndRun(1, complete=False)
    bench.meanwhile = lambda run: setattr(run.controller.counts, "finished", 3)
    assert bench.main("-p", "run", "--mailTo", "me@example.org") == 1
    [(server, recipient, letter)] = post.letters
    assert (server, recipient) == (Address("localhost", 25), "me@example.org")
    assert letter.subject == "run was cut short: 3 finished, 0 failed"
    assert letter.status_file == f"{os.uname().nodename}:{bench.folder}/run_status.txt"


@pytest.mark.parametrize(("frequency", "expected"), [([], 1), (["--mailFreq", "20"], 20)])
def test_mails_are_as_frequent_as_the_user_likes(
    bench: Bench, post: Post, monkeypatch: pytest.MonkeyPatch, frequency: list[str], expected: int
) -> None:
    asked: list[int] = []
    digest = letter.Digest

    def make(run: str, status_file: str, frequency: int) -> Digest:
        asked.append(frequency)
        return digest(run, status_file, frequency)

    monkeypatch.setattr(letter, "Digest", make)
    monkeypatch.setenv("DISBATCH_SMTP", "relay:2525")
    bench.main("-p", "run", "--mailTo", "me", *frequency)
    assert asked == [expected]
    assert [server for server, _, _ in post.letters] == [Address("relay", 2525)]


def test_a_mail_that_cannot_be_sent_is_warned_of_and_changes_nothing_else(
    bench: Bench, post: Post, capsys: pytest.CaptureFixture[str]
) -> None:
    post.failure = DisbatchError("no server")
    bench.meanwhile = lambda run: setattr(run.controller.counts, "finished", 3)
    assert bench.main("-p", "run", "--mailTo", "me") == 0
    assert capsys.readouterr().err.splitlines() == [
        "disbatch: 3 tasks finished; status file: run_status.txt",
        "disbatch: no mail is sent any more: no server",
    ]
    assert "no mail is sent any more: no server" in bench.content("run_driver.log")


def test_a_mail_server_that_is_none_is_told_before_anything_is_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISBATCH_SMTP", "somewhere")
    with pytest.raises(UsageError, match="DISBATCH_SMTP: 'somewhere'"):
        bench.main("-p", "run", "--mailTo", "me")
    assert not bench.names
    assert bench.main("-p", "run") == 0


# The end


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_signals_are_their_former_handlers_again_after_a_run(bench: Bench, ends: str) -> None:
    def look_around(run: Run) -> None:
        run.loop.on_signal(signal.SIGTERM, lambda: None)
        if ends == "badly":
            raise DisbatchError("something cannot go on")

    bench.meanwhile = look_around
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(DisbatchError, match="cannot go on") if ends == "badly" else nullcontext():
        bench.main()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("status", [0, 1, 130, 143])
def test_the_exit_status_is_the_controllers(bench: Bench, status: int) -> None:
    bench.end = events.EndRun(status, complete=not status)
    assert bench.main() == status


class FullDisk:
    def write(self, _descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("status", "in_the_end"), [(0, 1), (1, 1), (130, 130)])
def test_a_run_whose_last_lines_cannot_be_written_has_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: int, in_the_end: int
) -> None:
    def look_around(run: Run) -> None:
        run.recorder.add(b"line\n")
        run.controller.counts.skipped = 1

    monkeypatch.setattr(beginning, "Recorder", functools.partial(Recorder, write=FullDisk().write))
    bench.meanwhile = look_around
    bench.end = events.EndRun(status, complete=not status)
    assert bench.main("-p", "run") == in_the_end
    complaint, _, hint = capsys.readouterr().err.splitlines()
    assert complaint.startswith("disbatch: cannot write the status file: No space left on device")
    assert hint.endswith("-r run_status.txt")
    assert "run_kvsinfo.txt" not in bench.names
    assert f"the run ends with status {in_the_end}" in bench.content("run_driver.log")


@pytest.mark.parametrize(
    ("prefix", "shown"), [("run", "run_status.txt"), ("my run", "'my run_status.txt'"), ("{}/run", "{}/run_status.txt")]
)
def test_paths_are_shown_as_the_user_writes_them(
    bench: Bench, capsys: pytest.CaptureFixture[str], prefix: str, shown: str
) -> None:
    bench.meanwhile = lambda run: setattr(run.controller.counts, "finished", 2)
    bench.main("-p", prefix.format(bench.folder))
    assert capsys.readouterr().err == f"disbatch: 2 tasks finished; status file: {shown.format(bench.folder)}\n"


@pytest.mark.parametrize("resumed", [False, True])
def test_a_run_that_has_come_to_nothing_can_be_gone_on_with_if_it_was_resumed(
    bench: Bench, capsys: pytest.CaptureFixture[str], *, resumed: bool
) -> None:
    (bench.folder / "status").write_bytes(line(0, b"true"))
    bench.end = events.EndRun(1, complete=False)
    bench.main("-p", "run", *(["-r", "status"] if resumed else []))
    hint = "disbatch: to go on where this run left off: disbatch -s localhost:2 -p run tasks -r run_status.txt"
    assert (hint in capsys.readouterr().err.splitlines()) is resumed


@pytest.mark.parametrize(("given", "added"), [((), " -R"), (("-R",), "")])
def test_after_a_failed_check_only_a_retry_gets_any_further(
    bench: Bench, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], added: str
) -> None:
    (bench.folder / "status").write_bytes(line(0, b"true"))
    bench.end = events.EndRun(1, complete=False)
    bench.meanwhile = lambda run: setattr(run.controller, "check_failed", True)
    bench.main("-p", "run", "-r", "status", *given)
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"tasks -r run_status.txt{added}")


def test_what_is_another_list_of_tasks_cannot_be_gone_on_with(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    (bench.folder / "status").write_bytes(line(0, b"true"))
    bench.end = events.EndRun(1, complete=False)
    bench.meanwhile = lambda run: setattr(run.controller, "can_be_resumed", False)
    bench.main("-p", "run", "-r", "status")
    assert "to go on where" not in capsys.readouterr().err


def test_two_runs_do_not_get_in_each_others_way(bench: Bench) -> None:
    def begin_another(_run: Run) -> None:
        with pytest.raises(DisbatchError, match=r"run_status.txt goes on"):
            bench.main("-p", "run")

    bench.meanwhile = begin_another
    bench.main("-p", "run")
    assert bench.names == {"run_status.txt", "run_dbUtil.sh", "run_driver.log"}


def test_a_name_that_is_made_up_is_a_new_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = iter([7, 7, 8])
    monkeypatch.setattr(random, "randrange", lambda _: next(digits))
    monkeypatch.setattr(beginning, "datetime", StoppedClock)
    bench.main()
    bench.main()
    assert {name for name in bench.names if name.endswith("_status.txt")} == {
        "tasks_disBatch_260102030405_007_status.txt",
        "tasks_disBatch_260102030405_008_status.txt",
    }


class StoppedClock:
    @staticmethod
    def now() -> datetime:
        return datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - as on the user's clock


def test_a_run_cut_short_tells_how_to_go_on(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.end = events.EndRun(143, complete=False)
    bench.meanwhile = lambda run: setattr(run.controller.counts, "finished", 1)
    bench.main("-p", "run", "-e")
    assert capsys.readouterr().err.splitlines() == [
        "disbatch: 1 task finished; status file: run_status.txt",
        "disbatch: to go on where this run left off: disbatch -s localhost:2 -p run -e tasks -r run_status.txt",
    ]
