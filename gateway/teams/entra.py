"""Tokens from Entra ID through msal: the application's own, and those of users who signed in.

msal blocks, so every call of it runs in a thread. Since msal 1.38 an id_token's claims are not checked by it
(facts/graph.md 1.5); here they are. What msal says in words is not repeated, only its error word and number.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msal
import requests

from gateway.clock import Clock
from gateway.teams.account_model import Account
from gateway.teams.clouds import GLOBAL, Cloud
from gateway.teams.errors import EntraRefused, GraphUnavailable, SignInNeeded, WrongIdentity
from gateway.teams.store import Document, Shelf, Store

log = logging.getLogger("tandem.teams")
T = TypeVar("T")

SCOPES = (
    "User.Read",
    "User.ReadBasic.All",
    "Team.ReadBasic.All",
    "Channel.ReadBasic.All",
    "ChannelMessage.Read.All",
    "ChannelMessage.Send",
    "Chat.Create",
    "Chat.ReadBasic",
    "Chat.Read",
    "ChatMessage.Send",
    "Presence.Read.All",
)
"""What a user who signs in lets us do for him (facts/graph.md 1.3)."""
TIMEOUT = 10.0
SIGN_IN_LIFE = 600.0
_CLOCK_SKEW = 300.0
_MOST_SIGN_INS = 10_000

_SIGN_IN = frozenset({"invalid_grant", "interaction_required", "consent_required", "login_required"})

_CAUSES: dict[int, str] = {
    700016: "the client id is not known in this tenant",
    90002: "the tenant does not exist",
    900023: "the tenant id is no tenant",
    7000215: "the client secret is wrong (its value is needed, not its id)",
    7000222: "the client secret has expired: make a new one",
    65001: "consent is missing: an administrator grants it",
    65004: "consent was declined",
    50011: "the redirect URI is not registered",
    50076: "another factor is asked for",
    50173: "the sign-in was revoked",
    70008: "the sign-in is too old",
}


@dataclass(frozen=True)
class Identity:
    """Who signed in, from a checked id_token."""

    oid: str
    tid: str
    name: str
    user_principal_name: str


@dataclass(frozen=True)
class _Pending:
    login: str
    flow: dict[str, Any]
    until: float


class _Session(requests.Session):
    """Every request has a time limit; roots of our own count instead of those of the environment."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__()
        if cloud.roots is not None:
            self.trust_env = False
            self.verify = str(cloud.roots)

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs.setdefault("timeout", TIMEOUT)
        return super().request(*args, **kwargs)


class Entra:
    """The token side of one integration account."""

    def __init__(self, cloud: Cloud, account: Account, store: Store, clock: Clock) -> None:
        self.cloud, self.account = cloud, account
        self._store, self._clock = store, clock
        self._http = _Session(cloud)
        self._http_cache: dict[str, Any] = {}
        self._application: Any = None
        self._users: dict[str, tuple[Any, msal.SerializableTokenCache]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._pending: dict[str, _Pending] = {}
        self._held: dict[str, Document] | None = None
        self.refused: set[str] = set()
        """Users who have to sign in again."""

    def close(self) -> None:
        self._http.close()

    async def hold(self) -> None:
        """Go on with the users' tokens as they are, in memory only: the store is about to be emptied."""
        self._held = await self._store.all(Shelf.TOKENS)

    # -- the application --

    async def app_token(self, *, renew: bool = False) -> str:
        """EntraRefused, GraphUnavailable."""
        async with self._lock(""):
            if renew:
                self._application = None
            return await self._call(self._app_token)

    def _app_token(self) -> str:
        if self._application is None:
            self._application = self._make(msal.SerializableTokenCache())
        found = self._application.acquire_token_for_client([f"{self.cloud.origin}/.default"])
        if "access_token" not in found:
            raise _refusal(found)
        return str(found["access_token"])

    # -- users --

    async def user_token(self, login: str, *, renew: bool = False, claims: str | None = None) -> str:
        """SignInNeeded, EntraRefused for what is not the user's to mend, GraphUnavailable."""
        async with self._lock(login):
            application, cache = await self._user(login)
            found = await self._call(lambda: self._silent(application, renew, claims))
            await self._save(login, cache)
        if not found or "access_token" not in found:
            error = _refusal(found or {})
            if not asks_for_sign_in(found):
                log.warning(
                    "event=token_refused login=%s cause=%s number=%d", login, error.code, error.number
                )
                raise error
            log.info("event=sign_in_needed login=%s cause=%s number=%d", login, error.code, error.number)
            self.refused.add(login)
            raise SignInNeeded(f"{login} has to sign in to Teams again") from None
        self.refused.discard(login)
        return str(found["access_token"])

    def _silent(self, application: Any, renew: bool, claims: str | None) -> dict[str, Any] | None:
        accounts = application.get_accounts()
        if not accounts:
            return None
        found = application.acquire_token_silent_with_error(
            self.scopes, account=accounts[0], force_refresh=renew, claims_challenge=claims
        )
        return dict(found) if found else None

    @property
    def scopes(self) -> list[str]:
        """Bare for the global service, with Graph's address before them elsewhere."""
        if self.cloud.root == Cloud.named(GLOBAL).root:
            return list(SCOPES)
        return [f"{self.cloud.origin}/{scope}" for scope in SCOPES]

    async def begin_sign_in(self, login: str, redirect_uri: str, hint: str = "") -> str:
        """The address to send the user's browser to; good for ten minutes."""
        now = self._clock.now()
        self._pending = {key: one for key, one in self._pending.items() if one.until > now}
        if len(self._pending) >= _MOST_SIGN_INS:
            raise GraphUnavailable("too many sign-ins are under way", sent=False)

        def begin() -> dict[str, Any]:
            application = self._make(msal.SerializableTokenCache())
            return dict(
                application.initiate_auth_code_flow(
                    self.scopes, redirect_uri, login_hint=hint or None, response_mode="form_post"
                )
            )

        flow = await self._call(begin)
        self._pending[str(flow["state"])] = _Pending(login, flow, now + SIGN_IN_LIFE)
        return str(flow["auth_uri"])

    async def finish_sign_in(
        self, answer: Mapping[str, str], mapped: Callable[[str, Identity], None], *, login: str | None = None
    ) -> tuple[str, Identity]:
        """Login and identity of who came back; the tokens are kept only when `mapped` does not raise.

        login: who is at the desk now; another one's answer is refused
        SignInNeeded, WrongIdentity, EntraRefused.
        """
        pending = self._pending.pop(answer.get("state", ""), None)
        if pending is None or pending.until <= self._clock.now():
            raise SignInNeeded("this sign-in is unknown or too old: begin again")
        if login is not None and login != pending.login:
            raise WrongIdentity("this sign-in was begun by somebody else")
        cache = msal.SerializableTokenCache()

        def finish() -> dict[str, Any]:
            try:
                return dict(self._make(cache).acquire_token_by_auth_code_flow(pending.flow, dict(answer)))
            except (ValueError, RuntimeError):
                raise SignInNeeded("the answer does not belong to this sign-in: begin again") from None

        found = await self._call(finish)
        if "access_token" not in found:
            raise _refusal(found)
        identity = self._check(found.get("id_token_claims") or {})
        mapped(pending.login, identity)
        async with self._lock(pending.login):
            self._users[pending.login] = (self._make_user(cache), cache)
            await self._save(pending.login, cache)
        self.refused.discard(pending.login)
        return pending.login, identity

    async def adopt(self, login: str, tokens: str) -> bool:
        """Go on with the tokens of a sign-in at the desk: msal's cache of them, serialised.

        False when Entra ID wants the user himself for what they do not allow yet. GraphUnavailable.
        """
        cache = msal.SerializableTokenCache()
        cache.deserialize(tokens)
        async with self._lock(login):
            made = await self._call(lambda: self._make_user(cache))
            found = await self._call(lambda: self._silent(made, False, None))
            if not found or "access_token" not in found:
                return False
            self._users[login] = (made, cache)
            await self._store.put(Shelf.TOKENS, login, {"cache": cache.serialize()})
            self.refused.discard(login)
        return True

    async def forget(self, login: str) -> None:
        """Throw the user's tokens away."""
        async with self._lock(login):
            self._users.pop(login, None)
            self.refused.discard(login)
            await self._store.remove(Shelf.TOKENS, login)

    def _check(self, claims: Mapping[str, Any]) -> Identity:
        """Facts/graph.md 1.5: audience, tenant, issuer and time are ours to look at."""
        tenant = self.account.tenant.lower()
        issuers = {f"{self.cloud.authority}/{tenant}/v2.0", f"https://sts.windows.net/{tenant}/"}
        now = time.time()
        good = (
            claims.get("aud") == self.account.client_id
            and str(claims.get("tid", "")).lower() == tenant
            and str(claims.get("iss", "")).lower() in {issuer.lower() for issuer in issuers}
            and float(claims.get("exp", 0)) > now - _CLOCK_SKEW
            and bool(claims.get("oid"))
        )
        if not good:
            raise WrongIdentity("the identity that came back is not of this application and tenant")
        return Identity(
            str(claims["oid"]),
            str(claims["tid"]),
            str(claims.get("name", "")),
            str(claims.get("preferred_username", "")),
        )

    async def _user(self, login: str) -> tuple[Any, msal.SerializableTokenCache]:
        known = self._users.get(login)
        if known is not None:
            return known
        held = self._held
        kept = held.get(login) if held is not None else await self._store.get(Shelf.TOKENS, login)
        if kept is None:
            raise SignInNeeded(f"{login} has not signed in to Teams")
        cache = msal.SerializableTokenCache()
        cache.deserialize(kept["cache"])
        made = self._users[login] = (await self._call(lambda: self._make_user(cache)), cache)
        return made

    async def _save(self, login: str, cache: msal.SerializableTokenCache) -> None:
        if cache.has_state_changed and self._held is None:
            await self._store.put(Shelf.TOKENS, login, {"cache": cache.serialize()})

    def _make_user(self, cache: msal.SerializableTokenCache) -> Any:
        return self._make(cache)

    def _make(self, cache: msal.SerializableTokenCache) -> Any:
        return msal.ConfidentialClientApplication(
            self.account.client_id,
            client_credential=self.account.client_secret,
            authority=f"{self.cloud.authority}/{self.account.tenant}",
            token_cache=cache,
            http_client=self._http,
            http_cache=self._http_cache,
            instance_discovery=None if self.cloud.well_known else False,
        )

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def _call(self, job: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(job)
        except requests.RequestException as error:
            raise GraphUnavailable(f"Entra ID cannot be reached: {type(error).__name__}") from None
        except msal.exceptions.MsalServiceError as error:
            raise GraphUnavailable(f"Entra ID has trouble: {type(error).__name__}") from None
        except json.JSONDecodeError:
            raise GraphUnavailable("Entra ID's answer is not JSON") from None
        except ValueError as error:
            if "tenant" in str(error) or "authority" in str(error).lower():
                raise EntraRefused("invalid_authority", 90002, "the tenant does not exist") from None
            raise


def asks_for_sign_in(found: Mapping[str, Any] | None) -> bool:
    """Whether a refusal of tokens is the user's to mend; None: msal has no refresh token to ask with.

    The others are the application's, as an expired secret is, or pass by themselves, as throttling does.
    """
    return not found or found.get("error") in _SIGN_IN


def _refusal(found: Mapping[str, Any]) -> EntraRefused:
    numbers = found.get("error_codes") or [0]
    number = int(numbers[0]) if str(numbers[0]).isdigit() else 0
    code = str(found.get("error", "no_tokens"))[:64]
    cause = _CAUSES.get(number, "Entra ID refused")
    return EntraRefused(code, number, f"{cause} ({code}, AADSTS{number})" if number else f"{cause} ({code})")
