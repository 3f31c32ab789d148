"""`python -m disbatch.kvsstcp.kvsclient HOST:PORT`: operations on a store, from the shell, in the order given.

A door with an old name; KVSClient can be imported from here. It must not unpickle: a value is written as it is.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, BinaryIO

from disbatch.kvsstcp.client import KVSClient, KVSError
from disbatch.kvsstcp.commandline import Parser
from disbatch.kvsstcp.wire import EVENTS, Plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from disbatch.kvsstcp.store import Snapshot

__all__ = ["KVSClient", "main"]

_DESCRIPTION = (
    "Operations on a key-value store, done in the order given. The address comes from KVSSTCP_HOST and KVSSTCP_PORT"
    " if it is not given, the secret from KVSSTCP_SECRET."
)
_EPILOG = "K is a key, any text. Values are printed as they are, each with a line end after it."
DUMP_HELP = (
    "print how many gets, puts and views were served, and how many of them had to wait (waits); then a line for each"
    " key: 'K: N waiting' if N clients wait for it, 'K: N held' if it has N values, with the encoding tag of the newest"
    " and its text, or its length if the tag is not ASTR"
)
MONITOR_HELP = (
    "from now on put a record EVENT:KEY under K of what happens to KEY, or to every key if KEY is empty; EVENTS are the"
    " letters of what is to be recorded: g get, p put, v view, w wait"
)
_MAX_SECONDS = 1e9  # above, the clocks of the system overflow


class Step(Plain):
    """One thing to do: put K V [TAG], get K, view K, dump, monitor K KEY:EVENTS, shutdown; or timeout S, retry N."""

    def __init__(self, operation: str, arguments: tuple[str, ...] = ()) -> None:
        self.operation = operation
        self.arguments = arguments


class _Append(argparse.Action):
    """Writes down an option as a step, so that the order of options is kept."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[str] | float | None,
        _option_string: str | None = None,
    ) -> None:
        arguments = tuple(values) if isinstance(values, list) else (str(values),)
        if self.dest == "monitor":
            try:
                watched(arguments[1])
            except argparse.ArgumentTypeError as error:
                raise argparse.ArgumentError(self, str(error)) from error
        namespace.steps = [*namespace.steps, Step(self.dest, arguments)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if all(step.operation in ("timeout", "retry") for step in options.steps):
        parser.error("nothing to do: give at least one of -p, -g, -v, -d, -m, -S")
    return report_errors("kvsclient", options.address, options.steps)


def report_errors(program: str, address: str | None, steps: Iterable[Step]) -> int:
    """Perform steps; a failure is one line on stderr and exit status 1."""
    try:
        perform(address, steps, sys.stdout.buffer)
    except (KVSError, TimeoutError) as error:
        sys.stderr.write(f"{program}: error: {error}\n")
        return 1
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would complain of stdout again on its way out
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"{program}: error: cannot write: {error.strerror}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def perform(address: str | None, steps: Iterable[Step], output: BinaryIO) -> None:
    """Perform steps over one connection, made when the first of them needs it.

    Raises KVSError, TimeoutError, and OSError for the output. Values are written at once and as they are, each with a
    line end after it.
    """
    client: KVSClient | None = None
    timeout: float | None = None
    retry = 0
    try:
        for step in steps:
            if step.operation == "timeout":
                timeout = float(step.arguments[0])
            elif step.operation == "retry":
                retry = int(step.arguments[0])
            else:
                client = client or KVSClient(address, retry=retry)
                _perform(client, step, timeout, output)
    finally:
        if client is not None:
            client.close()


def _perform(client: KVSClient, step: Step, timeout: float | None, output: BinaryIO) -> None:
    arguments = [os.fsencode(argument) for argument in step.arguments]
    if step.operation == "put":
        tag = arguments[2] if len(arguments) > 2 else False  # noqa: PLR2004 - K V TAG
        client.put(arguments[0], arguments[1], tag)
        client.confirm()
    elif step.operation in ("get", "view"):
        wait = client.get if step.operation == "get" else client.view
        value = wait(arguments[0], False, timeout)
        output.write(value if isinstance(value, bytes) else b"")
        output.write(b"\n")
        output.flush()
    elif step.operation == "dump":
        output.write(describe(client.dump()).encode(errors="replace"))
        output.flush()
    elif step.operation == "monitor":
        client.monkey(arguments[0], arguments[1])
        client.confirm()
    else:
        client.shutdown()


def describe(snapshot: Snapshot) -> str:
    """Return lines for a person about what is in a store."""
    (gets, puts, views, waits, *_), waiting, held = snapshot
    lines = [f"gets {gets}, puts {puts}, views {views}, waits {waits}"]
    lines += [f"{_text(key)}: {waiters} waiting" for key, waiters in waiting]
    for key, values, (tag, shown, *length) in held:
        newest = _text(shown) if shown is not None else f"{length[0]} bytes"
        lines.append(f"{_text(key)}: {values} held, newest {_text(tag)} {newest}")
    return "".join(line + "\n" for line in lines)


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace").encode("unicode_escape").decode()


def seconds(text: str) -> float:
    """Read a time-out for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"a number of seconds is due, not {text!r}")
    return value


def count(text: str) -> int:
    """Read a number of tries for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a number from 0 on is due, not {text!r}")
    return int(text)


def watched(text: str) -> str:
    """Check a KEY:EVENTS for argparse."""
    _, colon, events = text.rpartition(":")
    if not colon or events.strip(EVENTS.decode()):
        raise argparse.ArgumentTypeError(f"a key, a colon and any of the letters g, p, v, w are due, not {text!r}")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m disbatch.kvsstcp.kvsclient", description=_DESCRIPTION, epilog=_EPILOG)
    parser.set_defaults(steps=[])
    parser.add_argument("address", nargs="?", metavar="HOST:PORT", help="of the server")
    add = parser.add_argument
    add("-p", "--put", action=_Append, nargs=2, metavar=("K", "V"), help="put the text V under K")
    add("-g", "--get", action=_Append, metavar="K", help="take the oldest value of K and print it, waiting for one")
    add("-v", "--view", action=_Append, metavar="K", help="print the newest value of K, waiting for one")
    add("-d", "--dump", action=_Append, nargs=0, help=DUMP_HELP)
    add("-m", "--monkey", action=_Append, dest="monitor", nargs=2, metavar=("K", "KEY:EVENTS"), help=MONITOR_HELP)
    add("-S", "--shutdown", action=_Append, nargs=0, help="end the server")
    add("-T", "--timeout", action=_Append, type=seconds, metavar="SECS", help="how long gets and views after it wait")
    add("-R", "--retry", action=_Append, type=count, metavar="COUNT", help="how many further tries to connect")
    return parser


if __name__ == "__main__":
    sys.exit(main())
