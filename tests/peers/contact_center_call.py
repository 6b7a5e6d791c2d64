"""A call as a contact center has it: hold in every dialect, transfer, reliable ringing, session refresh."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from tests.peers.rtp import RtpPeer
from tests.peers.sipwire import WireMessage, address
from tests.peers.sipwire_call import CODECS, Headers, WireCall
from tests.peers.sipwire_net import Connection
from tests.peers.sipwire_sdp import audio
from tests.peers.sipwire_ua import PATIENCE, Dialog, ServerTx

if TYPE_CHECKING:
    from tests.peers.contact_center import ContactCenter

Hold = Literal["sendonly", "inactive", "recvonly", "zero", "offerless"]
Method = Literal["INVITE", "UPDATE"]
SUITE = "AES_CM_128_HMAC_SHA1_80"
ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, NOTIFY, REFER, INFO, UPDATE, PRACK, MESSAGE"


class CenterCall(WireCall):
    """One leg at the contact-center side."""

    def __init__(self, center: ContactCenter, dialog: Dialog, connection: Connection, rtp: RtpPeer) -> None:
        super().__init__(center.ua, dialog, connection, rtp)
        self.center = center
        self.codecs = center.codecs
        self.allow = ALLOW
        self.supported = "replaces, timer, 100rel"
        self.notifies: list[WireMessage] = []
        self.auto["NOTIFY"] = self._on_notify
        self.auto["PRACK"] = lambda tx: _discard(tx.respond(200))
        self._rseq = 0

    def headers(self, method: str, code: int = 0) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        if method in ("INVITE", "UPDATE", "REFER") and (not code or 100 < code < 300):
            found += [("Contact", self.center.contact), ("Allow", self.allow), ("Supported", self.supported)]
        if code == 200 and self.center.granted and method in ("INVITE", "UPDATE"):
            found += [("Require", "timer"), ("Session-Expires", self.center.granted)]
        elif method == "INVITE" and code == 200 and self.invited is not None and "timer" in self.supported:
            expires = self.invited.request.get("Session-Expires").split(";")[0]
            if expires:
                found += [("Require", "timer"), ("Session-Expires", f"{expires};refresher=uac")]
        return found

    async def ready(self) -> None:
        if self.connection.closed:
            self.connection = await self.center.connection()

    def offer(self, direction: str = "sendrecv") -> bytes:
        return self.rtp.description(direction, codecs=self.codecs)

    def answer_to(self, offer: bytes, direction: str) -> bytes:
        """The first codec of the offer that we have; the offer's number for telephone-event."""
        view = audio(offer)
        common = [name for name in view.names() if name in CODECS and name in self.codecs]
        assert common, f"no common codec in {view.names()}"
        if common[0] != self.rtp.codec:
            self.rtp.use_codec(common[0])
        if self.center.telephone_event is not None:
            self.rtp.telephone_event = view.number("telephone-event")
        crypto = None
        if view.crypto:
            tag = next((line.tag for line in view.crypto if line.suite == SUITE), view.crypto[0].tag)
            crypto = self.rtp.crypto_line(tag)
        return self.rtp.description(direction, codecs=(common[0],), crypto=crypto)

    # ---- ringing --------------------------------------------------------------------------------------

    async def ring_reliably(self, code: int = 180, *, early_media: bool = False) -> WireMessage:
        """A provisional response that needs PRACK (RFC 3262); returns the PRACK."""
        self._rseq += 1
        headers = [("Require", "100rel"), ("RSeq", str(self._rseq))]
        if early_media:
            self.progress(code, headers=headers)
        else:
            self.ring(code=code, headers=headers)
        return (await self.expect("PRACK")).request

    def _on_response(self, response: WireMessage) -> None:
        if 100 < response.code < 200 and response.get("RSeq"):
            self.dialog.confirm(response)
            number, method = response.cseq
            self.send("PRACK", [("RAck", f"{response.get('RSeq')} {number} {method}")])
        super()._on_response(response)

    # ---- hold -------------------------------------------------------------------------------------------

    async def hold(self, how: Hold = "sendonly", method: Method = "INVITE") -> WireMessage:
        """Hold by direction, by c=0.0.0.0 (RFC 2543), or offerless; returns the final answer."""
        self.rtp.version += 1
        if how == "offerless":
            return await self.reoffer(b"", method=method)
        if how == "zero":
            sdp = self.offer().replace(f"c=IN IP4 {self.rtp.host}".encode(), b"c=IN IP4 0.0.0.0")
            return await self.reoffer(sdp, method=method)
        return await self.reoffer(self.offer(how), method=method)

    async def resume(self, method: Method = "INVITE") -> WireMessage:
        self.rtp.version += 1
        return await self.reoffer(self.offer(), method=method)

    async def refresh(self, method: Method = "INVITE") -> WireMessage:
        """Session refresh: the same description again, or an UPDATE without one."""
        timer = [("Session-Expires", f"{self.center.session_expires or 1800};refresher=uac")]
        if method == "UPDATE":
            return await self.send("UPDATE", timer).final()
        return await self.reoffer(self.offer(), headers=timer)

    # ---- transfer -----------------------------------------------------------------------------------------

    async def refer(
        self, target: str, *, replaces: CenterCall | None = None, headers: Headers = ()
    ) -> WireMessage:
        """REFER to a URI or number; `replaces`: attended, to that call's far end. Returns the answer."""
        await self.ready()
        if replaces is not None:
            dialog = replaces.dialog
            value = f"{dialog.call_id};to-tag={dialog.remote_tag};from-tag={dialog.local_tag}"
            escaped = value.replace("@", "%40").replace(";", "%3B").replace("=", "%3D")
            target = f"{dialog.target}?Replaces={escaped}"
        elif not target.startswith("sip:"):
            target = f"sip:{target}@{self.center.gateway_host}"
        extra = [
            ("Refer-To", f"<{target}>"),
            ("Referred-By", f"<sip:{self.center.number}@{self.center.host}>"),
        ]
        return await self.send("REFER", [*extra, *headers]).final()

    async def transferred(self, within: float = PATIENCE) -> str:
        """The last NOTIFY's fragment, once the subscription has ended."""
        await self.until(
            lambda: any(m.get("Subscription-State").startswith("terminated") for m in self.notifies),
            "final NOTIFY",
            within,
        )
        return self.notifies[-1].body.decode().splitlines()[0]

    def referred_to(self, request: WireMessage) -> str:
        """The URI of a REFER that came in."""
        return address(request.need("Refer-To")).uri

    async def digits(self, digits: str, ms: int = 120, pause: float = 0.06) -> None:
        """Press keys one after the other."""
        for digit in digits:
            await self.rtp.press(digit, ms)
            await asyncio.sleep(pause)

    def _on_notify(self, transaction: ServerTx) -> None:
        self.notifies.append(transaction.request)
        transaction.respond(200)


def _discard(_response: WireMessage) -> None:
    return None
