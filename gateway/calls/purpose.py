"""What a call needs from those who handle its legs: the purpose of a dialled leg, the answer to a REFER."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.model import Termination
from gateway.sip.refer import Referred
from gateway.sip.session_events import Progress

if TYPE_CHECKING:
    from gateway.calls.call import Call
    from gateway.calls.leg import Leg


class Purpose(Protocol):
    """What a dialled leg is for; called in the call's task.

    vital: while this leg is being dialled the call goes on even with a single party
    """

    vital: bool

    async def progress(self, call: Call, leg: Leg, event: Progress) -> None: ...

    async def answered(self, call: Call, leg: Leg) -> None: ...

    async def failed(self, call: Call, leg: Leg, termination: Termination) -> None: ...

    async def stranded(self, call: Call, leg: Leg, termination: Termination) -> None:
        """Another leg left with `termination` and nobody else remains while this one is being dialled."""
        ...


class ReferHandler(Protocol):
    """Takes a REFER of a party (`transfer`)."""

    async def __call__(self, call: Call, leg: Leg, refer: Referred) -> None: ...
