"""A real Grid Engine for tests, made of this one machine: sge_qmaster on a login host, sge_execd on each of two nodes.

Needs root and Debian's packages, unpacked (`requirements.py`). The computers are those of `tests/hosts`; all state is
in the directory given, or goes with them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.gridengine.requirements import UNPACKED
from tests.hosts import Hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

LOGIN = "login"
NODES = ("n1", "n2")
SLOTS = 2

PATIENCE = 30.0
"""Seconds that something may take which takes a moment; only a failure ever waits that long."""

FOREIGN = ("SGE_", "JOB_", "PE_")
"""Beginnings of variables that the user of the tests may have and that Grid Engine would see."""

BOOTSTRAP = """\
admin_user none
default_domain none
ignore_fqdn true
spooling_method classic
spooling_lib libspoolc
spooling_params {root}/default/common;{root}/spool/qmaster
binary_path {root}/bin
qmaster_spool_dir {root}/spool/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""

PARALLEL_ENVIRONMENT = """\
pe_name mpi
slots 99
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule $round_robin
control_slaves TRUE
job_is_first_task FALSE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""


class GridEngineError(Exception):
    """A cell that did not do what it should."""


class GridEngineCell:
    """Grid Engine, up for the duration of a `with`: `login`, to submit from, and `n1` and `n2` with two slots each.

        with GridEngineCell(directory) as cell:
            output = cell.job("hostname", "-pe", "mpi", "3", cwd=directory)

    `directory` is made if needed and must be on a file system that hosts share: not below /run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "sge"
        self._stack = ExitStack()

    @property
    def programs(self) -> Path:
        """Where its commands are."""
        (folder,) = (self.root / "bin").iterdir()
        return folder

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the tests with this cell and no other, and no job, in it."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        return {
            **mine,
            "PATH": f"{self.programs}:/usr/sbin:/usr/bin:/sbin:/bin",
            "LD_LIBRARY_PATH": str(self.root / "lib" / self.programs.name),
            "SGE_ROOT": str(self.root),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": "6444",
            "SGE_EXECD_PORT": "6445",
            "SGE_ND": "1",  # daemons stay in the foreground
        }

    def __enter__(self) -> Self:
        self._make_root()
        with self._stack as stack:
            self.hosts = stack.enter_context(Hosts(self.directory / "hosts", [LOGIN, *NODES]))
            self._start_master()
            self._configure()
            for node in NODES:
                self._serve(node, "sge_execd")
            self._until(lambda: self._nodes_up() == len(NODES), "two nodes that are up")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def job(self, script: str, *options: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
        """Run a job to its end: a script of bash, in the environment of the cell and `env`; what it has printed."""
        path, output = cwd / "job", cwd / "job.out"
        # As the login files of a real cell do.
        path.write_text(f"#!/bin/bash\nexport PATH={self.programs}:$PATH\n{script}\n", encoding="utf-8")
        output.unlink(missing_ok=True)
        submit: list[str | Path] = ["qsub", "-terse", "-V", "-cwd", "-j", "y", "-o", output, *options, path]
        environment = {**(env or {}), **self.environment}
        submitted = self.hosts[LOGIN].run(submit, env=environment, cwd=cwd)
        number = submitted.stdout.strip()
        if not number.isdigit():
            raise GridEngineError(f"the job was not taken: {submitted.stdout} {submitted.stderr}")
        # qsub itself could wait for the end, but notices it seconds later.
        self._until(lambda: self._tell("qstat", "-j", number).returncode != 0, "the end of the job")
        return output.read_text(encoding="utf-8")

    def reset(self) -> list[str]:
        """End all jobs, and what they have left; what jobs there were."""
        left = re.findall(r"^ *(\d+) ", self._ask("qstat"), re.MULTILINE)
        if left:
            self._ask("qdel", "-f", *left)
            self._until(lambda: not self._ask("qstat"), "the end of all jobs")
        for host in self.hosts:
            host.reset()
        return left

    def _make_root(self) -> None:
        architecture = subprocess.run(
            [UNPACKED / "usr/share/gridengine/util/arch"], check=True, capture_output=True, text=True
        ).stdout.strip()
        shutil.copytree(UNPACKED / "usr/share/gridengine/util", self.root / "util")
        shutil.copytree(UNPACKED / "usr/lib/gridengine", self.root / "bin" / architecture, symlinks=True)
        (self.root / "utilbin").symlink_to(self.root / "bin")
        libraries = self.root / "lib" / architecture
        libraries.mkdir(parents=True)
        for library in UNPACKED.glob("usr/lib/**/*.so*"):
            shutil.copy(library, libraries)
        common = self.root / "default/common"
        for folder in (common, self.root / "spool/qmaster/job_scripts", self.root / "spool/execd"):
            folder.mkdir(parents=True)
        (common / "bootstrap").write_text(BOOTSTRAP.format(root=self.root), encoding="utf-8")
        (common / "act_qmaster").write_text(f"{LOGIN}\n", encoding="ascii")

    def _start_master(self) -> None:
        # Debian's programs look for their libraries for spooling there and nowhere else.
        layers = f"lowerdir={UNPACKED}/usr/lib:/usr/lib"
        self._ask("mount", "-t", "overlay", "overlay", "-o", layers, "/usr/lib")
        spool = f"{self.root}/default/common;{self.root}/spool/qmaster"
        self._ask("spoolinit", "classic", "libspoolc", spool, "init")
        text = (UNPACKED / "usr/share/gridengine/default-configuration").read_text(encoding="utf-8")
        configuration = _changed(
            text,
            {
                "execd_spool_dir": f"{self.root}/spool/execd",
                "min_uid": "0",
                "min_gid": "0",
                "load_report_time": "00:00:02",
                "mailer": "/bin/true",
            },
        )
        resources = self.root / "util/resources"
        self._ask("spooldefaults.bin", "configuration", self._file("configuration", configuration))
        self._ask("spooldefaults.bin", "complexes", resources / "centry")
        self._ask("spooldefaults.bin", "usersets", resources / "usersets")
        self._ask("spooldefaults.bin", "managers", "root")
        self._serve(LOGIN, "sge_qmaster")
        self._until(lambda: self._tell("qconf", "-sh").returncode == 0, "sge_qmaster")

    def _configure(self) -> None:
        self._ask("qconf", "-as", LOGIN)
        for node in NODES:
            self._ask("qconf", "-ah", node)
        self._ask("qconf", "-Ap", self._file("environment", PARALLEL_ENVIRONMENT))
        queue = _changed(
            self._ask("qconf", "-sq"),
            {
                "qname": "all.q",
                "hostlist": " ".join(NODES),
                "slots": str(SLOTS),
                "pe_list": "mpi",
                "tmpdir": "/run",  # which each host has of its own
                "load_thresholds": "NONE",  # whatever else this machine has to do, the queue takes jobs
                "shell": "/bin/bash",
            },
        )
        self._ask("qconf", "-Aq", self._file("queue", queue))
        scheduler = _changed(
            self._ask("qconf", "-ssconf"),
            {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"},
        )
        self._ask("qconf", "-Msconf", self._file("scheduler", scheduler))

    def _nodes_up(self) -> int:
        lines = [line.split() for line in self._ask("qstat", "-f").splitlines() if line.startswith("all.q@")]
        return sum(len(words) == 5 and words[3] != "-NA-" for words in lines)  # the sixth tells of trouble

    def _file(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        return path

    def _serve(self, host: str, program: str) -> None:
        # A daemon has its environment from here, and hands it on to jobs.
        environment = [f"{name}={value}" for name, value in self.environment.items()]
        self.hosts[host].serve(["env", "-i", *environment, self.programs / program], self.directory / f"{host}.log")

    def _tell(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return self.hosts[LOGIN].run(arguments, env=self.environment)

    def _ask(self, *arguments: str | Path) -> str:
        done = self._tell(*arguments)
        if done.returncode:
            raise GridEngineError(f"{arguments} ended with {done.returncode}: {done.stdout} {done.stderr}")
        return done.stdout

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise GridEngineError(f"{what}: has not come true within {PATIENCE} s; see {self.directory}/*.log")
            time.sleep(0.05)


def _changed(text: str, values: Mapping[str, str]) -> str:
    """Return a configuration with other values of some of its entries."""
    for name, value in values.items():
        text, found = re.subn(rf"^{name}\s.*$", f"{name} {value}", text, flags=re.MULTILINE)
        if found != 1:
            raise GridEngineError(f"there is no one {name} in {text}")
    return text
