"""What the contact center tells of a caller's wait before his call was put through. Pure."""

from __future__ import annotations

import re

from gateway.config_trunk import Trunk
from gateway.trunks.uris import HeaderSource

_SECONDS = re.compile(r"[0-9]{1,5}(\.[0-9]{1,3})?")
_DAY = 86_400_000


def waited(trunk: Trunk, headers: HeaderSource) -> tuple[int, int]:
    """Milliseconds in a menu and in a queue, as the headers that the trunk's `ivr_time_header` and
    `queue_time_header` name say in seconds. 0 for a header that is not there, is there twice, is no number of
    seconds or says more than a day.
    """
    return _told(trunk.ivr_time_header, headers), _told(trunk.queue_time_header, headers)


def _told(name: str, headers: HeaderSource) -> int:
    values = [str(value).strip() for value in headers.getlist(name)] if name else []
    if len(values) != 1 or not _SECONDS.fullmatch(values[0]):
        return 0
    found = round(float(values[0]) * 1000)
    return found if found <= _DAY else 0
