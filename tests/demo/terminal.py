"""What is typed into the terminal, without ever making it non-blocking for those who share it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator


async def lines_typed() -> AsyncGenerator[str, None]:
    """Lines of standard input, stripped; ends with it. Nothing when it cannot be waited for, as /dev/null."""
    loop = asyncio.get_running_loop()
    typed: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        try:
            data = os.read(descriptor, 4096)
        except OSError:
            data = b""
        typed.put_nowait(data)
        if not data:
            loop.remove_reader(descriptor)

    try:
        descriptor = sys.stdin.fileno()
        if os.isatty(descriptor) and os.tcgetpgrp(descriptor) != os.getpgrp():
            return  # in the background: reading would stop us (SIGTTIN)
        loop.add_reader(descriptor, read)
    except (OSError, ValueError):
        return
    try:
        kept = b""
        while data := await typed.get():
            *lines, kept = (kept + data).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace").strip()
    finally:
        loop.remove_reader(descriptor)
