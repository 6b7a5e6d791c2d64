"""Keeps what trunks know fresh: names are resolved anew, peers are pinged, trouble is named with its cure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from gateway.clock import Clock
from gateway.errors import SipError
from gateway.sip.message import Request, Response
from gateway.sip.options import Pong, answer_options, ping
from gateway.sip.session_ports import ResolverPort, TransactionsPort
from gateway.sip.transport_types import Endpoint, Target, is_ip
from gateway.trunks.health import PeerHealth, PeerState, retry_after
from gateway.trunks.hunting import MOST_ADDRESSES
from gateway.trunks.registry import Trunks
from gateway.trunks.trunk import Recognition, Trunk
from gateway.trunks.uris import sip_uri

log = logging.getLogger("tandem.trunks")

RESOLVE_INTERVAL = 30.0
"""Seconds between looks at a peer's name; the resolver's cache answers until the TTL is over (T10)."""
ANSWER_LIMIT = 10.0
"""Seconds an OPTIONS may take."""
FIRST_LIMIT = 5.0
"""Seconds that start-up waits for the names of all peers."""
UNHEARD_AFTER = 300.0
"""Seconds after which Teams takes a trunk it has not heard from for unhealthy (facts 2); the same for us."""
DRAINING_RETRY = 30
"""Retry-After, seconds, while we take no calls."""


class Prober:
    """One task per peer: `learn`, open the listeners, `start`; `close` ends everything."""

    def __init__(
        self, trunks: Trunks, transactions: TransactionsPort, resolver: ResolverPort, clock: Clock
    ) -> None:
        self._trunks = trunks
        self._transactions = transactions
        self._resolver = resolver
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._wake: dict[tuple[str, str], asyncio.Event] = {}

    async def learn(self) -> None:
        """Resolve every peer's name, waiting a little for slow DNS.

        To be called before the listeners open, so that no peer is taken for a stranger.
        """
        work = [self.resolve(trunk, peer) for trunk in self._trunks for peer in trunk.peers]
        try:
            async with asyncio.timeout(FIRST_LIMIT):
                await asyncio.gather(*work)
        except TimeoutError:
            log.warning("names are slow to resolve limit=%gs", FIRST_LIMIT)

    async def start(self) -> None:
        """Begin to ping; the listeners are open, because OPTIONS over UDP leave by them."""
        for trunk in self._trunks:
            for peer in trunk.peers:
                self._wake[trunk.name, peer] = asyncio.Event()
                self._tasks.append(asyncio.create_task(self._watch(trunk, peer), name=f"probe {peer}"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def nudge(self, trunk: str, peer: str = "") -> None:
        """Look at a peer now (all of the trunk's when ""): a call failed there, or a certificate changed."""
        for (name, key), event in self._wake.items():
            if name == trunk and peer in ("", key):
                event.set()

    async def resolve(self, trunk: Trunk, peer: str) -> list[Target]:
        """The peer's addresses at this moment (live DNS with its TTL), admitted from now on; [] when none."""
        endpoint = trunk.peers[peer]
        health = trunk.health[peer]
        now = self._clock.now()
        try:
            targets = await self._resolver.resolve(endpoint.host, endpoint.named_port, endpoint.kind)
        except SipError as error:
            trunk.admission.refresh([endpoint.host], now)
            log.warning(
                "name not resolved trunk=%s peer=%s reason=%r cure=%r",
                trunk.name,
                peer,
                error.text,
                "check the peer's name and this host's DNS",
            )
            return []
        if not is_ip(endpoint.host):
            trunk.admission.learn(endpoint.host, (target.address for target in targets), now)
        health.addresses = tuple(dict.fromkeys(target.address for target in targets))
        trunk.found[peer] = tuple(targets)
        return targets

    async def probe(self, trunk: Trunk, peer: str) -> None:
        """One round for one peer: resolve, ping as each tenant, and judge."""
        targets = await self.resolve(trunk, peer)
        health = trunk.health[peer]
        if not targets:
            health.missed("name not resolved", self._clock.now())
            return
        for index, tenant in enumerate(trunk.probed_tenants):
            pong = await self._ping(trunk, peer, targets, tenant)
            if isinstance(pong, SipError):
                if index == 0:
                    health.missed(pong.text, self._clock.now())
                cure = _transport_cure(pong.text)
                if cure or health.state is PeerState.DOWN:
                    self._alarm(trunk, peer, cure, f"{peer} does not answer: {pong.text}")
                return
            self._judge(trunk, peer, tenant, pong, decides=index == 0)

    def heard(self, recognition: Recognition) -> None:
        """The peer pinged us: its half of the trunk works."""
        trunk = recognition.trunk
        if trunk.heard is None:
            log.info("first options from peer trunk=%s tenant=%s", trunk.name, recognition.tenant or "-")
        trunk.heard, trunk.heard_at = self._clock.wall(), self._clock.now()
        trunk.alarms.pop("unheard", None)

    def answer(self, request: Request, recognition: Recognition, *, taking_calls: bool = True) -> Response:
        """Our answer to a peer's OPTIONS, noted as a sign of life."""
        self.heard(recognition)
        profile = recognition.trunk.profile(recognition.tenant)
        return answer_options(request, profile, retry_after=None if taking_calls else DRAINING_RETRY)

    def attempt_failed(
        self, trunk: Trunk, peer: str, code: int, text: str, header: str | None = None
    ) -> None:
        """A call attempt ended with 503 or without an answer (`code` 0); `header` is its Retry-After."""
        health = trunk.health[peer]
        if code == 503:
            health.refused(retry_after(header), self._clock.now())
        elif code == 0:
            health.missed(text, self._clock.now())
            self.nudge(trunk.name, peer)

    def attempt_answered(self, trunk: Trunk, peer: str, code: int) -> None:
        """A call attempt got another final answer or an 18x: the peer is there."""
        trunk.health[peer].reachable(code, None, self._clock.now(), self._clock.wall())

    async def _watch(self, trunk: Trunk, peer: str) -> None:
        health, wake = trunk.health[peer], self._wake[trunk.name, peer]
        interval = trunk.settings.options_interval
        while True:
            try:
                health.settle(self._clock.now())
                if interval:
                    # In a hold-down, too: it keeps calls away, while Teams demotes whom it does not hear.
                    await self.probe(trunk, peer)
                    self._listen_for_silence(trunk)
                else:
                    await self.resolve(trunk, peer)
            except Exception:
                log.exception("probe failed trunk=%s peer=%s", trunk.name, peer)
            await self._pause(wake, self._wait(health, interval))

    def _wait(self, health: PeerHealth, interval: float) -> float:
        usual = interval or RESOLVE_INTERVAL
        if health.state is PeerState.HOLD_DOWN:
            return min(max(health.held_until - self._clock.now(), 0.1), usual)
        return usual

    async def _pause(self, wake: asyncio.Event, seconds: float) -> None:
        timer = self._clock.call_later(seconds, wake.set)
        try:
            await wake.wait()
        finally:
            timer.cancel()
        wake.clear()

    async def _ping(self, trunk: Trunk, peer: str, targets: Sequence[Target], tenant: str) -> Pong | SipError:
        endpoint = trunk.peers[peer]
        failure = SipError(503, "no address")
        limit = min(ANSWER_LIMIT, trunk.settings.options_interval)
        for target in targets[:MOST_ADDRESSES]:
            try:
                return await ping(
                    self._transactions,
                    self._clock,
                    trunk.profile(tenant),
                    target,
                    request_uri=_uri(endpoint),
                    to=f"<{sip_uri('', endpoint.host, endpoint.named_port)}>",
                    limit=limit,
                )
            except SipError as error:
                failure = error
        return failure

    def _judge(self, trunk: Trunk, peer: str, tenant: str, pong: Pong, *, decides: bool) -> None:
        health, now = trunk.health[peer], self._clock.now()
        code, phrase = pong.response.code, pong.response.phrase
        log.debug(
            "options answered trunk=%s peer=%s tenant=%s code=%d rtt_ms=%.0f",
            trunk.name,
            peer,
            tenant or "-",
            code,
            pong.rtt * 1000,
        )
        if decides:
            if code == 503:
                health.refused(retry_after(pong.response.headers.get("Retry-After")), now)
            else:
                health.reachable(code, pong.rtt, now, self._clock.wall())
        trunk.alarms.pop(peer, None)
        if code == 200:
            trunk.alarms.pop(f"{peer} {tenant}", None)
            trunk.answered_since = now if trunk.answered_since is None else trunk.answered_since
        elif code == 403:
            reason = "; ".join(pong.response.headers.getlist("Reason"))
            problem = f"OPTIONS answered with 403 {phrase} {reason}".strip()
            self._alarm(trunk, f"{peer} {tenant}", trunk.cure_for_403(tenant), problem)

    def _listen_for_silence(self, trunk: Trunk) -> None:
        """Facts 2: our pings are answered, yet none comes: DNS of our name, firewall, or port."""
        if not trunk.expects_options or trunk.answered_since is None:
            return
        since = trunk.heard_at if trunk.heard_at is not None else trunk.answered_since
        if self._clock.now() - since > UNHEARD_AFTER:
            tenant = trunk.probed_tenants[0]
            self._alarm(
                trunk,
                "unheard",
                f"check the public DNS record of {tenant}, SipSignalingPort and SendSipOptions of the trunk "
                "in Teams, and that the firewall lets Microsoft's signalling ranges in",
                "our OPTIONS are answered, but Teams sends none",
            )

    def _alarm(self, trunk: Trunk, key: str, cure: str, problem: str) -> None:
        text = f"{problem} ({cure})" if cure else problem
        if trunk.alarms.get(key) != text:
            trunk.alarms[key] = text
            log.error("trunk alarm trunk=%s at=%r problem=%r cure=%r", trunk.name, key, problem, cure)


def _uri(endpoint: Endpoint) -> str:
    params = () if endpoint.kind == "udp" else (f"transport={endpoint.kind}",)
    return sip_uri("", endpoint.host, endpoint.named_port, params)


def _transport_cure(text: str) -> str:
    """What an administrator can do about a connection that fails."""
    lowered = text.lower()
    if "certificate" in lowered or "tls" in lowered or "ssl" in lowered or "handshake" in lowered:
        return "check [sip] certificate (RSA, full chain, our FQDN in it), private_key and trusted_roots"
    return ""
