"""What the rooms count, as Readings for `/metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from gateway.api.metrics import Reading
from gateway.app import App
from gateway.cdr.delivery import SinkStatus
from gateway.cdr.journal import Journal
from gateway.trunks.health import PeerState
from gateway.trunks.trunk import TrunkStatus


class _Room(Protocol):
    @property
    def warm(self) -> int: ...

    @property
    def rooms(self) -> frozenset[object]: ...


def app_readings(app: App) -> Iterator[Reading]:
    yield Reading("tandem_ready", app.ready, "1 while calls may be sent here.")
    for name, health in app.health().items():
        yield Reading("tandem_part_up", health.ok, "1 while the part is well.", labels={"part": name})


def registry_readings(refused: Mapping[str, int], sessions: Mapping[str, int]) -> Iterator[Reading]:
    """Calls answered 503 by cause, and what the session layer still holds by kind."""
    for cause, number in refused.items():
        yield Reading("tandem_calls_refused", number, "Calls answered 503.", "counter", {"cause": cause})
    for kind, number in sessions.items():
        yield Reading("tandem_sip_sessions", number, "What sessions hold.", labels={"kind": kind})


def transport_readings(counters: Mapping[str, int], connections: int) -> Iterator[Reading]:
    """The transport layer's counters; TLS refusals by why and direction."""
    yield Reading("tandem_sip_connections", connections, "Open TCP and TLS connections.")
    refused = "TLS connections that came to nothing."
    for name, number in {"strangers": 0, "malformed": 0, "received": 0, **counters}.items():
        for prefix, direction in (("tls_refused_", "in"), ("tls_out_", "out")):
            if name.startswith(prefix):
                labels = {"direction": direction, "why": name.removeprefix(prefix)}
                yield Reading("tandem_tls_refused", number, refused, "counter", labels)
                break
        else:
            yield Reading(f"tandem_sip_{name}", number, f"SIP transport: {_words(name)}.", "counter")


def transaction_readings(counters: Mapping[str, int], active: int) -> Iterator[Reading]:
    yield Reading("tandem_sip_transactions", active, "SIP transactions that are not over.")
    for name, number in counters.items():
        labels = {"what": name}
        yield Reading("tandem_sip_transaction_events", number, "Transactions by event.", "counter", labels)


def journal_readings(journal: Journal) -> Iterator[Reading]:
    yield Reading("tandem_journal_up", journal.healthy, "1 while the journal can be written.")
    yield Reading("tandem_journal_accepts", journal.can_accept, "1 while a new call may begin.")
    yield Reading("tandem_journal_events", journal.last_seq, "Sequence number of the last event.", "counter")
    yield Reading("tandem_journal_open_calls", len(journal.open_calls), "Calls with no end in the journal.")


def sink_readings(sinks: Iterable[SinkStatus]) -> Iterator[Reading]:
    for sink in sinks:
        labels = {"sink": sink.name}
        yield Reading("tandem_sink_up", not sink.fault, "1 while the sink takes rows.", labels=labels)
        yield Reading("tandem_sink_behind", sink.behind, "1 while rows wait for the sink.", labels=labels)
        yield Reading("tandem_sink_rows", sink.written, "Rows written.", "counter", labels)
        yield Reading("tandem_sink_rejected", sink.rejected, "Rows it will never take.", "counter", labels)
        yield Reading("tandem_sink_failures", sink.failures, "Tries that failed.", "counter", labels)


def stream_readings(readers: int) -> Iterator[Reading]:
    yield Reading("tandem_event_readers", readers, "WebSockets on the event stream.")


def media_readings(up: bool, restarts: int, anchors: int) -> Iterator[Reading]:
    yield Reading("tandem_rtpengine_up", up, "1 while rtpengine answers.")
    yield Reading("tandem_rtpengine_restarts", restarts, "Times it had been away and came back.", "counter")
    yield Reading("tandem_rtpengine_sessions", anchors, "Legs anchored in rtpengine.")


def room_readings(pool: _Room) -> Iterator[Reading]:
    yield Reading("tandem_rooms", len(pool.rooms), "Conferences being mixed.")
    yield Reading("tandem_rooms_warm", pool.warm, "Room processes that wait ready.")


def trunk_readings(trunks: Iterable[TrunkStatus]) -> Iterator[Reading]:
    for trunk in trunks:
        labels = {"trunk": trunk.name}
        yield Reading("tandem_trunk_up", trunk.usable, "1 while a peer may be up.", labels=labels)
        yield Reading("tandem_trunk_alarms", len(trunk.alarms), "What keeps it from working.", labels=labels)
        for cause, number in trunk.refused.items():
            why = {**labels, "why": cause}
            yield Reading("tandem_trunk_refused", number, "Requests turned away.", "counter", why)
        for peer in trunk.peers:
            which = {**labels, "peer": peer.peer}
            up = peer.state == "up"
            yield Reading("tandem_peer_up", up, "1 while the peer answers.", labels=which)
            for state in PeerState:
                here = {**which, "state": state.value}
                yield Reading("tandem_peer_state", peer.state is state, "1 for its state.", labels=here)
            left = peer.hold_down
            yield Reading("tandem_peer_hold_down_seconds", left, "What Retry-After has left.", labels=which)
            yield Reading("tandem_peer_misses", peer.misses, "OPTIONS in a row without answer.", labels=which)
            if peer.rtt_ms is not None:
                seconds = peer.rtt_ms / 1000
                yield Reading("tandem_options_rtt_seconds", seconds, "Last OPTIONS round trip.", labels=which)


def _words(name: str) -> str:
    return name.replace("_", " ")
