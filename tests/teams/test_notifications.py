"""Change notifications from the stand-in over HTTP: handshake, encryption, every kind of trouble."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.api.metrics import Metrics
from gateway.api.server import HttpApi
from gateway.teams.chats import Popped
from gateway.teams.content_keys import ROTATED_AFTER
from gateway.teams.errors import StoreFault
from gateway.teams.notification_crypto import ContentKey, Forged, decrypt
from gateway.teams.notifications import PATH, Receiver
from gateway.teams.presence_sync import BusySync
from gateway.teams.routes import outside_routes
from gateway.teams.seen import Seen
from gateway.teams.store import Document, Shelf, Store
from gateway.teams.subscriptions import Kind, Subscriptions
from tests.peers.graph import SECRET, TENANT, GraphSim
from tests.peers.graph_subscriptions import encrypt
from tests.support.clock import FakeClock
from tests.support.waiting import until
from tests.teams.acting import drive
from tests.teams.conftest import ANN, ERIKA
from tests.teams.room_stage import LOGIN, RoomStage, good_account


@pytest.fixture
async def stage(sim: GraphSim, clock: FakeClock, tmp_path: Path) -> AsyncIterator[RoomStage]:
    sim.presence.client(ANN, "Available", "Available")
    async with RoomStage(sim, clock, tmp_path, good_account()) as made:
        response = await made.enable()
        assert response.status == 200
        yield made


def state(stage: RoomStage) -> str:
    return stage.desks.state(LOGIN)[0].value


def dropped(stage: RoomStage) -> dict[str, int]:
    return stage.room.connected.receiver.dropped


async def call(stage: RoomStage) -> None:
    stage.sim.presence.client(ANN, "Busy", "InACall")
    await stage.quiet()


async def test_note_7_a_call_in_teams_arrives_encrypted_and_makes_the_desk_not_ready(
    stage: RoomStage,
) -> None:
    made = list(stage.sim.subscriptions.all.values())
    assert {one.resource for one in made} == {
        f"communications/presences/{ANN}",
        f"users/{ANN}/chats/getAllMessages",
    }
    assert all(one.with_content for one in made)
    await call(stage)
    assert state(stage) == "not_ready"
    assert stage.sim.subscriptions.delivery.statuses == [202]
    assert await stage.room._store.all(Shelf.INBOX) == {}


async def test_busy_is_written_and_its_own_notification_makes_no_loop(stage: RoomStage) -> None:
    stage.sim.subscriptions.delivery.delay = 30.0
    stage.desks.take_call(LOGIN)
    await stage.quiet()
    assert stage.sim.presence.shown(ANN) == ("Busy", "InACall")
    stage.desks.end_call(LOGIN)
    await stage.quiet()
    for _ in range(12):
        stage.clock.advance(10)
        await stage.quiet()
    assert state(stage) == "ready"
    assert stage.room.connected.receiver.received >= 2


async def test_the_handshake_gives_back_the_token_as_text(stage: RoomStage) -> None:
    token = "Validation: <b>ä</b> & 100% opaque"
    async with aiohttp.ClientSession() as http:
        async with http.post(stage.url + PATH, params={"validationToken": token}) as answer:
            assert (answer.status, await answer.text()) == (200, token)
            assert answer.content_type == "text/plain"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        async with http.post(stage.url + PATH, params={"validationToken": "x" * 5000}) as answer:
            assert answer.status == 400


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"value": 3}', b'{"value": [1, null]}', b"[" * 50_000, b'{"value": [{}]}']
)
async def test_whoever_sends_something_else_learns_nothing(stage: RoomStage, body: bytes) -> None:
    async with aiohttp.ClientSession() as http, http.post(stage.url + PATH, data=body) as answer:
        assert (answer.status, await answer.read()) == (202, b"")
    await stage.quiet()
    assert state(stage) == "ready"


def _item(name: str, value: Any) -> Any:
    def tamper(body: dict[str, Any]) -> None:
        body["value"][0][name] = value

    return tamper


def _sealed(name: str, value: str) -> Any:
    def tamper(body: dict[str, Any]) -> None:
        body["value"][0]["encryptedContent"][name] = value

    return tamper


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (_item("clientState", "guessed"), "client_state"),
        (_item("subscriptionId", "another"), "unknown_subscription"),
        (_item("tenantId", "another"), "tenant"),
        (_sealed("encryptionCertificateId", "other"), "unknown_certificate"),
        (_sealed("dataSignature", "AAAA"), "bad_signature"),
        (_sealed("data", "AAAA"), "bad_signature"),
        (_sealed("dataKey", "AAAA"), "bad_key"),
        (lambda body: body.pop("validationTokens"), "no_validation_token"),
    ],
)
async def test_a_forged_notification_changes_nothing(stage: RoomStage, tamper: Any, reason: str) -> None:
    stage.sim.subscriptions.delivery.tamper = tamper
    await call(stage)
    assert state(stage) == "ready"
    assert dropped(stage) == {reason: 1}
    assert stage.sim.subscriptions.delivery.statuses == [202]


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "another"}, "token_invalidaudienceerror"),
        ({"exp": 1_600_000_000}, "token_expiredsignatureerror"),
        ({"iss": "https://sts.windows.net/other/"}, "token_issuer"),
        ({"tid": "another"}, "token_tenant"),
        ({"appid": "another"}, "token_publisher"),
    ],
)
async def test_a_wrong_validation_token_discards_the_post(
    stage: RoomStage, claims: dict[str, Any], reason: str
) -> None:
    token = stage.sim.entra.validation_token(**claims)
    stage.sim.subscriptions.delivery.tamper = lambda body: body.update(validationTokens=[token])
    await call(stage)
    assert state(stage) == "ready"
    assert dropped(stage) == {reason: 1}


async def test_a_token_signed_by_somebody_else_is_refused_and_new_keys_are_found(stage: RoomStage) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    entra, delivery = stage.sim.entra, stage.sim.subscriptions.delivery
    forged = entra.sign({"aud": entra.registration.client_id, "exp": 4_000_000_000, "iss": "x"}, other)
    delivery.tamper = lambda body: body.update(validationTokens=[forged])
    await call(stage)
    assert dropped(stage) == {"token_invalidsignatureerror": 1}
    delivery.tamper = None
    entra.rotate_keys()
    stage.clock.advance(61)
    stage.sim.presence.client(ANN, "Available", "Available")
    await call(stage)
    assert state(stage) == "not_ready"


async def test_a_key_that_entra_tells_of_late_is_believed_then(stage: RoomStage) -> None:
    """The keys had just been asked for, or their list lagged: a traceback, and the call was never seen."""
    entra, delivery = stage.sim.entra, stage.sim.subscriptions.delivery
    stage.sim.presence.client(ANN, "Available", "OutOfOffice")
    await stage.quiet()
    told = entra.key, entra.key_id
    entra.rotate_keys()
    new = entra.key, entra.key_id
    token = entra.validation_token()
    delivery.tamper = lambda body: body.update(validationTokens=[token])
    entra.key, entra.key_id = told
    stage.sim.presence.client(ANN, "Busy", "InACall")
    await until(lambda: delivery.statuses[-1:] == [202] and stage.room.connected.receiver.received >= 2)
    assert state(stage) == "ready"
    entra.key, entra.key_id = new
    for _ in range(4):
        stage.clock.advance(31)
        await asyncio.sleep(0.05)
    await until(lambda: state(stage) == "not_ready")
    assert dropped(stage) == {}


async def test_a_key_that_nobody_ever_tells_of_is_given_up(stage: RoomStage) -> None:
    entra, delivery = stage.sim.entra, stage.sim.subscriptions.delivery
    other = entra.key_id
    entra.key_id = "stranger"
    token = entra.validation_token()
    entra.key_id = other
    delivery.tamper = lambda body: body.update(validationTokens=[token])
    stage.sim.presence.client(ANN, "Busy", "InACall")

    async def given_up() -> None:
        while not dropped(stage):
            stage.clock.advance(31)
            await asyncio.sleep(0.02)

    await asyncio.wait_for(given_up(), 20)
    assert dropped(stage) == {"token_unknown_key": 1}
    assert state(stage) == "ready"
    assert await stage.room._store.all(Shelf.INBOX) == {}


async def test_duplicates_are_harmless(stage: RoomStage) -> None:
    stage.sim.subscriptions.delivery.copies = 3
    await call(stage)
    assert state(stage) == "not_ready"
    assert stage.room.connected.sync.counts["call"] == 1


async def test_disorder_is_put_right_by_the_numbers(stage: RoomStage) -> None:
    stage.sim.subscriptions.delivery.hold = []
    stage.sim.presence.client(ANN, "Available", "OutOfOffice")
    stage.sim.presence.client(ANN, "Busy", "InACall")
    stage.sim.subscriptions.release(1, 0)
    await stage.quiet()
    stage.clock.advance(10)
    await stage.quiet()
    assert state(stage) == "not_ready"


async def test_what_comes_while_we_are_connecting_is_sent_again(
    stage: RoomStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the subscriptions were known, genuine notifications were thrown away as unknown, with 202."""
    await stage.room.stop()
    go, start = asyncio.Event(), Seen.start

    async def slowly(self: Seen) -> None:
        await go.wait()
        await start(self)

    monkeypatch.setattr(Seen, "start", slowly)
    opening = asyncio.create_task(stage.open())
    await until(lambda: stage.room._turn.locked())
    chat = stage.sim.conversations.one_to_one(ANN, ERIKA)
    stage.sim.conversations.post(chat, stage.sim.users[ERIKA], "are you there?")
    await until(lambda: stage.sim.subscriptions.delivery.statuses == [503])
    go.set()
    await opening
    stage.clock.advance(10)
    await stage.quiet()
    assert texts(stage) == ["are you there?"]


async def test_what_cannot_be_kept_is_sent_again(stage: RoomStage, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Store.put

    async def full(self: Store, shelf: Shelf, key: str, document: Document) -> None:
        if shelf is Shelf.INBOX:
            raise StoreFault("the disk is full")
        await put(self, shelf, key, document)

    monkeypatch.setattr(Store, "put", full)
    chat = stage.sim.conversations.one_to_one(ANN, ERIKA)
    stage.sim.conversations.post(chat, stage.sim.users[ERIKA], "are you there?")
    await stage.quiet()
    assert stage.sim.subscriptions.delivery.statuses == [503]
    monkeypatch.setattr(Store, "put", put)
    stage.clock.advance(10)
    await stage.quiet()
    assert texts(stage) == ["are you there?"]


@pytest.mark.parametrize("where", ["seen", "subscriptions", "receiver", "sync"])
async def test_connecting_is_tried_again_when_the_database_was_away(
    stage: RoomStage, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A connection without receiver and busy sync was left, for ever."""
    await stage.room.stop()
    parts: dict[str, Any] = {
        "seen": Seen,
        "subscriptions": Subscriptions,
        "receiver": Receiver,
        "sync": BusySync,
    }
    part = parts[where]
    start = part.start

    async def away(*_: Any) -> None:
        raise StoreFault("the database cannot be used")

    monkeypatch.setattr(part, "start", away)
    await stage.open()
    assert stage.room.connection is None
    assert "the database cannot be used" in stage.room.health().text
    monkeypatch.setattr(part, "start", start)
    stage.clock.advance(30)
    await until(lambda: stage.room.connection is not None)
    await stage.quiet()
    assert stage.room.health().text == ""
    await call(stage)
    assert state(stage) == "not_ready"


def texts(stage: RoomStage) -> list[str]:
    """Of the messages that popped."""
    events = [event for _, event in stage.room.feeds.since(LOGIN, 0)]
    return [event["message"]["text"] for event in events if event["kind"] == "message"]


async def test_what_was_taken_and_not_done_is_done_after_a_restart(stage: RoomStage) -> None:
    connection = stage.room.connected
    await connection.receiver.stop()
    stage.sim.presence.client(ANN, "Busy", "InACall")
    await until(lambda: stage.sim.subscriptions.delivery.statuses == [202])
    assert len(await stage.room._store.all(Shelf.INBOX)) == 1
    assert state(stage) == "ready"
    await stage.room.stop()
    await stage.open()
    assert state(stage) == "not_ready"
    assert await stage.room._store.all(Shelf.INBOX) == {}


async def test_subscriptions_are_renewed_and_outlive_hours(stage: RoomStage) -> None:
    first = set(stage.sim.subscriptions.all)
    for _ in range(40):
        stage.clock.advance(300)
        await stage.quiet()
    assert set(stage.sim.subscriptions.all) == first
    await call(stage)
    assert state(stage) == "not_ready"


@pytest.mark.parametrize("how", ["refused", "short"])
async def test_where_renewing_fails_or_gives_little_it_is_made_anew(stage: RoomStage, how: str) -> None:
    first = set(stage.sim.subscriptions.all)
    if how == "refused":
        stage.sim.subscriptions.refuse_renewal = True
    else:
        stage.sim.subscriptions.forget_on_renewal_seconds = 300
    stage.clock.advance(2400)
    await stage.quiet()
    assert len(stage.sim.subscriptions.all) == 2
    assert not first & set(stage.sim.subscriptions.all)
    await call(stage)
    assert state(stage) == "not_ready"


async def test_a_renewal_that_graph_is_too_busy_for_costs_no_subscription(stage: RoomStage) -> None:
    """A throttled PATCH was answered with DELETE, POST and reading: more of what Graph had too much of."""
    first, made = set(stage.sim.subscriptions.all), stage.sim.count("POST", "/subscriptions")
    stage.sim.trouble("/subscriptions/", 429, method="PATCH", count=3, retry_after="90")
    stage.clock.advance(2320)
    for _ in range(12):
        stage.clock.advance(60)
        await drive(stage.clock, stage.quiet())
    assert not stage.sim.troubles[0].count
    assert set(stage.sim.subscriptions.all) == first
    assert stage.sim.count("POST", "/subscriptions") == made
    assert stage.sim.count("DELETE", "/subscriptions") == 0
    assert stage.room.connected.subscriptions.faults == {}
    await call(stage)
    assert state(stage) == "not_ready"


async def test_a_permission_that_comes_back_is_found(stage: RoomStage) -> None:
    stage.sim.subscriptions.refuse_renewal = True
    stage.sim.trouble("/subscriptions", 403, count=-1, method="POST")
    stage.clock.advance(2400)
    await stage.quiet()
    assert stage.sim.subscriptions.all == {}
    stage.sim.troubles.clear()
    stage.clock.advance(900)
    await stage.quiet()
    await call(stage)
    assert state(stage) == "not_ready"


def presence_of(stage: RoomStage) -> str:
    return next(key for key, one in stage.sim.subscriptions.all.items() if "presences" in one.resource)


async def test_a_call_begun_while_the_subscriptions_were_made_again_is_seen(stage: RoomStage) -> None:
    """Presences were read once, before; with a thousand agents the subscriptions take minutes."""
    await stage.room.stop()
    stage.clock.advance(7200)
    held = asyncio.Event()
    subscribe = stage.sim.subscriptions.create

    async def later(body: Any, grant: Any) -> Any:
        await held.wait()
        return await subscribe(body, grant)

    stage.sim.subscriptions.create = later  # type: ignore[method-assign]
    read = stage.sim.count("POST", "getPresencesByUserId")
    opening = asyncio.create_task(stage.open())
    await until(lambda: stage.sim.count("POST", "getPresencesByUserId") > read)
    await until(lambda: stage.room.connected.sync.size == 1 and stage.room.connected.sync.idle)
    await asyncio.sleep(0.05)
    stage.sim.presence.client(ANN, "Busy", "InACall")
    held.set()
    await opening
    await stage.quiet()
    assert state(stage) == "not_ready"


async def test_a_call_begun_while_teams_is_being_enabled_is_seen(
    sim: GraphSim, clock: FakeClock, tmp_path: Path
) -> None:
    sim.presence.client(ANN, "Available", "Available")
    subscribe = sim.subscriptions.create

    async def first_a_call(body: Any, grant: Any) -> Any:
        sim.presence.client(ANN, "Busy", "InACall")
        return await subscribe(body, grant)

    sim.subscriptions.create = first_a_call  # type: ignore[method-assign]
    async with RoomStage(sim, clock, tmp_path, good_account()) as stage:
        await stage.enable()
        assert state(stage) == "not_ready"


async def test_reauthorization_is_answered(stage: RoomStage) -> None:
    key = presence_of(stage)
    stage.sim.subscriptions.all[key].paused = True
    stage.sim.subscriptions.lifecycle(key, "reauthorizationRequired")
    await stage.quiet()
    assert not stage.sim.subscriptions.all[key].paused


async def test_a_removed_subscription_is_made_anew_and_the_gap_read(stage: RoomStage) -> None:
    stage.sim.subscriptions.delivery.lose = 1
    stage.sim.presence.client(ANN, "Busy", "InACall")
    stage.sim.subscriptions.lifecycle(presence_of(stage), "subscriptionRemoved")
    await stage.quiet()
    assert state(stage) == "not_ready"
    assert len(stage.sim.subscriptions.all) == 2


async def test_a_full_quota_is_freed_of_what_a_crash_left(stage: RoomStage) -> None:
    store = stage.room._store
    await stage.room.connected.receiver.stop()
    await store.clear(Shelf.SUBSCRIPTION)
    left = set(stage.sim.subscriptions.all)
    await stage.room.stop()
    await stage.open()
    presences = [one for one in stage.sim.subscriptions.all.values() if "presences" in one.resource]
    assert len(presences) == 1
    assert presences[0].id not in left


async def test_messages_pop_once_edits_and_deletions_follow_reactions_do_not(stage: RoomStage) -> None:
    popped: list[Popped] = []
    stage.room.connected.chats.subscribe(popped.append)
    talk, sim = stage.sim.conversations, stage.sim
    chat = talk.one_to_one(ANN, ERIKA)
    sim.subscriptions.delivery.copies = 2
    said = talk.post(chat, sim.users[ERIKA], "hello")
    await stage.quiet()
    talk.react(chat, said["id"], ANN, "like")
    await stage.quiet()
    assert [one.message.text for one in popped] == ["hello"]
    talk.edit(chat, said["id"], "hello Ann")
    await stage.quiet()
    talk.delete(chat, said["id"])
    await stage.quiet()
    assert [(one.message.text, one.message.deleted) for one in popped[1:]] == [
        ("hello Ann", False),
        ("", True),
    ]
    group = talk.group("all of us", ANN, ERIKA, "eeee0000-0000-0000-0000-000000000003")
    talk.post(group, sim.users[ERIKA], "to everybody")
    talk.post(chat, None, "", messageType="systemEventMessage")
    await stage.quiet()
    assert len(popped) == 3


async def test_lost_messages_are_found_by_reading(stage: RoomStage) -> None:
    popped: list[Popped] = []
    stage.room.connected.chats.subscribe(popped.append)
    stage.sim.subscriptions.delivery.lose = 1
    chat = stage.sim.conversations.one_to_one(ANN, ERIKA)
    stage.sim.conversations.post(chat, stage.sim.users[ERIKA], "did you get this?")
    await stage.quiet()
    assert popped == []
    key = next(key for key, one in stage.sim.subscriptions.all.items() if "chats" in one.resource)
    stage.sim.subscriptions.lifecycle(key, "missed")
    await stage.quiet()
    assert [one.message.text for one in popped] == ["did you get this?"]


async def test_nothing_secret_is_written_anywhere(
    stage: RoomStage, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    text = "a confidential message"
    chat = stage.sim.conversations.one_to_one(ANN, ERIKA)
    stage.sim.conversations.post(chat, stage.sim.users[ERIKA], text)
    await stage.quiet()
    stage.sim.subscriptions.delivery.tamper = _sealed("dataSignature", "AAAA")
    stage.sim.conversations.post(chat, stage.sim.users[ERIKA], text)
    await call(stage)
    secrets = [SECRET, text, *stage.sim.entra.grants]
    secrets += [one.client_state for one in stage.sim.subscriptions.all.values()]
    kept = b"".join(file.read_bytes() for file in tmp_path.glob("room.db*"))  # noqa: ASYNC240  small
    for secret in secrets:
        assert secret not in caplog.text
        assert secret.encode() not in kept
    assert b"BEGIN PRIVATE" not in kept


async def test_disabling_takes_subscriptions_tokens_and_presence_away(stage: RoomStage) -> None:
    stage.desks.take_call(LOGIN)
    await stage.quiet()
    await stage.room.disable(LOGIN)
    assert stage.sim.subscriptions.all == {}
    assert stage.sim.presence.shown(ANN) == ("Available", "Available")
    assert await stage.room._store.all(Shelf.TOKENS) == {}
    assert stage.room.connected.subscriptions.active == 0
    assert Kind.PRESENCE


def test_decryption_checks_before_it_decrypts() -> None:
    key = ContentKey.make()
    keys = {key.id: key}
    again = ContentKey.of(key.id, key.document())
    sealed = encrypt({"id": "x", "text": "ä" * 100}, key.certificate, key.id)
    assert decrypt(sealed, {again.id: again}) == {"id": "x", "text": "ä" * 100}
    for name in ("data", "dataKey", "dataSignature"):
        for value in ("", "!!", sealed[name][:-8], "A" * len(sealed[name])):
            with pytest.raises(Forged):
                decrypt({**sealed, name: value}, keys)
    with pytest.raises(Forged, match="unknown_certificate"):
        decrypt(sealed, {})


# -- size, and keys that grow old --


async def test_a_large_post_is_taken_a_huge_one_is_not(stage: RoomStage) -> None:
    status: Any = None
    server = HttpApi("127.0.0.1:0", status=status, metrics=Metrics(), tokens={})
    server.add_routes(outside_routes(stage.room))
    await server.start()
    try:
        url = "http://{}:{}".format(*server.address) + PATH
        known = next(iter(stage.room.connected.subscriptions._by_id.values()))
        item = {"subscriptionId": known.id, "clientState": known.client_state, "tenantId": TENANT}
        for size, answer, taken in ((300 << 10, 202, 1), (5 << 20, 413, 1)):
            body = {"value": [{**item, "resource": "x" * size}], "validationTokens": []}
            data = io.BytesIO(json.dumps(body).encode())
            async with aiohttp.ClientSession() as http, http.post(url, data=data) as found:
                assert found.status == answer
            assert stage.room.connected.receiver.received == taken
        assert stage.room.connected.receiver.dropped["too_large"] == 1
    finally:
        await server.stop()


async def test_the_content_key_changes_and_what_comes_with_the_old_one_is_read(stage: RoomStage) -> None:
    popped: list[Popped] = []
    stage.room.connected.chats.subscribe(popped.append)
    keys = stage.room._keys
    old = keys.newest
    chat = stage.sim.conversations.one_to_one(ANN, ERIKA)
    assert not await keys.care()
    keys._made[old.id] -= ROTATED_AFTER
    assert await keys.care()
    new = keys.newest
    assert new.id != old.id
    stage.sim.conversations.post(chat, stage.sim.users[ERIKA], "sealed with the old one")
    await stage.quiet()
    subscriptions = stage.room.connected.subscriptions
    for watch in list(subscriptions._wanted.values()):
        await subscriptions._renew(watch)
    assert {one.certificate_id for one in stage.sim.subscriptions.all.values()} == {new.id}
    stage.sim.conversations.post(chat, stage.sim.users[ERIKA], "and with the new one")
    await stage.quiet()
    assert [one.message.text for one in popped] == ["sealed with the old one", "and with the new one"]
    for name in keys._made:
        keys._made[name] -= timedelta(days=3)
    assert not await keys.care()
    assert list(keys.known) == [new.id]
    assert list(await stage.room._store.all(Shelf.CERTIFICATE)) == [new.id]
