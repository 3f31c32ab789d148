"""Makes docs/pictures/web-page.png: the web page of a run that is made up, in Chromium, by what shows real ones.

    tools/make-picture-of-page.py [FILE]

Needs the packages of the group `test`, and Debian's chromium.
"""

from __future__ import annotations

import math
import mimetypes
import os
import sys
from typing import TYPE_CHECKING

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, CHECKOUT)

from disbatch.report.causes import Digest, Failure  # noqa: E402 - of this checkout
from disbatch.watch.pace import Pace  # noqa: E402 - as above
from disbatch.watch.state import RunningTask  # noqa: E402 - as above
from disbatch.web import view  # noqa: E402 - as above
from disbatch.web.history import History  # noqa: E402 - as above
from tests.browser import browser  # noqa: E402 - as above
from tests.unit.watch.examples import BEGAN, context, engine, run  # noqa: E402 - as above

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

    from disbatch.watch.state import EngineState

PICTURE = os.path.join(CHECKOUT, "docs", "pictures", "web-page.png")
FOLDER = os.path.join(CHECKOUT, "disbatch", "web", "page")
WIDTH = 1200

_NOW = BEGAN + 1510.0


def _engine(rank: int, context: int, node: str, places: int, *, active: int, finished: int, failed: int) -> EngineState:
    return engine(
        rank, node, context, cut=node == "h3", cylinders=places, active=active, assigned=finished + active,
        finished=finished, failed=failed, heard=_NOW - (21 if node == "h3" else 2),
    )  # fmt: skip


STATE = run(
    _engine(0, 0, "h1", 16, active=16, finished=2750, failed=31),
    _engine(1, 0, "h2", 16, active=16, finished=2741, failed=30),
    _engine(2, 0, "h3", 16, active=13, finished=2671, failed=42),
    _engine(3, 1, "node017", 20, active=20, finished=2361, failed=30),
    _engine(4, 1, "node018", 20, active=20, finished=2350, failed=31),
    contexts=(
        context(0, "SSH0", (0, 1, 2), assigned=8210),
        context(1, "J4711", (3, 4), system="Slurm", assigned=4748),
    ),
    job="Simulations_disBatch_261121103000_417",
    time=_NOW,
    list_ended=False,
    waiting=256,
    total=20_000,
    finished=12_873,
    failed=164,
    lost=3,
    rerun=3,
    seconds_offered=132_000.0,
    seconds_taken=128_400.0,
)

_RUNNING = tuple(
    RunningTask(task, task + 1, -1, attempt, engine, _NOW - seconds, f"./simulate --seed {task} --temperature 300")
    for task, attempt, engine, seconds in (
        (9104, 2, 2, 412),
        (12_791, 1, 0, 95),
        (12_802, 1, 3, 88),
        (12_830, 1, 1, 41),
        (12_866, 1, 4, 12),
    )
)


def _failures() -> Digest:
    digest = Digest()
    for node in ("h1", "h2", "node017", "node018"):
        digest.ran_on(node)
    kinds = (
        ("./simulate: cannot open input_{}.dat: No such file or directory\n", 2, ("h1", "h2", "h3", "node017"), 118),
        ("./simulate: /scratch/u{}: No space left on device\n", 1, ("h3",), 42),
        ("", -11, ("h1", "node018"), 4),
    )  # fmt: skip
    task = 40
    for text, return_code, nodes, count in kinds:
        for number in range(count):
            task += 7
            err = text.format(task)
            kept = err if len(err) <= 80 else f"{err[:40]}...{err[-40:]}"  # noqa: PLR2004 - as a status file has it
            command = f"./simulate --seed {task} --temperature 300"
            node = nodes[number % len(nodes)]
            digest.add(Failure(task, task + 1, -1, node, 17, return_code, len(err), kept, command))
    return digest


def _events() -> bytes:
    pace, history = Pace(), History()
    ended = 0.0
    for second in range(0, 1500, 6):
        ended += 6 * (8.6 + 1.2 * math.sin(second / 70)) * min(1.0, second / 60 + 0.2)
        places = 48 if second < 420 else 88  # noqa: PLR2004 - when the job came
        pace.note(float(second), round(ended))
        history.note(float(second), round(ended), places - second // 60 % 4, places)
    digest = _failures()
    command = "disbatch -s h1:16,h2:16,h3:16 -w Simulations -r Simulations_disBatch_261121103000_417_status.txt -R"
    parts = {
        "run": view.run(STATE, pace),
        "hosts": view.hosts(STATE),
        "running": view.running(_RUNNING, 80, STATE),
        "history": view.history(history.moments, 0.0),
        "failures": view.failures(digest, command, behind=False),
    }
    return b"".join(view.event(name, told) for name, told in parts.items())


def _answer(route: Route) -> None:
    name = route.request.url.rpartition("/")[2] or "index.html"
    if name == "events":
        route.fulfill(body=_events() + b"retry: 1000000\n\n", content_type="text/event-stream")
        return
    with open(os.path.join(FOLDER, name), "rb") as file:
        route.fulfill(body=file.read(), content_type=mimetypes.guess_type(name)[0])


def make_in(found: Browser, path: str) -> None:
    """Make the picture in that browser."""
    page = found.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light", reduced_motion="reduce")
    page.route("**/*", _answer)
    page.goto("http://run.example/")
    page.locator("#engines-table tbody tr").nth(4).wait_for()
    page.locator("#notice").evaluate("notice => notice.remove()")  # that nothing follows is not worth a picture
    section = page.locator("section", has=page.locator("#running-table")).bounding_box()
    assert section is not None  # noqa: S101 - it is there
    height = section["y"] + section["height"] + 16
    page.screenshot(path=path, full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
    page.close()


if __name__ == "__main__":
    with browser() as opened:
        make_in(opened, sys.argv[1] if len(sys.argv) > 1 else PICTURE)
