"""An anchor as data: what the gateway has to remember to go on with a running rtpengine after a restart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gateway.errors import TandemError
from gateway.model import LegId
from gateway.sip.sdp import AudioDescription, Codec
from gateway.sip.sdp_compose import Description
from gateway.sip.sdp_policy import MediaPolicy, Selection
from media.engine_sdp import Outside, Party, Target
from media.mki import Mki


class SnapshotError(TandemError):
    """A record that is no anchor's, or of a version that cannot be read."""


@dataclass(frozen=True, slots=True)
class EngineState:
    """Fields of EngineLeg by their names there."""

    srtp: bool
    party: Party | None
    outside: Outside | None
    inside_port: int
    target: Target | None
    established: bool
    injecting: bool


@dataclass(frozen=True, slots=True)
class AnchorState:
    """Fields of Anchor by their names there; keys are among them: not for logs."""

    leg: LegId
    policy: MediaPolicy
    remote: AudioDescription | None
    codec: Codec | None
    telephone_event: int | None
    selection: Selection | None
    offered: Description | None
    local: Description | None
    music: tuple[Path, bool] | None
    interrupted: Target | None
    announced_mki: Mki
    engine: EngineState


_ADAPTER = TypeAdapter(AnchorState)


def to_record(state: AnchorState) -> dict[str, Any]:
    """JSON-ready."""
    record: dict[str, Any] = _ADAPTER.dump_python(state, mode="json")
    return record


def from_record(record: dict[str, Any]) -> AnchorState:
    """Inverse of `to_record`. Raises SnapshotError."""
    try:
        return _ADAPTER.validate_python(record)
    except ValidationError as error:
        raise SnapshotError(f"not an anchor's record: {error.error_count()} faults") from error
