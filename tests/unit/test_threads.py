"""Threads of one room's own, and a program that ends although a thread does not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

from gateway.threads import Threads


async def test_what_hangs_in_one_room_takes_no_thread_from_another() -> None:
    stuck, busy, free = threading.Event(), Threads("busy", 2), Threads("free")
    waiting = [asyncio.create_task(busy.run(stuck.wait)) for _ in range(5)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(free.run(pow, 2, 10), 10) == 1024
    busy.close(wait=False)
    stuck.set()
    assert all(await asyncio.gather(*waiting)), "what waited is done all the same"
    assert await free.run(threading.active_count) > 0
    free.close()
    assert await free.run(pow, 3, 2) == 9
    free.close()


def test_a_thread_that_never_ends_does_not_keep_the_gateway_from_ending() -> None:
    code = (
        "import threading\n"
        "from gateway import command_run\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "command_run._LAST = 0.1\n"
        "command_run._leave_behind(command_run.ExitCode.UNAVAILABLE)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 69
