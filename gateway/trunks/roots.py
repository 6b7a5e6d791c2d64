"""The authorities that may certify Microsoft's SIP proxies, picked out of this machine's own store.

    python -m gateway.trunks.roots /etc/tandem/tls/teams-roots.pem [STORE]

Trusting these seven alone, and not the hundred and more of a store, is what makes the proxy's name in a
certificate a proof (T22). All seven are needed since the rotation of 2026 (T8; facts/direct-routing.md 1.5).
"""

from __future__ import annotations

import argparse
import hashlib
import ssl
from pathlib import Path

from gateway.errors import TandemError

SYSTEM_STORE = Path("/etc/ssl/certs/ca-certificates.crt")
"""Debian's bundle (package ca-certificates)."""

ROOTS: dict[str, str] = {
    "4348a0e9444c78cb265e058d5e8944b4d84f9662bd26db257f8934a443c70161": "DigiCert Global Root CA",
    "cb3ccbb76031e5e0138f8dd39a23f9de47ffc35e43c1144cea27d46a5ab1cb5f": "DigiCert Global Root G2",
    "31ad6648f8104138c738f39ea4320133393e3a18cc02296ef97c2ac9ef6731d0": "DigiCert Global Root G3",
    "018e13f0772532cf809bd1b17281867283fc48c6e13be9c69812854a490c1b05": "DigiCert TLS ECC P384 Root G5",
    "371a00dc0533b3721a7eeb40e8419e70799d2b0a0f2c1d80693165f7cec4ad75": "DigiCert TLS RSA4096 Root G5",
    "358df39d764af9e1b766e9c972df352ee15cfac227af6ad1d70e8e4a6edcba02": "Microsoft ECC Root CA 2017",
    "c741f70f4b2a8d88bf2e71c14122ef53ef10eba0cfa5e64cfa20f418853073e0": "Microsoft RSA Root CA 2017",
}
"""SHA-256 of the DER -> name: the seven that facts/direct-routing.md 1.5 lists by SHA-1 print."""

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def pick_roots(store: str) -> tuple[str, list[str]]:
    """(PEM of the roots found in the bundle `store`, names of those that are missing there)."""
    missing = dict(ROOTS)
    found: list[str] = []
    for part in store.split(_BEGIN)[1:]:
        pem = f"{_BEGIN}{part.partition(_END)[0]}{_END}\n"
        try:
            der = ssl.PEM_cert_to_DER_cert(pem)
        except ValueError:
            continue
        name = missing.pop(hashlib.sha256(der).hexdigest(), None)
        if name is not None:
            found.append(f"# {name}\n{pem}")
    return "".join(found), list(missing.values())


def write_roots(target: Path, store: Path = SYSTEM_STORE) -> None:
    """Write the seven to `target`; TandemError when the store cannot be read or lacks one."""
    try:
        pem, missing = pick_roots(store.read_text(encoding="ascii", errors="replace"))
        if missing:
            raise TandemError(f"{store} lacks {', '.join(missing)}: install a current ca-certificates")
        target.write_text(pem, encoding="ascii")
    except OSError as error:
        raise TandemError(f"{error.filename}: {error.strerror}") from error


def main() -> None:
    parser = argparse.ArgumentParser(description="Write Microsoft's seven roots from this machine's store")
    parser.add_argument("target", type=Path, help="PEM file for trusted_roots in [sip]")
    parser.add_argument("store", type=Path, nargs="?", default=SYSTEM_STORE)
    arguments = parser.parse_args()
    try:
        write_roots(arguments.target, arguments.store)
    except TandemError as error:
        parser.exit(1, f"{error}\n")
    print(f"{arguments.target}: {len(ROOTS)} roots")


if __name__ == "__main__":
    main()
