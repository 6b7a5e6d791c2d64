"""The way to the peer: which flow or address a request of ours takes, and its retries (challenge, lost
connection).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.errors import SipError, TransportError
from gateway.sip.auth import Authenticator
from gateway.sip.dialog import Dialog
from gateway.sip.message import Request, Response
from gateway.sip.profile import Profile
from gateway.sip.session_ports import ClientTransactionPort, ResolverPort, TransactionsPort
from gateway.sip.session_values import Hop, extra_headers, hop_of
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import Target, TransportKind

log = logging.getLogger("tandem.sip")

Place = Flow | Target
MAX_REDIALS = 3
"""Other addresses tried for one request inside a dialog whose connection is gone."""
MAX_ATTEMPTS = 4
"""Sendings of one request: first, two challenges (401 and 407), one lost connection or stale nonce."""


@dataclass(slots=True)
class _Job:
    dialog: Dialog
    send: Callable[[Place], None]
    failed: Callable[[SipError], None]


class Link:
    """The way to one peer for one session; all its dialogs (forks) share it.

    A stream flow is used while it is open. A datagram flow has no "open": there the dialog's next hop decides
    (RFC 3261 12.2.1.1), unless the profile says that the peer sits behind a NAT. Everything else is
    resolved and
    dialled anew with the host name for SNI (T11). Requests keep their order also while a name is being
    resolved.
    """

    def __init__(
        self,
        transactions: TransactionsPort,
        resolver: ResolverPort,
        profile: Profile,
        place: Place | None,
        tasks: set[asyncio.Task[None]],
        kind: TransportKind | None = None,
    ) -> None:
        self.transactions = transactions
        self.profile = profile
        self.place = place
        self.auth = Authenticator(profile.credentials)
        self._kind = place.kind if place is not None else kind or TransportKind.UDP
        self._resolver = resolver
        self._tasks = tasks
        self._jobs: deque[_Job] = deque()
        self._dead: set[Place] = set()

    @property
    def kind(self) -> TransportKind:
        return self._kind

    @property
    def flow(self) -> Flow | None:
        return self.place if isinstance(self.place, Flow) else None

    def came_by(self, flow: Flow) -> None:
        """A request of the peer's arrived on `flow`: adopt it when our own connection is gone."""
        current = self.place
        if current is None or (isinstance(current, Flow) and (current.closed or current.draining)):
            self.place, self._kind = flow, flow.kind

    def went_by(self, transaction: ClientTransactionPort | None) -> None:
        """Our request was answered: its flow is the one to keep using."""
        self._dead.clear()
        flow = transaction.flow if transaction is not None else None
        if isinstance(flow, Flow) and not (isinstance(self.place, Flow) and not self.place.draining):
            self.place, self._kind = flow, flow.kind

    def lost(self, place: Place | None) -> None:
        """`place` failed under a request: dial the dialog's next hop from now on, another of its
        addresses.
        """
        if place is not None:
            self._dead.add(place)
        self.place = None

    def submit(
        self, dialog: Dialog, send: Callable[[Place], None], failed: Callable[[SipError], None]
    ) -> None:
        """Call `send` with the place to send to, at once when it is known without asking the DNS."""
        job = _Job(dialog, send, failed)
        if self._jobs:
            self._jobs.append(job)
            return
        try:
            place = self._known_place(dialog)
        except SipError as error:
            failed(error)
            return
        if place is not None:
            self._run(job, place)
            return
        self._jobs.append(job)
        task = asyncio.get_running_loop().create_task(self._resolve_all())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def ack(self, dialog: Dialog, ack: Request) -> None:
        """Send the ACK of a 2xx; a failure is logged, the peer's retransmission will ask for another."""

        def send(place: Place) -> None:
            self.transactions.send_ack(ack, place, self.profile.via_host)

        def failed(error: SipError) -> None:
            log.warning("ack_failed call_id=%s error=%s", dialog.call_id, error)

        self.submit(dialog, send, failed)

    def _run(self, job: _Job, place: Place) -> None:
        try:
            job.send(place)
        except SipError as error:
            job.failed(error)

    def _known_place(self, dialog: Dialog) -> Place | None:
        place = self.place
        if place is not None and not dialog.remote_tag and not dialog.confirmed:
            return place
        if isinstance(place, Flow) and not place.closed:
            # one that drains may be dead: dial the next hop, unless only this flow leads through a NAT
            lasting = place.reliable and not place.draining
            if lasting or not self.profile.follow_contact:
                return place
        hop = hop_of(dialog.next_hop())
        kind = self._kind_of(hop)
        port = hop.port or (5061 if kind is TransportKind.TLS else 5060)
        if isinstance(place, Flow) and not place.closed and not place.draining and kind is place.kind:
            if (hop.host, port) == (place.remote[0], place.remote[1]):
                return place
        elif isinstance(place, Target) and (kind, port) == (place.kind, place.port):
            same = hop.host in (place.address, place.name)
            if same:
                return place
        direct = Target(kind, hop.host, port)
        return direct if hop.is_address and direct not in self._dead else None

    def _kind_of(self, hop: Hop) -> TransportKind:
        """The URI's transport; without one we stay on the transport the dialog is on (T11: Contact without
        it).
        """
        if hop.secure:
            return TransportKind.TLS
        try:
            return TransportKind(hop.transport) if hop.transport else self._kind
        except ValueError:
            return self._kind

    async def _resolve_all(self) -> None:
        while self._jobs:
            job = self._jobs[0]
            place: Place | None = None
            failure: SipError | None = None
            try:
                place = self._known_place(job.dialog) or await self._resolve(job.dialog)
            except SipError as error:
                failure = error
            self._jobs.popleft()
            if place is not None:
                self._run(job, place)
            else:
                job.failed(failure or TransportError("no address for the next hop"))

    async def _resolve(self, dialog: Dialog) -> Place:
        hop = hop_of(dialog.next_hop())
        try:
            targets = await self._resolver.resolve(hop.host, hop.port, self._kind_of(hop))
        except SipError:
            targets = []
        for target in targets:
            if target not in self._dead:
                return target
        if isinstance(self.place, Flow) and not self.place.closed:
            return self.place
        raise TransportError(f"no address for {hop.host}")


class Exchange:
    """One request of ours with its retries: 401/407 answered, a lost connection dialled anew (each with a
    new CSeq).

    on_response gets provisional and final responses, and for INVITE every 2xx; on_failure comes once, instead
    of a final response. Once cancelled it is not sent again: a challenge is then a refusal like any other.
    """

    def __init__(
        self,
        link: Link,
        dialog: Dialog,
        method: str,
        *,
        on_response: Callable[[Exchange, Response], None],
        on_failure: Callable[[SipError], None],
        headers: Sequence[tuple[str, str]] = (),
        extra: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str | None = None,
        contact: str | None = None,
        max_forwards: int = 70,
        branch: str = "",
    ) -> None:
        """`branch`: of the first sending's Via, when it was written down before."""
        self.link = link
        self.dialog = dialog
        self.method = method
        self.headers = list(headers)
        self.extra = extra_headers(extra)
        self.body = body
        self.content_type = content_type
        self.contact = contact
        self.request: Request | None = None
        self.transaction: ClientTransactionPort | None = None
        self._max_forwards, self._branch = max_forwards, branch
        self._on_response = on_response
        self._on_failure = on_failure
        self._attempts = 0
        self._cancelled = False
        self._answered: frozenset[tuple[str, str]] = frozenset()
        self._place: Place | None = None
        self._redials = 0

    @property
    def cseq(self) -> int:
        return int(self.request.headers["CSeq"].split()[0]) if self.request is not None else 0

    def send(self) -> None:
        """Send it, or send it again with the next CSeq and answers to the challenges seen so far."""
        self._attempts += 1
        attempt = self._attempts
        uri, _ = self.dialog.route()
        self._answered = self.link.auth.realms
        authorization = self.link.auth.answers(self.method, uri, self.body)
        self.request = self.dialog.request(
            self.method,
            self.dialog.next_cseq(),
            contact=self.contact,
            headers=[*self.headers, *authorization, *self.extra],
            body=self.body,
            content_type=self.content_type,
            max_forwards=self._max_forwards,
        )
        request = self.request
        branch = self._branch if attempt == 1 else ""

        def at(place: Place) -> None:
            self._place = place
            self.transaction = self.link.transactions.request(
                request,
                place,
                via_host=self.link.profile.via_host,
                tcp_switch=self.link.profile.tcp_switch,
                branch=branch,
                on_response=lambda response: self._response(attempt, response),
                on_failure=lambda error: self._failure(attempt, error),
            )

        self.link.submit(self.dialog, at, lambda error: self._failure(attempt, error))

    def cancel(self, headers: Sequence[tuple[str, str]] = ()) -> None:
        self._cancelled = True
        if self.transaction is not None:
            self.transaction.cancel(headers)

    def acknowledgement(self) -> list[tuple[str, str]]:
        """Credentials of the request, which the ACK of its 2xx must repeat (RFC 3261 22.1)."""
        if self.request is None:
            return []
        return [
            (name, value)
            for name in ("Authorization", "Proxy-Authorization")
            for value in self.request.headers.getlist(name)
        ]

    def _response(self, attempt: int, response: Response) -> None:
        if attempt != self._attempts:
            return
        self.link.went_by(self.transaction)
        if (
            response.code in (401, 407)
            and not self._cancelled
            and self._attempts < MAX_ATTEMPTS
            and self.link.auth.learn(response, self._answered)
        ):
            self.send()
            return
        self._on_response(self, response)

    def _failure(self, attempt: int, error: SipError) -> None:
        if attempt != self._attempts:
            return
        in_dialog = bool(self.dialog.remote_tag)
        if isinstance(error, TransportError) and in_dialog and self._redials < MAX_REDIALS:
            place, self._place = self._place, None
            if place is not None:
                self._redials += 1
                self.link.lost(place)
                self.send()
                return
        self._on_failure(error)
