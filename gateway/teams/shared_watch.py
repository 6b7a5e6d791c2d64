"""One subscription a channel, however many agents have it open.

Graph gives an application one subscription a channel (facts/graph.md 3.1), so it is made with one agent's
token and serves all; when he leaves, or has to sign in again, another one's token takes its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from gateway.teams.subscriptions import Kind, Subscriptions, Watch


def holder_of(logins: Sequence[str], holder: str, unable: Collection[str], *, lives: bool) -> str:
    """With whose token a channel is watched; "" for nobody's.

    logins: who has it open, longest first; unable: whose token was refused for it; lives: Graph still has
    the holder's, which only he could delete to make room for another
    """
    able = [login for login in logins if login not in unable]
    if holder in logins and (lives or holder in able or not able):
        return holder
    return next(iter(able or logins), "")


class SharedWatches:
    """who(resource): the logins that have it open, longest first."""

    def __init__(self, who: Callable[[str], Sequence[str]]) -> None:
        self._who = who
        self._held: dict[str, Watch] = {}
        self._unable: set[Watch] = set()
        self._turns: dict[str, asyncio.Lock] = {}
        self.subscriptions: Subscriptions | None = None

    async def settle(self, resource: str) -> None:
        """After somebody came or went."""
        subscriptions = self.subscriptions
        if subscriptions is None:
            return
        async with self._turns.setdefault(resource, asyncio.Lock()):
            logins, held = self._who(resource), self._held.get(resource)
            self._unable -= {
                one for one in self._unable if one.resource == resource and one.owner not in logins
            }
            unable = {one.owner for one in self._unable if one.resource == resource}
            lives = held is not None and subscriptions.lives(held)
            chosen = holder_of(logins, held.owner if held is not None else "", unable, lives=lives)
            if held is not None and held.owner == chosen:
                return
            wanted = Watch(Kind.CHANNEL, chosen, resource)
            if chosen:
                self._held[resource] = wanted
            elif held is not None:
                del self._held[resource]
            if held is None and chosen:
                await subscriptions.watch(wanted)
            elif held is not None and chosen:
                await subscriptions.hand_over(held, wanted)
            elif held is not None:
                await subscriptions.unwatch(held.owner, held.kind, held.resource)

    async def refused(self, watch: Watch) -> None:
        """The holder has to sign in again, or may not read it any more."""
        if watch.kind is Kind.CHANNEL:
            self._unable.add(watch)
            await self.settle(watch.resource)

    async def forgive(self, login: str) -> None:
        """He signed in again."""
        mine = {one for one in self._unable if one.owner == login}
        self._unable -= mine
        for one in mine:
            await self.settle(one.resource)
