"""The Teams stand-in: three proxies with mutual TLS, scripted calls both ways, a strict eye on the gateway.

    async with Teams(pki, gateway=("127.0.0.1", port)) as teams:
        call = await teams.expect_invite()
        call.ring()
        await call.answer()
        await call.rtp.hears(440)

Leaving the block raises AssertionError when the gateway broke a rule of `teams_rules`.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from tests.peers import teams_shapes as shapes
from tests.peers.certs import PROXY_NAMES, Identity, Pki
from tests.peers.rtp import RtpPeer
from tests.peers.sipwire import WireMessage, new_tag
from tests.peers.sipwire_net import Connection, Listener, WireLog, client_context, server_context
from tests.peers.sipwire_ua import PATIENCE, Dialog, ServerTx, WireUa
from tests.peers.teams_call import TeamsCall
from tests.peers.teams_rules import Rules

CAPTURE = "TANDEM_TEAMS_CAPTURE"
"""Environment variable: a file that takes, as JSON lines, every message any stand-in received."""


class Teams:
    """Microsoft's side of a trunk.

    gateway       address and port of the gateway's TLS listener, for what Teams starts
    trunk         FQDN of the trunk: SNI and Request-URI host toward the gateway
    trunk_names   all FQDNs the gateway may call itself (tenants), `trunk` included
    certificate   identity in the PKI that the proxies present, as server and as client
    media_addresses  addresses the gateway's SDP may name (its configured one); empty: any
    strict        False keeps `violations` for the test to read; nothing is raised at the end
    hook          called with each INVITE's transaction before a call is made of it: True = it was answered
    """

    def __init__(
        self,
        pki: Pki,
        *,
        gateway: tuple[str, int] | None = None,
        trunk: str = "sbc.example.test",
        trunk_names: Iterable[str] = (),
        certificate: str = "microsoft",
        proxies: int = 3,
        ports: Iterable[int] = (),
        media_addresses: Iterable[str] = (),
        shape: shapes.Shape | None = None,
        tone: float = 700.0,
        log: WireLog | None = None,
        strict: bool = True,
    ) -> None:
        self.pki, self.gateway, self.trunk = pki, gateway, trunk
        self.identity: Identity = pki[certificate]
        self.shape, self.tone, self.strict = shape or shapes.Shape(), tone, strict
        self.ua = WireUa("Teams", log, upper=True)
        self.ua.handler = self._on_request
        self.ua.wire.observer = self._observe
        self.rules = Rules({trunk, *trunk_names}, set(media_addresses))
        self.proxies: list[Listener] = []
        self.calls: list[TeamsCall] = []
        self.options_seen: list[tuple[float, str, WireMessage]] = []
        self.options_answer: Callable[[ServerTx], None] = self._answer_options
        self.hook: Callable[[ServerTx], bool] | None = None
        self.media: type[RtpPeer] = RtpPeer
        self._ports = list(ports) or [0] * proxies
        self._waiting: deque[ServerTx] = deque()
        self._arrived = asyncio.Event()
        self._outgoing: Connection | None = None

    # ---- life -----------------------------------------------------------------------------------------

    async def start(self) -> Teams:
        context = server_context(self.identity, self.pki.roots)
        for index, port in enumerate(self._ports):
            owner = "Teams " + PROXY_NAMES[index].partition(".")[0]
            self.proxies.append(await self.ua.wire.listen("TLS", "127.0.0.1", port, context, owner))
        return self

    async def close(self) -> None:
        for call in self.calls:
            await call.close()
        await self.ua.close()
        if os.environ.get(CAPTURE):
            await asyncio.to_thread(self.ua.log.dump, Path(os.environ[CAPTURE]))

    async def __aenter__(self) -> Teams:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
        if kind is None and self.strict:
            assert not self.violations, "the gateway broke Teams' rules:\n" + "\n".join(self.violations)

    @property
    def violations(self) -> list[str]:
        """What the gateway did that Teams does not accept."""
        broken = [f"malformed: {why}: {raw[:120]!r}" for _, raw, why in self.ua.log.malformed]
        return [*self.rules.violations, *broken]

    @property
    def names(self) -> list[str]:
        """Host names of the proxies, in hunting order."""
        return list(PROXY_NAMES[: len(self.proxies)])

    @property
    def peers(self) -> list[str]:
        """The trunk's `peers` in the gateway's configuration."""
        return [f"tls:{name}:{proxy.port}" for name, proxy in zip(self.names, self.proxies, strict=True)]

    @property
    def hosts(self) -> dict[str, str]:
        """Name to address, for the gateway's resolver: every pstnhub name used is on the loopback."""
        extra = [
            f"{prefix}-{region}.pstnhub.microsoft.com"
            for prefix in ("sip-du-a", "api-du-b")
            for region in ("euwe",)
        ]
        return dict.fromkeys((*self.names, *extra), "127.0.0.1")

    # ---- misfortunes ----------------------------------------------------------------------------------

    async def kill(self, index: int) -> None:
        """A proxy dies: its listener closes, its connections are reset."""
        await self.proxies[index].stop(reset=True)

    def silence(self, index: int, *, deaf: bool = True) -> None:
        """A proxy accepts connections and never says a word; `deaf` False ends that."""
        self.proxies[index].deaf = deaf

    def overload(self, index: int, retry_after: int = 1) -> None:
        """A proxy answers INVITE and OPTIONS with 503 and Retry-After; the others work."""
        owner = self.proxies[index].owner

        def refuse(transaction: ServerTx) -> bool:
            if transaction.connection.listener.owner != owner:
                return False
            headers = [("RETRY-AFTER", str(retry_after)), ("SERVER", shapes.PRODUCT)]
            transaction.respond(503, to_tag=new_tag(), headers=headers)
            return True

        self.hook = refuse

    # ---- gateway -> Teams -------------------------------------------------------------------------------

    async def expect_invite(self, within: float = PATIENCE, *, tone: float | None = None) -> TeamsCall:
        """The next call from the gateway; 100 is sent already. AssertionError when none comes."""
        try:
            async with asyncio.timeout(within):
                while not self._waiting:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"Teams: no INVITE within {within} s") from None
        transaction = self._waiting.popleft()
        rtp = await self.open_media(tone)
        dialog = Dialog.of_invite(transaction.request, new_tag())
        call = TeamsCall(self, dialog, transaction.connection, rtp, self.shape)
        call.take(transaction)
        self.calls.append(call)
        return call

    async def expect_no_invite(self, seconds: float = 0.5) -> None:
        """Nothing rings here for that long."""
        await asyncio.sleep(seconds)
        assert not self._waiting, f"unexpected {self._waiting[0].request.start}"

    async def open_media(self, tone: float | None = None) -> RtpPeer:
        return await self.media.open(
            tone=self.tone if tone is None else tone,
            srtp=self.shape.crypto != "none",
            telephone_event=self.shape.telephone_event,
        )

    def _on_request(self, transaction: ServerTx) -> None:
        method = transaction.request.method
        if method in ("INVITE", "OPTIONS") and self.hook is not None and self.hook(transaction):
            return
        if method == "INVITE":
            transaction.respond(100)
            self._waiting.append(transaction)
            self._arrived.set()
        elif method == "OPTIONS":
            owner = transaction.connection.listener.owner
            self.options_seen.append((asyncio.get_running_loop().time(), owner, transaction.request))
            self.options_answer(transaction)
        else:
            transaction.respond(405, "Method Not Allowed", to_tag=new_tag())

    def _answer_options(self, transaction: ServerTx) -> None:
        """As captured: no To tag, no Contact."""
        transaction.respond(200, headers=[("ALLOW", shapes.ALLOW), ("SERVER", shapes.PRODUCT)])

    # ---- Teams -> gateway -------------------------------------------------------------------------------

    async def connect(
        self, source: str = "127.0.0.1", certificate: str | None = None, only: ssl.TLSVersion | None = None
    ) -> Connection:
        """A new TLS connection to the gateway, from any loopback address (Microsoft uses a whole range).

        certificate  another identity of the PKI, "" for none (with TLS 1.3 the refusal shows as a closed
                     connection after the handshake); only: one TLS version, old ones too. OSError
        """
        assert self.gateway is not None, "the stand-in was not told where the gateway is"
        identity = self.identity if certificate is None else self.pki[certificate] if certificate else None
        context = client_context(identity, self.pki.roots, only=only)
        return await self.ua.wire.connect(
            "TLS", *self.gateway, context=context, name=self.trunk, source=source
        )

    async def outgoing(self) -> Connection:
        """The connection that Teams uses for what it starts; made when needed."""
        if self._outgoing is None or self._outgoing.closed:
            self._outgoing = await self.connect()
        return self._outgoing

    async def options(self) -> WireMessage:
        """Ping the gateway; returns its answer."""
        connection = await self.outgoing()
        message = WireMessage(f"OPTIONS sip:{self.trunk}:{self.gateway_port};transport=tls SIP/2.0")
        message.headers = [
            ("FROM", f"<sip:sip-du-a-euwe.pstnhub.microsoft.com:5061>;tag={new_tag()}"),
            ("TO", f"<sip:{self.trunk}>"),
            ("CALL-ID", str(uuid.uuid4())),
            ("CSEQ", "1 OPTIONS"),
            ("MAX-FORWARDS", "70"),
            ("CONTACT", "<sip:sip-du-a-euwe.pstnhub.microsoft.com:5061;transport=tls>"),
            ("ALLOW", shapes.ALLOW),
            ("USER-AGENT", shapes.PRODUCT),
        ]
        return await self.ua.send(message, connection).final()

    @property
    def gateway_port(self) -> int:
        assert self.gateway is not None
        return self.gateway[1]

    async def invite(
        self,
        number: str,
        *,
        shape: shapes.Shape | None = None,
        trunk: str = "",
        tone: float | None = None,
        connection: Connection | None = None,
        headers: Iterable[tuple[str, str]] = (),
        request_uri: str = "",
    ) -> TeamsCall:
        """Call a number through the gateway; the INVITE is on its way when this returns.

        trunk          tenant FQDN in Request-URI and To, default the stand-in's own
        request_uri    replaces `sip:NUMBER@TRUNK:PORT;user=phone;transport=tls`
        """
        shape, trunk = shape or self.shape, trunk or self.trunk
        who = f"{number}@{trunk}:{self.gateway_port}" if number else f"{trunk}:{self.gateway_port}"
        request_uri = request_uri or f"sip:{who};user=phone;transport=tls"
        display = f'"{shape.display}" ' if shape.display else ""
        user = f"{shape.from_user}@" if shape.from_user else ""
        dialog = Dialog(
            call_id=uuid.uuid4().hex,
            local=f"{display}<sip:{user}sip.pstnhub.microsoft.com:5061;user=phone>",
            remote=f"<sip:{who};user=phone>",
            local_tag=uuid.uuid4().hex,
            target=request_uri,
        )
        connection = connection or await self.outgoing()
        rtp = await self.open_media(tone)
        rtp.srtp = shape.crypto != "none"
        rtp.use_key(rtp.local_key)
        call = TeamsCall(self, dialog, connection, rtp, shape)
        self.calls.append(call)
        request = dialog.request("INVITE", self.ua.case)
        request.headers += call.headers("INVITE")
        request.headers += [("SUPPORTED", "timer,histinfo")]
        if shape.session_expires:
            request.headers.append(("SESSION-EXPIRES", str(shape.session_expires)))
            request.headers.append(("MIN-SE", str(shape.min_se)))
        request.headers += [*shapes.history(shape.filler), *shape.headers, *headers]
        if not shape.late:
            request.body, content_type = shapes.body(call.offer(), shape)
            request.headers.append(("CONTENT-TYPE", content_type))
        call.start(request)
        return call

    async def replaces(
        self,
        call: TeamsCall,
        *,
        tone: float | None = None,
        number: str = "+15551230000",
        early_only: bool = False,
        shape: shapes.Shape | None = None,
    ) -> TeamsCall:
        """INVITE with Replaces for one of our calls, confirmed or early (RFC 3891).

        From and Request-URI may lack a user: `number` "" and a shape with `from_user` "" (6.4).
        """
        dialog = call.dialog
        value = f"{dialog.call_id};to-tag={dialog.remote_tag};from-tag={dialog.local_tag}"
        value += ";early-only" if early_only else ""
        return await self.invite(
            number, tone=tone, shape=shape, headers=[("REPLACES", value), ("REQUIRE", "replaces")]
        )

    # ---- the strict eye -----------------------------------------------------------------------------

    def _observe(self, message: WireMessage, connection: Connection, received: bool) -> None:
        if received:
            self.rules.received(
                message, connection.peer_names if connection in self._accepted(connection) else ()
            )
            return
        self.rules.sent(message)
        if not message.is_request and message.method == "INVITE" and message.code >= 300:
            self.rules.refused(message)

    def _accepted(self, connection: Connection) -> list[Connection]:
        """Connections that the gateway made: there its certificate must cover its Contact (1.6)."""
        return connection.listener.connections if connection.listener in self.proxies else []


if __name__ == "__main__":
    from tests.peers.teams_cli import main

    main()
