"""Server transactions by the clock: RFC 3261 17.2, 8.2.2.2 and 9.2, RFC 6026 7.1."""

from __future__ import annotations

import pytest

from gateway.errors import IllegalTransition
from gateway.sip.message import Request, Response, make_response, parse_message
from gateway.sip.transaction import ServerTransaction, State, TransactionLimits
from gateway.sip.transport_types import TransportKind
from tests.unit.transaction_support import FakeFlow, Stage, incoming


def arrive(stage: Stage, flow: FakeFlow, request: Request | None = None) -> ServerTransaction:
    before = len(stage.user.requests)
    stage.layer.receive(request or incoming(), flow)
    assert len(stage.user.requests) == before + 1
    return stage.user.requests[-1]


def respond(transaction: ServerTransaction, code: int) -> Response:
    response = make_response(transaction.request, code, to_tag=transaction.local_tag)
    transaction.respond(response)
    return response


def ack_for(response: Response, branch: str = "z9hG4bKin1") -> Request:
    return incoming("ACK", branch=branch, to=response.headers["To"])


def test_100_goes_out_after_200_ms_when_the_user_is_silent() -> None:
    stage, flow = Stage(), FakeFlow()
    arrive(stage, flow)
    stage.clock.advance(0.19)
    assert flow.codes == []
    stage.clock.advance(0.02)
    assert flow.codes == [100]
    assert isinstance(flow.sent[0], Response)
    assert flow.sent[0].to_tag is None


@pytest.mark.parametrize("code", [180, 200, 404])
def test_no_100_after_the_user_has_spoken(code: int) -> None:
    stage, flow = Stage(), FakeFlow(TransportKind.TCP)
    respond(arrive(stage, flow), code)
    stage.clock.advance(1)
    assert flow.codes == [code]


def test_no_100_for_other_requests() -> None:
    stage, flow = Stage(), FakeFlow()
    arrive(stage, flow, incoming("OPTIONS"))
    stage.clock.advance(5)
    assert flow.codes == []


def test_repeated_invite_gets_the_last_provisional_again_and_is_not_handed_up() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction = arrive(stage, flow)
    stage.layer.receive(incoming(), flow)
    assert flow.codes == []
    respond(transaction, 180)
    respond(transaction, 183)
    stage.layer.receive(incoming(), flow)
    assert flow.codes == [180, 183, 183]
    assert len(stage.user.requests) == 1


def test_refusal_is_repeated_until_the_ack_then_the_machine_ends_after_t4() -> None:
    stage, flow = Stage(), FakeFlow()
    refusal = respond(arrive(stage, flow), 486)
    stage.clock.advance(8)
    assert flow.codes == [486] * 5  # at 0, 0.5, 1.5, 3.5, 7.5
    stage.layer.receive(ack_for(refusal), flow)
    stage.clock.advance(4)
    stage.layer.receive(ack_for(refusal), flow)
    stage.layer.receive(incoming(), flow)
    assert flow.codes == [486] * 5
    assert not stage.user.acks
    stage.clock.advance(1.1)
    assert stage.settled()


def test_refusal_without_ack_ends_after_64_t1() -> None:
    stage, flow = Stage(), FakeFlow()
    respond(arrive(stage, flow), 486)
    stage.clock.advance(31.9)
    assert stage.layer.active == 1
    assert flow.codes == [486] * 11
    stage.clock.advance(0.2)
    assert stage.settled()


def test_refusal_over_tcp_is_sent_once_and_ends_with_the_ack() -> None:
    stage, flow = Stage(), FakeFlow(TransportKind.TCP)
    refusal = respond(arrive(stage, flow), 486)
    stage.clock.advance(10)
    assert flow.codes == [486]
    stage.layer.receive(ack_for(refusal), flow)
    stage.clock.advance(0)
    assert stage.settled()


def test_accepted_invite_absorbs_repeats_and_leaves_2xx_and_ack_to_the_user() -> None:
    """RFC 6026: the machine lives on for 64*T1 and repeats nothing by itself."""
    stage, flow = Stage(), FakeFlow()
    transaction = arrive(stage, flow)
    success = respond(transaction, 200)
    stage.layer.receive(incoming(), flow)
    stage.clock.advance(5)
    assert flow.codes == [200]
    transaction.respond(success)
    assert flow.codes == [200, 200]
    stage.layer.receive(ack_for(success, branch="z9hG4bKack"), flow)
    stage.layer.receive(ack_for(success), flow)
    assert len(stage.user.acks) == 2
    assert transaction.state is State.ACCEPTED
    stage.clock.advance(27.1)
    assert stage.settled()


def test_other_request_keeps_its_answer_for_64_t1() -> None:
    stage, flow = Stage(), FakeFlow()
    respond(arrive(stage, flow, incoming("OPTIONS")), 200)
    stage.clock.advance(31)
    stage.layer.receive(incoming("OPTIONS"), flow)
    assert flow.codes == [200, 200]
    stage.clock.advance(1.1)
    assert stage.settled()


def test_other_request_over_tcp_ends_with_its_answer() -> None:
    stage, flow = Stage(), FakeFlow(TransportKind.TCP)
    respond(arrive(stage, flow, incoming("OPTIONS")), 200)
    stage.clock.advance(0)
    assert stage.settled()


def test_request_the_user_forgets_does_not_stay_for_ever() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction = arrive(stage, flow, incoming("INFO"))
    stage.clock.advance(32.1)
    assert stage.settled()
    respond(transaction, 200)  # too late: ignored
    assert flow.codes == []


def test_second_final_response_is_an_illegal_edge() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction = arrive(stage, flow)
    respond(transaction, 486)
    with pytest.raises(IllegalTransition):
        respond(transaction, 200)
    assert flow.codes == [486]


def test_cancel_is_answered_and_reported_and_carries_the_same_to_tag() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction = arrive(stage, flow)
    ringing = respond(transaction, 180)
    stage.layer.receive(incoming("CANCEL"), flow)
    assert flow.codes == [180, 200]
    assert isinstance(flow.sent[1], Response)
    assert flow.sent[1].to_tag == ringing.to_tag
    assert flow.sent[1].cseq.method == "CANCEL"
    assert [invite for invite, _ in stage.user.cancels] == [transaction]
    stage.layer.receive(incoming("CANCEL"), flow)
    assert flow.codes == [180, 200, 200]
    assert len(stage.user.cancels) == 1


def test_cancel_after_the_final_answer_changes_nothing() -> None:
    stage, flow = Stage(), FakeFlow()
    respond(arrive(stage, flow), 200)
    stage.layer.receive(incoming("CANCEL"), flow)
    assert flow.codes == [200, 200]
    assert not stage.user.cancels


@pytest.mark.parametrize("branch", ["z9hG4bKother", "z9hG4bKin1"])
def test_cancel_without_its_invite_gets_481(branch: str) -> None:
    stage, flow = Stage(), FakeFlow()
    if branch == "z9hG4bKother":
        arrive(stage, flow)
    stage.layer.receive(incoming("CANCEL", branch=branch), flow)
    assert flow.codes == [481]
    assert not stage.user.cancels


def test_merged_request_gets_482() -> None:
    """The same request by two ways: 8.2.2.2."""
    stage, flow = Stage(), FakeFlow()
    arrive(stage, flow)
    stage.layer.receive(incoming(branch="z9hG4bKway2"), flow)
    assert flow.codes == [482]
    assert len(stage.user.requests) == 1
    inside = incoming(branch="z9hG4bKway3", to="<sip:gateway@example.test>;tag=g1")
    arrive(stage, flow, inside)
    arrive(stage, flow, incoming(branch="z9hG4bKway4", cseq=2))


def test_merging_is_forgotten_with_the_transaction() -> None:
    stage, flow = Stage(), FakeFlow(TransportKind.TCP)
    respond(arrive(stage, flow, incoming("OPTIONS")), 200)
    stage.clock.advance(0)
    respond(arrive(stage, flow, incoming("OPTIONS", branch="z9hG4bKway2")), 200)
    assert flow.codes == [200, 200]


def test_too_many_transactions_get_503_with_retry_after() -> None:
    stage, flow = Stage(TransactionLimits(max_server=1, retry_after=7)), FakeFlow()
    arrive(stage, flow)
    stage.layer.receive(incoming(branch="z9hG4bKin2", cseq=2), flow)
    stage.layer.receive(incoming(branch="z9hG4bKin2", cseq=2), flow)
    assert flow.codes == [503, 503]
    assert flow.sent[0].headers["Retry-After"] == "7"
    assert flow.sent[0].headers["To"] == flow.sent[1].headers["To"]
    assert stage.layer.counters["overload"] == 2
    stage.layer.receive(incoming("CANCEL"), flow)
    assert flow.codes == [503, 503, 200]


def test_ack_that_matches_nothing_goes_up() -> None:
    stage, flow = Stage(), FakeFlow()
    stage.layer.receive(incoming("ACK"), flow)
    assert len(stage.user.acks) == 1
    assert stage.settled()


def test_same_branch_from_another_sent_by_is_another_transaction() -> None:
    stage, flow = Stage(), FakeFlow()
    arrive(stage, flow)
    other = incoming(cseq=9)
    other.headers.set("Via", "SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKin1")
    arrive(stage, flow, other)


@pytest.mark.parametrize("branch", ["", ";branch=1", ";branch=z9hG4bK"])
def test_rfc2543_request_matches_by_its_headers(branch: str) -> None:
    """17.2.3: no usable branch; the ACK carries the To tag of the answer."""
    stage, flow = Stage(), FakeFlow()

    def old(method: str, cseq: int, to: str = "<sip:g@example.test>") -> Request:
        lines = (
            f"{method} sip:g@192.0.2.1 SIP/2.0",
            f"Via: SIP/2.0/UDP 192.0.2.9:5060{branch}",
            "From: <sip:c@example.test>;tag=c1",
            f"To: {to}",
            "Call-ID: old-1",
            f"CSeq: {cseq} {method}",
            "",
            "",
        )
        message = parse_message("\r\n".join(lines).encode())
        assert isinstance(message, Request)
        return message

    transaction = arrive(stage, flow, old("INVITE", 1))
    stage.layer.receive(old("INVITE", 1), flow)
    arrive(stage, flow, old("INVITE", 2))
    refusal = respond(transaction, 486)
    stage.layer.receive(old("ACK", 1, refusal.headers["To"]), flow)
    assert transaction.state is State.CONFIRMED


def test_broken_transport_ends_a_refused_invite() -> None:
    stage, flow = Stage(), FakeFlow()
    transaction = arrive(stage, flow)
    flow.broken = True
    respond(transaction, 486)
    assert stage.settled()
    assert flow.users == 0


def test_broken_transport_does_not_end_an_accepted_invite() -> None:
    """RFC 6026: the user still holds the dialog; the 2xx may get through when it is repeated."""
    stage, flow = Stage(), FakeFlow()
    transaction = arrive(stage, flow)
    flow.broken = True
    success = respond(transaction, 200)
    flow.broken = False
    transaction.respond(success)
    assert flow.codes == [200]


@pytest.mark.allow_tracebacks
def test_exception_of_the_user_becomes_500() -> None:
    stage, flow = Stage(), FakeFlow()

    def fail(_: ServerTransaction) -> None:
        raise RuntimeError("user's mistake")

    stage.user.on_new = fail
    stage.layer.receive(incoming(), flow)
    assert flow.codes == [500]
    assert stage.layer.counters["user_errors"] == 1


async def test_close_forgets_everything() -> None:
    stage, flow = Stage(), FakeFlow()
    arrive(stage, flow)
    await stage.layer.close()
    assert stage.settled()
    assert flow.users == 0
