"""Who may do what in a run, and where its secrets are: docs/security.md, on real processes."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from disbatch import messages
from disbatch.driver.submissions import SIGN_IN
from disbatch.kvsstcp import KVSClient
from disbatch.kvsstcp.wire import (
    ASTR,
    encode_down,
    encode_dump,
    encode_get,
    encode_monitor,
    encode_put,
    encode_view,
)
from tests.e2e.support import DISBATCH, PATIENCE, eventually, finish, read_status

if TYPE_CHECKING:
    import socket
    import subprocess
    from collections.abc import Iterable

    from tests.e2e.support import Process, Workplace

WAIT = "touch begun.$DISBATCH_TASKID; until [ -e go ]; do sleep 0.02; done"

STATE = messages.STATE_KEY
DRIVER, ORDERS = messages.driver_key("run"), messages.orders_key("run")
ENGINE, CONTEXT = (messages.member_key("run", name) for name in ("engine 0", "context own"))
STOP = messages.encode(messages.StopEngine(0, now=True))


def begin(work: Workplace, *options: str) -> subprocess.Popen[bytes]:
    """Start a run with a task that waits for a file `go`."""
    run = work.start("-s", "localhost:1", "-p", "run", *options, work.write("tasks", WAIT).name)
    work.await_file("begun.0")
    return run


def let_end(work: Workplace, run: subprocess.Popen[bytes]) -> None:
    work.write("go")
    assert finish(run, timeout=PATIENCE).returncode == 0


def secrets_of(work: Workplace) -> dict[str, str]:
    """The secret of each role, as the files of the run hold them."""
    script, observer = work.text("run_dbUtil.sh"), work.text("run_observer.txt")
    places = {
        "engine": (r"^export KVSSTCP_SECRET=((?:tls:)?\w{64})$", script),
        "operator": (r"--stop\) KVSSTCP_SECRET=((?:tls:)?\w{64}) ", script),
        "program": (r"--kvs-env\) KVSSTCP_SECRET=((?:tls:)?\w{64}) ", script),
        "observer": (r"^export KVSSTCP_SECRET=((?:tls:)?\w{64})$", observer),
    }
    return {role: re.findall(pattern, text, re.MULTILINE)[0] for role, (pattern, text) in places.items()}


def client(work: Workplace, role: str) -> KVSClient:
    return KVSClient(work.text("run_kvsinfo.txt").strip(), secret=secrets_of(work)[role])


# Roles


EVERYBODY_S = {"down": encode_down(), "auth": encode_get(b".auth challenge")}
REFUSED: dict[str, dict[str, bytes]] = {
    "observer": {
        "another key": encode_view(b"a barrier"),
        "what is between processes": encode_view(ENGINE),
        "get": encode_get(STATE),
        "put": encode_put(STATE, ASTR, b"all is well"),
        "stop": encode_put(ORDERS, messages.TAG, STOP),
        "report": encode_put(DRIVER, messages.TAG, messages.encode(messages.EngineLeft(0))),
        "submit": encode_put(SIGN_IN[0], ASTR, b"a name"),
        "dump": encode_dump(),
        "monitor": encode_monitor(b"mine", STATE + b":p"),
    },
    "operator": {
        "another key": encode_view(b"a barrier"),
        "get": encode_get(STATE),
        "orders of others": encode_get(ORDERS),
        "put": encode_put(STATE, ASTR, b"all is well"),
        "report": encode_put(DRIVER, messages.TAG, messages.encode(messages.EngineLeft(0))),
        "give tasks": encode_put(ENGINE, messages.TAG, messages.encode(messages.ReturnTasks())),
        "submit": encode_put(SIGN_IN[0], ASTR, b"a name"),
        "dump": encode_dump(),
        "monitor": encode_monitor(ORDERS, STATE + b":p"),
    },
    "engine": {
        "state": encode_view(STATE),
        "stop": encode_put(ORDERS, messages.TAG, STOP),
        "give tasks": encode_put(ENGINE, messages.TAG, messages.encode(messages.ReturnTasks())),
        "give orders to contexts": encode_put(CONTEXT, messages.TAG, messages.encode(messages.EndContext(()))),
        "reports of others": encode_get(DRIVER),
        "submit": encode_put(SIGN_IN[0], ASTR, b"a name"),
        "dump": encode_dump(),
        "monitor": encode_monitor(DRIVER, ENGINE + b":p"),
    },
    "program": {
        "stop": encode_put(ORDERS, messages.TAG, STOP),
        "report": encode_put(DRIVER, messages.TAG, messages.encode(messages.EngineLeft(0))),
        "give tasks": encode_put(ENGINE, messages.TAG, messages.encode(messages.ReturnTasks())),
        "take tasks": encode_get(ENGINE),
        "see tasks": encode_view(ENGINE),
        "take the state": encode_get(STATE),
        "forge the state": encode_put(STATE, ASTR, b"all is well"),
        "monitor every key": encode_monitor(b"mine", b":p"),
        "monitor an engine": encode_monitor(b"mine", ENGINE + b":p"),
    },
}


def is_hung_up_on(connected: socket.socket) -> bool:
    """Whether all that comes is the end of the connection."""
    connected.settimeout(PATIENCE)
    try:
        return connected.recv(1) == b""
    except ConnectionResetError:
        return True


def test_whoever_asks_for_what_his_role_has_no_right_to_is_hung_up_on(work: Workplace) -> None:
    run = begin(work)
    for role, requests in REFUSED.items():
        for what, request in {**requests, **EVERYBODY_S}.items():
            with client(work, role).detach() as connected:
                connected.sendall(request)
                assert is_hung_up_on(connected), f"{role}: {what}"
    assert "ended the connection of" in work.text("run_driver.log")
    assert "its secret gives no right to view b'a barrier'" in work.text("run_driver.log")
    let_end(work, run)


def test_observers_and_operators_see_the_state_of_the_run(work: Workplace) -> None:
    run = begin(work)
    for role in ("observer", "operator", "program"):
        with client(work, role) as connected:
            eventually(lambda connected=connected: connected.view(STATE, None, PATIENCE)[0] == b"JSON", "the state")  # type: ignore[misc] # called at once
    let_end(work, run)


def test_who_asks_what_runs_on_a_host_that_no_run_could_have_is_told_that_nothing_does(work: Workplace) -> None:
    run = begin(work)
    for role in ("operator", "program"):
        with client(work, role) as connected:
            _, told = cast("tuple[bytes, bytes]", connected.view(messages.RUNNING_KEYS + b" " + b"9" * 5000, None))
            assert json.loads(told)["tasks"] == []
    let_end(work, run)


def test_programs_have_the_keys_that_are_not_between_processes_of_the_run(work: Workplace) -> None:
    run = begin(work)
    with client(work, "program") as connected:
        connected.monkey("records", "mine:pg")
        connected.put("mine", "a value", False)
        assert connected.get("mine", False, PATIENCE) == b"a value"
        assert [connected.get("records", False, PATIENCE) for _ in range(2)] == [b"p:mine", b"g:mine"]
        _, waiting, held = connected.dump()
        assert waiting == []
        assert [key for key, _, _ in held] == [STATE]
    let_end(work, run)


@pytest.mark.parametrize("order", [messages.StopEngine(0, now=True), messages.StopContext(0, now=True)])
def test_an_order_among_the_reports_of_engines_changes_nothing(work: Workplace, order: messages.Message) -> None:
    run = begin(work)
    with client(work, "engine") as connected:
        connected.put(DRIVER, messages.encode(order), messages.TAG)
        log = work.directory / "run_driver.log"
        complaint = f"{type(order).__name__} is not for the driver"
        eventually(lambda: complaint in log.read_text(encoding="utf-8"), "a warning")
    let_end(work, run)
    assert [line.return_code for line in read_status(work.directory / "run_status.txt")] == [0]


# The file for observers


def view(work: Workplace, path: str) -> tuple[int, str, str]:
    """What `python -m disbatch.kvsstcp view` says to a colleague who has that file, and the secret of another store."""
    command = (sys.executable, "-m", "disbatch.kvsstcp", "view", "-k", path, "-T", "5", "DisBatch status")
    done = work.run(program=command, env={"KVSSTCP_SECRET": "of another store"}, timeout=PATIENCE)
    return done.returncode, done.stdout, done.stderr


def test_a_colleague_with_the_file_for_observers_sees_the_state_of_the_run(work: Workplace) -> None:
    run = begin(work)
    file = work.directory / "run_observer.txt"
    assert file.stat().st_mode & 0o777 == 0o600
    copied = work.directory / "copy"
    copied.write_bytes(file.read_bytes())

    def state() -> dict[str, object]:
        status, said, _ = view(work, "copy")
        assert status == 0
        return {} if said == "<Starting...>\n" else cast("dict[str, object]", json.loads(said))

    eventually(lambda: state().get("activeCylinders") == 1, "the task to be posted")
    let_end(work, run)
    assert not file.exists()
    status, said, complaint = view(work, "copy")
    assert (status, said, complaint.count("\n")) == (1, "", 1)


@pytest.mark.parametrize(("text", "why"), [("h:1\n", "it does not say where"), (None, "No such file or directory")])
def test_another_file_is_refused_in_one_line(work: Workplace, text: str | None, why: str) -> None:
    if text is not None:
        work.write("file", text.strip())
    status, said, complaint = view(work, "file")
    assert (status, said, complaint.count("\n")) == (2, "", 1)
    assert f"cannot use 'file': {why}" in complaint


def test_a_store_that_asks_for_no_secret_is_told_of_without_one(work: Workplace) -> None:
    run = begin(work, "--insecure-kvs")
    assert re.fullmatch(r"export KVSSTCP_HOST=\S+\nexport KVSSTCP_PORT=\d+\n", work.text("run_observer.txt"))
    assert view(work, "run_observer.txt")[0] == 0
    let_end(work, run)


# Where secrets are, and where not


SSH = """#!/bin/bash
exec bash -c "${!#}"
"""

COMMAND = f"""
import os, sys, time
from disbatch.kvsstcp import KVSClient
client = KVSClient()
for key, value in zip({SIGN_IN!r}, ("name", "done", "results", "tasks")):
    client.put(key, value, False)
for line in open("tasks").read().splitlines():
    client.put("tasks", line, False)
while not os.path.exists("go"):
    time.sleep(0.02)
client.put("tasks", "done", False)
"""

TASKS = (
    "#DISBATCH PERENGINE START env > start.env.$DISBATCH_ENGINE_RANK",
    "#DISBATCH PERENGINE STOP env > stop.env.$DISBATCH_ENGINE_RANK",
    *["env > env.$DISBATCH_TASKID; setsid sleep 300 & sleep 300 & " + WAIT + "; kill %1 %2"] * 3,
)


def places_of(secret: str, paths: Iterable[Path]) -> set[str]:
    return {path.name for path in paths if path.is_file() and secret.encode() in path.read_bytes()}


def memory_of(process: Process) -> bytes:
    """What a core dump of a process would hold; nothing where the system does not show it to its own user."""
    found = bytearray()
    try:
        with open(f"/proc/{process.pid}/mem", "rb", buffering=0) as memory:
            for line in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
                span, rights, *_ = line.split()
                first, last = (int(number, 16) for number in span.split("-"))
                if rights.startswith("rw") and "[v" not in line:
                    memory.seek(first)
                    found += memory.read(last - first)
    except OSError:
        return b""
    return bytes(found)


def environment_of(process: Process) -> bytes:
    """Environment that a process began with; empty if it has ended meanwhile."""
    try:
        return Path(f"/proc/{process.pid}/environ").read_bytes()
    except OSError:
        return b""


def roles_in_environments(processes: Iterable[Process], secrets: dict[str, str], driver: int) -> dict[str, set[str]]:
    """Whose secrets are in the environment of each kind of process."""
    found: dict[str, set[str]] = defaultdict(set)
    for process in processes:
        environment = environment_of(process)
        if b"DISBATCH_TASKID=" in environment:
            kind = "task"
        elif process.command[-1] == "command.py":
            kind = "task command"
        else:
            kind = process.role or ("driver" if process.pid == driver else "")
        found[kind] |= {role for role, secret in secrets.items() if secret.encode() in environment}
    return {kind: roles for kind, roles in found.items() if kind}


@pytest.mark.parametrize("source", ["file", "command"])
def test_secrets_are_where_they_are_needed_and_nowhere_else(work: Workplace, source: str) -> None:
    """With a umask that lets everybody in, engines started in each way, and as much in the logs as there is."""
    tools = work.directory / "tools"
    tools.mkdir()
    (tools / "ssh").write_text(SSH, encoding="ascii")
    (tools / "ssh").chmod(0o755)
    command = ["--taskcommand", f"exec {sys.executable} command.py"]
    work.write("command.py", COMMAND)
    work.write("tasks", *TASKS)
    run = work.start(
        *("-s", "localhost:1,elsewhere:1", "-p", "run", "--loglevel", "DEBUG"),
        *(command if source == "command" else ["tasks"]),
        program=["bash", "-c", 'umask 0; exec "$@"', "bash", *DISBATCH],
        env={"PATH": f"{tools}:{os.environ['PATH']}"},
    )
    work.await_file("begun.0")
    work.await_file("begun.1")
    script, observer = work.directory / "run_dbUtil.sh", work.directory / "run_observer.txt"
    added = work.start(
        "-s", "localhost:1", "--loglevel", "DEBUG", program=["bash", "-c", 'umask 0; exec "$0" "$@"', script]
    )
    work.await_file("begun.2")
    secrets = secrets_of(work)
    assert len(set(secrets.values())) == 4
    assert (script.stat().st_mode & 0o777, observer.stat().st_mode & 0o777) == (0o700, 0o600)

    processes = work.processes()
    words = [word for process in processes for word in process.command]
    assert not any(secret in word for word in words for secret in secrets.values())
    assert roles_in_environments(processes, secrets, run.pid) == {
        "driver": set(),
        "--context": {"engine"},
        "--engine": {"engine"},
        "task": set(),
        **({"task command": {"program"}} if source == "command" else {}),
    }
    tasks = [process for process in processes if b"DISBATCH_TASKID=" in environment_of(process)]
    assert len(tasks) >= 9
    memories = [memory_of(process) for process in tasks]
    assert any(b"DISBATCH_TASKID" in memory for memory in memories) or os.geteuid() != 0
    assert not any(secret.encode() in memory for memory in memories for secret in secrets.values())

    work.write("go")
    assert finish(run, timeout=PATIENCE).returncode == 0
    assert finish(added, timeout=PATIENCE).returncode == 0
    for role, secret in secrets.items():
        expected = set() if role == "observer" else {script.name}
        assert places_of(secret, work.directory.rglob("*")) == expected, role
