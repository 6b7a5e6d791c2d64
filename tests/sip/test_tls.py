"""TLS on loopback with real certificates: who is let in, who is refused and counted, reload (T7, T8, T9,
T22).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.errors import TransportError
from gateway.sip.message import Response, make_request
from gateway.sip.tls import TlsContexts, TlsSettings, name_matches
from gateway.sip.transport import Endpoint, Flow, Target, TransportKind, TransportLimits
from tests.peers import certs
from tests.peers.certs import Authority, Identity, Pki, make_pki
from tests.sip.wire_support import PATIENCE, Stack, read_message, request_bytes, running, until

TLS = TransportKind.TLS
VIA = "SIP/2.0/TLS 192.0.2.1;branch=z9hG4bK{}"
PROXY = "sip.pstnhub.microsoft.com"
GATEWAY = "sbc.example.test"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


def settings(pki: Pki, identity: str | Identity = "gateway", *, required: bool = True) -> TlsSettings:
    files = pki[identity] if isinstance(identity, str) else identity
    return TlsSettings(files.chain, files.key, pki.roots, require_client_certificate=required)


def of_teams(flow: Flow) -> bool:
    """The name check that a trunk makes."""
    return name_matches(PROXY, flow.peer_names)


def client_context(
    pki: Pki, identity: Identity | None = None, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki.roots)
    context.maximum_version = newest
    if identity is not None:
        context.load_cert_chain(identity.chain, identity.key)
    return context


@contextlib.asynccontextmanager
async def dial(
    endpoint: Endpoint, context: ssl.SSLContext
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(
        endpoint.host, endpoint.port, ssl=context, server_hostname=GATEWAY
    )
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def answered(endpoint: Endpoint, context: ssl.SSLContext) -> bool:
    """True when a request sent over TLS is answered; False when we are turned away without an answer."""
    try:
        async with dial(endpoint, context) as (reader, writer):
            writer.write(request_bytes(via=VIA.format("a")))
            return isinstance(await read_message(reader), Response)
    except (OSError, asyncio.IncompleteReadError):
        return False


# -- they dial us


@pytest.mark.parametrize(
    "name", ["microsoft", "microsoft-server-only", "microsoft-client-only", "microsoft-ecdsa"]
)
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_trap_t8_peer_is_accepted_whatever_its_certificate_is_for(
    pki: Pki, name: str, newest: ssl.TLSVersion
) -> None:
    async with running("tls:127.0.0.1:0", tls=settings(pki), admit=of_teams) as stack:
        assert await answered(stack.endpoints[TLS], client_context(pki, pki[name], newest=newest))
        assert PROXY in stack.asked[0].peer_names
        assert not stack.asked[0].outbound


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("microsoft-rogue", "rogue_ca"),
        ("microsoft-expired", "expired"),
        ("microsoft-self-signed", "self_signed"),
    ],
)
@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_trap_t22_certificate_that_does_not_verify_is_refused_and_counted(
    pki: Pki, name: str, why: str, required: bool, newest: ssl.TLSVersion
) -> None:
    async with running("tls:127.0.0.1:0", tls=settings(pki, required=required)) as stack:
        assert not await answered(stack.endpoints[TLS], client_context(pki, pki[name], newest=newest))
        await until(lambda: stack.transports.counters[f"tls_refused_{why}"] == 1)
        assert not stack.asked
        assert not stack.arrived


async def test_trap_t22_rogue_chain_with_the_right_root_attached_is_refused(pki: Pki, tmp_path: Path) -> None:
    """The forger sends the true root along: a chain is no chain by lying side by side."""
    rogue = pki["microsoft-rogue"]
    chain = tmp_path / "chain.pem"
    chain.write_bytes(rogue.chain.read_bytes() + pki.roots.read_bytes())
    forged = Identity(chain, rogue.leaf, rogue.key)
    async with running("tls:127.0.0.1:0", tls=settings(pki)) as stack:
        assert not await answered(stack.endpoints[TLS], client_context(pki, forged))
        assert not stack.arrived


async def test_leaf_may_not_act_as_an_authority(pki: Pki, tmp_path: Path) -> None:
    """Purpose "any" still leaves the CA flag checked: a certificate signed by a mere leaf is refused."""
    signer = pki["microsoft"]
    signer_key = serialization.load_pem_private_key(signer.key.read_bytes(), None)
    assert isinstance(signer_key, rsa.RSAPrivateKey)
    signer_certificate = x509.load_pem_x509_certificate(signer.leaf.read_bytes())
    key = certs._rsa()
    leaf = certs._sign(PROXY, key, signer_certificate, signer_key, authority=False, names=[PROXY])
    issuing = x509.load_pem_x509_certificates(signer.chain.read_bytes())
    forged = certs._write(tmp_path, "forged", leaf, issuing, key)
    async with running("tls:127.0.0.1:0", tls=settings(pki)) as stack:
        assert not await answered(stack.endpoints[TLS], client_context(pki, forged))
        assert not stack.arrived


async def test_certificate_for_another_use_is_refused(pki: Pki, tmp_path: Path) -> None:
    authority = Authority("Mail")
    roots = tmp_path / "roots.pem"
    roots.write_bytes(pki.roots.read_bytes() + authority.root.public_bytes(serialization.Encoding.PEM))
    mail = authority.issue(tmp_path, "mail", [PROXY], usages=[ExtendedKeyUsageOID.EMAIL_PROTECTION])
    files = TlsSettings(pki["gateway"].chain, pki["gateway"].key, roots, require_client_certificate=True)
    async with running("tls:127.0.0.1:0", tls=files, admit=of_teams) as stack:
        assert not await answered(stack.endpoints[TLS], client_context(pki, mail))
        assert stack.transports.counters["tls_refused_purpose"] == 1
        assert not stack.arrived


async def test_wrong_name_is_turned_away_by_the_name_check_above(pki: Pki) -> None:
    async with running("tls:127.0.0.1:0", tls=settings(pki), admit=of_teams) as stack:
        wrong = client_context(pki, pki["microsoft-wrong-name"])
        assert not await answered(stack.endpoints[TLS], wrong)
        assert stack.asked[0].peer_names == {"proxy.example.test"}
        assert stack.transports.counters["strangers"] == 1
        assert not stack.arrived


async def test_no_certificate_is_refused_where_one_is_required(pki: Pki) -> None:
    async with running("tls:127.0.0.1:0", tls=settings(pki)) as stack:
        assert not await answered(stack.endpoints[TLS], client_context(pki))
        await until(lambda: stack.transports.counters["tls_refused_no_certificate"] == 1)


async def test_refusals_without_end_are_counted_one_by_one_and_logged_once(
    pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    """A peer of ours whose certificate expired tries again and again; each cause has its line."""
    async with running("tls:127.0.0.1:0", tls=settings(pki)) as stack:
        for name in ("microsoft-expired", "microsoft-rogue") * 3:
            assert not await answered(stack.endpoints[TLS], client_context(pki, pki[name]))
        counters = stack.transports.counters
        await until(lambda: (counters["tls_refused_expired"], counters["tls_refused_rogue_ca"]) == (3, 3))
    lines = [line for line in caplog.messages if "event=tls-refused" in line]
    assert ["expired" in lines[0], "rogue_ca" in lines[1], len(lines)] == [True, True, 2]


async def test_no_certificate_is_let_in_nameless_where_none_is_required(pki: Pki) -> None:
    async with running("tls:127.0.0.1:0", tls=settings(pki, required=False)) as stack:
        assert await answered(stack.endpoints[TLS], client_context(pki))
        assert stack.asked[0].peer_names == frozenset()


async def test_tls_1_1_is_refused_and_counted(pki: Pki) -> None:
    async with running("tls:127.0.0.1:0", tls=settings(pki)) as stack:
        context = client_context(pki, pki["microsoft"])
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        assert not await answered(stack.endpoints[TLS], context)
        await until(lambda: stack.transports.counters["tls_refused_version"] == 1)


async def test_plain_text_and_silence_on_the_tls_port_are_refused(pki: Pki) -> None:
    limits = TransportLimits(connect_timeout=0.3)
    async with running("tls:127.0.0.1:0", tls=settings(pki), limits=limits) as stack:
        endpoint = stack.endpoints[TLS]
        for data in (request_bytes(), b""):
            reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
            writer.write(data)
            with contextlib.suppress(ConnectionResetError):
                await asyncio.wait_for(reader.read(), PATIENCE)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await until(lambda: sum(stack.transports.counters.values()) == 2)
        assert stack.transports.counters["tls_refused_timeout"] == 1


async def test_full_chain_is_presented(pki: Pki) -> None:
    """T7: the peer knows the root only; without the intermediate it could not verify us."""
    async with running("tls:127.0.0.1:0", tls=settings(pki, required=False)) as stack:
        assert await answered(stack.endpoints[TLS], client_context(pki))
    lone = Identity(pki["gateway"].leaf, pki["gateway"].leaf, pki["gateway"].key)
    async with running("tls:127.0.0.1:0", tls=settings(pki, lone, required=False)) as stack:
        assert not await answered(stack.endpoints[TLS], client_context(pki))


# -- we dial them


@contextlib.asynccontextmanager
async def proxy(
    pki: Pki, name: str, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> AsyncIterator[tuple[int, list[tuple[str | None, bytes | None]]]]:
    """A TLS server that demands a client certificate; yields its port and [(SNI, client certificate)]."""
    seen: list[tuple[str | None, bytes | None]] = []
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki[name].chain, pki[name].key)
    context.load_verify_locations(pki.roots)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = newest

    def note(_: object, server_name: str | None, __: object) -> None:
        asked.append(server_name)

    context.sni_callback = note

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((asked[-1], writer.get_extra_info("ssl_object").getpeercert(binary_form=True)))
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)


async def test_we_send_sni_and_our_certificate_and_check_theirs(pki: Pki) -> None:
    async with proxy(pki, "microsoft") as (port, seen), running(tls=settings(pki)) as stack:
        flow = await stack.transports.flow(Target(TLS, "127.0.0.1", port, PROXY))
        await until(lambda: seen)
        own = ssl.PEM_cert_to_DER_cert(pki["gateway"].leaf.read_text())
        assert seen == [(PROXY, own)]
        assert PROXY in flow.peer_names
        assert flow.outbound
        flow.close()
        await until(lambda: stack.transports.connections == 0)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("microsoft-rogue", "rogue_ca"),
        ("microsoft-expired", "expired"),
        ("microsoft-wrong-name", "wrong_name"),
        ("microsoft-self-signed", "self_signed"),
        ("microsoft-client-only", "purpose"),
    ],
)
async def test_server_that_does_not_verify_is_refused_and_counted(pki: Pki, name: str, why: str) -> None:
    async with proxy(pki, name) as (port, seen), running(tls=settings(pki)) as stack:
        with pytest.raises(TransportError):
            await stack.transports.flow(Target(TLS, "127.0.0.1", port, PROXY))
        assert stack.transports.counters[f"tls_out_{why}"] == 1
        assert not seen


async def test_target_without_a_name_must_have_its_address_in_the_certificate(pki: Pki) -> None:
    async with proxy(pki, "microsoft") as (port, _), running(tls=settings(pki)) as stack:
        with pytest.raises(TransportError):
            await stack.transports.flow(Target(TLS, "127.0.0.1", port))
        assert stack.transports.counters["tls_out_wrong_name"] == 1
    async with proxy(pki, "contact-center") as (port, _), running(tls=settings(pki)) as stack:
        flow = await stack.transports.flow(Target(TLS, "127.0.0.1", port))
        flow.close()


async def test_trap_t7_refusal_of_our_certificate_fails_the_request(
    pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    """In TLS 1.3 it comes after the handshake, when the request is out already."""
    async with proxy(pki, "microsoft") as (port, seen):
        rogue = pki["microsoft-rogue"]
        async with running(tls=TlsSettings(rogue.chain, rogue.key, pki.roots)) as stack:
            request = make_request(
                "OPTIONS", f"sip:{PROXY}", from_="<sip:a@b>;tag=1", to="<sip:c@d>", call_id="x", cseq=1
            )
            with pytest.raises(TransportError):
                await stack.exchange(request, Target(TLS, "127.0.0.1", port, PROXY))
        assert not seen
    assert any("connection-lost" in line or "connect-failed" in line for line in caplog.messages)


async def test_two_names_at_one_address_are_two_connections(pki: Pki) -> None:
    """A connection is reused only for the name that was verified on it."""
    async with proxy(pki, "microsoft") as (port, seen), running(tls=settings(pki)) as stack:
        first = await stack.transports.flow(Target(TLS, "127.0.0.1", port, PROXY))
        second = await stack.transports.flow(Target(TLS, "127.0.0.1", port, "sip2.pstnhub.microsoft.com"))
        assert first is not second
        assert await stack.transports.flow(Target(TLS, "127.0.0.1", port, PROXY)) is first
        first.close()
        second.close()
        await until(lambda: len(seen) == 2)


async def test_stack_to_stack_by_mutual_tls(pki: Pki) -> None:
    async with (
        running("tls:127.0.0.1:0", tls=settings(pki, "microsoft-server-only")) as teams,
        running("tls:127.0.0.1:0", tls=settings(pki)) as gateway,
    ):
        request = make_request(
            "OPTIONS", f"sip:{GATEWAY}", from_="<sip:a@b>;tag=1", to="<sip:c@d>", call_id="x", cseq=1
        )
        assert (await teams.exchange(request, gateway.target(TLS, GATEWAY))).code == 200
        assert PROXY in gateway.asked[0].peer_names


# -- reload


@contextlib.asynccontextmanager
async def renewable(
    pki: Pki, tmp_path: Path, limits: TransportLimits
) -> AsyncIterator[tuple[Stack, Callable[[str], None], Path]]:
    """A stack whose files can be replaced; `install(name)` does it the way a renewal does."""
    certificate, key, roots = (tmp_path / name for name in ("cert.pem", "key.pem", "roots.pem"))

    def install(name: str) -> None:
        for source, goal in ((pki[name].chain, certificate), (pki[name].key, key)):
            shutil.copy(source, goal.with_suffix(".new"))
            goal.with_suffix(".new").replace(goal)

    install("gateway")
    shutil.copy(pki.roots, roots)
    files = TlsSettings(certificate, key, roots)
    async with running("tls:127.0.0.1:0", tls=files, limits=limits) as stack:
        yield stack, install, roots


async def served(endpoint: Endpoint, roots: Path) -> bytes | None:
    """The certificate the gateway shows a new caller."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(roots)
    context.check_hostname = False
    _, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context)
    certificate: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return certificate


def leaf(pki: Pki, name: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pki[name].leaf.read_text())


async def test_trap_t9_renewed_certificate_is_used_at_once_and_old_connections_are_recycled(
    pki: Pki, tmp_path: Path
) -> None:
    limits = TransportLimits(reload_interval=0.05, drain_quiet=0.05)
    async with renewable(pki, tmp_path, limits) as (stack, install, roots):
        endpoint = stack.endpoints[TLS]
        assert await served(endpoint, roots) == leaf(pki, "gateway")
        async with proxy(pki, "microsoft") as (port, seen):
            target = Target(TLS, "127.0.0.1", port, PROXY)
            old = await stack.transports.flow(target)
            async with dial(endpoint, client_context(pki)) as (reader, writer):
                writer.write(request_bytes(via=VIA.format("a")))
                await read_message(reader)
                install("contact-center")
                await until(lambda: stack.transports.counters["tls_reloads"] >= 1)
                await until(lambda: old.closed)
                assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
            assert await served(endpoint, roots) == leaf(pki, "contact-center")
            new = await stack.transports.flow(target)
            assert new is not old
            await until(lambda: len(seen) == 2)
            assert [certificate for _, certificate in seen] == [
                leaf(pki, "gateway"),
                leaf(pki, "contact-center"),
            ]
            new.close()


async def test_half_written_renewal_keeps_the_old_certificate(pki: Pki, tmp_path: Path) -> None:
    async with renewable(pki, tmp_path, TransportLimits(reload_interval=3600)) as (stack, install, roots):
        endpoint = stack.endpoints[TLS]
        (tmp_path / "cert.pem").write_bytes(pki["contact-center"].chain.read_bytes())
        assert not stack.transports.reload_certificates()
        assert await served(endpoint, roots) == leaf(pki, "gateway")
        (tmp_path / "key.pem").unlink()
        assert not stack.transports.reload_certificates()
        install("contact-center")
        assert stack.transports.reload_certificates()
        assert not stack.transports.reload_certificates()
        assert await served(endpoint, roots) == leaf(pki, "contact-center")


async def test_changed_roots_count_too(pki: Pki, tmp_path: Path) -> None:
    """An authority that is taken out of the bundle is trusted no longer: contexts are made anew, not
    added to.
    """
    async with renewable(pki, tmp_path, TransportLimits(reload_interval=3600)) as (stack, _, roots):
        endpoint = stack.endpoints[TLS]
        assert await answered(endpoint, client_context(pki, pki["microsoft"]))
        shutil.copy(pki.rogue_roots, roots)
        assert stack.transports.reload_certificates()
        assert not await answered(endpoint, client_context(pki, pki["microsoft"]))
        await until(lambda: stack.transports.counters["tls_refused_rogue_ca"] == 1)


# -- settings


def test_unusable_files_are_a_transport_error(pki: Pki, tmp_path: Path) -> None:
    gateway, other = pki["gateway"], pki["contact-center"]
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"")
    for wrong in (
        TlsSettings(gateway.chain, other.key, pki.roots),
        TlsSettings(tmp_path / "missing.pem", gateway.key, pki.roots),
        TlsSettings(gateway.chain, gateway.key, empty),
        TlsSettings(gateway.chain, gateway.key, None, require_client_certificate=True),
    ):
        with pytest.raises(TransportError, match="TLS files cannot be used"):
            TlsContexts(wrong)


def test_own_expiry_is_known_and_an_ecdsa_key_warned_of(pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    contexts = TlsContexts(settings(pki, "gateway"))
    assert contexts.expires is not None
    assert contexts.expires - datetime.now(UTC) > timedelta(days=300)
    assert not caplog.records
    TlsContexts(settings(pki, "gateway-ecdsa"))
    assert "T7" in caplog.text


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ("sip.pstnhub.microsoft.com", True),
        ("SIP.pstnhub.Microsoft.com.", True),
        ("sip9.pstnhub.microsoft.com", True),
        ("a.b.pstnhub.microsoft.com", False),
        ("pstnhub.microsoft.com", False),
        ("sip.pstnhub.microsoft.com.evil.test", False),
        ("", False),
    ],
)
def test_wildcard_covers_one_label(wanted: str, matches: bool) -> None:
    names = frozenset({"sip.pstnhub.microsoft.com", "*.pstnhub.microsoft.com", "*.com"})
    assert name_matches(wanted, names) is matches
