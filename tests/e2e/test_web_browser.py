"""The web page of a run in a real browser: what a user sees of it, and does with it."""

from __future__ import annotations

import importlib.util
import re
import signal
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.pages import await_end_of_page, visitor_of
from tests.e2e.support import CHECKOUT, finish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.e2e.support import Workplace

    Watch = Callable[..., "Watched"]

pytestmark = pytest.mark.browser

GATE = "until [ -e go ]; do sleep 0.05; done"
HOSTILE = "echo '<img src=x onerror=document.title=1><script>document.title=1</script>' >&2; exit 3"

PATIENCE = 20_000
"""Milliseconds that something may take which takes a moment; only a failure ever waits that long."""


class Watched:
    """A run with a page, and a window of a browser in which it is open."""

    def __init__(self, work: Workplace, browser: Browser, *lines: str, **window: Any) -> None:  # noqa: ANN401 - as Playwright has it
        self.work = work
        tasks = work.write("tasks", *lines).name
        self.process = work.start("-s", "localhost:2", "-w", "-p", "run", tasks)
        self.visitor = visitor_of(work)
        self.window: BrowserContext = browser.new_context(**window)
        self.window.set_default_timeout(PATIENCE)
        self.page: Page = self.window.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(self.visitor.url)

    def sees(self, place: str, text: str | re.Pattern[str]) -> None:
        """Wait until the text is in that place."""
        self.page.locator(place).filter(has_text=text).first.wait_for()

    def let_go(self) -> None:
        (self.work.directory / "go").touch()

    def end(self) -> int:
        self.let_go()
        return finish(self.process).returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.end()
        self.window.close()
        await_end_of_page(self.work)


@pytest.fixture
def watch(work: Workplace, one_browser: Browser) -> Iterator[Watch]:
    """Start a run of these lines, and look at it in a window of this kind."""
    opened: list[Watched] = []

    def open_page(*lines: str, **window: Any) -> Watched:  # noqa: ANN401 - as Playwright has it
        opened.append(Watched(work, one_browser, *(lines or [GATE] * 3), **window))
        return opened[-1]

    yield open_page
    for watched in opened:
        watched.close()


def wait_for_fact(watched: Watched, name: str, value: str) -> None:
    fact = watched.page.locator("#facts div", has=watched.page.get_by_text(name, exact=True))
    fact.get_by_text(value, exact=True).wait_for()


def test_the_page_shows_a_run_from_its_middle_to_its_end(watch: Watch) -> None:
    watched = watch("true", "echo no input 1 >&2; exit 3", GATE, "true")
    assert "token" not in watched.page.url
    watched.sees("h1", "run")
    wait_for_fact(watched, "Done", "3")
    wait_for_fact(watched, "Failed", "1")
    watched.sees("#running-table", GATE)
    watched.sees("#failures", "exit status 3")
    watched.sees("#failures", "no input 1")
    watched.sees("#rerun-command", "-r run_status.txt -R")
    watched.sees("#rerun", "After the run, this runs them again:")
    watched.sees("#engines-table", "localhost")
    watched.page.locator("#rate-chart svg").wait_for()
    watched.page.locator("#places-chart svg[aria-label*='of 2 now']").wait_for()
    watched.let_go()
    watched.sees("#notice", "The run has ended: 4 tasks finished, 1 failed; exit status 0.")
    wait_for_fact(watched, "Done", "4")
    assert watched.page.title().startswith("100 %")
    assert watched.page.locator("button:visible").filter(has_text="Stop…").count() == 0
    assert watched.end() == 0
    assert watched.said == []
    assert all(url.startswith("http://127.0.0.1:") for url in watched.asked)


def test_a_wrong_token_shows_nothing(watch: Watch) -> None:
    watched = watch()
    stranger = watched.window.browser.new_context()  # type: ignore[union-attr, unused-ignore] # it has one
    page = stranger.new_page()
    for url in (watched.visitor.url[:-1], watched.page.url):
        answer = page.goto(url)
        assert answer is not None
        assert answer.status == 403
        assert page.inner_text("body").strip() == "403: open the URL that disbatch has printed"
    stranger.close()


def test_a_link_on_a_page_from_elsewhere_leads_there_too(watch: Watch) -> None:
    watched = watch()
    page = watched.window.browser.new_page()  # type: ignore[union-attr, unused-ignore] # it has one
    page.set_default_timeout(PATIENCE)
    link = f'<a href="{watched.visitor.url}">web page: http...</a>'
    page.route("http://terminal.example/", lambda route: route.fulfill(body=link, content_type="text/html"))
    page.goto("http://terminal.example/")
    page.get_by_role("link").click()
    page.locator("#phase").filter(has_text="running").wait_for()
    assert watched.visitor.token not in page.url
    page.context.close()


def test_texts_of_tasks_are_texts(watch: Watch) -> None:
    watched = watch(HOSTILE, GATE)
    watched.sees("#failures", "<script>")
    watched.page.fill("#find-text", "<img")
    watched.page.keyboard.press("Enter")
    watched.sees("#find-table", "<img src=x onerror=document.title=1>")
    assert watched.page.locator("main img, main script").count() == 0
    assert watched.page.title() != "1"
    assert watched.said == []


def test_a_task_is_found_by_its_id_and_by_a_text(watch: Watch) -> None:
    watched = watch("echo first", "echo second; exit 4", GATE)
    wait_for_fact(watched, "Done", "2")
    watched.page.locator("#running-table tbody tr").wait_for()
    watched.page.get_by_role("searchbox").fill("second")
    watched.page.get_by_role("button", name="Find").click()
    watched.sees("#find-status", "1 found")
    watched.sees("#find-table tbody", "exit status 4")
    watched.page.get_by_role("searchbox").fill("2")
    watched.page.keyboard.press("Enter")
    watched.sees("#find-table tbody tr:first-child", "running")
    watched.page.get_by_role("searchbox").fill("nothing like that")
    watched.page.keyboard.press("Enter")
    watched.sees("#find-status", "0 found among the tasks that run or have ended")
    assert not watched.page.locator("#find-table").is_visible()


def test_an_engine_is_stopped_by_its_button_once_that_is_confirmed(watch: Watch) -> None:
    watched = watch()
    joining = watched.work.start("-s", "localhost:1", "-l", "B", program=["./run_dbUtil.sh"])
    rows = watched.page.locator("#engines-table tbody tr")
    rows.nth(1).wait_for()
    stop = rows.nth(0).get_by_role("button", name="Stop the engine on localhost")
    stop.click()
    dialog = watched.page.get_by_role("dialog")
    dialog.get_by_role("heading", name="Stop the engine on localhost?").wait_for()
    watched.page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert rows.nth(0).get_by_text("running").is_visible()
    stop.click()
    dialog.get_by_role("button", name="End it now").click()
    dialog.wait_for(state="hidden")
    rows.nth(0).get_by_text("gone").wait_for()
    assert not stop.is_visible()
    watched.sees("#announcement", "told the engine on localhost to end what runs there")
    assert watched.end() == 0
    assert finish(joining).returncode == 0
    assert watched.said == []


def test_a_context_is_let_go_by_its_button(watch: Watch) -> None:
    watched = watch()
    joining = watched.work.start("-s", "localhost:1", "-l", "B", program=["./run_dbUtil.sh"])
    watched.page.get_by_role("button", name="Stop context B").click()
    watched.page.get_by_role("button", name="Finish what runs there").click()
    watched.sees("#engines-table tbody tr:nth-child(2)", re.compile("leaving|gone"))
    assert watched.end() == 0
    assert finish(joining).returncode == 0


def test_a_stop_that_does_not_work_says_why(watch: Watch) -> None:
    watched = watch()
    watched.page.route("**/stop", lambda route: route.fulfill(status=409, body="409: this engine is gone already\n"))
    watched.page.get_by_role("button", name="Stop the engine on localhost").click()
    watched.page.get_by_role("button", name="End it now").click()
    watched.sees("#stop-error", "this engine is gone already")
    watched.page.get_by_role("button", name="Do not stop").click()
    watched.page.get_by_role("dialog").wait_for(state="hidden")


def test_a_search_and_a_stop_say_when_their_server_is_gone(watch: Watch) -> None:
    watched = watch()
    stop = watched.page.get_by_role("button", name="Stop the engine on localhost")
    stop.wait_for()
    for path in ("**/find?*", "**/stop"):
        watched.page.route(path, lambda route: route.abort())
    watched.page.fill("#find-text", "x")
    watched.page.keyboard.press("Enter")
    watched.sees("#find-status", "That did not work: this page has lost its server")
    stop.click()
    watched.page.get_by_role("button", name="Finish what runs there").click()
    watched.sees("#stop-error", "That did not work: this page has lost its server")


def test_tables_are_sorted_by_their_headings(watch: Watch) -> None:
    watched = watch(*[GATE] * 4)
    first = watched.page.locator("#running-table tbody tr:first-child td:first-child")
    watched.page.locator("#running-table tbody tr:nth-child(2)").wait_for()
    heading = watched.page.get_by_role("columnheader", name="Task")
    heading.get_by_role("button").click()
    assert (heading.get_attribute("aria-sort"), first.inner_text()) == ("ascending", "0")
    heading.get_by_role("button").click()
    assert (heading.get_attribute("aria-sort"), first.inner_text()) == ("descending", "1")


def test_the_page_says_when_nobody_is_there_any_more(watch: Watch) -> None:
    watched = watch()
    watched.sees("#phase", "running")
    watched.window.set_offline(True)
    watched.page.evaluate("location.reload.name")  # the page itself stays
    watched.process.kill()
    watched.process.communicate()
    watched.sees("#notice", re.compile("gone|lost"))
    watched.let_go()


def test_a_driver_that_is_silent_and_answers_again_is_seen_and_heard_to_be_so(watch: Watch) -> None:
    watched = watch()
    watched.page.locator("#engines-table tbody tr").wait_for()
    watched.process.send_signal(signal.SIGSTOP)
    try:
        watched.sees("#notice", "The driver of the run has not answered for")
        watched.sees("#announcement", "The driver of the run does not answer")
    finally:
        watched.process.send_signal(signal.SIGCONT)
    watched.page.locator("#notice").wait_for(state="hidden")
    watched.sees("#announcement", "The driver of the run answers again")


def test_a_connection_that_was_lost_comes_back_by_itself(watch: Watch) -> None:
    watched = watch(GATE, "true")
    watched.sees("#phase", "running")
    watched.page.route("**/events", lambda route: route.abort())
    watched.page.reload()
    watched.sees("#notice", "The connection is lost; trying again")
    watched.page.unroute("**/events")
    watched.page.locator("#notice").wait_for(state="hidden")
    wait_for_fact(watched, "Done", "1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_it_fits_any_window_by_day_and_by_night(watch: Watch, scheme: str, width: int) -> None:
    long = "echo " + "x" * 500 + " >&2; exit 1"
    size = {"width": width, "height": 640}
    watched = watch(long, GATE, color_scheme=scheme, viewport=size)
    watched.sees("#failures", "xxx")
    watched.page.fill("#find-text", "xxx")
    watched.page.keyboard.press("Enter")
    watched.page.locator("#find-table tbody tr").wait_for()
    inside = watched.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert inside[0] <= inside[1]
    bad = watched.page.evaluate(CONTRAST)
    assert bad == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 360])
def test_in_a_narrow_window_each_row_is_a_block_that_needs_no_scrolling_sideways(
    watch: Watch, scheme: str, width: int
) -> None:
    long = f"{GATE}; : {'x' * 500}"
    watched = watch(long, GATE, color_scheme=scheme, viewport={"width": width, "height": 640})
    page = watched.page
    page.locator("#running-table tbody tr").nth(1).wait_for()
    assert page.get_by_role("button", name=re.compile("^Stop ")).count() == 2
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate(CONTRAST) == []
    label = "e => [getComputedStyle(e, '::before').content.split(' / ')[0], e.innerText]"
    cells = page.locator("#engines-table tbody td").evaluate_all(f"all => all.slice(0, 2).map({label})")
    assert cells == [['"Host"', "localhost"], ['"Number"', "0"]]
    for table, columns in (("#running-table", 6), ("#engines-table", 10)):
        place = page.locator(table)
        assert place.get_by_role("table").count() == 1
        assert place.get_by_role("columnheader").count() == columns
        assert place.get_by_role("row").nth(1).get_by_role("cell").count() == columns


@pytest.mark.parametrize("width", [721, 800, 1024])
def test_where_a_table_is_too_wide_its_buttons_are_seen_all_the_same(watch: Watch, width: int) -> None:
    watched = watch(GATE, viewport={"width": width, "height": 640})
    button = watched.page.get_by_role("button", name="Stop the engine on localhost")
    button.wait_for()
    box = button.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= width
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width


OUTSIDE = """() => {
  // Cells, buttons and tables that are not within the width of the window, or that hold what is wider than they are.
  const all = document.querySelectorAll("#running-table td, #engines-table td, td button, .scroll");
  return [...all].filter((e) => {
    const { left, right } = e.getBoundingClientRect();
    return e.checkVisibility() && (left < 0 || right > window.innerWidth || e.scrollWidth > e.offsetWidth);
  }).map((e) => e.textContent);
}"""

CONTRAST = """() => {
  // Texts whose colour does not stand out from what is behind it as WCAG 2 AA wants.
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.slice(0, 3).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const c = channels(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility() || element.closest("script, noscript")) continue;
    const [a, b] = [light(channels(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) bad.push(`${ratio.toFixed(2)}: ${node.textContent.slice(0, 30)}`);
  }
  return bad;
}"""


def test_everything_is_reached_by_keyboard_and_focus_is_seen(watch: Watch) -> None:
    watched = watch("exit 1", GATE)
    watched.sees("#failures", "exit status 1")
    watched.sees("#running-table", GATE)
    watched.page.get_by_role("button", name="Stop the engine on localhost").wait_for()
    reached = []
    for _ in range(60):
        watched.page.keyboard.press("Tab")
        focused = watched.page.evaluate(
            """() => {
              const e = document.activeElement;
              if (e === document.body) return null;
              const seen = getComputedStyle(e).outlineStyle !== "none";
              return [e.getAttribute("aria-label") || e.textContent.trim() || e.id, seen];
            }"""
        )
        if focused is None:
            break
        assert focused[1], f"focus is not to be seen at {focused[0]}"
        reached.append(focused[0])
    for wanted in ("Skip to content", "find-text", "Find", "Task", "Stop context SSH0", "Stop the engine on localhost"):
        assert wanted in reached


def test_focus_stays_where_it_is_while_the_page_changes(watch: Watch) -> None:
    watched = watch(GATE, *["true"] * 3)
    stop = watched.page.get_by_role("button", name="Stop the engine on localhost")
    stop.focus()
    before = watched.page.locator("#facts").inner_text()
    watched.page.wait_for_function("before => document.querySelector('#facts').innerText !== before", arg=before)
    assert stop.evaluate("e => e === document.activeElement")
    assert watched.page.evaluate("document.activeElement.isConnected")


def test_screen_readers_find_their_way(watch: Watch) -> None:
    watched = watch("exit 1", GATE)
    wait_for_fact(watched, "Done", "1")
    watched.sees("#failures", "exit status 1")
    watched.page.get_by_role("button", name="Stop the engine on localhost").wait_for()
    watched.page.locator("#rate-chart svg").wait_for()
    watched.page.locator("#places-chart svg").wait_for()
    page = watched.page
    for role in ("banner", "main", "contentinfo", "search"):
        assert page.get_by_role(role).count() == 1, role
    headings = page.get_by_role("heading").all_inner_texts()
    assert headings[0] == "run"
    assert headings[1:] == ["Progress", "Throughput", "Places in use", "What failed", "Find a task", "Running now",
                            "Contexts", "Engines"]  # fmt: skip
    bar = page.get_by_role("progressbar", name="Progress")
    assert re.fullmatch(r"1 of (about )?2 tasks done, 50 %", bar.get_attribute("aria-valuetext") or "")
    assert page.get_by_role("img").count() == 2
    for name in ("Host", "In use", "Finished", "Last heard"):
        assert page.get_by_role("columnheader", name=name, exact=False).count() >= 1, name
    assert page.get_by_label("Id of a task, or a text in its command, output or host").count() == 1
    assert page.locator("[aria-live=assertive]").count() == 0
    unnamed = page.locator("button:visible, input:visible").evaluate_all(
        "all => all.filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length"
    )
    assert unnamed == 0
    assert "progressbar" in page.locator("body").aria_snapshot()


def test_nothing_moves_for_those_who_do_not_want_it(watch: Watch) -> None:
    watched = watch(reduced_motion="reduce")
    durations = watched.page.locator("*").evaluate_all("all => all.map(e => getComputedStyle(e).transitionDuration)")
    assert set(durations) == {"0s"}


def test_several_windows_show_the_same(watch: Watch) -> None:
    watched = watch("true", GATE)
    other = watched.window.new_page()
    other.goto(watched.page.url)
    for page in (watched.page, other):
        page.locator("#bar-words").filter(has_text="1 of").wait_for()
    watched.process.send_signal(signal.SIGINT)
    for page in (watched.page, other):
        page.locator("#notice").filter(has_text="cut short").wait_for()
    assert finish(watched.process).returncode == 130


def test_the_picture_of_the_page_is_made_by_what_shows_it(tmp_path: Path, one_browser: Browser) -> None:
    spec = importlib.util.spec_from_file_location("make_picture", CHECKOUT / "tools" / "make-picture-of-page.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    made = tmp_path / "made.png"
    tool.make_in(one_browser, str(made))
    shown = Path(tool.PICTURE)
    for picture in (made, shown):
        head = picture.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">I", head[16:20]) == (1200,)
        assert picture.stat().st_size < 200_000
