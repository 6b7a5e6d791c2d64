"""Keys that a party presses: whoever hears it gets them, also where a mixer or SIP INFO is in between.

In a call of two RFC 4733 events pass through rtpengine untouched. A room drops them, and INFO never was
sound: there they are made anew for each listener.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.calls.leg import Leg
from gateway.errors import MediaError

if TYPE_CHECKING:
    from gateway.calls.call import Call

log = logging.getLogger("tandem.calls")


def pressed(call: Call, leg: Leg, digit: str, ms: int, *, as_sound: bool) -> None:
    """In the call's task: `leg` has pressed 0-9, *, # or A-D for `ms` milliseconds.

    as_sound: the event is in the party's RTP, so that only a room keeps it from the others
    """
    if as_sound and not call.sound.in_room:
        return
    for listener in call.sound.hearers(leg.id):
        task = _press(call.legs[listener], digit, ms)
        call.keep(asyncio.get_running_loop().create_task(task, name=f"digit-{listener}"))


async def _press(listener: Leg, digit: str, ms: int) -> None:
    """Beside the inbox: it takes as long as the key was down. An anchor takes them in order."""
    try:
        await listener.anchor.send_digit(digit, ms)
    except MediaError as error:
        # without telephone-event, or gone: that party misses a digit, nothing else
        log.info("digit_not_sent leg=%s cause=%s", listener.id, error.text)
