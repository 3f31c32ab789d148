from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import shlex
import sys
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given

from disbatch import __version__
from disbatch.arguments import Role, arguments_for, declared_by, parse
from disbatch.errors import UsageError
from disbatch.options import (
    CONTEXT,
    DRIVER,
    ENGINE,
    GROUPS,
    MONITOR_ROLE,
    OF_ENVIRONMENT,
    STATUS_ROLE,
    ContextOptions,
    ContextRoleOptions,
    DriverOptions,
    EngineRoleOptions,
    FailuresOptions,
    JoinOptions,
    ObserverRoleOptions,
    check_driver,
    parse_context,
    parse_driver,
    parse_failures,
    parse_observer,
    resume_command,
)
from disbatch.parser import parser
from disbatch.records import fields, replace
from disbatch.values import LOG_LEVELS, Address, SshNode, ssh_nodes

ROLES: list[type[ContextOptions | JoinOptions]] = [role.options for role in (DRIVER, CONTEXT, ENGINE)]

Options = TypeVar("Options", bound="ContextOptions | JoinOptions")


def role_of(options: type[Options]) -> Role:
    return Role(options, "Does it.", GROUPS, version=__version__)


def parsed(options: type[Options], *arguments: str) -> Options:
    read: Options = parse(role_of(options), arguments, "disbatch")
    return read


def complaint(role: type[ContextOptions | JoinOptions], *arguments: str) -> str:
    with pytest.raises(UsageError) as error:
        parsed(role, *arguments)
    assert error.value.hint == "see disbatch --help"
    return error.value.message


# Every option, in every way to write it.

CONTEXT_OPTIONS: list[tuple[list[str], str, object]] = [
    (["-c", "2"], "cpus_per_task", 2.0),
    (["--cpusPerTask=0.3"], "cpus_per_task", 0.3),
    (["-g"], "gpu", True),
    (["--gpu"], "gpu", True),
    (["-l", "big ones"], "label", "big ones"),
    (["--label", "x"], "label", "x"),
    (["-s", "a:1"], "ssh_nodes", ((SshNode("a", 1),),)),
    (["-s", "a:1", "--ssh-node", "b:2,a:3"], "ssh_nodes", ((SshNode("a", 1),), (SshNode("b", 2), SshNode("a", 3)))),
    (["-t", "12"], "tasks_per_node", 12),
    (["--tasksPerNode", "1"], "tasks_per_node", 1),
    (["-C", "3"], "task_limit", 3),
    (["--context-task-limit", "0"], "task_limit", 0),
    (["-E", "GPUS"], "environment_resources", ("GPUS",)),
    (["--env-resource", "A", "-E", "B"], "environment_resources", ("A", "B")),
    (["--fill"], "fill", True),
    (["--no-retire"], "no_retire", True),
    (["--retire-cmd", "free $NODES"], "retire_command", "free $NODES"),
]
DRIVER_OPTIONS: list[tuple[list[str], str, object]] = [
    *CONTEXT_OPTIONS,
    ([], "task_file", "Tasks"),
    (["-e"], "exit_code", True),
    (["--exit-code"], "exit_code", True),
    (["-f"], "fail_fast", True),
    (["--fail-fast"], "fail_fast", True),
    (["--force-resume"], "force_resume", True),
    (["--insecure-kvs"], "insecure_kvs", True),
    (["--progress", "on"], "progress", "on"),
    (["--no-encryption"], "no_encryption", True),
    (["--logfile", "my.log"], "log_file", "my.log"),
    (["--loglevel", "DEBUG"], "log_level", "DEBUG"),
    (["--loglevel", "Warning"], "log_level", "WARNING"),
    (["--crash-limit", "0"], "crash_limit", 0),
    (["--no-requeue"], "no_requeue", True),
    (["--heartbeat", "0.5"], "heartbeat", 0.5),
    (["--heartbeat-patience=90"], "heartbeat_patience", 90.0),
    (["--mailTo", "me@example.org"], "mail_to", "me@example.org"),
    (["--mailTo", "me", "--mailFreq", "20"], "mail_frequency", 20),
    (["--no-fsync"], "no_fsync", True),
    (["-w"], "web", True),
    (["--web"], "web", True),
    (["-w", "--web-address", "h1:8080"], "web_address", Address("h1", 8080)),
    (["-w", "--web-address=[::1]:0"], "web_address", Address("::1", 0)),
    (["-p", "out/run 1"], "prefix", "out/run 1"),
    (["--prefix", "out"], "prefix", "out"),
    (["-r", "a"], "resume_from", ("a",)),
    (["-r", "a", "--resume-from", "b"], "resume_from", ("a", "b")),
    (["-R"], "retry", True),
    (["-S"], "startup_only", True),
    (["--startup-only"], "startup_only", True),
    (["--retry"], "retry", True),
    (["--status-header"], "status_header", True),
    (["--kvsserver=host:80"], "kvs_server", Address("host", 80)),
    (["--kvsserver", "[::1]:80", "-e"], "kvs_server", Address("::1", 80)),
    (["--kvsserver", "-e"], "kvs_server", OF_ENVIRONMENT),
    (["--taskserver", "host:80"], "task_server", Address("host", 80)),
    (["--taskserver", "--status-header"], "task_server", OF_ENVIRONMENT),
    (["--taskcommand", "make tasks; --all"], "task_command", "make tasks; --all"),
    (["--use-address", "host:0"], "use_address", Address("host", 0)),
]
JOIN_OPTIONS: list[tuple[list[str], str, object]] = [
    (["--run", "/data/a run"], "run", "/data/a run"),
    (["--kvs", "[::1]:80"], "kvs", Address("::1", 80)),
    (["--loglevel", "error"], "log_level", "ERROR"),
]
ENGINE_OPTIONS: list[tuple[list[str], str, object]] = [
    *JOIN_OPTIONS,
    (["--label", "SSH0"], "label", "SSH0"),
    (["--node", "localhost"], "node", "localhost"),
    (["--rank", "3"], "rank", 3),
    (["--place-variable", "SLURM_LOCALID"], "place_variable", "SLURM_LOCALID"),
]
OPTIONS: dict[type, list[tuple[list[str], str, object]]] = {
    DriverOptions: DRIVER_OPTIONS,
    ContextRoleOptions: [
        *CONTEXT_OPTIONS,
        *JOIN_OPTIONS,
        (["--failures"], "failures", True),
        (["--failures", "--json"], "json", True),
        (["--kvs-env"], "kvs_env", True),
        (["--mon"], "mon", True),
        (["--status"], "status", True),
        (["--status", "--json"], "json", True),
        (["--stop", "engine", "h1"], "stop", ("engine", "h1")),
        (["--now", "--stop", "context", "SSH 0"], "now", True),
        (["--token", "own"], "token", "own"),
    ],
    EngineRoleOptions: ENGINE_OPTIONS,
}


@pytest.mark.parametrize(
    ("role", "arguments", "name", "value"),
    [(role, *option) for role, options in OPTIONS.items() for option in options],
)
def test_an_option_is_read(role: type[DriverOptions], arguments: list[str], name: str, value: object) -> None:
    task_file = ["Tasks"] if role is DriverOptions else []
    assert getattr(parsed(role, *arguments, *task_file), name) == value
    assert getattr(parsed(role, *task_file, *arguments), name) == value


@pytest.mark.parametrize("flag", ["--kvsserver", "--taskserver"])
def test_an_option_whose_value_may_be_left_out_may_be_the_last_word(flag: str) -> None:
    for arguments in ([flag], ["-e", flag]):
        asked = parsed(DriverOptions, *arguments)
        assert {"--kvsserver": asked.kvs_server, "--taskserver": asked.task_server}[flag] == OF_ENVIRONMENT
    assert parsed(DriverOptions, "--kvsserver", "--", "Tasks") == DriverOptions(
        task_file="Tasks", kvs_server=OF_ENVIRONMENT
    )
    nothing = parsed(DriverOptions)
    assert (nothing.kvs_server, nothing.task_server, nothing.task_command) == (None, None, None)


@pytest.mark.parametrize("flag", ["--kvsserver", "--taskserver"])
def test_a_word_behind_an_option_whose_value_may_be_left_out_is_its_value(flag: str) -> None:
    assert complaint(DriverOptions, flag, "Tasks").startswith(f"argument {flag}: 'Tasks' is no address")


@pytest.mark.parametrize("role", ROLES)
def test_these_tests_read_every_option(role: type[DriverOptions]) -> None:
    assert {name for _, name, _ in OPTIONS[role]} == set(fields(role))
    written = {word.partition("=")[0] for words, _, _ in OPTIONS[role] for word in words}
    flags = {flag for declared in declared_by(role).values() for flag in declared.flags}
    assert flags <= written


def test_what_is_not_said_has_its_default() -> None:
    assert parsed(DriverOptions, "Tasks") == DriverOptions(task_file="Tasks")
    assert parsed(ContextRoleOptions) == ContextRoleOptions()
    assert parsed(EngineRoleOptions) == EngineRoleOptions()
    defaults = DriverOptions()
    assert (defaults.cpus_per_task, defaults.tasks_per_node, defaults.nodes) == (None, None, ())
    assert (defaults.prefix, defaults.log_level) == (".", "INFO")


def test_the_tasks_may_come_from_standard_input() -> None:
    assert parsed(DriverOptions, "-").task_file == "-"
    assert parsed(DriverOptions, "-e", "--", "--odd name").task_file == "--odd name"


def test_all_hosts_are_nodes_in_order_with_repetitions() -> None:
    assert parsed(DriverOptions, "-s", "b:1,a:2", "-s", "b:3", "Tasks").nodes == (
        SshNode("b", 1),
        SshNode("a", 2),
        SshNode("b", 3),
    )


# What a user gets wrong.

NO_SERVER = "is no address of a server; write it as HOST:PORT; the option alone has to be the last word"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Tasks", "--taskcommand"], "argument --taskcommand: expected one argument"),
        (["--taskcommand="], "argument --taskcommand: it must not be empty"),
        (["--taskserver", "host"], f"argument --taskserver: 'host' {NO_SERVER}"),
        (["--kvsserver", "host:0"], f"argument --kvsserver: 'host:0' {NO_SERVER}"),
        (
            ["Tasks", "-C", "-1"],
            "argument -C/--context-task-limit: it must be a whole number of at least 0, not '-1'",
        ),
        (["--no-such"], "unrecognized arguments: --no-such"),
        (["Tasks", "More"], "unrecognized arguments: More"),
        (["Tasks", "--exit"], "unrecognized arguments: --exit"),
        (["Tasks", "--no-such"], "unrecognized arguments: --no-such"),
        (["Tasks", "a\nb\x1b"], r"unrecognized arguments: a\nb\x1b"),
        (["Tasks", "-c"], "argument -c/--cpusPerTask: expected one argument"),
        (["Tasks", "-c", "0"], "argument -c/--cpusPerTask: it must be a number above 0, not '0'"),
        (["Tasks", "-c", "-1"], "argument -c/--cpusPerTask: it must be a number above 0, not '-1'"),
        (["Tasks", "-c", "nan"], "argument -c/--cpusPerTask: it must be a number above 0, not 'nan'"),
        (["Tasks", "-c", "inf"], "argument -c/--cpusPerTask: it must be a number above 0, not 'inf'"),
        (["Tasks", "-c", "0.0001"], "argument -c/--cpusPerTask: it must be at least 0.001, not '0.0001'"),
        (["Tasks", "-c", "many"], "argument -c/--cpusPerTask: it must be a number above 0, not 'many'"),
        (["Tasks", "-t", "0"], "argument -t/--tasksPerNode: it must be a whole number of at least 1, not '0'"),
        (["Tasks", "-t", "-2"], "argument -t/--tasksPerNode: it must be a whole number of at least 1, not '-2'"),
        (["Tasks", "-t", "1.5"], "argument -t/--tasksPerNode: it must be a whole number of at least 1, not '1.5'"),
        (["Tasks", "-t", "²"], "argument -t/--tasksPerNode: it must be a whole number of at least 1, not '²'"),
        (["Tasks", "-l", ""], "argument -l/--label: it must be printable and not empty"),
        (["Tasks", "-l", "a\nb"], "argument -l/--label: it must be printable and not empty"),
        (["Tasks", "-p", ""], "argument -p/--prefix: it must not be empty"),
        (["Tasks", "--mailTo", "a b"], "argument --mailTo: it must be one mail address, not 'a b'"),
        (["Tasks", "--logfile="], "argument --logfile: it must not be empty"),
        (["Tasks", "-E", ""], "argument -E/--env-resource: it must be printable and not empty"),
        (
            ["Tasks", "--use-address", "host"],
            "argument --use-address: 'host' is no address; write it as HOST:PORT, with port 0 for any",
        ),
    ],
)
def test_a_mistake_gets_one_clear_line(arguments: list[str], message: str) -> None:
    assert complaint(DriverOptions, *arguments) == message


@pytest.mark.parametrize("text", ["a", "a:1,b", ":4", "a:0", "a:-4", "-oProxyCommand=rm:4", "a\x1b[2J:4", "a\nb"])
def test_a_bad_value_is_complained_about_in_the_words_of_its_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"host|core count") as error:
        ssh_nodes(text)
    assert complaint(DriverOptions, f"-s={text}", "Tasks") == f"argument -s/--ssh-node: {error.value}"


def test_a_level_of_the_log_is_one_of_five() -> None:
    message = complaint(DriverOptions, "Tasks", "--loglevel", "loud")
    assert message == f"argument --loglevel: it must be one of {', '.join(LOG_LEVELS)}, not 'loud'"


FLAGS = [flag for declared in declared_by(DriverOptions).values() for flag in declared.flags]
WORDS = [*FLAGS, "-", "--", "=", "a:4", "1"]


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=6))
def test_no_command_line_does_anything_but_work_or_get_one_line(arguments: list[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            parsed(DriverOptions, *arguments)
        except UsageError as error:
            assert error.message.isprintable()  # noqa: PT017 - as above
        except SystemExit as end:
            assert end.code == 0  # noqa: PT017 - --help


TASKS = DriverOptions(task_file="Tasks")
HERE = Address("here", 80)


@pytest.mark.parametrize(
    "asked",
    [
        DriverOptions(task_file="Tasks"),
        DriverOptions(task_file=""),  # it is there; that it cannot be read is told later
        DriverOptions(task_command="make tasks"),
        DriverOptions(task_server=HERE),
        DriverOptions(task_server=OF_ENVIRONMENT),
    ],
)
@pytest.mark.parametrize("kvs_server", [None, HERE, OF_ENVIRONMENT])
def test_tasks_come_from_one_place_whatever_store_is_shared(asked: DriverOptions, kvs_server: Address | None) -> None:
    check_driver(replace(asked, kvs_server=kvs_server))


@pytest.mark.parametrize("asked", [DriverOptions(), DriverOptions(kvs_server=HERE), DriverOptions(exit_code=True)])
def test_tasks_have_to_come_from_somewhere(asked: DriverOptions) -> None:
    with pytest.raises(UsageError, match="the following arguments are required: taskfile") as error:
        check_driver(asked)
    assert error.value.hint == "or give --taskcommand or --taskserver"


SOURCES = {"task_file": "", "task_command": "make tasks", "task_server": OF_ENVIRONMENT}


@pytest.mark.parametrize("names", [*itertools.combinations(SOURCES, 2), tuple(SOURCES)])
def test_tasks_cannot_come_from_several_places(names: tuple[str, ...]) -> None:
    sources: dict[str, Any] = {name: SOURCES[name] for name in names}
    with pytest.raises(UsageError, match="a taskfile, --taskcommand and --taskserver exclude one another"):
        check_driver(DriverOptions(**sources))


SOME_HOSTS = ((SshNode("a", 1),),)
RETIRES_NONE = (
    "-S begins without hosts, and --retire-cmd gives some back (give --retire-cmd to the script that adds them)"
)
RETIRES_HOSTS = "--retire-cmd gives back nodes of a job, and -s names hosts instead (leave out one of the two)"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resume_from": ("a",)},
        {"resume_from": ("a",), "retry": True, "force_resume": True},
        {"mail_to": "me"},
        {"mail_to": "me", "mail_frequency": 3},
        {"startup_only": True},
        {"ssh_nodes": SOME_HOSTS},
        {"ssh_nodes": SOME_HOSTS, "no_retire": True},
        {"retire_command": "free"},
        {"heartbeat": 20.0},
        {"heartbeat": 0.5, "heartbeat_patience": 1.5},
        {"heartbeat": 0.1, "heartbeat_patience": 0.3},
    ],
)
def test_what_goes_together_is_accepted(options: dict[str, Any]) -> None:
    check_driver(replace(TASKS, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retry": True}, "-R needs -r STATUSFILE (name the status file of the run to resume)"),
        ({"force_resume": True}, "--force-resume needs -r STATUSFILE (name the status file of the run to resume)"),
        ({"mail_frequency": 1}, "--mailFreq needs --mailTo ADDR (name the address that mails go to)"),
        ({"web_address": Address("", 80)}, "--web-address needs -w (ask for a web page with -w)"),
        ({"mail_frequency": 3}, "--mailFreq needs --mailTo ADDR (name the address that mails go to)"),
        (
            {"startup_only": True, "ssh_nodes": SOME_HOSTS},
            "-S begins without hosts, and -s names some (leave out one of the two)",
        ),
        (
            {"heartbeat": 20.5},
            "--heartbeat 20.5 is too slow for --heartbeat-patience 60 (let the patience be 3 times as long at least)",
        ),
        (
            {"heartbeat_patience": 29.0},
            "--heartbeat 10 is too slow for --heartbeat-patience 29 (let the patience be 3 times as long at least)",
        ),
        ({"startup_only": True, "retire_command": "free"}, RETIRES_NONE),
        ({"ssh_nodes": SOME_HOSTS, "retire_command": "free"}, RETIRES_HOSTS),
    ],
)
def test_what_does_not_go_together_or_lacks_something_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        check_driver(replace(TASKS, **options))
    assert str(error.value) == message


def test_options_of_a_driver_are_read() -> None:
    assert parse_driver(["-e", "Tasks"], "disbatch") == DriverOptions(exit_code=True, task_file="Tasks")


NO_TASKS = "the following arguments are required: taskfile (or give --taskcommand or --taskserver)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-R", "Tasks"], "-R needs -r STATUSFILE (name the status file of the run to resume)"),
        ([], NO_TASKS),
        (["-e"], NO_TASKS),
        (["--kvsserver"], NO_TASKS),
        (
            ["Tasks", "--taskserver"],
            "a taskfile, --taskcommand and --taskserver exclude one another (leave out all but one)",
        ),
        (["--no-such"], "unrecognized arguments: --no-such (see python -m disbatch --help)"),
    ],
)
def test_options_of_a_driver_are_checked_as_they_are_read(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_driver(arguments, "python -m disbatch")
    assert str(error.value) == message


def test_options_of_a_context_are_read() -> None:
    of_a_run = ["--run", "/data/run"]
    assert parse_context([*of_a_run, "-s", "a:1"], "dbUtil.sh").nodes == (SshNode("a", 1),)
    assert parse_context([*of_a_run, "--stop", "engine", "h1", "--now"], "dbUtil.sh").stop == ("engine", "h1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stop"], "argument --stop: expected 2 arguments (see dbUtil.sh --help)"),
        (["--stop", "engine"], "argument --stop: expected 2 arguments (see dbUtil.sh --help)"),
        (
            ["--stop", "run", "x"],
            "argument --stop: 'run' cannot be stopped (write --stop context NAME or --stop engine NAME)",
        ),
        (["--now"], "--now needs --stop (name what is to be stopped)"),
        (
            ["--kvs-env", "--stop", "engine", "h1"],
            "--stop and --kvs-env exclude one another (give one of them, and then the other)",
        ),
        (["--mon", "--status"], "--mon and --status exclude one another (give one of them, and then the other)"),
        (
            ["--failures", "--kvs-env"],
            "--kvs-env and --failures exclude one another (give one of them, and then the other)",
        ),
        (["--json"], "--json needs --status or --failures (name what is to be printed)"),
        (["--run=r", "--retire-cmd=free", "-s", "a:1"], RETIRES_HOSTS),
        (["-s", "a:1"], "--context is told its run by the run's script (call that, <unique id>_dbUtil.sh)"),
    ],
)
def test_options_of_a_context_are_checked_as_they_are_read(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_context(arguments, "dbUtil.sh")
    assert str(error.value) == message


def test_options_of_an_observer_are_read() -> None:
    assert parse_observer(["--json", "f"], STATUS_ROLE) == ObserverRoleOptions(observer_file="f", json=True)
    assert parse_observer(["f"], MONITOR_ROLE) == ObserverRoleOptions(observer_file="f")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: OBSERVERFILE (see disbatch --mon --help)"),
        (["f", "g"], "unrecognized arguments: g (see disbatch --mon --help)"),
        (["--json", "f"], "--json needs --status (leave it out, or ask for that)"),
    ],
)
def test_options_of_an_observer_are_checked_as_they_are_read(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_observer(arguments, MONITOR_ROLE)
    assert str(error.value) == message


def test_the_help_of_a_run_tells_how_to_look_at_one() -> None:
    text = " ".join(parser(DRIVER, "disbatch").format_help().split())
    for command in ("disbatch --mon FILE", "disbatch --status FILE"):
        assert command in text


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        (["a"], FailuresOptions(("a",))),
        (["a", "--json", "b c"], FailuresOptions(("a", "b c"), json=True)),
        (["--", "--json"], FailuresOptions(("--json",))),
    ],
)
def test_status_files_are_named_to_those_who_tell_what_failed(arguments: list[str], read: FailuresOptions) -> None:
    assert parse_failures(arguments) == read


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_somebody_has_to_name_a_status_file_to_them(arguments: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        parse_failures(arguments)
    assert str(error.value) == "the following arguments are required: STATUSFILE (see disbatch --failures --help)"


# Help.


@pytest.mark.parametrize("role", ROLES)
def test_help_tells_of_every_visible_option(role: type[DriverOptions]) -> None:
    text = " ".join(parser(role_of(role), "disbatch").format_help().split())
    assert "Does it." in text
    for declared in declared_by(role).values():
        for flag in declared.flags or [declared.metavar]:
            assert bool(re.search(rf" {flag}(?![\w-])", text)) is not declared.hidden, flag
        if not declared.hidden:
            assert declared.help in text, "help is shown as it is written"


def test_each_role_tells_of_its_own_defaults() -> None:
    driver, context = (" ".join(parser(role, "x").format_help().split()) for role in (DRIVER, CONTEXT))
    assert "dbUtil.sh" not in driver
    assert "two tasks at once on a core (default: 1; under Slurm " in driver
    assert "two tasks at once on a core (default: what the run was started with)" in context
    assert "dbUtil.sh" not in context


def test_only_what_the_processes_of_a_run_tell_one_another_is_hidden() -> None:
    hidden = {name for role in ROLES for name, declared in declared_by(role).items() if declared.hidden}
    assert hidden == {"environment_resources", "run", "kvs", "token", "label", "node", "rank", "place_variable"}


def test_help_and_version_are_printed_and_end_it(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("-h", "--help", "--version"):
        with pytest.raises(SystemExit) as end:
            parsed(DriverOptions, flag)
        assert end.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == __version__


# Arguments for other processes.

printable = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), min_size=1).filter("--".__ne__)
paths = st.text(st.characters(exclude_characters="\0", exclude_categories=()), min_size=1).filter("--".__ne__)
hosts = st.text("abc.-:@", min_size=1).filter(lambda host: not host.startswith("-"))
nodes = st.builds(SshNode, hosts, st.integers(1, 1000))
servers = st.just(OF_ENVIRONMENT) | st.builds(Address, st.text("abc.:-", min_size=1), st.integers(1, 65535))
context_fields: dict[str, st.SearchStrategy[Any]] = {
    "cpus_per_task": st.none() | st.floats(min_value=1e-3, max_value=1e6),
    "gpu": st.booleans(),
    "label": st.none() | printable,
    "ssh_nodes": st.lists(st.lists(nodes, min_size=1).map(tuple), max_size=3).map(tuple),
    "tasks_per_node": st.none() | st.integers(1, 10_000),
    "environment_resources": st.lists(printable, max_size=3).map(tuple),
}
join_fields: dict[str, st.SearchStrategy[Any]] = {
    "run": paths,
    "kvs": st.builds(Address, st.text("abc.:-"), st.integers(0, 65535)),
    "log_level": st.sampled_from(LOG_LEVELS),
}
engine_fields: dict[str, st.SearchStrategy[Any]] = {
    **join_fields,
    "label": paths,
    "node": paths,
    "rank": st.integers(0, 1 << 40),
    "place_variable": paths,
}
driver_fields: dict[str, st.SearchStrategy[Any]] = {
    **context_fields,
    "kvs_server": st.none() | servers,
    "task_server": st.none() | servers,
    "task_command": st.none() | paths,
    "exit_code": st.booleans(),
    "fail_fast": st.booleans(),
    "force_resume": st.booleans(),
    "insecure_kvs": st.booleans(),
    "log_file": st.none() | paths,
    "log_level": st.sampled_from(LOG_LEVELS),
    "mail_frequency": st.none() | st.integers(1, 10_000),
    "no_encryption": st.booleans(),
    "mail_to": st.none() | st.text("ab.@-", min_size=1).filter(lambda text: text.strip("@")).filter("--".__ne__),
    "prefix": paths,
    "resume_from": st.lists(paths, max_size=3).map(tuple),
    "retry": st.booleans(),
    "status_header": st.booleans(),
    "use_address": st.none() | st.builds(Address, st.text("abc.:-"), st.integers(0, 65535)),
}


@given(
    st.builds(ContextRoleOptions, token=paths, **context_fields, **join_fields)
    | st.builds(EngineRoleOptions, **engine_fields)
    | st.builds(JoinOptions, **join_fields)
    | st.builds(ContextOptions, **context_fields)
)
def test_arguments_are_read_as_what_they_were_made_of(options: ContextOptions | JoinOptions) -> None:
    assert parsed(type(options), *arguments_for(options)) == options


@given(st.builds(DriverOptions, **driver_fields))
def test_arguments_of_a_driver_are_read_as_what_they_were_made_of(options: DriverOptions) -> None:
    assert parsed(DriverOptions, *arguments_for(options)) == options


def test_a_context_reads_what_the_driver_hands_on() -> None:
    driver = parsed(DriverOptions, "-c", "0.5", "-t", "3", "-E", "A", "-E", "B", "-l", "mine", "-e", "Tasks")
    handed_on = arguments_for(driver, ["cpus_per_task", "tasks_per_node", "environment_resources"])
    assert handed_on == ["--cpusPerTask=0.5", "--tasksPerNode=3", "--env-resource=A", "--env-resource=B"]
    context = parsed(ContextRoleOptions, *handed_on, "-t", "1")
    assert (context.cpus_per_task, context.tasks_per_node, context.label) == (0.5, 1, None)


@pytest.mark.parametrize(("argument", "name"), [("-p--", "prefix"), ("--resume-from=--", "resume_from")])
def test_a_value_of_two_dashes_is_read_or_refused(argument: str, name: str) -> None:
    if sys.version_info >= (3, 13):
        assert getattr(parsed(DriverOptions, argument, "Tasks"), name) in ("--", ("--",))
    else:
        with pytest.raises(UsageError, match="'--' cannot be its value"):
            parsed(DriverOptions, argument, "Tasks")


@pytest.mark.parametrize(
    ("arguments", "status_file"),
    [
        (["-s", "localhost:2", "my tasks"], "my tasks_status.txt"),
        (["-s", "localhost:2", "--", "-tasks"], "-it's"),
        (["-r", "earlier", "-e", "-"], "now"),
        (["-rearlier", "--resume-from=b", "--resume-from", "c", "--", "-r"], "now"),
    ],
)
@pytest.mark.parametrize("retry", [False, True])
def test_the_command_that_resumes_is_the_one_that_was_given_with_the_new_status_file(
    arguments: list[str], status_file: str, *, retry: bool
) -> None:
    program, *words = shlex.split(resume_command(["disbatch"], arguments, status_file, retry=retry))
    assert program == "disbatch"
    before = parsed(DriverOptions, *arguments)
    after = parsed(DriverOptions, *words)
    assert [os.path.normpath(path) for path in after.resume_from] == [status_file]
    assert after.retry is retry
    assert after.task_file == before.task_file
    assert after.nodes == before.nodes


@st.composite
def words_of_options(draw: st.DrawFn) -> list[str]:
    """One way to write some options: several in a word, a value in the same word or in the next."""
    switches = draw(st.text("efgRh", max_size=3))
    flag, values = draw(
        st.sampled_from(
            [
                *[(flag, st.text("rRe=- x", min_size=1)) for flag in ("r", "r", "p", "l", "--resume-from", "--prefix")],
                *[(flag, st.sampled_from(["1", "2"])) for flag in ("c", "C", "t", "--tasksPerNode")],
                *[(flag, st.sampled_from(["r:1", "a:1,r:2"])) for flag in ("s", "--ssh-node")],
            ]
        )
    )
    value = draw(values)
    if flag.startswith("--"):
        written = draw(st.sampled_from([[f"{flag}={value}"], [flag, value]]))
    else:
        written = draw(st.sampled_from([[f"-{switches}{flag}{value}"], [f"-{switches}{flag}", value]]))
    return [*([f"-{switches}"] if switches and draw(st.booleans()) else []), *written]


@given(
    st.lists(words_of_options(), max_size=5),
    st.sampled_from([["Tasks"], ["-"], ["--", "-r"], ["--", "-erx"]]),
    st.sampled_from(["now", "-er", "it's", "u\udcff x", "a\nb"]),
    st.booleans(),
)
def test_however_options_are_written_the_command_that_resumes_differs_in_what_it_resumes_alone(
    pieces: list[list[str]],
    task_file: list[str],
    status_file: str,
    retry: bool,
) -> None:
    arguments = [*itertools.chain.from_iterable(pieces), *task_file]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            before = parsed(DriverOptions, *arguments)
    except (UsageError, SystemExit):
        assume(condition=False)
    command = resume_command(["disbatch"], arguments, status_file, retry=retry)
    assert command.isprintable()
    _, *words = words_that_bash_reads(command)
    [path] = parsed(DriverOptions, *words).resume_from
    assert os.path.normpath(path) == status_file
    assert parsed(DriverOptions, *words) == replace(before, resume_from=(path,), retry=before.retry or retry)


def words_that_bash_reads(command: str) -> list[str]:
    """As `shlex.split`, with bash's $'...' for what is not printable."""
    plain = re.sub(r"\$'((?:[^'\\]|\\[0-7]{3})*)'", lambda match: shlex.quote(unescaped(match[1])), command)
    return shlex.split(plain)


def unescaped(text: str) -> str:
    content = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text.encode())
    return content.decode(errors="surrogateescape")
