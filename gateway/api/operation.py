"""One route of the API and all that is known of it, for the router, the checks and the OpenAPI document.

An Operation is an aiohttp route definition, so it goes where routes go. Before its handler runs, the body and
the query were validated; a handler sees typed values only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, get_origin

from aiohttp import web
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from gateway.api.problems import Problem

B = TypeVar("B")
Q = TypeVar("Q")

_JSON = "application/json"


class Strict(BaseModel):
    """Base of request bodies: what is not known is refused, nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Parameters(BaseModel):
    """Base of query strings; a field that may be repeated is a tuple."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Asked(Generic[B, Q]):
    """A request whose body and query were found good; None where the operation takes none."""

    request: web.Request
    body: B
    query: Q

    def path(self, name: str) -> str:
        return self.request.match_info[name]


@dataclass(frozen=True, slots=True)
class Answer:
    """A way in which an operation succeeds.

    content: media type -> a type for pydantic, or a JSON schema; None where a schema says nothing
    headers: name -> description
    """

    status: int
    description: str
    content: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(status: int, description: str, shape: Any, **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, description, {_JSON: shape}, named)


Handler = Callable[[Asked[Any, Any]], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, kw_only=True)
class Operation(web.AbstractRouteDef):
    """`method path`.

    name:       the operationId
    answers:    how it succeeds
    errors:     statuses of its problems beyond those that follow from token, body, query and path
    token:      whether a bearer token is asked for (paths under /api/ only and always)
    head:       whether HEAD does what GET does without the body
    repeatable: a POST that honours Idempotency-Key
    """

    method: str
    path: str
    name: str
    tag: str
    summary: str
    handler: Handler
    answers: tuple[Answer, ...]
    description: str = ""
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    errors: frozenset[int] = frozenset()
    token: bool = True
    head: bool = True
    repeatable: bool = False

    @property
    def problems(self) -> list[int]:
        """Every status with a problem document that this operation may answer."""
        found = set(self.errors)
        if self.token:
            found.add(401)
            if self.method != "GET":
                found.add(403)
        if "{" in self.path:
            found.add(404)
        if self.query is not None:
            found.add(422)
        if self.body is not None:
            found |= {400, 413, 415, 422}
        if self.repeatable:
            found |= {409, 422}
        return sorted(found)

    def register(self, router: web.UrlDispatcher) -> list[web.AbstractRoute]:
        if self.method == "GET":
            return [router.add_get(self.path, self.serve, allow_head=self.head)]
        return [router.add_route(self.method, self.path, self.serve)]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        query = _query(self.query, request) if self.query is not None else None
        body = await _body(self.body, request) if self.body is not None else None
        return await self.handler(Asked(request, body, query))


def json_response(
    shape: Any, value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """`value`, which is a `shape`, as JSON."""
    return web.Response(
        status=status, body=adapter(shape).dump_json(value), content_type=_JSON, headers=headers
    )


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def adapter(shape: Any) -> TypeAdapter[Any]:
    """Made once a type: making one takes longer than using it."""
    found = _ADAPTERS.get(shape)
    if found is None:
        found = _ADAPTERS[shape] = TypeAdapter(shape)
    return found


async def _body(model: type[BaseModel], request: web.Request) -> BaseModel:
    if request.content_type != _JSON:
        raise Problem(
            415,
            f"the body is {request.headers.get('Content-Type', 'of no stated type')}: send it as {_JSON}",
            headers={"Accept": _JSON},
        )
    data = await request.read()
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        if found[0]["type"] == "json_invalid":
            raise Problem(400, f"the body is no JSON: {found[0]['msg']}") from None
        raise _unfit("body", found) from None


def _query(model: type[BaseModel], request: web.Request) -> BaseModel:
    values: dict[str, object] = {}
    for name in dict.fromkeys(request.query):
        given = request.query.getall(name)
        field_ = model.model_fields.get(name)
        if field_ is not None and get_origin(field_.annotation) is tuple:
            values[name] = tuple(given)
        elif len(given) > 1:
            raise Problem(422, f"the parameter {name} is given {len(given)} times: give it once")
        else:
            values[name] = given[0]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _unfit(
            "query", error.errors(include_url=False, include_context=False, include_input=False)
        ) from None


def _unfit(where: str, errors: list[Any]) -> Problem:
    """422 with every mistake, and without what was sent."""
    found = [
        {"at": ".".join([where, *(str(part) for part in error["loc"])]), "problem": error["msg"]}
        for error in errors
    ]
    text = "; ".join(f"{one['at']}: {one['problem']}" for one in found)
    return Problem(422, text, reason="invalid", errors=found)
