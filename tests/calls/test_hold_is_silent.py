"""What a stream on hold gets: not one packet, whatever the others hear meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from media.pool import RoomPool
from tests.calls.conftest import OpenHouse
from tests.calls.house import until
from tests.calls.matrix import (
    AGENT,
    FOURTH,
    THIRD,
    TONES,
    agent_leg,
    control,
    everybody,
    leg_of,
    only_call,
    three,
)
from tests.peers.contact_center_call import Hold
from tests.peers.rtp import RtpPeer

ALL = everybody("agent", "expert", "third")
ON_THE_WAY = 0.1
"""Seconds for what was sent before the hold."""


async def gets_nothing(peer: RtpPeer, seconds: float = 0.4) -> None:
    """Not silence, which is packets, too."""
    await asyncio.sleep(ON_THE_WAY)
    before = len(peer.packets) + peer.undecodable
    await asyncio.sleep(seconds)
    assert len(peer.packets) + peer.undecodable == before, "RTP on a stream that is on hold"


@pytest.mark.parametrize("how", ["sendonly", "inactive", "zero"])
async def test_a_holder_in_a_conference_gets_no_packet(house: OpenHouse, rooms: RoomPool, how: Hold) -> None:
    """The room went on sending him its silence, to the old address even after 0.0.0.0."""
    async with house(center_extra=AGENT, rooms=rooms) as h:
        stage, agent, expert, third = await three(h)
        await expert.hold()
        await gets_nothing(expert.rtp)
        await stage.hear({"agent": {"third", "music"}, "expert": set(), "third": {"agent", "music"}})
        await agent.hold(how)
        await asyncio.gather(gets_nothing(agent.rtp), gets_nothing(expert.rtp))
        await stage.hear({"third": {"music"}})
        assert only_call(h).in_room
        await expert.resume()
        await stage.hear({"expert": {"third", "music"}, "third": {"expert", "music"}})
        await gets_nothing(agent.rtp)
        await agent.resume()
        await stage.hear(ALL)
        await control(h).hang_up(only_call(h).id)
        await asyncio.gather(agent.expect_end(), expert.expect_end(), third.expect_end())


async def test_a_holder_hears_no_tone_when_somebody_is_added(
    house: OpenHouse, rooms: RoomPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ringing and the announcement of the newcomer went to everybody; one who is held by command has a
    stream that is open."""
    monkeypatch.setattr("gateway.calls.sound.RINGBACK_EVERY", 1.1)
    async with house(center_extra=AGENT, rooms=rooms) as h:
        media = h.config.media.model_copy(update={"join_tone": True})
        h.gateway.context.config = h.config.model_copy(update={"media": media})
        stage, agent, expert, third = await three(h)
        await expert.hold()
        view = only_call(h)
        await control(h).hold_party(view.id, leg_of(view, THIRD).id, agent_leg(h))
        await stage.hear({"agent": {"music"}, "third": {"music"}})
        begun = agent.rtp.now
        await control(h).add(view.id, FOURTH)
        fourth = await h.teams.expect_invite(tone=TONES["fourth"])
        fourth.ring()
        await gets_nothing(expert.rtp, 1.3)
        assert agent.rtp.first_heard(425.0, begun) is not None
        assert third.rtp.first_heard(425.0, begun) is None
        await fourth.answer()
        stage.add("fourth", fourth)
        await stage.hear({"agent": {"fourth", "music"}, "fourth": {"agent", "music"}, "third": {"music"}})
        await until(
            lambda: agent.rtp.first_heard(880.0, begun) is not None, "announcement, after the ringing"
        )
        assert third.rtp.first_heard(880.0, begun) is None
        await gets_nothing(expert.rtp)
        await control(h).hang_up(view.id)
        await asyncio.gather(*(party.expect_end() for party in (agent, expert, third, fourth)))
