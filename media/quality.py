"""What rtpengine knows about a leg's stream: counters, what the peers' RTCP said, the last packet's time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.events import LegMedia
from gateway.model import CallId, LegId
from media.rtpengine import Reply


@dataclass(frozen=True, slots=True)
class LegStatistics:
    """Figures of one leg, seen from us: received = from the party, sent = to the party.

    packets_…, bytes_…: with rtcp-mux the RTCP packets count, too; music that rtpengine plays does not
    errors:      packets of the party that could not be used (wrong key, not authentic, wrong source)
    lost:        packets the far ends reported missing; jitter_ms and rtt_ms averages; mos 1.0..4.5. None
                 where no RTCP report with it came (rtpengine takes them from the peers' reports alone)
    last_packet: wall-clock seconds (whole) of the party's last RTP packet, or of the start when none came
    """

    packets_received: int = 0
    packets_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    errors: int = 0
    lost: int | None = None
    jitter_ms: float | None = None
    rtt_ms: float | None = None
    mos: float | None = None
    last_packet: int = 0

    def event(self, call: CallId, leg: LegId, at: int) -> LegMedia:
        """The journal's record of it."""
        return LegMedia(
            call=call,
            leg=leg,
            at=at,
            packets_received=self.packets_received,
            packets_sent=self.packets_sent,
            bytes_received=self.bytes_received,
            bytes_sent=self.bytes_sent,
            errors=self.errors,
            lost=self.lost,
            jitter_ms=self.jitter_ms,
            rtt_ms=self.rtt_ms,
            mos=self.mos,
        )

    def silence(self, wall: float) -> float:
        """Seconds since the party's last packet, by the wall clock; 0 or more, exact to a second."""
        return max(0.0, wall - self.last_packet)


def read_statistics(reply: Reply) -> LegStatistics:
    """Statistics out of the answer to `query` or `delete` of a call with the tags ext and int.

    What is missing counts as nothing: an engine that was restarted or never saw a packet is no error.
    """
    received = _rtp_stream(reply, "ext")
    inside = _rtp_stream(reply, "int")
    quality = _Quality()
    sources = reply.get("SSRC")
    for source in sources.values() if isinstance(sources, dict) else ():
        if isinstance(source, dict):
            quality.add(source)
    return LegStatistics(
        packets_received=_number(_table(received, "stats"), "packets"),
        packets_sent=_number(_table(inside, "stats"), "packets"),
        bytes_received=_number(_table(received, "stats"), "bytes"),
        bytes_sent=_number(_table(inside, "stats"), "bytes"),
        errors=_number(_table(received, "stats"), "errors"),
        lost=quality.lost,
        jitter_ms=quality.average("jitter"),
        rtt_ms=_thousandth(quality.average("round-trip time")),
        mos=_tenth(quality.average("MOS")),
        last_packet=_number(received, "last packet"),
    )


class _Quality:
    """Sums over the sources of a call, weighted by their number of reports."""

    def __init__(self) -> None:
        self.lost: int | None = None
        self._sums: dict[str, float] = {}
        self._weights: dict[str, int] = {}

    def add(self, source: Mapping[str, Any]) -> None:
        if "cumulative loss" in source:
            self.lost = (self.lost or 0) + max(0, _number(source, "cumulative loss"))
        report = _table(source, "average MOS")
        samples = _number(report, "samples")
        if samples <= 0:
            return
        for name in ("MOS", "jitter", "round-trip time"):
            if name in report:
                self._sums[name] = self._sums.get(name, 0.0) + _number(report, name) * samples
                self._weights[name] = self._weights.get(name, 0) + samples

    def average(self, name: str) -> float | None:
        weight = self._weights.get(name, 0)
        return self._sums[name] / weight if weight else None


def _rtp_stream(reply: Reply, tag: str) -> Mapping[str, Any]:
    """The first stream (RTP) of the first media of a tag."""
    medias = _table(_table(reply, "tags"), tag).get("medias")
    media = medias[0] if isinstance(medias, list) and medias else {}
    streams = media.get("streams") if isinstance(media, dict) else None
    stream = streams[0] if isinstance(streams, list) and streams else {}
    return stream if isinstance(stream, dict) else {}


def _table(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _number(value: Mapping[str, Any], name: str) -> int:
    found = value.get(name)
    return found if isinstance(found, int) else 0


def _thousandth(value: float | None) -> float | None:
    return None if value is None else round(value / 1000, 3)


def _tenth(value: float | None) -> float | None:
    return None if value is None else round(value / 10, 2)
