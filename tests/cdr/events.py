"""Short ways to write a call's history in tests."""

from __future__ import annotations

from gateway.events import (
    CallEnded,
    CallStarted,
    Event,
    LegAnswered,
    LegCreated,
    LegDialled,
    LegEnded,
    LegJoined,
    LegRinging,
)
from gateway.model import CallId, InteractionId, LegId, PartyType, ReleasedBy, Result, Role, Termination

HUNG_UP = Termination(Result.COMPLETED, "hangup", 200, 16, ReleasedBy.CALLER)
START = 1_767_225_600_000
"""2026-01-01T00:00:00Z in milliseconds."""


class History:
    """Builds one call's events; `at` counts in milliseconds from START."""

    def __init__(self, call: str = "c" * 32, *, at: int = 0) -> None:
        self.call = CallId(call)
        self.events: list[Event] = []
        self.now = at

    @property
    def at(self) -> int:
        return START + self.now

    def wait(self, milliseconds: int) -> History:
        self.now += milliseconds
        return self

    def add(self, *events: Event) -> History:
        self.events.extend(events)
        return self

    def started(self, caller: str = "+15550100", called: str = "+15550199") -> History:
        giid = InteractionId("11111111-2222-4333-8444-555555555555")
        return self.add(
            CallStarted(call=self.call, at=self.at, interaction=giid, from_number=caller, to_number=called)
        )

    def leg(
        self, leg: str, role: Role, party: PartyType, number: str, trunk: str = "cc", login: str = ""
    ) -> History:
        return self.add(
            LegCreated(
                call=self.call,
                at=self.at,
                leg=LegId(leg),
                trunk=trunk,
                party=party,
                role=role,
                number=number,
                login=login,
            )
        )

    def dialled(self, leg: str, peer: str = "udp:127.0.0.1:5070") -> History:
        return self.add(LegDialled(call=self.call, at=self.at, leg=LegId(leg), peer=peer, attempt=1))

    def ringing(self, leg: str) -> History:
        return self.add(LegRinging(call=self.call, at=self.at, leg=LegId(leg), sip_code=180))

    def answered(self, *legs: str) -> History:
        for leg in legs:
            self.add(LegAnswered(call=self.call, at=self.at, leg=LegId(leg), codec="PCMA"))
        return self

    def joined(self, *legs: str) -> History:
        return self.add(*(LegJoined(call=self.call, at=self.at, leg=LegId(leg)) for leg in legs))

    def ended(self, termination: Termination = HUNG_UP, *legs: str) -> History:
        for leg in legs:
            self.add(LegEnded(call=self.call, at=self.at, leg=LegId(leg), termination=termination))
        return self.add(CallEnded(call=self.call, at=self.at, termination=termination))


def simple_call(call: str = "c" * 32, *, at: int = 0) -> list[Event]:
    """An agent calls a Teams user, talks ten seconds, hangs up."""
    history = History(call, at=at).started()
    history.leg("a", Role.CALLER, PartyType.AGENT, "+15550100", login="ann")
    history.leg("b", Role.CALLEE, PartyType.TEAMS_EXPERT, "+15550199", "teams").dialled("b")
    history.wait(500).ringing("b").wait(2500).answered("b", "a").joined("a", "b")
    return history.wait(10_000).ended(HUNG_UP, "a", "b").events
