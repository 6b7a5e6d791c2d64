"""A caller who withholds his number (RFC 3323, 3325): who is called on his behalf is not shown it either."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.calls.call import Call
from gateway.calls.remember import capture, rebuild
from gateway.cdr.call_state import fold
from gateway.model import CallId
from tests.calls.conftest import OpenHouse
from tests.calls.house import CUSTOMER, EXPERT, House
from tests.calls.matrix import THIRD, control, leg_of, only_call
from tests.peers.contact_center_call import CenterCall
from tests.peers.teams_call import TeamsCall

PRIVATE = [("Privacy", "id")]


async def withheld_call(h: House) -> tuple[CenterCall, TeamsCall]:
    customer = await h.center.call(EXPERT, headers=PRIVATE)
    expert = await h.teams.expect_invite()
    await expert.answer()
    await customer.answered()
    assert_not_shown(expert)
    return customer, expert


def assert_not_shown(called: TeamsCall) -> None:
    """P-Asserted-Identity is for Teams, which honours Privacy (config/direct-routing.md)."""
    assert called.invited is not None
    request = called.invited.request
    assert CUSTOMER not in request.get("From")
    assert "anonymous" in request.get("From").lower()
    assert CUSTOMER not in request.get("Contact")
    assert request.get("Privacy") == "id"


async def test_a_transfer_by_teams_keeps_it_withheld(house: OpenHouse) -> None:
    async with house() as h:
        customer, expert = await withheld_call(h)
        referral = await expert.refer()
        colleague = await h.teams.expect_invite()
        assert_not_shown(colleague)
        await colleague.answer()
        await referral.finished()
        await expert.hang_up()
        await customer.bye()
        await colleague.expect_end()
        await h.quiet()
        [row] = h.rows()
        assert row.from_phone == CUSTOMER, "our own records may have it"


@pytest.mark.parametrize("how", ["transfer", "consult"])
async def test_a_command_keeps_it_withheld(house: OpenHouse, how: str) -> None:
    async with house() as h:
        customer, expert = await withheld_call(h)
        view = only_call(h)
        if how == "transfer":
            await control(h).transfer(view.id, leg_of(view, EXPERT).id, THIRD, trunk="teams")
        else:
            await control(h).consult(view.id, leg_of(view, CUSTOMER).id, THIRD)
        called = await h.teams.expect_invite()
        assert_not_shown(called)
        await called.decline(486)
        await customer.bye()
        await expert.expect_end()


async def test_a_restart_keeps_it_withheld(house: OpenHouse) -> None:
    """A record of an older gateway says nothing of it."""
    async with house() as h:
        customer, expert = await withheld_call(h)
        [call] = h.gateway.calls.calls.values()
        record: dict[str, Any] = json.loads(json.dumps(capture(call)))
        for leg in record["legs"]:
            leg.update(session=None, anchor=None, invite=None)
        assert remembered(h, call, record) == {CUSTOMER: True, EXPERT: False}
        for leg in record["legs"]:
            del leg["withheld"]
        assert remembered(h, call, record) == {CUSTOMER: False, EXPERT: False}
        await customer.bye()
        await expert.expect_end()


def remembered(h: House, call: Call, record: dict[str, Any]) -> dict[str, bool]:
    """number -> withheld, of the legs that the next gateway makes of the record."""
    again = Call(
        h.gateway.context,
        on_end=lambda _: None,
        on_refer=call._news._on_refer,
        limits=call._limits,
        known_as=(CallId(call.id), call.interaction),
    )
    found = rebuild(h.gateway.context, again, record, fold(h.events)[call.id])
    return {leg.number: leg.withheld for leg in found.call.legs.values()}
