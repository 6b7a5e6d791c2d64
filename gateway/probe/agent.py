"""The synthetic agent: signs in, opens a page, has the test number called, listens, hangs up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import aiohttp

from gateway.errors import TandemError
from gateway.phone.agent_page import AgentPage
from gateway.probe.reference import EVERY, Reference, round_trips, tone_level
from gateway.probe.report import Findings, mos_of
from media.webrtc import WebRtcPhone

_POLL = 0.05
_PATIENCE = 60.0
_SETTLING = 0.4
"""Seconds from the answer until the ringing tone has left every buffer."""
_TONE = -40.0
"""dBFS from which a tone of the test number counts as heard."""


class ProbeFailed(TandemError):
    """The call could not be made; the text says why."""


@dataclass(frozen=True, slots=True)
class Task:
    """One probe.

    url:     of the gateway's HTTP side, without a path
    agent:   login of the agent that the call is placed for
    account: sign in as this login with `secret`, its password; "": `secret` is a token of [http]
    seconds: how long to listen; echo: the number sends back what it hears, else it plays a tone of `hz`
    """

    url: str
    agent: str
    number: str
    secret: str = field(repr=False)
    account: str = ""
    trunk: str = ""
    seconds: float = 5.0
    hz: float = 0.0

    @property
    def echo(self) -> bool:
        return not self.hz


async def probe(task: Task) -> Findings:
    """One call, whatever comes of it. Never raises for what the gateway or the number does."""
    findings = Findings(task.number)
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=30)) as http:
        try:
            async with asyncio.timeout(_PATIENCE + task.seconds):
                return await _Agent(task, http).run()
        except (ProbeFailed, aiohttp.ClientError, ConnectionError) as error:
            return replace(findings, error=str(error) or type(error).__name__)
        except TimeoutError:
            return replace(findings, error="the test number did not answer in time")


class _Agent:
    def __init__(self, task: Task, http: aiohttp.ClientSession) -> None:
        self._task, self._http = task, http
        self._headers: dict[str, str] = {}

    async def run(self) -> Findings:
        task = self._task
        await self._sign_in()
        reference = Reference()
        phone = WebRtcPhone(reference)
        own = "" if task.account else f"?login={quote(task.agent)}"
        page = AgentPage(self._http, f"{task.url}/api/v1/phone{own}", phone, self._headers)
        await page.open()
        try:
            begun = time.monotonic()
            body = {"agent": task.agent, "number": task.number, "trunk": task.trunk}
            call = (await self._ask("POST", "/api/v1/calls", body))["id"]
            try:
                await self._up(call, page)
                setup = time.monotonic() - begun
                return await self._listen(Findings(task.number, setup=setup), phone, reference)
            finally:
                with contextlib.suppress(ProbeFailed, aiohttp.ClientError):
                    await self._ask("DELETE", f"/api/v1/calls/{call}")
        finally:
            await page.close()

    async def _sign_in(self) -> None:
        task = self._task
        if not task.account:
            self._headers = {"Authorization": f"Bearer {task.secret}"}
            return
        await self._ask("POST", "/sign-in", {"login": task.account, "password": task.secret})
        self._headers = {"X-CSRF-Token": (await self._ask("GET", "/api/v1/me"))["csrf"]}

    async def _up(self, call: str, page: AgentPage) -> None:
        """Until both talk. ProbeFailed when the call ends first."""
        while True:
            try:
                if (await self._ask("GET", f"/api/v1/calls/{call}"))["state"] == "up":
                    return
            except ProbeFailed as error:
                ended = next((one for one in page.said if one["type"] == "ended"), None)
                why = f"{ended['code']} {ended['reason']}" if ended is not None else str(error)
                raise ProbeFailed(f"the call ended: {why}") from error
            await asyncio.sleep(_POLL)

    async def _listen(self, found: Findings, phone: WebRtcPhone, reference: Reference) -> Findings:
        task = self._task
        await asyncio.wait_for(phone.connected.wait(), 10)
        await asyncio.sleep(_SETTLING)
        begin = time.monotonic()
        before = await _counters(phone)
        await asyncio.sleep(task.seconds)
        after = await _counters(phone)
        if before["ssrc"] != after["ssrc"]:
            # another source since: aiortc tells of the latest one only, and counts it from its first packet
            before = dict.fromkeys(before, 0.0)
        received, lost = (after[name] - before[name] for name in ("received", "lost"))
        loss = 100.0 * max(lost, 0) / max(received + lost, 1) if received else 100.0
        delay: float | None = None
        if task.echo:
            chirps = [at for at in reference.sent if begin <= at <= time.monotonic() - EVERY]
            trips = round_trips(chirps, list(phone.heard))
            back = [trip for trip in trips if trip is not None]
            heard = len(back) / len(trips) if trips else 0.0
            delay = sorted(back)[len(back) // 2] * 500 if back else None
        else:
            heard = float(tone_level(phone.pcm(begin)[-8000:], task.hz) >= _TONE)
        return replace(
            found,
            heard=heard,
            delay=delay,
            loss=loss,
            jitter=after["jitter"],
            mos=mos_of(delay or 0.0, loss) if heard else None,
        )

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        async with self._http.request(
            method, self._task.url + path, json=body, headers=self._headers
        ) as response:
            document = await response.json() if response.content_type.endswith("json") else None
            if response.status >= 400:
                problem = document if isinstance(document, dict) else {}
                raise ProbeFailed(str(problem.get("detail") or f"HTTP {response.status} for {path}"))
            return document


async def _counters(phone: WebRtcPhone) -> dict[str, float]:
    """received and lost in packets, jitter in milliseconds, of what comes in."""
    inbound = (await phone.statistics()).get("inbound-rtp")
    if inbound is None:
        return {"ssrc": 0.0, "received": 0.0, "lost": 0.0, "jitter": 0.0}
    return {
        "ssrc": inbound.ssrc,
        "received": inbound.packetsReceived,
        "lost": inbound.packetsLost,
        "jitter": inbound.jitter / 48.0,
    }
