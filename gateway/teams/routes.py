"""The HTTP side of Teams: the address Graph and Entra ID call, and the operations of the API."""

from __future__ import annotations

import html
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, TypeVar

from aiohttp import web
from pydantic import Field

from gateway.api.operation import Answer, Asked, Operation, Parameters, Strict, json_answer, json_response
from gateway.api.problems import Problem
from gateway.api.sessions import person_of
from gateway.teams.account import AccountView, Check
from gateway.teams.account_model import Account
from gateway.teams.chats import Channel, Chat, ConversationOpen
from gateway.teams.directory import Person
from gateway.teams.errors import (
    EntraRefused,
    GraphError,
    NoAccount,
    NotThere,
    PermissionMissing,
    SignInNeeded,
    TeamsError,
    Throttled,
    WrongIdentity,
)
from gateway.teams.messages import Message
from gateway.teams.notifications import PATH
from gateway.teams.room import SIGNED_IN, TeamsRoom
from gateway.teams.shown import MOST

log = logging.getLogger("tandem.teams")

T = TypeVar("T")
_STATUS: tuple[tuple[type[TeamsError], int], ...] = (
    (NoAccount, 409),
    (SignInNeeded, 409),
    (WrongIdentity, 403),
    (ConversationOpen, 409),
    (NotThere, 404),
    (PermissionMissing, 409),
    (Throttled, 503),
    (EntraRefused, 502),
    (GraphError, 502),
)
_ERRORS = frozenset({403, 404, 409, 502, 503})


class PutAccount(Strict):
    tenant: str = Field(min_length=1, max_length=100)
    client_id: str = Field(min_length=1, max_length=100)
    client_secret: str = Field(min_length=1, max_length=500, description="the secret's value, not its id")
    object_id: str = Field(default="", max_length=100)
    secret_expires: date | None = Field(default=None, description="last day of the secret", strict=False)

    def account(self) -> Account:
        return Account(self.tenant, self.client_id, self.client_secret, self.object_id, self.secret_expires)


class Search(Parameters):
    q: str = Field(default="", max_length=100, description="beginning of a name or address")


class Text(Strict):
    text: str = Field(min_length=1, max_length=28_000)
    thread: str = Field(default="", max_length=100, description="id of the root that is replied to")


class OpenChat(Strict):
    user: str = Field(min_length=1, max_length=200, description="object id of the other one")


class Show(Strict):
    users: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(
        max_length=MOST, description="object ids; in the place of those before"
    )


class Favourite(Strict):
    favourite: bool


class Thread(Parameters):
    thread: str = Field(default="", max_length=100)


@dataclass(frozen=True, slots=True)
class Enabled:
    """sign_in: where to send the browser, on beginning; "" otherwise. oid: the Teams user, once enabled."""

    enabled: bool
    name: str = ""
    sign_in: str = ""
    oid: str = ""


@dataclass(frozen=True, slots=True)
class People:
    people: list[Person]


@dataclass(frozen=True, slots=True)
class ShownUser:
    availability: str
    activity: str


@dataclass(frozen=True, slots=True)
class ShownUsers:
    """By object id; who is not known to Graph is missing."""

    presences: dict[str, ShownUser]


@dataclass(frozen=True, slots=True)
class ChatList:
    chats: list[Chat]


@dataclass(frozen=True, slots=True)
class ChannelList:
    channels: list[Channel]


@dataclass(frozen=True, slots=True)
class Messages:
    messages: list[Message]


def outside_routes(room: TeamsRoom) -> list[web.RouteDef]:
    """What Graph and browsers on their way back from Entra ID reach without a token of ours."""

    async def notified(request: web.Request) -> web.StreamResponse:
        connection = room.connection
        if connection is None:
            return web.Response(status=503, headers={"Retry-After": "30"})
        return await connection.receiver.handle(request)

    async def signed_in(request: web.Request) -> web.StreamResponse:
        answer = {name: str(value) for name, value in (await request.post()).items()}
        try:
            await room.finish_sign_in(answer)
        except TeamsError as error:
            log.warning("event=teams_sign_in_failed reason=%s", error.reason)
            return _page(403, f"Teams is not enabled: {error}.")
        return _page(200, "Teams is enabled. You can close this window.")

    return [web.post(PATH, notified), web.post(SIGNED_IN, signed_in)]


def _page(status: int, text: str) -> web.Response:
    """For the window in which somebody signed in."""
    page = f'<!doctype html><html lang="en"><title>Teams</title><p>{html.escape(text)}</p></html>'
    headers = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}
    return web.Response(status=status, text=page, content_type="text/html", headers=headers)


class _Routes:
    def __init__(self, room: TeamsRoom) -> None:
        self._room = room

    async def account(self, _: Asked[None, None]) -> web.Response:
        view = self._room.accounts.view()
        if view is None:
            raise Problem(404, "there is no integration account", reason="no_account")
        return json_response(AccountView, view)

    async def put_account(self, asked: Asked[PutAccount, None]) -> web.Response:
        return json_response(AccountView, await self._room.save_account(asked.body.account()))

    async def delete_account(self, _: Asked[None, None]) -> web.Response:
        await self._room.delete_account()
        return web.Response(status=204)

    async def check_account(self, _: Asked[None, None]) -> web.Response:
        return json_response(Check, await self._room.check())

    async def test_account(self, asked: Asked[PutAccount, None]) -> web.Response:
        return json_response(Check, await self._room.check(asked.body.account()))

    async def person(self, asked: Asked[None, None]) -> web.Response:
        return json_response(Person, await self._room.connected.directory.show(asked.path("oid")))

    async def show(self, asked: Asked[Show, None]) -> web.Response:
        found = await self._room.connected.shown.show(asked.path("login"), asked.body.users)
        shown = {oid: ShownUser(*pair) for oid, pair in found.items()}
        return json_response(ShownUsers, ShownUsers(shown))

    async def people(self, asked: Asked[None, Search]) -> web.Response:
        found = await self._room.connected.directory.search(asked.query.q)
        return json_response(People, People(found))

    async def state(self, asked: Asked[None, None]) -> web.Response:
        user = self._room.users.enabled.get(asked.path("login"))
        found = Enabled(True, user.name, "", user.oid) if user is not None else Enabled(False)
        return json_response(Enabled, found)

    async def enable(self, asked: Asked[None, None]) -> web.Response:
        login, person = asked.path("login"), person_of(asked.request)
        if person is not None and person.login == login and await self._room.enable_from_desk(login):
            return await self.state(asked)
        address = await self._room.begin_sign_in(asked.path("login"))
        return json_response(Enabled, Enabled(asked.path("login") in self._room.users.enabled, "", address))

    async def disable(self, asked: Asked[None, None]) -> web.Response:
        await self._room.disable(asked.path("login"))
        return web.Response(status=204)

    def _of(self, asked: Asked[Any, Any]) -> str:
        return self._room.enabled(asked.path("login")).login

    async def chats(self, asked: Asked[None, None]) -> web.Response:
        found = await self._room.connected.chats.chats(self._of(asked))
        return json_response(ChatList, ChatList(found))

    async def open_chat(self, asked: Asked[OpenChat, None]) -> web.Response:
        found = await self._room.connected.chats.open_chat(self._of(asked), asked.body.user)
        return json_response(Chat, found)

    async def messages(self, asked: Asked[None, None]) -> web.Response:
        found = await self._room.connected.chats.messages(self._of(asked), asked.path("chat"))
        return json_response(Messages, Messages(found))

    async def send(self, asked: Asked[Text, None]) -> web.Response:
        chats = self._room.connected.chats
        found = await chats.send(self._of(asked), asked.path("chat"), asked.body.text)
        return json_response(Message, found, status=201)

    async def favour_chat(self, asked: Asked[Favourite, None]) -> web.Response:
        chats = self._room.connected.chats
        await chats.favour_chat(self._of(asked), asked.path("chat"), asked.body.favourite)
        return web.Response(status=204)

    async def channels(self, asked: Asked[None, None]) -> web.Response:
        found = await self._room.connected.chats.channels(self._of(asked))
        return json_response(ChannelList, ChannelList(found))

    async def open_channel(self, asked: Asked[None, None]) -> web.Response:
        found = await self._room.connected.chats.open_channel(self._of(asked), *_place(asked))
        return json_response(Messages, Messages(found))

    async def close_channel(self, asked: Asked[None, None]) -> web.Response:
        await self._room.connected.chats.close_channel(self._of(asked), *_place(asked))
        return web.Response(status=204)

    async def channel_messages(self, asked: Asked[None, Thread]) -> web.Response:
        chats = self._room.connected.chats
        found = await chats.channel_messages(self._of(asked), *_place(asked), asked.query.thread)
        return json_response(Messages, Messages(found))

    async def post(self, asked: Asked[Text, None]) -> web.Response:
        chats = self._room.connected.chats
        found = await chats.post(self._of(asked), *_place(asked), asked.body.text, asked.body.thread)
        return json_response(Message, found, status=201)

    async def favour_channel(self, asked: Asked[Favourite, None]) -> web.Response:
        chats = self._room.connected.chats
        await chats.favour_channel(self._of(asked), *_place(asked), asked.body.favourite)
        return web.Response(status=204)


def _place(asked: Asked[Any, Any]) -> tuple[str, str]:
    return asked.path("team"), asked.path("channel")


def _told(handler: Callable[[Asked[Any, Any]], Awaitable[web.Response]]) -> Callable[..., Any]:
    async def act(asked: Asked[Any, Any]) -> web.Response:
        try:
            return await handler(asked)
        except TeamsError as error:
            raise problem_of(error) from None

    return act


def problem_of(error: TeamsError) -> Problem:
    """What the API says of it."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 503)
    return Problem(status, str(error), reason=error.reason)


def teams_operations(room: TeamsRoom) -> list[Operation]:
    """All of /api/v1/teams and /api/v1/agents/{login}/teams."""
    routes = _Routes(room)
    mine, done = "/api/v1/agents/{login}/teams", Answer(204, "Done")
    chat, channel = f"{mine}/chats/{{chat}}", f"{mine}/channels/{{team}}/{{channel}}"
    found: list[Operation] = []

    def add(
        method: str, path: str, name: str, summary: str, handler: Any, answer: Answer | Any, **more: Any
    ) -> None:
        answer = answer if isinstance(answer, Answer) else json_answer(200, summary, answer)
        found.append(
            Operation(
                method=method, path=path, name=name, tag="teams", summary=summary,
                handler=_told(handler), answers=(answer,), errors=_ERRORS, **more,
            )
        )  # fmt: skip

    base = "/api/v1/teams"
    add("GET", f"{base}/account", "teamsAccount", "The integration account", routes.account, AccountView)
    add(
        "PUT", f"{base}/account", "putTeamsAccount", "Enter or replace the account",
        routes.put_account, AccountView, body=PutAccount,
    )  # fmt: skip
    add(
        "DELETE", f"{base}/account", "deleteTeamsAccount", "Remove it: Teams is off for everybody",
        routes.delete_account, done,
    )  # fmt: skip
    add("POST", f"{base}/account/check", "checkTeamsAccount", "Test it", routes.check_account, Check)
    add(
        "POST", f"{base}/account/test", "testTeamsAccount", "Test one that is not entered yet",
        routes.test_account, Check, body=PutAccount,
    )  # fmt: skip
    add("GET", f"{base}/people", "teamsPeople", "Search", routes.people, People, query=Search)
    add("GET", f"{base}/people/{{oid}}", "teamsPerson", "One of them", routes.person, Person)
    add(
        "PUT", f"{mine}/shown", "showTeamsUsers", "Whose presence the agent's pages are told of",
        routes.show, ShownUsers, body=Show,
    )  # fmt: skip
    add("GET", mine, "teamsOfAgent", "Whether the agent has Teams", routes.state, Enabled)
    add("POST", mine, "enableTeams", "Begin to sign in", routes.enable, Enabled)
    add("DELETE", mine, "disableTeams", "Sign out of Teams", routes.disable, done)
    add("GET", f"{mine}/chats", "teamsChats", "1:1 chats", routes.chats, ChatList)
    add("POST", f"{mine}/chats", "openTeamsChat", "The chat with one", routes.open_chat, Chat, body=OpenChat)
    add("GET", f"{chat}/messages", "teamsMessages", "The newest", routes.messages, Messages)
    posted = json_answer(201, "As Teams took it", Message)
    add("POST", f"{chat}/messages", "sendTeamsMessage", "Send", routes.send, posted, body=Text)
    add("PUT", f"{chat}/favourite", "favourTeamsChat", "Favour", routes.favour_chat, done, body=Favourite)
    add("GET", f"{mine}/channels", "teamsChannels", "Channels", routes.channels, ChannelList)
    add("PUT", channel, "openTeamsChannel", "Begin the conversation", routes.open_channel, Messages)
    add("DELETE", channel, "closeTeamsChannel", "End the conversation", routes.close_channel, done)
    add(
        "GET", f"{channel}/messages", "teamsChannelMessages", "Roots, or a thread's replies",
        routes.channel_messages, Messages, query=Thread,
    )  # fmt: skip
    add("POST", f"{channel}/messages", "postToTeamsChannel", "Post", routes.post, posted, body=Text)
    add(
        "PUT", f"{channel}/favourite", "favourTeamsChannel", "Favour", routes.favour_channel, done,
        body=Favourite,
    )  # fmt: skip
    return found
