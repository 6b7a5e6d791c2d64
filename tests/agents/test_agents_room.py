"""States follow calls and commands through the real journals, over restarts and broken disks."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from gateway.agents.activity import ActivityName, ActivityRow
from gateway.agents.agents import UnknownAgent, UnknownReason
from gateway.agents.events import AgentStateChanged
from gateway.agents.journal import AgentEntry, AgentJournal
from gateway.agents.report import ActivityQuery, ActivityQueryError, activity_page
from gateway.agents.roster import RosterConflict
from gateway.agents.states import EXTERNAL_BUSY, AgentState, AgentStatus
from gateway.cdr.segments import Disk
from gateway.config_models import Agent
from gateway.errors import JournalError
from gateway.events import LegEnded, LegHeld
from gateway.model import LegId, PartyType
from tests.agents.house import OVER, House, open_house
from tests.support.clock import FakeClock
from tests.support.waiting import until

READY, NOT_READY, BUSY = AgentState.READY, AgentState.NOT_READY, AgentState.BUSY
WORK, OUT = AgentState.AFTER_CALL_WORK, AgentState.LOGGED_OUT


def state(house: House, login: str = "anna") -> AgentState:
    return house.part.agents.status(login).state


async def rows(house: House, **more: str) -> list[ActivityRow]:
    assert await house.part.writer.settled()
    page = await activity_page(house.part.database, ActivityQuery(oldest_first=True, **more))  # type: ignore[arg-type]
    return list(page.rows)


async def test_a_call_makes_its_agent_busy_and_gives_the_state_back(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        agents = house.part.agents
        told: list[AgentEntry] = []
        agents.subscribe(told.append)
        await agents.set_state("anna", NOT_READY, "Lunch", by="anna")
        ringing = await house.call("anna", answered=False)
        assert agents.calls_of("anna") == {ringing}
        call = await house.call("anna")
        await until(lambda: state(house) is BUSY)
        view = agents.view("anna")
        assert set(view.calls) == {ringing, call}
        assert (view.next_state, view.next_reason) == (NOT_READY, "Lunch")
        await house.hang_up(call)
        await until(lambda: state(house) is NOT_READY)
        assert agents.status("anna").reason == "Lunch"
        assert state(house, "bert") is OUT
        changes = [e.event.status.state for e in told if isinstance(e.event, AgentStateChanged)]
        assert changes == [NOT_READY, BUSY, NOT_READY]
        found = await rows(house, agent="anna")
        assert {row.activity: row.call_id for row in found} == {
            ActivityName.LOGIN: "", ActivityName.NOT_READY: "", ActivityName.INBOUND_CALL: call
        }  # fmt: skip


async def test_after_call_work_ends_by_itself_and_belongs_to_the_call(tmp_path: Path) -> None:
    rules = {"after_call_work": 99.0, "team_after_call_work": {"Sales": 1.2}}
    async with open_house(tmp_path, agent_states=rules) as house:
        await house.part.agents.set_state("anna", READY, by="anna")
        call = await house.call("anna")
        await house.hang_up(call)
        await until(lambda: state(house) is WORK)
        await until(lambda: state(house) is READY)
        status = house.part.agents.status("anna")
        (row,) = [row for row in await rows(house) if row.activity is ActivityName.INBOUND_CALL]
        assert (row.acw_time, row.duration) == (1, 1)
        assert status.signed_in


async def test_the_agents_own_after_call_work_beats_the_teams(tmp_path: Path) -> None:
    async with open_house(tmp_path, agent_states={"team_after_call_work": {"Sales": 5.0}}) as house:
        agents = house.part.agents
        await agents.roster.put(Agent(login="carl", team="Sales", after_call_work=0))
        await agents.roster.put(Agent(login="dora", team="Other"))
        assert [agents.work_seconds(who) for who in ("anna", "carl", "dora", "nobody")] == [5, 0, 0, 0]


async def test_two_calls_at_once_end_busy_with_the_last(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.part.agents.set_state("anna", READY, by="anna")
        first, second = await house.call("anna"), await house.call("anna")
        await until(lambda: state(house) is BUSY)
        await house.hang_up(first)
        found = [r for r in await rows(house) if r.activity is ActivityName.INBOUND_CALL]
        assert [row.call_id for row in found] == [first]
        assert state(house) is BUSY
        await house.hang_up(second)
        await until(lambda: state(house) is READY)


async def test_only_configured_reasons_from_people_any_from_systems(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        agents = house.part.agents
        with pytest.raises(UnknownReason):
            await agents.set_state("anna", NOT_READY, "Golf", by="anna")
        assert state(house) is OUT
        view = await agents.set_state("anna", NOT_READY, "Golf", by="token wfm", any_reason=True)
        assert view.reason == "Golf"
        with pytest.raises(UnknownAgent):
            await agents.set_state("nobody", READY, by="anna")
        await agents.external_busy("anna", EXTERNAL_BUSY, by="teams")
        assert agents.view("anna").reason == EXTERNAL_BUSY
        assert (await agents.external_free("anna", EXTERNAL_BUSY, by="teams")).reason == "Golf"


async def test_states_and_running_calls_survive_a_restart(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.part.agents.set_state("anna", READY, by="anna")
        await house.part.agents.set_state("bert", NOT_READY, "Break", by="bert")
        call = await house.call("anna")
        await until(lambda: state(house) is BUSY)
    async with open_house(tmp_path) as house:
        assert (state(house), state(house, "bert")) == (BUSY, NOT_READY)
        await house.hang_up(call)
        await until(lambda: state(house) is READY)
        (row,) = [row for row in await rows(house) if row.activity is ActivityName.INBOUND_CALL]
        assert row.call_id == call


async def test_a_call_that_ended_while_nobody_looked_leaves_no_busy_agent(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.part.agents.set_state("anna", READY, by="anna")
        call = await house.call("anna")
        await until(lambda: state(house) is BUSY)
        await house.part.stop()
        await house.hang_up(call)
    async with open_house(tmp_path) as house:
        await until(lambda: state(house) is READY)


async def test_after_call_work_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with open_house(tmp_path, agent_states={"after_call_work": 3600.0}) as house:
        await house.part.agents.set_state("anna", READY, by="anna")
        await house.hang_up(await house.call("anna"))
        await until(lambda: state(house) is WORK)
        before = house.part.agents.status("anna")
    async with open_house(tmp_path, agent_states={"after_call_work": 3600.0}) as house:
        assert house.part.agents.status("anna") == before
        await house.part.agents.set_state("anna", READY, by="anna")
        assert state(house) is READY
        calls = [row for row in await rows(house) if row.activity is ActivityName.INBOUND_CALL]
        assert len(calls) == 1, "the call and its work are one activity, whichever process wrote it"


# ---------------------------------------------------------------------------------- the journal


def changed(login: str, at: int) -> AgentStateChanged:
    status = AgentStatus(login=login, state=READY, since=at, after=READY, signed_in=True)
    return AgentStateChanged(login=login, at=at, status=status, before=OUT, before_since=0, by="x")


class FullDisk(Disk):
    full = False

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(descriptor, data)


async def test_on_a_full_disk_a_command_is_refused_and_a_call_is_kept(tmp_path: Path) -> None:
    disk = FullDisk()
    journal, told = AgentJournal(disk=disk), list[AgentEntry]()
    await journal.open(tmp_path)
    journal.subscribe(told.append)
    disk.full = True
    with pytest.raises(JournalError, match="No space left"):
        await journal.append(changed("anna", 1))
    await journal.append(changed("bert", 2), must=False)
    assert [entry.event.login for entry in told] == ["bert"]
    assert "No space left" in journal.fault
    disk.full = False
    await journal.retry()
    assert journal.fault == ""
    await journal.close()
    again = AgentJournal()
    assert [entry.event.login for entry in await again.open(tmp_path)] == ["bert"]
    await again.close()


async def test_compaction_keeps_what_is_not_reported_and_everybodys_last_state(tmp_path: Path) -> None:
    journal = AgentJournal(segment_bytes=600)
    await journal.open(tmp_path)
    await journal.append(changed("bert", 1))
    for at in range(2, 40):
        await journal.append(changed("anna", at))
    await journal.compact(30)
    await journal.close()
    again = AgentJournal()
    seqs = [(entry.event.login, entry.seq) for entry in await again.open(tmp_path)]
    await again.close()
    assert seqs[0] == ("bert", 1)
    assert [seq for _, seq in seqs[-9:]] == list(range(31, 40))
    assert len(seqs) < 20


async def test_two_gateways_cannot_have_one_journal(tmp_path: Path) -> None:
    first, second = AgentJournal(), AgentJournal()
    await first.open(tmp_path)
    with pytest.raises(JournalError, match="held by another gateway"):
        await second.open(tmp_path)
    await first.close()


# ------------------------------------------------------------------------------------ the roster


async def test_agents_of_the_database_stand_beside_those_of_the_file(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        roster, told = house.part.roster, list[list[str]]()
        roster.changed.append(lambda agents: told.append([agent.login for agent in agents]))
        await roster.put(Agent(login="carl", numbers=("603",), teams_user="CARL@example.com"))
        assert told == [["anna", "bert", "carl"]]
        for bad in (Agent(login="anna"), Agent(login="dora", numbers=("601",))):
            with pytest.raises(RosterConflict):
                await roster.put(bad)
        with pytest.raises(RosterConflict):
            await roster.remove("anna")
        found = roster.by_teams_user("oid", "carl@EXAMPLE.com")
        assert found is not None
        assert found.login == "carl"
        assert roster.by_teams_user("") is None
    async with open_house(tmp_path) as house:
        assert house.part.roster.get("carl") is not None
        assert await house.part.roster.remove("carl")
        assert not await house.part.roster.remove("carl")
        assert house.part.roster.get("carl") is None


async def test_a_number_that_the_file_has_given_away_since_keeps_an_agent_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_house(tmp_path) as house:
        await house.part.roster.put(Agent(login="carl", numbers=("603",)))
    agents = [{"login": "anna", "numbers": ["603"]}]
    async with open_house(tmp_path, agent=agents) as house:
        assert [agent.login for agent in house.part.roster.agents] == ["anna"]
        assert "agent_left_out login=carl" in caplog.text


# -------------------------------------------------------------------------------------- the report


async def test_a_database_that_is_down_costs_no_state_and_no_row(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    database = {"state_dir": tmp_path / "state", "database": f"sqlite:///{tmp_path}/db"}
    async with open_house(tmp_path, gateway=database) as house:
        view = await house.part.agents.set_state("anna", READY, by="anna")
        assert view.state is READY
        await until(lambda: house.part.writer.fault != "")
        assert house.part.health().ok
    good = {"state_dir": tmp_path / "state"}
    async with open_house(tmp_path, gateway=good) as house:
        assert state(house) is READY
        assert [row.activity for row in await rows(house)] == [ActivityName.LOGIN]


async def test_pages_of_the_report_neither_repeat_nor_miss(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for number in range(9):
            wish = (READY, NOT_READY)[number % 2]
            await house.part.agents.set_state("anna", wish, by="anna")
            await asyncio.sleep(0.002)
        everything = [row.id for row in await rows(house)]
        seen, cursor = list[str](), ""
        while True:
            query = ActivityQuery(oldest_first=True, limit=2, cursor=cursor)
            page = await activity_page(house.part.database, query)
            seen += [row.id for row in page.rows]
            cursor = page.next
            if not cursor:
                break
        assert seen == everything
        assert len(seen) == 9
        for bad in (ActivityQuery(cursor="x"), ActivityQuery(limit=0)):
            with pytest.raises(ActivityQueryError):
                await activity_page(house.part.database, bad)


async def test_a_long_state_has_rows_before_it_ends(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_house(tmp_path, clock=clock) as house:
        clock.advance(60)
        await house.part.agents.set_state("anna", READY, by="anna")
        clock.advance(30 * 60)
        shown = [(f"{row.start_time:%H:%M}", row.activity, row.duration) for row in await rows(house)]
        assert sorted(shown) == [
            ("00:01", "LOGIN", 0), ("00:01", "READY", 14 * 60), ("00:15", "READY", 15 * 60)
        ]  # fmt: skip
        clock.advance(60)
        await house.part.agents.set_state("anna", OUT, by="anna")
        found = await rows(house)
        ready = [row.duration for row in found if row.activity is ActivityName.READY]
        assert ready == [14 * 60, 15 * 60, 2 * 60]


async def test_a_long_call_has_rows_before_it_ends(tmp_path: Path) -> None:
    clock = FakeClock()

    def now() -> int:
        return int(clock.wall().timestamp() * 1000)

    async with open_house(tmp_path, clock=clock) as house:
        await house.part.agents.set_state("anna", READY, by="anna")
        clock.advance(60)
        call = await house.call("anna", at=now())
        await until(lambda: state(house) is BUSY)
        clock.advance(10 * 60)
        leg = LegId(f"{call}-b")
        await house.journal.append(LegHeld(call=call, at=now(), leg=leg, by=PartyType.AGENT))
        clock.advance(20 * 60)

        async def shown() -> list[tuple[str, int, int]]:
            found = await rows(house, activity="INBOUND_CALL")
            return [(f"{row.start_time:%H:%M}", row.talk_time, row.hold_time) for row in found]

        assert await shown() == [("00:01", 10 * 60, 4 * 60), ("00:15", 0, 15 * 60)]
        before = {row.id for row in await rows(house)}
        clock.advance(60)
        await house.hang_up(call, at=now())
        await until(lambda: state(house) is READY)
        assert await shown() == [("00:01", 10 * 60, 4 * 60), ("00:15", 0, 15 * 60), ("00:30", 0, 2 * 60)]
        assert before <= {row.id for row in await rows(house)}, "the same rows, and one more"


# ------------------------------------------------------- after-call work in the calls' own records


async def acw_told(house: House, call: str, seconds: int) -> None:
    await until(lambda: call in house.sink.rows and house.sink.rows[call].acw_time == seconds)


async def test_after_call_work_is_in_the_row_of_the_call_once_it_is_over(tmp_path: Path) -> None:
    clock = FakeClock()
    start = int(clock.wall().timestamp() * 1000)
    async with open_house(tmp_path, clock=clock, agent_states={"after_call_work": 30.0}) as house:
        await house.part.agents.set_state("anna", READY, by="anna")
        call = await house.call("anna", at=start)
        await until(lambda: state(house) is BUSY)
        clock.advance(10)
        await house.hang_up(call, at=start + 10_000)
        await until(lambda: state(house) is WORK)
        await until(lambda: call in house.sink.rows)
        first = house.sink.rows[call]
        assert (first.acw_time, first.revision, first.duration) == (0, 1, 10)
        clock.advance(12)
        await house.part.agents.set_state("anna", READY, by="anna")
        await acw_told(house, call, 12)
        assert house.sink.rows[call].revision == 2
        assert house.sink.rows[call].duration == 10
        assert house.sink.got == [call, call]
        assert house.recorder.worked_on == []


@pytest.mark.parametrize("told", [True, False])
async def test_after_call_work_that_outlives_the_gateway_is_in_the_row_all_the_same(
    tmp_path: Path, told: bool
) -> None:
    """told: the calls' journal heard of its end from the gateway that died, or hears it from the next one."""
    clock = FakeClock()
    start = int(clock.wall().timestamp() * 1000)
    rules = {"after_call_work": 30.0}
    async with open_house(tmp_path, clock=clock, agent_states=rules) as house:
        await house.part.agents.set_state("anna", READY, by="anna")
        call = await house.call("anna", at=start)
        await until(lambda: state(house) is BUSY)
        await house.hang_up(call, at=start + 10_000)
        await until(lambda: bool(house.recorder.worked_on))
        if not told:
            await house.part.after_call.stop()
            clock.advance(10 + 7)
            await house.part.agents.set_state("anna", OUT, by="anna")
    if told:
        clock.advance(10 + 7)
    async with open_house(tmp_path, clock=clock, agent_states=rules) as house:
        if told:
            assert state(house) is WORK
            assert [c for c, _ in house.recorder.worked_on] == [call]
            await house.part.agents.set_state("anna", OUT, by="anna")
        await acw_told(house, call, 7)
        assert house.recorder.worked_on == []


async def test_who_leaves_a_call_that_goes_on_may_be_done_with_it_before_it_ends(tmp_path: Path) -> None:
    clock = FakeClock()
    start = int(clock.wall().timestamp() * 1000)
    async with open_house(tmp_path, clock=clock, agent_states={"after_call_work": 30.0}) as house:
        await house.part.agents.set_state("anna", READY, by="anna")
        call = await house.call("anna", at=start)
        await until(lambda: state(house) is BUSY)
        await house.journal.append(
            LegEnded(call=call, at=start + 5000, leg=LegId(f"{call}-b"), termination=OVER)
        )
        await until(lambda: bool(house.recorder.worked_on))
        clock.advance(5 + 4)
        await house.part.agents.set_state("anna", READY, by="anna")
        await until(lambda: not house.recorder.worked_on)
        await house.hang_up(call, at=start + 60_000)
        await acw_told(house, call, 4)
        assert house.sink.got == [call], "one row, complete at once"
