"""`tandem restart` and kill -9 in the middle of a call: nobody hears a gap, and the call goes on."""

from __future__ import annotations

import asyncio
import base64
import functools
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.calls.house import EXPERT
from tests.peers.certs import Pki
from tests.peers.contact_center_call import CenterCall
from tests.peers.teams_call import TeamsCall
from tests.restart.plant import MUSIC_HZ, Plant, gap, open_plant
from tests.support.waiting import until

HOW: dict[str, Callable[[Plant], Awaitable[None]]] = {"restart": Plant.restart, "kill": Plant.kill_and_start}


async def talking(plant: Plant) -> tuple[CenterCall, TeamsCall]:
    agent = await plant.center.call(EXPERT)
    expert = await plant.teams.expect_invite()
    await expert.answer()
    await agent.answered()
    await both_hear(agent, expert)
    return agent, expert


async def both_hear(agent: CenterCall, expert: TeamsCall) -> None:
    await asyncio.gather(agent.rtp.hears(700), expert.rtp.hears(440))


async def refreshed(*calls: CenterCall | TeamsCall) -> None:
    """The new gateway has asked each whether it is still there."""
    for call in calls:
        asked = await call.expect("INVITE")
        number = asked.request.get("CSeq").split()[0]
        await call.until(functools.partial(_acknowledged, call, number), "ACK")


def _acknowledged(call: CenterCall | TeamsCall, number: str) -> bool:
    return any(ack.get("CSeq").split()[0] == number for ack in call.acks)


@pytest.mark.parametrize("how", HOW)
async def test_a_call_goes_on_without_a_gap_and_ends_with_one_row(pki: Pki, tmp_path: Path, how: str) -> None:
    async with open_plant(pki, tmp_path) as plant:
        agent, expert = await talking(plant)
        begun, keys = agent.rtp.now, expert.rtp.remote_key
        outside = (agent.rtp.remote, expert.rtp.remote)
        await HOW[how](plant)
        await refreshed(agent, expert)
        await both_hear(agent, expert)
        assert max(gap(agent.rtp, begun), gap(expert.rtp, begun)) < 1.0
        assert expert.rtp.undecodable == 0
        assert (agent.rtp.remote, expert.rtp.remote, expert.rtp.remote_key) == (*outside, keys)
        await agent.bye()
        await expert.expect_end()
        [row] = await plant.all_rows(1)
        assert (row["disposition"], row["sip_code"]) == ("caller_terminated", 200)
        assert row["talk_time"] >= 1
        # and new calls come in
        agent, expert = await talking(plant)
        await expert.hang_up()
        await agent.expect_end()
        await plant.all_rows(2)


@pytest.mark.parametrize("how", HOW)
async def test_hold_resume_and_bye_of_both_sides_afterwards(pki: Pki, tmp_path: Path, how: str) -> None:
    async with open_plant(pki, tmp_path) as plant:
        agent, expert = await talking(plant)
        await HOW[how](plant)
        await refreshed(agent, expert)
        assert (await expert.hold()).code == 200
        await agent.rtp.hears(MUSIC_HZ)
        assert (await expert.resume(new_key=True)).code == 200
        await both_hear(agent, expert)
        assert (await agent.hold()).code == 200
        assert (await agent.resume()).code == 200
        await both_hear(agent, expert)
        await expert.hang_up()
        await agent.expect_end()
        [row] = await plant.all_rows(1)
        assert row["disposition"] == "callee_terminated"


@pytest.mark.parametrize("how", HOW)
async def test_a_held_call_stays_held_with_its_music(pki: Pki, tmp_path: Path, how: str) -> None:
    async with open_plant(pki, tmp_path) as plant:
        agent, expert = await talking(plant)
        assert (await expert.hold()).code == 200
        await agent.rtp.hears(MUSIC_HZ)
        begun = agent.rtp.now
        await HOW[how](plant)
        await refreshed(agent, expert)
        await agent.rtp.hears(MUSIC_HZ)
        assert gap(agent.rtp, begun) < 1.0
        assert (await expert.resume()).code == 200
        await both_hear(agent, expert)
        await agent.bye()
        await expert.expect_end()
        [row] = await plant.all_rows(1)
        assert row["hold_count"] == 0, "an expert's hold is no hold of the row's"
        assert len(row["detail"]["holds"]) == 1


async def test_a_peer_that_hung_up_meanwhile_is_noticed(pki: Pki, tmp_path: Path) -> None:
    async with open_plant(pki, tmp_path) as plant:
        agent, expert = await talking(plant)
        await plant.kill()
        plant.center.ua.forget(agent.dialog.call_id)
        await plant.start()
        await expert.expect_end()
        [row] = await plant.all_rows(1)
        assert row["reason"] == "dialog_lost"


@pytest.mark.parametrize("how", HOW)
async def test_a_call_that_was_ringing_is_ended_at_both_sides(pki: Pki, tmp_path: Path, how: str) -> None:
    async with open_plant(pki, tmp_path) as plant:
        agent = await plant.center.call(EXPERT)
        expert = await plant.teams.expect_invite()
        expert.ring()
        await agent.ringing()
        await HOW[how](plant)
        assert (await agent.outcome()).code == 503
        await expert.expect_end()
        [row] = await plant.all_rows(1)
        assert (row["reason"], row["sip_code"], row["talk_time"]) == ("gateway_restart", 503, 0)


async def test_a_broken_configuration_stops_the_restart_and_not_the_gateway(pki: Pki, tmp_path: Path) -> None:
    async with open_plant(pki, tmp_path) as plant:
        agent, expert = await talking(plant)
        good = plant.config.read_text()
        plant.config.write_text(good + "nonsense = 1\n")
        plant.process.send_signal(signal.SIGHUP)
        await until(lambda: "restart_refused" in plant.log)
        await both_hear(agent, expert)
        await agent.bye()
        await expert.expect_end()


async def test_no_key_is_readable_by_others_or_in_log_and_journal(pki: Pki, tmp_path: Path) -> None:
    async with open_plant(pki, tmp_path) as plant:
        agent, expert = await talking(plant)
        await plant.kill()
        [file] = (plant.state / "calls").iterdir()
        assert file.stat().st_mode & 0o077 == 0
        assert file.parent.stat().st_mode & 0o077 == 0
        key = base64.b64encode(expert.rtp.local_key).decode()
        assert key in file.read_text()
        assert key not in plant.log
        for journal in plant.state.rglob("journal*"):
            assert not journal.is_file() or key.encode() not in journal.read_bytes()
        await plant.start()
        await agent.bye()
        await expert.expect_end()
