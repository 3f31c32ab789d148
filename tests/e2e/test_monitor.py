"""The monitor in a real terminal, of real runs: keys in, screen out."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from disbatch.records import fields
from disbatch.watch.state import ContextState, EngineState, RunState
from tests.e2e.support import CHECKOUT, DISBATCH, PATIENCE, finish
from tests.e2e.window import ALTERNATE, DOWN, ENTER, ESCAPE, NORMAL, PAGE_DOWN, Window

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

    from tests.e2e.support import Workplace

WAIT = "echo $DISBATCH_ATTEMPT >> begun.$DISBATCH_TASKID; until [ -e go ]; do sleep 0.02; done"

ENDED = "The run has ended"


def begin(work: Workplace, *options: str, tasks: int = 4) -> subprocess.Popen[bytes]:
    """Start a run with one place and tasks that wait for a file `go`."""
    run = work.start("-s", "localhost:1", "-p", "run", *options, work.write("tasks", *[WAIT] * tasks).name)
    work.await_file("begun.0")
    return run


def let_end(work: Workplace, run: subprocess.Popen[bytes]) -> None:
    work.write("go")
    assert finish(run, timeout=PATIENCE).returncode == 0


def add_context(work: Workplace) -> subprocess.Popen[bytes]:
    """Add a place to the run, as context SSH1, and wait until a task runs there."""
    added = work.start("-s", "localhost:1", program=[work.directory / "run_dbUtil.sh"])
    work.await_file("begun.1")
    return added


def monitor(work: Workplace, *, size: tuple[int, int] = (80, 24), env: Mapping[str, str] | None = None) -> Window:
    return Window(work, [work.directory / "run_dbUtil.sh", "--mon"], size=size, env=env)


def shows_run(terminal: Window) -> None:
    """Wait until it shows that a task runs."""
    terminal.until(lambda: "1/1" in terminal.text and "running" in terminal.lines[0], "task that runs")


def is_gone(terminal: Window, name: str) -> bool:
    """Whether the table says so of that context or host."""
    return any(line.strip("> ").split()[:2] == [name, "gone"] for line in terminal.lines)


def is_restored(terminal: Window) -> bool:
    """Whether the terminal is set as it was, and shows what it did."""
    on_second_screen = terminal.written.rfind(ALTERNATE)
    assert on_second_screen >= 0
    return terminal.attributes == terminal.attributes_before and terminal.written.rfind(NORMAL) > on_second_screen


# What is shown.


def test_a_run_from_its_middle_to_its_end(work: Workplace) -> None:
    run = begin(work)
    with monitor(work) as terminal:
        shows_run(terminal)
        terminal.until(lambda: terminal.lines[7].split()[:3] == ["localhost", "running", "1/1"], "line of the engine")
        assert terminal.lines[0].startswith("run ")
        assert terminal.lines[0].endswith(" running")
        assert terminal.lines[1].endswith(" 0 %   0 of 4 tasks")
        assert terminal.lines[2].startswith("done 0   failed 0   running 1   waiting 3")
        assert terminal.lines[3].startswith("1 of 1 places in use")
        assert terminal.lines[6].split()[:4] == [">", "SSH0", "running", "1/1"]
        terminal.press("d")
        terminal.shows(">   localhost")
        let_end(work, run)
        terminal.shows(f"{ENDED}.")
        assert terminal.lines[2].startswith("done 4   failed 0"), "the last word of the run, not what was seen before"
        terminal.press("u")
        terminal.shows("> SSH0")
        terminal.press("q")
        assert terminal.ends() == 0
        assert is_restored(terminal)


def test_any_other_key_quits_when_the_run_has_ended(work: Workplace) -> None:
    run = begin(work, tasks=1)
    with monitor(work) as terminal:
        shows_run(terminal)
        let_end(work, run)
        terminal.shows(ENDED)
        terminal.press(" ")
        assert terminal.ends() == 0


def test_what_an_engine_runs_now(work: Workplace) -> None:
    run = begin(work)
    with monitor(work) as terminal:
        shows_run(terminal)
        terminal.press(f"{DOWN}{ENTER}")
        terminal.shows(f"  {WAIT}"[:40])
        assert "engine 0 on localhost: running" in terminal.text
        terminal.press(ESCAPE)
        terminal.shows(">   localhost")
        terminal.press("q")
        assert terminal.ends() == 0
    let_end(work, run)


def test_help_filter_and_sorting(work: Workplace) -> None:
    run = begin(work)
    with monitor(work) as terminal:
        shows_run(terminal)
        terminal.press("?")
        terminal.shows("quit; the run goes on")
        terminal.press("h")
        terminal.shows("> SSH0")
        terminal.press("s")
        terminal.shows("sorted by name")
        terminal.press("/nowhere")
        terminal.shows("nothing has that text in it")
        terminal.press(ESCAPE)
        terminal.shows("> SSH0")
        terminal.press("q")
        assert terminal.ends() == 0
    let_end(work, run)


@pytest.mark.parametrize("size", [(1, 1), (10, 3), (40, 10), (200, 60)])
def test_a_window_of_any_size_and_one_that_changes(work: Workplace, size: tuple[int, int]) -> None:
    run = begin(work)
    with monitor(work, size=size) as terminal:
        terminal.until(lambda: bool(terminal.lines[0]), "picture")
        terminal.resize(90, 20)
        terminal.shows("localhost")
        terminal.until(lambda: terminal.lines[0].endswith("running") and len(terminal.lines[0]) == 90, "wider picture")
        terminal.resize(*size)
        terminal.press(PAGE_DOWN)
        terminal.resize(80, 24)
        terminal.until(lambda: terminal.lines[-1].endswith("1-2 of 2"), "usual picture")
        terminal.press("q")
        assert terminal.ends() == 0
        assert is_restored(terminal)
    let_end(work, run)


@pytest.mark.parametrize(
    ("environment", "bar", "coloured"),
    [
        ({}, "░░░░", True),
        ({"NO_COLOR": "1"}, "░░░░", False),
        ({"LC_ALL": "C", "TERM": "screen-256color"}, "[----", True),
        ({"TERM": "vt100"}, "░░░░", False),
        ({"TERM": "linux"}, "░░░░", True),
    ],
)
def test_terminals_of_other_kinds(work: Workplace, environment: dict[str, str], bar: str, *, coloured: bool) -> None:
    run = begin(work)
    with monitor(work, env=environment) as terminal:
        shows_run(terminal)
        assert bar in terminal.lines[1]
        assert terminal.has_colours is coloured
        terminal.press("q")
        assert terminal.ends() == 0
        assert terminal.attributes == terminal.attributes_before
    let_end(work, run)


@pytest.mark.parametrize("kind", ["dumb", "no-such-terminal"])
def test_a_terminal_that_cannot_show_it_is_told_of_another_way(work: Workplace, kind: str) -> None:
    run = begin(work)
    with monitor(work, env={"TERM": kind}) as terminal:
        assert terminal.ends() == 1
        assert terminal.text.startswith("disbatch: error: --mon ")
        assert "(--status prints the same" in terminal.text.replace("\n", "")
        assert b"\x1b" not in terminal.written
    done = work.run("--mon", program=[work.directory / "run_dbUtil.sh"])
    assert (done.returncode, len(done.complaints)) == (1, 1)
    assert "--mon needs a terminal" in done.stderr
    let_end(work, run)


# Stopping.


def test_an_engine_is_stopped_and_the_run_goes_on_elsewhere(work: Workplace) -> None:
    run = begin(work)
    added = add_context(work)
    with monitor(work) as terminal:
        terminal.shows("SSH1")
        terminal.press("d")
        terminal.shows(">   localhost")
        terminal.press("E")
        terminal.shows("Stop engine 0 on localhost?")
        terminal.press("n")
        terminal.shows("engine 0 on localhost goes on")
        terminal.press("Ey")
        terminal.shows("told engine 0 on localhost to finish what runs there")
        terminal.until(lambda: terminal.lines[7].split()[2] == "leaving", "engine that leaves")
        let_end(work, run)
        terminal.shows(ENDED)
        terminal.press("q")
        assert terminal.ends() == 0
    assert finish(added, timeout=PATIENCE).returncode == 0
    assert [work.text(f"begun.{task}") for task in range(4)] == ["1\n"] * 4, "each has run once"


def test_what_runs_in_a_context_is_ended_and_runs_again_elsewhere(work: Workplace) -> None:
    run = begin(work)
    added = add_context(work)
    with monitor(work) as terminal:
        terminal.shows("SSH1")
        terminal.press("GC")
        terminal.shows("Stop context SSH1?")
        terminal.press("!")
        terminal.shows("told context SSH1 to end what runs there, which others run again")
        assert finish(added, timeout=PATIENCE).returncode == 0
        terminal.until(lambda: is_gone(terminal, "SSH1"), "context that has gone")
        let_end(work, run)
        terminal.shows(ENDED)
        terminal.press("q")
        assert terminal.ends() == 0
    assert work.text("begun.1").split() == ["1", "2"]


def test_who_has_only_the_file_for_observers_looks_and_stops_nothing(work: Workplace) -> None:
    run = begin(work)
    shutil.copy(work.directory / "run_observer.txt", work.directory / "copy")
    with Window(work, [*DISBATCH, "--mon", "copy"]) as terminal:
        shows_run(terminal)
        terminal.press("dE")
        terminal.shows("gives no right to stop")
        terminal.press(ENTER)
        terminal.shows("no right to see commands")
        let_end(work, run)
        terminal.shows("it was killed, or the run is over")
        terminal.press("q")
        assert terminal.ends() == 0
        assert is_restored(terminal)


# Ends of all kinds.


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGQUIT, 131)]
)
def test_a_signal_ends_it_in_order(work: Workplace, number: signal.Signals, status: int) -> None:
    run = begin(work)
    with monitor(work) as terminal:
        shows_run(terminal)
        terminal.process.send_signal(number)
        assert terminal.ends() == status
        assert is_restored(terminal)
        assert b"Traceback" not in terminal.written
    let_end(work, run)


def test_ctrl_c_ends_it_and_not_the_run(work: Workplace) -> None:
    run = begin(work)
    with monitor(work) as terminal:
        shows_run(terminal)
        terminal.press("\x03")
        assert terminal.ends() == 130
        assert is_restored(terminal)
    let_end(work, run)


def test_it_ends_with_its_window(work: Workplace) -> None:
    run = begin(work)
    with monitor(work) as terminal:
        shows_run(terminal)
        terminal.hang_up()
        assert terminal.process.wait(PATIENCE) == 129
    let_end(work, run)


def test_a_driver_that_is_stopped_holds_no_key_up(work: Workplace) -> None:
    run = begin(work)
    with monitor(work) as terminal:
        shows_run(terminal)
        run.send_signal(signal.SIGSTOP)
        terminal.shows("The driver has not answered for")
        terminal.press("h")
        terminal.shows("quit; the run goes on")
        terminal.press("hCy")
        terminal.shows("asking the driver to stop context SSH0")
        run.send_signal(signal.SIGCONT)
        terminal.until(lambda: "The driver has not answered" not in terminal.text, "answer")
        terminal.press("q")
        assert terminal.ends() == 0
    added = work.start("-s", "localhost:1", program=[work.directory / "run_dbUtil.sh"])
    let_end(work, run)
    finish(added, timeout=PATIENCE)


def test_a_driver_that_was_killed_is_missed(work: Workplace) -> None:
    run = begin(work)
    with monitor(work) as terminal:
        shows_run(terminal)
        run.kill()
        finish(run)
        terminal.shows("it was killed, or the run is over")
        terminal.press("q")
        assert terminal.ends() == 0
        assert is_restored(terminal)
    work.await_silence(PATIENCE)


def test_many_who_look_do_not_disturb_the_run(work: Workplace) -> None:
    run = begin(work, tasks=1)
    terminals = [monitor(work) for _ in range(4)]
    try:
        for terminal in terminals:
            shows_run(terminal)
        terminals[0].process.kill()
        terminals[1].process.send_signal(signal.SIGSTOP)
        let_end(work, run)
        terminals[2].shows(ENDED)
        terminals[1].process.send_signal(signal.SIGCONT)
        terminals[1].shows(ENDED)
    finally:
        for terminal in terminals:
            terminal.__exit__()


# Once.


def test_the_state_of_a_run_is_printed_once(work: Workplace) -> None:
    run = begin(work)
    script: str | Path = work.directory / "run_dbUtil.sh"
    for arguments, program in (
        (["--status"], [script]),
        (["--status", "run_observer.txt"], list(DISBATCH)),
    ):
        told = work.run(*arguments, program=program)
        assert (told.returncode, told.stderr) == (0, "")
        assert "0 of 4 tasks" in told.stdout
        assert "localhost" in told.stdout
        assert max(map(len, told.stdout.splitlines())) <= 80
        found = json.loads(work.run(*arguments, "--json", program=program).stdout)
        assert (found["phase"], found["total"], found["engines"][0]["node"]) == ("working", 4, "localhost")
    ascii_alone = work.run("--status", program=[script], env={"LC_ALL": "C"})
    assert ascii_alone.stdout.isascii()
    let_end(work, run)
    done = work.run("--status", program=[script])
    assert (done.returncode, done.stdout, done.stderr) == (0, "Run done\n", "")
    assert json.loads(work.run("--status", "--json", program=[script]).stdout) == {"phase": "ended"}
    gone = work.run("--status", "run_observer.txt")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.complaints == [
        "disbatch: error: there is no file 'run_observer.txt' (a run has its file for observers until it ends)"
    ]
    with monitor(work) as terminal:
        assert terminal.ends() == 0
        assert terminal.lines[0] == "Run done"


def test_a_driver_that_was_killed_has_no_state(work: Workplace) -> None:
    run = begin(work)
    run.kill()
    finish(run)
    for arguments, program in (
        (["--status"], [work.directory / "run_dbUtil.sh"]),
        (["--status", "run_observer.txt"], list(DISBATCH)),
    ):
        told = work.run(*arguments, program=program)
        assert (told.returncode, told.stdout, len(told.complaints)) == (1, "", 1)
        assert "cannot reach the driver" in told.stderr
    work.await_silence(PATIENCE)


def test_a_run_that_asks_for_no_secret_can_be_looked_at(work: Workplace) -> None:
    run = begin(work, "--insecure-kvs")
    assert "0 of 4 tasks" in work.run("--status", "run_observer.txt").stdout
    assert "0 of 4 tasks" in work.run("--status", program=[work.directory / "run_dbUtil.sh"]).stdout
    let_end(work, run)


def test_nobody_reads_what_is_printed(work: Workplace) -> None:
    run = begin(work)
    told = work.run("-c", "./run_dbUtil.sh --status --json | true", program=["bash"])
    assert (told.returncode, told.stderr) == (0, "")
    let_end(work, run)


def test_the_picture_in_the_documentation_is_what_the_monitor_shows() -> None:
    """`make pictures` makes it anew."""
    spec = importlib.util.spec_from_file_location("make_picture", CHECKOUT / "tools" / "make-picture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert Path(module.PICTURE).read_text(encoding="utf-8") == module.picture()


def test_every_key_of_the_json_has_its_line() -> None:
    page = (CHECKOUT / "docs" / "reference" / "status-json.md").read_text(encoding="utf-8")
    for name in {
        *fields(RunState),
        *fields(ContextState),
        *fields(EngineState),
        "done",
        "elapsed",
        "rate",
        "seconds_left",
    }:
        assert f"`{name}`" in page, name
