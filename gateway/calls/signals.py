"""What lands in a call's inbox, read by one task: news of its legs, timers that ran out, commands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.sip.transport_types import Target

if TYPE_CHECKING:
    from gateway.calls.leg import Leg
    from gateway.calls.leg_session import LegSession
    from gateway.sip.session_events import SessionEvent


@dataclass(frozen=True, slots=True)
class FromSession:
    """A session's event; one of a session that the leg has given up for another peer is passed over."""

    leg: Leg
    session: LegSession
    event: SessionEvent


@dataclass(frozen=True, slots=True)
class Resolved:
    """The addresses of the peer a leg is to be dialled at; none and the cause in words when DNS failed."""

    leg: Leg
    targets: tuple[Target, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class AttemptTimeout:
    """Attempt `number` of a leg got nothing: no response at all (`silence`) or nothing but 100."""

    leg: Leg
    number: int
    silence: bool


@dataclass(frozen=True, slots=True)
class RingTimeout:
    """A dialled leg has rung long enough."""

    leg: Leg


@dataclass(frozen=True, slots=True)
class MaxDuration:
    """The answered call has lasted as long as its trunk allows."""


@dataclass(frozen=True, slots=True)
class MediaLost:
    """No RTP came from an answered leg for `silence` seconds, or (None) rtpengine has lost the leg.

    final: a new place in rtpengine was tried, in vain
    """

    leg: Leg
    silence: float | None
    final: bool = False


@dataclass(frozen=True, slots=True)
class NewKey:
    """rtpengine came back without the roll-over counter of this leg's SRTP: it needs a new key."""

    leg: Leg


@dataclass(frozen=True, slots=True)
class Command:
    """Work asked for from outside the call's task (API, drain).

    done:   gets the result or the exception; None when nobody waits, then an exception is the call's own
    too_late: runs instead when the call has ended meanwhile: what somebody outside waits for
    """

    run: Callable[[], Awaitable[Any]]
    done: asyncio.Future[Any] | None = field(default=None, repr=False)
    too_late: Callable[[], None] | None = None


@dataclass(slots=True)
class HandedOver:
    """Answered legs that another call has given up for this one; nobody else has them now.

    accept: takes them in, in the receiving call's task
    refuse: what to do with them when the receiving call has ended meanwhile
    settled, error: for whoever waits: it is over, and why it failed ("" when it did not)
    """

    legs: tuple[Leg, ...]
    accept: Callable[[], Awaitable[None]]
    refuse: Callable[[], Awaitable[None]]
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    error: str = ""


Signal = (
    FromSession
    | Resolved
    | AttemptTimeout
    | RingTimeout
    | MaxDuration
    | MediaLost
    | NewKey
    | Command
    | HandedOver
)
