"""Plain SIP trunks: identity, who is who behind one address, trust."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import load
from gateway.errors import SipError
from gateway.model import PartyType
from gateway.sip.message import Request
from gateway.sip.transport_types import Target, TransportKind
from gateway.trunks.direct_routing import DirectRoutingTrunk
from gateway.trunks.identity import Caller
from gateway.trunks.registry import Trunks
from gateway.trunks.trunk import Recognition, SipTrunk, Surface
from tests.support.trunks import (
    FQDN,
    LISTENERS,
    PROXY,
    FakeFlow,
    direct_routing,
    invite,
    microsoft_flow,
    sip_trunk,
)

UDP_PEER = "udp:192.0.2.10:5060"


def plain_invite(
    from_: str = "<sip:1001@pbx.example>;tag=1", contact: str = "<sip:1001@192.0.2.10:5060>"
) -> Request:
    return invite("sip:+49301@192.0.2.1", from_=from_, contact=contact)


def test_contact_is_the_listener_the_peer_can_reach() -> None:
    assert sip_trunk().profile().contact("1001") == "<sip:1001@192.0.2.1>"
    tcp = sip_trunk(peers=["tcp:192.0.2.10:5060"])
    assert tcp.profile().contact() == "<sip:192.0.2.1;transport=tcp>"
    assert sip_trunk(advertise="gw.example.net").profile().contact() == "<sip:gw.example.net>"
    assert sip_trunk(advertise_port=5099).profile().contact() == "<sip:192.0.2.1:5099>"


def test_a_wildcard_listener_is_known_by_the_flow_and_else_by_the_fqdn() -> None:
    trunk = sip_trunk()
    endpoint = LISTENERS[0]
    trunk.surface = Surface(FQDN, "Tandem", "", (type(endpoint)(endpoint.kind, "0.0.0.0", 5080),))
    assert trunk.profile(local=("198.51.100.1", 5080)).contact() == "<sip:198.51.100.1:5080>"
    assert trunk.profile(local=("0.0.0.0", 5080)).contact() == f"<sip:{FQDN}:5080>"


def test_an_ordinary_call() -> None:
    sent = sip_trunk().outgoing("+49301", Caller("+4989555", "Ann"), peer=UDP_PEER)
    assert sent.request_uri == "sip:+49301@192.0.2.10;user=phone"
    assert sent.from_ == '"Ann" <sip:+4989555@192.0.2.1>'
    assert sent.to == "<sip:+49301@192.0.2.10;user=phone>"
    assert sent.headers == ()


def test_domain_port_transport_and_number_format() -> None:
    peer = "tcp:192.0.2.10:5070"
    trunk = sip_trunk(peers=[peer], number_format="national", country_code="49")
    sent = trunk.outgoing("+49301234", Caller("+43123456"), peer=peer)
    assert sent.request_uri == "sip:0301234@192.0.2.10:5070;transport=tcp"
    assert sent.from_ == "<sip:0043123456@192.0.2.1>"
    trunk = sip_trunk(peers=[peer], domain="carrier.example")
    sent = trunk.outgoing("100", Caller("200"), peer=peer)
    assert sent.request_uri == "sip:100@carrier.example;transport=tcp"
    assert (sent.from_, sent.to) == ("<sip:200@carrier.example>", "<sip:100@carrier.example>")


def test_a_withheld_number_stays_with_us_unless_the_peer_is_trusted() -> None:
    caller = Caller("+4989555", withheld=True, asserted="+4989555")
    sent = sip_trunk().outgoing("+49301", caller, peer=UDP_PEER)
    assert sent.headers == (("Privacy", "id"),)
    assert "4989555" not in sent.from_ + sent.contact_user
    trusted = sip_trunk(trust_identity=True).outgoing("+49301", caller, peer=UDP_PEER)
    assert trusted.headers == (("P-Asserted-Identity", "<sip:+4989555@192.0.2.1>"), ("Privacy", "id"))
    assert "4989555" not in trusted.from_ + trusted.contact_user


@pytest.mark.parametrize(
    ("from_", "headers", "expected"),
    [
        ('"Ann" <sip:+49301@x>;tag=1', [], Caller("+49301", "Ann")),
        ("sip:030123@x;tag=1", [], Caller("+4930123")),
        ('"A" <sip:+49301@x>;tag=1', [("Privacy", "id")], Caller("+49301", withheld=True)),
        ("<sip:+49301@x>;tag=1", [("Privacy", "history;critical")], Caller("+49301")),
        (
            "<sip:anonymous@anonymous.invalid>;tag=1",
            [("P-Asserted-Identity", "<sip:+49302@x>"), ("Privacy", "id")],
            Caller("+49302", withheld=True, asserted="+49302"),
        ),
        (
            "<sip:+49301@x>;tag=1",
            [("P-Asserted-Identity", '"Main, Office" <tel:+49302>')],
            Caller("+49301", asserted="+49302"),
        ),
        ("<sip:restricted@pbx>;tag=1", [], Caller("", withheld=True)),
        ("<sip:ann@pbx>;tag=1", [("P-Asserted-Identity", "<nonsense")], Caller("ann")),
    ],
)
def test_who_calls(from_: str, headers: list[tuple[str, str]], expected: Caller) -> None:
    request = invite(from_=from_, headers=headers)
    assert sip_trunk(country_code="49").caller(request.headers) == expected


def test_only_configured_addresses_and_transports_are_heard() -> None:
    trunk = sip_trunk(allow_from=["198.51.100.0/24"])
    assert trunk.admits(FakeFlow("udp", "192.0.2.10", 9999))
    assert trunk.admits(FakeFlow("tcp", "198.51.100.77")), "large requests may come by TCP"
    assert not trunk.admits(FakeFlow("tls", "192.0.2.10"))
    assert not trunk.admits(FakeFlow("udp", "192.0.2.11"))
    assert not sip_trunk(tcp_switch=False).admits(FakeFlow("tcp", "192.0.2.10"))


def test_a_tls_peer_can_be_bound_to_its_certificate() -> None:
    trunk = sip_trunk(peers=["tls:192.0.2.10:5061"], tls_names=["pbx.example"])
    request = invite()
    assert isinstance(
        trunk.recognise(request, FakeFlow("tls", "192.0.2.10", names=["pbx.example"])), Recognition
    )
    assert isinstance(trunk.recognise(request, FakeFlow("tls", "192.0.2.10", names=["x.example"])), SipError)


def recognised(trunks: Trunks, request: Request, flow: FakeFlow) -> str | int | None:
    found = trunks.recognise(request, flow)
    if isinstance(found, Recognition):
        return found.trunk.name
    return found.code if isinstance(found, SipError) else None


def test_strangers_get_silence() -> None:
    trunks = Trunks([sip_trunk(), direct_routing()])
    stranger = FakeFlow("udp", "203.0.113.9")
    assert not trunks.admit(stranger)
    assert trunks.recognise(invite(), stranger) is None
    assert trunks.admit(FakeFlow("tls", "203.0.113.9", outbound=True)), "we dialled it ourselves"


def test_trunks_behind_one_address_are_told_apart_by_source_port() -> None:
    trunks = Trunks(
        [
            sip_trunk(name="a", peers=["udp:192.0.2.10:5060"]),
            sip_trunk(name="b", peers=["udp:192.0.2.10:5070"]),
        ]
    )
    assert recognised(trunks, plain_invite(), FakeFlow("udp", "192.0.2.10", 5060)) == "a"
    other = plain_invite(contact="<sip:1@192.0.2.10:5070>")
    assert recognised(trunks, other, FakeFlow("udp", "192.0.2.10", 5070)) == "b"
    assert recognised(trunks, other, FakeFlow("tcp", "192.0.2.10", 40123)) == "b", "a stream: by Contact"
    unknown = plain_invite(contact="<sip:1@192.0.2.10:5999>")
    assert recognised(trunks, unknown, FakeFlow("udp", "192.0.2.10", 5999)) == "a", "the first in the file"


def test_trunks_behind_one_address_are_told_apart_by_the_ports_of_their_srv_targets() -> None:
    first, second = (
        sip_trunk(name=name, peers=[f"udp:{name}.example.test"]) for name in ("carrier", "branch")
    )
    for trunk, port in ((first, 5070), (second, 5080)):
        trunk.found[f"udp:{trunk.name}.example.test"] = (Target(TransportKind.UDP, "192.0.2.9", port),)
        trunk.admission.learn(f"{trunk.name}.example.test", ["192.0.2.9"], 0.0)
    trunks = Trunks([first, second])
    assert recognised(trunks, plain_invite(), FakeFlow("udp", "192.0.2.9", 5070)) == "carrier"
    assert recognised(trunks, plain_invite(), FakeFlow("udp", "192.0.2.9", 5080)) == "branch"


def test_a_name_without_a_port_stands_so_in_the_request_uri() -> None:
    trunk = sip_trunk(peers=["tcp:carrier.example.test"])
    outgoing = trunk.outgoing("+4930123", Caller("+49301112222"), peer="tcp:carrier.example.test")
    assert outgoing.request_uri == "sip:+4930123@carrier.example.test;user=phone;transport=tcp"
    assert outgoing.to == "<sip:+4930123@carrier.example.test;user=phone>"


def test_trunks_behind_one_address_are_told_apart_by_domain_first() -> None:
    trunks = Trunks(
        [
            sip_trunk(name="a", peers=["udp:192.0.2.10:5060"]),
            sip_trunk(name="b", peers=["udp:192.0.2.10:5060"], domain="b.example"),
        ]
    )
    flow = FakeFlow("udp", "192.0.2.10", 5060)
    assert recognised(trunks, plain_invite("<sip:1@B.example>;tag=1"), flow) == "b"
    assert recognised(trunks, plain_invite("<sip:1@a.example>;tag=1"), flow) == "a"


def test_trunks_behind_one_proxy_are_told_apart_by_the_name_in_from() -> None:
    a, b = (
        sip_trunk(name="a", peers=["udp:a.example:5060"]),
        sip_trunk(name="b", peers=["udp:b.example:5060"]),
    )
    for trunk, host in ((a, "a.example"), (b, "b.example")):
        trunk.admission.learn(host, ["192.0.2.10"], 0.0)
    request = plain_invite("<sip:1@b.example>;tag=1", "<sip:1@10.1.1.1:5080>")
    assert recognised(Trunks([a, b]), request, FakeFlow("udp", "192.0.2.10", 6000)) == "b"


def test_t22_direct_routing_is_never_mistaken_for_a_plain_trunk_at_the_same_address() -> None:
    trunks = Trunks([sip_trunk(peers=["tls:52.114.75.24:5061"]), direct_routing()])
    assert recognised(trunks, invite(), microsoft_flow()) == "teams"
    assert recognised(trunks, invite(), microsoft_flow(["rogue.example"])) == 403
    assert recognised(trunks, invite("sip:1@192.0.2.1"), microsoft_flow()) == "cc"


def test_t26_two_direct_routing_trunks_share_the_ranges() -> None:
    trunks = Trunks(
        [direct_routing(name="one", tenants=["a.example"]), direct_routing(name="two", tenants=["b.example"])]
    )
    assert recognised(trunks, invite("sip:+1@b.example:5061"), microsoft_flow()) == "two"
    assert recognised(trunks, invite("sip:+1@c.example:5061"), microsoft_flow()) == 404


def test_trunks_are_made_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tandem.toml"
    path.write_text(
        """
        [gateway]
        fqdn = "sbc.example.com"
        [sip]
        listen = ["udp:127.0.0.1:5060"]
        [[trunk]]
        name = "cc"
        peers = ["udp:127.0.0.1:5070"]
        party = "agent"
        country_code = "49"
        [[trunk]]
        name = "pstn"
        peers = ["udp:127.0.0.1:5080"]
        [[route]]
        from = "cc"
        number = '\\+49(.*)'
        to = "pstn"
        rewrite = '0\\1'
        [[agent]]
        login = "anna"
        numbers = ["030 1234"]
        """
    )
    config = load(path)
    trunks = Trunks.from_config(config, version="9.9")
    trunks.bind(LISTENERS)
    assert [type(trunk) for trunk in trunks] == [SipTrunk, SipTrunk]
    assert trunks["cc"].profile().user_agent == "Tandem/9.9"
    assert trunks["cc"].party is PartyType.AGENT
    table = trunks.directory(config)
    assert table.agents == {"+49301234": "anna"}
    assert table.own_hosts == {"192.0.2.1:5060", "192.0.2.1:5061"}
    assert table.routes[0].rewrite == "0\\1"
    assert [status.usable for status in trunks.status(0.0)] == [True, True]
    assert not any(isinstance(trunk, DirectRoutingTrunk) for trunk in trunks)
    assert PROXY not in repr(trunks["cc"])
