"""The guard before the API: people with a session cookie, programs with a bearer token.

A request with an Authorization header is a program's and goes the way of tokens. Any other must show a
session that is open now, an Origin of ours where it shows one, for every change the session's X-CSRF-Token,
and a role that the table of `sessions_access` lets in. A WebSocket is cut off when its session ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.agents.audit import AuditLog
from gateway.agents.database import StoreUnavailable
from gateway.agents.people import Person, UserRole
from gateway.agents.sessions import Session, Sessions
from gateway.api.auth import PREFIX, WHO
from gateway.api.operation import Operation
from gateway.api.problems import Handler, Problem
from gateway.api.sessions_access import AUDIT_THEMSELVES, Own, Rule, rule_of
from gateway.api.sessions_client import client_address, is_secure, same_origin
from gateway.config_models import SignIn
from gateway.model import CallId

log = logging.getLogger("tandem.api")

SESSION = web.RequestKey("session", Session)
"""The session of a person's request; a program's has none."""
CSRF_HEADER = "X-CSRF-Token"
_COOKIE, _SECURE_COOKIE = "tandem_session", "__Host-tandem_session"
_SAFE = ("GET", "HEAD")


class Door:
    """Who comes in.

    calls_of:      the calls in which an agent has a leg
    watch_seconds: between two looks at the session of an open WebSocket
    """

    def __init__(
        self,
        sessions: Sessions,
        audit: AuditLog,
        settings: SignIn,
        calls_of: Callable[[str], frozenset[CallId]],
        *,
        watch_seconds: float = 5.0,
    ) -> None:
        self.sessions, self.audit, self.settings = sessions, audit, settings
        self._calls_of, self.watch_seconds = calls_of, watch_seconds

    # -- the cookie --

    def secure(self, request: web.Request) -> bool:
        remote = request.remote or ""
        return is_secure(remote, request.scheme, request.headers, self.settings.trusted_proxies)

    def remote(self, request: web.Request) -> str:
        return client_address(request.remote or "", request.headers, self.settings.trusted_proxies)

    def token(self, request: web.Request) -> str:
        """The session's token that the browser shows, "" when none."""
        return request.cookies.get(_SECURE_COOKIE if self.secure(request) else _COOKIE, "")

    def set_cookie(self, request: web.Request, response: web.StreamResponse, token: str) -> None:
        secure = self.secure(request)
        response.set_cookie(
            _SECURE_COOKIE if secure else _COOKIE,
            token,
            path="/",
            httponly=True,
            samesite="Lax",
            secure=secure,
        )

    def drop_cookie(self, request: web.Request, response: web.StreamResponse) -> None:
        secure = self.secure(request)
        name = _SECURE_COOKIE if secure else _COOKIE
        response.del_cookie(name, path="/", httponly=True, samesite="Lax", secure=secure)

    def check_origin(self, request: web.Request) -> None:
        """Problem 403 for a request that another site's page sent."""
        origin = request.headers.get("Origin")
        if origin is not None and not same_origin(origin, request.host, self.settings.public_url):
            raise Problem(403, "the request comes from another site's page", reason="foreign_origin")

    # -- the guard --

    def middleware(self, programs: Middleware, routes: Iterable[web.AbstractRouteDef]) -> Middleware:
        """In front of all routes; `programs` takes what has an Authorization header."""
        names = {(one.method, one.path): one.name for one in routes if isinstance(one, Operation)}

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not request.path.startswith(PREFIX):
                return await handler(request)
            token = self.token(request)
            if "Authorization" in request.headers or not token:
                return await programs(request, handler)
            session = await self._session(token)
            self.check_origin(request)
            if request.method not in _SAFE and not hmac.compare_digest(
                request.headers.get(CSRF_HEADER, "").encode(), session.csrf.encode()
            ):
                raise Problem(
                    403, f"a change needs the header {CSRF_HEADER} with `csrf` of /api/v1/me", reason="csrf"
                )
            resource = request.match_info.route.resource
            method = "GET" if request.method == "HEAD" else request.method
            name = names.get((method, resource.canonical), "") if resource is not None else ""
            by_role = await self._check_role(request, session, name)
            request[SESSION] = session
            request[WHO] = f"person {session.person.source} {session.person.login}"
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._watched(request, handler, token)
            if by_role and name not in AUDIT_THEMSELVES:
                return await self._audited(request, handler, session.person.login, name)
            return await handler(request)

        return guard

    async def _session(self, token: str, *, touch: bool = True) -> Session:
        try:
            session = await self.sessions.find(token, touch=touch)
        except StoreUnavailable as error:
            raise Problem(
                503, str(error), headers={"Retry-After": "5"}, reason="database_unavailable"
            ) from error
        if session is None:
            raise Problem(401, "the session has ended: sign in again", reason="session_ended")
        return session

    async def _check_role(self, request: web.Request, session: Session, name: str) -> bool:
        """Whether it changes what is not his own, as his role lets him. Problem 403: it does not."""
        rule, person = rule_of(name), session.person
        change = request.method not in _SAFE
        if person.role.reaches(rule.least):
            foreign = change and rule.least is not UserRole.AGENT
            return foreign and not await self._is_own(request, rule, person.login)
        if await self._is_own(request, rule, person.login):
            return False
        log.warning(
            "event=refused login=%s role=%s operation=%s", person.login, person.role, name or request.method
        )
        if change:
            await self.audit.record(
                person.login, name or request.method, target=request.path, remote=self.remote(request),
                result="refused",
            )  # fmt: skip
        raise Problem(403, f"this is not for the role {person.role}", reason="role")

    async def _is_own(self, request: web.Request, rule: Rule, login: str) -> bool:
        """Whether an agent asks for himself."""
        match rule.own:
            case Own.CALL:
                if request.match_info.get("call") not in self._calls_of(login):
                    return False
                return not rule.not_own or not (rule.not_own & (await _body(request)).keys())
            case Own.LOGIN:
                return request.match_info.get("login") == login
            case Own.QUERY:
                return request.query.getall("agent", []) == [login]
            case Own.BODY:
                return (await _body(request)).get("agent") == login
            case None:
                return False

    async def _audited(
        self, request: web.Request, handler: Handler, login: str, name: str
    ) -> web.StreamResponse:
        """What somebody did to others by his role, and whether it was done."""
        result = "failed"
        try:
            response = await handler(request)
            result = "ok" if response.status < 400 else "failed"
        finally:
            await self.audit.record(
                login, name or request.method, target=request.path, remote=self.remote(request), result=result
            )
        return response

    async def _watched(self, request: web.Request, handler: Handler, token: str) -> web.StreamResponse:
        watching = asyncio.create_task(self._watch(request, token), name="session-watch")
        try:
            return await handler(request)
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    async def _watch(self, request: web.Request, token: str) -> None:
        while True:
            await asyncio.sleep(self.watch_seconds)
            try:
                await self._session(token, touch=False)
            except Problem as problem:
                if problem.status != 401:
                    continue
                log.info("event=session_ended remote=%s", self.remote(request))
                if request.transport is not None:
                    request.transport.close()
                return


async def _body(request: web.Request) -> dict[str, Any]:
    """The JSON object of the body, {} when it is none; the handler reads it again and refuses it there."""
    try:
        found = json.loads(await request.read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def session_of(request: web.Request) -> Session:
    """The person's session; Problem 403 for a program, which has none."""
    session: Session | None = request.get(SESSION)
    if session is None:
        raise Problem(403, "this is for people who have signed in, not for tokens", reason="no_person")
    return session


def person_of(request: web.Request) -> Person | None:
    """Who has signed in; None for a program."""
    session: Session | None = request.get(SESSION)
    return session.person if session is not None else None


def who_of(request: web.Request) -> str:
    """For journals and the audit log: a login, or `token NAME`."""
    session: Session | None = request.get(SESSION)
    return session.person.login if session is not None else f"token {request.get(WHO, '')}"
