"""A real browser for tests: Debian's Chromium without a screen, led by Playwright."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@cache
def why_no_browser() -> str:
    """Return why there can be no browser here, "" when there can."""
    if find_spec("playwright") is None:
        return "not installed: Python's playwright"
    if _program() is None:
        return "not installed: chromium"
    return ""


def _program() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser for the time being."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - not everybody has it

    # Root's browser has no sandbox to work in, and it sees nothing but pages of the tests.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=_program(), args=[*options, "--disable-gpu"])
        try:
            yield found
        finally:
            found.close()
