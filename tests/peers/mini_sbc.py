"""The smallest gateway that Teams accepts: one TLS leg with the right headers.

It proves the Teams stand-in, and its strict rules, without the real gateway.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from types import TracebackType

from tests.peers.certs import Pki
from tests.peers.rtp import RtpPeer
from tests.peers.sipwire import WireMessage, address, new_tag
from tests.peers.sipwire_call import WireCall
from tests.peers.sipwire_net import Connection, Listener, client_context, server_context
from tests.peers.sipwire_sdp import audio
from tests.peers.sipwire_ua import PATIENCE, Dialog, ServerTx, WireUa

ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, NOTIFY, REFER"


class SbcCall(WireCall):
    """A leg toward Teams, as a correct gateway has it; REFER is taken with 202 and left to the test."""

    def __init__(self, sbc: MiniSbc, dialog: Dialog, connection: Connection, rtp: RtpPeer) -> None:
        super().__init__(sbc.ua, dialog, connection, rtp)
        self.sbc = sbc
        self.auto["REFER"] = lambda tx: _discard(tx.respond(202, headers=self.headers("REFER", 202)))

    def headers(self, method: str, code: int = 0) -> list[tuple[str, str]]:
        if method == "ACK" or (method == "INVITE" and code >= 300):
            return []
        found = [("Contact", self.sbc.contact)]
        if method == "INVITE":
            found += [("Allow", ALLOW), ("Supported", "replaces, timer")]
        return found

    def offer(self, direction: str = "sendrecv") -> bytes:
        return self.rtp.description(direction)

    def answer_to(self, offer: bytes, direction: str) -> bytes:
        view = audio(offer)
        tag = next(line.tag for line in view.crypto if line.suite == "AES_CM_128_HMAC_SHA1_80")
        self.rtp.telephone_event = view.number("telephone-event")
        codec = next(name for name in view.names() if name in ("PCMA", "PCMU", "G722"))
        if codec != self.rtp.codec:
            self.rtp.use_codec(codec)
        crypto = self.rtp.crypto_line(tag)
        fresh = self.rtp.description(direction, crypto=crypto, profile=view.profile)
        if self.local_sdp and _body(fresh) != _body(self.local_sdp):
            self.rtp.version += 1
            fresh = self.rtp.description(direction, crypto=crypto, profile=view.profile)
        return fresh

    async def notify(self, fragment: str, state: str = "active;expires=60") -> int:
        """NOTIFY of a transfer; the answer's code."""
        headers = [("Event", "refer"), ("Subscription-State", state)]
        body = fragment.encode() + b"\r\n"
        return (await self.send("NOTIFY", headers, body, "message/sipfrag;version=2.0").final()).code


class MiniSbc:
    """Dials Teams' proxies and takes calls on a TLS listener of its own."""

    def __init__(self, pki: Pki, fqdn: str = "sbc.example.test", tone: float = 440.0) -> None:
        self.pki, self.fqdn, self.tone = pki, fqdn, tone
        self.ua = WireUa("mini SBC")
        self.ua.handler = self._on_request
        self.listener = Listener("TLS", "mini SBC")
        self.calls: list[SbcCall] = []
        self._waiting: deque[ServerTx] = deque()
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> MiniSbc:
        context = server_context(self.pki["gateway"], self.pki.roots)
        self.listener = await self.ua.wire.listen("TLS", "127.0.0.1", 0, context)
        self.ua.via = f"{self.fqdn}:{self.listener.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for call in self.calls:
            await call.close()
        await self.ua.close()

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.listener.port)

    @property
    def contact(self) -> str:
        return f"<sip:+49301112222@{self.fqdn}:{self.listener.port};transport=tls>"

    async def connect(self, proxy: Listener, identity: str = "gateway") -> Connection:
        context = client_context(self.pki[identity] if identity else None, self.pki.roots)
        return await self.ua.wire.connect(
            "TLS", "127.0.0.1", proxy.port, context=context, name="sip.pstnhub.microsoft.com"
        )

    def message(self, method: str, uri: str, dialog: Dialog) -> WireMessage:
        dialog.target = uri
        return dialog.request(method, self.ua.case)

    def dialog(self, number: str) -> Dialog:
        return Dialog(
            call_id=str(uuid.uuid4()),
            local=f"<sip:+49301112222@{self.fqdn};user=phone>",
            remote=f"<sip:{number}@sip.pstnhub.microsoft.com;user=phone>",
            local_tag=new_tag(),
        )

    async def call(
        self,
        proxy: Listener,
        number: str = "+4930123456",
        *,
        uri: str = "",
        change: tuple[str, str] | None = None,
        sdp_change: tuple[str, str] | None = None,
        extra: tuple[tuple[str, str], ...] = (),
    ) -> SbcCall:
        """Call Teams. `change` and `sdp_change` replace text in the request, to break one rule."""
        connection = await self.connect(proxy)
        rtp = await RtpPeer.open(tone=self.tone, srtp=True)
        dialog = self.dialog(number)
        call = SbcCall(self, dialog, connection, rtp)
        self.calls.append(call)
        where = uri or f"sip:{number}@sip.pstnhub.microsoft.com:{proxy.port};user=phone;transport=tls"
        request = self.message("INVITE", where, dialog)
        request.headers += [*call.headers("INVITE"), *extra, ("Content-Type", "application/sdp")]
        request.body = call.offer()
        if sdp_change is not None:
            request.body = request.body.decode().replace(*sdp_change).encode()
        if change is not None:
            assert change[0] in "\n".join((request.start, *map(": ".join, request.headers)))
            request.start = request.start.replace(*change)
            request.headers = [(name, value.replace(*change)) for name, value in request.headers]
        call.start(request)
        return call

    async def options(self, proxy: Listener) -> WireMessage:
        """Ping a proxy."""
        dialog = self.dialog("")
        dialog.remote = "<sip:sip.pstnhub.microsoft.com>"
        message = self.message("OPTIONS", f"sip:sip.pstnhub.microsoft.com:{proxy.port};transport=tls", dialog)
        message.headers += [("Contact", self.contact), ("Allow", ALLOW)]
        return await self.ua.send(message, await self.connect(proxy)).final()

    async def expect_call(self, within: float = PATIENCE) -> SbcCall:
        async with asyncio.timeout(within):
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
        transaction = self._waiting.popleft()
        rtp = await RtpPeer.open(tone=self.tone, srtp=True)
        call = SbcCall(self, Dialog.of_invite(transaction.request, new_tag()), transaction.connection, rtp)
        call.take(transaction)
        self.calls.append(call)
        return call

    def _on_request(self, transaction: ServerTx) -> None:
        if transaction.request.method == "INVITE":
            transaction.respond(100)
            self._waiting.append(transaction)
            self._arrived.set()
        else:
            headers = [("Contact", self.contact), ("Allow", ALLOW)]
            transaction.respond(200, to_tag=new_tag(), headers=headers)

    def refer_uri(self, call: SbcCall) -> str:
        """The Request-URI for the INVITE that a REFER on this call asks for."""
        refer = next(tx.request for tx in call.inbox if tx.request.method == "REFER")
        return address(refer.need("Refer-To")).uri


def _body(sdp: bytes) -> list[bytes]:
    return [line for line in sdp.splitlines() if not line.startswith(b"o=")]


def _discard(_response: WireMessage) -> None:
    return None
