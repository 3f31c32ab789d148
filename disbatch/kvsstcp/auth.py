"""Who may speak: the proof, both ways, that client and server know the same secret, without sending it.

Pure: nonces are arguments, and nothing here sends or waits. It must not know of sockets, or of how a secret travels. A
server may have several secrets: it finds out which of them the client knows, and gives its own proof with that one.

The secret is used as the bytes that stand in KVSSTCP_SECRET, hex digits as they are, so that a client in any language
can key its HMAC with the text of the variable. A nonce is 64 hex digits, used as that text too.

    client                               server
    get_ `.auth challenge`          ->
                                    <-   nonce
    put_ `.auth response`           ->   checks, or hangs up
         `CNONCE MAC("client" + nonce + CNONCE)`
    get_ `.auth proof`              ->
    checks, or hangs up             <-   MAC("server" + CNONCE + nonce)

Over TLS both use `bound_secret` in the place of the secret, so that who stands between them, and encrypts to each with
a key of his own, has no use for what either proves.
"""

from __future__ import annotations

import hmac

from disbatch.kvsstcp.wire import Get, Limits, Plain, Put, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SECRET_VARIABLE = "KVSSTCP_SECRET"  # noqa: S105 - the name of the variable, not its value
"""Where in its environment a program finds the secret of the store that it belongs to."""

RESERVED_PREFIX = b".auth "
"""Keys that begin so belong to the handshake and are never keys of the store."""
CHALLENGE_KEY = RESERVED_PREFIX + b"challenge"
RESPONSE_KEY = RESERVED_PREFIX + b"response"
PROOF_KEY = RESERVED_PREFIX + b"proof"

STRANGER_LIMITS = Limits(key=1024, value=1024)
"""Sizes allowed before the proof."""
HANDSHAKE_SECONDS = 10.0
"""How long a connection may take for the handshake."""

NONCE_BYTES = 32
"""Random bytes in a nonce."""
_HEX_DIGITS = b"0123456789abcdefABCDEF"


class AuthenticationError(Exception):
    """The other side broke the handshake, or does not know the secret; the text, of one line, says which."""


class AwaitingChallenge(Plain):
    """Server: the client has not spoken yet; `nonce` is what it will be given."""

    def __init__(self, nonce: bytes) -> None:
        self.nonce = nonce


class AwaitingResponse(Plain):
    """Server: the client has been given `nonce`."""

    def __init__(self, nonce: bytes) -> None:
        self.nonce = nonce


class AwaitingProof(Plain):
    """Server: the client knows secret number `which` and may ask for the server's own `proof`."""

    def __init__(self, proof: bytes, which: int) -> None:
        self.proof = proof
        self.which = which


class Proved(Plain):
    """Server: done; the client knows secret number `which`."""

    def __init__(self, which: int) -> None:
        self.which = which


Handshake = AwaitingChallenge | AwaitingResponse | AwaitingProof | Proved


def advance(secrets: Sequence[bytes], handshake: Handshake, request: Request) -> tuple[Handshake, bytes | None]:
    """Take the next request of a client that is not proved yet, to a server that has these secrets.

    Returns the handshake after it, and the value (ASTR) to answer with, None for no answer. Raises AuthenticationError
    for anything but the request that is due; the connection is to be ended then.
    """
    if isinstance(handshake, AwaitingChallenge) and request == Get(CHALLENGE_KEY):
        return AwaitingResponse(handshake.nonce), handshake.nonce
    if isinstance(handshake, AwaitingResponse) and isinstance(request, Put) and request.key == RESPONSE_KEY:
        return _checked_response(secrets, handshake.nonce, request.value), None
    if isinstance(handshake, AwaitingProof) and request == Get(PROOF_KEY):
        return Proved(handshake.which), handshake.proof
    raise AuthenticationError(f"{type(request).__name__} before the proof of the secret, {_due(handshake)}")


def respond(secret: bytes, nonce: bytes, client_nonce: bytes) -> bytes:
    """Client: the value to put under RESPONSE_KEY. Raises AuthenticationError when the server's nonce is none."""
    if not _is_nonce(nonce):
        raise AuthenticationError("the server's challenge is not 64 hex digits")
    return client_nonce + b" " + _mac(secret, b"client" + nonce + client_nonce)


def check_proof(secret: bytes, nonce: bytes, client_nonce: bytes, proof: bytes) -> None:
    """Client: raises AuthenticationError unless `proof` shows that the server knows the secret."""
    if not hmac.compare_digest(proof.lower(), _mac(secret, b"server" + client_nonce + nonce)):
        raise AuthenticationError("the server does not know the secret")


def bound_secret(secret: bytes, certificate: bytes) -> bytes:
    """Return the secret to be proved to a server that has shown by TLS that this certificate (DER) is its own."""
    return _mac(secret, b"tls" + certificate)


def _checked_response(secrets: Sequence[bytes], nonce: bytes, response: bytes) -> AwaitingProof:
    """Return what follows for a client that has given its proof; how long that takes does not tell with which one."""
    client_nonce, _, mac = response.partition(b" ")
    if not _is_nonce(client_nonce):
        raise AuthenticationError("a response without a nonce of 64 hex digits")
    mac = mac.lower()
    known = [hmac.compare_digest(mac, _mac(secret, b"client" + nonce + client_nonce)) for secret in secrets]
    if not any(known):
        raise AuthenticationError("a response made with another secret")
    which = known.index(True)
    return AwaitingProof(_mac(secrets[which], b"server" + client_nonce + nonce), which)


def _mac(secret: bytes, text: bytes) -> bytes:
    return hmac.new(secret, text, "sha256").hexdigest().encode()


def _is_nonce(text: bytes) -> bool:
    return len(text) == 2 * NONCE_BYTES and not text.strip(_HEX_DIGITS)


def _due(handshake: Handshake) -> str:
    if isinstance(handshake, AwaitingChallenge):
        return "a get of the challenge was due"
    if isinstance(handshake, AwaitingResponse):
        return "a put of the response was due"
    return "a get of the proof was due"
