"""What the twins of the engine's shells share."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import pytest

from disbatch.engine.keeper import PR_SET_CHILD_SUBREAPER

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def subreaper() -> Iterator[None]:
    """Make this process what an engine is: the one to reap what tasks leave behind, whatever process 1 here does."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
