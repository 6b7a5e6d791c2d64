"""TLS for SIP: contexts for both roles, verification of peers, hot reload (facts direct-routing 1.3-1.5,
T7-T9, T22).

Peers that dial us present a certificate that since 2026 allows serverAuth only, and OpenSSL refuses such
a client certificate by purpose. Python's ssl cannot set the purpose, so it is set on the SSL_CTX below:
purpose "any" for the TLS engine, which goes on verifying signature chain, dates, CA flags and path
lengths; the extended key usage of the peer's own certificate is then looked at here: serverAuth,
clientAuth, any, or no such extension.
"""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import logging
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.errors import TransportError

log = logging.getLogger("tandem.sip.tls")

_T = TypeVar("_T", bound=x509.ExtensionType)
X509_PURPOSE_ANY = 7
_ACCEPTED_USAGE = frozenset(
    {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    }
)
# TLS 1.2 suites Direct Routing offers, and their like for other peers; 1.3 suites are OpenSSL's own.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE-RSA-AES256-SHA384:ECDHE-RSA-AES128-SHA256:!aNULL:!eNULL:!MD5"


@dataclass(frozen=True)
class TlsSettings:
    """PEM files. `certificate` is the full chain, leaf first; `trusted_roots` may hold any number of roots.

    Without `trusted_roots` no peer can be verified: outbound connections are refused and client
    certificates are not asked for. With `require_client_certificate` whoever dials us must present one
    that verifies; without, one that is presented must verify nevertheless.
    """

    certificate: Path | None = None
    private_key: Path | None = None
    trusted_roots: Path | None = None
    require_client_certificate: bool = False


class TlsContexts:
    """The two contexts made of the files as they are now; `refresh` makes new ones when a file changed.

    TransportError when the files cannot be used at start; later the old contexts stay and the failure is
    logged.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self.settings = settings
        self.generation = 0
        self.expires: datetime | None = None
        """When our own certificate ends; None without one."""
        self._seen = self._fingerprint()
        self.server, self.client = self._build()

    def refresh(self) -> bool:
        """True when files changed and are in use now. Looks at the files, so seconds apart, not per
        connection.
        """
        seen = self._fingerprint()
        if seen == self._seen:
            return False
        try:
            server, client = self._build()
        except TransportError as error:
            # Certificate and key are written one after the other: the next look may find them matching.
            log.error("event=tls-reload-failed reason=%r kept=previous", error.text)
            return False
        self._seen = seen
        self.server, self.client = server, client
        self.generation += 1
        log.info("event=tls-reloaded generation=%s expires=%s", self.generation, self.expires)
        return True

    def _fingerprint(self) -> tuple[tuple[int, int, int] | None, ...]:
        paths = (self.settings.certificate, self.settings.private_key, self.settings.trusted_roots)
        return tuple(_file_state(path) for path in paths)

    def _build(self) -> tuple[ssl.SSLContext | None, ssl.SSLContext]:
        try:
            client = self._client()
            server = self._server() if self.settings.certificate is not None else None
            self._read_own_certificate()
        except (OSError, ValueError) as error:
            raise TransportError(f"TLS files cannot be used: {error}") from error
        return server, client

    def _load(self, context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        settings = self.settings
        if settings.certificate is not None:
            context.load_cert_chain(settings.certificate, settings.private_key)
        if settings.trusted_roots is not None:
            context.load_verify_locations(settings.trusted_roots)

    def _client(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._load(context)
        return context

    def _server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(context)
        settings = self.settings
        if settings.trusted_roots is not None:
            required = settings.require_client_certificate
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
            accept_any_purpose(context)
        elif settings.require_client_certificate:
            raise ValueError("client certificates are required but there are no trusted_roots")
        # A resumed session would keep an identity that was verified under certificates of yesterday.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        return context

    def _read_own_certificate(self) -> None:
        if self.settings.certificate is None:
            return
        leaf = x509.load_pem_x509_certificate(self.settings.certificate.read_bytes())
        self.expires = leaf.not_valid_after_utc
        if not isinstance(leaf.public_key(), rsa.RSAPublicKey):
            log.warning("event=certificate-not-rsa cure='Direct Routing accepts RSA keys only (T7)'")


def verified_names(der: bytes | None) -> frozenset[str]:
    """SAN dNSNames, lower case, of a peer certificate that OpenSSL has verified; empty without a certificate.

    TransportError when its extended key usage allows neither serverAuth nor clientAuth.
    """
    if der is None:
        return frozenset()
    try:
        certificate = x509.load_der_x509_certificate(der)
        usage = _extension(certificate, x509.ExtendedKeyUsage)
        names = _extension(certificate, x509.SubjectAlternativeName)
    except ValueError as error:
        raise TransportError(f"peer certificate cannot be read: {error}") from error
    if usage is not None and _ACCEPTED_USAGE.isdisjoint(usage):
        raise TransportError("peer certificate is neither for server nor for client authentication")
    if names is None:
        return frozenset()
    return frozenset(name.lower() for name in names.get_values_for_type(x509.DNSName))


def name_matches(wanted: str, names: frozenset[str]) -> bool:
    """Does one of the certificate's names cover `wanted`? A wildcard covers one label, the leftmost (T7)."""
    wanted = wanted.lower().rstrip(".")
    parent = wanted.partition(".")[2]
    return wanted in names or ("." in parent and f"*.{parent}" in names)


def refusal(error: Exception) -> str:
    """One word for why a handshake failed; used as counter `tls_refused_<word>` and in the log."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        if code in (18, 19):
            # 19: the chain ends in a root that is not ours; alone in its chain the peer is its own issuer.
            return "self_signed" if code == 18 else "rogue_ca"
        return {
            2: "rogue_ca", 20: "rogue_ca", 21: "rogue_ca", 9: "not_yet_valid", 10: "expired",
            26: "purpose", 62: "wrong_name", 64: "wrong_name",
        }.get(code, "certificate")  # fmt: skip
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "no_certificate"
        if reason in ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "WRONG_SSL_VERSION"):
            return "version"
        if reason in ("NO_SHARED_CIPHER", "SSLV3_ALERT_HANDSHAKE_FAILURE"):
            return "cipher"
        if "ALERT" in reason:
            return "by_peer"
        if reason in ("HTTP_REQUEST", "WRONG_VERSION_NUMBER"):
            return "not_tls"
        return "handshake"
    # asyncio calls its handshake time-out an aborted connection.
    return "timeout" if isinstance(error, TimeoutError | ConnectionAbortedError) else "connection"


def accept_any_purpose(context: ssl.SSLContext) -> None:
    """X509_VERIFY_PARAM_set_purpose(ANY) on a server context. ValueError where this Python does not let us.

    CPython keeps the SSL_CTX pointer first in its context object. That the pointer is what we think is
    proven by asking OpenSSL for two values that Python set; the symbols come from the very libssl that
    `_ssl` is linked to.
    """
    try:
        library = ctypes.CDLL(_ssl.__file__)
        get_mode, get_options = library.SSL_CTX_get_verify_mode, library.SSL_CTX_get_options
        get_param, set_purpose = library.SSL_CTX_get0_param, library.X509_VERIFY_PARAM_set_purpose
    except (AttributeError, OSError) as error:
        raise ValueError(f"this Python's ssl module hides OpenSSL: {error}") from error
    get_mode.argtypes = get_options.argtypes = get_param.argtypes = [ctypes.c_void_p]
    get_mode.restype, get_options.restype, get_param.restype = ctypes.c_int, ctypes.c_uint64, ctypes.c_void_p
    set_purpose.argtypes = [ctypes.c_void_p, ctypes.c_int]
    set_purpose.restype = ctypes.c_int
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    peer_bits = {ssl.CERT_NONE: 0, ssl.CERT_OPTIONAL: 1, ssl.CERT_REQUIRED: 3}[context.verify_mode]
    if (
        pointer is None
        or get_mode(pointer) & 3 != peer_bits
        or get_options(pointer) & 0xFFFFFFFF != context.options & 0xFFFFFFFF
    ):
        raise ValueError("this Python keeps its SSL_CTX elsewhere; client certificates cannot be verified")
    if set_purpose(get_param(pointer), X509_PURPOSE_ANY) != 1:
        raise ValueError("OpenSSL refused the certificate purpose")


def _extension(certificate: x509.Certificate, kind: type[_T]) -> _T | None:
    with contextlib.suppress(x509.ExtensionNotFound):
        return certificate.extensions.get_extension_for_class(kind).value
    return None


def _file_state(path: Path | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino
