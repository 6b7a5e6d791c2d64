"""Sockets of the test peers: UDP, TCP and TLS endpoints that keep every message they saw."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from tests.peers.certs import Identity
from tests.peers.sipwire import Framer, WireError, WireMessage, address, parse, uri


@dataclass(frozen=True)
class Record:
    """One message on the wire; `time` is time.monotonic() seconds, `owner` the party whose record this is."""

    time: float
    owner: str
    received: bool
    kind: str
    local: tuple[str, int]
    remote: tuple[str, int]
    message: WireMessage

    @property
    def raw(self) -> bytes:
        return self.message.raw

    def ladder(self, began: float) -> str:
        """One line of a SIP ladder, for people."""
        message = self.message
        what = (
            f"{message.method} {message.uri[:72]}"
            if message.is_request
            else f"{message.code} {message.phrase} ({message.cseq[1]})"
        )
        notes = ""
        if b"m=audio" in message.body:
            lines = message.body.split(b"\r\n")
            audio = next(line for line in lines if line.startswith(b"m=audio"))
            ways = (b"a=sendrecv", b"a=inactive", b"a=sendonly", b"a=recvonly")
            way = next((line for line in lines if line in ways), b"a=sendrecv")
            notes = f"  [{audio.split()[2].decode()} port {audio.split()[1].decode()} {way[2:].decode()}]"
        elif message.get("Content-Type") == "message/sipfrag":
            notes = f"  [{message.body.decode(errors='replace').strip()}]"
        elif message.get("Refer-To"):
            notes = f"  [{uri(address(message.get('Refer-To')).uri).host}]"
        arrow = "<--" if self.received else "-->"
        return f"{self.time - began:8.3f}  {self.owner:<16} {arrow} {self.kind:<3}  {what}{notes}"


@dataclass
class WireLog:
    """Everything that the parties sharing this log sent and received; `keep` False only shows it."""

    records: list[Record] = field(default_factory=list)
    malformed: list[tuple[float, bytes, str]] = field(default_factory=list)
    ladder: Callable[[str], None] | None = None
    on_record: Callable[[Record], object] | None = None
    keep: bool = True
    began: float = field(default_factory=time.monotonic)

    def add(self, record: Record) -> None:
        if self.keep:
            self.records.append(record)
        if self.on_record is not None:
            self.on_record(record)
        if self.ladder is not None:
            self.ladder(record.ladder(self.began))

    def received(self, method: str = "", code: int = 0) -> list[WireMessage]:
        """Received messages: all, requests of a method (code 0 and method), or responses with a code."""
        return [
            record.message
            for record in self.records
            if record.received
            and (not method or record.message.method == method)
            and (record.message.code == code if code else not method or record.message.is_request)
        ]

    def dump(self, file: Path) -> None:
        """Append the received messages as JSON lines (time, owner, text): the capture of a whole test run."""
        with file.open("a", encoding="utf-8") as out:
            for record in self.records:
                if record.received:
                    text = record.raw.decode("utf-8", "replace")
                    out.write(json.dumps({"time": record.time, "owner": record.owner, "text": text}) + "\n")


@dataclass
class Listener:
    """An open port, named `owner` in records. `deaf`: reads, says nothing; `refuse`: resets who connects."""

    kind: str
    owner: str
    host: str = ""
    port: int = 0
    deaf: bool = False
    refuse: bool = False
    server: asyncio.Server | None = None
    connections: list[Connection] = field(default_factory=list)

    async def stop(self, *, reset: bool = False) -> None:
        """No new connections; with `reset` the present ones die as well."""
        if self.server is not None:
            self.server.close()
            self.server = None
        if reset:
            for connection in self.connections:
                connection.abort()


class Connection:
    """One stream connection, or one remote address behind a UDP socket."""

    def __init__(
        self, wire: Wire, listener: Listener, local: tuple[str, int], remote: tuple[str, int]
    ) -> None:
        self.wire, self.listener, self.local, self.remote = wire, listener, local, remote
        self.kind = listener.kind
        self.closed = False
        self.closed_event = asyncio.Event()
        self.peer_names: tuple[str, ...] = ()
        self.framer = Framer()
        self.stream: asyncio.Transport | None = None
        self.datagram: asyncio.DatagramTransport | None = None

    @property
    def reliable(self) -> bool:
        return self.kind != "UDP"

    def send(self, message: WireMessage) -> None:
        """Serialise, record, write; on a closed connection the message is recorded and lost, as in life."""
        raw = message.to_bytes()
        self.send_raw(raw, message)

    def send_raw(self, raw: bytes, message: WireMessage | None = None) -> None:
        """Bytes as they are (torture, retransmission); recorded when they come with their message."""
        if message is not None:
            self.wire.record(self, message, received=False)
        if self.closed:
            return
        if self.stream is not None:
            self.stream.write(raw)
        elif self.datagram is not None:
            self.datagram.sendto(raw, self.remote)

    def close(self) -> None:
        if self.stream is not None and not self.closed:
            self.stream.close()

    def abort(self) -> None:
        """Reset instead of a polite end."""
        if self.stream is not None:
            self.stream.abort()


class _Stream(asyncio.Protocol):
    def __init__(self, wire: Wire, listener: Listener) -> None:
        self._wire, self._listener = wire, listener
        self.connection: Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        self.connection = Connection(
            self._wire,
            self._listener,
            stream.get_extra_info("sockname")[:2],
            stream.get_extra_info("peername")[:2],
        )
        self.connection.stream = stream
        certificate = stream.get_extra_info("peercert") or {}
        self.connection.peer_names = tuple(name for _, name in certificate.get("subjectAltName", ()))
        self._wire.connections.append(self.connection)
        self._listener.connections.append(self.connection)
        if self._listener.refuse:
            stream.abort()

    def data_received(self, data: bytes) -> None:
        connection = self.connection
        if connection is None or self._listener.deaf:
            return
        pings = connection.framer.pings
        for raw in connection.framer.feed(data):
            self._wire.deliver(raw, connection)
        for _ in range(connection.framer.pings - pings):
            connection.send_raw(b"\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        if self.connection is not None:
            self.connection.closed = True
            self.connection.closed_event.set()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, wire: Wire, listener: Listener) -> None:
        self._wire, self._listener = wire, listener
        self._transport: asyncio.DatagramTransport | None = None
        self._known: dict[tuple[str, int], Connection] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def towards(self, remote: tuple[str, int]) -> Connection:
        assert self._transport is not None
        if remote not in self._known:
            local = self._transport.get_extra_info("sockname")[:2]
            self._known[remote] = Connection(self._wire, self._listener, local, remote)
            self._known[remote].datagram = self._transport
        return self._known[remote]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self._listener.deaf and data.strip(b"\r\n\0"):
            self._wire.deliver(data, self.towards(addr[:2]))

    def error_received(self, exc: Exception) -> None:
        """ICMP errors: the other side is gone, as tests arrange now and then."""


class Wire:
    """The sockets of one party. `on_message` gets each well-formed message; malformed ones are only kept.

    `observer` sees every message sent (False) and received (True) before anything is done about it.
    """

    def __init__(
        self, owner: str, on_message: Callable[[WireMessage, Connection], None], log: WireLog | None = None
    ) -> None:
        self.owner, self.log = owner, log if log is not None else WireLog()
        self._on_message = on_message
        self.observer: Callable[[WireMessage, Connection, bool], None] | None = None
        self.connections: list[Connection] = []
        self.listeners: list[Listener] = []
        self._datagrams: list[tuple[asyncio.DatagramTransport, _Datagrams]] = []

    async def listen(
        self,
        kind: str,
        host: str,
        port: int = 0,
        context: ssl.SSLContext | None = None,
        owner: str = "",
    ) -> Listener:
        """Open a listener of kind UDP, TCP or TLS; port 0 picks a free one."""
        loop = asyncio.get_running_loop()
        listener = Listener(kind, owner or self.owner, host)
        if kind == "UDP":
            transport, protocol = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self, listener), local_addr=(host, port)
            )
            self._datagrams.append((transport, protocol))
            listener.port = int(transport.get_extra_info("sockname")[1])
        else:
            listener.server = await loop.create_server(
                lambda: _Stream(self, listener), host, port, ssl=context
            )
            listener.port = int(listener.server.sockets[0].getsockname()[1])
        self.listeners.append(listener)
        return listener

    async def connect(
        self,
        kind: str,
        host: str,
        port: int,
        *,
        context: ssl.SSLContext | None = None,
        name: str = "",
        source: str = "",
    ) -> Connection:
        """A connection to a peer; for UDP the first listener's socket. `name`: SNI and the name checked.

        OSError (ssl.SSLError among them) when it cannot be made; limit 5 s.
        """
        if kind == "UDP":
            return self._datagrams[0][1].towards((host, port))
        loop = asyncio.get_running_loop()
        _, protocol = await asyncio.wait_for(
            loop.create_connection(
                lambda: _Stream(self, Listener(kind, self.owner)),
                host,
                port,
                ssl=context,
                server_hostname=name if context is not None else None,
                local_addr=(source, 0) if source else None,
            ),
            5,
        )
        assert protocol.connection is not None
        return protocol.connection

    def record(self, connection: Connection, message: WireMessage, *, received: bool) -> None:
        if self.observer is not None:
            self.observer(message, connection, received)
        self.log.add(
            Record(
                time.monotonic(),
                connection.listener.owner,
                received,
                connection.kind,
                connection.local,
                connection.remote,
                message,
            )
        )

    def deliver(self, raw: bytes, connection: Connection) -> None:
        try:
            message = parse(raw)
        except (WireError, ValueError) as error:
            self.log.malformed.append((time.monotonic(), raw, str(error)))
            return
        self.record(connection, message, received=True)
        self._on_message(message, connection)

    async def close(self) -> None:
        """End every socket and wait until the connections are really gone."""
        for listener in self.listeners:
            await listener.stop()
        for transport, _ in self._datagrams:
            transport.close()
        for connection in self.connections:
            connection.close()
        for connection in self.connections:
            if connection.closed:
                continue
            try:
                await asyncio.wait_for(connection.closed_event.wait(), 1)
            except TimeoutError:
                connection.abort()
        self._datagrams.clear()
        await asyncio.sleep(0)


def server_context(
    identity: Identity,
    roots: Path | None,
    *,
    demand_certificate: bool = True,
    newest: ssl.TLSVersion | None = None,
) -> ssl.SSLContext:
    """TLS as a server: full chain presented; with `roots` a client certificate is demanded and verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if newest is not None:
        context.maximum_version = newest
    context.load_cert_chain(identity.chain, identity.key)
    if roots is not None:
        context.load_verify_locations(roots)
        context.verify_mode = ssl.CERT_REQUIRED if demand_certificate else ssl.CERT_OPTIONAL
    return context


def client_context(
    identity: Identity | None,
    roots: Path | None,
    *,
    check_name: bool = True,
    only: ssl.TLSVersion | None = None,
) -> ssl.SSLContext:
    """TLS as a client. No identity: no client certificate. No roots: the server is not verified.

    `only` pins one version; below 1.2 the security level is lowered so that the handshake is really tried.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old versions are asked for to be refused
        context.minimum_version = only or ssl.TLSVersion.TLSv1_2
        if only is not None:
            context.maximum_version = only
    if only is not None and only < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("ALL:@SECLEVEL=0")
    context.check_hostname = check_name and roots is not None
    if roots is not None:
        context.load_verify_locations(roots)
    else:
        context.verify_mode = ssl.CERT_NONE
    if identity is not None:
        context.load_cert_chain(identity.chain, identity.key)
    return context
