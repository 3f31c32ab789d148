"""`auth`, alone: both sides of the handshake as functions."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.kvsstcp import auth
from disbatch.kvsstcp.wire import ASTR, Close, Down, Dump, Get, Monitor, Put, Request, View

SECRET = b"5" * 64
NONCE = b"a1" * 32
CLIENT_NONCE = b"b2" * 32


def challenged() -> auth.Handshake:
    after, answer = auth.advance([SECRET], auth.AwaitingChallenge(NONCE), Get(b".auth challenge"))
    assert answer == NONCE
    return after


def response(value: bytes) -> Put:
    return Put(b".auth response", ASTR, value)


def mac(text: bytes) -> bytes:
    return hmac.new(SECRET, text, hashlib.sha256).hexdigest().encode()


def test_who_knows_the_secret_is_let_in_and_gets_the_proof() -> None:
    value = auth.respond(SECRET, NONCE, CLIENT_NONCE)
    assert value == CLIENT_NONCE + b" " + mac(b"client" + NONCE + CLIENT_NONCE)
    responded, nothing = auth.advance([SECRET], challenged(), response(value))
    assert nothing is None
    done, proof = auth.advance([SECRET], responded, Get(b".auth proof"))
    assert done == auth.Proved(0)
    assert proof == mac(b"server" + CLIENT_NONCE + NONCE)
    auth.check_proof(SECRET, NONCE, CLIENT_NONCE, proof)


SEVERAL = [SECRET, b"7" * 64, b"8" * 64]


@pytest.mark.parametrize("which", range(len(SEVERAL)))
def test_of_several_secrets_the_one_that_the_client_knows_is_found_and_proved_in_return(which: int) -> None:
    secret = SEVERAL[which]
    responded, _ = auth.advance(SEVERAL, challenged(), response(auth.respond(secret, NONCE, CLIENT_NONCE)))
    done, proof = auth.advance(SEVERAL, responded, Get(b".auth proof"))
    assert done == auth.Proved(which)
    assert proof is not None
    auth.check_proof(secret, NONCE, CLIENT_NONCE, proof)
    for other in SEVERAL:
        if other != secret:
            with pytest.raises(auth.AuthenticationError, match="does not know the secret"):
                auth.check_proof(other, NONCE, CLIENT_NONCE, proof)


@pytest.mark.parametrize("which", range(len(SEVERAL)))
def test_a_response_is_compared_with_each_secret_whichever_it_was_made_with(
    monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def note_and_compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", note_and_compare)
    auth.advance(SEVERAL, challenged(), response(auth.respond(SEVERAL[which], NONCE, CLIENT_NONCE)))
    assert len(compared) == len(set(compared)) == len(SEVERAL)


@pytest.mark.parametrize("secrets", [SEVERAL, []])
def test_of_several_secrets_one_must_be_known(secrets: list[bytes]) -> None:
    with pytest.raises(auth.AuthenticationError, match="another secret"):
        auth.advance(secrets, challenged(), response(auth.respond(b"6" * 64, NONCE, CLIENT_NONCE)))


def test_hex_digits_may_be_capitals() -> None:
    value = CLIENT_NONCE + b" " + mac(b"client" + NONCE + CLIENT_NONCE).upper()
    auth.advance([SECRET], challenged(), response(value))


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (auth.respond(b"6" * 64, NONCE, CLIENT_NONCE), "another secret"),
        (auth.respond(SECRET, b"c3" * 32, CLIENT_NONCE), "another secret"),
        (mac(b"client" + NONCE), "another secret"),
        (CLIENT_NONCE, "another secret"),
        (CLIENT_NONCE + b" \xff", "another secret"),
        (b"", "without a nonce"),
        (b"x" * 64 + b" " + mac(b"client" + NONCE + b"x" * 64), "without a nonce"),
        (b"ab " + mac(b"client" + NONCE + b"ab"), "without a nonce"),
    ],
)
def test_a_wrong_response_is_refused(value: bytes, what: str) -> None:
    with pytest.raises(auth.AuthenticationError, match=what):
        auth.advance([SECRET], challenged(), response(value))


def test_a_proof_of_the_client_is_none_of_the_server() -> None:
    for proof in (mac(b"client" + NONCE + CLIENT_NONCE), mac(b"server" + NONCE + CLIENT_NONCE), b"", b"\xff"):
        with pytest.raises(auth.AuthenticationError, match="does not know the secret"):
            auth.check_proof(SECRET, NONCE, CLIENT_NONCE, proof)


def test_a_challenge_that_is_no_nonce_is_not_answered() -> None:
    with pytest.raises(auth.AuthenticationError, match="64 hex digits"):
        auth.respond(SECRET, b"server" + b"a" * 64, CLIENT_NONCE)


def test_a_bound_secret_is_another_for_each_certificate_and_each_secret() -> None:
    known = hmac.new(SECRET, b"tls" + b"DER", "sha256").hexdigest().encode()
    assert auth.bound_secret(SECRET, b"DER") == known
    assert len({SECRET, known, auth.bound_secret(SECRET, b"other"), auth.bound_secret(b"6" * 64, b"DER")}) == 4


STATES: list[tuple[auth.Handshake, Request]] = [
    (auth.AwaitingChallenge(NONCE), Get(b".auth challenge")),
    (auth.AwaitingResponse(NONCE), response(auth.respond(SECRET, NONCE, CLIENT_NONCE))),
    (auth.AwaitingProof(b"proof", 0), Get(b".auth proof")),
]


@given(
    st.sampled_from(STATES),
    st.one_of(
        st.sampled_from([due for _, due in STATES] + [Dump(), Close(), Down(), View(b".auth challenge"), Get(b"key")]),
        st.builds(Get, st.binary()),
        st.builds(Put, st.sampled_from([b".auth response", b"key"]), st.just(ASTR), st.binary()),
        st.builds(Monitor, st.binary(), st.binary(), st.just(b"g")),
    ),
)
def test_nothing_but_what_is_due_is_let_through(state: tuple[auth.Handshake, Request], request: Request) -> None:
    before, due = state
    if request == due:
        assert auth.advance([SECRET], before, request)[0] != before
    else:
        with pytest.raises(auth.AuthenticationError):
            auth.advance([SECRET], before, request)
