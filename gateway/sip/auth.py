"""Digest authentication as a client (RFC 7616, RFC 3261 22): MD5, SHA-256, SHA-512-256, qop auth and
auth-int.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from sipmessage import Headers

from gateway.sip.message import Response
from gateway.sip.profile import Credentials

_HASHES = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}
_PREFERENCE = ("SHA-512-256", "SHA-256", "MD5")
_PARAMETER = re.compile(r'([A-Za-z0-9_.-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')
_PLACES = (
    ("WWW-Authenticate", "Authorization", 401),
    ("Proxy-Authenticate", "Proxy-Authorization", 407),
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One Digest challenge we are able to answer.

    header: the request header the answer goes into; qop: "auth", "auth-int" or "" (RFC 2069 style)
    """

    header: str
    realm: str
    nonce: str
    opaque: str | None
    algorithm: str
    qop: str
    stale: bool
    algorithm_given: bool

    @property
    def digest_name(self) -> str:
        return self.algorithm.upper().removesuffix("-SESS")


def parse_challenges(headers: Headers) -> list[Challenge]:
    """Every usable Digest challenge, best algorithm first for each realm; others (Basic, unknown hash) are
    left out.
    """
    found: list[Challenge] = []
    for name, answer, _ in _PLACES:
        for value in headers.getlist(name):
            challenge = _parse(value, answer)
            if challenge is not None:
                found.append(challenge)
    found.sort(key=lambda challenge: _PREFERENCE.index(challenge.digest_name))
    return found


def _parse(value: str, answer_header: str) -> Challenge | None:
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() != "digest":
        return None
    values = {
        match.group(1).lower(): _unescape(match.group(2)) if match.group(2) is not None else match.group(3)
        for match in _PARAMETER.finditer(rest)
    }
    algorithm = values.get("algorithm", "MD5")
    name = _HASHES.get(algorithm.upper().removesuffix("-SESS"))
    if name is None or name not in hashlib.algorithms_available or "nonce" not in values:
        return None
    offered = [token.strip().lower() for token in values.get("qop", "").split(",") if token.strip()]
    if offered and not {"auth", "auth-int"} & set(offered):
        return None
    return Challenge(
        header=answer_header,
        realm=values.get("realm", ""),
        nonce=values["nonce"],
        opaque=values.get("opaque"),
        algorithm=algorithm,
        qop="auth" if "auth" in offered else "auth-int" if offered else "",
        stale=values.get("stale", "").lower() == "true",
        algorithm_given="algorithm" in values,
    )


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def digest_response(
    challenge: Challenge,
    credentials: Credentials,
    method: str,
    uri: str,
    body: bytes,
    *,
    cnonce: str,
    count: int,
) -> str:
    """The value of the Authorization header (RFC 7616 3.4.1); `count` is the use of this nonce, from 1."""

    def h(text: str | bytes) -> str:
        data = text.encode() if isinstance(text, str) else text
        return hashlib.new(_HASHES[challenge.digest_name], data).hexdigest()

    a1 = h(f"{credentials.username}:{challenge.realm}:{credentials.password}")
    if challenge.algorithm.upper().endswith("-SESS"):
        a1 = h(f"{a1}:{challenge.nonce}:{cnonce}")
    a2 = f"{method}:{uri}" + (f":{h(body)}" if challenge.qop == "auth-int" else "")
    nc = f"{count:08x}"
    middle = f"{challenge.nonce}:{nc}:{cnonce}:{challenge.qop}" if challenge.qop else challenge.nonce
    parts = [
        f"username={_quoted(credentials.username)}",
        f"realm={_quoted(challenge.realm)}",
        f"nonce={_quoted(challenge.nonce)}",
        f"uri={_quoted(uri)}",
        f'response="{h(f"{a1}:{middle}:{h(a2)}")}"',
    ]
    if challenge.algorithm_given:
        parts.append(f"algorithm={challenge.algorithm}")
    if challenge.qop or challenge.algorithm.upper().endswith("-SESS"):
        parts.append(f'cnonce="{cnonce}"')
    if challenge.qop:
        parts.extend([f"qop={challenge.qop}", f"nc={nc}"])
    if challenge.opaque is not None:
        parts.append(f"opaque={_quoted(challenge.opaque)}")
    return "Digest " + ", ".join(parts)


class Authenticator:
    """Answers challenges for one relation and remembers the nonces, so that later requests come with an
    answer.

    One per session (or per OPTIONS/REGISTER user). Never logs and never repeats the password.
    """

    def __init__(
        self, credentials: Credentials | None, new_cnonce: Callable[[], str] = lambda: secrets.token_hex(8)
    ) -> None:
        self._credentials = credentials
        self._new_cnonce = new_cnonce
        self._known: dict[tuple[str, str], tuple[Challenge, int]] = {}

    def learn(self, response: Response, answered: frozenset[tuple[str, str]]) -> bool:
        """Take in a 401/407. True: sending again makes sense.

        `answered` holds the (header, realm) pairs the refused request already answered: another challenge for
        one of them means that the password is wrong, unless it says stale=true.
        """
        if self._credentials is None or response.code not in (401, 407):
            return False
        fresh: dict[tuple[str, str], Challenge] = {}
        for challenge in parse_challenges(response.headers):
            if self._credentials.realm and challenge.realm != self._credentials.realm:
                continue
            fresh.setdefault((challenge.header, challenge.realm), challenge)
        if not fresh or any(key in answered and not challenge.stale for key, challenge in fresh.items()):
            for key in fresh:
                self._known.pop(key, None)
            return False
        for key, challenge in fresh.items():
            known = self._known.get(key)
            used = known[1] if known is not None and known[0].nonce == challenge.nonce else 0
            self._known[key] = (challenge, used)
        return True

    def answers(self, method: str, uri: str, body: bytes) -> list[tuple[str, str]]:
        """Authorization headers for a request about to be sent; each call counts the nonces up."""
        if self._credentials is None:
            return []
        headers: list[tuple[str, str]] = []
        for key, (challenge, used) in self._known.items():
            self._known[key] = (challenge, used + 1)
            value = digest_response(
                challenge,
                self._credentials,
                method,
                uri,
                body,
                cnonce=self._new_cnonce(),
                count=used + 1,
            )
            headers.append((challenge.header, value))
        return headers

    @property
    def realms(self) -> frozenset[tuple[str, str]]:
        """The (header, realm) pairs that `answers` will answer."""
        return frozenset(self._known)
