"""One scripted call of a test peer, either side: what Teams' and the contact center's stand-in share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from tests.peers.rtp import RtpPeer
from tests.peers.sipwire import WireMessage
from tests.peers.sipwire_net import Connection
from tests.peers.sipwire_sdp import MIRROR, Audio, audio
from tests.peers.sipwire_ua import PATIENCE, ClientTx, Dialog, DialogUser, ServerTx, WireUa

CODECS = ("PCMA", "PCMU", "G722")
SENDING = ("sendrecv", "sendonly")
Headers = Iterable[tuple[str, str]]


class WireCall(DialogUser):
    """A call with its dialog, its media and everything that came in.

    In-dialog requests are answered as `auto` says (200 and a mirrored description by default) and kept in
    `inbox`, where `expect` takes them one by one. Delete an entry of `auto` to answer by hand.
    """

    def __init__(self, ua: WireUa, dialog: Dialog, connection: Connection, rtp: RtpPeer) -> None:
        self.ua, self.dialog, self.connection, self.rtp = ua, dialog, connection, rtp
        self.invited: ServerTx | None = None
        self.inviting: ClientTx | None = None
        self.inbox: list[ServerTx] = []
        self.acks: list[WireMessage] = []
        self.local_sdp = b""
        self.remote: Audio | None = None
        self.direction = "sendrecv"
        self.established = False
        self.ended = False
        self.ended_at = 0.0
        self.send_ack = True
        self.auto: dict[str, Callable[[ServerTx], None]] = {
            "INVITE": self.answer_offer,
            "UPDATE": self.answer_offer,
            "BYE": self._on_bye,
            **dict.fromkeys(("INFO", "MESSAGE", "OPTIONS", "NOTIFY"), lambda tx: _discard(tx.respond(200))),
        }
        self._changed = asyncio.Event()

    # ---- what a stand-in fills in -----------------------------------------------------------------

    def headers(self, method: str, code: int = 0) -> list[tuple[str, str]]:
        """Contact, Allow and the like of a request (code 0) or a response."""
        raise NotImplementedError

    def offer(self, direction: str = "sendrecv") -> bytes:
        raise NotImplementedError

    def answer_to(self, offer: bytes, direction: str) -> bytes:
        raise NotImplementedError

    async def ready(self) -> None:
        """Before a request of ours: find a new connection if the call's is gone."""

    # ---- waiting ------------------------------------------------------------------------------------

    def note(self) -> None:
        """Something changed: wake those who wait."""
        self._changed.set()

    async def until(self, predicate: Callable[[], bool], what: str, within: float = PATIENCE) -> None:
        """AssertionError naming `what` when the predicate is not true in time."""
        deadline = asyncio.get_running_loop().time() + within
        while not predicate():
            self._changed.clear()
            try:
                remaining = deadline - asyncio.get_running_loop().time()
                await asyncio.wait_for(self._changed.wait(), max(remaining, 0.001))
            except TimeoutError:
                if not predicate():
                    raise AssertionError(f"{self.ua.wire.owner}: no {what} within {within} s") from None

    async def expect(self, method: str, within: float = PATIENCE) -> ServerTx:
        """The next in-dialog request of this method that nobody took yet."""
        await self.until(lambda: any(tx.request.method == method for tx in self.inbox), method, within)
        transaction = next(tx for tx in self.inbox if tx.request.method == method)
        self.inbox.remove(transaction)
        return transaction

    async def expect_end(self, within: float = PATIENCE) -> None:
        """Until the other side has hung up, cancelled, or we have."""
        await self.until(lambda: self.ended, "end", within)

    # ---- called side --------------------------------------------------------------------------------

    def ring(self, tags: Iterable[str] = (), code: int = 180, headers: Headers = ()) -> None:
        """180 (or 181) without a description; with several `tags` one for each forked endpoint."""
        for tag in tuple(tags) or (self.dialog.local_tag,):
            self._respond(code, tag, headers)

    def progress(self, code: int = 183, tag: str = "", headers: Headers = ()) -> None:
        """A provisional response with our description; media flows from now on."""
        self._respond(code, tag or self.dialog.local_tag, headers, self._description())

    async def answer(self, tag: str = "", headers: Headers = (), *, wait_for_ack: bool = True) -> None:
        """200; returns when the ACK is there."""
        assert self.invited is not None
        if tag:
            self.dialog.local_tag = tag
        self.ua.adopt(self)
        self.established = True
        self._respond(200, self.dialog.local_tag, headers, self._description())
        if wait_for_ack:
            await self.until(lambda: bool(self.acks), "ACK")

    async def reject(self, code: int, phrase: str = "", headers: Headers = ()) -> None:
        """A final non-2xx; returns when the ACK is there."""
        assert self.invited is not None
        self.invited.respond(code, phrase, to_tag=self.dialog.local_tag, headers=headers)
        invited = self.invited
        await self.until(lambda: invited.ack is not None, f"ACK to our {code}")
        self._end()

    def _description(self) -> bytes:
        assert self.invited is not None
        if not self.local_sdp:
            offer = self.invited.request.sdp()
            self.local_sdp = self.answer_to(offer, MIRROR[audio(offer).direction]) if offer else self.offer()
            if offer:
                self.hear(offer)
        return self.local_sdp

    def _respond(self, code: int, tag: str, headers: Headers, body: bytes = b"") -> None:
        assert self.invited is not None
        extra = [*self.headers("INVITE", code), *headers]
        self.invited.respond(code, to_tag=tag, headers=extra, body=body)

    def _on_cancel(self, transaction: ServerTx) -> None:
        transaction.respond(487, to_tag=self.dialog.local_tag)
        self._end()

    def take(self, transaction: ServerTx) -> None:
        """This call is the answerer of an INVITE."""
        self.invited = transaction
        transaction.on_cancel = self._on_cancel
        transaction.on_ack = self.note
        self.ua.adopt(self)

    # ---- calling side -------------------------------------------------------------------------------

    def start(self, request: WireMessage) -> None:
        """Send the first INVITE (without Via), follow what comes back."""
        self.ua.adopt(self)
        self.local_sdp = request.sdp()
        self.inviting = self.ua.send(request, self.connection)
        self.inviting.on_response = self._on_response

    def _on_response(self, response: WireMessage) -> None:
        assert self.inviting is not None
        code = response.code
        if 100 < code < 300 and response.sdp() and self.local_sdp:
            self.hear(response.sdp())
        if 200 <= code < 300:
            if not self.dialog.remote_tag or not self.established:
                self.dialog.confirm(response)
            self.established = True
            body = b""
            if not self.local_sdp:
                self.local_sdp = body = self.answer_to(response.sdp(), "sendrecv")
                self.hear(response.sdp())
            elif not self.inviting.request.sdp():
                body = self.local_sdp
            if self.send_ack:
                self.acknowledge(self.inviting.request.cseq[0], body)
        elif code >= 300:
            self._end()
        self.note()

    def acknowledge(self, cseq: int, body: bytes = b"") -> None:
        """ACK of a 2xx."""
        ack = self.dialog.request("ACK", self.ua.case, cseq=cseq)
        ack.headers += self.headers("ACK")
        self._attach(ack, body, "application/sdp")
        self.ua.send(ack, self.connection)

    async def ringing(self, code: int = 180, within: float = PATIENCE) -> WireMessage:
        """The first response of that provisional code."""
        assert self.inviting is not None
        seen = self.inviting.seen
        await self.until(lambda: any(r.code == code for r in seen) or self.ended, str(code), within)
        found = next((r for r in seen if r.code == code), None)
        assert found is not None, f"wanted {code}, got {[r.code for r in seen]}"
        return found

    async def answered(self, within: float = PATIENCE) -> WireMessage:
        """The 200; its ACK is sent. Another final answer is an AssertionError."""
        response = await self.outcome(within)
        assert response.code == 200, f"call failed: {response.raw!r}"
        return response

    async def outcome(self, within: float = PATIENCE) -> WireMessage:
        """The final response, whatever it is."""
        assert self.inviting is not None
        seen = self.inviting.seen
        await self.until(lambda: any(r.code >= 200 for r in seen), "final response", within)
        return next(r for r in seen if r.code >= 200)

    async def cancel(self, headers: Headers = ()) -> WireMessage:
        """CANCEL; returns the INVITE's final response."""
        assert self.inviting is not None
        self.inviting.cancel(headers)
        return await self.outcome()

    # ---- in the call ----------------------------------------------------------------------------------

    def send(
        self, method: str, headers: Headers = (), body: bytes = b"", content_type: str = "application/sdp"
    ) -> ClientTx:
        """An in-dialog request on the call's connection."""
        request = self.dialog.request(method, self.ua.case)
        request.headers += [*self.headers(method), *headers]
        self._attach(request, body, content_type)
        return self.ua.send(request, self.connection)

    def _attach(self, request: WireMessage, body: bytes, content_type: str) -> None:
        if body:
            request.headers.append((self.ua.case("Content-Type"), content_type))
            request.body = body

    async def reoffer(self, sdp: bytes, *, method: str = "INVITE", headers: Headers = ()) -> WireMessage:
        """re-INVITE or UPDATE with this description (b"": offerless); returns the final answer."""
        await self.ready()
        transaction = self.send(method, headers, sdp)
        response = await transaction.final()
        if response.code != 200:
            return response
        body = b""
        if sdp:
            self.local_sdp = sdp
            self.direction = audio(sdp).direction
        elif response.sdp():
            body = self.answer_to(response.sdp(), MIRROR[audio(response.sdp()).direction])
            self.local_sdp = body
        if response.sdp():
            self.hear(response.sdp())
        if method == "INVITE":
            self.acknowledge(transaction.request.cseq[0], body)
        return response

    async def bye(self, headers: Headers = ()) -> WireMessage:
        """Hang up; returns the answer to the BYE."""
        await self.ready()
        response = await self.send("BYE", headers).final()
        self._end()
        return response

    def on_request(self, transaction: ServerTx) -> None:
        if transaction.request.get("Contact"):
            self._retarget(transaction.request)
        self.inbox.append(transaction)
        handler = self.auto.get(transaction.request.method)
        if handler is not None:
            handler(transaction)
        elif transaction.request.method not in MANUAL:
            transaction.respond(501, "Not Implemented")
        self.note()

    def _retarget(self, request: WireMessage) -> None:
        if request.method in ("INVITE", "UPDATE"):
            self.dialog.target = request.get("Contact").partition("<")[2].partition(">")[0]

    def on_ack(self, ack: WireMessage) -> None:
        self.acks.append(ack)
        if ack.sdp():
            self.hear(ack.sdp())
        self.note()

    def answer_offer(self, transaction: ServerTx) -> None:
        """200 to a re-INVITE or UPDATE: a mirrored answer, or our own offer when there was none."""
        offer = transaction.request.sdp()
        method = transaction.request.method
        body = b""
        if offer:
            self.direction = MIRROR[audio(offer).direction]
            self.local_sdp = body = self.answer_to(offer, self.direction)
            self.hear(offer)
        elif method == "INVITE":
            self.local_sdp = body = self.offer()
        transaction.respond(200, headers=self.headers(method, 200), body=body)

    def _on_bye(self, transaction: ServerTx) -> None:
        transaction.respond(200)
        self._end()

    def _end(self) -> None:
        self.ended = True
        self.ended_at = asyncio.get_running_loop().time()
        self.rtp.pause()
        self.note()

    async def close(self) -> None:
        """Free media and memory; says nothing on the wire."""
        await self.rtp.close()

    # ---- media ----------------------------------------------------------------------------------------

    def hear(self, sdp: bytes) -> None:
        """Send to, in the codec and with the event number of, the party described; silent when held."""
        view = audio(sdp)
        self.remote = view
        agreed = audio(self.local_sdp).names() if self.local_sdp else CODECS
        common = [name for name in view.names() if name in CODECS and name in agreed]
        if not common or view.port == 0:
            self.rtp.pause()
            return
        if common[0] != self.rtp.codec:
            self.rtp.use_codec(common[0])
        self.rtp.telephone_event = view.number("telephone-event")
        if view.address == "0.0.0.0":
            self.rtp.pause()
            return
        self.rtp.follow(sdp)
        if view.direction in ("sendrecv", "recvonly") and self.direction in SENDING and not self.ended:
            self.rtp.resume()
        else:
            self.rtp.pause()


MANUAL = ("INVITE", "UPDATE", "BYE", "INFO", "MESSAGE", "OPTIONS", "NOTIFY", "REFER", "PRACK")


def _discard(_response: WireMessage) -> None:
    return None
