"""The API's document against the whole gateway's HTTP side: what it says is so, and all of it is said."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.api.control_routes import CALLS
from gateway.api.operation import Operation
from gateway.assembly import assemble
from gateway.calls.context import Sounds
from gateway.config import load
from gateway.state_dir import StateDir
from tests.api.site import READER, TOKEN, Reply, Site

OPEN = {"/healthz", "/readyz", "/metrics", "/openapi.json"}
"""Without a token, as the document says."""
CONFIG = """
[gateway]
state_dir = "state"
[http]
listen = "127.0.0.1:0"
tokens = [
    { name = "crm", secret = "env:TANDEM_TEST_CRM" },
    { name = "board", secret = "env:TANDEM_TEST_BOARD", access = "read" },
]
[[trunk]]
name = "center"
peers = ["udp:127.0.0.1:5070"]
party = "agent"
"""
BODIES: dict[str, dict[str, Any]] = {
    "placeCall": {"agent": "anna", "number": "1"},
    "changeCall": {"music": "never"},
    "addLeg": {"number": "1"},
    "changeLeg": {"muted": True},
    "sendDigits": {"digits": "1"},
    "consult": {"number": "1"},
    "transfer": {"number": "1"},
    "supervise": {"number": "1"},
}


@dataclass
class Documented(Site):
    document: dict[str, Any]

    def operations(self, under: str = "/") -> Iterator[tuple[str, str, dict[str, Any]]]:
        for path, methods in self.document["paths"].items():
            for method, operation in methods.items():
                if path.startswith(under):
                    yield method.upper(), path, operation

    def check_problem(self, operation: dict[str, Any], reply: Reply) -> None:
        """The answer is documented for this operation, and is what the document says."""
        content = operation["responses"][str(reply.status)]["content"]
        assert reply.headers["Content-Type"].split(";")[0] in content
        schema = content["application/problem+json"]["schema"] | {"components": self.document["components"]}
        jsonschema.validate(reply.body, schema)
        assert reply.body["status"] == reply.status


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Documented]:
    """The HTTP part of an assembled gateway; nothing else of it runs."""
    monkeypatch.setenv("TANDEM_TEST_CRM", TOKEN["Authorization"].split()[1])
    monkeypatch.setenv("TANDEM_TEST_BOARD", READER["Authorization"].split()[1])
    path = tmp_path / "tandem.toml"
    path.write_text(CONFIG)
    config = load(path)
    sounds = Sounds(tmp_path / "music.wav", tmp_path / "ringback.wav")
    gateway = assemble(config, sounds, StateDir(config.gateway.state_dir))
    await gateway.http.start()
    try:
        async with aiohttp.ClientSession() as session:
            plain = Site(gateway.http, session)
            async with session.get(plain.url("/openapi.json")) as response:
                document = await response.json()
            yield Documented(gateway.http, session, document)
    finally:
        await gateway.http.stop()


def filled(path: str) -> str:
    return re.sub(r"{\w+}", "0" * 32, path)


async def test_the_document_is_valid_openapi_and_complete(site: Documented) -> None:
    OpenAPIV31SpecValidator(site.document).validate()
    names = [operation["operationId"] for _, _, operation in site.operations()]
    assert len(names) == len(set(names))
    assert {"placeCall", "events", "callDetail", "listTrunks", "mergeConsultation"} <= set(names)
    assert all(isinstance(route, Operation) for route in site.api.routes), "a route nobody documents"
    routed = {(one.method, one.path) for one in site.api.routes if isinstance(one, Operation)}
    assert routed == {(method, path) for method, path, _ in site.operations()}


async def test_every_reference_in_the_document_leads_somewhere(site: Documented) -> None:
    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            for key, value in part.items():
                if key == "$ref":
                    yield value
                else:
                    yield from references(value)
        elif isinstance(part, list):
            for value in part:
                yield from references(value)

    found = set(references(site.document))
    known = {f"#/components/schemas/{name}" for name in site.document["components"]["schemas"]}
    assert {"#/components/schemas/CallView", "#/components/schemas/ProblemDocument"} <= found <= known


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic dDA="}])
async def test_every_route_refuses_a_missing_or_wrong_token(
    site: Documented, headers: dict[str, str]
) -> None:
    for method, path, operation in site.operations():
        async with site.session.request(method, site.url(filled(path)), headers=headers) as response:
            if operation.get("security") == []:
                assert path in OPEN or operation["tags"] in (["sign-in"], ["desktop"]), (
                    "open, and nobody decided so"
                )
                assert response.status != 401 or path not in OPEN
                continue
            assert response.status == 401, (method, path)
            body = await response.json(content_type="application/problem+json")
            site.check_problem(operation, Reply(response.status, body, dict(response.headers)))
            assert response.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_reading_token_reads_and_commands_nothing(site: Documented) -> None:
    for method, path, operation in site.operations(CALLS):
        reply = await site.ask(method, filled(path), headers=READER)
        if method == "GET":
            assert reply.status not in (401, 403), path
        else:
            assert (reply.status, reply.body["reason"]) == (403, "read_only_token"), path
            assert 'access = "all"' in reply.body["detail"]
            site.check_problem(operation, reply)


async def test_every_command_about_an_unknown_call_is_404_as_documented(site: Documented) -> None:
    for method, path, operation in site.operations(CALLS):
        if "{" not in path:
            continue
        name = operation["operationId"]
        assert ("requestBody" in operation) == (name in BODIES), name
        more = {"json": BODIES[name]} if name in BODIES else {}
        reply = await site.ask(method, filled(path), **more)
        assert (reply.status, reply.body["reason"]) == (404, "unknown_call"), name
        assert reply.body["type"] == "urn:tandem:problem:unknown_call"
        assert reply.body["title"] == "Unknown call"
        assert reply.body["instance"] == filled(path)
        assert "0" * 32 in reply.body["detail"]
        site.check_problem(operation, reply)


@pytest.mark.parametrize(
    ("data", "kind", "status", "text"),
    [
        (b"{", "application/json", 400, "no JSON"),
        (b"", "application/json", 400, "no JSON"),
        (b"\xff", "application/json", 400, "no JSON"),
        (b"[" * 20_000, "application/json", 400, "no JSON"),
        (b"{}", "text/plain", 415, "application/json"),
        (b"{}", "", 415, "application/json"),
        (b"[]", "application/json", 422, "body"),
        (b'{"surprise": 1}', "application/json", 422, "body.surprise"),
        (b'{"number": 5, "digits": 5, "music": 5, "muted": "yes"}', "application/json", 422, "body."),
        (b" " * 300_000, "application/json", 413, ""),
    ],
)
async def test_every_body_is_checked(
    site: Documented, data: bytes, kind: str, status: int, text: str
) -> None:
    for method, path, operation in site.operations(CALLS):
        if "requestBody" not in operation:
            continue
        reply = await site.ask(method, filled(path), data=data, headers={"Content-Type": kind})
        assert reply.status == status, (path, reply.body)
        assert text in reply.body.get("detail", "")
        site.check_problem(operation, reply)
        if status == 422:
            assert all(one["at"].startswith("body") for one in reply.body["errors"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"muted": True, "holding": True},
        {"on_hold": True},
        {"by": "x"},
        {"muted": True, "by": "x"},
        {"supervision": "shout"},
        {"muted": None},
    ],
)
async def test_a_leg_is_changed_in_one_way_at_a_time(site: Documented, body: dict[str, Any]) -> None:
    reply = await site.ask("PATCH", f"/api/v1/calls/{'0' * 32}/legs/x", json=body)
    assert reply.status == 422, "judged before anybody looks for the call"


async def test_a_wrong_method_is_405_and_says_which_are_right(site: Documented) -> None:
    reply = await site.ask("PUT", "/api/v1/calls")
    assert (reply.status, set(reply.headers["Allow"].split(","))) == (405, {"GET", "HEAD", "POST"})
    assert reply.body["title"] == "Method Not Allowed"
    assert (await site.get("/api/v1/callz")).status == 404


async def test_what_the_gateway_shows_fits_its_schemas(site: Documented) -> None:
    for path in ("/api/v1/calls", "/api/v1/trunks", "/healthz"):
        reply = await site.get(path)
        content = site.document["paths"][path]["get"]["responses"]["200"]["content"]
        schema = content["application/json"]["schema"] | {"components": site.document["components"]}
        jsonschema.validate(reply.body, schema)
    assert (await site.get("/api/v1/trunks")).body["trunks"][0]["name"] == "center"
