"""The seven roots are found in the machine's store, by fingerprint and not by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import TandemError
from gateway.trunks.roots import ROOTS, SYSTEM_STORE, pick_roots, write_roots


@pytest.mark.skipif(not SYSTEM_STORE.exists(), reason="no certificate store on this machine")
def test_t08_all_seven_roots_are_trusted_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "roots.pem"
    write_roots(target)
    assert target.read_text().count("BEGIN CERTIFICATE") == len(ROOTS) == 7
    again, missing = pick_roots(target.read_text())
    assert not missing
    assert again == target.read_text()


def test_a_store_that_lacks_one_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "store.pem"
    store.write_text("-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n")
    with pytest.raises(TandemError, match="DigiCert Global Root G2"):
        write_roots(tmp_path / "roots.pem", store)
    assert not (tmp_path / "roots.pem").exists()


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(TandemError, match=r"none\.pem"):
        write_roots(tmp_path / "roots.pem", tmp_path / "none.pem")
