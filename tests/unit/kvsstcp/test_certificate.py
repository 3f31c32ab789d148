"""`certificate`, alone: what it makes is what OpenSSL takes."""

from __future__ import annotations

import base64
import ssl
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbatch.kvsstcp.certificate import PRIVATE_KEY_BYTES, make, public_point

if TYPE_CHECKING:
    from pathlib import Path

FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
BASE = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


@pytest.mark.parametrize(
    ("private", "public"),
    [
        (1, BASE),
        (
            2,
            (
                0x7CF27B188D034F7E8A52380304B51AC3C08969E277F21B35A60B48FC47669978,
                0x07775510DB8ED040293D9AC69F7430DBBA7DADE63CE982299E04B79D227873D1,
            ),
        ),
        (
            112233445566778899,
            (
                0x339150844EC15234807FE862A86BE77977DBFB3AE3D96F4C22795513AEAAB82F,
                0xB1C14DDFDC8EC1B2583F51E85A5EB3A155840F2034730E9B5ADA38B674336A21,
            ),
        ),
        (ORDER - 1, (BASE[0], FIELD - BASE[1])),
    ],
)
def test_public_keys_that_are_known(private: int, public: tuple[int, int]) -> None:
    assert public_point(private) == public


def load(certificate: bytes, key: bytes, directory: Path) -> None:
    """Have OpenSSL take both, which it does only if they belong together."""
    at, of = directory / "certificate", directory / "key"
    at.write_text(ssl.DER_cert_to_PEM_cert(certificate), encoding="ascii")
    body = base64.encodebytes(key).decode()
    of.write_text(f"-----BEGIN EC PRIVATE KEY-----\n{body}-----END EC PRIVATE KEY-----\n", encoding="ascii")
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(at, of)


@settings(max_examples=settings().max_examples // 5)
@given(random=st.binary(min_size=PRIVATE_KEY_BYTES, max_size=PRIVATE_KEY_BYTES))
def test_openssl_finds_that_key_and_certificate_belong_together(
    random: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    load(*make(random), tmp_path_factory.mktemp("made"))


def test_the_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    certificate, _ = make(b"1" * PRIVATE_KEY_BYTES)
    _, key = make(b"2" * PRIVATE_KEY_BYTES)
    with pytest.raises(ssl.SSLError, match=r"(?i)mismatch"):
        load(certificate, key, tmp_path)


@pytest.mark.parametrize("random", [b"", b"1" * 32, b"1" * 41])
def test_too_little_randomness_is_refused(random: bytes) -> None:
    with pytest.raises(ValueError, match="made of 40 random bytes"):
        make(random)
