"""Requests to Microsoft Graph: paced, repeated where that is safe, their errors typed (facts/graph.md 5, 6).

Logged are method, path, status and request ids; never a query, a body, a token, or Graph's message text.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import re
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

from gateway.clock import Clock, pause
from gateway.teams.buckets import Closed, Pace, category
from gateway.teams.clouds import Cloud
from gateway.teams.errors import (
    GraphError,
    GraphUnavailable,
    NoAccount,
    NotThere,
    PermissionMissing,
    SignInNeeded,
    Throttled,
    Untrusted,
)

log = logging.getLogger("tandem.teams")

Json = dict[str, Any]
MAX_ANSWER = 16 << 20
BATCH = 20
_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=10)
_BUSY = frozenset({429, 503, 504, 509})
_FAILED_DEPENDENCY = 424
_REPEATABLE = frozenset({"GET", "PATCH", "DELETE"})
_FIRST_BACKOFF, _LONGEST_BACKOFF = 1.0, 30.0
_MOST_PAGES = 1000


class Tokens(Protocol):
    """Where access tokens come from; `Entra` is one."""

    async def app_token(self, *, renew: bool = False) -> str: ...

    async def user_token(self, login: str, *, renew: bool = False, claims: str | None = None) -> str: ...


@dataclass(frozen=True)
class Reply:
    status: int
    body: Json
    headers: Mapping[str, str]
    request_id: str


@dataclass(frozen=True)
class Inner:
    """One request of a batch; `after` is the index, below its own, of the one it waits for."""

    method: str
    path: str
    body: Json | None = None
    after: int | None = None


@dataclass
class Counters:
    """For the metrics: requests by category and status class, and what was slowed down."""

    requests: dict[tuple[str, str], int] = field(default_factory=dict)
    throttled: int = 0

    def count(self, kind: str, status: int) -> None:
        key = (kind, f"{status // 100}xx" if status else "none")
        self.requests[key] = self.requests.get(key, 0) + 1


def segment(text: str) -> str:
    """An id as one segment of a path."""
    return quote(text, safe="")


class GraphClient:
    """One integration account's way to Graph.

    `who` is a login whose token is used, None for the application's own.
    patience: seconds that one request may spend waiting for a busy Graph
    """

    def __init__(
        self,
        cloud: Cloud,
        tokens: Tokens,
        clock: Clock,
        *,
        patience: float = 60.0,
        randomness: random.Random | None = None,
    ) -> None:
        self.cloud, self.pace, self.counters = cloud, Pace(clock), Counters()
        self._tokens, self._clock, self._patience = tokens, clock, patience
        self._random = randomness or random.Random()
        self._http: aiohttp.ClientSession | None = None
        self._closed = False

    async def close(self) -> None:
        """What is still under way, or comes later, fails with NoAccount."""
        self._closed = True
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def get(
        self, path: str, *, who: str | None, query: Mapping[str, str] | None = None, eventual: bool = False
    ) -> Json:
        headers = {"ConsistencyLevel": "eventual"} if eventual else {}
        return (await self.request("GET", path, who=who, query=query, headers=headers)).body

    async def post(self, path: str, body: Json, *, who: str | None, repeatable: bool = False) -> Json:
        return (await self.request("POST", path, who=who, body=body, repeatable=repeatable)).body

    async def pages(
        self,
        path: str,
        *,
        who: str | None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        most: int | None = None,
    ) -> AsyncIterator[Json]:
        """The items of a list, page after page; `most` stops early. Untrusted when a link leads elsewhere."""
        reply = await self.request("GET", path, who=who, query=query, headers=headers)
        given = 0
        for _ in range(_MOST_PAGES):
            for item in reply.body.get("value", []):
                yield item
                given += 1
                if given == most:
                    return
            link = reply.body.get("@odata.nextLink")
            if not link:
                return
            reply = await self._send("GET", self._trusted(str(link)), who, None, headers or {}, True)

    def _trusted(self, link: str) -> str:
        """Our token goes with it, so it must lead to the configured root (facts/graph.md 1.6)."""
        wanted, found = urlsplit(self.cloud.root), urlsplit(link)
        same = (found.scheme, found.netloc.lower()) == (wanted.scheme, wanted.netloc.lower())
        if not same or not found.path.startswith(wanted.path + "/"):
            log.error("event=graph_next_link_refused host=%s", found.hostname)
            raise Untrusted("a next link of Graph's leads to another server")
        return link

    async def request(
        self,
        method: str,
        path: str,
        *,
        who: str | None,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
    ) -> Reply:
        """One request; `path` below the root, percent-encoded by the caller (`segment`).

        repeatable: whether doing it twice does no harm; None goes by the method
        PermissionMissing, NotThere, Throttled, GraphError, GraphUnavailable, SignInNeeded, EntraRefused.
        """
        url = self.cloud.root + path
        if query:
            url += "?" + urlencode(query, quote_via=quote, safe="$")
        safe = method in _REPEATABLE if repeatable is None else repeatable
        return await self._send(method, url, who, body, headers or {}, safe)

    async def batch(self, inner: Sequence[Inner], *, who: str | None) -> list[Reply]:
        """Replies in the requests' order, errors included as they are; more than 20 go in several batches.

        Each inner request is paced as if it came alone. Those that Graph was too busy for are sent again,
        with those that wait for them; one that waits for a failed one fails with 424. Throttled when Graph
        wants to hear nothing of a category for longer than our patience.
        """
        replies: dict[int, Reply] = {}
        for start in range(0, len(inner), BATCH):
            await self._batch(inner, range(start, min(start + BATCH, len(inner))), who, replies)
        return [replies[index] for index in range(len(inner))]

    async def _batch(
        self, inner: Sequence[Inner], some: Sequence[int], who: str | None, replies: dict[int, Reply]
    ) -> None:
        """Into `replies`, which holds those of the batches before."""
        waited, waiting = 0.0, list(some)
        while waiting := _ready(inner, waiting, replies):
            for index in waiting:
                path, query = _split(inner[index].path)
                await self._take(inner[index].method, path, query, self._clock.now() + self._patience)
            reply = await self.request(
                "POST", "/$batch", who=who, body={"requests": _written(inner, waiting)}, repeatable=False
            )
            for one in reply.body.get("responses", []):
                index = int(one["id"])
                headers = {name.lower(): str(value) for name, value in (one.get("headers") or {}).items()}
                body = one.get("body")
                replies[index] = Reply(
                    int(one["status"]), body if isinstance(body, dict) else {}, headers, reply.request_id
                )
                self.counters.count(category(inner[index].method, inner[index].path), int(one["status"]))
            for index in waiting:
                replies.setdefault(index, Reply(0, {}, {}, reply.request_id))
            busy = [index for index in waiting if _too_busy(inner[index].method, replies[index])]
            delays = {index: self._delay(replies[index].headers, 0) for index in busy}
            for index, seconds in delays.items():
                self.pace.close_for(inner[index].method, _split(inner[index].path)[0], seconds)
            delay = max(delays.values(), default=0.0)
            if not busy or waited + delay > self._patience:
                return
            self.counters.throttled += 1
            waited += delay
            await pause(self._clock, delay)
            for index in waiting:
                if replies[index].status == _FAILED_DEPENDENCY and inner[index].after in busy:
                    busy.append(index)
            waiting = sorted(busy)
            for index in waiting:
                del replies[index]

    async def _send(
        self,
        method: str,
        url: str,
        who: str | None,
        body: Json | None,
        headers: Mapping[str, str],
        safe: bool,
    ) -> Reply:
        path, query = _split(url.removeprefix(self.cloud.root))
        kind = category(method, path)
        began, attempt, renewed = self._clock.now(), 0, False
        token = await self._token(who)
        while True:
            if path != "/$batch":
                await self._take(method, path, query, began + self._patience)
            try:
                reply = await self._once(method, url, path, token, body, headers)
            except GraphUnavailable as error:
                self.counters.count(kind, 0)
                delay = self._delay({}, attempt)
                may = safe or not error.sent
                if not may or self._clock.now() + delay - began > self._patience:
                    raise
            else:
                self.counters.count(kind, reply.status)
                if reply.status < 300:
                    return reply
                if reply.status == 401 and not renewed:
                    renewed = True
                    token = await self._token(who, renew=True, claims=_claims(reply.headers))
                    continue
                told = "retry-after" in reply.headers
                may = safe or (reply.status in (429, 503) and told)
                delay = self._delay(reply.headers, attempt)
                late = self._clock.now() + delay - began > self._patience
                if reply.status in _BUSY and (told or may):
                    # Also when it is too long for this request: whoever comes next must not ask before.
                    self.counters.throttled += 1
                    self.pace.close_for(method, path, delay)
                if reply.status not in _BUSY or not may or late:
                    raise _error(reply, who, f"{method} {path}")
            attempt += 1
            await pause(self._clock, delay)

    async def _take(self, method: str, path: str, query: str, until: float) -> None:
        try:
            await self.pace.take(method, path, query, until)
        except Closed as error:
            what = f"{method} {path}, not sent for {error.seconds:.0f} s more"
            raise Throttled(429, "TooManyRequests", "-", what) from None

    async def _once(
        self, method: str, url: str, path: str, token: str, body: Json | None, headers: Mapping[str, str]
    ) -> Reply:
        mine = str(uuid.uuid4())
        sent = {
            **headers,
            "Authorization": f"Bearer {token}",
            "client-request-id": mine,
            "Accept": "application/json",
        }
        if body is not None:
            sent["Content-Type"] = "application/json"
        try:
            async with self._session().request(
                method,
                URL(url, encoded=True),
                data=None if body is None else json.dumps(body).encode(),
                headers=sent,
                allow_redirects=False,
            ) as answer:
                data = await _read(answer)
        except aiohttp.ClientConnectorError as error:
            log.warning("event=graph_unreachable method=%s path=%s client_request_id=%s", method, path, mine)
            raise GraphUnavailable(f"Graph cannot be reached: {type(error).__name__}", sent=False) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("event=graph_no_answer method=%s path=%s client_request_id=%s", method, path, mine)
            raise GraphUnavailable(f"Graph did not answer: {type(error).__name__}") from None
        reply_id = answer.headers.get("request-id", "")[:64]
        level = logging.DEBUG if answer.status < 400 else logging.INFO
        log.log(
            level,
            "event=graph_request method=%s path=%s status=%d request_id=%s client_request_id=%s",
            method,
            path,
            answer.status,
            reply_id,
            mine,
        )
        found = _parse(data)
        if found is None:
            if answer.status < 300:
                raise GraphUnavailable("Graph's answer is not JSON")
            found = {}
        lower = {name.lower(): value for name, value in answer.headers.items()}
        return Reply(answer.status, found, lower, reply_id or mine)

    async def _token(self, who: str | None, *, renew: bool = False, claims: str | None = None) -> str:
        if who is None:
            return await self._tokens.app_token(renew=renew)
        return await self._tokens.user_token(who, renew=renew, claims=claims)

    def _delay(self, headers: Mapping[str, str], attempt: int) -> float:
        """Retry-After in seconds, also with a fraction or as a date; else doubling, with jitter."""
        told = headers.get("retry-after", "").strip()
        try:
            return max(0.0, float(told))
        except ValueError:
            pass
        try:
            return max(0.0, (parsedate_to_datetime(told) - self._clock.wall()).total_seconds())
        except (ValueError, TypeError):
            pass
        backoff = min(_FIRST_BACKOFF * 2.0 ** min(attempt, 10), _LONGEST_BACKOFF)
        return backoff * self._random.uniform(0.5, 1.0)

    def _session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise NoAccount("the integration account was just changed or removed")
        if self._http is None:
            context = ssl.create_default_context()
            if self.cloud.roots is not None:
                context = ssl.create_default_context(cafile=str(self.cloud.roots))
            connector = aiohttp.TCPConnector(ssl=context, limit=64)
            self._http = aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT)
        return self._http


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in answer.content.iter_chunked(65536):
        data += chunk
        if len(data) > MAX_ANSWER:
            raise aiohttp.ClientPayloadError("larger than we take")
    return bytes(data)


def _parse(data: bytes) -> Json | None:
    if not data.strip():
        return {}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _split(path: str) -> tuple[str, str]:
    found, _, query = path.partition("?")
    return found, query


def _too_busy(method: str, reply: Reply) -> bool:
    """Whether the same may be asked once more."""
    told = reply.status in (429, 503) and "retry-after" in reply.headers
    return reply.status == 429 or told or (reply.status in _BUSY and method in _REPEATABLE)


def _ready(inner: Sequence[Inner], wanted: Sequence[int], replies: dict[int, Reply]) -> list[int]:
    """Those of `wanted` for which nothing has failed; the others are answered here."""
    found = []
    for index in wanted:
        after = inner[index].after
        before = replies.get(after) if after is not None else None
        if before is not None and not 200 <= before.status < 300:
            replies[index] = Reply(_FAILED_DEPENDENCY, {}, {}, before.request_id)
        else:
            found.append(index)
    return found


def _written(inner: Sequence[Inner], wanted: Sequence[int]) -> list[Json]:
    found: list[Json] = []
    for index in wanted:
        one = inner[index]
        request: Json = {"id": str(index), "method": one.method, "url": one.path}
        if one.body is not None:
            request |= {"body": one.body, "headers": {"Content-Type": "application/json"}}
        if one.after in wanted:
            request["dependsOn"] = [str(one.after)]
        found.append(request)
    return found


def _claims(headers: Mapping[str, str]) -> str | None:
    """The claims challenge of continuous access evaluation (facts/graph.md 1.4)."""
    match = re.search(r'claims="([^"]+)"', headers.get("www-authenticate", ""))
    if match is None:
        return None
    try:
        return base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4)).decode()
    except ValueError:
        return None


def _error(reply: Reply, who: str | None, what: str) -> Exception:
    detail = reply.body.get("error")
    code = str(detail.get("code", ""))[:64] if isinstance(detail, dict) else ""
    values = (reply.status, code, reply.request_id, what)
    match reply.status:
        case 401 if who is not None:
            return SignInNeeded(f"Graph does not take {who}'s token: he has to sign in to Teams again")
        case 403:
            return PermissionMissing(*values)
        case 404 | 410:
            return NotThere(*values)
        case 429:
            return Throttled(*values)
        case status if status >= 500:
            return GraphUnavailable(f"{what}: Graph answered {status} {code}, request {reply.request_id}")
    return GraphError(*values)
