"""`python -m tests.cdr.full_disk FOLDER [BYTES]`: journal, outbox and sinks on a disk that becomes full.

BYTES: mount a file system of that size on FOLDER first, in a mount namespace of this process alone (see
`unshare`), so that nothing is left of it. Without, the disk is FOLDER's and a limit of its size is played by
counting what lies there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path

from gateway.cdr.delivery import Backoff
from gateway.cdr.journal import Journal
from gateway.cdr.recorder import Recorder
from gateway.cdr.segments import Disk
from gateway.cdr.sinks import JsonLinesSink, Sink
from gateway.cdr.sinks_sql import SqlSink
from gateway.errors import JournalError
from tests.cdr.events import simple_call
from tests.cdr.sinks import MemorySink, until

SIZE = 12 << 20
RESERVE, BALLAST = 2 << 20, 1 << 20
_BLOCK = 4096


class CountedDisk(Disk):
    """Where no file system may be mounted: as large as SIZE, in blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def free(self, directory: Path) -> int:
        used = sum(-(-path.stat().st_size // _BLOCK) for path in self._folder.rglob("*") if path.is_file())
        return max(SIZE - used * _BLOCK, 0)

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.free(self._folder) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(descriptor, data)


class Filler:
    """Somebody else's file, which takes the space."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path, self._disk = path, disk

    def leave(self, room: int) -> None:
        """Grow until so much is free."""
        with open(self._path, "ab") as file, contextlib.suppress(OSError):
            while (more := self._disk.free(self._path.parent) - room) >= _BLOCK:
                file.write(bytes(min(more // _BLOCK * _BLOCK, 1 << 20)))
                file.flush()

    def remove(self) -> None:
        self._path.unlink()


async def scenario(folder: Path, disk: Disk) -> None:
    journal = Journal(reserve_bytes=RESERVE, ballast_bytes=BALLAST, retry_seconds=0.05, disk=disk)
    memory = MemorySink()
    sinks: list[Sink] = [memory, SqlSink(f"sqlite:///{folder / 'tandem.db'}"), JsonLinesSink(folder / "rows")]
    recorder = Recorder(
        journal, folder / "outbox", sinks, backoff=Backoff(0.01, 0.1), retry_seconds=0.05, disk=disk
    )
    await journal.open(folder / "journal")
    await recorder.start()
    await until(lambda: not recorder.sinks[1].fault)
    filler = Filler(folder / "filler", disk)
    calls = [simple_call(f"{number:032x}", at=number * 1000) for number in range(20)]
    for call in calls:
        await journal.append(*call[:-3])
    assert journal.can_accept

    filler.leave(RESERVE // 2)
    await until(lambda: not journal.can_accept)
    assert journal.healthy, "new calls are refused while there is room for what runs"
    for call in calls[:8]:
        await journal.append(*call[-3:])
    await until(lambda: len(memory.rows) == 8)
    print("low: new calls refused, records written, rows delivered")

    filler.leave(0)
    ballast = folder / "journal" / "journal.reserve"
    assert ballast.exists()
    number = 8
    while ballast.exists():
        await journal.append(*calls[number][-3:])
        number += 1
        assert number < 16, "a full disk must take the space set aside before long"
    assert journal.healthy
    assert not journal.can_accept
    print(f"full: the space set aside took the end of call {number - 1}")

    filler.leave(0)
    try:
        while number < 20:
            await journal.append(*calls[number][-3:])
            number += 1
            filler.leave(0)
    except JournalError:
        number += 1
    else:
        raise AssertionError("there is no disk so full that nothing is lost on it")
    assert not journal.healthy
    for call in calls[number:]:
        with contextlib.suppress(JournalError):
            await journal.append(*call[-3:])
    try:
        await journal.append(*simple_call("f" * 32))
    except JournalError:
        pass
    else:
        raise AssertionError("a call without records must not exist")
    print("nothing left: what runs is kept in memory")

    filler.remove()
    await until(lambda: journal.healthy and journal.can_accept)
    await until(lambda: len(memory.rows) == 20 and not any(sink.behind for sink in recorder.sinks))
    await recorder.stop()
    await journal.close()
    assert sorted(memory.rows) == [f"{number:032x}" for number in range(20)]
    assert len(memory.got) == 20, "none twice"
    lines = [line for file in (folder / "rows").glob("*.jsonl") for line in file.read_text().splitlines()]
    assert len(lines) == 20
    again = Journal(reserve_bytes=RESERVE, ballast_bytes=BALLAST, disk=disk)
    await again.open(folder / "journal")
    assert not again.open_calls
    await again.close()
    print("room again: twenty rows in every sink")


def main() -> None:
    folder, *size = sys.argv[1:]
    if size:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size[0]}", "tmpfs", folder], check=True)
    asyncio.run(scenario(Path(folder), Disk() if size else CountedDisk(Path(folder))))


if __name__ == "__main__":
    main()
