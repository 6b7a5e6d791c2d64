"""The integration account: the application that an administrator registered in Entra ID."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import date
from typing import Any


@dataclass(frozen=True)
class Account:
    """tenant, client_id, object_id: GUIDs; secret_expires: last day of the secret, None = not told."""

    tenant: str
    client_id: str
    client_secret: str = field(repr=False)
    object_id: str = ""
    secret_expires: date | None = None

    def document(self) -> dict[str, Any]:
        return {
            "tenant": self.tenant,
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "object_id": self.object_id,
            "secret_expires": self.secret_expires.isoformat() if self.secret_expires else None,
        }

    @classmethod
    def of(cls, document: dict[str, Any]) -> Account:
        expires = document["secret_expires"]
        return cls(
            document["tenant"],
            document["client_id"],
            document["client_secret"],
            document["object_id"],
            date.fromisoformat(expires) if expires else None,
        )

    @property
    def fingerprint(self) -> str:
        """Tells two accounts apart without showing the secret."""
        text = json.dumps(self.document(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def same_application(self, other: Account) -> bool:
        """Whether tokens of the one are good for the other."""
        return (self.tenant, self.client_id) == (other.tenant, other.client_id)
