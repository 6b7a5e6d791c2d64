"""A test PKI: two authorities, the gateway's and Microsoft's certificates, and each kind of wrong one.

`python -m tests.peers.certs FOLDER` writes it for the demo. Nothing here is a secret: keys live as long as
a test.
"""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
SERVER_ONLY = (ExtendedKeyUsageOID.SERVER_AUTH,)
CLIENT_ONLY = (ExtendedKeyUsageOID.CLIENT_AUTH,)
PROXY_NAMES = ("sip.pstnhub.microsoft.com", "sip2.pstnhub.microsoft.com", "sip3.pstnhub.microsoft.com")
MICROSOFT_NAMES = (*PROXY_NAMES, "sip-all.pstnhub.microsoft.com", "*.pstnhub.microsoft.com")
GATEWAY_NAMES = ("sbc.example.test", "*.sbc.example.test", "*.customers.example.test")

CENTER_NAMES = ("pbx.example.test", "localhost", "127.0.0.1")


@dataclass(frozen=True)
class Identity:
    """PEM files of one certificate: `chain` is leaf then intermediate, `leaf` the leaf alone."""

    chain: Path
    leaf: Path
    key: Path


@dataclass(frozen=True)
class Pki:
    """Every identity by name (see `make_pki`); `roots` the trusted root, `rogue_roots` the other one."""

    folder: Path
    roots: Path
    rogue_roots: Path
    identities: dict[str, Identity]

    def __getitem__(self, name: str) -> Identity:
        return self.identities[name]


class Authority:
    """A root with one intermediate below it, as public authorities work."""

    def __init__(self, name: str) -> None:
        self.root_key = _rsa()
        self.root = _sign(name + " Root", self.root_key, None, self.root_key, authority=True)
        self.key = _rsa()
        self.certificate = _sign(name + " Issuing", self.key, self.root, self.root_key, authority=True)

    def issue(
        self,
        folder: Path,
        file: str,
        names: Sequence[str],
        *,
        usages: Sequence[x509.ObjectIdentifier] = BOTH,
        expired: bool = False,
        curve: bool = False,
    ) -> Identity:
        """A leaf for `names` (SAN; the first is the CN), written into `folder` as FILE.{pem,leaf.pem,key}."""
        key: PrivateKey = ec.generate_private_key(ec.SECP256R1()) if curve else _rsa()
        leaf = _sign(
            names[0],
            key,
            self.certificate,
            self.key,
            names=names,
            usages=usages,
            expired=expired,
            authority=False,
        )
        return _write(folder, file, leaf, [self.certificate], key)


def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _sign(
    common_name: str,
    key: PrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: PrivateKey,
    *,
    authority: bool,
    names: Sequence[str] = (),
    usages: Sequence[x509.ObjectIdentifier] = BOTH,
    expired: bool = False,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=-30 if expired else 365))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=not authority,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=authority,
                crl_sign=authority,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if not authority:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_name(name) for name in names]), critical=False
        ).add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(
    folder: Path, file: str, leaf: x509.Certificate, others: Sequence[x509.Certificate], key: PrivateKey
) -> Identity:
    pem = serialization.Encoding.PEM
    identity = Identity(folder / f"{file}.pem", folder / f"{file}.leaf.pem", folder / f"{file}.key")
    identity.leaf.write_bytes(leaf.public_bytes(pem))
    identity.chain.write_bytes(b"".join(part.public_bytes(pem) for part in (leaf, *others)))
    identity.key.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    identity.key.chmod(0o600)
    return identity


def renew(pki: Pki, name: str, names: Sequence[str]) -> Identity:
    """Replace an identity's files in place by one of a new authority that is added to the roots (T9)."""
    authority = Authority("Tandem Test Renewed")
    with pki.roots.open("ab") as roots:
        roots.write(authority.root.public_bytes(serialization.Encoding.PEM))
    return authority.issue(pki.folder, name, names)


def make_pki(folder: Path, gateway_names: Sequence[str] = GATEWAY_NAMES) -> Pki:
    """Write everything into `folder` (made when missing).

    Identities: gateway, gateway-ecdsa, gateway-expired; contact-center; microsoft and its variants
    microsoft-server-only (the direction public authorities go, T8), -client-only, -expired, -wrong-name,
    -rogue (other authority), -self-signed, -ecdsa.
    """
    folder.mkdir(parents=True, exist_ok=True)
    good, rogue = Authority("Tandem Test"), Authority("Rogue")
    pem = serialization.Encoding.PEM
    roots, rogue_roots = folder / "roots.pem", folder / "rogue-roots.pem"
    roots.write_bytes(good.root.public_bytes(pem))
    rogue_roots.write_bytes(rogue.root.public_bytes(pem))
    alone = _rsa()
    microsoft = tuple(MICROSOFT_NAMES)
    self_signed = _sign(microsoft[0], alone, None, alone, names=microsoft, authority=False)
    return Pki(
        folder,
        roots,
        rogue_roots,
        {
            "gateway": good.issue(folder, "gateway", gateway_names),
            "gateway-ecdsa": good.issue(folder, "gateway-ecdsa", gateway_names, curve=True),
            "gateway-expired": good.issue(folder, "gateway-expired", gateway_names, expired=True),
            "contact-center": good.issue(folder, "contact-center", CENTER_NAMES),
            "microsoft": good.issue(folder, "microsoft", microsoft),
            "microsoft-server-only": good.issue(
                folder, "microsoft-server-only", microsoft, usages=SERVER_ONLY
            ),
            "microsoft-client-only": good.issue(
                folder, "microsoft-client-only", microsoft, usages=CLIENT_ONLY
            ),
            "microsoft-expired": good.issue(folder, "microsoft-expired", microsoft, expired=True),
            "microsoft-wrong-name": good.issue(folder, "microsoft-wrong-name", ("proxy.example.test",)),
            "microsoft-rogue": rogue.issue(folder, "microsoft-rogue", microsoft),
            "microsoft-self-signed": _write(folder, "microsoft-self-signed", self_signed, [], alone),
            "microsoft-ecdsa": good.issue(folder, "microsoft-ecdsa", microsoft, curve=True),
        },
    )


def load_pki(folder: Path) -> Pki:
    """The PKI that `make_pki` wrote earlier, perhaps in another process."""
    files = {path.name.removesuffix(".leaf.pem") for path in folder.glob("*.leaf.pem")}
    return Pki(
        folder,
        folder / "roots.pem",
        folder / "rogue-roots.pem",
        {
            name: Identity(folder / f"{name}.pem", folder / f"{name}.leaf.pem", folder / f"{name}.key")
            for name in sorted(files)
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a test PKI into a folder")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gateway-name", action="append", help="SAN of the gateway certificate (repeatable)")
    arguments = parser.parse_args()
    pki = make_pki(arguments.folder, tuple(arguments.gateway_name or GATEWAY_NAMES))
    print(f"roots={pki.roots} gateway={pki['gateway'].chain} microsoft={pki['microsoft'].chain}")


if __name__ == "__main__":
    main()
