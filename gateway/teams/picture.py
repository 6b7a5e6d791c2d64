"""What of Teams an agent's page shows at all times, taken from the parts that know it."""

from __future__ import annotations

from gateway.teams.account import Accounts
from gateway.teams.feed import BusyShown, Notice, TeamsPicture
from gateway.teams.room_parts import Connection
from gateway.teams.users import Users


def paint(
    login: str,
    accounts: Accounts | None,
    users: Users,
    connection: Connection | None,
    fault: str,
    *,
    mapped: bool,
    notified: bool,
) -> TeamsPicture:
    """accounts: None while Teams is off; fault: why; notified: whether Graph can reach us at all."""
    user = users.enabled.get(login)
    presences = connection.shown.of(login) if connection is not None else {}
    opened = connection.chats.open_channels(login) if connection is not None and user is not None else []
    return TeamsPicture(
        account=accounts is not None and accounts.account is not None,
        connected=connection is not None,
        mapped=mapped,
        enabled=user is not None,
        sign_in_needed=user is not None and connection is not None and login in connection.entra.refused,
        oid=user.oid if user is not None else "",
        name=user.name if user is not None else "",
        notices=_notices(login, accounts, connection, fault, silent=user is not None and not notified),
        busy_sync=_busy(login, connection),
        presences={oid: {"availability": pair[0], "activity": pair[1]} for oid, pair in presences.items()},
        channels_open=[{"team": team, "channel": channel} for team, channel in opened],
    )


def _notices(
    login: str, accounts: Accounts | None, connection: Connection | None, fault: str, *, silent: bool
) -> list[Notice]:
    found = []
    view = accounts.view() if accounts is not None else None
    if view is not None and view.warning and view.days_left is not None:
        kind = "secret_expired" if view.days_left < 0 else "secret_expiring"
        found.append(Notice(kind, view.warning, view.days_left))
    if fault:
        found.append(Notice("graph", fault))
    if connection is None:
        return found
    if connection.sync.fault:
        found.append(Notice("graph", connection.sync.fault))
    if silent or any(key.split(" ")[1] == login for key in connection.subscriptions.faults):
        found.append(Notice("notifications", "messages do not come by themselves: open the chat again"))
    return found


def _busy(login: str, connection: Connection | None) -> BusyShown:
    try:
        memory = connection.sync.memory(login) if connection is not None else None
    except KeyError:
        memory = None
    if memory is None:
        return BusyShown()
    return BusyShown(memory.in_call, str(memory.grip), str(memory.ours))
