"""The synthetic agent: signs in, opens a page, has the test number called, listens, hangs up."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import aiohttp

from gateway.errors import TandemError
from gateway.phone.agent_page import AgentPage
from gateway.probe.reference import EVERY, Reference, round_trips, tone_level
from gateway.probe.report import Cause, Findings, mos_of
from media.webrtc import WebRtcPhone

_POLL = 0.05
_CONNECTING = 10.0
"""Seconds for everything that does not wait for somebody to answer a telephone."""
_SETTLING = 0.4
"""Seconds from the answer until the ringing tone has left every buffer."""
_TONE = -40.0
"""dBFS from which a tone of the test number counts as heard."""


class ProbeFailed(TandemError):
    """The call could not be made; the text says why."""

    def __init__(self, text: str, cause: Cause) -> None:
        super().__init__(text)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Task:
    """One probe.

    url:     of the gateway's HTTP side, without a path
    agent:   login of the agent that the call is placed for
    account: sign in as this login with `secret`, its password; "": `secret` is a token of [http]
    seconds: how long to listen; patience: how long the number may take to answer
    echo: the number sends back what it hears, else it plays a tone of `hz`
    """

    url: str
    agent: str
    number: str
    secret: str = field(repr=False)
    account: str = ""
    trunk: str = ""
    seconds: float = 5.0
    patience: float = 30.0
    hz: float = 0.0

    @property
    def echo(self) -> bool:
        return not self.hz


async def probe(task: Task) -> Findings:
    """One call, whatever comes of it. Never raises for what the gateway or the number does."""
    jar = aiohttp.CookieJar(unsafe=True)
    limit = aiohttp.ClientTimeout(total=_CONNECTING)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=limit) as http:
        try:
            return await _Agent(task, http).run()
        except ProbeFailed as error:
            return Findings(task.number, error=str(error), cause=error.cause)
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            return Findings(task.number, error=_unreachable(task.url, error), cause=Cause.UNREACHABLE)


def _unreachable(url: str, error: Exception) -> str:
    if isinstance(error, aiohttp.InvalidURL):
        return f"{url} is no address of a gateway"
    why = str(error)
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, ssl.CertificateError):
        why = error.os_error.strerror or str(error.os_error)
    return f"no gateway answers at {url}: {why or 'it is silent'}"


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
        try:
            await self._open(page)
            begun = time.monotonic()
            body = {"agent": task.agent, "number": task.number, "trunk": task.trunk}
            call = (await self._ask("POST", "/api/v1/calls", body))["id"]
            try:
                await self._up(call, page)
                setup = time.monotonic() - begun
                return await self._listen(Findings(task.number, setup=setup), page, reference)
            finally:
                with contextlib.suppress(ProbeFailed, aiohttp.ClientError, TimeoutError):
                    await self._ask("DELETE", f"/api/v1/calls/{call}")
        finally:
            await page.close()

    async def _open(self, page: AgentPage) -> None:
        try:
            await page.open()
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (401, 403):
                text = f"the gateway does not take this token for the telephone of {self._task.agent}"
                raise ProbeFailed(text, Cause.DENIED) from error
            raise ProbeFailed(
                f"the gateway refuses a telephone: HTTP {error.status}", Cause.REFUSED
            ) from error

    async def _sign_in(self) -> None:
        task = self._task
        if not task.account:
            self._headers = {"Authorization": f"Bearer {task.secret}"}
            return
        await self._ask("POST", "/sign-in", {"login": task.account, "password": task.secret})
        self._headers = {"X-CSRF-Token": (await self._ask("GET", "/api/v1/me"))["csrf"]}

    async def _up(self, call: str, page: AgentPage) -> None:
        """Until both talk. ProbeFailed when the call ends first, or nobody answers."""
        deadline = time.monotonic() + self._task.patience
        while time.monotonic() < deadline:
            try:
                if (await self._ask("GET", f"/api/v1/calls/{call}"))["state"] == "up":
                    return
            except ProbeFailed as error:
                ended = next((one for one in page.said if one["type"] == "ended"), None)
                why = f"{ended['code']} {ended['reason']}" if ended is not None else str(error)
                raise ProbeFailed(f"the call ended: {why}", Cause.CALL) from error
            await asyncio.sleep(_POLL)
        raise ProbeFailed(f"nobody answered within {self._task.patience:g} s", Cause.CALL)

    async def _listen(self, found: Findings, page: AgentPage, reference: Reference) -> Findings:
        task, phone = self._task, page.phone
        try:
            await asyncio.wait_for(phone.connected.wait(), _CONNECTING)
        except TimeoutError:
            text = "no media between the gateway and here: does UDP to the ports of [media] pass?"
            if page.close_code is not None:
                text = (
                    f"another page of {task.agent} has taken its place: the probe needs an agent of its own"
                )
            raise ProbeFailed(text, Cause.MEDIA) from None
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
                cause = Cause.DENIED if response.status in (401, 403) else Cause.REFUSED
                text = str(problem.get("detail") or f"HTTP {response.status} for {path}")
                raise ProbeFailed(text, cause)
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
