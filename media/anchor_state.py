"""An anchor as a record: what has to be known to go on with a leg that rtpengine still carries.

A friend of `Anchor` and `EngineLeg`, apart from them because nothing else needs it. The record holds SRTP
keys: it belongs into the state directory, readable by its owner alone, and nowhere else.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from gateway.errors import MediaRejected
from gateway.model import LegId
from gateway.sip.sdp import AudioDescription, Codec
from gateway.sip.sdp_compose import Description
from gateway.sip.sdp_policy import MediaPolicy, Selection
from media.anchor import Anchor
from media.engine_sdp import Outside, Party, Target
from media.mki import Mki, MkiSearch
from media.patchbay import PatchBay
from media.rtpengine import Reply
from media.webrtc_leg import BrowserAnchor
from media.webrtc_sdp import BrowserParty

log = logging.getLogger("tandem.media")


@dataclass(frozen=True, slots=True)
class AnchorState:
    """Fields as those of `Anchor` and `EngineLeg`; `mki` is (announced, the reading that works).

    browser: of a `BrowserAnchor`, with `event`, the number of digits inside
    """

    codec: Codec | None
    telephone_event: int | None
    remote: AudioDescription | None
    selection: Selection | None
    offered: Description | None
    local: Description | None
    music: tuple[Path, bool] | None
    interrupted: Target | None
    mki: tuple[Mki, Mki] | None
    srtp: bool
    party: Party | None
    outside: Outside | None
    inside_port: int
    target: Target | None
    established: bool
    injecting: bool
    browser: BrowserParty | None = None
    event: int = 0


_FORM: Final = TypeAdapter(AnchorState)


def capture(anchor: Anchor) -> dict[str, Any]:
    """The anchor as it stands, ready for JSON."""
    engine, mki = anchor._engine, anchor._mki
    state = AnchorState(
        codec=anchor.codec,
        telephone_event=anchor.telephone_event,
        remote=anchor.remote,
        selection=anchor._selection,
        offered=anchor._offered,
        local=anchor._local,
        music=anchor._music,
        interrupted=anchor._interrupted,
        mki=(mki.announced, mki.reading) if mki is not None else None,
        srtp=engine.srtp,
        party=engine.party,
        outside=engine.outside,
        inside_port=engine.inside_port,
        target=engine.target,
        established=engine.established,
        injecting=engine.injecting,
        browser=anchor.browser if isinstance(anchor, BrowserAnchor) else None,
        event=anchor.event if isinstance(anchor, BrowserAnchor) else 0,
    )
    record: dict[str, Any] = _FORM.dump_python(state, mode="json")
    return record


def restore(bay: PatchBay, leg: LegId, policy: MediaPolicy, record: dict[str, Any]) -> Anchor:
    """The anchor of a record, booked in `bay`; rtpengine is not asked (see `verify`). ValueError."""
    try:
        state = _FORM.validate_python(record)
    except ValidationError as error:
        # its own text would quote the record, keys and all
        fields = {".".join(map(str, one["loc"])) for one in error.errors(include_input=False)}
        raise ValueError(f"anchor record: {', '.join(sorted(fields))}") from None
    if state.browser is not None:
        anchor: Anchor = BrowserAnchor.restored(bay, leg, policy, state.browser, state.event)
    else:
        anchor = Anchor(bay, leg, policy, srtp=state.srtp)
    anchor.codec, anchor.telephone_event, anchor.remote = state.codec, state.telephone_event, state.remote
    anchor._selection, anchor._offered, anchor._local = state.selection, state.offered, state.local
    anchor._music, anchor._interrupted = state.music, state.interrupted
    if state.mki is not None:
        anchor._mki = search = MkiSearch(state.mki[0])
        search.settle(state.mki[1])
    engine = anchor._engine
    engine.party, engine.outside, engine.inside_port = state.party, state.outside, state.inside_port
    engine.target, engine.established, engine.injecting = state.target, state.established, state.injecting
    bay.anchors[leg] = anchor
    return anchor


async def verify(anchor: Anchor) -> None:
    """Compare with rtpengine, then connect as recorded; nothing moves that was right.

    A patch that was half done when the gateway died is whole afterwards, and music that nobody remembers
    having started has stopped.

    MediaRejected: rtpengine does not know the leg, or has it on another port or with another key.
    """
    engine = anchor._engine
    async with anchor._lock:
        if not engine.established:
            raise MediaRejected("the leg was not established")
        found, wanted = _ports(await engine.query()), {"int": engine.inside_port}
        if isinstance(anchor, BrowserAnchor):
            # what the browser sends to has no place in the record: DTLS and ICE found it, and keep it
            found.pop("ext", None)
        elif engine.outside is not None:
            wanted["ext"] = engine.outside.port
        if found != wanted:
            raise MediaRejected(f"rtpengine has the leg on other ports: {found}")
        if anchor._music is None:
            with contextlib.suppress(MediaRejected):
                await engine.stop_playing()
            await engine.point(engine.target)
        else:
            await engine.point(None)
        anchor._listen()


def _ports(reply: Reply) -> dict[str, int]:
    """Tag to local RTP port; incomplete where rtpengine says less."""
    found: dict[str, int] = {}
    tags: Any = reply.get("tags")
    for name, tag in tags.items() if isinstance(tags, dict) else ():
        for media in tag.get("medias", [])[:1]:
            for stream in media.get("streams", [])[:1]:
                found[str(name)] = int(stream.get("local port", 0))
    return found
