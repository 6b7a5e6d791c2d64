"""What Teams demands of every message from the gateway; each breach becomes one line of text.

Sources: the traps of Direct Routing (T1 IP in Contact, T5 Record-Route, T6 Allow, T13 crypto, T16 o= version,
T18 transfer, T20 hold, T21 fixed media address); RFC 3261 and 3264 for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.peers.sipwire import WireMessage, address, is_ip, uri
from tests.peers.sipwire_sdp import MIRROR, Audio, audio
from tests.peers.sipwire_ua import allows

METHODS = {"INVITE", "ACK", "OPTIONS", "CANCEL", "BYE", "NOTIFY"}
HEADERS = {
    *(
        "via",
        "from",
        "to",
        "call-id",
        "cseq",
        "max-forwards",
        "contact",
        "route",
        "content-type",
        "content-length",
    ),
    *(
        "allow",
        "supported",
        "require",
        "unsupported",
        "accept",
        "user-agent",
        "server",
        "warning",
        "retry-after",
    ),
    *("session-expires", "min-se", "p-asserted-identity", "privacy", "referred-by", "reason", "history-info"),
    *("event", "subscription-state", "record-route"),
}
FREE_TEXT = {"via", "user-agent", "server", "content-length", "reason", "warning"}
ADDRESS = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")
SUITE = "AES_CM_128_HMAC_SHA1_80"


@dataclass
class _Media:
    """The gateway's last description in one dialog, and the first one's fixed parts."""

    address: str
    port: int
    key: str
    session_id: str
    version: int
    text: str


@dataclass
class Rules:
    """Feed it every message; read `violations`.

    trunk_names        FQDNs the gateway may call itself
    media_addresses    addresses that its SDP may name; empty: any
    dies               it is killed between writing a description down and sending it: versions may be left
                       out then, and none may come twice with different texts
    """

    trunk_names: set[str]
    media_addresses: set[str] = field(default_factory=set)
    dies: bool = False
    violations: list[str] = field(default_factory=list)
    _media: dict[tuple[str, str], _Media] = field(default_factory=dict)
    _offers: dict[tuple[str, int], Audio] = field(default_factory=dict)
    _targets: dict[tuple[str, str], tuple[str, list[str]]] = field(default_factory=dict)
    _cseq: dict[tuple[str, str], int] = field(default_factory=dict)
    _refers: dict[str, bool] = field(default_factory=dict)
    _refer_uris: set[str] = field(default_factory=set)
    _final_notify: set[tuple[str, int]] = field(default_factory=set)
    _responses: set[tuple[str, str, str, int]] = field(default_factory=set)

    def received(self, message: WireMessage, peer_names: Iterable[str] = ()) -> None:
        """Check one message from the gateway; `peer_names` are the SANs of its client certificate, if any."""
        before = len(self.violations)
        self._names(message, tuple(peer_names))
        if message.is_request:
            self._request(message)
        else:
            self._response(message)
        if message.body and message.get("Content-Type").lower() == "application/sdp":
            self._sdp(message)
        label = message.start if message.is_request else f"{message.start} ({message.get('CSeq')})"
        self.violations[before:] = [f"{text} in {label!r}" for text in self.violations[before:]]

    def sent(self, message: WireMessage) -> None:
        """Note what Teams said, to check the gateway's reaction against it."""
        if message.is_request:
            if message.method == "INVITE" and message.sdp():
                self._offers[(message.call_id, message.cseq[0])] = audio(message.sdp())
            if message.get("Contact"):
                key = (message.call_id, message.from_tag)
                known = self._targets.get(key)
                routes = known[1] if known is not None else message.all("Record-Route")
                self._targets[key] = (address(message.get("Contact")).uri, routes)
            if message.method == "REFER":
                self._refers.pop(message.call_id, None)
                self._refer_uris.add(address(message.get("Refer-To")).uri.partition("?")[0])
        elif message.method == "INVITE" and 100 < message.code < 300 and message.get("Contact"):
            key = (message.call_id, message.to_tag)
            known = self._targets.get(key)
            routes = known[1] if known is not None else list(reversed(message.all("Record-Route")))
            self._targets[key] = (address(message.get("Contact")).uri, routes)
        elif message.method == "NOTIFY" and (message.call_id, message.cseq[0]) in self._final_notify:
            self._refers[message.call_id] = True

    def _add(self, text: str) -> None:
        self.violations.append(text)

    def _names(self, message: WireMessage, peer_names: tuple[str, ...]) -> None:
        for name in sorted(message.names() - HEADERS):
            self._add(f"header unknown to Teams: {name}")
        for name, value in message.headers:
            key = name.lower()
            if key not in FREE_TEXT and ADDRESS.search(value):
                self._add(f"IP address in {name}: {value}")
        for line in (
            message.uri,
            *(value for name, value in message.headers if name.lower() not in FREE_TEXT),
        ):
            if "sips:" in line.lower():
                self._add(f"sips: {line}")
            if "replaces=" in line.lower():
                self._add(f"Replaces: {line}")
        if "content-length" not in message.names():
            self._add("no Content-Length on a stream")
        for value in message.all("Contact"):
            self._contact(value, peer_names)
        for value in message.all("Record-Route") if message.is_request else ():
            self._add(f"Record-Route: {value}")

    def _contact(self, value: str, peer_names: tuple[str, ...]) -> None:
        parts = uri(address(value).uri)
        if parts.host not in self.trunk_names:
            self._add(f"Contact host is no trunk name: {value}")
        if parts.params.get("transport", "").lower() != "tls":
            self._add(f"Contact without transport=tls: {value}")
        if "@" in value and not parts.user:
            self._add(f"Contact with an empty user: {value}")
        if peer_names and not any(covers(name, parts.host) for name in peer_names):
            self._add(f"certificate {peer_names} does not cover Contact {parts.host}")

    def _request(self, message: WireMessage) -> None:
        method = message.method
        if method not in METHODS:
            self._add(f"method {method} that Teams does not list")
        for need in ("Max-Forwards", "Via", "From", "To", "Call-ID", "CSeq"):
            if not message.get(need):
                self._add(f"no {need}")
        sent_by = message.all("Via")[0].split(";")[0].split(" ")[-1]
        if uri("sip:" + sent_by).host not in self.trunk_names:
            self._add(f"Via sent-by is no trunk name: {sent_by}")
        if not message.all("Via")[0].upper().startswith("SIP/2.0/TLS"):
            self._add(f"Via is not TLS: {message.all('Via')[0]}")
        if method in ("INVITE", "OPTIONS", "NOTIFY") and not message.get("Contact"):
            self._add(f"{method} without Contact")
        sender = uri(address(message.need("From")).uri)
        if sender.host not in self.trunk_names | {"anonymous.invalid"}:
            self._add(f"From host is no trunk name: {message.get('From')}")
        if is_ip(uri(address(message.need("To")).uri).host):
            self._add(f"IP address in To: {message.get('To')}")
        if "100rel" in message.get("Require"):
            self._add("Require: 100rel")
        if method == "INVITE":
            self._invite(message)
        if message.to_tag:
            self._in_dialog(message)

    def _invite(self, message: WireMessage) -> None:
        if not message.body:
            self._add("INVITE without an offer")
        for method in ("REFER", "NOTIFY"):
            if not allows(message, method):
                self._add(f"Allow without {method}")
        expires = message.get("Session-Expires").split(";")[0].strip()
        if expires and int(expires) < 90:
            self._add(f"Session-Expires {expires}")
        if message.to_tag:
            return
        if "replaces" not in {value.lower() for value in message.all("Supported")}:
            self._add("Supported without replaces")
        if message.uri in self._refer_uris:
            return
        called = uri(message.uri)
        if "x-m" in called.params or "x-t" in called.params:
            self._add(f"Request-URI is not the Refer-To byte for byte: {message.uri}")
        elif not called.user.startswith("+") or called.params.get("user") != "phone":
            self._add(f"called number without + or user=phone: {message.uri}")
        if called.params.get("transport", "").lower() != "tls":
            self._add(f"Request-URI without transport=tls: {message.uri}")
        caller = uri(address(message.need("From")).uri)
        phone = caller.user.startswith("+") and caller.params.get("user") == "phone"
        if not phone and caller.user != "anonymous":
            self._add(f"caller without + or user=phone: {message.get('From')}")

    def _in_dialog(self, message: WireMessage) -> None:
        key = (message.call_id, message.from_tag)
        if message.method not in ("ACK", "CANCEL"):
            if message.cseq[0] <= self._cseq.get(key, -1):
                self._add(f"CSeq {message.cseq[0]} after {self._cseq[key]}")
            self._cseq[key] = message.cseq[0]
        known = self._targets.get((message.call_id, message.to_tag))
        failed = message.method == "ACK" and self._is_hop_ack(message)
        if known is not None and not failed:
            target, routes = known
            if message.uri != target:
                self._add(f"Request-URI {message.uri} is not Teams' Contact {target}")
            if message.all("Route") != routes:
                self._add(f"Route {message.all('Route')} is not the route set {routes}")
        if message.method == "BYE" and self._refers.get(message.call_id) is False:
            self._add("BYE before the final NOTIFY of a transfer was answered")
        if message.method == "NOTIFY":
            self._notify(message)

    def _is_hop_ack(self, ack: WireMessage) -> bool:
        return (ack.call_id, ack.from_tag, "refused", ack.cseq[0]) in self._responses

    def refused(self, response: WireMessage) -> None:
        """Teams answered an INVITE with a non-2xx: the ACK to that repeats the INVITE's Request-URI."""
        self._responses.add((response.call_id, response.from_tag, "refused", response.cseq[0]))

    def _notify(self, message: WireMessage) -> None:
        state = message.get("Subscription-State")
        if message.get("Event").split(";")[0] != "refer" or not state:
            self._add(f"NOTIFY with Event {message.get('Event')!r}, Subscription-State {state!r}")
        if not message.get("Content-Type").lower().startswith("message/sipfrag"):
            self._add(f"NOTIFY with Content-Type {message.get('Content-Type')!r}")
        if not message.body.startswith(b"SIP/2.0 "):
            self._add(f"NOTIFY with body {message.body!r}")
        if state.startswith("terminated"):
            self._final_notify.add((message.call_id, message.cseq[0]))

    def _response(self, message: WireMessage) -> None:
        if message.get("RSeq") or "100rel" in message.get("Require"):
            self._add("reliable provisional response that Teams did not ask for")
        if message.code > 100 and not message.to_tag:
            self._add("no To tag")
        if message.method == "REFER" and 200 <= message.code < 300:
            self._refers[message.call_id] = False
        if message.method == "OPTIONS" and message.code == 200:
            if not message.get("Contact") or not allows(message, "REFER") or not allows(message, "NOTIFY"):
                self._add("200 to OPTIONS without Contact or Allow with REFER and NOTIFY")
        elif message.method == "INVITE" and 100 < message.code < 300:
            if not message.get("Contact"):
                self._add("no Contact")
            if message.code == 200 and not (allows(message, "REFER") and allows(message, "NOTIFY")):
                self._add("Allow without REFER or NOTIFY")
            if message.code == 200 and not message.body:
                self._add("no description")

    def _sdp(self, message: WireMessage) -> None:
        try:
            view = audio(message.body)
        except (ValueError, StopIteration, KeyError) as error:
            self._add(f"unreadable SDP: {error}")
            return
        if view.media_lines != 1 or view.profile not in ("RTP/SAVP", "UDP/TLS/RTP/SAVP"):
            self._add(f"{view.media_lines} media lines, profile {view.profile}")
        if [line.suite for line in view.crypto] != [SUITE]:
            self._add(f"crypto lines {[line.suite for line in view.crypto]}")
        elif view.crypto[0].rest != "|2^31":
            self._add(f"crypto parameters {view.crypto[0].rest!r}")
        offered = None if message.is_request else self._offers.get((message.call_id, message.cseq[0]))
        if view.direction in ("sendonly", "recvonly") and offered is None:
            self._add(f"a={view.direction}")
        if "0.0.0.0" in view.text:
            self._add("0.0.0.0")
        if any(line.startswith(("candidate:", "ice-")) for line in view.attributes):
            self._add("ICE attributes that were not asked for")
        for found in set(ADDRESS.findall(view.text)):
            if self.media_addresses and found not in self.media_addresses:
                self._add(f"address {found} is not the media address")
        if offered is not None:
            self._answer(message, view, offered)
        self._constancy(message, view)

    def _answer(self, message: WireMessage, view: Audio, offered: Audio) -> None:
        last = self._media.get((message.call_id, message.to_tag))
        # our own description once more may list formats that were offered before (RFC 3264 6.1)
        unchanged = last is not None and last.text == view.text
        if not unchanged and not set(view.formats) <= set(offered.formats):
            self._add(f"answer {view.formats} to offer {offered.formats}")
        if view.profile != offered.profile:
            self._add(f"answer profile {view.profile} to {offered.profile}")
        tags = {line.tag for line in offered.crypto if line.suite == SUITE}
        if view.crypto and view.crypto[0].tag not in tags:
            self._add(f"answered crypto tag {view.crypto[0].tag} of {tags}")
        if view.direction not in (MIRROR[offered.direction], "inactive"):
            self._add(f"answered a={view.direction} to a={offered.direction}")

    def _constancy(self, message: WireMessage, view: Audio) -> None:
        tag = message.from_tag if message.is_request else message.to_tag
        key = view.crypto[0].key if view.crypto else ""
        now = _Media(view.address, view.port, key, view.session_id, view.version, view.text)
        before = self._media.setdefault((message.call_id, tag), now)
        if (before.address, before.port) != (now.address, now.port):
            self._add(f"media moved from {before.address}:{before.port} to {now.address}:{now.port}")
        if before.key != now.key:
            self._add("SRTP key changed")
        if before.session_id != now.session_id:
            self._add(f"o= session {before.session_id} became {now.session_id}")
        same = _without_origin(before.text) == _without_origin(now.text)
        wanted = before.version if same else before.version + 1
        if now.version != wanted and not (self.dies and now.version > before.version):
            change = "unchanged" if same else "changed"
            self._add(f"o= version {before.version} -> {now.version} with {change} description")
        self._media[(message.call_id, tag)] = now


def _without_origin(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("o=")]


def covers(certificate_name: str, host: str) -> bool:
    """Whether a SAN covers a host; a wildcard reaches one level, never two (1.4)."""
    if certificate_name.startswith("*."):
        return host.partition(".")[2].lower() == certificate_name[2:].lower()
    return certificate_name.lower() == host.lower()
