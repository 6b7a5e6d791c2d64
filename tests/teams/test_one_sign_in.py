"""The sign-in at the desk serves Teams, too: when it is the right user's, and Entra ID allows it silently."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.config_models import Graph
from gateway.teams.chats import Popped
from gateway.teams.entra import Identity
from gateway.teams.room import TeamsRoom
from gateway.teams.sign_in import EntraSignIn
from gateway.teams.sign_in_model import EntraIdentity
from tests.peers.graph import CLIENT, SECRET, TENANT, GraphSim
from tests.support.clock import FakeClock
from tests.teams.acting import browse, drive
from tests.teams.conftest import ANN, ERIKA, REDIRECT
from tests.teams.room_stage import LOGIN, RoomStage, good_account


class Stage(RoomStage):
    """People sign in at the desk with the application of the account."""

    client = CLIENT

    def make(self, settings: Any) -> TeamsRoom:
        return super().make(replace(settings, tenant=TENANT, client_id=self.client))


@pytest.fixture
async def stage(
    sim: GraphSim, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    monkeypatch.setenv("TANDEM_TEST_GRAPH", SECRET)
    sim.presence.client(ANN, "Available", "Available")
    made = Stage(sim, clock, tmp_path, good_account())
    async with made:
        yield made


async def at_the_desk(stage: Stage, oid: str) -> Identity:
    """Somebody signs in at the desk; the room is told."""
    found: list[tuple[EntraIdentity, str]] = []
    graph = Graph.model_validate(
        {
            "tenant": TENANT, "client_id": CLIENT, "client_secret": "env:TANDEM_TEST_GRAPH",
            "authority": stage.sim.authority, "trusted_roots": stage.sim.roots,
        }
    )  # fmt: skip
    door = EntraSignIn(graph, REDIRECT, kept=lambda identity, tokens: found.append((identity, tokens)))
    stage.sim.entra.impostor = oid
    flow = await door.begin()
    await door.finish(flow, await browse(stage.sim, flow.url))
    door.close()
    ((who, tokens),) = found
    identity = Identity(who.oid, who.tenant, who.name, who.user_principal_name)
    await stage.room.at_the_desk(identity, tokens)
    return identity


async def test_one_sign_in_enables_teams(stage: Stage) -> None:
    assert not await stage.room.enable_from_desk(LOGIN)
    await at_the_desk(stage, ANN)
    assert stage.room.users.enabled == {}, "nobody has asked for Teams yet"
    assert await stage.room.enable_from_desk(LOGIN)
    await stage.quiet()
    assert stage.room.users.enabled[LOGIN].oid == ANN
    assert stage.sim.entra.requests.count("authorize") == 1
    assert await stage.room.connected.chats.chats(LOGIN) == []
    assert len(stage.sim.subscriptions.all) == 2
    await stage.room.stop()
    await stage.open()
    assert await stage.room.connected.chats.chats(LOGIN) == []


async def test_another_users_sign_in_enables_nothing(stage: Stage) -> None:
    await at_the_desk(stage, ERIKA)
    assert not await stage.room.enable_from_desk(LOGIN)
    assert stage.room.users.enabled == {}


async def test_another_tenants_sign_in_enables_nothing(stage: Stage) -> None:
    identity = await at_the_desk(stage, ERIKA)
    stranger = Identity(ANN, "99999999-0000-0000-0000-000000000000", identity.name, "ann.agent@contoso.test")
    await stage.room.at_the_desk(stranger, "{}")
    assert not await stage.room.enable_from_desk(LOGIN)


async def test_without_consent_the_user_is_asked(stage: Stage) -> None:
    await at_the_desk(stage, ANN)
    stage.sim.registration.scopes.discard("Chat.Read")
    assert not await stage.room.enable_from_desk(LOGIN)
    stage.sim.registration.scopes.add("Chat.Read")
    assert (await stage.enable()).status == 200


async def test_another_applications_tokens_are_not_taken(stage: Stage) -> None:
    await stage.room.stop()
    stage.client = "another-application"
    await stage.open()
    await at_the_desk(stage, ANN)
    assert not await stage.room.enable_from_desk(LOGIN)


async def test_who_was_refused_goes_on_after_signing_in_at_the_desk(stage: Stage) -> None:
    await stage.enable()
    stage.sim.entra.expire_access_tokens()
    stage.sim.entra.revoked.add(ANN)
    with pytest.raises(Exception, match="sign in"):
        await stage.room.connected.chats.chats(LOGIN)
    stage.sim.entra.revoked.clear()
    await at_the_desk(stage, ANN)
    assert stage.room.connected.entra.refused == set()
    assert await stage.room.connected.chats.chats(LOGIN) == []


async def test_subscriptions_that_ended_with_the_tokens_come_back_with_the_sign_in(stage: Stage) -> None:
    """Signing in again at the desk brought tokens, and no subscription: calls in Teams went unseen."""
    await stage.enable()
    await lapse(stage)
    await at_the_desk(stage, ANN)
    await stage.quiet()
    assert len(stage.sim.subscriptions.all) == 2
    stage.sim.presence.client(ANN, "Busy", "InACall")
    await stage.quiet()
    assert stage.desks.state(LOGIN)[0].value == "not_ready"


async def test_a_call_begun_while_the_sign_in_was_refused_is_seen_after_it(stage: Stage) -> None:
    await stage.enable()
    await lapse(stage)
    stage.sim.presence.client(ANN, "Busy", "InACall")
    await stage.quiet()
    await at_the_desk(stage, ANN)
    await stage.quiet()
    assert stage.desks.state(LOGIN)[0].value == "not_ready"


async def test_an_open_channel_goes_on_after_signing_in_for_teams_again(stage: Stage) -> None:
    """Presence and chats were watched again, the channel stayed silent."""
    stage.sim.conversations.team("team-1", "Support", [ANN, ERIKA])
    channel = stage.sim.conversations.channel("team-1", "19:general@thread.tacv2", "General")
    await stage.enable()
    popped: list[Popped] = []
    stage.room.connected.chats.subscribe(popped.append)
    await stage.room.connected.chats.open_channel(LOGIN, "team-1", channel.id)
    await lapse(stage)
    stage.sim.conversations.post(channel, stage.sim.users[ERIKA], "while nobody listened")
    await drive(stage.clock, stage.enable())
    stage.sim.conversations.post(channel, stage.sim.users[ERIKA], "and now")
    await stage.quiet()
    assert [one.message.text for one in popped] == ["while nobody listened", "and now"]
    assert stage.room.connected.subscriptions.faults == {}


async def lapse(stage: Stage) -> None:
    """The user's tokens are refused until his subscriptions have ended; then they would be taken again."""
    stage.sim.entra.revoked.add(ANN)
    stage.sim.entra.expire_access_tokens()
    for _ in range(8):
        stage.clock.advance(600)
        await drive(stage.clock, stage.quiet())
    assert stage.room.connected.entra.refused == {LOGIN}
    assert stage.sim.subscriptions._live() == []
    stage.sim.entra.revoked.clear()


async def test_disabling_forgets_the_desks_tokens(stage: Stage) -> None:
    await at_the_desk(stage, ANN)
    assert await stage.room.enable_from_desk(LOGIN)
    await stage.quiet()
    await stage.room.disable(LOGIN)
    assert not await stage.room.enable_from_desk(LOGIN)
