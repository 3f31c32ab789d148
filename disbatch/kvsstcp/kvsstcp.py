"""`python -m disbatch.kvsstcp.kvsstcp`: a server of the store for use by hand, or around one command.

A door with an old name; the server classes can be imported from here. The secret is taken from KVSSTCP_SECRET or made
anew, and leaves by the environment of the command, by a file that only its owner can read, or on stdout, as lines that
a shell can evaluate; it must never be in an argument list or a log.
"""

from __future__ import annotations

import argparse
import io
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from disbatch.kvsstcp import envfile
from disbatch.kvsstcp.auth import SECRET_VARIABLE
from disbatch.kvsstcp.commandline import Parser
from disbatch.kvsstcp.endpoint import (
    ENCRYPTED,
    HOST_VARIABLE,
    PORT_VARIABLE,
    address_text,
    client_environment,
    new_secret,
    reason,
)
from disbatch.kvsstcp.server import Server
from disbatch.kvsstcp.thread import KVSServer, KVSServerThread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

__all__ = ["KVSServer", "KVSServerThread", "Server", "main"]

DESCRIPTION = "Serve a key-value store until it is told to end, or around a command."
_END_SECONDS = 5.0
_SIGNALLED = 128  # what a shell adds to the number of the signal that ended a command
_MAX_PORT = (1 << 16) - 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve as the command line says; returns the exit status: that of the command, if there is one."""
    parser = Parser(prog="python -m disbatch.kvsstcp.kvsstcp", description=DESCRIPTION)
    add_options(parser)
    return serve(parser.parse_args(arguments))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a server."""
    add = parser.add_argument
    add("-H", "--host", default="127.0.0.1", help="address to bind (default %(default)s)")
    add("-p", "--port", type=_port, default=0, help="port to bind (default: any)")
    add("-a", "--address-file", metavar="FILE", help="write HOST:PORT to FILE")
    add("-k", "--env-file", metavar="FILE", help="write address and secret to FILE (mode 0600) instead of stdout")
    add("-e", "--execute", metavar="COMMAND", help="run COMMAND with the address in its environment, and end with it")
    add("-l", "--log-file", metavar="LOGFILE", help="append what the server has to say to LOGFILE instead of stderr")
    add("--encrypt", action="store_true", help="let clients on other hosts speak over TLS alone; the secret tells them")
    add("--insecure", action="store_true", help="ask clients for no secret: anyone who can connect may do anything")


def serve(options: argparse.Namespace) -> int:
    """Serve as `options` say; a failure to begin is one line on stderr and exit status 1."""
    given = os.environ.get(SECRET_VARIABLE, "").encode()
    if options.encrypt and given and not given.startswith(ENCRYPTED):
        sys.stderr.write(f"kvsstcp: error: --encrypt: the secret in {SECRET_VARIABLE} does not begin with 'tls:'\n")
        return 1
    secret = None if options.insecure else given or new_secret(encrypted=options.encrypt)
    with ExitStack() as stack:
        try:
            log = _logger(stack.enter_context(_log_stream(options.log_file)))
            selector = stack.enter_context(selectors.DefaultSelector())
            server = Server(selector, (options.host, options.port), secret=secret, log=log)
            stack.callback(server.close)
            environment = client_environment(server.address, secret, os.environ)
            _announce(options, environment)
        except OSError as error:
            at = f" at {address_text(options.host, options.port)}"
            what = at if error.filename is None else f": {error.filename}"
            sys.stderr.write(f"kvsstcp: error: cannot serve{what}: {reason(error)}\n")
            return 1
        notes = stack.enter_context(_SignalNotes(selector))
        if options.execute is None:
            return _serve_until_told(server, selector, notes)
        return _serve_command(server, selector, notes, options.execute, environment)


def _serve_until_told(server: Server, selector: selectors.BaseSelector, notes: _SignalNotes) -> int:
    while not server.closed and notes.end is None:
        _turn(server, selector)
    return 0 if notes.end is None else _SIGNALLED + notes.end


def _serve_command(
    server: Server, selector: selectors.BaseSelector, notes: _SignalNotes, command: str, environment: Mapping[str, str]
) -> int:
    """Serve as long as `command` runs, which outlives a server that a client has told to end.

    The command shares our session: it may be interactive, and Ctrl-C is for both.
    """
    child = subprocess.Popen(["/bin/sh", "-c", command], env=environment)
    try:
        while child.poll() is None and notes.end is None:
            _turn(server, selector)
    finally:
        _end(child)
    if notes.end is not None:
        return _SIGNALLED + notes.end
    return child.returncode if child.returncode >= 0 else _SIGNALLED - child.returncode


def _turn(server: Server, selector: selectors.BaseSelector) -> None:
    for key, mask in selector.select(server.expire(time.monotonic())):
        key.data(mask)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


class _SignalNotes:
    """Has signals wake up the loop: handlers do nothing, the interpreter writes the number into a socket.

    `end` is the signal that asks for an end, once one has come. SIGCHLD wakes up and asks for nothing.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.end: int | None = None
        self._selector = selector
        self._reading, self._writing = socket.socketpair()

    def __enter__(self) -> Self:
        self._reading.setblocking(False)
        self._writing.setblocking(False)
        self._selector.register(self._reading, selectors.EVENT_READ, self._read)
        self._former = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _do_nothing) for number in (*_ENDING, signal.SIGCHLD)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former)
        self._selector.unregister(self._reading)
        self._reading.close()
        self._writing.close()

    def _read(self, _mask: int) -> None:
        for number in self._reading.recv(4096):
            if number in _ENDING and self.end is None:
                self.end = number


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _do_nothing(_number: int, _frame: object) -> None:
    """Be a handler, so that the signal reaches the wake-up descriptor."""


def _announce(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Tell those who are to use the server where it is. Raises OSError."""
    if options.address_file is not None:
        with open(options.address_file, "w", encoding="utf-8") as file:
            file.write(address_text(environment[HOST_VARIABLE], environment[PORT_VARIABLE]) + "\n")
    exports = envfile.text_of(environment)
    if options.env_file is not None:
        with os.fdopen(os.open(options.env_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            os.fchmod(file.fileno(), 0o600)  # the file may have been there before
            file.write(exports)
    elif options.execute is None:
        sys.stdout.write(exports)
        sys.stdout.flush()


def _log_stream(path: str | None) -> io.FileIO:
    """Open the log, unbuffered: what could not be written is not tried, and failed, again at the close."""
    return io.FileIO(os.dup(2) if path is None else path, "a")


def _logger(stream: io.FileIO) -> Callable[[str], None]:
    def log(text: str) -> None:
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} kvsstcp: {text}\n"
        with suppress(OSError):  # a full disk is no reason to stop serving
            stream.write(line.encode(errors="backslashreplace"))

    return log


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _MAX_PORT:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to {_MAX_PORT}, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
