"""The files that tandem.toml names: can they be read, and do they say what they must?"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.config_checks import Problem
from gateway.config_models import Config

EXPIRY_NOTICE = timedelta(days=21)


def file_problems(config: Config) -> Iterator[Problem]:
    """What keeps a file from being used: unreadable, not PEM, key of another, names missing."""
    sip = config.sip
    chain = None
    if sip.certificate is not None:
        try:
            chain = _certificates(sip.certificate)
        except ValueError as error:
            yield Problem(
                ("sip", "certificate"), str(error), "a PEM file: our certificate, then the intermediates"
            )
    if sip.private_key is not None:
        try:
            key = _public_key(sip.private_key)
        except ValueError as error:
            yield Problem(
                ("sip", "private_key"), str(error), "an unencrypted PEM private key, readable by us"
            )
        else:
            if chain and _spki(chain[0]) != key:
                yield Problem(("sip", "private_key"), f"{sip.private_key} is not the key of the certificate")
    if sip.trusted_roots is not None:
        try:
            _certificates(sip.trusted_roots)
        except ValueError as error:
            yield Problem(("sip", "trusted_roots"), str(error), "a PEM bundle of root certificates")
    if chain:
        yield from _tenant_names(config, chain[0])
    if config.media.music is not None:
        try:
            with config.media.music.open("rb") as file:
                if not file.read(1):
                    yield Problem(("media", "music"), f"{config.media.music} is empty")
        except OSError as error:
            yield Problem(
                ("media", "music"),
                f"cannot read {config.media.music}: {error.strerror}",
                "a WAV or raw sound file",
            )


def file_warnings(config: Config, now: datetime | None = None) -> Iterator[Problem]:
    """What works today and needs somebody's attention."""
    now = now or datetime.now(UTC)
    if config.sip.certificate is not None:
        leaf = _certificates(config.sip.certificate)[0]
        end = leaf.not_valid_after_utc
        if end <= now:
            yield Problem(("sip", "certificate"), f"the certificate ended on {end:%Y-%m-%d}", "renew it")
        elif end - now < EXPIRY_NOTICE:
            yield Problem(("sip", "certificate"), f"the certificate ends on {end:%Y-%m-%d}", "renew it")
        direct = any(trunk.direct_routing for trunk in config.trunks)
        if direct and not isinstance(leaf.public_key(), rsa.RSAPublicKey):
            yield Problem(
                ("sip", "certificate"), "not an RSA key: Teams has no cipher for it (T7)", "RSA, 2048 bits"
            )
    for index, trunk in enumerate(config.trunks):
        if trunk.direct_routing and config.media.public_address is None:
            address = ipaddress.ip_address(config.media.address)
            if not address.is_global:
                yield Problem(
                    ("media", "address"),
                    f"{address} is what trunk {trunk.name!r} tells Teams to send media to, and is not public",
                    "set public_address",
                )
        if all(route.source != trunk.name for route in config.routes):
            yield Problem(
                ("trunk", index), f"no route leads from {trunk.name!r}: its calls get 404", "add a [[route]]"
            )
    if not config.trunks:
        yield Problem((), "there is no trunk, so no call can be made or taken", "add a [[trunk]]")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        text = str(error)
        raise ValueError(
            text if text.startswith("cannot read") else f"{path} holds no PEM certificate"
        ) from None
    return found


def _public_key(path: Path) -> bytes:
    data = _read(path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"{path} holds no usable private key") from None
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _tenant_names(config: Config, leaf: x509.Certificate) -> Iterator[Problem]:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]
    except x509.ExtensionNotFound:
        names = []
    for index, trunk in enumerate(config.trunks):
        for number, tenant in enumerate(trunk.tenants):
            parent = "*." + tenant.partition(".")[2]
            if tenant not in names and parent not in names:
                yield Problem(
                    ("trunk", index, "tenants", number),
                    f"the certificate does not name {tenant!r}",
                    "it names " + (", ".join(names) or "nobody") + "; Teams answers 403 (T1)",
                )
