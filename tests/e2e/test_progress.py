"""How far a run is, on the terminal that runs it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.e2e.support import DISBATCH, PATIENCE, eventually, finish
from tests.e2e.test_pool import add
from tests.e2e.window import ALTERNATE, Window

if TYPE_CHECKING:
    from tests.e2e.support import Workplace

WAIT = "touch begun.$DISBATCH_TASKID; until [ -e go.$DISBATCH_TASKID ]; do sleep 0.02; done"
TASKS = ("true", "exit 3", *[WAIT] * 4)

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
