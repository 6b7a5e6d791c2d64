"""Calls of every kind with their parties, acted on a plant, and judged after its gateway was restarted.

A scene always says what has to survive at this very moment: `must`, parties whose call is established and who
are not about to leave, and `wanted`, what they hear, None while that is changing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from gateway.local_api import ask
from tests.calls.matrix import Matrix, Stage, everybody
from tests.peers.contact_center_call import CenterCall
from tests.peers.sipwire_call import WireCall
from tests.peers.teams_call import TeamsCall
from tests.restart.plant import Plant

CALLS = "/api/v1/calls"
PAIR = everybody("agent", "expert")
ALL = everybody("agent", "expert", "third")
ASIDE = {"agent": {"third"}, "third": {"agent"}, "expert": {"music"}}
PATIENT = 40.0
"""Seconds: more than 64*T1, after which every transaction has ended by itself."""


class Switchboard:
    """Teams' end: finds the scene an INVITE belongs to by the number called, or by the caller it shows."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._calls: dict[str, asyncio.Queue[TeamsCall]] = defaultdict(asyncio.Queue)

    async def run(self) -> None:
        while True:
            call = await self._plant.teams.expect_invite(3600, tone=0.0)
            assert call.invited is not None
            request = call.invited.request
            text = f"{request.uri} {request.get('From')}"
            found = re.search(r"\+1555(\d{6})", text) or re.search(r"\+4930(\d{6})", text)
            self._calls[found.group(1)[:5] if found else ""].put_nowait(call)

    async def next(self, key: str) -> TeamsCall:
        return await self._calls[key].get()

    def rest(self, key: str) -> list[TeamsCall]:
        """INVITEs that the scene did not get to."""
        queue = self._calls[key]
        return [queue.get_nowait() for _ in range(queue.qsize())]


@contextlib.asynccontextmanager
async def switchboard(plant: Plant) -> AsyncIterator[Switchboard]:
    board = Switchboard(plant)
    task = asyncio.create_task(board.run())
    try:
        yield board
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Scene:
    """One caller's calls.

    number: of the scene, five digits; its telephone numbers are made of it
    pace:   longest pause between two actions, seconds
    aside:  it has a consultation, so a second row
    """

    def __init__(
        self, plot: str, number: int, plant: Plant, board: Switchboard, dice: random.Random, pace: float = 0.3
    ) -> None:
        self.plot, self.key = plot, f"{number:05}"
        self._plant, self._board, self._dice, self._pace = plant, board, dice, pace
        self.stage = Stage()
        self.agent: CenterCall | None = None
        self.called: dict[str, TeamsCall] = {}
        self.others: list[WireCall] = []
        self.must: set[str] = set()
        self.wanted: Matrix | None = None
        self.established = self.aside = self.killed = False
        self._seen: dict[str, tuple[int, int]] = {}

    def __repr__(self) -> str:
        return f"{self.plot}({self.caller}) must={sorted(self.must)} wanted={self.wanted}"

    @property
    def caller(self) -> str:
        return f"+4930{self.key}0"

    def dialled(self, digit: int) -> str:
        return f"+1555{self.key}{digit}"

    @property
    def parties(self) -> dict[str, WireCall]:
        return {**({"agent": self.agent} if self.agent is not None else {}), **self.called}

    # ---- acting ----

    async def act(self) -> None:
        """The plot; waits for ever where the gateway has died, and is cancelled then."""
        await self.pause(3)
        self.agent = await self._plant.center.call(self.dialled(0), caller=self.caller)
        self.stage.add("agent", self.agent)
        expert = await self.ring("expert")
        if self.plot == "cancel":
            await self.pause()
            await self.agent.cancel()
            return
        await expert.answer(wait_for_ack=False)
        await self.agent.answered(PATIENT)
        await self.acknowledged("expert")
        self.established = True
        self.now(PAIR)
        await self.pause()
        await self.plots[self.plot](self)

    def now(self, wanted: Matrix | None) -> None:
        """From now on this is heard, and everybody in it has to survive; None: it is changing.

        Who joins only after the gateway was killed may find that his call is given up.
        """
        self.wanted = None if self.killed else wanted
        if wanted is not None:
            self.must = self.must & set(wanted) if self.killed else set(wanted)

    def gateway_killed(self) -> None:
        """What is expected of the next one is settled now."""
        self.killed = True
        self.restarts()

    def restarts(self) -> None:
        """What comes from now on is from the next gateway."""
        self._seen = {name: (len(party.inbox), len(party.acks)) for name, party in self.parties.items()}

    async def pause(self, times: float = 1) -> None:
        await asyncio.sleep(self._dice.uniform(0, self._pace * times))

    async def ring(self, name: str) -> TeamsCall:
        """The next INVITE is for the party of that name; it rings."""
        call = await self._board.next(self.key)
        self.called[name] = call
        self.stage.add(name, call)
        await self.pause()
        call.ring()
        await self.pause()
        return call

    async def joins(self, name: str) -> TeamsCall:
        """The next INVITE is for the party of that name, who answers."""
        call = await self.ring(name)
        await call.answer(wait_for_ack=False)
        await self.acknowledged(name)
        return call

    async def acknowledged(self, name: str) -> None:
        call = self.called[name]
        await call.until(lambda: bool(call.acks), "ACK", PATIENT)

    async def api(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return await ask(self._plant.state, method, CALLS + path, body)

    async def calls(self) -> list[Any]:
        """What the gateway has of this scene."""
        calls = (await self.api("GET", ""))["calls"]
        own = (self.caller[:-1], self.dialled(0)[:-1])
        return [call for call in calls if any(leg["number"].startswith(own) for leg in call["legs"])]

    async def call_id(self) -> str:
        """Of the first call; its consultation is younger."""
        return str((await self.calls())[0]["id"])

    async def leg_path(self, number: str) -> str:
        call = await self.call_id()
        legs = (await self.api("GET", f"/{call}"))["legs"]
        return f"/{call}/legs/" + str(next(leg["id"] for leg in legs if leg["number"] == number))

    async def hold_third(self) -> None:
        """The agent does, and nobody else."""
        leg = await self.leg_path(self.dialled(1))
        agent = (await self.leg_path(self.caller)).rpartition("/")[2]
        self.now(None)
        await self.api("PATCH", leg, {"on_hold": True, "by": agent})
        self.now({**PAIR, "third": {"music"}})

    async def leave(self, name: str) -> None:
        self.must.discard(name)
        await self.hang_up(name)

    async def hang_up(self, name: str) -> int:
        """BYE; as a telephone does, it has forgotten the dialog once the BYE is out, answered or not.

        The code of the answer.
        """
        party = self.parties[name]
        await party.ready()
        saying = asyncio.create_task(party.bye())
        await asyncio.sleep(0)
        dialog = party.dialog
        party.ua.dialogs.pop((dialog.call_id, dialog.local_tag), None)
        party.ended = True
        party.rtp.pause()
        try:
            return (await saying).code
        finally:
            saying.cancel()

    # ---- plots ----

    async def _talk(self) -> None:
        """Nothing happens."""

    async def _hold(self) -> None:
        await self._on_and_off(self.called["expert"], {"agent": {"music"}, "expert": set()})

    async def _hold_by_agent(self) -> None:
        assert self.agent is not None
        await self._on_and_off(self.agent, {"expert": {"music"}, "agent": set()})

    async def _on_and_off(self, holder: CenterCall | TeamsCall, held: Matrix) -> None:
        talking = self.wanted
        for _ in range(self._dice.randint(1, 4)):
            self.now(None)
            assert (await holder.hold()).code == 200
            self.now(held)
            await self.pause()
            if self._dice.random() < 0.3:
                return
            self.now(None)
            assert (await holder.resume()).code == 200
            self.now(talking)
            await self.pause()

    async def _three(self) -> None:
        self.now(None)
        await self.api("POST", f"/{await self.call_id()}/legs", {"number": self.dialled(1)})
        await self.joins("third")
        self.now(ALL)
        await self.pause()

    async def _conference(self) -> None:
        await self._three()
        match self._dice.choice(("stay", "hold", "expert_holds", "leave")):
            case "hold":
                assert self.agent is not None
                held = {"agent": set(), "expert": {"third", "music"}, "third": {"expert", "music"}}
                await self._on_and_off(self.agent, held)
            case "expert_holds":
                held = {"agent": {"third", "music"}, "expert": set(), "third": {"agent", "music"}}
                await self._on_and_off(self.called["expert"], held)
            case "leave":
                self.now(None)
                await self.leave("third")
                self.now(PAIR)

    async def _three_held(self) -> None:
        await self._three()
        self.now(None)
        assert self.agent is not None
        assert (await self.agent.hold()).code == 200
        self.now({"agent": set(), "expert": {"third", "music"}, "third": {"expert", "music"}})

    async def _supervision(self) -> None:
        """One who whispers at the end."""
        self.now(None)
        leg = await self.leg_path(self.caller)
        await self.api("POST", f"{leg}/supervisors", {"number": self.dialled(1), "mode": "listen"})
        await self.joins("fourth")
        both = {"agent", "expert"}
        self.now({**PAIR, "fourth": both})
        await self.pause()
        leg = await self.leg_path(self.dialled(1))
        self.now(None)
        await self.api("PATCH", leg, {"supervision": "whisper"})
        self.now({"agent": {"expert", "fourth"}, "expert": {"agent"}, "fourth": both})

    async def _consult(self) -> None:
        """The agent and the expert must survive, whatever happens to the third."""
        self.now(None)
        leg = await self.leg_path(self.caller)
        self.aside = True
        await self.api("POST", f"{leg}/consultation", {"number": self.dialled(1)})
        await self.joins("third")
        self.now(ASIDE)
        await self.pause()

    async def _consult_back(self) -> None:
        await self._consult()
        self.now(None)
        self.must.discard("third")
        await self.api("DELETE", f"/{await self.call_id()}/consultation")
        self.now(PAIR)

    async def _consult_merge(self) -> None:
        await self._consult()
        self.now(None)
        await self.api("POST", f"/{await self.call_id()}/consultation/merge")
        self.now(ALL)

    async def _consult_transfer(self) -> None:
        await self._consult()
        self.now(None)
        self.must.discard("agent")
        await self.api("POST", f"/{await self.call_id()}/consultation/transfer")
        self.now(everybody("expert", "third"))

    async def _transfer(self) -> None:
        """Teams' REFER; a transferor who leaves at once may take the call with him."""
        leaves = self._dice.random() < 0.5
        self.now(None)
        self.must = set() if leaves else {"agent"}
        await self.called["expert"].refer(bye_after=0.1 if leaves else None)
        if leaves:
            self.must = set()
        await self.joins("third")
        self.now(everybody("agent", "third"))

    async def _transfer_by_command(self) -> None:
        self.now(None)
        self.must = {"agent"}
        leg = await self.leg_path(self.dialled(0))
        await self.api("POST", f"{leg}/transfer", {"number": self.dialled(1), "trunk": "teams"})
        await self.joins("third")
        self.now(everybody("agent", "third"))

    async def _transfer_declined(self) -> None:
        """Whenever that ends, both are there again."""
        leg = await self.leg_path(self.dialled(0))
        await self.api("POST", f"{leg}/transfer", {"number": self.dialled(1), "trunk": "teams"})
        third = await self.ring("third")
        await self.pause()
        await third.decline(486)
        await self.pause()

    async def _supervised_transfer(self) -> None:
        """Whom he whispers to stays."""
        await self._supervision()
        await self.pause()
        self.now(None)
        self.must = {"agent", "fourth"}
        leg = await self.leg_path(self.dialled(0))
        await self.api("POST", f"{leg}/transfer", {"number": self.dialled(2), "trunk": "teams"})
        await self.joins("third")
        both = {"agent", "third"}
        self.now({"agent": {"third", "fourth"}, "third": {"agent"}, "fourth": both})

    async def _party_held(self) -> None:
        """The agent holds the third, who leaves."""
        await self._three()
        await self.hold_third()
        await self.pause()
        self.now(None)
        await self.leave("third")
        self.now(PAIR)

    async def _replaced(self) -> None:
        """INVITE with Replaces: while its answer may be lost with the connection, nobody has to survive."""
        self.now(None)
        self.must = set()
        taker = await self._plant.teams.replaces(self.called["expert"])
        self.called["third"] = taker
        self.stage.add("third", taker)
        await taker.answered(PATIENT)
        await self.called["expert"].expect_end(PATIENT)
        await self.pause()
        self.now(everybody("agent", "third"))

    async def _agent_leaves(self) -> None:
        self.now(None)
        self.must = set()
        await self.leave("agent")

    async def _expert_leaves(self) -> None:
        self.now(None)
        self.must = set()
        await self.leave("expert")

    plots: dict[str, Callable[[Scene], Awaitable[None]]]

    # ---- judging, once the next gateway is there ----

    def alive(self, name: str) -> bool:
        """It believes to be in a call; one whose 200 gets no ACK hangs up after 32 s by itself."""
        party = self.parties[name]
        there = party.established and not party.ended
        return there and (party.invited is None or bool(party.acks))

    async def heard(self, wanted: Matrix, within: float = 15.0) -> None:
        await self.stage.hear(wanted, within)

    async def conclude(self) -> None:
        """Nobody was lost who had to survive; all hear what they heard before and can hang up; nobody is
        left over.
        """
        for name in sorted(self.must):
            assert self.alive(name), f"{self}: {name} was lost"
        self.others += self._board.rest(self.key)
        await self._give_up()
        await self.refreshed()
        if self.wanted is not None:
            await self.heard(self.wanted)
        gone: list[str] = []
        for name in self._dice.sample(sorted(self.parties), len(self.parties)):
            if self.alive(name):
                code = await self.hang_up(name)
                # 481: the gateway's own BYE, because another one had left, crosses this one
                assert code == 200 or gone or name not in self.must, f"{self}: BYE of {name} got {code}"
                gone.append(name)
        for name in [name for name in self.parties if self.alive(name)]:
            await self.parties[name].expect_end(15)
        async with asyncio.timeout(20):
            while await self.calls():  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def refreshed(self) -> None:
        """The new gateway has asked all whether they are still there; nothing of theirs crosses that now."""
        await asyncio.gather(*(self._refreshed(name) for name in self.parties if self.alive(name)))

    async def _refreshed(self, name: str) -> None:
        party, (seen, acks) = self.parties[name], self._seen.get(name, (0, 0))

        def asked() -> bool:
            invited = any(tx.request.method == "INVITE" for tx in party.inbox[seen:])
            return party.ended or (invited and len(party.acks) > acks)

        with contextlib.suppress(AssertionError):
            await party.until(asked, "refresh", 10)

    async def _give_up(self) -> None:
        """INVITEs that were under way come to an end, whoever has to bring it about."""
        agent = self.agent
        if agent is not None and not agent.established and not agent.ended and agent.inviting is not None:
            # over UDP the INVITE is repeated until somebody answers, and cancelled only then (RFC 3261 9.1):
            # it may have become a call of the new gateway
            inviting = agent.inviting
            await agent.until(lambda: agent.ended or bool(inviting.seen), "answer", PATIENT)
            if not agent.ended and not agent.established:
                answer = await inviting.cancel().final(PATIENT)
                # a 100 may leave in the very moment in which the call is written down: then nobody knows it,
                # and who called can only give up, as after a lost connection
                if answer.code != 481 or agent.ended:
                    await agent.outcome(PATIENT)
                else:
                    assert {response.code for response in inviting.seen} <= {100}, f"{self}: not answered"
        for taker in self.called.values():
            if taker.inviting is not None and not taker.established and not taker.ended:
                # its connection broke with the gateway: nobody can answer it any more
                taker.ua.dialogs.pop((taker.dialog.call_id, taker.dialog.local_tag), None)
                taker.ended = True
        waiting = [party for party in self.called.values() if not party.established]
        for party in [*waiting, *self.others, *self._board.rest(self.key)]:
            if not party.established and not party.ended:
                await party.expect_end(15)


Scene.plots = {
    "talk": Scene._talk,
    "hold": Scene._hold,
    "hold_by_agent": Scene._hold_by_agent,
    "conference": Scene._conference,
    "three": Scene._three,
    "three_held": Scene._three_held,
    "supervision": Scene._supervision,
    "consult": Scene._consult,
    "consult_back": Scene._consult_back,
    "consult_merge": Scene._consult_merge,
    "consult_transfer": Scene._consult_transfer,
    "transfer": Scene._transfer,
    "transfer_by_command": Scene._transfer_by_command,
    "transfer_declined": Scene._transfer_declined,
    "supervised_transfer": Scene._supervised_transfer,
    "party_held": Scene._party_held,
    "replaced": Scene._replaced,
    "agent_leaves": Scene._agent_leaves,
    "expert_leaves": Scene._expert_leaves,
    "cancel": Scene._talk,
}
