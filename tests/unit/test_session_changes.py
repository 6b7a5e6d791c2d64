"""Changes inside a session: re-INVITE and UPDATE both ways, glare, refreshes we answer (RFC 3261 14)."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from gateway.errors import SessionRefused, SipError, TransactionTimeout
from gateway.sip.message import make_request
from gateway.sip.session import Session
from gateway.sip.session_events import Ended, OfferAnswered, OfferReceived
from gateway.sip.session_state import SessionState
from tests.unit.session_stage import ANSWER, HELD, HOLD, OFFER, PROFILE, Received, Sent, Stage, state_of

ALLOW_UPDATE = [("Allow", "INVITE, ACK, BYE, CANCEL, UPDATE")]


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def offered(stage: Stage, session: Session, sdp: bytes = HOLD) -> tuple[asyncio.Task[bytes], Sent]:
    task = asyncio.create_task(session.offer(sdp))
    await settle()
    return task, stage.wire.sent[-1]


async def test_offer_by_reinvite_is_answered_and_acknowledged() -> None:
    stage = Stage()
    session = stage.established_out()
    task, reinvite = await offered(stage, session)
    request = reinvite.request
    assert (request.method, request.body) == ("INVITE", HOLD)
    assert request.headers.get("Contact") == "<sip:+4940@gw.example.test>"
    reinvite.answer(200, sdp=HELD, contact="<sip:moved@192.0.2.77:443;x-i=1>")
    assert await task == HELD
    ack = stage.wire.acks[-1]
    assert (ack.cseq.sequence, ack.uri_text) == (request.cseq.sequence, "sip:moved@192.0.2.77:443;x-i=1")
    reinvite.answer(200, sdp=HELD)
    assert len(stage.wire.acks) == 3
    assert (session.dialog.local_sdp, session.dialog.remote_sdp) == (HOLD, HELD)


@pytest.mark.parametrize("code", [403, 488, 500, 503])
async def test_refused_reinvite_leaves_the_session_as_it_was(code: int) -> None:
    stage = Stage()
    session = stage.established_out()
    task, reinvite = await offered(stage, session)
    reinvite.answer(code)
    with pytest.raises(SessionRefused) as error:
        await task
    assert error.value.code == code
    assert session.state is SessionState.CONFIRMED
    assert (session.dialog.local_sdp, session.dialog.remote_sdp) == (OFFER, ANSWER)
    assert session.offers.stable


async def test_481_to_a_reinvite_ends_the_session_without_bye() -> None:
    stage = Stage()
    session = stage.established_out()
    task, reinvite = await offered(stage, session)
    reinvite.answer(481)
    with pytest.raises(SessionRefused):
        await task
    assert (stage.last(Ended).by, stage.last(Ended).code) == ("error", 481)
    assert stage.requests("BYE") == []
    stage.assert_clean()


async def test_silence_to_a_reinvite_ends_the_session_with_bye() -> None:
    stage = Stage()
    session = stage.established_out()
    task, reinvite = await offered(stage, session)
    reinvite.on_failure(TransactionTimeout("no answer"))
    with pytest.raises(SipError):
        await task
    assert (stage.last(Ended).by, stage.last(Ended).code) == ("timeout", 408)
    stage.requests("BYE")[0].answer(200)
    stage.assert_clean()


@pytest.mark.parametrize(
    ("outgoing", "earliest", "latest"), [(True, 2.1, 4.0), (False, 0.0, 2.0)], ids=["owner", "other side"]
)
async def test_491_is_retried_after_the_time_of_rfc_3261_14_1(
    outgoing: bool, earliest: float, latest: float
) -> None:
    stage = Stage()
    session = stage.established_out() if outgoing else stage.established_in()[0]
    task, first = await offered(stage, session)
    before = len(stage.wire.sent)
    first.answer(491)
    stage.clock.advance(max(0.0, earliest - 0.01))
    if outgoing:
        assert len(stage.wire.sent) == before
    stage.clock.advance(latest - earliest + 0.02)
    assert len(stage.wire.sent) == before + 1
    second = stage.wire.sent[-1]
    assert second.request.cseq.sequence == first.request.cseq.sequence + 1
    second.answer(200, sdp=HELD)
    assert await task == HELD


async def test_peer_may_change_while_we_wait_after_glare() -> None:
    stage = Stage()
    session = stage.established_out()
    task, first = await offered(stage, session)
    crossing = stage.peer_sends(session, "INVITE", sdp=HELD)
    assert crossing.codes == [491]
    first.answer(491)
    again = stage.peer_sends(session, "INVITE", sdp=HELD)
    stage.last(OfferReceived).answer(HOLD)
    assert again.codes == [200]
    stage.clock.advance(4.1)
    assert len(stage.requests("INVITE")) == 2, "not before the ACK of the peer's change"
    stage.ack(session, again)
    assert len(stage.requests("INVITE")) == 3
    stage.wire.sent[-1].answer(200, sdp=HELD)
    assert await task == HELD


async def test_offers_go_one_after_the_other() -> None:
    stage = Stage()
    session = stage.established_out()
    first, reinvite = await offered(stage, session)
    second = asyncio.create_task(session.offer(OFFER))
    await settle()
    assert len(stage.requests("INVITE")) == 2
    reinvite.answer(200, sdp=HELD)
    assert len(stage.requests("INVITE")) == 3
    stage.wire.sent[-1].answer(200, sdp=ANSWER)
    assert (await first, await second) == (HELD, ANSWER)


async def test_offer_waits_for_the_ack_of_our_2xx() -> None:
    stage = Stage()
    invite = stage.invited()
    session = stage.incoming[0]
    session.accept(ANSWER)
    task = asyncio.create_task(session.offer(HOLD))
    await settle()
    assert stage.methods() == []
    stage.ack(session, invite)
    assert stage.methods() == ["INVITE"]
    stage.wire.sent[-1].answer(200, sdp=HELD)
    assert await task == HELD


async def test_end_of_the_session_fails_waiting_offers() -> None:
    stage = Stage()
    session = stage.established_out()
    first, _ = await offered(stage, session)
    second = asyncio.create_task(session.offer(OFFER))
    await settle()
    stage.peer_sends(session, "BYE")
    for task in (first, second):
        with pytest.raises(SessionRefused) as error:
            await task
        assert error.value.code == 487
    with pytest.raises(SessionRefused):
        await session.offer(OFFER)
    stage.assert_clean()


async def test_2xx_to_a_reinvite_after_the_end_is_still_acknowledged() -> None:
    stage = Stage()
    session = stage.established_out()
    task, reinvite = await offered(stage, session)
    stage.peer_sends(session, "BYE")
    with pytest.raises(SessionRefused):
        await task
    reinvite.answer(200, sdp=HELD)
    assert len(stage.wire.acks) == 2


async def test_2xx_without_an_answer_is_refused_but_acknowledged() -> None:
    stage = Stage()
    session = stage.established_out()
    task, reinvite = await offered(stage, session)
    reinvite.answer(200)
    with pytest.raises(SessionRefused):
        await task
    assert len(stage.wire.acks) == 2
    assert session.offers.stable


async def test_update_is_refused_locally_when_the_peer_does_not_list_it() -> None:
    stage = Stage()
    session = stage.established_out(headers=[("Allow", "INVITE,ACK,OPTIONS,CANCEL,BYE,NOTIFY")])
    with pytest.raises(SessionRefused) as error:
        await session.offer(HOLD, method="update")
    assert error.value.code == 405
    assert stage.methods() == ["INVITE"]
    assert session.offers.stable


async def test_early_offer_goes_by_update_after_a_reliable_answer() -> None:
    stage = Stage()
    session = stage.call()
    task = asyncio.create_task(session.offer(HOLD))
    await settle()
    assert stage.methods() == ["INVITE"]
    headers = [("Require", "100rel"), ("RSeq", "1"), *ALLOW_UPDATE]
    stage.wire.sent[0].answer(183, sdp=ANSWER, headers=headers)
    assert stage.methods() == ["INVITE", "PRACK", "UPDATE"]
    stage.wire.sent[-1].answer(200, sdp=HELD)
    assert await task == HELD
    stage.wire.sent[0].answer(200)
    assert session.dialog.local_sdp == HOLD
    assert state_of(session) is SessionState.CONFIRMED


@pytest.mark.parametrize("method", ["INFO", "UPDATE", "REFER", "PRACK", "MESSAGE"])
async def test_t6_strict_profile_sends_only_what_the_peer_lists(method: str) -> None:
    stage = Stage()
    session = stage.established_out(
        profile=dataclasses.replace(PROFILE, strict_allow=True),
        headers=[("Allow", "INVITE,ACK,OPTIONS,CANCEL,BYE,NOTIFY")],
    )
    with pytest.raises(SessionRefused) as error:
        await session.send(method)
    assert error.value.code == 405
    assert stage.methods() == ["INVITE"]


# -- the peer changes


def test_reinvite_is_handed_up_and_answered() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    change = stage.peer_sends(session, "INVITE", sdp=HOLD, contact="<sip:new@192.0.2.8:443;x-c=a/s/1/b>")
    offer = stage.last(OfferReceived)
    assert (offer.sdp, offer.method) == (HOLD, "INVITE")
    offer.answer(HELD)
    assert (change.last.code, change.last.body) == (200, HELD)
    assert session.dialog.remote_target == "sip:new@192.0.2.8:443;x-c=a/s/1/b"
    stage.clock.advance(0.6)
    assert change.codes == [200, 200]
    stage.ack(session, change)
    stage.clock.advance(40)
    assert change.codes == [200, 200]
    offer.answer(ANSWER)
    assert change.codes == [200, 200], "an offer is answered once"


def test_reinvite_rejected_leaves_everything() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    change = stage.peer_sends(session, "INVITE", sdp=HOLD, contact="<sip:new@192.0.2.8>")
    stage.last(OfferReceived).reject(488, None, [("Warning", '304 gw "no"')])
    assert change.last.code == 488
    assert change.last.headers.get("Warning") == '304 gw "no"'
    assert session.dialog.remote_target == "sip:alice@192.0.2.9:5061;transport=tls"
    assert session.state is SessionState.CONFIRMED
    assert session.offers.stable


def test_reinvite_without_ack_ends_the_session() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    stage.peer_sends(session, "INVITE", sdp=HOLD)
    stage.last(OfferReceived).answer(HELD)
    stage.clock.advance(32.1)
    assert stage.methods() == ["BYE"]
    assert stage.last(Ended).by == "timeout"


def test_second_reinvite_while_one_is_open_is_500_with_retry_after() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    stage.peer_sends(session, "INVITE", sdp=HOLD)
    second = stage.peer_sends(session, "INVITE", sdp=OFFER)
    assert second.codes == [500]
    assert 0 <= int(second.last.headers["Retry-After"]) <= 10


def test_update_while_a_reinvite_is_open_is_500_with_retry_after() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    stage.peer_sends(session, "INVITE", sdp=HOLD)
    second = stage.peer_sends(session, "UPDATE", sdp=OFFER)
    assert second.codes == [500]
    assert second.last.headers.get("Retry-After") is not None


def test_lower_cseq_is_500() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    assert stage.peer_sends(session, "INFO", cseq=3).codes == [500]
    assert stage.peer_sends(session, "OPTIONS").codes == [200]


async def test_491_both_ways_while_our_offer_is_out() -> None:
    stage = Stage()
    session = stage.established_out()
    task, reinvite = await offered(stage, session)
    assert stage.peer_sends(session, "INVITE", sdp=HELD).codes == [491]
    assert stage.peer_sends(session, "UPDATE", sdp=HELD).codes == [491]
    assert stage.peer_sends(session, "UPDATE").codes == [200], "an UPDATE without offer is no glare"
    reinvite.answer(200, sdp=HELD)
    assert await task == HELD


def test_cancel_of_a_reinvite_is_487_and_the_call_goes_on() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    change = stage.peer_sends(session, "INVITE", sdp=HOLD)
    offer = stage.last(OfferReceived)
    cancel = make_request("CANCEL", "sip:x", from_="<sip:a>", to="<sip:b>", call_id="call-1", cseq=101)
    stage.agent.on_cancel(change, cancel)
    assert change.codes == [487]
    assert offer.withdrawn
    offer.answer(HELD)
    assert change.codes == [487]
    assert session.state is SessionState.CONFIRMED
    assert session.offers.stable


def test_bye_while_a_reinvite_is_open_answers_it_487() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    change = stage.peer_sends(session, "INVITE", sdp=HOLD)
    assert stage.peer_sends(session, "BYE").codes == [200]
    assert change.codes == [487]
    stage.assert_clean()


def test_offer_that_nobody_answers_is_500_before_the_peer_gives_up() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    change = stage.peer_sends(session, "UPDATE", sdp=HOLD)
    stage.clock.advance(26)
    assert change.codes == [500]
    assert session.offers.stable


def check_refresh(stage: Stage, session: Session, change: Received, expected: bytes) -> None:
    assert change.codes == [200]
    assert change.last.body == expected
    assert "OfferReceived" not in stage.names()
    assert session.offers.stable


def test_t15_t16_refresh_with_identical_sdp_is_answered_from_our_own_state() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    change = stage.peer_sends(session, "INVITE", sdp=OFFER)
    check_refresh(stage, session, change, ANSWER)
    stage.ack(session, change)
    check_refresh(stage, session, stage.peer_sends(session, "UPDATE", sdp=OFFER), ANSWER)
    check_refresh(stage, session, stage.peer_sends(session, "UPDATE"), b"")


def test_sdp_that_differs_in_one_digit_is_no_refresh() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    change = stage.peer_sends(session, "INVITE", sdp=OFFER.replace(b"4000", b"4002"))
    assert change.codes == []
    assert stage.names() == ["Confirmed", "OfferReceived"]


def test_t15_refresh_on_a_leg_we_called_is_answered_with_our_offer() -> None:
    stage = Stage()
    session = stage.established_out()
    change = stage.peer_sends(session, "INVITE", sdp=ANSWER)
    check_refresh(stage, session, change, OFFER)


async def test_identical_sdp_whose_direction_our_last_sdp_cannot_answer_is_handed_up() -> None:
    stage = Stage()
    session = stage.established_out()
    task, reinvite = await offered(stage, session, OFFER)
    reinvite.answer(200, sdp=HELD)
    await task
    stage.peer_sends(session, "INVITE", sdp=HELD)
    assert stage.last(OfferReceived).sdp == HELD


def test_offerless_reinvite_gets_our_offer_and_the_ack_answers() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    change = stage.peer_sends(session, "INVITE")
    offer = stage.last(OfferReceived)
    assert offer.sdp is None
    offer.answer(ANSWER)
    assert change.last.body == ANSWER
    assert stage.peer_sends(session, "INVITE", sdp=HOLD).codes == [491], "its ACK still owes an answer"
    stage.ack(session, change, sdp=OFFER)
    assert stage.last(OfferAnswered).sdp == OFFER
    assert session.offers.stable


def test_415_and_420_inside_a_session() -> None:
    stage = Stage()
    session, _ = stage.established_in()
    foreign = stage.peer_sends(session, "INVITE", sdp=b"x", content_type="text/plain")
    assert (foreign.last.code, foreign.last.headers.get("Accept")) == (415, "application/sdp")
    required = stage.peer_sends(session, "INVITE", sdp=HOLD, headers=[("Require", "foo")])
    assert (required.last.code, required.last.headers.get("Unsupported")) == (420, "foo")
    assert session.offers.stable


def test_update_in_the_early_dialog_before_the_answer_is_500_with_retry_after() -> None:
    stage = Stage()
    stage.invited()
    session = stage.incoming[0]
    session.provisional(183, None, ANSWER)
    update = stage.peer_sends(session, "UPDATE", sdp=HOLD)
    assert update.codes == [500]
    assert update.last.headers.get("Retry-After") is not None


def test_update_from_an_early_fork_is_answered_on_its_dialog() -> None:
    stage = Stage()
    session = stage.call()
    headers = [("Require", "100rel"), ("RSeq", "1")]
    stage.wire.sent[0].answer(183, tag="a", sdp=ANSWER, headers=headers)
    update = stage.peer_sends(session, "UPDATE", sdp=HELD, tag="a")
    stage.last(OfferReceived).answer(HOLD)
    assert (update.last.code, update.last.body) == (200, HOLD)
    assert session.dialogs[0].remote_sdp == HELD


def test_reinvite_before_the_ack_of_the_first_answer_is_taken() -> None:
    stage = Stage()
    invite = stage.invited()
    session = stage.incoming[0]
    session.accept(ANSWER)
    change = stage.peer_sends(session, "INVITE", sdp=HOLD)
    stage.last(OfferReceived).answer(HELD)
    assert change.codes == [200]
    stage.ack(session, change)
    stage.ack(session, invite)
    assert state_of(session) is SessionState.CONFIRMED
