"""What Microsoft's proxy puts on the wire: INVITE and SDP as captured, with the variants met in the field."""

from __future__ import annotations

import base64
import os
import secrets
import uuid
from dataclasses import dataclass, field

from tests.peers.rtp import RtpPeer
from tests.peers.sipwire_sdp import Audio, audio

PRODUCT = "Microsoft.PSTNHub.SIPProxy v.2026.3.2.1 i.EUWE.4"
ALLOW = "INVITE,ACK,OPTIONS,CANCEL,BYE,NOTIFY"
ENCODINGS = {0: "PCMU/8000", 8: "PCMA/8000", 9: "G722/8000", 18: "G729/8000", 13: "CN/8000"}
NUMBERS = {"PCMU": 0, "PCMA": 8, "G722": 9}
WIDE = {111: "SIREN/16000", 104: "SILK/16000", 103: "SILK/8000", 118: "CN/16000", 97: "RED/8000"}


@dataclass(frozen=True)
class Shape:
    """How a Teams call looks. The defaults are today's non-bypass trunk.

    codecs         G.711/G.722 names in the order offered, among the numbers Teams lists besides
    crypto         "80"; "32-first" (tag 0 _32, tag 1 _80, T13); "mki" (`|2^31|1:1`); "bare" (no lifetime);
                   "32-only"; "none" (plain RTP, which must be refused)
    mki_packets    put the one-byte MKI into the packets as well
    profile        RTP/SAVP, or UDP/TLS/RTP/SAVP as bypass offers may say
    candidates     number of ICE candidates
    pidf           multipart/mixed with a PIDF-LO (emergency)
    filler         bytes of extra History-Info, to make the INVITE 6 KB
    late           no description at all
    telephone_event  payload number, None to leave it out
    """

    codecs: tuple[str, ...] = ("PCMA", "PCMU")
    crypto: str = "80"
    mki_packets: bool = False
    profile: str = "RTP/SAVP"
    candidates: int = 0
    pidf: bool = False
    filler: int = 0
    late: bool = False
    telephone_event: int | None = 101
    session_expires: int = 3600
    min_se: int = 300
    record_route: bool = True
    contact_port: int = 443
    from_user: str = "+4930123456"
    display: str = "Anna Expert"
    headers: tuple[tuple[str, str], ...] = ()


def offer(rtp: RtpPeer, shape: Shape, direction: str = "sendrecv") -> bytes:
    """Teams' offer for this media peer."""
    numbers = [NUMBERS[name] for name in shape.codecs]
    formats = [*numbers, 18, 111, 104, 103, 97, 118, 13]
    if shape.telephone_event is not None:
        formats.insert(len(formats) - 1, shape.telephone_event)
    lines = _head(rtp, formats, shape.profile)
    lines += [f"a=rtcp:{rtp.port}", "a=label:main-audio", "a=mid:1"]
    if shape.candidates:
        lines += ["a=ice-ufrag:" + secrets.token_hex(2), "a=ice-pwd:" + secrets.token_hex(12)]
        lines += [_candidate(index, rtp.port) for index in range(shape.candidates)]
    if shape.profile.startswith("UDP/TLS"):
        lines += ["a=setup:actpass", "a=fingerprint:sha-256 " + ":".join(f"{b:02X}" for b in os.urandom(32))]
    lines += _crypto_lines(rtp, shape)
    lines += [f"a=rtpmap:{n} {(ENCODINGS | WIDE)[n]}" for n in formats if n in ENCODINGS or n in WIDE]
    if shape.telephone_event is not None:
        lines += [
            f"a=rtpmap:{shape.telephone_event} telephone-event/8000",
            f"a=fmtp:{shape.telephone_event} 0-16",
        ]
    lines += ["a=ptime:20", "a=rtcp-mux", f"a={direction}"]
    return ("\r\n".join(lines) + "\r\n").encode()


def answer(rtp: RtpPeer, offered: bytes, shape: Shape, direction: str) -> bytes:
    """Teams' answer: the first voice codec it shares, the offerer's numbers, the offered `_80` line's tag."""
    view = audio(offered)
    names = [name for name in view.names() if name in NUMBERS]
    number = view.number(names[0]) if names else None
    formats = [] if number is None else [number]
    event = view.number("telephone-event")
    lines = _head(rtp, [*formats, *([] if event is None else [event])], view.profile)
    lines += [f"a=rtcp:{rtp.port}", "a=label:main-audio"]
    lines += _answer_crypto(rtp, view, shape)
    lines += [f"a=rtpmap:{n} {view.rtpmap.get(n, ENCODINGS.get(n, ''))}" for n in formats]
    if event is not None:
        lines += [f"a=rtpmap:{event} telephone-event/8000", f"a=fmtp:{event} 0-16"]
    lines += ["a=ptime:20", *(["a=rtcp-mux"] if "rtcp-mux" in view.attributes else []), f"a={direction}"]
    return ("\r\n".join(lines) + "\r\n").encode()


def _head(rtp: RtpPeer, formats: list[int], profile: str) -> list[str]:
    return [
        "v=0",
        f"o=- {rtp.session_id} {rtp.version} IN IP4 {rtp.host}",
        "s=session",
        f"c=IN IP4 {rtp.host}",
        "b=CT:10000000",
        "t=0 0",
        f"m=audio {rtp.port} {profile} {' '.join(map(str, formats))}",
        f"c=IN IP4 {rtp.host}",
    ]


def _candidate(index: int, port: int) -> str:
    address = f"52.112.{index // 200}.{index % 200 + 1}"
    return f"a=candidate:{index + 1} 1 UDP {2130706431 - index} {address} {port} typ host generation 0"


def _crypto_lines(rtp: RtpPeer, shape: Shape) -> list[str]:
    other = base64.b64encode(os.urandom(30)).decode()
    weak = f"a=crypto:0 AES_CM_128_HMAC_SHA1_32 inline:{other}|2^31"
    return {
        "80": [rtp.crypto_line(2)],
        "32-first": [weak, rtp.crypto_line(1)],
        "mki": [rtp.crypto_line(1, tail="|2^31|1:1")],
        "bare": [rtp.crypto_line(1, tail="")],
        "32-only": [weak],
        "none": [],
    }[shape.crypto]


def _answer_crypto(rtp: RtpPeer, offered: Audio, shape: Shape) -> list[str]:
    line = next((c for c in offered.crypto if c.suite == "AES_CM_128_HMAC_SHA1_80"), None)
    if line is None:
        return []
    tail = {"mki": "|2^31|1:1", "bare": ""}.get(shape.crypto, "|2^31")
    return [rtp.crypto_line(line.tag, tail=tail)]


@dataclass(frozen=True)
class Identity:
    """Names of one Teams call: the api-du Contact, the Record-Route name, the correlation id."""

    region: str = "euwe"
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))
    cluster: str = field(default_factory=lambda: secrets.token_hex(16))

    def contact(self, port: int) -> str:
        host = f"api-du-b-{self.region}.pstnhub.microsoft.com"
        return f"<sip:{host}:{port};x-i={self.guid};x-c={self.cluster}/s/1/{self.cluster[:12]}>"

    def record_route(self, port: int) -> str:
        return f"<sip:sip-du-a-{self.region}.pstnhub.microsoft.com:{port};transport=tls;lr>"

    def reason(self, cause: int, phrase: str) -> str:
        return f'Q.850;cause={cause};text="{self.guid};{phrase}"'


PIDF = """<?xml version="1.0" encoding="utf-8"?>
<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:gp="urn:ietf:params:xml:ns:pidf:geopriv10" \
xmlns:ca="urn:ietf:params:xml:ns:pidf:geopriv10:civicAddr" entity="sip:anna@contoso.example">
<tuple id="1"><status><gp:geopriv><gp:location-info><ca:civicAddress><ca:country>DE</ca:country>\
<ca:A3>Berlin</ca:A3></ca:civicAddress></gp:location-info><gp:method>LIS</gp:method></gp:geopriv>\
</status></tuple></presence>
"""


def body(sdp: bytes, shape: Shape) -> tuple[bytes, str]:
    """The INVITE's body and its content type."""
    if not shape.pidf:
        return sdp, "application/sdp"
    boundary = "MIME_boundary_" + secrets.token_hex(6)
    text = (
        f"--{boundary}\r\nContent-Type: application/sdp\r\n\r\n".encode()
        + sdp
        + f"\r\n--{boundary}\r\nContent-Type: application/pidf+xml\r\n"
        "Content-ID: <location@pstnhub.microsoft.com>\r\n\r\n".encode()
        + PIDF.replace("\n", "\r\n").encode()
        + f"\r\n--{boundary}--\r\n".encode()
    )
    return text, f'multipart/mixed;boundary="{boundary}"'


def history(size: int) -> list[tuple[str, str]]:
    """Up to three History-Info entries (a call forwarded twice) that together have about `size` bytes."""
    entries: list[tuple[str, str]] = []
    for index in range(3 if size else 0):
        value = (
            f"<sip:+49301234500{index}@sip.pstnhub.microsoft.com;user=phone;x-ti={uuid.uuid4()}"
            f"?Reason=SIP%3Bcause%3D302%3Btext%3D%22Moved%20Temporarily%22>;index=1{'.1' * index}"
        )
        padding = secrets.token_hex(max(0, size // 3 - len(value) - 20) // 2)
        entries.append(("HISTORY-INFO", value.replace("?Reason", f";x-tt={padding}?Reason")))
    return entries


def refer_to(kind: str, number: str = "", length: int = 0, port: int = 5061) -> str:
    """A Refer-To value: `user` (no user part), `number` (E.164) or `music`; padded to `length` characters."""
    call = f"x-m=8:orgid:{uuid.uuid4()};x-t={uuid.uuid4()};x-ti={uuid.uuid4()}"
    if kind == "number":
        value = f"sip:{number}@sip.pstnhub.microsoft.com:{port};user=phone;transport=tls;{call}"
    elif kind == "music":
        value = f"sip:sip.pstnhub.microsoft.com:{port};transport=tls;{call};x-tm=moh"
    else:
        value = f"sip:sip.pstnhub.microsoft.com:{port};transport=tls;{call}"
    if length > len(value):
        value += ";x-tt=" + "".join(secrets.choice("abcdef0123456789") for _ in range(length))
        value = value[:length]
    return f"<{value}>"


def referred_by(replacement: str = "") -> str:
    """Referred-By: who transfers; `replacement` (consultative) is the URI of the call to replace."""
    value = f"sip:+4930123456@sip.pstnhub.microsoft.com:5061;x-m=8:orgid:{uuid.uuid4()};x-t={uuid.uuid4()}"
    value += f";x-ti={uuid.uuid4()}"
    if replacement:
        value += ";x-tt=" + base64.urlsafe_b64encode(replacement.encode()).decode().rstrip("=")
    return f"<{value}>"
