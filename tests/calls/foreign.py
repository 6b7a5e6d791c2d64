"""Somebody else's software in the contact center's place."""

from __future__ import annotations

import numpy as np

from gateway.sip.transport_types import Endpoint
from tests.calls.house import House
from tests.peers.contact_center import ContactCenter
from tests.peers.teams_call import TeamsCall
from tests.peers.tone import RATE, Pcm, hears

SOON = 0.2
"""Seconds from the answer in which each must hear the other."""
_WINDOW = RATE * 60 // 1000


class Foreign(ContactCenter):
    """For `house(center=...)`: the trunk's peer is `peer`; the stand-in itself stays unused."""

    def __init__(self, peer: str) -> None:
        super().__init__()
        self._peer = peer

    @property
    def peer(self) -> str:
        return self._peer


def listener(h: House, kind: str) -> tuple[str, int]:
    """Where the gateway listens for UDP, TCP or TLS."""
    found = next(e for e in map(Endpoint.parse, h.config.sip.listen) if str(e.kind) == kind)
    return found.host, found.port


def begins(pcm: Pcm, hz: float) -> float:
    """Second at which the tone begins in a recording; infinite when it never does."""
    for start in range(0, len(pcm) - _WINDOW, RATE // 100):
        if hears(pcm[start : start + _WINDOW], hz):
            return start / RATE
    return float(np.inf)


async def heard_soon(h: House, expert: TeamsCall, hz: float, answered: float) -> None:
    """Teams hears the tone within `SOON` of the moment `answered` (loop time)."""
    await expert.rtp.hears(hz)
    first = expert.rtp.first_heard(hz, since=answered)
    assert first is not None
    assert first - answered < SOON + h.stalls.lost(answered, first), f"heard after {first - answered:.3f} s"


def begins_soon(h: House, pcm: Pcm, hz: float, answered: float) -> None:
    """A recording that was begun with the answer, at loop time `answered`, has the tone within `SOON`."""
    assert begins(pcm, hz) < SOON + h.stalls.lost(answered, answered + 1)
