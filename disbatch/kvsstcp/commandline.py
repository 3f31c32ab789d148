"""What the command lines of the package have in common: a mistake in one is one line."""

from __future__ import annotations

import argparse
from typing import NoReturn

USAGE = 2
"""Exit status of a mistake in the command line."""


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line. Its `prog` is `python -m MODULE`, with whatever behind it."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        # Some of argparse's messages hold the user's words as they are, line ends included.
        shown = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in message)
        module = self.prog.split()[2]
        self.exit(USAGE, f"{module.rpartition('.')[2]}: error: {shown} (see {self.prog} --help)\n")
