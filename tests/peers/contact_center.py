"""The contact-center stand-in: a plain SIP peer over UDP or TCP with every habit a PBX may have.

async with ContactCenter(gateway=("127.0.0.1", port)) as center:
    call = await center.call("+4930123456")
    await call.answered()
    await call.rtp.hears(700)
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import uuid
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from tests.peers.certs import Pki
from tests.peers.contact_center_call import CenterCall
from tests.peers.rtp import RtpPeer
from tests.peers.sipwire import WireMessage, new_tag
from tests.peers.sipwire_net import Connection, WireLog, client_context, server_context
from tests.peers.sipwire_ua import PATIENCE, Dialog, ServerTx, WireUa

Kind = Literal["UDP", "TCP", "TLS"]


@dataclass(frozen=True)
class Challenge:
    """Digest demanded of incoming INVITEs (RFC 8760: MD5 or SHA-256); `code` 401 or 407."""

    username: str
    password: str
    realm: str = "contact-center.example.test"
    code: int = 407
    algorithm: str = "MD5"
    qop: str = "auth"


class ContactCenter:
    """One PBX with one number; listens on UDP and TCP at one port.

    gateway          address and port of the gateway's listener of `kind`
    kind, pki        UDP, TCP or TLS; for TLS it presents the identity contact-center and verifies the chain
    srtp             offer and take SRTP (SDES) only
    codecs           names in the order offered; telephone_event None: it has none
    challenge        demand digest authentication for incoming calls
    session_expires  seconds offered in our INVITEs, 0 for no session timer
    granted          Session-Expires of our answers; "": what was asked for, to be refreshed by who asked
    """

    def __init__(
        self,
        *,
        gateway: tuple[str, int] | None = None,
        kind: Kind = "UDP",
        host: str = "127.0.0.1",
        port: int = 0,
        number: str = "+49301112222",
        tone: float = 440.0,
        pki: Pki | None = None,
        srtp: bool = False,
        codecs: tuple[str, ...] = ("PCMA",),
        telephone_event: int | None = 101,
        challenge: Challenge | None = None,
        session_expires: int = 0,
        granted: str = "",
        owner: str = "contact center",
        log: WireLog | None = None,
    ) -> None:
        self.gateway, self.kind, self.host, self.number = gateway, kind, host, number
        self.tone, self.codecs, self.telephone_event = tone, codecs, telephone_event
        self.challenge, self.session_expires, self.granted = challenge, session_expires, granted
        self.port, self.tls_port, self.pki, self.srtp = port, 0, pki, srtp
        self.ua = WireUa(owner, log)
        self.ua.handler = self._on_request
        self.calls: list[CenterCall] = []
        self.refused_credentials = 0
        self.media: type[RtpPeer] = RtpPeer
        self._nonces: set[str] = set()
        self._waiting: deque[ServerTx] = deque()
        self._arrived = asyncio.Event()

    # ---- life -----------------------------------------------------------------------------------------

    async def start(self) -> ContactCenter:
        for _ in range(50):
            stream = await self.ua.wire.listen("TCP", self.host, self.port)
            try:
                await self.ua.wire.listen("UDP", self.host, stream.port)
            except OSError:
                await stream.stop()
                if self.port:
                    raise
                continue
            self.port = stream.port
            if self.pki is not None:
                context = server_context(self.pki["contact-center"], self.pki.roots, demand_certificate=False)
                self.tls_port = (await self.ua.wire.listen("TLS", self.host, 0, context)).port
            return self
        raise OSError("no port free for UDP and TCP")

    async def close(self) -> None:
        for call in self.calls:
            await call.close()
        await self.ua.close()

    async def __aenter__(self) -> ContactCenter:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def peer(self) -> str:
        """The trunk's peer in the gateway's configuration."""
        return f"{self.kind.lower()}:{self.host}:{self.tls_port if self.kind == 'TLS' else self.port}"

    @property
    def contact(self) -> str:
        transport = "" if self.kind == "UDP" else f";transport={self.kind.lower()}"
        port = self.tls_port if self.kind == "TLS" else self.port
        return f"<sip:{self.number}@{self.host}:{port}{transport}>"

    async def connection(self) -> Connection:
        """To the gateway: the UDP socket, or one TCP connection that is kept."""
        assert self.gateway is not None, "the stand-in was not told where the gateway is"
        for known in self.ua.wire.connections:
            if known.kind == self.kind and not known.closed and known.remote == self.gateway:
                return known
        context = None
        if self.kind == "TLS":
            assert self.pki is not None, "TLS needs a PKI"
            context = client_context(self.pki["contact-center"], self.pki.roots, check_name=False)
        return await self.ua.wire.connect(self.kind, *self.gateway, context=context, name=self.gateway[0])

    # ---- calls ------------------------------------------------------------------------------------------

    async def call(
        self,
        number: str,
        *,
        late: bool = False,
        codecs: tuple[str, ...] | None = None,
        tone: float | None = None,
        caller: str = "",
        display: str = "",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "application/sdp",
    ) -> CenterCall:
        """Call a number; the INVITE is on its way when this returns.

        late    no description in the INVITE: the ACK will carry the answer
        body    a description (or anything) of the caller's own instead
        """
        caller = caller or self.number
        dialog = Dialog(
            call_id=f"{uuid.uuid4()}@{self.host}",
            local=f"{display}<sip:{caller}@{self.host}>",
            remote=f"<sip:{number}@{self.gateway_host}>",
            local_tag=new_tag(),
            target=f"sip:{number}@{self.gateway_host}",
        )
        connection = await self.connection()
        call = CenterCall(self, dialog, connection, await self._open(tone, codecs))
        call.codecs = codecs or self.codecs
        self.calls.append(call)
        request = dialog.request("INVITE", self.ua.case)
        request.headers += [*call.headers("INVITE"), *headers]
        if self.session_expires:
            request.headers.append(("Session-Expires", str(self.session_expires)))
        request.body = b"" if late else body or call.offer()
        if request.body:
            request.headers.append(("Content-Type", content_type))
        call.start(request)
        return call

    async def expect_call(self, within: float = PATIENCE, *, tone: float | None = None) -> CenterCall:
        """The next incoming call; nothing is sent yet but 100. AssertionError when none comes."""
        try:
            async with asyncio.timeout(within):
                while not self._waiting:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"{self.ua.wire.owner}: no INVITE within {within} s") from None
        transaction = self._waiting.popleft()
        dialog = Dialog.of_invite(transaction.request, new_tag())
        call = CenterCall(self, dialog, transaction.connection, await self._open(tone, None))
        call.take(transaction)
        self.calls.append(call)
        return call

    async def expect_no_call(self, seconds: float = 0.5) -> None:
        """Nothing rings here for that long."""
        await asyncio.sleep(seconds)
        assert not self._waiting, f"unexpected {self._waiting[0].request.start}"

    async def options(self) -> WireMessage:
        """Ping the gateway; TimeoutError when it keeps silent."""
        message = WireMessage(f"OPTIONS sip:{self.gateway_host} SIP/2.0")
        message.headers = [
            ("From", f"<sip:{self.number}@{self.host}>;tag={new_tag()}"),
            ("To", f"<sip:{self.gateway_host}>"),
            ("Call-ID", str(uuid.uuid4())),
            ("CSeq", "1 OPTIONS"),
            ("Max-Forwards", "70"),
            ("Contact", self.contact),
        ]
        return await self.ua.send(message, await self.connection()).final()

    @property
    def gateway_host(self) -> str:
        assert self.gateway is not None
        return f"{self.gateway[0]}:{self.gateway[1]}"

    async def _open(self, tone: float | None, codecs: tuple[str, ...] | None) -> RtpPeer:
        return await self.media.open(
            tone=self.tone if tone is None else tone,
            codec=(codecs or self.codecs)[0],
            telephone_event=self.telephone_event,
            srtp=self.srtp,
            rtcp_mux=False,
        )

    # ---- what comes in ----------------------------------------------------------------------------------

    def _on_request(self, transaction: ServerTx) -> None:
        method = transaction.request.method
        if method == "INVITE":
            if self.challenge is not None and not self._proven(transaction.request, self.challenge):
                self._demand(transaction, self.challenge)
                return
            transaction.respond(100)
            self._waiting.append(transaction)
            self._arrived.set()
        elif method == "OPTIONS":
            transaction.respond(200, to_tag=new_tag(), headers=[("Contact", self.contact)])
        else:
            transaction.respond(405, "Method Not Allowed", to_tag=new_tag())

    def _demand(self, transaction: ServerTx, challenge: Challenge) -> None:
        nonce = secrets.token_hex(8)
        self._nonces.add(nonce)
        name = "WWW-Authenticate" if challenge.code == 401 else "Proxy-Authenticate"
        qop = f', qop="{challenge.qop}"' if challenge.qop else ""
        value = f'Digest realm="{challenge.realm}", nonce="{nonce}", algorithm={challenge.algorithm}{qop}'
        transaction.respond(challenge.code, to_tag=new_tag(), headers=[(name, value)])

    def _proven(self, request: WireMessage, challenge: Challenge) -> bool:
        """RFC 7616 with this challenge; wrong credentials are counted."""
        value = request.get("Authorization" if challenge.code == 401 else "Proxy-Authorization")
        if not value:
            return False
        given = {
            key: quoted or plain
            for key, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^",\s]+))', value)
        }
        hashing = hashlib.sha256 if challenge.algorithm == "SHA-256" else hashlib.md5

        def digest(text: str) -> str:
            return hashing(text.encode()).hexdigest()

        secret = digest(f"{challenge.username}:{challenge.realm}:{challenge.password}")
        subject = digest(f"INVITE:{given.get('uri', '')}")
        middle = given.get("nonce", "")
        if challenge.qop:
            middle += f":{given.get('nc', '')}:{given.get('cnonce', '')}:{given.get('qop', '')}"
        right = given.get("response") == digest(f"{secret}:{middle}:{subject}")
        known = given.get("nonce") in self._nonces and given.get("username") == challenge.username
        if not (right and known):
            self.refused_credentials += 1
        return right and known


if __name__ == "__main__":
    from tests.peers.contact_center_cli import main

    main()
