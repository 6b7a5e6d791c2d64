"""Agent activity: rows per activity of an agent, split at the report's intervals (facts/call-detail.md 4.5).

Pure. The names are the report's: READY, NOT_READY, INBOUND_CALL, OUTBOUND_CALL, SUPERVISION, LOGIN, LOGOUT.
There is no Busy and no After Call Work among them: a call is the call's activity, and the work after it is
counted inside. LOGIN and LOGOUT are moments, their duration is 0. All times of a row lie in its interval.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from gateway.agents.events import AgentCallEnded, AgentEvent, AgentStateChanged, Direction
from gateway.agents.states import AgentState, AgentStatus
from gateway.model import CallId

INTERVAL = 15 * 60 * 1000
"""Milliseconds: the report's aggregation interval."""


class ActivityName(StrEnum):
    INBOUND_CALL = "INBOUND_CALL"
    OUTBOUND_CALL = "OUTBOUND_CALL"
    LOGIN = "LOGIN"
    LOGOUT = "LOGOUT"
    READY = "READY"
    NOT_READY = "NOT_READY"
    SUPERVISION = "SUPERVISION"


_NAMED = {AgentState.READY: ActivityName.READY, AgentState.NOT_READY: ActivityName.NOT_READY}
_CALLS = {Direction.INBOUND: ActivityName.INBOUND_CALL, Direction.OUTBOUND: ActivityName.OUTBOUND_CALL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """One activity from `start` to `end`, milliseconds.

    talked_until: end of the call, where After Call Work follows; else equal to `end`
    """

    id: str
    login: str
    name: ActivityName
    start: int
    end: int
    talked_until: int
    holds: tuple[tuple[int, int], ...] = ()
    detail: str = ""
    media_type: str = ""
    number: str = ""
    interaction: str = ""
    call: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityRow:
    """A row of the report; durations in whole seconds inside the row's interval.

    id:          `activity_id` and the interval's number; the same whenever the row is made again
    activity_id: what the parts of one activity share
    detail:      Not Ready reason; for OUTBOUND_CALL the login of the agent who answered
    duration:    talk_time + hold_time + acw_time, for a call
    """

    id: str
    activity_id: str
    login_id: str
    first_name: str = ""
    last_name: str = ""
    team_name: str = ""
    start_time: datetime
    activity: ActivityName
    duration: int
    talk_time: int = 0
    hold_time: int = 0
    acw_time: int = 0
    detail: str = ""
    media_type: str = ""
    other_party_phone: str = ""
    global_interaction_id: str = ""
    call_id: str = ""


@dataclass(slots=True)
class ActivityFold:
    """Activities out of the agents' journal, in its order, from any point on."""

    _status: dict[str, AgentStatus] = field(default_factory=dict)
    _worked: dict[tuple[str, CallId], tuple[int, Activity]] = field(default_factory=dict)

    @property
    def oldest_needed(self) -> int | None:
        """The first record that an activity to come still hangs on; None = none but the present states."""
        return min((seq for seq, _ in self._worked.values()), default=None)

    def observe(self, seq: int, event: AgentEvent) -> list[Activity]:
        """The activities that `event` ended, or completed by the work after a call."""
        if isinstance(event, AgentCallEnded):
            return [self._call(seq, event)]
        return self._state(event)

    def running(self, now: int) -> Iterator[Activity]:
        """States that last at `now`, as if they ended then: for the intervals that are complete."""
        for status in self._status.values():
            if status.since < now:
                yield from self._of(status.login, status.state, status.since, now, status.reason, status.call)

    def _call(self, seq: int, event: AgentCallEnded) -> Activity:
        found = call_activity(event)
        self._worked[(event.login, event.call)] = (seq, found)
        return found

    def _state(self, event: AgentStateChanged) -> list[Activity]:
        login, at, state = event.login, event.at, event.status.state
        before, self._status[login] = self._status.get(login), event.status
        was_in = before is not None and before.signed_in
        found = list(
            self._of(login, event.before, event.before_since, at, event.before_reason, event.before_call)
        )
        if event.status.signed_in and not was_in:
            found.append(_moment(login, ActivityName.LOGIN, at))
        if was_in and not event.status.signed_in:
            found.append(_moment(login, ActivityName.LOGOUT, at))
        if state is not AgentState.AFTER_CALL_WORK:
            for key in [key for key in self._worked if key[0] == login]:
                del self._worked[key]
        return found

    def _of(
        self, login: str, state: AgentState, since: int, until: int, reason: str, call: CallId
    ) -> Iterator[Activity]:
        if until <= since:
            return
        if state in _NAMED:
            name = _NAMED[state]
            yield Activity(
                id=_id(login, name, since, ""),
                login=login,
                name=name,
                start=since,
                end=until,
                talked_until=until,
                detail=reason,
            )
        elif state is AgentState.AFTER_CALL_WORK and (login, call) in self._worked:
            yield replace(self._worked[(login, call)][1], end=until)


def call_activity(event: AgentCallEnded) -> Activity:
    """An agent's part in a call, from when he joined; the work after it is not in yet."""
    name = ActivityName.SUPERVISION if event.supervision else _CALLS[event.direction]
    return Activity(
        id=_id(event.login, name, event.joined, event.call),
        login=event.login,
        name=name,
        start=event.joined,
        end=event.at,
        talked_until=event.at,
        holds=event.holds,
        detail=event.detail,
        media_type="VOICE",
        number=event.number,
        interaction=event.interaction,
        call=event.call,
    )


def _moment(login: str, name: ActivityName, at: int) -> Activity:
    return Activity(id=_id(login, name, at, ""), login=login, name=name, start=at, end=at, talked_until=at)


def _id(login: str, name: ActivityName, start: int, call: str) -> str:
    return hashlib.sha256(f"{login}\n{name}\n{start}\n{call}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Who:
    """What rows say of an agent."""

    first_name: str = ""
    last_name: str = ""
    team: str = ""

    @classmethod
    def of(cls, name: str, team: str) -> Who:
        """The last word of a name is the last name."""
        first, _, last = name.strip().rpartition(" ")
        return cls(first or last, last if first else "", team)


def rows(activity: Activity, who: Who, *, complete_at: int | None = None) -> list[ActivityRow]:
    """The activity's rows, one an interval. complete_at: only of intervals that were over then.

    Seconds are rounded on the whole activity's time line, so that the rows' sum is the activity's duration.
    """
    found = []
    first, last = activity.start // INTERVAL, max(activity.start, activity.end - 1) // INTERVAL
    for number in range(first, last + 1):
        begin, end = number * INTERVAL, (number + 1) * INTERVAL
        if complete_at is not None and end > complete_at:
            break
        start, until = max(activity.start, begin), min(activity.end, end)
        duration = _seconds(start, until, activity.start)
        talked = min(max(activity.talked_until, start), until)
        acw = duration - _seconds(start, talked, activity.start)
        hold = min(_union(activity.holds, start, talked), duration - acw)
        call = activity.media_type != ""
        found.append(
            ActivityRow(
                id=f"{activity.id}-{number - first}",
                activity_id=activity.id,
                login_id=activity.login,
                first_name=who.first_name,
                last_name=who.last_name,
                team_name=who.team,
                start_time=datetime.fromtimestamp(start / 1000, UTC),
                activity=activity.name,
                duration=duration,
                talk_time=duration - acw - hold if call else 0,
                hold_time=hold if call else 0,
                acw_time=acw if call else 0,
                detail=activity.detail,
                media_type=activity.media_type,
                other_party_phone=activity.number,
                global_interaction_id=activity.interaction,
                call_id=activity.call,
            )
        )
    return found


def _seconds(start: int, end: int, origin: int) -> int:
    """Whole seconds between two moments, both rounded as distances from `origin`."""
    return (end - origin + 500) // 1000 - (start - origin + 500) // 1000


def _union(spans: Iterable[tuple[int, int]], start: int, end: int) -> int:
    total, reached = 0, start
    for begin, until in sorted(spans):
        begin, until = max(begin, reached), min(until, end)
        if until > begin:
            total += until - begin
            reached = until
    return (total + 500) // 1000
