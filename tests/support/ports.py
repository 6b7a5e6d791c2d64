"""Free ports on the loopback address, for daemons that cannot be given port 0.

All are below Linux's ephemeral ports (32768 and up), where everybody else's port 0 comes from, and each
pytest-xdist worker has ranges of its own: a port that was free stays so until it is used.
"""

from __future__ import annotations

import os
import random
import socket
from collections import deque

LOOPBACK = "127.0.0.1"
_WORKERS = 6
_SINGLE = (10000, 19900)
_RANGES = (20000, 32000)
_given: deque[int] = deque(maxlen=400)
"""Given out lately and perhaps not bound yet: two ports asked for in one breath must differ."""


def free_port(*, also_udp: bool = True) -> int:
    """A port that is free for TCP and, unless told otherwise, for UDP on 127.0.0.1."""
    low, high = _share(*_SINGLE)
    for _ in range(500):
        port = random.randrange(low, high)
        if port not in _given and _tcp_is_free(port) and (not also_udp or _udp_is_free(port)):
            _given.append(port)
            return port
    raise RuntimeError("no free port on 127.0.0.1")


def free_udp_range(count: int, *, low: int = _RANGES[0], high: int = _RANGES[1]) -> tuple[int, int]:
    """First and last port of `count` adjoining UDP ports, the first one even (RTP's habit)."""
    low, high = _share(low, high)
    for _ in range(500):
        start = random.randrange(low, high - count, 2)
        if all(_udp_is_free(port) for port in range(start, start + count)):
            return start, start + count - 1
    raise RuntimeError(f"no {count} adjoining free UDP ports on 127.0.0.1")


def _share(low: int, high: int) -> tuple[int, int]:
    """This worker's part; without workers everything."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if not worker:
        return low, high
    size = (high - low) // _WORKERS // 2 * 2
    first = low + int(worker.removeprefix("gw")) % _WORKERS * size
    return first, first + size


def _tcp_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            stream.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _udp_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        try:
            datagram.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
