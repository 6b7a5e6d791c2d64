"""What an agent's page is told of Teams over its WebSocket: one picture, and events with ids to resume from.

The picture is whole, so a page that was away has missed nothing of it. Events, which are messages and what
makes a list stale, are kept for a while; a page that was away longer is told to read again what it shows.
"""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from gateway.teams.chats import Popped

Json = dict[str, Any]
Wake = Callable[[], None]

_KEPT = 200
_MOST_LOGINS = 5000


@dataclass(frozen=True)
class Notice:
    """Something to be done or known by a person; `days_left` for the secret only."""

    kind: str
    text: str
    days_left: int | None = None


@dataclass(frozen=True)
class BusyShown:
    """teams_call: Teams says that the user is in a call of its own

    desk: held = Not Ready because of it, pending = will be when the contact is over
    teams: set = Teams shows in a call because the desk is Busy, quarantine = it has been until just now
    """

    teams_call: bool = False
    desk: str = "none"
    teams: str = "none"


@dataclass(frozen=True)
class TeamsPicture:
    """mapped: an administrator has said which Teams user this agent is; oid, name: "" unless enabled."""

    account: bool
    connected: bool
    mapped: bool
    enabled: bool
    sign_in_needed: bool
    oid: str
    name: str
    notices: list[Notice]
    busy_sync: BusyShown
    presences: dict[str, dict[str, str]]
    channels_open: list[dict[str, str]]


class Painter(Protocol):
    """`gateway.teams.room.TeamsRoom`."""

    def picture(self, login: str) -> TeamsPicture: ...

    def looking(self, login: str, pages: int) -> None:
        """How many pages of this agent are open."""
        ...


@dataclass
class _Line:
    """One agent's events and the pages that wait for them; `first` is the number of the oldest kept."""

    events: deque[tuple[int, Json]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    last: int = 0
    wakes: list[Wake] = field(default_factory=list)


class Feeds:
    """All agents' lines. An id is `<run>.<number>`; ids of an earlier run lead to `refresh`."""

    def __init__(self, painter: Painter) -> None:
        self._painter = painter
        self._run = secrets.token_hex(4)
        self._lines: OrderedDict[str, _Line] = OrderedDict()

    def tell(self, login: str, kind: str, **more: Any) -> None:
        """An event for all pages of this agent."""
        line = self._line(login)
        line.last += 1
        line.events.append((line.last, {"id": self.name(line.last), "kind": kind, **more}))
        self.wake(login)

    def popped(self, found: Popped) -> None:
        self.tell(
            found.login,
            "message",
            team=found.team,
            conversation=found.conversation,
            peer=found.peer,
            change=found.change,
            mine=found.mine,
            message=asdict(found.message),
        )

    def wake(self, login: str = "") -> None:
        """The picture may be another one; "" = everybody's."""
        lines = self._lines.values() if not login else filter(None, [self._lines.get(login)])
        for line in list(lines):
            for wake in list(line.wakes):
                wake()

    def open(self, login: str, after: str, wake: Wake) -> FeedReader:
        """after: id of the last event that the page had, "" = none."""
        line = self._line(login)
        line.wakes.append(wake)
        self._painter.looking(login, len(line.wakes))
        return FeedReader(self, login, after, wake)

    def close(self, login: str, wake: Wake) -> None:
        line = self._line(login)
        line.wakes.remove(wake)
        self._painter.looking(login, len(line.wakes))

    def picture(self, login: str) -> TeamsPicture:
        return self._painter.picture(login)

    def place(self, login: str, after: str) -> tuple[int, str]:
        """Number after which to go on, and why everything must be read again, "" when not."""
        line = self._line(login)
        if not after:
            return line.last, ""
        run, _, number = after.partition(".")
        if run != self._run or not (number.isascii() and number.isdigit()) or int(number) > line.last:
            return line.last, "restart"
        oldest = line.events[0][0] if line.events else line.last + 1
        if int(number) < oldest - 1:
            return line.last, "gap"
        return int(number), ""

    def since(self, login: str, number: int) -> list[tuple[int, Json]]:
        return [one for one in self._line(login).events if one[0] > number]

    def name(self, number: int) -> str:
        """An event's id."""
        return f"{self._run}.{number}"

    def _line(self, login: str) -> _Line:
        line = self._lines.setdefault(login, _Line())
        self._lines.move_to_end(login)
        if len(self._lines) > _MOST_LOGINS:
            idle = next((name for name, one in self._lines.items() if not one.wakes), login)
            if idle != login:
                del self._lines[idle]
        return line


class FeedReader:
    """One page's place in its agent's line."""

    def __init__(self, feeds: Feeds, login: str, after: str, wake: Wake) -> None:
        self._feeds, self._login, self._wake = feeds, login, wake
        self._at, self._refresh = feeds.place(login, after)
        self._picture, self._begun = "", False

    def texts(self) -> list[str]:
        """What the page has not been sent yet."""
        found: list[str] = []
        picture = _text({"teams": asdict(self._feeds.picture(self._login))})
        if picture != self._picture:
            self._picture = picture
            found.append(picture)
        if not self._begun:
            # Gives the page an id to come back with before anything has happened.
            self._begun = True
            found.append(self._here("begin"))
        if self._refresh:
            found.append(self._here("refresh", reason=self._refresh))
            self._refresh = ""
        waiting = self._feeds.since(self._login, self._at)
        if waiting and waiting[0][0] > self._at + 1:
            # More came between two looks than is kept.
            self._at, self._refresh = waiting[-1][0], "gap"
            return [*found, *self.texts()]
        for number, event in waiting:
            self._at = number
            found.append(_text({"teams_event": event}))
        return found

    def _here(self, kind: str, **more: str) -> str:
        event = {"id": self._feeds.name(self._at), "kind": kind, **more}
        return _text({"teams_event": event})

    def close(self) -> None:
        self._feeds.close(self._login, self._wake)


def _text(found: Json) -> str:
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))
