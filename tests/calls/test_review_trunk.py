"""What a plain trunk may demand of us, through the whole gateway: proof, PRACK, UPDATE, timers, glare."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from gateway.clock import Clock, TimerHandle
from gateway.sip.session import Session
from media.patchbay import Anchor
from tests.calls.conftest import OpenHouse
from tests.calls.conversation import both_hear, from_teams, over, to_teams
from tests.calls.house import CUSTOMER, EXPERT, House
from tests.peers.contact_center import Challenge, ContactCenter
from tests.peers.sipwire import WireMessage, new_tag
from tests.peers.sipwire_ua import ServerTx

SECRET = "correct-horse-7"
LOGIN = """username = "tandem"
password = "env:REVIEW_TRUNK_PASSWORD"
"""


def leg_toward(h: House, trunk: str) -> tuple[Session, Anchor]:
    """The session and the anchor of the only leg on that trunk."""
    [leg] = [
        leg
        for call in h.gateway.calls.calls.values()
        for leg in call.legs.values()
        if leg.trunk.name == trunk
    ]
    assert isinstance(leg.session, Session)
    return leg.session, leg.anchor


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEW_TRUNK_PASSWORD", SECRET)


@pytest.mark.usefixtures("password")
@pytest.mark.parametrize(("code", "algorithm"), [(401, "MD5"), (407, "SHA-256")])
async def test_a_challenge_is_answered(house: OpenHouse, code: int, algorithm: str) -> None:
    """Digest as client, RFC 3261 22 and RFC 8760; the caller notices nothing of it."""
    center = ContactCenter(challenge=Challenge("tandem", SECRET, code=code, algorithm=algorithm))
    async with house(center=center, center_extra=LOGIN) as h:
        agent, expert = await from_teams(h)
        await over(agent, expert)
        assert center.refused_credentials == 0


@pytest.mark.usefixtures("password")
async def test_a_wrong_password_is_no_loop_and_not_told(
    house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    center = ContactCenter(challenge=Challenge("tandem", "another"))
    async with house(center=center, center_extra=LOGIN) as h:
        expert = await h.teams.invite(CUSTOMER)
        answer = await expert.outcome()
        assert answer.code == 403
        assert center.refused_credentials == 1
        await h.quiet()
        [row] = h.rows()
        assert row.reason == "credentials_refused"
        assert SECRET not in caplog.text
        assert SECRET.encode() not in answer.raw


async def test_reliable_early_media_is_acknowledged_and_heard(house: OpenHouse) -> None:
    """RFC 3262 as UAC: PRACK goes to the trunk, and nothing of it to Teams."""
    async with house() as h:
        expert = await h.teams.invite(CUSTOMER)
        agent = await h.center.expect_call()
        prack = await agent.ring_reliably(183, early_media=True)
        assert prack.need("RAck").endswith(" INVITE")
        await expert.rtp.hears(440)
        await agent.answer()
        await expert.answered()
        await both_hear(agent, expert)
        assert not expert.inbox
        assert expert.inviting is not None
        assert not [r for r in expert.inviting.seen if r.get("RSeq")]
        await over(agent, expert)


async def test_a_caller_that_requires_100rel_gets_it(house: OpenHouse) -> None:
    """RFC 3262 as UAS: the 180 carries RSeq and waits for PRACK; Teams is never asked for it."""
    async with house() as h:
        agent = await h.center.call(EXPERT, headers=[("Require", "100rel")])
        expert = await h.teams.expect_invite()
        assert expert.invited is not None
        assert "100rel" not in expert.invited.request.get("Require")
        expert.ring()
        ringing = await agent.ringing()
        assert ringing.get("RSeq")
        await expert.answer()
        await agent.answered()
        await both_hear(agent, expert)
        records = [record.raw for record in h.center.ua.log.records if record.received]
        assert any(b" PRACK\r\n" in raw and raw.startswith(b"SIP/2.0 200") for raw in records)
        await over(agent, expert)


async def test_update_in_both_roles_stays_on_its_side(house: OpenHouse) -> None:
    async with house() as h:
        agent, expert = await from_teams(h)
        before = len(expert.inbox)
        assert (await agent.hold("sendonly", "UPDATE")).code == 200
        assert (await agent.resume("UPDATE")).code == 200
        await both_hear(agent, expert)
        session, anchor = leg_toward(h, "center")
        answer = await session.offer(await anchor.local_offer(), "update")
        assert b"m=audio" in answer
        assert (await agent.expect("UPDATE")).request.sdp()
        assert len(expert.inbox) == before
        await over(agent, expert)


async def test_a_change_of_teams_never_reaches_the_contact_center(house: OpenHouse) -> None:
    """Hold, resume, refresh, a new key: the other side hears it and is sent no request."""
    async with house() as h:
        agent, expert = await to_teams(h)
        before = len(agent.inbox)
        assert (await expert.hold()).code == 200
        assert (await expert.resume(new_key=True)).code == 200
        assert (await expert.refresh()).code == 200
        await both_hear(agent, expert)
        assert len(agent.inbox) == before
        await over(agent, expert)


async def test_glare_is_491_both_ways_and_both_changes_get_through(house: OpenHouse) -> None:
    """RFC 3261 14.1: two re-INVITEs cross, each side refuses the other's, ours is sent again."""
    async with house() as h:
        agent, expert = await from_teams(h)
        held: list[ServerTx] = []
        agent.auto["INVITE"] = held.append
        session, anchor = leg_toward(h, "center")
        ours = asyncio.create_task(session.offer(await anchor.local_offer(), "invite"))
        await agent.until(lambda: bool(held), "re-INVITE")
        assert (await agent.hold("sendonly")).code == 491
        agent.auto["INVITE"] = agent.answer_offer
        held[0].respond(491)
        assert b"m=audio" in await ours
        assert (await agent.hold("sendonly")).code == 200
        assert (await agent.resume()).code == 200
        await both_hear(agent, expert)
        await over(agent, expert)


async def test_bye_before_the_ack_ends_the_call(house: OpenHouse) -> None:
    """RFC 3261 15: the caller may not, but some do."""
    async with house() as h:
        agent = await h.center.call(EXPERT)
        agent.send_ack = False
        expert = await h.teams.expect_invite()
        await expert.answer()
        await agent.answered()
        assert (await agent.bye()).code == 200
        await expert.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.reason == "hangup"


class Hurried:
    """The loop's clock, but waits of 30 seconds and more pass sixty times as fast."""

    def __init__(self, clock: Clock) -> None:
        self.now, self.wall, self._later = clock.now, clock.wall, clock.call_later

    def call_later(self, delay: float, callback: Callable[[], None]) -> TimerHandle:
        return self._later(delay if delay < 30 else delay / 60, callback)


async def test_we_refresh_the_session_where_it_is_ours_to_do(house: OpenHouse) -> None:
    """RFC 4028 as refresher: UPDATE without a description where the peer lists it; Teams sees nothing."""
    async with house(center_extra="session_expires = 90") as h:
        h.gateway.agent.clock = Hurried(h.gateway.agent.clock)
        agent, expert = await from_teams(h)
        assert agent.invited is not None
        assert agent.invited.request.get("Session-Expires").startswith("90")
        before = len(expert.inbox)
        granted = [("Require", "timer"), ("Session-Expires", "90;refresher=uac")]
        agent.auto["UPDATE"] = lambda tx: discard(tx.respond(200, headers=granted))
        for _ in range(2):
            refresh = (await agent.expect("UPDATE")).request
            assert not refresh.body
            assert "refresher=uac" in refresh.get("Session-Expires")
        assert len(expert.inbox) == before
        await over(agent, expert)


async def test_a_peer_that_never_refreshes_is_hung_up_with_the_other(house: OpenHouse) -> None:
    """RFC 4028 as the other one: BYE before the session expires, and a row that says why."""
    async with house() as h:
        h.gateway.agent.clock = Hurried(h.gateway.agent.clock)
        h.center.session_expires = 90
        agent = await h.center.call(EXPERT, headers=[("Min-SE", "90")])
        expert = await h.teams.expect_invite()
        await expert.answer()
        answer = await agent.answered()
        assert answer.get("Session-Expires") == "90;refresher=uac"
        await asyncio.gather(agent.expect_end(), expert.expect_end())
        await h.quiet()
        [row] = h.rows()
        assert row.reason == "no_ack_or_refresh"


def discard(_response: WireMessage) -> None:
    return None


def request(h: House, method: str, uri: str = "", **more: str) -> WireMessage:
    """A request outside of any dialog, as the contact center would write it."""
    message = WireMessage(f"{method} {uri or 'sip:' + EXPERT + '@' + h.center.gateway_host} SIP/2.0")
    message.headers = [
        ("From", f"<sip:{h.center.number}@{h.center.host}>;tag={new_tag()}"),
        ("To", f"<sip:{EXPERT}@{h.center.gateway_host}>"),
        ("Call-ID", new_tag()),
        ("CSeq", f"1 {method}"),
        ("Max-Forwards", "70"),
        ("Contact", h.center.contact),
        *((name.replace("_", "-"), value) for name, value in more.items()),
    ]
    return message


@pytest.mark.parametrize(
    ("method", "uri", "more", "code", "says"),
    [
        ("SUBSCRIBE", "", {"Event": "dialog"}, 405, ("Allow", "INVITE")),
        ("FROBNICATE", "", {}, 405, ("Allow", "INVITE")),
        ("INVITE", "http://example.test/", {}, 416, ("", "")),
        ("INVITE", "", {"Require": "precondition, timer"}, 420, ("Unsupported", "precondition")),
        ("INVITE", "", {"Max_Forwards": "0"}, 483, ("", "")),
        ("INVITE", "", {"Session_Expires": "60", "Supported": "timer"}, 422, ("Min-SE", "90")),
        ("INVITE", "", {"Session_Expires": "soon"}, 400, ("Warning", "Session-Expires")),
        ("INVITE", "", {"Replaces": "nobody;to-tag=1;from-tag=2"}, 481, ("", "")),
        ("BYE", "", {}, 481, ("", "")),
    ],
)
async def test_what_cannot_be_served_gets_the_answer_of_the_rfc(
    house: OpenHouse, method: str, uri: str, more: dict[str, str], code: int, says: tuple[str, str]
) -> None:
    async with house() as h:
        message = request(h, method, uri, **more)
        if "Max_Forwards" in more:
            message.headers.remove(("Max-Forwards", "70"))
        answer = await h.center.ua.send(message, await h.center.connection()).final()
        assert answer.code == code
        assert says[1].lower() in answer.get(says[0]).lower() if says[0] else True
        for word in (b"Traceback", b"Error:", b"gateway.", b".py"):
            assert word not in answer.raw
        await h.teams.expect_no_invite(0.1)
        assert not h.rows()


@pytest.mark.parametrize("switch", [True, False])
async def test_an_invite_over_1300_bytes_goes_by_tcp_where_the_trunk_allows_it(
    house: OpenHouse, switch: bool
) -> None:
    """RFC 3261 18.1.1 (T14): the trunk is UDP, the request too large for it."""
    large = [("USER-TO-USER", f"{'00ff' * 120};encoding=hex")]
    async with house(center_extra=f"tcp_switch = {'true' if switch else 'false'}") as h:
        expert = await h.teams.invite(CUSTOMER, headers=large)
        agent = await h.center.expect_call()
        assert agent.invited is not None
        assert len(agent.invited.request.raw) > 1300
        assert agent.invited.connection.kind == ("TCP" if switch else "UDP")
        await agent.answer()
        await expert.answered()
        await both_hear(agent, expert)
        await over(agent, expert)
