"""The file that tells clients where a server is, and a secret: lines that set variables, which a shell can read too.

Pure. It must not know who may read such a file.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_BEGIN, _OURS = "export ", "KVSSTCP_"


def text_of(environment: Mapping[str, str]) -> str:
    """Text of the file: a line for each variable that a client looks at."""
    ours = sorted((name, value) for name, value in environment.items() if name.startswith(_OURS))
    return "".join(f"{_BEGIN}{name}={shlex.quote(value)}\n" for name, value in ours)


def variables_in(text: str) -> dict[str, str]:
    """Variables that a file of that text sets; nothing in it is executed. Raises ValueError for any other text."""
    variables = {}
    for line in filter(str.strip, text.splitlines()):
        words = shlex.split(line.strip().removeprefix(_BEGIN))
        name, equals, value = words[0].partition("=") if len(words) == 1 else ("", "", "")
        if not equals or not name.startswith(_OURS):
            raise ValueError("not a file that says where a key-value store is")
        variables[name] = value
    return variables
