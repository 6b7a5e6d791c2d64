"""`tandem probe` against a real gateway: the Teams stand-in is the test number."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from argon2 import PasswordHasher

from gateway.agents.accounts import Accounts
from gateway.agents.part import AgentsPart
from gateway.agents.people import UserRole
from gateway.api.control_routes import control_operations
from gateway.api.metrics import Metrics
from gateway.api.phone_routes import PhoneRoutes
from gateway.api.server import HttpApi
from gateway.desk import open_desk
from gateway.probe.agent import Task, probe
from gateway.probe.reference import EVERY, Reference, round_trips
from gateway.probe.report import Findings, Limits, as_json, as_metrics, as_text, mos_of
from media.webrtc import PACKET, RATE
from tests.agents.house import PASSWORD
from tests.api.site import Gateway, open_site
from tests.calls.conftest import OpenHouse
from tests.calls.house import EXPERT, House
from tests.calls.matrix import control
from tests.peers.rtp import RtpPeer
from tests.peers.teams_call import TeamsCall

AGENT = '[[agent]]\nlogin = "probe"\nnumbers = ["+4930123699"]\n'


@contextlib.asynccontextmanager
async def site(house: OpenHouse) -> AsyncIterator[tuple[House, str]]:
    async with house(extra=AGENT) as h:
        routes = PhoneRoutes(h.gateway.context.phones)
        operations = [routes.operation(), *control_operations(control(h))]
        async with open_site(*operations, stopping=[routes.close]) as opened:
            yield h, opened.url("")


def echo(rtp: RtpPeer) -> None:
    """Send back what comes instead of a tone."""
    rtp.pause()
    received = rtp.datagram_received

    def back(data: bytes, addr: tuple[str | Any, int]) -> None:
        before = len(rtp.packets)
        received(data, addr)
        for packet in rtp.packets[before:]:
            rtp.sequence = (rtp.sequence + 1) & 0xFFFF
            rtp._send(packet.payload_type, packet.timestamp, packet.payload)

    rtp.datagram_received = back  # type: ignore[method-assign]


async def number(h: House, *, echoes: bool) -> TeamsCall:
    expert = await h.teams.expect_invite()
    expert.ring()
    await expert.answer()
    if echoes:
        echo(expert.rtp)
    return expert


async def test_a_number_that_echoes_gives_every_figure(house: OpenHouse) -> None:
    async with site(house) as (h, url):
        task = Task(url, "probe", EXPERT, "t0ken", seconds=3.5)
        findings, expert = await asyncio.gather(probe(task), number(h, echoes=True))
        assert findings.error == ""
        assert findings.heard is not None
        assert findings.heard >= 0.5, "of what was sent; the rest may come late on a loaded machine"
        assert findings.delay is not None
        assert 10 < findings.delay < 1500
        assert findings.setup is not None
        assert 0.0 < findings.setup < 10
        assert findings.mos is not None
        assert 1 < findings.mos < 4.5
        await expert.expect_end()
        await h.quiet()
        assert h.rows()[0].caller_login_id == "probe"


async def test_a_number_that_plays_a_tone_is_heard_or_not(house: OpenHouse) -> None:
    async with site(house) as (h, url):
        for hz, misses in ((700.0, 0), (1000.0, 1)):
            task = Task(url, "probe", EXPERT, "t0ken", seconds=1.5, hz=hz)
            findings, expert = await asyncio.gather(probe(task), number(h, echoes=False))
            assert len(findings.misses(Limits())) == misses, findings
            assert findings.delay is None
            await expert.expect_end()


async def test_an_account_signs_in_and_may_call_for_itself_only(house: OpenHouse) -> None:
    """The same over the desktop's own door: cookie, CSRF token, role agent."""
    async with house(extra=AGENT) as h:
        part = AgentsPart(h.config, h.journal, lambda: ())
        part.accounts = Accounts(part.database, PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        routes = PhoneRoutes(h.gateway.context.phones)
        http = HttpApi("127.0.0.1:0", status=Gateway, metrics=Metrics(), tokens={})
        open_desk(h.config, part, control(h), h.journal, http)
        http.add_routes([routes.operation(), *control_operations(control(h))])
        http.on_stopping(routes.close)
        await part.start()
        await http.start()
        try:
            await part.accounts.add("probe", UserRole.AGENT, PASSWORD)
            url = "http://{}:{}".format(*http.address)
            task = Task(url, "probe", EXPERT, PASSWORD, account="probe", seconds=1.5, hz=700.0)
            findings, expert = await asyncio.gather(probe(task), number(h, echoes=False))
            assert findings.misses(Limits()) == []
            await expert.expect_end()
            assert (await probe(replace(task, secret="wrong"))).error
            assert "role" in (await probe(replace(task, agent="somebody"))).error
        finally:
            await http.stop()
            await part.stop()


async def test_a_probe_that_gets_nowhere_says_why(house: OpenHouse) -> None:
    async with site(house) as (h, url):
        refused = await probe(Task(url, "probe", EXPERT, "wrong"))
        assert refused.misses(Limits())
        assert (await probe(Task(url, "probe", "no number", "t0ken"))).error

        async def decline() -> None:
            await (await h.teams.expect_invite()).decline(603)

        findings, _ = await asyncio.gather(probe(Task(url, "probe", EXPERT, "t0ken")), decline())
        assert "the call ended" in findings.error
    assert (await probe(Task("http://127.0.0.1:9", "probe", EXPERT, "t0ken"))).error


@pytest.mark.parametrize("delay", [0.03, 0.4, 0.75])
def test_the_echo_is_found_in_noise_and_speech_is_none(delay: float) -> None:
    reference = Reference()
    sent = np.concatenate([reference(number) for number in range(150)]).astype(float)
    begin = 100.0
    noise = np.random.default_rng(1).normal(0, 400, len(sent))
    late = np.concatenate([np.zeros(int(delay * RATE)), sent])[: len(sent)] * 0.3 + noise

    def heard(pcm: Any) -> list[tuple[float, Any]]:
        cut = range(0, len(pcm), PACKET)
        return [(begin + (at + PACKET) / RATE, pcm[at : at + PACKET].astype(np.int16)) for at in cut]

    times = [begin + number * EVERY for number in range(2)]
    for found in round_trips(times, heard(late)):
        assert found == pytest.approx(delay, abs=0.002)
    assert round_trips(times, heard(noise * 5)) == [None, None]


def test_the_limits_and_the_three_ways_to_say_it() -> None:
    good = Findings("+1", 1.0, 1.0, 80.0, 0.0, 2.0, mos_of(80.0, 0.0))
    bad = Findings("+1", 11.0, 1.0, 500.0, 9.0, 2.0, mos_of(500.0, 9.0))
    assert good.misses(Limits()) == []
    assert len(bad.misses(Limits())) == 4
    assert mos_of(0.0, 0.0) == pytest.approx(4.41, abs=0.01)
    assert as_text(good, Limits()).endswith("good")
    assert as_text(bad, Limits()).count("MISSED") == 4
    assert json.loads(as_json(bad, Limits()))["good"] is False
    assert replace(good, heard=0.2).misses(Limits()) == ["only 20% of the reference signals came back"]
    metrics = as_metrics(good, Limits())
    assert "tandem_probe_good 1\n" in metrics
    assert "tandem_probe_delay_seconds 0.08\n" in metrics
    assert all(
        re.match(r'# (HELP|TYPE) |tandem_probe_\w+(\{cause="\w+"\})? [-0-9.e+]+$', line)
        for line in metrics.splitlines()
    )
    assert "delay" not in as_metrics(Findings("+1", error="nobody there"), Limits())
