"""`GET /openapi.json`: made from the operations that the server routes by, and from nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from importlib import metadata
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, TypeAdapter

from gateway.api.idempotency import HEADER, LIFETIME
from gateway.api.operation import Answer, Asked, Operation, adapter
from gateway.api.problems import ProblemDocument

_REFERENCE = "#/components/schemas/{model}"
_TOKEN, _SESSION = "token", "session"
_Mode = Literal["validation", "serialization"]

DESCRIPTION = f"""\
Call control, events and call detail of a Tandem gateway.

Every failure is a problem document (RFC 9457). A command that is refused has changed nothing. Ids of calls
and legs are opaque. Times in calls and events are milliseconds since the epoch, in call detail ISO 8601, all
in UTC. A POST with the header `{HEADER}` is done once: for {LIFETIME / 60:.0f} minutes its repetition gets
the first one's answer.
"""


def openapi_operation(routes: Callable[[], Iterable[web.AbstractRouteDef]]) -> Operation:
    """The document of all Operations among `routes`; itself one of them. Made when first asked for."""
    made: list[dict[str, Any]] = []

    async def serve(_: Asked[None, None]) -> web.Response:
        if not made:
            made.append(document([one for one in routes() if isinstance(one, Operation)]))
        return web.json_response(made[0])

    return Operation(
        method="GET",
        path="/openapi.json",
        name="openapi",
        tag="gateway",
        summary="This document",
        token=False,
        handler=serve,
        answers=(Answer(200, "OpenAPI 3.1", {"application/json": {"type": "object"}}),),
    )


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `operations`, in their order."""
    operations = list(operations)
    schemas = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tandem",
            "version": metadata.version("tandem"),
            "description": DESCRIPTION,
            "license": {"name": "GPL-2.0-or-later", "identifier": "GPL-2.0-or-later"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(one.tag for one in operations)],
        "security": [{_TOKEN: []}, {_SESSION: []}],
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "securitySchemes": {
                _TOKEN: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": 'a secret of [http] tokens; with access = "read" commands get 403',
                },
                _SESSION: {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "tandem_session",
                    "description": "of somebody who signed in (over TLS its name begins with __Host-); "
                    "a change needs the header X-CSRF-Token as well, with `csrf` of /api/v1/me",
                },
            },
        },
    }


class _Schemas:
    """JSON schemas of every type that an operation names, shared ones defined once."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        wanted: dict[tuple[Any, _Mode], None] = {(ProblemDocument, "serialization"): None}
        for one in operations:
            if one.body is not None:
                wanted[(one.body, "validation")] = None
            for answer in one.answers:
                for shape in answer.content.values():
                    if shape is not None and not isinstance(shape, dict):
                        wanted[(shape, "serialization")] = None
        inputs = [((shape, mode), mode, adapter(shape)) for shape, mode in wanted]
        found, rest = TypeAdapter.json_schemas(
            [(str(place), mode, known) for place, (_, mode, known) in enumerate(inputs)],
            ref_template=_REFERENCE,
        )
        self.definitions: dict[str, Any] = rest.get("$defs", {})
        self._found: dict[tuple[Any, _Mode], Any] = {}
        for place, (key, mode, _) in enumerate(inputs):
            self._found[key] = self._named(key[0], found[(str(place), mode)])

    def _named(self, shape: Any, schema: Any) -> Any:
        """Models get a name of their own where pydantic wrote them out in place."""
        if "$ref" in schema or not (isinstance(shape, type) and issubclass(shape, BaseModel)):
            return schema
        self.definitions.setdefault(shape.__name__, schema)
        return {"$ref": _REFERENCE.format(model=shape.__name__)}

    def of(self, shape: Any, mode: _Mode) -> Any:
        if shape is None:
            return {}
        return shape if isinstance(shape, dict) else self._found[(shape, mode)]


def _operation(one: Operation, schemas: _Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.summary,
        "tags": [one.tag],
        "responses": {
            **{str(answer.status): _answer(answer, schemas) for answer in one.answers},
            **{str(status): _problem(status, schemas) for status in one.problems},
        },
    }
    if one.description:
        found["description"] = one.description
    parameters = [*_in_path(one.path), *(_in_query(one.query) if one.query is not None else ())]
    if one.repeatable:
        parameters.append(
            {
                "name": HEADER,
                "in": "header",
                "description": "the same for every repetition of one request",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            }
        )
    if parameters:
        found["parameters"] = parameters
    if one.body is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas.of(one.body, "validation")}},
        }
    if not one.token:
        found["security"] = []
    return found


def _answer(answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.description}
    if answer.content:
        found["content"] = {
            kind: {"schema": schemas.of(shape, "serialization")} for kind, shape in answer.content.items()
        }
    if answer.headers:
        found["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
        }
    return found


def _problem(status: int, schemas: _Schemas) -> dict[str, Any]:
    return {
        "description": HTTPStatus(status).phrase,
        "content": {"application/problem+json": {"schema": schemas.of(ProblemDocument, "serialization")}},
    }


def _in_path(path: str) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", path):
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": f"id of the {name}",
            "schema": {"type": "string"},
        }


def _in_query(model: type[BaseModel]) -> Iterable[dict[str, Any]]:
    schema = adapter(model).json_schema(mode="validation", ref_template=_REFERENCE)
    for name, field in schema["properties"].items():
        schema_of = {key: value for key, value in field.items() if key not in ("title", "description")}
        found = {"name": name, "in": "query", "schema": schema_of}
        if "description" in field:
            found["description"] = field["description"]
        if name in schema.get("required", ()):
            found["required"] = True
        yield found
