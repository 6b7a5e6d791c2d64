"""Endings: what a peer said, what the other side is told."""

from __future__ import annotations

import pytest

from gateway.model import ReleasedBy, Result, Termination, TrunkKind
from gateway.trunks.reasons import (
    Reason,
    answer_for,
    bye_headers,
    correlation,
    from_bye,
    from_cancel,
    from_response,
    from_timeout,
    from_transport,
    parse_reasons,
    q850_of,
    status_of,
)

GUID = "7e3c6e4a-1b2c-4d5e-8f90-0123456789ab"
TEAMS = TrunkKind.DIRECT_ROUTING


def answered(code: int, *reasons: str, rang: bool = False) -> Termination:
    return from_response(code, "Phrase", reasons, by=ReleasedBy.CALLEE, rang=rang)


def test_teams_reason_text_keeps_its_semicolon_and_sub_code() -> None:
    (reason,) = parse_reasons([f'Q.850;cause=21;text="{GUID};Call rejected 540603"'])
    assert reason == Reason("Q.850", 21, f"{GUID};Call rejected 540603")
    assert correlation(reason.text) == (GUID, "Call rejected 540603")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GUID, (GUID, "")),
        (f"{GUID.upper()} ; Busy", (GUID, "Busy")),
        ("Normal clearing", ("", "Normal clearing")),
        ("", ("", "")),
        ("1234;phrase", ("", "1234;phrase")),
    ],
)
def test_correlation_id(text: str, expected: tuple[str, str]) -> None:
    assert correlation(text) == expected


@pytest.mark.parametrize(
    "value", ["", ";;;", "Q.850;cause=", 'Q.850;cause=abc;text="x', "Q.850;cause=99999999999;text=", '"', "<"]
)
def test_rubbish_in_reason_never_raises(value: str) -> None:
    for reason in parse_reasons([value]):
        assert 0 <= reason.cause < 10**7


def test_several_reasons_in_one_line() -> None:
    reasons = parse_reasons(['SIP;cause=200;text="Call completed elsewhere",Q.850;cause=26'])
    assert [(reason.protocol, reason.cause) for reason in reasons] == [("SIP", 200), ("Q.850", 26)]


@pytest.mark.parametrize(
    ("code", "result", "word", "q850"),
    [
        (486, Result.BUSY, "busy", 17),
        (600, Result.BUSY, "busy", 17),
        (603, Result.DECLINED, "declined", 21),
        (404, Result.NOT_FOUND, "unknown_number", 1),
        (484, Result.NOT_FOUND, "number_incomplete", 28),
        (480, Result.NO_ANSWER, "unavailable", 18),
        (403, Result.REJECTED, "forbidden", 21),
        (488, Result.FAILED, "media_refused", 65),
        (503, Result.UNREACHABLE, "overloaded", 41),
        (408, Result.UNREACHABLE, "timeout", 102),
        (302, Result.UNREACHABLE, "redirected", 23),
        (499, Result.FAILED, "peer_refused", 127),
        (599, Result.FAILED, "peer_failed", 41),
    ],
)
def test_response_to_termination(code: int, result: Result, word: str, q850: int) -> None:
    ending = answered(code)
    assert (ending.result, ending.reason, ending.q850, ending.sip_code) == (result, word, q850, code)
    assert (ending.released_by, ending.text) == (ReleasedBy.CALLEE, "Phrase")


def test_the_peers_own_cause_and_words_win() -> None:
    ending = answered(480, f'Q.850;cause=20;text="{GUID};Subscriber absent"')
    assert (ending.q850, ending.text) == (20, f"{GUID};Subscriber absent")


def test_a_408_after_ringing_is_nobody_answered() -> None:
    ending = answered(408, rang=True)
    assert (ending.result, ending.q850) == (Result.NO_ANSWER, 19)


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (answered(486), 486),
        (answered(603), 603),
        (answered(600), 486),
        (answered(604), 404),
        (answered(606), 488),
        (answered(404), 404),
        (answered(484), 484),
        (answered(480), 480),
        (answered(488), 488),
        (answered(408), 408),
        (answered(503), 503),
        (answered(401), 403),
        (answered(400), 500),
        (answered(481), 500),
        (answered(487), 480),
        (answered(302), 404),
        (answered(410), 404),
        (answered(499), 480),
        (answered(599), 500),
        (answered(699), 603),
        (from_transport("refused"), 503),
        (from_timeout(rang=False), 408),
        (from_timeout(rang=True), 480),
    ],
)
def test_what_teams_is_told(ending: Termination, code: int) -> None:
    assert answer_for(ending, TEAMS).code == code


@pytest.mark.parametrize("code", [408, 504])
def test_t24_teams_does_not_ring_the_same_phone_again_through_its_fail_over(code: int) -> None:
    # 408 and 504 are in Microsoft's default FailoverResponseCodes
    assert answer_for(answered(code, rang=True), TEAMS).code == 480


def test_every_status_has_an_answer_and_a_cause() -> None:
    for code in range(300, 700):
        for kind in TrunkKind:
            answer = answer_for(answered(code), kind)
            assert 400 <= answer.code < 700
            assert answer.phrase
            assert answer.code not in (401, 407, 422, 491)
        assert 0 < q850_of(code) < 128


def test_reason_goes_along_in_both_directions() -> None:
    ending = answered(486)
    assert answer_for(ending, TrunkKind.SIP).headers == (("Reason", 'Q.850;cause=17;text="busy"'),)
    assert bye_headers(ending) == (("Reason", 'Q.850;cause=17;text="busy"'),)


def test_what_the_peer_wrote_never_reaches_the_other_side() -> None:
    ending = answered(486, 'Q.850;cause=17;text="10.0.0.1 said no\\"\\\\"')
    assert "10.0.0.1" not in answer_for(ending, TEAMS).headers[0][1]


@pytest.mark.parametrize(
    ("reasons", "result", "q850"),
    [
        ([], Result.COMPLETED, 16),
        ([f'Q.850;cause=16;text="{GUID};Normal"'], Result.COMPLETED, 16),
        (["Q.850;cause=31"], Result.COMPLETED, 31),
        (["Q.850;cause=38"], Result.FAILED, 38),
        (["SIP;cause=503"], Result.FAILED, 41),
        (["nonsense"], Result.COMPLETED, 16),
    ],
)
def test_bye(reasons: list[str], result: Result, q850: int) -> None:
    ending = from_bye(reasons, by=ReleasedBy.CALLER)
    assert (ending.result, ending.q850, ending.sip_code) == (result, q850, 200)


def test_cancel() -> None:
    assert from_cancel().result is Result.ABANDONED
    elsewhere = from_cancel(['SIP;cause=200;text="Call completed elsewhere"'])
    assert (elsewhere.result, elsewhere.q850) == (Result.COMPLETED, 26)


def test_every_cause_has_a_status() -> None:
    for cause in range(1, 128):
        assert 400 <= status_of(cause) < 600
