"""Log lines: what they show, what they must never show."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import Literal

import pytest

from gateway.logs import LogSetup, under_journald

Writer = Callable[..., io.StringIO]


@pytest.fixture
def writer() -> Iterator[Writer]:
    """Call it with `form` and secrets for the stream that log lines go to."""
    setups: list[LogSetup] = []

    def make(form: Literal["text", "json"] = "text", *secrets: str, level: str = "info") -> io.StringIO:
        stream = io.StringIO()
        setups.append(LogSetup(level=level, form=form, secrets=secrets, stream=stream))
        return stream

    yield make
    for setup in setups:
        setup.close()


LOG = logging.getLogger("tandem.calls")


def test_a_text_line_has_time_level_room_and_message(writer: Writer) -> None:
    stream = writer()
    LOG.info("event=answered call=%s", "c1")
    LOG.debug("event=too_fine")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO calls event=answered call=c1\n", stream.getvalue()
    )


def test_a_json_line_has_the_messages_fields(writer: Writer) -> None:
    stream = writer("json")
    LOG.warning('event=refused trunk=cc text="a b" code=503')
    line = json.loads(stream.getvalue())
    assert (line["event"], line["trunk"], line["text"], line["code"]) == ("refused", "cc", "a b", "503")
    assert (line["level"], line["logger"]) == ("warning", "tandem.calls")


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.allow_tracebacks
def test_no_secret_reaches_a_line_not_even_in_a_traceback(
    writer: Writer, form: Literal["text", "json"]
) -> None:
    stream = writer(form, "hunter2", "hunter2-longer", "abc")
    LOG.info("event=x password=%s and %s", "hunter2-longer", "abc")
    try:
        raise ValueError("failed with hunter2")
    except ValueError:
        LOG.exception("event=oops")
    text = stream.getvalue()
    assert "hunter2" not in text
    assert "longer" not in text
    assert "ValueError: failed with ***" in text
    assert "abc" in text, "a secret of three letters would blank out ordinary words"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_peers_line_breaks_cannot_forge_a_line(writer: Writer, form: Literal["text", "json"]) -> None:
    stream = writer(form)
    LOG.info("event=x text=%s", "a\r\n2026-01-01T00:00:00.000Z INFO calls event=forged\u2028\x1b[2J")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text


def test_under_journald_lines_carry_a_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with os.fdopen(read) as reader, os.fdopen(write, "w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert under_journald(stream)
        setup = LogSetup(stream=stream)
        LOG.error("event=x")
        setup.close()
        stream.flush()
        assert reader.readline() == "<3>calls event=x\n"


def test_closing_gives_the_root_logger_back() -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    LogSetup(level="debug", stream=io.StringIO()).close()
    assert (root.level, list(root.handlers)) == before


def test_libraries_that_would_say_secrets_do_not_debug() -> None:
    stream = io.StringIO()
    setup = LogSetup(level="debug", stream=stream)
    try:
        logging.getLogger("msal.token_cache").debug("event={code}")
        logging.getLogger("msal.token_cache").info("told")
        logging.getLogger("tandem.teams").debug("ours")
    finally:
        setup.close()
    assert "code" not in stream.getvalue()
    assert "told" in stream.getvalue()
    assert "ours" in stream.getvalue()
    assert logging.getLogger("msal").level == logging.NOTSET
