"""Journal: framing, group commit, repair, full disk, compaction."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cdr.journal import Entry, Journal
from gateway.cdr.journal_index import JournalIndex
from gateway.cdr.record_file import Flaw, Record, encode, scan
from gateway.cdr.segments import Disk
from gateway.errors import JournalError
from gateway.events import CallEnded, CallStarted, Event, LegCreated, LegHeld, Noted
from gateway.model import CallId, InteractionId, LegId, PartyType
from tests.cdr.events import HUNG_UP, START, simple_call


class FaultyDisk(Disk):
    """A disk whose writes or syncs fail on demand, and that counts its syncs."""

    def __init__(self) -> None:
        self.write_error = self.sync_error = 0
        self.partial = False
        self.syncs = 0
        self.room = 1 << 40
        self.full = False

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.partial and len(data) > 10:
            return super().write(descriptor, data[:10])
        if self.write_error:
            raise OSError(self.write_error, os.strerror(self.write_error))
        return super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        if self.sync_error:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        super().sync(descriptor)

    def free(self, directory: Path) -> int:
        return self.room


def note(call: str, number: int) -> Noted:
    return Noted(call=CallId(call), at=START + number, what="test", detail={"n": number})


def start(call: str) -> CallStarted:
    return CallStarted(
        call=CallId(call), at=START, interaction=InteractionId("g"), from_number="1", to_number="2"
    )


def end(call: str) -> CallEnded:
    return CallEnded(call=CallId(call), at=START + 9, termination=HUNG_UP)


def journal(disk: Disk | None = None, *, segment_bytes: int = 4 << 20) -> Journal:
    return Journal(
        disk=disk, segment_bytes=segment_bytes, reserve_bytes=1000, ballast_bytes=4096, retry_seconds=0.01
    )


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("journal-*.log"))


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)
    assert condition(), what


# -- framing --


@given(st.lists(st.binary(max_size=60).filter(lambda body: b"\n" not in body)))
def test_records_come_back_as_written(bodies: list[bytes]) -> None:
    data = b"".join(encode(number, body) for number, body in enumerate(bodies, 1))
    found = list(scan(data))
    assert [(r.seq, r.body) for r in found if isinstance(r, Record)] == list(enumerate(bodies, 1))
    assert len(found) == len(bodies)


@given(st.data())
def test_any_damage_costs_only_the_records_it_touches(data: st.DataObject) -> None:
    bodies = [b'{"n":%d}' % n for n in range(8)]
    lines = [encode(n + 1, body) for n, body in enumerate(bodies)]
    blob = bytearray(b"".join(lines))
    at = data.draw(st.integers(0, len(blob) - 1))
    blob[at] ^= data.draw(st.integers(1, 255))
    hit, offset = 0, 0
    for index, line in enumerate(lines):
        if offset <= at < offset + len(line):
            hit = index
        offset += len(line)
    seqs = [item.seq for item in scan(bytes(blob)) if isinstance(item, Record)]
    assert [s for s in seqs if s not in (hit + 1, hit + 2)] == [
        s for s in range(1, 9) if s not in (hit + 1, hit + 2)
    ]
    assert any(isinstance(item, Flaw) for item in scan(bytes(blob)))


@given(st.integers(0, 200))
def test_a_cut_anywhere_leaves_a_clean_prefix(cut: int) -> None:
    lines = [encode(n, b'{"n":%d}' % n) for n in range(1, 6)]
    blob = b"".join(lines)[:cut]
    found = list(scan(blob))
    records = [item for item in found if isinstance(item, Record)]
    assert [r.seq for r in records] == list(range(1, len(records) + 1))
    whole = sum(len(line) for line in lines[: len(records)])
    assert found[len(records) :] == ([Flaw(whole, len(blob) - whole, torn=True)] if len(blob) > whole else [])


# -- appending --


async def test_appended_events_come_back_in_order_after_reopening(tmp_path: Path) -> None:
    first = journal()
    await first.open(tmp_path)
    events = simple_call()
    await first.append(*events)
    assert [entry.event for entry in first.read()] == events
    await first.close()
    second = journal()
    await second.open(tmp_path)
    assert [entry.event for entry in second.read()] == events
    assert second.last_seq == len(events)
    assert [entry.seq for entry in second.read(after=3)] == list(range(4, len(events) + 1))
    await second.append(note("x", 1))
    assert [entry.seq for entry in second.read()] == list(range(1, len(events) + 2))
    await second.close()


async def test_many_appends_share_few_syncs_and_keep_their_order(tmp_path: Path) -> None:
    disk = FaultyDisk()
    book = journal(disk)
    await book.open(tmp_path)
    heard: list[Entry] = []
    book.subscribe(heard.append)
    await asyncio.gather(*(book.append(note(f"c{n % 7}", n)) for n in range(500)))
    assert disk.syncs < 20
    replayed = list(book.read())
    assert [e.event for e in replayed] == [note(f"c{n % 7}", n) for n in range(500)]
    assert heard == replayed
    await book.close()


async def test_the_loop_runs_on_while_the_disk_is_slow(tmp_path: Path) -> None:
    gate = threading.Event()

    class SlowDisk(FaultyDisk):
        def sync(self, descriptor: int) -> None:
            gate.wait(10)
            super().sync(descriptor)

    book = journal(SlowDisk())
    await book.open(tmp_path)
    waiting = asyncio.create_task(book.append(note("c", 1)))
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not waiting.done()
    gate.set()
    await waiting
    await book.close()


async def test_a_cancelled_append_harms_nobody(tmp_path: Path) -> None:
    book = journal()
    await book.open(tmp_path)
    doomed = asyncio.create_task(book.append(note("c", 1)))
    await asyncio.sleep(0)
    doomed.cancel()
    await book.append(note("c", 2))
    assert [e.event for e in book.read()] == [note("c", 1), note("c", 2)]
    await book.close()


@pytest.mark.allow_tracebacks
async def test_a_failing_listener_does_not_stop_the_journal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = journal()
    await book.open(tmp_path)

    def broken(entry: Entry) -> None:
        raise RuntimeError("listener")

    stop = book.subscribe(broken)
    await book.append(note("c", 1))
    assert "journal_listener_failed" in caplog.text
    stop()
    await book.append(note("c", 2))
    assert len(list(book.read())) == 2
    await book.close()


async def test_two_gateways_cannot_share_a_journal(tmp_path: Path) -> None:
    first, second = journal(), journal()
    await first.open(tmp_path)
    with pytest.raises(JournalError, match=f"pid {os.getpid()}"):
        await second.open(tmp_path)
    await first.close()
    await second.open(tmp_path)
    await second.close()


async def test_append_before_open_and_after_close_is_an_error(tmp_path: Path) -> None:
    book = journal()
    with pytest.raises(JournalError):
        await book.append(note("c", 1))
    assert not book.can_accept
    await book.open(tmp_path)
    assert book.can_accept
    await book.close()
    with pytest.raises(JournalError):
        await book.append(note("c", 1))


async def test_an_unusable_directory_is_a_journal_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="file"):
        await journal().open(tmp_path / "file")


# -- damage --


async def test_a_torn_tail_is_cut_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    book = journal()
    await book.open(tmp_path)
    await book.append(note("c", 1), note("c", 2))
    await book.close()
    (path,) = segments(tmp_path)
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes() + encode(3, b'{"kind":"noted"')[:-4])
    await book.open(tmp_path)
    assert path.stat().st_size == whole
    assert f"offset={whole}" in caplog.text
    assert "torn tail cut" in caplog.text
    assert [e.event for e in book.read()] == [note("c", 1), note("c", 2)]
    await book.append(note("c", 3))
    assert [e.event for e in book.read()] == [note("c", 1), note("c", 2), note("c", 3)]
    await book.close()


async def test_a_corrupt_record_is_named_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = journal()
    await book.open(tmp_path)
    await book.append(*(note("c", n) for n in range(5)))
    await book.close()
    (path,) = segments(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    offset = len(lines[0]) + len(lines[1])
    lines[2] = lines[2].replace(b"noted", b"n0ted")
    path.write_bytes(b"".join(lines))
    await book.open(tmp_path)
    assert f"offset={offset}" in caplog.text
    assert "corrupt record skipped" in caplog.text
    assert [e.event for e in book.read()] == [note("c", n) for n in (0, 1, 3, 4)]
    assert book.last_seq == 5
    await book.close()


async def test_a_record_from_a_newer_version_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = journal()
    await book.open(tmp_path)
    await book.append(note("c", 1))
    await book.close()
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes() + encode(2, b'{"kind":"leg_teleported","call":"c","at":1}'))
    await book.open(tmp_path)
    assert [e.event for e in book.read()] == [note("c", 1)]
    assert "leg_teleported" in caplog.text
    await book.close()


# -- a disk that fails --


@pytest.mark.parametrize("fault", ["write", "partial", "sync"])
async def test_a_failing_disk_refuses_new_calls_keeps_running_ones_and_recovers(
    tmp_path: Path, fault: str
) -> None:
    disk = FaultyDisk()
    book = journal(disk)
    await book.open(tmp_path)
    await book.append(start("old"), note("old", 1))
    if fault == "sync":
        disk.sync_error = errno.EIO
    else:
        disk.write_error, disk.partial = errno.EIO, fault == "partial"
        if fault == "partial":
            disk.write_error = errno.EIO
    with pytest.raises(JournalError, match="errno 5"):
        await book.append(note("old", 2))
    assert not book.healthy
    assert not book.can_accept
    with pytest.raises(JournalError):
        await book.append(start("new"), note("new", 1))
    with pytest.raises(JournalError):
        await book.append(note("new", 2), note("old", 3))
    disk.write_error = disk.sync_error = 0
    disk.partial = False
    await until(lambda: book.healthy and book.can_accept, "recovers by itself")
    await book.append(note("new", 3), note("old", 4))
    expected: list[Event] = [start("old"), *(note("old", n) for n in (1, 2, 3, 4))]
    assert [e.event for e in book.read()] == expected
    await book.close()
    await book.open(tmp_path)
    assert [e.event for e in book.read()] == expected
    await book.close()


async def test_a_dead_disk_without_backlog_is_not_called_healthy(tmp_path: Path) -> None:
    disk = FaultyDisk()
    book = journal(disk)
    await book.open(tmp_path)
    disk.write_error = errno.EIO
    with pytest.raises(JournalError):
        await book.append(start("new"))
    await asyncio.sleep(0.1)
    assert not book.healthy
    disk.write_error = 0
    await until(lambda: book.can_accept, "recovers by itself")
    assert list(book.read()) == []
    await book.close()


async def test_dev_full_is_a_full_disk(tmp_path: Path) -> None:
    class DevFull(Disk):
        full = False

        def open(self, path: Path) -> int:
            return os.open("/dev/full", os.O_WRONLY) if self.full else super().open(path)

    disk = DevFull()
    disk.full = True
    book = Journal(disk=disk, reserve_bytes=0, ballast_bytes=0, retry_seconds=0.01)
    await book.open(tmp_path)
    with pytest.raises(JournalError, match=f"errno {errno.ENOSPC}"):
        await book.append(note("c", 1))
    disk.full = False
    await until(lambda: book.healthy, "recovers by itself")
    assert [e.event for e in book.read()] == [note("c", 1)]
    await book.close()


async def test_a_real_file_size_limit_is_an_error_and_heals(tmp_path: Path) -> None:
    book = journal()
    await book.open(tmp_path)
    await book.append(note("c", 1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(JournalError, match=f"errno {errno.EFBIG}"):
            await book.append(*(note("c", n) for n in range(2, 50)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await until(lambda: book.healthy, "recovers by itself")
    await book.close()
    await book.open(tmp_path)
    assert [e.event for e in book.read()] == [note("c", n) for n in range(1, 50)]
    await book.close()


async def test_low_space_stops_new_calls_before_records(tmp_path: Path) -> None:
    disk = FaultyDisk()
    book = journal(disk)
    await book.open(tmp_path)
    assert book.can_accept
    disk.room = 900
    await until(lambda: not book.can_accept, "new calls are refused")
    assert book.healthy
    await book.append(note("c", 1))
    disk.room = 1 << 30
    await until(lambda: book.can_accept, "accepts again")
    await book.close()


async def test_the_ballast_is_given_to_running_calls_when_the_disk_fills(tmp_path: Path) -> None:
    ballast = tmp_path / "journal.reserve"

    class FullButForBallast(FaultyDisk):
        def write(self, descriptor: int, data: memoryview) -> int:
            self.write_error = errno.ENOSPC if self.full and ballast.exists() else 0
            return super().write(descriptor, data)

    disk = FullButForBallast()
    book = journal(disk)
    await book.open(tmp_path)
    assert ballast.stat().st_size == 4096
    disk.full, disk.room = True, 0
    await book.append(note("c", 1))
    assert book.healthy
    assert not book.can_accept
    assert not ballast.exists()
    disk.full, disk.room = False, 1 << 30
    await until(lambda: book.can_accept, "accepts again")
    assert ballast.stat().st_size == 4096
    await book.close()


# -- rotation and compaction --


async def test_reported_calls_are_dropped_and_open_ones_stay(tmp_path: Path) -> None:
    book = journal(segment_bytes=500)
    await book.open(tmp_path)
    await book.append(start("long"))
    for number in range(20):
        await book.append(start(f"c{number}"), note(f"c{number}", 1))
        await book.append(end(f"c{number}"))
    before = len(segments(tmp_path))
    assert before > 5
    await book.compact()
    assert len(segments(tmp_path)) == before, "nothing is reported yet"
    seq = book.last_seq
    book.release(seq)
    await book.compact()
    left = [e.event for e in book.read()]
    assert left[0] == start("long")
    assert len(left) < 6
    assert len(segments(tmp_path)) <= 2
    await book.close()
    await book.open(tmp_path)
    assert book.open_calls == {CallId("long")}
    assert book.last_seq == seq, "sequence numbers are never used twice"
    await book.append(end("long"))
    assert book.open_calls == frozenset()
    await book.close()


async def test_unreported_calls_survive_compaction(tmp_path: Path) -> None:
    book = journal(segment_bytes=300)
    await book.open(tmp_path)
    for number in range(10):
        await book.append(start(f"c{number}"), end(f"c{number}"))
    book.release(10)
    await book.compact()
    calls = {e.event.call for e in book.read()}
    assert {f"c{n}" for n in range(5, 10)} <= calls
    assert "c0" not in calls
    await book.close()


async def test_compactions_at_the_same_time_do_not_meet(tmp_path: Path) -> None:
    book = journal(segment_bytes=300)
    await book.open(tmp_path)
    await book.append(start("long"))
    for number in range(20):
        await book.append(start(f"c{number}"), end(f"c{number}"))
    book.release(book.last_seq)
    await asyncio.gather(*(book.compact() for _ in range(5)))
    assert next(e.event for e in book.read()) == start("long")
    await book.close()


async def test_the_watch_compacts_by_itself(tmp_path: Path) -> None:
    book = journal(segment_bytes=300)
    await book.open(tmp_path)
    for number in range(10):
        await book.append(start(f"c{number}"), end(f"c{number}"))
    book.release(book.last_seq)
    await until(lambda: len(segments(tmp_path)) == 1, "compacted")
    await book.close()


async def test_a_held_event_of_a_refused_call_is_not_kept(tmp_path: Path) -> None:
    disk = FaultyDisk()
    book = journal(disk)
    await book.open(tmp_path)
    disk.write_error = errno.EIO
    with pytest.raises(JournalError):
        await book.append(start("new"))
    disk.write_error = 0
    await until(lambda: book.healthy, "recovers by itself")
    await book.append(LegHeld(call=CallId("new"), at=START, leg=LegId("l"), by=PartyType.AGENT))
    assert list(book.read()) == []
    await book.close()


def test_the_end_of_a_call_is_not_dropped_before_its_beginning() -> None:
    """Found by a full disk: the next gateway took such a call for open, and gave its row another end."""
    index = JournalIndex()
    for seq, (segment, call, kind) in enumerate(
        [
            (1, "ended", CallStarted.kind),
            (1, "open", CallStarted.kind),
            (2, "ended", CallEnded.kind),
            (3, "open", LegCreated.kind),
        ],
        1,
    ):
        index.add(segment, seq, CallId(call), kind)
    index.released = 3
    assert index.droppable() == [(1, frozenset({CallId("open")}))]
    index.dropped(1, 1, {CallId("open")})
    assert index.droppable() == [(2, frozenset())]
    index.dropped(2, 0, ())
    assert index.droppable() == []
