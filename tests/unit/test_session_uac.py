"""The INVITE as client: forks, ACKs, CANCEL races, challenges, intervals (RFC 3261 13.2, 9, 22; RFC 4028
7).
"""

from __future__ import annotations

import dataclasses

import pytest

from gateway.errors import IllegalTransition, TransactionTimeout, TransportError
from gateway.sip.message import make_response
from gateway.sip.profile import Credentials
from gateway.sip.session import Session
from gateway.sip.session_events import Answered, Ended, Failed, Progress, SessionEvent
from gateway.sip.session_state import SessionState
from tests.unit.session_stage import ANSWER, HELD, OFFER, PROFILE, Stage, state_of

CHALLENGE = ("WWW-Authenticate", 'Digest realm="pbx", nonce="n1", qop="auth", algorithm=MD5')


def finish(stage: Stage, session: Session) -> None:
    session.bye()
    stage.requests("BYE")[-1].answer(200)
    stage.clock.advance(64)


def test_invite_carries_profile_once_and_offer() -> None:
    stage = Stage()
    stage.call(headers=[("Contact", "<sip:10.0.0.1>"), ("Allow", "X"), ("P-Asserted-Identity", "<sip:a@b>")])
    request = stage.wire.sent[0].request
    assert request.headers.getlist("Contact") == ["<sip:+4940@gw.example.test>"]
    assert request.headers.getlist("Allow") == [", ".join(PROFILE.allow)]
    assert request.headers.get("P-Asserted-Identity") == "<sip:a@b>"
    assert request.body == OFFER
    assert request.headers.get("Record-Route") is None


def test_invite_without_offer_is_refused_before_it_is_sent() -> None:
    stage = Stage()
    with pytest.raises(ValueError, match="offer"):
        stage.agent.invite(
            profile=PROFILE, target=stage.flow, request_uri="sip:a@b", from_="<sip:a@b>", to="<sip:a@b>",
            offer=b"", handler=stage.handler,
        )  # fmt: skip
    stage.assert_clean()


def test_answer_is_acknowledged_along_the_route_set_of_the_2xx() -> None:
    stage = Stage()
    session = stage.call()
    invite = stage.wire.sent[0]
    invite.answer(180, headers=[("Record-Route", "<sip:old.example.test;lr>")])
    contact = "<sip:api-du-a.example.test:443;x-i=0f;x-c=ab/s/1/cd>"
    routes = [("Record-Route", "<sip:p2.example.test;lr>, <sip:p1.example.test;lr>")]
    invite.answer(200, sdp=ANSWER, contact=contact, headers=routes)
    ack = stage.wire.acks[0]
    assert ack.uri_text == "sip:api-du-a.example.test:443;x-i=0f;x-c=ab/s/1/cd"
    assert ack.headers.getlist("Route") == ["<sip:p1.example.test;lr>", "<sip:p2.example.test;lr>"]
    assert ack.cseq.sequence == invite.request.cseq.sequence
    assert state_of(session) is SessionState.CONFIRMED
    assert stage.names() == ["Progress", "Answered"]
    assert stage.last(Answered).sdp == ANSWER
    finish(stage, session)
    stage.assert_clean()


def test_strict_route_becomes_the_request_uri() -> None:
    stage = Stage()
    routes = [("Record-Route", "<sip:loose.example.test;lr>, <sip:strict.example.test>")]
    stage.established_out(headers=routes)
    ack = stage.wire.acks[0]
    assert ack.uri_text == "sip:strict.example.test"
    assert ack.headers.getlist("Route") == [
        "<sip:loose.example.test;lr>",
        "<sip:bob@192.0.2.9:5061;transport=tls>",
    ]


def test_100_trying_ends_the_silence_but_is_no_progress() -> None:
    stage = Stage()
    session = stage.call()
    stage.wire.sent[0].on_response(make_response(stage.wire.sent[0].request, 100))
    assert stage.events == []
    assert state_of(session) is SessionState.PROCEEDING


def test_forks_each_have_a_dialog_and_the_2xx_may_bring_a_new_tag() -> None:
    stage = Stage()
    session = stage.call()
    invite = stage.wire.sent[0]
    invite.answer(180, tag="a", contact="<sip:a@192.0.2.10>")
    invite.answer(180, tag="b", contact="<sip:b@192.0.2.11>")
    invite.answer(183, tag="b", sdp=HELD, contact="<sip:b@192.0.2.11>")
    assert {dialog.remote_tag for dialog in session.dialogs} == {"a", "b"}
    assert stage.agent.active["dialogs"] == 2
    assert [(event.tag, event.sdp) for event in stage.events if isinstance(event, Progress)] == [
        ("a", None),
        ("b", None),
        ("b", HELD),
    ]
    invite.answer(200, tag="c", sdp=ANSWER, contact="<sip:c@192.0.2.12>")
    assert session.dialog.remote_tag == "c"
    assert session.dialog.remote_target == "sip:c@192.0.2.12"
    assert stage.agent.active["dialogs"] == 1
    assert stage.last(Answered).sdp == ANSWER
    finish(stage, session)
    stage.assert_clean()


def test_answer_seen_only_in_183_is_the_answer_of_that_fork() -> None:
    stage = Stage()
    stage.call()
    stage.wire.sent[0].answer(183, tag="a", sdp=HELD)
    stage.wire.sent[0].answer(183, tag="b", sdp=ANSWER)
    stage.wire.sent[0].answer(200, tag="a")
    assert stage.last(Answered).sdp == HELD


def test_second_2xx_of_another_fork_gets_ack_and_bye() -> None:
    stage = Stage()
    session = stage.call()
    invite = stage.wire.sent[0]
    invite.answer(200, tag="a", sdp=ANSWER)
    invite.answer(200, tag="b", sdp=ANSWER, contact="<sip:b@192.0.2.11>")
    assert [ack.to_tag for ack in stage.wire.acks] == ["a", "b"]
    bye = stage.requests("BYE")[0]
    assert bye.request.to_tag == "b"
    assert bye.request.uri_text == "sip:b@192.0.2.11"
    assert stage.names() == ["Answered"]
    invite.answer(200, tag="b", sdp=ANSWER)
    assert [ack.to_tag for ack in stage.wire.acks] == ["a", "b", "b"]
    assert len(stage.requests("BYE")) == 1
    bye.answer(200)
    assert state_of(session) is SessionState.CONFIRMED
    finish(stage, session)
    stage.assert_clean()


def test_retransmitted_2xx_is_acknowledged_again_also_after_the_end() -> None:
    stage = Stage()
    session = stage.established_out()
    stage.wire.sent[0].answer(200, sdp=ANSWER)
    assert len(stage.wire.acks) == 2
    finish(stage, session)
    stage.wire.sent[0].answer(200, sdp=ANSWER)
    assert len(stage.wire.acks) == 3
    assert stage.names() == ["Answered", "Ended"]


def test_stray_2xx_after_the_transaction_is_acknowledged_again() -> None:
    stage = Stage()
    stage.established_out()
    response = make_response(stage.wire.sent[0].request, 200, to_tag="peer")
    stage.agent.on_response_stray(response, stage.flow)
    assert len(stage.wire.acks) == 2


def test_cancel_is_answered_487() -> None:
    stage = Stage()
    session = stage.call()
    invite = stage.wire.sent[0]
    invite.answer(180)
    session.cancel([("Reason", "Q.850;cause=16")])
    assert invite.cancelled == [("Reason", "Q.850;cause=16")]
    invite.answer(487)
    assert stage.last(Failed).code == 487
    assert stage.last(Failed).cause == "response"
    stage.assert_clean()


def test_cancel_crossing_200_gets_ack_and_bye() -> None:
    stage = Stage()
    session = stage.call()
    session.cancel([("Reason", "Q.850;cause=16")])
    stage.wire.sent[0].answer(200, sdp=ANSWER)
    assert len(stage.wire.acks) == 1
    bye = stage.requests("BYE")[0]
    assert bye.request.headers.get("Reason") == "Q.850;cause=16"
    assert stage.names() == ["Failed"]
    assert stage.last(Failed).code == 487
    assert stage.agent.active["dialogs"] == 1
    bye.answer(481)
    stage.assert_clean()


def test_cancel_without_final_response_ends_after_64_t1() -> None:
    stage = Stage()
    session = stage.call()
    stage.wire.sent[0].answer(180)
    session.cancel()
    stage.clock.advance(31.9)
    assert "Failed" not in stage.names()
    stage.clock.advance(0.2)
    assert (stage.last(Failed).code, stage.last(Failed).cause) == (487, "timeout")
    stage.assert_clean()
    stage.wire.sent[0].answer(200, sdp=ANSWER)
    assert [sent.request.method for sent in stage.wire.sent] == ["INVITE", "BYE"]


def test_cancel_after_the_answer_is_illegal_and_after_the_end_nothing() -> None:
    stage = Stage()
    session = stage.established_out()
    with pytest.raises(IllegalTransition):
        session.cancel()
    finish(stage, session)
    session.cancel()
    session.bye()
    assert stage.names() == ["Answered", "Ended"]


@pytest.mark.parametrize("code", [300, 403, 486, 503, 603])
def test_final_refusal_is_failed_and_last(code: int) -> None:
    stage = Stage()
    session = stage.call()
    stage.wire.sent[0].answer(code)
    failed = stage.last(Failed)
    assert (failed.code, failed.cause, failed.response.code) == (code, "response", code)
    session.end(500)
    assert stage.names() == ["Failed"]
    stage.assert_clean()


@pytest.mark.parametrize(
    ("error", "code", "cause"),
    [(TransactionTimeout("no answer"), 408, "timeout"), (TransportError("refused"), 503, "transport")],
)
def test_no_answer_at_all(error: TransactionTimeout | TransportError, code: int, cause: str) -> None:
    stage = Stage()
    stage.call()
    stage.wire.sent[0].on_failure(error)
    assert (stage.last(Failed).code, stage.last(Failed).cause) == (code, cause)
    stage.assert_clean()


def test_challenge_is_answered_with_the_next_cseq_and_repeated_in_the_ack() -> None:
    stage = Stage()
    profile = dataclasses.replace(PROFILE, credentials=Credentials("me", "secret"))
    session = stage.call(profile=profile)
    first = stage.wire.sent[0].request
    stage.wire.sent[0].answer(401, headers=[CHALLENGE])
    second = stage.wire.sent[1].request
    assert second.cseq.sequence == first.cseq.sequence + 1
    assert second.call_id == first.call_id
    assert second.from_tag == first.from_tag
    authorization = second.headers["Authorization"]
    assert 'username="me"' in authorization
    assert "secret" not in authorization
    stage.wire.sent[1].answer(200, sdp=ANSWER)
    ack = stage.wire.acks[0]
    assert ack.headers["Authorization"] == authorization
    assert ack.cseq.sequence == second.cseq.sequence
    finish(stage, session)
    assert "nc=00000002" in stage.requests("BYE")[0].request.headers["Authorization"]
    stage.assert_clean()


@pytest.mark.parametrize(
    "challenge",
    [(401, CHALLENGE), (407, ("Proxy-Authenticate", 'Digest realm="p", nonce="n"'))],
)
def test_a_cancelled_invite_that_is_challenged_is_not_sent_again(
    challenge: tuple[int, tuple[str, str]],
) -> None:
    """The second INVITE got no CANCEL: the telephone rang on for a caller who had hung up."""
    stage = Stage()
    session = stage.call(profile=dataclasses.replace(PROFILE, credentials=Credentials("me", "secret")))
    session.cancel()
    stage.wire.sent[0].answer(challenge[0], headers=[challenge[1]])
    assert stage.methods() == ["INVITE"]
    assert (stage.last(Failed).code, stage.last(Failed).cause) == (487, "response")
    stage.assert_clean()


def test_wrong_password_does_not_loop() -> None:
    stage = Stage()
    stage.call(profile=dataclasses.replace(PROFILE, credentials=Credentials("me", "wrong")))
    stage.wire.sent[0].answer(401, headers=[CHALLENGE])
    stage.wire.sent[1].answer(401, headers=[("WWW-Authenticate", 'Digest realm="pbx", nonce="n2"')])
    assert len(stage.wire.sent) == 2
    assert stage.last(Failed).code == 401
    stage.assert_clean()


def test_stale_nonces_without_end_do_not_loop() -> None:
    stage = Stage()
    stage.call(profile=dataclasses.replace(PROFILE, credentials=Credentials("me", "x")))
    for count in range(4):
        stale = f'Digest realm="pbx", nonce="n{count}", stale=true'
        stage.wire.sent[-1].answer(401, headers=[("WWW-Authenticate", stale)])
    assert len(stage.wire.sent) == 4
    assert stage.last(Failed).code == 401


def test_challenge_without_credentials_fails() -> None:
    stage = Stage()
    stage.call()
    stage.wire.sent[0].answer(407, headers=[("Proxy-Authenticate", 'Digest realm="p", nonce="n"')])
    assert stage.last(Failed).code == 407


def test_t25_422_is_retried_with_the_min_se_of_the_peer_and_not_forever() -> None:
    stage = Stage()
    stage.call(profile=dataclasses.replace(PROFILE, session_expires=200))
    stage.wire.sent[0].answer(422, headers=[("Min-SE", "600")])
    second = stage.wire.sent[1].request
    assert second.headers["Session-Expires"] == "600"
    assert second.headers["Min-SE"] == "600"
    stage.wire.sent[1].answer(422, headers=[("Min-SE", "600")])
    assert stage.last(Failed).code == 422
    assert len(stage.wire.sent) == 2


def test_bye_of_a_fork_before_the_answer_ends_only_that_fork() -> None:
    stage = Stage()
    session = stage.call()
    stage.wire.sent[0].answer(180, tag="a")
    stage.wire.sent[0].answer(180, tag="b")
    bye = stage.peer_sends(session, "BYE", tag="a")
    assert bye.codes == [200]
    assert [dialog.remote_tag for dialog in session.dialogs] == ["b"]
    stage.wire.sent[0].answer(200, tag="b", sdp=ANSWER)
    assert state_of(session) is SessionState.CONFIRMED


def test_reliable_18x_gets_prack_once_and_in_order() -> None:
    stage = Stage()
    session = stage.call()
    invite = stage.wire.sent[0]
    reliable = [("Require", "100rel")]
    invite.answer(183, sdp=ANSWER, headers=[*reliable, ("RSeq", "5")])
    invite.answer(183, sdp=ANSWER, headers=[*reliable, ("RSeq", "5")])
    invite.answer(180, headers=[*reliable, ("RSeq", "7")])
    invite.answer(180, headers=[*reliable, ("RSeq", "6")])
    pracks = [sent.request for sent in stage.requests("PRACK")]
    cseq = invite.request.cseq.sequence
    assert [prack.headers["RAck"] for prack in pracks] == [f"5 {cseq} INVITE", f"6 {cseq} INVITE"]
    assert [prack.cseq.sequence for prack in pracks] == [cseq + 1, cseq + 2]
    assert stage.names() == ["Progress", "Progress"]
    invite.answer(200, sdp=HELD)
    assert stage.last(Answered).sdp == ANSWER, "the reliable answer counts, the 200's copy does not"
    assert stage.wire.acks[0].cseq.sequence == cseq
    session.bye()
    assert stage.requests("BYE")[0].request.cseq.sequence == cseq + 3


def test_t6_no_prack_to_a_strict_peer_that_does_not_list_it() -> None:
    stage = Stage()
    stage.call(profile=dataclasses.replace(PROFILE, strict_allow=True))
    headers = [("Require", "100rel"), ("RSeq", "5"), ("Allow", "INVITE,ACK,OPTIONS,CANCEL,BYE,NOTIFY")]
    stage.wire.sent[0].answer(183, sdp=ANSWER, headers=headers)
    assert stage.methods() == ["INVITE"]
    assert stage.names() == ["Progress"]


@pytest.mark.allow_tracebacks
def test_handler_that_raises_ends_the_call_with_bye() -> None:
    stage = Stage()

    def react(_: Session, event: SessionEvent) -> None:
        if isinstance(event, Answered):
            raise RuntimeError("a mistake above")

    stage.react = react
    session = stage.established_out()
    assert stage.methods() == ["INVITE", "BYE"]
    assert session.over
    assert isinstance(stage.events[-1], Ended)


def test_commands_are_legal_inside_events() -> None:
    stage = Stage()

    def react(session: Session, event: SessionEvent) -> None:
        if isinstance(event, Answered):
            session.bye()

    stage.react = react
    stage.established_out()
    assert stage.names() == ["Answered", "Ended"]
    assert stage.methods() == ["INVITE", "BYE"]
    stage.requests("BYE")[0].answer(200)
    stage.assert_clean()


def test_2xx_without_contact_is_reached_at_the_request_uri() -> None:
    stage = Stage()
    stage.established_out(contact="")
    assert stage.wire.acks[0].uri_text == "sip:+4930123@sip.example.test;transport=tls"
