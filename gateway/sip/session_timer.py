"""Session timers (RFC 4028): what is asked, what is granted, when to refresh and when to give up. Pure but
for RefreshTimer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sipmessage import Headers

from gateway.clock import Clock, TimerHandle
from gateway.errors import MessageError

SMALLEST = 90
"""RFC 4028 4: no Min-SE is below 90 seconds."""

Refresher = Literal["", "local", "remote"]


class IntervalTooSmall(MessageError):
    """422: the Session-Expires asked for is below our Min-SE (`min_se` seconds)."""

    def __init__(self, min_se: int) -> None:
        self.min_se = min_se
        super().__init__(422, "Session Interval Too Small")


@dataclass(slots=True)
class SessionTimer:
    """The timer of one dialog: `expires` seconds (0 = none), who refreshes, the largest Min-SE seen."""

    expires: int = 0
    refresher: Refresher = ""
    min_se: int = 0

    @property
    def refresh_after(self) -> float:
        """Seconds from the last refresh to ours: half the interval (RFC 4028 10)."""
        return self.expires / 2

    @property
    def give_up_after(self) -> float:
        """Seconds from the last refresh to our BYE: the lesser of 32 s and a third before expiry (RFC 4028
        10).
        """
        return self.expires - min(32.0, self.expires / 3)


def parse_session_expires(headers: Headers) -> tuple[int, str] | None:
    """(seconds, "uac" | "uas" | "") of Session-Expires or its compact form x; None when absent, 400 when
    unreadable.
    """
    value = headers.get("Session-Expires")
    if value is None:
        return None
    match = re.match(r"\s*(\d{1,9})\s*(;.*)?$", value)
    if match is None:
        raise MessageError(400, "Bad Session-Expires")
    refresher = re.search(
        r";\s*refresher\s*=\s*\"?(uac|uas)\"?\s*(?:;|$)", match.group(2) or "", re.IGNORECASE
    )
    return int(match.group(1)), refresher.group(1).lower() if refresher else ""


def parse_min_se(headers: Headers) -> int:
    """Min-SE in seconds, 0 when absent."""
    value = headers.get("Min-SE")
    if value is None:
        return 0
    match = re.match(r"\s*(\d{1,9})\s*(;.*)?$", value)
    if match is None:
        raise MessageError(400, "Bad Min-SE")
    return int(match.group(1))


def request_headers(wanted: int, own_min: int, timer: SessionTimer) -> list[tuple[str, str]]:
    """Session-Expires and Min-SE of an INVITE or UPDATE of ours (RFC 4028 7.1, 7.4).

    Inside a running timer the refresher keeps its role; `wanted` 0 with no running timer asks for none.
    """
    expires = timer.expires or wanted
    if not expires:
        return []
    floor = max(own_min, timer.min_se)
    role = {"local": ";refresher=uac", "remote": ";refresher=uas", "": ""}[timer.refresher]
    headers = [("Session-Expires", f"{max(expires, floor)}{role}")]
    if floor > SMALLEST or timer.min_se:
        headers.append(("Min-SE", str(max(floor, SMALLEST))))
    return headers


def granted_by_peer(headers: Headers, timer: SessionTimer) -> SessionTimer:
    """The timer after a 2xx to our request (RFC 4028 7.2); without Session-Expires the timer is off.

    A 2xx must name the refresher; when it does not, we refresh, which cannot break the call.
    """
    asked = parse_session_expires(headers)
    if asked is None:
        return SessionTimer(min_se=timer.min_se)
    expires, refresher = asked
    return SessionTimer(max(expires, 1), "remote" if refresher == "uas" else "local", timer.min_se)


def grant(
    headers: Headers, supports_timer: bool, wanted: int, own_min: int, timer: SessionTimer
) -> tuple[SessionTimer, list[tuple[str, str]]]:
    """Answer to the peer's INVITE or UPDATE as UAS (RFC 4028 9): the timer, and the headers of the 2xx.

    Raises IntervalTooSmall (422) only to a peer that supports the timer. The interval is never raised above
    what was asked for, nor lowered under the peer's Min-SE or 90 s.
    """
    asked = parse_session_expires(headers)
    peer_min = parse_min_se(headers)
    if asked is None:
        if not wanted or not supports_timer:
            return SessionTimer(min_se=timer.min_se), []
        expires, refresher = max(wanted, peer_min, own_min), ""
    else:
        expires, refresher = asked
        if expires < own_min:
            if supports_timer:
                raise IntervalTooSmall(own_min)
            expires = own_min
        if wanted:
            expires = max(min(expires, wanted), peer_min, SMALLEST if expires >= SMALLEST else expires)
    if not supports_timer:
        if asked is None:
            return SessionTimer(min_se=timer.min_se), []
        refresher = "uas"
    refresher = refresher or ("uas" if timer.refresher == "local" else "uac")
    granted = SessionTimer(expires, "remote" if refresher == "uac" else "local", max(timer.min_se, peer_min))
    answer = [("Session-Expires", f"{expires};refresher={refresher}")]
    if refresher == "uac":
        answer.append(("Require", "timer"))
    return granted, answer


class RefreshTimer:
    """Runs one dialog's SessionTimer: calls `refresh` at half time when it is ours, `expired` when nobody
    refreshed.
    """

    def __init__(self, clock: Clock, refresh: Callable[[], None], expired: Callable[[], None]) -> None:
        self._clock = clock
        self._refresh = refresh
        self._expired = expired
        self._pending: list[TimerHandle] = []
        self._deadline = 0.0

    def start(self, timer: SessionTimer, elapsed: float = 0.0) -> None:
        """Begin anew, `elapsed` seconds after the last refresh; a timer of 0 seconds just stops.

        After a restart that took too long there is still a moment for a refresh before giving up.
        """
        self.stop()
        if not timer.expires:
            return
        left = max(timer.give_up_after - elapsed, min(10.0, timer.give_up_after))
        self._deadline = self._clock.now() + left
        self._pending.append(self._clock.call_later(left, self._give_up))
        if timer.refresher == "local":
            self._pending.append(
                self._clock.call_later(max(timer.refresh_after - elapsed, min(1.0, left)), self._refresh)
            )

    def retry(self) -> None:
        """A refresh failed without ending the session: try again while there is time left."""
        left = self._deadline - self._clock.now()
        if left > 1.0:
            self._pending.append(self._clock.call_later(min(10.0, left / 2), self._refresh))

    def stop(self) -> None:
        for handle in self._pending:
            handle.cancel()
        self._pending.clear()

    def _give_up(self) -> None:
        self.stop()
        self._expired()
