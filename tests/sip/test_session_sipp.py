"""Sessions against SIPp, somebody else's SIP, over UDP and TCP: each rule once on real sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from gateway.errors import SessionRefused
from gateway.sip.profile import Credentials
from gateway.sip.refer import Referred
from gateway.sip.session import Session
from gateway.sip.session_events import (
    Answered,
    Cancelled,
    Ended,
    Failed,
    OfferReceived,
    SessionEvent,
)
from gateway.sip.session_state import SessionState
from gateway.sip.transaction_timers import Timers
from gateway.sip.transport_types import TransportKind
from tests.peers.sipp import Counts, Sipp, available
from tests.sip.session_stack import HOLD, OFFER, SessionStack, pause
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not available(), reason="SIPp is not installed")

SCENARIOS = Path(__file__).parent / "scenarios"
UDP, TCP = TransportKind.UDP, TransportKind.TCP
QUICK = Timers(t1=0.03, t2=0.2, t4=0.2)
WORDS: dict[TransportKind, Literal["udp", "tcp"]] = {UDP: "udp", TCP: "tcp"}
both = pytest.mark.parametrize("kind", [UDP, TCP])


def called(folder: Path, name: str, kind: TransportKind, calls: int = 1) -> Sipp:
    return Sipp(folder, transport=WORDS[kind], calls=calls, scenario=SCENARIOS / f"{name}.xml", timeout=40)


def caller(folder: Path, name: str, stack: SessionStack, calls: int = 1, rate: float = 10.0) -> Sipp:
    return Sipp(
        folder,
        gateway=stack.address,
        transport=WORDS[stack.kind],
        calls=calls,
        rate=rate,
        scenario=SCENARIOS / f"{name}.xml",
        timeout=40,
    )


def good(counts: Counts, calls: int = 1) -> None:
    assert counts.all_good, counts.errors
    assert counts.successful == calls


@both
async def test_we_call_with_prack_update_and_bye(tmp_path: Path, kind: TransportKind) -> None:
    class Stack(SessionStack):
        def react(self, session: Session, event: SessionEvent) -> None:
            if isinstance(event, OfferReceived):
                event.answer(HOLD)

    async with called(tmp_path, "uas_prack_update", kind) as sipp, Stack(kind) as stack:
        session = stack.call(sipp.port)
        await stack.seen("OfferReceived")
        await pause(0.1)
        session.bye()
        good(await sipp.finished())
        assert stack.names() == ["Progress", "Answered", "OfferReceived", "Ended"]
        assert session.dialog.local_sdp == HOLD
        answered = stack.events[1]
        assert isinstance(answered, Answered)
        assert answered.sdp is not None
        await stack.clean()


@both
async def test_we_answer_a_challenge(tmp_path: Path, kind: TransportKind) -> None:
    credentials = Credentials("joe", "schmo")
    async with (
        called(tmp_path, "uas_auth", kind) as sipp,
        SessionStack(kind, credentials=credentials) as stack,
    ):
        session = stack.call(sipp.port)
        await stack.seen("Answered")
        session.bye()
        good(await sipp.finished())
        await stack.clean()


async def test_a_wrong_password_is_refused_once(tmp_path: Path) -> None:
    credentials = Credentials("joe", "wrong")
    async with (
        called(tmp_path, "uas_auth", UDP) as sipp,
        SessionStack(UDP, credentials=credentials) as stack,
    ):
        stack.call(sipp.port)
        await stack.seen("Failed")
        failed = stack.events[-1]
        assert isinstance(failed, Failed)
        assert failed.code == 403
        good(await sipp.finished())
        await stack.clean()


@both
async def test_we_cancel(tmp_path: Path, kind: TransportKind) -> None:
    async with called(tmp_path, "uas_cancelled", kind) as sipp, SessionStack(kind) as stack:
        session = stack.call(sipp.port)
        await stack.seen("Progress")
        session.cancel([("Reason", "Q.850;cause=16")])
        await stack.seen("Failed")
        good(await sipp.finished())
        await stack.clean()


@both
async def test_cancel_crossing_200_is_ack_and_bye(tmp_path: Path, kind: TransportKind) -> None:
    async with called(tmp_path, "uas_cancel_race", kind) as sipp, SessionStack(kind) as stack:
        session = stack.call(sipp.port)
        await stack.seen("Progress")
        session.cancel()
        await stack.seen("Failed")
        good(await sipp.finished())
        assert stack.names() == ["Progress", "Failed"]
        await stack.clean()


async def test_we_refresh_a_session_timer_of_4_seconds(tmp_path: Path) -> None:
    async with called(tmp_path, "uas_timer", UDP) as sipp, SessionStack(UDP, min_se=2) as stack:
        session = stack.call(sipp.port)
        await stack.seen("Answered")
        before = session.dialog.local_cseq
        await until(lambda: session.dialog.local_cseq >= before + 2, 10)
        await pause(0.2)
        assert session.state is SessionState.CONFIRMED
        session.bye()
        good(await sipp.finished())
        await stack.clean()


async def test_491_is_retried_on_the_wire(tmp_path: Path) -> None:
    async with called(tmp_path, "uas_glare", TCP) as sipp, SessionStack(TCP) as stack:
        session = stack.call(sipp.port)
        await stack.seen("Answered")
        answer = await session.offer(HOLD)
        assert b"inactive" in answer
        session.bye()
        good(await sipp.finished())
        await stack.clean()


@both
async def test_the_peer_hangs_up(tmp_path: Path, kind: TransportKind) -> None:
    async with called(tmp_path, "uas_mute_bye", kind) as sipp, SessionStack(kind) as stack:
        session = stack.call(sipp.port)
        await stack.seen("Ended")
        ended = stack.events[-1]
        assert isinstance(ended, Ended)
        assert (ended.by, ended.code) == ("remote", 200)
        assert ended.request is not None
        assert ended.request.headers.get("Reason") == 'Q.850;cause=16;text="done"'
        with pytest.raises(SessionRefused):
            await session.offer(HOLD)
        good(await sipp.finished())
        await stack.clean()


@both
async def test_nobody_there(kind: TransportKind, free_port: object) -> None:
    assert callable(free_port)
    async with SessionStack(kind, timers=Timers(t1=0.02, t2=0.1, t4=0.1)) as stack:
        stack.call(free_port())
        await stack.seen("Failed")
        failed = stack.events[-1]
        assert isinstance(failed, Failed)
        assert failed.cause == ("timeout" if kind is UDP else "transport")
        await stack.clean()


@both
async def test_the_peer_does_everything(tmp_path: Path, kind: TransportKind) -> None:
    class Stack(SessionStack):
        def answer(self, session: Session) -> None:
            session.provisional(183, sdp=OFFER)
            session.accept(OFFER)

        def react(self, session: Session, event: SessionEvent) -> None:
            if isinstance(event, OfferReceived):
                event.answer(HOLD if event.method == "INVITE" else OFFER)

    async with Stack(kind) as stack, caller(tmp_path, "uac_everything", stack) as sipp:
        good(await sipp.finished())
        assert stack.names().count("OfferReceived") == 2
        assert stack.names()[0] == "Confirmed"
        assert stack.names()[-1] == "Ended"
        await stack.clean()


@both
async def test_t15_refreshes_of_many_calls_get_the_same_answer(tmp_path: Path, kind: TransportKind) -> None:
    async with SessionStack(kind) as stack, caller(tmp_path, "uac_refresh", stack, 40, rate=40) as sipp:
        good(await sipp.finished(), 40)
        assert stack.names().count("Ended") == 40
        assert "OfferReceived" not in stack.names()
        await stack.clean()


@both
async def test_the_peer_cancels(tmp_path: Path, kind: TransportKind) -> None:
    class Stack(SessionStack):
        def answer(self, session: Session) -> None:
            session.provisional(180)

    async with Stack(kind) as stack, caller(tmp_path, "uac_cancel", stack) as sipp:
        good(await sipp.finished())
        assert isinstance(stack.events[-1], Cancelled)
        await stack.clean()


async def test_422_then_bye_when_the_peer_never_refreshes(tmp_path: Path) -> None:
    async with SessionStack(UDP, min_se=3) as stack, caller(tmp_path, "uac_interval", stack) as sipp:
        good(await sipp.finished())
        ended = stack.events[-1]
        assert isinstance(ended, Ended)
        assert (ended.by, ended.code) == ("timeout", 408)
        await stack.clean()


async def test_no_ack_is_bye(tmp_path: Path) -> None:
    async with SessionStack(UDP, timers=QUICK) as stack, caller(tmp_path, "uac_no_ack", stack) as sipp:
        good(await sipp.finished())
        assert stack.names() == ["Ended"]
        await stack.clean()


async def test_t18_transferor_hangs_up_after_the_202_and_still_hears_the_end(tmp_path: Path) -> None:
    class Stack(SessionStack):
        def react(self, session: Session, event: SessionEvent) -> None:
            if isinstance(event, Referred):
                assert event.refer_to == "<sip:proxy.example.test:5061;transport=tls;x-m=8:orgid:1;x-t=a/b>"
                event.accept()
                event.notify(180)
            elif isinstance(event, Ended):
                self.sessions[0].refers[0].notify(200)

    async with Stack(TCP) as stack, caller(tmp_path, "uac_transfer", stack) as sipp:
        good(await sipp.finished())
        await stack.clean()
