"""What the room is made with, and what it makes for an account."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.teams.account_model import Account
from gateway.teams.chats import Chats
from gateway.teams.client import GraphClient
from gateway.teams.clouds import Cloud
from gateway.teams.directory import Attendant, Directory
from gateway.teams.entra import Entra
from gateway.teams.notifications import Receiver
from gateway.teams.presence_graph import Presences
from gateway.teams.presence_rules import Options
from gateway.teams.presence_sync import BusySync
from gateway.teams.shown import ShownPresences
from gateway.teams.subscriptions import Subscriptions


@dataclass(frozen=True)
class Settings:
    """public_url: under which Graph and browsers reach our HTTP server, without a slash at the end; "" means
    no notifications and no sign-in: presence is then synchronised from desk to Teams only
    mapped: login -> object id or user principal name
    hook: url, secret and time limit in seconds of where web chats are told
    tenant, client_id: of the application with which people sign in at the desk
    """

    cloud: Cloud
    account: Account | None
    public_url: str
    mapped: Callable[[], Mapping[str, str]]
    state_dir: Path
    database_url: str
    attendant: Attendant | None = None
    options: Options = field(default_factory=Options)
    hook: tuple[str, str, float] | None = field(default=None, repr=False)
    tenant: str = ""
    client_id: str = ""


@dataclass
class Connection:
    """Everything that hangs on the account."""

    entra: Entra
    client: GraphClient
    presences: Presences
    directory: Directory
    chats: Chats
    sync: BusySync
    subscriptions: Subscriptions
    receiver: Receiver
    shown: ShownPresences

    async def end(self) -> None:
        """All of it. What is ours in Graph is taken away where Graph can still be asked (`client.close`)."""
        await self.receiver.stop()
        await self.shown.stop()
        await self.subscriptions.stop()
        await self.sync.stop()
        await self.client.close()
        self.entra.close()
