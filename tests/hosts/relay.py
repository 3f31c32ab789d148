"""A longer cable: passes all frames between two network devices on, each a while after it came, in their order.

A program, run by `network.py` as `python -I -S relay.py DEVICE DEVICE SECONDS` in the network namespace of both, until
it is killed. It says `ready` when frames pass. (There may be no netem in the kernel, which would do the same.)

It must not import anything beside the standard library: it runs without site-packages.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
"""From linux/if_packet.h."""

FRAME = 1 << 17
"""More bytes than a frame has that the kernel has not cut into pieces yet."""

BUFFER = 1 << 22


def end_of(device: str) -> socket.socket:
    """Return a socket for the frames that come out of a device and go into it.

    Before each stands what of it is still to be done, such as its checksum, or cutting it up; the other end gets that.
    """
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    end.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    end.bind((device, ETH_P_ALL))
    return end


def main() -> None:
    """Pass frames on for ever."""
    near, far = end_of(sys.argv[1]), end_of(sys.argv[2])
    delay = float(sys.argv[3])
    print("ready", flush=True)
    other = {near: far, far: near}
    under_way: deque[tuple[float, socket.socket, bytes]] = deque()
    while True:
        due = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for end in select.select([near, far], [], [], due)[0]:
            under_way.append((time.monotonic() + delay, other[end], end.recv(FRAME)))
        while under_way and under_way[0][0] <= time.monotonic():
            _, end, frame = under_way.popleft()
            try:
                end.send(frame)
            except OSError:
                continue  # a device that is down, or a full queue: frames may be lost, as on any cable


if __name__ == "__main__":
    main()
