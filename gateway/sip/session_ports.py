"""What the session layer needs from the layers below it, as protocols: transactions, resolver, clock of
retries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.errors import SipError
from gateway.sip.message import Request, Response
from gateway.sip.transaction_timers import Timers
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import Target, TransportKind

Headers = Sequence[tuple[str, str]]
"""Header names and values, in order."""


class ClientTransactionPort(Protocol):
    """A request of ours under way."""

    @property
    def request(self) -> Request: ...

    @property
    def flow(self) -> Flow | None: ...

    def cancel(self, headers: Sequence[tuple[str, str]] = ()) -> None: ...


class ServerTransactionPort(Protocol):
    """A request of the peer's that waits for our answer."""

    @property
    def request(self) -> Request: ...

    @property
    def flow(self) -> Flow: ...

    def respond(self, response: Response) -> None: ...

    def ignore(self) -> None: ...


class TransactionsPort(Protocol):
    """The transaction layer as the session layer uses it."""

    @property
    def timers(self) -> Timers: ...

    def request(
        self,
        request: Request,
        flow_or_target: Flow | Target,
        *,
        via_host: str | None = None,
        tcp_switch: bool = False,
        branch: str = "",
        on_response: Callable[[Response], None],
        on_failure: Callable[[SipError], None],
    ) -> ClientTransactionPort: ...

    def send_ack(self, ack: Request, flow_or_target: Flow | Target, via_host: str | None = None) -> None: ...


class ResolverPort(Protocol):
    """RFC 3263."""

    async def resolve(
        self, where: str, /, port: int | None = None, kind: TransportKind | None = None
    ) -> list[Target]: ...
