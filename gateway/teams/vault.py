"""Encryption at rest: one key in a file that only the gateway reads."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from gateway.teams.errors import StoreFault

KEY_FILE = "teams.key"


class Vault:
    """Fernet (AES-128-CBC with HMAC) under the key in `state_dir`/teams.key, made at first use.

    Gateways that share a database share this file: copy it to each of them.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / KEY_FILE
        self._fernet: Fernet | None = None

    def open(self) -> None:
        """StoreFault when the key cannot be read, made, or is open to others."""
        try:
            key = self._read() or self._make()
            self._fernet = Fernet(key)
        except OSError as error:
            raise StoreFault(f"cannot use {self._path}: {error.strerror}") from None
        except ValueError:
            raise StoreFault(f"{self._path} holds no key") from None

    def _read(self) -> bytes | None:
        if not self._path.exists():
            return None
        if self._path.stat().st_mode & 0o077:
            raise StoreFault(f"{self._path} can be read by others (chmod 600)")
        return self._path.read_bytes().strip()

    def _make(self) -> bytes:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        key = Fernet.generate_key()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        return key

    def seal(self, plain: bytes) -> bytes:
        return self._opened.encrypt(plain)

    def unseal(self, sealed: bytes) -> bytes:
        """StoreFault when it was sealed with another key, or changed."""
        try:
            return self._opened.decrypt(sealed)
        except InvalidToken:
            raise StoreFault(f"what is stored does not belong to {self._path}: restore the key") from None

    @property
    def _opened(self) -> Fernet:
        if self._fernet is None:
            raise StoreFault("the vault is not open")
        return self._fernet
