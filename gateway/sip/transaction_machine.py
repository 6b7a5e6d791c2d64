"""What the four transaction machines share: state tables, timers, and their view of the layer above."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import ClassVar, Protocol

from gateway.clock import Clock, TimerHandle
from gateway.errors import IllegalTransition
from gateway.sip.message import Request
from gateway.sip.transaction_timers import Timers
from gateway.sip.transport_flow import Flow

log = logging.getLogger("tandem.sip.transaction")


class State(StrEnum):
    """States of RFC 3261 17 and RFC 6026; CONNECTING is ours: the request waits for its connection."""

    CONNECTING = "connecting"
    CALLING = "calling"
    TRYING = "trying"
    PROCEEDING = "proceeding"
    COMPLETED = "completed"
    CONFIRMED = "confirmed"
    ACCEPTED = "accepted"
    TERMINATED = "terminated"


class Event(StrEnum):
    SENT = "sent"
    PROVISIONAL = "provisional"
    SUCCESS = "success"
    FAILURE = "failure"
    RETRANSMISSION = "retransmission"
    ACK = "ack"
    RESEND = "resend"
    """Timer A, E or G."""
    TIMEOUT = "timeout"
    """Timer B, F or H; also no final answer after a CANCEL (9.1)."""
    EXPIRED = "expired"
    """Timer D, I, J, K, L or M: nothing more to absorb."""
    TRANSPORT_ERROR = "transport-error"
    GIVEN_UP = "given-up"
    """Cancelled before it was sent; the user never answered, or will not."""


Table = Mapping[tuple[State, Event], State]


def event_of(code: int) -> Event:
    if code < 200:
        return Event.PROVISIONAL
    return Event.SUCCESS if code < 300 else Event.FAILURE


class Host(Protocol):
    """What a machine needs of its layer."""

    clock: Clock
    timers: Timers

    def ended(self, machine: Machine) -> None:
        """The machine reached TERMINATED and wants to be forgotten."""


class Machine:
    """One transaction: an enum, a transition table and timers by name."""

    table: ClassVar[Table]
    name: ClassVar[str]

    def __init__(self, host: Host, request: Request, key: tuple[str, ...], state: State) -> None:
        self._host = host
        self.request = request
        self.key = key
        self.state = state
        self.flow: Flow | None = None
        self._holding = False
        self._timers: dict[str, TimerHandle] = {}

    @property
    def label(self) -> str:
        """For log lines: `INVITE branch=... call-id=...`, values an attacker chose are cut and escaped."""
        return f"method={self.request.method[:32]} branch={self.key[0][:64]!r}"

    def _accepts(self, event: Event) -> bool:
        return (self.state, event) in self.table

    def _advance(self, event: Event) -> None:
        """IllegalTransition when the table has no such edge."""
        after = self.table.get((self.state, event))
        if after is None:
            raise IllegalTransition(self.name, self.state, event)
        if after is not self.state:
            log.debug(
                "event=edge machine=%s %s from=%s to=%s on=%s",
                self.name,
                self.label,
                self.state,
                after,
                event,
            )
            self.state = after
        if after is State.TERMINATED:
            self._clear_timers()
            self._release_flow()
            self._host.ended(self)

    def _use_flow(self, flow: Flow) -> None:
        self._release_flow()
        self.flow = flow
        self._holding = True
        flow.users += 1

    def _release_flow(self) -> None:
        if self._holding and self.flow is not None:
            self.flow.users -= 1
        self._holding = False

    def _start_timer(self, name: str, delay: float, callback: Callable[[], None]) -> None:
        self._stop_timer(name)
        self._timers[name] = self._host.clock.call_later(delay, callback)

    def _stop_timer(self, name: str) -> None:
        handle = self._timers.pop(name, None)
        if handle is not None:
            handle.cancel()

    def _clear_timers(self) -> None:
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()

    def discard(self) -> None:
        """The layer is closing: no more timers, no callbacks."""
        self._clear_timers()
        self._release_flow()
        self.state = State.TERMINATED
