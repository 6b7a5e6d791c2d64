"""A customer's web chat as it is told and kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

Json = dict[str, Any]


class Sender(StrEnum):
    CUSTOMER = "customer"
    AGENT = "agent"
    EXPERT = "expert"
    SYSTEM = "system"


class State(StrEnum):
    OPEN = "open"
    ENDED = "ended"


class What(StrEnum):
    """What an event tells of."""

    STARTED = "started"
    MESSAGE = "message"
    EDITED = "edited"
    DELETED = "deleted"
    JOINED = "joined"
    LEFT = "left"
    ENDED = "ended"


class _Kept:
    def document(self) -> Json:
        return asdict(self)  # type: ignore[call-overload,no-any-return]

    @classmethod
    def of(cls, document: Json) -> Self:
        known = {one.name for one in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in document.items() if name in known})


@dataclass
class WebChat(_Kept):
    """agent: login; reference: the contact center's own name for it; expert: object id, "" for none

    messages: how many there are, which is also the newest one's number; started, ended: ISO 8601 in UTC
    """

    id: str
    agent: str
    customer_name: str
    reference: str
    started: str
    state: State = State.OPEN
    expert: str = ""
    expert_name: str = ""
    ended: str = ""
    messages: int = 0

    def __post_init__(self) -> None:
        self.state = State(self.state)


@dataclass
class WebChatMessage(_Kept):
    """files: names; types: content types of what is not text; nothing of it can be fetched.

    sender: in JSON `from`
    """

    number: int
    sender: Sender
    name: str
    text: str
    files: tuple[str, ...]
    types: tuple[str, ...]
    at: str
    edited: bool = False
    deleted: bool = False

    def __post_init__(self) -> None:
        self.sender, self.files, self.types = Sender(self.sender), tuple(self.files), tuple(self.types)


@dataclass
class Inner(_Kept):
    """What nobody but us needs: the Teams chat, and the newest message that went there.

    theirs: id of a message in Teams -> our number; events: how many the webhook was given
    """

    chat: str = ""
    forwarded: int = 0
    theirs: dict[str, int] = field(default_factory=dict)
    events: int = 0


def shown_chat(found: WebChat) -> Json:
    return found.document()


def shown_message(found: WebChatMessage) -> Json:
    document = found.document()
    document["from"] = document.pop("sender")
    return document
