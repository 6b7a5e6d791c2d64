"""What reaches an agent's page: pictures, events to resume from, presences of those on the screen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gateway.teams.feed import FeedReader, Feeds
from gateway.teams.shown import EVERY
from tests.peers.graph import GraphSim
from tests.peers.graph_chats import Thread
from tests.support.clock import FakeClock
from tests.support.waiting import until
from tests.teams.acting import drive
from tests.teams.conftest import ANN, ERIKA, MAX
from tests.teams.room_stage import LOGIN, RoomStage, good_account


@pytest.fixture
async def stage(sim: GraphSim, clock: FakeClock, tmp_path: Path) -> AsyncIterator[RoomStage]:
    for oid in (ANN, ERIKA):
        sim.presence.client(oid, "Available", "Available")
    async with RoomStage(sim, clock, tmp_path, good_account()) as made:
        yield made


class Page:
    """A page of an agent; `read` takes what is new, the newest picture stays."""

    def __init__(self, stage: RoomStage, after: str = "", login: str = LOGIN) -> None:
        self.woken = 0
        self.reader: FeedReader = stage.room.feeds.open(login, after, self._wake)
        self.picture: dict[str, Any] = {}
        self.last = after
        self.read()

    def _wake(self) -> None:
        self.woken += 1

    def read(self) -> list[dict[str, Any]]:
        events = []
        for text in self.reader.texts():
            found = json.loads(text)
            if "teams" in found:
                self.picture = found["teams"]
            else:
                self.last = found["teams_event"]["id"]
                events.append(found["teams_event"])
        return events

    def close(self) -> str:
        self.reader.close()
        return self.last


def chat(stage: RoomStage) -> Thread:
    return stage.sim.conversations.one_to_one(ANN, ERIKA)


def say(stage: RoomStage, text: str) -> dict[str, Any]:
    return stage.sim.conversations.post(chat(stage), stage.sim.users[ERIKA], text)


async def test_the_picture_follows_account_user_and_busy_sync(stage: RoomStage) -> None:
    page = Page(stage)
    assert page.picture["account"]
    assert (page.picture["mapped"], page.picture["enabled"]) == (True, False)
    assert not Page(stage, login="bob").picture["mapped"]
    await stage.enable()
    assert page.woken
    page.read()
    assert (page.picture["enabled"], page.picture["oid"], page.picture["name"]) == (True, ANN, "Ann Agent")
    stage.sim.presence.client(ANN, "Busy", "InACall")
    await stage.quiet()
    page.read()
    assert page.picture["busy_sync"] == {"teams_call": True, "desk": "held", "teams": "none"}
    stage.sim.presence.client(ANN, "Available", "Available")
    await stage.quiet()
    stage.clock.advance(5)
    await stage.quiet()
    stage.desks.take_call(LOGIN)
    await stage.quiet()
    page.read()
    assert page.picture["busy_sync"] == {"teams_call": False, "desk": "none", "teams": "set"}
    await stage.room.delete_account()
    page.read()
    assert (page.picture["account"], page.picture["connected"], page.picture["enabled"]) == (False,) * 3


@pytest.mark.parametrize(("days", "kinds"), [(16, []), (15, ["secret_expiring"]), (-1, ["secret_expired"])])
async def test_the_secrets_end_is_on_the_page_from_fifteen_days_before(
    stage: RoomStage, days: int, kinds: list[str]
) -> None:
    end = date.fromordinal(stage.clock.wall().date().toordinal() + days)
    page = Page(stage)
    await stage.room.save_account(replace(good_account(), secret_expires=end))
    page.read()
    assert [one["kind"] for one in page.picture["notices"]] == kinds
    assert all(
        one["days_left"] == days and "make a new one" in one["text"] for one in page.picture["notices"]
    )


async def test_a_day_passing_brings_the_warning_to_an_open_page(stage: RoomStage) -> None:
    end = date.fromordinal(stage.clock.wall().date().toordinal() + 16)
    await stage.room.save_account(replace(good_account(), secret_expires=end))
    page = Page(stage)
    assert page.picture["notices"] == []
    woken = page.woken
    for _ in range(25):
        stage.clock.advance(3600)
    assert page.woken > woken
    page.read()
    assert [one["days_left"] for one in page.picture["notices"]] == [15]


async def test_tokens_that_are_refused_ask_for_a_new_sign_in(stage: RoomStage) -> None:
    await stage.enable()
    page = Page(stage)
    stage.sim.entra.revoked.add(ANN)
    stage.sim.entra.expire_access_tokens()
    with pytest.raises(Exception, match="sign in"):
        await stage.room.connected.chats.chats(LOGIN)
    page.read()
    assert page.picture["sign_in_needed"]
    stage.sim.entra.revoked.clear()
    await stage.enable()
    page.read()
    assert not page.picture["sign_in_needed"]


async def test_messages_come_edits_and_deletions_follow(stage: RoomStage) -> None:
    await stage.enable()
    page = Page(stage)
    said = say(stage, "hello")
    await stage.quiet()
    fresh, message = page.read()
    assert (fresh["kind"], message["kind"]) == ("chats", "message")
    assert (message["peer"], message["change"], message["mine"]) == (ERIKA, "new", False)
    assert (message["message"]["text"], message["conversation"]) == ("hello", chat(stage).id)
    stage.clock.advance(1)
    stage.sim.conversations.edit(chat(stage), said["id"], "hello you")
    await stage.quiet()
    stage.sim.conversations.react(chat(stage), said["id"], ANN, "like")
    await stage.quiet()
    stage.sim.conversations.delete(chat(stage), said["id"])
    await stage.quiet()
    assert [(one["change"], one["message"]["text"]) for one in page.read()] == [
        ("edited", "hello you"), ("deleted", "")
    ]  # fmt: skip
    stage.sim.conversations.post(chat(stage), stage.sim.users[ANN], "from my own Teams")
    await stage.quiet()
    assert [one["mine"] for one in page.read()] == [True]


async def test_a_group_chat_pops_nothing(stage: RoomStage) -> None:
    await stage.enable()
    page = Page(stage)
    group = stage.sim.conversations.group("all of us", ANN, ERIKA, MAX)
    stage.sim.conversations.post(group, stage.sim.users[ERIKA], "hello all")
    await stage.quiet()
    assert stage.room.connected.receiver.received == 1
    assert page.read() == []


async def test_a_reaction_to_an_old_message_pops_nothing(stage: RoomStage) -> None:
    said = say(stage, "long ago")
    stage.clock.advance(600)
    await stage.enable()
    page = Page(stage)
    stage.sim.conversations.react(chat(stage), said["id"], ANN, "heart")
    await stage.quiet()
    assert page.read() == []


async def test_a_page_comes_back_to_what_it_missed(stage: RoomStage) -> None:
    await stage.enable()
    page, other = Page(stage), Page(stage)
    say(stage, "one")
    await stage.quiet()
    page.read()
    last = page.close()
    say(stage, "two")
    await stage.quiet()
    again = Page(stage, last)
    assert again.last != last
    assert [one["message"]["text"] for one in other.read() if one["kind"] == "message"] == ["one", "two"]
    third = Page.__new__(Page)
    third.reader, third.last = stage.room.feeds.open(LOGIN, last, lambda: None), ""
    assert [(one["kind"], one.get("message", {}).get("text")) for one in third.read()] == [
        ("begin", None), ("message", "two")
    ]  # fmt: skip


class Nothing:
    """A painter with nothing to show."""

    def picture(self, _login: str) -> Any:
        from gateway.teams.feed import BusyShown, TeamsPicture

        return TeamsPicture(False, False, False, False, False, "", "", [], BusyShown(), {}, [])

    def looking(self, _login: str, _pages: int) -> None:
        return


def kinds(reader: FeedReader) -> list[str]:
    events = [json.loads(text).get("teams_event") for text in reader.texts()]
    return [one["kind"] + one.get("reason", "") for one in events if one is not None]


def test_who_was_away_too_long_or_comes_from_an_earlier_run_reads_again() -> None:
    feeds = Feeds(Nothing())
    for strange in ("0000.3", "nonsense", ".", feeds.name(99), feeds.name(0) + "x"):
        assert kinds(feeds.open(LOGIN, strange, lambda: None)) == ["begin", "refreshrestart"], strange
    slow = feeds.open(LOGIN, "", lambda: None)
    assert kinds(slow) == ["begin"]
    feeds.tell(LOGIN, "chats")
    here = feeds.name(1)
    for _ in range(250):
        feeds.tell(LOGIN, "chats")
    assert kinds(feeds.open(LOGIN, here, lambda: None)) == ["begin", "refreshgap"]
    assert kinds(slow) == ["refreshgap"]
    feeds.tell(LOGIN, "channels")
    assert kinds(slow) == ["channels"]
    assert kinds(feeds.open(LOGIN, feeds.name(250), lambda: None)) == ["begin", "chats", "channels"]


def test_nobody_gets_anothers_events() -> None:
    feeds = Feeds(Nothing())
    mine, others = feeds.open("ann", "", lambda: None), feeds.open("bob", "", lambda: None)
    feeds.tell("ann", "message", message="for ann")
    assert kinds(others) == ["begin"]
    assert "for ann" in "".join(mine.texts())


async def test_presences_of_those_on_the_screen_are_kept_current_while_a_page_is_open(
    stage: RoomStage,
) -> None:
    shown = stage.room.connected.shown
    found = await shown.show(LOGIN, [ERIKA, MAX, "nobody", ERIKA])
    assert found[ERIKA] == ("Available", "Available")
    assert "nobody" not in found
    asked = stage.sim.count("POST", "getPresencesByUserId")
    stage.clock.advance(10 * EVERY)
    await stage.quiet()
    assert stage.sim.count("POST", "getPresencesByUserId") == asked, "no page is open"
    page = Page(stage)
    await shown.show(LOGIN, [ERIKA, MAX])
    stage.sim.presence.client(ERIKA, "Busy", "InACall")
    woken = page.woken
    stage.clock.advance(EVERY + 1)
    await until(lambda: page.woken > woken)
    page.read()
    assert page.picture["presences"][ERIKA] == {"availability": "Busy", "activity": "InACall"}
    page.close()
    await until(lambda: shown.idle)
    asked = stage.sim.count("POST", "getPresencesByUserId")
    stage.clock.advance(10 * EVERY)
    await stage.quiet()
    assert stage.sim.count("POST", "getPresencesByUserId") == asked


async def test_after_an_outage_only_what_was_written_meanwhile_pops(stage: RoomStage) -> None:
    await stage.enable()
    say(stage, "long before")
    await stage.quiet()
    stage.clock.advance(900)
    for number in range(3):
        stage.clock.advance(60)
        say(stage, f"before {number}")
        await stage.quiet()
    stage.clock.advance(30)
    await stage.room.stop()
    stage.clock.advance(4 * 3600)
    say(stage, "while you were away")
    gone = say(stage, "never mind")
    stage.sim.conversations.delete(chat(stage), gone["id"])
    await stage.open()
    kept = [event for _, event in stage.room.feeds.since(LOGIN, 0) if event["kind"] == "message"]
    assert [(one["message"]["text"], one["change"]) for one in kept] == [("while you were away", "new")]


async def test_after_a_short_restart_a_notification_that_is_repeated_pops_nothing(stage: RoomStage) -> None:
    await stage.enable()
    stage.clock.advance(60)
    said = say(stage, "once")
    await stage.quiet()
    await stage.room.stop()
    await stage.open()
    stage.sim.conversations._told(chat(stage), "created", said)
    await stage.quiet()
    assert [event for _, event in stage.room.feeds.since(LOGIN, 0) if event["kind"] == "message"] == []


async def test_a_gap_is_read_only_where_something_was_written_replies_included(stage: RoomStage) -> None:
    talk = stage.sim.conversations
    talk.team("team-1", "Support", [ANN, ERIKA])
    channel = talk.channel("team-1", "19:general@thread.tacv2", "General")
    talk.post(talk.one_to_one(ANN, MAX), stage.sim.users[MAX], "long ago")
    root = talk.post(channel, stage.sim.users[ERIKA], "who knows?")
    stage.clock.advance(600)
    await stage.enable()
    chats = stage.room.connected.chats
    await chats.open_channel(LOGIN, "team-1", channel.id)
    page = Page(stage)
    assert page.picture["channels_open"] == [{"team": "team-1", "channel": channel.id}]
    stage.clock.advance(60)
    stage.sim.subscriptions.delivery.lose = 2
    talk.post(channel, stage.sim.users[ERIKA], "nobody?", replyToId=root["id"])
    say(stage, "look at the channel")
    await stage.quiet()
    assert page.read() == []
    stage.clock.advance(60)
    for key, one in list(stage.sim.subscriptions.all.items()):
        if "presence" not in one.resource:
            stage.sim.subscriptions.lifecycle(key, "missed")
    await stage.quiet()
    found = {one["message"]["text"]: one for one in page.read() if one["kind"] == "message"}
    assert set(found) == {"nobody?", "look at the channel"}
    assert found["nobody?"]["message"]["thread"] == root["id"]
    quiet = stage.sim.conversations.one_to_one(ANN, MAX).id
    assert stage.sim.count("GET", f"/chats/{quiet}/messages") == 0


@pytest.mark.parametrize("status", [400, 403, 404, 410])
async def test_a_chat_that_cannot_be_read_does_not_keep_the_others_from_being_read(
    stage: RoomStage, status: int
) -> None:
    """The first refusal ended the repair of all chats, silently where it was a 404."""
    await stage.enable()
    page = Page(stage)
    stage.clock.advance(60)
    stage.sim.subscriptions.delivery.lose = 2
    gone = stage.sim.conversations.one_to_one(ANN, MAX)
    stage.sim.conversations.post(gone, stage.sim.users[MAX], "from who has left")
    say(stage, "and I am still here")
    stage.sim.trouble(f"/chats/{gone.id}/messages", status, count=-1)
    stage.sim.subscriptions.lifecycle(chats_of(stage), "missed")
    await stage.quiet()
    assert [one["message"]["text"] for one in page.read() if one["kind"] == "message"] == [
        "and I am still here"
    ]


async def test_a_repair_for_which_graph_had_no_time_is_done_later(stage: RoomStage) -> None:
    await stage.enable()
    page = Page(stage)
    stage.clock.advance(60)
    stage.sim.subscriptions.delivery.lose = 1
    say(stage, "did you get this?")
    stage.sim.trouble("/me/chats", 429, retry_after="120")
    stage.sim.subscriptions.lifecycle(chats_of(stage), "missed")
    await stage.quiet()
    assert page.read() == []
    for _ in range(3):
        stage.clock.advance(61)
        await drive(stage.clock, stage.quiet())
    assert [one["message"]["text"] for one in page.read() if one["kind"] == "message"] == [
        "did you get this?"
    ]


def chats_of(stage: RoomStage) -> str:
    return next(key for key, one in stage.sim.subscriptions.all.items() if "getAllMessages" in one.resource)


async def test_a_deletion_of_which_graph_tells_nothing_but_the_address(stage: RoomStage) -> None:
    await stage.enable()
    said = say(stage, "hello")
    await stage.quiet()
    page = Page(stage)
    found = next(
        one for one in stage.room.connected.subscriptions._by_id.values() if one.watch.kind == "chats"
    )
    resource = f"chats('{chat(stage).id}')/messages('{said['id']}')"
    await stage.room.connected.chats.changed(found, "deleted", resource, {"id": said["id"]})
    (event,) = page.read()
    assert (event["change"], event["message"]["id"], event["message"]["text"]) == ("deleted", said["id"], "")
