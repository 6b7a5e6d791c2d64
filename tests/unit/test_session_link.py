"""Where in-dialog requests go (T11), redialling, values kept as received, and restarts without losing
calls.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest

from gateway.errors import IllegalTransition, MessageError, TransportError
from gateway.sip.dialog import RESTORE_GAP
from gateway.sip.message import make_request
from gateway.sip.profile import Credentials, Profile
from gateway.sip.session import Session
from gateway.sip.session_events import Ended
from gateway.sip.session_state import OfferAnswer, OfferEdge, SessionState
from gateway.sip.session_values import directions_agree, hop_of, session_description, uri_user
from gateway.sip.transport_types import Target, TransportKind
from tests.unit.session_stage import ANSWER, HELD, HOLD, OFFER, PROFILE, Stage, StageFlow

TEAMS_CONTACT = "<sip:api-du-a.pstnhub.example.test:443;x-i=0f-1;x-c=ab/s/1/cd>"


async def settle() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


def test_open_stream_is_used_whatever_the_contact_says() -> None:
    stage = Stage()
    session = stage.established_out(contact=TEAMS_CONTACT)
    session.bye()
    assert stage.wire.sent[-1].place is stage.flow
    assert stage.wire.sent[-1].request.uri_text == TEAMS_CONTACT[1:-1]


async def test_t11_closed_stream_is_dialled_anew_at_the_contact_with_its_name_for_sni() -> None:
    stage = Stage()
    stage.resolver.known["api-du-a.pstnhub.example.test"] = "192.0.2.50"
    session = stage.established_out(contact=TEAMS_CONTACT)
    stage.flow.is_closed = True
    session.bye()
    await settle()
    name = "api-du-a.pstnhub.example.test"
    assert stage.resolver.asked == [(name, 443, TransportKind.TLS)]
    assert stage.wire.sent[-1].place == Target(TransportKind.TLS, "192.0.2.50", 443, name)
    stage.wire.sent[-1].answer(200)
    stage.assert_clean()


async def test_a_stream_that_drains_is_left_for_a_new_one_which_is_kept() -> None:
    """Nothing answered on it, or its certificate is old; it may still be open for minutes."""
    stage = Stage()
    stage.resolver.known["api-du-a.pstnhub.example.test"] = "192.0.2.50"
    session = stage.established_out(contact=TEAMS_CONTACT)
    stage.flow.draining = True
    session.bye()
    await settle()
    name = "api-du-a.pstnhub.example.test"
    assert stage.wire.sent[-1].place == Target(TransportKind.TLS, "192.0.2.50", 443, name)
    stage.wire.sent[-1].answer(200)
    stage.assert_clean()


async def test_t11_route_set_comes_before_the_contact() -> None:
    stage = Stage()
    stage.resolver.known["rr.example.test"] = "192.0.2.51"
    routes = [("Record-Route", "<sip:rr.example.test:5061;transport=tls;lr>")]
    session = stage.established_out(contact=TEAMS_CONTACT, headers=routes)
    stage.flow.is_closed = True
    session.bye()
    await settle()
    assert stage.resolver.asked == [("rr.example.test", 5061, TransportKind.TLS)]


async def test_t11_request_of_the_peer_on_a_new_connection_is_matched_and_its_flow_adopted() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    stage.flow.is_closed = True
    fresh = StageFlow(remote=("192.0.2.200", 40000))
    received = stage.receive(stage.peer_request(session, "OPTIONS"), fresh)
    assert received.codes == [200]
    session.bye()
    assert stage.wire.sent[-1].place is fresh


def test_datagram_requests_follow_the_contact() -> None:
    stage = Stage()
    stage.flow = StageFlow(TransportKind.UDP, ("192.0.2.9", 32768))
    session = stage.established_out(contact="<sip:bob@192.0.2.9:5080>")
    session.bye()
    assert stage.wire.sent[-1].place == Target(TransportKind.UDP, "192.0.2.9", 5080)


def test_datagram_requests_go_back_where_they_came_from_behind_a_nat() -> None:
    stage = Stage()
    stage.flow = StageFlow(TransportKind.UDP, ("192.0.2.9", 32768))
    profile = dataclasses.replace(PROFILE, follow_contact=False)
    session = stage.established_out(profile=profile, contact="<sip:bob@10.0.0.1:5080>")
    session.bye()
    assert stage.wire.sent[-1].place is stage.flow


async def test_datagram_contact_that_cannot_be_resolved_falls_back_to_the_flow() -> None:
    stage = Stage()
    stage.flow = StageFlow(TransportKind.UDP, ("192.0.2.9", 5060))
    session = stage.established_out(contact="<sip:bob@pc33.invalid>")
    session.bye()
    await settle()
    assert [ack.uri_text for ack in stage.wire.acks] == ["sip:bob@pc33.invalid"]
    assert stage.wire.sent[-1].place is stage.flow


async def test_requests_keep_their_order_while_a_name_is_resolved() -> None:
    stage = Stage()
    stage.resolver.known["slow.example.test"] = "192.0.2.60"
    session = stage.established_out(contact="<sip:slow.example.test;transport=tls>")
    stage.flow.is_closed = True
    first = asyncio.create_task(session.send("INFO"))
    second = asyncio.create_task(session.send("OPTIONS"))
    await settle()
    assert stage.methods() == ["INVITE", "INFO", "OPTIONS"]
    cseqs = [sent.request.cseq.sequence for sent in stage.wire.sent]
    assert cseqs == sorted(set(cseqs))
    for sent in stage.wire.sent[1:]:
        sent.answer(200)
    assert [(await first).code, (await second).code] == [200, 200]


async def test_lost_connection_under_a_request_is_dialled_once_more() -> None:
    stage = Stage()
    stage.resolver.known["api-du-a.pstnhub.example.test"] = "192.0.2.50"
    session = stage.established_out(contact=TEAMS_CONTACT)
    session.bye()
    stage.wire.sent[-1].on_failure(TransportError("connection lost"))
    await settle()
    assert stage.methods() == ["INVITE", "BYE", "BYE"]
    first, second = (sent.request.cseq.sequence for sent in stage.requests("BYE"))
    assert second == first + 1
    stage.wire.sent[-1].on_failure(TransportError("connection refused"))
    await settle()
    assert stage.methods() == ["INVITE", "BYE", "BYE"]
    stage.assert_clean()


async def test_the_next_address_of_a_name_is_tried_when_one_does_not_connect() -> None:
    stage = Stage()
    name = "api-du-a.pstnhub.example.test"
    stage.resolver.known[name] = "192.0.2.50"
    stage.resolver.more[name] = ["192.0.2.51"]
    session = stage.established_out(contact=TEAMS_CONTACT)
    stage.flow.is_closed = True
    session.bye()
    await settle()
    stage.wire.sent[-1].on_failure(TransportError("connection refused"))
    await settle()
    assert stage.wire.sent[-1].place == Target(TransportKind.TLS, "192.0.2.51", 443, name)
    stage.wire.sent[-1].answer(200)
    stage.assert_clean()


def test_garbled_contact_or_record_route_in_a_2xx_still_gets_its_ack() -> None:
    stage = Stage()
    session = stage.established_out(contact="<<<", headers=[("Record-Route", "<sip:x")])
    assert stage.wire.acks[0].uri_text == "sip:+4930123@sip.example.test;transport=tls"
    assert stage.wire.acks[0].headers.get("Route") is None
    session.bye()
    stage.wire.sent[-1].answer(200)
    stage.assert_clean()


def test_garbled_record_route_in_an_invite_is_400() -> None:
    stage = Stage()
    assert stage.invited(headers=[("Record-Route", "<<a")]).codes == [400]


async def test_481_to_a_request_of_ours_ends_the_session() -> None:
    stage = Stage()
    session = stage.established_out()
    task = asyncio.create_task(session.send("INFO"))
    await settle()
    stage.wire.sent[-1].answer(481)
    assert (await task).code == 481
    assert (stage.last(Ended).by, stage.last(Ended).code) == ("error", 481)
    stage.assert_clean()


# -- restart


def restored(before: Session, stage: Stage, profile: Profile | None = None) -> Session:
    record = json.loads(json.dumps(before.snapshot()))
    assert "secret" not in json.dumps(record)
    return stage.agent.restore(record, stage.handler, profile)


def test_restart_keeps_the_dialog() -> None:
    first = Stage()
    profile = dataclasses.replace(PROFILE, credentials=Credentials("me", "secret"))
    routes = [("Record-Route", "<sip:192.0.2.70:5061;transport=tls;lr>")]
    before = first.established_out(profile=profile, contact=TEAMS_CONTACT, headers=routes)
    stage = Stage()
    stage.peer_cseq = 500
    session = restored(before, stage, profile=profile)
    assert (session.id, session.profile) == (before.id, profile)
    assert stage.peer_sends(session, "OPTIONS").codes == [200]
    change = stage.peer_sends(session, "INVITE", sdp=ANSWER)
    assert change.last.body == OFFER, "a refresh after the restart is answered from the record"
    stage.ack(session, change)
    session.bye()
    bye = stage.wire.sent[-1].request
    assert bye.uri_text == TEAMS_CONTACT[1:-1]
    assert bye.headers.getlist("Route") == ["<sip:192.0.2.70:5061;transport=tls;lr>"]
    assert bye.cseq.sequence == before.dialog.local_cseq + RESTORE_GAP + 1
    stage.wire.sent[-1].answer(200)
    stage.assert_clean()


def test_restart_keeps_the_session_timer_running() -> None:
    first = Stage()
    profile = dataclasses.replace(PROFILE, session_expires=1800)
    granted = [("Session-Expires", "1800;refresher=uac")]
    before = first.established_out(profile=profile, headers=granted)
    stage = Stage()
    stage.clock.advance(800)
    session = restored(before, stage)
    assert session.profile.session_expires == 1800
    stage.flow.is_closed = False
    session.link.place = stage.flow
    stage.clock.advance(99)
    assert stage.methods() == []
    stage.clock.advance(2)
    assert stage.methods() == ["INVITE"]


def test_only_established_sessions_are_recorded() -> None:
    stage = Stage()
    with pytest.raises(IllegalTransition):
        stage.call().snapshot()


def test_broken_record_is_a_value_error() -> None:
    stage = Stage()
    record = Stage().established_out().snapshot()
    del record["dialog"]["call_id"]
    with pytest.raises(ValueError, match="incomplete"):
        stage.agent.restore(record, stage.handler)
    with pytest.raises(ValueError, match="incomplete"):
        stage.agent.restore({}, stage.handler)


async def test_close_leaves_nothing_and_says_nothing() -> None:
    stage = Stage()
    stage.established_out()
    stage.invited()
    stage.incoming[0].accept(ANSWER)
    sent = len(stage.wire.sent)
    await stage.agent.close()
    assert len(stage.wire.sent) == sent
    stage.assert_clean()


# -- values


@pytest.mark.parametrize(
    ("uri", "host", "port", "transport", "secure"),
    [
        ("sip:a@h.example.test:443;x-c=a/s/1/b", "h.example.test", 443, "", False),
        ("sips:h.example.test", "h.example.test", None, "", True),
        ("sip:[2001:db8::1]:5062;transport=TCP", "2001:db8::1", 5062, "tcp", False),
        ("sip:a:b@10.0.0.1;maddr=10.0.0.2?X=y", "10.0.0.2", None, "", False),
    ],
)
def test_hop_of(uri: str, host: str, port: int | None, transport: str, secure: bool) -> None:
    hop = hop_of(uri)
    assert (hop.host, hop.port, hop.transport, hop.secure) == (host, port, transport, secure)


@pytest.mark.parametrize("uri", ["tel:+49", "http://x", "sip:", "mailto:a@b"])
def test_hop_of_something_else_is_an_error(uri: str) -> None:
    with pytest.raises(MessageError):
        hop_of(uri)


def test_uri_user() -> None:
    assert uri_user("sip:+4930@host;x=a@b") == "+4930"
    assert uri_user("sip:host:5061") == ""


@pytest.mark.parametrize(
    ("offer", "answer", "agree"),
    [(OFFER, HELD, True), (HOLD, HELD, True), (HOLD, ANSWER, False), (OFFER, ANSWER, True)],
)
def test_directions_agree(offer: bytes, answer: bytes, agree: bool) -> None:
    assert directions_agree(offer, answer) is agree


def test_encoded_body_is_415() -> None:
    request = make_request(
        "INVITE", "sip:a@b", from_="<sip:a>", to="<sip:b>", call_id="c", cseq=1,
        headers=[("Content-Encoding", "gzip")], body=b"x", content_type="application/sdp",
    )  # fmt: skip
    with pytest.raises(MessageError) as error:
        session_description(request)
    assert error.value.code == 415


def test_two_outstanding_offers_are_an_illegal_edge() -> None:
    machine = OfferAnswer()
    machine.advance(OfferEdge.LOCAL_OFFER)
    with pytest.raises(IllegalTransition):
        machine.advance(OfferEdge.REMOTE_OFFER)
    machine.advance(OfferEdge.WITHDRAWN)
    assert machine.stable


def test_wrong_direction_of_an_edge_is_illegal() -> None:
    stage = Stage()
    session = stage.established_out()
    with pytest.raises(IllegalTransition):
        session.provisional(180)
    assert session.state is SessionState.CONFIRMED
