"""What a session tells the one who owns it: plain records, and three that wait for an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from gateway.sip.message import Request, Response
from gateway.sip.refer import Referred
from gateway.sip.session_ports import Headers

FailureCause = Literal["response", "timeout", "transport"]
EndedBy = Literal["remote", "local", "timeout", "error"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A provisional response other than 100; `tag` tells the forks apart ("" when the peer gave none).

    response: None of a page, which speaks no SIP
    """

    code: int
    phrase: str
    tag: str
    sdp: bytes | None
    response: Response | None


@dataclass(frozen=True, slots=True)
class Answered:
    """A 2xx to our INVITE, already acknowledged.

    sdp: of the 2xx, else the answer this fork gave in an earlier 18x; None when the peer gave none at all
    response: None of a page
    """

    sdp: bytes | None
    response: Response | None


@dataclass(frozen=True, slots=True)
class Failed:
    """Our INVITE will not be answered; last event. After a cancel() it is code 487, also when a 2xx
    crossed it.
    """

    code: int
    phrase: str
    response: Response | None
    cause: FailureCause


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The peer gave up its INVITE before we answered (CANCEL, or BYE on the early dialog); last event."""

    request: Request


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The ACK to our 2xx arrived; `sdp` is the answer to our late offer, else None."""

    sdp: bytes | None


@dataclass(frozen=True, slots=True)
class OfferAnswered:
    """The peer's answer to an offer nobody awaits: in the ACK of an offerless re-INVITE, in a PRACK, to a
    refresh.
    """

    sdp: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """An established session is over; exactly once, last event. Our own BYE may still be under way.

    request: the peer's BYE; code: 200 for a BYE, else what ended it (408 no ACK or no refresh, 481, 500, 504)
    reason: a word of its own for call detail, "" where the code says it
    """

    by: EndedBy
    request: Request | None
    code: int
    reason: str = ""


class OfferPort(Protocol):
    """The incoming request an OfferReceived stands for."""

    def answer_offer(self, sdp: bytes, headers: Headers) -> None: ...

    def reject_offer(self, code: int, phrase: str | None, headers: Headers) -> None: ...


@dataclass(slots=True)
class OfferReceived:
    """An offer inside the session (re-INVITE, UPDATE or PRACK); answer it now or later, once.

    sdp: None for an offerless re-INVITE, then answer() carries our offer and OfferAnswered follows
    withdrawn: the peer cancelled it, or it was refused for us after OFFER_GUARD seconds; answering does
    nothing
    """

    sdp: bytes | None
    method: str
    request: Request
    port: OfferPort = field(repr=False)
    withdrawn: bool = False
    handled: bool = False

    def answer(self, sdp: bytes, headers: Headers = ()) -> None:
        if not self._closed():
            self.port.answer_offer(sdp, headers)

    def reject(self, code: int = 488, phrase: str | None = None, headers: Headers = ()) -> None:
        if not self._closed():
            self.port.reject_offer(code, phrase, headers)

    def _closed(self) -> bool:
        closed = self.withdrawn or self.handled
        self.handled = True
        return closed


class ReplyPort(Protocol):
    """How a RequestReceived is answered."""

    def __call__(
        self, code: int, phrase: str | None, headers: Headers, body: bytes, content_type: str | None
    ) -> None: ...


@dataclass(slots=True)
class RequestReceived:
    """INFO, MESSAGE, NOTIFY or an unknown method inside the session.

    Respond before the handler returns, or call defer() and respond within REQUEST_GUARD seconds; otherwise it
    gets a safe default (405, 415, 469, 481, 501).
    """

    request: Request
    reply: ReplyPort = field(repr=False)
    deferred: bool = False
    handled: bool = False
    when_answered: Callable[[], None] | None = field(default=None, repr=False)

    def respond(
        self,
        code: int,
        phrase: str | None = None,
        headers: Headers = (),
        body: bytes = b"",
        content_type: str | None = None,
    ) -> None:
        if not self.handled:
            self.handled = True
            if self.when_answered is not None:
                self.when_answered()
            self.reply(code, phrase, headers, body, content_type)

    def defer(self) -> None:
        self.deferred = True


SessionEvent = (
    Progress
    | Answered
    | Failed
    | Cancelled
    | Confirmed
    | OfferAnswered
    | OfferReceived
    | Referred
    | RequestReceived
    | Ended
)
