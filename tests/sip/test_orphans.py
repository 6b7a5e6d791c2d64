"""INVITEs that a dead gateway left unanswered, told off over real connections by the next one."""

from __future__ import annotations

import dataclasses
import json

import pytest

from gateway.sip import orphans
from gateway.sip.message import Request, Response, make_request
from gateway.sip.tls import TlsSettings
from gateway.sip.transport import TransportKind
from tests.peers.certs import MICROSOFT_NAMES, Pki, make_pki
from tests.sip.wire_support import running, until
from tests.unit.session_stage import OFFER, PROFILE, Stage, StageFlow

TLS = TransportKind.TLS
FQDN = "sbc.example.test"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.mark.parametrize("via_host", [FQDN, None])
async def test_who_called_by_tls_is_told_at_the_address_in_its_via(pki: Pki, via_host: str | None) -> None:
    """The certificate has names and the Via an address (facts 3.2); the BYE's own Via was `:5061` once."""
    files = {
        name: TlsSettings(pki[name].chain, pki[name].key, pki.roots) for name in ("microsoft", "gateway")
    }
    async with (
        running("tls:127.0.0.1:0", tls=files["microsoft"]) as teams,
        running("tls:127.0.0.1:0", tls=files["gateway"]) as gateway,
    ):
        record = ringing(teams.endpoints[TLS].port, via_host)
        told = orphans.tell(gateway.transports, gateway.layer, record, 503, "Q.850;cause=41")
        assert told is not None
        await told
        await until(lambda: len(teams.arrived) == 2)
        answer, bye = sorted((message for message, _ in teams.arrived), key=lambda m: isinstance(m, Request))
        assert isinstance(answer, Response)
        assert isinstance(bye, Request)
        assert (answer.code, bye.method) == (503, "BYE")
        assert answer.to_tag == bye.from_tag
        port = gateway.endpoints[TLS].port
        assert (bye.top_via.host, bye.top_via.port) == (via_host or "127.0.0.1", port)
        assert gateway.transports.counters["tls_out_wrong_name"] == 0


def ringing(port: int, via_host: str | None) -> dict[str, object]:
    """What is written down of an INVITE that Teams sent by TLS, with its address in the Via."""
    stage = Stage(dataclasses.replace(PROFILE, contact_host=FQDN, via_host=via_host))
    stage.flow = StageFlow(TLS, ("127.0.0.1", 40000))
    stage.flow.peer_names = frozenset(MICROSOFT_NAMES)
    invite = make_request(
        "INVITE",
        f"sip:+4940@{FQDN}:5061;transport=tls",
        from_="<sip:+4930@sip.pstnhub.microsoft.com>;tag=peer",
        to=f"<sip:+4940@{FQDN}>",
        call_id="orphan",
        cseq=1,
        contact="<sip:api-du-a.pstnhub.microsoft.com:443>",
        body=OFFER,
        content_type="application/sdp",
    )
    invite.headers.setlist("Via", [f"SIP/2.0/TLS 127.0.0.1:{port};branch=z9hG4bKorphan"])
    stage.receive(invite)
    record = orphans.record(stage.incoming[0])
    assert record is not None
    found: dict[str, object] = json.loads(json.dumps(record))
    return found
