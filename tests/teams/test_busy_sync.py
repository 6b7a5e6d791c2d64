"""Busy sync: each row and guard of the two tables, and each of the fifteen notes of facts/graph.md 2.3."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from gateway.teams.client import GraphClient
from gateway.teams.errors import StoreFault
from gateway.teams.presence_graph import Presences, Shown
from gateway.teams.presence_rules import IN_A_CALL, MARKER, WIDER, Options, Ours
from gateway.teams.presence_sync import BusySync
from gateway.teams.store import Shelf, Store
from tests.peers.graph import CLIENT, GraphSim
from tests.support.clock import FakeClock
from tests.teams.acting import drive
from tests.teams.busy_stage import Stage
from tests.teams.conftest import ANN
from tests.teams.desks import TableDesks

EXTERNAL = ("not_ready", "Busy in an External System")
READY = ("ready", "")
AVAILABLE = ("Available", "Available")
Make = Callable[[Options], AbstractAsyncContextManager[Stage]]


@pytest.fixture
async def stage(sim: GraphSim, client: GraphClient, store: Store, clock: FakeClock) -> AsyncIterator[Stage]:
    async with Stage(sim, client, store, clock) as made:
        yield made


@pytest.fixture
def make(sim: GraphSim, client: GraphClient, store: Store, clock: FakeClock) -> Make:
    return lambda options: Stage(sim, client, store, clock, options)


# -- Teams to desk --


async def test_a_call_in_teams_makes_the_desk_not_ready(stage: Stage) -> None:
    await stage.teams("Busy", "InACall")
    assert stage.state == EXTERNAL


@pytest.mark.parametrize(
    "pair", [("Busy", "InAMeeting"), ("Busy", "Busy"), ("Away", "Away"), ("BusyIdle", "Busy")]
)
async def test_anything_else_does_not(stage: Stage, pair: tuple[str, str]) -> None:
    await stage.teams(*pair)
    await stage.wait(10)
    assert stage.state == READY


@pytest.mark.parametrize("left", [AVAILABLE, ("Busy", "Busy"), ("Away", "Away"), ("Offline", "Offline")])
@pytest.mark.parametrize("before", ["ready", "not_ready"])
async def test_leaving_gives_the_previous_state_back(
    stage: Stage, left: tuple[str, str], before: str
) -> None:
    await stage.desk(before)
    previous = stage.state
    await stage.teams("Busy", "InACall")
    await stage.teams(*left)
    assert stage.state == EXTERNAL
    await stage.wait(5)
    assert stage.state == previous


@pytest.mark.parametrize("chosen", ["ready", "not_ready", "log_out"])
async def test_leaving_changes_nothing_when_the_desk_is_otherwise(stage: Stage, chosen: str) -> None:
    await stage.teams("Busy", "InACall")
    await stage.desk(chosen)
    now = stage.state
    await stage.teams(*AVAILABLE)
    await stage.wait(10)
    assert stage.state == now


async def test_nobody_at_the_desk_is_made_not_ready(stage: Stage) -> None:
    await stage.desk("log_out")
    await stage.teams("Busy", "InACall")
    assert stage.state == ("logged_out", "")
    await stage.desk("ready")
    assert stage.state == EXTERNAL


# -- desk to Teams --


async def test_a_busy_desk_is_in_a_call_in_teams(stage: Stage) -> None:
    await stage.desk("take_call")
    assert stage.shown == ("Busy", "InACall")
    assert stage.state == ("busy", "")


@pytest.mark.parametrize(
    "pair",
    [("Away", "Away"), ("Busy", "Busy"), ("DoNotDisturb", "Presenting"), ("AvailableIdle", "Inactive"),
     ("Offline", "Offline"), ("BeRightBack", "BeRightBack"), ("Busy", "InACall")],
)  # fmt: skip
async def test_only_if_available_note_8(stage: Stage, pair: tuple[str, str]) -> None:
    await stage.desk("not_ready")
    await stage.teams(*pair)
    await stage.desk("take_call")
    assert stage.writes() == 0
    assert stage.ours is None
    await stage.desk("end_call")
    assert stage.writes() == 0


async def test_out_of_office_is_available_note_8(stage: Stage) -> None:
    await stage.teams("Available", "OutOfOffice")
    await stage.desk("take_call")
    assert stage.shown == ("Busy", "InACall")


async def test_presence_is_read_right_before_writing_note_8(stage: Stage) -> None:
    stage.lose = True
    await stage.teams("DoNotDisturb", "DoNotDisturb")
    reads = stage.sim.count("GET", "presence")
    await stage.desk("take_call")
    assert stage.sim.count("GET", "presence") == reads + 1
    assert stage.writes() == 0


@pytest.mark.parametrize("after", ["ready", "not_ready"])
async def test_leaving_busy_sets_available(stage: Stage, after: str) -> None:
    await stage.desk("take_call", after)
    assert stage.shown == ("Busy", "InACall")
    await stage.desk("end_call")
    assert stage.state[0] == after
    assert stage.ours == AVAILABLE
    assert stage.shown == AVAILABLE


async def test_after_call_work_is_neither_ready_nor_not_ready(stage: Stage) -> None:
    await stage.desk("take_call")
    stage.desks.end_call("ann", work_ms=30_000)
    await stage.settle()
    assert stage.state[0] == "after_call_work"
    assert stage.shown == ("Busy", "InACall")
    await stage.desk("ready")
    assert stage.shown == AVAILABLE


async def test_log_out_sets_available(stage: Stage) -> None:
    await stage.desk("take_call", "log_out", "end_call")
    assert stage.state[0] == "logged_out"
    assert stage.shown == AVAILABLE
    assert stage.ours is None


async def test_what_the_sync_did_not_set_stays(stage: Stage) -> None:
    await stage.desk("not_ready")
    await stage.teams("Busy", "InACall")
    await stage.desk("take_call", "end_call")
    assert stage.shown == ("Busy", "InACall")
    assert stage.writes() == 0


# -- the fifteen notes --


@pytest.mark.parametrize("delay", [0.0, 1.0, 10.0, 60.0])
async def test_note_1_our_own_echo_makes_no_loop(stage: Stage, delay: float) -> None:
    stage.delay = delay
    await stage.desk("take_call")
    await stage.wait(120)
    assert stage.state == ("busy", "")
    await stage.desk("end_call")
    await stage.wait(300)
    assert stage.state == READY
    assert stage.sync.counts.get("call", 0) == 0


@pytest.mark.parametrize("delay", [5.0, 30.0, 60.0])
@pytest.mark.parametrize("numbered", [True, False])
async def test_note_2_a_late_echo_after_the_release_is_not_believed(
    stage: Stage, delay: float, numbered: bool
) -> None:
    stage.delay, stage.numbered = delay, numbered
    stage.sim.number_presence = numbered
    await stage.desk("take_call")
    await stage.wait(1)
    await stage.desk("end_call")
    await stage.wait(200)
    assert stage.state == READY
    assert stage.sync.counts.get("call", 0) == 0


async def test_note_2_a_real_call_in_quarantine_is_believed_when_it_stays(stage: Stage) -> None:
    await stage.desk("take_call", "end_call")
    await stage.wait(10)
    await stage.teams("Busy", "InACall")
    assert stage.state == READY
    await stage.wait(5)
    assert stage.state == EXTERNAL


async def test_note_3_a_real_call_during_ours_is_found_afterwards(stage: Stage) -> None:
    await stage.desk("take_call")
    await stage.teams("Busy", "InACall")
    assert stage.state == ("busy", "")
    stage.lose = True
    await stage.desk("end_call")
    assert stage.state == READY
    await stage.wait(76)
    assert stage.state == EXTERNAL
    stage.lose = False
    await stage.teams(*AVAILABLE)
    await stage.wait(5)
    assert stage.state == READY


async def test_note_4_with_the_marker_a_real_call_is_told_apart(make: Make) -> None:
    async with make(Options(written=MARKER)) as stage:
        await stage.desk("take_call")
        assert stage.shown == MARKER
        await stage.teams("Busy", "InACall")
        await stage.desk("end_call")
        assert stage.state == EXTERNAL
    async with make(Options(written=MARKER)) as stage:
        await stage.desk("take_call")
        await stage.teams("Busy", "InACall")
        await stage.teams(*AVAILABLE)
        await stage.wait(5)
        await stage.desk("end_call")
        assert stage.state == READY


async def test_note_5_duplicates_and_disorder(stage: Stage) -> None:
    await stage.teams("Busy", "InACall")
    newest = stage.sim.presence.sequence(ANN)
    stage.sync.notified(ANN, Shown(AVAILABLE, newest - 1))
    stage.sync.notified(ANN, Shown(IN_A_CALL, newest))
    await stage.settle()
    await stage.wait(10)
    assert stage.state == EXTERNAL
    assert stage.sync.counts["duplicate_or_late"] == 2


async def test_note_5_without_numbers_a_notification_is_only_a_hint(stage: Stage) -> None:
    stage.sim.number_presence = False
    stage.sync.notified(ANN, Shown(IN_A_CALL, None))
    await stage.settle()
    assert stage.state == READY
    stage.lose = True
    stage.sim.presence.client(ANN, *IN_A_CALL)
    stage.sync.notified(ANN, Shown(IN_A_CALL, None))
    await stage.settle()
    assert stage.state == EXTERNAL
    reads = stage.sim.count("GET", "presence")
    stage.sync.notified(ANN, Shown(IN_A_CALL, None))
    await stage.settle()
    assert stage.sim.count("GET", "presence") == reads


async def test_note_5_one_agents_events_go_one_after_the_other(stage: Stage) -> None:
    for _ in range(5):
        stage.desks.take_call("ann")
        stage.desks.end_call("ann")
    await stage.settle()
    assert stage.state == READY
    assert stage.shown == AVAILABLE
    assert stage.ours != ("Busy", "InACall")


async def test_note_6_flapping_does_not_flap_the_desk(stage: Stage) -> None:
    await stage.teams("Busy", "InACall")
    for _ in range(3):
        await stage.teams("Busy", "InAMeeting")
        await stage.wait(2)
        await stage.teams("Busy", "InACall")
        await stage.wait(2)
    assert stage.state == EXTERNAL
    assert stage.sync.counts["call"] == 1


async def test_note_6_sharing_the_screen_literally_leaves_unless_the_wider_set_is_chosen(make: Make) -> None:
    async with make(Options()) as stage:
        await stage.teams("Busy", "InACall")
        await stage.teams("DoNotDisturb", "Presenting")
        await stage.wait(5)
        assert stage.state == READY
        await stage.teams(*AVAILABLE)
    async with make(Options(stay=WIDER)) as stage:
        await stage.teams("Busy", "InACall")
        await stage.teams("DoNotDisturb", "Presenting")
        await stage.wait(5)
        assert stage.state == EXTERNAL
        await stage.teams(*AVAILABLE)
        await stage.wait(5)
        assert stage.state == READY
    async with make(Options(enter=WIDER, stay=WIDER)) as stage:
        await stage.teams("Busy", "InAMeeting")
        assert stage.state == EXTERNAL


async def test_note_9_our_session_is_kept_alive_while_busy_and_no_longer(stage: Stage) -> None:
    await stage.desk("take_call")
    await stage.wait(3600)
    assert stage.shown == ("Busy", "InACall")
    assert stage.writes() == 1 + 12
    await stage.desk("end_call")
    writes = stage.writes()
    await stage.wait(3600)
    assert stage.writes() == writes


async def test_note_9_what_lapsed_is_not_set_back(stage: Stage) -> None:
    await stage.desk("take_call")
    stage.sim.trouble("setPresence", 403, count=-1)
    await stage.wait(901)
    assert stage.memory.ours is Ours.NONE
    assert stage.shown == AVAILABLE
    stage.sim.troubles.clear()
    writes = stage.writes()
    await stage.desk("end_call")
    assert stage.writes() == writes


async def test_note_10_available_does_not_cover_a_pause_for_long(stage: Stage) -> None:
    await stage.desk("take_call")
    await stage.teams("Away", "Away")
    await stage.desk("end_call")
    assert stage.shown == AVAILABLE
    await stage.wait(61)
    assert stage.shown == ("Away", "Away")
    assert stage.ours is None


async def test_note_11_a_status_chosen_by_hand_hides_ours_and_is_left_alone(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stage.sim.presence.prefer(ANN, AVAILABLE)
    await stage.desk("take_call")
    assert stage.shown == AVAILABLE
    assert stage.memory.ours is Ours.SET
    assert stage.writes() == 1
    await stage.wait(100)
    assert "event=presence_hidden login=ann" in caplog.text
    assert stage.writes() == 1
    await stage.desk("end_call")
    assert stage.writes() == 2
    assert stage.sim.count("", "PreferredPresence") == 0


async def test_note_12_the_previous_state_is_kept_on_the_first_entry_only(stage: Stage) -> None:
    await stage.teams("Busy", "InACall")
    await stage.desk("ready")
    stage.sim.presence._changed(ANN)
    await stage.settle()
    assert stage.state == READY
    await stage.teams(*AVAILABLE)
    await stage.wait(5)
    await stage.teams("Busy", "InACall")
    assert stage.state == EXTERNAL


@pytest.mark.parametrize("crash", [True, False])
async def test_note_12_after_a_restart_our_session_is_released(stage: Stage, crash: bool) -> None:
    await stage.desk("take_call")
    await stage.restart(crash=crash)
    assert (stage.ours is None) is not crash
    stage.desks.end_call("ann")
    await stage.start()
    await stage.wait(80)
    assert stage.ours is None
    assert stage.state == READY
    assert await stage.store.all(Shelf.SYNC) == {}


@pytest.mark.parametrize("crash", [True, False])
async def test_note_12_after_a_restart_in_a_call_it_goes_on(stage: Stage, crash: bool) -> None:
    await stage.desk("take_call")
    await stage.restart(crash=crash)
    await stage.start()
    assert stage.ours == ("Busy", "InACall")
    await stage.desk("end_call")
    assert stage.shown == AVAILABLE
    assert stage.state == READY


async def test_note_12_after_a_long_outage_nothing_of_ours_is_left(stage: Stage) -> None:
    await stage.desk("take_call")
    await stage.restart(crash=True)
    stage.desks.end_call("ann")
    await stage.wait(1000)
    assert stage.ours is None
    writes = stage.writes()
    await stage.start()
    assert stage.writes() == writes


async def test_note_12_a_call_in_teams_that_ended_during_a_restart(stage: Stage) -> None:
    await stage.teams("Busy", "InACall")
    await stage.restart()
    stage.lose = True
    await stage.teams(*AVAILABLE)
    await stage.start()
    await stage.wait(5)
    assert stage.state == READY


async def test_note_12_a_restart_while_graph_is_silent_ends_no_call(stage: Stage) -> None:
    """ "Unknown" counted as "call over": the agent was Ready in the middle of a call in Teams."""
    await stage.teams("Busy", "InACall")
    await stage.restart()
    stage.sim.trouble("getPresencesByUserId", 403, count=-1)
    await stage.start()
    await stage.wait(20)
    assert stage.state == EXTERNAL
    stage.sim.troubles.clear()
    stage.lose = True
    await stage.teams(*AVAILABLE)
    await stage.wait(700)
    assert stage.state == READY


async def test_who_gives_teams_up_in_a_call_there_is_not_left_not_ready(stage: Stage) -> None:
    await stage.teams("Busy", "InACall")
    assert stage.state == EXTERNAL
    await stage.sync.disable("ann")
    assert stage.state == READY


async def test_a_read_that_failed_is_made_up_for(stage: Stage) -> None:
    """A notification without a number is only a hint; the read it asks for met Graph's bad minute."""
    stage.numbered = False
    stage.sim.trouble(f"/users/{ANN}/presence", 403, count=-1)
    await stage.teams("Busy", "InACall")
    assert stage.state == READY
    stage.sim.troubles.clear()
    await stage.wait(45)
    assert stage.state == EXTERNAL


async def test_ready_by_hand_while_a_read_makes_not_ready_is_undone_after_the_call(stage: Stage) -> None:
    """The click was judged after the sync had acted: its grip was gone, and the agent Not Ready for ever."""
    await stage.desk("log_out")
    await stage.teams("Busy", "InACall")
    presences = stage.sync._presences
    read = presences.read

    async def gated(oid: str) -> Shown:
        found = await read(oid)
        stage.desks.ready("ann")
        return found

    presences.read = gated  # type: ignore[method-assign]
    stage.desks.not_ready("ann")
    await stage.settle()
    presences.read = read  # type: ignore[method-assign]
    assert stage.state == EXTERNAL
    await stage.teams(*AVAILABLE)
    await stage.wait(10)
    assert stage.state == READY


async def test_note_12_what_cannot_be_remembered_is_not_written(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise StoreFault("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(stage.store, "put", fails)
        await stage.desk("take_call")
        await stage.wait(31)
        assert stage.writes() == 0
        assert stage.memory.ours is Ours.NONE
        assert "store" in stage.sync.fault
    await stage.wait(31)
    assert stage.shown == ("Busy", "InACall")
    assert (await stage.store.all(Shelf.SYNC))["ann"]["ours"] == "set"
    await stage.desk("end_call")
    assert stage.ours == AVAILABLE


async def test_note_12_a_state_that_could_not_be_remembered_is_remembered_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise StoreFault("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(stage.store, "put", fails)
        await stage.teams("Busy", "InACall")
        assert stage.state == EXTERNAL
    assert await stage.store.all(Shelf.SYNC) == {}
    await stage.wait(31)
    assert (await stage.store.all(Shelf.SYNC))["ann"]["grip"] == "held"


async def test_note_12_a_contact_that_ends_while_a_restart_reads_is_no_call_in_teams(stage: Stage) -> None:
    await stage.desk("take_call")
    await stage.restart(crash=True)
    presences = stage.sync._presences
    read = presences.read_many

    async def slow(oids: Sequence[str]) -> dict[str, Shown]:
        found = await read(oids)
        assert found[ANN].pair == IN_A_CALL
        stage.desks.end_call("ann")
        await stage.settle()
        return found

    presences.read_many = slow  # type: ignore[method-assign]
    await stage.start()
    assert stage.state == READY
    await stage.wait(200)
    assert stage.state == READY
    assert stage.ours is None
    assert stage.sync.counts.get("call", 0) == 0


async def test_note_13_a_call_while_the_agent_is_on_a_contact_waits(stage: Stage) -> None:
    await stage.desk("not_ready")
    await stage.teams("Away", "Away")
    await stage.desk("take_call")
    await stage.teams("Busy", "InACall")
    assert stage.state == ("busy", "")
    await stage.desk("end_call")
    assert stage.state == EXTERNAL
    await stage.teams(*AVAILABLE)
    await stage.wait(5)
    assert stage.state == ("not_ready", "Lunch")


async def test_note_13_unless_it_is_over_by_then(stage: Stage) -> None:
    await stage.teams("Away", "Away")
    await stage.desk("take_call")
    await stage.teams("Busy", "InACall")
    await stage.teams(*AVAILABLE)
    await stage.wait(5)
    await stage.desk("end_call")
    assert stage.state == READY


async def test_a_contact_in_the_middle_of_a_call_in_teams_gives_back_afterwards(stage: Stage) -> None:
    await stage.teams("Busy", "InACall")
    await stage.desk("take_call")
    await stage.teams(*AVAILABLE)
    await stage.wait(5)
    assert stage.state == ("busy", "")
    await stage.desk("end_call")
    assert stage.state == READY


async def test_note_14_not_ready_is_not_busy(stage: Stage) -> None:
    await stage.teams("Busy", "InACall")
    await stage.wait(100)
    assert stage.writes() == 0


async def test_note_15_release_needs_no_token_of_the_agent(stage: Stage) -> None:
    await stage.desk("take_call", "log_out", "end_call")
    presences = [one for one in stage.sim.seen if "resence" in one.path]
    assert presences
    assert all(one.app_only for one in presences)


async def test_graph_down_at_the_wrong_moment_harms_nobody(stage: Stage) -> None:
    stage.sim.trouble("resence", 403, count=-1)
    await stage.desk("take_call", "end_call")
    assert stage.state == READY
    stage.sim.troubles.clear()
    await stage.desk("take_call")
    assert stage.shown == ("Busy", "InACall")


async def test_a_thousand_agents_come_back_with_one_bulk_read(
    sim: GraphSim, client: GraphClient, store: Store, clock: FakeClock
) -> None:
    users = {f"agent{n}": f"bbbb0000-0000-0000-0000-{n:012d}" for n in range(1000)}
    desks = TableDesks(*users)
    for n, (login, oid) in enumerate(users.items()):
        sim.add_user(oid, f"Agent Number{n}")
        sim.presence.client(oid, *(("Busy", "InACall") if n % 10 == 0 else AVAILABLE))
        desks.ready(login)
    sync = BusySync(desks, Presences(client, CLIENT), store, clock)
    await drive(clock, sync.start(users))

    async def idle() -> None:
        from tests.support.waiting import until

        await until(lambda: sync.idle, 30)

    await idle()
    assert sim.count("", "resence") == math.ceil(1000 / 650)
    assert sum(desks.state(login) == tuple(EXTERNAL) for login in users) == 100
    for login in list(users)[1:300:2]:
        desks.take_call(login)
    await drive(clock, idle())
    moments = [one.at for one in sim.seen if "resence" in one.path]
    assert max(sum(at <= one < at + 30 for one in moments) for at in moments) <= 1500
    assert client.counters.throttled == 0
    assert sum(sim.presence.shown(oid) == IN_A_CALL for oid in users.values()) == 250
    await drive(clock, sync.stop())
