"""The INVITE as server: what is refused at the door, 2xx until ACK, PRACK, CANCEL and BYE races (RFC 3261
13.3).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gateway.errors import IllegalTransition, SipError
from gateway.sip.message import make_request
from gateway.sip.session import Session
from gateway.sip.session_events import Cancelled, Confirmed, Ended, OfferAnswered, OfferReceived
from gateway.sip.session_state import SessionState
from gateway.sip.transaction import TransactionLayer
from gateway.sip.transport_types import TransportKind
from gateway.sip.useragent import UserAgent
from tests.support.clock import FakeClock
from tests.unit.session_stage import ANSWER, HELD, HOLD, OFFER, PROFILE, Stage, state_of
from tests.unit.transaction_support import FakeFlow, FakeTransports, incoming

REQUIRE_100REL = [("Require", "100rel"), ("Supported", "100rel")]


def hang_up(stage: Stage, session: Session) -> None:
    session.bye()
    stage.requests("BYE")[-1].answer(200)


def test_answer_and_ack_establish_the_session() -> None:
    stage = Stage()
    invite = stage.invited()
    session = stage.incoming[0]
    assert session.remote_offer == OFFER
    session.provisional(180)
    session.accept(ANSWER, [("Contact", "<sip:10.1.1.1>")])
    ok = invite.last
    assert invite.codes == [180, 200]
    assert invite.responses[0].to_tag == ok.to_tag == session.dialog.local_tag
    assert ok.body == ANSWER
    assert ok.headers.getlist("Contact") == ["<sip:+4940@gw.example.test>"]
    assert ok.headers.get("Allow") == ", ".join(PROFILE.allow)
    assert state_of(session) is SessionState.ACCEPTED
    stage.ack(session, invite)
    assert state_of(session) is SessionState.CONFIRMED
    assert stage.last(Confirmed).sdp is None
    stage.ack(session, invite)
    assert stage.names() == ["Confirmed"]
    hang_up(stage, session)
    stage.assert_clean()


def test_record_route_is_the_route_set_in_order_and_verbatim() -> None:
    stage = Stage()
    route = "<sip:sip-du-a.example.test:5061;transport=tls;lr>, <sip:second.example.test;lr>"
    session, _ = stage.established_in(headers=[("Record-Route", route)])
    session.bye()
    bye = stage.requests("BYE")[0].request
    assert bye.headers.getlist("Route") == [
        "<sip:sip-du-a.example.test:5061;transport=tls;lr>",
        "<sip:second.example.test;lr>",
    ]
    assert bye.uri_text == "sip:alice@192.0.2.9:5061;transport=tls"
    assert bye.headers.get("Record-Route") is None


def test_2xx_is_repeated_until_ack_with_t1_to_t2() -> None:
    stage = Stage()
    invite = stage.invited()
    session = stage.incoming[0]
    session.accept(ANSWER)
    counts = []
    for until in (0.4, 0.6, 1.6, 3.6, 7.6, 11.6):
        stage.clock.advance(until - stage.clock.now())
        counts.append(len(invite.responses))
    assert counts == [1, 2, 3, 4, 5, 6]
    stage.ack(session, invite)
    stage.clock.advance(30)
    assert len(invite.responses) == 6


def test_no_ack_after_64_t1_is_bye_and_ended_timeout() -> None:
    stage = Stage()
    stage.invited()
    stage.incoming[0].accept(ANSWER)
    stage.clock.advance(31.9)
    assert stage.methods() == []
    stage.clock.advance(0.2)
    assert stage.methods() == ["BYE"]
    assert stage.last(Ended).by == "timeout"
    assert stage.last(Ended).code == 408
    stage.requests("BYE")[0].answer(481)
    stage.assert_clean()


def test_bye_of_ours_waits_for_the_ack() -> None:
    stage = Stage()
    invite = stage.invited()
    session = stage.incoming[0]
    session.accept(ANSWER)
    session.bye()
    assert stage.methods() == []
    assert stage.names() == ["Ended"]
    stage.ack(session, invite)
    assert stage.methods() == ["BYE"]
    stage.requests("BYE")[0].answer(200)
    assert stage.names() == ["Ended"]
    stage.assert_clean()


def test_bye_of_ours_is_sent_after_64_t1_without_ack() -> None:
    stage = Stage()
    stage.invited()
    session = stage.incoming[0]
    session.accept(ANSWER)
    session.bye()
    stage.clock.advance(32.1)
    assert stage.methods() == ["BYE"]


def test_bye_before_ack_ends_the_session() -> None:
    stage = Stage()
    invite = stage.invited()
    session = stage.incoming[0]
    session.accept(ANSWER)
    bye = stage.peer_sends(session, "BYE")
    assert bye.codes == [200]
    assert stage.last(Ended).by == "remote"
    stage.clock.advance(40)
    assert invite.codes == [200]
    stage.assert_clean()


def test_bye_crossing_bye() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    session.bye()
    bye = stage.peer_sends(session, "BYE")
    assert bye.codes == [200]
    stage.requests("BYE")[0].answer(481)
    assert stage.names() == ["Confirmed", "Ended"]
    assert stage.last(Ended).by == "local"
    stage.assert_clean()


def test_cancel_is_487_and_cancelled() -> None:
    stage = Stage()
    invite = stage.invited()
    session = stage.incoming[0]
    session.provisional(180)
    cancel = make_request(
        "CANCEL", "sip:x", from_="<sip:a@b>;tag=peer", to="<sip:gw>", call_id="call-1", cseq=100
    )
    stage.agent.on_cancel(invite, cancel)
    assert invite.codes == [180, 487]
    assert stage.last(Cancelled).request is cancel
    session.accept(ANSWER)
    session.provisional(180)
    assert invite.codes == [180, 487], "commands that race with a CANCEL do nothing"
    stage.assert_clean()


def test_cancel_crossing_200_changes_nothing() -> None:
    stage = Stage()
    invite = stage.invited()
    session = stage.incoming[0]
    session.accept(ANSWER)
    cancel = make_request(
        "CANCEL", "sip:x", from_="<sip:a@b>;tag=peer", to="<sip:gw>", call_id="call-1", cseq=100
    )
    stage.agent.on_cancel(invite, cancel)
    assert invite.codes == [200]
    assert state_of(session) is SessionState.ACCEPTED


def test_bye_in_the_early_dialog_is_200_and_487_to_the_invite() -> None:
    stage = Stage()
    invite = stage.invited()
    session = stage.incoming[0]
    session.provisional(183, None, ANSWER)
    bye = stage.peer_sends(session, "BYE")
    assert bye.codes == [200]
    assert invite.codes == [183, 487]
    assert stage.names() == ["Cancelled"]
    stage.assert_clean()


def test_reject_carries_the_callers_headers_and_no_event_follows() -> None:
    stage = Stage()
    invite = stage.invited()
    stage.incoming[0].reject(486, None, [("Reason", "Q.850;cause=17")])
    assert invite.last.code == 486
    assert invite.last.headers.get("Reason") == "Q.850;cause=17"
    assert stage.events == []
    stage.assert_clean()


def test_expires_of_the_invite_ends_it_with_487() -> None:
    stage = Stage()
    invite = stage.invited(headers=[("Expires", "60")])
    stage.clock.advance(60.1)
    assert invite.codes == [487]
    assert stage.names() == ["Cancelled"]
    stage.assert_clean()


def test_provisional_is_repeated_each_minute() -> None:
    stage = Stage()
    invite = stage.invited()
    stage.incoming[0].provisional(180)
    stage.clock.advance(125)
    assert invite.codes == [180, 180, 180]
    stage.incoming[0].reject(603)
    stage.assert_clean()


def test_commands_in_the_wrong_state_are_illegal() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    with pytest.raises(IllegalTransition):
        session.accept(ANSWER)
    with pytest.raises(IllegalTransition):
        session.provisional(180)


# -- refused at the door


def refused(stage: Stage, **more: Any) -> Any:
    invite = stage.invited(**more)
    assert stage.incoming == []
    stage.assert_clean()
    assert invite.last.to_tag
    return invite.last


def test_415_with_accept_for_a_foreign_body() -> None:
    response = refused(Stage(), content_type="text/plain")
    assert (response.code, response.headers.get("Accept")) == (415, "application/sdp")


def test_420_names_the_unsupported_options() -> None:
    response = refused(Stage(), headers=[("Require", "replaces, foo"), ("Require", "bar")])
    assert (response.code, response.headers.get("Unsupported")) == (420, "foo, bar")


def test_422_names_min_se() -> None:
    response = refused(Stage(), headers=[("Session-Expires", "60"), ("Supported", "timer")])
    assert (response.code, response.headers.get("Min-SE")) == (422, "90")


def test_483_for_no_forwards_left() -> None:
    assert refused(Stage(), max_forwards=0).code == 483


def test_400_without_contact() -> None:
    assert refused(Stage(), contact=None).code == 400


def test_488_with_warning_for_a_late_offer_where_the_profile_forbids_it() -> None:
    stage = Stage(dataclasses.replace(PROFILE, late_offer=False))
    response = refused(stage, sdp=b"")
    assert response.code == 488
    assert "offer" in response.headers["Warning"]


def test_420_for_100rel_where_the_profile_never_does_it() -> None:
    stage = Stage(dataclasses.replace(PROFILE, reliable_provisional="never"))
    response = refused(stage, headers=REQUIRE_100REL)
    assert (response.code, response.headers.get("Unsupported")) == (420, "100rel")


def test_a_stranger_hears_nothing() -> None:
    stage = Stage()
    stage.profile = None
    assert stage.invited().responses == []
    stage.assert_clean()


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
def test_a_stranger_on_a_connection_of_ours_hears_nothing_and_leaves_nothing(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A Contact we dialled need not be a trunk's address; its INVITE got a 100 and its transaction stayed."""
    stage, clock, flow = Stage(), FakeClock(), FakeFlow(TransportKind.TLS)
    stage.profile = None
    agent = UserAgent(None, stage.resolver, clock, stage)
    layer = agent.transactions = TransactionLayer(FakeTransports(), clock, agent)
    for _ in range(3):
        layer.receive(incoming(method), flow)
        clock.advance(1)
    assert flow.sent == []
    assert (layer.active, flow.users, clock.pending) == (0, 0, 0)
    assert caplog.text.count("event=stranger") == 1
    assert not any(agent.active.values())


def test_the_application_may_refuse_with_its_code() -> None:
    stage = Stage()
    stage.profile = SipError(403, "not you")
    response = refused(stage)
    assert response.code == 403
    assert "not you" in response.headers["Warning"]


def test_application_error_in_on_invite_is_the_answer() -> None:
    stage = Stage()

    def refuse(_: Session) -> None:
        raise SipError(404, "no such number")

    stage.on_invite_do = refuse
    assert stage.invited().codes == [404]
    stage.assert_clean()


@pytest.mark.allow_tracebacks
def test_application_mistake_in_on_invite_is_500() -> None:
    stage = Stage()

    def fail(_: Session) -> None:
        raise KeyError("a mistake above")

    stage.on_invite_do = fail
    assert stage.invited().codes == [500]
    stage.assert_clean()


@pytest.mark.parametrize("method", ["BYE", "INFO", "UPDATE", "PRACK", "REFER", "NOTIFY", "INVITE"])
def test_481_for_an_unknown_dialog(method: str) -> None:
    stage = Stage()
    assert stage.stranger(method, to_tag="gone").codes == [481]
    assert stage.outside == []


def test_bye_without_to_tag_is_481() -> None:
    assert Stage().stranger("BYE").codes == [481]


def test_requests_outside_go_to_the_application() -> None:
    stage = Stage()
    assert stage.stranger("OPTIONS").codes == [200]
    assert len(stage.outside) == 1


# -- PRACK (RFC 3262)


def prack(stage: Stage, session: Session, rseq: str, **more: Any) -> Any:
    return stage.peer_sends(session, "PRACK", headers=[("RAck", f"{rseq} {100} INVITE")], **more)


def test_required_100rel_is_repeated_until_prack() -> None:
    stage = Stage()
    invite = stage.invited(headers=REQUIRE_100REL)
    session = stage.incoming[0]
    session.provisional(183, None, ANSWER)
    rseq = invite.last.headers["RSeq"]
    assert invite.last.headers.get("Require") == "100rel"
    stage.clock.advance(0.6)
    assert invite.codes == [183, 183]
    session.accept(ANSWER)
    assert invite.codes == [183, 183], "no 2xx while a reliable answer waits for its PRACK"
    assert prack(stage, session, str(int(rseq) + 1)).codes == [481]
    assert prack(stage, session, rseq).codes == [200]
    assert invite.codes == [183, 183, 200]
    assert invite.last.body == b"", "the answer is given already"
    stage.ack(session, invite)
    assert session.dialog.local_sdp == ANSWER
    assert state_of(session) is SessionState.CONFIRMED
    hang_up(stage, session)
    stage.assert_clean()


def test_second_reliable_18x_waits_for_the_first_prack() -> None:
    stage = Stage()
    invite = stage.invited(headers=REQUIRE_100REL)
    session = stage.incoming[0]
    session.provisional(180)
    session.provisional(183)
    assert invite.codes == [180]
    first = int(invite.last.headers["RSeq"])
    prack(stage, session, str(first))
    assert invite.codes == [180, 183]
    assert int(invite.last.headers["RSeq"]) == first + 1


def test_missing_prack_is_504_after_64_t1() -> None:
    stage = Stage()
    invite = stage.invited(headers=REQUIRE_100REL)
    stage.incoming[0].provisional(180)
    stage.clock.advance(31.9)
    assert 504 not in invite.codes
    stage.clock.advance(0.2)
    assert invite.last.code == 504
    assert (stage.last(Ended).by, stage.last(Ended).code) == ("timeout", 504)
    stage.assert_clean()


def test_accept_without_pending_sdp_does_not_wait_and_a_late_prack_is_taken() -> None:
    stage = Stage()
    invite = stage.invited(headers=REQUIRE_100REL)
    session = stage.incoming[0]
    session.provisional(180)
    rseq = invite.last.headers["RSeq"]
    session.accept(ANSWER)
    assert invite.codes == [180, 200]
    assert invite.last.body == ANSWER
    assert prack(stage, session, rseq).codes == [200]


def test_prack_with_an_offer_is_handed_up_and_answered_in_its_200() -> None:
    stage = Stage()
    invite = stage.invited(headers=REQUIRE_100REL)
    session = stage.incoming[0]
    session.provisional(183, None, ANSWER)
    request = prack(stage, session, invite.last.headers["RSeq"], sdp=HOLD)
    offer = stage.last(OfferReceived)
    assert (offer.sdp, offer.method) == (HOLD, "PRACK")
    assert request.responses == []
    offer.answer(HELD)
    assert (request.last.code, request.last.body) == (200, HELD)


def test_unreliable_183_sdp_is_repeated_in_the_200() -> None:
    stage = Stage()
    invite = stage.invited(headers=[("Supported", "100rel")])
    session = stage.incoming[0]
    session.provisional(183, None, ANSWER)
    assert invite.last.headers.get("RSeq") is None
    session.accept(ANSWER)
    assert [response.body for response in invite.responses] == [ANSWER, ANSWER]


def test_when_supported_makes_18x_reliable() -> None:
    stage = Stage(dataclasses.replace(PROFILE, reliable_provisional="when-supported"))
    invite = stage.invited(headers=[("Supported", "100rel")])
    stage.incoming[0].provisional(180)
    assert invite.last.headers.get("RSeq")
    stage.incoming[0].reject(486)


# -- late offer


def test_late_offer_is_answered_in_the_ack() -> None:
    stage = Stage()
    invite = stage.invited(sdp=b"")
    session = stage.incoming[0]
    assert session.remote_offer is None
    session.accept(OFFER)
    assert invite.last.body == OFFER
    stage.ack(session, invite, sdp=ANSWER)
    assert stage.last(Confirmed).sdp == ANSWER
    assert (session.dialog.local_sdp, session.dialog.remote_sdp) == (OFFER, ANSWER)


def test_late_offer_without_answer_in_the_ack_is_bye() -> None:
    stage = Stage()
    invite = stage.invited(sdp=b"")
    session = stage.incoming[0]
    session.accept(OFFER)
    stage.ack(session, invite)
    assert stage.methods() == ["BYE"]
    assert (stage.last(Ended).by, stage.last(Ended).code) == ("error", 488)


def test_late_offer_in_a_reliable_183_is_answered_in_the_prack() -> None:
    stage = Stage()
    invite = stage.invited(sdp=b"", headers=REQUIRE_100REL)
    session = stage.incoming[0]
    session.provisional(183, None, OFFER)
    assert prack(stage, session, invite.last.headers["RSeq"], sdp=ANSWER).codes == [200]
    assert stage.last(OfferAnswered).sdp == ANSWER
    session.accept(OFFER)
    assert invite.last.body == b""
    stage.ack(session, invite)
    assert stage.last(Confirmed).sdp is None


def test_sdp_is_found_in_a_multipart_body_with_pidf_lo() -> None:
    stage = Stage()
    body = (
        b"--b1\r\nContent-Type: application/pidf+xml\r\n\r\n<presence/>\r\n"
        b"--b1\r\nContent-Type: application/sdp\r\n\r\n" + OFFER + b"\r\n--b1--\r\n"
    )
    stage.invited(sdp=body, content_type='multipart/mixed; boundary="b1"')
    offer = stage.incoming[0].remote_offer
    assert offer is not None
    assert offer.strip() == OFFER.strip()
    stage.incoming[0].reject(486)
