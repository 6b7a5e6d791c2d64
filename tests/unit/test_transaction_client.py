"""Client transactions by the clock: RFC 3261 17.1 and 9.1, RFC 6026 7.2."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import IllegalTransition, MessageError, TransactionTimeout, TransportError
from gateway.sip.message import Request
from gateway.sip.transaction import ClientTransaction, State
from gateway.sip.transport_flow import Flow
from gateway.sip.transport_types import Target, TransportKind
from tests.support.waiting import until
from tests.unit.transaction_support import FakeFlow, Outcome, Stage, answer, outgoing


def send(
    stage: Stage, way: Flow | Target, request: Request | None = None, *, tcp_switch: bool = False
) -> tuple[ClientTransaction, Outcome]:
    outcome = Outcome()
    transaction = stage.layer.request(
        request or outgoing(),
        way,
        tcp_switch=tcp_switch,
        on_response=outcome.responses.append,
        on_failure=outcome.failures.append,
    )
    return transaction, outcome


def sent_times(stage: Stage, flow: FakeFlow, until: float) -> list[float]:
    """When each message went out, to 0.1 s."""
    times: list[float] = [0.0] * len(flow.raw)
    for step in range(1, int(until * 10) + 1):
        before = len(flow.raw)
        stage.clock.advance(0.1)
        times += [step / 10] * (len(flow.raw) - before)
    return times


def test_via_is_put_on_top_with_fresh_branch_and_rport() -> None:
    stage, flow = Stage(), FakeFlow()
    first, _ = send(stage, flow)
    second, _ = send(stage, flow)
    vias = [request.headers["Via"] for request in flow.requests]
    assert vias[0].startswith("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK")
    assert vias[0].endswith(";rport")
    assert vias[0] != vias[1]
    assert first.request.headers["Via"] == vias[0]
    assert second.request.top_via.branch != first.request.top_via.branch


def test_via_names_the_transport_and_the_host_that_was_asked_for() -> None:
    stage, flow = Stage(), FakeFlow(TransportKind.TLS)
    stage.layer.request(
        outgoing(), flow, via_host="sbc.example.test", on_response=lambda _: None, on_failure=lambda _: None
    )
    assert flow.requests[0].headers["Via"].startswith("SIP/2.0/TLS sbc.example.test:5060;branch=")


def test_invite_over_udp_is_repeated_with_doubling_interval_and_times_out_after_32_seconds() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction, outcome = send(stage, flow)
    assert sent_times(stage, flow, 40) == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert len(set(flow.raw)) == 1
    assert [type(failure) for failure in outcome.failures] == [TransactionTimeout]
    assert outcome.failures[0].code == 408
    assert transaction.state is State.TERMINATED
    assert stage.settled()


def test_other_request_over_udp_is_repeated_up_to_t2() -> None:
    stage, flow = Stage(), FakeFlow()
    _, outcome = send(stage, flow, outgoing("OPTIONS"))
    times = sent_times(stage, flow, 40)
    assert times == [0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert [type(failure) for failure in outcome.failures] == [TransactionTimeout]
    assert stage.settled()


@pytest.mark.parametrize("method", ["INVITE", "BYE"])
def test_nothing_is_repeated_over_a_reliable_transport(method: str) -> None:
    stage, flow = Stage(), FakeFlow(TransportKind.TCP)
    _, outcome = send(stage, flow, outgoing(method))
    stage.clock.advance(33)
    assert len(flow.raw) == 1
    assert len(outcome.failures) == 1
    assert stage.settled()


def test_provisional_stops_repeating_an_invite_and_its_timeout() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction, outcome = send(stage, flow)
    stage.layer.receive(answer(transaction.request, 180), flow)
    stage.clock.advance(200)
    assert len(flow.raw) == 1
    assert outcome.codes == [180]
    assert not outcome.failures
    assert transaction.state is State.PROCEEDING


def test_provisional_slows_other_requests_to_t2() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction, outcome = send(stage, flow, outgoing("OPTIONS"))
    stage.layer.receive(answer(transaction.request, 100), flow)
    assert sent_times(stage, flow, 12) == [0.0, 0.5, 4.5, 8.5]
    stage.clock.advance(25)
    assert len(outcome.failures) == 1
    assert stage.settled()


def test_rejected_invite_is_acknowledged_each_time_and_handed_up_once() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction, outcome = send(stage, flow)
    refusal = answer(transaction.request, 486)
    for _ in range(3):
        stage.layer.receive(refusal, flow)
    acks = flow.requests[1:]
    assert [ack.method for ack in acks] == ["ACK"] * 3
    invite, ack = flow.requests[0], acks[0]
    for name in ("Via", "From", "Call-ID", "Route"):
        assert ack.headers.getlist(name) == invite.headers.getlist(name)
    assert ack.headers["To"] == refusal.headers["To"]
    assert ack.cseq.sequence == 7
    assert ack.uri_text == invite.uri_text
    assert outcome.codes == [486]
    stage.clock.advance(31.9)
    assert stage.layer.active == 1
    stage.clock.advance(0.2)
    assert stage.settled()


def test_rejected_invite_over_tcp_ends_at_once() -> None:
    stage, flow = Stage(), FakeFlow(TransportKind.TCP)
    transaction, outcome = send(stage, flow)
    stage.layer.receive(answer(transaction.request, 404), flow)
    stage.clock.advance(0)
    assert stage.settled()
    assert outcome.codes == [404]


def test_every_2xx_is_handed_up_and_none_is_acknowledged_by_the_machine() -> None:
    """RFC 6026: forks and repeats belong to the session, for 64*T1."""
    stage, flow = Stage(), FakeFlow()
    transaction, outcome = send(stage, flow)
    for tag in ("b1", "b2", "b1"):
        stage.layer.receive(answer(transaction.request, 200, tag), flow)
    assert [response.to_tag for response in outcome.responses] == ["b1", "b2", "b1"]
    assert len(flow.raw) == 1
    assert transaction.state is State.ACCEPTED
    stage.clock.advance(32.1)
    assert stage.settled()
    assert not outcome.failures


def test_2xx_after_the_machine_ended_is_a_stray() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction, _ = send(stage, flow)
    late = answer(transaction.request, 200)
    stage.layer.receive(late, flow)
    stage.clock.advance(33)
    stage.layer.receive(late, flow)
    assert stage.user.strays == [late]


def test_2xx_after_a_refusal_is_a_stray() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction, outcome = send(stage, flow)
    stage.layer.receive(answer(transaction.request, 486), flow)
    stage.layer.receive(answer(transaction.request, 200, "b2"), flow)
    assert outcome.codes == [486]
    assert [stray.code for stray in stage.user.strays] == [200]


def test_final_answer_to_other_request_ends_it_after_t4() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction, outcome = send(stage, flow, outgoing("BYE"))
    for _ in range(3):
        stage.layer.receive(answer(transaction.request, 200), flow)
    assert outcome.codes == [200]
    stage.clock.advance(4.9)
    assert stage.layer.active == 1
    stage.clock.advance(0.2)
    assert stage.settled()


def test_provisional_after_the_final_one_is_ignored() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction, outcome = send(stage, flow)
    stage.layer.receive(answer(transaction.request, 603), flow)
    stage.layer.receive(answer(transaction.request, 180), flow)
    assert outcome.codes == [603]


def test_cancel_waits_for_the_first_provisional() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction, outcome = send(stage, flow)
    transaction.cancel([("Reason", "SIP;cause=200")])
    transaction.cancel()
    assert [request.method for request in flow.requests] == ["INVITE"]
    stage.layer.receive(answer(transaction.request, 180), flow)
    invite, cancel = flow.requests
    assert cancel.method == "CANCEL"
    for name in ("Via", "From", "To", "Call-ID", "Route"):
        assert cancel.headers.getlist(name) == invite.headers.getlist(name)
    assert cancel.cseq.sequence == invite.cseq.sequence
    assert cancel.headers["Reason"] == "SIP;cause=200"
    stage.layer.receive(answer(cancel, 200), flow)
    stage.layer.receive(answer(transaction.request, 487), flow)
    assert outcome.codes == [180, 487]
    stage.clock.advance(40)
    assert stage.settled()


def test_cancel_without_any_final_answer_fails_after_64_t1() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction, outcome = send(stage, flow)
    stage.layer.receive(answer(transaction.request, 180), flow)
    stage.clock.advance(100)
    transaction.cancel()
    stage.clock.advance(20)
    stage.layer.receive(answer(transaction.request, 180), flow)
    stage.clock.advance(13)
    assert [type(failure) for failure in outcome.failures] == [TransactionTimeout]
    assert stage.settled()


def test_cancel_after_the_answer_does_nothing() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction, _ = send(stage, flow)
    stage.layer.receive(answer(transaction.request, 200), flow)
    transaction.cancel()
    assert [request.method for request in flow.requests] == ["INVITE"]


def test_cancel_of_a_bye_does_nothing() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction, _ = send(stage, flow, outgoing("BYE"))
    transaction.cancel()
    assert [request.method for request in flow.requests] == ["BYE"]


async def test_cancel_while_connecting_sends_nothing_at_all() -> None:
    stage, flow = Stage(), FakeFlow(TransportKind.TCP)
    target = Target(TransportKind.TCP, "192.0.2.9", 5060)
    stage.transports.connectable[target] = flow
    transaction, outcome = send(stage, target)
    assert transaction.state is State.CONNECTING
    transaction.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    stage.clock.advance(0)
    assert flow.raw == []
    assert [failure.code for failure in outcome.failures] == [487]
    assert stage.settled()


async def turns() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


def lose(stage: Stage, flow: FakeFlow) -> None:
    """The connection breaks."""
    flow.is_closed = True
    assert stage.transports.on_closed is not None
    stage.transports.on_closed(flow)


async def ringing(
    stage: Stage, flow: FakeFlow, target: Target, request: Request | None = None, way: Target | None = None
) -> tuple[ClientTransaction, Outcome]:
    """An INVITE that made its connection, `flow` to `target`, and was told 180."""
    stage.transports.connectable[target] = flow
    transaction, outcome = send(stage, way or target, request, tcp_switch=way is not None)
    await turns()
    stage.layer.receive(answer(transaction.request, 180), flow)
    return transaction, outcome


TLS_PEER = Target(TransportKind.TLS, "192.0.2.9", 5061, "proxy.example.test")
TCP_PEER = Target(TransportKind.TCP, "192.0.2.9", 5060)


@pytest.mark.parametrize("switched", [False, True])
async def test_cancel_of_what_rings_dials_anew_when_its_connection_broke(switched: bool) -> None:
    """9.1: same address, port and transport, same Via; nobody else could stop the telephone."""
    stage = Stage()
    target = TCP_PEER if switched else TLS_PEER
    kind = target.kind
    lost, fresh = FakeFlow(kind), FakeFlow(kind)
    request = outgoing(X_Long="x" * 1300) if switched else None
    way = Target(TransportKind.UDP, "192.0.2.9", 5060) if switched else None
    transaction, outcome = await ringing(stage, lost, target, request, way)
    lose(stage, lost)
    stage.transports.connectable[target] = fresh
    transaction.cancel()
    await turns()
    [cancel] = fresh.requests
    assert (cancel.method, cancel.headers["Via"]) == ("CANCEL", lost.requests[0].headers["Via"])
    stage.layer.receive(answer(cancel, 200), fresh)
    stage.layer.receive(answer(transaction.request, 487), fresh)
    assert outcome.codes == [180, 487]
    assert fresh.requests[-1].method == "ACK"
    stage.clock.advance(0)
    assert stage.settled()


async def test_cancel_that_its_connection_took_along_is_sent_once_more() -> None:
    stage, lost, fresh = Stage(), FakeFlow(TransportKind.TLS), FakeFlow(TransportKind.TLS)
    transaction, _ = await ringing(stage, lost, TLS_PEER)
    transaction.cancel()
    assert lost.requests[-1].method == "CANCEL"
    stage.transports.connectable[TLS_PEER] = fresh
    lose(stage, lost)
    await turns()
    assert fresh.raw == [lost.raw[-1]]
    lose(stage, fresh)
    stage.clock.advance(64)
    assert stage.settled()


async def test_cancel_that_finds_no_way_ends_with_the_time_of_the_invite(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage, lost = Stage(), FakeFlow(TransportKind.TLS)
    transaction, outcome = await ringing(stage, lost, TLS_PEER)
    lose(stage, lost)
    del stage.transports.connectable[TLS_PEER]
    transaction.cancel()
    await turns()
    stage.clock.advance(0)
    assert "event=cancel-not-sent" in caplog.text
    assert not outcome.failures, "the final answer may still come on a connection of the peer's"
    stage.clock.advance(33)
    assert [type(failure) for failure in outcome.failures] == [TransactionTimeout]
    assert stage.settled()


async def test_request_to_a_target_waits_for_the_connection() -> None:
    stage, flow = Stage(), FakeFlow(TransportKind.TLS)
    target = Target(TransportKind.TLS, "192.0.2.9", 5061, "proxy.example.test")
    stage.transports.connectable[target] = flow
    _, outcome = send(stage, target)
    assert flow.raw == []
    for _ in range(3):
        await asyncio.sleep(0)
    assert flow.requests[0].headers["Via"].startswith("SIP/2.0/TLS ")
    assert not outcome.failures


async def test_requests_to_a_target_keep_their_order_in_the_moment_its_connection_is_there() -> None:
    """After a restart the BYE went out before the re-INVITE that had waited for the same connection."""
    stage, flow = Stage(), FakeFlow(TransportKind.TLS)
    stage.transports.connecting = connected = asyncio.Event()
    send(stage, TLS_PEER, outgoing("INVITE"))
    stage.layer.send_ack(outgoing("ACK"), TLS_PEER)
    await turns()
    stage.transports.ready[TLS_PEER] = flow
    connected.set()
    send(stage, TLS_PEER, outgoing("BYE"))
    stage.layer.send_ack(outgoing("ACK"), TLS_PEER)
    await turns()
    assert [request.method for request in flow.requests] == ["INVITE", "ACK", "BYE", "ACK"]
    send(stage, TLS_PEER, outgoing("INFO"))
    assert flow.requests[-1].method == "INFO", "nobody waits any more"


async def test_refused_connection_is_told_to_all_who_waited() -> None:
    stage = Stage()
    outcomes = [send(stage, TCP_PEER, outgoing(method))[1] for method in ("INVITE", "BYE")]
    await turns()
    stage.clock.advance(0)
    assert [[type(f) for f in outcome.failures] for outcome in outcomes] == [[TransportError]] * 2
    stage.transports.connectable[TCP_PEER] = flow = FakeFlow(TransportKind.TCP)
    send(stage, TCP_PEER)
    await turns()
    assert [request.method for request in flow.requests] == ["INVITE"]


async def test_refused_connection_is_reported_once() -> None:
    stage = Stage()
    _, outcome = send(stage, Target(TransportKind.TCP, "192.0.2.9", 5060))
    for _ in range(3):
        await asyncio.sleep(0)
    stage.clock.advance(100)
    assert [type(failure) for failure in outcome.failures] == [TransportError]
    assert stage.settled()


def test_send_failure_is_reported_after_request_has_returned() -> None:
    stage, flow = Stage(), FakeFlow()
    flow.broken = True
    _, outcome = send(stage, flow)
    assert outcome.failures == []
    stage.clock.advance(0)
    assert [type(failure) for failure in outcome.failures] == [TransportError]
    assert stage.settled()


def test_header_injection_is_refused_not_sent() -> None:
    stage, flow = Stage(), FakeFlow()
    _, outcome = send(stage, flow, outgoing(X_Note="a\r\nContact: <sip:evil@example.test>"))
    stage.clock.advance(0)
    assert flow.raw == []
    assert [type(failure) for failure in outcome.failures] == [MessageError]


def test_broken_repetition_is_a_transport_error() -> None:
    stage, flow = Stage(), FakeFlow()
    _, outcome = send(stage, flow)
    flow.broken = True
    stage.clock.advance(1)
    assert [type(failure) for failure in outcome.failures] == [TransportError]
    assert stage.settled()


def test_lost_connection_fails_what_is_unanswered_and_spares_what_rings() -> None:
    """T11: the final answer may come on a connection the peer opens."""
    stage, flow = Stage(), FakeFlow(TransportKind.TLS)
    ringing, rings = send(stage, flow)
    stage.layer.receive(answer(ringing.request, 180), flow)
    _, lost = send(stage, flow, outgoing("BYE"))
    flow.is_closed = True
    assert stage.transports.on_closed is not None
    stage.transports.on_closed(flow)
    stage.clock.advance(0)
    assert [type(failure) for failure in lost.failures] == [TransportError]
    assert not rings.failures
    other = FakeFlow(TransportKind.TLS)
    stage.layer.receive(answer(ringing.request, 486), other)
    assert rings.codes == [180, 486]
    assert [request.method for request in other.requests] == ["ACK"]


async def test_race_kept_connection_closed_as_we_wrote_is_tried_once_more() -> None:
    stage = Stage()
    target = Target(TransportKind.TCP, "192.0.2.9", 5060)
    stale, fresh = FakeFlow(TransportKind.TCP), FakeFlow(TransportKind.TCP)
    stage.transports.ready[target] = stale
    transaction, outcome = send(stage, target)
    del stage.transports.ready[target]
    stage.transports.connectable[target] = fresh
    stale.is_closed = True
    assert stage.transports.on_closed is not None
    stage.transports.on_closed(stale)
    for _ in range(3):
        await asyncio.sleep(0)
    assert fresh.raw == stale.raw
    stage.layer.receive(answer(transaction.request, 200), fresh)
    assert outcome.codes == [200]
    fresh.is_closed = True
    stage.transports.on_closed(fresh)
    assert not outcome.failures


async def test_cancelled_invite_whose_dead_connection_breaks_later_rings_nobody() -> None:
    """The hunt went on long ago; repeated on a new connection the INVITE would arrive for the first time."""
    stage = Stage()
    target = Target(TransportKind.TCP, "192.0.2.9", 5060)
    dead, fresh = FakeFlow(TransportKind.TCP), FakeFlow(TransportKind.TCP)
    stage.transports.ready[target] = dead
    transaction, outcome = send(stage, target)
    stage.clock.advance(4)
    transaction.cancel()
    stage.transports.ready[target] = fresh
    dead.is_closed = True
    assert stage.transports.on_closed is not None
    stage.transports.on_closed(dead)
    await asyncio.sleep(0)
    stage.clock.advance(0)
    assert fresh.raw == []
    assert [failure.code for failure in outcome.failures] == [487]
    assert stage.settled()


async def test_large_request_switches_to_tcp_where_allowed() -> None:
    stage, udp, tcp = Stage(), FakeFlow(), FakeFlow(TransportKind.TCP)
    stage.transports.connectable[Target(TransportKind.TCP, "192.0.2.9", 5060)] = tcp
    send(stage, udp, outgoing(X_Long="x" * 1300), tcp_switch=True)
    for _ in range(3):
        await asyncio.sleep(0)
    assert udp.raw == []
    assert tcp.requests[0].headers["Via"].startswith("SIP/2.0/TCP ")
    assert stage.layer.counters["tcp_switched"] == 1


async def test_large_request_falls_back_to_udp_when_tcp_is_refused() -> None:
    stage, udp = Stage(), FakeFlow()
    target = Target(TransportKind.UDP, "192.0.2.9", 5060)
    stage.transports.ready[target] = udp
    send(stage, target, outgoing(X_Long="x" * 1300), tcp_switch=True)
    for _ in range(3):
        await asyncio.sleep(0)
    assert udp.requests[0].headers["Via"].startswith("SIP/2.0/UDP ")
    assert stage.layer.counters["tcp_refused"] == 1


async def test_large_request_goes_by_udp_when_tcp_says_nothing_and_the_next_ones_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A firewall that drops TCP silently: the hunt gave up after four seconds, before anything was sent."""
    monkeypatch.setattr("gateway.sip.transaction_send.SWITCH_LIMIT", 0.05)
    stage, udp = Stage(), FakeFlow()
    by_tcp = Target(TransportKind.TCP, "192.0.2.9", 5060)
    asked: list[Target] = []
    connect = stage.transports.flow

    async def hanging(target: Target) -> Flow:
        asked.append(target)
        if len(asked) == 1:
            await asyncio.Event().wait()
        return await connect(target)

    monkeypatch.setattr(stage.transports, "flow", hanging)
    for number in (1, 2):
        send(stage, udp, outgoing(X_Long="x" * 1300), tcp_switch=True)
        await until(lambda: len(udp.raw) == number)  # noqa: B023  awaited before the number moves on
    assert asked == [by_tcp], "the second one did not wait for TCP again"
    stage.transports.ready[by_tcp] = late = FakeFlow(TransportKind.TCP)
    send(stage, udp, outgoing(X_Long="x" * 1300), tcp_switch=True)
    await asyncio.sleep(0)
    assert len(late.raw) == 1, "a connection that came about after all is used"
    del stage.transports.ready[by_tcp]
    stage.transports.connectable[by_tcp] = again = FakeFlow(TransportKind.TCP)
    stage.clock.advance(301)
    send(stage, udp, outgoing(X_Long="x" * 1300), tcp_switch=True)
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(again.raw) == 1, "after five minutes TCP is tried anew"


def test_large_request_stays_on_udp_where_tcp_is_not_allowed() -> None:
    stage, udp = Stage(), FakeFlow()
    send(stage, udp, outgoing(X_Long="x" * 1300))
    assert len(udp.raw[0]) > 1300


def test_response_to_somebody_else_is_dropped() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction, outcome = send(stage, flow)
    foreign = answer(transaction.request, 200)
    foreign.headers.set("Via", foreign.headers["Via"].replace("192.0.2.1", "198.51.100.7"))
    stage.layer.receive(foreign, flow)
    doubled = answer(transaction.request, 200)
    doubled.headers.add("Via", "SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKx")
    stage.layer.receive(doubled, flow)
    unknown = answer(transaction.request, 404)
    unknown.headers.set("Via", "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKnobody")
    stage.layer.receive(unknown, flow)
    assert not outcome.responses
    assert not stage.user.strays
    assert stage.layer.counters["response_not_ours"] == 2
    assert stage.layer.counters["response_unmatched"] == 1


def test_flow_is_held_while_the_transaction_lives() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction, _ = send(stage, flow, outgoing("OPTIONS"))
    assert flow.users == 1
    stage.layer.receive(answer(transaction.request, 200), flow)
    stage.clock.advance(6)
    assert flow.users == 0


def test_ack_for_2xx_goes_straight_out() -> None:
    stage, flow = Stage(), FakeFlow()
    stage.layer.send_ack(outgoing("ACK"), flow)
    flow.broken = True
    stage.layer.send_ack(outgoing("ACK"), flow)
    assert [request.method for request in flow.requests] == ["ACK"]
    assert stage.settled()


async def test_close_forgets_everything_without_a_word() -> None:
    stage, flow = Stage(), FakeFlow()
    _, outcome = send(stage, flow)
    send(stage, Target(TransportKind.TCP, "192.0.2.9", 5060))
    await stage.layer.close()
    stage.clock.advance(100)
    assert stage.settled()
    assert not outcome.failures
    assert flow.users == 0


def test_illegal_edge_is_a_typed_error() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction, _ = send(stage, flow)
    with pytest.raises(IllegalTransition):
        transaction.start(flow)


@pytest.mark.allow_tracebacks
def test_exception_of_the_user_stays_in_the_log() -> None:
    stage, flow = Stage(), FakeFlow()

    def fail(_: object) -> None:
        raise RuntimeError("user's mistake")

    transaction = stage.layer.request(outgoing(), flow, on_response=fail, on_failure=lambda error: None)
    stage.layer.receive(answer(transaction.request, 200), flow)
    assert transaction.state is State.ACCEPTED
    assert stage.layer.counters["user_errors"] == 1


def test_no_route_for_the_via_is_a_transport_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, flow = Stage(), FakeFlow()

    def no_route(flow: Flow, via_host: str | None) -> str:
        raise TransportError("no route")

    monkeypatch.setattr(stage.transports, "sent_by", no_route)
    _, outcome = send(stage, flow)
    stage.clock.advance(0)
    assert [failure.text for failure in outcome.failures] == ["no route"]
    assert stage.settled()
