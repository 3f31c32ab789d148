"""`python -m disbatch.kvsstcp serve|get|view|put|dump|monitor|shutdown`: the store by hand.

It must hold nothing but the command line: the work is done in `kvsclient` and `kvsstcp`.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from disbatch.kvsstcp import kvsclient, kvsstcp

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
    "monitor": (("K", "KEY:EVENTS"), "have EVENTS (g get, p put, v view, w wait) of KEY put under K"),
    "shutdown": ((), "end the server"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.operation == "serve":
        return kvsstcp.serve(options)
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
    parser = argparse.ArgumentParser(prog="python -m disbatch.kvsstcp", description=_DESCRIPTION)
    parser.set_defaults(timeout=None)
    operations = parser.add_subparsers(dest="operation", required=True, metavar="OPERATION")
    kvsstcp.add_options(operations.add_parser("serve", help=kvsstcp.DESCRIPTION, description=kvsstcp.DESCRIPTION))
    for name, (values, text) in _OPERATIONS.items():
        operation = operations.add_parser(name, help=text, description=text)
        for value in values:
            operation.add_argument(value)
        operation.add_argument("-s", "--server", metavar="HOST:PORT", help="instead of the environment's")
        operation.add_argument("-R", "--retry", type=kvsclient.count, default=0, help="further tries to connect")
        if name in ("get", "view"):
            operation.add_argument("-T", "--timeout", type=kvsclient.seconds, metavar="SECS", help="wait no longer")
        if name == "put":
            operation.add_argument("-t", "--tag", type=_tag, help="encoding tag of the value (default ASTR)")
    return parser


def _tag(text: str) -> str:
    if len(text.encode()) != 4:  # noqa: PLR2004 - that is what a tag is
        raise argparse.ArgumentTypeError(f"a tag has 4 characters, not {text!r}")
    return text


if __name__ == "__main__":
    sys.exit(main())
