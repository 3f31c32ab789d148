"""The web page of a run as somebody without a browser sees it: who gets in, what is told, and what it costs the run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.pages import Visitor, await_end_of_page, files_of, page_process, visitor_of
from tests.e2e.support import AFTER_KILL, eventually, finish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.support import Workplace

GATE = "until [ -e go ]; do sleep 0.05; done"
"""A task that waits until the test lets it go on."""


class WatchedRun:
    """A run with a web page, of tasks that wait for a file `go` unless they are others."""

    def __init__(self, work: Workplace, *lines: str, options: tuple[str, ...] = (), slots: int = 2) -> None:
        self.work = work
        tasks = work.write("tasks", *(lines or [GATE] * 4)).name
        self.process = work.start("-s", f"localhost:{slots}", "-w", "-p", "run", *options, tasks)
        self.visitor = visitor_of(work)

    def let_go(self) -> None:
        (self.work.directory / "go").touch()

    def end(self) -> tuple[int, list[str]]:
        """Let it go on, and what it has said when it is over."""
        self.let_go()
        done = finish(self.process)
        await_end_of_page(self.work)
        return done.returncode, done.complaints

    def await_states(self) -> None:
        """Wait until the page knows the hosts."""
        listener = self.visitor.listen()
        while not listener.known.get("hosts", {}).get("engines"):
            listener.until("hosts")
        listener.close()


@pytest.fixture
def run(work: Workplace) -> Iterator[WatchedRun]:
    watched = WatchedRun(work)
    yield watched
    if watched.process.poll() is None:
        watched.end()


def test_the_url_is_in_a_file_that_is_told_and_leads_to_the_page(run: WatchedRun) -> None:
    path = run.work.directory / "run_url"
    assert path.stat().st_mode & 0o777 == 0o600
    assert run.visitor.url.startswith("http://127.0.0.1:")
    page = run.visitor.get("")
    assert page.status == 200
    assert "<h1" in page.body
    status, said = run.end()
    assert status == 0
    assert said[0] == f"disbatch: web page: its URL is in {path}"
    assert "run_url" not in files_of(run.work.directory)


def test_who_does_not_know_the_token_is_told_nothing(run: WatchedRun) -> None:
    visitor = run.visitor
    answers = [
        visitor.ask("GET", "/"),
        visitor.ask("GET", f"/?token={visitor.token[:-1]}"),
        visitor.ask("GET", visitor.room),
        visitor.ask("GET", f"{visitor.room}events"),
        visitor.ask("POST", f"{visitor.room}stop", b"{}"),
        visitor.ask("GET", "/no/such/page"),
    ]
    assert {(answer.status, answer.body) for answer in answers} == {
        (403, "403: open the URL that disbatch has printed\n")
    }
    assert not any("server" in answer.headers or "set-cookie" in answer.headers for answer in answers)


def test_a_name_that_was_made_to_lead_here_is_refused(run: WatchedRun) -> None:
    visitor = run.visitor
    port = visitor.where[1]
    for host in ("evil.example", f"evil.example:{port}", f"10.9.8.7:{port}"):
        assert visitor.ask("GET", visitor.entry, host=host).status == 403
        assert visitor.ask("GET", visitor.room, host=host, cookie=visitor.cookie).status == 403
    for host in (f"localhost:{port}", f"[::1]:{port}", "localhost:8080"):
        assert visitor.ask("GET", visitor.room, host=host, cookie=visitor.cookie).status == 200


def test_nothing_is_stopped_by_a_look_or_from_another_origin(run: WatchedRun) -> None:
    run.await_states()
    visitor = run.visitor
    body = json.dumps({"kind": "engine", "rank": 0, "now": True}).encode()
    stop = f"{visitor.room}stop"
    own = {"content_type": "application/json", "cookie": visitor.cookie}
    assert visitor.ask("GET", f"{stop}?kind=engine&rank=0&now=true", None, **visitor.own).status == 405
    assert visitor.ask("POST", stop, body, **own).status == 403
    assert visitor.ask("POST", stop, body, origin="http://evil.example", **own).status == 403
    assert visitor.ask("POST", stop, b"x" * 100_000, origin=visitor.own["origin"], **own).status == 400
    status, said = run.end()
    assert status == 0
    assert any("4 tasks finished" in line for line in said)


def test_a_stop_is_an_order_to_the_driver_and_others_do_the_rest(run: WatchedRun) -> None:
    joining = run.work.start("-s", "localhost:1", "-l", "B", program=["./run_dbUtil.sh"])
    listener = run.visitor.listen()
    while len(listener.known.get("hosts", {}).get("engines", ())) < 2:
        listener.until("hosts")
    answer = run.visitor.stop("engine", 0, now=True)
    assert answer.status == 200
    told = "told the engine on localhost to end what runs there, which others run again"
    assert json.loads(answer.body) == {"words": told}
    while listener.known["hosts"]["engines"][0]["state"] != "gone":
        listener.until("hosts")
    assert run.visitor.stop("engine", 0, now=True).status == 409
    listener.close()
    status, said = run.end()
    assert status == 0
    assert any("4 tasks finished" in line for line in said)
    assert f"a visitor has {told}" in run.work.text("run_web.log")
    finish(joining)


def test_a_soft_stop_of_a_context_lets_its_tasks_finish(run: WatchedRun) -> None:
    joining = run.work.start("-s", "localhost:1", "-l", "B", program=["./run_dbUtil.sh"])
    listener = run.visitor.listen()
    while len(listener.known.get("hosts", {}).get("contexts", ())) < 2:
        listener.until("hosts")
    while listener.known.get("run", {}).get("running", 0) < 3:
        listener.until("run")
    assert run.visitor.stop("context", 1, now=False).status == 200
    while listener.known["hosts"]["engines"][1]["state"] != "leaving":
        listener.until("hosts")
    assert listener.known["run"]["rerun"] == 0
    listener.close()
    assert run.end()[0] == 0
    assert finish(joining).returncode == 0


def test_the_page_is_told_how_it_goes_and_how_it_has_ended(work: Workplace) -> None:
    run = WatchedRun(work, "true", "echo no such file 17 >&2; exit 3", "echo no such file 4 >&2; exit 3", GATE)
    listener = run.visitor.listen()
    while listener.known.get("run", {}).get("done") != 3 or listener.known.get("failures", {}).get("count") != 2:
        listener.next()
    assert [task["command"] for task in listener.until("running")["tasks"]] == [GATE]
    [cause] = listener.known["failures"]["groups"]
    assert (cause["count"], cause["how"]) == (2, "exit status 3")
    assert listener.known["failures"]["rerun"].endswith("-R")
    found = json.loads(run.visitor.get("find?text=file%204").body)
    assert [(task["task"], task["how"]) for task in found["tasks"]] == [(2, "exit status 3")]
    run.let_go()
    ended = listener.until("ended")
    assert ended["words"] == "The run has ended: 4 tasks finished, 2 failed; exit status 0."
    assert listener.next() is None
    assert (listener.known["run"]["done"], listener.known["run"]["words"]) == (4, "ended")
    assert run.end()[0] == 0


def test_the_page_ends_with_a_driver_that_is_killed(run: WatchedRun) -> None:
    listener = run.visitor.listen()
    listener.until("run")
    run.process.kill()
    assert "gone" in listener.until("ended")["words"]
    await_end_of_page(run.work)
    assert "run_url" not in files_of(run.work.directory)
    run.process.communicate()
    run.let_go()
    run.work.await_silence(AFTER_KILL)


def test_the_page_ends_with_a_run_that_is_interrupted(run: WatchedRun) -> None:
    listener = run.visitor.listen()
    listener.until("run")
    run.process.send_signal(signal.SIGINT)
    assert "cut short" in listener.until("ended")["words"]
    assert finish(run.process).returncode == 130
    await_end_of_page(run.work)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_page_that_dies_takes_nothing_with_it(run: WatchedRun, number: signal.Signals) -> None:
    page = page_process(run.work)
    assert page is not None
    os.kill(page.pid, number)
    eventually(lambda: "run_url" not in files_of(run.work.directory), "the end of the URL")
    status, said = run.end()
    assert status == 0
    ended = [line for line in said if "the web page has ended" in line]
    assert ended == [f"disbatch: the web page has ended with signal {number:d}, and the run goes on without it"]


def test_a_page_that_hangs_holds_nothing_up(run: WatchedRun) -> None:
    page = page_process(run.work)
    assert page is not None
    os.kill(page.pid, signal.SIGSTOP)
    try:
        run.let_go()
        assert finish(run.process).returncode == 0
    finally:
        os.kill(page.pid, signal.SIGCONT)
    await_end_of_page(run.work)


def test_a_driver_that_is_stopped_leaves_the_page_to_its_visitors(run: WatchedRun) -> None:
    run.await_states()
    listener = run.visitor.listen()
    os.kill(run.process.pid, signal.SIGSTOP)
    try:
        assert run.visitor.get("").status == 200
        assert run.visitor.get("find?text=x").status == 200
        while listener.until("silence")["time"] is None:
            pass
        first = listener.known["silence"]
        assert listener.until("silence") != first
        answer = run.visitor.stop("engine", 0, now=True)
        words = "the driver does not answer, and whether it was told is not known"
        assert (answer.status, answer.body) == (409, f"409: {words}\n")
    finally:
        os.kill(run.process.pid, signal.SIGCONT)
    while listener.until("silence")["time"] is not None:
        pass
    listener.close()
    assert run.end()[0] == 0


def test_fifty_pages_and_one_that_never_reads_hold_nothing_up(work: Workplace) -> None:
    run = WatchedRun(work, *["true"] * 300, GATE, slots=4)
    listeners = [run.visitor.listen() for _ in range(50)]
    silent = run.visitor.listen()
    for listener in listeners:
        while listener.known.get("run", {}).get("done") != 300:
            listener.until("run")
    run.let_go()
    for listener in listeners:
        assert "301 tasks finished" in listener.until("ended")["words"]
        listener.close()
    assert run.end()[0] == 0
    silent.close()


def test_strangers_without_a_word_hold_nobody_up(run: WatchedRun) -> None:
    strangers = [socket.create_connection(run.visitor.where) for _ in range(100)]
    assert run.visitor.get("").status == 200
    for stranger in strangers:
        stranger.close()


def test_no_secret_is_to_be_seen_of_the_page(run: WatchedRun) -> None:
    page = page_process(run.work)
    assert page is not None
    script = run.work.text("run_dbUtil.sh")
    secrets = [word.partition("=")[2] for word in script.split() if word.startswith("KVSSTCP_SECRET=")]
    secrets += [run.work.text("run_observer.txt").rpartition("KVSSTCP_SECRET=")[2].strip(), run.visitor.token]
    assert len(secrets) >= 4
    shown = Path(f"/proc/{page.pid}/environ").read_bytes() + Path(f"/proc/{page.pid}/cmdline").read_bytes()
    logs = run.work.text("run_web.log") + run.work.text("run_driver.log")
    for secret in secrets:
        assert secret.encode() not in shown
        assert secret not in logs


def test_a_page_yields_to_tasks_and_needs_no_terminal(run: WatchedRun) -> None:
    page = page_process(run.work)
    assert page is not None
    assert os.getpriority(os.PRIO_PROCESS, page.pid) > os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getsid(page.pid) == page.pid


def test_an_open_store_needs_no_secret_and_its_page_a_token_all_the_same(work: Workplace) -> None:
    run = WatchedRun(work, options=("--insecure-kvs",))
    run.await_states()
    assert run.visitor.ask("GET", "/").status == 403
    assert run.visitor.stop("engine", 0, now=False).status == 200
    run.let_go()
    run.process.send_signal(signal.SIGINT)
    finish(run.process)
    await_end_of_page(work)


def test_a_page_for_other_machines_is_said_not_to_be_encrypted(work: Workplace) -> None:
    run = WatchedRun(work, options=("--web-address", "0.0.0.0:0"))
    port = run.visitor.where[1]
    local = Visitor(f"http://127.0.0.1:{port}/?token={run.visitor.token}").come_in()
    assert local.get("").status == 200
    status, said = run.end()
    assert status == 0
    assert sum("is not encrypted" in line for line in said) == 1


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_its_library_it_says_what_to_install_and_nothing_begins(work: Workplace, missing: str) -> None:
    hidden = work.directory / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(f"import sys\nsys.modules[{missing!r}] = None\n", encoding="ascii")
    tasks = work.write("tasks", "true").name
    path = f"{hidden}{os.pathsep}{work.environment['PYTHONPATH']}"
    before = files_of(work.directory)
    done = work.run("-s", "localhost:1", "-w", tasks, env={"PYTHONPATH": path})
    assert done.returncode == 2
    advice = "install it with: pip install 'disbatch[web]'"
    assert done.complaints == [f"disbatch: error: -w needs what is not installed: {missing} ({advice})"]
    assert files_of(work.directory) == before
    assert work.run("-s", "localhost:1", tasks, env={"PYTHONPATH": path}).returncode == 0


def test_an_address_that_cannot_be_had_is_a_clear_mistake(work: Workplace) -> None:
    tasks = work.write("tasks", "true").name
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = work.run("-s", "localhost:1", "-w", "--web-address", f"127.0.0.1:{port}", tasks)
    assert done.returncode == 1
    [complaint] = done.complaints
    assert complaint.startswith(f"disbatch: error: cannot listen at 127.0.0.1:{port}: Address already in use")
    assert "--web-address" in complaint
    assert files_of(work.directory) == {"tasks"}


def test_a_run_with_a_page_can_be_typed_again_to_go_on(run: WatchedRun) -> None:
    run.process.send_signal(signal.SIGINT)
    done = finish(run.process)
    command = done.complaints[-1].partition("to go on where this run left off: ")[2]
    assert " -w " in command
    run.let_go()
    again = subprocess.run(["/bin/bash", "-c", command], cwd=run.work.directory, env=run.work.environment,
                           capture_output=True, timeout=60, check=False)  # fmt: skip
    assert again.returncode == 0
    await_end_of_page(run.work)
