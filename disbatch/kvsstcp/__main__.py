"""`python -m disbatch.kvsstcp serve|get|view|put|dump|monitor|shutdown`: the store by hand.

It must hold nothing but the command line: the work is done in `kvsclient` and `kvsstcp`.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from disbatch.kvsstcp import envfile, kvsclient, kvsstcp
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.kvsstcp.commandline import Parser

if TYPE_CHECKING:
    from collections.abc import Sequence

_DESCRIPTION = (
    "A key-value store for coordination. Where the server is, and its secret, is taken from KVSSTCP_HOST, KVSSTCP_PORT"
    " and KVSSTCP_SECRET: `serve` prints lines that set them."
)
_OPERATIONS = {
    "get": (("K",), "take the oldest value of K and print it, waiting until there is one"),
    "view": (("K",), "print the newest value of K, waiting until there is one"),
    "put": (("K", "V"), "put the text V under K"),
    "dump": ((), "print what is in the store"),
    "monitor": (("K", "KEY:EVENTS"), "have what happens to KEY recorded under K"),
    "shutdown": ((), "end the server"),
}
_DESCRIPTIONS = {"dump": kvsclient.DUMP_HELP, "monitor": kvsclient.MONITOR_HELP}
_VALUES = {
    "K": "a key: any text",
    "V": "a value: any text",
    "KEY:EVENTS": "the key to watch, and any of the letters g, p, v, w",
}
_ENV_FILE_HELP = (
    "file that says where the server is, and a secret, instead of the environment: one that `serve -k` has written, or"
    " that of a run of disbatch for observers"
)
_TAG_HELP = (
    "4 characters that tell readers what the value is: ASTR (the default) text or raw bytes, JSON, HTML, PYPK a Python"
    " pickle, or what else they agree on; the server does not look"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.operation == "serve":
        return kvsstcp.serve(options)
    if options.env_file is not None:
        os.environ.pop(SECRET_VARIABLE, None)  # that of another store
        os.environ.update(options.env_file)
    steps = [kvsclient.Step("retry", (str(options.retry),))]
    if options.timeout is not None:
        steps.append(kvsclient.Step("timeout", (str(options.timeout),)))
    names, _ = _OPERATIONS[options.operation]
    given = [getattr(options, name) for name in names]
    if getattr(options, "tag", None) is not None:
        given.append(options.tag)
    steps.append(kvsclient.Step(options.operation, tuple(given)))
    return kvsclient.report_errors("kvsstcp", options.server, steps)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m disbatch.kvsstcp", description=_DESCRIPTION)
    parser.set_defaults(timeout=None)
    operations = parser.add_subparsers(dest="operation", required=True, metavar="OPERATION")
    kvsstcp.add_options(operations.add_parser("serve", help=kvsstcp.DESCRIPTION, description=kvsstcp.DESCRIPTION))
    for name, (values, text) in _OPERATIONS.items():
        add = operations.add_parser(name, help=text, description=_DESCRIPTIONS.get(name, text)).add_argument
        for value in values:
            add(value, type=kvsclient.watched if value == "KEY:EVENTS" else str, help=_VALUES[value])
        add("-s", "--server", metavar="HOST:PORT", help="where the server is (default: as the environment says)")
        add("-k", "--env-file", metavar="FILE", type=_variables, help=_ENV_FILE_HELP)
        add("-R", "--retry", type=kvsclient.count, default=0, metavar="COUNT", help="how many further tries to connect")
        if name in ("get", "view"):
            add("-T", "--timeout", type=kvsclient.seconds, metavar="SECS", help="wait no longer (default: for ever)")
        if name == "put":
            add("-t", "--tag", type=_tag, help=_TAG_HELP)
    return parser


def _tag(text: str) -> str:
    if len(text.encode()) != 4:  # noqa: PLR2004 - that is what a tag is
        raise argparse.ArgumentTypeError(f"a tag has 4 characters, not {text!r}")
    return text


def _variables(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            return envfile.variables_in(file.read())
    except (OSError, ValueError) as error:  # one that cannot be decoded is among the latter
        why = error.strerror if isinstance(error, OSError) else "it does not say where a key-value store is"
        raise argparse.ArgumentTypeError(f"cannot use {path!r}: {why}") from error


if __name__ == "__main__":
    sys.exit(main())
