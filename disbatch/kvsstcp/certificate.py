"""A certificate for a server that nobody has to hand out or look after: a key pair, and what TLS wants around it.

Pure: randomness is an argument. Python's `ssl` can use a certificate and cannot make one, so the multiplication that
leads from a private key to its public one stands here, once for each run that needs it. Everything that is done with
the key is OpenSSL's, which also checks that the two belong together.

The certificate says nothing that could be believed: neither its names nor its dates nor its signature is looked at. Who
has its key is shown by TLS; that it is the right server's, by the proof of the secret, which is bound to it (`auth`).
"""

from __future__ import annotations

PRIVATE_KEY_BYTES = 40
"""Random bytes that a private key is made of: 64 bits more than it has, so that each is equally likely."""

# The curve P-256 of FIPS 186, y² = x³ - 3x + b modulo _FIELD; _ORDER points are multiples of the base point.
_FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_BASE = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_SIZE = 32  # bytes of a number of the field

_INTEGER, _BITS, _OCTETS, _OBJECT, _UTF8, _TIME, _SEQUENCE, _SET = 0x02, 0x03, 0x04, 0x06, 0x0C, 0x18, 0x30, 0x31
_CURVE_PARAMETERS = 0xA0
_P256 = bytes.fromhex("06082a8648ce3d030107")
_EC_PUBLIC_KEY = bytes.fromhex("06072a8648ce3d0201")
_ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")
_COMMON_NAME = bytes.fromhex("0603550403")


def make(random: bytes) -> tuple[bytes, bytes]:
    """Return a certificate and its private key, both in DER, made of PRIVATE_KEY_BYTES random bytes."""
    if len(random) != PRIVATE_KEY_BYTES:
        raise ValueError(f"a private key is made of {PRIVATE_KEY_BYTES} random bytes, not {len(random)}")
    private = 1 + int.from_bytes(random, "big") % (_ORDER - 1)
    return _certificate(public_point(private)), _private_key(private)


def public_point(private: int) -> tuple[int, int]:
    """Return the base point times `private` (1 to the order of the curve, exclusive)."""
    total: tuple[int, int] | None = None
    power = _BASE
    while private:
        if private & 1:
            total = power if total is None else _sum(total, power)
        power = _sum(power, power)
        private >>= 1
    assert total is not None  # noqa: S101 - no private key is 0
    return total


def _sum(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """Add two points that are the same or have different x: others do not come up in the multiplication."""
    (x1, y1), (x2, y2) = one, other
    rise, run = (3 * x1 * x1 - 3, 2 * y1) if one == other else (y2 - y1, x2 - x1)
    slope = rise * pow(run, -1, _FIELD)
    x3 = (slope * slope - x1 - x2) % _FIELD
    return x3, (slope * (x1 - x3) - y1) % _FIELD


def _certificate(point: tuple[int, int]) -> bytes:
    algorithm = _der(_SEQUENCE, _ECDSA_SHA256)
    name = _der(_SEQUENCE, _der(_SET, _der(_SEQUENCE, _COMMON_NAME, _der(_UTF8, b"kvsstcp"))))
    always = _der(_SEQUENCE, _der(_TIME, b"19700101000000Z"), _der(_TIME, b"99991231235959Z"))
    one = _der(_INTEGER, b"\1")
    public = b"\0\4" + b"".join(number.to_bytes(_SIZE, "big") for number in point)
    key = _der(_SEQUENCE, _der(_SEQUENCE, _EC_PUBLIC_KEY, _P256), _der(_BITS, public))
    signed = _der(_SEQUENCE, one, algorithm, name, always, name, key)
    no_signature = _der(_BITS, b"\0", _der(_SEQUENCE, one, one))
    return _der(_SEQUENCE, signed, algorithm, no_signature)


def _private_key(private: int) -> bytes:
    """OpenSSL adds the public key by itself, and so notices a certificate with another."""
    number = _der(_OCTETS, private.to_bytes(_SIZE, "big"))
    return _der(_SEQUENCE, _der(_INTEGER, b"\1"), number, _der(_CURVE_PARAMETERS, _P256))


def _der(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    length = len(content)
    if length < 0x80:  # noqa: PLR2004 - as the encoding has it
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content
