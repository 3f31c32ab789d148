"""The driver as a process, in this one: its loop is a stand-in that looks around while the run would go on."""

from __future__ import annotations

import errno
import functools
import os
import signal
import socket
import sys
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from disbatch import __version__, options
from disbatch.arguments import parse
from disbatch.credentials import Credentials, rights
from disbatch.driver import address, beginning, ending, events, letter, mail, page, process, snapshot
from disbatch.driver.membership import OWN_TOKEN
from disbatch.driver.process import LAST_TRIES
from disbatch.driver.recorder import Recorder
from disbatch.driver.submissions import SIGN_IN
from disbatch.errors import DisbatchError
from disbatch.eventloop import Timer
from disbatch.handover import MOST_RERUN
from disbatch.options import ContextRoleOptions, PageRoleOptions
from disbatch.records import fields
from disbatch.statusfile import skipped_line
from disbatch.values import Address, SshNode
from tests.unit.driver.bench import CONNECTION, FALSE, HERE, TRUE, Bench, write_to_full_disk
from tests.unit.driver.examples import line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from disbatch.driver.controller import Controller
    from disbatch.driver.display import Display
    from disbatch.driver.feeder import Feeder
    from disbatch.driver.letter import Digest, Letter
    from disbatch.driver.loop import OwnContext
    from disbatch.driver.submissions import Submissions
    from disbatch.eventloop import EventLoop
    from disbatch.kvsstcp.rights import Rights
    from disbatch.log import Log

PORT = 4711
PUBLIC = Address("driver.example.org", PORT)

PATIENCE = 20.0
"""Seconds that a thread may take for what it does at once."""


class Listening:
    """Stands for the socket on which the store would listen."""

    def getsockname(self) -> tuple[str, int]:
        return "0.0.0.0", PORT

    def setsockopt(self, *_: int) -> None:
        pass

    @property
    def family(self) -> int:
        return socket.AF_INET


class Shelf:
    """Stands for the store that programs share with the run."""

    def __init__(self) -> None:
        self.posted: list[tuple[bytes, bytes, bytes]] = []
        self.asked: dict[bytes, Callable[[bytes], None]] = {}

    def put(self, key: bytes, tag: bytes, value: bytes) -> None:
        self.posted.append((key, tag, value))

    def get(self, key: bytes, handler: Callable[[bytes], None]) -> None:
        self.asked[key] = handler


def rights_of_role(role: str, job: str) -> Rights:
    credentials = Credentials(*(name.encode() for name in fields(Credentials)))
    return rights(credentials, job)[role.encode()]


class Run:
    """Stands for the driver's loop: keeps what it is made with, and has the test look around in the place of a run."""

    def __init__(
        self,
        bench: ProcessBench,
        loop: EventLoop,
        controller: Controller,
        recorder: Recorder,
        run: snapshot.Run,
        own_context: OwnContext,
        log: Log,
        tell: Callable[[str], None],
        on_recorded: process._Recorded,
        display: Display,
    ) -> None:
        self.bench = bench
        self.loop = loop
        self.controller = controller
        self.recorder = recorder
        self.run_state = run
        self.job = run.job
        self.display = display
        self.own_context = own_context
        self.log = log
        self.tell = tell
        self.on_recorded = on_recorded
        self.secrets: Mapping[bytes, Rights] | None = None
        self.store = Shelf()
        self.used: object = None
        self.served_until: Callable[[], bool] | None = None
        self.is_closed = False
        self.happened_so_far: list[events.Event] = []

    def serve(self, listening: object, secrets: Mapping[bytes, Rights] | None) -> None:
        assert listening is self.bench.listening
        self.secrets = secrets

    def secret_of(self, role: str) -> str:
        """The secret that gives that role's rights."""
        assert self.secrets is not None
        wanted = rights_of_role(role, self.job)
        [secret] = [secret for secret, rights in self.secrets.items() if rights == wanted]
        return secret.decode()

    def use_store(self, *given: object) -> None:
        self.used = given

    def serve_until(self, is_over: Callable[[], bool]) -> events.SignalCame | None:
        self.served_until = is_over
        return self.bench.signal_at_the_end

    def settle(self, limit: float | None) -> events.SignalCame | None:
        self.settled_within = limit
        return self.bench.signal_while_lines_wait

    def happened(self, event: events.Event) -> None:
        self.happened_so_far.append(event)

    def run(self, feeder: Feeder | Submissions) -> events.EndRun:
        self.source = feeder
        feeder.read(100)
        self.bench.run = self
        self.bench.meanwhile(self)
        return self.bench.end

    def close(self) -> None:
        assert not {"run_kvsinfo.txt", "run_observer.txt"} & self.bench.names
        self.is_closed = True

    @property
    def asked_of_own_context(self) -> ContextRoleOptions:
        command = self.own_context.command
        asked: ContextRoleOptions = parse(options.CONTEXT, command[command.index("--context") + 1 :], "")
        return asked

    @property
    def items(self) -> tuple[events.Item, ...]:
        [event] = self.happened_so_far
        assert isinstance(event, events.ItemsRead)
        return event.items


class ProcessBench(Bench):
    """A bench on which a driver goes through a run, with stand-ins for what it shares with the world."""

    run: Run

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(folder, monkeypatch)
        self.listening = Listening()
        self.end = events.EndRun(0, complete=True)
        self.signal_while_lines_wait: events.SignalCame | None = None
        self.signal_at_the_end: events.SignalCame | None = None
        self.wanted: list[Address | None] = []
        self.meanwhile: Callable[[Run], None] = lambda _: None
        self._capsys = capsys
        self.courses: list[str] = []
        """What was said of how long runs took."""
        monkeypatch.setattr(address, "listen", self._listen)
        monkeypatch.setattr(address, "advertised", self._advertised)
        monkeypatch.setattr(process, "DriverLoop", functools.partial(Run, self))

    def _listen(self, wanted: Address | None, _asked_by: str = "") -> Listening:
        self.wanted.append(wanted)
        return self.listening

    def _advertised(self, wanted: Address | None, _port: int, _hosts: list[str]) -> Address:
        self.wanted.append(wanted)
        return PUBLIC

    def tasks_finish_meanwhile(self, number: int) -> None:
        self.meanwhile = lambda run: setattr(run.controller.counts, "finished", number)

    def fails_meanwhile(self, error: Exception) -> None:
        def fail(_run: Run) -> None:
            raise error

        self.meanwhile = fail

    def is_cut_short(self) -> None:
        self.end = events.EndRun(1, complete=False)

    def main(self, *arguments: str) -> int:
        """Run the tasks of the file under the prefix `run`, or another that is among the arguments."""
        return self.main_as_told(*HERE, "-p", "run", *arguments, "tasks")

    def main_with_command(self, *arguments: str) -> int:
        """Run what a task command submits."""
        return self.main_as_told(*HERE, "-p", "run", "--taskcommand", "make tasks", *arguments)

    def main_as_told(self, *arguments: str) -> int:
        """Be a driver that was started by this command line."""
        asked = options.parse_driver(arguments, "disbatch")
        return process.main(asked, functools.partial(options.resume_command, ["disbatch"], arguments))

    @property
    def told(self) -> list[str]:
        """Lines that the user has been told since the last time, but for the one that says how long a run took."""
        lines = self._capsys.readouterr().err.splitlines()
        self.courses += [line for line in lines if line.startswith("disbatch: took ")]
        return [line for line in lines if not line.startswith("disbatch: took ")]

    @property
    def log(self) -> str:
        return self.content("run_driver.log").decode()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> ProcessBench:
    return ProcessBench(tmp_path, monkeypatch, capsys)


def test_a_file_that_cannot_be_made_is_named_and_nothing_is_left(bench: ProcessBench) -> None:
    (bench.folder / "run_dbUtil.sh").mkdir()
    with pytest.raises(DisbatchError) as error:
        bench.main()
    assert error.value.message == f"cannot write {bench.folder}/run_dbUtil.sh: Is a directory"
    assert bench.names == {"run_dbUtil.sh"}


def test_what_the_system_refuses_during_a_run_is_an_error_for_people(bench: ProcessBench) -> None:
    bench.fails_meanwhile(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
    with pytest.raises(DisbatchError) as error:
        bench.main()
    assert str(error.value) == "Cannot allocate memory"
    assert "run_kvsinfo.txt" not in bench.names


# The tasks


def test_the_tasks_come_from_the_file(bench: ProcessBench) -> None:
    assert bench.main() == 0
    assert bench.run.items == (TRUE, FALSE)


def test_what_earlier_runs_completed_is_skipped(bench: ProcessBench) -> None:
    recorded = line(1, command=b"false")
    bench.write("status", recorded)
    bench.main("-r", "status")
    assert bench.run.items == (TRUE, events.SkippedTask(FALSE, recorded, failed=False))


# What is told at the beginning


def test_an_option_of_the_past_is_said_to_do_nothing(bench: ProcessBench) -> None:
    bench.main("-g")
    assert f"disbatch: {options.GPU_HAS_NO_EFFECT}" in bench.told


def test_what_contradicts_a_job_is_told_of(bench: ProcessBench) -> None:
    bench.be_in_job("sbatch -c 2 -n 3")
    bench.main_as_told("-c", "1", "tasks")
    assert "disbatch: -c 1 counts, and not the 2 that Slurm was asked for" in bench.told


def test_an_earlier_status_file_that_is_set_aside_is_told_of(bench: ProcessBench) -> None:
    bench.write("run_status.txt", b"earlier\n")
    bench.main()
    assert "disbatch: an earlier status file of this name is now run_status.txt.1" in bench.told


def test_warnings_about_earlier_runs_are_told(bench: ProcessBench) -> None:
    bench.write("status", line(0), b"  ")
    bench.main("-r", "status")
    assert any(text.startswith("disbatch: status: line 2 is cut off and ignored") for text in bench.told)


# The run's files


def test_the_files_of_a_run_are_there_while_it_goes_on(bench: ProcessBench) -> None:
    seen: dict[str, int] = {}
    bench.meanwhile = lambda _: seen.update(bench.modes)
    mask = os.umask(0)
    try:
        bench.main()
    finally:
        os.umask(mask)
    assert set(seen) == {*("run_status.txt", "run_dbUtil.sh", "run_driver.log"), "run_kvsinfo.txt", "run_observer.txt"}
    assert (seen["run_kvsinfo.txt"], seen["run_observer.txt"], seen["run_dbUtil.sh"]) == (0o644, 0o600, 0o700)
    assert bench.names == {"run_status.txt", "run_dbUtil.sh", "run_driver.log"}


def test_the_address_of_the_store_is_in_its_file_which_replaces_what_was_there(bench: ProcessBench) -> None:
    seen: list[bytes] = []
    bench.write("precious", b"precious\n")
    (bench.folder / "run_kvsinfo.txt").symlink_to("precious")
    bench.meanwhile = lambda _: seen.append(bench.content("run_kvsinfo.txt"))
    bench.main()
    assert seen == [b"driver.example.org:4711\n"]
    assert bench.content("precious") == b"precious\n"


def test_an_address_file_that_somebody_has_removed_is_not_missed(bench: ProcessBench) -> None:
    bench.meanwhile = lambda _: os.unlink("run_kvsinfo.txt")
    assert bench.main() == 0


def test_the_log_holds_neither_secret_nor_environment(bench: ProcessBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVATE_VARIABLE", "private value")
    bench.main("--loglevel", "DEBUG")
    assert f"disbatch {__version__}, pid {os.getpid()}" in bench.log
    assert "key-value store at driver.example.org:4711" in bench.log
    assert "the run ends with status 0" in bench.log
    assert bench.run.secrets
    for private in (*map(bytes.decode, bench.run.secrets), "PRIVATE_VARIABLE", "private value"):
        assert private not in bench.log


def test_observers_find_the_store_in_a_file_that_only_its_owner_can_hand_on(bench: ProcessBench) -> None:
    seen: list[tuple[bytes, int]] = []
    name = "run_observer.txt"
    bench.meanwhile = lambda _: seen.append((bench.content(name), (bench.folder / name).stat().st_mode & 0o777))
    bench.main()
    secret = bench.run.secret_of("observer")
    said = f"export KVSSTCP_HOST=driver.example.org\nexport KVSSTCP_PORT=4711\nexport KVSSTCP_SECRET={secret}\n"
    assert seen == [(said.encode(), 0o600)]
    assert name not in bench.names


def test_observers_of_an_open_store_need_no_secret(bench: ProcessBench) -> None:
    seen: list[bytes] = []
    bench.meanwhile = lambda _: seen.append(bench.content("run_observer.txt"))
    bench.main("--insecure-kvs")
    assert seen == [b"export KVSSTCP_HOST=driver.example.org\nexport KVSSTCP_PORT=4711\n"]


def test_however_early_a_run_is_cut_short_its_own_status_file_is_enough(bench: ProcessBench) -> None:
    bench.write("run_status.txt", line(0))
    bench.is_cut_short()
    bench.meanwhile = lambda run: setattr(run.controller.counts, "skipped", 1)
    bench.main("-r", "run_status.txt")
    assert isinstance(bench.run.items[0], events.SkippedTask)
    assert bench.content("run_status.txt") == skipped_line(line(0))
    assert bench.told[-1].endswith(" -p run tasks -r run_status.txt")


@pytest.mark.parametrize("complete", [True, False])
def test_what_a_run_cut_short_was_to_run_again_is_in_its_status_file(bench: ProcessBench, *, complete: bool) -> None:
    failed = line(0, return_code=1)
    bench.write("status", failed)
    if not complete:
        bench.is_cut_short()
    bench.main("-r", "status", "-R")
    assert bench.content("run_status.txt") == (b"" if complete else skipped_line(failed))


# The driver's own context


def test_the_own_context_is_told_what_the_user_has_asked_for(bench: ProcessBench) -> None:
    places = ("-c", "0.5", "-t", "3", "-C", "9", "-E", "GPUS", "--fill", "--no-retire")
    bench.main(*places, "--label=-mine", "-s", "node7:4,node8:4")
    assert bench.run.asked_of_own_context == ContextRoleOptions(
        run=f"{bench.folder}/run",
        kvs=Address("127.0.0.1", PORT),
        token=OWN_TOKEN,
        cpus_per_task=0.5,
        task_limit=9,
        fill=True,
        no_retire=True,
        label="-mine",
        ssh_nodes=((SshNode("localhost", 2),), (SshNode("node7", 4), SshNode("node8", 4))),
        tasks_per_node=3,
        environment_resources=("GPUS",),
    )
    assert bench.run.own_context.output == f"{bench.folder}/run_{os.getpid()}_context_launch.log"


def test_the_own_context_finds_hosts_of_the_environment_where_its_driver_has(
    bench: ProcessBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISBATCH_SSH_NODELIST", "node1:3, node2:5")
    bench.main_as_told("tasks")
    assert bench.run.asked_of_own_context.nodes == ()
    assert bench.run.own_context.environment["DISBATCH_SSH_NODELIST"] == "node1:3, node2:5"


def test_the_own_context_has_the_secret_of_engines_in_its_environment_alone(
    bench: ProcessBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "mine")
    bench.main()
    own = bench.run.own_context
    assert own.environment["KVSSTCP_SECRET"] == bench.run.secret_of("engine")
    assert own.environment["MINE"] == "mine"
    assert bench.run.secrets is not None
    for secret in map(bytes.decode, bench.run.secrets):
        assert not any(secret in word for word in own.command)
        assert [name for name, value in own.environment.items() if value == secret] in ([], ["KVSSTCP_SECRET"])
    assert "KVSSTCP_SECRET" not in os.environ


def test_an_open_store_has_no_secret_and_the_user_is_warned(
    bench: ProcessBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVSSTCP_SECRET", "that of another store")
    bench.main("--insecure-kvs")
    assert bench.run.secrets is None
    assert "KVSSTCP_SECRET" not in bench.run.own_context.environment
    assert any(text.startswith("disbatch: --insecure-kvs: whoever can connect") for text in bench.told)


# Tasks through a store


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
    "arguments",
    [
        ["--kvsserver", "there:80", "tasks"],
        ["--taskserver", "there:80"],
        ["--kvsserver", "there:80", "--taskcommand", "make tasks"],
    ],
)
def test_another_store_is_shared_with_programs_alone(
    bench: ProcessBench, command: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("KVSSTCP_SECRET", "its secret")
    assert bench.main_as_told(*HERE, *arguments) == 0
    assert bench.run.used == (CONNECTION, CONNECTION, "there:80")
    assert b"its secret" not in (bench.run.secrets or ())
    assert bench.run.own_context.environment["KVSSTCP_SECRET"] == bench.run.secret_of("engine")
    assert command.closed is ("--taskcommand" in arguments)
    if command.closed:
        assert command.store == ("there", "80", "its secret")


def test_there_is_no_file_with_the_address_of_somebody_elses_store(bench: ProcessBench) -> None:
    seen: set[str] = set()
    bench.meanwhile = lambda _: seen.update(bench.names)
    bench.main("--kvsserver", "there:80")
    assert seen == {"run_status.txt", "run_dbUtil.sh", "run_driver.log", "run_observer.txt"}


@pytest.mark.parametrize("other", [["tasks", "--kvsserver", "there:80"], ["--taskserver", "there:80"]])
def test_an_address_for_the_runs_own_store_has_no_effect_with_another(bench: ProcessBench, other: list[str]) -> None:
    bench.main_as_told(*HERE, "--use-address", "mine:5", *other)
    assert "disbatch: --use-address has no effect together with --kvsserver" in bench.told
    assert bench.wanted == [None, None]
    assert bench.run.asked_of_own_context.kvs == Address("127.0.0.1", PORT)


def test_an_address_for_the_runs_own_store_is_used_without_a_word(bench: ProcessBench, command: Command) -> None:
    bench.main_with_command("--use-address", "mine:5")
    assert bench.wanted == [Address("mine", 5)] * 2
    assert bench.run.asked_of_own_context.kvs == Address("mine", PORT)
    assert command.store[:2] == ("mine", str(PORT))
    assert not any("--use-address" in text for text in bench.told)


@pytest.mark.parametrize("arguments", [["--taskserver", "there:80"], ["--taskcommand", "make tasks"]])
def test_tasks_that_are_submitted_come_from_the_store(
    bench: ProcessBench, command: Command, arguments: list[str]
) -> None:
    bench.main_as_told(*HERE, *arguments)
    assert bench.run.job.startswith("STREAM_disBatch_")
    assert bench.run.controller._settings.task_source == "STREAM"
    assert list(bench.run.store.asked) == [b"task source name"]
    assert command.closed is (arguments[0] == "--taskcommand")


def test_results_of_tasks_that_are_submitted_are_posted(bench: ProcessBench, command: Command) -> None:
    def submit(run: Run) -> None:
        for key, value in zip(SIGN_IN, (b"name", b"done", b"R", b"T"), strict=True):
            run.store.asked[key](value)
        run.on_recorded([line(3)])

    bench.meanwhile = submit
    bench.main_with_command()
    assert [key for key, _, _ in bench.run.store.posted] == [b"R 3", b"R done tasks"]
    assert command.closed


def test_results_of_a_task_file_are_not_posted(bench: ProcessBench) -> None:
    bench.main("--kvsserver", "there:80")
    assert bench.run.on_recorded.listeners == []
    assert not bench.run.store.posted


@pytest.mark.parametrize("open_store", [True, False])
def test_a_task_command_finds_the_runs_own_store(bench: ProcessBench, command: Command, *, open_store: bool) -> None:
    bench.main_with_command("--taskcommand", "make tasks; --all", *["--insecure-kvs"] * open_store)
    assert command.text == "make tasks; --all"
    secret = None if open_store else bench.run.secret_of("program")
    assert command.store == ("127.0.0.1", str(PORT), secret)


@pytest.mark.parametrize("complete", [True, False])
def test_a_store_is_served_until_the_task_command_has_ended_if_the_run_was_complete(
    bench: ProcessBench, command: Command, *, complete: bool
) -> None:
    if not complete:
        bench.is_cut_short()
    bench.main_with_command()
    assert command.closed
    is_over = bench.run.served_until
    assert (is_over is not None) is complete
    if is_over is not None:
        assert not is_over()
        command.has_ended = True
        assert is_over()


class Clock:
    """Takes the place of the timers of a loop."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[[], None]]] = []

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        self.later.append((seconds, action))
        return Timer(0.0, action)


@pytest.mark.parametrize(
    ("return_code", "event"),
    [
        (0, events.ItemsRead((), ended=True)),
        (3, events.ReadingFailed("the task command ended with 3")),
        (-15, events.ReadingFailed("the task command ended with -15")),
    ],
)
def test_a_task_command_that_ends_early_ends_the_list_when_all_is_read(
    bench: ProcessBench, command: Command, monkeypatch: pytest.MonkeyPatch, return_code: int, event: events.Event
) -> None:
    def end(run: Run) -> None:
        clock = Clock()
        with monkeypatch.context() as patch:
            patch.setattr(run.loop, "after", clock.after)
            command.on_end(return_code)
        assert not run.happened_so_far
        [(seconds, action)] = clock.later
        assert seconds == process.QUIET_AFTER_COMMAND
        action()

    bench.meanwhile = end
    bench.main_with_command()
    assert bench.run.happened_so_far == [event]


def test_a_signal_ends_a_task_command_that_outlives_its_tasks_and_is_told(
    bench: ProcessBench, command: Command
) -> None:
    bench.signal_at_the_end = events.SignalCame("SIGTERM", 143)
    bench.tasks_finish_meanwhile(1)
    assert bench.main_with_command() == 143
    assert command.closed
    assert bench.told == [
        "disbatch: got SIGTERM; ending the task command, whose tasks have all ended",
        "disbatch: 1 task finished; status file: run_status.txt",
    ]


@pytest.mark.usefixtures("command")
def test_a_task_command_that_outlives_its_tasks_for_a_while_is_said_to_be_waited_for(
    bench: ProcessBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    bench.meanwhile = lambda run: monkeypatch.setattr(run.loop, "after", clock.after)
    assert bench.main_with_command() == 0
    [(seconds, action)] = clock.later
    assert seconds == process.PATIENCE_WITH_COMMAND
    assert bench.told == ["disbatch: No tasks to run."]
    action()
    assert bench.told == [
        "disbatch: all tasks have ended; waiting for the task command to end, which Ctrl-C would make it do"
    ]


def test_a_task_command_that_cannot_be_started_ends_the_run_in_order(bench: ProcessBench, command: Command) -> None:
    command.failure = DisbatchError("cannot start the task command: no")
    with pytest.raises(DisbatchError, match="cannot start the task command"):
        bench.main_with_command()
    assert "run_kvsinfo.txt" not in bench.names


def test_a_task_command_is_ended_when_the_run_fails(bench: ProcessBench, command: Command) -> None:
    bench.fails_meanwhile(DisbatchError("something cannot go on"))
    with pytest.raises(DisbatchError, match="cannot go on"):
        bench.main_with_command()
    assert command.closed
    assert bench.run.served_until is None


# What the controller knows


def test_the_controller_knows_the_run_and_the_users_wishes(bench: ProcessBench) -> None:
    bench.main("-e", "-f", "-E", "GPUS")
    known = bench.run.controller._settings
    assert (known.version, known.job, known.task_source) == (__version__, "run", "tasks")
    assert known.directory == os.fsencode(bench.folder)
    assert known.script == f"{bench.folder}/run_dbUtil.sh"
    assert known.exit_code
    assert known.fail_fast
    assert not known.startup_only


def test_the_run_goes_by_its_defaults(bench: ProcessBench) -> None:
    bench.main()
    known = bench.run.controller._settings
    assert not known.exit_code
    assert not known.fail_fast


def test_the_controller_knows_that_tasks_come_from_standard_input(
    bench: ProcessBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("tasks") as file:
        monkeypatch.setattr(sys, "stdin", file)
        bench.main_as_told(*HERE, "-")
    assert bench.run.items == (TRUE, FALSE)
    assert bench.run.controller._settings.task_source == "stdin"


def test_the_controller_knows_that_no_hosts_are_there_at_the_beginning(bench: ProcessBench) -> None:
    bench.main_as_told("-S", "tasks")
    assert bench.run.controller._settings.startup_only


# Mails


class Post:
    """Stands for the way to a mail server."""

    def __init__(self) -> None:
        self.letters: list[tuple[Address, str, Letter]] = []
        self.failure: Exception | None = None
        self.has_sent = threading.Event()

    def send(self, server: Address, recipient: str, letter: Letter) -> None:
        self.letters.append((server, recipient, letter))
        self.has_sent.set()
        if self.failure:
            raise self.failure


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Post:
    post = Post()
    monkeypatch.setattr(mail, "send", post.send)
    return post


def test_a_run_that_sends_no_mails_has_nothing_to_do_with_them(bench: ProcessBench, post: Post) -> None:
    bench.main()
    assert bench.run.on_recorded.listeners == []
    assert not post.letters


def test_the_last_mail_tells_how_the_run_has_ended(bench: ProcessBench, post: Post) -> None:
    bench.is_cut_short()
    bench.tasks_finish_meanwhile(3)
    assert bench.main("--mailTo", "me@example.org") == 1
    assert len(bench.run.on_recorded.listeners) == 1
    [(server, recipient, letter)] = post.letters
    assert (server, recipient) == (Address("localhost", 25), "me@example.org")
    assert letter.subject == "run was cut short: 3 finished, 0 failed"
    assert letter.status_file == f"{os.uname().nodename}:{bench.folder}/run_status.txt"


@pytest.mark.parametrize(("frequency", "expected"), [([], 1), (["--mailFreq", "20"], 20)])
def test_mails_are_as_frequent_as_the_user_likes(
    bench: ProcessBench, post: Post, monkeypatch: pytest.MonkeyPatch, frequency: list[str], expected: int
) -> None:
    asked: list[int] = []
    digest = letter.Digest

    def make(run: str, status_file: str, frequency: int) -> Digest:
        asked.append(frequency)
        return digest(run, status_file, frequency)

    monkeypatch.setattr(letter, "Digest", make)
    monkeypatch.setenv("DISBATCH_SMTP", "relay:2525")
    bench.main("--mailTo", "me", *frequency)
    assert asked == [expected]
    assert [server for server, _, _ in post.letters] == [Address("relay", 2525)]


def test_a_mail_that_cannot_be_sent_is_warned_of_and_changes_nothing_else(bench: ProcessBench, post: Post) -> None:
    post.failure = DisbatchError("no server")
    bench.tasks_finish_meanwhile(3)
    assert bench.main("--mailTo", "me") == 0
    assert bench.told == [
        "disbatch: 3 tasks finished; status file: run_status.txt",
        "disbatch: no mail is sent any more: no server",
    ]
    assert "no mail is sent any more: no server" in bench.log


# The end


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_after_a_run_its_loop_is_closed_and_signals_have_their_former_handlers(bench: ProcessBench, ends: str) -> None:
    def look_around(run: Run) -> None:
        run.loop.on_signal(signal.SIGTERM, lambda: None)
        if ends == "badly":
            raise DisbatchError("something cannot go on")

    bench.meanwhile = look_around
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(DisbatchError, match="cannot go on") if ends == "badly" else nullcontext():
        bench.main()
    assert bench.run.is_closed
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("status", [0, 1, 130, 143])
def test_the_exit_status_is_the_controllers(bench: ProcessBench, status: int) -> None:
    bench.end = events.EndRun(status, complete=not status)
    assert bench.main() == status


@pytest.mark.parametrize(("status", "in_the_end"), [(0, 1), (1, 1), (130, 130)])
def test_a_run_whose_last_lines_cannot_be_written_has_failed(
    bench: ProcessBench, monkeypatch: pytest.MonkeyPatch, status: int, in_the_end: int
) -> None:
    def look_around(run: Run) -> None:
        run.recorder.add(b"line\n")
        run.controller.counts.skipped = 1

    monkeypatch.setattr(beginning, "Recorder", functools.partial(Recorder, write=write_to_full_disk))
    bench.meanwhile = look_around
    bench.end = events.EndRun(status, complete=not status)
    assert bench.main() == in_the_end
    complaint, _, hint = bench.told
    assert complaint.startswith("disbatch: cannot write the status file: No space left on device")
    assert hint.endswith("-r run_status.txt")
    assert "run_kvsinfo.txt" not in bench.names
    assert f"the run ends with status {in_the_end}" in bench.log


@pytest.mark.parametrize(("complete", "limit"), [(True, None), (False, LAST_TRIES)])
def test_a_run_waits_for_its_last_lines_and_only_for_a_while_if_it_was_cut_short(
    bench: ProcessBench, *, complete: bool, limit: float | None
) -> None:
    bench.end = events.EndRun(int(not complete), complete=complete)
    bench.main()
    assert bench.run.settled_within == limit


def test_a_signal_while_the_last_lines_wait_ends_the_run_with_its_status(
    bench: ProcessBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_around(run: Run) -> None:
        for _ in range(3):
            run.recorder.add(b"line\n")
        run.controller.counts.finished = 3

    monkeypatch.setattr(beginning, "Recorder", functools.partial(Recorder, write=write_to_full_disk))
    bench.meanwhile = look_around
    bench.signal_while_lines_wait = events.SignalCame("SIGTERM", 143)
    assert bench.main_with_command() == 143
    assert bench.run.served_until is None, "the task command is not waited for"
    complaint, _, hint = bench.told
    assert complaint.endswith("; lines missing in it: 3")
    assert hint.endswith("-r run_status.txt")


def test_whether_lines_are_brought_to_disk_is_asked_of_the_user(bench: ProcessBench) -> None:
    def is_synced(*arguments: str) -> bool:
        kept: list[bool] = []

        def look_around(run: Run) -> None:
            run.recorder.add(line(0))
            run.recorder.flush()
            kept.append(run.recorder.unsynced)

        bench.meanwhile = look_around
        bench.main(*arguments)
        return kept[0]

    assert is_synced()
    assert not is_synced("--no-fsync")


@pytest.mark.parametrize(
    ("prefix", "shown"), [("run", "run_status.txt"), ("my run", "'my run_status.txt'"), ("{}/run", "{}/run_status.txt")]
)
def test_paths_are_shown_as_the_user_writes_them(bench: ProcessBench, prefix: str, shown: str) -> None:
    bench.tasks_finish_meanwhile(2)
    bench.main("-p", prefix.format(bench.folder))
    assert bench.told == [f"disbatch: 2 tasks finished; status file: {shown.format(bench.folder)}"]


def test_how_long_the_run_took_is_told_by_a_clock_that_never_jumps(
    bench: ProcessBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(run: Run) -> None:
        run.controller.counts.finished = 1
        later = time.monotonic() + 3725
        monkeypatch.setattr(time, "monotonic", lambda: later)

    bench.meanwhile = meanwhile
    bench.main()
    assert bench.told
    assert bench.courses == ["disbatch: took 1 h 2 min"]


def test_a_run_cut_short_tells_how_to_go_on(bench: ProcessBench) -> None:
    bench.end = events.EndRun(143, complete=False)
    bench.tasks_finish_meanwhile(1)
    bench.main("-e")
    assert bench.told == [
        "disbatch: 1 task finished; status file: run_status.txt",
        "disbatch: to go on where this run left off: disbatch -s localhost:2 -p run -e tasks -r run_status.txt",
    ]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_run_that_has_come_to_nothing_can_be_gone_on_with_if_it_was_resumed(
    bench: ProcessBench, *, resumed: bool
) -> None:
    bench.write("status", line(0))
    bench.is_cut_short()
    bench.main(*["-r", "status"] * resumed)
    hint = "disbatch: to go on where this run left off: disbatch -s localhost:2 -p run tasks -r run_status.txt"
    assert (hint in bench.told) is resumed


@pytest.mark.parametrize(("given", "added"), [((), " -R"), (("-R",), "")])
def test_after_a_failed_check_only_a_retry_gets_any_further(
    bench: ProcessBench, given: tuple[str, ...], added: str
) -> None:
    bench.write("status", line(0))
    bench.is_cut_short()
    bench.meanwhile = lambda run: setattr(run.controller, "check_failed", True)
    bench.main("-r", "status", *given)
    assert bench.told[-1].endswith(f"tasks -r run_status.txt{added}")


# The web page


class Pages(list[tuple[Any, ...]]):
    """Stands for the class of pages: keeps what each is made with, and what it is told at the end."""

    def __call__(self, *given: Any) -> Pages:  # noqa: ANN401 - whatever a page is made with
        self.append(given)
        return self

    def end(self, *told: object, **by_name: object) -> None:
        self.ended = (told, by_name)


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Pages:
    made = Pages()
    monkeypatch.setattr(page, "WebPage", made)
    return made


def test_a_page_is_told_where_the_run_is_and_what_its_visitors_may_do(
    bench: ProcessBench, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVSSTCP_SECRET", "of another store")
    bench.tasks_finish_meanwhile(2)
    assert bench.main("-w", "--loglevel", "DEBUG") == 0
    [(listening, at, command, environment, known, files, _loop, _tell)] = pages
    assert listening is bench.listening
    assert at == PUBLIC
    asked: PageRoleOptions = parse(options.PAGE, command[command.index("--web-page") + 1 :], "")
    assert (asked.run, asked.kvs, asked.log_level) == (f"{bench.folder}/run", Address("127.0.0.1", PORT), "DEBUG")
    assert known.secret == bench.run.secret_of("operator")
    assert known.rerun == f"disbatch {' '.join(HERE)} -p run -w --loglevel DEBUG tasks -r run_status.txt -R"
    assert PUBLIC.host in known.names
    assert not known.everywhere
    assert "KVSSTCP_SECRET" not in environment
    for secret in (known.token, known.secret):
        assert secret not in [*command, *environment.values()]
        assert secret not in bench.log
    assert files.url == f"{bench.folder}/run_url"
    assert pages.ended == ((0, bench.run.controller.counts), {"complete": True})


def test_a_page_of_an_open_store_has_no_secret_of_it(bench: ProcessBench, pages: Pages) -> None:
    bench.main("-w", "--insecure-kvs")
    known = pages[0][4]
    assert known.secret == ""
    assert len(known.token) == 64


def test_a_command_that_nobody_would_copy_is_not_handed_over(bench: ProcessBench, pages: Pages) -> None:
    bench.main(*["-w"] * MOST_RERUN)
    assert pages[0][4].rerun == ""


def test_the_url_is_gone_when_the_run_is_over(bench: ProcessBench, pages: Pages) -> None:
    bench.meanwhile = lambda _: bench.write("run_url", b"http://h/?token=t\n")
    bench.main("-w")
    assert pages
    assert "run_url" not in bench.names


def test_a_page_that_others_can_reach_is_told_not_to_be_encrypted(bench: ProcessBench, pages: Pages) -> None:
    bench.main("-w", "--web-address", "h1:80")
    warning = "disbatch: --web-address: what goes between the web page and browsers on other machines is not encrypted"
    assert warning in bench.told
    bench.main("-w", "-p", "other")
    assert warning not in bench.told
    assert len(pages) == 2


def test_page_and_mails_do_not_wait_for_a_terminal_that_is_stuck(
    bench: ProcessBench, pages: Pages, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_stuck(*_: object, **__: object) -> None:
        assert pages.ended
        assert post.has_sent.wait(PATIENCE)

    monkeypatch.setattr(ending, "sum_up", be_stuck)
    assert bench.main("-w", "--mailTo", "me@example.org") == 0


def test_most_runs_have_no_page(bench: ProcessBench, pages: Pages) -> None:
    bench.main()
    assert not pages
