"""The one integration account: kept, tested, watched for the day its secret expires."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date

from gateway.clock import Clock
from gateway.teams.account_model import Account
from gateway.teams.client import GraphClient
from gateway.teams.clouds import Cloud
from gateway.teams.entra import Entra
from gateway.teams.errors import PermissionMissing, TeamsError
from gateway.teams.presence_graph import Presences
from gateway.teams.store import Document, Shelf, Store

log = logging.getLogger("tandem.teams")

NOTICE_DAYS = 15
_KEY = "account"
_CONFIGURED = "configured"
_OF_USERS = (Shelf.TOKENS, Shelf.USER, Shelf.SYNC, Shelf.SUBSCRIPTION, Shelf.INBOX, Shelf.SEEN)


@dataclass(frozen=True)
class Check:
    """What a test of the connection found; `cause` names what to mend, "" when all is well."""

    ok: bool
    cause: str = ""


@dataclass(frozen=True)
class AccountView:
    """Without the secret. warning: "" or what is to be done about the secret's end."""

    tenant: str
    client_id: str
    object_id: str
    secret_expires: date | None
    days_left: int | None
    warning: str


class Accounts:
    """configured: what `[graph]` says; it is taken over once, so that replacing or deleting it lasts.

    When it says something else one day, that is taken over, whatever there is by then.
    """

    def __init__(self, store: Store, clock: Clock, configured: Account | None) -> None:
        self._store, self._clock, self._configured = store, clock, configured
        self.account: Account | None = None
        self._warned: date | None = None

    async def start(self) -> None:
        kept = await self._store.get(Shelf.ACCOUNT, _KEY)
        taken = await self._store.get(Shelf.ACCOUNT, _CONFIGURED)
        self.account = Account.of(kept) if kept else None
        new = self._configured
        if new is None or (taken and taken["fingerprint"] == new.fingerprint):
            return
        await self._save(new, [(Shelf.ACCOUNT, _CONFIGURED, {"fingerprint": new.fingerprint})])

    async def save(self, account: Account) -> None:
        """In the place of the one there was. Users of another application or tenant have to enable again."""
        await self._save(account, [])

    async def _save(self, account: Account, more: list[tuple[Shelf, str, Document]]) -> None:
        before = self.account
        if before is not None and not before.same_application(account):
            await self._store.clear(*_OF_USERS)
        await self._store.put_all([(Shelf.ACCOUNT, _KEY, account.document()), *more])
        self.account = account

    async def delete(self) -> None:
        """Teams is off for every user until each enables it again: tokens and users go too."""
        await self._store.remove(Shelf.ACCOUNT, _KEY)
        await self._store.clear(*_OF_USERS)
        self.account = None

    def view(self) -> AccountView | None:
        account = self.account
        if account is None:
            return None
        left = self.days_left
        warning = ""
        if left is not None and left < 0:
            warning = "the client secret has expired: make a new one in Entra ID and enter its value"
        elif left is not None and left <= NOTICE_DAYS:
            warning = f"the client secret expires in {left} days: make a new one in Entra ID"
        expires = account.secret_expires
        return AccountView(account.tenant, account.client_id, account.object_id, expires, left, warning)

    @property
    def days_left(self) -> int | None:
        """Whole days until the secret ends, negative afterwards; None when its end is not known."""
        if self.account is None or self.account.secret_expires is None:
            return None
        return (self.account.secret_expires - self._clock.wall().date()).days

    def warn(self) -> None:
        """Into the log, once a day."""
        view, today = self.view(), self._clock.wall().date()
        if view is not None and view.warning and self._warned != today:
            self._warned = today
            log.warning('event=secret_expiring days=%d cause="%s"', view.days_left, view.warning)


async def check_connection(account: Account, cloud: Cloud, store: Store, clock: Clock) -> Check:
    """Whether the account works, with what it may do; names the cause when it does not."""
    entra = Entra(cloud, account, store, clock)
    client = GraphClient(cloud, entra, clock, patience=5.0)
    missing = "", ""
    try:
        await entra.app_token()
        missing = "reading users", "User.Read.All"
        found = await client.get("/users", who=None, query={"$top": "1", "$select": "id"})
        missing = "presence", "Presence.ReadWrite.All"
        await Presences(client, account.client_id).read_many([str(one["id"]) for one in found["value"]])
    except PermissionMissing:
        what, permission = missing
        text = f"{what} is refused: grant the application permission {permission}, with admin consent"
        return Check(False, text)
    except KeyError:
        return Check(False, "what answers is not Graph: look at root")
    except TeamsError as error:
        return Check(False, str(error))
    finally:
        entra.close()
        await client.close()
    return Check(True)
