"""The Graph stand-in as a process: `python -m tests.peers.graph_cli FOLDER [--control PORT]`.

Writes its CA into FOLDER, prints one line `ready authority=… root=… roots=… control=…`, and serves until it
is ended. The control address (plain http, this machine only) acts as a Teams user:

    POST /presence   {"user", "availability", "activity"}       what his Teams client reports
    POST /prefer     {"user", "availability", "activity"} or {"user"}
    POST /say        {"user", "to", "text", "attachments"?}     a message in the 1:1 chat of the two
    POST /post       {"user", "team", "channel", "text", "reply_to"?}
    POST /edit, /delete  {"chat", "message", "text"?}
    POST /trouble    {"path", "status", "count"?, "retry_after"?}
    POST /echo       {"seconds"}                                how late notifications come
    GET  /state      users with what is shown of them, chats with their messages
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from pathlib import Path

from aiohttp import web

from gateway.clock import LoopClock
from tests.peers.graph import CLIENT, SECRET, TENANT, GraphSim
from tests.peers.graph_wire import Json


def control(sim: GraphSim) -> web.Application:
    """The control API as an application."""

    async def presence(body: Json) -> Json:
        sim.presence.client(body["user"], body["availability"], body["activity"])
        return {}

    async def prefer(body: Json) -> Json:
        pair = (body["availability"], body["activity"]) if "availability" in body else None
        sim.presence.prefer(body["user"], pair)
        return {}

    async def say(body: Json) -> Json:
        thread = sim.conversations.one_to_one(body["user"], body["to"])
        more = {"attachments": body["attachments"]} if "attachments" in body else {}
        message = sim.conversations.post(thread, sim.users[body["user"]], body["text"], **more)
        return {"chat": thread.id, "message": message["id"]}

    async def post(body: Json) -> Json:
        thread = sim.conversations.channels[(body["team"], body["channel"])]
        message = sim.conversations.post(
            thread, sim.users[body["user"]], body["text"], replyToId=body.get("reply_to")
        )
        return {"message": message["id"]}

    async def edit(body: Json) -> Json:
        sim.conversations.edit(sim.conversations.chats[body["chat"]], body["message"], body["text"])
        return {}

    async def delete(body: Json) -> Json:
        sim.conversations.delete(sim.conversations.chats[body["chat"]], body["message"])
        return {}

    async def trouble(body: Json) -> Json:
        sim.trouble(
            body["path"], body["status"], count=body.get("count", 1), retry_after=body.get("retry_after")
        )
        return {}

    async def echo(body: Json) -> Json:
        sim.subscriptions.delivery.delay = float(body["seconds"])
        return {}

    async def state(_: web.Request) -> web.Response:
        users = {oid: {**user, "presence": sim.presence.shown(oid)} for oid, user in sim.users.items()}
        chats = {key: list(one.messages.values()) for key, one in sim.conversations.chats.items()}
        return web.json_response({"users": users, "chats": chats})

    app = web.Application()
    app.router.add_get("/state", state)
    for action in (presence, prefer, say, post, edit, delete, trouble, echo):

        async def serve(request: web.Request, action=action) -> web.Response:  # type: ignore[no-untyped-def]
            try:
                return web.json_response(await action(await request.json()))
            except (KeyError, ValueError, TypeError) as error:
                return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)

        app.router.add_post(f"/{action.__name__}", serve)
    return app


def populate(sim: GraphSim, redirect_uris: list[str]) -> None:
    """The people and channels of the demo."""
    sim.registration.redirect_uris |= set(redirect_uris)
    for number, (name, title, telephone) in enumerate(
        (
            ("Anna Example", "Agent", "+49301112201"),
            ("Bert Example", "Agent", "+49301112202"),
            ("Erika Expert", "Billing", "+4930123456"),
            ("Max Experte", "Shipping", "+4930123457"),
        ),
        1,
    ):
        oid = f"00000000-0000-0000-0000-{number:012d}"
        sim.add_user(oid, name, businessPhones=[telephone], jobTitle=title)
        sim.presence.client(oid, "Available", "Available")
    sim.conversations.team("team-support", "Support", list(sim.users))
    sim.conversations.channel("team-support", "19:general@thread.tacv2", "General")


async def serve(folder: Path, port: int, redirect_uris: list[str]) -> None:
    sim = GraphSim(LoopClock(), folder)
    populate(sim, redirect_uris)
    runner = web.AppRunner(control(sim), access_log=None)
    async with sim:
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            address = f"http://127.0.0.1:{runner.addresses[0][1]}"
            print(
                f"ready authority={sim.authority} root={sim.root} roots={sim.roots} control={address}"
                f" tenant={TENANT} client_id={CLIENT} client_secret={SECRET}",
                flush=True,
            )
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in for Microsoft Graph and Entra ID")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--control", type=int, default=0, help="port of the control API; 0 takes a free one")
    parser.add_argument("--redirect-uri", action="append", default=[], help="registered redirect URI")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(arguments.folder, arguments.control, arguments.redirect_uri))


if __name__ == "__main__":
    main()
