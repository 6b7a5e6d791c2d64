"""What each role may do: one table, by the operation's name. What is not in it is for administrators.

It holds for people, who come with a session. Programs come with a token of [http], which allows everything or
reading (`gateway.api.auth`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from gateway.agents.people import UserRole


class Own(Enum):
    """How a request tells that it concerns nobody but the agent who makes it."""

    CALL = auto()
    """He has a leg in the call of the path."""
    LOGIN = auto()
    """The path's login is his."""
    QUERY = auto()
    """The query asks for `agent`, and that is he."""
    BODY = auto()
    """The body's `agent` is he."""


@dataclass(frozen=True, slots=True)
class Rule:
    """least: who may do it to anybody; own: how an agent below that may do it to himself, None = not at all.

    not_own: keys that such an agent's body must not have
    """

    least: UserRole
    own: Own | None = None
    not_own: frozenset[str] = frozenset()


_EVERYBODY = Rule(UserRole.AGENT)
_SUPERVISOR = Rule(UserRole.SUPERVISOR)
_ADMINISTRATOR = Rule(UserRole.ADMINISTRATOR)
_OWN_TEAMS = Rule(UserRole.ADMINISTRATOR, Own.LOGIN)
_OWN_CALL = Rule(UserRole.SUPERVISOR, Own.CALL)

ACCESS: dict[str, Rule] = {
    # the person himself
    "me": _EVERYBODY,
    "signOut": _EVERYBODY,
    "myEvents": _EVERYBODY,
    "phone": _EVERYBODY,
    # agents
    "listAgents": _SUPERVISOR,
    "showAgentState": Rule(UserRole.SUPERVISOR, Own.LOGIN),
    "setAgentState": Rule(UserRole.SUPERVISOR, Own.LOGIN),
    "putAgent": _ADMINISTRATOR,
    "removeAgent": _ADMINISTRATOR,
    "agentActivity": Rule(UserRole.SUPERVISOR, Own.QUERY),
    "desk": _SUPERVISOR,
    "deskEvents": _SUPERVISOR,
    "agentEvents": _SUPERVISOR,
    "audit": _ADMINISTRATOR,
    # calls
    "listCalls": Rule(UserRole.SUPERVISOR, Own.QUERY),
    "placeCall": Rule(UserRole.SUPERVISOR, Own.BODY),
    "showCall": _OWN_CALL,
    "changeCall": _OWN_CALL,
    "endCall": _OWN_CALL,
    "addLeg": _OWN_CALL,
    "showLeg": _OWN_CALL,
    "changeLeg": Rule(UserRole.SUPERVISOR, Own.CALL, frozenset({"supervision"})),
    "removeLeg": _OWN_CALL,
    "hangUpLeg": _OWN_CALL,
    "answerLeg": _OWN_CALL,
    "sendDigits": _OWN_CALL,
    "consult": _OWN_CALL,
    "transfer": _OWN_CALL,
    "supervise": _SUPERVISOR,
    "mergeConsultation": _OWN_CALL,
    "completeTransfer": _OWN_CALL,
    "endConsultation": _OWN_CALL,
    # what happened, and the house
    "callDetail": Rule(UserRole.SUPERVISOR, Own.QUERY),
    "events": _SUPERVISOR,
    "listTrunks": _SUPERVISOR,
}

TEAMS_ACCESS: dict[str, Rule] = {
    "teamsPeople": _EVERYBODY,
    "teamsPerson": _EVERYBODY,
    "showTeamsUsers": _OWN_TEAMS,
    "teamsOfAgent": _OWN_TEAMS,
    "enableTeams": _OWN_TEAMS,
    "disableTeams": _OWN_TEAMS,
    "teamsChats": _OWN_TEAMS,
    "openTeamsChat": _OWN_TEAMS,
    "teamsMessages": _OWN_TEAMS,
    "sendTeamsMessage": _OWN_TEAMS,
    "favourTeamsChat": _OWN_TEAMS,
    "teamsChannels": _OWN_TEAMS,
    "openTeamsChannel": _OWN_TEAMS,
    "closeTeamsChannel": _OWN_TEAMS,
    "teamsChannelMessages": _OWN_TEAMS,
    "postToTeamsChannel": _OWN_TEAMS,
    "favourTeamsChannel": _OWN_TEAMS,
}
"""Routes that are there with `[graph]` only. What an agent writes in Teams he alone reads and writes."""

WEB_CHAT_ACCESS: dict[str, Rule] = {
    "listWebChats": Rule(UserRole.ADMINISTRATOR, Own.QUERY),
    # whose web chat it is, the operations themselves look at
    "showWebChat": _EVERYBODY,
    "endWebChat": _EVERYBODY,
    "webChatMessages": _EVERYBODY,
    "sayInWebChat": _EVERYBODY,
    "inviteToWebChat": _EVERYBODY,
    "dismissFromWebChat": _EVERYBODY,
}
"""Likewise. An agent's own, and everybody's for administrators; beginning one is for programs and them."""

AUDIT_THEMSELVES = frozenset({"setAgentState", "putAgent", "removeAgent"})
"""Operations that write the audit log with more than the path tells; the others' changes the guard writes."""


def rule_of(operation: str) -> Rule:
    """The rule of an operation; "" or a name that the table lacks is for administrators."""
    found = ACCESS.get(operation) or TEAMS_ACCESS.get(operation) or WEB_CHAT_ACCESS.get(operation)
    return found or _ADMINISTRATOR
