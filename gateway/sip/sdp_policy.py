"""What a trunk may offer us and answer us; rtpengine accepts anything, so every refusal is made here.

Pure functions from a parsed description and a `MediaPolicy` to a `Selection` or an `SdpError` whose text fits
into a Warning header (RFC 3261 20.43).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.errors import SdpError
from gateway.sip.sdp import KEY_LENGTH, SUITE, AudioDescription, Codec, CryptoLine, Direction, printable

ALL_CODECS = (Codec.PCMA, Codec.PCMU, Codec.G722)


@dataclass(frozen=True, slots=True)
class MediaPolicy:
    """How a trunk's media has to look.

    srtp:          we offer SRTP and refuse plain RTP (Direct Routing: always True, 488 531000 otherwise)
    accept_srtp:   without `srtp`: an SRTP offer is answered with SRTP; False refuses it
    codecs:        allowed ones, in the order in which we offer them
    learn_source:  the peer sits behind NAT and its SDP address may be untrue: the first packets decide
                   where its media comes from. False is a complete source lock
    only_inactive: the peer understands no direction but sendrecv and inactive (Direct Routing, T20)
    rtcp_mux:      offer it (RFC 5761); an offer that has it is always answered with it
    ipv6:          the trunk's media is IPv6 (else IPv4); the other family is refused
    webrtc:        the party is a browser: we offer, with DTLS-SRTP and ICE, and nothing else here counts
    """

    srtp: bool = False
    codecs: tuple[Codec, ...] = ALL_CODECS
    accept_srtp: bool = True
    learn_source: bool = False
    only_inactive: bool = False
    rtcp_mux: bool = False
    ipv6: bool = False
    webrtc: bool = False


def direct_routing_policy(codecs: Sequence[Codec] = ALL_CODECS) -> MediaPolicy:
    """Facts direct-routing section 4: SRTP only, sendrecv or inactive only, rtcp-mux offered."""
    return MediaPolicy(srtp=True, codecs=tuple(codecs), only_inactive=True, rtcp_mux=True)


@dataclass(frozen=True, slots=True)
class Selection:
    """What both sides can do.

    codecs:          common ones in the offerer's order (of an answer: in its order); never empty
    telephone_event: the number to use toward the peer, or None
    crypto:          the peer's line to use; None means plain RTP
    direction:       what we say in return to an offer; for an answer, the answer's own
    """

    codecs: tuple[Codec, ...]
    telephone_event: int | None
    crypto: CryptoLine | None
    direction: Direction
    held: bool

    @property
    def codec(self) -> Codec:
        return self.codecs[0]


def admit_offer(offer: AudioDescription, policy: MediaPolicy) -> Selection:
    """Check an offer of the peer. Raises SdpError(488)."""
    return Selection(
        codecs=_common_codecs(offer, policy.codecs),
        telephone_event=offer.telephone_event,
        crypto=_admit_transport(offer, policy),
        direction=answer_direction(offer, policy),
        held=offer.held,
    )


def admit_answer(answer: AudioDescription, offered: AudioDescription, policy: MediaPolicy) -> Selection:
    """Check the peer's answer to our `offered`. Raises SdpError(488); the session has to be ended then."""
    crypto = _admit_transport(answer, policy)
    if answer.secure != offered.secure:
        raise SdpError(488, f"answer has profile {printable(answer.profile)}, offered was {offered.profile}")
    event = answer.telephone_event if offered.telephone_event is not None else None
    return Selection(
        codecs=_common_codecs(answer, [codec for _, codec in offered.codecs]),
        telephone_event=event,
        crypto=crypto,
        direction=answer.direction,
        held=answer.held,
    )


def answer_direction(offer: AudioDescription, policy: MediaPolicy) -> Direction:
    """RFC 3264 6.1; for a peer that knows only sendrecv and inactive everything else becomes inactive."""
    if policy.only_inactive:
        plain = offer.direction is Direction.SENDRECV and not offer.held
        return Direction.SENDRECV if plain else Direction.INACTIVE
    return _MIRROR[offer.direction]


_MIRROR = {
    Direction.SENDRECV: Direction.SENDRECV,
    Direction.SENDONLY: Direction.RECVONLY,
    Direction.RECVONLY: Direction.SENDONLY,
    Direction.INACTIVE: Direction.INACTIVE,
}


def codecs_to_offer(first: Sequence[Codec], policy: MediaPolicy) -> tuple[Codec, ...]:
    """What to offer on a second leg: the other party's codecs first, so that nothing needs transcoding."""
    liked = [codec for codec in first if codec in policy.codecs]
    return (*liked, *(codec for codec in policy.codecs if codec not in liked))


def _common_codecs(description: AudioDescription, allowed: Sequence[Codec]) -> tuple[Codec, ...]:
    common = tuple(codec for _, codec in description.codecs if codec in allowed)
    if not common:
        formats = printable(description.media[description.index].formats) if description.media else ""
        raise SdpError(488, f"no common codec: formats {formats}, allowed {' '.join(allowed)}")
    return common


def _admit_transport(description: AudioDescription, policy: MediaPolicy) -> CryptoLine | None:
    """Address family, profile and crypto; the crypto line to use, or None for plain RTP."""
    if description.ipv6 != policy.ipv6:
        raise SdpError(
            488, "audio address is IPv6, IPv4 is required" if description.ipv6 else "audio address is IPv4"
        )
    if description.profile not in _PROFILES:
        raise SdpError(488, f"media profile {printable(description.profile)} is not supported")
    if not description.secure:
        if policy.srtp:
            raise SdpError(488, "SRTP is required: RTP/SAVP with a=crypto")
        if description.crypto:
            raise SdpError(488, "a=crypto with profile RTP/AVP")
        return None
    if not (policy.srtp or policy.accept_srtp):
        raise SdpError(488, "SRTP is not allowed on this trunk")
    if not description.crypto:
        raise SdpError(488, "RTP/SAVP without a usable a=crypto line")
    usable = [line for line in description.crypto if line.suite == SUITE]
    if not usable:
        raise SdpError(488, f"no a=crypto with {SUITE}")
    key = usable[0].key_bytes
    if key is None or len(key) != KEY_LENGTH:
        raise SdpError(488, f"key of a=crypto {usable[0].tag} is not {KEY_LENGTH} bytes in base64")
    return usable[0]


_PROFILES = frozenset(
    {
        "RTP/AVP",
        "RTP/AVPF",
        "UDP/RTP/AVP",
        "RTP/SAVP",
        "RTP/SAVPF",
        "UDP/RTP/SAVP",
        "UDP/TLS/RTP/SAVP",
        "UDP/TLS/RTP/SAVPF",
    }
)
