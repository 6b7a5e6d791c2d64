"""The ng client against a scripted rtpengine: repeats, answers that never come, refusals, rubbish."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MediaRejected, MediaUnavailable, PortsExhausted
from media.rtpengine import BencodeError, NgClient, bdecode, bencode

Answer = Callable[[int, dict[str, Any]], bytes | None]


class Scripted(asyncio.DatagramProtocol):
    """`answer(number, request)` gives the body to answer with, None for silence."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.cookies: list[bytes] = []
        self.requests: list[dict[str, Any]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        cookie, _, body = data.partition(b" ")
        self.cookies.append(cookie)
        self.requests.append(bdecode(body))
        reply = self.answer(len(self.cookies), self.requests[-1])
        if reply is not None:
            self.transport.sendto(b"strange d6:result2:oke", addr)
            self.transport.sendto(cookie + b" " + reply, addr)
            self.transport.sendto(cookie + b" " + reply, addr)


@pytest.fixture
async def scripted(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[Answer], Any]]:
    """`await scripted(answer)` for (client, server)."""
    monkeypatch.setattr("media.rtpengine.WAITS", (0.05, 0.05, 0.05))
    ends: list[Callable[[], None]] = []

    async def make(answer: Answer) -> tuple[NgClient, Scripted]:
        loop = asyncio.get_running_loop()
        transport, server = await loop.create_datagram_endpoint(
            lambda: Scripted(answer), local_addr=("127.0.0.1", 0)
        )
        client = NgClient()
        await client.connect(transport.get_extra_info("sockname"))
        ends.extend((transport.close, client.close))
        return client, server

    yield make
    for end in ends:
        end()
    await asyncio.sleep(0)


async def test_a_repeat_carries_the_same_cookie_and_a_second_answer_does_no_harm(scripted: Any) -> None:
    client, server = await scripted(lambda number, _: b"d6:result2:ok3:sdp1:xe" if number >= 3 else None)
    reply = await client.command("offer", call_id="L", from_tag="int", flags=["a", "b"], SDES=None, n=5)
    assert reply == {"result": "ok", "sdp": "x"}
    assert len(server.cookies) == 3
    assert len(set(server.cookies)) == 1
    assert server.requests[0] == {
        "command": "offer", "call-id": "L", "from-tag": "int", "flags": ["a", "b"], "n": 5
    }  # fmt: skip
    assert (client.commands, client.retries, client.pending) == (1, 2, 0)
    await client.command("query")
    assert server.cookies[3] != server.cookies[0]


async def test_no_answer_is_typed_and_bounded(scripted: Any) -> None:
    client, server = await scripted(lambda *_: None)
    with pytest.raises(MediaUnavailable, match="does not answer query") as failure:
        await client.command("query")
    assert failure.value.code == 503
    assert len(server.cookies) == 3
    assert client.pending == 0


@pytest.mark.parametrize(
    ("reason", "error", "code"),
    [
        ("Ran out of ports", PortsExhausted, 503),
        ("Parallel session limit reached", PortsExhausted, 503),
        ("Failed to parse SDP", MediaRejected, 488),
        ("Unknown call-id", MediaRejected, 488),
    ],
)
async def test_refusals_are_typed(scripted: Any, reason: str, error: type[Exception], code: int) -> None:
    client, _ = await scripted(lambda *_: bencode({"result": "error", "error-reason": reason}))
    with pytest.raises(error, match=reason) as refusal:
        await client.command("offer")
    assert getattr(refusal.value, "code", None) == code


@pytest.mark.parametrize(
    "body", [b"", b"i5e", b"le", b"d", b"d1:ai5e", b"5:ab", b"d6:result2:ok", b"\xff\x00"]
)
async def test_rubbish_is_typed(scripted: Any, body: bytes) -> None:
    client, _ = await scripted(lambda *_: body)
    with pytest.raises(MediaUnavailable):
        await client.command("ping")


async def test_nobody_there_and_closing_end_what_waits(scripted: Any) -> None:
    client, _ = await scripted(lambda *_: None)
    waiting = asyncio.ensure_future(client.command("query"))
    await asyncio.sleep(0.01)
    client.close()
    with pytest.raises(MediaUnavailable):
        await waiting
    with pytest.raises(MediaUnavailable, match="not connected"):
        await client.command("query")
    nobody = NgClient()
    await nobody.connect(("127.0.0.1", 9))
    with pytest.raises(MediaUnavailable):
        await nobody.ping((0.02, 0.02))
    nobody.close()
    assert client.pending == nobody.pending == 0
    await asyncio.sleep(0)


async def test_answers_that_wait_together_are_read_in_one_round() -> None:
    """asyncio reads one datagram a round: calls of a busy gateway waited seconds for each other's answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as engine:
        engine.bind(("127.0.0.1", 0))
        engine.settimeout(5)
        client = NgClient()
        await client.connect(engine.getsockname())
        commands = [asyncio.create_task(client.command("ping")) for _ in range(40)]
        await asyncio.sleep(0)
        for _ in commands:
            request, sender = engine.recvfrom(2048)
            engine.sendto(request.partition(b" ")[0] + b" d6:result4:ponge", sender)
        for _ in range(10):
            await asyncio.sleep(0)
        assert [command.done() for command in commands] == [True] * 40
        client.close()
        await asyncio.sleep(0)


_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(_VALUES)
def test_what_is_encoded_is_decoded(value: Any) -> None:
    assert bdecode(bencode(value)) == value


@given(st.binary(max_size=60))
def test_decoding_rubbish_raises_one_error_only(data: bytes) -> None:
    try:
        bdecode(data)
    except BencodeError:
        return


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(BencodeError, match="deep"):
        bdecode(b"l" * 1000 + b"e" * 1000)
