from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.records import replace
from disbatch.web.gate import Gate, Knock, Verdict
from tests.unit.web.examples import TOKEN

GATE = Gate(TOKEN, ["h1.example.org", "fd00::1"], everywhere=False)
OPEN = Gate(TOKEN, ["h1"], everywhere=True)
PASS = GATE.cookie.partition(";")[0]
ENTRY = Knock("GET", "/", f"token={TOKEN}", "127.0.0.1:4711", "", "")
LOOK = Knock("GET", GATE.room, "", "127.0.0.1:4711", "", PASS)
ORDER = Knock("POST", f"{GATE.room}stop", "", "127.0.0.1:4711", "http://127.0.0.1:4711", PASS)


def test_who_shows_the_token_is_welcome() -> None:
    assert GATE.judge(ENTRY) is Verdict.WELCOME
    assert GATE.judge(replace(ENTRY, query=f"a=b&token={TOKEN}&c=d")) is Verdict.WELCOME


@pytest.mark.parametrize(
    "query", ["", "token=", "token", f"token={TOKEN[:-1]}", f"token={TOKEN}0", f"nottoken={TOKEN}", "token=%00", "é"]
)
def test_who_does_not_is_refused(query: str) -> None:
    assert GATE.judge(replace(ENTRY, query=query)) is Verdict.REFUSED


def test_the_token_is_taken_from_those_alone_who_change_nothing() -> None:
    assert GATE.judge(replace(ENTRY, method="POST", origin="http://127.0.0.1:4711")) is Verdict.REFUSED


def test_who_has_the_cookie_is_admitted_to_what_it_is_for() -> None:
    assert GATE.judge(LOOK) is Verdict.ADMITTED
    assert GATE.judge(replace(LOOK, cookie=f"other=1; {PASS}; disbatch=stale")) is Verdict.ADMITTED
    assert GATE.inside(f"{GATE.room}find") == "/find"


@pytest.mark.parametrize(
    "changes",
    [
        {"cookie": ""},
        {"cookie": f"disbatch={TOKEN}"},
        {"cookie": f"{PASS}0"},
        {"cookie": OPEN.room},
        {"path": "/"},
        {"path": "/find"},
        {"path": GATE.room[:-1]},
        {"path": "/" + GATE.room},
    ],
)
def test_a_look_without_the_cookie_or_elsewhere_is_refused(changes: dict[str, str]) -> None:
    assert GATE.judge(replace(LOOK, **changes)) is Verdict.REFUSED


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:4711", "localhost:4711", "LocalHost:4711", "[::1]:4711", "h1.example.org:4711", "[fd00::1]:4711"),
        *("localhost", "localhost:8080", "h1.example.org.:4711"),
    ],
)
def test_names_of_the_server_are_known_whatever_the_port_of_a_tunnel_is(host: str) -> None:
    assert GATE.judge(replace(LOOK, host=host)) is Verdict.ADMITTED


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example:4711", "127.0.0.1.evil.example:4711", "localhost.evil.example", "evil.example:127.0.0.1"),
        *("127.0.0.1:4711@evil.example", "localhost:4711; localhost:4711", "10.1.2.3:4711", "127.0.0.1:port", "[::1"),
    ],
)
@pytest.mark.parametrize("knock", [ENTRY, LOOK, ORDER])
def test_a_name_that_was_made_to_lead_here_is_refused(knock: Knock, host: str) -> None:
    assert GATE.judge(replace(knock, host=host)) is Verdict.REFUSED


def test_a_page_at_every_address_is_reached_by_each_and_by_no_other_name() -> None:
    look = replace(LOOK, path=OPEN.room, cookie=OPEN.cookie.partition(";")[0])
    for host, verdict in {
        "10.1.2.3:4711": Verdict.ADMITTED,
        "[fd00::7]:4711": Verdict.ADMITTED,
        "h1:4711": Verdict.ADMITTED,
        "evil.example:4711": Verdict.REFUSED,
    }.items():
        assert OPEN.judge(replace(look, host=host)) is verdict, host


def test_what_changes_something_has_to_come_from_the_page_itself() -> None:
    assert GATE.judge(ORDER) is Verdict.ADMITTED
    for origin in ("", "null", "http://127.0.0.1:4712", "https://127.0.0.1:4711", "http://localhost:4711", "http://e"):
        assert GATE.judge(replace(ORDER, origin=origin)) is Verdict.REFUSED, origin


def test_through_a_tunnel_the_page_is_itself_too() -> None:
    assert GATE.judge(replace(ORDER, host="localhost:9", origin="http://localhost:9")) is Verdict.ADMITTED


def test_the_cookie_is_no_help_to_scripts_other_sites_and_other_paths() -> None:
    _, *attributes = GATE.cookie.split("; ")
    assert attributes == [f"Path={GATE.room}", "HttpOnly", "SameSite=Strict"]
    assert TOKEN not in GATE.cookie


def test_each_token_has_its_own_cookie_and_path() -> None:
    other = Gate(TOKEN[::-1], [], everywhere=False)
    assert other.cookie != GATE.cookie
    assert other.room != GATE.room


@given(st.builds(Knock, *[st.text()] * 6))
def test_whatever_comes_is_refused_without_the_token(knock: Knock) -> None:
    assert GATE.judge(knock) is Verdict.REFUSED
    assert GATE.judge(replace(knock, host="localhost")) is Verdict.REFUSED
    assert GATE.judge(replace(LOOK, cookie=knock.cookie)) is Verdict.REFUSED
