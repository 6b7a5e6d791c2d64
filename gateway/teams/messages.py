"""What a gateway may show of a Teams message: text, file names, content types (facts/graph.md 4). Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urlsplit

Json = dict[str, Any]
_LABEL = 200
_TEXT = 28_000
_LOOP_DUMMY = "FLUID_PLACEHOLDER_CARD"
_FILES = ("reference", "file")
_MEDIA = ("image/", "video/", "audio/")
_BREAKS = frozenset({"p", "div", "br", "li", "tr", "h1", "h2", "h3", "blockquote", "pre"})
_ITEMS = {"sticker": "sticker", "giphy": "image/gif", "tenor": "image/gif", "amsvideo": "video"}


@dataclass(frozen=True)
class Message:
    """One message as the desktop shows it.

    thread: the root's id for a reply in a channel, "" otherwise; author: object id, "" for applications
    labels: names of files and content types of everything else, in their order
    files, types: the same apart
    edited_at: "" when never; times are ISO 8601 in UTC
    """

    id: str
    thread: str
    author: str
    author_name: str
    text: str
    labels: tuple[str, ...]
    created: str
    edited_at: str
    deleted: bool
    files: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def version(self) -> tuple[bool, str]:
        """Grows with each change that is worth showing; a reaction is none."""
        return self.deleted, self.edited_at


def message(body: Json) -> Message | None:
    """Of a `chatMessage`; None for what is no message of a person or application: events, typing."""
    if body.get("messageType") != "message" or not body.get("id"):
        return None
    sender = body.get("from") or {}
    user = sender.get("user") or {}
    application = sender.get("application") or {}
    content = body.get("body") or {}
    raw = str(content.get("content") or "")
    deleted = bool(body.get("deletedDateTime"))
    if content.get("contentType") == "html":
        text, found = _plain(raw)
    else:
        text, found = raw, []
    attached = [label for one in body.get("attachments") or [] if (label := _label(one))[0]]
    labels = [*attached, *((label, False) for label in found)]
    return Message(
        id=str(body["id"]),
        thread=str(body.get("replyToId") or ""),
        author=str(user.get("id") or ""),
        author_name=str(user.get("displayName") or application.get("displayName") or "")[:_LABEL],
        text="" if deleted else text[:_TEXT],
        labels=() if deleted else tuple(label for label, _ in labels),
        created=str(body.get("createdDateTime") or ""),
        edited_at=str(body.get("lastEditedDateTime") or ""),
        deleted=deleted,
        files=() if deleted else tuple(label for label, file in labels if file),
        types=() if deleted else tuple(label for label, file in labels if not file),
    )


_CHAT = re.compile(r"chats\('([^']+)'\)/messages\('([^']+)'\)")
_CHANNEL = re.compile(
    r"teams\('([^']+)'\)/channels\('([^']+)'\)/messages\('([^']+)'\)(?:/replies\('([^']+)'\))?"
)


def deleted(resource: str) -> tuple[str, str, Message | None]:
    """Team ("" in chats), conversation and a deleted message, of a notification's `resource`."""
    chat, channel = _CHAT.search(resource), _CHANNEL.search(resource)
    if channel is not None:
        team, conversation, root, reply = channel.groups()
        thread = root if reply else ""
        return team, conversation, Message(reply or root, thread, "", "", "", (), "", "", True)
    if chat is not None:
        return "", chat[1], Message(chat[2], "", "", "", "", (), "", "", True)
    return "", "", None


def _label(attachment: object) -> tuple[str, bool]:
    """A file's name, or the content type, and whether it is a name; never an address, never content."""
    if not isinstance(attachment, dict) or attachment.get("teamsAppId") == _LOOP_DUMMY:
        return "", False
    kind = str(attachment.get("contentType") or "")
    name = str(attachment.get("name") or "")
    if kind in _FILES and not name:
        path = urlsplit(str(attachment.get("contentUrl") or "")).path
        name = unquote(path.rpartition("/")[2])
    if kind in _FILES or kind.startswith(_MEDIA):
        return (name or kind)[:_LABEL], bool(name)
    if kind.endswith(".codesnippet") and _content(attachment) == {}:
        return "", False
    return kind[:_LABEL], False


def _content(attachment: Json) -> object:
    try:
        return json.loads(attachment.get("content") or "null")
    except (ValueError, TypeError, RecursionError):
        return None


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.labels: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        item = found.get("itemtype", "").rpartition("/")[2].lower()
        if tag in _BREAKS:
            self.parts.append("\n")
        if tag in ("script", "style"):
            self._hidden += 1
        if tag == "emoji" or item == "emoji":
            self.parts.append(found.get("alt", ""))
        elif item in _ITEMS:
            if _ITEMS[item] not in self.labels:
                self.labels.append(_ITEMS[item])
        elif tag == "img":
            self.labels.append("image")
        elif tag == "video":
            self.labels.append("video")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style") and self._hidden:
            self._hidden -= 1

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def _plain(markup: str) -> tuple[str, list[str]]:
    parser = _Text()
    parser.feed(markup)
    parser.close()
    text = "".join(parser.parts).replace("\xa0", " ")
    return re.sub(r"\n{3,}", "\n\n", text).strip(), parser.labels
