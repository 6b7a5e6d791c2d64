"""A call as Teams has it: what the Teams stand-in can do with one leg toward the gateway."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from tests.peers import teams_shapes as shapes
from tests.peers.rtp import RtpPeer
from tests.peers.sipwire import WireMessage, address
from tests.peers.sipwire_call import Headers, WireCall
from tests.peers.sipwire_net import Connection
from tests.peers.sipwire_ua import PATIENCE, ClientTx, Dialog, ServerTx

if TYPE_CHECKING:
    from tests.peers.teams import Teams


class Referral:
    """A REFER we sent: its answer, and the NOTIFYs that came for it."""

    def __init__(self, call: TeamsCall, transaction: ClientTx, target: str) -> None:
        self.call, self.transaction, self.target = call, transaction, target

    @property
    def uri(self) -> str:
        """What the gateway must call, byte for byte."""
        return address(self.target).uri.partition("?")[0]

    @property
    def notifies(self) -> list[WireMessage]:
        return [m for m in self.call.notifies if m.get("Event").startswith("refer")]

    @property
    def fragments(self) -> list[str]:
        """Status lines reported so far, such as 'SIP/2.0 180 Ringing'."""
        return [message.body.decode().splitlines()[0] for message in self.notifies]

    async def accepted(self, within: float = PATIENCE) -> WireMessage:
        """The answer to the REFER; AssertionError when it is not 202."""
        response = await self.transaction.final(within)
        assert response.code == 202, f"REFER got {response.code}"
        return response

    async def finished(self, within: float = PATIENCE) -> str:
        """The last fragment, once a NOTIFY said `terminated`."""
        await self.call.until(
            lambda: any(m.get("Subscription-State").startswith("terminated") for m in self.notifies),
            "final NOTIFY",
            within,
        )
        return self.fragments[-1]


class TeamsCall(WireCall):
    """One leg at the Teams side; `identity` holds its guid, api-du Contact and Record-Route name."""

    def __init__(
        self, teams: Teams, dialog: Dialog, connection: Connection, rtp: RtpPeer, shape: shapes.Shape
    ) -> None:
        super().__init__(teams.ua, dialog, connection, rtp)
        self.teams, self.shape = teams, shape
        self.identity = shapes.Identity()
        self.notifies: list[WireMessage] = []
        self.auto["NOTIFY"] = lambda tx: _note(self.notifies, tx.request, tx.respond(200))
        for method in ("UPDATE", "INFO", "MESSAGE", "PRACK", "REFER"):
            self.auto[method] = _not_allowed
        rtp.mki = b"\x01" if shape.mki_packets else b""

    # ---- how it looks -------------------------------------------------------------------------------

    @property
    def contact(self) -> tuple[str, str]:
        port = self.shape.contact_port if self.shape.record_route else self.teams.proxies[0].port
        return ("CONTACT", self.identity.contact(port))

    def headers(self, method: str, code: int = 0) -> list[tuple[str, str]]:
        found = []
        if method == "INVITE" and not code and self.shape.record_route:
            found.append(("RECORD-ROUTE", self.identity.record_route(self.teams.proxies[0].port)))
        if method == "INVITE" and 100 < code < 300 and self.shape.record_route and not self.established_route:
            found.append(("RECORD-ROUTE", self.identity.record_route(self.teams.proxies[0].port)))
        if method == "INVITE" and (not code or 100 < code < 300):
            found += [self.contact, ("ALLOW", shapes.ALLOW)]
        elif method == "REFER":
            found.append(self.contact)
        if code == 200 and method == "INVITE" and self._their_timer:
            found += [("REQUIRE", "timer"), ("SESSION-EXPIRES", f"{self._their_timer};refresher=uac")]
        found.append(("SERVER" if code else "USER-AGENT", shapes.PRODUCT))
        return found

    @property
    def established_route(self) -> bool:
        """A re-INVITE's answer carries no Record-Route of its own."""
        return self.invited is None

    @property
    def _their_timer(self) -> int:
        if self.invited is None:
            return 0
        supported = "timer" in {value.lower() for value in self.invited.request.all("Supported")}
        value = self.invited.request.get("Session-Expires").split(";")[0]
        return int(value) if value and supported else 0

    def offer(self, direction: str = "sendrecv") -> bytes:
        return shapes.offer(self.rtp, self.shape, direction)

    def answer_to(self, offer: bytes, direction: str) -> bytes:
        return shapes.answer(self.rtp, offer, self.shape, direction)

    async def ready(self) -> None:
        if self.connection.closed:
            self.connection = await self.teams.connect()

    # ---- before the answer --------------------------------------------------------------------------

    def progress183(self, *, silent: bool = True, tag: str = "") -> None:
        """183 with a description; the audio behind it is silence unless told otherwise (T12)."""
        if silent:
            self.rtp.say(0)
        self.progress(183, tag)

    # ---- hold, refresh, re-key ------------------------------------------------------------------------

    async def hold(self, direction: str = "inactive") -> WireMessage:
        """re-INVITE with a=inactive; returns the gateway's final response."""
        self.rtp.version += 1
        return await self.reoffer(self.offer(direction))

    async def resume(self, *, new_key: bool = False, roc_reset: bool = True) -> WireMessage:
        """re-INVITE with a=sendrecv, perhaps under a new SRTP key.

        Teams' roll-over counter starts at 0 again with a new key. `roc_reset` False keeps key and counter.
        """
        self.rtp.version += 1
        if new_key and roc_reset:
            self.rtp.use_key(os.urandom(len(self.rtp.local_key)))
        return await self.reoffer(self.offer())

    async def refresh(self) -> WireMessage:
        """Session refresh: the very same description again, byte for byte."""
        return await self.reoffer(self.local_sdp)

    async def change_connection(self, source: str = "127.0.0.2") -> None:
        """From now on this call's requests come on a new TLS connection from another address (T11)."""
        self.connection = await self.teams.connect(source)

    # ---- transfer ---------------------------------------------------------------------------------------

    async def refer(
        self,
        kind: str = "user",
        *,
        number: str = "",
        consultative: TeamsCall | None = None,
        target: str = "",
        length: int = 0,
        bye_after: float | None = None,
    ) -> Referral:
        """REFER to a Teams user, a number or music; returns once 202 is there.

        consultative   the call it shall replace: encoded in Referred-By, as Teams does
        target         a Refer-To value of the caller's own instead
        bye_after      the transferor's BYE, so many seconds after the 202 (seen: 0.28, T18)
        """
        target = target or shapes.refer_to(kind, number, length, self.teams.proxies[0].port)
        replacement = consultative.dialog.target if consultative is not None else ""
        await self.ready()
        transaction = self.send(
            "REFER", [("REFER-TO", target), ("REFERRED-BY", shapes.referred_by(replacement))]
        )
        referral = Referral(self, transaction, target)
        await referral.accepted()
        if bye_after is not None:
            await asyncio.sleep(bye_after)
            await self.hang_up()
        return referral

    async def hold_by_refer(self, tone: float = 350.0) -> TeamsCall:
        """Hold as a transfer to Teams' music player: REFER, the gateway calls back, the old leg goes.

        Returns the music leg; `retrieve` on it ends the hold.
        """
        referral = await self.refer("music")
        music = await self.teams.expect_invite()
        assert music.invited is not None
        assert music.invited.request.uri == referral.uri
        music.rtp.say(tone)
        await music.answer()
        await referral.finished()
        await self.hang_up()
        return music

    async def retrieve(self, tone: float = 700.0) -> TeamsCall:
        """The user takes the held call back: a new INVITE that replaces this leg."""
        return await self.teams.replaces(self, tone=tone)

    # ---- end ------------------------------------------------------------------------------------------

    async def hang_up(
        self, cause: int = 16, phrase: str = "Normal call clearing", headers: Headers = ()
    ) -> None:
        """BYE with Teams' Reason; AssertionError when it is not answered with 200."""
        response = await self.bye([("REASON", self.identity.reason(cause, phrase)), *headers])
        assert response.code == 200, f"BYE got {response.code}"

    async def decline(self, code: int = 603, phrase: str = "", cause: int = 21) -> None:
        """A final refusal with Teams' Reason."""
        await self.reject(code, phrase, [("REASON", self.identity.reason(cause, phrase or "Call declined"))])


def _not_allowed(transaction: ServerTx) -> None:
    transaction.respond(405, "Method Not Allowed", headers=[("ALLOW", shapes.ALLOW)])


def _note(notifies: list[WireMessage], request: WireMessage, _response: WireMessage) -> None:
    notifies.append(request)
