"""What a run begins with, or why it does not: `begin` alone, in a directory with a file of tasks."""

from __future__ import annotations

import errno
import os
import random
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from disbatch import options
from disbatch.arguments import parse
from disbatch.credentials import Credentials
from disbatch.driver import address, beginning
from disbatch.driver.beginning import OtherStoreAddress, write
from disbatch.driver.events import SkippedTask
from disbatch.errors import DisbatchError, StatusFileError, UsageError
from disbatch.kvsstcp.client import DisconnectedError
from disbatch.options import ContextRoleOptions
from disbatch.records import fields
from disbatch.statusfile import HEADER, skipped_line
from disbatch.taskfile import Complaint
from disbatch.values import Address
from tests.unit.driver.bench import CONNECTION, FALSE, HERE, TRUE, Bench
from tests.unit.driver.examples import line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from disbatch.driver.beginning import Beginning


class BeginningBench(Bench):
    """A bench on which runs begin; what has begun is ended with the test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.begun: list[Beginning] = []
        self.wanted: Address | None = None
        self.advertised_to: Sequence[str] = ()
        monkeypatch.setattr(address, "advertised", self._advertised)

    def _advertised(self, wanted: Address | None, port: int, hosts: Sequence[str]) -> Address:
        self.wanted = wanted
        self.advertised_to = hosts
        return Address("driver.example.org", port)

    def begin(self, *arguments: str) -> Beginning:
        """Begin with the tasks of the file on two cores, under the prefix `run` unless the arguments have another."""
        return self.begin_as_told(*HERE, "-p", "run", *arguments, "tasks")

    def begin_as_told(self, *arguments: str) -> Beginning:
        self.begun.append(beginning.begin(options.parse_driver(arguments, "disbatch")))
        beginning.let_signals_through()
        return self.begun[-1]

    def end(self) -> None:
        for begun in self.begun:
            begun.recorder.close()
            begun.listening.close()
            if begun.task_file is not None:
                os.close(begun.task_file)
            begun.log.close()
        self.begun.clear()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BeginningBench]:
    made = BeginningBench(tmp_path, monkeypatch)
    yield made
    made.end()


def test_a_run_begins_with_all_that_it_needs(bench: BeginningBench) -> None:
    begun = bench.begin("--mailTo", "me")
    assert bench.names == {"run_status.txt", "run_dbUtil.sh", "run_driver.log"}
    assert begun.conflicts == ()
    assert begun.mail_server == Address("localhost", 25)
    assert begun.public == Address("driver.example.org", begun.port)
    assert begun.credentials is not None
    assert (begun.earlier, begun.other_store, begun.aside) == (None, None, None)
    assert begun.task_file is not None
    assert not os.get_inheritable(begun.task_file)


def test_a_page_listens_only_where_one_is_wanted(bench: BeginningBench) -> None:
    assert bench.begin("-p", "quiet").page is None
    begun = bench.begin("-p", "seen", "-w")
    assert begun.page is not None
    with begun.page:
        host, port = begun.page.getsockname()
        assert host == "127.0.0.1"
        assert port != begun.port
        assert not begun.page.get_inheritable()


@pytest.mark.parametrize("missing", [["starlette"], ["uvicorn"], ["starlette", "uvicorn"]])
def test_a_page_without_its_library_is_a_mistake(
    bench: BeginningBench, monkeypatch: pytest.MonkeyPatch, missing: list[str]
) -> None:
    monkeypatch.setattr(beginning, "find_spec", lambda name: None if name in missing else object())
    with pytest.raises(UsageError) as error:
        bench.begin("-w")
    assert error.value.message == f"-w needs what is not installed: {', '.join(missing)}"
    assert error.value.hint == "install it with: pip install 'disbatch[web]'"
    assert bench.names == set()
    bench.begin()


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["tasks"], 2, "no resources"),
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
    bench: BeginningBench, arguments: list[str], status: int, message: str
) -> None:
    with pytest.raises(DisbatchError) as error:
        bench.begin_as_told(*arguments)
    assert message in error.value.message
    assert error.value.hint
    assert error.value.exit_status == status
    assert bench.names == set()


@pytest.mark.parametrize(
    ("variable", "value", "arguments", "message"),
    [
        ("DISBATCH_SSH_NODELIST", "node1", [], "DISBATCH_SSH_NODELIST: 'node1' has no core count"),
        ("DISBATCH_SMTP", "somewhere", [*HERE, "--mailTo", "me"], "DISBATCH_SMTP: 'somewhere'"),
    ],
)
def test_what_the_environment_has_wrong_is_a_mistake_if_it_is_wanted(
    bench: BeginningBench,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=f"^{message}"):
        bench.begin_as_told(*arguments, "tasks")
    assert bench.names == set()
    assert bench.begin().mail_server is None


def test_an_address_that_cannot_be_had_leaves_nothing_behind(
    bench: BeginningBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listen(_wanted: Address | None) -> None:
        raise DisbatchError("cannot listen at 192.0.2.1:0")

    monkeypatch.setattr(address, "listen", listen)
    with pytest.raises(DisbatchError, match="cannot listen"):
        bench.begin()
    assert bench.names == set()


@pytest.mark.parametrize("prefix", [".", "run"])
def test_a_directory_that_cannot_be_written_is_an_error_for_people(
    bench: BeginningBench, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DisbatchError, match=r"^cannot write into .*, where the run's files go \(give .* -p\)$"):
        bench.begin("-p", prefix)


def test_a_mistake_sets_no_status_file_aside(bench: BeginningBench) -> None:
    bench.write("run_status.txt", line(0))
    with pytest.raises(DisbatchError):
        bench.begin("--logfile", "missing/log")
    assert bench.names == {"run_status.txt"}


def test_a_log_that_was_there_before_stays_where_a_run_does_not_begin(bench: BeginningBench) -> None:
    bench.write("mine", b"earlier\n")
    (bench.folder / "run_dbUtil.sh").mkdir()
    with pytest.raises(DisbatchError, match="Is a directory"):
        bench.begin("--logfile", "mine")
    assert bench.names == {"mine", "run_dbUtil.sh"}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_before_the_run_has_begun_changes_nothing(
    bench: BeginningBench, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: int
) -> None:
    bench.write("run_status.txt", line(0))
    monkeypatch.setattr(address, "advertised", lambda *_: os.kill(os.getpid(), number))
    former = signal.getsignal(number)
    with pytest.raises(DisbatchError, match=f"got {number.name} before the run had begun") as error:
        bench.begin("-r", "run_status.txt")
    assert error.value.exit_status == status
    assert bench.names == {"run_status.txt"}
    assert bench.content("run_status.txt") == line(0)
    assert signal.getsignal(number) is former


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_when_all_is_there_waits_for_who_can_clear_it_away(
    bench: BeginningBench, number: signal.Signals
) -> None:
    bench.write("tasks", b"true\n")
    bench.begun.append(beginning.begin(options.parse_driver([*HERE, "-p", "run", "tasks"], "disbatch")))
    came: list[int] = []
    former = signal.signal(number, lambda got, _frame: came.append(got))
    try:
        signal.raise_signal(number)
        waits = not came
        beginning.let_signals_through()
    finally:
        signal.signal(number, former)
    assert (waits, came) == (True, [number])


def test_a_signal_that_is_ignored_stays_so(bench: BeginningBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def advertised(*_: object) -> Address:
        os.kill(os.getpid(), signal.SIGHUP)
        return Address("here", 1)

    monkeypatch.setattr(address, "advertised", advertised)
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert bench.begin().public == Address("here", 1)
    finally:
        signal.signal(signal.SIGHUP, former)


# Jobs


def test_what_contradicts_a_job_is_noticed(bench: BeginningBench) -> None:
    bench.be_in_job("sbatch -c 2 -n 3")
    begun = bench.begin_as_told("-c", "1", "tasks")
    assert begun.conflicts == ("-c 1 counts, and not the 2 that Slurm was asked for",)


def test_a_job_that_cannot_run_a_task_is_a_mistake(bench: BeginningBench) -> None:
    bench.be_in_job("sbatch -n 6")
    with pytest.raises(DisbatchError, match="no node of job 2 has the 5 cores that a task needs"):
        bench.begin_as_told("-c", "5", "tasks")
    assert bench.names == set()


# Tasks, and earlier runs of them


def test_the_tasks_may_come_from_standard_input(bench: BeginningBench, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = os.open("tasks", os.O_RDONLY)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: descriptor))
    begun = bench.begin_as_told(*HERE, "-")
    assert begun.task_file == descriptor
    assert begun.files.job.startswith("stdin_disBatch_")


def test_standard_input_that_is_closed_is_an_error_for_people(
    bench: BeginningBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DisbatchError, match="standard input: it is closed"):
        bench.begin_as_told(*HERE, "-")
    assert bench.names == set()


@pytest.mark.parametrize(("retry", "runs_again"), [([], False), (["-R"], True)])
def test_what_failed_in_an_earlier_run_is_run_again_where_that_is_wanted(
    bench: BeginningBench, retry: list[str], *, runs_again: bool
) -> None:
    failed = line(1, 1, b"false")
    bench.write("status", failed)
    earlier = bench.begin("-r", "status", *retry).earlier
    assert earlier is not None
    assert earlier.look_up(FALSE) == [FALSE if runs_again else SkippedTask(FALSE, failed, failed=True)]


def test_what_differs_from_an_earlier_run_is_refused_unless_it_is_forced(bench: BeginningBench) -> None:
    bench.write("status", line(0, command=b"another command"))
    earlier = bench.begin("-r", "status").earlier
    assert earlier is not None
    with pytest.raises(StatusFileError):
        earlier.look_up(TRUE)
    bench.end()
    forced = bench.begin("-r", "status", "--force-resume").earlier
    assert forced is not None
    assert [type(item) for item in forced.look_up(TRUE)] == [Complaint, SkippedTask]


# The run's files


def test_files_have_the_rights_that_they_need(bench: BeginningBench) -> None:
    mask = os.umask(0)
    try:
        bench.begin()
    finally:
        os.umask(mask)
    modes = bench.modes
    assert modes.pop("run_driver.log")
    assert modes == {"run_status.txt": 0o666, "run_dbUtil.sh": 0o700}


def test_the_log_goes_where_the_user_wants_it(bench: BeginningBench) -> None:
    bench.begin("--logfile", "my log")
    assert bench.names == {"run_status.txt", "run_dbUtil.sh", "my log"}


def test_a_run_is_named_after_its_task_file_and_its_time(bench: BeginningBench) -> None:
    (bench.folder / "elsewhere").mkdir()
    job = bench.begin("-p", "elsewhere").files.job
    assert re.fullmatch(r"tasks_disBatch_\d{12}_\d{3}", job)
    assert set(os.listdir("elsewhere")) == {f"{job}{end}" for end in ("_status.txt", "_dbUtil.sh", "_driver.log")}


class StoppedClock:
    @staticmethod
    def now() -> datetime:
        return datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - as on the user's clock


@pytest.mark.parametrize("first_goes_on", [True, False])
def test_a_name_that_is_made_up_is_a_new_one(
    bench: BeginningBench, monkeypatch: pytest.MonkeyPatch, *, first_goes_on: bool
) -> None:
    digits = iter([7, 7, 8])
    monkeypatch.setattr(random, "randrange", lambda _: next(digits))
    monkeypatch.setattr(beginning, "datetime", StoppedClock)
    bench.begin("-p", ".")
    if not first_goes_on:
        bench.end()
    bench.begin("-p", ".")
    assert {name for name in bench.names if name.endswith("_status.txt")} == {
        "tasks_disBatch_260102030405_007_status.txt",
        "tasks_disBatch_260102030405_008_status.txt",
    }


def test_two_runs_do_not_get_in_each_others_way(bench: BeginningBench) -> None:
    bench.begin()
    with pytest.raises(DisbatchError, match=r"run_status.txt goes on"):
        bench.begin()
    assert bench.names == {"run_status.txt", "run_dbUtil.sh", "run_driver.log"}


def test_a_header_is_the_first_line_where_it_is_wanted(bench: BeginningBench) -> None:
    for arguments in (["-p", "with", "--status-header"], ["-p", "without"]):
        bench.begin(*arguments).recorder.add(b"line\n")
    bench.end()
    assert bench.content("with_status.txt") == HEADER + b"line\n"
    assert bench.content("without_status.txt") == b"line\n"


def test_an_earlier_status_file_of_the_name_is_set_aside(bench: BeginningBench) -> None:
    bench.write("run_status.txt", b"earlier\n")
    assert bench.begin().aside == f"{bench.folder}/run_status.txt.1"
    assert bench.content("run_status.txt.1") == b"earlier\n"


def test_what_an_earlier_run_completed_is_carried_over_before_its_file_is_set_aside(bench: BeginningBench) -> None:
    bench.write("run_status.txt", line(0))
    begun = bench.begin("-r", "run_status.txt")
    assert begun.aside == f"{bench.folder}/run_status.txt.1"
    assert bench.content("run_status.txt.1") == line(0)
    assert bench.content("run_status.txt") == skipped_line(line(0))


def test_no_file_is_written_through_a_link(bench: BeginningBench) -> None:
    bench.write("precious", b"precious\n")
    for name in ("run_dbUtil.sh", "run_status.txt"):
        (bench.folder / name).symlink_to("precious")
    bench.begin()
    assert bench.content("precious") == b"precious\n"


# The script


def words_of_script(bench: BeginningBench, role: str) -> list[str]:
    """Words behind the role in the script's line that starts it, without the script's own arguments."""
    lines = bench.content("run_dbUtil.sh").decode().splitlines()
    [command] = [text for text in lines if "exec " in text and f" {role} " in text]
    words = shlex.split(command)
    assert words[-1] == "$@"
    return words[words.index(role) + 1 : -1]


def test_the_script_starts_contexts_that_inherit_from_the_driver(bench: BeginningBench) -> None:
    begun = bench.begin("-c", "1.5", "-t", "3", "-E", "GPUS", "-E", "NICS", "-l", "mine", "--loglevel", "DEBUG")
    assert parse(options.CONTEXT, words_of_script(bench, "--context"), "") == ContextRoleOptions(
        run=f"{bench.folder}/run",
        kvs=begun.public,
        log_level="DEBUG",
        cpus_per_task=1.5,
        tasks_per_node=3,
        environment_resources=("GPUS", "NICS"),
    )


def test_the_script_starts_engines(bench: BeginningBench) -> None:
    begun = bench.begin()
    asked = parse(options.ENGINE, words_of_script(bench, "--engine"), "")
    assert (asked.run, asked.kvs) == (f"{bench.folder}/run", begun.public)


def test_the_script_holds_the_secrets_of_engines_operators_and_programs(
    bench: BeginningBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVSSTCP_SECRET", "that of another store")
    credentials = bench.begin().credentials
    assert credentials is not None
    script = bench.content("run_dbUtil.sh")
    assert b"export KVSSTCP_SECRET=%b\n" % credentials.engine in script
    assert credentials.operator in script
    assert credentials.program in script
    assert credentials.observer not in script, "that is in a file of its own"


def test_an_open_store_has_no_secret(bench: BeginningBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVSSTCP_SECRET", "that of another store")
    assert bench.begin("--insecure-kvs").credentials is None
    assert b"unset KVSSTCP_SECRET\n" in bench.content("run_dbUtil.sh")


def test_each_run_and_each_role_has_a_secret_of_its_own_of_256_bits(bench: BeginningBench) -> None:
    begun = [bench.begin("-p", prefix).credentials for prefix in ("a", "b", "c")]
    secrets = [getattr(credentials, role) for credentials in begun for role in fields(Credentials)]
    assert len(set(secrets)) == 12
    assert {len(bytes.fromhex(secret.decode().removeprefix("tls:"))) for secret in secrets} == {32}


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_a_file_with_a_secret_is_its_owners_alone_from_its_first_byte(
    bench: BeginningBench, monkeypatch: pytest.MonkeyPatch, mask: int
) -> None:
    opened: list[tuple[int, int]] = []
    really_open = os.open

    def look_and_open(path: str, flags: int, mode: int = 0o777) -> int:
        descriptor = really_open(path, flags, mode)
        found = os.fstat(descriptor)
        assert flags & os.O_EXCL, "it is a new file, which nobody has open"
        opened.append((found.st_mode & 0o777, found.st_size))
        return descriptor

    former = os.umask(mask)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", look_and_open)
            write(str(bench.folder / "script"), b"secret", 0o700)
            write(str(bench.folder / "credential"), b"secret", 0o600)
    finally:
        os.umask(former)
    assert opened == [(0o700, 0), (0o600, 0)]
    assert (bench.content("script"), bench.content("credential")) == (b"secret", b"secret")


def test_the_secret_says_that_what_goes_between_hosts_is_encrypted(bench: BeginningBench) -> None:
    encrypted, plain = bench.begin("-p", "a").credentials, bench.begin("-p", "b", "--no-encryption").credentials
    assert encrypted is not None
    assert plain is not None
    for role in fields(Credentials):
        assert getattr(encrypted, role).startswith(b"tls:")
        assert getattr(plain, role).isalnum()


def test_a_python_that_cannot_encrypt_is_told_of_unless_nothing_is_to_be(
    bench: BeginningBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beginning, "find_spec", {"_ssl": None}.__getitem__)
    with pytest.raises(DisbatchError, match="this Python cannot encrypt") as caught:
        bench.begin()
    assert "--no-encryption" in str(caught.value.hint)
    assert bench.begin("--no-encryption").credentials is not None
    assert bench.begin("-p", "open", "--insecure-kvs").credentials is None


def test_a_prefix_with_blanks_and_quotes_makes_a_script_that_bash_reads(bench: BeginningBench) -> None:
    bench.begin("-p", "it's my run")
    subprocess.run(["/bin/bash", "-n", "it's my run_dbUtil.sh"], check=True)


def test_who_could_read_an_earlier_script_cannot_read_the_new_one(bench: BeginningBench) -> None:
    script = bench.folder / "run_dbUtil.sh"
    script.write_text("earlier\n")
    script.chmod(0o666)
    (bench.folder / "link").hardlink_to(script)
    with script.open() as opened_before:
        bench.begin()
        assert opened_before.read() == "earlier\n"
    assert bench.modes["run_dbUtil.sh"] & 0o077 == 0
    assert bench.content("link") == b"earlier\n"


@pytest.mark.parametrize("standard_output", ["/dev/full", None])
def test_the_path_of_the_script_is_printed_or_nothing_has_changed(
    bench: BeginningBench, monkeypatch: pytest.MonkeyPatch, standard_output: str | None
) -> None:
    bench.write("run_status.txt", line(0))
    if standard_output is None:  # closed by whoever has started this
        monkeypatch.setattr(sys, "stdout", None)
        assert bench.begin_as_told("-S", "-p", "run", "tasks").conflicts == ()
        return
    with open(standard_output, "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(DisbatchError) as error:
            bench.begin_as_told("-S", "-p", "run", "tasks")
        with suppress(OSError):
            full.close()
    path = f"{bench.folder}/run_dbUtil.sh"
    assert str(error.value) == f"cannot print the path of {path} to standard output: No space left on device"
    assert bench.names == {"run_status.txt"}
    assert bench.content("run_status.txt") == line(0)


def test_the_path_of_the_script_may_be_no_utf_8(
    bench: BeginningBench, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    bench.begin_as_told("-S", "-p", os.fsdecode(b"u\xff"), "tasks")
    assert capfdbinary.readouterr().out == os.fsencode(bench.folder) + b"/u\xff_dbUtil.sh\n"


# Where the run's own store is


def test_an_address_is_chosen_by_which_the_hosts_reach_the_store(bench: BeginningBench) -> None:
    bench.begin("-s", "node7:1")
    assert list(bench.advertised_to) == ["localhost", "node7"]


def test_the_store_listens_at_the_address_that_the_user_wants(bench: BeginningBench) -> None:
    begun = bench.begin("--use-address", "127.0.0.1:0")
    assert begun.listening.getsockname()[0] == "127.0.0.1"
    assert bench.wanted == Address("127.0.0.1", 0)


@pytest.mark.parametrize("other", [["tasks", "--kvsserver", "there:80"], ["--taskserver", "there:80"]])
def test_with_another_store_that_address_does_not_count(bench: BeginningBench, other: list[str]) -> None:
    begun = bench.begin_as_told(*HERE, "--use-address", "127.0.0.1:0", *other)
    assert begun.listening.getsockname()[0] != "127.0.0.1"
    assert bench.wanted is None


# A store that programs share


@pytest.mark.parametrize(
    "arguments", [["--kvsserver", "a:1", "--taskserver", "b:1"], ["--kvsserver", "a:1", "--taskserver=a:2"]]
)
def test_a_run_shares_no_two_stores(bench: BeginningBench, arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="--kvsserver and --taskserver name different stores") as error:
        bench.begin_as_told(*HERE, *arguments)
    assert error.value.exit_status == 2
    assert not bench.elsewhere.connected
    assert bench.names == set()


@pytest.mark.parametrize("arguments", [["tasks", "--kvsserver"], ["--taskserver"], ["--taskserver", "--kvsserver"]])
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"KVSSTCP_HOST": "there"},
        {"KVSSTCP_PORT": "80"},
        {"KVSSTCP_HOST": "there", "KVSSTCP_PORT": "http"},
    ],
)
def test_a_store_that_the_environment_does_not_name_is_a_mistake(
    bench: BeginningBench, monkeypatch: pytest.MonkeyPatch, arguments: list[str], environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as error:
        bench.begin_as_told(*HERE, *arguments)
    assert error.value.hint == "name it, or set KVSSTCP_HOST and KVSSTCP_PORT"
    assert not bench.elsewhere.connected
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
    bench: BeginningBench, monkeypatch: pytest.MonkeyPatch, arguments: list[str], host: str
) -> None:
    monkeypatch.setenv("KVSSTCP_HOST", "of.environment")
    monkeypatch.setenv("KVSSTCP_PORT", "80")
    monkeypatch.setenv("KVSSTCP_SECRET", "its secret")
    begun = bench.begin_as_told(*HERE, *arguments)
    assert bench.elsewhere.connected == [(host, 80, "its secret")]
    assert begun.other_store is not None
    assert (begun.other_store.where, begun.other_store.secret) == ((host, 80), b"its secret")
    assert begun.other_store.connected == (CONNECTION, CONNECTION)
    assert begun.credentials is not None, "the run's own store has secrets of its own"


def test_another_store_may_ask_for_no_secret(bench: BeginningBench) -> None:
    begun = bench.begin("--kvsserver", "there:80")
    assert bench.elsewhere.connected == [("there", 80, "")]
    assert begun.other_store == OtherStoreAddress(("there", 80), None, (CONNECTION, CONNECTION))


@pytest.mark.parametrize(
    "failure", [DisconnectedError("no connection to there:80"), OSError(errno.EPIPE, "Broken pipe")]
)
@pytest.mark.parametrize("at", ["failure", "refusal"])
def test_another_store_that_cannot_be_had_leaves_nothing_behind(
    bench: BeginningBench, failure: Exception, at: str
) -> None:
    setattr(bench.elsewhere, at, failure)
    with pytest.raises(DisbatchError) as error:
        bench.begin("--kvsserver", "there:80")
    assert error.value.exit_status == 1
    assert error.value.hint == "see --kvsserver and --taskserver"
    assert bench.names == set()
