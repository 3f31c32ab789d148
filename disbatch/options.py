"""Every option of every role of the command line, each declared once.

Pure. A role's options are the fields of a dataclass; from them come the parser, the help, and the argument list that
one role starts another with. It must not know what is done with a value.
"""

from __future__ import annotations

import argparse
import math
import shlex
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from disbatch import __version__
from disbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SSH_NODES_VARIABLE = "DISBATCH_SSH_NODELIST"
MAIL_SERVER_VARIABLE = "DISBATCH_SMTP"
MOST_CORES = 100_000
LEAST_CORES_PER_TASK = 0.001
"""What lies beyond is a slip of the finger, and would have an engine make places for tasks until memory ends."""
LOG_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")
CONTEXT_ROLE = "--context"
ENGINE_ROLE = "--engine"

DRIVER_DESCRIPTION = (
    "Run a file of tasks, one bash command a line, over the cores of this machine and of other hosts, and write down "
    "how each one went."
)
CONTEXT_DESCRIPTION = (
    "Add hosts to the run that this script belongs to, and wait until it ends; Ctrl-C takes them away again."
)
ENGINE_DESCRIPTION = "Run the tasks of one host. A run starts its engines itself; this is not for use by hand."

TASKS = "tasks"
HOSTS = "hosts and cores"
FAILURES = "failed tasks, and resuming"
FILES = "files of the run"
STORE = "key-value store of the run"
OTHER = "other"
GROUPS = (TASKS, HOSTS, FAILURES, FILES, STORE, OTHER)
"""Headings of the help, in their order."""


def _option(
    *flags: str,
    help: str,  # noqa: A002 - what argparse calls it
    default: Any = None,  # noqa: ANN401 - each field declares its type
    metavar: str | None = None,
    convert: Callable[[str], Any] | None = None,
    choices: Sequence[str] | None = None,
    many: bool = False,
    alone: Any = None,  # noqa: ANN401 - as default
    hidden: bool = False,
    group: str = OTHER,
    path: bool = False,
) -> Any:  # noqa: ANN401 - each field declares its type
    """Declare a field of an options class as an option; without flags it is a positional argument.

    `many`: a tuple that grows with each use. A default of False makes a switch. `alone`: what an option means that is
    given without a value. `group`: one of GROUPS. `path`: a shell completes it with the names of files. What is
    `hidden` is not in the help, but in the reference if it has one.
    """
    metadata = {
        "flags": flags,
        "help": argparse.SUPPRESS if hidden else help,
        "reference": help,
        "group": group,
        "path": path,
        "metavar": metavar,
        "convert": convert,
        "choices": choices,
        "many": many,
        "alone": alone,
    }
    return field(default=() if many else default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class SshNode:
    """A host and the number of its cores that a run may use."""

    host: str
    cores: int


@dataclass(frozen=True, slots=True)
class Address:
    """Where a key-value store is bound: host ('' for every address of the machine) and port (0: any)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


OF_ENVIRONMENT = Address("", 0)
"""Stands for the key-value store that the environment names."""


def ssh_nodes(text: str) -> tuple[SshNode, ...]:
    """Nodes of a comma-separated list of HOST:N; raises ValueError that says which entry is wrong and how."""
    nodes = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        host, colon, count = entry.rpartition(":")
        if not colon:
            raise ValueError(f"{entry!r} has no core count; write it as HOST:N, for example {f'{entry}:4'!r}")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]  # an IPv6 address, for which ssh wants no brackets
        if not host:
            raise ValueError(f"{entry!r} names no host; write it as HOST:N, for example 'localhost:4'")
        if not host.isprintable() or host.startswith("-") or set(" []") & set(host):
            raise ValueError(f"{host!r} is no host name")
        if not (count.isascii() and count.isdigit()) or int(count) == 0:
            raise ValueError(f"the core count of {host!r} must be a whole number of at least 1, not {count!r}")
        if int(count) > MOST_CORES:
            raise ValueError(f"the core count of {host!r} may be {MOST_CORES} at most, not {count}")
        nodes.append(SshNode(host, int(count)))
    if not nodes:
        raise ValueError("it names no host; write HOST:N, for example localhost:4")
    return tuple(nodes)


def ssh_nodes_of_environment(environment: Mapping[str, str]) -> tuple[SshNode, ...]:
    """Nodes that the environment names; raises `UsageError` when it names none, or in a form that cannot be read."""
    text = environment.get(SSH_NODES_VARIABLE, "")
    if not text:
        raise UsageError("no resources to run on", "name hosts and their cores, for example -s localhost:4")
    try:
        return ssh_nodes(text)
    except ValueError as error:
        raise UsageError(f"{SSH_NODES_VARIABLE}: {error}") from error


def address(text: str) -> Address:
    """Address written as HOST:PORT or [HOST]:PORT; raises ValueError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    is_port = port.isascii() and port.isdigit() and int(port) <= 65535  # noqa: PLR2004 - the last port
    if not colon or "[" in host or "]" in host or not is_port:
        raise ValueError(f"{text!r} is no address; write it as HOST:PORT, with port 0 for any")
    return Address(host, int(port))


LOCAL_MAIL_SERVER = Address("localhost", 25)


def mail_server_of_environment(environment: Mapping[str, str]) -> Address:
    """Where mails are handed in; raises `UsageError` when the environment names that in a form that cannot be read."""
    text = environment.get(MAIL_SERVER_VARIABLE, "")
    if not text:
        return LOCAL_MAIL_SERVER
    try:
        server = address(text)
    except ValueError:
        server = Address("", 0)
    if not (server.host and server.host.isprintable() and server.port):
        raise UsageError(f"{MAIL_SERVER_VARIABLE}: {text!r} is no address of a mail server", "write it as HOST:PORT")
    return server


def _cores(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"it must be a number above 0, not {text!r}")
    if value < LEAST_CORES_PER_TASK:
        raise ValueError(f"it must be at least {LEAST_CORES_PER_TASK}, not {text!r}")
    return value


def _at_least_one(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        raise ValueError(f"it must be a whole number of at least 1, not {text!r}")
    return int(text)


def _at_least_zero(text: str) -> int:
    return 0 if text == "0" else _at_least_one(text)


def _one_line(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("it must be printable and not empty")
    return text


def _mail_address(text: str) -> str:
    if not text.isprintable() or not text.strip("@") or set(' ,;:<>()[]"') & set(text):
        raise ValueError(f"it must be one mail address, not {text!r}")
    return text


def _path(text: str) -> str:
    if not text:
        raise ValueError("it must not be empty")
    return text


@dataclass(frozen=True)  # no slots: a role that joins two of these classes could not have them
class ContextOptions:
    """What a user may ask of a context; the driver hands its own on to each context that is not told otherwise."""

    task_limit: int = _option(
        "-C",
        "--context-task-limit",
        metavar="N",
        convert=_at_least_zero,
        default=0,
        group=HOSTS,
        help="give these hosts N tasks at most, and let them go then (default: 0, any number)",
    )
    cpus_per_task: float | None = _option(
        "-c",
        "--cpusPerTask",
        metavar="N",
        convert=_cores,
        group=HOSTS,
        help="cores per task; may be fractional: 0.5 runs two tasks at once on a core (default: 1; in dbUtil.sh: what "
        "the run was started with)",
    )
    label: str | None = _option(
        "-l",
        "--label",
        metavar="NAME",
        convert=_one_line,
        group=HOSTS,
        help="what these hosts together are called in names of log files (default: SSH0; for hosts added later SSH1, "
        "SSH2, ...)",
    )
    ssh_nodes: tuple[tuple[SshNode, ...], ...] = _option(
        "-s",
        "--ssh-node",
        metavar="HOST:N",
        convert=ssh_nodes,
        many=True,
        group=HOSTS,
        help="run on N cores of HOST: localhost and this machine directly, others through ssh; may be given several "
        f"times, and as a comma-separated list; needed unless {SSH_NODES_VARIABLE} in the environment is one",
    )
    tasks_per_node: int | None = _option(
        "-t",
        "--tasksPerNode",
        metavar="N",
        convert=_at_least_one,
        group=HOSTS,
        help="run at most N tasks at once on each host (default: as many as its cores allow; in dbUtil.sh: what the "
        "run was started with)",
    )
    environment_resources: tuple[str, ...] = _option(
        "-E",
        "--env-resource",
        metavar="VAR",
        convert=_one_line,
        many=True,
        hidden=True,
        group=HOSTS,
        help="give each place for tasks on a host one element of the variable VAR, a comma-separated list in the "
        "environment there; its tasks see that element as VAR; fewer elements, fewer tasks at once; may be given "
        "several times",
    )

    @property
    def nodes(self) -> tuple[SshNode, ...]:
        """All hosts that -s names, in order, with repetitions."""
        return tuple(node for group in self.ssh_nodes for node in group)


@dataclass(frozen=True)
class DriverOptions(ContextOptions):
    """What a user may ask of a run."""

    task_file: str | None = _option(
        metavar="taskfile",
        group=TASKS,
        path=True,
        help="file of tasks, one bash command a line; - for standard input",
    )
    task_command: str | None = _option(
        "--taskcommand",
        metavar="COMMAND",
        convert=_path,
        group=TASKS,
        help="instead of a file: start this shell command, and take the tasks that it submits to the key-value store",
    )
    task_server: Address | None = _option(
        "--taskserver",
        metavar="HOST:PORT",
        convert=address,
        alone=OF_ENVIRONMENT,
        group=TASKS,
        help="instead of a file: take the tasks that programs submit to this key-value store (without a value: that of "
        "--kvsserver)",
    )
    kvs_server: Address | None = _option(
        "--kvsserver",
        metavar="HOST:PORT",
        convert=address,
        alone=OF_ENVIRONMENT,
        group=STORE,
        help="share this key-value store, which runs already, with other programs (without a value: the one that "
        "KVSSTCP_HOST and KVSSTCP_PORT name)",
    )
    exit_code: bool = _option(
        "-e",
        "--exit-code",
        default=False,
        group=FAILURES,
        help="exit with 1 when a task failed (default: with 0 whenever the run went to its end)",
    )
    fail_fast: bool = _option(
        "-f",
        "--fail-fast",
        default=False,
        group=FAILURES,
        help="when a task fails, interrupt those that run, start no other, exit with 1",
    )
    force_resume: bool = _option(
        "--force-resume",
        default=False,
        group=FAILURES,
        help="with -r: go by task ids alone, even where the text of a task has changed (default: that is an error)",
    )
    insecure_kvs: bool = _option(
        "--insecure-kvs",
        default=False,
        group=STORE,
        help="ask nobody for the secret of the run: whoever can connect to this machine can run commands as you",
    )
    log_file: str | None = _option(
        "--logfile",
        metavar="FILE",
        convert=_path,
        group=FILES,
        path=True,
        help="the driver's log (default: with the other files of the run, its name ending in _driver.log)",
    )
    log_level: str = _option(
        "--loglevel",
        default="INFO",
        convert=str.upper,
        choices=LOG_LEVELS,
        group=FILES,
        help="how much goes into the logs (default: INFO)",
    )
    mail_frequency: int | None = _option(
        "--mailFreq",
        metavar="N",
        convert=_at_least_one,
        help="with --mailTo: a mail every N finished tasks (default: 1)",
    )
    mail_to: str | None = _option(
        "--mailTo",
        metavar="ADDR",
        convert=_mail_address,
        help="send mails on finished tasks to ADDR, and one at the end, through the mail server of this machine, or "
        f"the one at {MAIL_SERVER_VARIABLE} (HOST:PORT) in the environment",
    )
    prefix: str = _option(
        "-p",
        "--prefix",
        metavar="PATH",
        convert=_path,
        default=".",
        group=FILES,
        path=True,
        help="where the run's files go: a directory, or a path whose last component begins their names (default: .)",
    )
    resume_from: tuple[str, ...] = _option(
        "-r",
        "--resume-from",
        metavar="STATUSFILE",
        many=True,
        group=FAILURES,
        path=True,
        help="skip the tasks that an earlier run completed, by its status file; may be given several times",
    )
    retry: bool = _option(
        "-R",
        "--retry",
        default=False,
        group=FAILURES,
        help="with -r: do not skip tasks that returned something other than 0, but run them again",
    )
    startup_only: bool = _option(
        "-S",
        "--startup-only",
        default=False,
        group=HOSTS,
        help="begin without hosts: print the path of the script that adds some, and wait for it to be called",
    )
    status_header: bool = _option(
        "--status-header",
        default=False,
        group=FILES,
        help="begin the status file with a line that names its columns",
    )
    use_address: Address | None = _option(
        "--use-address",
        metavar="HOST:PORT",
        convert=address,
        group=STORE,
        help="the address of this machine that the other hosts of the run connect to; port 0: any free one (default: "
        "listen at all addresses, and tell the others one that leads here)",
    )


@dataclass(frozen=True)
class JoinOptions:
    """What a context or an engine is told about the run that it joins."""

    run: str = _option("--run", metavar="UNIQUE_ID", default="", help="", hidden=True)
    kvs: Address = _option("--kvs", metavar="HOST:PORT", convert=address, default=Address("", 0), help="", hidden=True)
    log_level: str = _option(
        "--loglevel",
        default="INFO",
        convert=str.upper,
        choices=LOG_LEVELS,
        group=FILES,
        help="how much goes into the logs (default: INFO; in dbUtil.sh: what the run was started with)",
    )


@dataclass(frozen=True)
class ContextRoleOptions(ContextOptions, JoinOptions):
    """The command line of a context; `token` is empty where it has to find itself one."""

    kvs_env: bool = _option(
        "--kvs-env",
        default=False,
        group=STORE,
        help="add nothing: print where the run's key-value store is, and its secret, as lines NAME=value for the "
        "environment of programs",
    )
    token: str = _option("--token", metavar="TOKEN", default="", help="", hidden=True)


@dataclass(frozen=True)
class EngineRoleOptions(JoinOptions):
    """The command line of an engine."""

    label: str = _option("--label", metavar="NAME", default="", help="label of the context", hidden=True)
    node: str = _option("--node", metavar="NAME", default="", help="the node as the context names it", hidden=True)
    rank: int = _option("--rank", metavar="N", convert=int, default=0, help="rank of the engine", hidden=True)


_Options = TypeVar("_Options", bound="ContextOptions | JoinOptions")


_USAGE = "%(prog)s [option ...]"
_DRIVER_USAGE = "%(prog)s [option ...] taskfile"
_DRIVER_EPILOG = (
    "For example, %(prog)s -s localhost:4,otherhost:16 Tasks runs the lines of Tasks, four at once on this machine and "
    "sixteen at once on another. The exit status is 0 when the run went to its end, 1 when it did not, 2 for a mistake "
    "in the options, 130 or 143 after Ctrl-C or SIGTERM."
)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line, raised instead of printed."""

    def error(self, message: str) -> NoReturn:
        # Some of argparse's messages hold the user's words as they are, line ends included.
        shown = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in message)
        raise UsageError(shown, f"see {self.prog} --help")


def parser(
    options: type, program: str, description: str, *, complete_path: Callable[..., Sequence[str]] | None = None
) -> argparse.ArgumentParser:
    """Build the parser of a role; `complete_path` is what argcomplete is to complete names of files with."""
    is_driver = options is DriverOptions
    result = _Parser(
        prog=program,
        usage=_DRIVER_USAGE if is_driver else _USAGE,
        description=description,
        epilog=_DRIVER_EPILOG if is_driver else None,
        allow_abbrev=False,
        add_help=False,
    )
    groups = {title: result.add_argument_group(title) for title in GROUPS}
    groups[OTHER].add_argument("-h", "--help", action="help", help="print this help")
    if is_driver:
        groups[OTHER].add_argument("--version", action="version", version=__version__, help="print the version")
    for declared in declarations(options):
        metadata = dict(declared.metadata)
        action = _add_argument(groups[metadata["group"]], declared.name, declared.default, metadata)
        if complete_path is not None and metadata["path"]:
            action.completer = complete_path  # type: ignore[attr-defined] # where argcomplete looks for it
    return result


def declarations(options: type) -> list[Any]:
    """Fields of an options class in the order of the help: groups as in GROUPS, options by their long names."""
    return sorted(fields(options), key=_help_order)


def _help_order(declared: Any) -> tuple[int, str]:  # noqa: ANN401 - a dataclasses.Field of any type
    flags = declared.metadata["flags"]
    return GROUPS.index(declared.metadata["group"]), str(flags[-1]).lstrip("-").lower() if flags else ""


def _add_argument(
    target: argparse._ArgumentGroup, name: str, default: object, declared: dict[str, Any]
) -> argparse.Action:
    if not declared["flags"]:
        # That it is there is for `parse` to see to: argparse would not tell of an unknown option before it has come.
        action = target.add_argument(name, metavar=declared["metavar"], help=declared["help"])
        action.required = False
        return action
    arguments: dict[str, Any] = {"dest": name, "default": default, "help": declared["help"]}
    if default is False:
        arguments["action"] = "store_true"
    else:
        arguments.update(metavar=declared["metavar"], choices=declared["choices"])
        if declared["convert"] is not None:
            arguments["type"] = _argument_type(declared["convert"])
        if declared["alone"] is not None:
            arguments.update(nargs="?", const=declared["alone"])
        if declared["many"]:
            arguments.update(action="append", default=None)
    return target.add_argument(*declared["flags"], **arguments)


def _argument_type(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def converted(text: str) -> Any:  # noqa: ANN401 - each field declares its type
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return converted


def parse(options: type[_Options], arguments: Sequence[str], *, program: str, description: str) -> _Options:
    """Options of a role from its arguments; raises `UsageError` with one line on a user's mistake."""
    reader = parser(options, program, description)
    namespace = vars(reader.parse_args(arguments))
    for declared in fields(options):
        given = namespace[declared.name]
        if given == [] or (declared.metadata["many"] and [] in (given or ())):
            # What argparse makes of it before Python 3.13.
            reader.error(f"argument {'/'.join(declared.metadata['flags'])}: '--' cannot be its value")
    values: dict[str, Any] = {
        declared.name: tuple(namespace[declared.name] or ()) if declared.metadata["many"] else namespace[declared.name]
        for declared in fields(options)
    }
    return options(**values)


def arguments_for(options: object, names: Sequence[str] | None = None) -> list[str]:
    """Arguments that make a parser of a class with the same fields read these values; `names`: of these fields alone.

    Values at their defaults are left out, so what the reader inherits is not overridden by them.
    """
    result: list[str] = []
    for declared in fields(options):  # type: ignore[arg-type] # an instance of one of the classes above
        value = getattr(options, declared.name)
        if (names is not None and declared.name not in names) or value == declared.default:
            continue
        flags = declared.metadata["flags"]
        if value is True or (value == declared.metadata["alone"] and value is not None):
            result.append(flags[-1])
            continue
        elements = value if declared.metadata["many"] else (value,)
        # One word each, so that a value that begins with a dash is not taken for an option.
        result.extend(f"{flags[-1]}={_as_text(element)}" for element in elements)
    return result


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{node.host}:{node.cores}" for node in value)
    return str(value)


def parse_driver(arguments: Sequence[str], program: str) -> DriverOptions:
    """Options of a driver that fit together; raises `UsageError` with one line on a user's mistake."""
    options = parse(DriverOptions, arguments, program=program, description=DRIVER_DESCRIPTION)
    check_driver(options)
    return options


def check_driver(options: DriverOptions) -> None:
    """Raise `UsageError` for options that contradict or need one another."""
    sources = [options.task_file is not None, options.task_command is not None, options.task_server is not None]
    if not any(sources):
        raise UsageError("the following arguments are required: taskfile", "or give --taskcommand or --taskserver")
    if sum(sources) > 1:
        raise UsageError("a taskfile, --taskcommand and --taskserver exclude one another", "leave out all but one")
    if options.startup_only and options.ssh_nodes:
        raise UsageError("-S begins without hosts, and -s names some", "leave out one of the two")
    if options.mail_frequency is not None and options.mail_to is None:
        raise UsageError("--mailFreq needs --mailTo ADDR", "name the address that mails go to")
    if not options.resume_from:
        for given, flag in ((options.retry, "-R"), (options.force_resume, "--force-resume")):
            if given:
                raise UsageError(f"{flag} needs -r STATUSFILE", "name the status file of the run to resume")


def resume_command(program: Sequence[str], arguments: Sequence[str], status_file: str, *, retry: bool = False) -> str:
    """Shell command that goes on where a run left off: the same arguments, but with its status file to resume from.

    That holds what its own `-r` files held. With `retry` it also runs again what failed.
    """
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            kept += [word, *words]
        elif word in ("-r", "--resume-from"):
            next(words, None)
        elif not word.startswith(("-r", "--resume-from=")):
            kept.append(word)
    resume = ["-r", f"./{status_file}" if status_file.startswith("-") else status_file, *["-R"] * retry]
    # Behind a `--` an option is none.
    return shlex.join([*program, *resume, *kept] if "--" in kept else [*program, *kept, *resume])
