"""Strangers that attack a key-value store, each way a process of its own, until it gets SIGTERM.

Usage: python -m tests.attack.strangers crowd|flood|trickle|nonsense|wrong|replay|endless HOST PORT [RESPONSE]

    crowd       five thousand connections that say nothing, a thousand made in a second; one that is ended is made again
    flood       the same as fast as it can
    trickle     two hundred that send the bytes of a handshake, one a second; one that is ended is made again
    nonsense    operations without a proof, lengths of 10^10, a mebibyte of random bytes
    wrong       proofs made with another secret
    replay      proofs that were right once: RESPONSE
    endless     requests by the thousand from one that never reads

A line "attacking" tells that it has begun; at its end it says how many connections it has made.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, NoReturn

from disbatch import descriptors
from disbatch.kvsstcp import auth
from disbatch.kvsstcp.wire import ASTR, encode_down, encode_dump, encode_get, encode_put, encode_put_header, encode_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Address = tuple[str, int]

CROWD = 5000
OTHER_FILES = 50
TRICKLING = 200
SECONDS = 20.0
"""How long anything may take that is done in one go; a server that is busy with others lets a stranger wait."""

HANDSHAKE = encode_get(auth.CHALLENGE_KEY) + encode_put(auth.RESPONSE_KEY, ASTR, b"0" * 64 + b" " + b"0" * 64)
LENGTH = b"9999999999"
NONSENSE = (
    *(encode_dump(), encode_down(), encode_get(b"k"), encode_view(b"k"), encode_put(b"k", ASTR, b"v")),
    *(b"get_" + LENGTH, b"put_" + LENGTH, b"mkey" + LENGTH, encode_put_header(b"k", ASTR, int(LENGTH))),
    encode_get(auth.CHALLENGE_KEY) + encode_put_header(auth.RESPONSE_KEY, ASTR, int(LENGTH)),
    *(encode_get(auth.PROOF_KEY), encode_get(auth.CHALLENGE_KEY) * 2, b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000),
)


def connected(at: Address) -> socket.socket:
    """A new connection, or a socket that is not connected if none is to be had just now."""
    made = socket.socket()
    made.settimeout(SECONDS)
    with suppress(OSError):
        made.connect(at)
    return made


def heard(client: socket.socket) -> bytes:
    """What comes next; nothing when the connection has ended."""
    with suppress(OSError):
        return client.recv(1 << 16)
    return b""


def said(at: Address, data: bytes) -> None:
    """Say something over a new connection, and wait for its end."""
    with connected(at) as client, suppress(OSError):
        client.sendall(data)
        while client.recv(1 << 16):
            pass


def proved(at: Address, response: bytes) -> None:
    """Give a proof over a new connection, and wait for its end."""
    with connected(at) as client, suppress(OSError):
        client.sendall(encode_get(auth.CHALLENGE_KEY))
        if heard(client):
            client.sendall(encode_put(auth.RESPONSE_KEY, ASTR, response) + encode_get(auth.PROOF_KEY))
            heard(client)


def has_ended(client: socket.socket) -> bool:
    """Whether the other side has ended a connection."""
    try:
        return not client.recv(1 << 16)
    except BlockingIOError:
        return False
    except OSError:
        return True


def kept(
    at: Address, size: int, each: Callable[[socket.socket, int], object], pause: float, pause_of_each: float = 0.0
) -> Iterator[int]:
    """Keep so many connections; do something with each of them in every round. Yields how many were made anew.

    Seconds of pause: between two rounds, and after each connection that is made.
    """
    clients: list[socket.socket] = []
    for turn in count():
        made = 0
        for number in range(size):
            if number == len(clients):
                clients.append(socket.socket())  # not connected: as good as ended
            client = clients[number]
            if has_ended(client):
                client.close()
                clients[number] = client = connected(at)
                client.setblocking(False)
                made += 1
                time.sleep(pause_of_each)
            with suppress(OSError):
                each(client, turn)
        yield made
        time.sleep(pause)


def one_byte(client: socket.socket, turn: int) -> None:
    """Send the byte of the handshake that is due in this turn."""
    client.send(HANDSHAKE[turn % len(HANDSHAKE) :][:1])


def many() -> int:
    """Make room for a crowd; how many fit in."""
    descriptors.make_room(CROWD + OTHER_FILES)
    return min(CROWD, descriptors.room() - OTHER_FILES)


def crowd(at: Address, _response: bytes) -> Iterator[int]:
    """See above, as for the others."""
    return kept(at, many(), lambda _client, _turn: None, 0.1, 0.001)


def flood(at: Address, _response: bytes) -> Iterator[int]:
    """Be many, all the time."""
    return kept(at, many(), lambda _client, _turn: None, 0.0)


def trickle(at: Address, _response: bytes) -> Iterator[int]:
    """Be slow."""
    return kept(at, TRICKLING, one_byte, 1.0)


def nonsense(at: Address, _response: bytes) -> Iterator[int]:
    """Know nothing of the handshake."""
    while True:
        for data in (*NONSENSE, os.urandom(1 << 20)):
            said(at, data)
            yield 1


def wrong(at: Address, _response: bytes) -> Iterator[int]:
    """Know nothing of the secret."""
    while True:
        proved(at, os.urandom(32).hex().encode() + b" " + os.urandom(32).hex().encode())
        yield 1


def replay(at: Address, response: bytes) -> Iterator[int]:
    """Have listened to somebody else's handshake."""
    while True:
        proved(at, response)
        yield 1


def endless(at: Address, _response: bytes) -> Iterator[int]:
    """Never read; the first request is one that is answered."""
    while True:
        with connected(at) as client, suppress(OSError):
            for _ in range(1000):
                client.sendall(encode_get(auth.CHALLENGE_KEY) * 1000)
        yield 1


KINDS = {kind.__name__: kind for kind in (crowd, flood, trickle, nonsense, wrong, replay, endless)}


def main(kind: str, host: str, port: str, response: str = "") -> None:
    """Attack."""
    made = 0

    def end(_number: int, _frame: object) -> NoReturn:
        raise SystemExit

    signal.signal(signal.SIGTERM, end)
    try:
        for more in KINDS[kind]((host, int(port)), response.encode()):
            if not made:
                print("attacking", flush=True)
            made += more
    finally:
        print(made, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
