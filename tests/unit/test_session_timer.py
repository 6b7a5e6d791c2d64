"""Session timers in both roles (RFC 4028): what is granted, when we refresh, when we give up."""

from __future__ import annotations

import dataclasses

import pytest
from sipmessage import Headers

from gateway.errors import MessageError, TransactionTimeout
from gateway.sip.session import Session
from gateway.sip.session_events import Ended
from gateway.sip.session_state import SessionState
from gateway.sip.session_timer import (
    IntervalTooSmall,
    SessionTimer,
    grant,
    granted_by_peer,
    parse_session_expires,
    request_headers,
)
from tests.unit.session_stage import ANSWER, HELD, OFFER, PROFILE, Stage

TIMED = dataclasses.replace(PROFILE, session_expires=1800)
ALLOW_UPDATE = ("Allow", "INVITE, ACK, BYE, CANCEL, UPDATE")


def headers(*pairs: tuple[str, str]) -> Headers:
    made = Headers()
    for name, value in pairs:
        made.add(name, value)
    return made


@pytest.mark.parametrize(
    ("asked", "supports", "wanted", "min_se", "expires", "refresher"),
    [
        ([("Session-Expires", "3600;refresher=uac")], True, 1800, 90, 1800, "remote"),
        ([("Session-Expires", "3600;refresher=uas")], True, 1800, 90, 1800, "local"),
        ([("Session-Expires", "3600"), ("Min-SE", "2000")], True, 1800, 90, 2000, "remote"),
        ([("Session-Expires", "600;refresher=uac")], True, 1800, 90, 600, "remote"),
        ([("Session-Expires", "3600")], False, 1800, 90, 1800, "local"),
        ([("Session-Expires", "60")], False, 1800, 90, 90, "local"),
        ([("Session-Expires", "600")], True, 0, 90, 600, "remote"),
        ([], True, 1800, 90, 1800, "remote"),
        ([("Min-SE", "2400")], True, 1800, 90, 2400, "remote"),
        ([], False, 1800, 90, 0, ""),
        ([], True, 0, 90, 0, ""),
    ],
)
def test_what_a_uas_grants(
    asked: list[tuple[str, str]],
    supports: bool,
    wanted: int,
    min_se: int,
    expires: int,
    refresher: str,
) -> None:
    timer, answer = grant(headers(*asked), supports, wanted, min_se, SessionTimer())
    assert (timer.expires, timer.refresher) == (expires, refresher)
    names = dict(answer)
    if expires:
        role = "uac" if refresher == "remote" else "uas"
        assert names["Session-Expires"] == f"{expires};refresher={role}"
    assert ("Require" in names) == (refresher == "remote")


def test_interval_below_min_se_is_422_only_to_one_who_knows_timers() -> None:
    with pytest.raises(IntervalTooSmall) as error:
        grant(headers(("Session-Expires", "89")), True, 1800, 90, SessionTimer())
    assert (error.value.code, error.value.min_se) == (422, 90)


@pytest.mark.parametrize("text", ["soon", "-5", "", "18 00"])
def test_unreadable_session_expires_is_400(text: str) -> None:
    with pytest.raises(MessageError) as error:
        parse_session_expires(headers(("Session-Expires", text)))
    assert error.value.code == 400


@pytest.mark.parametrize(
    ("text", "expires", "refresher"),
    [("1800;refresher=uac", 1800, "local"), ("1800;refresher=uas", 1800, "remote"), ("90", 90, "local")],
)
def test_what_a_uac_takes_from_the_2xx(text: str, expires: int, refresher: str) -> None:
    timer = granted_by_peer(headers(("Session-Expires", text)), SessionTimer(min_se=120))
    assert timer == SessionTimer(expires, refresher, 120)  # type: ignore[arg-type]  # parametrised literal


def test_refreshes_keep_the_refresher_and_min_se() -> None:
    running = SessionTimer(600, "remote", 120)
    assert request_headers(1800, 90, running) == [
        ("Session-Expires", "600;refresher=uas"),
        ("Min-SE", "120"),
    ]
    assert request_headers(0, 90, SessionTimer()) == []
    assert request_headers(1800, 90, SessionTimer()) == [("Session-Expires", "1800")]


def timed_out(stage: Stage, expires: int = 1800, *more: tuple[str, str]) -> Session:
    """We called, the timer runs and we refresh."""
    granted = ("Session-Expires", f"{expires};refresher=uac")
    return stage.established_out(profile=TIMED, headers=[granted, *more])


def test_we_refresh_at_half_time_by_update_without_sdp() -> None:
    stage = Stage()
    timed_out(stage, 1800, ALLOW_UPDATE)
    stage.clock.advance(899)
    assert stage.methods() == ["INVITE"]
    stage.clock.advance(2)
    update = stage.wire.sent[-1]
    assert (update.request.method, update.request.body) == ("UPDATE", b"")
    assert update.request.headers["Session-Expires"] == "1800;refresher=uac"
    update.answer(200, headers=[("Session-Expires", "1800;refresher=uac")])
    stage.clock.advance(899)
    assert len(stage.wire.sent) == 2
    stage.clock.advance(2)
    assert len(stage.wire.sent) == 3


def test_t16_we_refresh_by_reinvite_with_unchanged_sdp_when_update_is_not_allowed() -> None:
    stage = Stage()
    timed_out(stage, 1800, ("Allow", "INVITE,ACK,OPTIONS,CANCEL,BYE,NOTIFY"))
    stage.clock.advance(901)
    reinvite = stage.wire.sent[-1]
    assert (reinvite.request.method, reinvite.request.body) == ("INVITE", OFFER)
    reinvite.answer(200, sdp=ANSWER, headers=[("Session-Expires", "1800;refresher=uac")])
    assert stage.names() == ["Answered"], "an unchanged answer is no news"
    assert len(stage.wire.acks) == 2


def test_refresh_answered_with_other_sdp_is_told() -> None:
    stage = Stage()
    session = timed_out(stage)
    stage.clock.advance(901)
    stage.wire.sent[-1].answer(200, sdp=HELD, headers=[("Session-Expires", "1800;refresher=uac")])
    assert stage.names() == ["Answered", "OfferAnswered"]
    assert session.dialog.remote_sdp == HELD


def test_update_refused_405_falls_back_to_reinvite() -> None:
    stage = Stage()
    timed_out(stage, 1800, ALLOW_UPDATE)
    stage.clock.advance(901)
    stage.wire.sent[-1].answer(405)
    assert stage.methods() == ["INVITE", "UPDATE", "INVITE"]
    assert stage.wire.sent[-1].request.body == OFFER


def test_peer_that_does_not_refresh_gets_bye_before_the_end() -> None:
    stage = Stage()
    granted = ("Session-Expires", "1800;refresher=uas")
    stage.established_out(profile=TIMED, headers=[granted])
    stage.clock.advance(1800 - 32 - 0.1)
    assert stage.methods() == ["INVITE"]
    stage.clock.advance(0.2)
    assert stage.methods() == ["INVITE", "BYE"]
    assert (stage.last(Ended).by, stage.last(Ended).code) == ("timeout", 408)
    stage.wire.sent[-1].answer(200)
    stage.assert_clean()


def test_short_intervals_give_up_a_third_before_the_end() -> None:
    assert SessionTimer(90, "remote").give_up_after == 60
    assert SessionTimer(90, "local").refresh_after == 45


def test_peer_refresh_restarts_the_timer() -> None:
    stage = Stage(TIMED)
    asked = [("Session-Expires", "1800;refresher=uac"), ("Supported", "timer")]
    session, _ = stage.established_in(headers=asked)
    stage.clock.advance(1700)
    change = stage.peer_sends(session, "INVITE", sdp=OFFER, headers=asked)
    assert change.last.headers["Session-Expires"] == "1800;refresher=uac"
    stage.ack(session, change)
    stage.clock.advance(1700)
    assert session.state is SessionState.CONFIRMED
    stage.clock.advance(100)
    assert stage.methods() == ["BYE"]


def test_422_to_a_refresh_is_retried_with_the_larger_interval() -> None:
    stage = Stage()
    timed_out(stage, 300, ALLOW_UPDATE)
    stage.clock.advance(151)
    stage.wire.sent[-1].answer(422, headers=[("Min-SE", "900")])
    update = stage.wire.sent[-1].request
    assert update.headers["Session-Expires"] == "900;refresher=uac"
    assert update.headers["Min-SE"] == "900"


def test_silence_to_a_refresh_ends_the_session() -> None:
    stage = Stage()
    timed_out(stage, 1800, ALLOW_UPDATE)
    stage.clock.advance(901)
    stage.wire.sent[-1].on_failure(TransactionTimeout("no answer"))
    assert (stage.last(Ended).by, stage.last(Ended).code) == ("timeout", 408)


def test_refused_refresh_is_tried_again_and_then_given_up() -> None:
    stage = Stage()
    timed_out(stage, 180, ALLOW_UPDATE)
    stage.clock.advance(91)
    stage.wire.sent[-1].answer(500)
    stage.clock.advance(11)
    assert stage.methods() == ["INVITE", "UPDATE", "UPDATE"]
    stage.wire.sent[-1].answer(500)
    stage.clock.advance(60)
    assert stage.methods()[-1] == "BYE"


def test_2xx_without_session_expires_turns_the_timer_off() -> None:
    stage = Stage()
    stage.established_out(profile=TIMED)
    stage.clock.advance(4000)
    assert stage.methods() == ["INVITE"]
    assert stage.clock.pending == 0
