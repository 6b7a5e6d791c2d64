"""UDP and TCP on loopback: framing, addresses of responses, limits, strangers, connection life."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import logging
import socket
import struct
import sys
import time

import pytest

from gateway.errors import SipError, TransactionTimeout, TransportError
from gateway.sip import transport_listen
from gateway.sip.message import Request, Response, make_request, make_response, parse_message, to_bytes
from gateway.sip.transport import (
    DatagramFlow,
    Endpoint,
    Flow,
    StreamFlow,
    Target,
    TransportKind,
    TransportLimits,
)
from tests.sip.wire_support import (
    PATIENCE,
    closed_port,
    read_message,
    request_bytes,
    running,
    tcp_peer,
    udp_peer,
    until,
)
from tests.support.deaf_relay import DeafRelay

UDP, TCP = TransportKind.UDP, TransportKind.TCP
CSEQ = itertools.count(1)
TCP_VIA = "SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK{}"


def options(size: int = 0, method: str = "OPTIONS") -> Request:
    return make_request(
        method,
        "sip:peer@127.0.0.1",
        from_="<sip:a@example.test>;tag=1",
        to="<sip:b@example.test>",
        call_id="transport-test",
        cseq=next(CSEQ),
        body=b"x" * size,
        content_type="text/plain" if size else None,
    )


async def test_two_stacks_talk_by_udp_and_tcp() -> None:
    async with (
        running("udp:127.0.0.1:0", "tcp:127.0.0.1:0") as a,
        running("udp:127.0.0.1:0", "tcp:127.0.0.1:0") as b,
    ):
        for kind in (UDP, TCP):
            response = await a.exchange(options(), b.target(kind))
            assert response.code == 200
        assert [flow.kind for _, flow in b.arrived] == [UDP, TCP]
        await until(lambda: a.layer.active == 0 and b.layer.active == 0)


async def test_listen_gives_the_real_ports_or_opens_nothing() -> None:
    async with running("udp:127.0.0.1:0", "tcp:127.0.0.1:0") as stack:
        taken = stack.endpoints[TCP]
        assert taken.port != 0
        with pytest.raises(TransportError, match="cannot listen on tcp:127"):
            await stack.transports.listen([Endpoint(UDP, "127.0.0.1", 0), taken])
        with pytest.raises(TransportError, match="no certificate"):
            await stack.transports.listen([Endpoint(TransportKind.TLS, "127.0.0.1", 0)])


async def test_ipv6_where_the_system_has_it() -> None:
    try:
        async with running("udp:[::1]:0", "tcp:[::1]:0") as a, running("udp:[::1]:0", "tcp:[::1]:0") as b:
            for kind in (UDP, TCP):
                assert (await a.exchange(options(), b.target(kind))).code == 200
            via = b.requests[0].request.top_via
            assert via.host == "[::1]"
    except TransportError as error:
        pytest.skip(f"no IPv6 loopback: {error.text}")


@pytest.mark.parametrize("text", ["udp:127.0.0.1:5060", "tcp:pbx.example.test:5070", "tls:[::1]:5061"])
def test_endpoint_text(text: str) -> None:
    assert str(Endpoint.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "5060", "http:127.0.0.1:80", "udp:", "udp:::1:5060", "tcp:h:99999", "tcp:h:x"]
)
def test_endpoint_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|not a port"):
        Endpoint.parse(text)


# -- where responses go (18.2.2, RFC 3581)


async def test_rport_is_answered_to_the_source_port() -> None:
    async with running("udp:127.0.0.1:0") as stack, udp_peer(stack.endpoints[UDP]) as peer:
        port = peer.transport.get_extra_info("sockname")[1]
        peer.transport.sendto(request_bytes())
        response = await peer.next()
        assert response.headers["Via"] == (
            f"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKprobe;rport={port};received=127.0.0.1"
        )


async def test_without_rport_the_answer_goes_to_the_sent_by_port() -> None:
    async with (
        running("udp:127.0.0.1:0") as stack,
        udp_peer(stack.endpoints[UDP]) as asking,
        udp_peer(stack.endpoints[UDP]) as named,
    ):
        port = named.transport.get_extra_info("sockname")[1]
        asking.transport.sendto(request_bytes(via=f"SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKa"))
        response = await named.next()
        assert response.headers["Via"] == f"SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKa"


async def test_forged_received_and_maddr_lead_nowhere() -> None:
    async with running("udp:127.0.0.1:0") as stack, udp_peer(stack.endpoints[UDP]) as peer:
        via = "SIP/2.0/UDP 192.0.2.1;received=198.51.100.1;maddr=198.51.100.2;branch=z9hG4bKa;rport"
        peer.transport.sendto(request_bytes(via=via))
        response = await peer.next()
        assert "received=198" not in response.headers["Via"]
        assert response.headers["Via"].endswith(";received=127.0.0.1")


async def test_response_by_tcp_takes_the_same_connection() -> None:
    async with running("tcp:127.0.0.1:0") as stack, tcp_peer(stack.endpoints[TCP]) as (reader, writer):
        writer.write(request_bytes(via=TCP_VIA.format("a")))
        response = await read_message(reader)
        assert isinstance(response, Response)
        assert response.headers["Via"].endswith(";received=127.0.0.1")


async def test_response_finds_the_sent_by_when_the_connection_is_gone() -> None:
    async with running("tcp:127.0.0.1:0") as stack:
        stack.answer = lambda request: 0
        inbox: asyncio.Queue[bytes] = asyncio.Queue()

        async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inbox.put_nowait(await reader.readuntil(b"\r\n\r\n"))
            writer.close()

        server = await asyncio.start_server(taken, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with tcp_peer(stack.endpoints[TCP]) as (_, writer):
            writer.write(request_bytes(via=f"SIP/2.0/TCP 127.0.0.1:{port};branch=z9hG4bKa"))
            await until(lambda: stack.requests)
        transaction = stack.requests[0]
        await until(lambda: transaction.flow.closed)
        transaction.respond(make_response(transaction.request, 200))
        response = parse_message(await asyncio.wait_for(inbox.get(), PATIENCE))
        assert isinstance(response, Response)
        assert response.code == 200
        server.close()
        await server.wait_closed()


# -- streams


async def test_message_in_small_pieces_and_several_in_one() -> None:
    async with running("tcp:127.0.0.1:0") as stack, tcp_peer(stack.endpoints[TCP]) as (reader, writer):
        whole = request_bytes(call_id="pieces", via=TCP_VIA.format(0), body=b"hello")
        for start in range(0, len(whole), 7):
            writer.write(whole[start : start + 7])
            await writer.drain()
            await asyncio.sleep(0)
        assert (await read_message(reader)).call_id == "pieces"
        assert stack.requests[0].request.body == b"hello"
        writer.write(
            b"\r\n" + b"".join(request_bytes(call_id=str(n), via=TCP_VIA.format(n)) for n in range(1, 20))
        )
        answered = [(await read_message(reader)).call_id for _ in range(1, 20)]
        assert answered == [str(n) for n in range(1, 20)]


async def test_message_of_64_kib_passes_and_a_larger_one_is_refused() -> None:
    async with running("tcp:127.0.0.1:0") as stack:
        async with tcp_peer(stack.endpoints[TCP]) as (reader, writer):
            head = len(request_bytes(via=TCP_VIA.format("a"), body=b"x" * 10_000)) - 10_000
            writer.write(request_bytes(via=TCP_VIA.format("a"), body=b"x" * (65536 - head)))
            assert isinstance(await read_message(reader), Response)
            writer.write(request_bytes(via=TCP_VIA.format("b"), body=b"x" * (65537 - head)))
            refusal = await read_message(reader)
            assert isinstance(refusal, Response)
            assert refusal.code == 513
            assert await reader.read() == b""
        assert len(stack.requests) == 1
        flow = stack.arrived[0][1]
        with pytest.raises(TransportError):
            flow.send(b"x")


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: example.test\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"x" * 9000,
        b"OPTIONS sip:a@b SIP/2.0\r\n" + b"X: y\r\n" * 7000,
        b"\0" * 20,
    ],
    ids=["http", "tls-hello", "no-line", "endless-headers", "nul"],
)
async def test_garbage_closes_the_connection_with_one_log_line(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with running("tcp:127.0.0.1:0") as stack, tcp_peer(stack.endpoints[TCP]) as (reader, writer):
        writer.write(garbage)
        with contextlib.suppress(ConnectionResetError):  # closed with our bytes unread
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        await until(lambda: stack.transports.connections == 0)
        assert stack.transports.counters["garbage"] == 1
    assert len([record for record in caplog.records if "stream-broken" in record.getMessage()]) == 1


async def test_double_crlf_is_answered_by_one_crlf() -> None:
    async with running("tcp:127.0.0.1:0") as stack, tcp_peer(stack.endpoints[TCP]) as (reader, writer):
        writer.write(b"\r\n\r\n")
        assert await asyncio.wait_for(reader.readexactly(2), PATIENCE) == b"\r\n"
        writer.write(b"\r\n")
        await writer.drain()
        writer.write(b"\r\n" + request_bytes(via=TCP_VIA.format("a")))
        assert await asyncio.wait_for(reader.readexactly(2), PATIENCE) == b"\r\n"
        assert isinstance(await read_message(reader), Response)
        assert not stack.malformed


async def test_crlf_by_udp_is_a_keep_alive_too() -> None:
    async with running("udp:127.0.0.1:0") as stack, udp_peer(stack.endpoints[UDP]) as peer:
        peer.transport.sendto(b"\r\n\r\n")
        peer.transport.sendto(request_bytes())
        await peer.next()
        assert not stack.malformed
        assert len(stack.asked) == 1


async def test_outbound_connection_is_kept_alive_and_a_pong_is_no_message() -> None:
    limits = TransportLimits(keepalive_interval=0.05)
    pings: asyncio.Queue[bytes] = asyncio.Queue()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            pings.put_nowait(await reader.readexactly(4))
            writer.write(b"\r\n")
        writer.close()

    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    async with running(limits=limits) as stack:
        target = Target(TCP, "127.0.0.1", server.sockets[0].getsockname()[1])
        await stack.transports.flow(target)
        for _ in range(3):
            assert await asyncio.wait_for(pings.get(), PATIENCE) == b"\r\n\r\n"
        assert not stack.malformed
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("trickle", [False, True])
async def test_peer_that_stalls_amid_a_message_is_cut_off(trickle: bool) -> None:
    async with running("tcp:127.0.0.1:0", limits=TransportLimits(stall_timeout=0.3)) as stack:
        async with tcp_peer(stack.endpoints[TCP]) as (reader, writer):
            writer.write(request_bytes(via=TCP_VIA.format("a"), body=b"x" * 100)[:-50])
            began = time.monotonic()
            ended = asyncio.create_task(reader.read())
            while trickle and not ended.done():
                writer.write(b"x" if time.monotonic() - began < 2 else b"")
                await asyncio.wait([ended], timeout=0.05)
            assert await asyncio.wait_for(ended, PATIENCE) == b""
        assert stack.transports.counters["stalled"] == 1


async def test_silent_connection_is_closed_when_idle() -> None:
    async with running("tcp:127.0.0.1:0", limits=TransportLimits(idle_timeout=0.1)) as stack:
        async with tcp_peer(stack.endpoints[TCP]) as (reader, _):
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        assert stack.transports.counters["idle_closed"] == 1


async def test_peer_that_does_not_read_is_given_up() -> None:
    async with running("tcp:127.0.0.1:0", limits=TransportLimits(max_unsent=50_000)) as stack:
        async with tcp_peer(stack.endpoints[TCP]) as (reader, writer):
            writer.write(request_bytes(via=TCP_VIA.format("a")))
            await read_message(reader)
            flow = stack.arrived[0][1]
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            with pytest.raises(TransportError, match="does not read"):
                _flood(flow)
            assert flow.closed
            writer.transport.abort()
        await until(lambda: stack.transports.connections == 0)


def _flood(flow: Flow) -> None:
    for _ in range(2000):
        flow.send(b"x" * 60_000)


async def test_connections_beyond_the_limit_are_refused() -> None:
    limits = TransportLimits(max_connections_per_address=2)
    async with running("tcp:127.0.0.1:0", limits=limits) as stack:
        endpoint = stack.endpoints[TCP]
        async with tcp_peer(endpoint) as (reader, writer), tcp_peer(endpoint):
            await until(lambda: stack.transports.connections == 2)
            async with tcp_peer(endpoint) as (third, _):
                assert await asyncio.wait_for(third.read(), PATIENCE) == b""
            writer.write(request_bytes(via=TCP_VIA.format("a")))
            assert isinstance(await read_message(reader), Response)
            assert stack.transports.counters["connections_refused"] == 1
        await until(lambda: stack.transports.connections == 0)
        async with tcp_peer(endpoint) as (reader, writer):
            writer.write(request_bytes(via=TCP_VIA.format("b")))
            assert isinstance(await read_message(reader), Response)


async def test_connection_is_reused_and_made_once_for_many_at_once() -> None:
    async with running() as a, running("tcp:127.0.0.1:0") as b:
        flows = await asyncio.gather(*(a.transports.flow(b.target(TCP)) for _ in range(10)))
        assert len({id(flow) for flow in flows}) == 1
        assert await a.transports.flow(b.target(TCP)) is flows[0]
        assert flows[0].outbound
        await until(lambda: b.transports.connections == 1)
        assert (await a.exchange(options(), b.target(TCP))).code == 200


async def test_refused_connection_is_a_transport_error_and_a_later_one_works() -> None:
    async with running() as a:
        target = Target(TCP, "127.0.0.1", closed_port())
        with pytest.raises(TransportError, match="cannot connect"):
            await a.exchange(options(), target)
        with pytest.raises(TransportError, match="TLS is not configured"):
            await a.transports.flow(Target(TransportKind.TLS, "127.0.0.1", target.port))
        with pytest.raises(TransportError, match="no UDP socket"):
            await a.transports.flow(Target(UDP, "127.0.0.1", 5060))


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
async def test_a_dead_path_ends_a_connection_in_half_a_minute_although_a_ping_is_unacknowledged() -> None:
    """While bytes of ours are unacknowledged the system sends no keep-alive probe."""
    async with running() as a, running("tcp:127.0.0.1:0") as b:
        flow = await a.transports.flow(b.target(TCP))
        await a.exchange(options(), b.target(TCP))
        ours, theirs = flow, b.arrived[0][1]
        for end in (ours, theirs):
            assert isinstance(end, StreamFlow)
            assert end.socket is not None
            limit = end.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            first = end.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            again = end.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
            assert 15_000 <= limit <= 30_000
            assert (first + again) * 1000 < limit, "more than one probe must be lost to end a connection"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")
async def test_a_connection_whose_ping_is_never_acknowledged_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer's system drops every packet of it, as a firewall on the way would; nothing tells us."""
    shorter = dict(transport_listen._KEEP_ALIVE) | {"TCP_USER_TIMEOUT": 600}
    monkeypatch.setattr(transport_listen, "_KEEP_ALIVE", tuple(shorter.items()))
    async with running() as a, running("tcp:127.0.0.1:0") as b:
        flow = await a.transports.flow(b.target(TCP))
        assert isinstance(flow, StreamFlow)
        await a.exchange(options(), b.target(TCP))
        theirs = b.arrived[0][1]
        assert isinstance(theirs, StreamFlow)
        assert theirs.socket is not None
        drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0 bytes
        so_attach_filter = 26
        theirs.socket.setsockopt(
            socket.SOL_SOCKET, so_attach_filter, struct.pack("HL", 1, ctypes.addressof(drop_all))
        )
        flow.send(b"\r\n\r\n")
        await asyncio.wait_for(flow.lost, 4 * PATIENCE)
        assert await a.transports.flow(b.target(TCP)) is not flow
        theirs.abort()


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS"])
async def test_request_that_nothing_answered_sends_the_next_one_over_a_new_connection(method: str) -> None:
    """The half-dead connection serves what is under way, and goes when that is over."""
    limits = TransportLimits(unanswered_after=0.05, drain_quiet=0.1)
    async with (
        running("tcp:127.0.0.1:0", limits=limits) as a,
        running("tcp:127.0.0.1:0") as b,
        DeafRelay(("127.0.0.1", b.endpoints[TCP].port)) as relay,
    ):
        target = Target(TCP, "127.0.0.1", relay.port)
        assert (await a.exchange(options(), target)).code == 200
        old = await a.transports.flow(target)
        relay.forget()
        if method == "INVITE":
            failed: list[SipError] = []
            invite = a.layer.request(
                options(method="INVITE"),
                target,
                on_response=lambda _: None,
                on_failure=failed.append,
            )
            await asyncio.sleep(0.1)
            assert not old.draining
            invite.cancel()
            assert old.draining
        else:
            with pytest.raises(TransactionTimeout):
                await a.exchange(options(), target)
        assert (await a.exchange(options(), target)).code == 200
        assert await a.transports.flow(target) is not old
        assert a.transports.counters["unanswered"] == 1
        await until(lambda: old.closed)
        await until(lambda: a.layer.active == 0)
        assert [r.request.method for r in b.requests] == ["OPTIONS", "OPTIONS"], "no INVITE rings later"


async def test_connection_that_brought_something_meanwhile_is_not_suspected() -> None:
    limits = TransportLimits(unanswered_after=0.05)
    async with running("tcp:127.0.0.1:0", limits=limits) as a, running("tcp:127.0.0.1:0") as b:
        target = b.target(TCP)
        assert (await a.exchange(options(), target)).code == 200
        flow = await a.transports.flow(target)
        b.answer = lambda request: 200 if request.method == "OPTIONS" else 0
        slow = asyncio.create_task(a.exchange(options(method="MESSAGE"), target))
        await until(lambda: b.requests[-1].request.method == "MESSAGE")
        assert (await a.exchange(options(), target)).code == 200
        with pytest.raises(TransactionTimeout):
            await slow
        assert not flow.draining


async def test_race_peer_closes_the_kept_connection_as_we_send() -> None:
    """The request is sent again, on a new connection, with the same branch."""
    got: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                data = await reader.readuntil(b"\r\n\r\n")
                got.append(data)
                if len(got) == 2:
                    break
                request = parse_message(data)
                assert isinstance(request, Request)
                writer.write(to_bytes(make_response(request, 200)))
        writer.close()

    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    async with running("tcp:127.0.0.1:0") as stack:
        target = Target(TCP, "127.0.0.1", server.sockets[0].getsockname()[1])
        await stack.exchange(options(), target)
        assert (await stack.exchange(options(), target)).code == 200
        assert stack.layer.counters["retried"] == 1
    assert len(got) == 3
    assert got[1] == got[2]
    server.close()
    await server.wait_closed()


async def test_large_request_goes_by_tcp_or_falls_back_to_udp() -> None:
    async with running("udp:127.0.0.1:0") as a, running("udp:127.0.0.1:0") as b:
        port = b.endpoints[UDP].port
        assert (await a.exchange(options(2000), b.target(UDP), tcp_switch=True)).code == 200
        assert b.arrived[-1][1].kind is UDP
        await b.transports.listen([Endpoint(TCP, "127.0.0.1", port)])
        assert (await a.exchange(options(2000), b.target(UDP), tcp_switch=True)).code == 200
        assert b.arrived[-1][1].kind is TCP
        assert b.requests[-1].request.top_via.transport == "TCP"
        assert (await a.exchange(options(2000), b.target(UDP))).code == 200
        assert b.arrived[-1][1].kind is UDP


async def test_large_request_reaches_a_peer_whose_firewall_drops_tcp_within_the_hunts_patience() -> None:
    """A connect that hangs, as SYNs to a full queue do; UDP at the same port is answered."""
    async with running("udp:127.0.0.1:0") as a, running("udp:127.0.0.1:0") as b:
        with socket.socket() as full, contextlib.ExitStack() as filling:
            full.bind(("127.0.0.1", b.endpoints[UDP].port))
            full.listen(0)
            for _ in range(3):
                filler = filling.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            began = time.monotonic()
            assert (await a.exchange(options(2000), b.target(UDP), tcp_switch=True)).code == 200
            assert time.monotonic() - began < 4, "after the hunt's four seconds of silence"
            assert b.arrived[-1][1].kind is UDP
            assert (await a.exchange(options(2000), b.target(UDP), tcp_switch=True)).code == 200
            assert a.layer.counters["tcp_refused"] == 2


async def test_datagram_too_large_is_a_transport_error() -> None:
    async with running("udp:127.0.0.1:0") as a:
        with pytest.raises(TransportError, match="do not fit"):
            await a.exchange(options(66_000), Target(UDP, "127.0.0.1", 9))


async def test_no_answer_by_udp_is_a_timeout() -> None:
    async with running("udp:127.0.0.1:0") as a, running("udp:127.0.0.1:0") as b:
        b.answer = lambda request: 0
        with pytest.raises(TransactionTimeout):
            await a.exchange(options(), b.target(UDP))


# -- strangers (T22)


async def test_stranger_by_udp_gets_no_answer_and_one_counted_line(caplog: pytest.LogCaptureFixture) -> None:
    known: set[int] = set()

    def admit(flow: Flow) -> bool:
        return flow.remote[1] in known

    async with running("udp:127.0.0.1:0", admit=admit) as stack:
        async with udp_peer(stack.endpoints[UDP]) as stranger, udp_peer(stack.endpoints[UDP]) as friend:
            known.add(friend.transport.get_extra_info("sockname")[1])
            for _ in range(5):
                stranger.transport.sendto(request_bytes())
            stranger.transport.sendto(b"garbage")
            friend.transport.sendto(request_bytes(call_id="friend"))
            assert (await friend.next()).call_id == "friend"
            assert stranger.received.empty()
        assert len(stack.requests) == 1
        assert not stack.malformed
        assert stack.transports.counters["strangers"] == 6
    lines = [record.getMessage() for record in caplog.records if "event=stranger" in record.getMessage()]
    assert len(lines) == 1
    assert "address=127.0.0.1" in lines[0]


async def test_stranger_by_tcp_is_closed_without_a_byte() -> None:
    async with running("tcp:127.0.0.1:0", admit=lambda flow: False) as stack:
        async with tcp_peer(stack.endpoints[TCP]) as (reader, writer):
            writer.write(request_bytes(via=TCP_VIA.format("a")))
            with contextlib.suppress(ConnectionResetError):  # cut with the request unread
                assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        assert not stack.arrived
        assert stack.transports.counters["strangers"] == 1


async def test_address_can_be_turned_away_before_anything_else() -> None:
    async with running("tcp:127.0.0.1:0", admit_address=lambda kind, address: False) as stack:
        async with tcp_peer(stack.endpoints[TCP]) as (reader, _):
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        assert not stack.asked
        assert stack.transports.counters["strangers"] == 1


@pytest.mark.allow_tracebacks
async def test_exceptions_of_the_layer_above_stay_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running("udp:127.0.0.1:0", "tcp:127.0.0.1:0") as stack:
        layer = stack.transports

        def fail(*_: object) -> bool:
            raise RuntimeError("mistake above")

        monkeypatch.setattr(layer, "_on_message", fail)
        monkeypatch.setattr(layer, "_on_malformed", fail)
        async with udp_peer(stack.endpoints[UDP]) as peer, tcp_peer(stack.endpoints[TCP]) as (reader, writer):
            peer.transport.sendto(request_bytes())
            peer.transport.sendto(request_bytes().replace(b"CSeq: 1", b"CSeq: x"))
            refusal = await peer.next_raw()
            assert refusal.startswith(b"SIP/2.0 400 ")
            writer.write(request_bytes(via=TCP_VIA.format("a")))
            writer.write(request_bytes(via=TCP_VIA.format("b")).replace(b"Content-Length", b"X-Length"))
            assert (await asyncio.wait_for(reader.read(), PATIENCE)).startswith(b"SIP/2.0 400 ")
            monkeypatch.setattr(layer, "_admit", fail)
            peer.transport.sendto(request_bytes())
            await until(lambda: layer.counters["internal_errors"] == 5)
        layer.counters["internal_errors"] = 0
    assert any(record.levelno == logging.ERROR for record in caplog.records)


async def test_recycled_connection_takes_no_new_request_and_waits_for_those_it_has() -> None:
    limits = TransportLimits(drain_quiet=0.05)
    async with running(limits=limits) as a, running("tcp:127.0.0.1:0") as b:
        b.answer = lambda request: 0
        pending = asyncio.create_task(a.exchange(options(method="INFO"), b.target(TCP)))
        await until(lambda: b.requests)
        old = await a.transports.flow(b.target(TCP))
        a.transports.recycle(lambda flow: flow.kind is TCP)
        new = await a.transports.flow(b.target(TCP))
        assert new is not old
        await asyncio.sleep(0.2)
        assert not old.closed
        b.requests[0].respond(make_response(b.requests[0].request, 200))
        assert (await pending).code == 200
        await until(lambda: old.closed)
        assert not new.closed


async def test_close_ends_everything_even_with_a_peer_that_hangs() -> None:
    async with running("tcp:127.0.0.1:0") as stack, tcp_peer(stack.endpoints[TCP]) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request_bytes(via=TCP_VIA.format("a")))
        await until(lambda: stack.arrived)
        flow = stack.arrived[0][1]
        for _ in range(20):
            flow.send(b"x" * 50_000)
        await asyncio.wait_for(stack.transports.close(), PATIENCE)
        assert stack.transports.connections == 0


async def test_via_names_a_real_address_when_we_listen_on_all() -> None:
    async with running("udp:0.0.0.0:0") as a, running("udp:127.0.0.1:0") as b:
        flow = await a.transports.flow(b.target(UDP))
        assert isinstance(flow, DatagramFlow)
        port = a.endpoints[UDP].port
        assert a.transports.sent_by(flow, None) == f"127.0.0.1:{port}"
        assert a.transports.sent_by(flow, "sbc.example.test") == f"sbc.example.test:{port}"
        assert a.transports.sent_by(flow, "sbc.example.test:5061") == "sbc.example.test:5061"
        assert a.transports.sent_by(flow, "2001:db8::1") == f"[2001:db8::1]:{port}"


async def test_via_on_a_connection_we_opened_names_the_port_we_listen_on() -> None:
    async with running("tcp:127.0.0.1:0") as a, running("tcp:127.0.0.1:0") as b:
        flow = await a.transports.flow(b.target(TCP))
        assert a.transports.sent_by(flow, None) == f"127.0.0.1:{a.endpoints[TCP].port}"
