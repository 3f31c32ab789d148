from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.e2e.support import CHECKOUT


@pytest.mark.parametrize(
    ("locale", "is_utf8"), [("C.UTF-8", True), ("C", False), ("POSIX", False), ("none.of-the-kind", False)]
)
def test_what_the_locale_says_counts_whatever_python_makes_of_it(locale: str, *, is_utf8: bool) -> None:
    code = "from disbatch.watch.locales import is_utf8; print(is_utf8())"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "LC_ALL": locale},
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout == f"{is_utf8}\n"
