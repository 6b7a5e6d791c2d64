"""What a kill at the wrong moment would leave behind, and what makes up for it: INVITEs and ACKs that were
written down before they left, and answers to INVITEs that nobody knows of any more.
"""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.sip import orphans
from gateway.sip.message import Response, make_response
from gateway.sip.session_events import Failed
from gateway.sip.session_state import SessionState
from gateway.sip.transport_types import Target, TransportKind
from tests.unit.session_stage import ANSWER, PROFILE, Stage, StageFlow

PEER = Target(TransportKind.TLS, "192.0.2.9", 5061, "sip.example.test")


def test_an_invite_can_be_written_down_before_it_leaves() -> None:
    stage = Stage()
    session = stage.call(place=PEER, hold_back=True)
    assert not stage.wire.sent
    record = orphans.record(session)
    assert record is not None
    session.launch()
    [sent] = stage.wire.sent
    assert session.client is not None
    assert record["branch"] == session.client.branch
    assert f"Call-ID: {sent.request.call_id}" in record["request"]
    assert f"CSeq: {sent.request.headers['CSeq']}" in record["request"]
    assert sent.flow is None, "it waits for its connection"
    later = orphans.record(session)
    assert later is not None
    assert (later["branch"], later["request"]) == (record["branch"], record["request"])
    session.launch()
    assert len(stage.wire.sent) == 1


def test_an_invite_that_never_left_needs_no_cancel() -> None:
    stage = Stage()
    session = stage.call(place=PEER, hold_back=True)
    session.cancel()
    assert isinstance(stage.events[-1], Failed)
    session.launch()
    assert not stage.wire.sent
    stage.assert_clean()


class Wires:
    """Transport and transaction layer of the next gateway."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.known: list[str] = []

    def know(self, sent_by: str) -> None:
        self.known.append(sent_by)

    def sent_by(self, flow: Any, via_host: str | None) -> str:
        return f"{via_host or 'gw.example.test'}:5061"

    async def flow(self, target: Target) -> Wires:
        assert target == PEER
        return self

    def send(self, data: bytes) -> None:
        self.sent.append(data)


async def test_an_invite_that_was_only_written_down_is_cancelled_with_its_branch() -> None:
    stage = Stage()
    session = stage.call(place=PEER, hold_back=True)
    record = orphans.record(session)
    assert record is not None
    assert session.client is not None
    record["remote"] = ["127.0.0.1", 5061]
    wires: Any = Wires()
    told = orphans.tell(wires, wires, record, 503, "Q.850;cause=41")
    assert told is not None
    target = Target(TransportKind.TLS, "127.0.0.1", 5061, PEER.name)
    wires.flow = lambda asked: _there(asked, target, wires)
    await told
    [cancel] = wires.sent
    via = (
        f"Via: SIP/2.0/TLS {PROFILE.via_host or 'gw.example.test'}:5061;branch={session.client.branch};rport"
    )
    assert cancel.startswith(b"CANCEL sip:+4930123@sip.example.test;transport=tls SIP/2.0\r\n")
    assert via.encode() in cancel
    assert wires.known == [f"{PROFILE.via_host or 'gw.example.test'}:5061"]


async def _there(asked: Target, wanted: Target, wires: Wires) -> Wires:
    await asyncio.sleep(0)
    assert asked == wanted
    return wires


def test_the_ack_of_a_2xx_waits_until_the_answer_is_written_down() -> None:
    stage = Stage()
    session = stage.call(hold_back=True)
    session.launch()
    stage.wire.sent[0].answer(200, sdp=ANSWER)
    assert stage.names() == ["Answered"]
    assert not stage.wire.acks
    assert session.snapshot()["unacknowledged"]
    session.confirm()
    assert len(stage.wire.acks) == 1
    assert not session.snapshot()["unacknowledged"]
    session.confirm()
    assert len(stage.wire.acks) == 1


def test_no_bye_overtakes_the_ack_that_waits() -> None:
    stage = Stage()
    session = stage.call(hold_back=True)
    session.launch()
    stage.wire.sent[0].answer(200, sdp=ANSWER)
    session.bye()
    assert len(stage.wire.acks) == 1
    assert stage.methods() == ["INVITE", "BYE"]


def test_a_repeated_2xx_gets_the_ack_that_waits() -> None:
    stage = Stage()
    session = stage.call(hold_back=True)
    session.launch()
    stage.wire.sent[0].answer(200, sdp=ANSWER)
    stage.wire.sent[0].answer(200, sdp=ANSWER)
    assert len(stage.wire.acks) == 1
    assert session.state is SessionState.CONFIRMED


def test_a_restored_session_sends_the_ack_that_may_not_have_left_once() -> None:
    stage, next_one = Stage(), Stage()
    session = stage.call(hold_back=True)
    session.launch()
    stage.wire.sent[0].answer(200, sdp=ANSWER)
    restored = next_one.agent.restore(session.snapshot(), next_one.handler)
    restored.acknowledge_again()
    restored.acknowledge_again()
    [ack] = next_one.wire.acks
    assert ack.cseq.sequence == stage.wire.sent[0].request.cseq.sequence


def test_a_2xx_for_a_restored_session_is_acknowledged_and_ends_nothing() -> None:
    stage, next_one = Stage(), Stage()
    session = stage.established_out()
    response = make_response(stage.wire.sent[0].request, 200, to_tag=session.dialog.remote_tag)
    next_one.agent.restore(session.snapshot(), next_one.handler)
    next_one.agent.on_response_stray(response, next_one.flow)
    assert [ack.cseq.sequence for ack in next_one.wire.acks] == [response.cseq.sequence]
    assert not next_one.wire.sent


def stranger(*contact: tuple[str, str]) -> Response:
    stage = Stage()
    stage.call()
    request = stage.wire.sent[0].request
    request.headers.setlist("Via", ["SIP/2.0/UDP gw.example.test:5070;branch=z9hG4bKx"])
    return make_response(request, 200, to_tag="peer", headers=contact)


def test_a_2xx_to_an_invite_nobody_knows_is_acknowledged_and_hung_up_once() -> None:
    stage, response = Stage(), stranger(("Contact", "<sip:bob@192.0.2.9:5061;transport=tls>"))
    stage.agent.on_response_stray(response, stage.flow)
    stage.agent.on_response_stray(response, stage.flow)
    assert [ack.cseq.sequence for ack in stage.wire.acks] == [response.cseq.sequence] * 2
    [bye] = stage.requests("BYE")
    assert bye.place is stage.flow, "where the answer came from, whatever its Contact says"
    assert bye.request.uri_text == "sip:bob@192.0.2.9:5061;transport=tls"
    assert (bye.request.from_tag, bye.request.to_tag) == (response.from_tag, "peer")
    assert bye.request.cseq.sequence > response.cseq.sequence
    bye.answer(200)
    stage.assert_clean()


def test_a_2xx_nobody_knows_without_contact_is_left_alone() -> None:
    stage, response = Stage(), stranger()
    stage.agent.on_response_stray(response, StageFlow())
    assert not stage.wire.acks
    stage.assert_clean()
