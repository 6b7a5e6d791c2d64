"""Chats, teams, channels and their messages in the Graph stand-in (facts/graph.md 1.6, 4).

Departures: `$orderby` and `$filter` of messages are ignored; every user may read every channel of a team he
is in; system messages are made by tests only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.clock import Clock
from tests.peers.graph_wire import Json, Refusal, stamp


@dataclass
class Thread:
    """Messages of a chat, or of a channel with their replies."""

    id: str
    members: list[str]
    kind: str
    topic: str | None = None
    team: str = ""
    messages: dict[str, Json] = field(default_factory=dict)
    created: str = ""

    @property
    def resource(self) -> str:
        return f"teams/{self.team}/channels/{self.id}/messages" if self.team else f"chats/{self.id}/messages"


class Conversations:
    """`told(thread, change, message)` after each change of a message."""

    def __init__(self, clock: Clock, told: Callable[[Thread, str, Json], None]) -> None:
        self._clock, self._told = clock, told
        self._ids = itertools.count(1_700_000_000_000)
        self.chats: dict[str, Thread] = {}
        self.teams: dict[str, Json] = {}
        self.team_members: dict[str, list[str]] = {}
        self.channels: dict[tuple[str, str], Thread] = {}

    def one_to_one(self, first: str, second: str) -> Thread:
        """The chat of the two; made when there is none."""
        a, b = sorted((first, second))
        key = f"19:{a}_{b}@unq.gbl.spaces"
        if key not in self.chats:
            self.chats[key] = Thread(key, [first, second], "oneOnOne", created=stamp(self._clock.wall()))
        return self.chats[key]

    def group(self, topic: str, *members: str) -> Thread:
        key = f"19:{next(self._ids):x}@thread.v2"
        self.chats[key] = Thread(key, list(members), "group", topic, created=stamp(self._clock.wall()))
        return self.chats[key]

    def team(self, key: str, name: str, members: list[str]) -> None:
        self.teams[key] = {"id": key, "displayName": name, "description": None}
        self.team_members[key] = members

    def channel(self, team: str, key: str, name: str) -> Thread:
        made = Thread(key, self.team_members[team], "channel", name, team)
        self.channels[(team, key)] = made
        return made

    def thread_of(self, chat: str, user: str | None) -> Thread:
        found = self.chats.get(chat)
        if found is None or (user is not None and user not in found.members):
            raise Refusal(404, "NotFound", "Chat was not found, or you are no member of it.")
        return found

    def channel_of(self, team: str, channel: str, user: str | None) -> Thread:
        found = self.channels.get((team, channel))
        if found is None or (user is not None and user not in found.members):
            raise Refusal(404, "NotFound", "Channel was not found.")
        return found

    def post(self, thread: Thread, user: Json | None, content: str, **more: Any) -> Json:
        """A message as Graph shows it; `more` are contentType, replyToId, attachments and so on."""
        now = stamp(self._clock.wall())
        key = str(next(self._ids))
        message: Json = {
            "id": key,
            "replyToId": more.pop("replyToId", None),
            "etag": key,
            "messageType": more.pop("messageType", "message"),
            "createdDateTime": now,
            "lastModifiedDateTime": now,
            "lastEditedDateTime": None,
            "deletedDateTime": None,
            "subject": more.pop("subject", None),
            "importance": "normal",
            "from": user
            and {
                "application": None,
                "device": None,
                "user": {"id": user["id"], "displayName": user["displayName"], "userIdentityType": "aadUser"},
            },
            "body": {"contentType": more.pop("contentType", "text"), "content": content},
            "chatId": None if thread.team else thread.id,
            "channelIdentity": {"teamId": thread.team, "channelId": thread.id} if thread.team else None,
            "attachments": more.pop("attachments", []),
            "mentions": [],
            "reactions": [],
            **more,
        }
        if message["replyToId"] is not None and message["replyToId"] not in thread.messages:
            raise Refusal(404, "NotFound", "The message replied to does not exist.")
        thread.messages[key] = message
        self._told(thread, "created", message)
        return message

    def edit(self, thread: Thread, key: str, content: str) -> None:
        now = stamp(self._clock.wall())
        message = thread.messages[key]
        message["body"]["content"] = content
        message |= {"lastEditedDateTime": now, "lastModifiedDateTime": now, "etag": f"{key}-{now}"}
        self._told(thread, "updated", message)

    def delete(self, thread: Thread, key: str) -> None:
        now = stamp(self._clock.wall())
        message = thread.messages[key]
        message["body"]["content"] = ""
        message |= {"deletedDateTime": now, "lastModifiedDateTime": now, "attachments": []}
        self._told(thread, "deleted", message)

    def react(self, thread: Thread, key: str, user: str, kind: str) -> None:
        now = stamp(self._clock.wall())
        message = thread.messages[key]
        message["reactions"].append(
            {"reactionType": kind, "createdDateTime": now, "user": {"user": {"id": user}}}
        )
        message["lastModifiedDateTime"] = now
        self._told(thread, "updated", message)
