"""OPTIONS both ways: our ping, and our answer to the peer's (RFC 3261 11; facts/direct-routing.md 2)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from gateway.clock import Clock
from gateway.errors import SipError
from gateway.sip.message import Request, Response, make_request, make_response, new_call_id, new_tag
from gateway.sip.profile import Profile
from gateway.sip.session_ports import TransactionsPort
from gateway.sip.transport_types import Target, bracketed

ACCEPT = "application/sdp"


class _Cancellable(Protocol):
    def cancel(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping; `rtt` in seconds, a new connection's handshake included."""

    response: Response
    rtt: float


def make_options(profile: Profile, request_uri: str, to: str) -> Request:
    """A ping as `profile`. Contact is mandatory for Teams although the RFC makes it optional; no user part in
    it, so no '@' either (facts 1.6, 2)."""
    return make_request(
        "OPTIONS",
        request_uri,
        from_=f"<sip:{bracketed(profile.from_host)}>;tag={new_tag()}",
        to=to,
        call_id=new_call_id(profile.from_host),
        cseq=1,
        contact=profile.contact(),
        headers=[("Accept", ACCEPT), *profile.capabilities(response=False)],
    )


def answer_options(request: Request, profile: Profile, *, retry_after: int | None = None) -> Response:
    """200 with what an INVITE would find (RFC 3261 11.2), or 503 while no call would be taken.

    retry_after: seconds; None = we take calls. T6: a 200 to Teams without Contact does not count, and Allow
    is where it reads whether we do REFER.
    """
    if retry_after is not None:
        return make_response(
            request,
            503,
            headers=[("Retry-After", str(retry_after)), ("Contact", profile.contact())],
        )
    return make_response(
        request,
        200,
        headers=[
            ("Contact", profile.contact()),
            ("Accept", ACCEPT),
            *profile.capabilities(response=True),
        ],
    )


async def ping(
    transactions: TransactionsPort,
    clock: Clock,
    profile: Profile,
    target: Target,
    *,
    request_uri: str,
    to: str,
    limit: float,
) -> Pong:
    """Send OPTIONS to `target` and wait at most `limit` seconds for the final response.

    Any final response is a Pong; a 200 without To tag, as Teams' proxies send it, is one too. SipError
    (TransportError, TransactionTimeout) when there is none.
    """
    answered: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    def on_response(response: Response) -> None:
        if response.code >= 200 and not answered.done():
            answered.set_result(response)

    def on_failure(error: SipError) -> None:
        if not answered.done():
            answered.set_exception(error)

    started = clock.now()
    transaction = transactions.request(
        make_options(profile, request_uri, to),
        target,
        via_host=profile.via_host,
        on_response=on_response,
        on_failure=on_failure,
    )
    late: _Cancellable = clock.call_later(
        limit, lambda: on_failure(SipError(408, f"no answer within {limit:g} s"))
    )
    try:
        response = await answered
    except SipError:
        if transaction.flow is not None:
            transaction.flow.unanswered(started)
        raise
    finally:
        late.cancel()
    return Pong(response, clock.now() - started)
