"""What the command's exit codes mean (after BSD's sysexits.h); the README has the same table."""

from __future__ import annotations

import errno
from enum import IntEnum

from gateway.app import PartFailed
from gateway.errors import ConfigError, MediaUnavailable
from gateway.state_dir import StateDirError, StateDirTaken
from media.music import SoundError


class ExitCode(IntEnum):
    OK = 0
    MISSED = 1
    """The probe made its call, and a limit was not kept."""
    USAGE = 2
    REFUSED = 65
    """The gateway refused the command: no such call, not now, not so. Nothing has changed."""
    UNAVAILABLE = 69
    """Something needed is not there: rtpengine does not start, no gateway answers, no such database."""
    INTERNAL = 70
    """An error of Tandem's own; the log has the traceback."""
    CANNOT_CREATE = 73
    """`state_dir` cannot be made or written."""
    TAKEN = 75
    """A port, or `state_dir` by another gateway. Trying again later may help."""
    NOT_PERMITTED = 77
    """A port below 1024, a file, a refused token."""
    CONFIG = 78


def exit_code_for(error: BaseException) -> ExitCode:
    """The code of an error that ended a command; INTERNAL for what nobody expected."""
    if isinstance(error, PartFailed):
        error = error.cause
    match error:
        case ConfigError():
            return ExitCode.CONFIG
        case StateDirTaken():
            return ExitCode.TAKEN
    for link in _chain(error):
        if isinstance(link, OSError):
            if link.errno in (errno.EADDRINUSE, errno.EWOULDBLOCK):
                return ExitCode.TAKEN
            if link.errno in (errno.EACCES, errno.EPERM) and not isinstance(error, StateDirError):
                return ExitCode.NOT_PERMITTED
            if link.errno == errno.EADDRNOTAVAIL:
                return ExitCode.UNAVAILABLE
    match error:
        case StateDirError():
            return ExitCode.CANNOT_CREATE
        case MediaUnavailable() | SoundError() | TimeoutError():
            return ExitCode.UNAVAILABLE
    return ExitCode.INTERNAL


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from, outermost first."""
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__
    return links
