"""Chats and channels of the agents, as far as the Microsoft Teams integration overview supports them.

1:1 chats with Teams users; channels with threads, one conversation per channel at a time and agent;
favourites for chats and channels. Group chats are not listed. Nothing is downloaded. Everything is done as
the agent, so what he may not see in Teams he does not see here.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from gateway.clock import Clock
from gateway.teams.client import GraphClient, Json, segment
from gateway.teams.errors import GraphError, TeamsError, Throttled
from gateway.teams.messages import Message, deleted, message
from gateway.teams.seen import Seen
from gateway.teams.shared_watch import SharedWatches
from gateway.teams.store import Shelf, Store
from gateway.teams.subscriptions import Kind, Subscription, Watch
from gateway.teams.users import Users

log = logging.getLogger("tandem.teams")

_PAGE = "50"
_MOST_PEERS = 20_000
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
    """A message that came, was changed or deleted: for the agent's screen.

    team: "" in a chat; peer: object id of the chat's other one, "" in channels and where it is not known
    change: new, edited or deleted; mine: written by the agent, elsewhere
    """

    login: str
    team: str
    conversation: str
    message: Message
    mine: bool
    peer: str = ""
    change: str = "new"


Listener = Callable[[Popped], None]
Keeper = Callable[[Popped], Awaitable[None]]
"""Waited for before anybody else is told."""
Stale = Callable[[str, str], None]
"""(login, "chats" or "channels"): the list is another one now."""


class Chats:
    """Raises what GraphClient raises, and ConversationOpen."""

    def __init__(self, client: GraphClient, users: Users, store: Store, clock: Clock) -> None:
        self._client, self._users, self._store = client, users, store
        self.seen = Seen(store, clock)
        self._open: dict[tuple[str, str, str], None] = {}
        self.shared = SharedWatches(self._who_has_open)
        self._peers: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._listeners: list[Listener] = []
        self.stale: Stale = lambda _login, _list: None
        self.keeper: Keeper = _nobody

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """`listener` gets what pops; returns the way to stop."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def open_channels(self, login: str) -> list[tuple[str, str]]:
        """Team and channel of each conversation the agent has."""
        return sorted((team, channel) for who, team, channel in self._open if who == login)

    # -- chats --

    async def chats(self, login: str) -> list[Chat]:
        """The agent's 1:1 chats, favourites first."""
        me = self._users.enabled[login].oid
        favourites = await self._favourites(login)
        query = {"$expand": "members", "$top": _PAGE}
        found = [
            self._known(login, _chat(body, me, f"chat {body['id']}" in favourites))
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
        return self._known(login, _chat(body, me, f"chat {body['id']}" in await self._favourites(login)))

    def _known(self, login: str, chat: Chat) -> Chat:
        self._peers[(login, chat.id)] = chat.peer
        self._peers.move_to_end((login, chat.id))
        while len(self._peers) > _MOST_PEERS:
            self._peers.popitem(last=False)
        return chat

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
        self._open[key] = None
        try:
            found = await self.channel_messages(login, team, channel)
        except BaseException:
            self._open.pop(key, None)
            raise
        await self.shared.settle(_resource(team, channel))
        return found

    async def close_channel(self, login: str, team: str, channel: str) -> None:
        self._open.pop((login, team, channel), None)
        await self.shared.settle(_resource(team, channel))

    async def leave(self, login: str) -> None:
        """Close all of the agent's channels."""
        for team, channel in self.open_channels(login):
            await self.close_channel(login, team, channel)

    def _who_has_open(self, resource: str) -> list[str]:
        return [login for login, team, channel in self._open if _resource(team, channel) == resource]

    async def channel_messages(self, login: str, team: str, channel: str, thread: str = "") -> list[Message]:
        """The newest roots, or a thread's replies, oldest first."""
        return await self._read(login, team, channel, _channel_path(team, channel, thread))

    async def post(self, login: str, team: str, channel: str, text: str, thread: str = "") -> Message:
        """A new thread, or a reply in one. ConversationOpen when none is open here."""
        if (login, team, channel) not in self._open:
            raise ConversationOpen(f"{login} has no conversation in this channel: open it first")
        return await self._post(login, team, channel, _channel_path(team, channel, thread), text)

    # -- favourites --

    async def favour_chat(self, login: str, chat: str, favourite: bool) -> None:
        await self._favour(login, f"chat {chat}", favourite)

    async def favour_channel(self, login: str, team: str, channel: str, favourite: bool) -> None:
        await self._favour(login, f"channel {team} {channel}", favourite)

    async def _favour(self, login: str, key: str, favourite: bool) -> None:
        found = await self._favourites(login)
        found = found | {key} if favourite else found - {key}
        await self._store.put(Shelf.FAVOURITE, login, {"keys": sorted(found)})
        self.stale(login, "chats" if key.startswith("chat ") else "channels")

    async def _favourites(self, login: str) -> frozenset[str]:
        kept = await self._store.get(Shelf.FAVOURITE, login)
        return frozenset(kept["keys"]) if kept else frozenset()

    # -- what comes --

    async def changed(self, found: Subscription, change: str, resource: str, content: Json) -> None:
        """A notification; repetitions and reactions pop nothing, group chats neither."""
        one = message(content)
        team, conversation = "", str(content.get("chatId") or "")
        where = content.get("channelIdentity") or {}
        if found.watch.kind is Kind.CHANNEL:
            team, conversation = str(where.get("teamId") or ""), str(where.get("channelId") or "")
        if change == "deleted" and one is None:
            # Graph may send nothing of what was deleted but its address.
            team, conversation, one = deleted(resource)
        logins = [found.watch.owner] if conversation.endswith("@unq.gbl.spaces") else []
        if found.watch.kind is Kind.CHANNEL:
            logins = self._who_has_open(_resource(team, conversation))
        for login in logins:
            if one is not None and login in self._users.enabled:
                told = self.seen.told(login, conversation, one, created=change == "created")
                await self._pop(login, team, conversation, one, told)

    async def repair(self, watch: Watch) -> None:
        """Notifications may be lost: read what is new in what the agent looks at."""
        if watch.kind is Kind.CHANNEL:
            for login, team, channel in list(self._open):
                if _resource(team, channel) == watch.resource:
                    await self._repair(login, team, channel, _channel_path(team, channel, ""))
            return
        user, since = self._users.enabled.get(watch.owner), self.seen.since(watch.owner)
        if user is None:
            return
        query = {"$expand": "members,lastMessagePreview", "$top": _PAGE}
        async for body in self._client.pages("/me/chats", who=watch.owner, query=query):
            if body.get("chatType") == "oneOnOne" and not _quiet(body, since):
                chat = self._known(watch.owner, _chat(body, user.oid, False))
                await self._repair(watch.owner, "", chat.id, f"/chats/{segment(chat.id)}/messages")

    async def _repair(self, login: str, team: str, conversation: str, path: str) -> None:
        """One that Graph refuses is left out; where Graph has no time, the others would not fare better."""
        try:
            found = await self._list(login, path, most=int(_PAGE), replies=bool(team))
        except Throttled:
            raise
        except GraphError as error:
            log.info("event=conversation_not_repaired login=%s cause=%s", login, error)
            return
        for one in found:
            await self._pop(login, team, conversation, one, self.seen.read(login, conversation, one))

    async def _pop(self, login: str, team: str, conversation: str, found: Message, change: str) -> None:
        user = self._users.enabled.get(login)
        if not change or user is None:
            return
        mine = found.author == user.oid
        peer = "" if team else self._peers.get((login, conversation), "" if mine else found.author)
        if not team and (login, conversation) not in self._peers:
            self._known(login, Chat(conversation, peer, "", False))
            self.stale(login, "chats")
        popped = Popped(login, team, conversation, found, mine, peer, change)
        await self.keeper(popped)
        for listener in list(self._listeners):
            try:
                listener(popped)
            except Exception:
                log.exception("event=chat_listener_failed login=%s", login)

    async def _read(self, login: str, team: str, conversation: str, path: str) -> list[Message]:
        found = await self._list(login, path, most=int(_PAGE))
        for one in found:
            self.seen.note(login, conversation, one)
        return found

    async def _list(self, login: str, path: str, most: int, *, replies: bool = False) -> list[Message]:
        """Oldest first; `replies`: each thread's behind its root."""
        query = {"$top": _PAGE} | ({"$expand": "replies"} if replies else {})
        bodies = [
            one async for one in self._client.pages(path, who=login, query=query, headers=_PREFER, most=most)
        ]
        flat = [each for body in reversed(bodies) for each in (body, *reversed(body.get("replies") or []))]
        return [one for one in map(message, flat) if one is not None]

    async def _post(self, login: str, team: str, conversation: str, path: str, text: str) -> Message:
        async with self._client.pace.in_order(f"{login} {conversation}"):
            body = await self._client.post(
                path, {"body": {"contentType": "text", "content": text}}, who=login
            )
        found = message(body)
        if found is None:
            raise TeamsError("Graph took the message and did not show it")
        self.seen.note(login, conversation, found)
        return found


async def _nobody(_: Popped) -> None:
    return


def _channel_path(team: str, channel: str, thread: str) -> str:
    path = f"/teams/{segment(team)}/channels/{segment(channel)}/messages"
    return f"{path}/{segment(thread)}/replies" if thread else path


def _resource(team: str, channel: str) -> str:
    """As a subscription names it."""
    return f"/teams/{team}/channels/{channel}/messages"


def _chat(body: Json, me: str, favourite: bool) -> Chat:
    others = [one for one in body.get("members") or [] if one.get("userId") != me]
    peer = others[0] if others else {}
    return Chat(str(body["id"]), str(peer.get("userId") or ""), str(peer.get("displayName") or ""), favourite)


def _quiet(body: Json, since: datetime) -> bool:
    """Whether the chat's last message is older than what has been seen; not knowing is no."""
    preview = body.get("lastMessagePreview")
    written = preview.get("createdDateTime") if isinstance(preview, dict) else None
    try:
        return written is not None and datetime.fromisoformat(str(written)) < since
    except (ValueError, TypeError):
        return False


def _quoted(text: str) -> str:
    return text.replace("'", "''")
