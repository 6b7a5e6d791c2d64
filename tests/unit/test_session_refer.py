"""REFER, Replaces and other requests inside a session (RFC 3515, 3891, 4488; T18, T28)."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.sip.message import Request
from gateway.sip.refer import Referred
from gateway.sip.session import Session
from gateway.sip.session_events import Ended, RequestReceived, SessionEvent
from tests.unit.session_stage import ANSWER, PROFILE, Received, Stage

TARGET = (
    "<sip:sip.pstnhub.example.test:5061;transport=tls;x-m=8:orgid:0f5a-77;x-t=ab/cd+e%3D;"
    + "y=" + "q" * 4200 + "?Replaces=call%3Bto-tag%3Da>"
)  # fmt: skip
REFERRED_BY = '<sip:x@sip.example.test;x-m=8:orgid:77;x-tt="sip%3Aa%40b">'


def referred(
    stage: Stage, session: Session, *more: tuple[str, str], target: str = TARGET
) -> tuple[Received, Referred]:
    headers = [("Refer-To", target), ("Referred-By", REFERRED_BY), *more]
    received = stage.peer_sends(session, "REFER", headers=headers)
    event: Referred = stage.last(Referred)
    return received, event


def notifies(stage: Stage) -> list[tuple[bytes, str]]:
    requests = [sent.request for sent in stage.requests("NOTIFY")]
    return [(request.body, request.headers["Subscription-State"]) for request in requests]


def test_t18_refer_is_202_then_100_trying_with_values_byte_exact() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    received, event = referred(stage, session)
    assert (event.refer_to, event.referred_by) == (TARGET, REFERRED_BY)
    assert received.codes == []
    event.accept()
    assert received.codes == [202]
    notify = stage.wire.sent[-1].request
    assert notify.headers["Event"] == "refer"
    assert notify.headers["Content-Type"] == "message/sipfrag"
    assert notify.headers["Subscription-State"].startswith("active;expires=")
    assert notify.body == b"SIP/2.0 100 Trying\r\n"
    assert notify.headers.get("Contact") == PROFILE.contact("+4940")


async def test_t18_notifies_go_in_order_each_after_the_answer_of_the_last() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    _, event = referred(stage, session)
    event.accept()
    event.notify(180)
    event.notify(200)
    event.notify(503)
    assert len(notifies(stage)) == 1
    stage.wire.sent[-1].answer(200)
    assert notifies(stage)[1][0] == b"SIP/2.0 180 Ringing\r\n"
    stage.wire.sent[-1].answer(200)
    assert notifies(stage)[2] == (b"SIP/2.0 200 OK\r\n", "terminated;reason=noresource")
    assert not event.finished.is_set()
    stage.wire.sent[-1].answer(200)
    assert event.finished.is_set()
    await event.finished.wait()
    assert len(notifies(stage)) == 3


def test_t18_our_bye_waits_for_the_answer_to_the_final_notify() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    _, event = referred(stage, session)
    event.accept()
    stage.wire.sent[-1].answer(200)
    event.notify(200)
    session.bye()
    assert stage.requests("BYE") == []
    stage.wire.sent[-1].answer(200)
    assert len(stage.requests("BYE")) == 1
    stage.wire.sent[-1].answer(200)
    stage.assert_clean()


def test_t18_bye_of_the_transferor_after_280_ms_keeps_the_subscription() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    _, event = referred(stage, session)
    event.accept()
    stage.wire.sent[-1].answer(200)
    stage.clock.advance(0.28)
    assert stage.peer_sends(session, "BYE").codes == [200]
    assert stage.last(Ended).by == "remote"
    assert stage.agent.active["subscriptions"] == 1
    event.notify(200)
    assert notifies(stage)[-1] == (b"SIP/2.0 200 OK\r\n", "terminated;reason=noresource")
    stage.wire.sent[-1].answer(200)
    stage.assert_clean()


def test_t18_481_to_a_notify_is_tolerated() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    _, event = referred(stage, session)
    event.accept()
    stage.wire.sent[-1].answer(481)
    assert event.finished.is_set()
    assert not session.over
    event.notify(200)
    assert len(notifies(stage)) == 1


def test_subscription_that_nobody_finishes_is_terminated() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    _, event = referred(stage, session)
    event.accept()
    stage.wire.sent[-1].answer(200)
    stage.clock.advance(301)
    assert notifies(stage)[-1][1] == "terminated;reason=timeout"
    stage.wire.sent[-1].answer(200)
    assert event.finished.is_set()


def test_second_refer_in_a_dialog_has_an_event_id() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    _, first = referred(stage, session)
    first.reject(603)
    _, second = referred(stage, session)
    second.accept()
    cseq = second.request.cseq.sequence
    assert stage.wire.sent[-1].request.headers["Event"] == f"refer;id={cseq}"


def test_refer_sub_false_gets_no_notify() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    received, event = referred(stage, session, ("Refer-Sub", "false"))
    event.accept()
    event.notify(200)
    assert received.last.code == 202
    assert received.last.headers.get("Refer-Sub") == "false"
    assert stage.wire.sent == []
    assert event.finished.is_set()


@pytest.mark.parametrize("headers", [[], [("Refer-To", "<sip:a@b>"), ("Refer-To", "<sip:c@d>")]])
def test_refer_without_exactly_one_refer_to_is_400(headers: list[tuple[str, str]]) -> None:
    stage = Stage()
    session, _ = stage.established_in()
    assert stage.peer_sends(session, "REFER", headers=headers).codes == [400]
    assert stage.agent.active["subscriptions"] == 0


def test_refer_that_nobody_answers_is_603() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    received, event = referred(stage, session)
    stage.clock.advance(26)
    assert received.codes == [603]
    event.accept()
    assert received.codes == [603]
    assert stage.agent.active["subscriptions"] == 0


# -- other requests


def answer_with(stage: Stage, code: int) -> None:
    def react(_: Session, event: SessionEvent) -> None:
        if isinstance(event, RequestReceived):
            event.respond(code)

    stage.react = react


def test_info_is_handed_up_and_answered() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    answer_with(stage, 200)
    info = stage.peer_sends(session, "INFO", sdp=b"Signal=5", content_type="application/dtmf-relay")
    assert info.codes == [200]


def test_deferred_request_is_answered_later_or_500() -> None:
    stage = Stage()
    session, _ = stage.established_in()

    def react(_: Session, event: SessionEvent) -> None:
        if isinstance(event, RequestReceived):
            event.defer()

    stage.react = react
    first = stage.peer_sends(session, "INFO")
    event = stage.last(RequestReceived)
    assert first.codes == []
    event.respond(200)
    second = stage.peer_sends(session, "INFO")
    stage.clock.advance(26)
    assert (first.codes, second.codes) == ([200], [500])


@pytest.mark.parametrize(
    ("method", "headers", "body", "code"),
    [
        ("INFO", [], b"", 200),
        ("INFO", [], b"Signal=1", 415),
        ("INFO", [("Info-Package", "x")], b"", 469),
        ("NOTIFY", [("Event", "presence")], b"", 481),
        ("MESSAGE", [], b"hello", 405),
        ("SUBSCRIBE", [], b"", 405),
        ("FROBNICATE", [], b"", 501),
        ("OPTIONS", [], b"", 200),
    ],
)
def test_safe_default_when_nobody_answers(
    method: str, headers: list[tuple[str, str]], body: bytes, code: int
) -> None:
    stage = Stage()
    session, _ = stage.established_in()
    received = stage.peer_sends(session, method, sdp=body, headers=headers, content_type="text/plain")
    assert received.codes == [code]
    if code == 405:
        assert received.last.headers.get("Allow") == ", ".join(PROFILE.allow)
    if method == "OPTIONS":
        assert received.last.headers.get("Allow") == ", ".join(PROFILE.allow)
        assert received.last.headers.get("Contact") == PROFILE.contact("+4940")
    assert not session.over


# -- Replaces


def replacing(stage: Stage, value: str, **more: Any) -> Received:
    return stage.invited(headers=[("Replaces", value)], call_id="call-2", from_tag="other", **more)


def test_t28_replaces_finds_the_confirmed_session() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    dialog = session.dialog
    replacing(stage, f"{dialog.call_id};to-tag={dialog.local_tag};from-tag={dialog.remote_tag}")
    assert stage.incoming[-1].replaces is session


def test_replaces_finds_an_early_session_that_we_started() -> None:
    stage = Stage()
    session = stage.call()
    stage.wire.sent[0].answer(180, tag="fork")
    value = f"{session.dialog.call_id};from-tag=fork;to-tag={session.dialog.local_tag};early-only"
    replacing(stage, value)
    assert stage.incoming[-1].replaces is session


def test_replaces_does_not_match_an_early_session_of_the_peer() -> None:
    stage = Stage()
    stage.invited()
    dialog = stage.incoming[0].dialog
    invite = replacing(stage, f"{dialog.call_id};to-tag={dialog.local_tag};from-tag={dialog.remote_tag}")
    assert invite.codes == [481]


def test_early_only_and_answered_is_486() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    dialog = session.dialog
    value = f"{dialog.call_id};to-tag={dialog.local_tag};from-tag={dialog.remote_tag};early-only"
    assert replacing(stage, value).codes == [486]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("nobody;to-tag=a;from-tag=b", 481),
        ("call-1;to-tag=a", 400),
        ("call-1;from-tag=b;to-tag=", 400),
        ("call-1;to-tag=a;to-tag=b;from-tag=c", 400),
        ("call-1;to-tag=a;from-tag=b, call-2;to-tag=a;from-tag=b", 400),
    ],
)
def test_replaces_that_matches_nothing_or_is_malformed(value: str, code: int) -> None:
    stage = Stage()
    assert replacing(stage, value).codes == [code]
    assert stage.incoming == []


def test_two_replaces_headers_are_400() -> None:
    stage = Stage()
    headers = [("Replaces", "a;to-tag=b;from-tag=c")] * 2
    assert stage.invited(headers=headers).codes == [400]


def test_replaces_of_a_session_that_is_ending_is_603() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    session.bye()
    dialog = session.dialog
    value = f"{dialog.call_id};to-tag={dialog.local_tag};from-tag={dialog.remote_tag}"
    assert replacing(stage, value).codes == [603]


def request_of(stage: Stage) -> Request:
    return stage.wire.sent[-1].request


def test_t17_answer_after_replaces_is_a_session_of_its_own() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    dialog = session.dialog
    invite = replacing(stage, f"{dialog.call_id};to-tag={dialog.local_tag};from-tag={dialog.remote_tag}")
    fresh = stage.incoming[-1]
    fresh.accept(ANSWER)
    stage.ack(fresh, invite)
    session.bye()
    assert request_of(stage).call_id == dialog.call_id
    stage.wire.sent[-1].answer(200)
    assert stage.agent.active["sessions"] == 1
