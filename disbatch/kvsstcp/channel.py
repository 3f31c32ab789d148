"""A socket that encrypts what goes over it: TLS 1.3 in the place of a plain connection, on either side.

It must not know what is said over it, nor who may speak. The other side is proved by `auth`, with a secret bound to the
certificate of the server: without that proof nobody knows to whom he has encrypted.

Importing `ssl` takes as long as half of all else that an engine imports, so this is imported where a connection between
hosts is made. Where Python has no TLS 1.3 the import fails: ImportError.
"""

from __future__ import annotations

import base64
import errno
import os
import socket
import ssl

from disbatch.kvsstcp import certificate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

if not ssl.HAS_TLSv1_3:
    raise ImportError("this Python has no TLS 1.3")

_RECORD_BYTES = 16 * 1024
_SENT_AT_ONCE = 4 * _RECORD_BYTES


class Channel(ssl.SSLSocket):
    """Does what a plain socket does in the same place, as far as client, server and loops use one.

    Where a plain one would block, BlockingIOError. Who waits for it in a loop has to read a record or more at a time
    (`_RECORD_BYTES`): what remained of one in here would not make the descriptor readable. The handshake comes with
    the first read, if it has not been made before.
    """

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:  # noqa: ARG002 - of the interface
        """See `socket.socket`; there are no flags."""
        try:
            return self.read(buflen)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:  # noqa: ANN401, ARG002 - as `ssl` has it
        """See `socket.socket`; there are no flags."""
        try:
            return self.read(nbytes or len(buffer), buffer)  # type: ignore[return-value] # a count, with a buffer
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def send(self, data: Any, flags: int = 0) -> int:  # noqa: ANN401, ARG002 - as `ssl` has it
        """See `socket.socket`; what blocked has to be sent again, with whatever comes behind it."""
        try:
            return self.write(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def sendmsg(self, buffers: Iterable[memoryview]) -> int:  # type: ignore[override] # `ssl` has none
        """See `socket.socket`; there is nothing but buffers."""
        room, pieces = _SENT_AT_ONCE, []
        for buffer in buffers:
            pieces.append(buffer[:room])
            room -= len(pieces[-1])
            if not room:
                break
        return self.send(b"".join(pieces))

    def shutdown(self, how: int) -> None:
        """See `socket.socket`. That of SSLSocket goes on without TLS: what came then would be taken for the peer's."""
        socket.socket.shutdown(self, how)


class Identity:
    """A server's key pair, made for it and held nowhere else."""

    def __init__(self) -> None:
        self.certificate, key = certificate.make(os.urandom(certificate.PRIVATE_KEY_BYTES))
        self._context = _context(ssl.PROTOCOL_TLS_SERVER)
        self._context.num_tickets = 0  # unread ones would make the kernel reset a connection that a client closes
        # `ssl` takes files alone, and a file is what the key shall not be in.
        certificate_end, key_end = _pipe("CERTIFICATE", self.certificate), _pipe("EC PRIVATE KEY", key)
        try:
            self._context.load_cert_chain(f"/dev/fd/{certificate_end}", f"/dev/fd/{key_end}")
        finally:
            os.close(certificate_end)
            os.close(key_end)

    def wrap(self, connected: socket.socket) -> Channel:
        """Take over a connection that a client has made, before the handshake. Raises OSError."""
        return _wrap(self._context, connected, server_side=True)


def connect(connected: socket.socket) -> tuple[Channel, bytes]:
    """Client: take over a connection and make the handshake, within the socket's time-out. Raises OSError.

    Returns the certificate of whoever is at the other end, too.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # there is nobody to vouch for it: the proof of the secret is bound to it
    channel = _wrap(context, connected, server_side=False)
    try:
        channel.do_handshake()
    except BaseException:
        channel.close()
        raise
    return channel, channel.getpeercert(binary_form=True) or b""


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.sslsocket_class = Channel
    return context


def _wrap(context: ssl.SSLContext, connected: socket.socket, *, server_side: bool) -> Channel:
    try:
        channel = context.wrap_socket(connected, server_side=server_side, do_handshake_on_connect=False)
    except ValueError as error:  # `ssl` reads from a connection that has ended meanwhile
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from error
    assert isinstance(channel, Channel)  # noqa: S101 - as the context says
    return channel


def _pipe(what: str, der: bytes) -> int:
    """Descriptor to read one object from, in the form that OpenSSL takes from a file."""
    reading, writing = os.pipe()
    with open(writing, "wb") as file:
        file.write(f"-----BEGIN {what}-----\n{base64.encodebytes(der).decode()}-----END {what}-----\n".encode())
    return reading
