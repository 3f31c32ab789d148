"""What the tests of the driver's loop share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from disbatch.eventloop import EventLoop
from tests.unit.driver.house import House

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> House:
    return House(monkeypatch)


@pytest.fixture
def house(unopened: House) -> House:
    unopened.open()
    return unopened


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A house that is not open, with a real event loop."""
    loop = EventLoop()
    yield House(monkeypatch, loop)
    loop.close()
