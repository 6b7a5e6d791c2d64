"""Sign-in with Microsoft Entra ID: authorization code with PKCE, through msal.

msal makes state, nonce and the S256 challenge and checks the first two. It does not look at the id token's
audience, tenant, issuer and expiry (facts/graph.md 1.5), so that is done here. The token came straight from
the token endpoint over TLS, which stands for its signature (OpenID Connect Core 3.1.3.7, rule 6).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msal
import requests

from gateway.config_models import Graph
from gateway.teams.sign_in_model import (
    EntraFlow,
    EntraIdentity,
    EntraRefused,
    EntraUnavailable,
    TokensKept,
)

log = logging.getLogger("tandem.teams")

TIMEOUT = 10.0
_MICROSOFT = ("login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn")
_SKEW = 300
"""Seconds two clocks may differ."""


class _Http(requests.Session):
    """msal's way out: our trust, a limit on every request, nothing from the environment but the proxy."""

    def __init__(self, roots: str | None) -> None:
        super().__init__()
        self._roots = roots

    def request(self, *args: Any, **more: Any) -> requests.Response:
        more["timeout"] = TIMEOUT
        if self._roots is not None:
            # Here and not in Session.verify, which REQUESTS_CA_BUNDLE in the environment would win over.
            more["verify"] = self._roots
        return super().request(*args, **more)


class EntraSignIn:
    """One application in one tenant.

    redirect_uri: exactly as registered in Entra
    scopes:       further delegated permissions to ask for; msal adds openid, profile and offline_access
    kept:         told each identity and msal's serialised token cache of it, for who acts in its name later
    """

    def __init__(
        self,
        graph: Graph,
        redirect_uri: str,
        *,
        scopes: Sequence[str] = ("User.Read",),
        kept: TokensKept | None = None,
    ) -> None:
        self._graph, self._redirect_uri = graph, redirect_uri
        self._scopes, self._kept = list(scopes), kept
        self._http = _Http(str(graph.trusted_roots) if graph.trusted_roots is not None else None)
        self._http_cache: dict[str, Any] = {}

    async def begin(self) -> EntraFlow:
        """EntraUnavailable."""
        return await asyncio.to_thread(self._begin)

    async def finish(self, flow: EntraFlow, answer: Mapping[str, str]) -> EntraIdentity:
        """What the browser came back with, redeemed. EntraRefused, EntraUnavailable."""
        return await asyncio.to_thread(self._finish, flow, dict(answer))

    def close(self) -> None:
        self._http.close()

    def _begin(self) -> EntraFlow:
        try:
            # form_post keeps the code out of addresses, histories and logs (RFC 9700 4.3.1).
            flow: dict[str, Any] = self._client(msal.TokenCache()).initiate_auth_code_flow(
                self._scopes, redirect_uri=self._redirect_uri, response_mode="form_post"
            )
        except (requests.RequestException, ValueError) as error:
            raise EntraUnavailable(f"no sign-in page: {type(error).__name__}") from error
        return EntraFlow(str(flow["auth_uri"]), str(flow["state"]), flow)

    def _finish(self, flow: EntraFlow, answer: dict[str, str]) -> EntraIdentity:
        cache = msal.SerializableTokenCache()
        try:
            found: dict[str, Any] = self._client(cache).acquire_token_by_auth_code_flow(flow.data, answer)
        except requests.RequestException as error:
            raise EntraUnavailable(f"the code cannot be redeemed: {type(error).__name__}") from error
        except msal.exceptions.MsalServiceError as error:
            raise EntraUnavailable(
                "the code cannot be redeemed: the token endpoint is out of order"
            ) from error
        except (ValueError, RuntimeError) as error:
            raise EntraRefused("bad_answer", str(error).splitlines()[0]) from error
        if "error" in found:
            why = str(found.get("error_description", "")).splitlines()
            raise EntraRefused("entra_refused", f"{found['error']} {why[0] if why else ''}")
        identity = identity_of(
            found.get("id_token_claims") or {},
            client_id=self._graph.client_id,
            tenant=self._graph.tenant,
            authority=self._graph.authority,
            now=time.time(),
        )
        if self._kept is not None:
            self._kept(identity, cache.serialize())
        return identity

    def _client(self, cache: Any) -> Any:
        authority = f"{self._graph.authority.rstrip('/')}/{self._graph.tenant}"
        return msal.ConfidentialClientApplication(
            self._graph.client_id,
            client_credential=self._graph.client_secret.get_secret_value(),
            authority=authority,
            token_cache=cache,
            http_client=self._http,
            http_cache=self._http_cache,
            instance_discovery=None if urlsplit(authority).hostname in _MICROSOFT else False,
        )


def identity_of(
    claims: Mapping[str, Any], *, client_id: str, tenant: str, authority: str, now: float
) -> EntraIdentity:
    """The id token's subject, if the token is for us, from our tenant, and of today. EntraRefused."""
    host = urlsplit(authority).hostname
    issuer = urlsplit(str(claims.get("iss", "")))
    expiry = claims.get("exp")
    if claims.get("aud") != client_id:
        raise EntraRefused("bad_token", "the id token is for another application")
    if str(claims.get("tid", "")).lower() != tenant.lower():
        raise EntraRefused("bad_token", "the id token is of another tenant")
    if issuer.scheme != "https" or issuer.hostname != host or tenant.lower() not in issuer.path.lower():
        raise EntraRefused("bad_token", "the id token is of another issuer")
    if not isinstance(expiry, int | float) or expiry + _SKEW < now:
        raise EntraRefused("bad_token", "the id token has expired")
    oid = claims.get("oid")
    if not isinstance(oid, str) or not oid:
        raise EntraRefused("bad_token", "the id token names nobody")
    upn = str(claims.get("preferred_username", ""))
    roles = claims.get("roles")
    return EntraIdentity(
        oid=oid,
        tenant=tenant,
        user_principal_name=upn,
        name=str(claims.get("name", "")) or upn,
        roles=frozenset(str(role) for role in roles) if isinstance(roles, list) else frozenset(),
    )
