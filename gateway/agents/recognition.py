"""Whose leg it is, where a trusted contact center says so in a header. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.calls.routing import PartyIdentity
from gateway.config_models import Agent
from gateway.model import PartyType
from gateway.trunks.uris import HeaderSource


def recognise(
    identity: PartyIdentity, header: str, headers: HeaderSource, agents: Iterable[Agent]
) -> PartyIdentity:
    """`identity` (by number), or the agent whose login the trunk's `agent_header` names.

    header: the trunk's configured name, "" = this trunk is not believed. More than one value, or a login
    that no agent has, says nothing.
    """
    if not header:
        return identity
    values = [str(value).strip() for value in headers.getlist(header)]
    if len(values) != 1:
        return identity
    if any(agent.login == values[0] for agent in agents):
        return PartyIdentity(PartyType.AGENT, values[0])
    return identity
