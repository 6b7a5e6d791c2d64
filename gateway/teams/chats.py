"""Chats and channels of the agents, as far as the Microsoft Teams integration overview supports them.

1:1 chats with Teams users; channels with threads, one conversation per channel at a time and agent;
favourites for chats and channels. Group chats are not listed. Nothing is downloaded. Everything is done as
the agent, so what he may not see in Teams he does not see here.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from gateway.teams.client import GraphClient, Json, segment
from gateway.teams.errors import NotThere, TeamsError
from gateway.teams.messages import Message, message
from gateway.teams.store import Shelf, Store
from gateway.teams.subscriptions import Kind, Subscription, Subscriptions, Watch
from gateway.teams.users import Users

log = logging.getLogger("tandem.teams")

_PAGE = "50"
_REMEMBERED = 20_000
_PREFER = {"Prefer": "include-unknown-enum-members"}


class ConversationOpen(TeamsError):
    """The agent has a conversation in this channel already."""

    reason = "conversation_open"


@dataclass(frozen=True)
class Chat:
    id: str
    peer: str
    peer_name: str
    favourite: bool


@dataclass(frozen=True)
class Channel:
    team: str
    team_name: str
    id: str
    name: str
    favourite: bool
    open: bool


@dataclass(frozen=True)
class Popped:
    """A message that came, was changed or deleted: for the agent's screen. team "" in a chat."""

    login: str
    team: str
    conversation: str
    message: Message
    mine: bool


Listener = Callable[[Popped], None]


class Chats:
    """Raises what GraphClient raises, and ConversationOpen."""

    def __init__(self, client: GraphClient, users: Users, store: Store) -> None:
        self._client, self._users, self._store = client, users, store
        self.subscriptions: Subscriptions | None = None
        self._seen: OrderedDict[tuple[str, str, str], tuple[bool, str]] = OrderedDict()
        self._open: set[tuple[str, str, str]] = set()
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """`listener` gets what pops; returns the way to stop."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # -- chats --

    async def chats(self, login: str) -> list[Chat]:
        """The agent's 1:1 chats, favourites first."""
        me = self._users.enabled[login].oid
        favourites = await self._favourites(login)
        query = {"$expand": "members", "$top": _PAGE}
        found = [
            _chat(body, me, f"chat {body['id']}" in favourites)
            async for body in self._client.pages("/me/chats", who=login, query=query)
            if body.get("chatType") == "oneOnOne"
        ]
        return sorted(found, key=lambda one: (not one.favourite, one.peer_name.lower()))

    async def open_chat(self, login: str, oid: str) -> Chat:
        """The chat with a user; Teams keeps one for two people."""
        me = self._users.enabled[login].oid
        root = self._client.cloud.root
        members = [
            {
                "@odata.type": "#microsoft.graph.aadUserConversationMember",
                "roles": ["owner"],
                "user@odata.bind": f"{root}/users('{_quoted(one)}')",
            }
            for one in (me, oid)
        ]
        body = await self._client.post(
            "/chats", {"chatType": "oneOnOne", "members": members}, who=login, repeatable=True
        )
        return _chat(body, me, f"chat {body['id']}" in await self._favourites(login))

    async def messages(self, login: str, chat: str) -> list[Message]:
        """The newest fifty, oldest first."""
        return await self._read(login, "", chat, f"/chats/{segment(chat)}/messages")

    async def send(self, login: str, chat: str, text: str) -> Message:
        """In the order of the calls; the text goes as text, so nothing in it is markup."""
        return await self._post(login, "", chat, f"/chats/{segment(chat)}/messages", text)

    # -- channels --

    async def channels(self, login: str) -> list[Channel]:
        """Of all teams the agent is in, favourites first."""
        favourites = await self._favourites(login)
        found = []
        async for team in self._client.pages("/me/joinedTeams", who=login):
            path = f"/teams/{segment(team['id'])}/channels"
            async for body in self._client.pages(path, who=login):
                key = f"channel {team['id']} {body['id']}"
                opened = (login, str(team["id"]), str(body["id"])) in self._open
                found.append(
                    Channel(
                        str(team["id"]),
                        str(team.get("displayName") or ""),
                        str(body["id"]),
                        str(body.get("displayName") or ""),
                        key in favourites,
                        opened,
                    )
                )
        return sorted(found, key=lambda one: (not one.favourite, one.team_name.lower(), one.name.lower()))

    async def open_channel(self, login: str, team: str, channel: str) -> list[Message]:
        """Begin the conversation: the newest threads, and from now on what is posted. ConversationOpen."""
        key = (login, team, channel)
        if key in self._open:
            raise ConversationOpen(f"{login} has a conversation in this channel already")
        self._open.add(key)
        try:
            found = await self.channel_messages(login, team, channel)
        except BaseException:
            self._open.discard(key)
            raise
        if self.subscriptions is not None:
            await self.subscriptions.watch(self._channel_watch(login, team, channel))
        return found

    async def close_channel(self, login: str, team: str, channel: str) -> None:
        self._open.discard((login, team, channel))
        if self.subscriptions is not None:
            resource = self._channel_watch(login, team, channel).resource
            await self.subscriptions.unwatch(login, Kind.CHANNEL, resource)

    async def channel_messages(self, login: str, team: str, channel: str, thread: str = "") -> list[Message]:
        """The newest roots, or a thread's replies, oldest first."""
        return await self._read(login, team, channel, _channel_path(team, channel, thread))

    async def post(self, login: str, team: str, channel: str, text: str, thread: str = "") -> Message:
        """A new thread, or a reply in one. ConversationOpen when none is open here."""
        if (login, team, channel) not in self._open:
            raise ConversationOpen(f"{login} has no conversation in this channel: open it first")
        return await self._post(login, team, channel, _channel_path(team, channel, thread), text)

    @staticmethod
    def _channel_watch(login: str, team: str, channel: str) -> Watch:
        return Watch(Kind.CHANNEL, login, f"/teams/{team}/channels/{channel}/messages")

    # -- favourites --

    async def favour_chat(self, login: str, chat: str, favourite: bool) -> None:
        await self._favour(login, f"chat {chat}", favourite)

    async def favour_channel(self, login: str, team: str, channel: str, favourite: bool) -> None:
        await self._favour(login, f"channel {team} {channel}", favourite)

    async def _favour(self, login: str, key: str, favourite: bool) -> None:
        found = await self._favourites(login)
        found = found | {key} if favourite else found - {key}
        await self._store.put(Shelf.FAVOURITE, login, {"keys": sorted(found)})

    async def _favourites(self, login: str) -> frozenset[str]:
        kept = await self._store.get(Shelf.FAVOURITE, login)
        return frozenset(kept["keys"]) if kept else frozenset()

    # -- what comes --

    async def changed(self, found: Subscription, resource: str, content: Json) -> None:
        """A notification; repetitions and reactions pop nothing, group chats neither."""
        login = found.watch.owner
        if login not in self._users.enabled:
            return
        team, conversation = "", str(content.get("chatId") or "")
        where = content.get("channelIdentity") or {}
        if found.watch.kind is Kind.CHANNEL:
            team, conversation = str(where.get("teamId") or ""), str(where.get("channelId") or "")
            if (login, team, conversation) not in self._open:
                return
        elif not conversation.endswith("@unq.gbl.spaces"):
            return
        self._pop(login, team, conversation, message(content))

    async def repair(self, watch: Watch) -> None:
        """Notifications may be lost: read what is new in what the agent looks at."""
        try:
            if watch.kind is Kind.CHANNEL:
                for login, team, channel in list(self._open):
                    if self._channel_watch(login, team, channel) == watch:
                        for one in await self.channel_messages(login, team, channel):
                            self._pop(login, team, channel, one)
                return
            for chat in await self.chats(watch.owner):
                path = f"/chats/{segment(chat.id)}/messages"
                for one in await self._list(watch.owner, path, most=int(_PAGE)):
                    self._pop(watch.owner, "", chat.id, one)
        except NotThere:
            return

    def _pop(self, login: str, team: str, conversation: str, found: Message | None) -> None:
        if found is None or not self._new(login, conversation, found):
            return
        mine = found.author == self._users.enabled[login].oid
        popped = Popped(login, team, conversation, found, mine)
        for listener in list(self._listeners):
            try:
                listener(popped)
            except Exception:
                log.exception("event=chat_listener_failed login=%s", login)

    def _new(self, login: str, conversation: str, found: Message) -> bool:
        """Whether the agent has not seen it so; a deletion is final, an original after its edit is late."""
        key = (login, conversation, found.id)
        before = self._seen.get(key)
        if before is not None and found.version <= before:
            return False
        self._seen[key] = found.version
        self._seen.move_to_end(key)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return True

    async def _read(self, login: str, team: str, conversation: str, path: str) -> list[Message]:
        found = await self._list(login, path, most=int(_PAGE))
        for one in found:
            self._new(login, conversation, one)
        return found

    async def _list(self, login: str, path: str, most: int) -> list[Message]:
        pages = self._client.pages(path, who=login, query={"$top": _PAGE}, headers=_PREFER, most=most)
        bodies = [message(one) async for one in pages]
        return [one for one in reversed(bodies) if one is not None]

    async def _post(self, login: str, team: str, conversation: str, path: str, text: str) -> Message:
        async with self._client.pace.in_order(f"{login} {conversation}"):
            body = await self._client.post(
                path, {"body": {"contentType": "text", "content": text}}, who=login
            )
        found = message(body)
        if found is None:
            raise TeamsError("Graph took the message and did not show it")
        self._new(login, conversation, found)
        return found


def _channel_path(team: str, channel: str, thread: str) -> str:
    path = f"/teams/{segment(team)}/channels/{segment(channel)}/messages"
    return f"{path}/{segment(thread)}/replies" if thread else path


def _chat(body: Json, me: str, favourite: bool) -> Chat:
    others = [one for one in body.get("members") or [] if one.get("userId") != me]
    peer = others[0] if others else {}
    return Chat(str(body["id"]), str(peer.get("userId") or ""), str(peer.get("displayName") or ""), favourite)


def _quoted(text: str) -> str:
    return text.replace("'", "''")
