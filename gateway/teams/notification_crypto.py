"""Who sent a notification and what is in it (facts/graph.md 3.4, 3.5)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import padding as asymmetric
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.x509.oid import NameOID

from gateway.clock import Clock
from gateway.teams.clouds import Cloud
from gateway.teams.errors import TeamsError

log = logging.getLogger("tandem.teams")

PUBLISHER = "0bf30f3b-4a52-48df-9a82-234910c4a086"
"""Application id of Graph's change notifications."""
_LIFE = timedelta(days=730)
_KEYS_TIMEOUT = aiohttp.ClientTimeout(total=10)
_REFETCH = 60.0
_LEEWAY = 300


class Forged(TeamsError):
    """A notification that is not what Graph would have sent us. `reason` is bounded."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class ContentKey:
    """A key pair whose certificate Graph encrypts with; `id` names it in subscriptions."""

    id: str
    key: rsa.RSAPrivateKey
    certificate: bytes

    @classmethod
    def make(cls) -> ContentKey:
        """A new one, self-signed, RSA 2048."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tandem notifications")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + _LIFE)
            .sign(key, hashes.SHA256())
        )
        der = certificate.public_bytes(serialization.Encoding.DER)
        return cls(hashlib.sha256(der).hexdigest()[:32], key, der)

    def document(self) -> dict[str, Any]:
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {"key": pem.decode(), "certificate": base64.b64encode(self.certificate).decode()}

    @classmethod
    def of(cls, key_id: str, document: Mapping[str, Any]) -> ContentKey:
        key = serialization.load_pem_private_key(document["key"].encode(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return cls(key_id, key, base64.b64decode(document["certificate"]))

    @property
    def written(self) -> str:
        """As a subscription carries it."""
        return base64.b64encode(self.certificate).decode()


def decrypt(sealed: Mapping[str, Any], keys: Mapping[str, ContentKey]) -> dict[str, Any]:
    """The resource in `encryptedContent`; the HMAC is compared before anything is decrypted. Forged."""
    owner = keys.get(str(sealed.get("encryptionCertificateId")))
    if owner is None:
        raise Forged("unknown_certificate")
    try:
        wrapped = base64.b64decode(str(sealed["dataKey"]), validate=True)
        data = base64.b64decode(str(sealed["data"]), validate=True)
        signature = base64.b64decode(str(sealed["dataSignature"]), validate=True)
        key = owner.key.decrypt(wrapped, asymmetric.OAEP(asymmetric.MGF1(hashes.SHA1()), hashes.SHA1(), None))
    except (KeyError, ValueError, binascii.Error):
        raise Forged("bad_key") from None
    if len(key) != 32 or not hmac.compare_digest(hmac.new(key, data, hashlib.sha256).digest(), signature):
        raise Forged("bad_signature")
    try:
        decryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).decryptor()
        unpadder = padding.PKCS7(128).unpadder()
        plain = unpadder.update(decryptor.update(data) + decryptor.finalize()) + unpadder.finalize()
        found = json.loads(plain)
    except (ValueError, RecursionError):
        raise Forged("bad_content") from None
    if not isinstance(found, dict):
        raise Forged("bad_content")
    return found


class TokenChecker:
    """Checks validationTokens with the keys that Entra ID publishes; a new key is asked for."""

    def __init__(self, cloud: Cloud, tenant: str, client_id: str, clock: Clock) -> None:
        self._cloud, self._tenant, self._client_id, self._clock = cloud, tenant.lower(), client_id, clock
        self._keys: dict[str, Any] = {}
        self._asked: float | None = None
        self._turn = asyncio.Lock()

    async def check(self, tokens: list[str]) -> None:
        """Every one must be good, and there must be one. Forged, UnknownKey, KeysUnavailable."""
        if not tokens:
            raise Forged("no_validation_token")
        for token in tokens:
            await self._check(token)

    async def _check(self, token: str) -> None:
        try:
            kid = str(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                await self._key(kid),
                algorithms=["RS256"],
                audience=self._client_id,
                leeway=_LEEWAY,
                options={"require": ["exp", "aud", "iss"]},
            )
        except jwt.InvalidTokenError as error:
            raise Forged(f"token_{type(error).__name__.lower()}") from None
        issuers = {
            f"https://sts.windows.net/{self._tenant}/",
            f"{self._cloud.authority}/{self._tenant}/v2.0",
        }
        if str(claims["iss"]).lower() not in issuers:
            raise Forged("token_issuer")
        if str(claims.get("tid", "")).lower() != self._tenant:
            raise Forged("token_tenant")
        if claims.get("appid", claims.get("azp")) != PUBLISHER:
            raise Forged("token_publisher")

    async def _key(self, kid: str) -> Any:
        async with self._turn:
            now = self._clock.now()
            if kid not in self._keys and (self._asked is None or now - self._asked >= _REFETCH):
                self._asked = now
                await self._fetch()
        if kid not in self._keys:
            raise UnknownKey
        return self._keys[kid]

    async def _fetch(self) -> None:
        roots = self._cloud.roots
        context = ssl.create_default_context(cafile=str(roots) if roots is not None else None)
        url = f"{self._cloud.authority}/common/discovery/v2.0/keys"
        try:
            async with (
                aiohttp.ClientSession(timeout=_KEYS_TIMEOUT) as http,
                http.get(url, ssl=context, allow_redirects=False) as answer,
            ):
                found = jwt.PyJWKSet.from_dict(await answer.json())
        except (aiohttp.ClientError, TimeoutError, ValueError, jwt.PyJWTError) as error:
            self._asked = None
            log.warning("event=signing_keys_unavailable cause=%s", type(error).__name__)
            raise KeysUnavailable from None
        self._keys = {str(key.key_id): key.key for key in found.keys}


class UnknownKey(TeamsError):
    """Signed with a key that Entra ID has not told of: it may be new, so look again later, for a while."""

    reason = "token_unknown_key"


class KeysUnavailable(TeamsError):
    """Entra ID does not tell its keys now: look at the notification again later."""

    reason = "keys_unavailable"
