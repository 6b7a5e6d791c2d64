"""Random call histories for property tests: what may happen to calls, in any order that can occur."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from gateway.events import (
    CallEnded,
    CallStarted,
    Event,
    LegAnswered,
    LegAttemptFailed,
    LegCreated,
    LegDialled,
    LegEnded,
    LegHeld,
    LegJoined,
    LegLeft,
    LegMedia,
    LegMuted,
    LegResumed,
    LegRinging,
    LegTransferred,
    MediaMoved,
    Noted,
)
from gateway.model import CallId, InteractionId, LegId, PartyType, ReleasedBy, Result, Role, Termination
from tests.cdr.events import START

Step = tuple[int, int, int]
"""Milliseconds since the step before, what happens, and to whom with which choice."""

STEPS = st.tuples(
    st.one_of(st.integers(0, 3), st.integers(0, 3000), st.integers(0, 4_000_000)),
    st.integers(0, 22),
    st.integers(0, 10_000),
)


def _termination(pick: int) -> Termination:
    return Termination(
        list(Result)[pick % len(Result)],
        ("hangup", "ring_timeout", "peer_busy")[pick % 3],
        (200, 408, 486, 487, 503)[pick % 5],
        16,
        list(ReleasedBy)[pick % len(ReleasedBy)],
    )


def history(call: str, steps: Sequence[Step], *, ended: bool = True) -> list[Event]:
    """One call with up to five legs; the order inside each leg's life is right, everything else is free."""
    cid, now = CallId(call), START
    giid = InteractionId("11111111-2222-4333-8444-555555555555")
    events: list[Event] = [
        CallStarted(call=cid, at=now, interaction=giid, from_number="+15550100", to_number="+15550199")
    ]
    alive: list[LegId] = []
    legs = 0
    for gap, what, pick in steps:
        now += gap
        if not alive or (what > 19 and legs < 5):
            leg = LegId(f"leg{legs}")
            role = Role.CALLER if not legs else (Role.CALLEE, Role.PARTICIPANT)[pick % 2]
            party = list(PartyType)[pick % 3]
            number = ("+15550111", "+15550122", "")[pick % 3]
            events.append(
                LegCreated(call=cid, at=now, leg=leg, trunk="t", party=party, role=role, number=number)
            )
            alive.append(leg)
            legs += 1
        elif what == 19:
            leg = alive.pop(pick % len(alive))
            events.append(LegEnded(call=cid, at=now, leg=leg, termination=_termination(pick)))
        else:
            make = _HAPPENINGS[what % len(_HAPPENINGS)]
            events.append(make(cid, now, alive[pick % len(alive)], pick))
    if ended:
        now += steps[0][0] if steps else 0
        events.append(CallEnded(call=cid, at=now, termination=_termination(len(steps) + now)))
    return events


_HAPPENINGS: list[Callable[[CallId, int, LegId, int], Event]] = [
    lambda c, t, leg, n: LegDialled(call=c, at=t, leg=leg, peer="udp:127.0.0.1:5060", attempt=1),
    lambda c, t, leg, n: LegAttemptFailed(call=c, at=t, leg=leg, peer="udp:x", attempt=1, sip_code=503),
    lambda c, t, leg, n: LegRinging(call=c, at=t, leg=leg, sip_code=180),
    lambda c, t, leg, n: LegAnswered(call=c, at=t, leg=leg, codec="PCMA", srtp=True),
    lambda c, t, leg, n: LegAnswered(call=c, at=t, leg=leg, codec="G722"),
    lambda c, t, leg, n: LegAnswered(call=c, at=t, leg=leg, codec="PCMU"),
    lambda c, t, leg, n: LegJoined(call=c, at=t, leg=leg),
    lambda c, t, leg, n: LegLeft(call=c, at=t, leg=leg),
    lambda c, t, leg, n: LegHeld(call=c, at=t, leg=leg, by=PartyType.AGENT),
    lambda c, t, leg, n: LegHeld(call=c, at=t, leg=leg, by=list(PartyType)[n % 3]),
    lambda c, t, leg, n: LegHeld(call=c, at=t, leg=leg, by=PartyType.TEAMS_EXPERT),
    lambda c, t, leg, n: LegResumed(call=c, at=t, leg=leg, by=PartyType.AGENT),
    lambda c, t, leg, n: LegResumed(call=c, at=t, leg=leg, by=list(PartyType)[n % 3]),
    lambda c, t, leg, n: LegMuted(call=c, at=t, leg=leg, muted=bool(n % 2)),
    lambda c, t, leg, n: MediaMoved(call=c, at=t, to="room-1", cause="conference"),
    lambda c, t, leg, n: LegMedia(call=c, at=t, leg=leg, packets_received=50, mos=(None, 4.1)[n % 2]),
    lambda c, t, leg, n: Noted(call=c, at=t, what="test", leg=leg, detail={"x": 1}),
    lambda c, t, leg, n: LegTransferred(
        call=c,
        at=t,
        leg=leg,
        mode="blind",
        target="<sip:+15550133@teams.example.test;user=phone>",
        outcome=("started", "completed", "failed")[n % 3],
    ),
]


@st.composite
def histories(draw: st.DrawFn, *, ended: bool = True) -> list[Event]:
    """One random call."""
    return history("0" * 32, draw(st.lists(STEPS, max_size=40)), ended=ended)


@st.composite
def minutes(draw: st.DrawFn) -> list[Event]:
    """Several calls at once, some still running, their events interleaved as a journal has them."""
    calls = [
        history(f"{number:032x}", steps, ended=ended)
        for number, (steps, ended) in enumerate(
            draw(st.lists(st.tuples(st.lists(STEPS, max_size=12), st.booleans()), min_size=1, max_size=4))
        )
    ]
    shuffle = draw(st.randoms(use_true_random=False))
    mixed: list[Event] = []
    while waiting := [call for call in calls if call]:
        mixed.append(waiting[shuffle.randrange(len(waiting))].pop(0))
    return mixed
