"""Every option of every role of the command line, each declared once.

Pure. A role's options are the fields of a record; `arguments` makes of them the parser, the help, and the arguments
that one role starts another with. It must not know what is done with a value.
"""

from __future__ import annotations

from disbatch import __version__
from disbatch.arguments import Role, declared_by, option, parse
from disbatch.errors import UsageError
from disbatch.records import record
from disbatch.values import (
    LOG_LEVELS,
    MAIL_SERVER_VARIABLE,
    SSH_NODES_VARIABLE,
    Address,
    SshNode,
    address,
    at_least_one,
    at_least_zero,
    cores_per_task,
    log_level,
    mail_address,
    one_line,
    path,
    seconds,
    server_address,
    shell_word,
    ssh_nodes,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

CONTEXT_ROLE = "--context"
ENGINE_ROLE = "--engine"
MONITOR_ROLE = "--mon"
STATUS_ROLE = "--status"
FAILURES_ROLE = "--failures"
PAGE_ROLE = "--web-page"
HEARTBEATS_IN_PATIENCE = 3
"""How often a host has to be able to say that it is there before it is given up."""

STOPPABLE = ("context", "engine")

RESUME_ADVICE = "to go on where this run left off: "
"""What a driver says before a command that `resume_command` has made."""

RETRY_ADVICE = "to run again what failed: "
"""What it says before such a command that retries."""

LOOPBACK = Address("127.0.0.1", 0)
"""Where the web page is unless the user wants it elsewhere."""

OF_ENVIRONMENT = Address("", 0)
"""Stands for the key-value store that the environment names."""

GPU_HAS_NO_EFFECT = "-g/--gpu has no effect any more; -E VARIABLE gives each task an element of a list, such as one GPU"
"""What users hear who give that option, in whatever role."""

TASKS = "tasks"
HOSTS = "hosts and cores"
FAILURES = "failed tasks, and resuming"
FILES = "files of the run"
STORE = "key-value store of the run"
OTHER = "other"
GROUPS = (TASKS, HOSTS, FAILURES, FILES, STORE, OTHER)
"""Headings of the help, in their order."""


def _cores_per_task(default: str) -> Any:  # noqa: ANN401 - as `option`
    return option(
        "-c",
        "--cpusPerTask",
        metavar="N",
        convert=cores_per_task,
        group=HOSTS,
        help=f"cores per task; may be fractional: 0.5 runs two tasks at once on a core (default: {default})",
    )


def _tasks_per_node(default: str) -> Any:  # noqa: ANN401 - as `option`
    return option(
        "-t",
        "--tasksPerNode",
        metavar="N",
        convert=at_least_one,
        group=HOSTS,
        help=f"run at most N tasks at once on each host (default: {default})",
    )


def _label(default: str) -> Any:  # noqa: ANN401 - as `option`
    return option(
        "-l",
        "--label",
        metavar="NAME",
        convert=one_line,
        group=HOSTS,
        help=f"what these hosts together are called in names of log files (default: {default})",
    )


def _log_level(default: str) -> Any:  # noqa: ANN401 - as `option`
    return option(
        "--loglevel",
        default="INFO",
        convert=log_level,
        choices=LOG_LEVELS,
        group=FILES,
        help=f"how much goes into the logs (default: {default})",
    )


def _as_json(of: str) -> Any:  # noqa: ANN401 - as `option`
    return option("--json", default=False, group=OTHER, help=f"with {of}: as JSON, for scripts")


@record
class ContextOptions:
    """What a user may ask of a context; the driver hands its own on to each context that is not told otherwise."""

    task_limit: int = option(
        "-C",
        "--context-task-limit",
        metavar="N",
        convert=at_least_zero,
        default=0,
        group=HOSTS,
        help="give these hosts N tasks at most, and let them go then (default: 0, any number)",
    )
    cpus_per_task: float | None = _cores_per_task("1; under Slurm what that was asked for")
    gpu: bool = option(
        "-g",
        "--gpu",
        default=False,
        group=HOSTS,
        help="deprecated: it is accepted and has no effect",
    )
    fill: bool = option(
        "--fill",
        default=False,
        group=HOSTS,
        help="in a Slurm job: use all of its cores, although it asked for fewer tasks",
    )
    label: str | None = _label("SSH0; in a job J and its number")
    no_retire: bool = option(
        "--no-retire",
        default=False,
        group=HOSTS,
        help="keep the nodes of a job until the run ends, also those that it has no more tasks for",
    )
    retire_command: str | None = option(
        "--retire-cmd",
        metavar="COMMAND",
        convert=path,
        group=HOSTS,
        help="shell command that gives nodes back that are needed no longer: $NODES, while $ACTIVE are in use "
        "(default: under Slurm scontrol, elsewhere none)",
    )
    ssh_nodes: tuple[tuple[SshNode, ...], ...] = option(
        "-s",
        "--ssh-node",
        metavar="HOST:N",
        convert=ssh_nodes,
        many=True,
        group=HOSTS,
        help="run on N cores of HOST: localhost and this machine directly, others through ssh; may be given several "
        f"times, and as a comma-separated list; needed unless {SSH_NODES_VARIABLE} in the environment is one, or "
        "this is a job of Slurm, PBS, LSF or Grid Engine",
    )
    tasks_per_node: int | None = _tasks_per_node(
        "as many as its cores allow; under Slurm as many as that was asked for"
    )
    environment_resources: tuple[str, ...] = option(
        "-E",
        "--env-resource",
        metavar="VAR",
        convert=one_line,
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


@record
class DriverOptions(ContextOptions):
    """What a user may ask of a run."""

    task_file: str | None = option(
        metavar="taskfile",
        group=TASKS,
        path=True,
        help="file of tasks, one bash command a line; - for standard input",
    )
    task_command: str | None = option(
        "--taskcommand",
        metavar="COMMAND",
        convert=path,
        group=TASKS,
        help="instead of a file: start this shell command, and take the tasks that it submits to the key-value store",
    )
    task_server: Address | None = option(
        "--taskserver",
        metavar="HOST:PORT",
        convert=server_address,
        alone=OF_ENVIRONMENT,
        group=TASKS,
        help="instead of a file: take the tasks that programs submit to this key-value store (without a value: that of "
        "--kvsserver)",
    )
    kvs_server: Address | None = option(
        "--kvsserver",
        metavar="HOST:PORT",
        convert=server_address,
        alone=OF_ENVIRONMENT,
        group=STORE,
        help="share this key-value store, which runs already, with other programs (without a value: the one that "
        "KVSSTCP_HOST and KVSSTCP_PORT name)",
    )
    crash_limit: int = option(
        "--crash-limit",
        metavar="N",
        convert=at_least_zero,
        default=3,
        group=FAILURES,
        help="record a task as failed that was lost with its engine N times, each time while it ran; 0 for any number "
        "(default: 3)",
    )
    no_requeue: bool = option(
        "--no-requeue",
        default=False,
        group=FAILURES,
        help="record what was lost with its engine, or interrupted, as failed, for commands that must not run twice "
        "(default: it runs again)",
    )
    heartbeat: float = option(
        "--heartbeat",
        metavar="SECONDS",
        convert=seconds,
        default=10.0,
        group=FAILURES,
        help="how often each host says that it is there (default: 10)",
    )
    heartbeat_patience: float = option(
        "--heartbeat-patience",
        metavar="SECONDS",
        convert=seconds,
        default=60.0,
        group=FAILURES,
        help="give what runs on a host to others when it has not been heard for so long; it ends that itself before, "
        "when it does not hear of the run for three quarters of the time (default: 60)",
    )
    exit_code: bool = option(
        "-e",
        "--exit-code",
        default=False,
        group=FAILURES,
        help="exit with 1 when a task failed (default: with 0 whenever the run went to its end)",
    )
    fail_fast: bool = option(
        "-f",
        "--fail-fast",
        default=False,
        group=FAILURES,
        help="when a task fails, interrupt those that run, start no other, exit with 1",
    )
    force_resume: bool = option(
        "--force-resume",
        default=False,
        group=FAILURES,
        help="with -r: go by task ids alone, even where the text of a task has changed (default: that is an error)",
    )
    insecure_kvs: bool = option(
        "--insecure-kvs",
        default=False,
        group=STORE,
        help="ask nobody for a secret of the run: whoever can connect to this machine can run commands as you",
    )
    log_file: str | None = option(
        "--logfile",
        metavar="FILE",
        convert=path,
        group=FILES,
        path=True,
        help="the driver's log (default: with the other files of the run, its name ending in _driver.log)",
    )
    log_level: str = _log_level("INFO")
    mail_frequency: int | None = option(
        "--mailFreq",
        metavar="N",
        convert=at_least_one,
        group=OTHER,
        help="with --mailTo: a mail every N finished tasks (default: 1)",
    )
    mail_to: str | None = option(
        "--mailTo",
        metavar="ADDR",
        convert=mail_address,
        group=OTHER,
        help="send mails on finished tasks to ADDR, and one at the end, through the mail server of this machine, or "
        f"the one at {MAIL_SERVER_VARIABLE} (HOST:PORT) in the environment",
    )
    no_fsync: bool = option(
        "--no-fsync",
        default=False,
        group=FILES,
        help="leave it to the system when lines of the status file get onto disk (default: see to it within 50 ms)",
    )
    no_encryption: bool = option(
        "--no-encryption",
        default=False,
        group=STORE,
        help="do not encrypt what goes between hosts; programs on other hosts may use the store without, too",
    )
    prefix: str = option(
        "-p",
        "--prefix",
        metavar="PATH",
        convert=path,
        default=".",
        group=FILES,
        path=True,
        help="where the run's files go: a directory, or a path whose last component begins their names (default: .)",
    )
    progress: str = option(
        "--progress",
        default="auto",
        choices=("auto", "on", "off"),
        group=OTHER,
        help="show how far the run is: on a terminal as a line at its bottom, elsewhere as a plain line now and then "
        "(auto), or every ten seconds (on) (default: auto)",
    )
    resume_from: tuple[str, ...] = option(
        "-r",
        "--resume-from",
        metavar="STATUSFILE",
        many=True,
        group=FAILURES,
        path=True,
        help="skip the tasks that an earlier run completed, by its status file; may be given several times",
    )
    retry: bool = option(
        "-R",
        "--retry",
        default=False,
        group=FAILURES,
        help="with -r: do not skip tasks that returned something other than 0, but run them again",
    )
    startup_only: bool = option(
        "-S",
        "--startup-only",
        default=False,
        group=HOSTS,
        help="begin without hosts: print the path of the script that adds some, and wait for it to be called",
    )
    status_header: bool = option(
        "--status-header",
        default=False,
        group=FILES,
        help="begin the status file with a line that names its columns",
    )
    use_address: Address | None = option(
        "--use-address",
        metavar="HOST:PORT",
        convert=address,
        group=STORE,
        help="the address of this machine that the other hosts of the run connect to; port 0: any free one (default: "
        "listen at all addresses, and tell the others one that leads here)",
    )
    web: bool = option(
        "-w",
        "--web",
        default=False,
        group=OTHER,
        help="show the run in a browser: print the URL of a page that tells how it goes, with buttons that stop hosts",
    )
    web_address: Address = option(
        "--web-address",
        metavar="HOST:PORT",
        convert=address,
        default=LOOPBACK,
        group=OTHER,
        help="with -w: the address of this machine that the page is at; port 0: any free one (default: 127.0.0.1:0, "
        "which no other machine reaches)",
    )


@record
class JoinOptions:
    """What a context or an engine is told about the run that it joins."""

    run: str = option("--run", metavar="UNIQUE_ID", default="", group=OTHER, help="", hidden=True)
    kvs: Address = option(
        "--kvs", metavar="HOST:PORT", convert=address, default=Address("", 0), group=OTHER, help="", hidden=True
    )
    log_level: str = _log_level("what the run was started with")


@record
class ContextRoleOptions(ContextOptions, JoinOptions):
    """The command line of a context; `token` is empty where it has to find itself one."""

    cpus_per_task: float | None = _cores_per_task("what the run was started with")
    label: str | None = _label("SSH and a number, in the order of coming")
    tasks_per_node: int | None = _tasks_per_node("what the run was started with")
    failures: bool = option(
        "--failures",
        default=False,
        group=FAILURES,
        help="add nothing: print what has failed in the run so far, and of what, and how to run it again",
    )
    kvs_env: bool = option(
        "--kvs-env",
        default=False,
        group=STORE,
        help="add nothing: print where the run's key-value store is, and the secret of programs that share it, as "
        "lines NAME=value for their environment",
    )
    mon: bool = option(
        "--mon",
        default=False,
        group=OTHER,
        help="add nothing: show the run on this terminal while it goes on, and stop hosts by keys",
    )
    now: bool = option(
        "--now",
        default=False,
        group=HOSTS,
        help="with --stop: end what runs there at once; others run it again",
    )
    status: bool = option(
        "--status",
        default=False,
        group=OTHER,
        help="add nothing: print how the run goes",
    )
    json: bool = _as_json("--status or --failures")
    stop: tuple[str, ...] = option(
        "--stop",
        metavar=("KIND", "NAME"),
        words=2,
        group=HOSTS,
        help="add nothing: let the context of that label (--stop context SSH1), or the engine on that host (--stop "
        "engine h2), finish what runs there and leave; a number is a name too, that of the log file",
    )
    token: str = option("--token", metavar="TOKEN", default="", group=OTHER, help="", hidden=True)


@record
class FailuresOptions:
    """What a user may ask of those who tell what failed in runs."""

    status_files: tuple[str, ...] = option(
        metavar="STATUSFILE",
        many=True,
        group=FAILURES,
        path=True,
        help="status file of a run, or of several that resume one another: what has succeeded in one has not failed",
    )
    json: bool = option("--json", default=False, group=OTHER, help="as JSON, for scripts")


@record
class EngineRoleOptions(JoinOptions):
    """The command line of an engine."""

    label: str = option("--label", metavar="NAME", default="", group=OTHER, help="label of the context", hidden=True)
    node: str = option(
        "--node", metavar="NAME", default="", group=OTHER, help="the node as the context names it", hidden=True
    )
    rank: int = option(
        "--rank", metavar="N", convert=int, default=0, group=OTHER, help="rank of the engine", hidden=True
    )
    place_variable: str = option(
        "--place-variable",
        metavar="NAME",
        default="",
        group=OTHER,
        help="variable that says which of the engine's processes this is, where each cylinder is one: 0 and up",
        hidden=True,
    )


@record
class ObserverRoleOptions:
    """The command line of those who look at a run by its file for observers."""

    observer_file: str = option(
        metavar="OBSERVERFILE",
        default="",
        group=OTHER,
        path=True,
        help="the file of the run whose name ends in _observer.txt, or a copy of it",
    )
    json: bool = _as_json("--status")


@record
class PageRoleOptions(JoinOptions):
    """The command line of a web page; what must not be seen in it comes through its standard input."""


DRIVER = Role(
    DriverOptions,
    "Run a file of tasks, one bash command a line, over the cores of this machine and of other hosts, and write down "
    "how each one went.",
    GROUPS,
    usage="%(prog)s [option ...] taskfile",
    epilog="For example, %(prog)s -s localhost:4,otherhost:16 Tasks runs the lines of Tasks, four at once on this "
    "machine and sixteen at once on another. The exit status is 0 when the run went to its end, 1 when it did not, 2 "
    "for a mistake in the options, 130 or 143 after Ctrl-C or SIGTERM. %(prog)s --mon FILE shows a run that goes on, "
    "and %(prog)s --status FILE prints how it goes, where FILE is that of the run whose name ends in _observer.txt. "
    "%(prog)s --failures STATUSFILE tells what has failed in a run, and of what.",
    version=__version__,
)
FAILURES_OF_RUN = Role(
    FailuresOptions,
    "Tell what failed in a run, by its status file: failures of one cause together, with an example of each.",
    (FAILURES, OTHER),
    usage="%(prog)s STATUSFILE ... [--json]",
)
CONTEXT = Role(
    ContextRoleOptions,
    "Add hosts to the run that this script belongs to, and wait until it ends; Ctrl-C takes them away again.",
    GROUPS,
)
ENGINE = Role(
    EngineRoleOptions,
    "Run the tasks of one host. A run starts its engines itself; this is not for use by hand.",
    GROUPS,
)
PAGE = Role(
    PageRoleOptions,
    "Serve the web page of a run. A run starts it itself (-w); this is not for use by hand.",
    GROUPS,
)

OBSERVER = Role(
    ObserverRoleOptions,
    "Show a run that goes on, to whoever has its file for observers: --mon on this terminal, --status once, as text or "
    "JSON.",
    (OTHER,),
    usage="%(prog)s [option ...] OBSERVERFILE",
)


def parse_driver(arguments: Sequence[str], program: str) -> DriverOptions:
    """Options of a driver that fit together; raises `UsageError` with one line on a user's mistake."""
    options: DriverOptions = parse(DRIVER, arguments, program)
    check_driver(options)
    return options


def parse_context(arguments: Sequence[str], program: str) -> ContextRoleOptions:
    """Options of a context that fit together; raises as `parse_driver` does."""
    options: ContextRoleOptions = parse(CONTEXT, arguments, program)
    if options.stop and options.stop[0] not in STOPPABLE:
        raise UsageError(
            f"argument --stop: {options.stop[0]!r} cannot be stopped", "write --stop context NAME or --stop engine NAME"
        )
    instead = [
        flag
        for flag, given in (
            ("--stop", options.stop),
            ("--kvs-env", options.kvs_env),
            ("--mon", options.mon),
            ("--status", options.status),
            ("--failures", options.failures),
        )
        if given
    ]
    if len(instead) > 1:
        raise UsageError(f"{' and '.join(instead)} exclude one another", "give one of them, and then the other")
    if options.json and not (options.status or options.failures):
        raise UsageError("--json needs --status or --failures", "name what is to be printed")
    _check_retirement(options)
    if options.now and not options.stop:
        raise UsageError("--now needs --stop", "name what is to be stopped")
    if not options.run:
        raise UsageError(f"{CONTEXT_ROLE} is told its run by the run's script", "call that, <unique id>_dbUtil.sh")
    return options


def parse_failures(arguments: Sequence[str]) -> FailuresOptions:
    """Options of those who tell what failed; raises as `parse_driver` does."""
    program = f"disbatch {FAILURES_ROLE}"
    options: FailuresOptions = parse(FAILURES_OF_RUN, arguments, program)
    if not options.status_files:
        raise UsageError("the following arguments are required: STATUSFILE", f"see {program} --help")
    return options


def parse_engine(arguments: Sequence[str], program: str) -> EngineRoleOptions:
    """Options of an engine; raises as `parse_driver` does."""
    options: EngineRoleOptions = parse(ENGINE, arguments, program)
    return options


def parse_observer(arguments: Sequence[str], role: str) -> ObserverRoleOptions:
    """Options of one who looks at a run, live or once as `role` says; raises as `parse_driver` does."""
    program = f"disbatch {role}"
    options: ObserverRoleOptions = parse(OBSERVER, arguments, program)
    if not options.observer_file:
        raise UsageError("the following arguments are required: OBSERVERFILE", f"see {program} --help")
    if options.json and role != STATUS_ROLE:
        raise UsageError(f"--json needs {STATUS_ROLE}", "leave it out, or ask for that")
    return options


def parse_page(arguments: Sequence[str], program: str) -> PageRoleOptions:
    """Options of a web page; raises as `parse_driver` does."""
    options: PageRoleOptions = parse(PAGE, arguments, program)
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
    if options.startup_only and options.retire_command is not None:
        raise UsageError(
            "-S begins without hosts, and --retire-cmd gives some back",
            "give --retire-cmd to the script that adds them",
        )
    _check_retirement(options)
    if round(options.heartbeat * HEARTBEATS_IN_PATIENCE - options.heartbeat_patience, 6) > 0:  # 3 * 0.1 is not 0.3
        raise UsageError(
            f"--heartbeat {options.heartbeat:g} is too slow for --heartbeat-patience {options.heartbeat_patience:g}",
            f"let the patience be {HEARTBEATS_IN_PATIENCE} times as long at least",
        )
    _check_companions(options)
    if not options.resume_from:
        for given, flag in ((options.retry, "-R"), (options.force_resume, "--force-resume")):
            if given:
                raise UsageError(f"{flag} needs -r STATUSFILE", "name the status file of the run to resume")


def _check_companions(options: DriverOptions) -> None:
    """See that what only says more about another option does not stand alone."""
    if options.mail_frequency is not None and options.mail_to is None:
        raise UsageError("--mailFreq needs --mailTo ADDR", "name the address that mails go to")
    if options.web_address != LOOPBACK and not options.web:
        raise UsageError("--web-address needs -w", "ask for a web page with -w")


def _check_retirement(options: ContextOptions) -> None:
    if options.retire_command is not None and options.ssh_nodes:
        raise UsageError(
            "--retire-cmd gives back nodes of a job, and -s names hosts instead", "leave out one of the two"
        )


def resume_command(program: Sequence[str], arguments: Sequence[str], status_file: str, *, retry: bool = False) -> str:
    """Shell command that goes on where a run left off: the same arguments, but with its status file to resume from.

    That holds what its own `-r` files held. With `retry` it also runs again what failed.
    """
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        switches = _in_front_of_r(word)
        if word == "--":
            kept += [word, *words]
        elif word == "--resume-from":
            next(words, None)
        elif switches is not None:
            kept += [f"-{switches}"] * bool(switches)
            if word == f"-{switches}r":
                next(words, None)
        elif not word.startswith("--resume-from="):
            kept.append(word)
    resume = ["-r", f"./{status_file}" if status_file.startswith("-") else status_file, *["-R"] * retry]
    # Behind a `--` an option is none.
    command = [*program, *resume, *kept] if "--" in kept else [*program, *kept, *resume]
    return " ".join(map(shell_word, command))


def _in_front_of_r(word: str) -> str | None:
    """Switches that stand before `-r` in a word of short options; None in a word that has none."""
    switches = {
        flag[1]
        for declared in declared_by(DriverOptions).values()
        for flag in declared.flags
        if declared.default is False and not flag.startswith("--")
    }
    before, r, _ = word[1:].partition("r")
    return before if word.startswith("-") and r and set(before) <= switches else None
