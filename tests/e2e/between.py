"""Somebody between an engine and the driver, who keeps all that he can read, and changes what he likes.

Usage: python -m tests.e2e.between HOW HOST:PORT FILE. Prints the port at which it listens on every address; FILE gets
what both sides say. HOW it passes that on:

    pass      as it is
    encrypt   decrypted, and encrypted again, with a key of its own towards the engine
    strip     the same, and not encrypted towards the driver
    plain     not at all: it answers as a store that does not encrypt
"""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import suppress

from disbatch.kvsstcp import channel

CHUNK = 1 << 16


def pass_on(source: socket.socket, target: socket.socket, file: str) -> None:
    """Pass on what one side says until it ends."""
    with suppress(OSError), open(file, "ab", buffering=0) as record:
        while data := source.recv(CHUNK):
            record.write(data)
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def stand_between(how: str, engine: socket.socket, driver: tuple[str, int], file: str) -> None:
    """Serve one connection. TLS cannot be read and written at once by two threads: both sides take turns then."""
    if how == "plain":
        engine.recv(CHUNK)
        engine.sendall(b"ASTR        64" + b"0" * 64)
        with open(file, "ab") as record:
            record.write(engine.recv(CHUNK))
        return
    with socket.create_connection(driver) as onward:
        if how == "pass":
            back = threading.Thread(target=pass_on, args=[onward, engine, file])
            back.start()
            pass_on(engine, onward, file)
            back.join()
            return
        decrypted = channel.Identity().wrap(engine)
        target: socket.socket = channel.connect(onward)[0] if how == "encrypt" else onward
        with open(file, "ab", buffering=0) as record:
            sides = [decrypted, target]
            while data := sides[0].recv(CHUNK):
                record.write(data)
                sides[1].sendall(data)
                # The challenge is asked for and answered; response and request of the proof go one way.
                sides.reverse()


def main() -> None:
    """Serve until killed."""
    how, driver, file = sys.argv[1:]
    host, _, port = driver.rpartition(":")
    with socket.create_server(("", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        while True:
            engine = listening.accept()[0]
            threading.Thread(target=serve, args=[how, engine, (host, int(port)), file]).start()


def serve(how: str, engine: socket.socket, driver: tuple[str, int], file: str) -> None:
    """Serve one connection, and end it."""
    with engine, suppress(OSError):
        stand_between(how, engine, driver, file)


if __name__ == "__main__":
    main()
