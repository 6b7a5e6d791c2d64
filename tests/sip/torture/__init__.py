"""The 49 torture messages of RFC 4475 and what an endpoint owes to each.

Written with bare line feeds for reading; `Torture.data` has them as CRLF, as on the wire. "above" means that
the message is well formed and the layers above the transactions decide (405, 415, 420, 501…): here it must
arrive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = int | Literal["above", "silence"]


@dataclass(frozen=True)
class Torture:
    """`verdict`: the code of our own stateless answer, or who decides."""

    name: str
    section: str
    verdict: Verdict
    text: bytes
    body: bytes | None = None
    """Appended as it stands when the body is not text."""

    @property
    def data(self) -> bytes:
        return self.text.replace(b"\n", b"\r\n") + (self.body or b"")
