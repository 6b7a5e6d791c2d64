"""Graph's presence engine: sessions, precedence, expiry and fading (facts/graph.md 2.1, 2.2).

Departures: among sessions of one availability the activity is chosen in the order of `_ACTIVITIES` (Graph
does not say); a meeting's InAMeeting is just another client session; out of office is a client's activity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.clock import Clock, TimerHandle

Pair = tuple[str, str]
SETTABLE: frozenset[Pair] = frozenset(
    {
        ("Available", "Available"),
        ("Busy", "InACall"),
        ("Busy", "InAConferenceCall"),
        ("Away", "Away"),
        ("DoNotDisturb", "Presenting"),
    }
)
OFFLINE: Pair = ("Offline", "Offline")
SHORTEST, LONGEST = 300.0, 4 * 3600.0
_FADE = 300.0
_PRECEDENCE = ("DoNotDisturb", "Busy", "BusyIdle", "Available", "AvailableIdle", "BeRightBack", "Away")
_ACTIVITIES = ("Presenting", "InACall", "InAConferenceCall", "InAMeeting")


@dataclass
class _Session:
    pair: Pair
    timers: list[TimerHandle] = field(default_factory=list)

    def cancel(self) -> None:
        for timer in self.timers:
            timer.cancel()


@dataclass
class _Person:
    sessions: dict[str, _Session] = field(default_factory=dict)
    preferred: Pair | None = None
    shown: Pair = OFFLINE
    sequence: int = 0


class PresenceEngine:
    """`changed(user)` is called whenever what others see of a user changed."""

    def __init__(self, clock: Clock, changed: Callable[[str], None]) -> None:
        self._clock, self._changed = clock, changed
        self._people: dict[str, _Person] = {}

    def add(self, user: str) -> None:
        self._people.setdefault(user, _Person())

    def knows(self, user: str) -> bool:
        return user in self._people

    def shown(self, user: str) -> Pair:
        return self._people[user].shown

    def sequence(self, user: str) -> int:
        return self._people[user].sequence

    def sessions(self, user: str) -> dict[str, Pair]:
        return {name: session.pair for name, session in self._people[user].sessions.items()}

    def client(self, user: str, availability: str, activity: str, device: str = "desktop") -> None:
        """What a Teams client of the user reports; Offline takes the client away."""
        person = self._people[user]
        if availability == "Offline":
            person.sessions.pop(f"client:{device}", None)
        else:
            person.sessions[f"client:{device}"] = _Session((availability, activity))
        self._settle(user)

    def prefer(self, user: str, pair: Pair | None) -> None:
        """What the human chose by hand; None clears it."""
        self._people[user].preferred = pair
        self._settle(user)

    def set(self, user: str, session: str, pair: Pair, seconds: float) -> None:
        person = self._people[user]
        if session in person.sessions:
            person.sessions[session].cancel()
        made = person.sessions[session] = _Session(pair)
        made.timers.append(self._clock.call_later(seconds, lambda: self._end(user, session, made)))
        if pair == ("Available", "Available"):
            for delay, faded in ((_FADE, ("Available", "AvailableInactive")), (2 * _FADE, ("Away", "Away"))):
                made.timers.append(self._clock.call_later(delay, self._fading(user, session, made, faded)))
        self._settle(user)

    def clear(self, user: str, session: str) -> bool:
        found = self._people[user].sessions.pop(session, None)
        if found is None:
            return False
        found.cancel()
        self._settle(user)
        return True

    def close(self) -> None:
        for person in self._people.values():
            for session in person.sessions.values():
                session.cancel()

    def _end(self, user: str, name: str, session: _Session) -> None:
        if self._people[user].sessions.get(name) is session:
            self.clear(user, name)

    def _fading(self, user: str, name: str, session: _Session, pair: Pair) -> Callable[[], None]:
        def fade() -> None:
            if self._people[user].sessions.get(name) is session:
                session.pair = pair
                self._settle(user)

        return fade

    def _settle(self, user: str) -> None:
        person = self._people[user]
        pairs = [session.pair for session in person.sessions.values()]
        if not pairs:
            shown = OFFLINE
        elif person.preferred is not None:
            shown = person.preferred
        else:
            shown = min(pairs, key=_rank)
        if shown != person.shown:
            person.shown = shown
            person.sequence += 1
            self._changed(user)


def _rank(pair: Pair) -> tuple[int, int]:
    availability = _PRECEDENCE.index(pair[0]) if pair[0] in _PRECEDENCE else len(_PRECEDENCE)
    return availability, _ACTIVITIES.index(pair[1]) if pair[1] in _ACTIVITIES else len(_ACTIVITIES)
