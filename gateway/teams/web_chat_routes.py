"""`/api/v1/web-chats`: for the contact center's chat server, and for the agents whose web chats they are."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import Field

from gateway.agents.people import UserRole
from gateway.api.idempotency import REPLAYED, Idempotency
from gateway.api.operation import Answer, Asked, Operation, Parameters, Strict, json_answer, json_response
from gateway.api.problems import Problem
from gateway.api.sessions import person_of
from gateway.teams.errors import TeamsError
from gateway.teams.routes import problem_of
from gateway.teams.web_chat import UnknownWebChat, WebChatRefused, WebChats
from gateway.teams.web_chat_model import Sender, WebChat, WebChatMessage, shown_message

WEB_CHATS = "/api/v1/web-chats"
_ONE = WEB_CHATS + "/{web_chat}"
_ERRORS = frozenset({403, 404, 409, 502, 503})


class BeginWebChat(Strict):
    agent: str = Field(min_length=1, max_length=254, description="login of the agent who handles it")
    customer_name: str = Field(min_length=1, max_length=100, description="as the expert reads it")
    reference: str = Field(default="", max_length=200, description="your own name for it")


class Say(Strict):
    from_: Literal["customer", "agent"] = Field(alias="from")
    text: str = Field(default="", max_length=10_000)
    files: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default_factory=list, max_length=20, description="names of files; the files themselves stay with you"
    )


class InviteExpert(Strict):
    user: str = Field(min_length=1, max_length=200, description="object id of a Teams user")


class WebChatFilter(Parameters):
    agent: str = Field(default="", max_length=254, description="login; empty: everybody's")


class After(Parameters):
    after: int = Field(default=0, ge=0, description="`number` of the last message that you have")


@dataclass(frozen=True, slots=True)
class WebChatList:
    web_chats: list[WebChat]


_MESSAGE: dict[str, Any] = {
    "type": "object",
    "required": ["number", "from", "name", "text", "files", "types", "at", "edited", "deleted"],
    "properties": {
        "number": {"type": "integer"},
        "from": {"type": "string", "enum": [str(one) for one in Sender]},
        "name": {"type": "string"},
        "text": {"type": "string"},
        "files": {"type": "array", "items": {"type": "string"}, "description": "names"},
        "types": {"type": "array", "items": {"type": "string"}, "description": "content types of the rest"},
        "at": {"type": "string", "format": "date-time"},
        "edited": {"type": "boolean"},
        "deleted": {"type": "boolean"},
    },
}
_MESSAGES = {"type": "object", "properties": {"messages": {"type": "array", "items": _MESSAGE}}}


class _Routes:
    def __init__(self, web_chats: WebChats) -> None:
        self._web_chats = web_chats

    def _mine(self, asked: Asked[Any, Any]) -> str:
        """The id in the path; 404 for another agent's, of which he is to know nothing."""
        key, person = asked.path("web_chat"), person_of(asked.request)
        allowed = person is None or person.role.reaches(UserRole.ADMINISTRATOR)
        if not allowed and self._web_chats.show(key).agent != (person.login if person else ""):
            raise UnknownWebChat("there is no such web chat")
        return key

    async def listed(self, asked: Asked[None, WebChatFilter]) -> web.Response:
        return json_response(WebChatList, WebChatList(self._web_chats.of_agent(asked.query.agent)))

    async def begin(self, asked: Asked[BeginWebChat, None]) -> web.Response:
        body = asked.body
        made = await self._web_chats.begin(body.agent, body.customer_name, body.reference)
        return json_response(WebChat, made, status=201, headers={"Location": f"{WEB_CHATS}/{made.id}"})

    async def show(self, asked: Asked[None, None]) -> web.Response:
        return json_response(WebChat, self._web_chats.show(self._mine(asked)))

    async def end(self, asked: Asked[None, None]) -> web.Response:
        await self._web_chats.end(self._mine(asked))
        return web.Response(status=204)

    async def messages(self, asked: Asked[None, After]) -> web.Response:
        found = self._web_chats.messages(self._mine(asked), asked.query.after)
        return _json({"messages": [shown_message(one) for one in found]})

    async def say(self, asked: Asked[Say, None]) -> web.Response:
        key, body, person = self._mine(asked), asked.body, person_of(asked.request)
        sender = Sender(body.from_)
        if not body.text.strip() and not body.files:
            raise Problem(422, "give a text, or names of files", reason="invalid")
        if person is not None and sender is not Sender.AGENT:
            raise Problem(403, "people write as the agent", reason="not_the_customer")
        name = person.name if person is not None else ""
        said: WebChatMessage = await self._web_chats.say(key, sender, body.text, body.files, name=name)
        return _json(shown_message(said), status=201)

    async def invite(self, asked: Asked[InviteExpert, None]) -> web.Response:
        return json_response(WebChat, await self._web_chats.invite(self._mine(asked), asked.body.user))

    async def dismiss(self, asked: Asked[None, None]) -> web.Response:
        return json_response(WebChat, await self._web_chats.dismiss(self._mine(asked)))


def _json(found: Any, status: int = 200) -> web.Response:
    return json_response(dict[str, Any], found, status=status)


Handler = Callable[[Asked[Any, Any]], Awaitable[web.Response]]


def web_chat_operations(web_chats: WebChats) -> list[Operation]:
    """Everything that is done with web chats."""
    routes, once = _Routes(web_chats), Idempotency()

    def make(
        method: str, path: str, name: str, summary: str, act: Handler, answer: Answer, **more: Any
    ) -> Operation:
        repeatable = method == "POST"
        if repeatable:
            text = "`true` when the Idempotency-Key was seen before and nothing was done again"
            answer = Answer(answer.status, answer.description, answer.content, {REPLAYED: text})

        async def handle(asked: Asked[Any, Any]) -> web.StreamResponse:
            try:
                if repeatable:
                    return await once.once(asked.request, functools.partial(act, asked))
                return await act(asked)
            except UnknownWebChat as error:
                raise Problem(404, str(error), reason=error.reason) from None
            except WebChatRefused as error:
                raise Problem(409, str(error), reason=error.reason) from None
            except TeamsError as error:
                raise problem_of(error) from None

        return Operation(
            method=method, path=path, name=name, tag="web chats", summary=summary, handler=handle,
            answers=(answer,), errors=_ERRORS, repeatable=repeatable, **more,
        )  # fmt: skip

    seen, done = json_answer(200, "As it is now", WebChat), Answer(204, "Done")
    return [
        make(
            "GET", WEB_CHATS, "listWebChats", "Web chats, oldest first", routes.listed,
            json_answer(200, "Open ones, and those that ended within a day", WebChatList),
            query=WebChatFilter,
        ),
        make(
            "POST", WEB_CHATS, "beginWebChat", "An agent handles a customer's web chat", routes.begin,
            json_answer(201, "It has begun", WebChat), body=BeginWebChat,
        ),
        make("GET", _ONE, "showWebChat", "One of them", routes.show, seen),
        make("DELETE", _ONE, "endWebChat", "End it; an expert leaves", routes.end, done),
        make(
            "GET", _ONE + "/messages", "webChatMessages", "The transcript", routes.messages,
            json_answer(200, "In their order", _MESSAGES), query=After,
        ),
        make(
            "POST", _ONE + "/messages", "sayInWebChat", "The customer or the agent says something",
            routes.say, json_answer(201, "As it is kept", _MESSAGE), body=Say,
        ),
        make(
            "PUT", _ONE + "/expert", "inviteToWebChat", "A Teams user joins, in the place of one who has",
            routes.invite, seen, body=InviteExpert,
        ),
        make("DELETE", _ONE + "/expert", "dismissFromWebChat", "He leaves", routes.dismiss, seen),
    ]  # fmt: skip
