"""Transports, transactions, trunks and prober as the gateway joins them, without calls and media."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from gateway.clock import LoopClock
from gateway.config_models import Config
from gateway.errors import SipError, TransportError
from gateway.sip.message import Request, Response, make_response
from gateway.sip.tls import TlsSettings
from gateway.sip.transaction import ServerTransaction, TransactionLayer
from gateway.sip.transport import TransportLayer
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import Endpoint, Target, TransportKind, TransportLimits, is_ip
from gateway.trunks.probe import Prober
from gateway.trunks.registry import Trunks
from gateway.trunks.trunk import Recognition


class TableResolver:
    """Names from a table that a test may change at any time; an unknown name is a TransportError."""

    def __init__(self, hosts: Mapping[str, str]) -> None:
        self.hosts = dict(hosts)
        self.asked: list[str] = []

    async def resolve(
        self, uri_or_host: str, port: int | None = None, kind: TransportKind | None = None
    ) -> list[Target]:
        self.asked.append(uri_or_host)
        kind = kind or TransportKind.UDP
        if is_ip(uri_or_host):
            return [Target(kind, uri_or_host, port or kind.default_port)]
        address = self.hosts.get(uri_or_host)
        if address is None:
            raise TransportError(f"{uri_or_host} is unknown")
        return [Target(kind, address, port or kind.default_port, uri_or_host)]


class TrunkStack:
    """Use as `async with`; answers OPTIONS, refuses everything else that is recognised with 501."""

    def __init__(
        self,
        toml: str,
        hosts: Mapping[str, str] | None = None,
        *,
        tls: TlsSettings | None = None,
        listen: tuple[str, ...] = ("udp:127.0.0.1:0",),
        limits: TransportLimits | None = None,
    ) -> None:
        self.config = Config.model_validate(tomllib.loads(toml))
        self.clock = LoopClock()
        self.trunks = Trunks.from_config(self.config, version="1.2.3")
        self.transports = TransportLayer(
            on_message=lambda message, flow: self.transactions.receive(message, flow),
            on_malformed=lambda error, flow: None,
            admit=self.trunks.admit,
            clock=self.clock,
            tls=tls,
            limits=limits,
        )
        self.transactions = TransactionLayer(self.transports, self.clock, self)
        self.resolver = TableResolver(hosts or {})
        self.prober = Prober(self.trunks, self.transactions, self.resolver, self.clock)
        self.taking_calls = True
        self.recognised: list[Recognition | SipError | None] = []
        self._listen = [Endpoint.parse(text) for text in listen]

    async def __aenter__(self) -> TrunkStack:
        self.endpoints = await self.transports.listen(self._listen)
        self.trunks.bind(self.endpoints)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.prober.close()
        await self.transactions.close()
        await self.transports.close()

    def port(self, kind: str) -> int:
        return next(endpoint.port for endpoint in self.endpoints if endpoint.kind == kind)

    def on_request(self, transaction: ServerTransaction) -> None:
        request = transaction.request
        origin = self.trunks.recognise(request, transaction.flow)
        self.recognised.append(origin)
        if origin is None:
            transaction.ignore()
            return
        if isinstance(origin, SipError):
            transaction.respond(make_response(request, origin.code))
        elif request.method == "OPTIONS":
            transaction.respond(self.prober.answer(request, origin, taking_calls=self.taking_calls))
        else:
            transaction.respond(make_response(request, 501))

    def on_cancel(self, invite: ServerTransaction, cancel: Request) -> None: ...

    def on_ack(self, ack: Request, flow: Flow) -> None: ...

    def on_response_stray(self, response: Response, flow: Flow) -> None: ...


def gateway_tls(certificate: Path, key: Path, roots: Path) -> TlsSettings:
    return TlsSettings(certificate, key, roots, require_client_certificate=True)
