"""A real Slurm cluster for tests, made of this one machine: munged, slurmctld and a slurmd on each of several nodes.

Needs root and Debian's packages. The login host and every node are computers of their own (`tests/hosts/network.py`):
host name, network, processes, /run and /etc/hosts; the file system below that is shared. All state is in the directory
given or goes with the computers, whose network nobody else sees: no port and no file of another Slurm is in the way.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.hosts.cell import Cell
from tests.hosts.network import OWN_PID_NAMESPACE, Computer, Switch
from tests.hosts.sshd import SYSTEM_PATH, tool
from tests.slurm.configuration import CONTROLLER_PORT, NodeFacts, gres_conf, slurm_conf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from tests.hosts.cell import Stream

LOGIN = "login"

CLIENT_SECONDS = 30.0
"""How long a command of Slurm's may take. They block when slurmctld is gone."""

PATIENCE = 30.0
"""Seconds that something may take which takes a moment; only a failure ever waits that long."""

STOPPING_SECONDS = 2.0
"""How long slurmctld may take to stop by itself, and jobs that are killed to end."""

GRACE = 5.0
"""Seconds for which jobs may be seen after the test that they belong to."""

NULL_DEVICE = os.makedev(1, 3)

TCP_LISTEN = "0A"

FOREIGN = ("SLURM_", "SBATCH_", "SALLOC_", "SRUN_", "SQUEUE_", "SINFO_", "SCANCEL_", "SCONTROL_", "CUDA_VISIBLE_")
"""Beginnings of variables that the user of the tests may have and that Slurm's commands or their jobs would see."""


class ClusterError(Exception):
    """A cluster that did not do what it should, or a test that did not with it."""


class Node(Computer):
    """A node of a `Cluster`: a computer with a slurmd."""

    def __init__(self, facts: NodeFacts, directory: Path, cell: Cell, switch: Switch) -> None:
        super().__init__(facts.name, facts.address, directory, cell, switch)
        self.facts = facts
        self.slurmd: subprocess.Popen[str] | None = None

    @property
    def serving(self) -> bool:
        """Whether its slurmd runs."""
        return self.slurmd is not None and self.slurmd.poll() is None


class Cluster:
    """A cluster, up for the duration of a `with`: the host `login`, to submit from, and the nodes `n1`, `n2`...

        with Cluster(directory) as cluster:
            assert cluster.run(["srun", "-N2", "hostname"]).stdout.split() == ["n1", "n2"]

    Nodes have 4 CPUs; the third one has two GPUs, the last one 8 CPUs; both are given out last. `directory` is made if
    needed and must be on a file system that hosts share: not below /run. Between the SIGTERM and the SIGKILL to a job
    are `kill_wait` seconds.

    What salloc and srun start begins at once; a batch job within a second. Slurm notices a lost node after three times
    `timeout` or four times `message_timeout`, whichever is longer; `set_down` is for who cannot wait.
    """

    def __init__(
        self, directory: Path, nodes: int = 4, *, timeout: int = 4, message_timeout: int = 3, kill_wait: int = 2
    ) -> None:
        self.directory = directory
        self.facts = [
            NodeFacts(
                f"n{number}",
                f"198.18.0.{number + 1}",
                cpus=8 if number == nodes else 4,
                gpus=2 if number == 3 else 0,
                weight=20 if number == nodes else 10 if number == 3 else 1,
            )
            for number in range(1, nodes + 1)
        ]
        self.nodes: dict[str, Node] = {}
        self._limits = {"timeout": timeout, "kill_wait": kill_wait, "message_timeout": message_timeout}
        self._stack = ExitStack()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the tests with this cluster and no other, and no job, in it."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        return {**mine, "PATH": SYSTEM_PATH, "SLURM_CONF": str(self.directory / "slurm.conf")}

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __enter__(self) -> Self:
        self._write_files()
        with self._stack as stack:
            self._switch = Switch(self.directory)
            stack.callback(self._switch.close)
            self.login = Computer(LOGIN, "198.18.0.1", self.directory / LOGIN, self._cell(LOGIN), self._switch)
            stack.callback(self.login.close)
            self.login.serve(self._munged_command(), self.directory / "munged.log")
            self.until((self.directory / "munge/munge.socket.2").is_socket, "munged's socket")
            self._controller = self._start_controller()
            for facts in self.facts:
                self.boot(facts.name)
                stack.callback(lambda name: self.nodes[name].close(), facts.name)
            self.await_idle()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def popen(
        self,
        arguments: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream | None = None,
        stderr: Stream | None = None,
    ) -> subprocess.Popen[str]:
        """Start a program on the login host, as `Computer.popen` does; `env` is what is added to `environment`."""
        environment = {**self.environment, **(env or {})}
        return self.login.popen(arguments, env=environment, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr)

    def run(
        self,
        arguments: Sequence[str | Path],
        timeout: float = CLIENT_SECONDS,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        text: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the login host to its end, as `Computer.run` does; `env` is added to `environment`."""
        environment = {**self.environment, **(env or {})}
        return self.login.run(arguments, env=environment, cwd=cwd, text=text, timeout=timeout)

    def ask(self, *arguments: str | Path) -> str:
        """Run a command of Slurm's that has to succeed; return its output."""
        done = self.run(arguments)
        if done.returncode:
            raise ClusterError(f"{arguments} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def submit(
        self,
        *arguments: str | Path,
        script: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> int:
        """Submit a batch job with sbatch's `arguments`, which name a script unless one is given as text; its number.

        It runs in `cwd`, the tests' own directory by default; what it prints goes to `slurm-NUMBER.out` there.
        """
        text = script if not script or script.startswith("#!") else f"#!/bin/bash\n{script}"
        done = self.run(["sbatch", "--parsable", *arguments], env=env, cwd=cwd, text=text)
        if done.returncode:
            raise ClusterError(f"sbatch {arguments} ended with {done.returncode}: {done.stderr.strip()}")
        return int(done.stdout.partition(";")[0])

    def job(self, job: int | str) -> dict[str, str]:
        """What scontrol tells of a job, for some minutes after it has ended too; `JOB_ELEMENT` is one of an array."""
        (line, *_) = self.ask("scontrol", "show", "job", "-o", str(job)).splitlines()
        return dict(re.findall(r"(\S+?)=(\S*)", line))

    def state(self, job: int | str) -> str:
        """The state of a job: PENDING, RUNNING, COMPLETED, NODE_FAIL..."""
        return self.job(job)["JobState"]

    def await_state(self, job: int | str, *states: str, seconds: float = PATIENCE) -> str:
        """Wait until a job is in one of these states; which one that is."""
        self.until(lambda: self.state(job) in states, f"job {job} {' or '.join(states)}", seconds)
        return self.state(job)

    def jobs(self) -> list[str]:
        """Job numbers and states of all that is not over, one line each."""
        return self.ask("squeue", "--noheader", "--array", "--states=all", "--format=%i %T %j").splitlines()

    def cancel(self, *jobs: int | str) -> None:
        """Cancel jobs, and wait until nothing of them runs any more."""
        self.ask("scancel", *map(str, jobs))
        for job in jobs:
            self.until(lambda job=job: is_over(self.state(job)), f"the end of job {job}")  # type: ignore[misc] # called at once

    def node_states(self) -> dict[str, str]:
        """States of the nodes as sinfo shortens them: `idle`, `mix`, `alloc`, `down`, `down*`, `comp`..."""
        lines = self.ask("sinfo", "--noheader", "--Node", "--format=%N %t").splitlines()
        return {line.split()[0]: line.split()[1] for line in lines}

    def await_idle(self) -> None:
        """Wait until all nodes are idle."""
        self.until(lambda: set(self.node_states().values()) == {"idle"}, "a cluster with all nodes idle")

    def await_node(self, name: str, *states: str, seconds: float = PATIENCE) -> None:
        """Wait until a node is in one of these states."""
        self.until(lambda: self.node_states()[name] in states, f"{name} {' or '.join(states)}", seconds)

    def kill_slurmd(self, name: str) -> None:
        """Kill a node's slurmd. Its steps live on; some seconds later it is down and its jobs have failed."""
        node = self.nodes[name]
        assert node.slurmd is not None
        node.dismiss(node.slurmd)

    def start_slurmd(self, name: str) -> None:
        """Start a node's slurmd (again). `await_node` tells when Slurm has heard of it."""
        node = self.nodes[name]
        node.slurmd = node.serve(
            [tool("slurmd"), "-D", "-N", name, "-f", str(self.directory / "slurm.conf")],
            node.directory / "slurmd.log",
        )

    def boot(self, name: str) -> None:
        """Switch on a node that is off."""
        (facts,) = (facts for facts in self.facts if facts.name == name)
        self.nodes[name] = Node(facts, self.directory / name, self._cell(name), self._switch)
        self.start_slurmd(name)

    def set_down(self, name: str) -> None:
        """Let Slurm take a node for lost at once, as an administrator would; `reset` takes it back."""
        self.ask("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=test")

    def stop_controller(self) -> None:
        """Stop slurmctld: commands of Slurm's block, steps live on."""
        # A SIGKILL alone would make it forget the last seconds' jobs, whose steps go on. Told to stop, it saves them
        # first, and sometimes hangs then.
        self._controller.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._controller.wait(STOPPING_SECONDS)
        self.login.dismiss(self._controller)

    def start_controller(self) -> None:
        """Start slurmctld again, with the state that it had."""
        self._controller = self._start_controller()

    def reset(self, grace: float = GRACE) -> list[str]:
        """Make the cluster as new: no job, no process that a job has left, all nodes up and idle.

        What jobs there were that did not end by themselves within `grace` seconds, as `jobs` lists them.
        """
        self._heal()
        deadline = time.monotonic() + grace
        while (left := self._running()) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left:
            self.ask("scancel", "--quiet", *(line.split()[0] for line in left))
            # A step takes seconds to give up looking for an srun that has gone.
            for computer in (self.login, *self):
                computer.reset()
            deadline = time.monotonic() + STOPPING_SECONDS
            while self._running() and time.monotonic() < deadline:
                time.sleep(0.02)
        for name in self.nodes if self._running() else ():
            self.set_down(name)  # what does not end on a node that is down is taken to have ended
        self.until(lambda: not self._running(), "the end of all jobs")
        for computer in (self.login, *self):
            computer.reset()
        if set(self.node_states().values()) != {"idle"}:
            # One that is down although it answers: its job did not end, or a test has set it down.
            bad = [name for name, state in self.node_states().items() if state.startswith(("down", "drain", "drng"))]
            for name in bad:
                self.run(["scontrol", "update", f"NodeName={name}", "State=RESUME"])
            self.await_idle()
        return left

    def until(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Wait until `condition` holds; ClusterError, naming `what` should have become true, if it does not in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise ClusterError(f"{what}: has not come true within {seconds} s; {self._tell()}")
            time.sleep(0.02)

    def _running(self) -> list[str]:
        return [line for line in self.jobs() if not is_over(line.split()[1])]

    def _heal(self) -> None:
        if self._controller.poll() is not None:
            self.start_controller()
        for name, node in list(self.nodes.items()):
            if not node.alive:
                self.boot(name)
                continue
            node.heal()
            if not node.serving:
                self.start_slurmd(name)

    def _write_files(self) -> None:
        for name in ("state", "munge", LOGIN, *(facts.name for facts in self.facts)):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        key = self.directory / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        names = {LOGIN: "198.18.0.1", **{facts.name: facts.address for facts in self.facts}}
        (self.directory / "hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in names.items()),
            encoding="ascii",
        )
        (self.directory / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n", encoding="ascii")
        for number in range(max(facts.gpus for facts in self.facts)):
            with suppress(FileExistsError):
                os.mknod(self.directory / f"gpu{number}", stat.S_IFCHR | 0o666, NULL_DEVICE)
        text = slurm_conf(self.directory, f"{LOGIN}(198.18.0.1)", self.facts, **self._limits)
        (self.directory / "slurm.conf").write_text(text, encoding="utf-8")
        (self.directory / "gres.conf").write_text(gres_conf(self.directory, self.facts), encoding="utf-8")

    def _cell(self, name: str) -> Cell:
        """Make the namespaces of a computer. munged's socket is where Slurm looks for it, and reached from everywhere.

        The file system is shared, and a Unix socket knows no networks.
        """
        private = {name: Path("/etc", name) for name in ("hosts", "nsswitch.conf")}
        return Cell(
            self.directory / name,
            unshare=("--net", "--mount", "--uts", *OWN_PID_NAMESPACE),
            hostname=name,
            setup=[
                ["mount", "-t", "proc", "proc", "/proc"],
                *(
                    ["mount", "--bind", str(self.directory / file), str(place)]
                    for file, place in private.items()
                    if place.exists()
                ),
                ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"],
                ["mkdir", "/run/munge"],
                ["mount", "--bind", str(self.directory / "munge"), "/run/munge"],
            ],
        )

    def _munged_command(self) -> list[str]:
        files = {
            "key-file": self.directory / "munge.key",
            "log-file": self.directory / "munged.log",
            "seed-file": self.directory / "munged.seed",
            "pid-file": "/run/munged.pid",
            "socket": "/run/munge/munge.socket.2",
        }
        return [tool("munged"), "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items())]

    def _start_controller(self) -> subprocess.Popen[str]:
        controller = self.login.serve(
            [tool("slurmctld"), "-D", "-f", str(self.directory / "slurm.conf")],
            self.directory / "slurmctld.log",
        )
        # Whoever asks a slurmctld that does not listen yet waits for a second before he asks again.
        self.until(lambda: is_listening(controller.pid, CONTROLLER_PORT), "slurmctld listening")
        return controller

    def _tell(self) -> str:
        """What may explain a failure: states of nodes and jobs, and the last words of the daemons."""
        told = []
        for command in (["sinfo", "-N", "-o", "%N %t %E"], ["squeue", "--states=all"]):
            with suppress(subprocess.TimeoutExpired):
                told.append(self.run(command, 2.0).stdout)
        for log in sorted(self.directory.glob("**/*.log")):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            told.append("\n".join([f"{log.name} of {log.parent.name}:", *lines[-4:]]))
        return "\n".join(told)


def is_over(state: str) -> bool:
    """Whether nothing of a job in this state runs or will run."""
    return state not in {
        *("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "RESIZING", "STOPPED", "SIGNALING"),
        *("REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "STAGE_OUT", "REQUEUE_FED"),
    }


def is_listening(pid: int, port: int) -> bool:
    """Whether somebody listens on a TCP port in the network that a process is in."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == TCP_LISTEN and int(local.rpartition(":")[2], 16) == port:
                return True
    return False
