"""Signing in and out, for people: local accounts and Microsoft Entra ID.

    GET /sign-in                  which of the two there is
    POST /sign-in                 login and password -> a session's cookie
    GET /sign-in/entra            off to Entra, and back to
    POST /sign-in/entra/callback  which opens a session and leads to the desktop
    DELETE /api/v1/me/session     signs out

Every way in begins a new session, so a cookie that somebody planted is worth nothing afterwards.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web
from pydantic import Field

from gateway.agents.accounts import Accounts
from gateway.agents.database import StoreUnavailable
from gateway.agents.people import Person, Source, UserRole
from gateway.agents.rate_limit import FailureLimit, source
from gateway.agents.roster import Roster
from gateway.api.operation import Answer, Asked, Operation, Strict, json_answer, json_response
from gateway.api.problems import Problem
from gateway.api.sessions import Door, session_of
from gateway.teams.sign_in_model import EntraFlow, EntraIdentity, EntraRefused, EntraUnavailable

log = logging.getLogger("tandem.api")

PATH = "/sign-in"
_FLOW_COOKIE = "tandem_sign_in"
_FLOW_SECONDS = 600.0
_MOST_FLOWS = 1000
_MOST_OF_ONE = 300
"""Sign-ins with Entra under way from one address; a whole office may share one."""
_ADDRESS_FACTOR = 5


class EntraDoor(Protocol):
    """`gateway.teams.sign_in.EntraSignIn`."""

    async def begin(self) -> EntraFlow: ...

    async def finish(self, flow: EntraFlow, answer: dict[str, str]) -> EntraIdentity: ...


class SignInForm(Strict):
    login: str = Field(min_length=1, max_length=254)
    password: str = Field(min_length=1, max_length=200)


@dataclass(frozen=True, slots=True)
class SignInWays:
    """local: login and password with POST; entra: go to /sign-in/entra."""

    local: bool
    entra: bool


@dataclass(frozen=True, slots=True)
class SignedIn:
    login: str
    name: str
    role: UserRole


@dataclass(slots=True)
class _Flow:
    flow: EntraFlow
    began: float
    source: str


class SignIn:
    """entra: None where [sign_in] entra is off."""

    def __init__(
        self,
        door: Door,
        accounts: Accounts,
        roster: Roster,
        entra: EntraDoor | None,
        now: Callable[[], float],
    ) -> None:
        self._door, self._accounts, self._roster, self._entra = door, accounts, roster, entra
        self._settings, self._now = door.settings, now
        most = door.settings.failures
        self._by_account = FailureLimit(now, most=most)
        self._by_address = FailureLimit(now, most=most * _ADDRESS_FACTOR)
        self._told = FailureLimit(now, most=1)
        self._flows: OrderedDict[str, _Flow] = OrderedDict()

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET", path=PATH, name="signInWays", tag="sign-in", token=False,
                summary="How people may sign in", handler=self._ways,
                answers=(json_answer(200, "The ways there are", SignInWays),),
            ),
            Operation(
                method="POST", path=PATH, name="signIn", tag="sign-in", token=False,
                summary="Sign in with a local account", body=SignInForm, handler=self._sign_in,
                errors=frozenset({401, 403, 404, 429, 503}),
                answers=(json_answer(200, "A session", SignedIn, Set_Cookie="the session's cookie"),),
            ),
            Operation(
                method="GET", path=f"{PATH}/entra", name="signInEntra", tag="sign-in", token=False,
                summary="Sign in with Microsoft Entra ID", handler=self._to_entra, head=False,
                errors=frozenset({404, 429, 503}),
                answers=(Answer(302, "To Entra's page", headers={"Location": "there"}),),
            ),
            Operation(
                method="POST", path=f"{PATH}/entra/callback", name="signInEntraCallback", tag="sign-in",
                token=False, summary="Where Entra sends the browser back to", handler=self._from_entra,
                errors=frozenset({404, 429}),
                answers=(
                    Answer(303, "To the desktop; `?refused=` and a word when there is no session",
                           headers={"Location": "there"}),
                ),
            ),
            Operation(
                method="DELETE", path="/api/v1/me/session", name="signOut", tag="sign-in",
                summary="Sign out", handler=self._sign_out, errors=frozenset({503}),
                answers=(Answer(204, "The session has ended"),),
            ),
        ]  # fmt: skip

    async def _ways(self, _: Asked[None, None]) -> web.Response:
        ways = SignInWays(self._settings.local, self._entra is not None)
        return json_response(SignInWays, ways)

    # -- local accounts --

    async def _sign_in(self, asked: Asked[SignInForm, None]) -> web.StreamResponse:
        request, form = asked.request, asked.body
        self._door.check_origin(request)
        if not self._settings.local:
            raise Problem(404, "there are no local accounts here: sign in with Entra ID", reason="not_local")
        remote = self._door.remote(request)
        await self._limit(remote, form.login)
        # Counted before the password is looked at, so that many tries at once are not all let through.
        self._by_account.failed(form.login)
        self._by_address.failed(source(remote))
        try:
            person = await self._accounts.check(form.login, form.password)
        except StoreUnavailable as error:
            raise _unavailable(error) from error
        if person is None:
            await self._door.audit.record(form.login, "sign_in", remote=remote, result="failed")
            raise Problem(401, "login or password is wrong", reason="wrong_password")
        self._by_account.forget(form.login)
        self._by_address.forgive(source(remote))
        found = SignedIn(person.login, person.name, person.role)
        return await self._open(request, person, json_response(SignedIn, found))

    async def _limit(self, remote: str, login: str = "") -> None:
        by_address = self._by_address.wait(source(remote))
        wait = max(by_address, self._by_account.wait(login) if login else 0.0)
        if wait <= 0:
            return
        # Once in a while: nothing is ever deleted from the audit log, and a stranger may try for ever.
        key = source(remote) if by_address else f"login {login}"
        if not self._told.wait(key):
            self._told.failed(key)
            await self._door.audit.record(login, "sign_in", remote=remote, result="limited")
        raise Problem(
            429,
            "too many sign-ins have failed: wait",
            headers={"Retry-After": str(int(wait) + 1)},
            reason="too_many_failures",
        )

    async def _open(
        self, request: web.Request, person: Person, response: web.StreamResponse
    ) -> web.StreamResponse:
        try:
            token = await self._door.sessions.begin(person, instead_of=self._door.token(request))
        except StoreUnavailable as error:
            raise _unavailable(error) from error
        await self._door.audit.record(
            person.login,
            "sign_in",
            remote=self._door.remote(request),
            detail=f"{person.source} {person.role}",
        )
        self._door.set_cookie(request, response, token)
        return response

    async def _sign_out(self, asked: Asked[None, None]) -> web.StreamResponse:
        request = asked.request
        person = session_of(request).person
        try:
            await self._door.sessions.end(self._door.token(request))
        except StoreUnavailable as error:
            raise _unavailable(error) from error
        await self._door.audit.record(person.login, "sign_out", remote=self._door.remote(request))
        response = web.Response(status=204)
        self._door.drop_cookie(request, response)
        return response

    # -- Entra --

    async def _to_entra(self, asked: Asked[None, None]) -> web.StreamResponse:
        request, entra = asked.request, self._entra
        if entra is None:
            raise Problem(404, "sign-in with Entra ID is off: [sign_in] entra", reason="not_entra")
        await self._limit(self._door.remote(request))
        try:
            flow = await entra.begin()
        except EntraUnavailable as error:
            raise Problem(
                503, f"Entra ID does not answer: {error}", headers={"Retry-After": "10"}, reason="no_entra"
            ) from error
        key = secrets.token_urlsafe(24)
        self._begin(key, _Flow(flow, self._now(), source(self._door.remote(request))))
        response = web.Response(status=302, headers={"Location": flow.url})
        # Entra's page posts the answer from another site, so the cookie must be one for other sites too.
        response.set_cookie(
            _FLOW_COOKIE, key, path=PATH, max_age=int(_FLOW_SECONDS), httponly=True, samesite="None",
            secure=True,
        )  # fmt: skip
        return response

    def _begin(self, key: str, flow: _Flow) -> None:
        """Remember it; whoever begins too many forgets his own, not those of others."""
        same = [one for one, other in self._flows.items() if other.source == flow.source]
        for one in same[: max(len(same) + 1 - _MOST_OF_ONE, 0)]:
            del self._flows[one]
        self._flows[key] = flow
        while len(self._flows) > _MOST_FLOWS:
            self._flows.popitem(last=False)

    async def _from_entra(self, asked: Asked[None, None]) -> web.StreamResponse:
        """Only for the browser that set out: its cookie names the flow, whose state must be the answer's."""
        request, entra = asked.request, self._entra
        if entra is None:
            raise Problem(404, "sign-in with Entra ID is off: [sign_in] entra", reason="not_entra")
        remote = self._door.remote(request)
        await self._limit(remote)
        flow = self._flows.pop(request.cookies.get(_FLOW_COOKIE, ""), None)
        fresh = flow is not None and self._now() - flow.began < _FLOW_SECONDS
        form = await request.post()
        answer = {name: value for name, value in form.items() if isinstance(value, str)}
        if flow is None or not fresh or not _same(answer.get("state", ""), flow.flow.state):
            return await self._refused(request, "expired", "no such sign-in is under way")
        try:
            identity = await entra.finish(flow.flow, answer)
        except EntraRefused as error:
            return await self._refused(request, error.reason, str(error))
        except EntraUnavailable as error:
            return await self._refused(request, "no_entra", str(error))
        person = self._person(identity)
        if person is None:
            who = identity.user_principal_name or identity.oid
            return await self._refused(request, "unknown_here", f"{who} is no agent and has no role")
        response = web.Response(status=303, headers={"Location": "/"})
        self._drop_flow(response)
        return await self._open(request, person, response)

    async def _refused(self, request: web.Request, reason: str, text: str) -> web.Response:
        remote = self._door.remote(request)
        self._by_address.failed(source(remote))
        await self._door.audit.record("", "sign_in", remote=remote, result="failed", detail=f"entra {text}")
        response = web.Response(status=303, headers={"Location": f"/?refused={reason}"})
        self._drop_flow(response)
        return response

    @staticmethod
    def _drop_flow(response: web.StreamResponse) -> None:
        response.del_cookie(_FLOW_COOKIE, path=PATH, httponly=True, samesite="None", secure=True)

    def _person(self, identity: EntraIdentity) -> Person | None:
        """An agent by `teams_user`; more than an agent by an app role. None for anybody else."""
        agent = self._roster.by_teams_user(identity.oid, identity.user_principal_name)
        given = [
            UserRole(role) for name, role in self._settings.entra_roles.items() if name in identity.roles
        ]
        if agent is not None:
            given.append(UserRole.AGENT)
        if not given:
            return None
        login = agent.login if agent is not None else identity.user_principal_name or identity.oid
        return Person(login, identity.name, max(given, key=list(UserRole).index), Source.ENTRA)


def _same(shown: str, expected: str) -> bool:
    return hmac.compare_digest(shown.encode(), expected.encode())


def _unavailable(error: StoreUnavailable) -> Problem:
    return Problem(503, str(error), headers={"Retry-After": "5"}, reason="database_unavailable")
