"""Graph's change notifications: handshake, encryption, delivery with retries, life times, lifecycle events.

Facts/graph.md 3. Departures: plain http notification addresses are taken (the tests' receiver has no
certificate); the slow-endpoint penalty is missing; retries back off 10, 20, 40 … s for 4 h by our clock.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import ssl
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlencode

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric import padding as asymmetric
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from gateway.clock import Clock, TimerHandle
from tests.peers.entra import Entra, Grant
from tests.peers.graph_permissions import check_subscription
from tests.peers.graph_wire import Json, Refusal, moment_of, stamp

_PRESENCE_LIFE = timedelta(minutes=60)
_MESSAGE_LIFE = timedelta(minutes=4320)
_RETRY_FOR = 4 * 3600.0
_FILTER = re.compile(r"communications/presences\?\$filter=id in \((?P<ids>.*)\)")
_IDS_LIMIT = 650


@dataclass
class Subscription:
    id: str
    resource: str
    change_types: frozenset[str]
    url: str
    lifecycle_url: str
    client_state: str
    certificate: bytes
    certificate_id: str
    expires: datetime
    owner: str | None
    with_content: bool
    paused: bool = False

    def covers(self, resource: str) -> bool:
        listed = _FILTER.fullmatch(self.resource)
        if listed:
            return resource.rpartition("/")[2] in listed["ids"].replace("'", "").replace(" ", "").split(",")
        return self.resource == resource

    def shown(self) -> Json:
        return {
            "id": self.id,
            "resource": self.resource,
            "changeType": ",".join(sorted(self.change_types)),
            "notificationUrl": self.url,
            "lifecycleNotificationUrl": self.lifecycle_url or None,
            "clientState": None,
            "expirationDateTime": stamp(self.expires),
            "includeResourceData": self.with_content,
            "encryptionCertificateId": self.certificate_id or None,
            "creatorId": self.owner,
        }


@dataclass
class Delivery:
    """How notifications travel from now on; tests set it."""

    delay: float = 0.0
    copies: int = 1
    lose: int = 0
    """So many of the next ones are lost for good."""
    tamper: Callable[[Json], None] | None = None
    """Changes a whole POST before it goes."""
    hold: list[Callable[[], None]] | None = None
    """A list takes what would go: `release` sends it in any order."""
    statuses: list[int] = field(default_factory=list)
    """What receivers answered, newest last; 0 for nothing."""


class Subscriptions:
    def __init__(self, clock: Clock, entra: Entra) -> None:
        self._clock, self._entra = clock, entra
        self.all: dict[str, Subscription] = {}
        self.delivery = Delivery()
        self.refuse_renewal = False
        self.forget_on_renewal_seconds: float | None = None
        """A renewal gives only so many seconds more (facts/graph.md 3.1: presence has a bad record)."""
        self.trust: ssl.SSLContext | None = None
        """Whom we believe a notificationUrl with https; None = whom everybody believes."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[TimerHandle] = set()
        self._http: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def create(self, body: Json, grant: Grant) -> Json:
        resource = str(body.get("resource", "")).lstrip("/")
        if resource.startswith("me/") and grant.user is not None:
            resource = f"users/{grant.user}/{resource[3:]}"
        presence = resource.startswith("communications/presences")
        check_subscription(resource, grant)
        expires = self._expiry(body, presence)
        changes = frozenset(str(body.get("changeType", "")).split(","))
        with_content = bool(body.get("includeResourceData"))
        lifecycle = str(body.get("lifecycleNotificationUrl") or "")
        if presence and changes != {"updated"}:
            raise Refusal(400, "InvalidRequest", "Presence supports changeType updated only.")
        if expires - self._clock.wall() > timedelta(hours=1) and not lifecycle:
            raise Refusal(400, "InvalidRequest", "lifecycleNotificationUrl is required beyond one hour.")
        certificate = base64.b64decode(body.get("encryptionCertificate") or "")
        if with_content and not (certificate and body.get("encryptionCertificateId")):
            raise Refusal(400, "InvalidRequest", "encryptionCertificate and its id are required.")
        if len(str(body.get("clientState", ""))) > 128:
            raise Refusal(400, "InvalidRequest", "clientState is longer than 128 characters.")
        listed = _FILTER.fullmatch(resource)
        if listed and len(listed["ids"].split(",")) > _IDS_LIMIT:
            raise Refusal(400, "InvalidRequest", "At most 650 ids.")
        self._check_quota(resource, grant, presence)
        url = str(body.get("notificationUrl", ""))
        await self._handshake(url)
        if lifecycle:
            await self._handshake(lifecycle)
        made = Subscription(
            str(uuid.uuid4()), resource, changes, url, lifecycle, str(body.get("clientState", "")),
            certificate, str(body.get("encryptionCertificateId", "")), expires, grant.user, with_content,
        )  # fmt: skip
        self.all[made.id] = made
        return made.shown()

    def _expiry(self, body: Json, presence: bool) -> datetime:
        expires = moment_of(str(body.get("expirationDateTime", "")))
        longest = _PRESENCE_LIFE if presence else _MESSAGE_LIFE
        left = expires - self._clock.wall()
        if not timedelta(0) < left <= longest:
            raise Refusal(400, "InvalidRequest", "Subscription expiration is outside what is allowed.")
        return expires

    def _check_quota(self, resource: str, grant: Grant, presence: bool) -> None:
        mine = [one for one in self._live() if one.owner == grant.user]
        if presence and any(one.resource.startswith("communications/presences") for one in mine):
            raise Refusal(403, "Forbidden", "Limit of 1 presence subscription per user and app is reached.")
        if resource.endswith("getAllMessages") and sum(one.resource == resource for one in mine) >= 10:
            raise Refusal(403, "Forbidden", "Limit of 10 subscriptions per user is reached.")
        if resource.endswith("/messages") and any(one.resource == resource for one in self._live()):
            raise Refusal(403, "Forbidden", "Limit of 1 subscription per app and chat or channel is reached.")

    def _live(self) -> list[Subscription]:
        now = self._clock.wall()
        self.all = {key: one for key, one in self.all.items() if one.expires > now}
        return list(self.all.values())

    def listed(self, grant: Grant) -> list[Json]:
        return [one.shown() for one in self._live() if one.owner == grant.user]

    def find(self, key: str, grant: Grant) -> Subscription:
        self._live()
        found = self.all.get(key)
        if found is None or found.owner != grant.user:
            raise Refusal(404, "ResourceNotFound", "The subscription was not found.")
        return found

    def renew(self, key: str, body: Json, grant: Grant) -> Json:
        found = self.find(key, grant)
        presence = found.resource.startswith("communications/presences")
        if self.refuse_renewal:
            raise Refusal(400, "BadRequest", "PATCH is not supported for this resource.")
        expires = self._expiry(body, presence)
        if self.forget_on_renewal_seconds is not None:
            expires = self._clock.wall() + timedelta(seconds=self.forget_on_renewal_seconds)
        found.expires, found.paused = expires, False
        if body.get("encryptionCertificate"):
            found.certificate = base64.b64decode(body["encryptionCertificate"])
            found.certificate_id = str(body.get("encryptionCertificateId", ""))
        return found.shown()

    def reauthorize(self, key: str, grant: Grant) -> None:
        self.find(key, grant).paused = False

    def remove(self, key: str, grant: Grant) -> None:
        found = self.find(key, grant)
        del self.all[found.id]

    async def _handshake(self, url: str) -> None:
        """Facts/graph.md 3.2: the token comes back within 10 s as plain text, nothing else."""
        token = f"Validation: Testing client application reachability for subscription {secrets.token_hex(8)}"
        joint = "&" if "?" in url else "?"
        refusal = Refusal(400, "InvalidRequest", "Subscription validation request failed.")
        try:
            async with asyncio.timeout(10):
                async with (await self._session()).post(
                    f"{url}{joint}{urlencode({'validationToken': token})}",
                    headers={"Content-Type": "text/plain; charset=utf-8"},
                ) as answer:
                    text = await answer.text()
                    kind = answer.headers.get("Content-Type", "")
                    if answer.status != 200 or text != token or not kind.startswith("text/plain"):
                        raise refusal
        except (aiohttp.ClientError, TimeoutError, ValueError):
            raise refusal from None

    async def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            connector = aiohttp.TCPConnector(ssl=self.trust) if self.trust is not None else None
            self._http = aiohttp.ClientSession(connector=connector)
        return self._http

    def changed(self, resource: str, change: str, shown: str, content: Json) -> None:
        """Tell every subscription that covers `resource`; `shown` is how notifications name it."""
        for one in self._live():
            if one.covers(resource) and change in one.change_types and not one.paused:
                item = self._item(one, change, shown, content)
                self._send_later(one.url, {"value": [item], "validationTokens": self._tokens(one)})

    def lifecycle(self, key: str, event: str) -> None:
        """reauthorizationRequired, subscriptionRemoved or missed."""
        one = self.all[key]
        if event == "subscriptionRemoved":
            del self.all[key]
        item: Json = {
            "subscriptionId": one.id,
            "subscriptionExpirationDateTime": stamp(one.expires),
            "tenantId": self._entra.tenant,
            "clientState": one.client_state,
            "lifecycleEvent": event,
        }
        self._send_later(one.lifecycle_url or one.url, {"value": [item]})

    def release(self, *order: int) -> None:
        """Send what `delivery.hold` gathered, in this order; all in their order without one."""
        held, self.delivery.hold = self.delivery.hold or [], None
        for index in order or range(len(held)):
            held[index]()

    def _tokens(self, one: Subscription) -> list[str]:
        return [self._entra.validation_token()] if one.with_content else []

    def _item(self, one: Subscription, change: str, shown: str, content: Json) -> Json:
        item: Json = {
            "id": str(uuid.uuid4()),
            "subscriptionId": one.id,
            "subscriptionExpirationDateTime": stamp(one.expires),
            "clientState": one.client_state,
            "changeType": change,
            "tenantId": self._entra.tenant,
            "resource": shown,
            "resourceData": {"@odata.id": shown, "id": content.get("id")},
        }
        if one.with_content:
            item["encryptedContent"] = encrypt(content, one.certificate, one.certificate_id)
        return item

    def _send_later(self, url: str, body: Json) -> None:
        delivery = self.delivery
        if delivery.lose:
            delivery.lose -= 1
            return
        if delivery.tamper is not None:
            delivery.tamper(body)
        began = self._clock.now()
        for _ in range(delivery.copies):
            if delivery.hold is not None:
                delivery.hold.append(lambda: self._spawn(url, body, 10.0, began))
            elif delivery.delay:
                self._spawn_later(delivery.delay, url, body, 10.0, began)
            else:
                self._spawn(url, body, 10.0, began)

    def _spawn(self, url: str, body: Json, backoff: float, began: float) -> None:
        task = asyncio.get_running_loop().create_task(self._post(url, body, backoff, began))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _spawn_later(self, seconds: float, url: str, body: Json, backoff: float, began: float) -> None:
        def due() -> None:
            self._timers.discard(timer)
            self._spawn(url, body, backoff, began)

        timer = self._clock.call_later(seconds, due)
        self._timers.add(timer)

    async def _post(self, url: str, body: Json, backoff: float, began: float) -> None:
        status = 0
        try:
            async with asyncio.timeout(10), (await self._session()).post(url, json=body) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError):
            pass
        self.delivery.statuses.append(status)
        if not 200 <= status < 300 and self._clock.now() + backoff - began < _RETRY_FOR:
            self._spawn_later(backoff, url, body, backoff * 2, began)

    @property
    def idle(self) -> bool:
        """No delivery is on its way at this moment."""
        return not self._tasks


def encrypt(content: Json, certificate: bytes, certificate_id: str) -> Json:
    """Facts/graph.md 3.4: a fresh AES key in RSA-OAEP (SHA-1), AES-256-CBC, HMAC over the ciphertext."""
    loaded = x509.load_der_x509_certificate(certificate)
    public = loaded.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    key = os.urandom(32)
    padder = padding.PKCS7(128).padder()
    plain = padder.update(json.dumps(content).encode()) + padder.finalize()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).encryptor()
    data = encryptor.update(plain) + encryptor.finalize()
    sealed = public.encrypt(key, asymmetric.OAEP(asymmetric.MGF1(hashes.SHA1()), hashes.SHA1(), None))
    return {
        "data": base64.b64encode(data).decode(),
        "dataKey": base64.b64encode(sealed).decode(),
        "dataSignature": base64.b64encode(hmac.new(key, data, hashlib.sha256).digest()).decode(),
        "encryptionCertificateId": certificate_id,
        "encryptionCertificateThumbprint": loaded.fingerprint(hashes.SHA1()).hex().upper(),
    }
