"""The pages that are connected, one for each login, and the legs that ring or talk at them."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Protocol

from gateway.model import LegId
from gateway.phone.session import Message, PageSession

log = logging.getLogger("tandem.calls")


class Page(Protocol):
    """A connected page. Neither method waits."""

    def send(self, message: Message) -> None: ...

    def replaced(self) -> None:
        """The same login has opened another page: say so and close."""


class Phones:
    """sessions: those that are not over, by leg; counters: pages that came and went, by what happened."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.sessions: dict[LegId, PageSession] = {}
        self.counters: Counter[str] = Counter()

    def connected(self, login: str) -> bool:
        return login in self.pages

    def send(self, login: str, message: Message) -> None:
        """To the login's page; lost when there is none, `welcome` tells what matters of it."""
        page = self.pages.get(login)
        if page is not None:
            page.send(message)

    def opened(self, login: str, page: Page) -> None:
        """A page has connected; one that was there before goes."""
        old = self.pages.get(login)
        self.pages[login] = page
        self.counters["opened"] += 1
        if old is not None:
            self.counters["replaced"] += 1
            old.replaced()
        mine = self._of(login)
        page.send(
            {"type": "welcome", "login": login, "ice_servers": [], "calls": [one.picture for one in mine]}
        )
        for session in mine:
            session.page_back()
        log.info("page_opened login=%s legs=%d replaced=%s", login, len(mine), old is not None)

    def closed(self, login: str, page: Page) -> None:
        """A page's connection has ended, whatever the cause."""
        if self.pages.get(login) is not page:
            return
        del self.pages[login]
        self.counters["closed"] += 1
        mine = self._of(login)
        for session in mine:
            session.page_gone()
        log.info("page_closed login=%s legs=%d", login, len(mine))

    def session(self, login: str, leg: str) -> PageSession | None:
        """The session of a leg at this login's page."""
        found = self.sessions.get(LegId(leg))
        return found if found is not None and found.login == login else None

    def _of(self, login: str) -> list[PageSession]:
        return [one for one in self.sessions.values() if one.login == login]
