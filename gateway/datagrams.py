"""Reading a UDP socket until it is empty.

asyncio hands over one datagram a socket and round of its loop. When a busy gateway's round takes 30 ms, that
is 30 answers of rtpengine a second, however many wait in the kernel, and every call that is being set up
waits for eight of them.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

MOST = 64
"""Datagrams a round; others have to get their turn, too."""

_LARGEST = 65536


def further(sock: socket.socket) -> Iterator[tuple[bytes, Any]]:
    """What waits in a non-blocking socket beside the datagram that asyncio has just handed over: data and the
    sender's address. Ends when the socket is empty, closed or in error, and after `MOST` at the latest.
    """
    for _ in range(MOST - 1):
        try:
            yield sock.recvfrom(_LARGEST)
        except OSError:
            return
