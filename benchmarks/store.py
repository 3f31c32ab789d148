"""What connections to the key-value store cost: idle ones, and busy ones beside them.

Usage: python -m benchmarks.store [--idle 2000] [--busy 100] [--seconds 5]

The server is a process of its own. Idle connections have given their proof and wait for a value, as engines do; busy
ones put a value of 200 bytes and get it back, one after the other, all from this process. CPU is the server's alone.
"""

from __future__ import annotations

import argparse
import os
import resource
import selectors
import subprocess
import sys
import time

from benchmarks.measuring import CHECKOUT, ENVIRONMENT, PYTHON, cpu_of, of_status
from disbatch.kvsstcp import KVSClient, wire

VALUE = b"x" * 200


def busy(clients: list[KVSClient], seconds: float) -> int:
    """How many values go round in so many seconds."""
    selector = selectors.DefaultSelector()
    connected = [client.detach() for client in clients]
    requests = [
        wire.encode_put(b"busy %d" % number, wire.ASTR, VALUE) + wire.encode_get(b"busy %d" % number)
        for number in range(len(connected))
    ]
    for number, connection in enumerate(connected):
        selector.register(connection, selectors.EVENT_READ, (requests[number], wire.ReplyParser()))
        connection.sendall(requests[number])
    rounds, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for key, _ in selector.select(0.1):
            request, replies = key.data
            for _ in replies.feed(os.read(key.fd, 65536)):
                rounds += 1
                os.write(key.fd, request)
    for connection in connected:
        connection.close()
    return rounds


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--idle", type=int, default=2000)
    parser.add_argument("--busy", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    command = [sys.executable, "-m", "disbatch.kvsstcp", "serve"]
    with subprocess.Popen(command, cwd=CHECKOUT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None  # noqa: S101 - asked for above
        lines = (server.stdout.readline() for _ in range(3))
        found = dict(line.strip().removeprefix("export ").split("=", 1) for line in lines)
        where, secret = (found["KVSSTCP_HOST"], int(found["KVSSTCP_PORT"])), found["KVSSTCP_SECRET"]
        memory_before, cpu_before = of_status(server.pid, "VmRSS"), cpu_of(server.pid)
        began = time.perf_counter()
        idle = [KVSClient(*where, secret=secret) for _ in range(asked.idle)]
        waiting = [client.detach() for client in idle]
        for number, connection in enumerate(waiting):
            connection.sendall(wire.encode_get(b"idle %d" % number))
        joined = time.perf_counter() - began
        time.sleep(1.0)
        memory, cpu = of_status(server.pid, "VmRSS"), cpu_of(server.pid)
        print(f"{asked.idle} idle connections, {PYTHON}")
        print(f"memory a connection, KiB            {(memory - memory_before) / asked.idle:8.1f}")
        print(f"server's CPU to let one in, µs      {(cpu - cpu_before) / asked.idle * 1e6:8.0f}")
        print(f"all in after, s                     {joined:8.2f}")
        before = cpu_of(server.pid)
        time.sleep(asked.seconds)
        print(f"server's CPU while they idle, %     {(cpu_of(server.pid) - before) / asked.seconds * 100:8.2f}")
        for beside in (True, False):
            if not beside:
                for connection in waiting:
                    connection.close()
                time.sleep(1.0)
            clients = [KVSClient(*where, secret=secret) for _ in range(asked.busy)]
            before = cpu_of(server.pid)
            rounds = busy(clients, asked.seconds)
            cost = (cpu_of(server.pid) - before) / max(1, rounds) * 1e6
            what = f"{asked.busy} busy {'beside' if beside else 'without'} the idle ones"
            print(f"{what:35} {rounds / asked.seconds:8.0f} put and get/s, {cost:.1f} µs of CPU each")
        server.terminate()


if __name__ == "__main__":
    main()
