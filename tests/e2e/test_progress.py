"""How far a run is, on the terminal that runs it."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import TYPE_CHECKING

from tests.e2e.support import DISBATCH, PATIENCE, eventually, finish
from tests.e2e.test_pool import add
from tests.e2e.window import ALTERNATE, Window

if TYPE_CHECKING:
    from tests.e2e.support import Workplace

WAIT = "touch begun.$DISBATCH_TASKID; until [ -e go.$DISBATCH_TASKID ]; do sleep 0.02; done"
TASKS = ("true", "exit 3", *[WAIT] * 4)

CTRL_C = "\x03"
LINE_BEGINS, LINE_ENDS = b"\r", b"\x1b[K"


def begin(work: Workplace, *options: str) -> Window:
    tasks = work.write("tasks", *TASKS)
    terminal = Window(work, [*DISBATCH, "-s", "localhost:2", "-p", "run", *options, tasks.name], size=(100, 24))
    work.await_file("begun.2")
    work.await_file("begun.3")
    return terminal


def let_go(work: Workplace) -> None:
    for number in range(2, 6):
        work.write(f"go.{number}")


def test_a_terminal_shows_how_far_the_run_is_and_keeps_what_is_told(work: Workplace) -> None:
    with begin(work) as terminal:
        terminal.says(b"2/2 places")
        assert terminal.written.startswith(b"disbatch: ./run_dbUtil.sh --mon shows this run")
        line = terminal.written.rpartition(LINE_BEGINS)[2]
        for figure in (b"2/6 done", b"1 failed", b"2 running", b"2 waiting"):
            assert figure in line
        added = add(work, work.directory / "run_dbUtil.sh", "-s", "localhost:1")
        terminal.says(b"disbatch: the engine on localhost came, with 1 place\r\n")
        terminal.says(b"3/3 places")
        let_go(work)
        assert terminal.ends() == 0
        assert finish(added, timeout=PATIENCE).returncode == 0
        _, _, last = terminal.written.rpartition(LINE_ENDS)
    assert last.startswith(b"disbatch: 6 tasks finished, 1 failed"), "the line is gone, and what follows stands alone"
    assert terminal.written.count(b"came, with") == 1


def stand_above_the_line(terminal: Window, *told: str) -> bool:
    """Whether lines that begin so are on the screen, in their order, and the figures of the run below them."""
    rows = [next((row for row, line in enumerate(terminal.lines) if line.startswith(text)), -1) for text in told]
    figures = [row for row, line in enumerate(terminal.lines) if " places" in line and " running" in line]
    return -1 not in rows and len(figures) == 1 and sorted([*rows, *figures]) == [*rows, *figures]


def test_who_was_lost_and_what_has_ended_stands_above_the_line(work: Workplace) -> None:
    with begin(work) as terminal:
        engine = work.engine()
        added = add(work, work.directory / "run_dbUtil.sh", "-s", "localhost:1")
        terminal.says(b"3/3 places")
        os.kill(engine.pid, signal.SIGKILL)
        told = (
            "disbatch: lost the engine on localhost; 2 of its tasks to run again",
            "disbatch: context SSH0 has ended",
        )
        terminal.until(lambda: stand_above_the_line(terminal, *told), "word of it")
        let_go(work)
        assert terminal.ends() == 0
        assert finish(added, timeout=PATIENCE).returncode == 0
    assert b"the engine on localhost left" not in terminal.written, "it is told once"


def test_a_host_that_is_not_heard_any_more_is_told_of_at_once(work: Workplace) -> None:
    with begin(work) as terminal:
        terminal.says(b"2/2 places")
        for part in (work.keeper(), work.engine()):
            os.kill(part.pid, signal.SIGKILL)
        cut = "disbatch: lost the connection to the engine on localhost, where 2 tasks run; waiting for it"
        terminal.until(lambda: stand_above_the_line(terminal, cut), "word of it")
        terminal.press(CTRL_C)
        terminal.says(b"is broken; waiting")
        terminal.press(CTRL_C)
        assert terminal.ends() == 130
        let_go(work)  # nobody else can end them


def test_a_window_of_another_size_gets_a_line_of_that_width(work: Workplace) -> None:
    with begin(work) as terminal:

        def line() -> str:
            """The newest drawing that is whole, without its colours."""
            drawn = terminal.written.split(LINE_ENDS)[-2:][0].rpartition(LINE_BEGINS)[2]
            return re.sub("\x1b\\[[0-9;]*m", "", drawn.decode())

        terminal.until(lambda: "2/2 places" in line(), "the whole line")
        terminal.resize(40, 24)
        terminal.until(lambda: 0 < len(line()) < 40, "a line for 40 columns")
        assert line().startswith("2/6 done  1 failed")
        terminal.resize(100, 24)
        terminal.until(lambda: 40 < len(line()) < 100, "a line for 100 columns")
        assert "2/2 places" in line()
        let_go(work)
        assert terminal.ends() == 0


def test_a_run_that_is_over_before_there_is_a_line_does_not_import_what_draws_it(work: Workplace) -> None:
    tasks = work.write("tasks", "true")
    code = (
        "import sys; from disbatch.cli import main; from disbatch.driver import display; display.BEGIN_AFTER = 3600.0;"
        " status = main(); print(status, *sys.modules, file=open('modules', 'w'))"
    )
    with Window(work, [sys.executable, "-c", code, "-s", "localhost:1", tasks.name]) as terminal:
        assert terminal.ends() == 0
    status, *modules = work.text("modules").split()
    assert status == "0"
    assert "disbatch.driver.display" in modules
    assert not {"rich", "disbatch.progress.screen"} & set(modules)


def test_who_does_not_want_it_sees_what_is_told_alone(work: Workplace) -> None:
    with begin(work, "--progress", "off") as terminal:
        let_go(work)
        assert terminal.ends() == 0
        assert terminal.written.startswith(b"disbatch: 6 tasks finished, 1 failed")


def test_a_run_that_is_stopped_leaves_the_terminal_to_the_shell(work: Workplace) -> None:
    with begin(work) as terminal:
        terminal.says(b"2/2 places")
        terminal.press("\x1a")
        # Nobody here is a shell: without one that would let it go on Linux does not stop it, and it goes on at once.
        terminal.says(LINE_BEGINS + LINE_ENDS)
        let_go(work)
        assert terminal.ends() == 0


def test_a_log_has_no_control_characters(work: Workplace) -> None:
    tasks = work.write("tasks", *TASKS)
    run = work.start("-s", "localhost:2", "-p", "run", "--progress", "on", tasks.name)
    work.await_file("begun.3")
    assert run.stderr is not None
    line = run.stderr.readline().decode()
    assert line.startswith("disbatch: 2/6 done, 1 failed, 2 running, 2 waiting, 2/2 places")
    assert line.rstrip("\n").isprintable()
    let_go(work)
    assert finish(run, timeout=PATIENCE).returncode == 0


def test_a_terminal_that_takes_nothing_does_not_stop_the_run(work: Workplace) -> None:
    with begin(work) as terminal:
        terminal.says(b"2/2 places")
        terminal.press("\x13")  # Ctrl-S
        let_go(work)
        status = work.directory / "run_status.txt"
        eventually(lambda: len(status.read_text().splitlines()) == len(TASKS), "all tasks to end")
        terminal.press("\x11")
        assert terminal.ends() == 0


def test_a_killed_run_leaves_a_terminal_that_works(work: Workplace) -> None:
    with begin(work) as terminal:
        terminal.says(b"2/2 places")
        terminal.process.kill()
        assert terminal.ends() == -signal.SIGKILL
        for code in (b"\x1b[?25l", ALTERNATE):
            assert code not in terminal.written, "neither the cursor nor the screen has to be restored"
        let_go(work)
