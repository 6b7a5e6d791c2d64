"""A stand-in for Microsoft Graph v1.0 with its Entra ID, over TLS on 127.0.0.1; see facts/graph.md.

Presence, users, 1:1 chats, teams and channels, subscriptions with encrypted content, `$batch`, paging,
throttling, permissions per route, and methods to act as a Teams user. `python -m tests.peers.graph_cli` runs
it as a process.

Departures, besides those that the other `tests/peers/graph_*` and `entra` name: `$select` is ignored, and
`$expand` but for replies and lastMessagePreview; of `$filter` none is known; searching matches prefixes of
words in displayName, and prefixes of mail and userPrincipalName; only presence (1,500 in 30 s) and posting
into one thread (4 a second) are throttled by themselves, other limits when a test says so; ids in paths are
taken as they are.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from aiohttp import web

from gateway.clock import Clock
from tests.peers.certs import Authority, Identity
from tests.peers.entra import Entra, Grant, Registration
from tests.peers.graph_chats import Conversations, Thread
from tests.peers.graph_permissions import check
from tests.peers.graph_presence import LONGEST, SETTABLE, SHORTEST, PresenceEngine
from tests.peers.graph_subscriptions import Subscriptions
from tests.peers.graph_wire import Call, Json, Refusal, Reply, Seen

TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
SECRET = "sim~client.secret-value"
APP_ROLES = {"Presence.ReadWrite.All", "User.Read.All"}
SCOPES = {
    "User.Read", "User.ReadBasic.All", "User.Read.All", "Team.ReadBasic.All", "Channel.ReadBasic.All",
    "Chat.Create", "Chat.ReadBasic", "Chat.Read", "ChatMessage.Send", "ChannelMessage.Send",
    "ChannelMessage.Read.All", "Presence.Read.All",
}  # fmt: skip
_PRESENCE_LIMIT = (1500, 30.0)
_THREAD_LIMIT = (4, 1.0)
_BULK = 650
_BATCH = 20
_CODES = {429: "TooManyRequests", 503: "serviceNotAvailable"}
_DURATION = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?")
Handler = Callable[[Call], Awaitable[Reply]]


@dataclass
class Trouble:
    """The next `count` requests whose path holds `path` are answered so; count < 0: for ever."""

    path: str
    status: int
    count: int
    retry_after: str | None
    method: str = ""


class GraphSim:
    """Use as `async with`. `authority` and `root` are what a configuration names; `roots` its CA."""

    def __init__(self, clock: Clock, folder: Path, *, identity: tuple[Identity, Path] | None = None) -> None:
        self.clock = clock
        self.registration = Registration(CLIENT, {SECRET}, set(), set(APP_ROLES), set(SCOPES))
        self.entra = Entra(TENANT, self.registration)
        self.presence = PresenceEngine(clock, self._presence_changed)
        self.subscriptions = Subscriptions(clock, self.entra)
        self.conversations = Conversations(clock, self._message_changed)
        self.users: dict[str, Json] = self.entra.users
        self.seen: list[Seen] = []
        self.troubles: list[Trouble] = []
        self.page_size: int | None = None
        self.next_link_root: str | None = None
        """Where next links lead instead of here: somebody else's server."""
        self.number_presence = True
        """Whether presences carry a sequenceNumber."""
        self._windows: dict[str, deque[float]] = {}
        if identity is None:
            folder.mkdir(parents=True, exist_ok=True)
            identity = make_identity(folder)
        self._identity, self.roots = identity
        self._runner: web.AppRunner | None = None
        self.port = 0
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []
        self._add_routes()

    # -- life --

    async def __aenter__(self) -> GraphSim:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=8 << 20)
        app.add_routes(self.entra.routes())
        app.router.add_route("*", "/v1.0/{rest:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._identity.chain, self._identity.key)
        site = web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=context)
        await site.start()
        self.port = int(self._runner.addresses[0][1])
        self.entra.base = self.authority

    async def close(self) -> None:
        self.presence.close()
        await self.subscriptions.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def authority(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def root(self) -> str:
        return f"https://localhost:{self.port}/v1.0"

    # -- what tests and the demo do --

    def add_user(self, oid: str, name: str, **more: Any) -> str:
        """A user of the tenant with no Teams client running; `more` are further properties."""
        first, _, last = name.partition(" ")
        address = f"{name.lower().replace(' ', '.')}@contoso.test"
        self.users[oid] = {
            "id": oid,
            "displayName": name,
            "givenName": first,
            "surname": last,
            "mail": address,
            "userPrincipalName": address,
            "jobTitle": None,
            "department": None,
            "businessPhones": [],
            "mobilePhone": None,
            **more,
        }
        self.presence.add(oid)
        return oid

    def trouble(
        self, path: str, status: int, *, count: int = 1, retry_after: str | None = None, method: str = ""
    ) -> None:
        self.troubles.append(Trouble(path, status, count, retry_after, method))

    def count(self, method: str = "", path: str = "") -> int:
        """How many requests came, inner ones of batches included."""
        return sum(one.method.startswith(method) and path in one.path for one in self.seen)

    # -- serving --

    async def _serve(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        path = urlsplit(request.raw_path).path.removeprefix("/v1.0")
        text = await request.text()
        try:
            body = json.loads(text) if text else {}
        except ValueError:
            body = {}
        query = dict(parse_qsl(urlsplit(request.raw_path).query, keep_blank_values=True))
        reply = await self._answer(request.method, path, query, headers, body)
        headers_out = {
            "request-id": str(uuid.uuid4()),
            "client-request-id": headers.get("client-request-id", ""),
            **reply.headers,
        }
        if reply.body is None:
            return web.Response(status=reply.status, headers=headers_out)
        return web.json_response(reply.body, status=reply.status, headers=headers_out)

    async def _answer(
        self, method: str, raw_path: str, query: dict[str, str], headers: dict[str, str], body: Json
    ) -> Reply:
        request_id = headers.get("client-request-id", "")
        grant = self.entra.grants.get(headers.get("authorization", "").removeprefix("Bearer "))
        path = unquote(raw_path)
        try:
            if grant is None or grant.expires <= time.time():
                raise Refusal(
                    401,
                    "InvalidAuthenticationToken",
                    "Access token has expired or is not yet valid.",
                    {"WWW-Authenticate": 'Bearer realm="", error="invalid_token"'},
                )
            if path == "/$batch":
                return await self._batch(body, headers)
            reply = await self._route(method, raw_path, query, headers, body, grant)
        except Refusal as refusal:
            reply = refusal.reply(request_id)
        app_only = grant is not None and grant.user is None
        self.seen.append(Seen(self.clock.now(), method, path, reply.status, app_only, request_id))
        return reply

    async def _route(
        self,
        method: str,
        raw_path: str,
        query: dict[str, str],
        headers: dict[str, str],
        body: Json,
        grant: Grant,
    ) -> Reply:
        self._disturb(method, unquote(raw_path))
        check(method, raw_path, grant)
        if "presence" in raw_path.lower():
            self._limit("presence", *_PRESENCE_LIMIT)
        for verb, pattern, handler in self._routes:
            match = pattern.fullmatch(raw_path)
            if match and verb == method:
                return await handler(Call(method, raw_path, query, headers, body, grant, match))
        raise Refusal(404, "ResourceNotFound", "Resource not found for the segment.")

    def _disturb(self, method: str, path: str) -> None:
        for one in self.troubles:
            if one.count and one.path in path and method.startswith(one.method):
                one.count -= 1
                code = {429: "TooManyRequests", 503: "serviceNotAvailable"}.get(
                    one.status, "generalException"
                )
                after = {} if one.retry_after is None else {"Retry-After": one.retry_after}
                raise Refusal(one.status, code, "Trouble that a test asked for.", after)

    def _limit(self, name: str, most: int, seconds: float) -> None:
        window, now = self._windows.setdefault(name, deque()), self.clock.now()
        while window and window[0] <= now - seconds:
            window.popleft()
        window.append(now)
        if len(window) > most:
            raise Refusal(429, "TooManyRequests", "Application is over its limit.", {"Retry-After": "2.128"})

    async def _batch(self, body: Json, headers: dict[str, str]) -> Reply:
        requests = body.get("requests", [])
        if not 0 < len(requests) <= _BATCH:
            raise Refusal(400, "BadRequest", f"A batch holds 1 to {_BATCH} requests.")
        answers: list[Json] = []
        failed: set[str] = set()
        for one in requests:
            url = urlsplit(one["url"])
            inner = {"authorization": headers.get("authorization", "")}
            inner |= {name.lower(): value for name, value in one.get("headers", {}).items()}
            unknown = set(one.get("dependsOn", [])) - {each["id"] for each in requests}
            if unknown:
                raise Refusal(400, "BadRequest", "dependsOn names a request that is not in the batch.")
            if failed & set(one.get("dependsOn", [])):
                reply = Refusal(424, "FailedDependency", "A request it depends on failed.").reply("")
            elif one.get("body") is not None and "content-type" not in inner:
                reply = Refusal(400, "BadRequest", "Content-Type is needed with a body.").reply("")
            else:
                path = url.path if url.path.startswith("/") else f"/{url.path}"
                query = dict(parse_qsl(url.query, keep_blank_values=True))
                reply = await self._answer(one["method"], path, query, inner, one.get("body") or {})
            if reply.status >= 300:
                failed.add(one["id"])
            answers.append(
                {"id": one["id"], "status": reply.status, "headers": dict(reply.headers), "body": reply.body}
            )
        return Reply(200, {"responses": answers[::-1]})

    def _page(self, call: Call, items: list[Json], size: int) -> Reply:
        """`$top` or the default, and a next link with a `$skiptoken` that nobody else could build."""
        size = self.page_size or int(call.query.get("$top", size))
        start = int(call.query.get("$skiptoken", "0"))
        body: Json = {"value": items[start : start + size]}
        if start == 0 and call.query.get("$count") == "true":
            body["@odata.count"] = len(items)
        if start + size < len(items):
            root = self.next_link_root or self.root
            query = urlencode({**call.query, "$skiptoken": str(start + size)}, quote_via=quote, safe="$")
            body["@odata.nextLink"] = f"{root}{call.path}?{query}"
        return Reply(200, body)

    # -- routes --

    def _add_routes(self) -> None:
        one, team = r"(?P<id>[^/]+)", r"/teams/(?P<team>[^/]+)"
        thread = rf"{team}/channels/(?P<channel>[^/]+)/messages"
        for method, pattern, handler in (
            ("GET", r"/me", self._me),
            ("GET", r"/organization", self._organization),
            ("GET", r"/users", self._search_users),
            ("GET", rf"/users/{one}", self._user),
            ("GET", rf"/users/{one}/presence", self._get_presence),
            ("GET", r"/me/presence", self._get_presence),
            ("POST", r"/communications/getPresencesByUserId", self._presences),
            ("POST", rf"/users/{one}/presence/setPresence", self._set_presence),
            ("POST", rf"/users/{one}/presence/clearPresence", self._clear_presence),
            ("GET", r"/me/joinedTeams", self._teams),
            ("GET", rf"{team}/channels", self._channels),
            ("GET", r"(/me)?/chats", self._list_chats),
            ("POST", r"/chats", self._open_chat),
            ("GET", rf"/chats/{one}", self._show_chat),
            ("GET", rf"/chats/{one}/messages", self._list_messages),
            ("GET", rf"/chats/{one}/messages/(?P<message>[^/]+)", self._one_message),
            ("POST", rf"/chats/{one}/messages", self._post_message),
            ("GET", thread, self._list_messages),
            ("GET", rf"{thread}/(?P<message>[^/]+)", self._one_message),
            ("GET", rf"{thread}/(?P<root>[^/]+)/replies", self._list_messages),
            ("GET", rf"{thread}/(?P<root>[^/]+)/replies/(?P<message>[^/]+)", self._one_message),
            ("POST", thread, self._post_message),
            ("POST", rf"{thread}/(?P<root>[^/]+)/replies", self._post_message),
            ("GET", r"/subscriptions", self._list_subscriptions),
            ("POST", r"/subscriptions", self._subscribe),
            ("PATCH", rf"/subscriptions/{one}", self._renew),
            ("POST", rf"/subscriptions/{one}/reauthorize", self._reauthorize),
            ("DELETE", rf"/subscriptions/{one}", self._unsubscribe),
        ):
            self._routes.append((method, re.compile(pattern), handler))

    async def _me(self, call: Call) -> Reply:
        return Reply(200, self.users[call.user])

    async def _organization(self, _: Call) -> Reply:
        return Reply(200, {"value": [{"id": TENANT, "displayName": "Contoso"}]})

    def _known(self, key: str) -> Json:
        key = unquote(key)
        for oid, user in self.users.items():
            if key.lower() in (oid.lower(), user["userPrincipalName"].lower()):
                return user
        raise Refusal(404, "Request_ResourceNotFound", "Resource does not exist or one of its references.")

    async def _user(self, call: Call) -> Reply:
        return Reply(200, self._known(call.part("id")))

    async def _search_users(self, call: Call) -> Reply:
        found = list(self.users.values())
        search = call.query.get("$search")
        if search is not None:
            if call.headers.get("consistencylevel") != "eventual":
                raise Refusal(
                    400, "Request_UnsupportedQuery", "Request with $search needs ConsistencyLevel eventual."
                )
            found = [user for user in found if _matches(user, search)]
        return self._page(call, found, 100)

    def _shown(self, oid: str) -> Json:
        availability, activity = self.presence.shown(oid)
        body: Json = {"id": oid, "availability": availability, "activity": activity, "statusMessage": None}
        if self.number_presence:
            body["sequenceNumber"] = f"{self.presence.sequence(oid):020d}"
        return body

    async def _get_presence(self, call: Call) -> Reply:
        named = call.match and call.match.groupdict().get("id")
        return Reply(200, self._shown(self._known(named)["id"] if named else call.user))

    async def _presences(self, call: Call) -> Reply:
        ids = call.body.get("ids", [])
        if not 0 < len(ids) <= _BULK:
            raise Refusal(400, "BadRequest", f"1 to {_BULK} ids.")
        return Reply(200, {"value": [self._shown(oid) for oid in ids if self.presence.knows(oid)]})

    def _presence_owner(self, call: Call) -> str:
        oid = str(self._known(call.part("id"))["id"])
        if call.grant.user is not None and call.grant.user != oid:
            raise Refusal(403, "Forbidden", "Only the own presence.")
        if call.body.get("sessionId") != call.grant.client_id:
            raise Refusal(400, "BadRequest", "sessionId must be the application id.")
        return oid

    async def _set_presence(self, call: Call) -> Reply:
        oid = self._presence_owner(call)
        pair = (str(call.body.get("availability")), str(call.body.get("activity")))
        seconds = _seconds(str(call.body.get("expirationDuration", "PT5M")))
        if pair not in SETTABLE:
            raise Refusal(400, "BadRequest", "Availability and activity are no pair that can be set.")
        if not SHORTEST <= seconds <= LONGEST:
            raise Refusal(400, "BadRequest", "expirationDuration is PT5M to PT4H.")
        self.presence.set(oid, call.grant.client_id, pair, seconds)
        return Reply(200)

    async def _clear_presence(self, call: Call) -> Reply:
        oid = self._presence_owner(call)
        if not self.presence.clear(oid, call.grant.client_id):
            raise Refusal(404, "NotFound", "The presence session was not found.")
        return Reply(200)

    async def _teams(self, call: Call) -> Reply:
        mine = [
            team
            for key, team in self.conversations.teams.items()
            if call.user in self.conversations.team_members[key]
        ]
        return self._page(call, mine, 100)

    async def _channels(self, call: Call) -> Reply:
        team = unquote(call.part("team"))
        if team not in self.conversations.teams:
            raise Refusal(404, "NotFound", "No team found.")
        found = [
            {"id": one.id, "displayName": one.topic, "membershipType": "standard"}
            for (owner, _), one in self.conversations.channels.items()
            if owner == team
        ]
        return self._page(call, found, 100)

    def _chat(self, thread: Thread) -> Json:
        members = [
            {
                "@odata.type": "#microsoft.graph.aadUserConversationMember",
                "id": f"member-{oid}",
                "roles": ["owner"],
                "userId": oid,
                "displayName": self.users[oid]["displayName"],
                "email": self.users[oid]["mail"],
                "tenantId": TENANT,
            }
            for oid in thread.members
        ]
        return {
            "id": thread.id,
            "topic": thread.topic,
            "chatType": thread.kind,
            "createdDateTime": thread.created,
            "lastUpdatedDateTime": thread.created,
            "tenantId": TENANT,
            "members": members,
        }

    async def _list_chats(self, call: Call) -> Reply:
        if "$orderby" in call.query:
            raise Refusal(400, "BadRequest", "Query option 'OrderBy' is not allowed.")
        if int(call.query.get("$top", "20")) > 50:
            raise Refusal(400, "BadRequest", "The limit of '50' for Top query has been exceeded.")
        mine = [one for one in self.conversations.chats.values() if call.user in one.members]
        preview = "lastMessagePreview" in call.query.get("$expand", "")
        return self._page(call, [self._chat(one) | (_preview(one) if preview else {}) for one in mine], 20)

    async def _open_chat(self, call: Call) -> Reply:
        bound = [str(one.get("user@odata.bind", "")) for one in call.body.get("members", [])]
        prefix = f"{self.root}/users('"
        if call.body.get("chatType") != "oneOnOne" or len(bound) != 2:
            raise Refusal(400, "BadRequest", "oneOnOne needs exactly two members.")
        if not all(one.startswith(prefix) for one in bound):
            raise Refusal(400, "BadRequest", "user@odata.bind is not of this service.")
        oids = [str(self._known(one.removeprefix(prefix).removesuffix("')"))["id"]) for one in bound]
        if call.grant.user is not None and call.grant.user not in oids:
            raise Refusal(403, "Forbidden", "The caller must be a member.")
        return Reply(201, self._chat(self.conversations.one_to_one(*oids)))

    async def _show_chat(self, call: Call) -> Reply:
        return Reply(200, self._chat(self.conversations.thread_of(unquote(call.part("id")), call.grant.user)))

    def _thread(self, call: Call) -> Thread:
        assert call.match is not None
        names = {name: unquote(value) for name, value in call.match.groupdict().items() if value}
        if "channel" in names:
            return self.conversations.channel_of(names["team"], names["channel"], call.grant.user)
        return self.conversations.thread_of(names["id"], call.grant.user)

    async def _list_messages(self, call: Call) -> Reply:
        if int(call.query.get("$top", "20")) > 50:
            raise Refusal(400, "BadRequest", "The limit of '50' for Top query has been exceeded.")
        thread = self._thread(call)
        assert call.match is not None
        root = call.match.groupdict().get("root")
        found = [
            self._as_wished(call, one)
            for one in reversed(thread.messages.values())
            if not thread.team or one["replyToId"] == root
        ]
        if call.query.get("$expand") == "replies":
            newest = list(reversed(thread.messages.values()))
            found = [
                {**one, "replies": [reply for reply in newest if reply["replyToId"] == one["id"]]}
                for one in found
            ]
        return self._page(call, found, 20)

    async def _one_message(self, call: Call) -> Reply:
        found = self._thread(call).messages.get(call.part("message"))
        if found is None:
            raise Refusal(404, "NotFound", "The message was not found.")
        return Reply(200, self._as_wished(call, found))

    @staticmethod
    def _as_wished(call: Call, message: Json) -> Json:
        if message["messageType"] == "systemEventMessage" and "include-unknown-enum-members" not in (
            call.headers.get("prefer", "")
        ):
            return {**message, "messageType": "unknownFutureValue"}
        return message

    async def _post_message(self, call: Call) -> Reply:
        thread = self._thread(call)
        self._limit(f"thread {thread.id}", *_THREAD_LIMIT)
        body = call.body.get("body") or {}
        if not isinstance(body.get("content"), str):
            raise Refusal(400, "BadRequest", "body is needed.")
        assert call.match is not None
        root = call.match.groupdict().get("root")
        message = self.conversations.post(
            thread,
            self.users[call.user],
            body["content"],
            contentType=body.get("contentType", "text"),
            replyToId=root,
        )
        return Reply(201, message)

    async def _list_subscriptions(self, call: Call) -> Reply:
        return self._page(call, self.subscriptions.listed(call.grant), 100)

    async def _subscribe(self, call: Call) -> Reply:
        return Reply(201, await self.subscriptions.create(call.body, call.grant))

    async def _renew(self, call: Call) -> Reply:
        return Reply(200, self.subscriptions.renew(call.part("id"), call.body, call.grant))

    async def _reauthorize(self, call: Call) -> Reply:
        self.subscriptions.reauthorize(call.part("id"), call.grant)
        return Reply(204)

    async def _unsubscribe(self, call: Call) -> Reply:
        self.subscriptions.remove(call.part("id"), call.grant)
        return Reply(204)

    # -- changes --

    def _presence_changed(self, oid: str) -> None:
        name = f"communications/presences/{oid}"
        self.subscriptions.changed(name, "updated", name, self._shown(oid))

    def _message_changed(self, thread: Thread, change: str, message: Json) -> None:
        copy = json.loads(json.dumps(message))
        if thread.team:
            root = message["replyToId"] or message["id"]
            shown = f"teams('{thread.team}')/channels('{thread.id}')/messages('{root}')"
            if message["replyToId"]:
                shown += f"/replies('{message['id']}')"
            self.subscriptions.changed(thread.resource, change, shown, copy)
            return
        shown = f"chats('{thread.id}')/messages('{message['id']}')"
        self.subscriptions.changed(thread.resource, change, shown, copy)
        for member in thread.members:
            self.subscriptions.changed(f"users/{member}/chats/getAllMessages", change, shown, copy)


def make_identity(folder: Path) -> tuple[Identity, Path]:
    """A certificate for localhost and the authority's root, as PEM files in `folder`."""
    from cryptography.hazmat.primitives import serialization

    authority = Authority("Graph Test")
    roots = folder / "graph-roots.pem"
    roots.write_bytes(authority.root.public_bytes(serialization.Encoding.PEM))
    return authority.issue(folder, "graph", ("localhost", "127.0.0.1")), roots


def _preview(thread: Thread) -> Json:
    last = next(reversed(thread.messages.values()), None)
    shown = last and {"id": last["id"], "createdDateTime": last["createdDateTime"]}
    return {"lastMessagePreview": shown}


def _matches(user: Json, search: str) -> bool:
    clauses = re.findall(r'"(\w+):((?:[^"\\]|\\.)*)"', search)
    if not clauses:
        raise Refusal(400, "Request_BadRequest", "Syntax error in $search.")
    return any(_clause(user, name, re.sub(r"\\(.)", r"\1", text).lower()) for name, text in clauses)


def _clause(user: Json, name: str, text: str) -> bool:
    value = str(user.get(name) or "").lower()
    if name != "displayName":
        return value.startswith(text)
    words = re.split(r"[\s\d\W]+", value)
    return all(any(word.startswith(part) for word in words) for part in re.split(r"[\s\W]+", text) if part)


def _seconds(duration: str) -> int:
    """ISO 8601, as far as Graph takes it; 0 for what is none."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        return 0
    return sum(int(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True))


async def settled(sim: GraphSim) -> None:
    """Until every notification that is on its way has been answered."""
    for _ in range(3):
        while not sim.subscriptions.idle:  # noqa: ASYNC110  a test looks on
            await asyncio.sleep(0.005)
        await asyncio.sleep(0)
