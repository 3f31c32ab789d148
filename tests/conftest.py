"""What all tests share: what they start finds the world as on a user's terminal, wherever they themselves run."""

from __future__ import annotations

import gc
import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator


# How many examples a test of a property tries: `--hypothesis-profile=quick` is for the seconds between two edits. No
# test fails because a machine is slow.
settings.register_profile("thorough", deadline=None, max_examples=100)
settings.register_profile("quick", deadline=None, max_examples=5)
settings.load_profile("thorough")


@pytest.fixture(scope="session", autouse=True)
def a_users_world() -> Iterator[None]:
    """Signals that `nohup` or `&` had ignored have their defaults, and Python writes as it does by default."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    os.environ.pop("PYTHONUNBUFFERED", None)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep all that importing has made out of later searches for garbage, which take longer the more there is."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)
