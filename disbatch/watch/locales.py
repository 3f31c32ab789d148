"""Which characters the user's terminal takes, as his locale says."""

from __future__ import annotations

import locale
from contextlib import suppress


def is_utf8() -> bool:
    """Whether text is UTF-8, as C libraries see it, and so curses: Python alone may say so in any locale."""
    with suppress(locale.Error):
        locale.setlocale(locale.LC_CTYPE, "")
    return locale.nl_langinfo(locale.CODESET).upper().replace("-", "") == "UTF8"
