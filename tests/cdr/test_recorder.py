"""Recorder: from journal to sinks, each at its own pace, nothing lost, over restarts and faults."""

from __future__ import annotations

import asyncio
import copy
import errno
import itertools
import json
import os
import random
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from gateway.cdr.call_detail import CallDetail, call_detail
from gateway.cdr.call_state import closing_events
from gateway.cdr.delivery import Backoff
from gateway.cdr.journal import Journal
from gateway.cdr.outbox import Outbox, Waiting
from gateway.cdr.recorder import Recorder
from gateway.cdr.segments import Disk
from gateway.cdr.sinks import JsonLinesSink, Sink
from gateway.events import CallEnded, WorkBegan, WorkEnded
from gateway.model import CallId
from tests.cdr.events import START, simple_call
from tests.cdr.floor import Floor
from tests.cdr.sinks import MemorySink, until

QUICK = Backoff(first=0.01, most=0.05)


class Gateway:
    """Journal and recorder as the gateway has them."""

    def __init__(
        self, directory: Path, *sinks: Sink, disk: Disk | None = None, segment: int = 4 << 20
    ) -> None:
        self.directory = directory
        self.journal = Journal(reserve_bytes=0, ballast_bytes=0, retry_seconds=0.02, segment_bytes=segment)
        self.recorder = Recorder(
            self.journal,
            directory / "outbox",
            sinks,
            batch=50,
            backoff=QUICK,
            save_seconds=0.02,
            retry_seconds=0.02,
            segment_bytes=segment,
            disk=disk,
        )

    async def __aenter__(self) -> Self:
        await self.journal.open(self.directory / "journal")
        await self.recorder.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.recorder.stop(0.2)
        await self.journal.close()

    async def calls(self, *numbers: int) -> None:
        for number in numbers:
            await self.journal.append(*simple_call(f"{number:032x}", at=number * 1000))


def ids(numbers: range) -> list[str]:
    return [f"{number:032x}" for number in numbers]


def files(directory: Path, pattern: str) -> list[Path]:
    return sorted(directory.glob(pattern))


async def test_every_ended_call_reaches_every_sink_once(tmp_path: Path) -> None:
    one, two = MemorySink("one"), MemorySink("two")
    async with Gateway(tmp_path, one, two) as gateway:
        await gateway.calls(*range(30))
        await gateway.journal.append(*simple_call("f" * 32)[:-1])
        await until(lambda: len(one.got) == len(two.got) == 30)
        assert set(gateway.recorder.states) == {"f" * 32}
        assert all(not sink.behind and not sink.fault for sink in gateway.recorder.sinks)
    assert one.got == two.got == ids(range(30))
    assert one.closed
    assert list(one.rows.values())[3] == call_detail(simple_call(f"{3:032x}", at=3000))[0]


async def test_a_sink_that_is_down_delays_nobody_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    down, up = MemorySink("down"), MemorySink("up")
    down.down = True
    async with Gateway(tmp_path, down, up, segment=20_000) as gateway:
        await gateway.calls(*range(300))
        await until(lambda: len(up.got) == 300)
        assert down.got == []
        status = {sink.name: sink for sink in gateway.recorder.sinks}
        assert (status["down"].behind, status["down"].fault) == (True, "down for a test")
        assert len(files(tmp_path / "outbox", "outbox-*.log")) > 5
        down.down = False
        await until(lambda: len(down.got) == 300)
        await until(lambda: len(files(tmp_path / "outbox", "outbox-*.log")) <= 2)
        await until(lambda: len(files(tmp_path / "journal", "journal-*.log")) <= 2)
    assert down.got == up.got == ids(range(300))
    assert down.largest <= 50
    assert caplog.text.count("sink_down sink=down") == 1
    assert caplog.text.count("sink_up sink=down") == 1


async def test_rows_that_waited_in_more_than_memory_come_from_disk_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.cdr.outbox._RECENT", 20)
    sink = MemorySink()
    sink.down = True
    async with Gateway(tmp_path, sink, segment=20_000) as gateway:
        gateway.recorder._outbox._recent = type(gateway.recorder._outbox._recent)(maxlen=20)
        await gateway.calls(*range(150))
        sink.down = False
        await until(lambda: len(sink.got) == 150)
    assert sink.got == ids(range(150))


def test_rows_that_come_while_a_sink_reads_push_none_past_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sink at the edge of what is in memory skipped for ever what left it between its look and its copy."""
    monkeypatch.setattr("gateway.cdr.outbox._RECENT", 20)
    outbox = Outbox(tmp_path)
    outbox.open()

    def write(*numbers: int) -> None:
        outbox.append([Waiting(n, call_detail(simple_call(f"{n:032x}"))[0]) for n in numbers])

    class Raced(deque[Waiting]):
        """Other rows come the moment before it is copied."""

        def __iter__(self) -> Iterator[Waiting]:
            if late:
                write(late.pop())
            return super().__iter__()

    late: list[int] = []
    outbox._recent = Raced(maxlen=20)
    write(*range(1, 31))
    late = [31]
    assert [waiting.seq for waiting in outbox.after(10, 5)] == [11, 12, 13, 14, 15]
    assert not late
    outbox.close()


async def test_a_restart_repeats_nothing_that_was_delivered_and_forgets_nothing(tmp_path: Path) -> None:
    sink = MemorySink()
    async with Gateway(tmp_path, sink) as gateway:
        await gateway.calls(*range(10))
        await until(lambda: len(sink.got) == 10)
        sink.down = True
        await gateway.calls(*range(10, 20))
    late = MemorySink()
    async with Gateway(tmp_path, late):
        await until(lambda: len(late.got) == 10)
    assert late.got == ids(range(10, 20))


async def test_a_new_sink_gets_what_is_still_there(tmp_path: Path) -> None:
    async with Gateway(tmp_path, MemorySink("old")) as gateway:
        await gateway.calls(1, 2)
        await until(lambda: not any(sink.behind for sink in gateway.recorder.sinks))
    new = MemorySink("new")
    async with Gateway(tmp_path, MemorySink("old"), new):
        await until(lambda: len(new.got) == 2)


async def test_a_crash_between_journal_and_outbox_loses_no_row(tmp_path: Path) -> None:
    journal = Journal(reserve_bytes=0, ballast_bytes=0)
    await journal.open(tmp_path / "journal")
    for number in range(5):
        await journal.append(*simple_call(f"{number:032x}"))
    running = simple_call("e" * 32)[:-1]
    await journal.append(*running)
    await journal.close()
    sink = MemorySink()
    async with Gateway(tmp_path, sink) as gateway:
        await until(lambda: len(sink.got) == 5)
        (state,) = gateway.recorder.states.values()
        closing = closing_events(state, START + 60_000)
        assert isinstance(closing[-1], CallEnded)
        await gateway.journal.append(*closing)
        await until(lambda: len(sink.got) == 6)
        assert not gateway.recorder.states
    assert sink.rows["e" * 32].reason == "gateway_restart"
    assert sink.rows["e" * 32].duration == 60
    again = MemorySink()
    async with Gateway(tmp_path, again) as gateway:
        await gateway.calls(99)
        await until(lambda: again.got == [f"{99:032x}"])


@pytest.mark.parametrize("seed", range(12))
async def test_a_recorder_opened_twice_wherever_it_stopped_knows_what_it_knew(
    tmp_path: Path, seed: int
) -> None:
    """Running calls, work after calls and rows, over compaction too; and none of the rows is doubled."""
    dice, floor, sink = random.Random(seed), Floor(seed), MemorySink()
    floor.run(30)
    now, segment = dice.choice(floor.moments), dice.choice((2000, 4 << 20))
    cut = now.events
    async with Gateway(tmp_path, sink, segment=segment) as gateway:
        for first in range(0, cut, 7):
            await gateway.journal.append(*floor.journal[first : min(first + 7, cut)])
        await until(lambda: not gateway.recorder._ended and not gateway.recorder.sinks[0].behind)
        await gateway.journal.compact()
        live, worked_on = copy.deepcopy(dict(gateway.recorder.states)), gateway.recorder.worked_on
        written = list(sink.got)
    assert {call: set(state.members) for call, state in live.items()} == now.talking
    for turn in range(2):
        for path in files(tmp_path / "journal", "journal-*.log") if turn else ():
            path.write_bytes(path.read_bytes() * 2)  # as if every record had been written again
        async with Gateway(tmp_path, sink, segment=segment) as gateway:
            assert dict(gateway.recorder.states) == live
            assert gateway.recorder.worked_on == worked_on
            await until(lambda: not gateway.recorder.sinks[0].behind)
    assert sink.got == written, "nothing again"
    async with Gateway(tmp_path, sink, segment=segment) as gateway:
        await gateway.journal.append(*floor.journal[cut:])
        await until(lambda: not gateway.recorder._ended and not gateway.recorder.sinks[0].behind)
    assert sink.rows == {row.id: row for row in call_detail(floor.journal)}


async def test_a_row_no_sink_will_take_is_kept_aside_and_the_rest_go_on(tmp_path: Path) -> None:
    sink = MemorySink("picky")
    sink.refuses = {f"{3:032x}"}
    async with Gateway(tmp_path, sink) as gateway:
        await gateway.calls(*range(6))
        await until(lambda: len(sink.got) == 5)
        await until(lambda: not gateway.recorder.sinks[0].behind)
        assert gateway.recorder.sinks[0].rejected == 1
    (line,) = (tmp_path / "outbox" / "rejected-picky.jsonl").read_text().splitlines()
    assert json.loads(line)["row"]["id"] == f"{3:032x}"
    assert sink.got == [name for name in ids(range(6)) if name not in sink.refuses]


async def test_a_full_disk_under_the_outbox_keeps_rows_for_later(tmp_path: Path) -> None:
    class FullDisk(Disk):
        full = False

        def write(self, descriptor: int, data: memoryview) -> int:
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(descriptor, data)

    disk, sink = FullDisk(), MemorySink()
    async with Gateway(tmp_path, sink, disk=disk) as gateway:
        await gateway.calls(1)
        disk.full = True
        await gateway.calls(2, 3)
        await until(lambda: gateway.recorder.fault != "")
        disk.full = False
        await until(lambda: len(sink.got) == 3)
        assert gateway.recorder.fault == ""


async def test_a_sink_that_hangs_is_called_down_until_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Hanging(MemorySink):
        def __init__(self) -> None:
            super().__init__()
            self.goes_on = asyncio.Event()

        async def write(self, rows: Sequence[CallDetail]) -> None:
            await self.goes_on.wait()
            await super().write(rows)

    monkeypatch.setattr("gateway.cdr.delivery._SILENT", 0.05)
    sink = Hanging()
    async with Gateway(tmp_path, sink) as gateway:
        await gateway.calls(1)
        await until(lambda: gateway.recorder.sinks[0].fault.startswith("silent"))
        sink.goes_on.set()
        await until(lambda: len(sink.got) == 1 and not gateway.recorder.sinks[0].fault)
        assert gateway.recorder.sinks[0].failures == 0
    assert caplog.text.count("sink_down") == caplog.text.count("sink_up") == 1


@pytest.mark.allow_tracebacks
async def test_a_sink_with_a_defect_is_tried_again_like_one_that_is_down(tmp_path: Path) -> None:
    class Broken(MemorySink):
        def _check(self) -> None:
            super()._check()
            if self.tries < 4:
                raise ZeroDivisionError("defect")

    sink = Broken()
    async with Gateway(tmp_path, sink) as gateway:
        await gateway.calls(1)
        await until(lambda: len(sink.got) == 1)


async def five_rows_and_then_nothing(folder: Path) -> MemorySink:
    """A sink that has five rows of a gateway whose outbox and journal are lost."""
    sink = MemorySink()
    async with Gateway(folder, sink) as gateway:
        await gateway.calls(*range(5))
        await until(lambda: len(sink.got) == 5)
    for path in itertools.chain(files(folder / "outbox", "*.log"), files(folder / "journal", "*.log")):
        path.unlink()
    return sink


async def test_an_outbox_that_was_lost_does_not_silence_a_sink(tmp_path: Path) -> None:
    sink = await five_rows_and_then_nothing(tmp_path)
    async with Gateway(tmp_path, sink) as gateway:
        await gateway.calls(7)
        await until(lambda: len(sink.got) == 6)


@pytest.mark.parametrize("lost", ["its newest records", "all of it"])
async def test_a_damaged_journal_costs_no_later_row(tmp_path: Path, lost: str) -> None:
    """It counted on from what was left, below what outbox and sinks had passed: rows reached nobody."""
    sink = MemorySink()
    async with Gateway(tmp_path, sink) as gateway:
        await gateway.calls(*range(20))
        await until(lambda: len(sink.got) == 20)
        newest = gateway.journal.last_seq
    if lost == "all of it":
        shutil.rmtree(tmp_path / "journal")
    else:
        (path,) = files(tmp_path / "journal", "journal-*.log")
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*lines[:-60], *(b"x" * (len(line) - 1) + b"\n" for line in lines[-60:])]))
    async with Gateway(tmp_path, sink) as gateway:
        assert gateway.journal.last_seq == newest
        await gateway.calls(*range(1001, 1011))
        await until(lambda: len(sink.got) == 30)
        assert gateway.journal.last_seq > newest
    async with Gateway(tmp_path, sink) as gateway:
        await gateway.calls(2000)
        await until(lambda: len(sink.got) == 31)
    assert sink.got == [*ids(range(20)), *ids(range(1001, 1011)), *ids(range(2000, 2001))]


async def test_the_place_of_a_lost_outbox_is_forgotten_for_good(tmp_path: Path) -> None:
    """A sink that is down meanwhile must not be taken to have what the new outbox holds."""
    sink = await five_rows_and_then_nothing(tmp_path)
    sink.down = True
    async with Gateway(tmp_path, sink) as gateway:
        await gateway.calls(*range(10, 20))
        await until(lambda: gateway.recorder.sinks[0].behind)
    sink.down = False
    async with Gateway(tmp_path, sink):
        await until(lambda: len(sink.got) == 15)
    assert sink.got == [*ids(range(5)), *ids(range(10, 20))]


async def test_json_lines_hold_every_row(tmp_path: Path) -> None:
    async with Gateway(tmp_path, JsonLinesSink(tmp_path / "out")) as gateway:
        await gateway.calls(*range(20))
        await until(lambda: not any(sink.behind for sink in gateway.recorder.sinks))
        await until(lambda: gateway.recorder.sinks[0].written == 20)
    (path,) = files(tmp_path / "out", "*.jsonl")
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ids(range(20))


def test_two_sinks_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two sinks"):
        Recorder(Journal(), tmp_path, [MemorySink("x"), MemorySink("x")])


def test_backoff_grows_to_its_limit_and_never_beyond() -> None:
    backoff = Backoff(first=0.5, most=60)
    assert all(0.25 <= backoff.delay(1) <= 0.5 for _ in range(50))
    assert all(30 <= backoff.delay(n) <= 60 for n in (8, 50, 5000))


async def test_after_call_work_keeps_its_call_in_the_journal_over_compaction_and_restart(
    tmp_path: Path,
) -> None:
    sink, call = MemorySink(), f"{7:032x}"
    events = simple_call(call)
    began = events[-1].at + 5
    done = WorkEnded(call=CallId(call), login="ann", at=began + 9000, began=began)
    async with Gateway(tmp_path, sink, segment=20_000) as gateway:
        await gateway.journal.append(*events)
        await gateway.journal.append(WorkBegan(call=CallId(call), login="ann", at=began))
        for first in range(100, 500, 100):
            await gateway.calls(*range(first, first + 100))
            await gateway.journal.compact()
        await until(lambda: len(sink.rows) == 401 and not gateway.recorder.sinks[0].behind)
        assert sink.rows[call].acw_time == 0
    async with Gateway(tmp_path, sink, segment=20_000) as gateway:
        assert [(one, work.login) for one, work in gateway.recorder.worked_on] == [(call, "ann")]
        assert not gateway.journal.open_calls
        await gateway.journal.append(done)
        await until(lambda: sink.rows[call].acw_time == 9)
        kept = len(files(tmp_path / "journal", "journal-*.log"))
        for first in range(1000, 1400, 100):
            await gateway.calls(*range(first, first + 100))
            await until(lambda: not gateway.recorder.sinks[0].behind)
            await gateway.journal.compact()
        assert len(files(tmp_path / "journal", "journal-*.log")) <= kept, "done with it, it may go"
        assert call not in "".join(p.read_text() for p in files(tmp_path / "journal", "journal-*.log"))
        assert not gateway.journal.open_calls
    assert sink.got.count(call) == 2


async def test_work_on_a_call_that_nobody_remembers_makes_no_row_and_no_call(tmp_path: Path) -> None:
    sink, call = MemorySink(), CallId("9" * 32)
    async with Gateway(tmp_path, sink) as gateway:
        await gateway.journal.append(WorkBegan(call=call, at=START, login="ann"))
        await gateway.journal.append(WorkEnded(call=call, at=START + 1000, login="ann", began=START))
        await gateway.calls(1)
        await until(lambda: bool(sink.rows))
        assert not gateway.recorder.states
        assert not gateway.journal.open_calls
    assert sink.got == [f"{1:032x}"]
