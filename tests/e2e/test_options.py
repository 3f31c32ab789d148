"""Options of the driver, each seen at work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import disbatch
from disbatch.options import GPU_HAS_NO_EFFECT
from tests.e2e.support import DISBATCH, PATIENCE, finish, read_status

if TYPE_CHECKING:
    from tests.e2e.support import Workplace

SHOW = "echo $DISBATCH_CYLINDER_RANK $DISBATCH_CORES_PER_TASK"

COUNT = (
    "mkdir on.$DISBATCH_CYLINDER_RANK; for try in {1..50}; do count=$(ls -d on.* | wc -l);"
    " [ $count -ge $EXPECTED ] && break; sleep 0.02; done; echo $count >> counts; rmdir on.$DISBATCH_CYLINDER_RANK"
)
"""A task that says how many run at the same time: waiting a moment for those expected, and telling of more."""


def most_at_once(work: Workplace, *options: str, expected: int) -> int:
    """How many tasks have run at the same time at most."""
    work.write("counting", *[COUNT] * (3 * expected))
    assert work.run(*options, "counting", env={"EXPECTED": str(expected)}).returncode == 0
    counts = [int(word) for word in work.text("counts").split()]
    (work.directory / "counts").unlink()
    return max(counts)


def cylinders_and_cores(work: Workplace, *options: str, env: dict[str, str] | None = None) -> tuple[int, int]:
    """How many tasks run at once, as the engine's log says, and the cores of each."""
    work.write("tasks", "echo $DISBATCH_CORES_PER_TASK > cores")
    assert work.run(*options, "-p", "run", "tasks", env=env).returncode == 0
    (log,) = work.directory.glob("run_*_engine_0.log")
    found = re.search(r"(\d+) cylinders", log.read_text(encoding="utf-8"))
    assert found is not None
    log.unlink()
    return int(found[1]), int(work.text("cores"))


def test_as_many_tasks_at_once_as_cores(work: Workplace) -> None:
    assert most_at_once(work, "-s", "localhost:3", expected=3) == 3
    assert most_at_once(work, "-s", "localhost:1", expected=1) == 1


@pytest.mark.parametrize(
    ("nodes", "options", "cylinders", "cores"),
    [
        ("localhost:5", [], 5, 1),
        ("localhost:5", ["-c", "2"], 2, 2),
        ("localhost:5", ["-c", "2.5"], 2, 2),
        ("localhost:2", ["-c", "0.5"], 4, 1),
        ("localhost:3", ["--cpusPerTask=0.3"], 10, 1),
        ("localhost:8", ["-t", "3"], 3, 2),
        ("localhost:2", ["--tasksPerNode", "9"], 2, 1),
        ("localhost:8", ["-t", "3", "-c", "2"], 3, 2),
        ("localhost:8", ["-t", "9", "-c", "3"], 2, 3),
        ("localhost:1,localhost:2", [], 3, 1),
    ],
)
def test_cores_and_tasks(work: Workplace, nodes: str, options: list[str], cylinders: int, cores: int) -> None:
    assert cylinders_and_cores(work, "-s", nodes, *options) == (cylinders, cores)


def test_repeated_hosts_add_up(work: Workplace) -> None:
    assert most_at_once(work, "-s", "localhost:1", "-s", "localhost:1,localhost:1", expected=3) == 3


def test_the_own_name_needs_no_ssh(work: Workplace) -> None:
    name = os.uname().nodename
    work.write("tasks", "true")
    assert work.run("-s", f"{name}:1", "tasks", env={"PATH": "/nonexistent"}).returncode == 0
    assert [line.node for line in work.status()] == [name]


def test_nodes_from_the_environment(work: Workplace) -> None:
    env = {"DISBATCH_SSH_NODELIST": "localhost:1, localhost:2"}
    assert cylinders_and_cores(work, env=env) == (3, 1)
    assert cylinders_and_cores(work, "-s", "localhost:2", env=env) == (2, 1)


def test_resources_are_shared_out(work: Workplace) -> None:
    work.write(
        "tasks",
        "#DISBATCH PERENGINE START echo $GPU $NIC > start",
        *["echo $DISBATCH_CYLINDER_RANK $GPU $NIC $OTHER; sleep 0.1"] * 6,
    )
    env = {"GPU": "7,8,9", "NIC": "a,b", "OTHER": "x,y"}
    assert work.run("-s", "localhost:4", "-E", "GPU", "--env-resource", "NIC", "tasks", env=env).returncode == 0
    assert work.text("start") == "7 a\n"
    seen = {line.out for line in work.status() if not line.flags.endswith("P")}
    assert seen == {r"'0 7 a x,y\n'", r"'1 8 b x,y\n'"}


def test_a_resource_that_is_not_there(work: Workplace) -> None:
    done = work.run("-s", "localhost:2", "-E", "NO_SUCH", work.write("tasks", "true").name)
    assert done.returncode == 1
    assert "localhost runs no tasks: no element in NO_SUCH to give to a task" in done.stderr
    assert "no engine is left" in done.stderr


def test_a_label(work: Workplace) -> None:
    assert (
        work.run("-s", "localhost:1", "-l", "my/label", "-p", "run", work.write("tasks", "true").name).returncode == 0
    )
    assert (work.directory / "run_my_label.context.log").exists()
    assert (work.directory / "run_my_label_localhost_engine_0.log").exists()


def test_an_option_of_the_past_is_accepted_and_said_to_do_nothing(work: Workplace) -> None:
    done = work.run_tasks("true", "true", options=["-g", "-e"])
    assert done.returncode == 0
    assert done.complaints[0] == f"disbatch: {GPU_HAS_NO_EFFECT}"
    assert len(done.complaints) == 2
    assert len(work.status()) == 2


# Where files go.


def test_names_by_default(work: Workplace) -> None:
    work.run_tasks("true")
    names = sorted(path.name for path in work.directory.iterdir())
    pattern = re.compile(r"tasks_disBatch_\d{12}_\d{3}_(?P<what>.*)")
    matches = [pattern.fullmatch(name) for name in names if name != "tasks"]
    assert {match["what"] for match in matches if match} == {
        "SSH0.context.log",
        "SSH0_localhost_engine_0.log",
        "dbUtil.sh",
        "driver.log",
        "status.txt",
    }
    assert all(matches)


def test_what_the_processes_of_a_run_print_is_kept(work: Workplace) -> None:
    tools = work.directory / "tools"
    tools.mkdir()
    ssh = work.write("tools/ssh", "#!/bin/bash", "echo here speaks ssh; exit 255")
    ssh.chmod(0o755)
    # A host that has failed is no news any more when the run is over.
    tasks = work.write("tasks", "until grep -q ssh run_*_context_launch.log; do sleep 0.02; done")
    env = {"PATH": f"{tools}:{os.environ['PATH']}"}
    assert work.run("-s", "localhost:1,elsewhere:1", "-p", "run", tasks.name, env=env).returncode == 0
    assert work.text("run_SSH0_elsewhere_engine_wrap.log") == "here speaks ssh\n"
    (path,) = work.directory.glob("run_*_context_launch.log")
    assert re.fullmatch(r"run_\d+_context_launch.log", path.name)
    assert work.text(path.name) == "disbatch: elsewhere runs no tasks: here speaks ssh\n"


@pytest.mark.parametrize(
    ("prefix", "place"),
    [
        ("there", "there/tasks_disBatch_*_status.txt"),
        ("there/", "there/tasks_disBatch_*_status.txt"),
        (".", "tasks_disBatch_*_status.txt"),
        ("run", "run_status.txt"),
        ("there/run", "there/run_status.txt"),
        ("./there/../run.1", "run.1_status.txt"),
    ],
)
def test_prefixes(work: Workplace, prefix: str, place: str) -> None:
    (work.directory / "there").mkdir()
    done = work.run("-s", "localhost:1", "-p", prefix, work.write("tasks", "echo $DISBATCH_JOBID").name)
    assert done.returncode == 0
    (path,) = work.directory.glob(place)
    (line,) = read_status(path)
    assert line.out_bytes == len(path.name.removesuffix("_status.txt")) + 1
    assert path.name in done.complaints[-1]


def test_an_absolute_prefix(work: Workplace) -> None:
    work.write("tasks", "true")
    assert work.run("-s", "localhost:1", "--prefix", str(work.directory / "run"), "tasks").returncode == 0
    assert (work.directory / "run_status.txt").exists()


def test_a_task_file_elsewhere(work: Workplace) -> None:
    (work.directory / "there").mkdir()
    tasks = work.write("there/tasks", "pwd")
    assert work.run("-s", "localhost:1", str(tasks)).returncode == 0
    (line,) = work.status()
    assert line.out_bytes == len(str(work.directory)) + 1


def test_the_logfile(work: Workplace) -> None:
    work.run_tasks("true", options=["--logfile", "my log"])
    assert "disbatch" in work.text("my log")
    assert not list(work.directory.glob("*_driver.log"))


def test_the_loglevel(work: Workplace) -> None:
    sizes = []
    for level in ("debug", "INFO", "ERROR"):
        work.run("-s", "localhost:1", "--loglevel", level, "-p", level, work.write("tasks", "true").name)
        sizes.append(sum(path.stat().st_size for path in work.directory.glob(f"{level}_*log")))
    assert sizes[0] >= sizes[1] > sizes[2] == 0


# The key-value store.


def running(work: Workplace, *options: str) -> tuple[subprocess.Popen[bytes], str]:
    """A run with a task that waits for the file `go`, and the content of its kvsinfo file."""
    task = "touch begun; until [ -e go ]; do sleep 0.02; done"
    process = work.start("-s", "localhost:1", *options, work.write("tasks", task).name)
    work.await_file("begun")
    (path,) = work.directory.glob("*_kvsinfo.txt")
    return process, path.read_text(encoding="ascii")


def let_end(work: Workplace, process: subprocess.Popen[bytes]) -> None:
    """Let a run go to its end, which takes the kvsinfo file away."""
    work.write("go")
    assert finish(process, timeout=PATIENCE).returncode == 0
    assert not list(work.directory.glob("*_kvsinfo.txt"))


def view(address: str, secret: str | None) -> int:
    """Exit status of a stranger that asks the store of a run for something harmless, having that secret."""
    program = (
        "import os, sys; from disbatch.kvsstcp.client import KVSClient\n"
        "host, _, port = sys.argv[1].rpartition(':')\n"
        "client = KVSClient(host, int(port), secret=os.environ.get('KVSSTCP_SECRET'), connect_timeout=5.0)\n"
        "client.put('a key of mine', b'x', b'ASTR'); client.get('a key of mine')\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "KVSSTCP_SECRET"}
    if secret is not None:
        env["KVSSTCP_SECRET"] = secret
    done = subprocess.run(
        [sys.executable, "-c", program, address],
        env=env,
        cwd=disbatch.__path__[0] + "/..",
        capture_output=True,
        check=False,
    )
    return done.returncode


@pytest.mark.parametrize("given", ["127.0.0.1:0", "localhost:0"])
def test_an_address_of_ones_own(work: Workplace, given: str) -> None:
    process, content = running(work, "--use-address", given)
    host, _, port = content.strip().rpartition(":")
    assert host == given.removesuffix(":0")
    assert int(port) > 0
    let_end(work, process)


def test_the_store_is_closed_to_strangers(work: Workplace) -> None:
    process, content = running(work)
    assert re.fullmatch(r"\S+:\d+\n", content)
    (script,) = work.directory.glob("*_dbUtil.sh")
    found = re.search(r"--kvs-env\) KVSSTCP_SECRET=(\S+)", script.read_text(encoding="utf-8"))
    assert found is not None
    address = f"127.0.0.1:{content.strip().rpartition(':')[2]}"
    assert view(address, found[1]) == 0
    assert view(address, found[1][:-1]) != 0
    assert view(address, None) != 0
    let_end(work, process)


def test_the_store_is_open_where_that_is_asked_for(work: Workplace) -> None:
    process, content = running(work, "--insecure-kvs")
    assert view(f"127.0.0.1:{content.strip().rpartition(':')[2]}", None) == 0
    assert process.stderr is not None
    assert b"--insecure-kvs" in process.stderr.readline()
    let_end(work, process)
    assert not any("KVSSTCP_SECRET=" in path.read_text(encoding="utf-8") for path in work.directory.glob("*_dbUtil.sh"))


# About disbatch itself.


def test_the_version(work: Workplace) -> None:
    done = work.run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{disbatch.__version__}\n", "")


def modules_imported_for(work: Workplace, *arguments: str) -> set[str]:
    done = work.run(*arguments, program=[DISBATCH[0], "-X", "importtime", *DISBATCH[1:]])
    return {line.rpartition("|")[2].strip() for line in done.complaints}


def test_answers_about_itself_come_before_what_takes_long_to_import(work: Workplace) -> None:
    assert "argparse" not in modules_imported_for(work, "--version")
    for arguments in (["-e", "--version"], ["--help"], ["--bogus"], []):
        imported = modules_imported_for(work, *arguments)
        assert "disbatch.options" in imported
        assert "disbatch.driver.process" not in imported


@pytest.mark.parametrize("safe_path", ["", "1"])
def test_the_users_python_path_stays_as_it_is(work: Workplace, safe_path: str) -> None:
    """Started by path, as the processes of a run are, it takes its own folder from the front of the module path."""
    program = (
        "import runpy, sys; before = sys.path[:]; runpy.run_path(sys.argv[1]);"
        "print(sys.path[1:] == (before if getattr(sys.flags, 'safe_path', False) else before[1:]))"
    )
    main = f"{disbatch.__path__[0]}/__main__.py"
    env = {"PYTHONPATH": "/nonexistent/of/the/user", "PYTHONSAFEPATH": safe_path}
    assert work.run("-c", program, main, program=[sys.executable], env=env).stdout == "True\n"


def test_help_tells_of_every_option(work: Workplace) -> None:
    done = work.run("-h")
    assert (done.returncode, done.stderr) == (0, "")
    options = (
        "-C --context-task-limit -c --cpusPerTask -e --exit-code -f --fail-fast --force-resume -g --gpu --kvsserver -l "
        "--label --logfile --loglevel --mailFreq --mailTo --no-retire -p --prefix -R --retry -r --resume-from "
        "--retire-cmd -S --startup-only -s --ssh-node --status-header -t --tasksPerNode --taskcommand --taskserver "
        "--use-address --version -w --web --web-address"
    )
    for option in options.split():
        assert re.search(rf"(^|[ ,]){option}\b", done.stdout, re.MULTILINE), option
    assert "--env-resource" not in done.stdout
    assert "taskfile" in done.stdout
    assert work.run("--help").stdout == done.stdout


@pytest.mark.parametrize("name", ["disbatch", "disBatch"])
def test_both_names(work: Workplace, name: str) -> None:
    """Scripts as pip makes them; that it does so is for the test of the packages."""
    script = work.directory / name
    script.write_text(
        f"#!{DISBATCH[0]}\nimport sys\nfrom disbatch.cli import main\nsys.exit(main())\n", encoding="ascii"
    )
    script.chmod(0o755)
    assert work.run("--version", program=[script]).stdout == f"{disbatch.__version__}\n"
    assert f"usage: {script}" in work.run("-h", program=[script]).stdout
