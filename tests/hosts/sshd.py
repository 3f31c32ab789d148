"""OpenSSH for tests: keys made for them, the texts of both sides' configuration, and a server on loopback.

Nothing of the machine's own ssh is read or written: no key, no known_hosts, no ~/.ssh, no /etc/ssh, no agent.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from tests.hosts.cell import Cell, CellError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

SYSTEM_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
"""Where daemons and network tools are looked for; a plain user's PATH often leaves out the sbin folders."""

LISTENING_SECONDS = 10.0
"""How long a started sshd may take until it listens."""


def tool(name: str) -> str:
    """Return the absolute path of a program, which sshd insists on; CellError when it is not installed."""
    path = shutil.which(name, path=SYSTEM_PATH)
    if path is None:
        raise CellError(f"{name} is not installed")
    return path


def make_keys(directory: Path) -> None:
    """Make `host_key` and `client_key` (ed25519) in `directory`, with `authorized_keys` and `known_hosts` that fit."""
    for name in ("host_key", "client_key"):
        subprocess.run(
            [tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "made for a test", "-f", directory / name],
            check=True,
            stdin=subprocess.DEVNULL,
        )
    shutil.copyfile(directory / "client_key.pub", directory / "authorized_keys")
    host_key = (directory / "host_key.pub").read_text(encoding="ascii")
    (directory / "known_hosts").write_text(f"* {host_key}", encoding="ascii")


def server_config(keys: Path, directory: Path, listen: str, *, refuses: bool = False) -> str:
    """Return an sshd_config for a server that listens on `listen` (ADDRESS:PORT) and keeps its files in `directory`.

    `keys` is a directory that `make_keys` filled. With `refuses`, no key opens the door.
    """
    authorized_keys = "none" if refuses else f'"{keys}/authorized_keys"'
    return f"""\
ListenAddress {listen}
HostKey "{keys}/host_key"
AuthorizedKeysFile {authorized_keys}
PidFile "{directory}/sshd.pid"
# Keys lie below a directory for temporary files, which others may write to.
StrictModes no
# PAM would take its time, and write to the machine's own log of logins.
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
PrintLastLog no
MaxStartups 100
"""


def client_config(keys: Path, extra: str = "") -> str:
    """Return an ssh_config that knows `keys` and no others, with the `extra` lines below it.

    As plain as a user's would be: what disbatch needs beyond that (no prompts, time limits) it must ask for itself.
    """
    return f"""\
Host *
    IdentityFile "{keys}/client_key"
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile "{keys}/known_hosts"
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
{extra}"""


def server_command(directory: Path) -> list[str]:
    """Return the command of a server that stays in the foreground; its `sshd_config` is in `directory`, and its log."""
    return [tool("sshd"), "-D", "-f", str(directory / "sshd_config"), "-E", str(directory / "sshd.log")]


def private_files(directory: Path) -> list[list[str]]:
    """Return the mount commands (for a mount namespace of one's own) that let sshd run anywhere as root.

    sshd wants a directory /run/sshd, which only an installed service makes, and turns away a root whose password is
    locked. The empty /run also hides the name service caches and login records of the machine.
    """
    shadow = directory / "shadow"
    shadow.write_text("root:*:::::::\n", encoding="ascii")
    shadow.chmod(0o600)
    return [
        ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"],
        ["mkdir", "/run/sshd"],
        ["mount", "--bind", str(shadow), "/etc/shadow"],
    ]


def await_listening(directory: Path, cell: Cell) -> int:
    """Wait until the server of `server_command(directory)` listens; return its pid, as its own namespace counts.

    Raises CellError with the server's log when that does not happen. sshd writes its pid file after it began to listen.
    """
    deadline = time.monotonic() + LISTENING_SECONDS
    while time.monotonic() < deadline and cell.alive:
        try:
            text = (directory / "sshd.pid").read_text(encoding="ascii")
        except FileNotFoundError:
            text = ""
        if text.endswith("\n"):
            return int(text)
        time.sleep(0.005)
    log = directory / "sshd.log"
    told = log.read_text(encoding="utf-8", errors="replace") if log.exists() else "it left no log"
    raise CellError(f"sshd did not come up in {directory}: {told}")


class LoopbackSshd:
    """A real sshd on a free high port of 127.0.0.1, run as the user of the tests, root or not.

    `with LoopbackSshd(directory) as server:` then `ssh sshhost COMMAND`, by the `ssh` in `server.path`, logs in as the
    same user on the same machine. All that was started through it ends with the `with`, or with the test run.
    """

    alias = "sshhost"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._cell: Cell | None = None

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, with the directory of the `ssh` that knows the alias first in PATH."""
        return {**os.environ, "PATH": f"{self.directory / 'bin'}:{os.environ.get('PATH', os.defpath)}"}

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        make_keys(self.directory)
        is_root = os.geteuid() == 0
        port = _free_port()
        (self.directory / "sshd_config").write_text(
            server_config(self.directory, self.directory, f"127.0.0.1:{port}"), encoding="utf-8"
        )
        self._write_client(port)
        self._cell = Cell(
            self.directory,
            unshare=("--mount",) if is_root else (),
            setup=private_files(self.directory) if is_root else (),
            service=server_command(self.directory),
        )
        try:
            await_listening(self.directory, self._cell)
        except BaseException:
            self._cell.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._cell is not None
        self._cell.close()

    def _write_client(self, port: int) -> None:
        user = pwd.getpwuid(os.geteuid()).pw_name
        config = self.directory / "ssh_config"
        alias = f"Host {self.alias}\n    HostName 127.0.0.1\n    Port {port}\n    User {user}\n"
        config.write_text(client_config(self.directory, alias), encoding="utf-8")
        # There is no environment variable for ssh's configuration, and no mount for those who are not root.
        wrapper = self.directory / "bin" / "ssh"
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(f'#!/bin/sh\nexec "{tool("ssh")}" -F "{config}" "$@"\n', encoding="utf-8")
        wrapper.chmod(0o755)


def _free_port() -> int:
    """Return a port of loopback that was free just now. sshd cannot choose one itself; a thief in between is an error.

    It is taken from below the range of ports that the kernel hands out by itself, so no connection can sit on it.
    """
    for port in range(20000 + os.getpid() % 5000, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise CellError("no free port on loopback")
