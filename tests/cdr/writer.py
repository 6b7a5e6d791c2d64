"""A gateway that does nothing but calls, to be killed: prints the number of each call that is durable.

Usage: python -m tests.cdr.writer DIRECTORY FIRST_NUMBER
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from gateway.cdr.journal import Journal
from gateway.cdr.recorder import Recorder
from gateway.cdr.sinks import JsonLinesSink
from tests.cdr.events import simple_call


async def main(directory: Path, first: int) -> None:
    journal = Journal(reserve_bytes=0, ballast_bytes=0, segment_bytes=20_000, retry_seconds=0.05)
    await journal.open(directory / "journal")
    sink = JsonLinesSink(directory / "rows")
    recorder = Recorder(journal, directory / "outbox", [sink], save_seconds=0.02, segment_bytes=20_000)
    await recorder.start()

    async def one(number: int) -> None:
        for event in simple_call(f"{number:032x}", at=number):
            await journal.append(event)
        print(number, flush=True)

    number = first
    while True:
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(one(number))
                number += 1


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
