"""`credentials`, alone: what each role may ask of the store of its run, one by one."""

from __future__ import annotations

import pytest

from disbatch import messages
from disbatch.credentials import Credentials, rights
from disbatch.driver.submissions import SIGN_IN
from disbatch.kvsstcp.wire import ASTR, Close, Down, Dump, Get, Monitor, Put, Request, View

RUN = "my run"
SECRETS = Credentials(b"engine", b"operator", b"program", b"observer")

STATE = messages.STATE_KEY
RUNNING = messages.RUNNING_KEYS
OF_ENGINE = RUNNING + b" 3"
END = messages.END_KEY
DRIVER, ORDERS = messages.driver_key(RUN), messages.orders_key(RUN)
ENGINE, CONTEXT = (messages.member_key(RUN, name) for name in ("engine 3", "context f00d"))
OWN = messages.own_keys(RUN)
OTHER_RUN = messages.member_key("another run", "engine 3")
OF_PROGRAMS = (*SIGN_IN, b"tasks", b"results done tasks", b"a barrier", b"", b"disbatch", OTHER_RUN)
KEYS = (STATE, END, RUNNING, OF_ENGINE, DRIVER, ORDERS, ENGINE, CONTEXT, OWN, *OF_PROGRAMS)


def monitor(key: bytes, under: bytes = b"records") -> Monitor:
    return Monitor(under, key, b"gpvw")


REQUESTS: tuple[Request, ...] = (
    *(Put(key, ASTR, b"value") for key in KEYS),
    *(Get(key) for key in KEYS),
    *(View(key) for key in KEYS),
    *(monitor(key) for key in KEYS),
    *(monitor(b"tasks", under) for under in KEYS),
    Dump(),
    Close(),
    Down(),
)

ALLOWED: dict[str, set[Request]] = {
    "observer": {View(STATE), View(END), Close()},
    "operator": {View(STATE), View(END), View(RUNNING), View(OF_ENGINE), Put(ORDERS, ASTR, b"value"), Close()},
    "engine": {Put(DRIVER, ASTR, b"value"), Get(ENGINE), Get(CONTEXT), Close()},
    "program": {
        *(Put(key, ASTR, b"value") for key in OF_PROGRAMS),
        *(Get(key) for key in OF_PROGRAMS),
        *(View(key) for key in (STATE, END, RUNNING, OF_ENGINE, *OF_PROGRAMS)),
        *(monitor(key) for key in (STATE, END, RUNNING, OF_ENGINE, *OF_PROGRAMS) if key),
        *(monitor(b"tasks", under) for under in OF_PROGRAMS),
        Dump(),
        Close(),
    },
}


@pytest.mark.parametrize("role", ALLOWED)
def test_each_role_may_do_what_it_needs_and_no_more(role: str) -> None:
    granted = rights(SECRETS, RUN)[role.encode()]
    assert {request for request in REQUESTS if granted.allow(request)} == ALLOWED[role]
    assert set(REQUESTS) >= ALLOWED[role], "or something would not have been tried"


def test_nobody_has_rights_without_a_role() -> None:
    assert set(rights(SECRETS, RUN)) == {role.encode() for role in ALLOWED}
