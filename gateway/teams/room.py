"""Teams beside the call: account, users, directory, chats, notifications and busy sync as one part.

Nothing here can stop a call: when Entra ID, Graph or the database fail, the part says so and tries again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from gateway.app import Health
from gateway.clock import Clock, LoopClock, TimerHandle
from gateway.teams.account import Accounts, AccountView, Check, check_connection
from gateway.teams.account_model import Account
from gateway.teams.chats import Chats
from gateway.teams.clean_up import CleanUps
from gateway.teams.client import GraphClient, Json
from gateway.teams.content_keys import ContentKeys
from gateway.teams.directory import Directory
from gateway.teams.entra import Entra, Identity
from gateway.teams.errors import (
    GraphUnavailable,
    NoAccount,
    SignInNeeded,
    StoreFault,
    TeamsError,
    Throttled,
    WrongIdentity,
)
from gateway.teams.feed import Feeds, TeamsPicture
from gateway.teams.notification_crypto import TokenChecker
from gateway.teams.notifications import PATH, Receiver
from gateway.teams.picture import paint
from gateway.teams.presence_desk import Desks
from gateway.teams.presence_graph import Presences, shown
from gateway.teams.presence_sync import BusySync
from gateway.teams.room_parts import Connection
from gateway.teams.room_parts import Settings as Settings
from gateway.teams.shown import ShownPresences
from gateway.teams.store import Shelf, Store
from gateway.teams.subscriptions import Kind, Subscription, Subscriptions, Watch
from gateway.teams.tasks import Tasks
from gateway.teams.users import TeamsUser, Users
from gateway.teams.vault import Vault
from gateway.teams.web_chat import WebChats
from gateway.teams.web_chat_hook import WebChatHook
from gateway.webhook import Hook

log = logging.getLogger("tandem.teams")

SIGNED_IN = "/teams/signed-in"
_CARE = 3600.0
_SAVE = 10.0
_AT_ONCE = 8
_OPEN_AGAIN = 30.0
_CLAIM_EVERY = 15.0
_REPAIR_AGAIN = 60.0
_STOP = 8.0


class TeamsRoom:
    """A part of the gateway."""

    name = "teams"

    def __init__(self, settings: Settings, desks: Desks, clock: Clock | None = None) -> None:
        self.settings, self._desks = settings, desks
        self._clock = clock or LoopClock()
        self._store = Store(settings.database_url, Vault(settings.state_dir))
        self.accounts = Accounts(self._store, self._clock, settings.account)
        self.users = Users(self._store, settings.mapped)
        self.feeds = Feeds(self)
        self._keys = ContentKeys(self._store, self._clock)
        self.web_chats = WebChats(
            self._store, self.users, self._current_chats, self._clock, self._told_of_web_chat,
            hooks=settings.hook is not None,
        )  # fmt: skip
        self.hook: WebChatHook | None = None
        if settings.hook is not None:
            url, secret, limit = settings.hook
            hook = Hook(url, secret, timeout_seconds=limit, clock=self._clock)
            self.hook = WebChatHook(hook, self._store, self._clock)
            self.web_chats.hooked = self.hook.wake
        self.connection: Connection | None = None
        self._tasks = Tasks("teams")
        self._timers: dict[str, TimerHandle] = {}
        self._pages: dict[str, int] = {}
        self._desk_tokens: dict[str, tuple[Identity, str]] = {}
        self._clean_ups = CleanUps()
        self._leaving: list[str] = []
        self._turn = asyncio.Lock()
        self._fault = ""
        self._up = self._stopping = False

    # -- life --

    async def start(self) -> None:
        """Without the database, or while another gateway runs Teams on it, it is tried again and again."""
        try:
            await self._store.open()
            if not await self._store.claim():
                raise StoreFault("another gateway runs Teams on this database")
            await self.accounts.start()
            await self.users.start()
            await self.web_chats.start()
        except TeamsError as error:
            if str(error) != self._fault:
                log.error("event=teams_off cause=%s", error)
            self._fault = str(error)
            self._later("open", _OPEN_AGAIN, self.start)
            return
        self._fault, self._up = "", True
        if self.hook is not None:
            await self.hook.start()
        self._care()
        self._save()
        self._later("claim", _CLAIM_EVERY, self._keep_claim)
        if self.accounts.account is not None:
            self._tasks.spawn(self._connect(), "connect")

    async def stop(self) -> None:
        self._stopping = True
        await self._down()
        await self._tasks.close()
        await self._clean_ups.stop()
        await self._store.close()

    async def _down(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._up = False
        try:
            async with asyncio.timeout(_STOP):
                await self._disconnect()
        except TimeoutError:
            log.warning("event=teams_stop_cut_off")
        await self.web_chats.stop()
        if self.hook is not None:
            await self.hook.stop()

    async def _keep_claim(self) -> None:
        """While the database is away nobody can take it from us; when it is back, another may be first."""
        try:
            mine = await self._store.claim()
        except StoreFault:
            mine = True
        if mine:
            self._later("claim", _CLAIM_EVERY, self._keep_claim)
            return
        self._fault = "another gateway runs Teams on this database"
        log.error("event=teams_off cause=%s", self._fault)
        await self._down()
        self._later("open", _OPEN_AGAIN, self.start)

    def _later(self, name: str, seconds: float, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if not self._stopping:
            self._never(name)
            self._timers[name] = self._clock.call_later(seconds, lambda: self._tasks.spawn(job(), name))

    def _never(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def health(self) -> Health:
        """Never unwell: calls go on without Teams. The text says what is wrong."""
        return Health(True, self.fault)

    @property
    def fault(self) -> str:
        view = self.accounts.view() if self._up else None
        connection = self.connection
        texts = [self._fault, view.warning if view else ""]
        if connection is not None:
            texts += [connection.sync.fault, *list(connection.subscriptions.faults.values())[:1]]
        return "; ".join(text for text in texts if text)

    @property
    def idle(self) -> bool:
        return self._tasks.idle and self._clean_ups.idle and self.web_chats.idle

    def _care(self) -> None:
        self.accounts.warn()
        self.feeds.wake()
        self._tasks.spawn(self.web_chats.tidy(), "tidy")
        if self.connection is not None:
            self._tasks.spawn(self._keys.care(), "keys")
        self._timers["care"] = self._clock.call_later(_CARE, self._care)

    def _save(self) -> None:
        if self.connection is not None and self.connection.chats.seen.changed:
            self._tasks.spawn(self.connection.chats.seen.save(), "seen")
        self._timers["save"] = self._clock.call_later(_SAVE, self._save)

    async def _connect(self) -> None:
        """Tried again while the database is away."""
        async with self._turn:
            account = self.accounts.account
            if account is None or self.connection is not None or not self._up:
                return
            try:
                await self._start(await self._make(account))
            except StoreFault as error:
                log.error("event=teams_not_connected cause=%s", error)
                self._fault = str(error)
                self._later("connect", _OPEN_AGAIN, self._connect)
                self.feeds.wake()
                return
            self._fault = ""
        self.feeds.wake()
        self.web_chats.resume()
        if self.settings.public_url:
            await self._watch_all()

    async def _start(self, made: Connection) -> None:
        """All of it, or nothing is left of it."""
        try:
            await made.chats.seen.start()
            for login in self.users.enabled:
                made.chats.seen.begin(login)
            await made.subscriptions.start()
            # Not before: a notification of a subscription that nobody knows is thrown away.
            self.connection = made
            await made.receiver.start()
            await made.sync.start({login: user.oid for login, user in self.users.enabled.items()})
        except BaseException:
            self.connection = None
            await made.end()
            raise

    async def _watch_all(self) -> None:
        """Presences first, which are read once more then: what changed before each was watched is unknown.

        Messages that came while we were away are read as well.
        """
        connection = self.connection
        if await self._for_all(self._watch_presence) and connection is not None:
            await connection.sync.resync()
        await self._for_all(lambda login: self._watch_chats(login, away=True))

    async def _for_all(self, watch: Callable[[str], Coroutine[Any, Any, bool]]) -> bool:
        """Some at a time, so that a thousand do not take minutes. Whether one is new."""
        waiting, new = list(self.users.enabled), False

        async def one_after_the_other() -> None:
            nonlocal new
            while waiting:
                login, found = waiting.pop(0), True
                try:
                    found = await watch(login)
                except TeamsError as error:
                    log.warning("event=watch_failed login=%s cause=%s", login, error)
                new = new or found

        await asyncio.gather(*(one_after_the_other() for _ in range(_AT_ONCE)))
        return new

    async def _make(self, account: Account) -> Connection:
        cloud, clock, store = self.settings.cloud, self._clock, self._store
        await self._keys.start()
        entra = Entra(cloud, account, store, clock)
        client = GraphClient(cloud, entra, clock)
        presences = Presences(client, account.client_id)
        chats = Chats(client, self.users, store, clock)
        chats.subscribe(self.feeds.popped)
        chats.stale = self.feeds.tell
        chats.keeper = self.web_chats.taken
        url = self.settings.public_url + PATH
        subscriptions = Subscriptions(client, store, clock, lambda: self._keys.newest, url, self._gap)
        chats.shared.subscriptions = subscriptions if self.settings.public_url else None
        subscriptions.on_refused = chats.shared.refused
        checker = TokenChecker(cloud, account.tenant, account.client_id, clock)
        receiver = Receiver(
            subscriptions, checker, self._keys.known, account.tenant, store, clock, self._changed
        )
        sync = BusySync(self._desks, presences, store, clock, self.settings.options)
        directory = Directory(client, presences, self.settings.attendant)
        known = ShownPresences(presences, clock, self.feeds.wake)
        for login, pages in self._pages.items():
            known.looking(login, pages)
        return Connection(entra, client, presences, directory, chats, sync, subscriptions, receiver, known)

    async def _disconnect(self) -> None:
        async with self._turn:
            gone, self.connection = self.connection, None
        if gone is not None:
            self.feeds.wake()
            await gone.receiver.stop()
            await gone.chats.seen.save()
            await gone.end()

    # -- account --

    async def save_account(self, account: Account) -> AccountView:
        """In the place of the one there was. Another application or tenant turns Teams off for every user."""
        before = self.accounts.account
        if before is not None and not before.same_application(account):
            await self.delete_account()
        await self._disconnect()
        await self.accounts.save(account)
        self.accounts.warn()
        await self._connect()
        view = self.accounts.view()
        assert view is not None
        return view

    async def delete_account(self) -> None:
        """Off for everybody until an account is there and each has enabled it again.

        At once here; what there is in Graph is taken away afterwards.
        """
        async with self._turn:
            gone = self.connection
            if gone is not None:
                await gone.entra.hold()
            await self.accounts.delete()
            self.connection, self._fault = None, ""
            logins = list(self.users.enabled)
            self.users.enabled.clear()
            self._desk_tokens.clear()
        self.feeds.wake()
        log.warning("event=account_deleted")
        if gone is not None:
            await gone.receiver.stop()
            self._clean_ups.begin(gone, logins)

    async def check(self, account: Account | None = None) -> Check:
        account = account or self.accounts.account
        if account is None:
            return Check(False, "there is no integration account")
        return await check_connection(account, self.settings.cloud, self._store, self._clock)

    @property
    def connected(self) -> Connection:
        """NoAccount, GraphUnavailable while the connection is being made."""
        if self.connection is None and self.accounts.account is not None and self._up:
            raise GraphUnavailable("Teams is being connected: ask again in some seconds", sent=False)
        if self.connection is None:
            raise NoAccount("there is no integration account: an administrator makes it")
        return self.connection

    # -- users --

    async def begin_sign_in(self, login: str) -> str:
        """Where to send the agent's browser."""
        if not self.settings.public_url:
            raise NoAccount("[graph] public_url is not set, so nobody can sign in")
        if login in self._leaving:
            raise GraphUnavailable(f"Teams is being disabled for {login}: ask again soon", sent=False)
        entra = self.connected.entra
        return await entra.begin_sign_in(login, self.settings.public_url + SIGNED_IN, self.users.hint(login))

    async def at_the_desk(self, identity: Identity, tokens: str) -> None:
        """Somebody signed in at the desk with Entra ID: an agent need not do it again for Teams.

        Kept in memory only, as he may never enable Teams. One who has, and was refused, goes on with them.
        """
        if identity.tid.lower() != self.settings.tenant.lower():
            return
        for login in self.settings.mapped():
            try:
                self.users.check(login, identity)
            except WrongIdentity:
                continue
            self._desk_tokens[login] = (identity, tokens)
            connection = self.connection
            if connection is not None and login in connection.entra.refused and await self._adopt(login):
                self._tasks.spawn(self._watch_again(connection, login), "watch")

    async def enable_from_desk(self, login: str) -> bool:
        """Enable Teams with what the sign-in at the desk brought. False: he has to sign in for Teams."""
        if login not in self._desk_tokens or self.connection is None or login in self._leaving:
            return False
        identity, _ = self._desk_tokens[login]
        self.users.check(login, identity)
        if not await self._adopt(login):
            return False
        await self._enabled(self.connected, login, identity)
        return True

    async def _adopt(self, login: str) -> bool:
        connection, account = self.connected, self.accounts.account
        _, tokens = self._desk_tokens[login]
        if account is None or account.client_id != self.settings.client_id:
            return False
        try:
            adopted = await connection.entra.adopt(login, tokens)
        except TeamsError as error:
            log.info("event=desk_sign_in_not_used login=%s cause=%s", login, error)
            return False
        if adopted:
            self.feeds.wake(login)
        else:
            del self._desk_tokens[login]
        return adopted

    async def finish_sign_in(self, answer: Mapping[str, str]) -> TeamsUser:
        """What came to the redirect URI. SignInNeeded, WrongIdentity, EntraRefused."""
        connection = self.connected
        login, identity = await connection.entra.finish_sign_in(answer, self.users.check)
        return await self._enabled(connection, login, identity)

    async def _enabled(self, connection: Connection, login: str, identity: Identity) -> TeamsUser:
        before = login in self.users.enabled
        user = await self.users.enable(login, identity)
        log.info("event=teams_enabled login=%s", login)
        connection.chats.seen.begin(login)
        await connection.sync.enable(login, user.oid)
        self.feeds.wake(login)
        watching = self._watch_again(connection, login) if before else self._watch(login)
        self._tasks.spawn(watching, "watch")
        return user

    async def disable(self, login: str) -> None:
        connection = self.connection
        self._desk_tokens.pop(login, None)
        self._leaving.append(login)
        try:
            if connection is not None:
                await self._leave(connection, login)
                await connection.entra.forget(login)
                await connection.chats.seen.forget(login)
            else:
                for shelf in (Shelf.TOKENS, Shelf.SYNC, Shelf.SEEN):
                    await self._store.remove(shelf, login)
            await self.users.disable(login)
        finally:
            self._leaving.remove(login)
        self.feeds.wake(login)
        log.info("event=teams_disabled login=%s", login)

    def mapping_changed(self) -> None:
        """Whose agent is mapped to another Teams user now, or to none, has Teams no more."""
        for login in self.users.misfits() if self._up else ():
            log.warning("event=teams_mapping_changed login=%s", login)
            del self.users.enabled[login]
            self._tasks.spawn(self.disable(login), "disable")

    def enabled(self, login: str) -> TeamsUser:
        """SignInNeeded where Teams is not enabled for this agent."""
        user = self.users.enabled.get(login)
        if user is None:
            raise SignInNeeded(f"{login} has not enabled Teams")
        return user

    @staticmethod
    async def _leave(connection: Connection, login: str) -> None:
        await connection.chats.leave(login)
        await connection.subscriptions.unwatch(login)
        await connection.sync.disable(login)

    @staticmethod
    async def _watch_again(connection: Connection, login: str) -> None:
        await connection.chats.shared.forgive(login)
        await connection.subscriptions.again(login)

    async def _watch(self, login: str) -> None:
        connection = self.connection
        if await self._watch_presence(login) and connection is not None:
            await connection.sync.resync_one(login)
        await self._watch_chats(login, away=False)

    async def _watch_presence(self, login: str) -> bool:
        """Whether the subscription is a new one."""
        connection, user = self.connection, self.users.enabled.get(login)
        if connection is None or user is None:
            return False
        watch = Watch(Kind.PRESENCE, login, f"/communications/presences/{user.oid}")
        return not await connection.subscriptions.watch(watch)

    async def _watch_chats(self, login: str, *, away: bool) -> bool:
        """away: messages may have come before, read them where the subscription is a new one."""
        connection, user = self.connection, self.users.enabled.get(login)
        if connection is None or user is None:
            return False
        watch = Watch(Kind.CHATS, login, f"/users/{user.oid}/chats/getAllMessages")
        new = not await connection.subscriptions.watch(watch)
        if new and away:
            await self._gap(watch)
        return new

    # -- what the pages are told --

    def picture(self, login: str) -> TeamsPicture:
        accounts = self.accounts if self._up else None
        public = bool(self.settings.public_url)
        return paint(
            login, accounts, self.users, self.connection, self._fault,
            mapped=login in self.settings.mapped(), notified=public,
        )  # fmt: skip

    def _current_chats(self) -> Chats | None:
        return self.connection.chats if self.connection is not None else None

    def _told_of_web_chat(self, agent: str, web_chat: Json, message: Json | None) -> None:
        self.feeds.tell(agent, "web_chat", web_chat=web_chat, message=message)

    def looking(self, login: str, pages: int) -> None:
        self._pages[login] = pages
        if not pages:
            del self._pages[login]
        if self.connection is not None:
            self.connection.shown.looking(login, pages)

    # -- what Graph tells --

    async def _changed(self, found: Subscription, change: str, resource: str, content: Json) -> None:
        connection = self.connection
        if connection is None:
            return
        if found.watch.kind is Kind.PRESENCE:
            user = self.users.enabled.get(found.watch.owner)
            if user is None or content.get("id") != user.oid:
                return
            try:
                seen = shown(content)
            except ValueError:
                log.warning("event=presence_malformed login=%s", found.watch.owner)
                return
            connection.shown.learned(user.oid, seen.pair)
            connection.sync.notified(user.oid, seen)
        else:
            await connection.chats.changed(found, change, resource, content)

    async def _gap(self, watch: Watch) -> None:
        connection = self.connection
        if connection is None:
            return
        if watch.kind is Kind.PRESENCE:
            await connection.sync.resync_one(watch.owner)
            return
        try:
            await connection.chats.repair(watch)
        except TeamsError as error:
            log.warning("event=chats_not_repaired login=%s cause=%s", watch.owner, error)
            if isinstance(error, Throttled | GraphUnavailable):
                self._later(f"repair {watch.key}", _REPAIR_AGAIN, lambda: self._gap(watch))
