"""Hosts for tests: a handful of computers, made of namespaces on this one, joined by a network that can be broken.

Each has its own host name, network, processes, /run and /etc/hosts, and a real sshd on port 22; the file system below
that is shared. Needs root. Nothing outside the directory given is touched, and nothing can be left over (`cell.py`).
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.hosts import sshd
from tests.hosts.cell import ENDING_SECONDS, Cell, CellError, Process, processes_in

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import IO

    from typing_extensions import Self

    from tests.hosts.cell import Stream

EVERYTHING = ("pid", "uts", "net", "mnt")

OWN_PID_NAMESPACE = ("--pid", "--fork", "--kill-child")

RELAY = Path(__file__).with_name("relay.py")

NOBODY = "02:00:ff:ff:ff:ff"
"""Hardware's address that nothing has."""

BRIDGE_PORT_DISABLED = 0
BRIDGE_PORT_FORWARDING = 3


class Switch:
    """The bridge that the hosts' cables end in, in a network namespace of its own."""

    def __init__(self, directory: Path) -> None:
        self._cell = Cell(directory, unshare=("--net", *OWN_PID_NAMESPACE))
        self._ports = 0
        self._relays: dict[str, subprocess.Popen[str]] = {}
        self.ip("link add bridge0 type bridge", "link set bridge0 up")

    def plug(self, cell: Cell, address: str) -> str:
        """Lay a cable between the switch and a new `eth0` of `cell`; return the port's name.

        The hardware's address is made of `address`: a computer that comes back after a power failure has the one by
        which others still know it.
        """
        self._ports += 1
        port = f"port{self._ports}"
        self.ip(
            f"link add {port} type veth peer name eth0 address {_hardware(address)} netns {cell.pid}",
            f"link set {port} master bridge0 up",
        )
        return port

    def let_through(self, port: str, *, allowed: bool) -> None:
        """Let frames pass a port, or drop them silently: neither end sees its cable go."""
        state = BRIDGE_PORT_FORWARDING if allowed else BRIDGE_PORT_DISABLED
        _configure(self._cell, [sshd.tool("bridge"), "link", "set", "dev", port, "state", str(state)])

    def lengthen(self, port: str, seconds: float) -> None:
        """Let each frame take so long through a port, either way; 0 as long as it takes by itself."""
        near, far = f"near-{port}", f"far-{port}"
        relay = self._relays.pop(port, None)
        if relay is not None:
            relay.kill()
            relay.communicate()
            self.ip(f"link del {near}", f"link set {port} master bridge0")
        if seconds:
            self.ip(
                f"link add {near} type veth peer name {far}",
                *(f"link set {device} up" for device in (near, far)),
                f"link set {port} nomaster",
                f"link set {near} master bridge0",
            )
            command = [sys.executable, "-I", "-S", str(RELAY), port, far, str(seconds)]
            relay = self._cell.popen(command, namespaces=("net", "pid"), stdout=subprocess.PIPE)
            self._relays[port] = relay
            assert relay.stdout is not None
            if relay.stdout.readline() != "ready\n":
                raise CellError(f"no longer cable at {port}")

    def ip(self, *lines: str) -> None:
        """Run commands of ip(8) in the switch's network."""
        _configure(self._cell, [sshd.tool("ip"), "-batch", "-"], lines)

    def close(self) -> None:
        """Remove the switch and all its ports."""
        self._cell.close()
        for relay in self._relays.values():
            relay.communicate()


class Computer:
    """A cell on the network: a computer of its own, without any server yet. It owns the cell, and is gone with it."""

    def __init__(self, name: str, address: str, directory: Path, cell: Cell, switch: Switch) -> None:
        self.name = name
        self.address = address
        self.directory = directory
        """Its servers' configuration and logs, for a look after a failure."""
        self._cell = cell
        self._switch = switch
        self._port = switch.plug(cell, address)
        _configure(
            cell,
            [sshd.tool("ip"), "-batch", "-"],
            [
                "link set lo up",
                # No duplicate of an address is looked for, which would take a second.
                f"addr add {address}/64 dev eth0 nodad" if ":" in address else f"addr add {address}/24 dev eth0",
                "link set eth0 up",
            ],
        )
        self._servers = {cell.pid}

    @property
    def alive(self) -> bool:
        """Whether it has power."""
        return self._cell.alive

    @property
    def pid_namespace(self) -> str:
        """The name of its pid namespace, for `processes_in`, also when the host is off."""
        return self._cell.pid_namespace

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
        """Start a program on the host, leader of its own session and process group; text streams, UTF-8.

        The result is the program itself: its `pid` is the machine's, `send_signal` and `os.killpg` reach it directly.
        `env` and `cwd` are the caller's when None. Whatever still runs when the host goes is killed with it.
        """
        return self._cell.popen(
            arguments, namespaces=EVERYTHING, env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr
        )

    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        text: str = "",
        timeout: float = 30.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the host to its end, with `text` as its standard input; both outputs are captured.

        Its end counts: what it left running in the background is not waited for. After `timeout` seconds its process
        group is killed, and subprocess.TimeoutExpired raised with both outputs so far.
        """
        command = list(arguments)
        # Files, not pipes: a pipe ends only when the last background process has closed it.
        with _text_file(text) as given, _text_file() as output, _text_file() as errors:
            process = self.popen(command, env=env, cwd=cwd, stdin=given, stdout=output, stderr=errors)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                raise subprocess.TimeoutExpired(command, timeout, _content(output), _content(errors)) from None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            return subprocess.CompletedProcess(command, process.returncode, _content(output), _content(errors))

    def serve(self, arguments: Sequence[str | Path], log: Path) -> subprocess.Popen[str]:
        """Start a server, which `processes` does not list and `reset` does not end; what it says is added to `log`."""
        with log.open("a", encoding="utf-8") as told:
            process = self.popen(arguments, stdout=told, stderr=told)
        self._servers.add(process.pid)
        return process

    def dismiss(self, server: subprocess.Popen[str]) -> None:
        """Kill a server, as its crash would."""
        server.kill()
        server.wait()
        self._servers.discard(server.pid)

    def processes(self) -> list[Process]:
        """List what runs on the host, beside its keeper and its servers; nothing when it is off."""
        return [process for process in processes_in(self.pid_namespace) if process.pid not in self._servers]

    def cut(self) -> None:
        """Lose every packet from and to the host, silently: connections stay open, and nobody is told."""
        self._switch.let_through(self._port, allowed=False)

    def heal(self) -> None:
        """Undo `cut`."""
        self._switch.let_through(self._port, allowed=True)

    def misdirect(self, others: Iterable[Computer]) -> None:
        """Lose every packet from here to `others`, silently; what they send still arrives."""
        self._set_neighbours({other.address: NOBODY for other in others})

    def find_again(self, others: Iterable[Computer]) -> None:
        """Undo `misdirect`."""
        self._set_neighbours({other.address: _hardware(other.address) for other in others})

    def _set_neighbours(self, hardware: Mapping[str, str]) -> None:
        lines = [f"neigh replace {address} lladdr {at} dev eth0 nud permanent" for address, at in hardware.items()]
        _configure(self._cell, [sshd.tool("ip"), "-batch", "-"], lines)

    def lengthen(self, seconds: float) -> None:
        """Let each packet from and to the host take so many seconds more, 0 none; one on its way just then is lost."""
        self._switch.lengthen(self._port, seconds)

    def power_off(self) -> None:
        """Stop the host as a power failure does: it sends no more packet, and all its processes are gone. For good."""
        self._switch.ip(f"link set {self._port} down")  # first, so that dying processes can tell no peer
        self._cell.close()

    def reset(self) -> None:
        """Heal the cable and kill what `processes` lists, so that the next test finds the host as new."""
        if not self._cell.alive:
            raise CellError(f"host {self.name} is off; a test that powers hosts off needs a Hosts of its own")
        self.heal()
        deadline = time.monotonic() + ENDING_SECONDS
        while strays := self.processes():
            if time.monotonic() > deadline:
                raise CellError(f"processes of host {self.name} do not end: {strays}")
            for process in strays:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.002)

    def close(self) -> None:
        """End the host's processes and remove it."""
        self._cell.close()


class Host(Computer):
    """One host of a `Hosts`: made by it, powered by it, and gone with it."""

    def __init__(self, name: str, address: str, directory: Path, cell: Cell, switch: Switch) -> None:
        super().__init__(name, address, directory, cell, switch)
        inner_pid = sshd.await_listening(directory, cell)
        self._servers |= {seen.pid for seen in processes_in(self.pid_namespace) if seen.inner_pid == inner_pid}


class Hosts:
    """Hosts by name, up for the duration of a `with`. All of them reach one another by name and by ssh.

        with Hosts(directory, ["login", "h1", "h2"]) as hosts:
            assert hosts["login"].run(["ssh", "h1", "hostname"]).stdout == "h1\\n"

    `directory` is made if needed and must be on a file system that hosts share: not below /run. The sshd of a host in
    `refusing` accepts no key. A host in `debian` finds its own name at 127.0.1.1, as Debian installs it; for the others
    it has its address on the network. With `ipv6` that has addresses of IPv6 and no others. At most 250 hosts.
    """

    def __init__(
        self,
        directory: Path,
        names: Sequence[str],
        *,
        refusing: Collection[str] = (),
        debian: Collection[str] = (),
        ipv6: bool = False,
    ) -> None:
        unknown = {*refusing, *debian} - {*names}
        if unknown:
            raise ValueError(f"no such hosts: {sorted(unknown)}")
        self._directory = directory
        self._any, network = ("[::]", "fd00:198:18::") if ipv6 else ("0.0.0.0", "198.18.0.")
        self._addresses = {name: f"{network}{number}" for number, name in enumerate(names, start=1)}
        self._refusing = refusing
        self._debian = debian
        self._hosts: dict[str, Host] = {}
        self._stack = ExitStack()

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        sshd.make_keys(self._directory)
        (self._directory / "ssh_config").write_text(sshd.client_config(self._directory), encoding="utf-8")
        (self._directory / "nsswitch.conf").write_text(
            "passwd: files\ngroup: files\nshadow: files\nhosts: files\n", encoding="ascii"
        )
        with self._stack as stack:
            switch = Switch(self._directory)
            stack.callback(switch.close)
            for name, address in self._addresses.items():
                directory = self._directory / name
                cell = self._boot(name, directory)
                stack.callback(cell.close)
                self._hosts[name] = Host(name, address, directory, cell, switch)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _boot(self, name: str, directory: Path) -> Cell:
        """Start a host's keeper and sshd; its network is laid afterwards, which a sshd on any address does not mind."""
        directory.mkdir(exist_ok=True)
        config = sshd.server_config(self._directory, directory, f"{self._any}:22", refuses=name in self._refusing)
        (directory / "sshd_config").write_text(config, encoding="utf-8")
        (directory / "hosts").write_text(self._hosts_file(name), encoding="ascii")
        private = {
            "/etc/hosts": directory / "hosts",
            "/etc/nsswitch.conf": self._directory / "nsswitch.conf",
            "/etc/ssh/ssh_config": self._directory / "ssh_config",
        }
        setup = [
            ["mount", "-t", "proc", "proc", "/proc"],
            *(["mount", "--bind", str(file), place] for place, file in private.items() if Path(place).exists()),
            *sshd.private_files(directory),
        ]
        home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
        if (home / ".ssh").exists():
            setup.append(["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", str(home / ".ssh")])
        if (home / ".bashrc").exists():
            # Bash reads it for each command of sshd's. It may take long, or take a lock that a kill leaves behind.
            setup.append(["mount", "--bind", os.devnull, str(home / ".bashrc")])
        return Cell(
            directory,
            unshare=("--net", "--mount", "--uts", *OWN_PID_NAMESPACE),
            hostname=name,
            setup=setup,
            service=sshd.server_command(directory),
        )

    def _hosts_file(self, owner: str) -> str:
        """Return the /etc/hosts that host `owner` sees. A name that is not in it does not resolve."""
        own = {owner: "127.0.1.1"} if owner in self._debian else {}
        return "127.0.0.1 localhost\n" + "".join(
            f"{address} {name}\n" for name, address in {**self._addresses, **own}.items()
        )


def _hardware(address: str) -> str:
    """Hardware's address of the computer that has the given one on the network."""
    return bytes([2, 0, *ipaddress.ip_address(address).packed[-4:]]).hex(":")


def _text_file(text: str = "") -> IO[str]:
    """Return a nameless file that holds `text`, to be read from its beginning and written at its end."""
    file = tempfile.TemporaryFile("a+", encoding="utf-8", errors="replace", newline="")  # noqa: SIM115 - the caller's
    file.write(text)
    file.seek(0)
    return file


def _content(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _configure(cell: Cell, command: list[str], lines: Sequence[str] = ()) -> None:
    """Run a network tool of this machine on the network of `cell`, `lines` as its input; CellError with its words."""
    process = cell.popen(
        command, namespaces=("net",), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = process.communicate("".join(f"{line}\n" for line in lines), timeout=10.0)
    if process.returncode != 0:
        raise CellError(f"{' '.join(command)}: {output.strip()} (input: {lines})")
