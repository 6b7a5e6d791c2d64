"""Web chats of customers, which a Teams expert may join through the 1:1 chat that he and the agent have.

The customer's and the agent's messages go into that chat under the agent's name, as Teams knows no other way
(facts/graph.md 1.3); what the expert writes there reaches the customer while he has joined. What the agent
writes there by himself is between the two of them. Of files and rich content only names and types are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from gateway.clock import Clock, pause
from gateway.teams.chats import Chats, Popped
from gateway.teams.errors import GraphError, NoAccount, SignInNeeded, StoreFault, TeamsError, Throttled
from gateway.teams.messages import Message
from gateway.teams.seen import DELETED, EDITED, NEW
from gateway.teams.store import Document, Shelf, Store
from gateway.teams.tasks import Tasks
from gateway.teams.users import Users
from gateway.teams.web_chat_model import (
    Inner,
    Json,
    Sender,
    State,
    WebChat,
    WebChatMessage,
    What,
    shown_chat,
    shown_message,
)

log = logging.getLogger("tandem.teams")

KEPT = timedelta(days=1)
"""How long an ended one can still be read."""
_MOST_OPEN, _MOST_MESSAGES = 5000, 2000
_TOLD_BEFORE, _TOLD_LONGEST = 20, 8000
_AGAIN = 20.0

Told = Callable[[str, Json, Json | None], None]
"""(agent, web chat, message or None): for the agent's pages."""


class UnknownWebChat(TeamsError):
    """There is none, or it is not this agent's."""

    reason = "unknown_web_chat"


class WebChatRefused(TeamsError):
    """Not now: it has ended, is full, or the expert is in another one of the same agent."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(text)


@dataclass
class _One:
    shown: WebChat
    inner: Inner
    messages: dict[int, WebChatMessage] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    forwarding: bool = False


class WebChats:
    """chats: those of the account in use, or None; hooked: told that an event waits for the webhook.

    hooks: whether there is a webhook; without one no events are kept for it
    """

    def __init__(
        self,
        store: Store,
        users: Users,
        chats: Callable[[], Chats | None],
        clock: Clock,
        told: Told,
        *,
        hooks: bool = False,
    ) -> None:
        self._store, self._users, self._chats, self._clock = store, users, chats, clock
        self._told, self._hooks = told, hooks
        self.hooked: Callable[[], None] = lambda: None
        self._all: dict[str, _One] = {}
        self._tasks = Tasks("web-chat")

    # -- life --

    async def start(self) -> None:
        """Take over what an earlier run had."""
        self._all.clear()
        for key, document in (await self._store.all(Shelf.WEB_CHAT)).items():
            self._all[key] = _One(WebChat.of(document["shown"]), Inner.of(document["inner"]))
        for key, document in (await self._store.all(Shelf.WEB_CHAT_MESSAGE)).items():
            one = self._all.get(key.partition("/")[0])
            if one is not None:
                message = WebChatMessage.of(document)
                one.messages[message.number] = message

    async def stop(self) -> None:
        await self._tasks.close()

    @property
    def idle(self) -> bool:
        return self._tasks.idle

    def resume(self) -> None:
        """There is an account again: send the experts what waits for them."""
        for one in self._all.values():
            self._forward_later(one)

    async def tidy(self) -> None:
        """Forget what ended long ago."""
        limit = (self._clock.wall() - KEPT).isoformat()
        for key, one in list(self._all.items()):
            if one.shown.state is State.ENDED and one.shown.ended < limit:
                del self._all[key]
                await self._store.remove(Shelf.WEB_CHAT_MESSAGE, *(_key(key, n) for n in one.messages))
                await self._store.remove(Shelf.WEB_CHAT, key)

    @property
    def counts(self) -> dict[str, int]:
        """How many there are, by state."""
        found = dict.fromkeys((str(state) for state in State), 0)
        for one in self._all.values():
            found[str(one.shown.state)] += 1
        return found

    # -- looking --

    def of_agent(self, login: str) -> list[WebChat]:
        """Oldest first, ended ones included; "" = everybody's."""
        return [one.shown for one in self._all.values() if login in ("", one.shown.agent)]

    def show(self, key: str) -> WebChat:
        return self._one(key).shown

    def messages(self, key: str, after: int = 0) -> list[WebChatMessage]:
        one = self._one(key)
        return [one.messages[number] for number in sorted(one.messages) if number > after]

    # -- the customer's side --

    async def begin(self, agent: str, customer_name: str, reference: str) -> WebChat:
        if self.counts[str(State.OPEN)] >= _MOST_OPEN:
            raise WebChatRefused("too_many", "too many web chats are open")
        shown = WebChat(secrets.token_hex(16), agent, customer_name, reference, self._now())
        one = _One(shown, Inner())
        await self._keep(one, What.STARTED)
        self._all[shown.id] = one
        return shown

    async def say(
        self, key: str, sender: Sender, text: str, files: Sequence[str] = (), *, name: str = ""
    ) -> WebChatMessage:
        """Of customer or agent; it goes to the expert, too, when one has joined."""
        one = self._one(key)
        async with one.turn:
            self._open(one)
            name = one.shown.customer_name if sender is Sender.CUSTOMER else name or one.shown.agent
            message = await self._add(one, sender, name, text, tuple(files), ())
        self._forward_later(one)
        return message

    async def end(self, key: str) -> None:
        """Harmless twice."""
        one = self._one(key)
        async with one.turn, _whole(one):
            if one.shown.state is State.ENDED:
                return
            await self._leave(one)
            one.shown.state, one.shown.ended = State.ENDED, self._now()
            await self._keep(one, What.ENDED)

    # -- the expert --

    async def invite(self, key: str, oid: str) -> WebChat:
        """What Chats.open_chat raises; WebChatRefused when this pair has another one open."""
        one = self._one(key)
        async with one.turn, _whole(one):
            self._open(one)
            if one.shown.expert == oid:
                return one.shown
            chats, agent = self._chats(), one.shown.agent
            if chats is None:
                raise NoAccount("there is no integration account: an administrator makes it")
            if agent not in self._users.enabled:
                raise SignInNeeded(f"{agent} has not enabled Teams")
            if any(other.shown.expert == oid for other in self._of_pair(agent) if other is not one):
                raise WebChatRefused("expert_busy", "the expert is in another web chat of this agent")
            found = await chats.open_chat(agent, oid)
            await self._leave(one)
            await chats.send(agent, found.id, self._invitation(one))
            one.shown.expert, one.shown.expert_name = found.peer or oid, found.peer_name
            one.inner = Inner(found.id, one.shown.messages, events=one.inner.events)
            await self._add(one, Sender.SYSTEM, "", f"{found.peer_name} has joined", (), (), What.JOINED)
            one.inner.forwarded = one.shown.messages
            return one.shown

    async def dismiss(self, key: str) -> WebChat:
        """The expert is in it no more; harmless when there is none."""
        one = self._one(key)
        async with one.turn, _whole(one):
            await self._leave(one)
            return one.shown

    async def taken(self, popped: Popped) -> None:
        """Something happened in a 1:1 chat: perhaps the expert of a web chat wrote."""
        if popped.team or popped.mine:
            return
        for one in self._of_pair(popped.login):
            if one.inner.chat == popped.conversation:
                try:
                    await self._take(one, popped)
                except StoreFault as error:
                    log.warning("event=web_chat_waits web_chat=%s cause=%s", one.shown.id, error)
                    self._tasks.spawn(self._take_later(one, popped), "expert")

    async def _take(self, one: _One, popped: Popped) -> None:
        async with one.turn, _whole(one):
            if one.inner.chat == popped.conversation and one.shown.state is State.OPEN:
                await self._from_expert(one, popped.change, popped.message)

    async def _take_later(self, one: _One, popped: Popped) -> None:
        """Graph tells it once: it is kept here until the database takes it."""
        while True:
            await pause(self._clock, _AGAIN)
            try:
                await self._take(one, popped)
            except StoreFault:
                continue
            return

    # -- inside --

    async def _from_expert(self, one: _One, change: str, found: Message) -> None:
        number = one.inner.theirs.get(found.id)
        message = one.messages.get(number) if number is not None else None
        if change == NEW and number is None:
            if one.shown.expert not in ("", found.author) or one.shown.messages >= _MOST_MESSAGES:
                return
            one.inner.theirs[found.id] = one.shown.messages + 1
            name = found.author_name or one.shown.expert_name
            await self._add(one, Sender.EXPERT, name, found.text, found.files, found.types)
        elif message is not None and change in (EDITED, DELETED):
            message.text, message.files, message.types = found.text, found.files, found.types
            message.edited, message.deleted = not found.deleted, found.deleted
            await self._keep(one, What.DELETED if found.deleted else What.EDITED, message)

    async def _leave(self, one: _One) -> None:
        chat, name = one.inner.chat, one.shown.expert_name
        if not one.shown.expert:
            return
        one.shown.expert = one.shown.expert_name = ""
        one.inner = Inner(events=one.inner.events)
        await self._add(one, Sender.SYSTEM, "", f"{name} has left", (), (), What.LEFT)
        text = f"{one.shown.customer_name} no longer reads what is written here."
        self._tasks.spawn(self._send(one.shown.agent, chat, text), "leave")

    async def _send(self, agent: str, chat: str, text: str) -> None:
        chats = self._chats()
        if chats is not None and agent in self._users.enabled:
            await chats.send(agent, chat, text)

    def _invitation(self, one: _One) -> str:
        """With what was said before, the newest kept when it is much."""
        said = [_line(one.messages[n]) for n in sorted(one.messages)[-_TOLD_BEFORE:]]
        before = "\n".join(line for line in said if line)[-_TOLD_LONGEST:]
        text = (
            f"{one.shown.customer_name} is on a web chat with us, and reads what you write here from now on."
        )
        return f"{text}\n\n{before}" if before else text

    def _forward_later(self, one: _One) -> None:
        if one.inner.chat and not one.forwarding:
            one.forwarding = True
            self._tasks.spawn(self._forward(one), "forward")

    async def _forward(self, one: _One) -> None:
        """In order, as often as it takes; whoever joins or leaves meanwhile changes `inner`."""
        try:
            while (inner := one.inner).chat:
                number = next((n for n in sorted(one.messages) if n > inner.forwarded), None)
                chats = self._chats()
                if number is None or chats is None:
                    return
                text = _line(one.messages[number])
                try:
                    if text:
                        await chats.send(one.shown.agent, inner.chat, text)
                except (Throttled, StoreFault):
                    await pause(self._clock, _AGAIN)
                    continue
                except (GraphError, SignInNeeded) as error:
                    await self._gone(one, inner, error)
                    return
                except TeamsError as error:
                    log.warning("event=web_chat_waits web_chat=%s cause=%s", one.shown.id, error)
                    await pause(self._clock, _AGAIN)
                    continue
                inner.forwarded = number
                await self._keep(one, None)
        finally:
            one.forwarding = False

    async def _gone(self, one: _One, inner: Inner, error: TeamsError) -> None:
        """Nothing can be sent to the expert any more: say so and go on without him."""
        log.warning("event=web_chat_expert_lost web_chat=%s cause=%s", one.shown.id, error)
        async with one.turn:
            if one.inner is inner:
                await self._leave(one)

    async def _add(
        self,
        one: _One,
        sender: Sender,
        name: str,
        text: str,
        files: tuple[str, ...],
        types: tuple[str, ...],
        what: What = What.MESSAGE,
    ) -> WebChatMessage:
        number = one.shown.messages + 1
        if number > _MOST_MESSAGES and sender is not Sender.SYSTEM:
            raise WebChatRefused("too_long", f"this web chat has {_MOST_MESSAGES} messages: end it")
        message = WebChatMessage(number, sender, name, text, files, types, self._now())
        one.shown.messages = number
        one.messages[number] = message
        try:
            await self._keep(one, what, message)
        except StoreFault:
            one.shown.messages = number - 1
            del one.messages[number]
            raise
        return message

    async def _keep(self, one: _One, what: What | None, message: WebChatMessage | None = None) -> None:
        """Durable with its event for the webhook, or not at all; then the agent's pages are told."""
        shown = one.shown
        rows: list[tuple[Shelf, str, Document]] = []
        if message is not None:
            rows.append((Shelf.WEB_CHAT_MESSAGE, _key(shown.id, message.number), message.document()))
        chat, found = shown_chat(shown), shown_message(message) if message is not None else None
        if what is not None and self._hooks:
            one.inner.events += 1
            event = {"event": str(what), "at": self._now(), "web_chat": chat, "message": found}
            rows.append((Shelf.WEB_CHAT_EVENT, _key(shown.id, one.inner.events), event))
        rows.append((Shelf.WEB_CHAT, shown.id, {"shown": shown.document(), "inner": one.inner.document()}))
        await self._store.put_all(rows)
        if what is not None:
            self._told(shown.agent, chat, found)
            self.hooked()

    def _one(self, key: str) -> _One:
        one = self._all.get(key)
        if one is None:
            raise UnknownWebChat("there is no such web chat")
        return one

    def _of_pair(self, agent: str) -> list[_One]:
        """Those of an agent that an expert has joined."""
        return [one for one in self._all.values() if one.shown.agent == agent and one.inner.chat]

    @staticmethod
    def _open(one: _One) -> None:
        if one.shown.state is not State.OPEN:
            raise WebChatRefused("ended", "the web chat has ended")

    def _now(self) -> str:
        return self._clock.wall().isoformat()


@contextlib.asynccontextmanager
async def _whole(one: _One) -> AsyncIterator[None]:
    """What the database did not take has not happened."""
    before = replace(one.shown), replace(one.inner, theirs=dict(one.inner.theirs))
    try:
        yield
    except StoreFault:
        one.shown, one.inner = before
        raise


def _key(chat: str, number: int) -> str:
    return f"{chat}/{number:06d}"


def _line(message: WebChatMessage) -> str:
    """A message as the expert reads it; "" for what he need not, his own above all."""
    if message.sender not in (Sender.CUSTOMER, Sender.AGENT) or message.deleted:
        return ""
    parts = [message.text, *(f"[{name}]" for name in message.files)]
    return f"{message.name}: " + " ".join(part for part in parts if part)
