"""Routing: first matching route, rewriting, tenants, loops, agents."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.calls.routing import (
    Directory,
    Origin,
    PartyIdentity,
    Route,
    Routed,
    RoutingTrunk,
    agent_numbers,
    compile_route,
    identify,
    origin_of,
    route_call,
)
from gateway.model import PartyType, Result, Termination, TrunkKind
from gateway.trunks.numbers import NumberPlan
from tests.support.trunks import invite

GERMANY = NumberPlan("49")
TRUNKS = {
    "cc": RoutingTrunk("cc", TrunkKind.SIP, PartyType.AGENT, plan=GERMANY),
    "pstn": RoutingTrunk("pstn", TrunkKind.SIP, PartyType.EXTERNAL),
    "teams": RoutingTrunk(
        "teams", TrunkKind.DIRECT_ROUTING, PartyType.TEAMS_EXPERT, ("a.example.com", "b.example.com")
    ),
}


def directory(*routes: Route) -> Directory:
    return Directory(TRUNKS, routes, {"+493055501": "anna"}, frozenset({"192.0.2.1:5060", "a.example.com"}))


def call(called: str, trunk: str = "cc", tenant: str = "", **changes: object) -> Origin:
    return replace(Origin(trunk, tenant, called), **changes)  # type: ignore[arg-type]  # test shorthand


def routed(result: Routed | Termination) -> Routed:
    assert isinstance(result, Routed), result
    return result


def ended(result: Routed | Termination) -> Termination:
    assert isinstance(result, Termination), result
    return result


def test_first_matching_route_decides() -> None:
    table = directory(
        compile_route("teams", r"\+49.*", "cc"),
        compile_route("cc", r"\+4930\d+", "teams"),
        compile_route("cc", r".*", "pstn"),
    )
    found = routed(route_call(call("+4930123456"), table))
    assert (found.trunk, found.number, found.tenant, found.route) == (
        "teams",
        "+4930123456",
        "a.example.com",
        1,
    )
    assert routed(route_call(call("+1555"), table)).trunk == "pstn"


def test_the_number_is_normalised_by_the_calling_trunks_plan_first() -> None:
    table = directory(compile_route("cc", r"\+4930\d+", "teams"))
    assert routed(route_call(call("030 123-456"), table)).number == "+4930123456"


def test_rewrite_uses_groups() -> None:
    table = directory(
        compile_route("cc", r"8(\d{4})", "teams", r"+4930555\1"),
        compile_route("cc", r"9(?P<rest>\d+)", "teams", r"+\g<rest>"),
    )
    assert routed(route_call(call("81234"), table)).number == "+49305551234"
    assert routed(route_call(call("949301234"), table)).number == "+49301234"


def test_t22_a_pattern_must_match_the_whole_number() -> None:
    table = directory(compile_route("teams", r"\+4930\d{4}", "pstn"))
    assert ended(route_call(call("+49301234999", "teams"), table)).reason == "no_route"
    assert ended(route_call(call("x+49301234", "teams"), table)).reason == "no_route"


def test_no_route_is_404_with_its_own_cause() -> None:
    ending = ended(route_call(call("+1"), directory()))
    assert (ending.result, ending.sip_code, ending.q850) == (Result.NOT_FOUND, 404, 3)


def test_t26_tenant_by_route_then_by_origin_then_the_first() -> None:
    table = directory(
        compile_route("cc", r"1.*", "teams", tenant="B.example.com"),
        compile_route("cc", r"2.*", "teams", tenant="gone.example.com"),
        compile_route("teams", r".*", "teams"),
    )
    assert routed(route_call(call("1"), table)).tenant == "b.example.com"
    assert routed(route_call(call("2"), table)).tenant == "a.example.com"
    assert routed(route_call(call("3", "teams", "b.example.com"), table)).tenant == "b.example.com"


def test_t26_routes_can_be_for_one_tenant_only() -> None:
    table = directory(
        compile_route("teams", r".*", "cc", source_tenant="a.example.com"),
        compile_route("teams", r".*", "pstn", source_tenant="b.example.com"),
    )
    assert routed(route_call(call("+49", "teams", "a.example.com"), table)).trunk == "cc"
    assert routed(route_call(call("+49", "teams", "b.example.com"), table)).trunk == "pstn"


def test_plain_trunks_get_no_tenant() -> None:
    assert routed(route_call(call("1"), directory(compile_route("cc", ".*", "pstn")))).tenant == ""


@pytest.mark.parametrize(
    ("given", "expected"), [(None, 69), (70, 69), (200, 69), (5, 4), (1, 0), (0, None), (-3, None)]
)
def test_max_forwards_is_counted_across_the_gateway(given: int | None, expected: int | None) -> None:
    table = directory(compile_route("cc", ".*", "pstn"))
    result = route_call(call("1", max_forwards=given), table)
    if expected is None:
        assert (ended(result).sip_code, ended(result).reason) == (483, "loop")
    else:
        assert routed(result).max_forwards == expected


@pytest.mark.parametrize(
    ("contact", "loop"),
    [
        ("<sip:x@192.0.2.1:5060>", True),
        ("<sip:x@192.0.2.1>", True),
        ("<sip:x@A.example.com:5061;transport=tls>", True),
        ("<sip:x@192.0.2.1:5070>", False),
        ("<sip:x@192.0.2.9:5060>", False),
    ],
)
def test_a_call_that_came_from_this_gateway_is_a_loop(contact: str, loop: bool) -> None:
    table = directory(compile_route("cc", ".*", "pstn"))
    request = invite("sip:1@192.0.2.1", contact=contact)
    result = route_call(origin_of("cc", "", "1", request.max_forwards, request.headers), table)
    assert isinstance(result, Termination) is loop
    if loop:
        assert ended(result).sip_code == 482


def test_a_number_that_already_forwarded_the_call_is_a_loop() -> None:
    table = directory(compile_route("teams", ".*", "cc"))
    history = [
        (
            "History-Info",
            "<sip:+49301@sip.pstnhub.microsoft.com;user=phone?Reason=SIP%3Bcause%3D302>;index=1",
        ),
        ("History-Info", "<sip:+49302@sip.pstnhub.microsoft.com;user=phone>;index=1.1"),
    ]
    request = invite(headers=history)
    once = origin_of("teams", "a.example.com", "+49302", 70, request.headers)
    assert once.history == ("+49301", "+49302")
    assert isinstance(route_call(once, table), Routed)
    again = invite(headers=[*history, ("History-Info", "<sip:+49301@x.example>;index=1.1.1")])
    twice = origin_of("teams", "a.example.com", "+49301", 70, again.headers)
    assert ended(route_call(twice, table)).sip_code == 482


def test_too_many_diversions_are_a_loop() -> None:
    table = directory(compile_route("cc", ".*", "pstn"))
    result = route_call(call("1", history=tuple(str(n) for n in range(11))), table)
    assert ended(result).sip_code == 482


@pytest.mark.parametrize(
    ("number", "rewrite"), [("(", ""), (r"(\d)", r"\2"), (r"\d", r"\g<rest>"), (r"\d", "\\x"), (r"\d", "\\")]
)
def test_a_route_that_cannot_work_is_refused(number: str, rewrite: str) -> None:
    with pytest.raises(ValueError, match=r"pattern|rewrite"):
        compile_route("cc", number, "pstn", rewrite)


def test_agents_are_known_by_their_numbers_in_any_writing() -> None:
    agents = agent_numbers([("anna", ["030 55501", "1001"]), ("ben", ["+493055502"])], GERMANY)
    assert agents == {"+493055501": "anna", "1001": "anna", "+493055502": "ben"}
    table = replace(directory(), agents=agents)
    assert identify("pstn", "+493055501", table) == PartyIdentity(PartyType.AGENT, "anna")
    assert identify("cc", "1001", table) == PartyIdentity(PartyType.AGENT, "anna")
    assert identify("cc", "+43", table) == PartyIdentity(PartyType.AGENT, "")
    assert identify("pstn", "+43", table) == PartyIdentity(PartyType.EXTERNAL, "")
    assert identify("gone", "+43", table) == PartyIdentity(PartyType.EXTERNAL, "")


def test_behind_direct_routing_everybody_is_a_teams_expert() -> None:
    assert identify("teams", "+493055501", directory()) == PartyIdentity(PartyType.TEAMS_EXPERT, "")


def test_two_agents_cannot_share_a_number() -> None:
    with pytest.raises(ValueError, match="both"):
        agent_numbers([("anna", ["030 1234"]), ("ben", ["+49301234"])], GERMANY)
