"""Roles, limits, addresses, recognition by header: the pure parts of who may come in."""

from __future__ import annotations

import ipaddress

import pytest
from sipmessage import Headers

from gateway.agents.people import UserRole
from gateway.agents.rate_limit import FailureLimit
from gateway.agents.recognition import recognise
from gateway.api.sessions_access import ACCESS, rule_of
from gateway.api.sessions_client import client_address, is_secure, same_origin
from gateway.calls.routing import PartyIdentity
from gateway.config_models import Agent
from gateway.model import PartyType
from tests.support.clock import FakeClock

PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))


def test_each_role_may_do_what_those_before_it_may() -> None:
    agent, supervisor, administrator = UserRole
    assert administrator.reaches(agent)
    assert supervisor.reaches(supervisor)
    assert not agent.reaches(supervisor)


def test_what_nobody_decided_about_is_for_administrators() -> None:
    for name in ("", "newRoute"):
        assert name not in ACCESS
        assert rule_of(name).least is UserRole.ADMINISTRATOR
        assert rule_of(name).own is None


# ------------------------------------------------------------------------------------- the limit


def test_failures_age() -> None:
    clock = FakeClock()
    limit = FailureLimit(clock.now, most=2, window=100)
    limit.failed("a")
    clock.advance(60)
    assert limit.wait("a") == 0
    limit.failed("a")
    assert limit.wait("a") == 40
    clock.advance(40)
    assert limit.wait("a") == 0
    limit.failed("a")
    assert limit.wait("a") == 60
    limit.forget("a")
    assert limit.wait("a") == 0


def test_a_success_takes_back_its_own_count_only() -> None:
    limit = FailureLimit(FakeClock().now, most=2)
    limit.failed("a")
    limit.failed("a")
    limit.forgive("a")
    assert limit.wait("a") == 0
    limit.failed("a")
    assert limit.wait("a") > 0


def test_memory_is_bounded_whatever_names_are_tried() -> None:
    limit = FailureLimit(FakeClock().now, most=1, keys=10)
    for number in range(1000):
        limit.failed(str(number))
    assert len(limit) == 10
    assert limit.wait("999") > 0
    assert limit.wait("0") == 0


# ----------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("remote", "forwarded", "address"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "198.51.100.9", "192.0.2.1"),
        ("10.1.1.1", "198.51.100.9", "198.51.100.9"),
        ("10.1.1.1", "6.6.6.6, 198.51.100.9", "198.51.100.9"),
        ("10.1.1.1", "198.51.100.9, 10.2.2.2", "198.51.100.9"),
        ("::ffff:10.1.1.1", "198.51.100.9", "198.51.100.9"),
        ("::1", "198.51.100.9", "198.51.100.9"),
        ("10.1.1.1", "", "10.1.1.1"),
        ("10.1.1.1", "nonsense", "nonsense"),
        ("", "198.51.100.9", ""),
    ],
)
def test_only_a_trusted_proxy_says_who_is_behind_it(remote: str, forwarded: str, address: str) -> None:
    assert client_address(remote, {"X-Forwarded-For": forwarded}, PROXIES) == address


def test_only_a_trusted_proxy_says_that_tls_is_before_it() -> None:
    tls = {"X-Forwarded-Proto": "https"}
    assert is_secure("10.1.1.1", "http", tls, PROXIES)
    assert not is_secure("192.0.2.1", "http", tls, PROXIES)
    assert is_secure("192.0.2.1", "https", {}, PROXIES)
    assert not is_secure("10.1.1.1", "http", {}, PROXIES)


@pytest.mark.parametrize(
    ("origin", "ours"),
    [
        ("http://desk.example:8080", True),
        ("https://desk.example:8080", True),
        ("https://public.example", True),
        ("https://desk.example", False),
        ("https://evil.example", False),
        ("null", False),
        ("", False),
        ("file://desk.example:8080", False),
    ],
)
def test_pages_of_ours(origin: str, ours: bool) -> None:
    assert same_origin(origin, "Desk.example:8080", "https://public.example/desk") is ours


# --------------------------------------------------------------------------------- recognition

STRANGER = PartyIdentity(PartyType.EXTERNAL)
AGENTS = [Agent(login="anna"), Agent(login="bert")]


@pytest.mark.parametrize(
    ("header", "values", "login"),
    [
        ("X-Agent-Login", ["anna"], "anna"),
        ("x-agent-login", [" bert "], "bert"),
        ("", ["anna"], ""),
        ("X-Agent-Login", [], ""),
        ("X-Agent-Login", ["mallory"], ""),
        ("X-Agent-Login", ["anna", "bert"], ""),
    ],
)
def test_a_trusted_header_names_the_agent(header: str, values: list[str], login: str) -> None:
    headers = Headers()
    for value in values:
        headers.add("X-Agent-Login", value)
    found = recognise(STRANGER, header, headers, AGENTS)
    assert found == (PartyIdentity(PartyType.AGENT, login) if login else STRANGER)
