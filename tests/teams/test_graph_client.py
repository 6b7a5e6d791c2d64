"""The Graph client: pages, batches, waiting, errors, pace, and what it keeps to itself."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from email.utils import format_datetime

import pytest

from gateway.teams.buckets import LIMITS, Bucket, Category, category, units
from gateway.teams.client import GraphClient, Inner
from gateway.teams.entra import Entra
from gateway.teams.errors import (
    GraphError,
    GraphUnavailable,
    NotThere,
    PermissionMissing,
    Throttled,
    Untrusted,
)
from tests.peers.graph import CLIENT, SECRET, GraphSim
from tests.support.clock import FakeClock
from tests.teams.acting import drive, sign_in
from tests.teams.conftest import ANN, ERIKA, REDIRECT

SET = {"sessionId": CLIENT, "availability": "Busy", "activity": "InACall", "expirationDuration": "PT15M"}


async def test_pages_are_followed_to_the_end(sim: GraphSim, client: GraphClient) -> None:
    sim.page_size = 1
    found = [user["id"] async for user in client.pages("/users", who=None)]
    assert found == list(sim.users)
    assert sim.count("GET", "/users") == 3
    some = [user["id"] async for user in client.pages("/users", who=None, most=2)]
    assert len(some) == 2


@pytest.mark.parametrize(
    "root", ["https://evil.example.test/v1.0", "http://localhost:1/v1.0", "https://localhost"]
)
async def test_a_next_link_to_somebody_else_gets_no_token(
    sim: GraphSim, client: GraphClient, root: str
) -> None:
    sim.page_size, sim.next_link_root = 1, root
    with pytest.raises(Untrusted):
        [user async for user in client.pages("/users", who=None)]


async def test_searching_sends_the_header_on_every_page(sim: GraphSim, client: GraphClient) -> None:
    sim.page_size = 1
    headers = {"ConsistencyLevel": "eventual"}
    pages = client.pages("/users", who=None, query={"$search": '"displayName:e"'}, headers=headers)
    assert [user["displayName"] async for user in pages] == ["Erika Expert", "Max Experte"]
    with pytest.raises(GraphError, match="Request_UnsupportedQuery"):
        await client.get("/users", who=None, query={"$search": '"displayName:e"'})


@pytest.mark.parametrize("retry_after", ["2.128", "3", "date"])
async def test_a_busy_graph_is_given_the_time_it_asks_for(
    sim: GraphSim, client: GraphClient, clock: FakeClock, retry_after: str
) -> None:
    await client.get("/organization", who=None)
    clock.advance(0.5)
    if retry_after == "date":
        wanted = 4.0
        text = format_datetime(
            clock.wall().replace(microsecond=0, second=clock.wall().second + 4), usegmt=True
        )
    else:
        wanted, text = float(retry_after), retry_after
    sim.trouble("/users", 429, retry_after=text)
    began = clock.now()
    await drive(clock, client.get("/users", who=None))
    assert wanted - 0.51 <= clock.now() - began <= wanted + 0.01
    assert client.counters.throttled == 1


async def test_without_retry_after_the_waiting_doubles(
    sim: GraphSim, client: GraphClient, clock: FakeClock
) -> None:
    await client.get("/organization", who=None)
    sim.trouble("/users", 503, count=3)
    began = clock.now()
    await drive(clock, client.get("/users", who=None))
    assert 3.5 <= clock.now() - began <= 7.5
    assert sim.count("GET", "/users") == 4


async def test_patience_ends(sim: GraphSim, client: GraphClient, clock: FakeClock) -> None:
    sim.trouble("/users", 429, count=-1, retry_after="25")
    with pytest.raises(Throttled):
        await drive(clock, client.get("/users", who=None))
    assert sim.count("GET", "/users") == 3
    sim.troubles.clear()
    sim.trouble("/me", 503, count=-1)
    with pytest.raises(GraphUnavailable):
        await drive(clock, client.get("/me", who=None))


async def test_nobody_asks_again_before_graph_wants_to_be_asked(
    sim: GraphSim, client: GraphClient, clock: FakeClock
) -> None:
    """A Retry-After beyond our patience was forgotten: the next one asked at once, which Graph counts."""
    await client.get("/organization", who=None)
    sim.trouble("presence", 429, retry_after="120")
    path = f"/users/{ANN}/presence"
    with pytest.raises(Throttled):
        await drive(clock, client.get(path, who=None))
    asked = sim.count("GET", "presence")
    for _ in range(5):
        clock.advance(10)
        with pytest.raises(Throttled, match="not sent"):
            await client.get(path, who=None)
    assert sim.count("GET", "presence") == asked
    assert (await client.get(f"/users/{ERIKA}", who=None))["id"] == ERIKA, "another category is open"
    clock.advance(20)
    assert (await drive(clock, client.get(path, who=None)))["id"] == ANN
    assert clock.now() >= 120


async def test_a_message_is_posted_again_only_when_graph_said_so(
    sim: GraphSim, entra: Entra, client: GraphClient, clock: FakeClock
) -> None:
    await sign_in(sim, entra, "ann", REDIRECT, ANN)
    chat = sim.conversations.one_to_one(ANN, ERIKA)
    path = f"/chats/{chat.id}/messages"
    message = {"body": {"content": "hello"}}
    sim.trouble(path, 504)
    with pytest.raises(GraphUnavailable):
        await drive(clock, client.post(path, message, who="ann"))
    assert chat.messages == {}
    sim.trouble(path, 503, retry_after="1")
    await drive(clock, client.post(path, message, who="ann"))
    assert len(chat.messages) == 1


async def test_errors_by_what_can_be_done_about_them(
    sim: GraphSim, entra: Entra, client: GraphClient
) -> None:
    with pytest.raises(NotThere, match="Request_ResourceNotFound") as caught:
        await client.get("/users/nobody", who=None)
    assert caught.value.request_id
    sim.registration.app_roles.discard("User.Read.All")
    await entra.app_token(renew=True)
    with pytest.raises(PermissionMissing):
        await client.get("/users", who=None)
    with pytest.raises(PermissionMissing):
        await client.post("/chats/x/messages", {"body": {"content": "x"}}, who=None)
    with pytest.raises(GraphError, match="400"):
        await client.post(f"/users/{ANN}/presence/setPresence", {**SET, "activity": "Busy"}, who=None)


async def test_an_expired_token_is_renewed_once(sim: GraphSim, entra: Entra, client: GraphClient) -> None:
    await client.get("/users", who=None)
    sim.entra.expire_access_tokens()
    await client.get("/users", who=None)
    assert sim.entra.requests.count("token client_credentials") == 2
    sim.trouble("/users", 401, count=-1)
    with pytest.raises(GraphError, match="401"):
        await client.get("/users", who=None)
    assert sim.entra.requests.count("token client_credentials") == 3


async def test_a_batch_comes_back_in_order_and_its_busy_parts_are_sent_again(
    sim: GraphSim, client: GraphClient, clock: FakeClock
) -> None:
    await client.get("/organization", who=None)
    inner = [Inner("GET", f"/users/{ANN}/presence"), Inner("GET", "/users/nobody")]
    inner += [Inner("GET", f"/users/{ERIKA}")] * 25
    sim.trouble(f"/users/{ANN}", 429, retry_after="2.5")
    began = clock.now()
    replies = await drive(clock, client.batch(inner, who=None))
    assert [reply.status for reply in replies] == [200, 404] + [200] * 25
    assert replies[0].body["id"] == ANN
    assert clock.now() - began >= 2.5
    assert sim.count("GET", f"/users/{ERIKA}") == 25


async def test_what_waits_for_another_in_a_batch_is_sent_again_with_it(
    sim: GraphSim, client: GraphClient, clock: FakeClock
) -> None:
    """Beyond the twentieth, `after` named another one; an inner 503 and what waited for it were lost."""
    inner = [Inner("GET", f"/users/{ERIKA}")] * 22
    inner += [
        Inner("GET", "/users/nobody"),
        Inner("GET", f"/users/{ANN}/presence", after=3),
        Inner("POST", f"/users/{ANN}/presence/setPresence", SET),
        Inner("GET", f"/users/{ANN}", after=24),
        Inner("GET", f"/users/{ANN}", after=25),
        Inner("GET", f"/users/{ANN}", after=22),
        Inner("GET", f"/users/{ANN}", after=27),
    ]
    inner += [Inner("GET", f"/users/{ERIKA}")] * 11 + [Inner("GET", f"/users/{ANN}", after=27)]
    sim.trouble("setPresence", 503, retry_after="3")
    began = clock.now()
    replies = await drive(clock, client.batch(inner, who=None))
    assert [one.status for one in replies] == [200] * 22 + [404, 200, 200, 200, 200, 424, 424] + [
        200
    ] * 11 + [424]
    assert replies[26].body["id"] == ANN
    assert clock.now() - began >= 3
    assert sim.count("GET", f"/users/{ERIKA}") == 33


async def test_a_batch_that_waits_too_long_closes_its_category(
    sim: GraphSim, client: GraphClient, clock: FakeClock
) -> None:
    sim.trouble("presence", 429, retry_after="120")
    path = f"/users/{ANN}/presence"
    (reply,) = await drive(clock, client.batch([Inner("GET", path)], who=None))
    assert reply.status == 429
    with pytest.raises(Throttled, match="not sent"):
        await client.batch([Inner("GET", path)], who=None)


async def test_a_token_past_its_time_is_not_taken(sim: GraphSim, client: GraphClient) -> None:
    """The stand-in took every token it had ever given out."""
    await client.get("/users", who=None)
    for token, grant in sim.entra.grants.items():
        sim.entra.grants[token] = replace(grant, expires=time.time() - 1)
    await client.get("/users", who=None)
    assert sim.entra.requests.count("token client_credentials") == 2


async def test_posting_in_a_batch(sim: GraphSim, client: GraphClient) -> None:
    (reply,) = await client.batch([Inner("POST", f"/users/{ANN}/presence/setPresence", SET)], who=None)
    assert reply.status == 200
    assert sim.presence.shown(ANN) == ("Busy", "InACall")
    assert client.counters.requests[("presence", "2xx")] == 1


@pytest.mark.parametrize("name", Category)
async def test_each_categorys_requests_stay_below_graphs_limit(clock: FakeClock, name: Category) -> None:
    limit = LIMITS[name]
    bucket, moments = Bucket(limit, clock), list[float]()

    async def take() -> None:
        for _ in range(limit.requests + 100):
            await bucket.take()
            moments.append(clock.now())

    await drive(clock, take())
    for index, at in enumerate(moments):
        inside = moments[index : index + limit.requests + 1]
        assert sum(one < at + limit.seconds for one in inside) <= limit.requests


async def test_one_thread_gets_four_requests_a_second(
    sim: GraphSim, entra: Entra, client: GraphClient, clock: FakeClock
) -> None:
    await sign_in(sim, entra, "ann", REDIRECT, ANN)
    chat = sim.conversations.one_to_one(ANN, ERIKA)

    async def say() -> None:
        for number in range(12):
            async with client.pace.in_order(chat.id):
                await client.post(f"/chats/{chat.id}/messages", {"body": {"content": str(number)}}, who="ann")

    await drive(clock, say())
    assert [one["body"]["content"] for one in chat.messages.values()] == [str(n) for n in range(12)]
    assert client.counters.throttled == 0


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/users", Category.DIRECTORY),
        ("GET", "/users/x", Category.DIRECTORY),
        ("GET", "/users/x/presence", Category.PRESENCE),
        ("POST", "/communications/getPresencesByUserId", Category.PRESENCE),
        ("POST", "/users/x/presence/setPresence", Category.PRESENCE),
        ("GET", "/teams/t/channels", Category.CHANNELS),
        ("GET", "/teams/t/channels/c/messages/m/replies", Category.READ_CHANNEL),
        ("POST", "/teams/t/channels/c/messages", Category.POST_CHANNEL),
        ("GET", "/chats/c/messages", Category.READ_CHAT),
        ("POST", "/chats/c/messages", Category.POST_CHAT),
        ("POST", "/subscriptions", Category.SUBSCRIPTION),
        ("DELETE", "/subscriptions/s", Category.SUBSCRIPTION),
        ("POST", "/chats", Category.OTHER),
    ],
)
def test_categories(method: str, path: str, found: Category) -> None:
    assert category(method, path) is found


def test_limits_hold_in_any_window() -> None:
    for limit in LIMITS.values():
        assert limit.burst + limit.rate * limit.seconds <= limit.requests + 1e-9
    assert units("GET", "/users", "") == 2
    assert units("GET", "/users", "$select=id") == 1


async def test_secrets_stay_out_of_logs_and_errors(
    sim: GraphSim, entra: Entra, client: GraphClient, caplog: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    caplog.set_level(logging.DEBUG)
    await sign_in(sim, entra, "ann", REDIRECT, ANN)
    token, app_token = await entra.user_token("ann"), await entra.app_token()
    chat = sim.conversations.one_to_one(ANN, ERIKA)
    path = f"/chats/{chat.id}/messages"
    await client.post(path, {"body": {"content": "the body of a message"}}, who="ann")
    sim.trouble(path, 400, count=1)
    with pytest.raises(GraphError) as caught:
        await drive(clock, client.post(path, {"body": {"content": "the body of a message"}}, who="ann"))
    pages = client.pages(
        "/users", who=None, query={"$search": '"displayName:zzyzx"'}, headers={"ConsistencyLevel": "eventual"}
    )
    assert [one async for one in pages] == []
    said = caplog.text + str(caught.value) + repr(entra.account)
    assert "request_id=" in said
    for secret in (token, app_token, SECRET, "the body of a message", "zzyzx", "a test asked for"):
        assert secret not in said
