"""What is shown of a Teams message: each row of facts/graph.md 4."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.teams.messages import Message, deleted, message

CARD = "application/vnd.microsoft.card."


def made(content: str = "", kind: str = "html", **more: Any) -> Message:
    found = message(
        {"id": "1", "messageType": "message", "body": {"contentType": kind, "content": content}, **more}
    )
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("attachment", "label"),
    [
        ({"contentType": "reference", "name": "a.docx", "contentUrl": "https://x/secret/a.docx"}, "a.docx"),
        ({"contentType": "reference", "contentUrl": "https://x/folder/b%20c.pdf?token=1"}, "b c.pdf"),
        ({"contentType": "image/png", "name": "cat.png"}, "cat.png"),
        ({"contentType": "video/mp4"}, "video/mp4"),
        ({"contentType": f"{CARD}adaptive", "content": '{"a":1}'}, f"{CARD}adaptive"),
        ({"contentType": f"{CARD}codesnippet", "content": '{"language":"go"}'}, f"{CARD}codesnippet"),
        ({"contentType": f"{CARD}fluidEmbedCard"}, f"{CARD}fluidEmbedCard"),
        ({"contentType": "messageReference", "content": '{"messagePreview":"x"}'}, "messageReference"),
        ({"contentType": "meetingReference", "name": "Weekly"}, "meetingReference"),
        ({"contentType": "something/new"}, "something/new"),
    ],
)
def test_attachments_are_names_or_content_types(attachment: dict[str, Any], label: str) -> None:
    assert made(attachments=[attachment]).labels == (label,)


def test_the_dummy_beside_a_loop_component_is_not_shown() -> None:
    dummy = {"contentType": f"{CARD}codesnippet", "content": "{}", "teamsAppId": "FLUID_PLACEHOLDER_CARD"}
    assert made(attachments=[dummy, {"contentType": f"{CARD}fluidEmbedCard"}]).labels == (
        f"{CARD}fluidEmbedCard",
    )


@pytest.mark.parametrize(
    ("markup", "text", "labels"),
    [
        ("<p>a &lt;b&gt;</p><p>c&nbsp;d</p>", "a <b>\nc d", ()),
        ('<at id="0">Ann</at> hi<attachment id="1"></attachment>', "Ann hi", ()),
        ('<img src="https://graph/hostedContents/1/$value">', "", ("image",)),
        ('x<emoji id="1" alt="🙂"></emoji>', "x🙂", ()),
        ('<readonly itemtype="http://schema.skype.com/Giphy">', "", ("image/gif",)),
        ('<video itemtype="http://schema.skype.com/AMSVideo" src="x"></video>', "", ("video",)),
        ("<script>alert(1)</script>safe<style>x</style>", "safe", ()),
        ('<a href="https://evil">click</a>', "click", ()),
    ],
)
def test_markup_becomes_text(markup: str, text: str, labels: tuple[str, ...]) -> None:
    found = made(markup)
    assert (found.text, found.labels) == (text, labels)


def test_plain_text_stays_as_it_is() -> None:
    assert made("<b>1 < 2</b>", "text").text == "<b>1 < 2</b>"


def test_deleted_messages_show_nothing_and_events_are_none() -> None:
    gone = made("<p>secret</p>", deletedDateTime="2026-01-01T00:00:00Z", attachments=[{"contentType": "x/y"}])
    assert (gone.deleted, gone.text, gone.labels) == (True, "", ())
    for kind in ("systemEventMessage", "unknownFutureValue", "typing", "chatEvent"):
        assert message({"id": "1", "messageType": kind}) is None


@given(st.text())
def test_no_markup_breaks_it(markup: str) -> None:
    made(markup)


@pytest.mark.parametrize(
    ("resource", "place", "found", "thread"),
    [
        ("chats('19:a@unq.gbl.spaces')/messages('7')", ("", "19:a@unq.gbl.spaces"), "7", ""),
        ("teams('t')/channels('19:c')/messages('8')", ("t", "19:c"), "8", ""),
        ("teams('t')/channels('19:c')/messages('8')/replies('9')", ("t", "19:c"), "9", "8"),
    ],
)
def test_a_deleted_message_is_known_by_its_address(
    resource: str, place: tuple[str, str], found: str, thread: str
) -> None:
    team, conversation, message = deleted(resource)
    assert (team, conversation) == place
    assert message is not None
    assert (message.id, message.thread, message.deleted, message.text) == (found, thread, True, "")
    assert deleted("users('x')") == ("", "", None)
