from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from disbatch.engine import attempts as module
from disbatch.engine.attempts import Attempts
from disbatch.engine.launchers import PosixSpawnLauncher, SubprocessLauncher, session_by_posix_spawn
from disbatch.eventloop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from disbatch.engine.launchers import Launcher
    from disbatch.tasks import Outcome

DEADLINE = 20.0
"""Seconds after which a test has failed; none takes a tenth of them."""


class Bench:
    """Attempts in a loop as an engine has them; owners are words."""

    def __init__(self, launch: Launcher) -> None:
        self.loop = EventLoop()
        self.ended: list[str] = []
        self.outcomes: dict[str, Outcome] = {}
        self.attempts = Attempts(self.loop, launch, self.ended.append, self.note_outcome)
        self.loop.on_signal(signal.SIGCHLD, self.attempts.reap)

    def note_outcome(self, owner: str, outcome: Outcome) -> None:
        assert owner in self.ended, "bash ends before there is an outcome"
        assert owner not in self.outcomes, "one outcome for each command"
        self.outcomes[owner] = outcome

    def start(self, owner: str, command: bytes, **variables: str) -> None:
        self.attempts.start(owner, command, {**os.environb, **{k.encode(): v.encode() for k, v in variables.items()}})

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            self.loop.turn(0.5)

    def run(self, command: bytes, **variables: str) -> Outcome:
        self.start("it", command, **variables)
        self.until(lambda: "it" in self.outcomes)
        return self.outcomes["it"]

    def until_exists(self, path: Path) -> None:
        """Wait for a file that a command makes."""
        deadline = time.monotonic() + DEADLINE
        while not path.exists():
            assert time.monotonic() < deadline, f"{path} was not made"
            self.loop.turn(0.005)

    def clear_away(self) -> None:
        """Kill whatever a failed test has left."""
        self.attempts.end_running(0)
        done: list[bool] = []
        self.attempts.end_lingering(0, lambda: done.append(True))
        self.until(lambda: done and not self.attempts._running)
        self.loop.close()


def has_ended(pid: int) -> bool:
    """Whether no such process runs; it may have to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def fastest() -> Launcher:
    return PosixSpawnLauncher() if session_by_posix_spawn() else SubprocessLauncher()


@pytest.fixture
def bench(subreaper: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:  # noqa: ARG001 - what it does counts
    monkeypatch.setattr(module, "LOOK_PERIOD", 0.01)
    made = Bench(fastest())
    yield made
    made.clear_away()


@pytest.fixture(params=[PosixSpawnLauncher, SubprocessLauncher])
def either_bench(request: pytest.FixtureRequest, subreaper: None) -> Iterator[Bench]:  # noqa: ARG001 - as above
    if request.param is PosixSpawnLauncher and not session_by_posix_spawn():
        pytest.skip("posix_spawn of this Python cannot start a session")
    made = Bench(request.param())
    yield made
    made.clear_away()


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_outcome_tells_how_it_went(either_bench: Bench) -> None:
    before = time.time()
    outcome = either_bench.run(b"echo $$; echo no >&2; exit 7")
    assert outcome.return_code == 7
    assert outcome.failed
    assert outcome.out_snippet == b"%d\n" % outcome.pid
    assert outcome.out_bytes == len(outcome.out_snippet)
    assert (outcome.err_bytes, outcome.err_snippet) == (3, b"no\n")
    assert not outcome.interrupted
    assert before <= outcome.start <= time.time()
    assert 0 < outcome.elapsed < DEADLINE
    assert outcome.cpu_seconds > 0
    assert 100_000 < outcome.peak_memory < 1_000_000_000, "bytes, not kibibytes"


def test_elapsed_is_the_time_that_bash_ran(bench: Bench) -> None:
    outcome = bench.run(b"sleep 0.05")
    assert 0.05 <= outcome.elapsed <= time.time() - outcome.start + 0.01


def test_cpu_time_of_waited_for_children_counts(bench: Bench) -> None:
    outcome = bench.run(b"bash -c 'for ((i = 0; i < 20000; i++)); do :; done'; true")
    assert outcome.cpu_seconds > 0.01


def test_a_signal_is_a_negative_return_code(either_bench: Bench) -> None:
    assert either_bench.run(b"kill -KILL $$").return_code == -signal.SIGKILL


@pytest.mark.parametrize("size", [65_536, 1_000_000])
def test_more_output_than_a_pipe_holds_is_counted_to_the_byte(either_bench: Bench, size: int) -> None:
    outcome = either_bench.run(
        b"head -c $SIZE /dev/zero | tr '\\0' x; echo -n end; head -c $SIZE /dev/zero >&2", SIZE=str(size)
    )
    assert outcome.return_code == 0
    assert outcome.out_bytes == size + 3
    assert outcome.out_snippet == b"x" * 40 + b"..." + b"x" * 37 + b"end"
    assert (outcome.err_bytes, outcome.err_snippet) == (size, b"\0" * 40 + b"..." + b"\0" * 40)


def test_what_bash_left_in_the_pipe_is_read_before_its_outcome(bench: Bench) -> None:
    # Nobody reads while it runs: the loop does not turn until it has ended, with a full pipe behind it.
    bench.start("it", b"head -c 65536 /dev/zero")
    os.waitid(os.P_PID, next(iter(bench.attempts._running)), os.WEXITED | os.WNOWAIT)
    bench.until(lambda: bench.outcomes)
    assert bench.outcomes["it"].out_bytes == 65536


def test_many_at_once_keep_their_output_apart(either_bench: Bench) -> None:
    for number in range(30):
        either_bench.start(str(number), b"echo %d; echo err %d >&2; exit %d" % (number, number, number))
    either_bench.until(lambda: len(either_bench.outcomes) == 30)
    for number in range(30):
        outcome = either_bench.outcomes[str(number)]
        assert outcome.return_code == number
        assert (outcome.out_snippet, outcome.err_snippet) == (b"%d\n" % number, b"err %d\n" % number)


def test_an_ended_command_leaves_nothing_open(either_bench: Bench) -> None:
    before = os.listdir("/proc/self/fd")
    for number in range(5):
        either_bench.start(str(number), b"echo x")
    either_bench.start("refused", b"\0")
    either_bench.until(lambda: len(either_bench.outcomes) == 6)
    assert os.listdir("/proc/self/fd") == before


# Processes in the background that hold the pipes.


def test_a_process_in_the_background_frees_at_once_and_is_reported_when_it_closes_the_pipes(
    bench: Bench, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    bench.start("it", b'echo first; { read go < "$GATE"; echo last; } &', GATE=str(gate))
    bench.until(lambda: bench.ended)
    assert not bench.outcomes
    gate.write_text("go\n")
    bench.until(lambda: bench.outcomes)
    outcome = bench.outcomes["it"]
    assert (outcome.return_code, outcome.out_snippet) == (0, b"first\nlast\n")


def test_a_process_that_never_closes_the_pipes_is_waited_for_with_patience(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module.PIPE_PATIENCE == 5
    monkeypatch.setattr(module, "PIPE_PATIENCE", 0.05)
    bench.start("it", b"echo first; sleep 60 &")
    bench.until(lambda: bench.ended)
    freed = time.monotonic()
    assert not bench.outcomes
    bench.until(lambda: bench.outcomes)
    assert time.monotonic() - freed >= 0.05
    outcome = bench.outcomes["it"]
    assert (outcome.return_code, outcome.out_snippet) == (0, b"first\n")
    assert outcome.elapsed < 5, "it is bash's own time"


def test_what_is_written_after_the_report_does_not_kill_the_writer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "PIPE_PATIENCE", 0.01)
    gate, done = tmp_path / "gate", tmp_path / "done"
    os.mkfifo(gate)
    command = b'{ read go < "$GATE"; head -c 200000 /dev/zero && echo fine > "$DONE"; } &'
    outcome = bench.run(command, GATE=str(gate), DONE=str(done))
    gate.write_text("go\n")
    bench.until_exists(done)
    assert outcome.out_bytes == 0


def test_a_new_command_can_be_started_from_the_end_of_another(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def start_next(owner: str) -> None:
        bench.ended.append(owner)
        if owner == "first":
            bench.start("second", b"echo second")

    monkeypatch.setattr(bench.attempts, "_on_end", start_next)
    bench.start("first", b"echo first; sleep 60 &")
    bench.until(lambda: "second" in bench.outcomes)
    assert "first" not in bench.outcomes
    assert bench.outcomes["second"].out_snippet == b"second\n"


# Commands that cannot be started.


@pytest.mark.parametrize(
    ("command", "return_code", "reason"),
    [
        (b"true " + b" " * (1 << 17), errno.E2BIG, b"Argument list too long"),
        (b"echo a\0b", 200, b"embedded null byte"),
    ],
)
def test_a_command_that_cannot_be_started_is_a_failed_attempt(
    either_bench: Bench, command: bytes, return_code: int, reason: bytes
) -> None:
    either_bench.start("it", command)
    assert not either_bench.ended, "every end has a turn of its own"
    either_bench.until(lambda: either_bench.outcomes)
    outcome = either_bench.outcomes["it"]
    assert (outcome.pid, outcome.return_code, outcome.failed) == (-1, return_code, True)
    assert (outcome.out_bytes, outcome.out_snippet) == (0, b"")
    assert outcome.err_snippet.startswith(b"disbatch could not start this task: ")
    assert outcome.err_bytes == len(b"disbatch could not start this task: " + reason + b"\n")
    assert outcome.elapsed == 0


def test_no_descriptors_left_is_a_failed_attempt_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def pipe() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", pipe)
        bench.start("it", b"true")
    bench.until(lambda: bench.outcomes)
    assert (bench.outcomes["it"].pid, bench.outcomes["it"].return_code) == (-1, errno.EMFILE)


def test_the_other_commands_of_a_refused_one_are_not_disturbed(bench: Bench) -> None:
    bench.start("fine", b"echo fine")
    bench.start("refused", b"\0")
    bench.start("fine too", b"echo fine")
    bench.until(lambda: len(bench.outcomes) == 3)
    assert [bench.outcomes[owner].failed for owner in ("fine", "refused", "fine too")] == [False, True, False]


# Ending what runs.


def test_what_runs_is_asked_to_end_first(either_bench: Bench, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    either_bench.start("it", b'trap "echo asked; exit 4" TERM; > "$READY"; sleep 60 & wait', READY=str(ready))
    either_bench.until_exists(ready)
    either_bench.attempts.end_running(grace=10)
    either_bench.until(lambda: either_bench.outcomes)
    outcome = either_bench.outcomes["it"]
    assert (outcome.return_code, outcome.out_snippet, outcome.interrupted) == (4, b"asked\n", True)


WRITES_ITS_PID = b'echo $BASHPID > "$PID.new"; mv "$PID.new" "$PID"; '

TAKES_ITS_TIME = b"trap 'sleep 0.05; exit' TERM; " + WRITES_ITS_PID + b"while :; do sleep 0.01; done"

WILL_NOT_END = b"trap '' TERM; " + WRITES_ITS_PID + b"while :; do sleep 60; done"


BESIDE, ELSEWHERE, FAR_AWAY = (
    b'eval "$CHILD" & wait',
    b'setsid bash -c "$CHILD" & wait',
    b'setsid -f bash -c "$CHILD"; sleep 60',
)


@pytest.mark.parametrize("way", [BESIDE, ELSEWHERE, FAR_AWAY], ids=["its-group", "a-session", "an-orphan"])
@pytest.mark.parametrize(("child", "grace"), [(TAKES_ITS_TIME, 10), (WILL_NOT_END, 0.05)], ids=["slow", "stubborn"])
def test_what_is_interrupted_is_reported_when_all_that_it_began_has_ended(
    bench: Bench, tmp_path: Path, way: bytes, child: bytes, grace: float
) -> None:
    pid_file = tmp_path / "pid"
    bench.start("it", way, CHILD=child.decode(), PID=str(pid_file))
    bench.until_exists(pid_file)
    pid = int(pid_file.read_text())
    bench.attempts.end_running(grace)
    bench.until(lambda: "it" in bench.ended)
    assert not is_there(pid)
    bench.until(lambda: "it" in bench.outcomes)
    assert bench.outcomes["it"].interrupted


def test_what_cannot_be_killed_is_not_waited_for_without_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "KILLS", 2)
    pid_file = tmp_path / "pid"
    child = WRITES_ITS_PID.decode() + "exec sleep 60"
    bench.start("it", b'setsid bash -c "$CHILD" & wait', CHILD=child, PID=str(pid_file))
    bench.until_exists(pid_file)
    protected = int(pid_file.read_text())
    kill_group = os.killpg

    def may_not_kill_all(group: int, number: int) -> None:
        if group == protected:
            raise PermissionError
        kill_group(group, number)

    with monkeypatch.context() as patched:
        patched.setattr(os, "killpg", may_not_kill_all)
        bench.attempts.end_running(0)
        bench.until(lambda: "it" in bench.ended)
    assert not has_ended(protected)


def test_every_process_is_asked_at_once_not_only_those_whose_parents_have_ended(bench: Bench, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = "trap 'echo asked; exit' TERM; " + WRITES_ITS_PID.decode() + "while :; do sleep 0.01; done"
    bench.start("it", b'trap : TERM; setsid bash -c "$CHILD"; exit 3', CHILD=child, PID=str(pid_file))
    bench.until_exists(pid_file)
    bench.attempts.end_running(60)
    bench.until(lambda: "it" in bench.outcomes)
    assert (bench.outcomes["it"].return_code, bench.outcomes["it"].out_snippet) == (3, b"asked\n")


def test_what_is_left_ends_after_what_is_being_ended_and_the_spared_are_asked_then(
    bench: Bench, tmp_path: Path
) -> None:
    server = b'trap \'echo asked > "$PID.told"; exit\' TERM; > "$PID.ready"; while :; do sleep 0.01; done'
    left_behind(bench, server, tmp_path)
    bench.until_exists(tmp_path / "pid.ready")
    bench.attempts.spare_what_is_left()
    pid_file = tmp_path / "stubborn"
    bench.start("task", b'eval "$CHILD" & wait', CHILD=WILL_NOT_END.decode(), PID=str(pid_file))
    bench.until_exists(pid_file)
    then: list[bool] = []
    bench.attempts.end_running(0.02)
    bench.attempts.end_lingering(60, lambda: then.append(True))
    bench.until(lambda: then)
    assert bench.outcomes["task"].interrupted
    assert (tmp_path / "pid.told").read_text() == "asked\n"


def test_what_ends_by_itself_or_cannot_be_started_does_not_wait_for_an_end(bench: Bench, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    bench.start("itself", b"exit 3")
    bench.start("it", b'eval "$CHILD" & wait', CHILD=TAKES_ITS_TIME.decode(), PID=str(pid_file))
    bench.until_exists(pid_file)
    bench.until(lambda: "itself" in bench.outcomes)
    bench.attempts.end_running(10)
    bench.start("too long", b"x" * (1 << 22))
    bench.until(lambda: "too long" in bench.outcomes)
    assert bench.outcomes["too long"].return_code == errno.E2BIG
    assert bench.ended == ["itself", "it", "too long"]


def test_what_is_spared_runs_on_until_all_that_is_left_ends(bench: Bench, tmp_path: Path) -> None:
    spared = left_behind(bench, b"exec setsid sleep 60", tmp_path)
    bench.until(lambda: os.getsid(spared) == spared)
    bench.attempts.spare_what_is_left()
    bench.start("task", b"sleep 60")
    bench.attempts.end_running(10)
    bench.until(lambda: "task" in bench.outcomes)
    assert not has_ended(spared)
    then: list[bool] = []
    bench.attempts.end_lingering(10, lambda: then.append(is_there(spared)))
    bench.until(lambda: then)
    assert then == [False]


def test_the_next_command_waits_until_what_ran_before_has_ended(bench: Bench, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    bench.start("it", b"( " + TAKES_ITS_TIME + b" ) & wait", PID=str(pid_file))
    bench.until_exists(pid_file)
    bench.attempts.end_running(10)
    bench.start("next", b"kill -0 $(cat $PID) || echo gone", PID=str(pid_file))
    bench.until(lambda: "next" in bench.outcomes)
    assert (bench.outcomes["next"].out_snippet, bench.outcomes["next"].interrupted) == (b"gone\n", False)
    assert bench.ended == ["it", "next"]


def test_a_command_that_waits_for_an_end_is_ended_with_what_comes_next(bench: Bench, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    bench.start("it", b"( " + TAKES_ITS_TIME + b" ) & wait", PID=str(pid_file))
    bench.until_exists(pid_file)
    bench.attempts.end_running(10)
    bench.start("next", b"> $PID.next", PID=str(pid_file))
    bench.attempts.end_running(10)
    bench.until(lambda: "next" in bench.outcomes)
    assert (bench.outcomes["next"].return_code, bench.outcomes["next"].interrupted) == (-signal.SIGTERM, True)
    assert not (tmp_path / "pid.next").exists()


def test_what_has_ended_by_itself_was_not_interrupted(bench: Bench) -> None:
    bench.start("it", b"exit 3")
    (pid,) = bench.attempts._running
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    bench.attempts.end_running(0)
    bench.until(lambda: "it" in bench.outcomes)
    assert (bench.outcomes["it"].return_code, bench.outcomes["it"].interrupted) == (3, False)


def test_what_does_not_end_when_asked_is_killed_after_the_grace(bench: Bench, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    bench.start("it", b'trap "" TERM; > "$READY"; exec sleep 60', READY=str(ready))
    bench.until_exists(ready)
    asked = time.monotonic()
    bench.attempts.end_running(grace=0.02)
    bench.until(lambda: bench.outcomes)
    assert 0.02 <= time.monotonic() - asked < 5
    assert (bench.outcomes["it"].return_code, bench.outcomes["it"].interrupted) == (-signal.SIGKILL, True)


@pytest.mark.parametrize("grace", [0.0, -1.0])
def test_without_grace_it_is_killed_at_once(bench: Bench, tmp_path: Path, grace: float) -> None:
    ready = tmp_path / "ready"
    bench.start("it", b'trap "echo asked; exit" TERM; > "$READY"; sleep 60 & wait', READY=str(ready))
    bench.until_exists(ready)
    bench.attempts.end_running(grace)
    bench.until(lambda: bench.outcomes)
    assert (bench.outcomes["it"].return_code, bench.outcomes["it"].out_snippet) == (-signal.SIGKILL, b"")


def test_a_shorter_grace_may_follow(bench: Bench, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    bench.start("it", b'trap "" TERM; > "$READY"; exec sleep 60', READY=str(ready))
    bench.until_exists(ready)
    bench.attempts.end_running(grace=60)
    bench.attempts.end_running(grace=0)
    bench.until(lambda: bench.outcomes)
    assert bench.outcomes["it"].return_code == -signal.SIGKILL


def test_the_whole_group_is_ended_not_just_its_first_process(bench: Bench, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    command = b'sleep 60 & echo $!; (sleep 60 & echo $!; > "$READY"; wait) & wait'
    bench.start("it", command, READY=str(ready))
    bench.until_exists(ready)
    bench.attempts.end_running(grace=10)
    bench.until(lambda: bench.outcomes)
    assert bench.outcomes["it"].return_code == -signal.SIGTERM
    others = [int(pid) for pid in bench.outcomes["it"].out_snippet.split()]
    assert len(others) == 2
    bench.until(lambda: not any(map(is_there, others)))


def test_a_stopped_task_gets_to_see_that_it_is_to_end(bench: Bench, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    bench.start("it", b'trap "echo asked; exit 4" TERM; > "$READY"; kill -STOP $$', READY=str(ready))
    bench.until_exists(ready)
    pid = next(iter(bench.attempts._running))
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    bench.attempts.end_running(grace=10)
    bench.until(lambda: bench.outcomes)
    assert (bench.outcomes["it"].return_code, bench.outcomes["it"].out_snippet) == (4, b"asked\n")


def test_what_a_killed_task_left_in_its_group_is_killed_after_the_grace(bench: Bench, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    bench.start("it", b'(trap "" TERM; > "$READY"; exec sleep 60) & wait', READY=str(ready))
    bench.until_exists(ready)
    bench.attempts.end_running(grace=0.1)
    bench.until(lambda: not bench.attempts._running)
    assert not bench.ended, "its child takes the time"
    bench.until(lambda: bench.outcomes)
    assert bench.outcomes["it"].return_code == -signal.SIGTERM


def test_with_nothing_running_there_is_nothing_to_end(bench: Bench) -> None:
    bench.attempts.end_running(grace=10)
    bench.attempts.end_running(grace=0)
    bench.attempts.reap()


# What commands left behind.


def left_behind(bench: Bench, command: bytes, tmp_path: Path) -> int:
    """Pid of what a command, told to write its pid to $PID, leaves behind without holding its pipes."""
    file = tmp_path / "pid"
    bench.run(b'{ echo $BASHPID > "$PID.new"; mv "$PID.new" "$PID"; ' + command + b"; } >&- 2>&- &", PID=str(file))
    bench.until_exists(file)
    return int(file.read_text())


def test_what_commands_left_behind_is_ended(bench: Bench, tmp_path: Path) -> None:
    pid = left_behind(bench, b"exec sleep 60", tmp_path)
    assert is_there(pid)
    then: list[bool] = []
    bench.attempts.end_lingering(10, lambda: then.append(is_there(pid)))
    bench.until(lambda: then)
    assert then == [False]


def test_what_was_left_behind_and_does_not_end_when_asked_is_killed(bench: Bench, tmp_path: Path) -> None:
    pid = left_behind(bench, b'trap "" TERM; > "$PID.trap"; while :; do sleep 60; done', tmp_path)
    bench.until_exists(tmp_path / "pid.trap")
    then: list[float] = []
    asked = time.monotonic()
    bench.attempts.end_lingering(0.02, lambda: then.append(time.monotonic() - asked))
    bench.until(lambda: then)
    assert 0.02 <= then[0] < 5
    bench.until(lambda: not is_there(pid))


def test_ending_what_was_left_behind_reports_what_still_waited(bench: Bench) -> None:
    bench.start("it", b"echo first; sleep 60 &")
    bench.until(lambda: bench.ended)
    then: list[dict[str, Outcome]] = []
    bench.attempts.end_lingering(10, lambda: then.append(dict(bench.outcomes)))
    bench.until(lambda: then)
    assert then[0]["it"].out_snippet == b"first\n"


def test_with_nothing_left_behind_it_goes_on_at_once(bench: Bench) -> None:
    bench.run(b"true")
    then: list[bool] = []
    bench.attempts.end_lingering(10, lambda: then.append(True))
    assert then == [True]


def test_orphans_are_reaped_when_no_command_runs(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "pid.gate"
    os.mkfifo(gate)
    pid = left_behind(bench, b'read go < "$PID.gate"', tmp_path)
    gate.write_text("go\n")
    bench.until(lambda: not is_there(pid))


# Pipes are watched when a command has run for a while.


def test_a_command_that_prints_more_than_its_pipes_hold_goes_on(bench: Bench) -> None:
    for owner in ("first", "second"):
        bench.start(owner, b"head -c 1000000 /dev/zero; echo end >&2")
        bench.until(lambda owner=owner: owner in bench.outcomes)  # type: ignore[misc] # called at once
        outcome = bench.outcomes[owner]
        assert (outcome.return_code, outcome.out_bytes, outcome.err_snippet) == (0, 1_000_000, b"end\n")


def test_pipes_of_a_command_that_ends_soon_are_never_watched(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_AFTER", 3600.0)
    watched: list[int] = []
    monkeypatch.setattr(bench.loop, "watch", lambda descriptor, *_: watched.append(descriptor))
    assert bench.run(b"echo out; echo err >&2").out_snippet == b"out\n"
    assert not watched


def test_those_of_the_next_are_at_once_when_one_has_printed_much(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.start("much", b"head -c 200000 /dev/zero")
    bench.until(lambda: "much" in bench.outcomes)
    monkeypatch.setattr(module, "WATCH_AFTER", 3600.0)
    assert bench.run(b"head -c 200000 /dev/zero").out_bytes == 200_000


def test_pipes_that_a_process_in_the_background_holds_are_watched_from_the_end_of_bash(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "WATCH_AFTER", 3600.0)
    go = tmp_path / "go"
    bench.start("it", b"(until [ -e $GO ]; do sleep 0.01; done; echo late) &", GO=str(go))
    bench.until(lambda: bench.ended)
    go.touch()
    bench.until(lambda: bench.outcomes)
    assert bench.outcomes["it"].out_snippet == b"late\n"
