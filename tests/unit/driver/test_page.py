from __future__ import annotations

import os
import signal
import socket
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from disbatch import handover
from disbatch.driver import page
from disbatch.driver.controller import Counts
from disbatch.driver.page import NICENESS, WebPage, is_open_to_others, names_of, new_token, url
from disbatch.errors import DisbatchError
from disbatch.eventloop import EventLoop
from disbatch.handover import Handover, RunEnd
from disbatch.runfiles import RunFiles
from disbatch.values import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 20.0

KNOWN = Handover("token", ["h1"], everywhere=False, secret="of operators", rerun="disbatch -R")

READ_ALL = """
import os, socket, sys
with socket.socket(fileno=0) as channel:
    text, descriptors, _, _ = socket.recv_fds(channel, 10000, 1)
    with socket.socket(fileno=descriptors[0]) as page:
        port = page.getsockname()[1]
    with open(sys.argv[1], "wb") as file:
        file.write(b"%d %d " % (port, os.getpriority(os.PRIO_PROCESS, 0)) + text)
    os.rename(sys.argv[1], sys.argv[1] + ".read")
    with open(sys.argv[1], "wb") as file:
        file.write(channel.recv(10000) + channel.recv(10000))
    os.rename(sys.argv[1], sys.argv[1] + ".last")
"""


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = EventLoop()
        self.told: list[str] = []
        self.files = RunFiles(str(folder / "run"))
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]

    def page(self, script: str, python: str = sys.executable) -> WebPage:
        command = [python, "-c", script, str(self.folder / "said")]
        at = Address("h1", 4711)
        return WebPage(self.listening, at, command, os.environ, KNOWN, self.files, self.loop, self.told.append)

    def turn_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it has not come true"
            self.loop.turn(0.005)

    def text(self, name: str) -> bytes:
        path = self.folder / name
        self.turn_until(path.exists)
        return path.read_bytes()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(page, "START_AFTER", 0.001)
    bench = Bench(tmp_path)
    yield bench
    bench.listening.close()
    bench.loop.close()


def test_the_page_is_handed_its_socket_and_what_nobody_else_is_to_know(bench: Bench) -> None:
    bench.page(READ_ALL)
    port, priority, text = bench.text("said.read").split(b" ", 2)
    assert int(port) == bench.port
    assert int(priority) == os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
    assert handover.parse(Handover, text) == KNOWN


def test_nothing_starts_before_the_run_goes_on(bench: Bench) -> None:
    bench.page(READ_ALL)
    assert not bench.told
    assert not os.listdir(bench.folder)


def test_on_a_terminal_the_url_itself_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    bench.page(READ_ALL)
    bench.turn_until(lambda: bool(bench.told))
    assert bench.told == ["web page: http://h1:4711/?token=token"]


def test_its_url_is_in_a_file_for_nobody_else_which_is_told(bench: Bench) -> None:
    before = os.umask(0)
    try:
        bench.page(READ_ALL)
        bench.turn_until(lambda: bool(bench.told))
    finally:
        os.umask(before)
    assert bench.told == [f"web page: its URL is in {bench.folder / 'run_url'}"]
    path = bench.folder / "run_url"
    assert path.read_text() == "http://h1:4711/?token=token\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_hears_how_the_run_has_ended(bench: Bench) -> None:
    shown = bench.page(READ_ALL)
    bench.text("said.read")
    shown.end(3, Counts(finished=7, failed=2, skipped=1, rerun=4), complete=False)
    end = handover.parse(RunEnd, bench.text("said.last"))
    assert (end.exit_status, end.complete, end.words) == (3, False, "7 tasks finished, 2 failed, 1 skipped")
    assert end.counts == vars(Counts(finished=7, failed=2, skipped=1, rerun=4))


def test_a_page_that_hangs_is_not_waited_for(bench: Bench) -> None:
    shown = bench.page("import time; time.sleep(3600)")
    bench.turn_until(lambda: bool(bench.told))
    shown.end(0, Counts(), complete=True)
    process = shown._process
    assert process is not None
    process.signal(signal.SIGKILL)
    bench.turn_until(lambda: len(bench.told) > 1)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import sys; sys.exit('what a pity')", "with status 1, and the run goes on without it: what a pity"),
        ("import os; os.kill(os.getpid(), 9)", "with signal 9, and the run goes on without it"),
        ("pass", "with status 0, and the run goes on without it"),
    ],
)
def test_a_page_that_dies_is_told_of_once_and_leaves_no_url(bench: Bench, script: str, words: str) -> None:
    shown = bench.page(script)
    bench.turn_until(lambda: len(bench.told) == 2)
    assert bench.told[1] == f"the web page has ended {words}"
    assert not (bench.folder / "run_url").exists()
    shown._check()
    shown.end(0, Counts(), complete=True)
    assert len(bench.told) == 2


def test_a_page_that_cannot_be_started_is_told_of(bench: Bench) -> None:
    shown = bench.page("", python="/no/such/python")
    bench.turn_until(lambda: bool(bench.told))
    assert bench.told == ["no web page: cannot start /no/such/python: No such file or directory"]
    shown.end(0, Counts(), complete=True)


def test_without_room_for_its_file_there_is_a_page_all_the_same(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise DisbatchError("cannot write")

    monkeypatch.setattr(page, "write", fail)
    bench.page(READ_ALL)
    bench.text("said.read")
    assert bench.told == ["cannot write", "web page: http://h1:4711/?token=token"]


def test_a_run_that_ends_before_its_page_has_started_has_none(bench: Bench) -> None:
    bench.page(READ_ALL).end(0, Counts(), complete=True)
    assert not bench.told


def test_tokens_have_256_bits_and_are_all_different() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert {len(bytes.fromhex(token)) for token in tokens} == {32}


def test_an_url_can_be_opened_as_it_stands() -> None:
    assert url(Address("127.0.0.1", 80), "abc") == "http://127.0.0.1:80/?token=abc"
    assert url(Address("fd00::1", 80), "abc") == "http://[fd00::1]:80/?token=abc"


@pytest.mark.parametrize(
    ("host", "is_open"),
    [
        *[("127.0.0.1", False), ("127.1.2.3", False), ("::1", False), ("localhost", False)],
        *[("", True), ("0.0.0.0", True), ("::", True), ("h1", True), ("10.1.2.3", True)],
    ],
)
def test_who_is_not_on_this_machine_alone_is_open_to_others(host: str, *, is_open: bool) -> None:
    assert is_open_to_others(host) is is_open


def test_visitors_come_by_the_names_that_the_page_has() -> None:
    this_host = os.uname().nodename
    names, everywhere = names_of(Address("h1", 0), Address("h1", 80))
    assert (set(names), everywhere) == ({"h1", this_host}, False)
    for bound in ("", "0.0.0.0", "::"):
        names, everywhere = names_of(Address(bound, 0), Address("10.1.2.3", 80))
        assert (set(names), everywhere) == ({"10.1.2.3", this_host}, True)
