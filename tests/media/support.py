"""Short ways to the situations the media tests begin with."""

from __future__ import annotations

import asyncio

from gateway.model import new_leg_id
from gateway.sip.sdp import Codec
from gateway.sip.sdp_policy import ALL_CODECS, MediaPolicy, direct_routing_policy
from media.patchbay import Anchor, PatchBay
from tests.peers.rtp import RtpPeer

PLAIN = MediaPolicy()
TEAMS = direct_routing_policy()


def policy_of(peer: RtpPeer) -> MediaPolicy:
    return TEAMS if peer.srtp else PLAIN


async def caller(bay: PatchBay, peer: RtpPeer, **description: str) -> Anchor:
    """The peer offers and is answered."""
    anchor = await bay.answer_side(new_leg_id(), peer.description(**description), policy_of(peer))  # type: ignore[arg-type]
    peer.follow(await anchor.answer())
    return anchor


async def callee(bay: PatchBay, peer: RtpPeer, telephone_event: int | None = 101) -> Anchor:
    """We offer, the peer answers."""
    anchor, offer = await bay.offer_side(new_leg_id(), policy_of(peer), ALL_CODECS, telephone_event)
    peer.follow(offer)
    await anchor.accept_answer(peer.description())
    return anchor


async def both_hear(a: RtpPeer, b: RtpPeer, within: float = 5.0) -> None:
    """Each hears the other's tone and not its own."""
    await asyncio.gather(a.hears(b.tone, within), b.hears(a.tone, within))


def codec(name: str) -> Codec:
    return Codec(name)
