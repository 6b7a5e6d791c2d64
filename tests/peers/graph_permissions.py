"""Which permission each route asks for (facts/graph.md 1.1, 1.2); any one of the named suffices.

Departure: the table names the least permission and the usual wider ones, not every one that Graph takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.peers.entra import Grant
from tests.peers.graph_wire import Refusal

_USERS = frozenset({"User.ReadBasic.All", "User.Read.All"})
_CHAT_READ = frozenset({"Chat.Read", "Chat.ReadWrite"})
_CHAT_LIST = _CHAT_READ | {"Chat.ReadBasic"}
_CHAT_READ_APP = frozenset({"Chat.Read.All", "Chat.ReadWrite.All"})
_PRESENCE_WRITE = frozenset({"Presence.ReadWrite.All"})
_PRESENCE_READ = frozenset({"Presence.Read.All", "Presence.ReadWrite.All"})
_CHANNEL_READ = frozenset({"ChannelMessage.Read.All"})
NEVER: frozenset[str] = frozenset()
_TEAMS = frozenset({"Team.ReadBasic.All"})
_CHANNELS = frozenset({"Channel.ReadBasic.All"})
_CHANNEL_SEND = frozenset({"ChannelMessage.Send"})


@dataclass(frozen=True)
class Rule:
    method: str
    pattern: re.Pattern[str]
    delegated: frozenset[str]
    application: frozenset[str]


def _rule(method: str, pattern: str, delegated: frozenset[str], application: frozenset[str]) -> Rule:
    return Rule(method, re.compile(pattern), delegated, application)


_ID = r"[^/]+"
RULES: tuple[Rule, ...] = (
    _rule("GET", r"/me", frozenset({"User.Read", "User.Read.All"}), NEVER),
    _rule("GET", r"/me/presence", frozenset({"Presence.Read", "Presence.Read.All"}), NEVER),
    _rule("GET", r"/organization", frozenset({"User.Read"}), frozenset({"Organization.Read.All"}) | _USERS),
    _rule("GET", r"/users", _USERS, _USERS),
    _rule("GET", rf"/users/{_ID}", _USERS | {"User.Read"}, _USERS),
    _rule("GET", rf"/users/{_ID}/presence", _PRESENCE_READ, _PRESENCE_READ),
    _rule("POST", r"/communications/getPresencesByUserId", _PRESENCE_READ, _PRESENCE_READ),
    _rule(
        "POST",
        rf"/users/{_ID}/presence/(setPresence|clearPresence)",
        frozenset({"Presence.ReadWrite"}),
        _PRESENCE_WRITE,
    ),
    _rule(
        "GET",
        rf"(/me|/users/{_ID})/joinedTeams",
        frozenset({"Team.ReadBasic.All"}),
        frozenset({"Team.ReadBasic.All"}),
    ),
    _rule(
        "GET",
        rf"/teams/{_ID}/channels",
        frozenset({"Channel.ReadBasic.All"}),
        frozenset({"Channel.ReadBasic.All"}),
    ),
    _rule("GET", r"(/me)?/chats", _CHAT_LIST, frozenset({"Chat.ReadBasic.All"}) | _CHAT_READ_APP),
    _rule("POST", r"/chats", frozenset({"Chat.Create", "Chat.ReadWrite"}), frozenset({"Chat.Create"})),
    _rule("GET", rf"/chats/{_ID}", _CHAT_LIST, _CHAT_READ_APP),
    _rule("GET", rf"/chats/{_ID}/messages(/{_ID})?", _CHAT_READ, _CHAT_READ_APP),
    _rule("POST", rf"/chats/{_ID}/messages", frozenset({"ChatMessage.Send", "Chat.ReadWrite"}), NEVER),
    _rule("GET", rf"/teams/{_ID}/channels/{_ID}/messages(/.*)?", _CHANNEL_READ, _CHANNEL_READ),
    _rule(
        "POST",
        rf"/teams/{_ID}/channels/{_ID}/messages(/{_ID}/replies)?",
        frozenset({"ChannelMessage.Send"}),
        NEVER,
    ),
    _rule("GET", r"/subscriptions", frozenset(), frozenset()),
)
_SUBSCRIPTIONS: tuple[tuple[re.Pattern[str], frozenset[str], frozenset[str]], ...] = (
    (re.compile(r"communications/presences.*"), frozenset({"Presence.Read.All"}), NEVER),
    (re.compile(rf"(users/{_ID}|me)/chats/getAllMessages"), _CHAT_READ, _CHAT_READ_APP),
    (re.compile(rf"chats/{_ID}/messages"), frozenset({"Chat.Read"}), _CHAT_READ_APP),
    (re.compile(rf"teams/{_ID}/channels/{_ID}/messages"), _CHANNEL_READ, _CHANNEL_READ),
)


def check(method: str, path: str, grant: Grant) -> None:
    """403 as Graph words it where the token lacks what the route asks for."""
    for rule in RULES:
        if rule.method == method and rule.pattern.fullmatch(path):
            _need(grant, rule.delegated, rule.application, free=path.startswith("/subscriptions"))
            return


def check_subscription(resource: str, grant: Grant) -> None:
    for pattern, delegated, application in _SUBSCRIPTIONS:
        if pattern.fullmatch(resource):
            _need(grant, delegated, application)
            return
    raise Refusal(400, "BadRequest", "Resource is not supported for subscriptions.")


def _need(
    grant: Grant, delegated: frozenset[str], application: frozenset[str], *, free: bool = False
) -> None:
    wanted = application if grant.user is None else delegated
    if free or wanted & grant.permissions:
        return
    names = ", ".join(sorted(wanted)) or "none: not supported for this kind of token"
    raise Refusal(403, "Forbidden", f"Missing permissions on the request. API requires one of '{names}'.")
