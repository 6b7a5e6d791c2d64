"""Direct Routing: identity, admission, toll fraud; each rule by the trap it closes."""

from __future__ import annotations

import re

import pytest

from gateway.errors import SipError
from gateway.model import PartyType
from gateway.sip.message import Request
from gateway.sip.profile import Profile
from gateway.trunks.identity import Caller
from gateway.trunks.trunk import Recognition, name_covers
from tests.support.trunks import FQDN, PROXY, FakeFlow, direct_routing, invite, microsoft_flow, sip_trunk

PEER = f"tls:{PROXY}:5061"
ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+|\[")


def refused(result: Recognition | SipError | None) -> int:
    assert isinstance(result, SipError)
    return result.code


def profile_texts(profile: Profile) -> list[str]:
    return [profile.contact("+49301"), profile.contact(), profile.via_host or "", profile.from_host]


def test_t01_no_address_in_contact_from_via() -> None:
    for text in profile_texts(direct_routing().profile(local=("10.0.0.1", 5061))):
        assert FQDN in text
        assert not ADDRESS.search(text)


def test_t01_contact_carries_port_and_transport() -> None:
    profile = direct_routing().profile()
    assert profile.contact("+49301") == f"<sip:+49301@{FQDN}:5061;transport=tls>"
    assert profile.contact() == f"<sip:{FQDN}:5061;transport=tls>"
    assert direct_routing(advertise_port=5067).profile().contact() == f"<sip:{FQDN}:5067;transport=tls>"


def test_t06_allow_lists_refer_and_notify() -> None:
    allow = direct_routing().profile().allow
    assert {"REFER", "NOTIFY", "OPTIONS", "INVITE", "ACK", "CANCEL", "BYE"} <= set(allow)


def test_t06_notify_stays_when_refer_is_switched_off() -> None:
    allow = direct_routing(refer=False).profile().allow
    assert "REFER" not in allow
    assert "NOTIFY" in allow


def test_t06_only_methods_teams_lists_are_sent() -> None:
    assert direct_routing().profile().strict_allow


def test_t25_session_expires_is_1800_unless_configured() -> None:
    profile = direct_routing().profile()
    assert (profile.session_expires, profile.min_se, profile.refresh_method) == (1800, 90, "invite")


def test_t28_replaces_is_advertised_and_100rel_is_not() -> None:
    profile = direct_routing().profile()
    assert profile.extensions == ("replaces", "timer")


def test_t26_each_tenant_has_its_own_contact() -> None:
    trunk = direct_routing(tenants=["c1.customers.example", "c2.customers.example"])
    assert trunk.profile().contact_host == "c1.customers.example"
    profile = trunk.profile("c2.customers.example")
    assert {profile.contact_host, profile.from_host, profile.via_host} == {"c2.customers.example"}
    sent = trunk.outgoing("+49301", Caller("+49302"), peer=PEER, tenant="c2.customers.example")
    assert sent.from_ == "<sip:+49302@c2.customers.example;user=phone>"


def test_t26_calls_are_told_apart_by_the_request_uri_host() -> None:
    trunk = direct_routing(tenants=["c1.customers.example", "C2.customers.example"])
    found = trunk.recognise(invite("sip:+1555@c2.CUSTOMERS.example:5061"), microsoft_flow())
    assert found == Recognition(trunk, "c2.customers.example")


def test_the_fqdn_of_the_gateway_is_the_tenant_when_none_is_listed() -> None:
    assert direct_routing(tenants=[]).tenants == (FQDN,)


def test_request_uri_names_the_proxy_being_dialled() -> None:
    trunk = direct_routing()
    sent = trunk.outgoing(
        "+4930123456", Caller("+4989555", "Ann"), peer="tls:sip2.pstnhub.microsoft.com:5061"
    )
    assert sent.request_uri == ("sip:+4930123456@sip2.pstnhub.microsoft.com:5061;user=phone;transport=tls")
    assert sent.to == "<sip:+4930123456@sip2.pstnhub.microsoft.com;user=phone>"
    assert sent.from_ == f'"Ann" <sip:+4989555@{FQDN};user=phone>'
    assert sent.contact_user == "+4989555"
    assert sent.headers == ()


def test_numbers_toward_teams_are_e164(caplog: pytest.LogCaptureFixture) -> None:
    trunk = direct_routing(country_code="49")
    assert "sip:+4930123456@" in trunk.outgoing("030123456", Caller("089555"), peer=PEER).request_uri
    assert not caplog.records
    assert "sip:1001@" in trunk.outgoing("1001", Caller("+49301"), peer=PEER).request_uri
    assert "not E.164" in caplog.text


def test_a_withheld_caller_is_anonymous_with_privacy_and_asserted_identity() -> None:
    sent = direct_routing().outgoing("+49301", Caller("+4989555", withheld=True), peer=PEER)
    assert sent.from_ == f'"Anonymous" <sip:anonymous@{FQDN}>'
    assert sent.headers == (
        ("P-Asserted-Identity", f"<sip:+4989555@{FQDN};user=phone>"),
        ("Privacy", "id"),
    )
    assert sent.contact_user == ""
    assert "4989555" not in sent.from_


def test_a_caller_nobody_knows_has_no_asserted_identity() -> None:
    sent = direct_routing().outgoing("+49301", Caller("", withheld=True), peer=PEER)
    assert sent.headers == (("Privacy", "id"),)


def test_a_display_name_cannot_smuggle_a_header() -> None:
    sent = direct_routing().outgoing("+49301", Caller("+4989", 'A"\r\nEvil: 1'), peer=PEER)
    assert "\r" not in sent.from_
    assert "\n" not in sent.from_
    assert sent.from_.startswith('"A\\"Evil: 1" <')


def test_t11_any_address_of_the_ranges_may_call() -> None:
    trunk = direct_routing()
    for address in (
        "52.112.0.1",
        "52.115.255.254",
        "52.120.0.1",
        "52.122.1.1",
        "52.123.255.1",
        "::ffff:52.114.1.1",
    ):
        assert trunk.admits(FakeFlow("tls", address)), address
    for address in ("52.111.255.255", "52.124.0.1", "203.0.113.7", "::1", "2001:db8::1"):
        assert not trunk.admits(FakeFlow("tls", address)), address


@pytest.mark.parametrize(
    ("cloud", "inside", "outside", "name"),
    [
        ("gcc-high", "52.127.88.1", "52.127.64.1", "sip.pstnhub.gov.teams.microsoft.us"),
        ("dod", "52.127.64.1", "52.127.88.1", "sip.pstnhub.dod.teams.microsoft.us"),
    ],
)
def test_government_clouds_have_their_own_ranges_and_names(
    cloud: str, inside: str, outside: str, name: str
) -> None:
    trunk = direct_routing(cloud=cloud)
    assert trunk.admits(FakeFlow("tls", inside))
    assert not trunk.admits(FakeFlow("tls", outside))
    assert trunk.settings.tls_names == (name,)
    assert isinstance(trunk.recognise(invite(), FakeFlow("tls", inside, names=[name])), Recognition)


def test_t10_resolved_addresses_are_admitted_and_forgotten_when_dns_has_moved_on() -> None:
    trunk = direct_routing()
    flow = FakeFlow("tls", "198.51.100.7")
    assert not trunk.admits(flow)
    trunk.admission.learn(PROXY, ["198.51.100.7"], 0.0)
    assert trunk.admits(flow)
    trunk.admission.learn(PROXY, ["198.51.100.8"], 60.0)
    assert trunk.admits(flow), "a call may still run through the old address"
    trunk.admission.learn(PROXY, ["198.51.100.8"], 2000.0)
    assert not trunk.admits(flow)


def test_t10_an_outage_of_dns_locks_nobody_out() -> None:
    trunk = direct_routing()
    trunk.admission.learn(PROXY, ["198.51.100.7"], 0.0)
    trunk.admission.refresh([PROXY], 5000.0)
    trunk.admission.learn(PROXY, [], 5001.0)
    assert trunk.admits(FakeFlow("tls", "198.51.100.7"))


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_t22_only_tls_is_heard(kind: str) -> None:
    assert not direct_routing().admits(FakeFlow(kind, "52.114.75.24", names=[PROXY]))


@pytest.mark.parametrize(
    "names",
    [[], ["sbc.attacker.example"], ["pstnhub.microsoft.com"], ["sip.pstnhub.microsoft.com.attacker.example"]],
)
def test_t22_a_certificate_without_microsofts_name_is_refused(
    names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert refused(direct_routing().recognise(invite(), microsoft_flow(names))) == 403
    assert "cause=certificate" in caplog.text


@pytest.mark.parametrize(
    "names",
    [[PROXY], ["sip2.pstnhub.microsoft.com", "SIP.pstnhub.microsoft.com"], ["*.pstnhub.microsoft.com"]],
)
def test_t22_all_names_of_the_certificate_are_looked_at(names: list[str]) -> None:
    assert isinstance(direct_routing().recognise(invite(), microsoft_flow(names)), Recognition)


@pytest.mark.parametrize(
    "uri",
    ["sip:+1555@attacker.example", "sip:+1555@192.0.2.1:5061", f"sip:+1555@x.{FQDN}", f"sip:+1555@{PROXY}"],
)
def test_t22_a_foreign_request_uri_is_not_found(uri: str) -> None:
    assert refused(direct_routing().recognise(invite(uri), microsoft_flow())) == 404


CALLERS = {FQDN: r"\+4930\d+"}


def from_caller(value: str, *headers: tuple[str, str]) -> Request:
    return invite(from_=f"{value};tag=1", headers=headers)


def test_t22_a_caller_of_another_tenant_is_forbidden() -> None:
    trunk = direct_routing(caller=CALLERS)
    assert isinstance(trunk.recognise(from_caller(f"<sip:+4930123@{PROXY}>"), microsoft_flow()), Recognition)
    assert refused(trunk.recognise(from_caller(f"<sip:+15551234@{PROXY}>"), microsoft_flow())) == 403
    assert refused(trunk.recognise(from_caller(f"<sip:{PROXY}>"), microsoft_flow())) == 403


def test_t22_an_anonymous_caller_is_judged_by_the_asserted_number() -> None:
    trunk = direct_routing(caller=CALLERS)
    anonymous = "<sip:anonymous@anonymous.invalid>"
    asserted = ("P-Asserted-Identity", "<tel:+4930123>,<sip:ann@tenant.example>")
    assert isinstance(trunk.recognise(from_caller(anonymous, asserted), microsoft_flow()), Recognition)
    assert refused(trunk.recognise(from_caller(anonymous), microsoft_flow())) == 403


@pytest.mark.parametrize(
    "header",
    [
        ("Referred-By", f"<sip:{PROXY};x-m=8:orgid:1;x-t=2>"),
        ("History-Info", f"<sip:+4930123@{PROXY};user=phone?Reason=SIP%3Bcause%3D302>;index=1"),
    ],
)
def test_a_transferred_call_is_authorised_by_its_trunk(header: tuple[str, str]) -> None:
    trunk = direct_routing(caller=CALLERS)
    foreign = from_caller(f"<sip:+15551234@{PROXY}>", header)
    assert isinstance(trunk.recognise(foreign, microsoft_flow()), Recognition)


def test_t22_a_foreign_number_is_welcome_while_it_is_in_a_call_of_that_tenant() -> None:
    trunk = direct_routing(caller=CALLERS)
    foreign = from_caller(f"<sip:+15551234@{PROXY}>")
    trunk.takes_part = lambda tenant, number: (tenant, number) == (FQDN, "+15551234")
    assert isinstance(trunk.recognise(foreign, microsoft_flow()), Recognition)
    for other in (f"<sip:+15551235@{PROXY}>", f"<sip:{PROXY}>"):
        assert refused(trunk.recognise(from_caller(other), microsoft_flow())) == 403


def test_a_caller_without_user_part_is_welcome_where_no_pattern_is_set() -> None:
    request = from_caller(f'"Ann" <sip:{PROXY}:5061>')
    trunk = direct_routing()
    assert isinstance(trunk.recognise(request, microsoft_flow()), Recognition)
    assert trunk.caller(request.headers) == Caller("", "", withheld=True)


def test_options_need_no_caller() -> None:
    trunk = direct_routing(caller=CALLERS)
    request = invite(f"sip:{FQDN}:5061;transport=tls", method="OPTIONS", from_=f"<sip:{PROXY}>;tag=1")
    assert isinstance(trunk.recognise(request, microsoft_flow()), Recognition)


@pytest.mark.parametrize(
    ("certified", "wanted", "covered"),
    [
        ("*.contoso.com", "sbc.contoso.com", True),
        ("*.contoso.com", "a.sbc.contoso.com", False),
        ("*.contoso.com", "contoso.com", False),
        ("*", "contoso", False),
        ("SBC.contoso.com.", "sbc.contoso.com", True),
    ],
)
def test_t07_wildcards_are_one_label_deep(certified: str, wanted: str, covered: bool) -> None:
    assert name_covers(certified, wanted) is covered


def test_media_is_srtp_only_and_the_party_a_teams_expert() -> None:
    trunk = direct_routing()
    assert trunk.media.srtp
    assert trunk.media.only_inactive
    assert trunk.party is PartyType.TEAMS_EXPERT


def test_history_info_loses_foreign_hosts_and_keeps_microsofts_byte_exact() -> None:
    teams, cc = direct_routing(), sip_trunk(country_code="49")
    microsoft = f"<sip:+49301@{PROXY};user=phone?Reason=SIP%3Bcause%3D302%3Btext%3D%22Moved%22>;index=1"
    request = invite(
        headers=[
            (
                "History-Info",
                f"{microsoft},<sip:030124@10.0.0.5:5070;x=y?Reason=SIP%3Bcause%3D486>;index=1.1",
            ),
            ("History-Info", "<sip:ann@pbx.local?Reason=SIP%3Btext%3D%2210.0.0.5%22>;index=1.2;mp=1"),
            ("History-Info", "unreadable<"),
            ("Diversion", "<sip:030124@10.0.0.5>"),
            ("User-to-User", "00FF;encoding=hex"),
            ("X-Internal", "10.0.0.5"),
        ]
    )
    assert teams.relayed(request.headers, cc) == (
        ("History-Info", microsoft),
        ("History-Info", f"<sip:+4930124@{FQDN};user=phone?Reason=SIP%3Bcause%3D486>;index=1.1"),
        ("History-Info", f"<sip:ann@{FQDN}>;index=1.2;mp=1"),
    )
    toward_cc = cc.relayed(request.headers, teams)
    assert ("User-to-User", "00FF;encoding=hex") in toward_cc
    assert {name for name, _ in toward_cc} == {"History-Info", "User-to-User"}
