"""The forms of what users write down for disbatch: hosts, addresses, numbers, in options and in the environment.

Pure. Each form is read by a function that raises ValueError, which says what is wrong with it and how to write it.
"""

from __future__ import annotations

import math

from disbatch.errors import UsageError
from disbatch.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SSH_NODES_VARIABLE = "DISBATCH_SSH_NODELIST"
CONTEXT_VARIABLE = "DISBATCH_CONTEXT"
MAIL_SERVER_VARIABLE = "DISBATCH_SMTP"
LOG_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")
LEAST_SECONDS = 0.1
MOST_SECONDS = 1_000_000
"""Eleven days; a wait of epoll takes 24 at most."""
MOST_CORES = 100_000
LEAST_CORES_PER_TASK = 0.001
"""What lies beyond is a slip of the finger, and would have an engine make places for tasks until memory ends."""


@record
class SshNode:
    """A host and the number of its cores that a run may use."""

    host: str
    cores: int

    def __str__(self) -> str:
        return _with_number(self.host, self.cores)


@record
class Address:
    """Where a key-value store is bound: host ('' for every address of the machine) and port (0: any)."""

    host: str
    port: int

    def __str__(self) -> str:
        return _with_number(self.host, self.port)


def _with_number(host: str, number: int) -> str:
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"


def ssh_nodes(text: str) -> tuple[SshNode, ...]:
    """Nodes of a comma-separated list of HOST:N; raises ValueError that says which entry is wrong and how."""
    nodes = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        host, colon, count = entry.rpartition(":")
        if not colon or "]" in count:
            raise ValueError(f"{entry!r} has no core count; write it as HOST:N, for example {f'{entry}:4'!r}")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]  # an IPv6 address, for which ssh wants no brackets
        elif ":" in host:  # of which the last part may be a core count, or its own
            raise ValueError(f"{entry!r} has too many colons; write an IPv6 address as [ADDRESS]:N: '[fd00::1]:4'")
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


def server_address(text: str) -> Address:
    """Address of a key-value store that runs, HOST:PORT or [HOST]:PORT with a port above 0; raises ValueError."""
    try:
        server = _server(text)
    except ValueError:
        hint = "write it as HOST:PORT; the option alone has to be the last word"
        raise ValueError(f"{text!r} is no address of a server; {hint}") from None
    return server


LOCAL_MAIL_SERVER = Address("localhost", 25)


def mail_server_of_environment(environment: Mapping[str, str]) -> Address:
    """Where mails are handed in; raises `UsageError` when the environment names that in a form that cannot be read."""
    text = environment.get(MAIL_SERVER_VARIABLE, "")
    if not text:
        return LOCAL_MAIL_SERVER
    try:
        return _server(text)
    except ValueError:
        hint = "write it as HOST:PORT"
        raise UsageError(f"{MAIL_SERVER_VARIABLE}: {text!r} is no address of a mail server", hint) from None


def _server(text: str) -> Address:
    server = address(text)
    if not (server.host and server.host.isprintable() and server.port):
        raise ValueError("no server is there")
    return server


def cores_per_task(text: str) -> float:
    """Cores of a task, perhaps a fraction; raises ValueError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"it must be a number above 0, not {text!r}")
    if value < LEAST_CORES_PER_TASK:
        raise ValueError(f"it must be at least {LEAST_CORES_PER_TASK}, not {text!r}")
    return value


def at_least_one(text: str) -> int:
    """A whole number above 0; raises ValueError."""
    return _whole_number(text, 1)


def at_least_zero(text: str) -> int:
    """A whole number, 0 included; raises ValueError."""
    return _whole_number(text, 0)


def seconds(text: str) -> float:
    """A time in seconds, a tenth at least; raises ValueError."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not LEAST_SECONDS <= value <= MOST_SECONDS:
        raise ValueError(f"it must be a number of seconds from {LEAST_SECONDS} to {MOST_SECONDS}, not {text!r}")
    return value


def _whole_number(text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise ValueError(f"it must be a whole number of at least {least}, not {text!r}")
    return int(text)


def log_level(text: str) -> str:
    """Level of a log, however it is spelled; raises ValueError."""
    level = text.upper()
    if level not in LOG_LEVELS:
        raise ValueError(f"it must be one of {', '.join(LOG_LEVELS)}, not {text!r}")
    return level


def one_line(text: str) -> str:
    """A text that can stand in a line of a log or in the name of a file; raises ValueError."""
    if not text or not text.isprintable():
        raise ValueError("it must be printable and not empty")
    return text


def mail_address(text: str) -> str:
    """Mail address; raises ValueError."""
    if not text.isprintable() or not text.strip("@") or set(' ,;:<>()[]"') & set(text):
        raise ValueError(f"it must be one mail address, not {text!r}")
    return text


def path(text: str) -> str:
    """Text that is not empty; raises ValueError."""
    if not text:
        raise ValueError("it must not be empty")
    return text


def shell_word(text: str) -> str:
    """The word that bash reads as `text`, for a command to be pasted; also of a file name that is no UTF-8."""
    import shlex  # noqa: PLC0415 - it takes `re`, together 2 ms, for what only drivers say at their ends

    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_escaped(character) for character in text) + "'"


def _escaped(character: str) -> str:
    if character.isprintable() and character not in "\\'":
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode(errors="surrogateescape"))
