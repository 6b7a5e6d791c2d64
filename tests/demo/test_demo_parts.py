"""What the demo measures and prints, without a call."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.demo.hearing import find, judge
from tests.demo.ladder import Ladder, Step, line
from tests.peers.tone import RATE, Pcm, decode_alaw, encode_alaw, sine

EVENT: dict[str, Any] = {
    "at": 10.0,
    "owner": "contact center",
    "received": False,
    "method": "INVITE",
    "code": 0,
    "phrase": "",
    "uri": "sip:+4930123456@127.0.0.1:5060",
    "to": "<sip:+4930123456@127.0.0.1>",
    "profile": "RTP/AVP",
    "direction": "sendrecv",
}


def noise(seconds: float, seed: int) -> Pcm:
    random = np.random.default_rng(seed)
    return (random.standard_normal(int(seconds * RATE)) * 3000).astype(np.int16)


def test_a_sentence_is_found_where_it_was_heard() -> None:
    said = noise(1.0, 1)
    recording = np.concatenate([noise(0.5, 2), decode_alaw(encode_alaw(said)), noise(0.5, 3)])
    match = find(said, recording)
    assert match.at == 0.5
    assert match.likeness > 0.99
    heard = judge(said, match, 12.0)
    assert (heard.good, heard.verdict) == (True, "heard, clear")
    assert judge(said, match, 200.0).verdict == "heard, late"
    assert not judge(said, match, 900.0).good


def test_another_sound_silence_or_half_the_level_is_not_heard() -> None:
    said = noise(1.0, 1)
    for recording in (noise(2.0, 4), sine(440, 2.0), np.zeros(2 * RATE, dtype=np.int16), said[:100]):
        assert not judge(said, find(said, recording), None).good
    quiet = judge(said, find(said, (said // 4).astype(np.int16)), None)
    assert (quiet.good, quiet.verdict) == (False, "HEARD -12 dB")


def test_the_ladder_has_arrows_toward_whom_a_message_goes() -> None:
    called = line(Step.of(EVENT), 10.0)
    assert called.startswith("   0.000  |-- INVITE +4930123456 [RTP] ---")
    assert called.index(">|") < 50
    held = {
        **EVENT,
        "owner": "Teams sip",
        "to": "<sip:a@b>;tag=1",
        "profile": "RTP/SAVP",
        "direction": "inactive",
    }
    assert "|<-- re-INVITE [SRTP inactive] ---" in line(Step.of(held), 10.0)
    answer = {**EVENT, "owner": "Teams sip", "received": True, "code": 200, "phrase": "OK", "profile": ""}
    assert "|-- 200 OK INVITE ---" in line(Step.of(answer), 10.0)
    assert {len(line(Step.of(event), 10.0)) for event in (EVENT, held, answer)} == {89}


def test_messages_of_two_processes_are_shown_in_the_order_of_time() -> None:
    shown: list[str] = []
    ladder = Ladder(shown.append)
    ladder.add({**EVENT, "at": 10.5, "method": "ACK"})
    ladder.add(EVENT)
    ladder.flush()
    assert ["INVITE" in shown[0], "0.500" in shown[1]] == [True, True]
