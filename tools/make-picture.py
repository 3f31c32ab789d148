"""Makes docs/pictures/monitor.svg: the monitor in a real terminal, of a run that never was.

A test compares the picture with what this makes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from html import escape
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, CHECKOUT)

from disbatch.monitor.model import Monitor, Seen  # noqa: E402 - of this checkout
from disbatch.monitor.render import frame  # noqa: E402 - as above
from disbatch.watch.state import EXPECTED, GONE, LEAVING  # noqa: E402 - as above
from tests.e2e.support import Workplace  # noqa: E402 - as above
from tests.e2e.window import Window  # noqa: E402 - as above
from tests.unit.watch.examples import BEGAN, context, engine, run  # noqa: E402 - as above

if TYPE_CHECKING:
    import pyte.screens

    from disbatch.watch.state import EngineState, RunState

PICTURE = os.path.join(CHECKOUT, "docs", "pictures", "monitor.svg")

SIZE = COLUMNS, LINES = 80, 24
WIDTH, HEIGHT, SIZE_OF_FONT, MARGIN = 8.4, 18, 14, 12
"""Of a cell, of its font, and around all of them."""

BACKGROUND, FOREGROUND = "#14181f", "#d5dae2"
COLOURS = {"default": FOREGROUND, "red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341", "cyan": "#79c0ff"}
"""By the names that pyte has for them."""

SHOW = "--show"


# What the terminal shows.


def show() -> None:
    """Be the program in the terminal: show the picture until a key is pressed."""
    from disbatch.monitor.screen import Screen  # noqa: PLC0415 - curses needs the terminal

    monitor = Monitor()
    monitor.resized(*SIZE)
    for seconds in (0, 15):
        monitor.passed(BEGAN + 1525 + seconds, float(seconds))
        monitor.heard(Seen(_state(seconds)))
    for key in "ddddd":
        monitor.pressed(key)
    with Screen(os.environ) as screen:
        screen.draw(frame(monitor))
        while not list(screen.keys()):
            pass


def _state(seconds: int) -> RunState:
    """The run, so long after a moment in its middle."""
    engines = [_engine(rank, f"node{rank + 1:02}", 0, seconds) for rank in range(8)]
    engines[2] = _engine(2, "node03", 0, seconds, failed=12)
    engines[5] = _engine(5, "node06", 0, 0, cut=True)
    engines += [_engine(rank, f"gpu{rank - 7}", 1, seconds, cylinders=8, active=8) for rank in range(8, 11)]
    engines[9] = _engine(9, "gpu2", 1, seconds, status=LEAVING, cylinders=8, active=3)
    engines[10] = _engine(10, "gpu3", 1, 0, status=GONE, cylinders=8, active=0)
    engines.append(_engine(11, "fat1", 2, 0, status=EXPECTED, active=0, assigned=0, finished=0, heard=None, came=None))
    contexts = (context(0, "J4711", tuple(range(8))), context(1, "gpus", (8, 9, 10)), context(2, "fat", (11,)))
    return run(
        *engines, contexts=contexts, time=BEGAN + 1525 + seconds, cylinders=160, active=129, waiting=1200, total=48_000,
        total_is_exact=False, finished=32_310 + 22 * seconds, failed=12, lost=3, skipped=9_800,
    )  # fmt: skip


def _engine(rank: int, node: str, context: int, seconds: int, **different: object) -> EngineState:
    finished = 2500 + 97 * (rank * 7 % 5) + 2 * seconds
    known: dict[str, object] = {
        "cylinders": 16, "active": 16, "assigned": finished + 20, "finished": finished,
        "heard": BEGAN + 1525 + seconds - rank * 3 % 5 * bool(seconds),
    }  # fmt: skip
    return engine(rank, node, context, **{**known, **different})


# From the terminal to the picture.


def picture() -> str:
    """Text of the picture."""
    program = [sys.executable, os.path.abspath(__file__), SHOW]
    with tempfile.TemporaryDirectory() as place, Window(Workplace(Path(place)), program, size=SIZE) as terminal:
        terminal.until(
            lambda: terminal.lines[-1].startswith("h help") and terminal.lines[-1].endswith(" 15"), "picture"
        )
        rows = [[terminal.screen.buffer[line][column] for column in range(COLUMNS)] for line in range(LINES)]
        terminal.press("q")
        terminal.ends()
    return svg(rows)


def svg(rows: list[list[pyte.screens.Char]]) -> str:
    """The picture of these cells, row by row."""
    width, height = COLUMNS * WIDTH + 2 * MARGIN, LINES * HEIGHT + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:g}" height="{height:g}"',
        f' viewBox="0 0 {width:g} {height:g}" font-family="monospace" font-size="{SIZE_OF_FONT}">',
        "<title>The monitor of a run in a terminal of 80 by 24 characters</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
    ]
    for line, row in enumerate(rows):
        column = 0
        for style, cells in groupby(row, key=lambda cell: (cell.fg, cell.bold, cell.reverse, cell.underscore)):
            text = "".join(cell.data for cell in cells)
            parts += _run(text, column, line, *style)
            column += len(text)
    return "\n".join([*parts, "</svg>", ""])


def _run(text: str, column: int, line: int, colour: str, bold: bool, reverse: bool, underscore: bool) -> list[str]:  # noqa: FBT001 - as pyte has them
    """Cells of one style that stand side by side."""
    x, y = MARGIN + column * WIDTH, MARGIN + line * HEIGHT
    parts = []
    fill = COLOURS[colour]
    if reverse:
        parts.append(f'<rect x="{x:g}" y="{y:g}" width="{len(text) * WIDTH:g}" height="{HEIGHT}" fill="{fill}"/>')
        fill = BACKGROUND
    elif not text.strip():
        return []
    else:  # what is blank need not be drawn
        x += (len(text) - len(text.lstrip())) * WIDTH
        text = text.strip()
    weight = ' font-weight="bold"' * bold
    line_below = ' text-decoration="underline"' * underscore
    parts.append(
        f'<text x="{x:g}" y="{y + 13:g}" fill="{fill}"{weight}{line_below} textLength="{len(text) * WIDTH:g}" '
        f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{escape(text)}</text>'
    )
    return parts


def main() -> None:
    """Write the picture, or show what it is of."""
    if sys.argv[1:] == [SHOW]:
        show()
        return
    os.makedirs(os.path.dirname(PICTURE), exist_ok=True)
    made = picture()
    with open(PICTURE, "w", encoding="utf-8", newline="\n") as file:
        file.write(made)


if __name__ == "__main__":
    main()
