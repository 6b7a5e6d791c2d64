"""Free ports on the loopback address, for daemons that cannot be given port 0."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"


def free_port(*, also_udp: bool = True) -> int:
    """A port that is free for TCP and, unless told otherwise, for UDP on 127.0.0.1 right now.

    Somebody else may take it before it is used: prefer port 0 wherever the real port can be asked for.
    """
    for _ in range(200):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
            stream.bind((LOOPBACK, 0))
            port = int(stream.getsockname()[1])
            if not also_udp or _udp_is_free(port):
                return port
    raise RuntimeError("no free port on 127.0.0.1")


def free_udp_range(count: int, *, low: int = 20000, high: int = 32000) -> tuple[int, int]:
    """First and last port of `count` adjoining UDP ports, the first one even (RTP's habit).

    Below Linux's ephemeral ports, where everybody else's port 0 comes from. The start is random, so that
    test runs beside each other rarely meet; every port is tried.
    """
    for _ in range(200):
        start = random.randrange(low, high - count, 2)
        if all(_udp_is_free(port) for port in range(start, start + count)):
            return start, start + count - 1
    raise RuntimeError(f"no {count} adjoining free UDP ports on 127.0.0.1")


def _udp_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        try:
            datagram.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
