"""The people of the desktop's demo: what they do when a letter is typed, and how their news read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any

import aiohttp

from tests.demo.failure import DemoFailed
from tests.demo.processes import Standin
from tests.demo.settings import NUMBERS, TEAMS_USERS

CUSTOMER, EXPERT, TELEPHONE = "customer", "expert", "telephone"
_LIMIT = aiohttp.ClientTimeout(total=5)
_STANDIN: dict[str, tuple[str, str, str]] = {
    "c": (CUSTOMER, f"dial {NUMBERS['anna']}", "the customer calls Anna"),
    "b": (CUSTOMER, "bye", "the customer hangs up"),
    "e": (EXPERT, f"dial {NUMBERS['anna']}", "the expert calls Anna"),
    "h": (EXPERT, "hold", "the expert puts his call on hold"),
    "r": (EXPERT, "resume", "the expert takes it back"),
    "x": (EXPERT, "bye", "the expert hangs up"),
}
_GRAPH = {
    "m": "m TEXT   the expert writes TEXT to Anna in Teams",
    "t": "t        Anna is in a call in her own Teams, or no longer",
}
_NEWS = {
    "RING": "is called",
    "ANSWERED": "talks",
    "ENDED": "is out of the call",
    "DONE hold": "holds",
    "DONE resume": "is back",
}


class GraphControl:
    """The Graph stand-in's control address; `async with`."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def __aenter__(self) -> GraphControl:
        self._http = aiohttp.ClientSession(timeout=_LIMIT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def post(self, action: str, **body: str) -> str:
        """ "" or why not."""
        try:
            async with self._http.post(f"{self._address}/{action}", json=body) as answer:
                return "" if answer.status == 200 else str((await answer.json()).get("error", answer.status))
        except (aiohttp.ClientError, TimeoutError) as error:
            return str(error) or type(error).__name__


class Persons:
    """They obey letters and have news."""

    def __init__(self, standins: dict[str, Standin], control: GraphControl) -> None:
        self.standins, self._control = standins, control
        self._in_teams_call = False
        self._said: asyncio.Queue[str] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    def help(self) -> Iterator[str]:
        for letter, (_, _, text) in _STANDIN.items():
            yield f"{letter}        {text}"
        yield from _GRAPH.values()
        yield "?        this list; q ends"

    def obey(self, line: str) -> None:
        """What was typed; news say what came of it."""
        letter, _, rest = line.partition(" ")
        if letter in _STANDIN and not rest:
            who, command, _ = _STANDIN[letter]
            self.standins[who].tell(command)
        elif letter == "m" and rest:
            self._act(
                f'the expert has written "{rest}"',
                self._control.post("say", user=TEAMS_USERS[EXPERT], to=TEAMS_USERS["anna"], text=rest),
            )
        elif letter == "t" and not rest:
            self._in_teams_call = not self._in_teams_call
            shown = ("Busy", "InACall") if self._in_teams_call else ("Available", "Available")
            self._act(
                f"Anna's Teams shows {shown[0]}, {shown[1]}",
                self._control.post(
                    "presence", user=TEAMS_USERS["anna"], availability=shown[0], activity=shown[1]
                ),
            )
        else:
            for text in self.help():
                self._said.put_nowait(text)

    def _act(self, text: str, work: Any) -> None:
        async def act() -> None:
            trouble = await work
            self._said.put_nowait(f"Graph refused: {trouble}" if trouble else text)

        task = asyncio.create_task(act())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def tell(self, tell: Callable[[str], None]) -> None:
        """News, for ever."""
        while True:
            tell(await self._said.get())

    def listen(self) -> list[Coroutine[Any, Any, None]]:
        """One for each stand-in, to be awaited: DemoFailed when it ends by itself."""
        return [self._listen(who, party) for who, party in self.standins.items()]

    async def _listen(self, who: str, party: Standin) -> None:
        while True:
            word, rest = await party.line()
            if word == "GONE":
                raise DemoFailed(f"{who}: the stand-in ended by itself")
            text = news(word, rest)
            if text:
                self._said.put_nowait(f"{who} {text}")


def news(word: str, rest: str) -> str:
    """A stand-in's line for people; "" when they need not know."""
    if word == "FAILED":
        return "cannot: " + ("there is no call" if "no call" in rest else rest)
    if word == "HEARD":
        heard = json.loads(rest)
        if "file" not in heard:
            return "heard nothing"
        return f"heard {heard['seconds']:.0f} s at {heard['level_dbfs']} dBFS: {heard['file']}"
    return _NEWS.get(word, _NEWS.get(f"{word} {rest}", ""))
