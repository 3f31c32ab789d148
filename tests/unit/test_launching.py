from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from disbatch import __version__, launching
from disbatch.errors import DisbatchError
from disbatch.launching import Launched, disbatch_command
from disbatch.log import open_to_append


@pytest.fixture(params=[launching._start, launching._start_by_subprocess], autouse=True)
def _start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_start", request.param)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "what it prints"


def launch(script: str, output: Path, **options: dict[str, str] | tuple[int, int] | int | None) -> Launched:
    return Launched(["bash", "-c", script], str(output), **options)  # type: ignore[arg-type] # as the tests give them


def wait(launched: Launched) -> int:
    deadline = time.monotonic() + 20
    while launched.return_code() is None:
        assert time.monotonic() < deadline, "it does not end"
        time.sleep(0.002)
    return_code = launched.return_code()
    assert return_code is not None
    return return_code


def test_what_a_process_prints_goes_behind_what_is_in_its_file(output: Path) -> None:
    output.write_text("earlier\n")
    assert wait(launch("echo out; echo err >&2; exit 3", output)) == 3
    assert output.read_text() == "earlier\nout\nerr\n"


def test_what_it_prints_goes_nowhere_where_the_disk_has_no_room_for_a_file(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "open_to_append", lambda _: open_to_append(os.devnull))
    launched = launch("echo out; exit 3", output)
    assert wait(launched) == 3
    assert launched.last_words() == ""
    launched.clear_away()
    assert not output.exists()


def test_it_leads_its_own_session_and_reads_nothing(output: Path) -> None:
    wait(launch("cat; read -r _ _ _ _ _ session _ < /proc/$$/stat; [ $session = $$ ] && echo leads", output))
    assert output.read_text() == "leads\n"


def test_it_reads_from_the_file_that_it_is_given(output: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"given\n")
    os.close(write)
    wait(launch("cat; ls /proc/$$/fd; true", output, given=read))
    os.close(read)
    first, *descriptors = output.read_text().splitlines()
    assert first == "given"
    assert set(descriptors) <= {"0", "1", "2", "255"}


def test_it_is_as_nice_as_it_is_to_be(output: Path) -> None:
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    gate = output.parent / "gate"
    os.mkfifo(gate)
    launched = launch(f"read go < '{gate}'; nice; cat /proc/$$/autogroup", output, niceness=5)
    gate.write_text("go\n")
    wait(launched)
    nice, *autogroup = output.read_text().splitlines()
    assert int(nice) == min(19, mine + 5)
    assert all(line.endswith("nice 5") for line in autogroup if line.startswith("/autogroup"))
    assert os.getpriority(os.PRIO_PROCESS, 0) == mine


def test_it_gets_no_other_open_file_and_no_ignored_signal(output: Path) -> None:
    inheritable = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    wait(launch("ls /proc/$$/fd; grep SigIgn /proc/$$/status", output))
    os.close(inheritable)
    *descriptors, ignored = output.read_text().splitlines()
    assert set(descriptors) <= {"0", "1", "2", "255"}, "255 is bash's own"
    assert not int(ignored.split()[1], 16) & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))


def test_its_environment_is_this_process_own_or_the_given_one(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN", "own")
    wait(launch("echo $OWN $GIVEN", output))
    wait(launch("echo $OWN $GIVEN", output, environment={"GIVEN": "given"}))
    assert output.read_text() == "own\ngiven\n"


def test_it_has_the_limit_of_open_files_that_it_is_given(output: Path) -> None:
    gate = output.parent / "gate"
    os.mkfifo(gate)
    launched = launch(f"read go < '{gate}'; ulimit -Sn", output, limit=(100, 200))
    gate.write_text("go\n")
    wait(launched)
    assert output.read_text() == "100\n"


def test_a_process_that_runs_has_no_return_code(output: Path) -> None:
    launched = launch("exec sleep 60", output)
    assert launched.return_code() is None
    launched.signal(signal.SIGTERM)
    assert wait(launched) == -signal.SIGTERM


def test_a_signal_reaches_the_whole_group_and_is_harmless_afterwards(output: Path) -> None:
    launched = launch("sleep 60 & echo $!; exec sleep 60", output)
    while not output.read_text():
        assert launched.return_code() is None
    launched.signal(signal.SIGKILL)
    wait(launched)
    launched.signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while runs(int(output.read_text())):
        assert time.monotonic() < deadline, "a process of the group lives on"


def runs(pid: int) -> bool:
    """Whether a process runs: one that waits for whoever is to reap it does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("true", ""),
        ("echo; echo ' '", ""),
        ("echo first; echo '  last one  '; echo", "last one"),
        ("printf 'no end of line'", "no end of line"),
        (r"printf '\xffoo'", "\ufffdoo"),
        ("head -c 1000 /dev/zero | tr '\\0' x", "x" * launching.LAST_WORDS),
    ],
)
def test_last_words_are_the_last_line_shortened(script: str, words: str, output: Path) -> None:
    output.write_text("words of an earlier process\n")
    launched = launch(script, output)
    wait(launched)
    assert launched.last_words() == words


def test_without_its_file_it_has_no_last_words(output: Path) -> None:
    launched = launch("echo words", output)
    wait(launched)
    output.unlink()
    assert launched.last_words() == ""
    launched.clear_away()


def test_an_empty_file_is_cleared_away_and_no_other(output: Path) -> None:
    silent = launch("true", output)
    wait(silent)
    silent.clear_away()
    assert not output.exists()
    talker = launch("echo words", output)
    wait(talker)
    talker.clear_away()
    assert output.exists()


def test_a_program_that_cannot_be_started_is_an_error_for_people(output: Path) -> None:
    with pytest.raises(DisbatchError, match=r"^cannot start /nonexistent/python: No such file or directory$"):
        Launched(["/nonexistent/python"], str(output))


def test_a_file_that_cannot_be_written_is_an_error_for_people(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "output"
    with pytest.raises(DisbatchError, match=r"^cannot start .*/missing/output: No such file or directory$"):
        Launched(["true"], str(path))


def test_the_command_of_disbatch_works_from_any_directory_without_a_path(tmp_path: Path) -> None:
    command = disbatch_command()
    assert command[0] == sys.executable
    printed = subprocess.run([*command, "--version"], cwd=tmp_path, env={}, stdout=subprocess.PIPE, check=True).stdout
    assert printed.decode().strip() == __version__
