"""Several agents in one channel: Graph gives the application one subscription for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.teams.chats import Popped
from gateway.teams.shared_watch import holder_of
from tests.peers.graph import GraphSim
from tests.peers.graph_chats import Thread
from tests.support.clock import FakeClock
from tests.teams.acting import drive
from tests.teams.conftest import ANN, ERIKA, MAX
from tests.teams.room_stage import LOGIN, RoomStage, good_account

TEAM, GENERAL = "team-1", "19:general@thread.tacv2"
BOB = "bob"


class Stage(RoomStage):
    """Ann and Bob have enabled Teams and are in one team."""

    popped: list[Popped]

    async def both(self) -> None:
        self.mapped = {LOGIN: ANN, BOB: MAX}
        await self.enable()
        await self.enable(BOB, MAX)
        self.listen()

    def listen(self) -> None:
        self.popped = []
        self.room.connected.chats.subscribe(self.popped.append)

    async def open_channel(self, *logins: str) -> None:
        for login in logins:
            await drive(self.clock, self.room.connected.chats.open_channel(login, TEAM, GENERAL))
        await drive(self.clock, self.quiet())

    async def close_channel(self, login: str) -> None:
        await drive(self.clock, self.room.connected.chats.close_channel(login, TEAM, GENERAL))
        await drive(self.clock, self.quiet())

    async def post(self, text: str) -> list[str]:
        """Who sees it, in the order of logins."""
        self.sim.conversations.post(self.channel, self.sim.users[ERIKA], text)
        await drive(self.clock, self.quiet())
        return sorted(one.login for one in self.popped if one.message.text == text)

    @property
    def channel(self) -> Thread:
        return self.sim.conversations.channels[(TEAM, GENERAL)]

    @property
    def owners(self) -> list[str | None]:
        """Whose subscriptions to the channel Graph has."""
        live = self.sim.subscriptions._live()
        return [one.owner for one in live if one.resource.endswith(f"{GENERAL}/messages")]


@pytest.fixture
async def stage(sim: GraphSim, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Stage]:
    sim.conversations.team(TEAM, "Support", [ANN, ERIKA, MAX])
    sim.conversations.channel(TEAM, GENERAL, "General")
    made = Stage(sim, clock, tmp_path, good_account())
    async with made:
        await made.both()
        yield made


async def test_a_post_pops_at_each_who_has_the_channel_open(stage: Stage) -> None:
    """The second one's subscription was refused, and he saw nothing until he opened the channel again."""
    await stage.open_channel(LOGIN, BOB)
    assert stage.owners == [ANN]
    assert await stage.post("to all of you") == [LOGIN, BOB]
    assert stage.room.connected.subscriptions.faults == {}
    await stage.close_channel(BOB)
    assert await stage.post("to Ann") == [LOGIN]
    await stage.close_channel(LOGIN)
    assert stage.owners == []


@pytest.mark.parametrize("how", ["closes it", "disables Teams"])
async def test_who_stays_goes_on_when_the_first_one_leaves(stage: Stage, how: str) -> None:
    await stage.open_channel(LOGIN, BOB)
    stage.sim.subscriptions.delivery.lose = 2
    await stage.post("lost on the way")
    stage.sim.subscriptions.delivery.lose = 0
    if how == "closes it":
        await stage.close_channel(LOGIN)
    else:
        await drive(stage.clock, stage.room.disable(LOGIN))
        await drive(stage.clock, stage.quiet())
    assert stage.owners == [MAX]
    assert await stage.post("and now") == [BOB]
    assert [one.login for one in stage.popped if one.message.text == "lost on the way"] == [BOB]


async def test_who_has_to_sign_in_again_does_not_silence_the_others(stage: Stage) -> None:
    await stage.open_channel(LOGIN, BOB)
    stage.sim.entra.revoked.add(ANN)
    stage.sim.entra.expire_access_tokens()
    for _ in range(16):
        stage.clock.advance(300)
        await drive(stage.clock, stage.quiet())
    assert stage.owners == [MAX]
    assert await stage.post("still here?") == [LOGIN, BOB]
    stage.sim.entra.revoked.clear()
    await stage.enable()
    await stage.close_channel(BOB)
    assert stage.owners == [ANN]
    assert await stage.post("and now") == [LOGIN]


async def test_a_channel_that_somebody_else_had_open_before_a_restart(stage: Stage) -> None:
    await stage.open_channel(LOGIN)
    await stage.room.stop()
    await stage.open()
    stage.listen()
    await stage.open_channel(BOB)
    assert stage.owners == [MAX]
    assert await stage.post("hello again") == [BOB]


@pytest.mark.parametrize(
    ("logins", "holder", "unable", "lives", "chosen"),
    [
        ("", "", "", False, ""),
        ("a", "", "", False, "a"),
        ("ab", "a", "", True, "a"),
        ("ba", "a", "", True, "a"),
        ("b", "a", "", True, "b"),
        ("", "a", "", True, ""),
        ("ab", "a", "a", True, "a"),
        ("ab", "a", "a", False, "b"),
        ("ab", "b", "a", False, "b"),
        ("ab", "b", "ab", False, "b"),
        ("abc", "a", "ab", False, "c"),
        ("b", "a", "b", False, "b"),
        ("a", "", "a", False, "a"),
    ],
)
def test_whose_token_is_used(logins: str, holder: str, unable: str, lives: bool, chosen: str) -> None:
    assert holder_of(list(logins), holder, set(unable), lives=lives) == chosen
