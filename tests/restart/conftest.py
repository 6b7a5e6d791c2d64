"""rtpengine for the session, phones, and the PKI of the stand-ins."""

from __future__ import annotations

from tests.calls.conftest import pki
from tests.media.conftest import bay, engine, engine_settings, peer

__all__ = ["bay", "engine", "engine_settings", "peer", "pki"]
