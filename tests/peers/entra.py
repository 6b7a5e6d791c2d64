"""A stand-in for Microsoft Entra ID, enough for unmodified msal: discovery, authorize, token, keys.

Grants: authorization_code with PKCE (S256), refresh_token (rotating), client_credentials. Errors have Entra's
shape and AADSTS numbers (facts/graph.md 7.2).

Departures from Entra: nobody types a password (`login_hint`, or the only user, signs in at once; without
either the answer is login_required); on-behalf-of, device code and federated credentials are missing; consent
is per application, not per user; access tokens are JWTs of ours which only this stand-in's Graph reads;
token times are the machine's real time, whatever clock the rest of the stand-in uses.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

Json = dict[str, Any]
PUBLISHER = "0bf30f3b-4a52-48df-9a82-234910c4a086"
"""Application id of Graph's change notifications (facts/graph.md 3.5)."""
_RESERVED = {"openid", "profile", "offline_access"}


@dataclass
class Registration:
    """The application as an administrator registered it."""

    client_id: str
    secrets: set[str]
    redirect_uris: set[str] = field(default_factory=set)
    app_roles: set[str] = field(default_factory=set)
    """Application permissions with admin consent."""
    scopes: set[str] = field(default_factory=set)
    """Delegated permissions that a user may be given."""
    expired_secrets: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Grant:
    """What an access token stands for: `user` is None for the application itself."""

    client_id: str
    user: str | None
    permissions: frozenset[str]
    expires: float


@dataclass
class _Code:
    user: str
    redirect_uri: str
    challenge: str
    nonce: str
    scopes: list[str]


class EntraRefusal(Exception):
    def __init__(self, error: str, number: int, text: str, status: int = 400, suberror: str = "") -> None:
        self.error, self.number, self.text, self.status, self.suberror = error, number, text, status, suberror
        super().__init__(text)


@functools.cache
def _first_key() -> rsa.RSAPrivateKey:
    """Made once a process: making one takes longer than most tests."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Entra:
    """One tenant, one registration. `base` is the https address it is reached under."""

    def __init__(self, tenant: str, registration: Registration) -> None:
        self.tenant, self.registration = tenant, registration
        self.base = ""
        self.users: dict[str, Json] = {}
        self.key = _first_key()
        self.key_id = "sim-key-1"
        self.lifetime = 3600
        self.grants: dict[str, Grant] = {}
        self.requests: list[str] = []
        self.issued: list[str] = []
        """Every code and token that was given out, for tests that look for them where they must not be."""
        self.revoked: set[str] = set()
        """Users whose refresh tokens count no more: a password was changed, or MFA is asked for."""
        self.claims: Json = {}
        """Laid over the claims of every id_token: how tests make it lie."""
        self.impostor: str | None = None
        """Who really signs in, whatever was asked for."""
        self._codes: dict[str, _Code] = {}
        self._refresh: dict[str, tuple[str, list[str]]] = {}

    def routes(self) -> list[web.RouteDef]:
        tenant = "/{tenant}"
        return [
            web.get(f"{tenant}/v2.0/.well-known/openid-configuration", self._discovery),
            web.get(f"{tenant}/oauth2/v2.0/authorize", self._authorize),
            web.post(f"{tenant}/oauth2/v2.0/token", self._token),
            web.get(f"{tenant}/discovery/v2.0/keys", self._keys),
            web.get("/common/discovery/instance", self._instance),
        ]

    def sign(self, claims: Mapping[str, Any], key: rsa.RSAPrivateKey | None = None) -> str:
        return jwt.encode(dict(claims), key or self.key, algorithm="RS256", headers={"kid": self.key_id})

    def rotate_keys(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.key_id = f"sim-key-{secrets.token_hex(4)}"

    def validation_token(self, **changed: Any) -> str:
        """What Graph adds to a notification with content (facts/graph.md 3.5), v1 form."""
        now = int(time.time())
        claims = {
            "aud": self.registration.client_id,
            "iss": f"https://sts.windows.net/{self.tenant}/",
            "iat": now,
            "nbf": now - 60,
            "exp": now + 3600,
            "appid": PUBLISHER,
            "tid": self.tenant,
            "ver": "1.0",
        }
        return self.sign({**claims, **changed})

    def expire_access_tokens(self) -> None:
        """Graph answers 401 to every access token given out so far."""
        self.grants.clear()

    async def _discovery(self, request: web.Request) -> web.Response:
        self.requests.append("discovery")
        base = f"{self.base}/{request.match_info['tenant']}"
        return web.json_response(
            {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "jwks_uri": f"{base}/discovery/v2.0/keys",
                "end_session_endpoint": f"{base}/oauth2/v2.0/logout",
                "response_types_supported": ["code"],
                "scopes_supported": sorted(_RESERVED),
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def _instance(self, request: web.Request) -> web.Response:
        host = self.base.removeprefix("https://")
        return web.json_response(
            {
                "tenant_discovery_endpoint": (
                    f"{self.base}/{self.tenant}/v2.0/.well-known/openid-configuration"
                ),
                "api-version": "1.1",
                "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
            }
        )

    async def _keys(self, _: web.Request) -> web.Response:
        self.requests.append("keys")
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return web.json_response({"keys": [{**public, "kid": self.key_id, "use": "sig", "alg": "RS256"}]})

    async def _authorize(self, request: web.Request) -> web.Response:
        self.requests.append("authorize")
        asked = request.query
        redirect = asked.get("redirect_uri", "")
        if asked.get("client_id") != self.registration.client_id:
            return web.Response(status=400, text="AADSTS700016: application not found")
        if redirect not in self.registration.redirect_uris:
            return web.Response(status=400, text="AADSTS50011: the redirect URI is not registered")
        back: dict[str, str] = {"state": asked.get("state", "")}
        scopes = asked.get("scope", "").split()
        user = self._user(asked.get("login_hint", ""))
        plain = [scope for scope in scopes if scope not in _RESERVED]
        missing = [one for one in plain if _bare(one) not in self.registration.scopes]
        if asked.get("response_type") != "code" or asked.get("code_challenge_method") != "S256":
            back |= {
                "error": "invalid_request",
                "error_description": "AADSTS900144: PKCE with S256 is needed",
            }
        elif user is None:
            back |= {"error": "login_required", "error_description": "AADSTS50058: nobody is signed in"}
        elif missing:
            back |= {"error": "access_denied", "error_description": "AADSTS65004: consent was declined"}
        else:
            code = secrets.token_urlsafe(24)
            self.issued.append(code)
            self._codes[code] = _Code(
                user, redirect, asked.get("code_challenge", ""), asked.get("nonce", ""), scopes
            )
            back |= {"code": code, "client_info": self._client_info(user), "session_state": str(uuid.uuid4())}
        if asked.get("response_mode") == "form_post":
            fields = "".join(
                f'<input type="hidden" name="{k}" value="{html.escape(v)}">' for k, v in back.items()
            )
            form = f'<form method="post" action="{redirect}">{fields}</form>'
            script = "<script>document.forms[0].submit()</script>"
            return web.Response(text=f"<!doctype html><body>{form}{script}", content_type="text/html")
        raise web.HTTPFound(f"{redirect}?{urlencode(back)}")

    def _user(self, hint: str) -> str | None:
        if self.impostor is not None:
            return self.impostor
        for oid, user in self.users.items():
            if hint and hint.lower() in (oid, user["userPrincipalName"].lower()):
                return oid
        return next(iter(self.users)) if not hint and len(self.users) == 1 else None

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.requests.append(f"token {form.get('grant_type')}")
        try:
            self._check_client(form)
            match form.get("grant_type"):
                case "authorization_code":
                    return web.json_response(self._by_code(form))
                case "refresh_token":
                    return web.json_response(self._by_refresh(form))
                case "client_credentials":
                    return web.json_response(self._for_client(form))
            raise EntraRefusal("unsupported_grant_type", 70003, "The grant type is not supported.")
        except EntraRefusal as refusal:
            body: Json = {
                "error": refusal.error,
                "error_description": f"AADSTS{refusal.number}: {refusal.text}",
                "error_codes": [refusal.number],
                "timestamp": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()),
                "trace_id": str(uuid.uuid4()),
                "correlation_id": request.headers.get("client-request-id", str(uuid.uuid4())),
            }
            if refusal.suberror:
                body["suberror"] = refusal.suberror
            return web.json_response(body, status=refusal.status)

    def _check_client(self, form: Mapping[str, str]) -> None:
        if form.get("client_id") != self.registration.client_id:
            raise EntraRefusal(
                "unauthorized_client",
                700016,
                "Application was not found in the directory.",
            )
        secret = form.get("client_secret", "")
        if secret in self.registration.expired_secrets:
            raise EntraRefusal("invalid_client", 7000222, "The provided client secret keys are expired.", 401)
        if secret not in self.registration.secrets:
            raise EntraRefusal("invalid_client", 7000215, "Invalid client secret provided.", 401)

    def _by_code(self, form: Mapping[str, str]) -> Json:
        code = self._codes.pop(form.get("code", ""), None)
        if code is None or code.redirect_uri != form.get("redirect_uri"):
            raise EntraRefusal("invalid_grant", 70008, "The provided authorization code has expired.")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != code.challenge:
            raise EntraRefusal("invalid_grant", 501481, "The Code_Verifier does not match.")
        return self._for_user(code.user, code.scopes, code.nonce)

    def _by_refresh(self, form: Mapping[str, str]) -> Json:
        known = self._refresh.pop(form.get("refresh_token", ""), None)
        if known is None:
            raise EntraRefusal("invalid_grant", 70008, "The refresh token has expired.")
        user, scopes = known
        if user in self.revoked:
            raise EntraRefusal("invalid_grant", 50173, "The grant was revoked.", suberror="basic_action")
        return self._for_user(user, form.get("scope", "").split() or scopes, "")

    def _for_user(self, user: str, scopes: list[str], nonce: str) -> Json:
        plain = [scope for scope in scopes if scope not in _RESERVED]
        if any(_bare(scope) not in self.registration.scopes for scope in plain):
            raise EntraRefusal(
                "invalid_grant", 65001, "The user has not consented.", suberror="consent_required"
            )
        about = self.users[user]
        now = int(time.time())
        refresh = secrets.token_urlsafe(48)
        self.issued.append(refresh)
        self._refresh[refresh] = (user, scopes)
        claims: Json = {
            "iss": f"{self.base}/{self.tenant}/v2.0",
            "aud": self.registration.client_id,
            "sub": f"sub-{user}",
            "oid": user,
            "tid": self.tenant,
            "preferred_username": about["userPrincipalName"],
            "name": about["displayName"],
            "iat": now,
            "nbf": now,
            "exp": now + self.lifetime,
            "ver": "2.0",
        }
        if nonce:
            claims["nonce"] = nonce
        id_token = self.sign({**claims, **self.claims})
        self.issued.append(id_token)
        return {
            "token_type": "Bearer",
            "scope": " ".join(plain),
            "expires_in": self.lifetime,
            "ext_expires_in": self.lifetime,
            "access_token": self._access(user, frozenset(_bare(scope) for scope in plain)),
            "refresh_token": refresh,
            "id_token": id_token,
            "client_info": self._client_info(user),
        }

    def _for_client(self, form: Mapping[str, str]) -> Json:
        if not form.get("scope", "").endswith("/.default"):
            raise EntraRefusal("invalid_scope", 70011, "The provided value for 'scope' is not valid.")
        return {
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "ext_expires_in": self.lifetime,
            "access_token": self._access(None, frozenset(self.registration.app_roles)),
        }

    def _access(self, user: str | None, permissions: frozenset[str]) -> str:
        now = int(time.time())
        kind = (
            {"roles": sorted(permissions), "idtyp": "app"}
            if user is None
            else {"scp": " ".join(sorted(permissions)), "oid": user}
        )
        token = self.sign(
            {"tid": self.tenant, "jti": secrets.token_hex(8), "exp": now + self.lifetime, **kind}
        )
        self.issued.append(token)
        self.grants[token] = Grant(self.registration.client_id, user, permissions, now + self.lifetime)
        return token

    def _client_info(self, user: str) -> str:
        info = json.dumps({"uid": user, "utid": self.tenant}).encode()
        return base64.urlsafe_b64encode(info).rstrip(b"=").decode()


def _bare(scope: str) -> str:
    """`https://graph.microsoft.com/User.Read` and `User.Read` are the same."""
    return scope.rpartition("/")[2]
