"""Conferences in real room processes: who hears which tone, before, during and after everything."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.calls.audibility import Edges, Hold, Participant, audibility
from gateway.model import LegId, PartyType, new_leg_id
from media.pool import RoomFull, RoomPool
from media.room_process import RoomSettings
from tests.media.room_hall import Hall, open_hall, write_music
from tests.peers import tone
from tests.peers.rtp import RtpPeer


@pytest.fixture
def music(tmp_path: Path) -> Path:
    return write_music(tmp_path / "music.wav")


@pytest.fixture
async def hall(music: Path) -> AsyncIterator[Hall]:
    async with open_hall(RoomPool(RoomSettings(music=music), size_warm=1, check_every=0.5)) as hall:
        yield hall


@pytest.fixture
async def small(music: Path) -> AsyncIterator[Hall]:
    """Rooms as small as a wheel with one stream a call would give: ten parties need four of them."""
    pool = RoomPool(RoomSettings(music=music), size_warm=1, capacity=4, max_parties=10)
    async with open_hall(pool) as hall:
        yield hall


@pytest.mark.parametrize("count", [3, 4])
async def test_everybody_hears_exactly_the_others(hall: Hall, count: int) -> None:
    await hall.open(count)
    await hall.expect(hall.edges())


async def test_capacity_is_probed_and_more_than_a_small_conference(hall: Hall) -> None:
    assert hall.pool.capacity >= 16


async def test_ten_parties_in_one_room(hall: Hall) -> None:
    await hall.open(10)
    assert len(hall.room.processes) == 1
    await hall.expect(hall.edges())


async def test_a_full_room_with_real_leg_ids(hall: Hall) -> None:
    """The matrix of a full room is a command of more than 64 KiB, asyncio's limit of a line."""
    await hall.open(2)
    for _ in range(hall.pool.seats(0) - 2):
        await hall.room.add(new_leg_id(), 9)
    assert len(hall.room.processes) == 1
    legs = [Participant(leg, PartyType.EXTERNAL) for leg in hall.room.legs]
    edges = audibility(legs)
    assert len(legs) > 16
    await hall.room.set_edges(edges)
    await hall.expect(edges)


async def test_hold_by_one_of_three_gives_music_to_the_others(hall: Hall) -> None:
    await hall.open(3)
    holder = hall.parties[0].leg
    held = hall.edges([Hold(holder)])
    assert held.music == {hall.parties[1].leg, hall.parties[2].leg}
    await hall.room.set_edges(held)
    await hall.expect(held)
    both = hall.edges([Hold(holder), Hold(hall.parties[1].leg)])
    await hall.room.set_edges(both)
    await hall.expect(both)
    await hall.room.set_edges(hall.edges())
    await hall.expect(hall.edges())


async def test_the_holder_leaves_and_the_music_ends(hall: Hall) -> None:
    await hall.open(3)
    await hall.room.set_edges(hall.edges([Hold(hall.parties[0].leg)]))
    await hall.expect(hall.edges([Hold(hall.parties[0].leg)]))
    await hall.leave(hall.parties[0])
    await hall.room.set_edges(hall.edges())
    await hall.expect(hall.edges())


async def test_mute_and_whisper(hall: Hall) -> None:
    await hall.open(4)
    muted = hall.edges(muted=[hall.parties[2].leg])
    await hall.room.set_edges(muted)
    await hall.expect(muted)
    agent, customer, expert, coach = hall.parties
    await hall.whisper(coach, agent)
    whispering = hall.edges()
    assert whispering.heard_by(customer.leg) == {agent.leg, expert.leg}
    await hall.expect(whispering)


async def test_everybody_silent_still_gets_packets(hall: Hall) -> None:
    """A stream without any source would stop sending RTP after 0.85 s."""
    await hall.open(3)
    await hall.room.set_edges(Edges())
    await hall.expect(Edges())
    since = hall.parties[0].peer.now
    await asyncio.sleep(1.5)
    assert all(len(party.peer.heard(since)) >= 60 for party in hall.parties)


async def test_joining_and_leaving_disturbs_nobody_else(hall: Hall) -> None:
    await hall.open(3)
    await hall.expect(hall.edges())
    since = hall.parties[0].peer.now
    for _ in range(3):
        party = await hall.join()
        await hall.room.set_edges(hall.edges())
        await hall.expect(hall.edges())
        await hall.leave(party)
        await hall.room.set_edges(hall.edges())
    await hall.expect(hall.edges())
    for party in hall.parties:
        packets = party.peer.heard(since)
        steps = [(b.sequence - a.sequence) & 0xFFFF for a, b in itertools.pairwise(packets)]
        assert len({packet.ssrc for packet in packets}) == 1
        assert steps.count(1) >= 0.98 * len(steps)


async def test_a_party_is_pointed_elsewhere_and_keeps_its_port(hall: Hall) -> None:
    await hall.open(3)
    party = hall.parties[1]
    old = party.peer
    party.peer = await RtpPeer.open(tone=party.hz, rtcp_mux=False)
    port = await hall.room.add(party.leg, party.peer.port)
    await old.close()
    assert old.remote == ("127.0.0.1", port)
    party.peer.connect("127.0.0.1", port)
    await hall.expect(hall.edges())


async def test_codecs_mix_at_the_same_level(hall: Hall) -> None:
    await hall.open(1)
    await hall.join(codec="PCMU")
    await hall.join(codec="G722")
    await hall.room.set_edges(hall.edges())
    await hall.expect(hall.edges())
    since = hall.parties[0].peer.now
    await asyncio.sleep(1.0)
    heard = [loudest(a.peer.pcm(since), b.hz) for a in hall.parties for b in hall.parties if a is not b]
    assert max(heard) - min(heard) < 3.0


def loudest(pcm: tone.Pcm, hz: float) -> float:
    """Level of `hz` in the best 100 ms: a jump of the phase (jitter buffer, late packet) lowers others."""
    size = 5 * tone.PACKET
    return max(tone.level(pcm[at : at + size], hz) for at in range(0, len(pcm) - size, size))


async def test_a_beep_announces_who_joins(hall: Hall) -> None:
    await hall.open(3)
    await hall.expect(hall.edges())
    first, second, third = hall.parties
    since = first.peer.now
    await hall.room.announce([first.leg, second.leg], hz=3100)
    await asyncio.sleep(0.6)
    assert first.peer.first_heard(3100, since) is not None
    assert second.peer.first_heard(3100, since) is not None
    assert third.peer.first_heard(3100, since) is None
    await hall.expect(hall.edges())


async def test_a_beep_for_one_is_not_heard_by_those_of_the_last_beep(hall: Hall) -> None:
    await hall.open(3)
    first, second, _ = hall.parties
    await hall.room.announce([first.leg], hz=3100)
    await asyncio.sleep(0.6)
    since = first.peer.now
    await hall.room.announce([second.leg], hz=3100)
    await asyncio.sleep(0.6)
    assert first.peer.first_heard(3100, since) is None
    assert second.peer.first_heard(3100, since) is not None


async def test_statistics_count_what_was_sent(hall: Hall) -> None:
    await hall.open(3)
    await hall.expect(hall.edges())
    statistics = await hall.room.statistics()
    assert set(statistics) == {party.leg for party in hall.parties}
    assert all(s["received"] > 10 and s["sent"] > 10 and s["lost"] == 0 for s in statistics.values())


async def test_ten_in_a_cascade_hear_exactly_the_others(small: Hall) -> None:
    await small.open(10)
    assert len(small.room.processes) == 4
    await small.expect(small.edges())
    with pytest.raises(RoomFull):
        await small.room.add(LegId("eleventh"), 9)
    held = small.edges([Hold(small.parties[0].leg), Hold(small.parties[5].leg)], [small.parties[7].leg])
    await small.room.set_edges(held)
    await small.expect(held)
    alone = small.edges([Hold(None, of=small.parties[9].leg)])
    await small.room.set_edges(alone)
    await small.expect(alone)


async def test_a_whisper_in_a_cascade_when_seated_near(small: Hall) -> None:
    await small.open(5)
    agent = small.parties[4]
    coach = await small.join(near=agent.leg)
    await small.whisper(coach, agent)
    await small.expect(small.edges())


async def test_a_whisper_that_no_link_can_carry_is_overheard_by_nobody(small: Hall) -> None:
    await small.open(4)
    agent = small.parties[3]
    coach = await small.join(near=agent.leg)
    await small.whisper(coach, agent)
    edges = small.edges()
    assert (coach.leg, agent.leg) in edges.speech
    await small.expect(Edges(edges.speech - {(coach.leg, agent.leg)}, edges.music))


async def test_a_whisper_brings_two_rooms_together(small: Hall) -> None:
    """The agent's room is full: somebody who does not mind changes places with the coach."""
    await small.open(4)
    agent = small.parties[3]
    coach = await small.join(near=agent.leg)
    await small.room.set_edges(small.edges())
    await small.expect(small.edges())
    assert not small.moves
    await small.whisper(coach, agent, near=True)
    await small.expect(small.edges())
    [(ports, cause)] = small.moves
    assert (cause, coach.leg in ports, agent.leg in ports, len(ports)) == ("reseated", True, False, 2)
    await small.whisper(coach, agent, near=True)
    assert len(small.moves) == 1
    await small.leave(coach)
    await small.room.set_edges(small.edges())
    await small.expect(small.edges())


async def test_a_whisper_to_one_who_has_a_room_to_himself(small: Hall) -> None:
    """The hub of so small rooms has one seat: it is he who changes places."""
    await small.open(5)
    agent, coach = small.parties[0], small.parties[3]
    await small.whisper(coach, agent, near=True)
    await small.expect(small.edges())
    [(ports, _)] = small.moves
    assert (agent.leg in ports, coach.leg in ports) == (True, False)


async def test_an_emptied_room_of_a_cascade_ends_at_once(small: Hall) -> None:
    await small.open(2)
    assert len(small.room.processes) == 2
    await small.leave(small.parties[1])
    assert len(small.room.processes) == 1
    await small.join()
    await small.room.set_edges(small.edges())
    await small.expect(small.edges())
